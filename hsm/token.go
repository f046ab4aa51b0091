package hsm

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

// Token is one token of a module, logged in. When the device or the login is lost,
// the next call initialises the module anew and logs in again; while that fails,
// calls return ErrUnavailable. All methods may run concurrently.
type Token struct {
	cfg    Config
	lib    *Library
	owns   bool // Close closes lib
	log    *zap.Logger
	proven atomic.Bool // the token accepted our PIN

	public publicKeys // of RSA keys

	calls sync.WaitGroup // running calls and logins; Add only while mu is held and closed is false

	mu      sync.Mutex
	closed  bool
	current *attachment
	joining *joining  // the login that is under way, if any
	failed  error     // why the last login failed
	tried   time.Time // when it did
	refused error     // the token refused the PIN: no login is tried any more
}

// joining is a login under way, which all callers wait for.
type joining struct {
	done chan struct{}
	err  error // set before done is closed
}

// Open loads the module, finds the token, logs in and probes how the token encrypts.
// The caller closes the Token. Errors: ErrInvalid, ErrModule, ErrInUse, ErrPIN,
// ErrAmbiguous, ErrUnsupported, ErrUnsafe, ErrUnavailable (with ErrNoToken when the
// module has no such token), ctx's error.
func Open(ctx context.Context, cfg Config) (*Token, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	lib, owned, err := cfg.library()
	if err != nil {
		return nil, err
	}
	t := newToken(cfg.withDefaults(), lib)
	t.owns = owned
	if _, err := t.attached(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("hsm: opening token %q: %w", cfg.Token, asUnavailable(err)), t.Close())
	}
	return t, nil
}

// newToken makes a Token that has not logged in. Its configuration has no zeroes left.
func newToken(cfg Config, lib *Library) *Token {
	return &Token{cfg: cfg, lib: lib, log: cfg.Logger.Named("hsm")}
}

// State is how a Token is, for metrics.
type State struct {
	Token string // as it was selected
	// Open is the breaker: the device is lost or refuses, and calls fail without
	// reaching it, but for one attempt to log in at a time.
	Open     bool
	Sessions int // in the pool; 0 while Open
	Busy     int // of these, in use
}

// States is the Token's State, alone.
func (t *Token) States() []State {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := State{Token: t.cfg.Token.String(), Open: true}
	if t.refused == nil && t.current != nil && t.current.lives() {
		s.Open, s.Sessions, s.Busy = false, t.current.pool.size(), t.current.pool.busy()
	}
	return []State{s}
}

// Label is the token's label. It is "" while the token is lost.
func (t *Token) Label() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.current == nil {
		return ""
	}
	return t.current.info.label
}

// Close waits up to the deadline for running calls and closes all sessions, which
// logs out. It does not end a call that hangs. A second Close does nothing.
func (t *Token) Close() error {
	t.mu.Lock()
	closed := t.closed
	t.closed = true
	t.mu.Unlock()
	if closed {
		return nil
	}
	if err := t.wait(); err != nil {
		return err
	}
	t.mu.Lock()
	current := t.current
	t.current = nil
	t.mu.Unlock()
	if current != nil {
		current.retire()
	}
	if t.owns {
		return t.lib.Close()
	}
	return nil
}

func (t *Token) wait() error {
	done := make(chan struct{})
	go func() { t.calls.Wait(); close(done) }()
	timer := time.NewTimer(t.cfg.Deadline)
	defer timer.Stop()
	select {
	case <-done:
		return nil
	case <-timer.C:
		return fmt.Errorf("hsm: closing token %q: %w: a call has not returned for %v", t.cfg.Token, ErrUnavailable, t.cfg.Deadline)
	}
}

// begin counts a call, or returns ErrClosed. After nil, t.calls.Done must be called.
func (t *Token) begin() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return ErrClosed
	}
	t.calls.Add(1)
	return nil
}

// attached returns a login that lives, and logs in when there is none. It does not for
// a caller that has gone already.
func (t *Token) attached(ctx context.Context) (*attachment, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	a, j, err := t.join()
	if a != nil || err != nil {
		return a, err
	}
	timer := time.NewTimer(t.cfg.Deadline)
	defer timer.Stop()
	select {
	case <-j.done:
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-timer.C:
		return nil, fmt.Errorf("%w: logging in has not ended for %v", ErrUnavailable, t.cfg.Deadline)
	}
	if j.err != nil {
		return nil, j.err
	}
	a, _, err = t.join()
	if a == nil && err == nil {
		err = errStale // lost again already
	}
	return a, err
}

// join returns the living login, or the one under way, which it starts if need be,
// or why none is started now.
func (t *Token) join() (*attachment, *joining, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.closed:
		return nil, nil, ErrClosed
	case t.refused != nil:
		return nil, nil, t.refused
	case t.current != nil && t.current.lives():
		return t.current, nil, nil
	case t.joining != nil:
		return nil, t.joining, nil
	case t.failed != nil && time.Since(t.tried) < t.cfg.Retry:
		return nil, nil, t.failed
	}
	t.joining = &joining{done: make(chan struct{})}
	t.calls.Add(1)
	go t.logInAgain(t.joining, t.current)
	return nil, t.joining, nil
}

// logInAgain makes the attempt for which all callers wait.
func (t *Token) logInAgain(j *joining, old *attachment) {
	defer t.calls.Done()
	defer t.watch("login")()
	a, err := t.attach()
	if old != nil {
		old.retire() // after the new login, which the last session's end would undo
	}
	t.joined(a, asUnavailable(err))
	j.err = asUnavailable(err)
	close(j.done)
}

func (t *Token) joined(a *attachment, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err != nil && t.failed == nil { // once per loss, not once per attempt
		t.log.Error("not logged in", zap.Stringer("token", t.cfg.Token), zap.Error(err))
	}
	t.joining, t.current, t.failed, t.tried = nil, a, err, time.Now()
	if pinRefused(err) {
		t.refused = err
	}
}

func (t *Token) observe(operation string, err error, took time.Duration) {
	t.cfg.Observe(operation, outcome(err), took)
}

// outcome is the CKR name of an error, for metrics.
func outcome(err error) string {
	var call *CallError
	switch {
	case err == nil:
		return codeName(ckrOK)
	case errors.As(err, &call):
		return codeName(call.Code)
	}
	return "error"
}
