package moving

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"chatelaine/backends"
	"chatelaine/backends/azurestore"
	"chatelaine/backends/filestore"
	"chatelaine/backends/memstore"
	"chatelaine/backends/s3store"
	"chatelaine/gateway/keys"
	"chatelaine/gateway/keys/keystest"
	"chatelaine/gateway/objects"
	"chatelaine/test/servers"
)

// world is a gateway on several stores, with a bucket on the first.
type world struct {
	*objects.Service
	t      *testing.T
	ring   *keystest.Ring
	stores map[string]backends.Store
	bucket keys.Bucket
	data   map[string][]byte
}

func newWorld(t *testing.T, stores map[string]backends.Store, first string) *world {
	t.Helper()
	w := &world{t: t, ring: keystest.New(), stores: stores, data: map[string][]byte{}}
	var err error
	w.Service, err = objects.New(objects.Config{Keys: w.ring, Stores: stores, DefaultStore: first, Logger: zap.NewNop()})
	if err == nil {
		err = w.CreateBucket(t.Context(), "ann", "bucket")
	}
	if err == nil {
		w.bucket, err = w.Bucket(t.Context(), "bucket")
	}
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) put(key string, data []byte, tags backends.Tags) {
	w.t.Helper()
	r := objects.PutRequest{Bucket: w.bucket, Key: key, Body: bytes.NewReader(data), Size: int64(len(data)), StoreAttributes: objects.StoreAttributes{Tags: tags}}
	r.Metadata = map[string]string{"name": key}
	if _, err := w.Put(w.t.Context(), r); err != nil {
		w.t.Fatal(err)
	}
	w.data[key] = data
}

// upload puts an object together from two parts.
func (w *world) upload(key string, data []byte) {
	w.t.Helper()
	u, err := w.CreateUpload(w.t.Context(), objects.CreateUploadRequest{Bucket: w.bucket, Key: key, Attributes: objects.Attributes{Metadata: map[string]string{"name": key}}})
	if err != nil {
		w.t.Fatal(err)
	}
	var parts []objects.CompletePart
	for i, piece := range [][]byte{data[:5<<20], data[5<<20:]} {
		p, err := w.PutPart(w.t.Context(), objects.PutPartRequest{UploadRef: u, Number: i + 1, Body: bytes.NewReader(piece), Size: int64(len(piece))})
		if err != nil {
			w.t.Fatal(err)
		}
		parts = append(parts, objects.CompletePart{Number: i + 1, ETag: p.ETag})
	}
	if _, err := w.Complete(w.t.Context(), objects.CompleteRequest{UploadRef: u, Parts: parts, Size: -1}); err != nil {
		w.t.Fatal(err)
	}
	w.data[key] = data
}

func (w *world) fill(n int) {
	w.t.Helper()
	for i := range n {
		w.put(fmt.Sprintf("k/%04d", i), bytes.Repeat([]byte{byte(i)}, i*97%3000), nil)
	}
}

func (w *world) place(store, bucket string) Place {
	return Place{Store: w.stores[store], Bucket: bucket, Name: store + "/" + bucket}
}

func (w *world) config(to, bucket string) Config {
	return Config{From: w.place(w.bucket.Store, w.bucket.StoreName), To: w.place(to, bucket), Space: fmt.Sprintf("%x", w.bucket.Space)}
}

func (w *world) copy(to, bucket string) Report {
	w.t.Helper()
	r, err := Copy(w.t.Context(), w.config(to, bucket))
	if err != nil || !r.Clean() {
		w.t.Fatalf("got %+v, %v", r, err)
	}
	return r
}

// opens makes the gateway look in another place, and reads all there.
func (w *world) opens(store, bucket string) {
	w.t.Helper()
	w.bucket = w.ring.Move("bucket", store, bucket)
	list, err := w.List(w.t.Context(), objects.ListRequest{Bucket: w.bucket})
	if err != nil || len(list.Entries) != len(w.data) {
		w.t.Fatalf("listing %s: got %d rows and %v, want %d", store, len(list.Entries), err, len(w.data))
	}
	for key, want := range w.data {
		reader, err := w.Get(w.t.Context(), objects.GetRequest{Bucket: w.bucket, Key: key})
		if err != nil {
			w.t.Fatal(err)
		}
		var got bytes.Buffer
		_, err = reader.WriteTo(&got)
		if err := errors.Join(err, reader.Close()); err != nil || !bytes.Equal(got.Bytes(), want) || reader.Stat.Metadata["name"] != key {
			w.t.Errorf("%q on %s: got %d bytes, %v and %v", key, store, got.Len(), reader.Stat.Metadata, err)
		}
	}
}

func twoMemories(t *testing.T) *world {
	t.Helper()
	return newWorld(t, map[string]backends.Store{"a": memstore.New(), "b": memstore.New()}, "a")
}

func TestACopiedBucketOpensOnEveryOtherBackend(t *testing.T) {
	if testing.Short() {
		t.Skip("needs MinIO and Azurite")
	}
	files, err := filestore.New(filestore.Config{Root: t.TempDir(), Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, map[string]backends.Store{"files": files, "minio": onMinIO(t), "azurite": onAzurite(t)}, "files")
	w.put("empty", nil, nil)
	w.put("a b/ü+%2F.txt", []byte("odd name"), nil)
	w.put("large", bytes.Repeat([]byte("0123456789abcdef"), 1<<16), nil)
	w.upload("parts", bytes.Repeat([]byte("fedcba9876543210"), 6<<16))
	w.fill(20)
	for i, to := range []string{"minio", "azurite", "minio", "files"} {
		bucket := fmt.Sprintf("copy-%d", i)
		if r := w.copy(to, bucket); r.Copied != uint64(len(w.data)) || r.Records != 1 {
			t.Errorf("to %s: got %+v for %d objects", to, r, len(w.data))
		}
		w.opens(to, bucket)
	}
}

func onMinIO(t *testing.T) backends.Store {
	t.Helper()
	server := servers.MinIO(t)
	c, err := s3store.ParseURL("s3+http://" + strings.TrimPrefix(server.Endpoint, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	c.AccessKeyID, c.SecretAccessKey, c.Logger = server.AccessKeyID, s3store.NewSecret(server.SecretAccessKey), zap.NewNop()
	s, err := s3store.New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func onAzurite(t *testing.T) backends.Store {
	t.Helper()
	server := servers.Azurite(t)
	_, address, _ := strings.Cut(server.Endpoint, "://")
	c, err := azurestore.ParseURL("azure+http://" + address + "?checksum=none")
	if err != nil {
		t.Fatal(err)
	}
	c.Account, c.Secret = server.Account, azurestore.NewSecret(server.Key)
	s, err := azurestore.New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func TestASecondCopyDoesWhatHasChanged(t *testing.T) {
	w := twoMemories(t)
	w.fill(600)
	if r := w.copy("b", "there"); r.Copied != 600 || r.Already+r.Verified+r.Deleted != 0 {
		t.Errorf("the first run: %+v", r)
	}
	w.put("k/0003", []byte("now of another size"), nil)
	w.put("k/0004", bytes.Repeat([]byte{9}, len(w.data["k/0004"])), nil) // of the same
	w.put("new", []byte("new"), nil)
	if _, err := w.Delete(t.Context(), objects.DeleteRequest{Bucket: w.bucket, Key: "k/0005"}); err != nil {
		t.Fatal(err)
	}
	delete(w.data, "k/0005")
	if r := w.copy("b", "there"); r.Copied != 3 || r.Already != 597 || r.Deleted != 1 || r.Verified != 0 {
		t.Errorf("the second run: %+v", r)
	}
	w.opens("b", "there")
}

// failing ends a run after some writes; the last of them is done.
type failing struct {
	backends.Store
	left int
	stop func()
}

func (f *failing) Put(ctx context.Context, id backends.ObjectID, body backends.Body, opts *backends.PutOptions) (backends.Written, error) {
	f.left--
	written, err := f.Store.Put(ctx, id, body, opts)
	if f.left == 0 {
		f.stop()
		err = ctx.Err()
	}
	return written, err
}

func TestAnInterruptedCopyGoesOn(t *testing.T) {
	w := twoMemories(t)
	w.fill(1000)
	var copied uint64
	for stops := 0; ; stops++ {
		ctx, cancel := context.WithCancel(t.Context())
		c := w.config("b", "there")
		c.Workers = 1
		c.To.Store = &failing{Store: w.stores["b"], left: 150, stop: cancel}
		r, err := Copy(ctx, c)
		cancel()
		copied += r.Copied
		if err == nil {
			if stops < 5 || copied < 900 || r.Copied+r.Already+r.Verified != 1000 {
				t.Errorf("stopped %d times, %d copied, at last %+v", stops, copied, r)
			}
			break
		}
		if stops > 20 {
			t.Fatal(err)
		}
	}
	w.opens("b", "there")
}

// corrupting stores other bytes than it was given, once.
type corrupting struct {
	backends.Store
	key string
}

func (c *corrupting) Put(ctx context.Context, id backends.ObjectID, body backends.Body, opts *backends.PutOptions) (backends.Written, error) {
	if id.Key == c.key {
		body.Reader = &flipping{body: body}
		c.key = ""
	}
	return c.Store.Put(ctx, id, body, opts)
}

type flipping struct {
	body backends.Body
	done bool
}

func (f *flipping) Read(p []byte) (int, error) {
	n, err := f.body.Reader.Read(p)
	if n > 0 && !f.done {
		p[n-1] ^= 1
		f.done = true
	}
	return n, err
}

// What was written below the mark by a run that was killed is read back by the next.
func TestAKilledRunLeavesNothingUnverified(t *testing.T) {
	w := twoMemories(t)
	w.fill(600)
	w.copy("b", "there")
	w.put("k/0300", []byte("new"), nil)
	ctx, cancel := context.WithCancel(t.Context())
	c := w.config("b", "there")
	c.Workers = 1
	c.To.Store = &failing{Store: &corrupting{Store: w.stores["b"], key: "k/0300"}, left: 3, stop: cancel}
	if _, err := Copy(ctx, c); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v, want it to be ended", err)
	}
	if r := w.copy("b", "there"); r.Copied != 1 {
		t.Errorf("got %+v, want what was damaged to be copied again", r)
	}
	w.opens("b", "there")
}

func TestWhatTheDestinationChangesIsFoundAndCopiedAgain(t *testing.T) {
	w := twoMemories(t)
	w.fill(10)
	c := w.config("b", "there")
	c.Workers = 1 // corrupting is for one
	c.To.Store = &corrupting{Store: w.stores["b"], key: "k/0007"}
	r, err := Copy(t.Context(), c)
	if err != nil || r.Problems != 1 || r.First[0].Key != "k/0007" || !strings.Contains(r.First[0].Text, "read back") {
		t.Fatalf("got %+v, %v", r, err)
	}
	if r := w.copy("b", "there"); r.Copied != 1 || r.Verified != 9 {
		t.Errorf("the second run: %+v", r)
	}
	w.opens("b", "there")
}

func TestACopyTakesNoDestinationOfSomethingElse(t *testing.T) {
	w := twoMemories(t)
	w.fill(3)
	store := w.stores["b"]
	if err := store.CreateBucket(t.Context(), "taken"); err != nil {
		t.Fatal(err)
	}
	body := backends.Body{Reader: strings.NewReader("x"), Size: 1}
	if _, err := store.Put(t.Context(), backends.ObjectID{Bucket: "taken", Key: "theirs"}, body, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := Copy(t.Context(), w.config("b", "taken")); !errors.Is(err, ErrOccupied) {
		t.Errorf("a destination that is not empty: got %v", err)
	}
	w.copy("b", "there")
	c := w.config("b", "there")
	c.Space = "another"
	if _, err := Copy(t.Context(), c); !errors.Is(err, ErrOccupied) {
		t.Errorf("the copy of another bucket: got %v", err)
	}
	if _, err := Copy(t.Context(), w.config("a", w.bucket.StoreName)); !errors.Is(err, ErrSame) {
		t.Errorf("onto itself: got %v", err)
	}
}

// bare hides what a store can do beyond the contract.
type bare struct{ backends.Store }

func TestWhatCannotBeCopiedIsSaidAndNeverDropped(t *testing.T) {
	w := newWorld(t, map[string]backends.Store{"a": memstore.New(), "b": bare{memstore.New()}}, "a")
	w.put("fine", []byte("1"), nil)
	w.put("tagged", []byte("2"), backends.Tags{"t": "1"})
	body := backends.Body{Reader: strings.NewReader("plain"), Size: 5}
	if _, err := w.stores["a"].Put(t.Context(), backends.ObjectID{Bucket: w.bucket.StoreName, Key: "plain"}, body, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := w.CreateUpload(t.Context(), objects.CreateUploadRequest{Bucket: w.bucket, Key: "unfinished"}); err != nil {
		t.Fatal(err)
	}
	r, err := Copy(t.Context(), w.config("b", "there"))
	if err != nil || r.Copied != 1 || r.Problems != 2 || r.Uploads != 1 || r.Clean() {
		t.Fatalf("got %+v, %v", r, err)
	}
	c := w.config("b", "there")
	c.WithoutTags = true
	if r, err = Copy(t.Context(), c); err != nil || r.Copied != 1 || r.Problems != 1 || r.First[0].Key != "plain" {
		t.Errorf("without tags: got %+v, %v", r, err)
	}
	page, err := w.stores["b"].List(t.Context(), "there", &backends.ListOptions{Prefix: uploadsPrefix})
	if err != nil || len(page.Entries) != 0 {
		t.Errorf("what belongs to an upload was copied: %v, %v", page, err)
	}
}

func TestLocksAndTagsAreCarriedOver(t *testing.T) {
	w := twoMemories(t)
	locker := w.stores["b"].(backends.Locker)
	for _, store := range []string{"a", "b"} {
		if err := w.stores[store].(backends.Locker).CreateLockedBucket(t.Context(), "locked"); err != nil {
			t.Fatal(err)
		}
	}
	w.bucket = w.ring.Move("bucket", "a", "locked")
	until := time.Now().Add(time.Hour).UTC().Truncate(time.Second)
	r := objects.PutRequest{Bucket: w.bucket, Key: "o", Body: strings.NewReader("1"), Size: 1}
	r.Lock, r.Tags = backends.Lock{Mode: backends.Compliance, Until: until}, backends.Tags{"t": "1"}
	for range 2 { // the first becomes an older version
		r.Body = strings.NewReader("1")
		if _, err := w.Put(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	if r := w.copy("b", "locked"); r.OldVersions != 1 || r.Copied != 1 {
		t.Errorf("got %+v", r)
	}
	id := backends.ObjectID{Bucket: "locked", Key: "o"}
	if lock, err := locker.Lock(t.Context(), id); err != nil || lock.Mode != backends.Compliance || !lock.Until.Equal(until) {
		t.Errorf("lock: got %+v, %v", lock, err)
	}
	if tags, _, err := w.stores["b"].(backends.Tagger).Tags(t.Context(), id); err != nil || tags["t"] != "1" {
		t.Errorf("tags: got %v, %v", tags, err)
	}
}
