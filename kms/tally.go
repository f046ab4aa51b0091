package kms

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"
)

// Sealed is what a gateway has sealed under a bucket key since it last said so.
type Sealed struct {
	Space string
	ID    KeyID
	Count uint64
}

// Counts are kept in memory and written into the current key's record when they are
// a part of an epoch, or have waited: not with each renewal of each gateway.
const (
	tallyTick = time.Second
	// tallyParts: so many writes of a record fill an epoch.
	tallyParts = 64
	// tallyWait is how long a count that is no such part waits to be written.
	tallyWait = 20 * time.Second
	// tallyKept is how long a key is remembered as one that seals no more.
	tallyKept = 10 * time.Minute
	// maxTallies bounds the keys that are counted at a time.
	maxTallies = 1 << 16
)

// tallies are what this Manager was told and has not written yet. The zero value is
// ready.
type tallies struct {
	mu  sync.Mutex
	all map[KeyID]*tally
}

type tally struct {
	space string
	count uint64 // not written
	part  uint64 // of the bucket's epoch; 0: not known yet
	since time.Time
	full  bool // it is not to be sealed with any more
}

// Sealed adds to what was sealed under bucket keys, and returns those of them that are
// not to be sealed with any more: CurrentKey has another. Run writes the sums down
// where all Managers see them. ErrInvalid.
//
// The number is about right. Lost is what a gateway that died had not said, and what a
// KMS that was killed had not written: up to a 64th of an epoch, or 20 s; an epoch is
// longer by that, and by what is sealed until gateways have heard of its end.
func (m *Manager) Sealed(seals []Sealed) ([]KeyID, error) {
	var full []KeyID
	for _, s := range seals {
		if err := checkSpace(s.Space); err != nil {
			return nil, fmt.Errorf("kms: counting what was sealed: %w", err)
		}
		if m.tallies.add(s, time.Now()) {
			full = append(full, s.ID)
		}
	}
	return full, nil
}

func (t *tallies) add(s Sealed, now time.Time) (full bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	one := t.all[s.ID]
	if one == nil {
		if len(t.all) >= maxTallies {
			return false
		}
		if t.all == nil {
			t.all = make(map[KeyID]*tally)
		}
		one = &tally{space: s.Space, since: now}
		t.all[s.ID] = one
	}
	if one.space != s.Space {
		return false // no key is of two spaces
	}
	one.count += min(s.Count, maxEpochObjects)
	return one.full
}

// due takes the counts that are to be written, and forgets keys that are idle.
func (t *tallies) due(now time.Time, all bool) []Sealed {
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []Sealed
	for id, one := range t.all {
		waited := now.Sub(one.since)
		switch {
		case one.full && waited >= tallyKept, !one.full && one.count == 0 && waited >= tallyWait:
			delete(t.all, id)
		case !one.full && one.count > 0 && (all || one.count >= one.part || waited >= tallyWait):
			out = append(out, Sealed{Space: one.space, ID: id, Count: one.count})
			one.count, one.since = 0, now
		}
	}
	return out
}

// wrote notes what came of a count: the bucket's epoch, and whether the key is full.
func (t *tallies) wrote(s Sealed, epoch uint64, full bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if one := t.all[s.ID]; one != nil {
		one.part, one.full = max(1, epoch/tallyParts), full
	}
}

// putBack returns a count that could not be written.
func (t *tallies) putBack(s Sealed) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if one := t.all[s.ID]; one != nil {
		one.count += s.Count
	}
}

// runTallies writes counts until ctx ends, and then what is left.
func (m *Manager) runTallies(ctx context.Context) {
	for ctx.Err() == nil {
		select {
		case <-time.After(tallyTick):
			m.writeTallies(ctx, false)
		case <-ctx.Done():
		}
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	m.writeTallies(last, true)
}

func (m *Manager) writeTallies(ctx context.Context, all bool) {
	for _, s := range m.tallies.due(time.Now(), all) {
		epoch, full, err := m.addSealed(ctx, s)
		switch {
		case errors.Is(err, ErrNotFound):
			m.tallies.wrote(s, epochObjects, true) // the bucket was removed
		case err != nil:
			m.tallies.putBack(s)
			m.log.Warn("what was sealed is not counted yet", zap.Stringer("bucket_key", s.ID), zap.Error(err))
		default:
			m.tallies.wrote(s, epoch, full)
		}
	}
}

// addSealed adds to the current key's record. A key that is not current any more counts
// no more: it is full.
func (m *Manager) addSealed(ctx context.Context, s Sealed) (epoch uint64, full bool, err error) {
	err = retry(ctx, func() error {
		b, err := m.bucketOf(ctx, s.Space)
		if err != nil {
			return err
		}
		epoch = cmp.Or(b.record.EpochObjects, epochObjects)
		cur, err := readMaybe[current](ctx, m.registry, currentPath(s.Space))
		if full = err == nil && cur.record.ID != s.ID; err != nil || full {
			return err
		}
		cur.record.Sealed += s.Count
		full = cur.record.Sealed >= epoch
		item, err := put(cur.is.Key, cur.record)
		if err != nil {
			return err
		}
		return m.registry.Commit(ctx, Transaction{If: []Condition{cur.is}, Put: []Item{item}})
	})
	return epoch, full, err
}
