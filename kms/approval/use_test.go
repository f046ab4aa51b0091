package approval

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"chatelaine/kms"
)

func use() kms.Operation {
	return kms.Operation{Action: kms.ActionUse, Resource: "key/secret", Actor: "unix:root", Reason: "audit"}
}

// later lets what is kept in memory grow old.
func (w *world) usableLater(t *testing.T, kek string) error {
	t.Helper()
	w.hands.pass(freshness)
	return w.Usable(t.Context(), kek)
}

func TestAKEKOpensWhenItsUseIsApprovedAndThenCloses(t *testing.T) {
	w := founded(t, usual)
	if err := w.Usable(t.Context(), "main"); err != nil {
		t.Errorf("a KEK without a rule: %v", err)
	}
	wantErr(t, w.Usable(t.Context(), "secret"), kms.ErrApproval, "nobody asked", "chatelaine approvals request key.use key/secret")
	q := w.ask(t, "bob", use())
	wantErr(t, w.usableLater(t, "secret"), kms.ErrApproval)
	w.approve(t, q, "alice")
	for range 3 { // using it does not use it up
		if err := w.usableLater(t, "secret"); err != nil {
			t.Fatal(err)
		}
	}
	w.hands.pass(8 * time.Hour)
	wantErr(t, w.Usable(t.Context(), "secret"), kms.ErrApproval)
}

func TestAnEndedUseClosesThoughTheMemoryIsFresh(t *testing.T) {
	w := founded(t, usual)
	q := w.ask(t, "bob", use())
	w.approve(t, q, "alice")
	w.hands.pass(8*time.Hour - time.Second)
	if err := w.Usable(t.Context(), "secret"); err != nil {
		t.Fatal(err)
	}
	w.hands.pass(time.Second)
	wantErr(t, w.Usable(t.Context(), "secret"), kms.ErrApproval, "ended at")
}

func TestARejectionEndsAUse(t *testing.T) {
	w := founded(t, usual)
	q := w.ask(t, "bob", use())
	w.approve(t, q, "alice")
	if err := w.Usable(t.Context(), "secret"); err != nil {
		t.Fatal(err)
	}
	if _, err := w.cast(t.Context(), "carol", Reject, q); err != nil {
		t.Fatal(err)
	}
	wantErr(t, w.usableLater(t, "secret"), kms.ErrApproval)
}

func TestAUseGoesOnUnderNewRulesIfItsApprovalsSuffice(t *testing.T) {
	w := founded(t, usual)
	q := w.ask(t, "bob", use())
	w.approve(t, q, "alice")
	w.change(t, rulesWith(usual+"# a comment\n"))
	if err := w.usableLater(t, "secret"); err != nil {
		t.Errorf("under the same rules: %v", err)
	}
	w.change(t, rulesWith(changeable+"  - {actions: [key.use], quorum: {security: 1, legal: 1}, wait: 1h}\n"))
	wantErr(t, w.usableLater(t, "secret"), kms.ErrApproval)
	// The time lock counts from the quorum of these rules.
	if s, err := w.cast(t.Context(), "dave", Approve, q); err != nil || s.State != StateWaiting {
		t.Fatalf("got %s, %v", s.State, err)
	}
	wantErr(t, w.usableLater(t, "secret"), kms.ErrApproval)
	w.hands.pass(time.Hour)
	if err := w.usableLater(t, "secret"); err != nil {
		t.Error(err)
	}
}

// flaky is a registry that can be away, and counts reads.
type flaky struct {
	kms.Registry
	away  atomic.Bool
	reads atomic.Int64
}

func (f *flaky) Get(ctx context.Context, key string) (kms.Item, error) {
	f.reads.Add(1)
	if f.away.Load() {
		return kms.Item{}, kms.ErrUnavailable
	}
	return f.Registry.Get(ctx, key)
}

func TestUsesAreDecidedFromMemoryAndFailClosedWhenItIsOld(t *testing.T) {
	w := founded(t, usual)
	r := &flaky{Registry: w.memory}
	c := w.control(t, Config{Registry: r})
	if err := c.Usable(t.Context(), "main"); err != nil {
		t.Fatal(err)
	}
	before := r.reads.Load()
	for range 100 {
		if err := c.Usable(t.Context(), "main"); err != nil {
			t.Fatal(err)
		}
	}
	if n := r.reads.Load() - before; n != 0 {
		t.Errorf("%d reads for 100 uses", n)
	}
	r.away.Store(true)
	w.hands.pass(freshness - 1)
	if err := c.Usable(t.Context(), "main"); err != nil {
		t.Errorf("within %v: %v", freshness, err)
	}
	w.hands.pass(1)
	wantErr(t, c.Usable(t.Context(), "main"), kms.ErrUnavailable)
	r.away.Store(false)
	if err := c.Usable(t.Context(), "main"); err != nil {
		t.Error(err)
	}
}

func TestAWatchedChangeIsObeyedAtOnce(t *testing.T) {
	w := founded(t, usual)
	other := w.control(t, Config{})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { other.Run(ctx); close(ended) }()
	defer func() { cancel(); <-ended }()
	q := w.ask(t, "bob", use())
	w.approve(t, q, "alice")
	// No time passes on the Control's clock, so nothing in memory grows old.
	became(t, func() error { return other.Usable(t.Context(), "secret") }, nil)
	if _, err := w.cast(t.Context(), "carol", Reject, q); err != nil {
		t.Fatal(err)
	}
	became(t, func() error { return other.Usable(t.Context(), "secret") }, kms.ErrApproval)
}

// compacted is a registry that has forgotten what was before a revision.
type compacted struct {
	kms.Registry
	before  int64
	refused atomic.Int64
}

func (c *compacted) Watch(ctx context.Context, prefix string, after int64, f func(kms.Event) error) error {
	if after < c.before {
		c.refused.Add(1)
		return kms.ErrCompacted
	}
	return c.Registry.Watch(ctx, prefix, after, f)
}

func TestTheWatchNeedsNoHistory(t *testing.T) {
	w := founded(t, usual)
	if err := w.memory.Commit(t.Context(), kms.Transaction{Put: []kms.Item{{Key: "elsewhere"}}}); err != nil {
		t.Fatal(err)
	}
	now, err := w.memory.Revision(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	r := &compacted{Registry: w.memory, before: now}
	other := w.control(t, Config{Registry: r})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { other.Run(ctx); close(ended) }()
	defer func() { cancel(); <-ended }()
	q := w.ask(t, "bob", use())
	w.approve(t, q, "alice")
	became(t, func() error { return other.Usable(t.Context(), "secret") }, nil)
	if _, err := w.cast(t.Context(), "carol", Reject, q); err != nil {
		t.Fatal(err)
	}
	became(t, func() error { return other.Usable(t.Context(), "secret") }, kms.ErrApproval)
	if n := r.refused.Load(); n != 0 {
		t.Errorf("it asked %d times for history that is gone", n)
	}
}

func became(t *testing.T, f func() error, want error) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		err := f()
		if errors.Is(err, want) {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("got %v, want %v", err, want)
		}
	}
}

func TestAWaitingUserObeysItsContext(t *testing.T) {
	w := founded(t, usual)
	w.loading <- struct{}{} // somebody is reading, and for long
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	wantErr(t, w.Usable(ctx, "main"), context.Canceled)
}

func BenchmarkUsable(b *testing.B) {
	w := founded(b, usual)
	for b.Loop() {
		if err := w.Usable(b.Context(), "main"); err != nil {
			b.Fatal(err)
		}
	}
}
