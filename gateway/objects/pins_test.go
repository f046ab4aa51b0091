package objects

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"sync"
	"testing"

	"chatelaine/backends"
	"chatelaine/backends/memstore"
)

// asked is a store that notes which ETag each request for bytes, and each change, demands.
type asked struct {
	*counting
	maxCopy int64
	mu      sync.Mutex
	pins    []string // operation, key, version and ETags
}

func (a *asked) note(op string, id backends.ObjectID, etags ...string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !strings.HasPrefix(id.Key, MirrorPrefix) && id.Key != probeKey {
		a.pins = append(a.pins, op+" "+id.Key+"@"+id.Version+" "+strings.Join(etags, ","))
	}
}

func (a *asked) MaxCopy() int64 { return a.maxCopy }

func (a *asked) Get(ctx context.Context, id backends.ObjectID, opts *backends.GetOptions) (*backends.Object, error) {
	if opts == nil {
		opts = &backends.GetOptions{}
	}
	a.note("get", id, opts.Conditions.IfMatch...)
	return a.counting.Get(ctx, id, opts)
}

func (a *asked) Put(ctx context.Context, id backends.ObjectID, body backends.Body, opts *backends.PutOptions) (backends.Written, error) {
	a.note("put", id, opts.Conditions.IfMatch...)
	return a.counting.Put(ctx, id, body, opts)
}

func (a *asked) Delete(ctx context.Context, id backends.ObjectID, opts *backends.DeleteOptions) (backends.Deleted, error) {
	if opts == nil {
		opts = &backends.DeleteOptions{}
	}
	a.note("delete", id, opts.Conditions.IfMatch...)
	return a.counting.Delete(ctx, id, opts)
}

func (a *asked) Copy(ctx context.Context, src, dst backends.ObjectID, opts *backends.CopyOptions) (backends.Written, error) {
	a.note("copy", src, opts.SourceIfMatch)
	return a.counting.Copy(ctx, src, dst, opts)
}

func (a *asked) CopyPart(ctx context.Context, id backends.UploadID, number int, src backends.ObjectID, r *backends.Range, etag string) (backends.Part, error) {
	a.note("piece", src, etag)
	return a.counting.CopyPart(ctx, id, number, src, r, etag)
}

func (a *asked) Complete(ctx context.Context, id backends.UploadID, parts []backends.Part, cond backends.Conditions) (backends.Written, error) {
	a.note("complete", backends.ObjectID{Key: id.Key}, cond.IfMatch...)
	return a.counting.Complete(ctx, id, parts, cond)
}

// asked puts the store before another gateway of the world's.
func (w *world) asked() *asked {
	w.t.Helper()
	a := &asked{counting: w.store, maxCopy: w.store.MaxCopy()}
	limits := w.limits
	w.Service = w.replica()
	w.stores, w.limits = map[string]backends.Store{"main": a, "far": memstore.New()}, limits
	return a
}

// etagOf is the backend's ETag of an object.
func (w *world) etagOf(key string) string {
	w.t.Helper()
	info, err := w.store.Store.Head(w.t.Context(), idOf(w.bucket, key, ""), nil)
	if err != nil {
		w.t.Fatal(err)
	}
	return info.ETag
}

func (w *world) wantPins(name string, a *asked, want ...string) {
	w.t.Helper()
	if !slices.Equal(a.pins, want) {
		w.t.Errorf("%s: got the requests %q, want %q", name, a.pins, want)
	}
	a.pins = nil
}

// TestRequestsThatGoTogetherArePinnedToOneObject: what follows the first look at an object
// demands its ETag, so that no answer is put together from two objects.
func TestRequestsThatGoTogetherArePinnedToOneObject(t *testing.T) {
	w := newWorld(t)
	w.upload("multi", []int{1, 2}, [][]byte{noise(5 * mib), noise(9)})
	w.put("single", noise(100))
	a, multi, single := w.asked(), w.etagOf("multi"), w.etagOf("single")
	w.mustGet(GetRequest{Key: "multi", Range: &ByteRange{First: 3, Last: 5}})
	w.wantPins("a range of parts", a, "get multi@ ", "get multi@ "+multi, "get multi@ "+multi)

	from := GetRequest{Bucket: w.bucket, Key: "single"}
	w.mustCopy(CopyRequest{Source: from, Bucket: w.bucket, Key: "copy"})
	w.wantPins("a copy", a, "copy single@ "+single)
	w.Service.store = "far"
	far := w.otherBucket("far-bucket")
	w.mustCopy(CopyRequest{Source: from, Bucket: far, Key: "copy"})
	w.wantPins("a copy to another backend", a, "get single@ "+single)

	size := int64(100)
	if _, err := w.Delete(t.Context(), DeleteRequest{Bucket: w.bucket, Key: "single", IfSize: &size}); err != nil {
		t.Fatal(err)
	}
	w.wantPins("deleting what has a size", a, "delete single@ "+single)
}

func TestACopyInPiecesIsPinnedToOneVersion(t *testing.T) {
	w := newWorld(t)
	if err := w.SetVersioning(t.Context(), w.bucket, backends.VersioningEnabled); err != nil {
		t.Fatal(err)
	}
	data := noise(11 * mib)
	version := w.put("key", data).Version
	a, etag := w.asked(), w.etagOf("key")
	a.maxCopy = 6 * mib
	w.mustCopy(CopyRequest{Source: GetRequest{Bucket: w.bucket, Key: "key"}, Bucket: w.bucket, Key: "copy"})
	piece := "piece key@" + version + " " + etag
	w.wantPins("a copy in pieces", a, piece, piece, "complete copy@ ")
	if got := w.mustGet(GetRequest{Key: "copy"}); version == "" || !bytes.Equal(got, data) {
		t.Errorf("version %q: got %d other bytes", version, len(got))
	}
}

func TestAStagedPartIsPinnedToWhatItsTokenSays(t *testing.T) {
	w := newWorld(t)
	u, listed := w.uploadParts("key", []int{1}, [][]byte{noise(9)})
	a, etag := w.asked(), w.etagOf(u.stagedName(1))
	if _, err := w.Complete(t.Context(), CompleteRequest{UploadRef: u, Parts: listed, Size: -1}); err != nil {
		t.Fatal(err)
	}
	if want := "get " + u.stagedName(1) + "@ " + etag; !slices.Contains(a.pins, want) {
		t.Errorf("got the requests %q, want %q among them", a.pins, want)
	}
}

func TestAnMD5BucketsRequestsArePinned(t *testing.T) {
	w := newMD5World(t)
	shown := w.put("key", noise(holdLimit+1)).ETag
	a, etag := w.asked(), w.etagOf("key")
	if _, err := w.List(t.Context(), ListRequest{Bucket: w.bucket}); err != nil {
		t.Fatal(err)
	}
	w.wantPins("a list", a, "get key@ "+etag)
	_, err := w.Put(t.Context(), PutRequest{Bucket: w.bucket, Key: "key", Body: strings.NewReader("x"), Size: 1, IfMatch: []string{shown}})
	if err != nil {
		t.Fatal(err)
	}
	w.wantPins("what is replaced", a, "put key@ "+etag)
}

func TestAdoptionsAndReadsOfPlaintextArePinned(t *testing.T) {
	w := adopting(t, false, map[string][]byte{"small": noise(9), "large": noise(11 * mib)})
	w.adopt1()
	w.limits.workers, w.limits.whole, w.limits.part = 1, mib, 6*mib
	a, small, large := w.asked(), w.etagOf("small"), w.etagOf("large")
	w.mustGet(GetRequest{Key: "small", Range: &ByteRange{First: 3, Last: 5}})
	w.wantPins("a range of plaintext", a, "get small@ ", "get small@ "+small)
	w.adopt1()
	pinned := slices.DeleteFunc(a.pins, func(pin string) bool { return strings.Contains(pin, " "+ReservedPrefix) })
	want := []string{
		"get large@ " + large, "get large@ " + large, "get large@ " + large, "complete large@ " + large, "get small@ " + small, "put small@ " + small,
	}
	if !slices.Equal(pinned, want) {
		t.Errorf("an adoption: got the requests %q, want %q", pinned, want)
	}
}
