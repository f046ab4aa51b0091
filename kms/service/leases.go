package service

import (
	"crypto/rand"
	"fmt"
	"maps"
	"sync"
	"time"

	"chatelaine/kms"
)

// leases are the rights to use keys that this process has given. They are in
// memory alone: a KMS that was restarted knows none, and gateways ask for new ones.
type leases struct {
	ttl     time.Duration
	max     int
	metrics *Metrics

	mu    sync.Mutex
	live  map[string]lease
	swept time.Time
}

type lease struct {
	holder string // the peer's name: nobody else may use the lease
	until  time.Time
}

func newLeases(ttl time.Duration, most int, metrics *Metrics) *leases {
	return &leases{ttl: ttl, max: most, metrics: metrics, live: make(map[string]lease)}
}

// renew extends the holder's lease of this id, or gives it another.
func (l *leases) renew(holder, id string) (string, error) {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sweep(now)
	if old, ok := l.live[id]; !ok || !old.heldBy(holder, now) {
		if len(l.live) >= l.max {
			return "", fmt.Errorf("%w: %d leases are given already", kms.ErrUnavailable, l.max)
		}
		id = rand.Text()
	}
	l.live[id] = lease{holder: holder, until: now.Add(l.ttl)}
	l.metrics.leases.Set(float64(len(l.live)))
	return id, nil
}

// check returns kms.ErrLease unless the holder has a live lease of this id.
func (l *leases) check(holder, id string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.live[id].heldBy(holder, time.Now()) {
		return kms.ErrLease
	}
	return nil
}

// count is the number of live leases.
func (l *leases) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.swept = time.Time{}
	l.sweep(time.Now())
	return len(l.live)
}

// sweep forgets leases that have run out, at most once a second.
func (l *leases) sweep(now time.Time) {
	if now.Sub(l.swept) < time.Second {
		return
	}
	l.swept = now
	maps.DeleteFunc(l.live, func(_ string, old lease) bool { return !now.Before(old.until) })
	l.metrics.leases.Set(float64(len(l.live)))
}

func (l lease) heldBy(holder string, now time.Time) bool {
	return l.holder == holder && now.Before(l.until)
}
