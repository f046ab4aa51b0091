package approval

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"chatelaine/kms"
)

// freshness is how long a snapshot is believed that no watch has said anything about:
// the longest that a change takes to be obeyed when the watch is cut.
const freshness = 5 * time.Second

// snapshot is what uses of KEKs are decided by, as it was read at some moment.
type snapshot struct {
	law     *lawbook // nil: no rules
	uses    []Record // approved uses
	changes uint64   // that had been seen when reading began
	taken   time.Duration
}

// Usable implements kms.Gate. It answers from memory. What it knows is read again when
// a watch has seen a change, and else every 5 s; it does not answer from what is older,
// so a registry that is away ends the use of KEKs, with ErrUnavailable.
func (c *Control) Usable(ctx context.Context, kek string) error {
	s, err := c.current(ctx)
	if err != nil {
		return fmt.Errorf("approval: looking for an approved use of %q: %w", kek, err)
	}
	if s.law == nil {
		return nil
	}
	resource := "key/" + kek
	rule := s.law.For(kms.ActionUse, resource)
	if len(rule.Quorum) == 0 {
		return nil
	}
	why := "nobody asked for it"
	now := c.clock.now()
	for _, r := range s.uses {
		standing := s.law.timedUse(r, resource, now)
		if standing.State == StateApproved {
			return nil
		}
		if standing.Why != "" {
			why = standing.Why
		}
	}
	return fmt.Errorf("approval: %w: the use of KEK %q needs %s, and %s; "+
		"ask with `chatelaine approvals request %s %s`", kms.ErrApproval, kek, rule, why, kms.ActionUse, resource)
}

// timedUse decides again about a use whose signatures were verified when the snapshot
// was taken: only the clock can have changed it.
func (l *lawbook) timedUse(r Record, resource string, now instant) Standing {
	q, _, err := ParseStatement([]byte(r.Statement))
	if err != nil || q.Operation.Resource != resource {
		return Standing{}
	}
	s := Standing{Request: q, Rule: l.For(kms.ActionUse, resource)}
	s.Ready = r.Quorum.Add(s.Rule.Wait)
	s.Until = s.Ready.Add(s.Rule.Valid)
	switch {
	case now.passed(s.Until):
		return s.as(StateExpired, "the approval ended at "+stamp(s.Until))
	case s.Rule.Wait > 0 && !now.reached(s.Ready):
		return s.as(StateWaiting, "its waiting period lasts until "+stamp(s.Ready))
	}
	return s.as(StateApproved, "")
}

func (c *Control) fresh(s *snapshot) bool {
	return s != nil && s.changes == c.changes.Load() && c.clock.steady()-s.taken < freshness
}

// current is a fresh snapshot. One caller reads it; the others wait for that one, or
// for the end of their ctx.
func (c *Control) current(ctx context.Context) (*snapshot, error) {
	if s := c.seen.Load(); c.fresh(s) {
		return s, nil
	}
	select {
	case c.loading <- struct{}{}:
		defer func() { <-c.loading }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if s := c.seen.Load(); c.fresh(s) {
		return s, nil
	}
	s, err := c.load(ctx)
	if err != nil {
		return nil, err
	}
	c.seen.Store(s)
	return s, nil
}

// load reads a snapshot. It is as old as when reading began.
func (c *Control) load(ctx context.Context) (*snapshot, error) {
	s := &snapshot{changes: c.changes.Load(), taken: c.clock.steady()}
	var err error
	if s.law, _, err = c.law(ctx); err != nil || s.law == nil {
		return s, err
	}
	index, _, err := readMaybe[[]opened](ctx, c.registry, openedKey)
	if err != nil {
		return nil, err
	}
	now := c.clock.now()
	for _, entry := range index {
		r, _, err := readMaybe[Record](ctx, c.registry, requestKey(entry.ID))
		if err != nil {
			return nil, err
		}
		standing := s.law.judge(r, now)
		alive := standing.State == StateApproved || standing.State == StateWaiting
		if alive && standing.Request.ID == entry.ID && standing.Request.Operation.Action == kms.ActionUse {
			s.uses = append(s.uses, r)
		}
	}
	return s, nil
}

// indexUse adds an approved use to the index, and takes out those that are over.
func (c *Control) indexUse(ctx context.Context, id string, until time.Time, now instant) ([]change, error) {
	index, is, err := readMaybe[[]opened](ctx, c.registry, openedKey)
	if err != nil {
		return nil, err
	}
	index = slices.DeleteFunc(index, func(o opened) bool { return now.passed(o.Until) })
	item, err := put(openedKey, append(index, opened{ID: id, Until: until}))
	return []change{{is: is, item: item}}, err
}

// sweep is how often requests that are over are marked so. Then they stay over, should
// a clock be set back.
const sweep = time.Minute

// Run watches the registry, so that changes are obeyed at once, and marks what has
// expired, until ctx ends. What fails is tried again. Nothing depends on it but how
// soon a change is obeyed.
func (c *Control) Run(ctx context.Context) {
	c.announce(ctx)
	var watching sync.WaitGroup
	defer watching.Wait()
	watching.Go(func() { c.watch(ctx) })
	ticker := time.NewTicker(sweep)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			if err := c.expire(ctx); err != nil && ctx.Err() == nil {
				c.log.Warn("requests that are over could not be marked", zap.Error(err))
			}
		}
	}
}

// announce says whether dual control is on.
func (c *Control) announce(ctx context.Context) {
	l, _, err := c.law(ctx)
	switch {
	case err != nil:
		c.log.Error("the rules of dual control cannot be read", zap.Error(err))
	case l == nil:
		c.log.Warn("dual control is off: whoever administers this KMS can do everything alone; `chatelaine ceremony` turns it on")
	default:
		c.log.Info("dual control is on", zap.String("rules", l.version))
	}
}

// watch counts changes. Where it loses its place it counts one, as there may have been
// some.
func (c *Control) watch(ctx context.Context) {
	for ctx.Err() == nil {
		err := c.watchOnce(ctx)
		c.changes.Add(1)
		if ctx.Err() != nil {
			return
		}
		c.log.Warn("watching for approvals is interrupted", zap.Error(err))
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
}

// watchOnce watches from now on: the revision of what was decided last may be compacted
// long since.
func (c *Control) watchOnce(ctx context.Context) error {
	now, err := c.registry.Revision(ctx)
	if err != nil {
		return err
	}
	c.changes.Add(1)
	return c.registry.Watch(ctx, prefix, now, func(kms.Event) error {
		c.changes.Add(1)
		return nil
	})
}

// expire marks requests whose time is over.
func (c *Control) expire(ctx context.Context) error {
	l, _, err := c.law(ctx)
	if err != nil || l == nil {
		return err
	}
	items, err := c.registry.List(ctx, requestsKey)
	if err != nil {
		return err
	}
	now := c.clock.now()
	for _, item := range items {
		r, err := decode[Record](item)
		if err != nil {
			return err
		}
		s := l.judge(r, now)
		if r.Closed != "" || s.State != StateExpired {
			continue
		}
		r.close(StateExpired, now.late)
		err = c.store(ctx, s.Request.ID, r, []kms.Condition{{Key: item.Key, Revision: item.Revision}}, nil)
		if err != nil && !errors.Is(err, kms.ErrConflict) {
			return err
		}
	}
	return nil
}
