package gcsstore

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"cloud.google.com/go/auth"
	"cloud.google.com/go/storage"
	"google.golang.org/api/googleapi"

	"chatelaine/backends"
)

var (
	errMalformed  = errors.New("malformed answer")
	errConditions = errors.New("more than one ETag, or a time, as condition of a write")
	errNotEmpty   = fmt.Errorf("%w: it has objects", backends.ErrBucketNotEmpty)
	errDamaged    = errors.New("the service has other bytes than were sent")
	errSession    = errors.New("the upload's session has ended")
)

// answerError is an error that the service answered with. The SDK's own has the whole
// answer in its text.
type answerError struct {
	status          int
	reason, message string
	request         string
}

func (e *answerError) Error() string {
	return strings.TrimSpace(fmt.Sprintf("status %d %s %s", e.status, e.reason, e.request))
}

// wrap gives err, what the SDK returned, its place in the contract.
func wrap(ctx context.Context, doing string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("gcsstore: %s: %w", doing, classify(ctx, err))
}

func classify(ctx context.Context, err error) error {
	var body *bodyError
	if errors.As(err, &body) || known(err) {
		return err
	}
	if ctx.Err() != nil {
		return fmt.Errorf("%w: %v", ctx.Err(), plain(err)) //nolint:errorlint // a broken connection is not the reason
	}
	if answer := answerOf(err); answer != nil {
		return classifyAnswer(answer)
	}
	var refused *auth.Error
	switch {
	case errors.Is(err, storage.ErrObjectNotExist):
		return fmt.Errorf("%w: %w", backends.ErrNotFound, err)
	case errors.Is(err, storage.ErrBucketNotExist):
		return fmt.Errorf("%w: %w", backends.ErrBucketNotFound, err)
	case errors.As(err, &refused) && refused.Response != nil && refused.Response.StatusCode < http.StatusInternalServerError:
		// The text has what the service for tokens answered.
		return fmt.Errorf("%w: getting a token: status %d", backends.ErrDenied, refused.Response.StatusCode)
	}
	return unavailable(plain(err))
}

// plain is err without the URL that net/http quotes: that of an upload's session lets
// whoever has it go on with the upload.
func plain(err error) error {
	var spent *spentError
	var u *url.Error
	if errors.As(err, &spent) && errors.As(spent.err, &u) {
		return &spentError{spent.status, u.Err}
	}
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

// known says that err has its place already.
func known(err error) bool {
	for _, k := range []error{
		backends.ErrUnavailable, backends.ErrPrecondition, backends.ErrNotFound, backends.ErrUploadNotFound, backends.ErrConflict, backends.ErrUnsupported,
		backends.ErrBucketNotEmpty, backends.ErrInvalidPart, backends.ErrTooSmall, backends.ErrTooLarge, backends.ErrRange, backends.ErrInvalidName,
		backends.ErrBucketNotFound, backends.ErrNotModified, backends.ErrVersionNotFound, backends.ErrNoLock,
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

func answerOf(err error) *answerError {
	var answer *googleapi.Error
	if !errors.As(err, &answer) {
		return nil
	}
	e := &answerError{status: answer.Code, message: answer.Message, request: answer.Header.Get("X-Guploader-Uploadid")}
	if len(answer.Errors) > 0 {
		e.reason = answer.Errors[0].Reason
	}
	return e
}

// statusOf is the status that the service answered with, or 0.
func statusOf(err error) int {
	if answer := answerOf(err); answer != nil {
		return answer.status
	}
	if errors.Is(err, storage.ErrObjectNotExist) || errors.Is(err, storage.ErrBucketNotExist) {
		return http.StatusNotFound
	}
	return 0
}

func classifyAnswer(answer *answerError) error {
	kind := ofReason(answer.reason)
	if kind == nil {
		kind = ofStatus(answer.status)
	}
	if answer.status == http.StatusBadRequest && strings.Contains(answer.message, "calculated CRC32C") {
		return fmt.Errorf("%w: %w: %w", backends.ErrUnavailable, errDamaged, answer)
	}
	if kind == nil {
		return answer
	}
	return fmt.Errorf("%w: %w", kind, answer)
}

// ofReason knows reasons whose status says less ("HTTP status and error codes for JSON").
// nil means that the status must do.
func ofReason(reason string) error {
	switch reason {
	case "retentionPolicyNotMet", "objectUnderActiveHold":
		return backends.ErrLocked
	case "rateLimitExceeded", "userRateLimitExceeded", "quotaExceeded":
		return backends.ErrUnavailable
	case "uploadTooLarge":
		return backends.ErrTooLarge
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
	case status == http.StatusGone, failed(status): // a session is gone; it may be begun again
		return backends.ErrUnavailable
	case status < http.StatusBadRequest:
		return backends.ErrUnavailable // a success that the SDK cannot read
	}
	return nil
}

// missing tells what is not there: err of a 404 stands unless the bucket is missing. The answers themselves do not say it in a way that is documented.
func (s *Store) missing(ctx context.Context, err error, bucket string) error {
	if statusOf(err) != http.StatusNotFound {
		return err
	}
	return firstError(s.probe(ctx, bucket), err)
}
