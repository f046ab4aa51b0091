package azurestore

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/bloberror"

	"chatelaine/backends"
)

var (
	errUnread     = errors.New("the service answered success before it had the body")
	errMalformed  = errors.New("malformed answer")
	errConditions = errors.New("more than one ETag, or a time, as condition of a write")
	errNotEmpty   = fmt.Errorf("%w: it has blobs", backends.ErrBucketNotEmpty)
	errDamaged    = errors.New("the service has other bytes than were sent")
)

// answerError is an error that the service answered with. The SDK's own has pages of text.
type answerError struct {
	status        int
	code, request string
}

func (e *answerError) Error() string {
	return fmt.Sprintf("status %d %s, request %s", e.status, e.code, e.request)
}

// wrap gives err, what the SDK returned, its place in the contract.
func wrap(ctx context.Context, doing string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("azurestore: %s: %w", doing, classify(ctx, err))
}

func classify(ctx context.Context, err error) error {
	var answer *azcore.ResponseError
	if errors.As(err, &answer) {
		return classifyAnswer(answer)
	}
	// The URL that net/http quotes may have a signature in it.
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	if ctx.Err() != nil {
		return fmt.Errorf("%w: %v", ctx.Err(), err) //nolint:errorlint // a broken connection is not the reason
	}
	if known(err) {
		return err
	}
	return unavailable(err)
}

// known says that err has its place already.
func known(err error) bool {
	for _, k := range []error{
		backends.ErrUnavailable, backends.ErrPrecondition, backends.ErrNotFound, backends.ErrUploadNotFound, backends.ErrConflict,
		backends.ErrBucketNotEmpty, backends.ErrInvalidPart, backends.ErrTooSmall, backends.ErrTooLarge, backends.ErrRange, backends.ErrInvalidName, backends.ErrBucketNotFound,
	} {
		if errors.Is(err, k) {
			return true
		}
	}
	return false
}

// unavailable keeps the cause, but not where it is a timeout of the transport, which
// claims to be a context.DeadlineExceeded: the caller's context has not ended.
func unavailable(err error) error {
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return fmt.Errorf("%w: %v", backends.ErrUnavailable, err) //nolint:errorlint // see above
	}
	return fmt.Errorf("%w: %w", backends.ErrUnavailable, err)
}

func classifyAnswer(answer *azcore.ResponseError) error {
	cause := &answerError{status: answer.StatusCode, code: answer.ErrorCode}
	if answer.RawResponse != nil {
		cause.request = answer.RawResponse.Header.Get("X-Ms-Request-Id")
	}
	kind := ofCode(bloberror.Code(answer.ErrorCode))
	if kind == nil {
		kind = ofStatus(answer.StatusCode)
	}
	if kind == nil {
		return cause
	}
	return fmt.Errorf("%w: %w", kind, cause)
}

// ofCode knows the codes of Azure ("Blob Storage error codes", "Common REST API error
// codes"). nil means that the status must do.
func ofCode(code bloberror.Code) error {
	switch code {
	case bloberror.BlobNotFound, bloberror.ResourceNotFound, bloberror.CannotVerifyCopySource:
		return backends.ErrNotFound
	case bloberror.ContainerNotFound, bloberror.ContainerBeingDeleted:
		return backends.ErrBucketNotFound
	case bloberror.ContainerAlreadyExists:
		return backends.ErrBucketExists
	case bloberror.ConditionNotMet, bloberror.TargetConditionNotMet, bloberror.SourceConditionNotMet, bloberror.BlobAlreadyExists:
		return backends.ErrPrecondition
	case bloberror.BlobImmutableDueToPolicy:
		return backends.ErrLocked
	case bloberror.InvalidRange:
		return &backends.RangeError{Size: -1}
	case bloberror.RequestBodyTooLarge, bloberror.MetadataTooLarge, bloberror.BlockCountExceedsLimit:
		return backends.ErrTooLarge
	case bloberror.InvalidResourceName, bloberror.OutOfRangeInput, bloberror.InvalidURI:
		return backends.ErrInvalidName
	case bloberror.AuthenticationFailed, bloberror.AccountIsDisabled, bloberror.NoAuthenticationInformation:
		return backends.ErrDenied
	case bloberror.ServerBusy, bloberror.InternalError, bloberror.OperationTimedOut, bloberror.MD5Mismatch, "Crc64Mismatch":
		return backends.ErrUnavailable
	}
	return nil
}

func ofStatus(status int) error {
	switch {
	case status == http.StatusRequestedRangeNotSatisfiable:
		return &backends.RangeError{Size: -1}
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		return backends.ErrDenied
	case status == http.StatusNotFound:
		return backends.ErrNotFound
	case status == http.StatusConflict:
		return backends.ErrConflict
	case status == http.StatusPreconditionFailed:
		return backends.ErrPrecondition
	case status == http.StatusRequestEntityTooLarge:
		return backends.ErrTooLarge
	case status == http.StatusNotImplemented:
		return backends.ErrUnsupported
	case status == http.StatusTooManyRequests, status == http.StatusRequestTimeout, status >= http.StatusInternalServerError:
		return backends.ErrUnavailable
	case status < http.StatusMultipleChoices:
		return backends.ErrUnavailable // a success that the SDK cannot read
	}
	return nil
}
