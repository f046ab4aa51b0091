package kms_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"chatelaine/kms"
)

const (
	runner  = "a-runner-of-its-own"
	another = "another-runner-then"
)

func startAdoption(t *testing.T, f *fixture, o kms.AdoptionOptions) kms.Adoption {
	t.Helper()
	a, err := f.StartAdoption(t.Context(), kms.NewBucket{
		Name: "b", Store: "main", StoreName: "data", Owner: "ann", Change: kms.Change{Actor: "root", Reason: "moving in"},
	}, o)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func tell(t *testing.T, f *fixture, r kms.AdoptionReport) (kms.Adoption, kms.Bucket) {
	t.Helper()
	a, b, err := f.Adopt(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	return a, b
}

// begun is an adoption in which plaintext may be read.
func begun(t *testing.T, f *fixture, o kms.AdoptionOptions) (kms.Adoption, time.Time) {
	t.Helper()
	a := startAdoption(t, f, o)
	cutOff := time.Date(2026, 11, 1, 12, 0, 0, 999_999_999, time.UTC)
	tell(t, f, kms.AdoptionReport{Space: a.Space, Runner: runner})
	if err := f.BeginAdoption(t.Context(), a.Space, runner, cutOff); err != nil {
		t.Fatal(err)
	}
	return a, cutOff
}

func TestAnAdoptionGoesFromPlaintextToSealedOnly(t *testing.T) {
	f := newFixture(t)
	a := startAdoption(t, f, kms.AdoptionOptions{Rate: 7, Bytes: 8})
	if b, err := f.Bucket(t.Context(), "b"); err != nil || b.State != kms.BucketCreating || b.Adopting == nil || !b.Adopting.CutOff.IsZero() {
		t.Fatalf("registered as %+v, %v", b, err)
	}
	wantErr(t, f.ActivateBucket(t.Context(), "b"), kms.ErrConflict)
	wantErr(t, f.RefuseBucket(t.Context(), "b"), kms.ErrConflict)
	idle, buckets, err := f.Adoptions(t.Context())
	if err != nil || len(idle) != 1 || idle[0].Rate != 7 || idle[0].Bytes != 8 || buckets[0].Space != a.Space {
		t.Fatalf("gateways are asked for %+v, %v", idle, err)
	}
	tell(t, f, kms.AdoptionReport{Space: a.Space, Runner: runner})
	_, _, err = f.Adopt(t.Context(), kms.AdoptionReport{Space: a.Space, Runner: another})
	wantErr(t, err, kms.ErrConflict)
	cutOff := time.Now()
	wantErr(t, f.BeginAdoption(t.Context(), a.Space, another, cutOff), kms.ErrConflict)
	wantErr(t, f.BeginAdoption(t.Context(), a.Space, runner, time.Time{}), kms.ErrInvalid)
	epoch, _ := f.Revocations(t.Context())
	if err := f.BeginAdoption(t.Context(), a.Space, runner, cutOff); err != nil {
		t.Fatal(err)
	}
	_, b := tell(t, f, kms.AdoptionReport{Space: a.Space, Runner: another, State: &kms.AdoptionState{Position: "k", SealedTo: "j", Sealed: 3}})
	if b.State != kms.BucketAdopting || !b.Adopting.CutOff.Equal(cutOff) || b.Adopting.SealedTo != "j" {
		t.Errorf("while it goes on: %+v", b)
	}
	_, err = f.ShredBucket(t.Context(), "b", kms.Change{})
	wantErr(t, err, kms.ErrInvalid)
	done, b := tell(t, f, kms.AdoptionReport{Space: a.Space, Runner: another, Ended: true, State: &kms.AdoptionState{Position: "z", SealedTo: "z", Sealed: 5, Already: 1}})
	if b.State != kms.BucketActive || b.Adopting != nil || done.State != kms.AdoptionDone {
		t.Errorf("at the end: %+v, %+v", b, done)
	}
	if now, _ := f.Revocations(t.Context()); now < epoch+2 {
		t.Errorf("gateways were told %d times, want each change of what is served", now-epoch)
	}
	_, _, err = f.Adopt(t.Context(), kms.AdoptionReport{Space: a.Space, Runner: another})
	wantErr(t, err, kms.ErrConflict)
}

func TestAnAdoptionsRecordIsSigned(t *testing.T) {
	f := newFixture(t)
	a, cutOff := begun(t, f, kms.AdoptionOptions{})
	tell(t, f, kms.AdoptionReport{Space: a.Space, Runner: runner, Ended: true, State: &kms.AdoptionState{Sealed: 5, OldVersions: 2}})
	done, err := f.AdoptionOf(t.Context(), "b")
	if err != nil || done.Signed == nil {
		t.Fatalf("got %+v, %v", done, err)
	}
	data, err := json.Marshal(done.Signed)
	if err != nil {
		t.Fatal(err)
	}
	s, _, err := kms.VerifyAdoption(data)
	if err != nil || s.Told.Sealed != 5 || s.Told.OldVersions != 2 || s.Actor != "root" || s.Reason != "moving in" || !s.CutOff.Equal(cutOff) {
		t.Errorf("got %+v, %v", s, err)
	}
	if !kms.IsAdoption(data) || kms.IsShred(data) {
		t.Error("its kind is not told")
	}
	forged := *done.Signed
	forged.Statement = []byte(strings.Replace(string(forged.Statement), `"sealed":5`, `"sealed":6`, 1))
	data, _ = json.Marshal(forged)
	_, _, err = kms.VerifyAdoption(data)
	wantErr(t, err, kms.ErrCorrupt)
	_, signed, err := f.Report(t.Context(), "main")
	if err != nil {
		t.Fatal(err)
	}
	data, _ = json.Marshal(signed)
	_, _, err = kms.VerifyAdoption(data)
	wantErr(t, err, kms.ErrInvalid)
}

func TestAnAdoptionWithProblemsIsStuckUntilTheyAreGoneOrLeft(t *testing.T) {
	f := newFixture(t)
	a, _ := begun(t, f, kms.AdoptionOptions{})
	left := &kms.AdoptionState{Position: "z", SealedTo: "c", Sealed: 9, Problems: 1, First: []kms.AdoptionProblem{{Key: "d", Text: "too large"}}}
	ended := kms.AdoptionReport{Space: a.Space, Runner: runner, Ended: true, State: left}
	stuck, b := tell(t, f, ended)
	if stuck.State != kms.AdoptionStuck || b.State != kms.BucketAdopting || b.Adopting.SealedTo != "c" {
		t.Fatalf("got %+v, %+v", stuck, b)
	}
	if idle, _, err := f.Adoptions(t.Context()); err != nil || len(idle) != 0 {
		t.Errorf("gateways are asked for %+v, %v", idle, err)
	}
	again := startAdoption(t, f, kms.AdoptionOptions{Leave: true})
	if again.State != kms.AdoptionRunning || again.Told.Position != "c" || again.Told.Problems != 0 || again.Told.Sealed != 9 || again.Space != a.Space {
		t.Errorf("goes on as %+v", again)
	}
	done, b := tell(t, f, ended)
	if done.State != kms.AdoptionDone || b.State != kms.BucketActive || done.Told.Problems != 1 || done.Signed == nil {
		t.Errorf("got %+v, %+v", done, b)
	}
	_, err := f.StartAdoption(t.Context(), kms.NewBucket{Name: "b", Store: "main", StoreName: "data", Owner: "ann"}, kms.AdoptionOptions{})
	wantErr(t, err, kms.ErrExists)
}

func TestAStoppedAdoptionServesAndGoesOn(t *testing.T) {
	f := newFixture(t)
	a, _ := begun(t, f, kms.AdoptionOptions{})
	tell(t, f, kms.AdoptionReport{Space: a.Space, Runner: runner, State: &kms.AdoptionState{Position: "k", SealedTo: "k", Sealed: 3}})
	stopped, err := f.StopAdoption(t.Context(), "b", kms.Change{Actor: "root"})
	if err != nil || stopped.State != kms.AdoptionStopped {
		t.Fatalf("got %+v, %v", stopped, err)
	}
	_, _, err = f.Adopt(t.Context(), kms.AdoptionReport{Space: a.Space, Runner: runner})
	wantErr(t, err, kms.ErrConflict)
	if b, err := f.Bucket(t.Context(), "b"); err != nil || b.State != kms.BucketAdopting {
		t.Errorf("got %+v, %v", b, err)
	}
	if again := startAdoption(t, f, kms.AdoptionOptions{Rate: 5}); again.Told.Position != "k" || again.Rate != 5 {
		t.Errorf("goes on as %+v", again)
	}
}

func TestAnAdoptionThatCannotBeginIsTakenBackAndSaysWhy(t *testing.T) {
	f := newFixture(t)
	a := startAdoption(t, f, kms.AdoptionOptions{})
	current(t, f.Manager, a.Space)
	failed, _ := tell(t, f, kms.AdoptionReport{Space: a.Space, Runner: runner, Refused: "there is no bucket"})
	if failed.State != kms.AdoptionFailed {
		t.Errorf("got %+v", failed)
	}
	_, err := f.Bucket(t.Context(), "b")
	wantErr(t, err, kms.ErrNotFound)
	if why, err := f.AdoptionOf(t.Context(), "b"); err != nil || why.Trouble != "there is no bucket" {
		t.Errorf("got %+v, %v", why, err)
	}
	if again := startAdoption(t, f, kms.AdoptionOptions{}); again.Space == a.Space || again.State != kms.AdoptionRunning {
		t.Errorf("the second attempt is %+v", again)
	}
}

func TestAdoptionsOfABucketThatWasRemovedAreNobodysWork(t *testing.T) {
	f := newFixture(t)
	begun(t, f, kms.AdoptionOptions{})
	if err := f.RemoveBucket(t.Context(), "b"); err != nil {
		t.Fatal(err)
	}
	if idle, _, err := f.Adoptions(t.Context()); err != nil || len(idle) != 0 {
		t.Errorf("got %+v, %v", idle, err)
	}
	f.bucket(t, "b")
	_, err := f.AdoptionOf(t.Context(), "b")
	wantErr(t, err, kms.ErrNotFound)
}

func TestWhatIsToldOfAnAdoptionIsBounded(t *testing.T) {
	f := newFixture(t)
	a, _ := begun(t, f, kms.AdoptionOptions{})
	for name, r := range map[string]kms.AdoptionReport{
		"short runner":  {Space: a.Space, Runner: "x"},
		"long trouble":  {Space: a.Space, Runner: runner, Trouble: strings.Repeat("x", 2000)},
		"many problems": {Space: a.Space, Runner: runner, State: &kms.AdoptionState{First: make([]kms.AdoptionProblem, 21)}},
		"long problem":  {Space: a.Space, Runner: runner, State: &kms.AdoptionState{First: []kms.AdoptionProblem{{Key: strings.Repeat("x", 2000)}}}},
	} {
		_, _, err := f.Adopt(t.Context(), r)
		if wantErr(t, err, kms.ErrInvalid); t.Failed() {
			t.Log(name)
		}
	}
	_, err := f.StartAdoption(t.Context(), kms.NewBucket{Name: "c", Store: "s", StoreName: "c", Owner: "ann"}, kms.AdoptionOptions{Rate: 2_000_000})
	wantErr(t, err, kms.ErrInvalid)
}

func TestAMovedBucketLiesElsewhereAndItsMirrorsAreWrittenThere(t *testing.T) {
	f := newFixture(t)
	b, other := f.active(t, "b"), f.active(t, "other")
	key := current(t, f.Manager, b.Space)
	f.nextEpoch(t, b.Space)
	newest := current(t, f.Manager, b.Space)
	for _, k := range []kms.OpenKey{key, newest} {
		if err := f.ConfirmMirror(t.Context(), b.Space, k.ID, k.Record); err != nil {
			t.Fatal(err)
		}
	}
	epoch, _ := f.Revocations(t.Context())
	_, err := f.MoveBucket(t.Context(), "b", other.Store, other.StoreName, kms.Change{})
	wantErr(t, err, kms.ErrExists)
	moved, err := f.MoveBucket(t.Context(), "b", "elsewhere", "there", kms.Change{Actor: "root"})
	if err != nil || moved.Store != "elsewhere" || moved.StoreName != "there" || moved.Space != b.Space {
		t.Fatalf("got %+v, %v", moved, err)
	}
	if now, _ := f.Revocations(t.Context()); now == epoch {
		t.Error("gateways were not told")
	}
	todo, err := f.UnmirroredKeys(t.Context(), 10)
	if err != nil || len(todo) != 2 || todo[0].Bucket.Store != "elsewhere" {
		t.Fatalf("to be mirrored: %+v, %v", todo, err)
	}
	for _, u := range todo {
		if err := f.ConfirmMirror(t.Context(), b.Space, u.ID, u.Record); err != nil {
			t.Fatal(err)
		}
	}
	if todo, err := f.UnmirroredKeys(t.Context(), 10); err != nil || len(todo) != 0 {
		t.Errorf("still to be mirrored: %+v, %v", todo, err)
	}
	if _, err := f.RegisterBucket(t.Context(), kms.NewBucket{Name: "new", Store: b.Store, StoreName: b.StoreName, Owner: "ann"}); err != nil {
		t.Errorf("the old place is not free: %v", err)
	}
	a := startAdoption2(t, f)
	_, err = f.MoveBucket(t.Context(), a.Bucket, "elsewhere", "too", kms.Change{})
	wantErr(t, err, kms.ErrConflict)
}

func startAdoption2(t *testing.T, f *fixture) kms.Adoption {
	t.Helper()
	a, err := f.StartAdoption(t.Context(), kms.NewBucket{Name: "adopted", Store: "main", StoreName: "adopted", Owner: "ann"}, kms.AdoptionOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return a
}
