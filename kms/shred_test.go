package kms_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync/atomic"
	"testing"

	"chatelaine/kms"
)

func (f *fixture) active(t *testing.T, name string) kms.Bucket {
	t.Helper()
	b := f.bucket(t, name)
	if err := f.ActivateBucket(t.Context(), name); err != nil {
		t.Fatal(err)
	}
	return b
}

// shredded makes two buckets under one KEK and shreds the first.
func shredded(t *testing.T, f *fixture) (b, other kms.Bucket, was, kept kms.OpenKey) {
	t.Helper()
	b, other = f.active(t, "b"), f.active(t, "other")
	first := current(t, f.Manager, b.Space)
	f.nextEpoch(t, b.Space)
	was, kept = current(t, f.Manager, b.Space), current(t, f.Manager, other.Space)
	if was.ID == first.ID {
		t.Fatal("there is one key only")
	}
	got, err := f.ShredBucket(t.Context(), "b", kms.Change{Actor: "root", Reason: "the end"})
	if err != nil || got.State != kms.BucketShredded {
		t.Fatalf("got %+v, %v", got, err)
	}
	return got, other, was, kept
}

func TestAShreddedBucketHasNoKeysAndOthersKeepTheirs(t *testing.T) {
	f := newFixture(t)
	epoch, _ := f.Revocations(t.Context())
	b, other, was, kept := shredded(t, f)
	_, err := f.BucketKey(t.Context(), b.Space, was.ID)
	wantErr(t, err, kms.ErrDisabled)
	_, err = f.CurrentKey(t.Context(), b.Space)
	wantErr(t, err, kms.ErrDisabled)
	if keys, err := f.BucketKeys(t.Context(), "b"); err != nil || len(keys) != 0 {
		t.Errorf("got %d keys, %v", len(keys), err)
	}
	wantErr(t, f.ActivateBucket(t.Context(), "b"), kms.ErrDisabled)
	_, err = f.RotateBucket(t.Context(), "b", kms.Change{})
	wantErr(t, err, kms.ErrDisabled)
	_, err = f.SetBucket(t.Context(), "b", kms.BucketSettings{}, kms.Change{})
	wantErr(t, err, kms.ErrDisabled)
	wantErr(t, f.ConfirmMirror(t.Context(), b.Space, was.ID, was.Record), kms.ErrNotFound)
	if got, err := f.BucketKey(t.Context(), other.Space, kept.ID); err != nil || !got.Key.Equal(kept.Key) {
		t.Errorf("the other bucket does not open: %v", err)
	}
	r, err := f.Revocation(t.Context())
	if err != nil || r.Epoch <= epoch || len(r.Shredded) != 1 || r.Shredded[0] != b.Space {
		t.Errorf("gateways are told %+v, %v", r, err)
	}
	if err := f.RemoveBucket(t.Context(), "b"); err != nil {
		t.Fatal(err)
	}
	if left, err := f.UnsweptBuckets(t.Context()); err != nil || len(left) != 0 {
		t.Errorf("got %+v, %v", left, err)
	}
}

func TestTheRecordOfAShreddingIsSignedOnceNothingIsLeft(t *testing.T) {
	f := newFixture(t)
	b, other, was, kept := shredded(t, f)
	if todo, err := f.UnsweptBuckets(t.Context()); err != nil || len(todo) != 1 || todo[0].Name != "b" {
		t.Fatalf("got %+v, %v", todo, err)
	}
	finish := func(s kms.Swept) error {
		s.Space, s.Gateway = b.Space, "gw"
		return f.FinishShred(t.Context(), s)
	}
	wantErr(t, finish(kms.Swept{Left: 1}), kms.ErrConflict)
	wantErr(t, finish(kms.Swept{Problem: "the backend is away"}), kms.ErrConflict)
	if s, err := f.ShredOf(t.Context(), "b"); err != nil || s.State != kms.ShredSweeping || s.Problem != "the backend is away" || s.Signed != nil {
		t.Fatalf("got %+v, %v", s, err)
	}
	err := f.FinishShred(t.Context(), kms.Swept{Space: other.Space, Samples: []kms.Sample{{Object: "o", KeyID: kept.ID.String()}}})
	wantErr(t, err, kms.ErrNotFound) // it was not shredded
	wantErr(t, finish(kms.Swept{Samples: make([]kms.Sample, kms.MaxSamples+1)}), kms.ErrInvalid)
	samples := []kms.Sample{{Object: "o", KeyID: was.ID.String()}, {Object: "plain"}}
	if err := finish(kms.Swept{Mirrors: 2, Seen: 9, Samples: samples}); err != nil {
		t.Fatal(err)
	}
	s, err := f.ShredOf(t.Context(), "b")
	if err != nil || s.State != kms.ShredDone {
		t.Fatalf("got %+v, %v", s, err)
	}
	data, _ := json.Marshal(s.Signed)
	got, signed, err := kms.VerifyShred(data)
	if err != nil || got.Bucket != "b" || got.Actor != "root" || got.Reason != "the end" || got.KeyCount != 2 || len(got.Keys) != 2 || len(got.Sweep.Samples) != 2 {
		t.Errorf("got %+v, %v", got, err)
	}
	if !strings.HasPrefix(got.KEK.Outcome, "kept: ") {
		t.Errorf("of the shared KEK it says %q", got.KEK.Outcome)
	}
	if !kms.IsShred(data) {
		t.Error("it does not say what it is")
	}
	_, _, err = kms.VerifyReport(data)
	wantErr(t, err, kms.ErrInvalid)
	signed.Statement[20] ^= 1
	forged, _ := json.Marshal(signed)
	_, _, err = kms.VerifyShred(forged)
	wantErr(t, err, kms.ErrCorrupt)
	if todo, _ := f.UnsweptBuckets(t.Context()); len(todo) != 0 {
		t.Errorf("there is work left: %+v", todo)
	}
	if _, err := f.ShredBucket(t.Context(), "b", kms.Change{}); err != nil { // again: swept again
		t.Fatal(err)
	}
	if todo, _ := f.UnsweptBuckets(t.Context()); len(todo) != 1 {
		t.Error("it is not swept again")
	}
}

func TestAKEKOfItsOwnIsDestroyedWithABucketWhereThatIsAllowed(t *testing.T) {
	for _, allowed := range []bool{true, false} {
		f := newFixture(t)
		if _, err := f.CreateKEK(t.Context(), "own", kms.KEKOptions{}); err != nil {
			t.Fatal(err)
		}
		if _, err := f.SetKEK(t.Context(), "own", kms.KEKSettings{DeletionAllowed: &allowed}, kms.Change{}); err != nil {
			t.Fatal(err)
		}
		b := f.active(t, "b")
		own := "own"
		if _, err := f.SetBucket(t.Context(), "b", kms.BucketSettings{KEK: &own}, kms.Change{}); err != nil {
			t.Fatal(err)
		}
		current(t, f.Manager, b.Space)
		if _, err := f.ShredBucket(t.Context(), "b", kms.Change{Actor: "root"}); err != nil {
			t.Fatal(err)
		}
		if err := f.FinishShred(t.Context(), kms.Swept{Space: b.Space}); err != nil {
			t.Fatal(err)
		}
		kek := f.kek(t, "own")
		if planned := kek.Versions[0].Destruction != nil; planned != allowed {
			t.Errorf("deletion_allowed %t: destruction planned %t", allowed, planned)
		}
		s, err := f.ShredOf(t.Context(), "b")
		if want := map[bool]string{true: "to be destroyed", false: "kept"}[allowed]; err != nil || !strings.HasPrefix(s.KEK.Outcome, want) {
			t.Errorf("got %q, %v", s.KEK.Outcome, err)
		}
	}
}

func TestAShreddingWithoutItsApprovalTouchesNothing(t *testing.T) {
	f := newFixture(t)
	b := f.active(t, "b")
	was := current(t, f.Manager, b.Space)
	c := f.config()
	c.Gate = shut{}
	_, err := f.manager(t, c).ShredBucket(t.Context(), "b", kms.Change{})
	wantErr(t, err, kms.ErrApproval)
	if got, err := f.BucketKey(t.Context(), b.Space, was.ID); err != nil || !got.Key.Equal(was.Key) {
		t.Errorf("it does not open: %v", err)
	}
	_, err = f.ShredOf(t.Context(), "b")
	wantErr(t, err, kms.ErrNotFound)
	f.bucket(t, "unmade")
	_, err = f.ShredBucket(t.Context(), "unmade", kms.Change{})
	wantErr(t, err, kms.ErrInvalid)
	_, err = f.ShredBucket(t.Context(), "none", kms.Change{})
	wantErr(t, err, kms.ErrNotFound)
}

// stopping is a Registry that dies before or after its nth commit.
type stopping struct {
	kms.Registry
	left  atomic.Int64
	after bool
}

var errDied = errors.New("the process died")

func (s *stopping) Commit(ctx context.Context, t kms.Transaction) error {
	n := s.left.Add(-1)
	if n < 0 || n == 0 && !s.after {
		return errDied
	}
	if err := s.Registry.Commit(ctx, t); err != nil {
		return err
	}
	if n == 0 {
		return errDied
	}
	return nil
}

func TestAShreddingThatDiesAtAnyCommitIsFinishedByAnother(t *testing.T) {
	for n := int64(1); n <= 4; n++ {
		for _, after := range []bool{false, true} {
			f := newFixture(t)
			b := f.active(t, "b")
			was := current(t, f.Manager, b.Space)
			c := f.config()
			r := &stopping{Registry: f.registry, after: after}
			r.left.Store(n)
			c.Registry = r
			m := f.manager(t, c)
			_, err := m.ShredBucket(t.Context(), "b", kms.Change{})
			_ = errors.Join(err, m.FinishShred(t.Context(), kms.Swept{Space: b.Space})) // it may die anywhere
			got, err := f.Bucket(t.Context(), "b")
			if err != nil {
				t.Fatal(err)
			}
			_, err = f.BucketKey(t.Context(), b.Space, was.ID)
			if opens := err == nil; opens != (got.State == kms.BucketActive) {
				t.Errorf("commit %d, after %t: it is %s, and opens: %t", n, after, got.State, opens)
			}
			if _, err := f.ShredBucket(t.Context(), "b", kms.Change{}); err != nil {
				t.Fatal(err)
			}
			if err := f.FinishShred(t.Context(), kms.Swept{Space: b.Space}); err != nil {
				t.Fatal(err)
			}
			if s, err := f.ShredOf(t.Context(), "b"); err != nil || s.State != kms.ShredDone || s.KeyCount != 1 {
				t.Errorf("commit %d, after %t: got %+v, %v", n, after, s, err)
			}
		}
	}
}
