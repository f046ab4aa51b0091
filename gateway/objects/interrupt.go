package objects

import (
	"context"
	"sync"
	"time"
)

// watchPeriod is how often a transfer's key is looked at while the client takes its
// time: between two looks at each batch of up to 1 MiB.
const watchPeriod = 250 * time.Millisecond

type interruptKey struct{}

// WithInterrupt has transfers under ctx that wait for a client interrupted when their
// key may not be used any more. f must make reading from the client and writing to it
// fail, and not block. It may be called more than once, and concurrently with both.
func WithInterrupt(ctx context.Context, f func()) context.Context {
	return context.WithValue(ctx, interruptKey{}, f)
}

// watched interrupts a transfer once live says no, until stop is called.
func watched(ctx context.Context, live func() error) (stop func()) {
	interrupt, ok := ctx.Value(interruptKey{}).(func())
	if !ok {
		return func() {}
	}
	w := &watching{live: live, interrupt: interrupt}
	w.mu.Lock() // look may come before there is a timer to be set again
	defer w.mu.Unlock()
	w.timer = time.AfterFunc(watchPeriod, w.look)
	return w.stop
}

// watching costs a timer, and no goroutine until it looks.
type watching struct {
	live      func() error
	interrupt func()
	timer     *time.Timer

	mu      sync.Mutex
	stopped bool
}

// look interrupts again and again: what was read or written meanwhile may have moved
// the deadline on.
func (w *watching) look() {
	dead := w.live() != nil
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stopped {
		return
	}
	if dead {
		w.interrupt()
	}
	w.timer.Reset(watchPeriod)
}

// stop returns when no interruption is under way or can come.
func (w *watching) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stopped = true
	w.timer.Stop()
}
