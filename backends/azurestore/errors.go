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
	"chatelaine/backends/cloud"
)

var (
	errNotEmpty  = fmt.Errorf("%w: it has blobs", backends.ErrBucketNotEmpty)
	errNoTags    = fmt.Errorf("%w: the account has no index tags", backends.ErrUnsupported)
	errNoListing = fmt.Errorf("%w: %w: no listing", backends.ErrUnavailable, cloud.ErrMalformed)
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
	if cloud.Known(err) {
		return err
	}
	return cloud.Unavailable(err)
}

func newAnswerError(answer *azcore.ResponseError) *answerError {
	e := &answerError{status: answer.StatusCode, code: answer.ErrorCode}
	if answer.RawResponse != nil {
		e.request = answer.RawResponse.Header.Get("X-Ms-Request-Id")
	}
	return e
}

func classifyAnswer(answer *azcore.ResponseError) error {
	cause := newAnswerError(answer)
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
	case "BlobTagsNotSupportedForAccountType", "FeatureNotEnabled", "FeatureNotYetSupportedForHierarchicalNamespaceAccounts",
		"BlobApiNotYetSupportedForHierarchicalNamespaceAccounts", bloberror.UnsupportedHeader:
		return backends.ErrUnsupported
	}
	return nil
}

func ofStatus(status int) error {
	if status == http.StatusNotImplemented {
		return backends.ErrUnsupported
	}
	return cloud.OfStatus(status)
}
