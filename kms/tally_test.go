package kms_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"chatelaine/kms"
)

// run has Managers do what is due until the test ends.
func run(t *testing.T, managers ...*kms.Manager) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	for _, m := range managers {
		group.Go(func() { m.Run(ctx) })
	}
	return func() { cancel(); group.Wait() }
}

func setObjects(t *testing.T, f *fixture, n uint64) {
	t.Helper()
	if _, err := f.SetBucket(t.Context(), "b", kms.BucketSettings{EpochObjects: &n}, kms.Change{}); err != nil {
		t.Fatal(err)
	}
}

// seals says of a key what was sealed, and whether it is full.
func seals(t *testing.T, m *kms.Manager, space string, id kms.KeyID, n uint64) bool {
	t.Helper()
	full, err := m.Sealed([]kms.Sealed{{Space: space, ID: id, Count: n}})
	if err != nil {
		t.Fatal(err)
	}
	return len(full) == 1 && full[0] == id
}

func TestABucketKeyIsReplacedAfterItsNumberOfObjectsWhoeverCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		other := f.manager(t, f.config())
		b := f.bucket(t, "b")
		setObjects(t, f, 1000)
		defer run(t, f.Manager, other)()
		first := current(t, f.Manager, b.Space)
		seals(t, f.Manager, b.Space, first.ID, 500)
		seals(t, other, b.Space, first.ID, 499)
		time.Sleep(30 * time.Second)
		if got := current(t, other, b.Space); got.ID != first.ID {
			t.Fatal("it was replaced one object too early")
		}
		if seals(t, f.Manager, b.Space, first.ID, 0) {
			t.Error("it is called full one object too early")
		}
		seals(t, f.Manager, b.Space, first.ID, 1)
		time.Sleep(30 * time.Second)
		for _, m := range []*kms.Manager{f.Manager, other} {
			seals(t, m, b.Space, first.ID, 1) // what a gateway seals that has not heard
		}
		time.Sleep(30 * time.Second)
		second := current(t, other, b.Space)
		if second.ID == first.ID {
			t.Fatal("it was not replaced")
		}
		for _, m := range []*kms.Manager{f.Manager, other} {
			if !seals(t, m, b.Space, first.ID, 1) {
				t.Error("gateways are not told")
			}
		}
		if current(t, f.Manager, b.Space).ID != second.ID || seals(t, f.Manager, b.Space, second.ID, 1) {
			t.Error("the second is replaced too")
		}
	})
}

func TestCountsThatAreAPartOfAnEpochAreWrittenAtOnceAndAllWhenAKMSEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		b := f.bucket(t, "b")
		setObjects(t, f, 1000)
		first := current(t, f.Manager, b.Space)
		stop := run(t, f.Manager)
		seals(t, f.Manager, b.Space, first.ID, 1)
		stop() // before it would have been written
		again := f.manager(t, f.config())
		stop = run(t, again)
		defer func() { stop() }()
		seals(t, again, b.Space, first.ID, 1)
		time.Sleep(25 * time.Second) // the size of an epoch is known then
		seals(t, again, b.Space, first.ID, 997)
		time.Sleep(2 * time.Second)
		if current(t, again, b.Space).ID != first.ID {
			t.Fatal("999 are enough")
		}
		seals(t, again, b.Space, first.ID, 16)
		time.Sleep(2 * time.Second)
		if current(t, again, b.Space).ID == first.ID {
			t.Error("the key is not replaced: what a KMS that ended was told is lost, or a part is not written at once")
		}
	})
}

func TestCountsOfWhatIsNotThereDoNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		b := f.bucket(t, "b")
		_, err := f.Sealed([]kms.Sealed{{Space: "no UUID", Count: 1}})
		wantErr(t, err, kms.ErrInvalid)
		for _, n := range []uint64{1, 999, 1<<32 + 1} {
			_, err := f.SetBucket(t.Context(), "b", kms.BucketSettings{EpochObjects: &n}, kms.Change{})
			wantErr(t, err, kms.ErrInvalid)
		}
		first := current(t, f.Manager, b.Space)
		stop := run(t, f.Manager)
		seals(t, f.Manager, b.Space, kms.KeyID{1}, 1<<40)
		seals(t, f.Manager, "b7d8a1a0-0000-4000-8000-000000000000", kms.KeyID{2}, 1<<40)
		time.Sleep(30 * time.Second)
		stop()
		if current(t, f.Manager, b.Space).ID != first.ID {
			t.Error("another key's count replaced it")
		}
	})
}
