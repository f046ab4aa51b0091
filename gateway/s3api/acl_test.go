package s3api

import (
	"strings"
	"testing"
)

func ownershipXML(v string) string {
	return "<OwnershipControls><Rule><ObjectOwnership>" + v + "</ObjectOwnership></Rule></OwnershipControls>"
}

// aclXML is a policy with one grant, of the given type and to the given child of
// Grantee.
func aclXML(owner, kind, grantee, permission string) string {
	return `<AccessControlPolicy><Owner><ID>` + owner + `</ID></Owner><AccessControlList><Grant>` +
		`<Grantee xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:type="` + kind + `">` + grantee + `</Grantee>` +
		`<Permission>` + permission + `</Permission></Grant></AccessControlList></AccessControlPolicy>`
}

func TestObjectOwnershipIsKept(t *testing.T) {
	w := newWorld(t)
	get := func(bucket string) string {
		a := w.send(sent{method: "GET", path: "/" + bucket + "?ownershipControls"})
		_, rest, _ := strings.Cut(string(a.body), "<ObjectOwnership>")
		rule, _, _ := strings.Cut(rest, "<")
		return rule + a.fault.Code
	}
	equal(t, "of a new bucket", get("bucket"), "BucketOwnerEnforced")
	for _, rule := range []string{"ObjectWriter", "BucketOwnerPreferred", "BucketOwnerEnforced"} {
		w.wants(w.send(sent{method: "PUT", path: "/bucket?ownershipControls", body: ownershipXML(rule)}), 200, "")
		equal(t, "as it was set", get("bucket"), rule)
	}
	w.wants(w.send(sent{method: "PUT", path: "/bucket?ownershipControls", body: ownershipXML("x")}), 400, "MalformedXML")
	equal(t, "after a refused change", get("bucket"), "BucketOwnerEnforced")
	w.wants(w.send(sent{method: "DELETE", path: "/bucket?ownershipControls"}), 204, "")
	equal(t, "after its removal", get("bucket"), "OwnershipControlsNotFoundError")

	w.wants(w.send(sent{method: "PUT", path: "/new", header: []string{"X-Amz-Object-Ownership: ObjectWriter"}}), 200, "")
	equal(t, "as the bucket was made", get("new"), "ObjectWriter")
	equal(t, "what access was asked", w.access.asked[len(w.access.asked)-2].Action, "s3:PutBucketOwnershipControls")
}

func TestNoACLGrantsAnythingWhateverTheOwnership(t *testing.T) {
	const (
		allUsers = "http://acs.amazonaws.com/groups/global/AllUsers"
		ann, bob = "<ID>ann</ID>", "<ID>bob</ID>"
		canned   = "X-Amz-Acl: "
	)
	for _, tt := range []struct {
		name, path, body, header string
		enforced, other          string // code where the owner's ownership is enforced, and where not
	}{
		{"private", "/bucket?acl", "", canned + "private", "", ""},
		{"public", "/bucket?acl", "", canned + "public-read", "AccessControlListNotSupported", "AccessDenied"},
		{"public to write", "/bucket?acl", "", canned + "public-read-write", "AccessControlListNotSupported", "AccessDenied"},
		{"everybody who has a key", "/bucket/k?acl", "", canned + "authenticated-read", "AccessControlListNotSupported", "AccessDenied"},
		{"for logs", "/bucket?acl", "", canned + "log-delivery-write", "AccessControlListNotSupported", "NotImplemented"},
		{"the owner's", "/bucket/k?acl", "", canned + "bucket-owner-full-control", "", ""},
		{"the owner's to read", "/bucket/k?acl", "", canned + "bucket-owner-read", "AccessControlListNotSupported", ""},
		{"the owner's of a bucket", "/bucket?acl", "", canned + "bucket-owner-read", "AccessControlListNotSupported", "NotImplemented"},
		{"unknown", "/bucket?acl", "", canned + "x", "InvalidArgument", "InvalidArgument"},
		{"nothing", "/bucket?acl", "", "", "MissingSecurityHeader", "MissingSecurityHeader"},
		{"a grant to oneself", "/bucket?acl", "", `X-Amz-Grant-Full-Control: id="ann"`, "AccessControlListNotSupported", ""},
		{"a grant to one's key", "/bucket?acl", "", `X-Amz-Grant-Full-Control: id=` + annKey, "AccessControlListNotSupported", ""},
		{"a lesser grant to oneself", "/bucket?acl", "", `X-Amz-Grant-Read: id="ann"`, "AccessControlListNotSupported", "NotImplemented"},
		{"a grant to another", "/bucket?acl", "", `X-Amz-Grant-Full-Control: id="ann", id="bob"`, "AccessControlListNotSupported", "NotImplemented"},
		{"a grant to all", "/bucket?acl", "", `X-Amz-Grant-Read: uri="` + allUsers + `"`, "AccessControlListNotSupported", "AccessDenied"},
		{"a grant by mail", "/bucket?acl", "", `X-Amz-Grant-Read: emailAddress="a@b"`, "AccessControlListNotSupported", "NotImplemented"},
		{"a grant to nobody", "/bucket?acl", "", `X-Amz-Grant-Read: bob`, "AccessControlListNotSupported", "InvalidArgument"},
		{"a header and a document", "/bucket?acl", aclXML("ann", "CanonicalUser", ann, "FULL_CONTROL"), canned + "private", "UnexpectedContent", "UnexpectedContent"},
		{"what is", "/bucket?acl", aclXML("ann", "CanonicalUser", ann, "FULL_CONTROL"), "", "", ""},
		{"what is, of an object", "/bucket/k?acl", aclXML("ann", "CanonicalUser", ann, "FULL_CONTROL"), "", "", ""},
		{"to another", "/bucket?acl", aclXML("ann", "CanonicalUser", bob, "READ"), "", "AccessControlListNotSupported", "NotImplemented"},
		{"to all", "/bucket?acl", aclXML("ann", "Group", "<URI>"+allUsers+"</URI>", "READ"), "", "AccessControlListNotSupported", "AccessDenied"},
		{"of another", "/bucket?acl", aclXML("bob", "CanonicalUser", bob, "FULL_CONTROL"), "", "AccessControlListNotSupported", "InvalidArgument"},
		{"without an owner's name", "/bucket?acl", aclXML("", "CanonicalUser", ann, "READ"), "", "MalformedACLError", "MalformedACLError"},
		{"of an unknown kind", "/bucket?acl", aclXML("ann", "x", ann, "READ"), "", "MalformedACLError", "MalformedACLError"},
		{"to do what is unknown", "/bucket?acl", aclXML("ann", "CanonicalUser", ann, "x"), "", "MalformedACLError", "MalformedACLError"},
		{"to nobody", "/bucket?acl", aclXML("ann", "CanonicalUser", "", "READ"), "", "MalformedACLError", "MalformedACLError"},
		{"to a group by a user's name", "/bucket?acl", aclXML("ann", "Group", ann, "READ"), "", "MalformedACLError", "MalformedACLError"},
		{"an object that is public", "/bucket/k", "v", canned + "public-read", "AccessControlListNotSupported", "AccessDenied"},
		{"an object with a grant", "/bucket/k", "v", `X-Amz-Grant-Read: id="bob"`, "AccessControlListNotSupported", "NotImplemented"},
		{"an object of one's own", "/bucket/k", "v", `X-Amz-Grant-Full-Control: id="ann"`, "AccessControlListNotSupported", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			w.put("k", "v")
			s := sent{method: "PUT", path: tt.path, body: tt.body}
			if tt.header != "" {
				s.header = []string{tt.header}
			}
			equal(t, "enforced", w.send(s).fault.Code, tt.enforced)
			for _, rule := range []string{"BucketOwnerPreferred", "ObjectWriter", ""} {
				change := sent{method: "PUT", path: "/bucket?ownershipControls", body: ownershipXML(rule)}
				if rule == "" { // removed: as if it were the last
					change = sent{method: "DELETE", path: "/bucket?ownershipControls"}
				}
				w.send(change)
				equal(t, "with the ownership "+rule, w.send(s).fault.Code, tt.other)
			}
			for _, path := range []string{"/bucket?acl", "/bucket/k?acl"} {
				a := w.send(sent{method: "GET", path: path})
				if strings.Count(string(a.body), "<Grant>") != 1 || !strings.Contains(string(a.body), "<ID>ann</ID><DisplayName>ann</DisplayName></Grantee><Permission>FULL_CONTROL<") {
					t.Errorf("the ACL afterwards: %s", a.body)
				}
			}
			equal(t, "another's reading", w.send(sent{method: "GET", path: "/bucket/k", key: bobKey, secret: bobSecret}).fault.Code, "AccessDenied")
		})
	}
}

func TestCannedACLsAndGrantsExcludeEachOther(t *testing.T) {
	w := newWorld(t)
	s := sent{method: "PUT", path: "/bucket?acl", header: []string{"X-Amz-Acl: private", "X-Amz-Grant-Full-Control: id=ann"}}
	w.wants(w.send(s), 400, "AccessControlListNotSupported")
	w.wants(w.send(sent{method: "PUT", path: "/bucket?ownershipControls", body: ownershipXML("ObjectWriter")}), 200, "")
	w.wants(w.send(s), 400, "InvalidRequest")
}

func TestTheOwnerMayBeExpectedByTheAccessKeyThatAsks(t *testing.T) {
	w := newWorld(t)
	w.put("k", "v", "X-Amz-Expected-Bucket-Owner: "+annKey)
	w.put("k", "v", "X-Amz-Expected-Bucket-Owner: ann")
	w.wants(w.copy("/bucket/c", "bucket/k", "X-Amz-Source-Expected-Bucket-Owner: "+annKey), 200, "")
	// Nor does a key's name open another's bucket.
	w.wants(w.send(sent{method: "GET", path: "/bucket/k", key: bobKey, secret: bobSecret, header: []string{"X-Amz-Expected-Bucket-Owner: " + bobKey}}), 403, "AccessDenied")
}

func TestTheRedirectOfAWebsiteIsKeptWithItsObjectAlone(t *testing.T) {
	const name, first, second = "X-Amz-Website-Redirect-Location", "https://example.com/a?b=c", "/other"
	w := newWorld(t)
	at := func(path string) string {
		head := w.send(sent{method: "HEAD", path: path}).header.Get(name)
		equal(t, "GET and HEAD of "+path, w.send(sent{method: "GET", path: path}).header.Get(name), head)
		return head
	}
	w.put("k", "v", name+": "+first, "X-Amz-Meta-A: b")
	equal(t, "of a PUT", at("/bucket/k"), first)
	w.put("big", string(noise(300<<10)), name+": "+first)
	equal(t, "of a larger one", at("/bucket/big"), first)
	w.wants(w.copy("/bucket/c", "bucket/k"), 200, "")
	equal(t, "of a copy", at("/bucket/c"), "")
	equal(t, "its metadata", w.send(sent{method: "HEAD", path: "/bucket/c"}).header.Get("X-Amz-Meta-A"), "b")
	w.wants(w.copy("/bucket/c", "bucket/k", name+": "+second), 200, "")
	equal(t, "of a copy with its own", at("/bucket/c"), second)
	w.wants(w.copy("/bucket/c", "bucket/k", "X-Amz-Metadata-Directive: REPLACE"), 200, "")
	equal(t, "of a copy with other metadata", at("/bucket/c"), "")
	w.wants(w.copy("/bucket/c", "bucket/k", "X-Amz-Metadata-Directive: REPLACE", name+": "+second), 200, "")
	equal(t, "of a copy with all its own", at("/bucket/c"), second)
	w.wants(w.copy("/bucket/c", "bucket/k", "X-Amz-Checksum-Algorithm: SHA256"), 200, "")
	equal(t, "of a copy that is sealed again", at("/bucket/c"), "")
	w.wants(w.copy("/bucket/k", "bucket/k", name+": "+second), 200, "")
	equal(t, "of a copy onto itself", at("/bucket/k"), second)
	equal(t, "metadata of that", w.send(sent{method: "HEAD", path: "/bucket/k"}).header.Get("X-Amz-Meta-A"), "b")

	a := w.send(sent{method: "POST", path: "/bucket/mp?uploads", header: []string{name + ": " + first}})
	_, rest, _ := strings.Cut(string(a.body), "<UploadId>")
	id, _, _ := strings.Cut(rest, "<")
	part := w.send(sent{method: "PUT", path: "/bucket/mp?partNumber=1&uploadId=" + id, body: "v"})
	w.wants(w.send(sent{method: "POST", path: "/bucket/mp?uploadId=" + id, body: "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>" +
		part.header.Get("Etag") + "</ETag></Part></CompleteMultipartUpload>"}), 200, "")
	equal(t, "of an upload", at("/bucket/mp"), first)
	w.wants(w.post(form{fields: map[string]string{"key": "form", "x-amz-website-redirect-location": first}, file: "v"}), 204, "")
	equal(t, "of a form", at("/bucket/form"), first)
	w.wants(w.send(sent{method: "PUT", path: "/bucket/mp?partNumber=1&uploadId=x", body: "v", header: []string{name + ": /x"}}), 501, "NotImplemented")
}
