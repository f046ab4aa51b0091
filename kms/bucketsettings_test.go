package kms_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"chatelaine/kms"
)

func TestABucketsNextKeyComesAfterItsOwnPeriodOrOnDemand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		b := f.bucket(t, "b")
		period := time.Hour
		if _, err := f.SetBucket(t.Context(), "b", kms.BucketSettings{EpochPeriod: &period}, kms.Change{}); err != nil {
			t.Fatal(err)
		}
		first := current(t, f.Manager, b.Space)
		time.Sleep(time.Hour - time.Second)
		if got := current(t, f.Manager, b.Space); got.ID != first.ID {
			t.Error("the key was replaced before the period was over")
		}
		time.Sleep(time.Second)
		second := current(t, f.Manager, b.Space)
		if second.ID == first.ID {
			t.Error("the key was not replaced after the period")
		}
		epoch, _ := f.Revocations(t.Context())
		if _, err := f.RotateBucket(t.Context(), "b", kms.Change{Actor: "root"}); err != nil {
			t.Fatal(err)
		}
		if now, _ := f.Revocations(t.Context()); now != epoch+1 {
			t.Errorf("gateways are not told: epoch %d, want %d", now, epoch+1)
		}
		third := current(t, f.Manager, b.Space)
		if third.ID == second.ID || current(t, f.Manager, b.Space).ID != third.ID {
			t.Error("the key was not replaced once")
		}
		keys, err := f.BucketKeys(t.Context(), "b")
		if err != nil || len(keys) != 3 || keys[0].ID != first.ID || keys[2].ID != third.ID || keys[2].Epoch != 3 {
			t.Errorf("got %+v, %v", keys, err)
		}
		if got, err := f.BucketKey(t.Context(), b.Space, first.ID); err != nil || !got.Key.Equal(first.Key) {
			t.Errorf("the first key does not open: %v", err)
		}
	})
}

func TestAKeyFromTheFutureIsReplacedUnlessClocksMayDifferAsMuch(t *testing.T) {
	for name, tt := range map[string]struct {
		ahead    time.Duration
		replaced bool
	}{
		"another KMS's clock": {time.Minute, false},
		"set back by an hour": {time.Hour, true},
		"set back by years":   {5 * 365 * 24 * time.Hour, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				b := f.bucket(t, "b")
				first := current(t, f.Manager, b.Space)
				now := time.Now().UTC()
				f.edit(t, "current/"+b.Space, now.Format(time.RFC3339), now.Add(tt.ahead).Format(time.RFC3339))
				second := current(t, f.Manager, b.Space)
				if replaced := second.ID != first.ID; replaced != tt.replaced {
					t.Errorf("replaced: %t, want %t", replaced, tt.replaced)
				}
				if current(t, f.Manager, b.Space).ID != second.ID {
					t.Error("it is replaced again and again")
				}
			})
		})
	}
}

func TestABucketMovesToAnotherKEKWithItsKeys(t *testing.T) {
	f := newFixture(t)
	if _, err := f.CreateKEK(t.Context(), "payments", kms.KEKOptions{}); err != nil {
		t.Fatal(err)
	}
	b := f.bucket(t, "b")
	other := f.bucket(t, "other")
	before, stays := current(t, f.Manager, b.Space), current(t, f.Manager, other.Space)
	kek, strict, owner := "payments", kms.Strict, "bob"
	set, err := f.SetBucket(t.Context(), "b", kms.BucketSettings{KEK: &kek, Profile: &strict, Owner: &owner}, kms.Change{Actor: "root"})
	if err != nil || set.KEK != kek || set.Profile != strict || set.Owner != owner || len(set.History) != 4 {
		t.Fatalf("got %+v, %v", set, err)
	}
	running(t, f.Manager)
	if job := rewrapped(t, f.Manager, "main"); job.State != kms.JobDone || job.Done != 1 {
		t.Errorf("got %+v", job)
	}
	got, err := f.BucketKey(t.Context(), b.Space, before.ID)
	if err != nil || got.KEK != (kms.KeyRef{Name: "payments", Version: 1}) || !got.Key.Equal(before.Key) || !got.Strict {
		t.Errorf("got a key under %s, %v", got.KEK, err)
	}
	if got, err := f.BucketKey(t.Context(), other.Space, stays.ID); err != nil || got.KEK.Name != "main" {
		t.Errorf("another bucket's key is under %s, %v", got.KEK, err)
	}
	needs, err := f.Needs(t.Context(), kms.KeyRef{Name: "main", Version: 1})
	if err != nil || len(needs) != 2 { // the other's key, and the mirror of the moved one
		t.Errorf("got %+v, %v", needs, err)
	}
}

func TestSettingsOfBucketsThatAreRefused(t *testing.T) {
	f := newFixture(t)
	f.bucket(t, "b")
	none, profile, owner, second := "none", kms.Profile("x"), "a/b", time.Second
	for name, s := range map[string]kms.BucketSettings{
		"unknown KEK":  {KEK: &none},
		"profile":      {Profile: &profile},
		"owner":        {Owner: &owner},
		"epoch period": {EpochPeriod: &second},
	} {
		_, err := f.SetBucket(t.Context(), "b", s, kms.Change{})
		if !errors.Is(err, kms.ErrInvalid) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	_, err := f.SetBucket(t.Context(), "nobody", kms.BucketSettings{}, kms.Change{})
	wantErr(t, err, kms.ErrNotFound)
	_, err = f.RotateBucket(t.Context(), "nobody", kms.Change{})
	wantErr(t, err, kms.ErrNotFound)
	if b, err := f.Bucket(t.Context(), "b"); err != nil || len(b.History) != 1 {
		t.Errorf("a refused change changed something: %+v, %v", b, err)
	}
}

func TestBucketsToBeMadeAreToldOfUntilTheyAreMadeOrRefused(t *testing.T) {
	f := newFixture(t)
	register := func(name string) {
		t.Helper()
		_, err := f.RegisterBucket(t.Context(), kms.NewBucket{Name: name, Store: "s", StoreName: name, Owner: "alice", Make: true})
		if err != nil {
			t.Fatal(err)
		}
	}
	unmade := func() (names []string) {
		t.Helper()
		all, err := f.UnmadeBuckets(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range all {
			names = append(names, b.Name)
		}
		return names
	}
	register("a")
	register("b")
	if got := unmade(); len(got) != 2 {
		t.Errorf("got %q", got)
	}
	if err := f.ActivateBucket(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	wantErr(t, f.RefuseBucket(t.Context(), "a"), kms.ErrConflict)
	if err := f.RefuseBucket(t.Context(), "b"); err != nil {
		t.Fatal(err)
	}
	if got := unmade(); len(got) != 0 {
		t.Errorf("got %q", got)
	}
	if _, err := f.Bucket(t.Context(), "a"); err != nil {
		t.Error(err)
	}
	_, err := f.Bucket(t.Context(), "b")
	wantErr(t, err, kms.ErrNotFound)
}
