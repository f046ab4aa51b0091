package objects

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"strings"
	"testing"
	"time"

	"chatelaine/backends"
	"chatelaine/gateway/keys"
	"chatelaine/gateway/sealed"
)

// newMD5World is a world whose bucket shows MD5s.
func newMD5World(t *testing.T) *world {
	t.Helper()
	w := newWorld(t)
	w.makeBucket("md5-bucket")
	return w
}

// makeBucket makes a bucket and goes on with it.
func (w *world) makeBucket(name string) {
	w.t.Helper()
	if err := w.CreateBucket(w.t.Context(), "ann", name); err != nil {
		w.t.Fatal(err)
	}
	b, err := w.Bucket(w.t.Context(), name)
	if err != nil {
		w.t.Fatal(err)
	}
	w.bucket = b
	w.store.reset()
}

func hexMD5(b []byte) string { return hex.EncodeToString(md5Of(b)) }

// etagsOf is an object's ETag as each way of asking another gateway shows it.
func (w *world) etagsOf(key string) map[string]string {
	w.t.Helper()
	seen := map[string]string{}
	for _, name := range []string{"head", "get", "list", "versions", "range", "list of the writer"} {
		other := *w
		if !strings.HasSuffix(name, "writer") {
			other.Service = w.replica()
		}
		seen[name] = other.etagBy(name, key)
	}
	return seen
}

func (w *world) etagBy(way, key string) string {
	w.t.Helper()
	switch way {
	case "head":
		st, _, err := w.Head(w.t.Context(), GetRequest{Bucket: w.bucket, Key: key})
		if err != nil {
			w.t.Fatal(err)
		}
		return st.ETag
	case "get", "range":
		r := GetRequest{Key: key}
		if way == "range" {
			r.Range = &ByteRange{0, 0}
		}
		st, _, err := w.get(r)
		if err != nil {
			w.t.Fatal(err)
		}
		return st.ETag
	case "versions":
		page, err := w.ListVersions(w.t.Context(), VersionsRequest{Bucket: w.bucket, Prefix: key})
		if err != nil || len(page.Versions) != 1 {
			w.t.Fatalf("listed %+v, error %v", page, err)
		}
		return page.Versions[0].ETag
	}
	page, err := w.List(w.t.Context(), ListRequest{Bucket: w.bucket, Prefix: key})
	if err != nil || len(page.Entries) != 1 {
		w.t.Fatalf("listed %+v, error %v", page, err)
	}
	return page.Entries[0].ETag
}

func (w *world) wantETag(key, got, want string) {
	w.t.Helper()
	if got != want {
		w.t.Errorf("%s was written as %s, want %s", key, got, want)
	}
	for way, etag := range w.etagsOf(key) {
		if etag != want {
			w.t.Errorf("%s by %s: got %s, want %s", key, way, etag, want)
		}
	}
}

func TestMD5BucketsShowTheMD5OfWhatWasPut(t *testing.T) {
	w := newMD5World(t)
	for _, size := range []int64{1, holdLimit, holdLimit + 1, 2*mib + 5} {
		data := noise(size)
		for name, change := range map[string]func(*PutRequest){
			"plain":       func(*PutRequest) {},
			"Content-MD5": func(r *PutRequest) { r.MD5 = md5Of(data) },
			"late CRC64":  func(r *PutRequest) { r.Late = CRC64NVME },
			"late SHA256": func(r *PutRequest) {
				h := SHA256.NewHash()
				r.Body, r.Late, r.LateValue = &hashing{src: r.Body, h: h}, SHA256, func() []byte { return h.Sum(nil) }
			},
		} {
			key := fmt.Sprintf("%s of %d", name, size)
			r := PutRequest{Bucket: w.bucket, Key: key, Body: bytes.NewReader(data), Size: size}
			change(&r)
			got, err := w.Put(t.Context(), r)
			if err != nil {
				t.Fatalf("%s: %v", key, err)
			}
			w.wantETag(key, got.ETag, hexMD5(data))
			if _, back, err := w.get(GetRequest{Key: key, Checksums: true}); err != nil || !bytes.Equal(back, data) {
				t.Errorf("%s: %v, or other bytes", key, err)
			}
		}
	}
	w.makeBucket("plain")
	if got := w.put("key", []byte("x")); got.ETag == hexMD5([]byte("x")) || !strings.HasSuffix(got.ETag, "-1") {
		t.Errorf("another bucket: got %s", got.ETag)
	}
}

// TestAnObjectWithoutRoomForItsMD5ShowsNone: SHA512 takes all the room of the trailer.
func TestAnObjectWithoutRoomForItsMD5ShowsNone(t *testing.T) {
	w := newMD5World(t)
	data := noise(holdLimit + 1)
	h := SHA512.NewHash()
	got, err := w.Put(t.Context(), PutRequest{
		Bucket: w.bucket, Key: "key", Body: &hashing{src: bytes.NewReader(data), h: h}, Size: int64(len(data)),
		Late: SHA512, LateValue: func() []byte { return h.Sum(nil) },
	})
	if err != nil || !strings.HasSuffix(got.ETag, "-1") {
		t.Fatalf("got %+v, %v", got, err)
	}
	w.wantETag("key", got.ETag, got.ETag)
}

func TestMD5BucketsShowWhatS3ShowsOfMultipartObjects(t *testing.T) {
	w := newMD5World(t)
	for name, u := range map[string]CreateUploadRequest{
		"plain": {}, "SHA256": {Algorithm: SHA256, Composite: true}, "CRC32": {Algorithm: CRC32},
	} {
		u.Bucket, u.Key = w.bucket, name
		ref, err := w.CreateUpload(t.Context(), u)
		if err != nil {
			t.Fatal(err)
		}
		var sums []byte
		for i, data := range [][]byte{noise(5 * mib), noise(5*mib + 3), noise(9)} {
			r := PutPartRequest{UploadRef: ref, Number: i + 1, Body: bytes.NewReader(data), Size: int64(len(data)), Algorithm: u.Algorithm}
			if u.Algorithm != "" {
				h := u.Algorithm.NewHash()
				r.Body, r.Value = &hashing{src: r.Body, h: h}, func() []byte { return h.Sum(nil) }
			}
			if _, err := w.PutPart(t.Context(), r); err != nil {
				t.Fatal(err)
			}
			sums = append(sums, md5Of(data)...)
		}
		// from ListParts alone, as a client that was killed
		r := CompleteRequest{UploadRef: ref, Size: -1}
		for _, p := range w.listParts(w.replica(), ref, 10) {
			c := CompletePart{Number: p.Number, ETag: p.ETag}
			if u.Composite {
				c.Algorithm, c.Checksum = p.Checksum.Algorithm, p.Checksum.Value
			}
			r.Parts = append(r.Parts, c)
		}
		got, err := w.replica().Complete(t.Context(), r)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		w.wantETag(name, got.ETag, hexMD5(sums)+"-3")
		if again, err := w.replica().Complete(t.Context(), r); err != nil || again.ETag != got.ETag {
			t.Errorf("%s: completed again: %+v, %v", name, again, err)
		}
	}
}

func TestConditionsOnMD5sHoldWhatTheySay(t *testing.T) {
	w := newMD5World(t)
	data := noise(holdLimit + 7)
	w.put("key", data)
	etag, other := hexMD5(data), hexMD5([]byte("other"))
	past, future := time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	for name, tt := range map[string]struct {
		cond backends.Conditions
		want error
	}{
		"match":                    {backends.Conditions{IfMatch: []string{etag}}, nil},
		"one of two":               {backends.Conditions{IfMatch: []string{other, etag}}, nil},
		"any":                      {backends.Conditions{IfMatch: []string{"*"}}, nil},
		"another":                  {backends.Conditions{IfMatch: []string{other}}, backends.ErrPrecondition},
		"none match":               {backends.Conditions{IfNoneMatch: []string{other}}, nil},
		"known":                    {backends.Conditions{IfNoneMatch: []string{etag}}, backends.ErrNotModified},
		"unmodified":               {backends.Conditions{IfUnmodifiedSince: past}, backends.ErrPrecondition},
		"not modified":             {backends.Conditions{IfModifiedSince: future}, backends.ErrNotModified},
		"match wins over time":     {backends.Conditions{IfMatch: []string{etag}, IfUnmodifiedSince: past}, nil},
		"modified, though matched": {backends.Conditions{IfNoneMatch: []string{etag}, IfModifiedSince: past}, backends.ErrNotModified},
	} {
		for _, rng := range []*ByteRange{nil, {5, 9}} {
			s := w.replica()
			w.Service = s
			st, got, err := w.get(GetRequest{Key: "key", Range: rng, Conditions: tt.cond})
			if !errors.Is(err, tt.want) || tt.want == nil && (err != nil || len(got) == 0 || st.ETag != etag) {
				t.Errorf("%s, %v: got %d bytes, %v, want %v", name, rng, len(got), err, tt.want)
			}
			var n *backends.NotModified
			if errors.As(err, &n) && n.ETag != etag {
				t.Errorf("%s: 304 says %s, want %s", name, n.ETag, etag)
			}
		}
		if _, _, err := w.Head(t.Context(), GetRequest{Bucket: w.bucket, Key: "key", Conditions: tt.cond}); !errors.Is(err, tt.want) {
			t.Errorf("%s: HEAD: %v, want %v", name, err, tt.want)
		}
	}
}

func TestWritesIfAnMD5MatchesAreHeldToIt(t *testing.T) {
	w := newMD5World(t)
	first := w.put("key", []byte("first"))
	put := func(etag string) error {
		_, err := w.Put(t.Context(), PutRequest{Bucket: w.bucket, Key: "key", Body: strings.NewReader("next"), Size: 4, IfMatch: []string{etag}})
		return err
	}
	if err := put(hexMD5([]byte("other"))); !errors.Is(err, backends.ErrPrecondition) {
		t.Errorf("another: %v, want ErrPrecondition", err)
	}
	if err := put(first.ETag); err != nil {
		t.Errorf("that of the object: %v", err)
	}
	if err := put(first.ETag); !errors.Is(err, backends.ErrPrecondition) {
		t.Errorf("that of the replaced object: %v, want ErrPrecondition", err)
	}
	if _, err := w.Delete(t.Context(), DeleteRequest{Bucket: w.bucket, Key: "key", IfMatch: []string{first.ETag}}); !errors.Is(err, backends.ErrPrecondition) {
		t.Errorf("deleting the replaced: %v, want ErrPrecondition", err)
	}
	if _, err := w.Delete(t.Context(), DeleteRequest{Bucket: w.bucket, Key: "key", IfMatch: []string{hexMD5([]byte("next"))}}); err != nil {
		t.Errorf("deleting: %v", err)
	}
	if err := put(first.ETag); !errors.Is(err, backends.ErrNotFound) {
		t.Errorf("what is not there: %v, want ErrNotFound", err)
	}
}

// replacing replaces an object between the look at it and what follows.
type replacing struct {
	*counting
	replace func()
}

func (r *replacing) Head(ctx context.Context, id backends.ObjectID, opts *backends.GetOptions) (backends.Info, error) {
	info, err := r.counting.Head(ctx, id, opts)
	if replace := r.replace; replace != nil {
		r.replace = nil
		replace()
	}
	return info, err
}

func TestAnObjectThatIsReplacedMeanwhileIsNotTakenForTheOldOne(t *testing.T) {
	w := newMD5World(t)
	old := w.put("key", []byte("old"))
	store := &replacing{counting: w.store}
	s := w.replica()
	s.stores = map[string]backends.Store{"main": store}
	store.replace = func() { w.put("key", []byte("new")) }
	_, err := s.Put(t.Context(), PutRequest{Bucket: w.bucket, Key: "key", Body: strings.NewReader("mine"), Size: 4, IfMatch: []string{old.ETag}})
	if !errors.Is(err, backends.ErrPrecondition) {
		t.Errorf("a write: got %v, want ErrPrecondition", err)
	}
	store.replace = func() { w.put("key", []byte("newer")) }
	reader, err := s.Get(t.Context(), GetRequest{Bucket: w.bucket, Key: "key", Conditions: backends.Conditions{IfNoneMatch: []string{old.ETag}}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = reader.Close() }()
	var got bytes.Buffer
	if _, err := reader.WriteTo(&got); err != nil || got.String() != "newer" || reader.Stat.ETag != hexMD5(got.Bytes()) {
		t.Errorf("a read: got %q as %s, %v", got.String(), reader.Stat.ETag, err)
	}
}

func TestCopiesIntoAnMD5BucketHaveOne(t *testing.T) {
	w := newMD5World(t)
	md5Bucket := w.bucket
	w.makeBucket("plain")
	plain := w.bucket
	small, large := noise(5), noise(holdLimit+1)
	parts := [][]byte{noise(5 * mib), noise(1)}
	w.put("small", small)
	w.put("large", large)
	w.upload("multi", []int{1, 2}, parts)
	sum := crc32.ChecksumIEEE(small)
	_, err := w.Put(t.Context(), PutRequest{
		Bucket: plain, Key: "summed", Body: bytes.NewReader(small), Size: 5, Checksums: []Checksum{{Algorithm: CRC32, Value: toBytes(uint64(sum), 4)}},
	})
	if err != nil {
		t.Fatal(err)
	}
	w.bucket = md5Bucket
	for key, data := range map[string][]byte{"small": small, "large": large, "multi": slices.Concat(parts...), "summed": small} {
		got, err := w.Copy(t.Context(), CopyRequest{Source: GetRequest{Bucket: plain, Key: key}, Bucket: md5Bucket, Key: key})
		if err != nil {
			t.Fatalf("%s: %v", key, err)
		}
		w.wantETag(key, got.ETag, hexMD5(data))
		if back := w.mustGet(GetRequest{Key: key}); !bytes.Equal(back, data) {
			t.Errorf("%s: other bytes", key)
		}
		if key == "summed" && (len(got.Checksums) != 1 || got.Checksums[0].Algorithm != CRC32) {
			t.Errorf("the copy has the checksums %+v", got.Checksums)
		}
		again, err := w.Copy(t.Context(), CopyRequest{
			Source: GetRequest{Bucket: md5Bucket, Key: key}, Bucket: md5Bucket, Key: key + "+", Replace: true, Attributes: Attributes{ContentType: "a/b"},
		})
		if err != nil {
			t.Fatal(err)
		}
		w.wantETag(key+"+", again.ETag, hexMD5(data))
	}
}

func TestAListInAnMD5BucketSurvivesWhatHasNone(t *testing.T) {
	w := newMD5World(t)
	w.put("a", []byte("a"))
	w.put("gone", noise(holdLimit+1))
	foreign := idOf(w.bucket, "foreign", "")
	if _, err := w.store.Store.Put(t.Context(), foreign, backends.Body{Reader: strings.NewReader("x"), Size: 1}, nil); err != nil {
		t.Fatal(err)
	}
	page, err := w.replica().List(t.Context(), ListRequest{Bucket: w.bucket})
	if err != nil || len(page.Entries) != 3 {
		t.Fatalf("listed %+v, error %v", page, err)
	}
	if got := page.Entries[0].ETag; got != hexMD5([]byte("a")) {
		t.Errorf("got %s", got)
	}
	if got := page.Entries[1]; got.Key != "foreign" || !strings.HasSuffix(got.ETag, "-1") {
		t.Errorf("an object that is not ours: got %+v", got)
	}
	w.ring.Fail(keys.ErrUnavailable)
	if _, err := w.replica().List(t.Context(), ListRequest{Bucket: w.bucket}); !errors.Is(err, keys.ErrUnavailable) {
		t.Errorf("without keys: got %v, want ErrUnavailable rather than other ETags", err)
	}
}

func TestAListInAnMD5BucketAsksOncePerUnknownObject(t *testing.T) {
	w := newMD5World(t)
	for n := range 50 {
		w.put(fmt.Sprintf("late %02d", n), noise(holdLimit+1))
		w.put(fmt.Sprintf("small %02d", n), noise(int64(n)))
	}
	s := w.replica()
	for _, want := range []int{50, 0} { // memstore's listing has the envelopes, so small ones cost nothing
		w.store.reset()
		if _, err := s.List(t.Context(), ListRequest{Bucket: w.bucket}); err != nil {
			t.Fatal(err)
		}
		if got := w.store.total() - 1; got != want {
			t.Errorf("got %d requests beside the list, want %d", got, want)
		}
	}
	w.store.reset()
	if _, _, err := w.Head(t.Context(), GetRequest{Bucket: w.bucket, Key: "late 01"}); err != nil || w.store.total() != 1 {
		t.Errorf("HEAD of an object that is remembered: %v, %d requests, want 1", err, w.store.total())
	}
}

func TestAFalseTrailerDoesNotMakeAnETag(t *testing.T) {
	w := newMD5World(t)
	w.put("key", noise(holdLimit+1))
	id := idOf(w.bucket, "key", "")
	object, err := w.store.Store.Get(t.Context(), id, nil)
	if err != nil {
		t.Fatal(err)
	}
	var stored bytes.Buffer
	if _, err := stored.ReadFrom(object.Body); err != nil {
		t.Fatal(err)
	}
	stored.Bytes()[stored.Len()-12] ^= 1
	if _, err := w.store.Store.Put(t.Context(), id, backends.Body{Reader: &stored, Size: int64(stored.Len())}, &backends.PutOptions{Attributes: object.Attributes}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := w.replica().Head(t.Context(), GetRequest{Bucket: w.bucket, Key: "key"}); !errors.Is(err, sealed.ErrCorrupt) {
		t.Errorf("got %v, want ErrCorrupt", err)
	}
	if page, err := w.replica().List(t.Context(), ListRequest{Bucket: w.bucket}); err != nil || !strings.HasSuffix(page.Entries[0].ETag, "-1") {
		t.Errorf("listed %+v, %v", page, err)
	}
}

func TestBadPatternsOfBucketsAreRefused(t *testing.T) {
	w := newWorld(t)
	_, err := New(Config{Keys: w.ring, Stores: w.stores, DefaultStore: "main", Logger: w.log, MD5Buckets: []string{"a["}})
	if err == nil || !strings.Contains(err.Error(), `"a["`) {
		t.Errorf("got %v", err)
	}
}
