package hsm

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// operation names what is done, and how often it may be tried: once when doing it
// twice is not the same as doing it once.
type operation struct {
	name     string
	attempts int
}

// attempts suffices for a dead handle, then a dead device, then the answer.
const attempts = 3

// answer is what one try of an operation returns.
type answer[T any] struct {
	value T
	err   error
	final bool // trying again at once is vain
}

// run does f with a session of a living login, and mends the login in between. It
// returns when f has, or ctx has ended, or the deadline has passed; f may then run
// on by itself, so it must own all that it touches.
func run[T any](ctx context.Context, t *Token, op operation, f func(*worker) (T, error)) (T, error) {
	var last answer[T]
	for try := 1; try <= attempts; try++ {
		last = runOnce(ctx, t, op, f)
		for errors.Is(last.err, errFull) { // f has not run; the pool is smaller each time
			last = runOnce(ctx, t, op, f)
		}
		stale := errors.Is(last.err, errStale) // f has not run
		if last.final || !stale && (try >= op.attempts || !curable(last.err)) {
			break
		}
	}
	if errors.Is(last.err, errStale) {
		last.err = fmt.Errorf("%w: the device was lost", ErrUnavailable)
	}
	return last.value, asUnavailable(last.err)
}

// curable tells whether a new handle, session, login or generation may help.
func curable(err error) bool {
	switch diagnose(err) {
	case faultHandle, faultSession, faultDevice, faultAmbiguous:
		return true
	}
	return false
}

func runOnce[T any](ctx context.Context, t *Token, op operation, f func(*worker) (T, error)) answer[T] {
	if ctx.Err() != nil {
		return answer[T]{err: ctx.Err(), final: true}
	}
	if err := t.begin(); err != nil {
		return answer[T]{err: err, final: true}
	}
	a, err := t.attached(ctx)
	if err == nil {
		err = a.pool.acquire(ctx, t.cfg.Deadline)
	}
	if err != nil {
		t.calls.Done()
		return answer[T]{err: err, final: !errors.Is(err, errStale)}
	}
	done := make(chan answer[T], 1)
	go func() { done <- work(t, a, op, f) }()
	return await(ctx, t, done)
}

// work runs in its own goroutine, because a call into a module cannot be cancelled.
func work[T any](t *Token, a *attachment, op operation, f func(*worker) (T, error)) answer[T] {
	defer t.calls.Done()
	defer a.pool.release()
	defer t.watch(op.name)()
	start := time.Now()
	var value T
	err := a.serve(func(w *worker) (err error) {
		value, err = f(w)
		return err
	})
	t.observe(op.name, err, time.Since(start))
	return answer[T]{value: value, err: err}
}

// watch tells of a call that hangs. The caller calls what it returns once the call
// has come back.
func (t *Token) watch(operation string) (returned func()) {
	if t.cfg.Hung == nil {
		return func() {}
	}
	timer := time.AfterFunc(t.cfg.Patience, func() { t.cfg.Hung(operation) })
	return func() { timer.Stop() }
}

func await[T any](ctx context.Context, t *Token, done <-chan answer[T]) answer[T] {
	timer := time.NewTimer(t.cfg.Deadline)
	defer timer.Stop()
	select {
	case a := <-done:
		return a
	case <-ctx.Done():
		return answer[T]{err: ctx.Err(), final: true}
	case <-timer.C:
		return answer[T]{err: fmt.Errorf("%w: the module has not answered for %v", ErrUnavailable, t.cfg.Deadline), final: true}
	}
}
