package cloud

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"chatelaine/backends"
)

func TestStatusesHaveTheirPlaceInTheContract(t *testing.T) {
	for status, want := range map[int]error{
		200: backends.ErrUnavailable, 307: nil, 400: nil, 401: backends.ErrDenied, 403: backends.ErrDenied, 404: backends.ErrNotFound,
		408: backends.ErrUnavailable, 409: backends.ErrConflict, 412: backends.ErrPrecondition, 413: backends.ErrTooLarge,
		416: backends.ErrRange, 429: backends.ErrUnavailable, 500: backends.ErrUnavailable, 503: backends.ErrUnavailable,
	} {
		if got := OfStatus(status); !errors.Is(got, want) {
			t.Errorf("%d: got %v, want %v", status, got, want)
		}
		if got, want := Passing(status), status == 408 || status == 429 || status >= 500; got != want {
			t.Errorf("%d may be another later: got %v, want %v", status, got, want)
		}
	}
}

func TestATimeoutOfTheTransportIsNotTheCallers(t *testing.T) {
	cause := errors.New("cause")
	if err := Unavailable(cause); !errors.Is(err, backends.ErrUnavailable) || !errors.Is(err, cause) {
		t.Errorf("got %v", err)
	}
	for _, cause := range []error{context.DeadlineExceeded, fmt.Errorf("reading: %w", context.Canceled)} {
		if err := Unavailable(cause); !errors.Is(err, backends.ErrUnavailable) || errors.Is(err, cause) || err.Error() != "store is unavailable: "+cause.Error() {
			t.Errorf("%v: got %v", cause, err)
		}
	}
}

func TestErrorsOfTheContractAreKnown(t *testing.T) {
	for _, err := range []error{backends.ErrNotFound, &backends.RangeError{}, &backends.NotModified{}, fmt.Errorf("doing: %w", backends.ErrUnsupported)} {
		if !Known(err) {
			t.Errorf("%v is not known", err)
		}
	}
	for _, err := range []error{ErrMalformed, ErrConditions, context.Canceled, errors.New("object not found")} {
		if Known(err) {
			t.Errorf("%v is known", err)
		}
	}
}

func TestWritesDependOnOneETagOrOnNothingBeingThere(t *testing.T) {
	for _, c := range []backends.Conditions{{}, {IfMatch: []string{"a"}}, {IfMatch: []string{"*"}}, {IfNoneMatch: []string{"*"}}} {
		if err := CheckConditions(c); err != nil {
			t.Errorf("%+v: %v", c, err)
		}
	}
	for _, c := range []backends.Conditions{
		{IfMatch: []string{"a", "b"}},
		{IfNoneMatch: []string{"a"}},
		{IfMatch: []string{"a"}, IfNoneMatch: []string{"*"}},
		{IfModifiedSince: time.Unix(1, 0)},
		{IfUnmodifiedSince: time.Unix(1, 0)},
	} {
		if err := CheckConditions(c); !errors.Is(err, backends.ErrUnsupported) || !errors.Is(err, ErrConditions) {
			t.Errorf("%+v: %v, want ErrUnsupported", c, err)
		}
	}
}
