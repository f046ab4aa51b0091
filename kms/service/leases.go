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

	mu      sync.Mutex
	live    map[string]lease // and, for margin more, those that ran out
	swept   time.Time
	changed chan struct{} // closed and replaced when a holder has heard of a removal
}

type lease struct {
	holder string // the peer's name: nobody else may use the lease
	until  time.Time
	heard  uint64 // the last removal that the holder has acted on
}

func newLeases(ttl time.Duration, most int, metrics *Metrics) *leases {
	return &leases{ttl: ttl, max: most, metrics: metrics, live: make(map[string]lease), changed: make(chan struct{})}
}

// renew extends the holder's lease of this id, or gives it another. What the holder
// says to have heard means nothing of another lease.
func (l *leases) renew(holder, id string, heard uint64) (string, error) {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sweep(now)
	old, ok := l.live[id]
	if !ok || !old.heldBy(holder, now) {
		if l.alive(now) >= l.max {
			return "", fmt.Errorf("%w: %d leases are given already", kms.ErrUnavailable, l.max)
		}
		id, heard, old = rand.Text(), 0, lease{}
	}
	l.live[id] = lease{holder: holder, until: now.Add(l.ttl), heard: max(heard, old.heard)}
	if heard > old.heard {
		close(l.changed)
		l.changed = make(chan struct{})
	}
	l.metrics.leases.Set(float64(l.alive(now)))
	return id, nil
}

// unheard says whether all holders have heard of a removal; and if not, when the
// first of those that have not will have lost its lease, unless it renews it, and
// what is closed when one has heard.
func (l *leases) unheard(removal uint64) (all bool, until time.Time, changed <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	all = true
	for _, held := range l.live {
		end := held.until.Add(margin)
		if held.heard >= removal || !time.Now().Before(end) {
			continue
		}
		if all || end.Before(until) {
			until = end
		}
		all = false
	}
	return all, until, l.changed
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
	n := l.alive(time.Now())
	l.metrics.leases.Set(float64(n))
	return n
}

// alive counts the leases that have not run out.
func (l *leases) alive(now time.Time) (n int) {
	for _, held := range l.live {
		if now.Before(held.until) {
			n++
		}
	}
	return n
}

// sweep forgets leases that have run out for the margin, at most once a second.
func (l *leases) sweep(now time.Time) {
	if now.Sub(l.swept) < time.Second {
		return
	}
	l.swept = now
	maps.DeleteFunc(l.live, func(_ string, old lease) bool { return !now.Before(old.until.Add(margin)) })
}

func (l lease) heldBy(holder string, now time.Time) bool {
	return l.holder == holder && now.Before(l.until)
}
