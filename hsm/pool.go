package hsm

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// pool hands out sessions of one login, never more than its size at a time. A
// permit is the right to use one session; sessions are opened when first needed.
// Those who wait are served in the order in which they came.
type pool struct {
	permits chan struct{}

	mu      sync.Mutex
	idle    []sessionHandle
	shut    bool
	missing int // permits that are kept back, since the token has fewer sessions than we thought
	owed    int // of these, permits that a caller still holds
}

// errFull: the token had no session left, and the pool has become smaller. Nothing
// was called.
var errFull = errors.New("the token has fewer sessions than the pool")

func newPool(size int) *pool { return &pool{permits: make(chan struct{}, size)} }

// acquire waits for a permit until ctx ends, or at most patience.
func (p *pool) acquire(ctx context.Context, patience time.Duration) error {
	select {
	case p.permits <- struct{}{}:
		return nil
	default:
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case p.permits <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return fmt.Errorf("%w: none of %d sessions became free for %v", ErrUnavailable, p.size(), patience)
	}
}

// release gives a permit back, unless the pool has become smaller by it.
func (p *pool) release() {
	p.mu.Lock()
	owed := p.owed > 0
	if owed {
		p.owed--
	}
	p.mu.Unlock()
	if !owed {
		<-p.permits
	}
}

// shrink makes the pool smaller by the permit that the caller holds, or returns false
// when it is the last. Who waits for a session then waits for one that there is.
func (p *pool) shrink() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if cap(p.permits)-p.missing <= 1 {
		return false
	}
	p.missing++
	p.owed++
	return true
}

// size is how many sessions may be in use.
func (p *pool) size() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return cap(p.permits) - p.missing
}

// busy is how many sessions are in use.
func (p *pool) busy() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return max(0, len(p.permits)-p.missing+p.owed)
}

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
