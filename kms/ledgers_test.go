package kms_test

import (
	"strings"
	"sync"
	"testing"
	"time"

	"chatelaine/kms"
)

// guarded makes a bucket with the rollback guard, with a key, and active.
func (f *fixture) guarded(t *testing.T, name string) kms.Bucket {
	t.Helper()
	b, err := f.RegisterBucket(t.Context(), kms.NewBucket{Name: name, Store: "files", StoreName: "p-" + name, Owner: "alice", Ledger: true})
	if err != nil {
		t.Fatal(err)
	}
	return f.keyed(t, b)
}

func (f *fixture) keyed(t *testing.T, b kms.Bucket) kms.Bucket {
	t.Helper()
	if _, err := f.CurrentKey(t.Context(), b.Space); err != nil {
		t.Fatal(err)
	}
	if err := f.ActivateBucket(t.Context(), b.Name); err != nil {
		t.Fatal(err)
	}
	b, err := f.Bucket(t.Context(), b.Name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (f *fixture) write(t *testing.T, b kms.Bucket, name, tag kms.LedgerMark) {
	t.Helper()
	a := kms.LedgerAttempt{Space: b.Space, Name: name, ID: mark(int(tag[1]) + 7000), Tag: tag}
	if err := f.BeginWrite(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	if err := f.EndWrite(t.Context(), a, true); err != nil {
		t.Fatal(err)
	}
}

func (f *fixture) look(t *testing.T, b kms.Bucket, name kms.LedgerMark) kms.LedgerView {
	t.Helper()
	v, err := f.LookLedger(t.Context(), b.Space, name)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func (f *fixture) set(t *testing.T, name string, s kms.LedgerSetting) (kms.Bucket, error) {
	t.Helper()
	return f.SetBucket(t.Context(), name, kms.BucketSettings{Ledger: &s}, kms.Change{Actor: "alice", Reason: "a test"})
}

func TestALedgerHasTheNewestWriteOfEachObject(t *testing.T) {
	f := newFixture(t)
	b := f.guarded(t, "b")
	if b.Ledger.Key == (kms.KeyID{}) {
		t.Error("the ledger has no key")
	}
	f.edit(t, "buckets/b", `"schema":2`, `"schema":2`) // an older KMS must not write it back without the guard
	f.write(t, b, mark(1), mark(10))
	f.write(t, b, mark(1), mark(11))
	f.write(t, b, mark(2), mark(20))
	view := f.look(t, b, mark(1))
	if _, ok := view.Entry.Match(mark(11)); !ok || !view.Entry.Settled() || view.Stage != kms.LedgerOn {
		t.Errorf("got %+v", view)
	}
	if _, ok := view.Entry.Match(mark(10), kms.LedgerMark{}); ok {
		t.Errorf("it vouches for what was replaced: %+v", view)
	}
	f.write(t, b, mark(1), kms.LedgerMark{})
	if view = f.look(t, b, mark(1)); view.Revision != 0 || !view.Entry.Absent() {
		t.Errorf("what was deleted is kept: %+v", view)
	}
	wantErr(t, f.SettleLedger(t.Context(), kms.Sighting{Space: b.Space, Name: mark(2), Tag: mark(20), Revision: 1}), kms.ErrConflict)
	if err := f.RemoveBucket(t.Context(), "b"); err != nil {
		t.Fatal(err)
	}
	items, err := f.registry.List(t.Context(), "ledger")
	if err != nil || len(items) != 0 {
		t.Errorf("left behind: %v, %v", items, err)
	}
	wantErr(t, f.BeginWrite(t.Context(), kms.LedgerAttempt{Space: b.Space, Name: mark(1), ID: mark(1)}), kms.ErrNotFound)
}

func TestManyWritersOfOneObjectAllSucceed(t *testing.T) {
	f := newFixture(t)
	b := f.guarded(t, "b")
	other := f.manager(t, f.config())
	var group sync.WaitGroup
	for i := range 32 {
		m := []*kms.Manager{f.Manager, other}[i%2]
		group.Go(func() {
			a := kms.LedgerAttempt{Space: b.Space, Name: mark(1), ID: mark(100 + i), Tag: mark(100 + i)}
			if err := m.BeginWrite(t.Context(), a); err != nil {
				t.Errorf("beginning: %v", err)
			}
			if err := m.EndWrite(t.Context(), a, true); err != nil {
				t.Errorf("ending: %v", err)
			}
		})
	}
	group.Wait()
	f.write(t, b, mark(1), mark(500))
	if view := f.look(t, b, mark(1)); !view.Entry.Settled() {
		t.Errorf("got %+v, want the last write alone", view.Entry)
	}
}

func TestABucketWithObjectsLearnsThemAfterAPause(t *testing.T) {
	f := newFixture(t)
	c := f.config()
	c.LedgerSettle = 300 * time.Millisecond
	f.Manager = f.manager(t, c)
	f.keyed(t, f.bucket(t, "b"))
	b, err := f.set(t, "b", kms.LedgerSetOn)
	if err != nil || b.Ledger.Stage != kms.LedgerLearning {
		t.Fatalf("got %+v, %v", b.Ledger, err)
	}
	if todo, err := f.LearningBuckets(t.Context()); err != nil || len(todo) != 0 {
		t.Errorf("gateways may have an older record, and learning begins: %v, %v", todo, err)
	}
	if view := f.look(t, b, mark(1)); view.Stage != kms.LedgerLearning {
		t.Errorf("got %+v", view)
	} else if _, ok := view.Entry.Match(mark(99)); !ok {
		t.Error("what is not known yet is not believed")
	}
	f.write(t, b, mark(1), mark(11))
	f.write(t, b, mark(2), kms.LedgerMark{})
	time.Sleep(c.LedgerSettle)
	if todo, err := f.LearningBuckets(t.Context()); err != nil || len(todo) != 1 {
		t.Fatalf("got %v, %v", todo, err)
	}
	runner := strings.Repeat("r", 20)
	lesson := kms.LedgerLesson{Space: b.Space, Runner: runner, Cursor: []byte("c"), Lines: []kms.LedgerLine{{mark(1), mark(10)}, {mark(2), mark(20)}, {mark(3), mark(30)}}}
	if cursor, err := f.Learn(t.Context(), lesson); err != nil || string(cursor) != "c" {
		t.Fatalf("got %q, %v", cursor, err)
	}
	_, err = f.Learn(t.Context(), kms.LedgerLesson{Space: b.Space, Runner: strings.Repeat("s", 20)})
	wantErr(t, err, kms.ErrConflict) // one is at it
	if todo, _ := f.LearningBuckets(t.Context()); len(todo) != 0 {
		t.Error("work that is done is asked for")
	}
	if _, err := f.Learn(t.Context(), kms.LedgerLesson{Space: b.Space, Runner: runner, Ended: true}); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[kms.LedgerMark]kms.LedgerMark{mark(1): mark(11), mark(2): {}, mark(3): mark(30), mark(4): {}} {
		view := f.look(t, b, name)
		if _, ok := view.Entry.Match(want); !ok || view.Stage != kms.LedgerOn {
			t.Errorf("got %+v, want %v", view, want)
		}
	}
	if b, _ = f.Bucket(t.Context(), "b"); b.Ledger.Stage != kms.LedgerOn {
		t.Errorf("got %+v", b.Ledger)
	}
	_, err = f.Learn(t.Context(), lesson)
	wantErr(t, err, kms.ErrConflict) // what comes late is not believed
}

func TestTheGuardIsSetAndTakenAwayOnRecord(t *testing.T) {
	f := newFixture(t)
	b := f.guarded(t, "b")
	f.write(t, b, mark(1), mark(10))
	if _, err := f.set(t, "b", "sideways"); err == nil {
		t.Error("a setting that is none was taken")
	}
	relearning, err := f.set(t, "b", kms.LedgerSetRelearn)
	if err != nil || relearning.Ledger.Stage != kms.LedgerLearning {
		t.Fatalf("got %+v, %v", relearning.Ledger, err)
	}
	last := relearning.History[len(relearning.History)-1]
	if !strings.Contains(last.Event, "rollback guard") || last.Actor != "alice" || last.Reason != "a test" {
		t.Errorf("the history has %+v", last)
	}
	if view := f.look(t, b, mark(1)); view.Revision != 0 {
		t.Errorf("it has kept %+v", view)
	}
	if _, err := f.set(t, "b", kms.LedgerSetOff); err != nil {
		t.Fatal(err)
	}
	if view := f.look(t, b, mark(1)); view.Stage != "" {
		t.Errorf("it is off and has %+v", view)
	}
	f.write(t, b, mark(1), mark(10)) // of a gateway that has not heard
	if items, err := f.registry.List(t.Context(), "ledger"); err != nil || len(items) != 0 {
		t.Errorf("left behind: %v, %v", items, err)
	}
	_, err = f.set(t, "b", kms.LedgerSetRelearn)
	wantErr(t, err, kms.ErrInvalid)
	f.bucket(t, "creating")
	_, err = f.set(t, "creating", kms.LedgerSetOn)
	wantErr(t, err, kms.ErrConflict)
}

func TestASnapshotHasNoLedgersAndARestoredBucketTrustsNothing(t *testing.T) {
	f := newFixture(t)
	b := f.guarded(t, "b")
	f.write(t, b, mark(1), mark(10))
	snapshot, err := f.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, item := range snapshot.Items {
		if strings.HasPrefix(item.Key, "ledger") {
			t.Errorf("the snapshot has %q", item.Key)
		}
	}
	items, err := f.registry.List(t.Context(), "ledger")
	if err != nil || len(items) != 2 {
		t.Fatalf("got %v, %v", items, err)
	}
	for _, item := range items { // as after a restoration
		if err := f.registry.Commit(t.Context(), kms.Transaction{Delete: []string{item.Key}}); err != nil {
			t.Fatal(err)
		}
	}
	f.Manager = f.manager(t, f.config())
	if view := f.look(t, b, mark(1)); view.Stage != kms.LedgerLost {
		t.Errorf("got %+v, want that the ledger is lost", view)
	}
	wantErr(t, f.BeginWrite(t.Context(), kms.LedgerAttempt{Space: b.Space, Name: mark(1), ID: mark(1)}), kms.ErrConflict)
	if _, err := f.set(t, "b", kms.LedgerSetRelearn); err != nil {
		t.Fatal(err)
	}
	if view := f.look(t, b, mark(1)); view.Stage != kms.LedgerLearning {
		t.Errorf("got %+v", view)
	}
}
