package policy

// Kind is what an action is done to.
type Kind int

// The kinds.
const (
	OnService Kind = iota + 1 // the gateway as a whole: Service::"s3"
	OnBucket
	OnObject
)

// String is the entity type in policies.
func (k Kind) String() string {
	switch k {
	case OnService:
		return "Service"
	case OnBucket:
		return "Bucket"
	case OnObject:
		return "Object"
	default:
		return "?"
	}
}

// Action is a row of the table of actions.
type Action struct {
	Name   string // S3's: "s3:GetObject"
	On     Kind
	Groups []string // of "read", "write", "admin"
	// Lists: the request has a prefix, which is context.prefix.
	Lists bool
}

// Groups are the action groups, each an Action of its own in policies. Reading takes
// in all that shows content, names or settings; writing what makes, changes and
// removes objects; administration what makes, removes and configures buckets, and
// what is kept from whoever may only write: locks, holds and lifting them.
func Groups() []string { return []string{"read", "write", "admin"} }

// Actions is all that a request can ask for, by groups. Names are those of the
// Service Authorization Reference of Amazon S3.
func Actions() []Action {
	var all []Action
	add := func(on Kind, names []string, groups ...string) {
		for _, name := range names {
			all = append(all, Action{Name: "s3:" + name, On: on, Groups: groups, Lists: lists(name)})
		}
	}
	add(OnService, []string{"ListAllMyBuckets"}, "read")
	add(OnBucket, bucketReads(), "read")
	add(OnBucket, []string{"ListBucketMultipartUploads"}, "read", "write")
	add(OnBucket, bucketAdministration(), "admin")
	add(OnObject, []string{
		"GetObject", "GetObjectVersion", "GetObjectAttributes", "GetObjectVersionAttributes", "GetObjectTagging", "GetObjectVersionTagging",
		"GetObjectAcl", "GetObjectVersionAcl", "GetObjectRetention", "GetObjectLegalHold",
	}, "read")
	add(OnObject, []string{"ListMultipartUploadParts"}, "read", "write")
	add(OnObject, []string{
		"PutObject", "DeleteObject", "DeleteObjectVersion", "AbortMultipartUpload",
		"PutObjectTagging", "PutObjectVersionTagging", "DeleteObjectTagging", "DeleteObjectVersionTagging",
	}, "write")
	add(OnObject, []string{
		"PutObjectAcl", "PutObjectVersionAcl", "PutObjectRetention", "PutObjectLegalHold", "BypassGovernanceRetention",
	}, "admin")
	return all
}

func lists(name string) bool {
	return name == "ListBucket" || name == "ListBucketVersions" || name == "ListBucketMultipartUploads"
}

func bucketReads() []string {
	return []string{
		"ListBucket", "ListBucketVersions", "GetBucketLocation", "GetBucketVersioning", "GetBucketTagging", "GetBucketCORS",
		"GetBucketAcl", "GetBucketOwnershipControls", "GetBucketPublicAccessBlock", "GetBucketPolicyStatus", "GetBucketPolicy",
		"GetEncryptionConfiguration", "GetBucketRequestPayment", "GetAccelerateConfiguration", "GetBucketLogging",
		"GetLifecycleConfiguration", "GetBucketNotification", "GetBucketObjectLockConfiguration",
	}
}

func bucketAdministration() []string {
	return []string{
		"CreateBucket", "DeleteBucket", "PutBucketVersioning", "PutBucketTagging", "PutBucketCORS", "PutBucketAcl",
		"PutBucketOwnershipControls", "PutBucketPublicAccessBlock", "PutEncryptionConfiguration", "PutBucketRequestPayment",
		"PutBucketLogging", "PutLifecycleConfiguration", "PutBucketObjectLockConfiguration",
	}
}
