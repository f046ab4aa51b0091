package objects

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"testing"

	"go.uber.org/zap"

	"chatelaine/backends"
	"chatelaine/backends/memstore"
	"chatelaine/gateway/keys"
	"chatelaine/gateway/sealed"
)

// otherBucket makes a second bucket, on a store of its own where asked.
func (w *world) otherBucket(name string) keys.Bucket {
	w.t.Helper()
	if err := w.CreateBucket(w.t.Context(), "ann", name); err != nil {
		w.t.Fatal(err)
	}
	b, err := w.Bucket(w.t.Context(), name)
	if err != nil {
		w.t.Fatal(err)
	}
	return b
}

func (w *world) mustCopy(r CopyRequest) CopyResult {
	w.t.Helper()
	result, err := w.Copy(w.t.Context(), r)
	if err != nil {
		w.t.Fatalf("copying %q to %q: %v", r.Source.Key, r.Key, err)
	}
	if result.Modified.IsZero() {
		w.t.Error("a copy has no time")
	}
	return result
}

func TestCopiesReadLikeTheirSource(t *testing.T) {
	w := newWorld(t)
	other := w.otherBucket("other")
	sources := map[string][]byte{"empty": nil, "single": noise(mib + 5), "multi": append(noise(5*mib), noise(77)...)}
	attrs := Attributes{ContentType: "text/x", Metadata: map[string]string{"a": "b"}}
	for key, data := range sources {
		if key == "multi" {
			w.upload(key, []int{3, 9}, [][]byte{data[:5*mib], data[5*mib:]})
			continue
		}
		if _, err := w.Put(t.Context(), PutRequest{Bucket: w.bucket, Key: key, Body: bytes.NewReader(data), Size: int64(len(data)), Attributes: attrs}); err != nil {
			t.Fatal(err)
		}
	}
	for key, data := range sources {
		for _, to := range []keys.Bucket{w.bucket, other} {
			from := GetRequest{Bucket: w.bucket, Key: key}
			copied := w.mustCopy(CopyRequest{Source: from, Bucket: to, Key: "copy"})
			dest := *w
			dest.bucket = to
			st, got, err := dest.get(GetRequest{Key: "copy"})
			if err != nil || !bytes.Equal(got, data) || st.ETag != copied.ETag || copied.Size != int64(len(data)) {
				t.Fatalf("%s to %s: got %d other bytes, %+v, error %v", key, to.Name, len(got), copied, err)
			}
			if key != "multi" && (st.ContentType != "text/x" || st.Metadata["a"] != "b") {
				t.Errorf("%s: the copy lost its attributes: %+v", key, st.Attributes)
			}
			w.mustCopy(CopyRequest{Source: from, Bucket: to, Key: "copy", Replace: true, Attributes: Attributes{ContentType: "text/y"}})
			if st, got, _ = dest.get(GetRequest{Key: "copy"}); st.ContentType != "text/y" || len(st.Metadata) != 0 || !bytes.Equal(got, data) {
				t.Errorf("%s: got %+v, want the new attributes and the same bytes", key, st.Attributes)
			}
		}
	}
	w.mustCopy(CopyRequest{Source: GetRequest{Bucket: w.bucket, Key: "single"}, Bucket: w.bucket, Key: "single", Replace: true})
	if got := w.mustGet(GetRequest{Key: "single"}); !bytes.Equal(got, sources["single"]) {
		t.Error("copied onto itself it has other bytes")
	}
}

func TestCopiesGoBetweenBackends(t *testing.T) {
	w := newWorld(t)
	data := noise(2*mib + 1)
	w.put("key", data)
	s, err := New(Config{
		Keys: w.ring, Stores: map[string]backends.Store{"main": w.store, "far": memstore.New()},
		DefaultStore: "far", Logger: zap.NewNop(),
	})
	if err != nil {
		t.Fatal(err)
	}
	w.Service = s
	far := w.otherBucket("far-bucket")
	w.mustCopy(CopyRequest{Source: GetRequest{Bucket: w.bucket, Key: "key"}, Bucket: far, Key: "copy"})
	w.bucket = far
	if got := w.mustGet(GetRequest{Key: "copy"}); !bytes.Equal(got, data) {
		t.Error("got other bytes")
	}
}

func TestACopyGetsTheChecksumThatWasAskedFor(t *testing.T) {
	w := newWorld(t)
	for _, n := range []int64{0, 100, mib} {
		data := noise(n)
		w.put("key", data)
		result := w.mustCopy(CopyRequest{Source: GetRequest{Bucket: w.bucket, Key: "key"}, Bucket: w.bucket, Key: "copy", Algorithm: SHA256})
		want := sha256.Sum256(data)
		st, _, err := w.Head(t.Context(), GetRequest{Bucket: w.bucket, Key: "copy", Checksums: true})
		if err != nil {
			t.Fatal(err)
		}
		for _, got := range [][]Checksum{result.Checksums, st.Checksums} {
			if len(got) != 1 || got[0].Algorithm != SHA256 || !bytes.Equal(got[0].Value, want[:]) {
				t.Errorf("%d bytes: got %+v, want SHA256 %x", n, got, want)
			}
		}
		again := w.mustCopy(CopyRequest{Source: GetRequest{Bucket: w.bucket, Key: "copy"}, Bucket: w.bucket, Key: "copy2"})
		if !hasWhole(again.Checksums, SHA256) {
			t.Errorf("%d bytes: a copy lost its checksum: %+v", n, again.Checksums)
		}
	}
}

func TestCopyRefusesWhatItMust(t *testing.T) {
	w := newWorld(t)
	etag := w.put("key", []byte("one")).ETag
	w.put("there", []byte("two"))
	from := func(c backends.Conditions) GetRequest { return GetRequest{Bucket: w.bucket, Key: "key", Conditions: c} }
	tests := []struct {
		name string
		r    CopyRequest
		want error
	}{
		{"no source", CopyRequest{Source: GetRequest{Bucket: w.bucket, Key: "none"}, Key: "copy"}, backends.ErrNotFound},
		{"a reserved source", CopyRequest{Source: GetRequest{Bucket: w.bucket, Key: w.mirrors()[0]}, Key: "copy"}, ErrReserved},
		{"a reserved destination", CopyRequest{Source: from(backends.Conditions{}), Key: ReservedPrefix + "x"}, ErrReserved},
		{"another source ETag", CopyRequest{Source: from(backends.Conditions{IfMatch: []string{"x"}}), Key: "copy"}, backends.ErrPrecondition},
		{"the source's ETag, unwanted", CopyRequest{Source: from(backends.Conditions{IfNoneMatch: []string{etag}}), Key: "copy"}, backends.ErrPrecondition},
		{"a destination that is there", CopyRequest{Source: from(backends.Conditions{}), Key: "there", IfNoneMatch: []string{"*"}}, backends.ErrPrecondition},
		{"another destination ETag", CopyRequest{Source: from(backends.Conditions{}), Key: "there", IfMatch: []string{"x"}}, backends.ErrPrecondition},
	}
	for _, tt := range tests {
		tt.r.Bucket = w.bucket
		if _, err := w.Copy(t.Context(), tt.r); !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.name, err, tt.want)
		}
	}
	if got := w.mustGet(GetRequest{Key: "there"}); string(got) != "two" {
		t.Errorf("the destination became %q", got)
	}
}

func TestPartsAreCopiedFromRanges(t *testing.T) {
	w := newWorld(t)
	data := noise(7 * mib)
	w.put("key", data)
	u, err := w.CreateUpload(t.Context(), CreateUploadRequest{Bucket: w.bucket, Key: "copy", Algorithm: CRC32})
	if err != nil {
		t.Fatal(err)
	}
	var listed []CompletePart
	for i, r := range []ByteRange{{10, 6*mib - 1}, {0, 99}} {
		part, err := w.CopyPart(t.Context(), CopyPartRequest{UploadRef: u, Number: i + 1, Source: GetRequest{Bucket: w.bucket, Key: "key", Range: &r}})
		if err != nil {
			t.Fatal(err)
		}
		listed = append(listed, CompletePart{Number: i + 1, ETag: part.ETag})
	}
	if _, err := w.Complete(t.Context(), CompleteRequest{UploadRef: u, Parts: listed, Size: -1}); err != nil {
		t.Fatal(err)
	}
	want := append(append([]byte{}, data[10:6*mib]...), data[:100]...)
	if got := w.mustGet(GetRequest{Key: "copy"}); !bytes.Equal(got, want) {
		t.Error("got other bytes")
	}
	_, parts, err := w.PartsOf(t.Context(), GetRequest{Bucket: w.bucket, Key: "copy"})
	if err != nil || len(parts) != 2 || parts[0].Size != 6*mib-10 || parts[1] != (PartInfo{Number: 2, Size: 100}) {
		t.Errorf("got parts %+v, error %v", parts, err)
	}
	beyond := GetRequest{Bucket: w.bucket, Key: "key", Range: &ByteRange{8 * mib, -1}}
	if _, err := w.CopyPart(t.Context(), CopyPartRequest{UploadRef: u, Number: 1, Source: beyond}); !errors.Is(err, backends.ErrRange) {
		t.Errorf("beyond the end: got %v, want ErrRange", err)
	}
}

func TestBucketConfigurationsAreSealedAndSeenElsewhere(t *testing.T) {
	w := newWorld(t)
	if _, err := w.BucketConfig(t.Context(), w.bucket, "cors"); !errors.Is(err, ErrNoConfig) {
		t.Errorf("got %v, want ErrNoConfig", err)
	}
	if err := w.SetBucketConfig(t.Context(), w.bucket, "cors", []byte("rules")); err != nil {
		t.Fatal(err)
	}
	for _, s := range []*Service{w.Service, w.replica()} {
		if got, err := s.BucketConfig(t.Context(), w.bucket, "cors"); err != nil || string(got) != "rules" {
			t.Errorf("got %q, error %v", got, err)
		}
	}
	id := idOf(w.bucket, configPrefix+"cors", "")
	object, err := w.store.Store.Get(t.Context(), id, nil)
	if err != nil {
		t.Fatal(err)
	}
	body := backends.Body{Reader: bytes.NewReader([]byte("rules of the provider")), Size: 21}
	if _, err := w.store.Store.Put(t.Context(), id, body, &backends.PutOptions{Attributes: object.Attributes}); err != nil {
		t.Fatal(err)
	}
	if got, err := w.replica().BucketConfig(t.Context(), w.bucket, "cors"); !errors.Is(err, sealed.ErrCorrupt) {
		t.Errorf("changed by the provider: got %q, error %v, want ErrCorrupt", got, err)
	}
	if err := w.SetBucketConfig(t.Context(), w.bucket, "cors", nil); err != nil {
		t.Fatal(err)
	}
	if _, err := w.BucketConfig(t.Context(), w.bucket, "cors"); !errors.Is(err, ErrNoConfig) {
		t.Errorf("after removing: got %v, want ErrNoConfig", err)
	}
}

func TestUploadsLeaveNoVersionsOfTheirStash(t *testing.T) {
	w := newWorld(t)
	if err := w.SetVersioning(t.Context(), w.bucket, backends.VersioningEnabled); err != nil {
		t.Fatal(err)
	}
	w.upload("key", []int{1, 2}, [][]byte{noise(5 * mib), noise(10)})
	page, err := w.store.ListVersions(t.Context(), w.bucket.StoreName, &backends.ListVersionsOptions{Prefix: ReservedPrefix + "uploads/"})
	if err != nil || len(page.Versions) != 0 {
		t.Errorf("left behind: %+v, error %v", page.Versions, err)
	}
	listed, err := w.ListVersions(t.Context(), VersionsRequest{Bucket: w.bucket})
	if err != nil || len(listed.Versions) != 1 || listed.Versions[0].Size != 5*mib+10 {
		t.Errorf("listed %+v, error %v", listed, err)
	}
}

func TestABodyThatAStoreHasCutIsNotTheClientsFault(t *testing.T) {
	cut := fmt.Errorf("reading: %w: %w", backends.ErrUnavailable, io.ErrUnexpectedEOF)
	if err := shortBody(cut); errors.Is(err, sealed.ErrShortBody) || !errors.Is(err, backends.ErrUnavailable) {
		t.Errorf("cut by a store: got %v, want ErrUnavailable", err)
	}
	if err := shortBody(io.ErrUnexpectedEOF); !errors.Is(err, sealed.ErrShortBody) {
		t.Errorf("cut by the client: got %v, want ErrShortBody", err)
	}
}
