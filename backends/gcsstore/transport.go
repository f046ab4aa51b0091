package gcsstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"cloud.google.com/go/storage"
	"github.com/googleapis/gax-go/v2"

	"chatelaine/backends/cloud"
)

// A client waits at the other end: what takes longer than these is better told. They
// are enough for an object that is written more than once a second, which the service
// answers with 429.
const (
	maxAttempts = 6
	firstDelay  = 200 * time.Millisecond
	maxDelay    = 3 * time.Second
	// refill is how many bytes of an answer earn a new budget.
	refill = 1 << 20

	idleTimeout = 90 * time.Second
)

var errSpent = errors.New("the attempts are used up")

// backoff pauses for a random part of a time that doubles.
func backoff() gax.Backoff {
	return gax.Backoff{Initial: firstDelay, Max: maxDelay, Multiplier: 2}
}

// again says what the SDK repeats. It keeps no count of its own for uploads and reads:
// budgeted does.
func again(err error) bool { return !errors.Is(err, errSpent) && storage.ShouldRetry(err) }

// budget is what one call of the contract may fail in a row. The SDK counts attempts
// at some requests only: it would repeat an upload for half a minute, and a read whose
// answers are cut for ever.
type budget struct {
	mu   sync.Mutex
	left int
	read http.Header // of the last answer to a GET
}

type budgetKey struct{}

// withBudget begins a call.
func withBudget(ctx context.Context) context.Context {
	return context.WithValue(ctx, budgetKey{}, &budget{left: maxAttempts})
}

// spend counts a failure. It is true for the last.
func (b *budget) spend() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.left--
	return b.left <= 0
}

func (b *budget) spent() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.left <= 0
}

func (b *budget) keep(answer http.Header) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.read = answer
}

// answered has the headers of the last answer to a GET of a call: the SDK keeps some back.
func answered(ctx context.Context) http.Header {
	b, ok := ctx.Value(budgetKey{}).(*budget)
	if !ok {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.read
}

func (b *budget) fill() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.left = maxAttempts
}

// spentError ends a call. Status is that of the last answer, or 0.
type spentError struct {
	status int
	err    error
}

func (e *spentError) Error() string {
	if e.status != 0 {
		return fmt.Sprintf("%v: status %d", errSpent, e.status)
	}
	return fmt.Sprintf("%v: %v", errSpent, e.err)
}

func (*spentError) Is(target error) bool { return target == errSpent }

func (e *spentError) Unwrap() error { return e.err }

// budgeted is a transport that ends a call after maxAttempts failures in a row.
type budgeted struct{ next http.RoundTripper }

func (t *budgeted) RoundTrip(r *http.Request) (*http.Response, error) {
	b, ok := r.Context().Value(budgetKey{}).(*budget)
	if !ok {
		return t.next.RoundTrip(r)
	}
	if b.spent() {
		return nil, refuse(r, &spentError{err: errors.New("answers are cut")})
	}
	resp, err := t.next.RoundTrip(r)
	if err != nil {
		if r.Context().Err() == nil && b.spend() {
			return nil, &spentError{err: err}
		}
		return nil, err
	}
	if cloud.Passing(resp.StatusCode) {
		if b.spend() {
			_ = resp.Body.Close()
			return nil, &spentError{status: resp.StatusCode}
		}
		return resp, nil
	}
	if early(r, resp) {
		_ = resp.Body.Close()
		return nil, cloud.ErrUnread
	}
	if r.Method == http.MethodGet {
		b.keep(resp.Header)
	} else {
		b.fill()
	}
	resp.Body = &budgetBody{ReadCloser: resp.Body, budget: b}
	return resp, nil
}

// CloseIdleConnections is what the SDK's Close looks for.
func (t *budgeted) CloseIdleConnections() {
	if c, ok := t.next.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

// refuse closes the request's body, as a RoundTripper must.
func refuse(r *http.Request, err error) error {
	if r.Body != nil {
		_ = r.Body.Close()
	}
	return err
}

// early says that an upload has ended before its last chunk. The SDK would take it for a
// success, and whoever writes the rest would wait for ever.
func early(r *http.Request, resp *http.Response) bool {
	return strings.HasSuffix(r.Header.Get("Content-Range"), "/*") && resp.StatusCode < http.StatusMultipleChoices &&
		resp.Header.Get("X-Http-Status-Code-Override") != "308"
}

// budgetBody counts an answer that is cut as a failure, and what came of it as success.
type budgetBody struct {
	io.ReadCloser
	budget *budget
	since  int
}

func (b *budgetBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.since += n
	switch {
	case b.since >= refill, errors.Is(err, io.EOF):
		b.since = 0
		b.budget.fill()
	case err != nil:
		b.budget.spend()
	}
	return n, err
}
