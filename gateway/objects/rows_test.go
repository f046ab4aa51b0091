package objects

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"go.uber.org/zap"

	"chatelaine/backends"
	"chatelaine/backends/memstore"
	"chatelaine/gateway/keys"
	"chatelaine/gateway/keys/keystest"
	"chatelaine/gateway/sealed"
)

// sums lists a bucket's keys with what is said of their checksums.
func (w *world) sums(s *Service, b keys.Bucket) string {
	w.t.Helper()
	page, err := s.List(w.t.Context(), ListRequest{Bucket: b})
	if err != nil {
		w.t.Fatal(err)
	}
	var out []string
	for _, e := range page.Entries {
		out = append(out, fmt.Sprintf("%s %s %t", e.Key, e.Algorithm, e.Composite))
	}
	return strings.Join(out, ", ")
}

func (w *world) putSum(key string, size int64, algorithm Algorithm, late bool) {
	w.t.Helper()
	data := noise(size)
	h := algorithm.NewHash()
	_, _ = h.Write(data)
	r := PutRequest{Bucket: w.bucket, Key: key, Body: bytes.NewReader(data), Size: size}
	if late {
		r.Late, r.LateValue = algorithm, func() []byte { return h.Sum(nil) }
	} else {
		r.Checksums = []Checksum{{Algorithm: algorithm, Value: h.Sum(nil)}}
	}
	if _, err := w.Put(w.t.Context(), r); err != nil {
		w.t.Fatal(err)
	}
}

func TestAListSaysWhatChecksumsObjectsHave(t *testing.T) {
	w := newWorld(t)
	w.putSum("early", 10, SHA256, false)
	w.putSum("held", 10, CRC32, true)
	w.putSum("late", holdLimit+1, CRC32C, true)
	w.put("none", nil)
	w.upload("parts", []int{1}, [][]byte{noise(9)})
	want := "early SHA256 false, held CRC32 false, late CRC32C false, none  false, parts  false"
	w.store.reset()
	if got := w.sums(w.Service, w.bucket); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if w.store.calls["list"] != 1 || w.store.total() != 1 {
		t.Errorf("got requests %v, want one list", w.store.calls)
	}
	page, err := w.ListVersions(t.Context(), VersionsRequest{Bucket: w.bucket})
	if err != nil || len(page.Versions) != 5 || page.Versions[0].Algorithm != SHA256 {
		t.Errorf("versions: got %+v and %v, want five, the first with SHA256", page, err)
	}
	strict := w.bucket
	strict.Strict = true
	if got := w.sums(w.Service, strict); strings.Contains(got, "SHA256") {
		t.Errorf("a strict bucket: got %q, want no key to be asked for", got)
	}
}

func TestAListOutlivesEnvelopesThatDoNotOpen(t *testing.T) {
	w := newWorld(t)
	w.putSum("a", 10, SHA256, false)
	w.putSum("b", 10, SHA256, false)
	header := func(key string) string {
		info, err := w.store.Head(t.Context(), idOf(w.bucket, key, ""), nil)
		if err != nil {
			t.Fatal(err)
		}
		return info.Attributes.Metadata[sealed.MetadataName]
	}
	for i, stored := range []string{header("a"), "", "2.x", "1.x", header("a")[:40]} {
		attrs := backends.Attributes{Metadata: map[string]string{sealed.MetadataName: stored}}
		id := idOf(w.bucket, fmt.Sprintf("c%d", i), "")
		if _, err := w.store.Put(t.Context(), id, backends.Body{}, &backends.PutOptions{Attributes: attrs}); err != nil {
			t.Fatal(err)
		}
	}
	want := "a SHA256 false, b SHA256 false, c0  false, c1  false, c2  false, c3  false, c4  false"
	if got := w.sums(w.Service, w.bucket); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// away is a ring whose keys are out of reach.
type away struct {
	Keyring
	asked int
}

func (a *away) ByID(context.Context, keys.Bucket, [16]byte) (keys.BucketKey, error) {
	a.asked++
	return keys.BucketKey{}, errors.New("the KMS is away")
}

func TestAListAsksForAKeyOnceAndDoesWithoutIt(t *testing.T) {
	w := newWorld(t)
	w.putSum("a", 10, SHA256, false)
	w.putSum("b", 10, SHA256, false)
	s, ring := w.replica(), &away{Keyring: w.ring}
	s.keys = ring
	if got, want := w.sums(s, w.bucket), "a  false, b  false"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if ring.asked != 1 {
		t.Errorf("the key was asked for %d times, want once", ring.asked)
	}
}

// BenchmarkList lists pages of 1,000 objects, with and without the envelopes.
func BenchmarkList(b *testing.B) {
	for name, strict := range map[string]bool{"checksums": false, "none": true} {
		b.Run(name, func(b *testing.B) {
			ring, store := keystest.New(), memstore.New()
			s, err := New(Config{Keys: ring, Stores: map[string]backends.Store{"main": store}, DefaultStore: "main", Logger: zap.NewNop()})
			if err == nil {
				err = s.CreateBucket(b.Context(), "ann", "bucket")
			}
			if err != nil {
				b.Fatal(err)
			}
			bucket, err := s.Bucket(b.Context(), "bucket")
			if err != nil {
				b.Fatal(err)
			}
			for i := range maxList {
				r := PutRequest{Bucket: bucket, Key: fmt.Sprintf("%04d", i), Checksums: []Checksum{{Algorithm: CRC32, Value: make([]byte, 4)}}}
				r.Body = strings.NewReader("")
				if _, err := s.Put(b.Context(), r); err != nil {
					b.Fatal(err)
				}
			}
			bucket.Strict = strict
			for b.Loop() {
				if page, err := s.List(b.Context(), ListRequest{Bucket: bucket}); err != nil || len(page.Entries) != maxList {
					b.Fatal(page, err)
				}
			}
		})
	}
}
