package s3store

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"chatelaine/backends"
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
	return unavailable(err)
}

// unavailable keeps the cause, but not where it is a timeout inside of the
// transport, which claims to be a context.DeadlineExceeded: the caller's context
// has not ended.
func unavailable(err error) error {
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return fmt.Errorf("%w: %v", backends.ErrUnavailable, err) //nolint:errorlint // see above
	}
	return fmt.Errorf("%w: %w", backends.ErrUnavailable, err)
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
	code := code(resp, err)
	switch kind := ofCode(code); {
	case kind != nil:
		return fmt.Errorf("%w: %w", kind, err)
	case resp.StatusCode < http.StatusMultipleChoices && !errors.As(err, new(smithy.APIError)), errors.As(err, &deserialization):
		return unavailable(err)
	}
	return ofStatus(resp, missing, err)
}

// code is S3's name of the error. A HEAD has no body to carry it; MinIO has a header.
func code(resp *smithyhttp.Response, err error) string {
	if code := resp.Header.Get("X-Minio-Error-Code"); code != "" {
		return code
	}
	var api smithy.APIError
	if errors.As(err, &api) {
		return api.ErrorCode()
	}
	return ""
}

// ofCode knows the codes of the S3 API (API reference, "Error responses") and of
// servers that speak S3. nil means that the status must do.
func ofCode(code string) error {
	switch code {
	case "NoSuchKey", "NoSuchVersion":
		return backends.ErrNotFound
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
	case "InvalidBucketName", "KeyTooLongError", "XMinioInvalidObjectName", "XMinioInvalidResourceName",
		"XMinioObjectExistsAsDirectory", "XMinioParentIsObject":
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
	case status == http.StatusNotFound, status == http.StatusMethodNotAllowed && resp.Header.Get("X-Amz-Delete-Marker") == "true":
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
		return unavailable(err)
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

// optional is nil for a zero value: a header or parameter that is not sent.
func optional[T comparable](v T) *T {
	var zero T
	if v == zero {
		return nil
	}
	return &v
}
