package kms_test

import (
	"context"
	"errors"
	"testing"

	"chatelaine/kms"
)

func removalsOf(t *testing.T, f *fixture) []kms.Removal {
	t.Helper()
	all, err := f.Removals(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestARemovedBucketIsWaitedForByWhatTakesItsPlace(t *testing.T) {
	refused := errors.New("not yet")
	for name, c := range map[string]struct {
		n     kms.NewBucket
		waits int
		want  error
	}{
		"the same name and place": {kms.NewBucket{Name: "b", Store: "files", StoreName: "p-b", Owner: "bob"}, 2, refused},
		"the same name":           {kms.NewBucket{Name: "b", Store: "files", StoreName: "elsewhere", Owner: "alice"}, 2, refused},
		"the same place":          {kms.NewBucket{Name: "c", Store: "files", StoreName: "p-b", Owner: "alice"}, 2, refused},
		"another":                 {kms.NewBucket{Name: "c", Store: "files", StoreName: "p-c", Owner: "alice"}, 0, nil},
		"a name that is taken":    {kms.NewBucket{Name: "there", Store: "files", StoreName: "p-b", Owner: "alice"}, 0, kms.ErrExists},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			f.bucket(t, "there")
			for range 2 {
				f.bucket(t, "b")
				wantErr(t, f.RemoveBucket(t.Context(), "b"), nil)
			}
			waits := 0
			c.n.Settle = func(_ context.Context, r kms.Removal) error {
				if waits++; waits == 2 {
					return refused
				}
				return nil
			}
			_, err := f.RegisterBucket(t.Context(), c.n)
			wantErr(t, err, c.want)
			if waits != c.waits {
				t.Errorf("waited %d times, want %d", waits, c.waits)
			}
		})
	}
}

func TestARemovalWhileABucketIsRegisteredIsNoticed(t *testing.T) {
	f := newFixture(t)
	f.bucket(t, "b")
	wantErr(t, f.RemoveBucket(t.Context(), "b"), nil)
	n := kms.NewBucket{Name: "b", Store: "files", StoreName: "p-b", Owner: "bob"}
	waitedFor := map[string]bool{}
	n.Settle = func(_ context.Context, r kms.Removal) error {
		first := len(waitedFor) == 0
		waitedFor[r.Space] = true
		if first { // somebody else makes the bucket and removes it
			f.bucket(t, "b")
			return f.RemoveBucket(t.Context(), "b")
		}
		return nil
	}
	if _, err := f.RegisterBucket(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	if len(waitedFor) != 2 {
		t.Errorf("waited for %d removals, want 2", len(waitedFor))
	}
}

func TestAForgottenRemovalLeavesNothing(t *testing.T) {
	f := newFixture(t)
	for range 2 {
		f.bucket(t, "b")
		wantErr(t, f.RemoveBucket(t.Context(), "b"), nil)
	}
	all := removalsOf(t, f)
	if len(all) != 2 {
		t.Fatalf("got %d removals, want 2", len(all))
	}
	for _, r := range append(all, all...) {
		wantErr(t, f.ForgetRemoval(t.Context(), r), nil)
	}
	for _, prefix := range []string{"removed/", "lastremoved/"} {
		if items, err := f.registry.List(t.Context(), prefix); err != nil || len(items) != 0 {
			t.Errorf("%s: %d records are left, %v", prefix, len(items), err)
		}
	}
}
