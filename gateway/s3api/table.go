package s3api

import (
	"net/http"
	"slices"
)

// routes is the allow-list. Of two rows that match, the first counts.
func routes() []route {
	return slices.Concat(bucketRoutes(), configRoutes(), fixedRoutes(), lockRoutes(),
		tagRoutes(), copyRoutes(), uploadRoutes(), objectRoutes())
}

// What writes take beside their body.
const (
	aclHeaders        = "x-amz-acl x-amz-grant-full-control x-amz-grant-read x-amz-grant-read-acp x-amz-grant-write-acp"
	encryptionHeaders = "x-amz-server-side-encryption x-amz-server-side-encryption-aws-kms-key-id x-amz-server-side-encryption-bucket-key-enabled"
	lockHeaders       = "x-amz-object-lock-mode x-amz-object-lock-retain-until-date x-amz-object-lock-legal-hold"
	createHeaders     = aclHeaders + " x-amz-storage-class x-amz-tagging " + redirectHeader + " " + encryptionHeaders + " " + lockHeaders
	checkedHeaders    = "x-amz-sdk-checksum-algorithm"
)

func bucketRoutes() []route {
	list := words("prefix delimiter max-keys encoding-type")
	return []route{
		{
			name: "ListBuckets", action: "s3:ListAllMyBuckets", level: levelService, method: http.MethodGet,
			may: words("prefix max-buckets continuation-token bucket-region"), run: (*call).listBuckets,
		},
		sub("GetBucketLocation", "s3:GetBucketLocation", levelBucket, http.MethodGet, "location", (*call).getBucketLocation),
		{
			name: "ListMultipartUploads", action: "s3:ListBucketMultipartUploads", level: levelBucket, method: http.MethodGet,
			need: words("uploads"), may: words("prefix delimiter key-marker upload-id-marker max-uploads encoding-type"),
			run: (*call).listUploads,
		},
		{
			name: "ListObjectVersions", action: "s3:ListBucketVersions", level: levelBucket, method: http.MethodGet,
			need: words("versions"), may: append(words("key-marker version-id-marker"), list...),
			headers: words("x-amz-optional-object-attributes"), run: (*call).listVersions,
		},
		{
			name: "ListObjectsV2", action: "s3:ListBucket", level: levelBucket, method: http.MethodGet,
			need: words("list-type"), may: append(words("continuation-token start-after fetch-owner"), list...),
			headers: words("x-amz-optional-object-attributes"), run: (*call).listObjectsV2,
		},
		{
			name: "ListObjects", action: "s3:ListBucket", level: levelBucket, method: http.MethodGet,
			may: append(words("marker"), list...), headers: words("x-amz-optional-object-attributes"),
			run: (*call).listObjects,
		},
		{name: "HeadBucket", action: "s3:ListBucket", level: levelBucket, method: http.MethodHead, run: (*call).headBucket},
		{
			name: "CreateBucket", action: "s3:CreateBucket", level: levelBucket, method: http.MethodPut,
			headers: words("x-amz-bucket-object-lock-enabled x-amz-object-ownership x-amz-grant-write " + aclHeaders + " " + checkedHeaders),
			run:     (*call).createBucket,
		},
		{name: "DeleteBucket", action: "s3:DeleteBucket", level: levelBucket, method: http.MethodDelete, run: (*call).deleteBucket},
		{
			name: "DeleteObjects", level: levelBucket, method: http.MethodPost,
			need: words("delete"), headers: words("x-amz-bypass-governance-retention " + checkedHeaders), run: (*call).deleteObjects,
		},
		{name: "PostObject", level: levelBucket, method: http.MethodPost, open: true, run: (*call).postObject},
	}
}

// sub is a row for an operation on a sub-resource, with a document as the body of
// a write.
func sub(name, action string, l level, method, resource string, run func(*call) error) route {
	r := route{name: name, action: action, level: l, method: method, need: words(resource), run: run}
	if method == http.MethodPut {
		r.headers = words(checkedHeaders)
	}
	return r
}

// configRoutes: what clients configure on a bucket.
func configRoutes() []route {
	const b, get, put, del = levelBucket, http.MethodGet, http.MethodPut, http.MethodDelete
	return []route{
		sub("GetBucketVersioning", "s3:GetBucketVersioning", b, get, "versioning", (*call).getVersioning),
		sub("PutBucketVersioning", "s3:PutBucketVersioning", b, put, "versioning", (*call).putVersioning),
		sub("GetBucketTagging", "s3:GetBucketTagging", b, get, "tagging", (*call).getBucketTagging),
		sub("PutBucketTagging", "s3:PutBucketTagging", b, put, "tagging", (*call).putBucketTagging),
		sub("DeleteBucketTagging", "s3:PutBucketTagging", b, del, "tagging", (*call).deleteBucketTagging),
		sub("GetBucketCors", "s3:GetBucketCORS", b, get, "cors", (*call).getCORS),
		sub("PutBucketCors", "s3:PutBucketCORS", b, put, "cors", (*call).putCORS),
		sub("DeleteBucketCors", "s3:PutBucketCORS", b, del, "cors", (*call).deleteCORS),
	}
}

// fixedRoutes: what is the same for every bucket of the gateway. What would change
// it is refused.
func fixedRoutes() []route {
	const b, get, put, del = levelBucket, http.MethodGet, http.MethodPut, http.MethodDelete
	rows := []route{
		sub("GetBucketAcl", "s3:GetBucketAcl", b, get, "acl", (*call).getACL),
		sub("PutBucketAcl", "s3:PutBucketAcl", b, put, "acl", (*call).putACL),
		sub("GetObjectAcl", "s3:GetObjectAcl", levelObject, get, "acl", (*call).getACL).versioned("s3:GetObjectVersionAcl"),
		sub("PutObjectAcl", "s3:PutObjectAcl", levelObject, put, "acl", (*call).putACL).versioned("s3:PutObjectVersionAcl"),
		sub("GetBucketOwnershipControls", "s3:GetBucketOwnershipControls", b, get, "ownershipControls", (*call).getOwnership),
		sub("PutBucketOwnershipControls", "s3:PutBucketOwnershipControls", b, put, "ownershipControls", (*call).putOwnership),
		sub("DeleteBucketOwnershipControls", "s3:PutBucketOwnershipControls", b, del, "ownershipControls", (*call).deleteOwnership),
		sub("GetPublicAccessBlock", "s3:GetBucketPublicAccessBlock", b, get, "publicAccessBlock", (*call).getPublicAccess),
		sub("PutPublicAccessBlock", "s3:PutBucketPublicAccessBlock", b, put, "publicAccessBlock", (*call).putPublicAccess),
		sub("DeletePublicAccessBlock", "s3:PutBucketPublicAccessBlock", b, del, "publicAccessBlock", (*call).deleted),
		sub("GetBucketPolicyStatus", "s3:GetBucketPolicyStatus", b, get, "policyStatus", (*call).getPolicy),
		sub("GetBucketPolicy", "s3:GetBucketPolicy", b, get, "policy", (*call).getPolicy),
		sub("GetBucketEncryption", "s3:GetEncryptionConfiguration", b, get, "encryption", (*call).getEncryption),
		sub("PutBucketEncryption", "s3:PutEncryptionConfiguration", b, put, "encryption", (*call).putEncryption),
		sub("DeleteBucketEncryption", "s3:PutEncryptionConfiguration", b, del, "encryption", (*call).deleted),
		sub("GetBucketRequestPayment", "s3:GetBucketRequestPayment", b, get, "requestPayment", (*call).getPayment),
		sub("PutBucketRequestPayment", "s3:PutBucketRequestPayment", b, put, "requestPayment", (*call).putPayment),
		sub("GetBucketAccelerateConfiguration", "s3:GetAccelerateConfiguration", b, get, "accelerate", (*call).getAcceleration),
		sub("GetBucketLogging", "s3:GetBucketLogging", b, get, "logging", (*call).getLogging),
		sub("PutBucketLogging", "s3:PutBucketLogging", b, put, "logging", (*call).putLogging),
		sub("GetBucketLifecycleConfiguration", "s3:GetLifecycleConfiguration", b, get, "lifecycle", (*call).getLifecycle),
		sub("PutBucketLifecycleConfiguration", "s3:PutLifecycleConfiguration", b, put, "lifecycle", (*call).putLifecycle),
		sub("DeleteBucketLifecycle", "s3:PutLifecycleConfiguration", b, del, "lifecycle", (*call).deleteLifecycle),
	}
	for i := range rows {
		if rows[i].name == "PutBucketAcl" || rows[i].name == "PutObjectAcl" {
			rows[i].headers = words("x-amz-grant-write " + aclHeaders + " " + checkedHeaders)
		}
	}
	return rows
}

// versioned makes a row take a version, which is a right of its own.
func (r route) versioned(action string) route {
	r.version, r.may = action, append(r.may, "versionId")
	return r
}

// ofVersions makes a row take a version under the same right.
func (r route) ofVersions() route { return r.versioned(r.action) }

func lockRoutes() []route {
	const b, o, get, put = levelBucket, levelObject, http.MethodGet, http.MethodPut
	rows := []route{
		sub("GetObjectLockConfiguration", "s3:GetBucketObjectLockConfiguration", b, get, "object-lock", (*call).getLockConfig),
		sub("PutObjectLockConfiguration", "s3:PutBucketObjectLockConfiguration", b, put, "object-lock", (*call).putLockConfig),
		sub("GetObjectRetention", "s3:GetObjectRetention", o, get, "retention", (*call).getRetention).ofVersions(),
		sub("GetObjectLegalHold", "s3:GetObjectLegalHold", o, get, "legal-hold", (*call).getHold).ofVersions(),
		sub("PutObjectLegalHold", "s3:PutObjectLegalHold", o, put, "legal-hold", (*call).putHold).ofVersions(),
	}
	retention := sub("PutObjectRetention", "s3:PutObjectRetention", o, put, "retention", (*call).putRetention).ofVersions()
	retention.headers = append(retention.headers, bypassHeader)
	return append(rows, retention)
}

func tagRoutes() []route {
	const o, get, put, del = levelObject, http.MethodGet, http.MethodPut, http.MethodDelete
	return []route{
		sub("GetObjectTagging", "s3:GetObjectTagging", o, get, "tagging", (*call).getObjectTagging).versioned("s3:GetObjectVersionTagging"),
		sub("PutObjectTagging", "s3:PutObjectTagging", o, put, "tagging", (*call).putObjectTagging).versioned("s3:PutObjectVersionTagging"),
		sub("DeleteObjectTagging", "s3:DeleteObjectTagging", o, del, "tagging", (*call).deleteObjectTagging).versioned("s3:DeleteObjectVersionTagging"),
	}
}

func copyRoutes() []route {
	const source = "x-amz-copy-source x-amz-copy-source-if-match x-amz-copy-source-if-none-match " +
		"x-amz-copy-source-if-modified-since x-amz-copy-source-if-unmodified-since x-amz-source-expected-bucket-owner "
	return []route{
		{
			name: "UploadPartCopy", action: "s3:PutObject", level: levelObject, method: http.MethodPut,
			need: words("partNumber uploadId"), given: copySource, headers: words(source + "x-amz-copy-source-range"), run: (*call).copyPart,
		},
		{
			name: "CopyObject", action: "s3:PutObject", level: levelObject, method: http.MethodPut, given: copySource,
			headers: words(source + "x-amz-metadata-directive x-amz-tagging-directive x-amz-checksum-algorithm " + createHeaders), run: (*call).copyObject,
		},
	}
}

func uploadRoutes() []route {
	checked := words(checkedHeaders)
	return []route{
		{
			name: "UploadPart", action: "s3:PutObject", level: levelObject, method: http.MethodPut,
			need: words("partNumber uploadId"), headers: checked, run: (*call).uploadPart,
		},
		{
			name: "ListParts", action: "s3:ListMultipartUploadParts", level: levelObject, method: http.MethodGet,
			need: words("uploadId"), may: words("max-parts part-number-marker encoding-type"), run: (*call).listParts,
		},
		{
			name: "AbortMultipartUpload", action: "s3:AbortMultipartUpload", level: levelObject, method: http.MethodDelete,
			need: words("uploadId"), headers: words(ifBeganHeader), run: (*call).abortUpload,
		},
		{
			name: "CreateMultipartUpload", action: "s3:PutObject", level: levelObject, method: http.MethodPost,
			need: words("uploads"), headers: words("x-amz-checksum-algorithm x-amz-checksum-type " + createHeaders + " " + checkedHeaders),
			run: (*call).createUpload,
		},
		{
			name: "CompleteMultipartUpload", action: "s3:PutObject", level: levelObject, method: http.MethodPost,
			need: words("uploadId"), headers: append(words("x-amz-mp-object-size x-amz-checksum-type"), checked...),
			run: (*call).completeUpload,
		},
	}
}

func objectRoutes() []route {
	read := words("versionId partNumber response-content-type response-content-language response-expires " +
		"response-cache-control response-content-disposition response-content-encoding")
	readHeaders := words("x-amz-checksum-mode x-amz-optional-object-attributes")
	return []route{
		{
			name: "PutObject", action: "s3:PutObject", level: levelObject, method: http.MethodPut,
			headers: words(createHeaders + " " + checkedHeaders), run: (*call).putObject,
		},
		{
			name: "GetObjectAttributes", action: "s3:GetObject", version: "s3:GetObjectVersion", level: levelObject, method: http.MethodGet,
			need: words("attributes"), may: words("versionId"),
			headers: words("x-amz-object-attributes x-amz-max-parts x-amz-part-number-marker"), run: (*call).getAttributes,
		},
		{
			name: "GetObject", action: "s3:GetObject", version: "s3:GetObjectVersion", level: levelObject, method: http.MethodGet,
			may: read, headers: readHeaders, run: (*call).getObject,
		},
		{
			name: "HeadObject", action: "s3:GetObject", version: "s3:GetObjectVersion", level: levelObject, method: http.MethodHead,
			may: read, headers: readHeaders, run: (*call).headObject,
		},
		{
			name: "DeleteObject", action: "s3:DeleteObject", version: "s3:DeleteObjectVersion", level: levelObject, method: http.MethodDelete,
			may: words("versionId"), headers: words(bypassHeader + " " + ifSizeHeader + " " + ifModifiedHeader), run: (*call).deleteObject,
		},
	}
}
