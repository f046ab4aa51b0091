package keys

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"chatelaine/kms"
)

// bubble runs a test on a fake clock.
func bubble(t *testing.T, c Config, test func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { test(t, newWorld(t, c)) })
}

// every calls f each step for a while, and stops at an error.
func every(step, during time.Duration, f func() error) error {
	for range during / step {
		if err := f(); err != nil {
			return err
		}
		time.Sleep(step)
	}
	return nil
}

func TestOneUnwrappingServesManyRequests(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, w *world) {
		b := w.bucket(t, "b")
		first := w.current(t, b)
		before := w.provider.unwraps.Load()
		for range 100 {
			if key := w.current(t, b); key.ID != first.ID || !key.Key.Equal(first.Key) {
				t.Fatal("another key")
			}
			if key, err := w.ByID(t.Context(), b, first.ID); err != nil || !key.Key.Equal(first.Key) {
				t.Fatal(err)
			}
			if err := w.Live(first.ID); err != nil {
				t.Fatal(err)
			}
		}
		if n := w.provider.unwraps.Load() - before; n != 0 {
			t.Errorf("%d more unwrappings", n)
		}
	})
}

func TestConcurrentMissesAskOnce(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, w *world) {
		b := w.bucket(t, "b")
		w.network.delay.Store(int64(time.Second))
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				if _, err := w.Current(t.Context(), b); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if n := w.network.count("Current"); n != 1 {
			t.Errorf("%d calls, want 1", n)
		}
	})
}

func TestACallerThatGoesAwayDoesNotTakeTheAnswerFromOthers(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, w *world) {
		b := w.bucket(t, "b")
		w.network.delay.Store(int64(time.Second))
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		_, err := w.Current(ctx, b)
		wantErr(t, err, context.DeadlineExceeded)
		if _, err := w.Current(t.Context(), b); err != nil {
			t.Error(err)
		}
		if n := w.network.count("Current"); n != 1 {
			t.Errorf("%d calls, want 1", n)
		}
	})
}

func TestAKeyExpiresAtItsTTLWhateverTheTraffic(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, w *world) {
		b := w.bucket(t, "b")
		asked := time.Now()
		id := w.current(t, b).ID
		sign := func() error {
			_, err := w.SigningKey(t.Context(), accessKeyID, today(), "eu", "s3")
			return err
		}
		if err := sign(); err != nil {
			t.Fatal(err)
		}
		w.provider.fail.Store(true)
		use := func() error {
			_, current := w.Current(t.Context(), b)
			_, byID := w.ByID(t.Context(), b, id)
			return errors.Join(current, byID, w.Live(id), sign())
		}
		if err := every(time.Second, 300*time.Second, use); err != nil {
			t.Fatalf("after %v: %v", time.Since(asked), err)
		}
		if age := time.Since(asked); age != 300*time.Second {
			t.Fatalf("the test is at %v", age)
		}
		_, current := w.Current(t.Context(), b)
		_, byID := w.ByID(t.Context(), b, id)
		for _, err := range []error{current, byID, w.Live(id), sign()} {
			wantErr(t, err, ErrUnavailable)
		}
		w.provider.fail.Store(false)
		if err := use(); err != nil {
			t.Errorf("after the HSM came back: %v", err)
		}
	})
}

func TestKeysInUseAreRefreshedBeforeTheyExpire(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, w *world) {
		b, idle := w.bucket(t, "b"), w.bucket(t, "idle")
		id := w.current(t, b).ID
		w.current(t, idle)
		before := w.provider.unwraps.Load()
		misses := func() string { return fmt.Sprint(gather(t, w)["bucket_key miss"], gather(t, w)["current miss"]) }
		missed := misses()
		err := every(time.Second, 2*time.Hour, func() error {
			_, byID := w.ByID(t.Context(), b, id)
			w.current(t, b)
			return byID
		})
		if err != nil {
			t.Fatal(err)
		}
		if now := misses(); now != missed {
			t.Errorf("misses %s, before %s", now, missed)
		}
		// 7200 s at one refresh in 195 to 226 s; the idle bucket's key has none.
		if n := w.provider.unwraps.Load() - before; n < 7200/227 || n > 7200/195 {
			t.Errorf("%d unwrappings in 2 h, want 31 to 36", n)
		}
	})
}

func TestARunningTransferKeepsItsKeyFresh(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, w *world) {
		id := w.current(t, w.bucket(t, "b")).ID
		if err := every(time.Second, time.Hour, func() error { return w.Live(id) }); err != nil {
			t.Error(err)
		}
	})
}

func TestALifeIsCountedFromWhenTheRequestWasSent(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, w *world) {
		b := w.bucket(t, "b")
		wantErr(t, w.Ready(t.Context()), nil)
		w.network.delay.Store(int64(4 * time.Second))
		sent := time.Now()
		id := w.current(t, b).ID
		w.provider.fail.Store(true)
		w.network.delay.Store(0)
		time.Sleep(time.Until(sent.Add(300*time.Second - 1)))
		wantErr(t, w.Live(id), nil)
		time.Sleep(1)
		wantErr(t, w.Live(id), ErrUnavailable)
	})
}

func TestWithoutALeaseNoKeyIsUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newStillWorld(t, Config{})
		b := w.bucket(t, "b")
		w.network.delay.Store(int64(3 * time.Second))
		asked := time.Now() // the first call asks for the lease
		id := w.current(t, b).ID
		if _, err := w.SigningKey(t.Context(), accessKeyID, today(), "eu", "s3"); err != nil {
			t.Fatal(err)
		}
		w.network.down.Store(true)
		use := func() []error {
			_, current := w.Current(t.Context(), b)
			_, byID := w.ByID(t.Context(), b, id)
			_, signing := w.SigningKey(t.Context(), accessKeyID, today(), "eu", "s3")
			return []error{current, byID, signing, w.Live(id)}
		}
		time.Sleep(time.Until(asked.Add(15*time.Second - 1)))
		for _, err := range use() {
			wantErr(t, err, nil)
		}
		time.Sleep(1)
		for _, err := range use() {
			wantErr(t, err, ErrUnavailable)
		}
		wantErr(t, w.Ready(t.Context()), ErrUnavailable)
		w.network.down.Store(false)
		w.network.delay.Store(0)
		time.Sleep(2 * time.Second)
		for _, err := range use() {
			wantErr(t, err, nil)
		}
		wantErr(t, w.Ready(t.Context()), nil)
	})
}

func TestRunKeepsTheLease(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, w *world) {
		id := w.current(t, w.bucket(t, "b")).ID
		before := w.network.count("Renew")
		if err := every(time.Second, 200*time.Second, func() error { return w.Live(id) }); err != nil {
			t.Error(err)
		}
		if n := w.network.count("Renew") - before; n < 36 || n > 45 { // each 4.5 to 5.5 s
			t.Errorf("%d renewals in 200 s", n)
		}
	})
}

func TestAnOutageShorterThanTheLeaseIsNotSeen(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, w *world) {
		b := w.bucket(t, "b")
		id := w.current(t, b).ID
		use := func() error { _, err := w.Current(t.Context(), b); return errors.Join(err, w.Live(id)) }
		for range 20 {
			w.network.down.Store(true)
			if err := every(100*time.Millisecond, 9*time.Second, use); err != nil {
				t.Fatal(err)
			}
			wantErr(t, w.Ready(t.Context()), ErrUnavailable)
			w.network.down.Store(false)
			if err := every(100*time.Millisecond, 2*time.Second, use); err != nil {
				t.Fatal(err)
			}
			wantErr(t, w.Ready(t.Context()), nil)
		}
	})
}

func TestARestartedKMSIsNotSeen(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, w *world) {
		cached := w.bucket(t, "cached")
		id := w.current(t, cached).ID
		for i := range 20 {
			fresh := w.bucket(t, fmt.Sprint("bucket", i))
			w.restartKMS(t, zap.NewNop())
			w.current(t, fresh) // the KMS does not know the lease
			if err := errors.Join(w.Live(id), w.Ready(t.Context())); err != nil {
				t.Fatal(err)
			}
			before := w.provider.unwraps.Load()
			w.current(t, cached)
			if n := w.provider.unwraps.Load() - before; n != 0 {
				t.Errorf("the restart emptied the cache: %d unwrappings", n)
			}
		}
	})
}

func TestAnOutageBringsNoStorm(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, w *world) {
		b := w.bucket(t, "b")
		w.current(t, b)
		w.network.down.Store(true)
		time.Sleep(20 * time.Second)
		before := w.network.count("Renew") + w.network.count("Current")
		_ = every(10*time.Millisecond, time.Minute, func() error {
			_, err := w.Current(t.Context(), b)
			wantErr(t, err, ErrUnavailable)
			return nil
		})
		if n := w.network.count("Renew") + w.network.count("Current") - before; n > 150 {
			t.Errorf("%d calls in a minute of 6000 requests", n)
		}
	})
}

func TestABlockEndsTheUseOfAKey(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, w *world) {
		b := w.bucket(t, "b")
		id := w.current(t, b).ID
		w.block(t)
		blocked := time.Now()
		_ = every(time.Second, 600*time.Second, func() error { return w.Live(id) })
		wantErr(t, w.Live(id), ErrBlocked)
		if took := time.Since(blocked); took > 230*time.Second {
			t.Errorf("without a revocation it took %v, want no more than one refresh", took)
		}
		_, current := w.Current(t.Context(), b)
		wantErr(t, current, ErrBlocked)
		_, byID := w.ByID(t.Context(), b, id)
		wantErr(t, byID, ErrBlocked)

		w.edit(t, "keks/main", `"state":"suspended"`, `"state":"active"`)
		if w.current(t, b).ID != id {
			t.Error("another key after the unblocking")
		}
		wantErr(t, w.Live(id), nil)
	})
}

func TestARevocationIsEffectiveWithTheNextRenewal(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, w *world) {
		b := w.bucket(t, "b")
		id := w.current(t, b).ID
		w.block(t)
		w.revoke(t, "7")
		blocked := time.Now()
		_ = every(100*time.Millisecond, 600*time.Second, func() error { return w.Live(id) })
		wantErr(t, w.Live(id), ErrBlocked)
		if took := time.Since(blocked); took > 6*time.Second {
			t.Errorf("it took %v, want a third of a lease", took)
		}
	})
}

func TestARevocationOfSomethingElseCutsNoTransfer(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, w *world) {
		b := w.bucket(t, "b")
		id := w.current(t, b).ID
		before := w.provider.unwraps.Load()
		w.revoke(t, "7")
		if err := every(100*time.Millisecond, 20*time.Second, func() error { return w.Live(id) }); err != nil {
			t.Error(err)
		}
		if n := w.provider.unwraps.Load() - before; n != 1 {
			t.Errorf("asked %d times after the revocation, want once", n)
		}
	})
}

func TestARevocationThatCannotBeCheckedCutsTransfers(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, w *world) {
		id := w.current(t, w.bucket(t, "b")).ID
		w.revoke(t, "7")
		w.provider.fail.Store(true)
		revoked := time.Now()
		_ = every(100*time.Millisecond, 600*time.Second, func() error { return w.Live(id) })
		wantErr(t, w.Live(id), ErrUnavailable)
		if took := time.Since(revoked); took > 21*time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

func TestAnAnswerFromBeforeARevocationIsNotKept(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, w *world) {
		b := w.bucket(t, "b")
		wantErr(t, w.Ready(t.Context()), nil)
		w.network.delay.Store(int64(time.Second))
		done := make(chan error)
		go func() { _, err := w.Current(t.Context(), b); done <- err }()
		time.Sleep(500 * time.Millisecond)
		w.askAgain()
		wantErr(t, <-done, nil)
		if n := w.network.count("Current"); n != 2 {
			t.Errorf("%d calls, want the first and another", n)
		}
	})
}

func TestAStrictBucketAsksTheHSMEachTime(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, w *world) {
		b := w.bucketOf(t, kms.NewBucket{Name: "b", Store: "files", StoreName: "b", Owner: "alice", Profile: kms.Strict})
		if !b.Strict {
			t.Fatal("the bucket is not strict")
		}
		id := w.current(t, b).ID
		before := w.provider.unwraps.Load()
		for range 10 {
			w.current(t, b)
			if _, err := w.ByID(t.Context(), b, id); err != nil {
				t.Fatal(err)
			}
		}
		if n := w.provider.unwraps.Load() - before; n != 20 {
			t.Errorf("%d unwrappings for 20 requests", n)
		}
		if e, ok := w.keys.entries.Peek(id); !ok || !e.value.key.IsZero() {
			t.Error("the key is kept")
		}
		if err := every(time.Second, 20*time.Minute, func() error { return w.Live(id) }); err != nil {
			t.Errorf("a running transfer: %v", err)
		}
		b.Strict = false // a record of before it became strict
		before = w.provider.unwraps.Load()
		w.current(t, b)
		w.current(t, b)
		if n := w.provider.unwraps.Load() - before; n != 2 {
			t.Errorf("%d unwrappings for 2 requests with an old record", n)
		}
	})
}

func TestAKeyOfAnotherBucketIsNotFoundAndNotSpoiled(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, w *world) {
		a, b := w.bucket(t, "a"), w.bucket(t, "b")
		id := w.current(t, a).ID
		_, err := w.ByID(t.Context(), b, id)
		wantErr(t, err, ErrKeyNotFound)
		_, err = w.ByID(t.Context(), b, [16]byte{1})
		wantErr(t, err, ErrKeyNotFound)
		wantErr(t, w.Live(id), nil)
		if _, err := w.ByID(t.Context(), a, id); err != nil {
			t.Error(err)
		}
	})
}

func TestCachesAreBounded(t *testing.T) {
	bubble(t, Config{MaxBucketKeys: 2, MaxSigningKeys: 2, MaxBuckets: 2}, func(t *testing.T, w *world) {
		var ids [][16]byte
		for _, name := range []string{"aaa", "bbb", "ccc"} {
			ids = append(ids, w.current(t, w.bucket(t, name)).ID)
			_, _ = w.SigningKey(t.Context(), accessKeyID, today(), name, "s3")
			_, _ = w.SigningKey(t.Context(), "UNKNOWN"+name, today(), "eu", "s3")
		}
		for name, n := range map[string]int{
			"keys": w.keys.entries.Len(), "current": w.current2(), "signing": w.signing.entries.Len(),
			"unknown": w.unknown.entries.Len(), "buckets": w.buckets.entries.Len(),
		} {
			if n != 2 {
				t.Errorf("%s holds %d, want 2", name, n)
			}
		}
		wantErr(t, w.Live(ids[0]), ErrUnavailable)
		wantErr(t, w.Live(ids[2]), nil)
	})
}

func (w *world) current2() int { return w.Client.current.entries.Len() }

func TestMirrorsAreConfirmedInTheCacheToo(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, w *world) {
		b := w.bucket(t, "b")
		key := w.current(t, b)
		if m, err := kms.ParseMirror(key.Record); err != nil || m.ID != key.ID || key.Mirrored {
			t.Fatalf("mirror %+v, %v, mirrored %t", m, err, key.Mirrored)
		}
		if err := w.ConfirmMirror(t.Context(), b, key.ID, key.Record); err != nil {
			t.Fatal(err)
		}
		if !w.current(t, b).Mirrored {
			t.Error("the confirmation is not seen")
		}
		if n := w.network.count("Current"); n != 1 {
			t.Errorf("%d calls, want 1", n)
		}
		if err := w.UnconfirmMirrors(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		if w.current(t, b).Mirrored {
			t.Error("the confirmation is still there")
		}
		if err := w.ConfirmMirror(t.Context(), b, [16]byte{1}, key.Record); !errors.Is(err, kms.ErrInvalid) {
			t.Errorf("the record of another key: got %v", err)
		}
		wantErr(t, w.UnconfirmMirrors(t.Context(), Bucket{Name: "x", Space: Space{1}}), ErrBucketNotFound)
		w.network.down.Store(true)
		wantErr(t, w.ConfirmMirror(t.Context(), b, key.ID, key.Record), ErrUnavailable)
	})
}

func TestUnknownAccessKeysAreRememberedFor5s(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, w *world) {
		ask := func(id string) error {
			_, err := w.SigningKey(t.Context(), id, today(), "eu", "s3")
			return err
		}
		wantErr(t, ask("LATER"), ErrAccessKeyNotFound)
		later := kms.NewAccessKey{ID: "LATER", Secret: kms.NewSecret([]byte(plantedSecret)), Principal: "bob"}
		if err := w.kms.EnsureAccessKey(t.Context(), later); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5*time.Second - 1)
		wantErr(t, ask("LATER"), ErrAccessKeyNotFound)
		if n := w.network.count("SigningKey"); n != 1 {
			t.Errorf("%d calls, want 1", n)
		}
		time.Sleep(1)
		wantErr(t, ask("LATER"), nil)
		wantErr(t, ask("not/an/id"), ErrAccessKeyNotFound)
	})
}

func TestADisabledAccessKeyEndsWithTheNextRenewal(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, w *world) {
		ask := func() error {
			key, err := w.SigningKey(t.Context(), accessKeyID, today(), "eu", "s3")
			if err == nil && key.Principal != "alice" {
				t.Errorf("principal %q", key.Principal)
			}
			return err
		}
		wantErr(t, ask(), nil)
		if err := w.kms.DisableAccessKey(t.Context(), accessKeyID, kms.Change{}); err != nil {
			t.Fatal(err)
		}
		disabled := time.Now()
		err := every(100*time.Millisecond, time.Minute, ask)
		wantErr(t, err, ErrAccessKeyNotFound)
		if took := time.Since(disabled); took > 6*time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

func TestTwoSecretsAreLiveWhileOneIsReplaced(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, w *world) {
		ask := func() SigningKey {
			key, err := w.SigningKey(t.Context(), accessKeyID, today(), "eu", "s3")
			wantErr(t, err, nil)
			return key
		}
		bytesOf := func(key SigningKey) (out [32]byte) {
			key.Use(func(b []byte) { copy(out[:], b) })
			return out
		}
		before := ask()
		if _, ok := before.Old(); ok {
			t.Error("there is an old secret before any change")
		}
		if _, _, err := w.kms.RotateSecret(t.Context(), accessKeyID, time.Minute, kms.Change{}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(6 * time.Second)
		both := ask()
		if old, ok := both.Old(); !ok || bytesOf(old) != bytesOf(before) || bytesOf(both) == bytesOf(before) {
			t.Error("the secret before does not verify any more, or the new one does not yet")
		}
		time.Sleep(time.Minute)
		after := ask()
		if _, ok := after.Old(); ok || bytesOf(after) != bytesOf(both) {
			t.Error("the secret before verifies after its time")
		}
	})
}

func TestSigningKeysAreThoseOfTheirScope(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, w *world) {
		seen := map[string]bool{}
		for _, scope := range [][2]string{{"eu", "s3"}, {"us", "s3"}, {"eu", "sts"}, {"eu", "s3"}} {
			key, err := w.SigningKey(t.Context(), accessKeyID, today(), scope[0], scope[1])
			if err != nil {
				t.Fatal(err)
			}
			key.Use(func(b []byte) { seen[string(b)] = len(b) == 32 })
		}
		if len(seen) != 3 {
			t.Errorf("%d different keys for 3 scopes", len(seen))
		}
		_, err := w.SigningKey(t.Context(), accessKeyID, "20200101", "eu", "s3")
		wantErr(t, err, ErrBlocked)
	})
}

func TestBucketsAreRegisteredWithTheirETags(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newStillWorld(t, Config{})
		for name, md5 := range map[string]bool{"bucket": false, "md5": true} {
			b, err := w.RegisterBucket(t.Context(), NewBucket{Name: name, Store: "files", StoreName: name, Owner: "alice", MD5: md5})
			if err != nil || b.MD5 != md5 {
				t.Errorf("%s: got %+v, %v", name, b, err)
			}
			if b, err := w.Bucket(t.Context(), name); err != nil || b.MD5 != md5 {
				t.Errorf("%s, looked up: got %+v, %v", name, b, err)
			}
		}
	})
}

func TestBucketsAreRememberedFor10s(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newStillWorld(t, Config{})
		_, err := w.Bucket(t.Context(), "bucket")
		wantErr(t, err, ErrBucketNotFound)
		b, err := w.RegisterBucket(t.Context(), NewBucket{Name: "bucket", Store: "files", StoreName: "p", Owner: "alice"})
		if err != nil || b.Active || b.KEK != "main" || b.Space == (Space{}) {
			t.Fatalf("got %+v, %v", b, err)
		}
		if b, err := w.Bucket(t.Context(), "bucket"); err != nil || b.Active {
			t.Errorf("got %+v, %v", b, err)
		}
		if err := w.kms.ActivateBucket(t.Context(), "bucket"); err != nil { // another gateway does it
			t.Fatal(err)
		}
		if b, err := w.Bucket(t.Context(), "bucket"); err != nil || !b.Active {
			t.Errorf("a bucket in creation was remembered: %+v, %v", b, err)
		}
		if err := w.kms.RemoveBucket(t.Context(), "bucket"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10*time.Second - 1)
		_, err = w.Bucket(t.Context(), "bucket")
		wantErr(t, err, nil)
		time.Sleep(1)
		_, err = w.Bucket(t.Context(), "bucket")
		wantErr(t, err, ErrBucketNotFound)
		w.network.down.Store(true)
		_, err = w.Bucket(t.Context(), "bucket")
		wantErr(t, err, ErrUnavailable)
	})
}

func TestAClientSeesItsOwnChangesAtOnce(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, w *world) {
		n := NewBucket{Name: "bucket", Store: "files", StoreName: "p", Owner: "alice"}
		for range 3 {
			if _, err := w.RegisterBucket(t.Context(), n); err != nil {
				t.Fatal(err)
			}
			owned, err := w.RegisterBucket(t.Context(), n)
			wantErr(t, err, ErrBucketOwned)
			if owned.Name != "bucket" || owned.Active {
				t.Errorf("got %+v, want the bucket", owned)
			}
			if err := w.ActivateBucket(t.Context(), "bucket"); err != nil {
				t.Fatal(err)
			}
			if b, err := w.Bucket(t.Context(), "bucket"); err != nil || !b.Active {
				t.Errorf("got %+v, %v", b, err)
			}
			if all, err := w.Buckets(t.Context()); err != nil || len(all) != 1 || !all[0].Active {
				t.Errorf("got %+v, %v", all, err)
			}
			if err := w.RemoveBucket(t.Context(), "bucket"); err != nil {
				t.Fatal(err)
			}
			_, err = w.Bucket(t.Context(), "bucket")
			wantErr(t, err, ErrBucketNotFound)
		}
		if _, err := w.RegisterBucket(t.Context(), n); err != nil {
			t.Fatal(err)
		}
		other := n
		other.Owner = "bob"
		_, err := w.RegisterBucket(t.Context(), other)
		wantErr(t, err, ErrBucketExists)
		wantErr(t, w.ActivateBucket(t.Context(), "none"), ErrBucketNotFound)
		wantErr(t, w.RemoveBucket(t.Context(), "none"), ErrBucketNotFound)
		other.Name, other.KEK = "third", "no-such-kek"
		_, err = w.RegisterBucket(t.Context(), other)
		wantErr(t, err, kms.ErrInvalid)
	})
}

func TestADamagedKeyIsNeitherBlockedNorUnavailable(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, w *world) {
		b := w.bucket(t, "b")
		id := w.current(t, b).ID
		w.edit(t, fmt.Sprintf("bucketkeys/%s/%x", b.Space, id), `"wrapped":"`, `"wrapped":"AAAA`)
		w.askAgain()
		_, err := w.ByID(t.Context(), b, id)
		wantErr(t, err, kms.ErrCorrupt)
		if errors.Is(err, ErrUnavailable) || errors.Is(err, ErrBlocked) || errors.Is(err, ErrKeyNotFound) {
			t.Errorf("%v tells the caller to do something useless", err)
		}
	})
}

func TestSecretsAreNeitherPrintedNorLogged(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, w *world) {
		b := w.bucket(t, "b")
		key := w.current(t, b)
		signing, err := w.SigningKey(t.Context(), accessKeyID, today(), "eu", "s3")
		if err != nil {
			t.Fatal(err)
		}
		secrets := [][]byte{[]byte(plantedSecret)}
		signing.Use(func(b []byte) { secrets = append(secrets, append([]byte(nil), b...)) })
		_ = key.Key.Use(func(b []byte) error { secrets = append(secrets, append([]byte(nil), b...)); return nil })
		type nested struct {
			s SigningKey
			k BucketKey
		}
		e, _ := w.keys.entries.Peek(key.ID)
		var out strings.Builder
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d", "%q"} {
			for _, value := range []any{signing, &signing, key, nested{signing, key}, &nested{signing, key}, e.value, *w.signing} {
				fmt.Fprintf(&out, verb+"\n", value)
			}
		}
		w.provider.fail.Store(true)
		w.askAgain()
		_, err = w.Current(t.Context(), b)
		fmt.Fprintf(&out, "%v %+v", err, err)
		text := out.String() + w.logs.String()
		for _, secret := range secrets {
			for _, form := range []string{string(secret), fmt.Sprintf("%x", secret), fmt.Sprint(secret), strings.Trim(fmt.Sprint(secret), "[]"), fmt.Sprintf("%#v", secret)} {
				if strings.Contains(text, form) {
					t.Errorf("a secret is in the output as %q", form)
				}
			}
		}
	})
}

func TestCollectorTellsOfCachesAndLease(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, w *world) {
		b := w.bucket(t, "b")
		w.current(t, b)
		w.current(t, b)
		time.Sleep(time.Second)
		got := gather(t, w)
		if got["current hit"] != 1 || got["current miss"] != 1 || got["lease_held"] != 1 || got["lease_age"] <= 0 || got["lease_age"] > 6 {
			t.Errorf("got %v", got)
		}
		w.network.down.Store(true)
		time.Sleep(20 * time.Second)
		if got := gather(t, w); got["lease_held"] != 0 || got["lease_age"] < 15 {
			t.Errorf("without a lease: got %v", got)
		}
	})
}

// gather reads the collector: cache counters by "cache result", and the lease.
func gather(t *testing.T, w *world) map[string]float64 {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(w.Collector())
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]float64{}
	for _, family := range families {
		for _, metric := range family.GetMetric() {
			switch family.GetName() {
			case "chatelaine_gateway_keys_cache_total":
				out[metric.GetLabel()[0].GetValue()+" "+metric.GetLabel()[1].GetValue()] = metric.GetCounter().GetValue()
			case "chatelaine_gateway_keys_lease_held":
				out["lease_held"] = metric.GetGauge().GetValue()
			case "chatelaine_gateway_keys_lease_age_seconds":
				out["lease_age"] = metric.GetGauge().GetValue()
			}
		}
	}
	return out
}

func TestNewRefusesWhatIsWrong(t *testing.T) {
	for name, c := range map[string]Config{
		"no address":      {GatewayID: "gw"},
		"no gateway id":   {Address: "unix:///x"},
		"long gateway id": {Address: "unix:///x", GatewayID: strings.Repeat("g", 129)},
		"bad limit":       {Address: "unix:///x", GatewayID: "gw", MaxBuckets: -1},
	} {
		if _, err := New(c); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
