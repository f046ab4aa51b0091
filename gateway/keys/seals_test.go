package keys

import (
	"context"
	"testing"
	"time"

	"chatelaine/kms"
)

func TestWhatIsSealedIsToldWithEachRenewalAndEndsTheEpoch(t *testing.T) {
	w := newStillWorld(t, Config{})
	n := uint64(1000)
	b := w.bucket(t, "b")
	if _, err := w.kms.SetBucket(t.Context(), "b", kms.BucketSettings{EpochObjects: &n}, kms.Change{}); err != nil {
		t.Fatal(err)
	}
	background(t, w)
	first := w.current(t, b)
	for range n {
		if got := w.current(t, b); got.ID != first.ID {
			t.Fatal("the key was replaced before the KMS was told")
		}
	}
	w.network.down.Store(true)
	if err := w.lease.renew(t.Context()); err == nil {
		t.Fatal("renewed without a network")
	}
	w.network.down.Store(false)
	for began := time.Now(); w.current(t, b).ID == first.ID; time.Sleep(200 * time.Millisecond) {
		if time.Since(began) > 40*time.Second {
			t.Fatal("the key is not replaced: the counts of a renewal that failed are lost, or its answer is not heeded")
		}
		if err := w.lease.renew(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.ByID(t.Context(), b, first.ID); err != nil {
		t.Errorf("what was sealed before: %v", err)
	}
}

func TestCountsOfManyKeysAreToldInTurns(t *testing.T) {
	var s seals
	for i := range 2500 {
		s.add(sealedKey{id: [16]byte{byte(i), byte(i >> 8)}}, 2)
	}
	sum, rounds := uint64(0), 0
	for got := s.take(); len(got) > 0; got = s.take() {
		rounds++
		if len(got.messages()) > maxCounts {
			t.Errorf("got %d at once, want %d at most", len(got), maxCounts)
		}
		if rounds == 1 {
			s.putBack(got) // as it was not heard
			continue
		}
		for _, m := range got.messages() {
			sum += m.GetCount()
		}
	}
	if sum != 5000 || rounds != 4 {
		t.Errorf("got %d in %d rounds, want 5000 in 4", sum, rounds)
	}
}

// background runs the KMS's own duties until the test ends.
func background(t *testing.T, w *world) {
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); w.kms.Run(ctx) }()
	t.Cleanup(func() { stop(); <-done })
}
