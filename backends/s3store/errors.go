package s3store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"chatelaine/backends"
	"chatelaine/backends/cloud"
)

var (
	errStalled    = errors.New("no progress for too long")
	errUnread     = errors.New("the store answered success before it had the body")
	errMalformed  = errors.New("malformed answer")
	errConditions = errors.New("more than one ETag, or a time, as condition of a write")
)

// wrap gives err, what the SDK returned, its place in the contract. missing is what
// a 404 without a code means here.
func wrap(ctx context.Context, doing string, missing, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("s3store: %s: %w", doing, classify(ctx, missing, err))
}

func classify(ctx context.Context, missing, err error) error {
	if resp := answered(err); resp != nil {
		return classifyAnswer(resp, missing, err)
	}
	if ctx.Err() != nil {
		return fmt.Errorf("%w: %v", ctx.Err(), err) //nolint:errorlint // a broken connection is not the reason
	}
	return cloud.Unavailable(err)
}

// answered is the store's answer, if that is what err is about.
func answered(err error) *smithyhttp.Response {
	var re *smithyhttp.ResponseError
	if !errors.As(err, &re) || re.Response == nil || re.Response.Response == nil || re.HTTPStatusCode() == 0 {
		return nil
	}
	return re.Response
}

func classifyAnswer(resp *smithyhttp.Response, missing, err error) error {
	var deserialization *smithy.DeserializationError
	if marker := markerOf(resp); marker != nil {
		return fmt.Errorf("%w: %w", marker, err)
	}
	code, message := describe(resp, err)
	switch kind := cmp.Or(ofMessage(code, message), ofCode(code)); {
	case kind != nil:
		return fmt.Errorf("%w: %w", kind, err)
	case resp.StatusCode < http.StatusMultipleChoices && !errors.As(err, new(smithy.APIError)), errors.As(err, &deserialization):
		return cloud.Unavailable(err)
	}
	return ofStatus(resp, missing, err)
}

// markerOf is the delete marker that an answer speaks of, or nil. The newest version
// is one where the status is 404, the one that was asked for where it is 405 (user
// guide, "Working with delete markers").
func markerOf(resp *smithyhttp.Response) *backends.MarkerError {
	asked := resp.StatusCode == http.StatusMethodNotAllowed
	if resp.Header.Get("X-Amz-Delete-Marker") != "true" || !asked && resp.StatusCode != http.StatusNotFound {
		return nil
	}
	modified, _ := http.ParseTime(resp.Header.Get("Last-Modified"))
	return &backends.MarkerError{Version: resp.Header.Get("X-Amz-Version-Id"), Modified: modified, Asked: asked}
}

// describe is S3's name of the error and what it says. A HEAD has no body to carry
// them; MinIO has headers.
func describe(resp *smithyhttp.Response, err error) (code, message string) {
	if code := resp.Header.Get("X-Minio-Error-Code"); code != "" {
		return code, strings.Trim(resp.Header.Get("X-Minio-Error-Desc"), `"`)
	}
	var api smithy.APIError
	if errors.As(err, &api) {
		return api.ErrorCode(), api.ErrorMessage()
	}
	return "", ""
}

// hasCode says that err is an answer with this code.
func hasCode(err error, code string) bool {
	var api smithy.APIError
	return errors.As(err, &api) && api.ErrorCode() == code
}

// wrapVersion is wrap for calls about an object's tags and lock. A delete marker has
// neither, and not all servers say in the answer's headers that it is one.
func wrapVersion(ctx context.Context, doing string, id backends.ObjectID, err error) error {
	if id.Version != "" && hasCode(err, "MethodNotAllowed") {
		return fmt.Errorf("s3store: %s: %w: %w", doing, &backends.MarkerError{Version: id.Version, Asked: true}, err)
	}
	return wrap(ctx, doing, missing(id), err)
}

// missing is what a 404 without a code means of an object.
func missing(id backends.ObjectID) error {
	if id.Version != "" {
		return backends.ErrVersionNotFound
	}
	return backends.ErrNotFound
}

// ofMessage knows errors whose code is that of many others. nil means that the code
// must do.
func ofMessage(code, message string) error {
	says := func(what string) bool { return strings.Contains(strings.ToLower(message), what) }
	switch {
	case code == "AccessDenied" && says("object lock"), code == "InvalidRequest" && says("worm protected"):
		return backends.ErrLocked
	case code == "InvalidArgument" && says("invalid version id"):
		return backends.ErrVersionNotFound
	case code == "InvalidArgument" && (says("range specified is not valid") || says("copy-source-range")):
		return &backends.RangeError{Size: -1}
	case code == "InvalidRequest" && says("larger than the maximum allowable size"):
		return backends.ErrTooLarge
	case code == "InvalidRequest" && says("refer to a delete marker"):
		return &backends.MarkerError{Asked: true}
	case code == "InvalidRequest" && (says("missing object lock configuration") || says("missing objectlockconfiguration")):
		return backends.ErrNoLock
	}
	return nil
}

// ofCode knows the codes of the S3 API (API reference, "Error responses") and of
// servers that speak S3. nil means that the status must do.
func ofCode(code string) error {
	switch code {
	case "NoSuchKey":
		return backends.ErrNotFound
	case "NoSuchVersion":
		return backends.ErrVersionNotFound
	case "ObjectLocked":
		return backends.ErrLocked
	case "InvalidBucketState":
		return backends.ErrBucketState
	case "NoSuchBucket":
		return backends.ErrBucketNotFound
	case "NoSuchUpload":
		return backends.ErrUploadNotFound
	case "BucketAlreadyExists", "BucketAlreadyOwnedByYou":
		return backends.ErrBucketExists
	case "BucketNotEmpty":
		return backends.ErrBucketNotEmpty
	case "PreconditionFailed":
		return backends.ErrPrecondition
	case "ConditionalRequestConflict", "OperationAborted":
		return backends.ErrConflict
	case "InvalidPart", "InvalidPartOrder":
		return backends.ErrInvalidPart
	case "EntityTooSmall":
		return backends.ErrTooSmall
	case "EntityTooLarge", "MaxMessageLengthExceeded", "MetadataTooLarge", "RequestHeaderSectionTooLarge":
		return backends.ErrTooLarge
	}
	return ofRarerCode(code)
}

func ofRarerCode(code string) error {
	switch code {
	case "InvalidBucketName", "KeyTooLongError", "InvalidTag", "XMinioInvalidObjectName", "XMinioInvalidResourceName",
		"XMinioObjectExistsAsDirectory", "XMinioParentIsObject",
		"ExistingObjectIsDirectory", "ObjectParentIsFile", "DirectoryObjectContainsData":
		return backends.ErrInvalidName
	case "AccessDenied", "AllAccessDisabled", "AccountProblem", "InvalidAccessKeyId", "SignatureDoesNotMatch",
		"ExpiredToken", "InvalidToken", "RequestTimeTooSkewed", "AuthorizationHeaderMalformed":
		return backends.ErrDenied
	case "SlowDown", "SlowDownRead", "SlowDownWrite", "ServiceUnavailable", "Busy", "ThrottlingException",
		"InternalError", "RequestTimeout", "XMinioServerNotInitialized", "XMinioReadQuorum", "XMinioWriteQuorum",
		"BadDigest", "XAmzContentChecksumMismatch", "IncompleteBody":
		return backends.ErrUnavailable
	case "XMinioStorageFull", "XMinioAdminBucketQuotaExceeded", "QuotaExceeded", "InsufficientStorage":
		return backends.ErrFull
	case "NotImplemented", "XNotImplemented", "InvalidObjectState":
		return backends.ErrUnsupported
	}
	return nil
}

// ofStatus is for answers without a code, as all of HEAD, and for unknown codes. A
// client error that has no place in the contract is none of its errors.
func ofStatus(resp *smithyhttp.Response, missing, err error) error {
	switch status := resp.StatusCode; {
	case status == http.StatusNotModified:
		modified, _ := http.ParseTime(resp.Header.Get("Last-Modified"))
		return &backends.NotModified{ETag: unquote(resp.Header.Get("ETag")), Modified: modified}
	case status == http.StatusRequestedRangeNotSatisfiable:
		return &backends.RangeError{Size: sizeOf(resp.Header.Get("Content-Range"))}
	case status == http.StatusNotFound:
		return fmt.Errorf("%w: %w", missing, err)
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		return fmt.Errorf("%w: %w", backends.ErrDenied, err)
	case status == http.StatusConflict:
		return fmt.Errorf("%w: %w", backends.ErrConflict, err)
	case status == http.StatusPreconditionFailed:
		return fmt.Errorf("%w: %w", backends.ErrPrecondition, err)
	case status == http.StatusRequestEntityTooLarge:
		return fmt.Errorf("%w: %w", backends.ErrTooLarge, err)
	case status == http.StatusNotImplemented:
		return fmt.Errorf("%w: %w", backends.ErrUnsupported, err)
	case status == http.StatusInsufficientStorage:
		return fmt.Errorf("%w: %w", backends.ErrFull, err)
	case status == http.StatusTooManyRequests, status >= http.StatusInternalServerError:
		return cloud.Unavailable(err)
	}
	return err
}

// sizeOf is the total of a Content-Range, or -1.
func sizeOf(contentRange string) int64 {
	_, total, _ := strings.Cut(contentRange, "/")
	size, err := strconv.ParseInt(total, 10, 64)
	if err != nil || size < 0 {
		return -1
	}
	return size
}

// unquote takes the quotes off an ETag.
func unquote(etag string) string { return strings.Trim(etag, `"`) }

// quote puts them on. "*" has none.
func quote(etag string) string {
	if etag == "*" {
		return etag
	}
	return `"` + etag + `"`
}

func deref[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

// orMalformed is err, or errMalformed where the answer was a success that lacks what
// it is for.
func orMalformed(err error) error { return cmp.Or(err, errMalformed) }

// optional is nil for a zero value: a header or parameter that is not sent.
func optional[T comparable](v T) *T {
	var zero T
	if v == zero {
		return nil
	}
	return &v
}
