package keys

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"chatelaine/kms"
	"chatelaine/kms/service/kmsv1"
)

// pushed is how soon what is pushed must be effective on a clock that only moves when
// everybody waits.
const pushed = 50 * time.Millisecond

// two makes buckets under KEKs of their own.
func (w *world) two(t *testing.T) (blocked, kept Bucket) {
	t.Helper()
	if _, err := w.kms.EnsureKEK(t.Context(), "other"); err != nil {
		t.Fatal(err)
	}
	blocked = w.bucketOf(t, kms.NewBucket{Name: "b", Store: "files", StoreName: "b", Owner: "alice", KEK: "other"})
	return blocked, w.bucket(t, "kept")
}

// blockKEK is what the kill switch commits: the state, and the growth of the epoch.
func (w *world) blockKEK(t *testing.T, name string, epoch string) {
	t.Helper()
	w.edit(t, "keks/"+name, `"state":"active"`, `"state":"suspended"`)
	w.put(t, "revocation", `{"schema":1,"record":{"epoch":`+epoch+`,"narrow":`+epoch+`}}`)
}

func TestAPushedBlockEndsKeysUnderItsKEKAtOnceAndNoOthers(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, w *world) {
		b, kept := w.two(t)
		id, keptID := w.current(t, b).ID, w.current(t, kept).ID
		time.Sleep(time.Second) // the stream stands
		before, asked := w.provider.unwraps.Load(), w.network.count("Renew")
		w.blockKEK(t, "other", "1")
		time.Sleep(pushed)
		wantErr(t, w.Live(id), ErrBlocked)
		_, err := w.Current(t.Context(), b)
		wantErr(t, err, ErrBlocked)
		_, err = w.ByID(t.Context(), b, id)
		wantErr(t, err, ErrBlocked)
		wantErr(t, w.Live(keptID), nil)
		if w.current(t, kept).ID != keptID || w.provider.unwraps.Load() != before {
			t.Error("the key of another KEK was asked for again")
		}
		if n := w.network.count("Renew") - asked; n != 0 {
			t.Errorf("%d renewals: it was not the push", n)
		}
	})
}

func TestAPushedBlockEndsSigningKeys(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, w *world) {
		sign := func() error {
			_, err := w.SigningKey(t.Context(), accessKeyID, today(), "eu", "s3")
			return err
		}
		wantErr(t, sign(), nil)
		time.Sleep(time.Second)
		w.blockKEK(t, "main", "1")
		time.Sleep(pushed)
		if w.signing.entries.Len() != 0 {
			t.Error("the signing key is kept")
		}
		wantErr(t, sign(), ErrBlocked)
	})
}

func TestWithoutAStreamABlockComesWithTheNextRenewal(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, w *world) {
		b, kept := w.two(t)
		id, keptID := w.current(t, b).ID, w.current(t, kept).ID
		w.network.deaf.Store(true)
		time.Sleep(30 * time.Second)
		w.blockKEK(t, "other", "1")
		began := time.Now()
		_ = every(10*time.Millisecond, time.Minute, func() error { return w.Live(id) })
		wantErr(t, w.Live(id), ErrBlocked)
		wantErr(t, w.Live(keptID), nil)
		if took := time.Since(began); took > 6*time.Second {
			t.Errorf("it took %v, want a third of a lease", took)
		}
	})
}

func TestAStreamThatBrokeIsMadeAgain(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, w *world) {
		b, _ := w.two(t)
		id := w.current(t, b).ID
		time.Sleep(time.Second)
		w.restartKMS(t, zap.NewNop()) // its streams end, and its leases are unknown
		time.Sleep(5 * time.Second)
		asked := w.network.count("Renew")
		w.blockKEK(t, "other", "1")
		time.Sleep(pushed)
		wantErr(t, w.Live(id), ErrBlocked)
		if n := w.network.count("Renew") - asked; n != 0 {
			t.Errorf("%d renewals: it was not the push", n)
		}
	})
}

func TestAnAnswerThatABlockOvertakesIsNotKept(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, w *world) {
		b, _ := w.two(t)
		time.Sleep(time.Second)
		w.network.delay.Store(int64(time.Second))
		done := make(chan error)
		go func() { _, err := w.Current(t.Context(), b); done <- err }()
		time.Sleep(500 * time.Millisecond) // the KMS has answered, and the answer is under way
		w.blockKEK(t, "other", "1")
		wantErr(t, <-done, ErrBlocked)
		for _, id := range w.keys.entries.Keys() {
			if e, _ := w.keys.entries.Peek(id); e.value.space == b.Space && !e.value.blocked {
				t.Error("the key is kept")
			}
		}
	})
}

// TestNoKeySurvivesABlockWhateverTheOrder races answers against revocations.
func TestNoKeySurvivesABlockWhateverTheOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newStillWorld(t, Config{})
		b, _ := w.two(t)
		ref := kms.KeyRef{Name: "other", Version: 1}
		answer, _, err := w.asked(t, b)
		if err != nil {
			t.Fatal(err)
		}
		want := wanted{space: b.Space, current: true}
		for epoch := uint64(2); epoch < 500; epoch += 2 {
			keep := func() {
				generation := w.generation.load()
				key := openKey{space: b.Space, id: [16]byte{1}, mirrored: new(atomic.Bool), kek: ref}
				_, _ = w.keepUnless(ref, generation, func() { w.keep(want, key, answer, generation, w.clock.now()) })
			}
			heed := func() { w.heed(state(epoch, ref), w.clock.now()) }
			if epoch%4 == 0 { // the one that is started last tends to run first
				keep, heed = heed, keep
			}
			var wg sync.WaitGroup
			wg.Go(keep)
			wg.Go(heed)
			wg.Wait()
			if e, ok := w.keys.entries.Peek([16]byte{1}); ok && !e.value.blocked {
				t.Fatal("a key is held under a KEK that is blocked")
			}
			w.heed(state(epoch+1), w.clock.now())
		}
	})
}

// asked asks the KMS as fetchKey does.
func (w *world) asked(t *testing.T, b Bucket) (*kmsv1.BucketKeyResponse, instant, error) {
	t.Helper()
	return leased(t.Context(), w.Client, "Current", func(ctx context.Context, lease string) (*kmsv1.BucketKeyResponse, error) {
		return w.rpc.Current(ctx, &kmsv1.CurrentRequest{LeaseId: lease, Space: b.Space.String()})
	})
}

func state(epoch uint64, unusable ...kms.KeyRef) *kmsv1.Revocation {
	out := &kmsv1.Revocation{Epoch: epoch}
	for _, ref := range unusable {
		out.Unusable = append(out.Unusable, &kmsv1.KeyVersion{Kek: ref.Name, Version: ref.Version})
	}
	return out
}

func TestOldNewsChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newStillWorld(t, Config{})
		ref := kms.KeyRef{Name: "other", Version: 1}
		before := w.clock.now()
		time.Sleep(time.Second)
		w.heed(state(5, ref), w.clock.now())
		w.heed(state(4), before)
		if !w.revoked.unusable[ref] {
			t.Error("an answer that was overtaken has unblocked a KEK")
		}
		w.heed(state(6), before) // a stream that was opened long ago
		if w.revoked.unusable[ref] {
			t.Error("the KEK is still blocked")
		}
		w.heed(state(6, ref), w.clock.now())
		if w.revoked.unusable[ref] {
			t.Error("one epoch has two meanings")
		}
		time.Sleep(time.Second)
		w.heed(state(2, ref), w.clock.now()) // the registry was restored from a backup
		if !w.revoked.unusable[ref] {
			t.Error("what was asked for later, under a smaller epoch, does not count")
		}
	})
}

func TestTheKMSIsToldOfWhatWasActedOn(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, w *world) {
		time.Sleep(time.Second)
		before := w.network.count("Heard")
		w.put(t, "revocation", `{"schema":1,"record":{"epoch":7}}`)
		time.Sleep(pushed)
		if told := w.told.Load(); told == nil || told.epoch != 7 || told.lease != w.lease.id() {
			t.Errorf("told %+v", told)
		}
		if n := w.network.count("Heard") - before; n != 1 {
			t.Errorf("told %d times", n)
		}
		time.Sleep(time.Minute)
		if n := w.network.count("Heard") - before; n != 1 {
			t.Errorf("told %d times of one revocation", n)
		}
	})
}

func TestALeaseIsGivenBackAtTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newStillWorld(t, Config{})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- w.Run(ctx) }()
		time.Sleep(time.Second)
		id := w.lease.id()
		cancel()
		wantErr(t, <-done, context.Canceled)
		if w.lease.valid() {
			t.Error("the lease is used on")
		}
		_, err := w.rpc.Current(t.Context(), &kmsv1.CurrentRequest{LeaseId: id})
		wantErr(t, err, kms.ErrLease)
	})
}

func TestAStrictBucketAsksTheHSMForEachOfManyAtOnce(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, w *world) {
		b := w.bucketOf(t, kms.NewBucket{Name: "b", Store: "files", StoreName: "b", Owner: "alice", Profile: kms.Strict})
		id := w.current(t, b).ID
		before := w.provider.unwraps.Load()
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				if _, err := w.ByID(t.Context(), b, id); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if n := w.provider.unwraps.Load() - before; n != 50 {
			t.Errorf("%d unwrappings for 50 requests at once", n)
		}
		w.provider.fail.Store(true) // the key is blocked in the token
		if _, err := w.ByID(t.Context(), b, id); err == nil {
			t.Error("a request has a key that the HSM did not give")
		}
		w.provider.fail.Store(false)
		wantErr(t, w.Live(id), nil)
		w.blockKEK(t, "main", "1")
		time.Sleep(pushed)
		wantErr(t, w.Live(id), ErrBlocked)
	})
}

func TestTheCanaryIsHeldAndThenNotUsable(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, w *world) {
		kept := w.current(t, w.bucket(t, "kept")).ID
		time.Sleep(time.Second)
		before := w.provider.unwraps.Load()
		wantErr(t, w.kms.BeginCanary(t.Context()), nil)
		time.Sleep(pushed)
		held := w.canary.Load()
		if held == nil || w.Live(*held) != nil {
			t.Fatal("the canary's key is not held")
		}
		wantErr(t, w.kms.BlockCanary(t.Context()), nil)
		time.Sleep(pushed)
		wantErr(t, w.Live(*held), ErrBlocked)
		wantErr(t, w.kms.EndCanary(t.Context()), nil)
		time.Sleep(pushed)
		wantErr(t, w.Live(kept), nil)
		if n := w.provider.unwraps.Load() - before; n > 8 { // the making of the canary's own keys
			t.Errorf("%d unwrappings for a canary", n)
		}
	})
}
