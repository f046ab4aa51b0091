package s3api

import (
	"cmp"
	"encoding/base64"
	"encoding/xml"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"chatelaine/backends"
	"chatelaine/gateway/keys"
	"chatelaine/gateway/objects"
)

// maxBuckets is the longest page of ListBuckets.
const maxBuckets = 10000

type listBucketsResult struct {
	XMLName           xml.Name        `xml:"http://s3.amazonaws.com/doc/2006-03-01/ ListAllMyBucketsResult"`
	Buckets           []bucketElement `xml:"Buckets>Bucket"`
	Owner             owner
	ContinuationToken string `xml:",omitempty"`
	Prefix            string `xml:",omitempty"`
}

type bucketElement struct {
	Name         string
	CreationDate string
	BucketRegion string `xml:",omitempty"`
}

// listBuckets answers with the buckets that the principal may do something to, by
// name.
func (c *call) listBuckets() error {
	limit, err := c.maxBuckets()
	if err != nil {
		return err
	}
	after, err := c.bucketToken()
	if err != nil {
		return err
	}
	all, err := c.Service.Buckets(c.ctx)
	if err != nil {
		return err
	}
	result := listBucketsResult{Owner: owner{c.principal, c.principal}, Prefix: c.query.Get("prefix")}
	page, more, err := c.pageOf(all, after, limit)
	if err != nil {
		return err
	}
	if more {
		result.ContinuationToken = page[len(page)-1].Name
	}
	for _, b := range page {
		result.Buckets = append(result.Buckets, bucketElement{
			Name: b.Name, CreationDate: iso(b.Created), BucketRegion: c.Region,
		})
	}
	return c.writeXML(http.StatusOK, result)
}

func (c *call) maxBuckets() (int, error) {
	text := c.query.Get("max-buckets")
	if text == "" {
		return maxBuckets, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > maxBuckets {
		return 0, invalidArgument("Argument max-buckets must be an integer between 1 and 10000.", "max-buckets", text)
	}
	return n, nil
}

// pageOf selects the buckets of one page. All of them are in the gateway's region.
func (c *call) pageOf(all []keys.Bucket, after string, limit int) (page []keys.Bucket, more bool, err error) {
	if region := c.query.Get("bucket-region"); region != "" && region != c.Region {
		return nil, false, nil
	}
	slices.SortFunc(all, func(a, b keys.Bucket) int { return strings.Compare(a.Name, b.Name) })
	for _, b := range all {
		if b.Name <= after || !strings.HasPrefix(b.Name, c.query.Get("prefix")) {
			continue
		}
		sees, err := c.Authorizer.Sees(c.ctx, c.question(b.Name, b.Owner, "", ""))
		switch {
		case err != nil:
			return nil, false, err
		case !sees:
			continue
		case len(page) == limit:
			return page, true, nil
		}
		page = append(page, b)
	}
	return page, false, nil
}

// bucketToken is the bucket after which a page begins. A name needs no hiding from
// whom it was listed to.
func (c *call) bucketToken() (string, error) {
	token := c.query.Get("continuation-token")
	if token != "" && !validBucketName(token) {
		return "", invalidArgument("The continuation token provided is incorrect", "continuation-token", token)
	}
	return token, nil
}

// Tokens are opaque to clients: what they mean is the service's.
func encodeToken(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

func decodeToken(s string) (string, error) {
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil {
		return "", invalidArgument("The continuation token provided is incorrect", "continuation-token", s)
	}
	return string(b), nil
}

type createBucketConfiguration struct {
	XMLName            xml.Name
	LocationConstraint string
	Tags               []tagElement `xml:"Tags>Tag"`
	Others             []anyElement `xml:",any"`
}

type anyElement struct{ XMLName xml.Name }

func (c *call) createBucket() error {
	if !validBucketName(c.bucketName) {
		return invalidBucketName(c.bucketName)
	}
	if err := c.checkBucketHeaders(); err != nil {
		return err
	}
	tags, store, err := c.readCreation()
	if err != nil {
		return err
	}
	if err := c.authorizeSettings(tags); err != nil {
		return err
	}
	create := c.Service.CreateBucketOn
	if c.wantsLocks() {
		create = c.Service.CreateLockedBucketOn
	}
	err = create(c.ctx, c.principal, c.bucketName, store)
	if errors.Is(err, objects.ErrNoStore) {
		return bad("InvalidLocationConstraint", "The specified location-constraint is not valid", field{"LocationConstraint", store})
	}
	if err != nil {
		return err
	}
	if err := c.configureNewBucket(tags); err != nil {
		return err
	}
	c.w.Header().Set("Location", "/"+c.bucketName)
	c.w.Header().Set("X-Amz-Bucket-Arn", "arn:aws:s3:::"+c.bucketName)
	c.w.Header().Set("Content-Length", "0")
	c.w.WriteHeader(http.StatusOK)
	return nil
}

// checkBucketHeaders judges what a request asks of its new bucket.
func (c *call) checkBucketHeaders() error {
	switch lock := c.header.Get("X-Amz-Bucket-Object-Lock-Enabled"); strings.ToLower(lock) {
	case "", "false", "true":
	default:
		return invalidArgument("Invalid x-amz-bucket-object-lock-enabled header: "+lock, "x-amz-bucket-object-lock-enabled", "")
	}
	ownership := c.newOwnership()
	if !validOwnership(ownership) {
		return invalidArgument("Invalid x-amz-object-ownership header: "+ownership, "x-amz-object-ownership", "")
	}
	return c.checkACL(ownership)
}

// newOwnership is the setting of a bucket that is being made.
func (c *call) newOwnership() string {
	return cmp.Or(c.header.Get("X-Amz-Object-Ownership"), ownerEnforced)
}

func (c *call) wantsLocks() bool {
	return strings.EqualFold(c.header.Get("X-Amz-Bucket-Object-Lock-Enabled"), "true")
}

// authorizeSettings asks for the rights to what a new bucket is to be beside empty,
// before it is made. Its owner will be the principal.
func (c *call) authorizeSettings(tags backends.Tags) error {
	for _, right := range []struct {
		needed bool
		action string
	}{
		{c.wantsLocks(), "s3:PutBucketObjectLockConfiguration"},
		{c.wantsLocks(), "s3:PutBucketVersioning"},
		{c.newOwnership() != ownerEnforced, "s3:PutBucketOwnershipControls"},
		{len(tags) > 0, "s3:PutBucketTagging"},
	} {
		if right.needed {
			if err := c.authorizeIn(c.bucketName, c.principal, right.action, ""); err != nil {
				return err
			}
		}
	}
	return nil
}

// configureNewBucket makes the bucket what authorizeSettings was asked for.
func (c *call) configureNewBucket(tags backends.Tags) error {
	ownership := c.newOwnership()
	if len(tags) == 0 && ownership == ownerEnforced {
		return nil
	}
	var err error
	if c.bucket, err = c.Service.Bucket(c.ctx, c.bucketName); err != nil {
		return err
	}
	if ownership != ownerEnforced {
		if err := c.setOwnership(ownership); err != nil {
			return err
		}
	}
	if len(tags) == 0 {
		return nil
	}
	return c.storeConfig(configTagging, newTagging(tags))
}

// readCreation reads the document of CreateBucket: a new bucket's tags, and where it
// shall be.
func (c *call) readCreation() (tags backends.Tags, store string, err error) {
	if c.r.ContentLength == 0 {
		return nil, "", nil
	}
	text, err := c.readBody()
	if err != nil || len(text) == 0 {
		return nil, "", err
	}
	var conf createBucketConfiguration
	if err := decodeXML(text, "CreateBucketConfiguration", &conf); err != nil {
		return nil, "", err
	}
	if len(conf.Others) > 0 { // Location and Bucket are not of general purpose buckets
		return nil, "", notImplemented("").with(field{"Element", conf.Others[0].XMLName.Local})
	}
	// Our region is what clients say who know of no backends; any other location is the
	// name of one.
	if store = conf.LocationConstraint; store == c.Region && store != defaultRegion {
		store = ""
	}
	tags, err = checkTags(conf.Tags, maxBucketTags, bucketTagsLimited)
	return tags, store, err
}

// defaultRegion is the one that S3 names by saying nothing: in answers, and in the
// constraint of a new bucket, where its name is refused ("CreateBucket").
const defaultRegion = "us-east-1"

func (c *call) headBucket() error {
	if err := c.Service.HeadBucket(c.ctx, c.bucket); err != nil {
		return err
	}
	c.w.Header().Set("X-Amz-Bucket-Region", c.Region)
	c.w.Header().Set("X-Amz-Bucket-Location-Name", c.bucket.Store)
	c.w.Header().Set("X-Amz-Access-Point-Alias", "false")
	c.w.WriteHeader(http.StatusOK)
	return nil
}

func (c *call) deleteBucket() error {
	err := c.Service.DeleteBucket(c.ctx, c.bucket)
	if errors.Is(err, backends.ErrBucketNotEmpty) {
		if state, _ := c.Service.Versioning(c.ctx, c.bucket); state != backends.VersioningOff {
			f := bucketNotEmpty(c, err)
			f.message += " You must delete all versions in the bucket."
			return f
		}
	}
	return c.gone(err)
}

type locationResult struct {
	XMLName  xml.Name `xml:"http://s3.amazonaws.com/doc/2006-03-01/ LocationConstraint"`
	Location string   `xml:",chardata"`
}

func (c *call) getBucketLocation() error {
	region := c.Region
	if region == defaultRegion {
		region = ""
	}
	return c.writeXML(http.StatusOK, locationResult{Location: region})
}
