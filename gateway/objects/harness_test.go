package objects

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"sync"
	"testing"

	"go.uber.org/zap"

	"chatelaine/backends"
	"chatelaine/backends/memstore"
	"chatelaine/gateway/keys"
	"chatelaine/gateway/keys/keystest"
)

// counting counts the requests that reach a store.
type counting struct {
	*memstore.Store
	mu    sync.Mutex
	calls map[string]int
}

func (c *counting) count(op string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls[op]++
}

func (c *counting) reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls = map[string]int{}
}

func (c *counting) total() (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, k := range c.calls {
		n += k
	}
	return n
}

func (c *counting) Put(ctx context.Context, id backends.ObjectID, body backends.Body, opts *backends.PutOptions) (backends.Written, error) {
	c.count("put")
	return c.Store.Put(ctx, id, body, opts)
}

func (c *counting) Get(ctx context.Context, id backends.ObjectID, opts *backends.GetOptions) (*backends.Object, error) {
	c.count("get")
	return c.Store.Get(ctx, id, opts)
}

func (c *counting) Head(ctx context.Context, id backends.ObjectID, opts *backends.GetOptions) (backends.Info, error) {
	c.count("head")
	return c.Store.Head(ctx, id, opts)
}

func (c *counting) List(ctx context.Context, bucket string, opts *backends.ListOptions) (*backends.Page, error) {
	c.count("list")
	return c.Store.List(ctx, bucket, opts)
}

// world is a Service on a memory store with one bucket.
type world struct {
	*Service
	t      *testing.T
	ring   *keystest.Ring
	store  *counting
	bucket keys.Bucket
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, ring: keystest.New(), store: &counting{Store: memstore.New(), calls: map[string]int{}}}
	w.Service = w.replica()
	if err := w.CreateBucket(t.Context(), "ann", "bucket"); err != nil {
		t.Fatal(err)
	}
	b, err := w.Bucket(t.Context(), "bucket")
	if err != nil {
		t.Fatal(err)
	}
	w.bucket = b
	w.store.reset()
	return w
}

// replica is another gateway on the same store and keys.
func (w *world) replica() *Service {
	w.t.Helper()
	return w.replicaOn(w.store)
}

func (w *world) replicaOn(store backends.Store) *Service {
	w.t.Helper()
	s, err := New(Config{
		Keys: w.ring, Stores: map[string]backends.Store{"main": store}, DefaultStore: "main",
		Prefix: "there-", MD5Buckets: []string{"md5-*"}, Logger: zap.NewNop(),
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

func noise(n int64) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{byte(n), byte(n >> 8), byte(n >> 16), 1}).Read(b)
	return b
}

func (w *world) put(key string, data []byte) PutResult {
	w.t.Helper()
	r, err := w.Put(w.t.Context(), PutRequest{Bucket: w.bucket, Key: key, Body: bytes.NewReader(data), Size: int64(len(data))})
	if err != nil {
		w.t.Fatalf("putting %q: %v", key, err)
	}
	return r
}

func (w *world) get(r GetRequest) (Stat, []byte, error) {
	w.t.Helper()
	r.Bucket = w.bucket
	reader, err := w.Get(w.t.Context(), r)
	if err != nil {
		return Stat{}, nil, err
	}
	defer func() {
		if err := reader.Close(); err != nil {
			w.t.Errorf("closing %q: %v", r.Key, err)
		}
	}()
	var out bytes.Buffer
	n, err := reader.WriteTo(&out)
	if err == nil && n != reader.Span.Length {
		w.t.Errorf("reading %q: got %d bytes, want %d", r.Key, n, reader.Span.Length)
	}
	return reader.Stat, out.Bytes(), err
}

func (w *world) mustGet(r GetRequest) []byte {
	w.t.Helper()
	_, data, err := w.get(r)
	if err != nil {
		w.t.Fatalf("getting %q: %v", r.Key, err)
	}
	return data
}

// upload puts an object together from parts, by number, and returns the result.
func (w *world) upload(key string, numbers []int, parts [][]byte) PutResult {
	w.t.Helper()
	u, listed := w.uploadParts(key, numbers, parts)
	r, err := w.Complete(w.t.Context(), CompleteRequest{UploadRef: u, Parts: listed, Size: -1})
	if err != nil {
		w.t.Fatalf("completing %q: %v", key, err)
	}
	return r
}

func (w *world) uploadParts(key string, numbers []int, parts [][]byte) (UploadRef, []CompletePart) {
	w.t.Helper()
	u, err := w.CreateUpload(w.t.Context(), CreateUploadRequest{Bucket: w.bucket, Key: key})
	if err != nil {
		w.t.Fatal(err)
	}
	var listed []CompletePart
	for i, data := range parts {
		p := w.putPart(u, numbers[i], data)
		listed = append(listed, CompletePart{Number: numbers[i], ETag: p.ETag})
	}
	return u, listed
}

func (w *world) putPart(u UploadRef, number int, data []byte) PartResult {
	w.t.Helper()
	p, err := w.PutPart(w.t.Context(), PutPartRequest{UploadRef: u, Number: number, Body: bytes.NewReader(data), Size: int64(len(data))})
	if err != nil {
		w.t.Fatalf("putting part %d: %v", number, err)
	}
	return p
}

// putSummedPart puts a part that states its checksum.
func (w *world) putSummedPart(u UploadRef, number int, data []byte, a Algorithm) PartResult {
	w.t.Helper()
	p, err := w.PutPart(w.t.Context(), summedPart(u, number, data, a))
	if err != nil {
		w.t.Fatalf("putting part %d with %s: %v", number, a, err)
	}
	return p
}

func summedPart(u UploadRef, number int, data []byte, a Algorithm) PutPartRequest {
	r := PutPartRequest{UploadRef: u, Number: number, Body: bytes.NewReader(data), Size: int64(len(data)), Algorithm: a}
	if a != "" {
		r.Value = func() []byte { return sumOf(a, data) }
	}
	return r
}

func sumOf(a Algorithm, b []byte) []byte {
	h := a.NewHash()
	h.Write(b)
	return h.Sum(nil)
}

// failing yields some bytes and then an error instead of io.EOF.
type failing struct {
	src io.Reader
	err error
}

func (f *failing) Read(p []byte) (int, error) {
	n, err := f.src.Read(p)
	if errors.Is(err, io.EOF) {
		err = f.err
	}
	return n, err
}
