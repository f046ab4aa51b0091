package backendtest_test

import (
	"context"
	"errors"
	"reflect"
	"testing"
	"time"

	"chatelaine/backends"
	"chatelaine/backends/backendtest"
	"chatelaine/backends/memstore"
)

// everything is a faulty store with all capabilities.
type everything struct {
	backends.Store
	backends.Multiparter
	backends.Copier
	backends.Versioner
	backends.Tagger
	backends.Locker
	faults *backendtest.Faults
	up     backends.UploadID
}

// newEverything has a bucket with a lock that holds "old" under "key", and an upload.
func newEverything(t *testing.T) everything {
	t.Helper()
	s, faults := backendtest.NewFaulty(memstore.New())
	e := everything{Store: s, faults: faults}
	ok := make([]bool, 5)
	e.Multiparter, ok[0] = backends.As[backends.Multiparter](s)
	e.Copier, ok[1] = backends.As[backends.Copier](s)
	e.Versioner, ok[2] = backends.As[backends.Versioner](s)
	e.Tagger, ok[3] = backends.As[backends.Tagger](s)
	e.Locker, ok[4] = backends.As[backends.Locker](s)
	for i, found := range ok {
		if !found {
			t.Fatalf("capability %d was not found", i)
		}
	}
	err := e.CreateLockedBucket(t.Context(), "bucket")
	if err == nil {
		err = e.CreateBucket(t.Context(), "plain")
	}
	if err == nil {
		_, err = e.Put(t.Context(), id("key"), body("old"), nil)
	}
	if err == nil {
		e.up, err = e.CreateUpload(t.Context(), "bucket", "key", backends.Attributes{})
	}
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// state is what the changes below can change.
func (e everything) state(t *testing.T) []any {
	t.Helper()
	ctx := t.Context()
	v, err := e.Versioning(ctx, "plain")
	c, err2 := e.LockConfig(ctx, "bucket")
	l, err3 := e.Lock(ctx, id("key"))
	tags, _, err4 := e.Tags(ctx, id("key"))
	page, err5 := e.ListVersions(ctx, "bucket", nil)
	parts, err6 := e.ListParts(ctx, e.up, 0, 0)
	if err := errors.Join(err, err2, err3, err4, err5, err6); err != nil {
		t.Fatal(err)
	}
	return []any{v, c, l, tags, len(page.Versions), len(parts.Parts), e.HeadBucket(ctx, "locked") == nil}
}

type faultyCall struct {
	op  backendtest.Op
	key string // that the fault is for
	do  func(ctx context.Context, e everything) error
}

func changes() []faultyCall {
	until := time.Now().Add(time.Hour)
	return []faultyCall{
		{backendtest.Copy, "copy", func(ctx context.Context, e everything) error {
			_, err := e.Copy(ctx, id("key"), id("copy"), nil)
			return err
		}},
		{backendtest.CopyPart, "key", func(ctx context.Context, e everything) error {
			_, err := e.CopyPart(ctx, e.up, 1, id("key"), nil, "")
			return err
		}},
		{backendtest.SetVersioning, "", func(ctx context.Context, e everything) error {
			return e.SetVersioning(ctx, "plain", backends.VersioningEnabled)
		}},
		{backendtest.SetTags, "key", func(ctx context.Context, e everything) error {
			_, err := e.SetTags(ctx, id("key"), backends.Tags{"a": "1"})
			return err
		}},
		{backendtest.CreateLockedBucket, "", func(ctx context.Context, e everything) error { return e.CreateLockedBucket(ctx, "locked") }},
		{backendtest.SetLockConfig, "", func(ctx context.Context, e everything) error {
			return e.SetLockConfig(ctx, "bucket", backends.LockConfig{Enabled: true, Mode: backends.Governance, Days: 1})
		}},
		{backendtest.SetRetention, "key", func(ctx context.Context, e everything) error {
			return e.SetRetention(ctx, id("key"), backends.Governance, until, false)
		}},
		{backendtest.SetHold, "key", func(ctx context.Context, e everything) error { return e.SetHold(ctx, id("key"), true) }},
	}
}

func TestEveryChangeOfACapabilityFailsWithBothOutcomes(t *testing.T) {
	for _, c := range changes() {
		for outcome, applied := range map[backendtest.Outcome]bool{backendtest.NotApplied: false, backendtest.Applied: true} {
			e := newEverything(t)
			before := e.state(t)
			e.faults.Arm(backendtest.Fault{Op: c.op, Outcome: outcome, Key: c.key})
			if err := c.do(t.Context(), e); !errors.Is(err, backendtest.ErrInjected) {
				t.Errorf("%s: error %v", c.op, err)
			}
			if changed := !reflect.DeepEqual(e.state(t), before); changed != applied {
				t.Errorf("%s with outcome %d: changed the store: %v", c.op, outcome, changed)
			}
			if err := c.do(t.Context(), e); err != nil && c.op != backendtest.CreateLockedBucket {
				t.Errorf("%s when the fault is over: %v", c.op, err)
			}
			if e.faults.Calls(c.op) < 2 {
				t.Errorf("%s: %d calls counted", c.op, e.faults.Calls(c.op))
			}
		}
	}
}

func TestEveryQuestionOfACapabilityFails(t *testing.T) {
	ctx, e := t.Context(), newEverything(t)
	for op, ask := range map[backendtest.Op]func() error{
		backendtest.Versioning:   func() error { _, err := e.Versioning(ctx, "bucket"); return err },
		backendtest.ListVersions: func() error { _, err := e.ListVersions(ctx, "bucket", nil); return err },
		backendtest.Tags:         func() error { _, _, err := e.Tags(ctx, id("key")); return err },
		backendtest.LockConfig:   func() error { _, err := e.LockConfig(ctx, "bucket"); return err },
		backendtest.Lock:         func() error { _, err := e.Lock(ctx, id("key")); return err },
	} {
		e.faults.Arm(backendtest.Fault{Op: op})
		if err := ask(); !errors.Is(err, backendtest.ErrInjected) {
			t.Errorf("%s: error %v", op, err)
		}
		if err := ask(); err != nil {
			t.Errorf("%s when the fault is over: %v", op, err)
		}
	}
}

// tagging hides everything but the Store and the Tagger of a store.
type tagging struct {
	backends.Store
	backends.Tagger
}

func TestFaultyStoreHasTheCapabilitiesOfItsInner(t *testing.T) {
	m := memstore.New()
	s, _ := backendtest.NewFaulty(tagging{m, m})
	_, tagger := backends.As[backends.Tagger](s)
	_, locker := backends.As[backends.Locker](s)
	_, versioner := backends.As[backends.Versioner](s)
	_, copier := backends.As[backends.Copier](s)
	if !tagger || locker || versioner || copier {
		t.Errorf("a Tagger: %v, a Locker: %v, a Versioner: %v, a Copier: %v; want the first alone", tagger, locker, versioner, copier)
	}
}
