// Package scale tests what has to hold for buckets of many objects, on the real
// gateway, key client, KMS and SoftHSM, over a store that keeps nothing but metadata.
//
// It refuses to know HTTP and S3: requests begin at gateway/objects.
package scale

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"

	"chatelaine/backends"
	"chatelaine/backends/memstore"
	"chatelaine/gateway/keys"
	"chatelaine/gateway/objects"
	"chatelaine/hsm/hsmtest"
	"chatelaine/kms"
	"chatelaine/kms/pkcs11"
	"chatelaine/kms/registry"
	"chatelaine/kms/service"
)

const (
	epochs = 20 // of the bucket
	perKey = 200
	// total is the bucket's objects. Those beyond epochs*perKey are names with the envelope
	// of another: they are there to be counted and written, not to be opened.
	total = 1_000_000
	// others are buckets with a key each, so that there are 1,000 keys.
	others = 1000 - epochs
	// within is the bound of the issue, for rotating and rewrapping under load.
	within = 5 * time.Second
	// own begins the keys that the load itself writes.
	own = "load/"
)

// store counts the writes of clients' objects. All objects of these tests are empty: an
// envelope in the metadata is all there is of them. Capabilities of the memory store,
// as copying, are hidden, so that there is no way to write that is not counted.
type store struct {
	backends.Store
	written, ofLoad, reserved atomic.Int64
}

func (s *store) count(key string) {
	switch {
	case objects.Reserved(key):
		s.reserved.Add(1)
	case strings.HasPrefix(key, own):
		s.ofLoad.Add(1)
	default:
		s.written.Add(1)
	}
}

// Put implements backends.Store.
func (s *store) Put(ctx context.Context, id backends.ObjectID, body backends.Body, opts *backends.PutOptions) (backends.Written, error) {
	s.count(id.Key)
	return s.Store.Put(ctx, id, body, opts)
}

// Delete implements backends.Store.
func (s *store) Delete(ctx context.Context, id backends.ObjectID, opts *backends.DeleteOptions) (backends.Deleted, error) {
	s.count(id.Key)
	return s.Store.Delete(ctx, id, opts)
}

// world is a KMS on SoftHSM and an etcd that writes to the disk, and a gateway less its
// HTTP, which speaks with it over a socket.
type world struct {
	kms     *kms.Manager
	address string
	client  *keys.Client
	gateway *objects.Service
	store   *store
	bucket  keys.Bucket
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{store: &store{Store: memstore.New()}}
	w.startKMS(t)
	w.client, w.gateway = w.newGateway(t)
	if err := w.gateway.CreateBucket(t.Context(), "ann", "ledger"); err != nil {
		t.Fatal(err)
	}
	var err error
	if w.bucket, err = w.gateway.Bucket(t.Context(), "ledger"); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) startKMS(t *testing.T) {
	t.Helper()
	state, err := registry.Embed(t.Context(), registry.EmbedConfig{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = state.Close() })
	provider, err := pkcs11.New(t.Context(), pkcs11.Config{HSM: hsmtest.Token(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = provider.Close() })
	w.kms, err = kms.NewManager(t.Context(), kms.Config{Registry: state, Providers: map[string]kms.Provider{"hsm": provider}})
	if err == nil {
		_, err = w.kms.EnsureKEK(t.Context(), "main")
	}
	if err != nil {
		t.Fatal(err)
	}
	api, err := service.New(service.Config{Manager: w.kms})
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "scale") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	w.address = "unix://" + filepath.Join(dir, "kms.sock")
	listener, err := service.Listen(service.ListenConfig{Address: w.address})
	if err != nil {
		t.Fatal(err)
	}
	background(t, func(ctx context.Context) { w.kms.Run(ctx) })
	background(t, func(ctx context.Context) { _ = api.Run(ctx) })
	background(t, func(ctx context.Context) { _ = service.Serve(ctx, listener, api, zap.NewNop()) })
}

// newGateway is one that has cached nothing yet.
func (w *world) newGateway(t *testing.T) (*keys.Client, *objects.Service) {
	t.Helper()
	client, err := keys.New(keys.Config{Address: w.address, GatewayID: "gw"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	background(t, func(ctx context.Context) { _ = client.Run(ctx) })
	gateway, err := objects.New(objects.Config{
		Keys: client, Stores: map[string]backends.Store{"main": w.store}, DefaultStore: "main", Logger: zap.NewNop(),
	})
	if err != nil {
		t.Fatal(err)
	}
	return client, gateway
}

// background runs f until the test ends.
func background(t *testing.T, f func(context.Context)) {
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); f(ctx) }()
	t.Cleanup(func() { stop(); <-done })
}

func name(key, i int) string { return fmt.Sprintf("%02d/%05d", key, i) }

// fill makes the bucket's keys, and under each its objects; and all other buckets.
func (w *world) fill(t *testing.T) {
	t.Helper()
	var making sync.WaitGroup
	defer making.Wait()
	for worker := range 8 {
		making.Go(func() { w.makeOthers(t, worker, 8) })
	}
	making.Go(func() { w.copyNames(t) })
	last := w.current(t)
	for key := range epochs {
		if key > 0 {
			last = w.nextKey(t, last)
		}
		var group sync.WaitGroup
		for half := range 2 {
			group.Go(func() {
				for i := half; i < perKey; i += 2 {
					if err := w.put(t.Context(), name(key, i)); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		group.Wait()
		if t.Failed() {
			t.FailNow()
		}
	}
}

// copyNames puts the objects that nobody opens into the store, behind the gateway.
func (w *world) copyNames(t *testing.T) {
	if err := w.put(t.Context(), "copy"); err != nil {
		t.Error(err)
		return
	}
	like, err := w.store.Head(t.Context(), backends.ObjectID{Bucket: w.bucket.StoreName, Key: "copy"}, nil)
	if err != nil {
		t.Error(err)
		return
	}
	opts := &backends.PutOptions{Attributes: like.Attributes}
	for i := range total - epochs*perKey - 1 {
		id := backends.ObjectID{Bucket: w.bucket.StoreName, Key: fmt.Sprintf("copy/%07d", i)}
		if _, err := w.store.Put(t.Context(), id, backends.Body{Reader: bytes.NewReader(nil)}, opts); err != nil {
			t.Error(err)
			return
		}
	}
}

// makeOthers makes each so many-th of the other buckets, with its key and the copy of it.
func (w *world) makeOthers(t *testing.T, first, step int) {
	for i := first; i < others; i += step {
		if err := w.gateway.CreateBucket(t.Context(), "ann", fmt.Sprintf("other-%03d", i)); err != nil {
			t.Error(err)
			return
		}
	}
}

func (w *world) current(t *testing.T) [16]byte {
	t.Helper()
	key, err := w.client.Current(t.Context(), w.bucket)
	if err != nil {
		t.Fatal(err)
	}
	return key.ID
}

// nextKey begins an epoch and waits until the gateway seals under its key.
func (w *world) nextKey(t *testing.T, last [16]byte) [16]byte {
	t.Helper()
	if _, err := w.kms.RotateBucket(t.Context(), w.bucket.Name, kms.Change{}); err != nil {
		t.Fatal(err)
	}
	for began := time.Now(); time.Since(began) < 10*time.Second; time.Sleep(time.Millisecond / 2) {
		if now := w.current(t); now != last {
			return now
		}
	}
	t.Fatal("the gateway does not hear of the new epoch")
	return last
}

func (w *world) put(ctx context.Context, key string) error {
	_, err := w.gateway.Put(ctx, objects.PutRequest{Bucket: w.bucket, Key: key, Body: bytes.NewReader(nil)})
	return err
}

func (w *world) get(ctx context.Context, gateway *objects.Service, key string) error {
	r, err := gateway.Get(ctx, objects.GetRequest{Bucket: w.bucket, Key: key})
	if err != nil {
		return err
	}
	_, err = r.WriteTo(io.Discard)
	return errors.Join(err, r.Close())
}

func (w *world) head(ctx context.Context, key string) error {
	_, _, err := w.gateway.Head(ctx, objects.GetRequest{Bucket: w.bucket, Key: key})
	return err
}

// load are requests that go on until it is stopped.
type load struct {
	asked, failed atomic.Int64
	group         sync.WaitGroup
	stop          func()
}

// startLoad has readers and writers make a request each millisecond and a half or so.
func (w *world) startLoad(t *testing.T) *load {
	running, stop := context.WithCancel(t.Context())
	l := &load{stop: stop}
	anyone := func() string {
		return name(rand.IntN(epochs), rand.IntN(perKey))
	}
	requests := []func() error{
		func() error { return w.get(t.Context(), w.gateway, anyone()) },
		func() error { return w.head(t.Context(), anyone()) },
		func() error { return w.put(t.Context(), own+anyone()) },
	}
	for _, request := range append(requests, requests...) {
		l.group.Go(func() {
			for running.Err() == nil {
				l.asked.Add(1)
				if err := request(); err != nil && l.failed.Add(1) < 10 {
					t.Log(err)
				}
				time.Sleep(time.Millisecond)
			}
		})
	}
	return l
}

func (l *load) end() { l.stop(); l.group.Wait() }

// rewrap rotates the KEK and moves all bucket keys to its new version.
func (w *world) rewrap(t *testing.T) (kms.Job, time.Duration) {
	t.Helper()
	began := time.Now()
	if _, err := w.kms.RotateKEK(t.Context(), "main", kms.Change{}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.kms.StartRewrap(t.Context(), "main", 0, kms.Change{}); err != nil {
		t.Fatal(err)
	}
	for {
		job, err := w.kms.RewrapJob(t.Context(), "main")
		if err != nil {
			t.Fatal(err)
		}
		if job.State != kms.JobRunning {
			return job, time.Since(began)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// awaitMirrors waits until gateways have put the new records beside the objects, and
// nothing needs the old version any more.
func (w *world) awaitMirrors(t *testing.T) time.Duration {
	t.Helper()
	began := time.Now()
	for time.Since(began) < time.Minute {
		report, _, err := w.kms.Report(t.Context(), "main")
		if err != nil {
			t.Fatal(err)
		}
		if report.Needed() == 0 {
			return time.Since(began)
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Fatal("the old version is needed after a minute")
	return 0
}

// TestAKEKIsRotatedAndRewrappedUnderAMillionObjects has 1,000 bucket keys for them. No
// object is written, no request of the load fails, and it takes less than 5 s.
func TestAKEKIsRotatedAndRewrappedUnderAMillionObjects(t *testing.T) {
	if testing.Short() {
		t.Skip("needs a token and some ten seconds")
	}
	w := newWorld(t)
	began := time.Now()
	w.fill(t)
	t.Logf("%d objects under %d bucket keys, and %d other buckets with a key each, were made in %v", w.store.written.Load(), epochs, others, time.Since(began).Round(time.Millisecond))
	if got := w.store.written.Load(); got != total {
		t.Fatalf("%d objects were written to fill the bucket, want %d", got, total)
	}
	w.store.written.Store(0)
	w.store.reserved.Store(0)

	l := w.startLoad(t)
	job, took := w.rewrap(t)
	background(t, func(ctx context.Context) { _ = w.gateway.Run(ctx) })
	mirrors := w.awaitMirrors(t)
	l.end()

	t.Logf("rotated, and %d bucket keys rewrapped, in %v; their records written beside the objects in %v more (%d writes)",
		job.Done, took.Round(time.Millisecond), mirrors.Round(time.Millisecond), w.store.reserved.Load())
	t.Logf("load: %d requests, %d of them writes, %d failed; objects written by the rotation: %d",
		l.asked.Load(), w.store.ofLoad.Load(), l.failed.Load(), w.store.written.Load())
	if job.State != kms.JobDone || job.Done < epochs+others || took > within {
		t.Errorf("got %+v in %v, want %d bucket keys under %v", job, took, epochs+others, within)
	}
	if n := w.store.written.Load(); n != 0 {
		t.Errorf("%d objects were written, want 0", n)
	}
	if l.failed.Load() != 0 || l.asked.Load() < 1000 {
		t.Errorf("%d of %d requests failed, want 0 of 1000 or more", l.failed.Load(), l.asked.Load())
	}
	w.readsAll(t)
}

// readsAll reads an object under each of the bucket's keys through a gateway that has cached none:
// each is unwrapped by the new version.
func (w *world) readsAll(t *testing.T) {
	t.Helper()
	_, fresh := w.newGateway(t)
	for key := range epochs {
		if err := w.get(t.Context(), fresh, name(key, rand.IntN(perKey))); err != nil {
			t.Fatal(err)
		}
	}
}
