package s3api

import (
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

func TestWhatIsTheSameForEveryBucketIsSaid(t *testing.T) {
	w := newWorld(t)
	w.put("k", "v")
	for _, tt := range []struct {
		path, want string
		status     int
	}{
		{"/bucket?acl", "<ID>ann</ID><DisplayName>ann</DisplayName></Grantee><Permission>FULL_CONTROL</Permission>", 200},
		{"/bucket/k?acl", "<Owner><ID>ann</ID>", 200},
		{"/bucket/none?acl", "NoSuchKey", 404},
		{"/bucket?ownershipControls", "<Rule><ObjectOwnership>BucketOwnerEnforced</ObjectOwnership></Rule>", 200},
		{"/bucket?publicAccessBlock", "<BlockPublicAcls>true</BlockPublicAcls><IgnorePublicAcls>true</IgnorePublicAcls><BlockPublicPolicy>true</BlockPublicPolicy><RestrictPublicBuckets>true<", 200},
		{"/bucket?policyStatus", "NoSuchBucketPolicy", 404},
		{"/bucket?policy", "NoSuchBucketPolicy", 404},
		{"/bucket?encryption", "<Rule><ApplyServerSideEncryptionByDefault><SSEAlgorithm>aws:kms</SSEAlgorithm><KMSMasterKeyID>" + w.bucketOf(t).KEK + "<", 200},
		{"/bucket?requestPayment", "<Payer>BucketOwner</Payer>", 200},
		{"/bucket?accelerate", "<AccelerateConfiguration xmlns", 200},
		{"/bucket?logging", "<BucketLoggingStatus xmlns", 200},
	} {
		a := w.send(sent{method: "GET", path: tt.path})
		if a.status != tt.status || !strings.Contains(string(a.body), tt.want) {
			t.Errorf("%s: %d %s", tt.path, a.status, a.body)
		}
	}
	for _, sub := range []string{"ownershipControls", "publicAccessBlock", "encryption"} {
		w.wants(w.send(sent{method: "DELETE", path: "/bucket?" + sub}), 204, "")
	}
}

func TestTheSDKReadsACLsAndEncryption(t *testing.T) {
	w := newWorld(t)
	c := w.s3()
	acl, err := c.GetBucketAcl(t.Context(), &s3.GetBucketAclInput{Bucket: aws.String("bucket")})
	if err != nil || len(acl.Grants) != 1 || acl.Grants[0].Grantee.Type != types.TypeCanonicalUser || *acl.Owner.ID != "ann" {
		t.Errorf("got %+v and %v", acl, err)
	}
	if _, err := c.PutBucketAcl(t.Context(), &s3.PutBucketAclInput{Bucket: aws.String("bucket"), AccessControlPolicy: &types.AccessControlPolicy{Owner: acl.Owner, Grants: acl.Grants}}); err != nil {
		t.Errorf("writing back what was read: %v", err)
	}
	enc, err := c.GetBucketEncryption(t.Context(), &s3.GetBucketEncryptionInput{Bucket: aws.String("bucket")})
	if err != nil || enc.ServerSideEncryptionConfiguration.Rules[0].ApplyServerSideEncryptionByDefault.SSEAlgorithm != types.ServerSideEncryptionAwsKms {
		t.Errorf("got %+v and %v", enc, err)
	}
}

func TestWritesThatChangeNothingSucceedAndOthersDoNot(t *testing.T) {
	w := newWorld(t)
	w.put("k", "v")
	policy := func(owner, id, permission string) string {
		return "<AccessControlPolicy><Owner><ID>" + owner + "</ID></Owner><AccessControlList><Grant><Grantee><ID>" + id + "</ID></Grantee><Permission>" +
			permission + "</Permission></Grant></AccessControlList></AccessControlPolicy>"
	}
	sse := func(inner string) string {
		return "<ServerSideEncryptionConfiguration><Rule><ApplyServerSideEncryptionByDefault>" + inner + "</ApplyServerSideEncryptionByDefault></Rule></ServerSideEncryptionConfiguration>"
	}
	owns := func(v string) string {
		return "<OwnershipControls><Rule><ObjectOwnership>" + v + "</ObjectOwnership></Rule></OwnershipControls>"
	}
	block := func(v string) string {
		return "<PublicAccessBlockConfiguration><BlockPublicAcls>true</BlockPublicAcls><IgnorePublicAcls>true</IgnorePublicAcls><BlockPublicPolicy>" + v +
			"</BlockPublicPolicy><RestrictPublicBuckets>true</RestrictPublicBuckets></PublicAccessBlockConfiguration>"
	}
	for _, tt := range []struct {
		name, path, body, header string
		status                   int
		code                     string
	}{
		{"private", "/bucket?acl", "", "X-Amz-Acl: private", 200, ""},
		{"private object", "/bucket/k?acl", "", "X-Amz-Acl: private", 200, ""},
		{"the owner's", "/bucket/k?acl", "", "X-Amz-Acl: bucket-owner-full-control", 200, ""},
		{"no object", "/bucket/none?acl", "", "X-Amz-Acl: private", 404, "NoSuchKey"},
		{"public", "/bucket?acl", "", "X-Amz-Acl: public-read", 400, "AccessControlListNotSupported"},
		{"unknown", "/bucket?acl", "", "X-Amz-Acl: x", 400, "InvalidArgument"},
		{"a grant", "/bucket?acl", "", "X-Amz-Grant-Write: id=x", 400, "AccessControlListNotSupported"},
		{"none", "/bucket?acl", "", "", 400, "MissingSecurityHeader"},
		{"twice", "/bucket?acl", policy("ann", "ann", "FULL_CONTROL"), "X-Amz-Acl: private", 400, "UnexpectedContent"},
		{"a document", "/bucket?acl", policy("ann", "ann", "FULL_CONTROL"), "", 200, ""},
		{"for another", "/bucket?acl", policy("ann", "bob", "FULL_CONTROL"), "", 400, "AccessControlListNotSupported"},
		{"of another", "/bucket?acl", policy("bob", "ann", "FULL_CONTROL"), "", 400, "AccessControlListNotSupported"},
		{"to read", "/bucket?acl", policy("ann", "ann", "READ"), "", 400, "AccessControlListNotSupported"},
		{"no document", "/bucket?acl", "x", "", 400, "MalformedACLError"},
		{"no owner", "/bucket?acl", "<AccessControlPolicy/>", "", 400, "MalformedACLError"},
		{"ownership", "/bucket?ownershipControls", owns("BucketOwnerEnforced"), "", 200, ""},
		{"unknown ownership", "/bucket?ownershipControls", owns("x"), "", 400, "MalformedXML"},
		{"no ownership", "/bucket?ownershipControls", "<OwnershipControls/>", "", 400, "MalformedXML"},
		{"blocked", "/bucket?publicAccessBlock", block("true"), "", 200, ""},
		{"not blocked", "/bucket?publicAccessBlock", block("false"), "", 501, "NotImplemented"},
		{"AES256", "/bucket?encryption", sse("<SSEAlgorithm>AES256</SSEAlgorithm>"), "", 200, ""},
		{"the bucket's key", "/bucket?encryption", sse("<SSEAlgorithm>aws:kms</SSEAlgorithm><KMSMasterKeyID>" + w.bucketOf(t).KEK + "</KMSMasterKeyID>"), "", 200, ""},
		{"another key", "/bucket?encryption", sse("<SSEAlgorithm>aws:kms</SSEAlgorithm><KMSMasterKeyID>x</KMSMasterKeyID>"), "", 501, "NotImplemented"},
		{"in two layers", "/bucket?encryption", sse("<SSEAlgorithm>aws:kms:dsse</SSEAlgorithm>"), "", 501, "NotImplemented"},
		{"rot13", "/bucket?encryption", sse("<SSEAlgorithm>rot13</SSEAlgorithm>"), "", 400, "MalformedXML"},
		{"no logging", "/bucket?logging", "<BucketLoggingStatus/>", "", 200, ""},
		{"logging", "/bucket?logging", "<BucketLoggingStatus><LoggingEnabled><TargetBucket>x</TargetBucket></LoggingEnabled></BucketLoggingStatus>", "", 501, "NotImplemented"},
		{"who pays", "/bucket?requestPayment", "<RequestPaymentConfiguration><Payer>BucketOwner</Payer></RequestPaymentConfiguration>", "", 200, ""},
		{"who else pays", "/bucket?requestPayment", "<RequestPaymentConfiguration><Payer>Requester</Payer></RequestPaymentConfiguration>", "", 501, "NotImplemented"},
		{"who never pays", "/bucket?requestPayment", "<RequestPaymentConfiguration><Payer>x</Payer></RequestPaymentConfiguration>", "", 400, "MalformedXML"},
		{"rules that nobody carries out", "/bucket?lifecycle", "<LifecycleConfiguration><Rule><ID>r</ID><Status>Enabled</Status><Prefix>a</Prefix><Expiration><Days>1</Days></Expiration></Rule></LifecycleConfiguration>", "", 501, "NotImplemented"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := sent{method: "PUT", path: tt.path, body: tt.body}
			if tt.header != "" {
				s.header = []string{tt.header}
			}
			w.wants(w.send(s), tt.status, tt.code)
		})
	}
}
