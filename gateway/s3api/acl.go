package s3api

import (
	"cmp"
	"encoding/xml"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"chatelaine/gateway/objects"
)

// ACLs grant nothing here. A bucket may be set to have them, as on S3, and then
// requests about them are judged as S3 judges them where public access is blocked;
// but none that would give anybody a right succeeds.

type accessPolicy struct {
	XMLName xml.Name `xml:"http://s3.amazonaws.com/doc/2006-03-01/ AccessControlPolicy"`
	Owner   *owner
	Grants  []grant `xml:"AccessControlList>Grant"`
}

type grant struct {
	Grantee    grantee
	Permission string
}

type grantee struct {
	XSI         string `xml:"xmlns:xsi,attr"`
	Type        string `xml:"xsi:type,attr"`
	ID          string
	DisplayName string
}

// getACL answers for a bucket, or for an object that must be there.
func (c *call) getACL() error {
	if err := c.needObject(); err != nil {
		return err
	}
	o := c.bucketOwner()
	return c.writeXML(http.StatusOK, accessPolicy{Owner: o, Grants: []grant{{
		Grantee:    grantee{"http://www.w3.org/2001/XMLSchema-instance", "CanonicalUser", o.ID, o.DisplayName},
		Permission: "FULL_CONTROL",
	}}})
}

func (c *call) needObject() error {
	if c.level != levelObject {
		return nil
	}
	stat, _, err := c.Service.Head(c.ctx, objects.GetRequest{Bucket: c.bucket, Key: c.key, Version: c.query.Get("versionId")})
	if err == nil {
		setIf(c.w.Header(), "X-Amz-Version-Id", stat.Version)
	}
	return err
}

// putACL takes what leaves the ACL as it is: the canned ones that say no more, and the
// document that getACL answers with.
func (c *call) putACL() error {
	text, err := c.readBody()
	if err != nil {
		return err
	}
	ownership, err := c.ownership()
	if err != nil {
		return err
	}
	canned, granting := c.aclHeaders()
	switch {
	case (canned || granting) && len(text) > 0:
		err = bad("UnexpectedContent", "This request does not support content.")
	case canned || granting:
		err = c.checkACL(ownership)
	default:
		err = c.checkPolicy(text, ownership)
	}
	if err != nil {
		return err
	}
	return c.done(c.needObject())
}

// aclHeaders says which kinds of headers about an ACL a request has.
func (c *call) aclHeaders() (canned, granting bool) {
	for name := range c.header {
		granting = granting || strings.HasPrefix(name, grantPrefix)
	}
	return c.header.Get("X-Amz-Acl") != "", granting
}

const grantPrefix = "X-Amz-Grant-"

// checkObjectACL judges what a write of an object says about its ACL.
func (c *call) checkObjectACL() error {
	if canned, granting := c.aclHeaders(); !canned && !granting {
		return nil
	}
	ownership, err := c.ownership()
	if err != nil {
		return err
	}
	return c.checkACL(ownership)
}

// checkACL judges the headers about an ACL.
func (c *call) checkACL(ownership string) error {
	canned, granting := c.aclHeaders()
	switch {
	case granting && ownership == ownerEnforced:
		return c.aclRefused()
	case granting && canned:
		return invalidRequest("Specifying both Canned ACLs and Header Grants is not allowed.")
	case granting:
		return c.checkGrants()
	}
	return c.checkCanned(c.header.Get("X-Amz-Acl"), ownership)
}

// checkCanned: what speaks of the bucket's owner gives nobody else anything.
func (c *call) checkCanned(acl, ownership string) error {
	enforced := ownership == ownerEnforced
	switch acl {
	case "", "private":
		return nil
	case "bucket-owner-full-control":
		if c.level == levelObject {
			return nil
		}
	case "bucket-owner-read":
		if c.level == levelObject && !enforced {
			return nil
		}
	case "public-read", "public-read-write", "authenticated-read":
		if !enforced {
			return accessDenied() // as S3 where BlockPublicAcls is set
		}
	case "aws-exec-read", "log-delivery-write":
	default:
		return invalidArgument("", "x-amz-acl", acl)
	}
	if enforced {
		return c.aclRefused()
	}
	return notImplemented("x-amz-acl")
}

// aclRefused: S3 has a code of its own for buckets that are being made.
func (c *call) aclRefused() *fault {
	if c.route.name == "CreateBucket" {
		return bad("InvalidBucketAclWithObjectOwnership", "Bucket cannot have ACLs set with ObjectOwnership's BucketOwnerEnforced setting")
	}
	return aclNotSupported()
}

// checkGrants reads the x-amz-grant-* headers, lists of id="...", uri="..." and
// emailAddress="...". Only full control for the owner is what is so already.
func (c *call) checkGrants() error {
	var names []string
	for name := range c.header {
		if strings.HasPrefix(name, grantPrefix) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		low := strings.ToLower(name)
		for _, text := range strings.Split(c.header.Get(name), ",") {
			kind, value, ok := strings.Cut(strings.TrimSpace(text), "=")
			value = strings.Trim(value, `"`)
			switch {
			case !ok || value == "" || !slices.Contains([]string{"id", "uri", "emailAddress"}, kind):
				return invalidArgument("Argument format not recognized", low, c.header.Get(name))
			case kind == "uri" && publicGroup(value):
				return accessDenied()
			case kind != "id" || low != "x-amz-grant-full-control" || !c.ownerToBe(value):
				return notImplemented(low)
			}
		}
	}
	return nil
}

// ownerToBe is owns for buckets that are being made as well.
func (c *call) ownerToBe(name string) bool {
	bucket := c.bucket
	if c.route.name == "CreateBucket" {
		bucket.Owner = c.principal
	}
	return c.owns(bucket, name)
}

func publicGroup(uri string) bool {
	return uri == "http://acs.amazonaws.com/groups/global/AllUsers" || uri == "http://acs.amazonaws.com/groups/global/AuthenticatedUsers"
}

// policyInput is an accessPolicy as clients write it.
type policyInput struct {
	Owner  *struct{ ID string }
	Grants []grantInput `xml:"AccessControlList>Grant"`
}

type grantInput struct {
	Grantee struct {
		Type string `xml:"type,attr"`
		ID   string
		URI  string
		Mail string `xml:"EmailAddress"`
	}
	Permission string
}

func (c *call) checkPolicy(text []byte, ownership string) error {
	if len(text) == 0 {
		return bad("MissingSecurityHeader", "Your request was missing a required header.")
	}
	var document policyInput
	if decodeXML(text, "AccessControlPolicy", &document) != nil || !document.wellFormed() {
		return bad("MalformedACLError", "The XML you provided was not well-formed or did not validate against our published schema.")
	}
	mine := c.owns(c.bucket, document.Owner.ID)
	same := mine && len(document.Grants) > 0
	public := false
	for _, g := range document.Grants {
		same = same && g.Permission == "FULL_CONTROL" && c.owns(c.bucket, g.Grantee.ID)
		public = public || publicGroup(g.Grantee.URI)
	}
	switch {
	case same:
		return nil
	case ownership == ownerEnforced:
		return aclNotSupported()
	case !mine:
		return invalidArgument("Invalid id", "CanonicalUser/ID", document.Owner.ID)
	case public:
		return accessDenied()
	}
	return notImplemented("").with(field{"Element", "AccessControlList"})
}

// wellFormed follows the schema of an AccessControlPolicy.
func (p policyInput) wellFormed() bool {
	if p.Owner == nil || p.Owner.ID == "" {
		return false
	}
	for _, g := range p.Grants {
		if !slices.Contains([]string{"FULL_CONTROL", "WRITE", "WRITE_ACP", "READ", "READ_ACP"}, g.Permission) {
			return false
		}
		named := g.Grantee.ID != ""
		switch g.Grantee.Type {
		case "", "CanonicalUser":
		case "Group":
			named = g.Grantee.URI != ""
		case "AmazonCustomerByEmail":
			named = g.Grantee.Mail != ""
		default:
			return false
		}
		if !named {
			return false
		}
	}
	return true
}

type ownershipDocument struct {
	XMLName xml.Name `xml:"http://s3.amazonaws.com/doc/2006-03-01/ OwnershipControls"`
	Rules   []string `xml:"Rule>ObjectOwnership"`
}

// The settings of object ownership. With the first a bucket has no ACLs, and that is
// how it is made; where the setting was removed it counts as the last, as on S3.
const (
	ownerEnforced  = "BucketOwnerEnforced"
	ownerPreferred = "BucketOwnerPreferred"
	objectWriter   = "ObjectWriter"
)

func validOwnership(v string) bool {
	return v == ownerEnforced || v == ownerPreferred || v == objectWriter
}

// ownershipRule reads the bucket's setting; empty where it was removed.
func (c *call) ownershipRule() (string, error) {
	text, err := c.configured(configOwnership)
	if err != nil {
		return "", err
	}
	switch rule := string(text); {
	case text == nil:
		return ownerEnforced, nil
	case rule == "" || validOwnership(rule):
		return rule, nil
	}
	return "", fmt.Errorf("s3api: reading the ownership of bucket %q: the stored setting is damaged", c.bucket.Name)
}

// ownership is the setting that counts.
func (c *call) ownership() (string, error) {
	rule, err := c.ownershipRule()
	return cmp.Or(rule, objectWriter), err
}

func (c *call) getOwnership() error {
	rule, err := c.ownershipRule()
	if err == nil && rule == "" {
		err = refused(http.StatusNotFound, "OwnershipControlsNotFoundError", "The bucket ownership controls were not found.",
			field{"BucketName", c.bucketName})
	}
	if err != nil {
		return err
	}
	return c.writeXML(http.StatusOK, ownershipDocument{Rules: []string{rule}})
}

func (c *call) putOwnership() error {
	var document struct {
		Rules []struct{ ObjectOwnership string } `xml:"Rule"`
	}
	if err := c.readConfig("OwnershipControls", &document); err != nil {
		return err
	}
	if len(document.Rules) != 1 || !validOwnership(document.Rules[0].ObjectOwnership) {
		return malformedXML()
	}
	return c.done(c.setOwnership(document.Rules[0].ObjectOwnership))
}

func (c *call) setOwnership(rule string) error {
	return c.Service.SetBucketConfig(c.ctx, c.bucket, configOwnership, []byte(rule))
}

// deleteOwnership remembers that there is none: a bucket that never had any is
// another.
func (c *call) deleteOwnership() error { return c.gone(c.setOwnership("")) }
