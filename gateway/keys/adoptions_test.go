package keys

import (
	"reflect"
	"testing"
	"time"

	"chatelaine/kms"
)

const runner = "a-runner-of-its-own"

func TestAGatewayTellsOfAnAdoptionAndLearnsOfIt(t *testing.T) {
	w := newWorld(t, Config{})
	_, err := w.kms.StartAdoption(t.Context(), kms.NewBucket{Name: "b", Store: "main", StoreName: "data", Owner: "ann"}, kms.AdoptionOptions{Rate: 3, Bytes: 4})
	if err != nil {
		t.Fatal(err)
	}
	todo, err := w.Work(t.Context())
	if err != nil || len(todo.Adoptions) != 1 || todo.Adoptions[0].Rate != 3 || todo.Adoptions[0].Bytes != 4 || todo.Adoptions[0].Bucket.Active {
		t.Fatalf("got %+v, %v", todo, err)
	}
	b := todo.Adoptions[0].Bucket
	if _, err := w.Adopt(t.Context(), AdoptionProgress{Bucket: b, Runner: runner}); err != nil {
		t.Fatal(err)
	}
	_, err = w.Adopt(t.Context(), AdoptionProgress{Bucket: b, Runner: "somebody-else-of-them"})
	wantErr(t, err, ErrAdoptionTaken)
	cutOff := time.Now().UTC()
	if err := w.BeginAdoption(t.Context(), b, runner, cutOff); err != nil {
		t.Fatal(err)
	}
	now, err := w.Bucket(t.Context(), "b")
	if err != nil || !now.Active || !now.MayBePlain("k", cutOff) || now.MayBePlain("k", cutOff.Add(1)) {
		t.Errorf("got %+v, %v", now, err)
	}
	state := AdoptionState{
		Position: "m", SealedTo: "l", Problems: []AdoptionProblem{{"k", "why"}},
		Counts: AdoptionCounts{Sealed: 1, SealedBytes: 2, Already: 3, Gone: 4, SameETag: 5, Locked: 6, Problems: 7, OldVersions: 8},
	}
	told, err := w.Adopt(t.Context(), AdoptionProgress{Bucket: b, Runner: runner, State: &state})
	if err != nil || !reflect.DeepEqual(told.AdoptionState, state) || told.Bucket.MayBePlain("l", cutOff) || !told.Bucket.MayBePlain("la", cutOff) {
		t.Errorf("got %+v, %v", told, err)
	}
	state.Counts.Problems, state.Problems = 0, nil
	if told, err = w.Adopt(t.Context(), AdoptionProgress{Bucket: b, Runner: runner, State: &state, Ended: true}); err != nil || told.Bucket.MayBePlain("z", cutOff) {
		t.Errorf("at the end: %+v, %v", told, err)
	}
	_, err = w.Adopt(t.Context(), AdoptionProgress{Bucket: b, Runner: runner})
	wantErr(t, err, ErrAdoptionTaken)
}

func TestNothingIsPlaintextOfBeforeWhereNoBucketIsAdopted(t *testing.T) {
	if (Bucket{}).MayBePlain("k", time.Time{}) {
		t.Error("an object that has no time may be plaintext")
	}
}
