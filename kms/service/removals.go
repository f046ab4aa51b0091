package service

import (
	"context"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"

	"chatelaine/kms"
)

// removals is what this process knows of removed buckets. A gateway hears of them
// when it renews its lease, and says so in the renewal after. A bucket that takes a
// removed one's place waits until no lease is left whose holder has not heard.
//
// Only durations on this process's monotonic clock are compared, and they begin when
// this process first saw the removal, which is later than the removal was: so
// clocks of other machines need not agree, only run at the same rate.
type removals struct {
	manager *kms.Manager
	leases  *leases
	keep    time.Duration // how long a gateway without a lease may have a key
	log     *zap.Logger
	started time.Time

	mu    sync.Mutex
	count uint64              // of removals seen
	seen  map[string]seen     // by space
	young map[string]struct{} // spaces given while older leases may be unknown
}

// seen is a removal that this process knows of.
type seen struct {
	kms.Removal
	number uint64
	at     time.Time
}

// margin is beyond each wait: for clocks that run at other rates, and for a store
// that is slow to finish a write that was allowed in the last moment.
const margin = 2 * time.Second

func newRemovals(m *kms.Manager, l *leases, keyTTL time.Duration, log *zap.Logger) *removals {
	return &removals{
		manager: m, leases: l, keep: keyTTL + margin, log: log, started: time.Now(),
		seen: make(map[string]seen), young: make(map[string]struct{}),
	}
}

// look reads the registry, and returns the number of removals seen and the spaces of
// those after a number.
func (r *removals) look(ctx context.Context, after uint64) (uint64, []string, error) {
	all, err := r.manager.Removals(ctx)
	if err != nil {
		return 0, nil, err
	}
	old, count, spaces := r.note(all, after)
	for _, removal := range old {
		if err := r.manager.ForgetRemoval(ctx, removal); err != nil {
			r.log.Warn("removal not forgotten", zap.String("bucket", removal.Bucket), zap.Error(err))
			break // the next renewal tries again
		}
		r.forget(removal)
	}
	return count, spaces, nil
}

// note takes in what the registry has; old is what can be forgotten there. The
// answer is of all that was ever seen: of two reads, the older may come in last, and
// then its number must not stand for what only the newer had.
func (r *removals) note(all []kms.Removal, after uint64) (old []kms.Removal, count uint64, spaces []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	there := make(map[string]bool, len(all))
	for _, removal := range all {
		there[removal.Space] = true
		r.see(removal)
	}
	for space, s := range r.seen {
		expired := time.Since(s.at) > r.keep
		switch {
		case expired && there[space]:
			old = append(old, s.Removal)
		case expired: // another process had it forgotten
			delete(r.seen, space)
		}
		if s.number > after {
			spaces = append(spaces, space)
		}
	}
	return old, r.count, spaces
}

// see gives a removal its number when it is new.
func (r *removals) see(removal kms.Removal) seen {
	s, ok := r.seen[removal.Space]
	if !ok {
		r.count++
		s = seen{Removal: removal, number: r.count, at: time.Now()}
		r.seen[removal.Space] = s
	}
	return s
}

func (r *removals) forget(removal kms.Removal) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.seen, removal.Space)
}

// born notes a bucket that was registered here, while there may still be leases that
// this process does not know: nobody can have a key of it under one of those.
func (r *removals) born(space string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.knowsAll() {
		clear(r.young)
		return
	}
	r.young[space] = struct{}{}
}

// knowsAll: the leases that a process before this one gave have run out.
func (r *removals) knowsAll() bool { return time.Since(r.started) >= r.leases.ttl+margin }

// settle waits until no gateway can seal for a removed bucket, or returns
// kms.ErrBusy shortly before the deadline. It is kms.NewBucket's.
//
// After a lease and the margin that is certain. Before, it is so when every live
// lease's holder has heard, provided that this process knows all leases whose
// holders may have a key of the space.
func (r *removals) settle(ctx context.Context, removal kms.Removal) error {
	s, complete := r.knowledge(removal)
	end := s.at.Add(r.leases.ttl + margin)
	for time.Now().Before(end) {
		next := end
		all, until, changed := r.leases.unheard(s.number)
		if complete && all {
			return nil
		}
		if complete && until.Before(next) {
			next = until
		}
		if err := waitFor(ctx, next, changed); err != nil {
			return fmt.Errorf("service: %w", err)
		}
	}
	return nil
}

func (r *removals) knowledge(removal kms.Removal) (s seen, complete bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, young := r.young[removal.Space]
	return r.see(removal), r.manager.Exclusive() && (young || r.knowsAll())
}

// answering is how long before its deadline a call that waits gives up, so that its
// answer arrives.
const answering = 250 * time.Millisecond

// waitFor waits until a time, or until changed is closed.
func waitFor(ctx context.Context, until time.Time, changed <-chan struct{}) error {
	var early error
	if deadline, ok := ctx.Deadline(); ok && deadline.Add(-answering).Before(until) {
		until, early = deadline.Add(-answering), kms.ErrBusy
	}
	timer := time.NewTimer(time.Until(until))
	defer timer.Stop()
	select {
	case <-changed:
		return nil
	case <-timer.C:
		return early
	case <-ctx.Done():
		return ctx.Err()
	}
}
