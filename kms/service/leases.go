package service

import (
	"cmp"
	"crypto/rand"
	"fmt"
	"maps"
	"slices"
	"strings"
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
	changed chan struct{} // closed and replaced when a holder has heard of something
}

type lease struct {
	holder  string // the peer's name: nobody else may use the lease
	gateway string // the holder's name for itself, for people
	until   time.Time
	heard   uint64 // the last removal that the holder has acted on
	said
}

// said is what a holder has said of revocations.
type said struct {
	epoch  uint64 // the last that it has acted on
	at     time.Time
	canary kms.CanaryState
}

func newLeases(ttl time.Duration, most int, metrics *Metrics) *leases {
	return &leases{ttl: ttl, max: most, metrics: metrics, live: make(map[string]lease), changed: make(chan struct{})}
}

// asking is what a gateway says when it renews a lease.
type asking struct {
	holder, gateway, id string
	heard               uint64 // removals; means nothing of another lease
}

// renew extends the holder's lease of this id, or gives it another.
func (l *leases) renew(a asking) (string, error) {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sweep(now)
	old, ok := l.live[a.id]
	if !ok || !old.heldBy(a.holder, now) {
		if l.alive(now) >= l.max {
			return "", fmt.Errorf("%w: %d leases are given already", kms.ErrUnavailable, l.max)
		}
		a.id, a.heard, old = rand.Text(), 0, lease{}
	}
	next := lease{
		holder: a.holder, gateway: a.gateway, until: now.Add(l.ttl), heard: max(a.heard, old.heard), said: old.said,
	}
	l.live[a.id] = next
	if next.heard > old.heard {
		l.tell()
	}
	l.metrics.leases.Set(float64(l.alive(now)))
	return a.id, nil
}

// hear notes that a holder has acted on a revocation, or kms.ErrLease.
func (l *leases) hear(holder, id string, w said) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	held := l.live[id]
	if !held.heldBy(holder, w.at) {
		return kms.ErrLease
	}
	if w.epoch >= held.epoch {
		held.said = w
		l.live[id] = held
		l.tell()
	}
	return nil
}

// end takes a lease back from a holder that uses no key any more.
func (l *leases) end(holder, id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.live[id].holder == holder {
		delete(l.live, id)
		l.tell()
	}
}

// tell wakes who waits for a holder's word. The lock is held.
func (l *leases) tell() {
	close(l.changed)
	l.changed = make(chan struct{})
}

// hearings are what the holders have said of a revocation that this process knows
// since a time, and what is closed when one says more.
func (l *leases) hearings(epoch uint64, since time.Time) ([]kms.Hearing, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	var out []kms.Hearing
	for _, held := range l.live {
		h := kms.Hearing{Gateway: held.gateway, Peer: held.holder, Heard: held.epoch >= epoch, Canary: held.canary}
		if h.Heard {
			h.Took = max(0, held.at.Sub(since))
		} else if h.Left = held.until.Add(margin).Sub(now); h.Left <= 0 {
			continue
		}
		out = append(out, h)
	}
	slices.SortFunc(out, func(a, b kms.Hearing) int {
		return cmp.Or(strings.Compare(a.Gateway, b.Gateway), strings.Compare(a.Peer, b.Peer), cmp.Compare(a.Took, b.Took))
	})
	return out, l.changed
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

// outstanding says whether a lease may be in use.
func (l *leases) outstanding() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, held := range l.live {
		if time.Now().Before(held.until.Add(margin)) {
			return true
		}
	}
	return false
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
