package cloud

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"chatelaine/backends"
)

// Errors that drivers put beside those of the contract.
var (
	ErrMalformed  = errors.New("malformed answer")
	ErrUnread     = errors.New("the service answered success before it had the body")
	ErrDamaged    = errors.New("the service has other bytes than were sent")
	ErrConditions = errors.New("more than one ETag, or a time, as condition of a write")
)

// BodyError is an error of a Body's Reader, which is nobody else's: nothing that the
// service does can make it go away.
type BodyError struct{ Err error }

func (e *BodyError) Error() string { return "reading the body: " + e.Err.Error() }

// Unwrap is the Reader's own error.
func (e *BodyError) Unwrap() error { return e.Err }

// CheckConditions takes what a write may depend on: one ETag, or that there is nothing.
// Any others are backends.ErrUnsupported.
func CheckConditions(c backends.Conditions) error {
	if len(c.IfMatch)+len(c.IfNoneMatch) > 1 || !c.IfModifiedSince.IsZero() || !c.IfUnmodifiedSince.IsZero() ||
		len(c.IfNoneMatch) == 1 && c.IfNoneMatch[0] != "*" {
		return fmt.Errorf("%w: %w", backends.ErrUnsupported, ErrConditions)
	}
	return nil
}

// Unavailable is backends.ErrUnavailable because of err. It keeps the cause, but not
// where that is a timeout of the transport, which claims to be a context.DeadlineExceeded:
// the caller's context has not ended.
func Unavailable(err error) error {
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return fmt.Errorf("%w: %v", backends.ErrUnavailable, err) //nolint:errorlint // see above
	}
	return fmt.Errorf("%w: %w", backends.ErrUnavailable, err)
}

// Known says that err has its place in the contract already.
func Known(err error) bool {
	for _, k := range []error{
		backends.ErrUnavailable, backends.ErrPrecondition, backends.ErrNotFound, backends.ErrUploadNotFound, backends.ErrConflict,
		backends.ErrUnsupported, backends.ErrBucketNotEmpty, backends.ErrInvalidPart, backends.ErrTooSmall, backends.ErrTooLarge,
		backends.ErrRange, backends.ErrInvalidName, backends.ErrBucketNotFound, backends.ErrBucketExists, backends.ErrNotModified,
		backends.ErrVersionNotFound, backends.ErrDeleteMarker, backends.ErrNoLock, backends.ErrLocked, backends.ErrBucketState,
		backends.ErrDenied, backends.ErrFull, backends.ErrInvalidTag,
	} {
		if errors.Is(err, k) {
			return true
		}
	}
	return false
}

// OfStatus is what a status of HTTP says where the service does not say more. A success
// is one that its SDK could not read. nil: the contract has no word for it.
func OfStatus(status int) error {
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
	case Passing(status), status < http.StatusMultipleChoices:
		return backends.ErrUnavailable
	}
	return nil
}

// Passing says that an answer of this status may be another one later.
func Passing(status int) bool {
	return status == http.StatusRequestTimeout || status == http.StatusTooManyRequests || status >= http.StatusInternalServerError
}

// Join keeps the first error in front and drops none.
func Join(err, further error) error {
	if further == nil {
		return err
	}
	return errors.Join(err, further)
}
