package s3api

import (
	"net/http"
	"slices"
	"strings"
)

// route is one operation. A request reaches it when level and method are its own,
// all of need are among its parameters, and the rest of them in may. Everything
// else about it that S3 knows and this table does not is NotImplemented.
type route struct {
	name    string // S3's name of the operation
	action  string // what access decides on; empty where the handler asks itself
	level   level
	method  string
	need    []string
	may     []string
	headers []string // x-amz-* headers beside those that all operations take
	run     func(*call) error
}

// routes is the allow-list. Of two rows that match, the first counts.
func routes() []route {
	list := words("prefix delimiter max-keys encoding-type")
	read := words("versionId partNumber response-content-type response-content-language response-expires " +
		"response-cache-control response-content-disposition response-content-encoding")
	readHeaders := words("x-amz-checksum-mode x-amz-optional-object-attributes")
	write := words("x-amz-acl x-amz-grant-full-control x-amz-grant-read x-amz-grant-read-acp x-amz-grant-write-acp " +
		"x-amz-storage-class x-amz-server-side-encryption x-amz-server-side-encryption-aws-kms-key-id " +
		"x-amz-server-side-encryption-bucket-key-enabled x-amz-sdk-checksum-algorithm")
	checked := words("x-amz-sdk-checksum-algorithm")
	return []route{
		{
			name: "ListBuckets", action: "s3:ListAllMyBuckets", level: levelService, method: http.MethodGet,
			may: words("prefix max-buckets continuation-token bucket-region"), run: (*call).listBuckets,
		},
		{
			name: "GetBucketLocation", action: "s3:GetBucketLocation", level: levelBucket, method: http.MethodGet,
			need: words("location"), run: (*call).getBucketLocation,
		},
		{
			name: "ListMultipartUploads", action: "s3:ListBucketMultipartUploads", level: levelBucket, method: http.MethodGet,
			need: words("uploads"), may: words("prefix delimiter key-marker upload-id-marker max-uploads encoding-type"),
			run: (*call).listUploads,
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
			headers: append(words("x-amz-bucket-object-lock-enabled x-amz-object-ownership x-amz-grant-write x-amz-sdk-checksum-algorithm"), write[:5]...),
			run:     (*call).createBucket,
		},
		{name: "DeleteBucket", action: "s3:DeleteBucket", level: levelBucket, method: http.MethodDelete, run: (*call).deleteBucket},
		{
			name: "DeleteObjects", level: levelBucket, method: http.MethodPost,
			need: words("delete"), headers: checked, run: (*call).deleteObjects,
		},

		{
			name: "UploadPart", action: "s3:PutObject", level: levelObject, method: http.MethodPut,
			need: words("partNumber uploadId"), headers: checked, run: (*call).uploadPart,
		},
		{
			name: "PutObject", action: "s3:PutObject", level: levelObject, method: http.MethodPut,
			headers: write, run: (*call).putObject,
		},
		{
			name: "ListParts", action: "s3:ListMultipartUploadParts", level: levelObject, method: http.MethodGet,
			need: words("uploadId"), may: words("max-parts part-number-marker encoding-type"), run: (*call).listParts,
		},
		{
			name: "GetObject", action: "s3:GetObject", level: levelObject, method: http.MethodGet,
			may: read, headers: readHeaders, run: (*call).getObject,
		},
		{
			name: "HeadObject", action: "s3:GetObject", level: levelObject, method: http.MethodHead,
			may: read, headers: readHeaders, run: (*call).headObject,
		},
		{
			name: "AbortMultipartUpload", action: "s3:AbortMultipartUpload", level: levelObject, method: http.MethodDelete,
			need: words("uploadId"), run: (*call).abortUpload,
		},
		{
			name: "DeleteObject", action: "s3:DeleteObject", level: levelObject, method: http.MethodDelete,
			may: words("versionId"), run: (*call).deleteObject,
		},
		{
			name: "CreateMultipartUpload", action: "s3:PutObject", level: levelObject, method: http.MethodPost,
			need: words("uploads"), headers: append(words("x-amz-checksum-algorithm x-amz-checksum-type"), write...),
			run: (*call).createUpload,
		},
		{
			name: "CompleteMultipartUpload", action: "s3:PutObject", level: levelObject, method: http.MethodPost,
			need: words("uploadId"), headers: append(words("x-amz-mp-object-size x-amz-checksum-type"), checked...),
			run: (*call).completeUpload,
		},
	}
}

func words(s string) []string { return strings.Fields(s) }

// match finds the operation, or the error that S3 has for a request that names
// none.
func (c *call) match() (route, error) {
	if err := c.copySourceMisplaced(); err != nil {
		return route{}, err
	}
	for _, r := range c.routes {
		if r.level == c.level && r.method == c.r.Method && c.fits(r) {
			return r, nil
		}
	}
	return route{}, c.unmatched()
}

func (c *call) fits(r route) bool {
	for _, name := range r.need {
		if !c.query.Has(name) {
			return false
		}
	}
	for name := range c.query {
		if !slices.Contains(r.need, name) && !slices.Contains(r.may, name) {
			return false
		}
	}
	return true
}

func (c *call) copySourceMisplaced() error {
	source := c.header.Get("X-Amz-Copy-Source")
	if source == "" || c.r.Method == http.MethodPut && c.level == levelObject {
		return nil
	}
	return invalidArgument("You can only specify a copy source header for copy requests.", "x-amz-copy-source", source)
}

// unmatched tells requests that make no sense from those that nobody has written
// a handler for.
func (c *call) unmatched() error {
	if c.query.Has("AWSAccessKeyId") && c.query.Has("Signature") { // presigned by version 2
		return invalidRequest("The authorization mechanism you have provided is not supported. Please use AWS4-HMAC-SHA256.")
	}
	object := c.level == levelObject
	plain := len(c.query) == 0
	switch c.r.Method {
	case http.MethodGet:
		if object && c.query.Has("uploads") {
			return invalidRequest("Key is not expected for the GET method ?uploads subresource")
		}
		if object && c.query.Has("versions") {
			return invalidRequest("There is no such thing as the ?versions sub-resource for a key")
		}
	case http.MethodPut:
		if object && c.query.Has("partNumber") && !c.query.Has("uploadId") {
			return invalidArgument("This operation does not accept partNumber without uploadId", "partNumber", c.query.Get("partNumber"))
		}
		if object && len(c.query) == 1 && c.query.Has("uploadId") {
			return methodNotAllowed(c.r.Method, "UPLOAD")
		}
		if c.level == levelService {
			return methodNotAllowed(c.r.Method, "SERVICE")
		}
	case http.MethodPost:
		if plain && c.level != levelBucket {
			return methodNotAllowed(c.r.Method, "SERVICE")
		}
	case http.MethodHead, http.MethodDelete, http.MethodOptions:
		if plain && c.level == levelService {
			return methodNotAllowed(c.r.Method, "SERVICE")
		}
	default:
		return methodNotAllowed(c.r.Method, "OBJECT")
	}
	return notImplemented("")
}
