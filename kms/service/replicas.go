package service

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"chatelaine/kms"
)

// replicas is what this process tells the others that share its registry of the
// leases that it gives, and what it knows of theirs. A process that was before this
// one is another.
//
// Leases are given within a third of their time after a beat only. So whoever sees no
// beat for 4/3 of a lease and the margin knows that none is left. As with removals,
// only durations on this process's own clock are compared, from when it saw the beat.
type replicas struct {
	manager *kms.Manager
	leases  *leases
	board   *board
	log     *zap.Logger
	name    string

	beating sync.Mutex
	beat    uint64
	beaten  time.Time // when the last beat that was written was begun

	mu      sync.Mutex
	others  map[string]other
	changed chan struct{}
}

// other is a replica as it was seen last.
type other struct {
	kms.Replica
	seen time.Time // when its beat was first seen
	told time.Time // when it was first seen to tell of Told with these words
}

func newReplicas(m *kms.Manager, l *leases, b *board, log *zap.Logger) *replicas {
	host, _ := os.Hostname() // it is for people; the id tells replicas apart
	return &replicas{
		manager: m, leases: l, board: b, log: log,
		name: fmt.Sprintf("%s/%d", host, os.Getpid()), others: make(map[string]other), changed: make(chan struct{}),
	}
}

// life is how long after a beat a lease may go on.
func life(ttl time.Duration) time.Duration { return ttl + ttl/3 + margin }

// mayLease makes sure that others know that this process gives leases.
func (r *replicas) mayLease(ctx context.Context) error {
	r.beating.Lock()
	defer r.beating.Unlock()
	now := time.Now()
	if r.beat > 0 && now.Sub(r.beaten) < r.leases.ttl/3 {
		return nil
	}
	return r.write(ctx, now)
}

// write says how far the holders of this process's leases are. beating is locked.
func (r *replicas) write(ctx context.Context, now time.Time) error {
	p := r.board.look()
	gateways, _ := r.leases.hearings(p.Epoch, p.since)
	record := kms.Replica{
		ID: r.manager.ID(), Name: r.name, Lease: r.leases.ttl, Beat: r.beat + 1, Told: p.Epoch, Gateways: gateways,
	}
	if err := r.manager.WriteReplica(ctx, record); err != nil {
		return err
	}
	r.beat, r.beaten = record.Beat, now
	return nil
}

func heardAll(gateways []kms.Hearing) bool {
	return !slices.ContainsFunc(gateways, func(h kms.Hearing) bool { return !h.Heard })
}

// report tells the others of each revocation when all have heard it, and before that
// what is known after a while.
func (r *replicas) report(ctx context.Context) {
	const impatience = 200 * time.Millisecond
	var told uint64
	for ctx.Err() == nil {
		p := r.board.look()
		gateways, changed := r.leases.hearings(p.Epoch, p.since)
		all := heardAll(gateways)
		if p.known && p.Epoch != told && (all || time.Since(p.since) > impatience) && r.tell(ctx) && all {
			told = p.Epoch
		}
		timer := time.NewTimer(impatience)
		if told == p.Epoch {
			timer.Stop() // nothing to be told until the board changes
			changed = nil
		}
		select {
		case <-p.changed:
		case <-changed:
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// tell writes unless nobody knows of this replica, as it has given no lease.
func (r *replicas) tell(ctx context.Context) bool {
	r.beating.Lock()
	defer r.beating.Unlock()
	if r.beat == 0 {
		return true
	}
	if err := r.write(ctx, r.beaten); err != nil { // it gives no lease: it is no beat to oneself
		r.log.Warn("telling other replicas of a revocation", zap.Error(err))
		return false
	}
	return true
}

// follow learns of the others until ctx ends.
func (r *replicas) follow(ctx context.Context) {
	persist(ctx, r.log, "following other replicas", func(ctx context.Context) error {
		return r.manager.WatchReplicas(ctx, func() error { return r.read(ctx) })
	})
}

// read takes in what the registry says of the others.
func (r *replicas) read(ctx context.Context) error {
	all, err := r.manager.Replicas(ctx)
	if err != nil {
		return err
	}
	for _, gone := range r.note(all) {
		if err := r.manager.ForgetReplica(ctx, gone.ID, gone.Beat); err != nil {
			return err
		}
	}
	return nil
}

// note returns those that can be forgotten.
func (r *replicas) note(all []kms.Replica) (gone []kms.Replica) {
	r.mu.Lock()
	defer r.mu.Unlock()
	next := make(map[string]other, len(all))
	for _, record := range all {
		if record.ID == r.manager.ID() {
			continue
		}
		o := r.others[record.ID].update(record)
		if time.Since(o.seen) > life(o.Lease) {
			gone = append(gone, record)
			continue
		}
		next[record.ID] = o
	}
	r.others = next
	close(r.changed)
	r.changed = make(chan struct{})
	return gone
}

// update takes in a record that is as old or newer.
func (o other) update(record kms.Replica) other {
	now := time.Now()
	switch {
	case o.ID != "" && o.Beat >= record.Beat:
		return o
	case o.Told == record.Told && heardAll(o.Gateways):
		return other{Replica: record, seen: now, told: o.told}
	default:
		return other{Replica: record, seen: now, told: now}
	}
}

// known lists the others that may have leases out, and what is closed when one says
// something.
func (r *replicas) known() ([]other, <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []other
	for _, o := range r.others {
		if time.Since(o.seen) <= life(o.Lease) {
			out = append(out, o)
		}
	}
	slices.SortFunc(out, func(a, b other) int { return strings.Compare(a.ID, b.ID) })
	return out, r.changed
}

// retire is for a process that ends: where no lease is left, nobody need wait for it.
func (r *replicas) retire(ctx context.Context) {
	r.beating.Lock()
	defer r.beating.Unlock()
	if r.beat == 0 || r.leases.outstanding() {
		return
	}
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if err := r.manager.ForgetReplica(bounded, r.manager.ID(), r.beat); err != nil {
		r.log.Warn("leaving", zap.Error(err))
	}
	r.beat = 0 // a lease that is asked for all the same needs another beat
}
