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
	"chatelaine/backends/cloud"
)

var (
	errNotEmpty = fmt.Errorf("%w: it has objects", backends.ErrBucketNotEmpty)
	errSession  = errors.New("the upload's session has ended")
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
	var body *cloud.BodyError
	if errors.As(err, &body) || cloud.Known(err) {
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
	return cloud.Unavailable(plain(err))
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
		return fmt.Errorf("%w: %w: %w", backends.ErrUnavailable, cloud.ErrDamaged, answer)
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
	if status == http.StatusGone || http.StatusMultipleChoices <= status && status < http.StatusBadRequest {
		return backends.ErrUnavailable // a session is gone, or sent on: it may be begun again
	}
	return cloud.OfStatus(status)
}

// missing tells what is not there: err of a 404 stands unless the bucket is missing. The answers themselves do not say it in a way that is documented.
func (s *Store) missing(ctx context.Context, err error, bucket string) error {
	if statusOf(err) != http.StatusNotFound || cloud.Known(err) {
		return err
	}
	return firstError(s.probe(ctx, bucket), err)
}
