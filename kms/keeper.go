package kms

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"sync"
	"time"

	"go.uber.org/zap"
)

// The keeper rotates KEKs whose period is over and destroys versions whose time has
// come. One of the Managers that share a registry is it at a time; that saves work,
// while the transactions alone keep two from doing a thing twice.
//
// It has a clock of its own: the sum of the time that keepers have run, each measured
// on its monotonic clock. No jump of a wall clock moves it. It stands still while no
// KMS runs.
const (
	// keeperTick is the time between two looks, and what the clock may be behind.
	keeperTick = 20 * time.Second
	// keeperTakeover is how long a keeper is silent before another takes its place.
	keeperTakeover = time.Minute
	// keeperSlack is more than the clock is behind at the worst.
	keeperSlack = 2 * time.Minute
)

// slack is what is added to a period, so that a clock that was behind when it began
// does not shorten it. Short periods, of development, have less.
func slack(period time.Duration) time.Duration { return min(keeperSlack, period/10) }

// keeperClock is the registry's record of the clock, and of who moves it.
type keeperClock struct {
	Elapsed time.Duration `json:"elapsed"`
	Keeper  string        `json:"keeper"`
}

// clock is the time of the keeper's clock.
func (m *Manager) clock(ctx context.Context) (time.Duration, error) {
	s, err := readMaybe[keeperClock](ctx, m.registry, clockPath)
	if err != nil {
		return 0, fmt.Errorf("reading the keeper's clock: %w", err)
	}
	return s.record.Elapsed, nil
}

// Run does what is due, until ctx ends. Each Manager should run it; one of those that
// share a registry is at work at a time. What fails is logged and tried again.
func (m *Manager) Run(ctx context.Context) {
	var group sync.WaitGroup
	defer group.Wait()
	group.Go(func() { m.runJobs(ctx) })
	group.Go(func() { m.runTallies(ctx) })
	group.Go(func() { m.runUsage(ctx) })
	k := &keeper{Manager: m}
	for {
		if err := k.look(ctx); err != nil && ctx.Err() == nil {
			m.log.Warn("the keeper's round failed", zap.Error(err))
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(keeperTick - rand.N(keeperTick/4)): //nolint:gosec // G404: jitter
		}
	}
}

// keeper is what a Manager remembers between two looks at the clock.
type keeper struct {
	*Manager
	revision int64     // of the clock's record, when it was last seen to change
	since    time.Time // when that was, on the monotonic clock
}

// look moves the clock if it is ours to move, and then does what is due.
func (k *keeper) look(ctx context.Context) error {
	moved, err := k.move(ctx)
	if err != nil || !moved {
		return err
	}
	clock, err := k.clock(ctx)
	if err != nil {
		return err
	}
	return k.duties(ctx, clock)
}

// move adds to the clock what has passed since its record was seen to change. Others
// keep away while the record changes, and take over when it has stood still.
func (k *keeper) move(ctx context.Context) (bool, error) {
	s, err := readMaybe[keeperClock](ctx, k.registry, clockPath)
	if err != nil {
		return false, err
	}
	now := time.Now()
	var passed time.Duration
	if s.exists() {
		if s.is.Revision != k.revision {
			k.revision, k.since = s.is.Revision, now
			return false, nil
		}
		passed = now.Sub(k.since)
		if s.record.Keeper != k.id && passed < keeperTakeover {
			return false, nil
		}
	}
	item, err := put(clockPath, keeperClock{Elapsed: s.record.Elapsed + passed, Keeper: k.id})
	if err != nil {
		return false, err
	}
	err = k.registry.Commit(ctx, Transaction{If: []Condition{s.is}, Put: []Item{item}})
	if errors.Is(err, ErrConflict) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	s, err = readMaybe[keeperClock](ctx, k.registry, clockPath)
	if err == nil && s.record.Keeper == k.id {
		k.revision, k.since = s.is.Revision, now
	}
	return err == nil, err
}

// duties does what is due. One that fails keeps no other from being done.
func (m *Manager) duties(ctx context.Context, clock time.Duration) error {
	keks, err := m.KEKs(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for i := range keks {
		if keks[i].rotationDue(clock) == nil {
			errs = append(errs, m.rotateDue(ctx, keks[i].Name, clock))
		}
		for _, v := range keks[i].Versions {
			if v.Destruction != nil && v.State != Suspended && v.Destruction.due(time.Now(), clock) {
				errs = append(errs, m.destroyDue(ctx, keks[i].Ref(v.Number)))
			}
		}
	}
	return errors.Join(errs...)
}

func (m *Manager) rotateDue(ctx context.Context, name string, clock time.Duration) error {
	by := Change{Reason: "auto_rotate_period is over"}
	_, err := m.rotate(ctx, name, by, func(k *KEK) error { return k.rotationDue(clock) })
	if err != nil {
		return fmt.Errorf("kms: rotating KEK %q by its period: %w", name, err)
	}
	return nil
}

func (m *Manager) destroyDue(ctx context.Context, ref KeyRef) error {
	if err := m.destroyVersion(ctx, ref); err != nil {
		return fmt.Errorf("kms: destroying KEK version %s: %w", ref, err)
	}
	return nil
}

// rotationDue returns nil when the KEK is to be rotated by its period. KEKs of one
// age are spread over a hundredth of it.
func (k *KEK) rotationDue(clock time.Duration) error {
	if k.AutoRotate == 0 || k.Status() != string(Active) {
		return conflict("it is not rotated by itself now")
	}
	due := k.RotatedClock + k.AutoRotate + slack(k.AutoRotate) + spread(k.Name, k.AutoRotate/100)
	if clock < due {
		return conflict("it was rotated %v ago", clock-k.RotatedClock)
	}
	return nil
}

// spread is a time below a bound that depends on the name alone.
func spread(name string, below time.Duration) time.Duration {
	h := fnv.New32a()
	_, _ = h.Write([]byte(name)) // never fails
	return time.Duration(float64(below) * float64(h.Sum32()) / (1 << 32))
}
