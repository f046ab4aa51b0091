package keys

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"chatelaine/kms"
	"chatelaine/kms/service"
)

// second is another gateway of the same KMS, with a network of its own. It is given
// its lease, and runs only where run is called.
func (w *world) second(t *testing.T) (*Client, *network) {
	t.Helper()
	n := &network{}
	n.handler.Store(w.network.handler.Load())
	c, err := newClient(Config{GatewayID: "second"}, service.NewClients(&http.Client{Transport: n}, "http://kms"))
	if err == nil {
		err = c.Ready(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	return c, n
}

func run(t *testing.T, c *Client) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = c.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
}

var sameName = NewBucket{Name: "b", Store: "files", StoreName: "b", Owner: "bob"}

// seal is what a gateway does to acknowledge a write: the record, the key, the
// body, the backend, and the look at the key before the answer.
func seal(ctx context.Context, c *Client, b Bucket) error {
	key, err := c.Current(ctx, b)
	if err != nil {
		return err
	}
	return c.Live(key.ID)
}

// mature is the age from which a KMS knows that leases of one before it have run out.
const mature = 17 * time.Second

// again registers the bucket anew, and says how long that took.
func again(t *testing.T, c *Client) time.Duration {
	t.Helper()
	began := time.Now()
	if _, err := c.RegisterBucket(t.Context(), sameName); err != nil {
		t.Fatal(err)
	}
	return time.Since(began)
}

func TestOneGatewayMakesABucketAgainAtOnce(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, w *world) {
		for range 3 {
			if took := again(t, w.Client); took != 0 {
				t.Errorf("waited for %v", took)
			}
			wantErr(t, w.ActivateBucket(t.Context(), "b"), nil)
			old, err := w.Bucket(t.Context(), "b")
			if err != nil {
				t.Fatal(err)
			}
			key := w.current(t, old)
			if err := w.RemoveBucket(t.Context(), "b"); err != nil {
				t.Fatal(err)
			}
			wantErr(t, w.Live(key.ID), ErrBucketNotFound)
			wantErr(t, seal(t.Context(), w.Client, old), ErrBucketNotFound)
		}
	})
}

func TestABucketIsNotMadeAgainBeforeOtherGatewaysHaveHeard(t *testing.T) {
	for name, c := range map[string]struct {
		prepare  func(*testing.T, *Client, *network)
		min, max time.Duration
	}{
		"one that renews":         {func(t *testing.T, c *Client, _ *network) { run(t, c) }, 0, 6 * time.Second},
		"one that is cut off":     {func(_ *testing.T, _ *Client, n *network) { n.down.Store(true) }, 14 * time.Second, 16 * time.Second},
		"one whose answers hang":  {func(t *testing.T, c *Client, n *network) { n.delay.Store(int64(9 * time.Second)); run(t, c) }, 10 * time.Second, 17 * time.Second},
		"one that does not renew": {func(*testing.T, *Client, *network) {}, 14 * time.Second, 16 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, Config{}, func(t *testing.T, w *world) {
				time.Sleep(mature)
				old := w.bucket(t, "b")
				b, network := w.second(t)
				if _, err := b.Bucket(t.Context(), "b"); err != nil {
					t.Fatal(err)
				}
				key, err := b.Current(t.Context(), old)
				if err != nil {
					t.Fatal(err)
				}
				c.prepare(t, b, network)
				time.Sleep(time.Second)
				if err := w.RemoveBucket(t.Context(), "b"); err != nil {
					t.Fatal(err)
				}
				wantErr(t, b.Live(key.ID), nil) // the hazard: it has not heard, and the bucket is gone
				took := again(t, w.Client)
				if err := b.Live(key.ID); err == nil {
					t.Errorf("a running transfer goes on %v after the removal", took)
				}
				network.down.Store(true)
				if err := seal(t.Context(), b, old); err == nil {
					t.Errorf("a write for the old space is acknowledged %v after the removal", took)
				}
				if took < c.min || took > c.max {
					t.Errorf("waited for %v, want %v to %v", took, c.min, c.max)
				}
			})
		})
	}
}

func TestARenewedLeaseDropsRecordsAndKeysOfRemovedBuckets(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, w *world) {
		old, kept := w.bucket(t, "b"), w.bucket(t, "kept")
		key, keptKey := w.current(t, old), w.current(t, kept)
		if err := w.kms.RemoveBucket(t.Context(), "b"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(6 * time.Second)
		_, err := w.Bucket(t.Context(), "b")
		wantErr(t, err, ErrBucketNotFound)
		wantErr(t, w.Live(key.ID), ErrBucketNotFound)
		wantErr(t, seal(t.Context(), w.Client, old), ErrBucketNotFound)
		wantErr(t, w.Live(keptKey.ID), nil)
		if got := w.current(t, kept); got.ID != keptKey.ID || w.network.count("Current") > 3 {
			t.Errorf("the keys of another bucket were asked for again")
		}
	})
}

func TestAnAnswerUnderWayDoesNotBringARemovedBucketBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newStillWorld(t, Config{})
		old := w.bucket(t, "b")
		wantErr(t, w.Ready(t.Context()), nil)
		w.network.delay.Store(int64(time.Second))
		results := make(chan error, 2)
		go func() { _, err := w.Current(t.Context(), old); results <- err }()
		go func() { w.buckets.entries.Purge(); _, err := w.Bucket(t.Context(), "b"); results <- err }()
		time.Sleep(500 * time.Millisecond)
		w.removed([]string{old.Space.String(), "no UUID"})
		for range 2 {
			wantErr(t, <-results, ErrBucketNotFound)
		}
		if w.keys.entries.Len() != 0 && !w.keys.entries.Values()[0].value.blocked || w.buckets.entries.Len() != 0 {
			t.Error("a key or record of the removed bucket is held")
		}
	})
}

func TestRegisteringSaysBusyWhenItCannotWait(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, w *world) {
		w.bucket(t, "b")
		_, _ = w.second(t)
		if err := w.RemoveBucket(t.Context(), "b"); err != nil {
			t.Fatal(err)
		}
		short, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		_, err := w.RegisterBucket(short, sameName)
		wantErr(t, err, ErrBucketBusy)
		if short.Err() != nil || errors.Is(err, ErrUnavailable) {
			t.Errorf("the answer came too late or wrong: %v", err)
		}
		gone, leave := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, leave)
		began := time.Now()
		_, err = w.RegisterBucket(gone, sameName)
		if err == nil || time.Since(began) > time.Second {
			t.Errorf("a client that left: %v after %v", err, time.Since(began))
		}
		if took := again(t, w.Client); took > 14*time.Second {
			t.Errorf("the wait began anew: %v", took)
		}
	})
}

// restarted is the KMS after a restart, which has forgotten all leases; after a
// while of uptime it knows them all, unless others share its registry.
func TestAKMSThatCannotKnowAllLeasesWaits(t *testing.T) {
	for name, c := range map[string]struct {
		registry func(kms.Registry) kms.Registry
		uptime   time.Duration
		min, max time.Duration
	}{
		"restarted just now":   {func(r kms.Registry) kms.Registry { return r }, 0, 16 * time.Second, 17 * time.Second},
		"restarted before":     {func(r kms.Registry) kms.Registry { return r }, 17 * time.Second, 0, 0},
		"one of several":       {func(r kms.Registry) kms.Registry { return sharedRegistry{r} }, 17 * time.Second, 17 * time.Second, 17 * time.Second},
		"one of several, long": {func(r kms.Registry) kms.Registry { return sharedRegistry{r} }, time.Hour, 17 * time.Second, 17 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, Config{}, func(t *testing.T, w *world) {
				w.bucket(t, "b")
				var err error
				w.kms, err = kms.NewManager(t.Context(), kms.Config{
					Registry: c.registry(w.registry), Providers: map[string]kms.Provider{"soft": w.provider},
				})
				if err != nil {
					t.Fatal(err)
				}
				w.restartKMS(t, zap.NewNop())
				time.Sleep(c.uptime)
				if err := w.RemoveBucket(t.Context(), "b"); err != nil {
					t.Fatal(err)
				}
				if took := again(t, w.Client); took < c.min || took > c.max {
					t.Errorf("waited for %v, want %v to %v", took, c.min, c.max)
				}
			})
		})
	}
}

// sharedRegistry hides that its registry is one process's.
type sharedRegistry struct{ kms.Registry }
