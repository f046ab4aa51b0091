package hsm

import (
	"context"
	"sync"
)

// pool hands out sessions of one login, never more than its size at a time. A
// permit is the right to use one session; sessions are opened when first needed.
type pool struct {
	permits chan struct{}

	mu   sync.Mutex
	idle []sessionHandle
	shut bool
}

func newPool(size int) *pool { return &pool{permits: make(chan struct{}, size)} }

// acquire waits for a permit until ctx ends.
func (p *pool) acquire(ctx context.Context) error {
	select {
	case p.permits <- struct{}{}:
		return nil
	default:
	}
	select {
	case p.permits <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (p *pool) release() { <-p.permits }

// take returns the session used last, or false when one must be opened.
func (p *pool) take() (sessionHandle, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	last := len(p.idle) - 1
	if last < 0 {
		return 0, false
	}
	s := p.idle[last]
	p.idle = p.idle[:last]
	return s, true
}

// keep takes a healthy session back, or returns false when the caller must close it.
func (p *pool) keep(s sessionHandle) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.shut {
		return false
	}
	p.idle = append(p.idle, s)
	return true
}

// shutDown takes back no more sessions and returns the idle ones for closing.
func (p *pool) shutDown() []sessionHandle {
	p.mu.Lock()
	defer p.mu.Unlock()
	idle := p.idle
	p.idle, p.shut = nil, true
	return idle
}
