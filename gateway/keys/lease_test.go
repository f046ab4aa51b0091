package keys

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"go.uber.org/zap"
	"google.golang.org/protobuf/types/known/durationpb"

	"chatelaine/kms"
	"chatelaine/kms/service"
	"chatelaine/kms/service/kmsv1"
)

// grants has the KMS say that a lease is for ttl.
func (w *world) grants(ttl time.Duration) {
	says(w, "Renew", func(m *kmsv1.RenewResponse) { m.Ttl = durationpb.New(ttl) })
}

func TestALeaseOfLessThanASecondIsNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newStillWorld(t, Config{})
		for _, ttl := range []time.Duration{time.Second - 1, 0, -time.Hour} {
			w.grants(ttl)
			wantErr(t, w.Ready(t.Context()), ErrUnavailable)
			if w.lease.valid() || w.lease.id() != "" {
				t.Errorf("a lease for %v is held", ttl)
			}
			time.Sleep(quiet)
		}
		w.grants(time.Second)
		wantErr(t, w.Ready(t.Context()), nil)
	})
}

func TestALeaseThatComesTooLateIsNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newStillWorld(t, Config{CallTimeout: time.Minute})
		w.network.delay.Store(int64(16 * time.Second))
		wantErr(t, w.Ready(t.Context()), ErrUnavailable)
	})
}

func TestWithoutALeaseTheKMSIsAskedForNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newStillWorld(t, Config{})
		w.network.down.Store(true)
		err := w.Ready(t.Context())
		wantErr(t, err, ErrUnavailable)
		wantErr(t, err, kms.ErrUnavailable) // the cause
		w.network.down.Store(false)
		_, err = w.Work(t.Context()) // within quiet
		wantErr(t, err, ErrUnavailable)
		if n := w.network.count("Unmirrored"); n != 0 {
			t.Errorf("%d calls, want none", n)
		}
	})
}

func TestAGatewayThatIsDeniedALeaseHasNoKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newStillWorld(t, Config{})
		other, err := service.New(service.Config{Manager: w.kms, Access: service.Access{Gateways: []string{"other"}}})
		if err != nil {
			t.Fatal(err)
		}
		w.network.handler.Store(other)
		wantErr(t, w.Ready(t.Context()), kms.ErrDenied)
		wantErr(t, w.Ready(t.Context()), ErrUnavailable) // within quiet
	})
}

func TestACallerThatGoesAwayIsNotToldOfAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newStillWorld(t, Config{})
		w.network.delay.Store(int64(time.Second))
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		err := w.Ready(ctx)
		wantErr(t, err, context.DeadlineExceeded)
		if errors.Is(err, ErrUnavailable) {
			t.Errorf("got %v", err)
		}
		time.Sleep(time.Second) // the answer comes, for whoever waits still
	})
}

func TestACallIsNotMadeAgainWithoutAnotherLease(t *testing.T) {
	w := newStillWorld(t, Config{})
	wantErr(t, w.Ready(t.Context()), nil)
	w.restartKMS(t, zap.NewNop())
	w.grants(0)
	_, err := w.Work(t.Context())
	wantErr(t, err, ErrUnavailable)
	if n := w.network.count("Unmirrored"); n != 1 {
		t.Errorf("%d calls, want 1", n)
	}
}

func TestARemovedBucketEndsThoughTheLeaseIsNotRenewed(t *testing.T) {
	w := newStillWorld(t, Config{})
	id := w.current(t, w.bucket(t, "b")).ID
	w.grants(0)
	wantErr(t, w.RemoveBucket(t.Context(), "b"), nil)
	wantErr(t, w.Live(id), ErrBucketNotFound)
}

func TestAStreamThatSaysNothingIsMadeAgain(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, w *world) {
		time.Sleep(time.Second) // the stream stands
		before := w.network.count("Watch")
		w.network.deaf.Store(true)
		time.Sleep(16 * time.Second)
		if w.network.count("Watch") == before {
			t.Error("it has said nothing for a lease, and no other is asked for")
		}
	})
}

func TestAStreamEndsWithItsLease(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, w *world) {
		time.Sleep(time.Second)
		before := w.network.count("Watch")
		next := *w.lease.held.Load()
		next.id = "another"
		w.lease.hold(&next)
		time.Sleep(time.Second)
		if w.network.count("Watch") == before {
			t.Error("it is of the lease before")
		}
	})
}

func TestWhatTheKMSDidNotHearIsSaidAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newStillWorld(t, Config{})
		wantErr(t, w.Ready(t.Context()), nil)
		w.heed(state(7), w.clock.now())
		w.network.down.Store(true)
		w.acknowledge(t.Context())
		if told := w.told.Load(); told != nil {
			t.Errorf("told %+v, without a network", told)
		}
		w.network.down.Store(false)
		w.acknowledge(t.Context())
		if told := w.told.Load(); told == nil || told.epoch != 7 {
			t.Errorf("told %+v", told)
		}
	})
}

func TestWhatIsOlderThanARevocationIsNotKept(t *testing.T) {
	w := newStillWorld(t, Config{})
	before := w.generation.load()
	w.askAgain()
	fresh, err := w.keepUnless(kms.KeyRef{}, before, func() { t.Error("kept") })
	if fresh || err != nil {
		t.Errorf("got %t, %v", fresh, err)
	}
}

func TestASigningKeyThatABlockOvertakesIsNotUsed(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, w *world) {
		time.Sleep(time.Second)
		w.network.delay.Store(int64(time.Second))
		done := make(chan error)
		go func() { _, err := w.SigningKey(t.Context(), accessKeyID, today(), "eu", "s3"); done <- err }()
		time.Sleep(500 * time.Millisecond) // the KMS has answered, and the answer is under way
		w.blockKEK(t, "main", "1")
		wantErr(t, <-done, ErrBlocked)
		if w.signing.entries.Len() != 0 {
			t.Error("the key is kept")
		}
	})
}

func TestRevocationsDoNotLengthenALife(t *testing.T) {
	var e entry[int]
	e.expires.Store(10)
	if e.shorten(20); !e.alive(9) || e.alive(10) {
		t.Errorf("it lives until %d, want 10", e.expires.Load())
	}
	if e.shorten(5); !e.alive(4) || e.alive(5) {
		t.Errorf("it lives until %d, want 5", e.expires.Load())
	}
}

func TestSpacesThatAreNotUnderstoodAreLogged(t *testing.T) {
	w := newStillWorld(t, Config{})
	b := w.bucket(t, "b")
	id := w.current(t, b).ID
	w.removed([]string{"gone away"})
	w.endShredded([]string{"torn up"})
	for _, want := range []string{"gone away", "torn up"} {
		if !strings.Contains(w.logs.String(), want) {
			t.Errorf("nobody reads of %q", want)
		}
	}
	if wantErr(t, w.Live(id), nil); w.gone.Len() != 0 {
		t.Error("a bucket is gone")
	}
	w.removed([]string{"gone away", b.Space.String()})
	wantErr(t, w.Live(id), ErrBucketNotFound)
}

func TestACanaryIsNotSaidToBeWhatItIsNot(t *testing.T) {
	w := newStillWorld(t, Config{})
	space := w.bucket(t, "b").Space.String()
	for _, none := range []string{"", "no UUID", uuid.NewString()} {
		if got := w.sing(t.Context(), none, false); got != "" || w.canary.Load() != nil {
			t.Errorf("of the key of %q: got %q, want nothing", none, got)
		}
	}
	if n := w.network.count("Current"); n != 1 {
		t.Errorf("%d calls, want one, for the last", n)
	}
	if got := w.sing(t.Context(), space, true); got != "" {
		t.Errorf("of a key that was never held: got %q", got)
	}
	for _, prepare := range []func(){func() {}, w.keys.entries.Purge} { // it is in use, or its end was not seen
		if got := w.sing(t.Context(), space, false); got != kms.CanaryHeld {
			t.Errorf("got %q, want it held", got)
		}
		prepare()
		if got := w.sing(t.Context(), space, true); got != kms.CanaryHeld {
			t.Errorf("of a key that is not blocked: got %q", got)
		}
	}
}
