package objects

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"chatelaine/backends"
	"chatelaine/backends/memstore"
	"chatelaine/gateway/keys"
	"chatelaine/gateway/sealed"
)

// old is a bucket of the store that was never the gateway's.
const old = "old-data"

// foreign are the objects in it.
func foreign(n int) map[string][]byte {
	all := map[string][]byte{"a/": {}, "empty": {}, "big": noise(300_000)}
	for i := range n {
		all[fmt.Sprintf("k/%04d", i)] = noise(int64(i * 37 % 5000))
	}
	return all
}

// adopting is a world whose bucket is registered for adoption. Nothing has begun.
func adopting(t *testing.T, md5 bool, objects map[string][]byte) *world {
	t.Helper()
	w := newWorld(t)
	w.limits.grain, w.limits.settle, w.limits.report = time.Millisecond, 3*time.Millisecond, time.Millisecond
	w.limits.page, w.limits.workers = 16, 4
	if err := w.store.CreateBucket(t.Context(), old); err != nil {
		t.Fatal(err)
	}
	for key, data := range objects {
		w.putForeign(key, data)
	}
	w.bucket = w.ring.AddAdoption(keys.NewBucket{Name: "adopted", Store: "main", StoreName: old, Owner: "ann", MD5: md5}, keys.Adoption{})
	return w
}

func (w *world) putForeign(key string, data []byte) {
	w.t.Helper()
	attrs := backends.Attributes{ContentType: "text/" + fmt.Sprint(len(data)), Metadata: map[string]string{"colour": "red"}, Tags: backends.Tags{"t": "1"}}
	body := backends.Body{Reader: bytes.NewReader(data), Size: int64(len(data))}
	if _, err := w.store.Put(w.t.Context(), backends.ObjectID{Bucket: old, Key: key}, body, &backends.PutOptions{Attributes: attrs}); err != nil {
		w.t.Fatal(err)
	}
}

// adopt1 lets the adoption go one step: it begins, or it runs to an end.
func (w *world) adopt1() {
	w.t.Helper()
	if err := w.adopt(w.t.Context(), w.bucket); err != nil {
		w.t.Fatal(err)
	}
	w.look()
}

// look takes over what the registry says of the bucket.
func (w *world) look() {
	w.t.Helper()
	b, err := w.Bucket(w.t.Context(), w.bucket.Name)
	if err != nil {
		w.t.Fatal(err)
	}
	w.bucket = b
}

func (w *world) lying(key string) backends.Info {
	w.t.Helper()
	info, err := w.store.Store.Head(w.t.Context(), backends.ObjectID{Bucket: old, Key: key}, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	return info
}

// plainReads is what the metric says.
func (w *world) plainReads() (n float64) {
	w.t.Helper()
	registry := prometheus.NewRegistry()
	registry.MustRegister(w.Service)
	families, err := registry.Gather()
	if err != nil {
		w.t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "chatelaine_plaintext_reads_total" {
			n += f.GetMetric()[0].GetCounter().GetValue()
		}
	}
	return n
}

func isSealed(i backends.Info) bool { return i.Attributes.Metadata[sealed.MetadataName] != "" }

// wantAll reads every object whole, by HEAD and in the list.
func (w *world) wantAll(objects map[string][]byte) {
	w.t.Helper()
	for key, data := range objects {
		st, got, err := w.get(GetRequest{Key: key})
		if err != nil || !bytes.Equal(got, data) || st.Size != int64(len(data)) {
			w.t.Errorf("reading %q: got %d bytes and %v, want %d", key, len(got), err, len(data))
		}
		if st.ContentType != "text/"+fmt.Sprint(len(data)) || !maps.Equal(st.Metadata, map[string]string{"colour": "red"}) || st.TagCount != 1 {
			w.t.Errorf("attributes of %q: got %q, %v, %d tags", key, st.ContentType, st.Metadata, st.TagCount)
		}
		if st, _, err := w.Head(w.t.Context(), GetRequest{Bucket: w.bucket, Key: key}); err != nil || st.Size != int64(len(data)) {
			w.t.Errorf("looking at %q: got size %d and %v, want %d", key, st.Size, err, len(data))
		}
	}
	list, err := w.List(w.t.Context(), ListRequest{Bucket: w.bucket})
	if err != nil || len(list.Entries) != min(len(objects), maxList) {
		w.t.Fatalf("listing: got %d rows and %v, want %d", len(list.Entries), err, len(objects))
	}
	for _, e := range list.Entries {
		st, _, err := w.Head(w.t.Context(), GetRequest{Bucket: w.bucket, Key: e.Key})
		if err != nil || e.Size != int64(len(objects[e.Key])) || e.ETag != st.ETag {
			w.t.Errorf("row of %q: got %d bytes and ETag %q, HEAD has %q (%v), want %d bytes", e.Key, e.Size, e.ETag, st.ETag, err, len(objects[e.Key]))
		}
	}
}

func TestAdoptionSealsAllAndReadsGoOn(t *testing.T) {
	for _, md5 := range []bool{false, true} {
		t.Run(fmt.Sprint("md5 ", md5), func(t *testing.T) {
			objects := foreign(100)
			w := adopting(t, md5, objects)
			w.adopt1()
			w.wantAll(objects)
			if n := w.plainReads(); n < float64(2*len(objects)) {
				t.Errorf("%v reads of plaintext were counted, want %d or more", n, 2*len(objects))
			}
			counted := w.plainReads()
			w.adopt1()
			w.wantAll(objects)
			if n := w.plainReads(); n != counted {
				t.Errorf("%v reads of plaintext were counted after all was sealed", n-counted)
			}
			a, ended := w.ring.Adopted("adopted")
			if c := a.Counts; !ended.Ended || c.Sealed != uint64(len(objects)) || c.Problems+c.Already+c.Gone != 0 || a.SealedTo != "k/0099" {
				t.Errorf("got %+v, sealed to %q, ended %v", c, a.SealedTo, ended.Ended)
			}
			for key, data := range objects {
				if info := w.lying(key); !isSealed(info) || info.Size != sealed.Size(int64(len(data))) || info.Attributes.ContentType != octetStream {
					t.Errorf("%q is stored in %d bytes as %q", key, info.Size, info.Attributes.ContentType)
				}
				st, _, err := w.Head(t.Context(), GetRequest{Bucket: w.bucket, Key: key, Checksums: true})
				if err != nil || len(st.Checksums) != 1 || !bytes.Equal(st.Checksums[0].Value, sumOf(CRC64NVME, data)) {
					t.Errorf("checksums of %q: got %v and %v", key, st.Checksums, err)
				}
				if want := fmt.Sprintf("%x", md5Of(data)); md5 && st.ETag != want {
					t.Errorf("ETag of %q: got %q, want %q", key, st.ETag, want)
				}
			}
		})
	}
}

func TestPlaintextIsReadInRanges(t *testing.T) {
	data := noise(1000)
	w := adopting(t, false, map[string][]byte{"o": data, "empty": {}})
	w.adopt1()
	for _, r := range []ByteRange{{0, 0}, {0, 999}, {0, -1}, {999, -1}, {990, 2000}, {500, 600}, {-1, 1}, {-1, 1000}, {-1, 5000}, {960, 999}} {
		span, err := resolve(&r, 1000)
		if err != nil {
			t.Fatal(err)
		}
		if got := w.mustGet(GetRequest{Key: "o", Range: &r}); !bytes.Equal(got, data[span.Offset:span.Offset+span.Length]) {
			t.Errorf("range %v: got %d bytes, want those of %v", r, len(got), span)
		}
	}
	var beyond *RangeError
	for _, test := range []struct {
		key  string
		r    ByteRange
		size int64
	}{{"o", ByteRange{1000, -1}, 1000}, {"o", ByteRange{5000, 6000}, 1000}, {"empty", ByteRange{0, 0}, 0}} {
		if _, _, err := w.get(GetRequest{Key: test.key, Range: &test.r}); !errors.As(err, &beyond) || beyond.Size != test.size {
			t.Errorf("range %v of %q: got %v, want a RangeError of %d", test.r, test.key, err, test.size)
		}
	}
	if got := w.mustGet(GetRequest{Key: "o", Part: 1}); !bytes.Equal(got, data) {
		t.Errorf("part 1: got %d bytes", len(got))
	}
	st, _, err := w.get(GetRequest{Key: "o"})
	if err != nil || !st.Plain {
		t.Fatalf("got %+v and %v, want it to be called plain", st, err)
	}
	if _, _, err := w.get(GetRequest{Key: "o", Conditions: backends.Conditions{IfNoneMatch: []string{st.ETag}}}); !errors.Is(err, backends.ErrNotModified) {
		t.Errorf("If-None-Match of its ETag: got %v", err)
	}
}

func TestPlaintextIsCopiedAndReplacedAsSealed(t *testing.T) {
	for _, md5 := range []bool{false, true} {
		data := noise(40_000)
		w := adopting(t, md5, map[string][]byte{"o": data})
		w.adopt1()
		source := GetRequest{Bucket: w.bucket, Key: "o"}
		if _, err := w.Copy(t.Context(), CopyRequest{Source: source, Bucket: w.bucket, Key: "copy", KeepTags: true}); err != nil {
			t.Fatal(err)
		}
		if got := w.mustGet(GetRequest{Key: "copy"}); !bytes.Equal(got, data) || !isSealed(w.lying("copy")) {
			t.Errorf("the copy has %d bytes, sealed: %v", len(got), isSealed(w.lying("copy")))
		}
		st, _, err := w.Head(t.Context(), source)
		if err != nil {
			t.Fatal(err)
		}
		put := PutRequest{Bucket: w.bucket, Key: "o", Body: strings.NewReader("new"), Size: 3, IfMatch: []string{st.ETag}}
		if _, err := w.Put(t.Context(), put); err != nil {
			t.Fatalf("a write If-Match the plaintext's ETag: %v", err)
		}
		put.Body = strings.NewReader("new")
		if _, err := w.Put(t.Context(), put); !errors.Is(err, backends.ErrPrecondition) {
			t.Errorf("and again: got %v, want ErrPrecondition", err)
		}
		w.adopt1()
		if a, _ := w.ring.Adopted("adopted"); a.Counts.Sealed != 0 || a.Counts.Already != 2 {
			t.Errorf("got %+v, want what clients wrote to be left alone", a.Counts)
		}
		if got := w.mustGet(GetRequest{Key: "o"}); string(got) != "new" {
			t.Errorf("got %q", got)
		}
	}
}

func TestPlaintextIsServedInNoOtherCase(t *testing.T) {
	w := adopting(t, false, map[string][]byte{"a": noise(10), "b": noise(10), "c": noise(10)})
	w.adopt1()
	refused := func(what, key string) {
		t.Helper()
		if _, _, err := w.get(GetRequest{Key: key}); !errors.Is(err, ErrNotSealed) {
			t.Errorf("%s: got %v, want ErrNotSealed", what, err)
		}
		if _, _, err := w.Head(t.Context(), GetRequest{Bucket: w.bucket, Key: key}); !errors.Is(err, ErrNotSealed) {
			t.Errorf("%s, HEAD: got %v, want ErrNotSealed", what, err)
		}
		if _, err := w.Copy(t.Context(), CopyRequest{Source: GetRequest{Bucket: w.bucket, Key: key}, Bucket: w.bucket, Key: "x"}); !errors.Is(err, ErrNotSealed) {
			t.Errorf("%s, copied: got %v, want ErrNotSealed", what, err)
		}
	}
	w.putForeign("b", noise(20)) // by another way than the gateway
	refused("written later", "b")
	w.bucket.Adopting.SealedTo = "a"
	refused("below the cursor", "a")
	w.mustGet(GetRequest{Key: "c"})
	w.ring.Fail(keys.ErrBlocked)
	if _, _, err := w.get(GetRequest{Key: "c"}); !errors.Is(err, keys.ErrBlocked) {
		t.Errorf("with a key that is blocked: got %v", err)
	}
	w.ring.Fail(nil)
	w.bucket.Adopting = keys.Adopting{}
	refused("in a bucket that is not being adopted", "c")

	// A sealed object whose envelope the provider takes away is not what was there before.
	w.look()
	w.put("d", noise(10))
	info := w.lying("d")
	_, err := w.store.Put(t.Context(), backends.ObjectID{Bucket: old, Key: "d"}, backends.Body{Reader: bytes.NewReader(noise(info.Size)), Size: info.Size}, nil)
	if err != nil {
		t.Fatal(err)
	}
	refused("stripped of its envelope", "d")
}

func TestAdoptionReportsWhatItCannotSeal(t *testing.T) {
	w := adopting(t, false, map[string][]byte{"a": noise(5), "m": noise(5), "z": noise(5)})
	metadata := map[string]string{"long": strings.Repeat("x", 1900)}
	if _, err := w.store.Put(t.Context(), backends.ObjectID{Bucket: old, Key: "m"}, backends.Body{}, &backends.PutOptions{Attributes: backends.Attributes{Metadata: metadata}}); err != nil {
		t.Fatal(err)
	}
	w.adopt1()
	w.putForeign("late", noise(6))
	w.adopt1()
	a, ended := w.ring.Adopted("adopted")
	if !ended.Ended || a.Counts.Sealed != 2 || a.Counts.Problems != 2 || a.Position != "z" || a.SealedTo != "a" {
		t.Fatalf("got %+v up to %q, sealed to %q", a.Counts, a.Position, a.SealedTo)
	}
	texts := map[string]string{}
	for _, p := range a.Problems {
		texts[p.Key] = p.Text
	}
	if !strings.Contains(texts["m"], "metadata is too large") || !strings.Contains(texts["late"], "not through the gateway") {
		t.Errorf("got %q", texts)
	}
	if isSealed(w.lying("late")) || isSealed(w.lying("m")) {
		t.Error("what was refused was sealed")
	}
	if got := w.mustGet(GetRequest{Key: "m"}); len(got) != 0 {
		t.Errorf("what is left cannot be read: %d bytes", len(got))
	}
}

// racing has something happen once, after an object was read and before it is replaced.
type racing struct {
	*counting
	key string
	do  func()
}

func (r *racing) Get(ctx context.Context, id backends.ObjectID, opts *backends.GetOptions) (*backends.Object, error) {
	o, err := r.counting.Get(ctx, id, opts)
	if id.Key != r.key || err != nil {
		return o, err // workers share no more than the key
	}
	if do := r.do; do != nil {
		r.do = nil
		do()
	}
	return o, err
}

func TestAdoptionNeverReplacesWhatAClientWrote(t *testing.T) {
	for name, change := range map[string]func(w *world){
		"overwritten": func(w *world) { w.put("o", []byte("newer")) },
		"deleted": func(w *world) {
			if _, err := w.Delete(w.t.Context(), DeleteRequest{Bucket: w.bucket, Key: "o"}); err != nil {
				w.t.Error(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := adopting(t, false, map[string][]byte{"o": noise(500)})
			w.adopt1()
			w.limits.workers = 1
			w.stores["main"] = &racing{counting: w.store, key: "o", do: func() { change(w) }}
			w.adopt1()
			a, _ := w.ring.Adopted("adopted")
			_, got, err := w.get(GetRequest{Key: "o"})
			switch name {
			case "overwritten":
				if string(got) != "newer" || err != nil || a.Counts.Already != 1 || a.Counts.Sealed != 0 {
					t.Errorf("got %q and %v, counted %+v", got, err, a.Counts)
				}
			case "deleted":
				if !errors.Is(err, backends.ErrNotFound) || a.Counts.Gone != 1 {
					t.Errorf("got %v, counted %+v", err, a.Counts)
				}
			}
		})
	}
}

// lying has one of a backend's answers about an object changed, and other bytes come.
type lying struct {
	*counting
	key  string
	left int // answers until the one
	lie  func(*backends.Object)
}

func (l *lying) Get(ctx context.Context, id backends.ObjectID, opts *backends.GetOptions) (*backends.Object, error) {
	o, err := l.counting.Get(ctx, id, opts)
	if id.Key != l.key || err != nil {
		return o, err // workers share no more than the key
	}
	if l.left--; l.left == -1 {
		o.Body = io.NopCloser(bytes.NewReader(make([]byte, o.Range.Length)))
		l.lie(o)
	}
	return o, nil
}

// wantTail reads the end of an object: it is the true one, or nothing.
func (w *world) wantTail(name, key string, want []byte) {
	w.t.Helper()
	_, got, err := w.get(GetRequest{Key: key, Range: &ByteRange{-1, int64(len(want))}})
	if !bytes.Equal(got, want) && (err == nil || len(got) > 0) {
		w.t.Errorf("%s for the end of %q: got %d other bytes and %v", name, key, len(got), err)
	}
}

// No tag tells plaintext from other bytes. So what an answer says of itself counts.
func TestAnswersAboutPlaintextAreWhatWasAskedFor(t *testing.T) {
	small, large := noise(1000), noise(6<<20)
	for name, lie := range map[string]func(*backends.Object){
		"another range":   func(o *backends.Object) { o.Range.Offset++ },
		"a shorter range": func(o *backends.Object) { o.Range.Length-- },
		"another ETag":    func(o *backends.Object) { o.ETag = "another" },
		"another size":    func(o *backends.Object) { o.Size++ },
		"no size":         func(o *backends.Object) { o.Size = 0 },
		"a newer object":  func(o *backends.Object) { o.Modified = o.Modified.Add(time.Hour) },
		"a sealed object": func(o *backends.Object) { o.Attributes.Metadata = map[string]string{sealed.MetadataName: "1.AAAA"} },
	} {
		for _, test := range []struct {
			key    string
			data   []byte
			honest int
		}{{"o", small, 0}, {"p", large, 1}} {
			w := adopting(t, false, map[string][]byte{test.key: test.data})
			w.limits.whole, w.limits.part = 1<<20, 5<<20
			w.adopt1()
			w.stores["main"] = &lying{counting: w.store, key: test.key, left: 1, lie: lie}
			w.wantTail(name, test.key, test.data[len(test.data)-100:])
			w.stores["main"] = &lying{counting: w.store, key: test.key, lie: lie}
			w.wantTail(name+" at once", test.key, test.data[len(test.data)-100:])
			w.stores["main"] = &lying{counting: w.store, key: test.key, left: test.honest, lie: lie}
			_ = w.adopt(t.Context(), w.bucket) // it stops, reports a problem, or reads again
			w.stores["main"] = w.store
			w.look()
			if _, got, err := w.get(GetRequest{Key: test.key}); isSealed(w.lying(test.key)) && !bytes.Equal(got, test.data) {
				t.Errorf("%s was sealed as %q (%v)", name, test.key, err)
			}
		}
	}
}

// A backend that answers with another object than the one that fits the conditions has
// them checked on that one too.
func TestConditionsAreCheckedOnWhatCameInPlaceOfPlaintext(t *testing.T) {
	w := adopting(t, true, map[string][]byte{"o": noise(500)})
	w.adopt1()
	fits := backends.Conditions{IfMatch: []string{w.etagBy("head", "o")}}
	w.stores["main"] = &lying{counting: w.store, key: "o", lie: func(o *backends.Object) {
		o.ETag = "another"
		w.put("o", []byte("newer"))
	}}
	if _, got, err := w.get(GetRequest{Key: "o", Conditions: fits}); !errors.Is(err, backends.ErrPrecondition) {
		t.Errorf("got %q and %v, want ErrPrecondition", got, err)
	}
}

// A read that sees plaintext first, and for its range what was sealed meanwhile, is
// answered all the same.
func TestReadsGoOnWhileTheirObjectIsSealed(t *testing.T) {
	data := noise(5000)
	w := adopting(t, true, map[string][]byte{"o": data})
	w.adopt1()
	plain := w.stores["main"]
	w.stores["main"] = &racing{counting: w.store, key: "o", do: func() {
		w.stores["main"] = plain
		w.adopt1()
	}}
	if got := w.mustGet(GetRequest{Key: "o", Range: &ByteRange{100, 199}}); !bytes.Equal(got, data[100:200]) || !isSealed(w.lying("o")) {
		t.Errorf("got %d bytes, sealed: %v", len(got), isSealed(w.lying("o")))
	}
}

func TestAdoptionSealsLargeObjectsInParts(t *testing.T) {
	data := noise(11<<20 + 7)
	w := adopting(t, true, map[string][]byte{"large": data, "small": noise(5)})
	w.limits.whole, w.limits.part = 1<<20, 5<<20
	w.adopt1()
	w.adopt1()
	st, got, err := w.get(GetRequest{Key: "large"})
	if err != nil || !bytes.Equal(got, data) || st.Parts != 3 || st.TagCount != 1 {
		t.Fatalf("got %d bytes in %d parts, %d tags and %v", len(got), st.Parts, st.TagCount, err)
	}
	page, err := w.store.ListUploads(t.Context(), old, nil)
	if err != nil || len(page.Uploads) != 0 {
		t.Errorf("uploads are left: %v, %v", page, err)
	}
	if a, _ := w.ring.Adopted("adopted"); a.Counts.Sealed != 2 {
		t.Errorf("got %+v", a.Counts)
	}
}

// It goes on where it was told to have been, and what was sealed after that is found so.
func TestAdoptionIsInterruptedAgainAndAgain(t *testing.T) {
	objects := foreign(200)
	w := adopting(t, false, objects)
	w.adopt1()
	etags := map[string]string{}
	for stops := 0; ; stops++ {
		ctx, cancel := context.WithCancel(t.Context())
		store := &stopping{counting: w.store, left: 20, stop: cancel}
		w.stores["main"] = store
		err := w.adopt(ctx, w.bucket)
		cancel()
		w.ring.TakeAdoption("adopted", "")
		w.stores["main"] = w.store
		for key := range objects {
			info := w.lying(key)
			if !isSealed(info) {
				continue
			}
			if before, ok := etags[key]; ok && before != info.ETag {
				t.Fatalf("%q was sealed twice", key)
			}
			etags[key] = info.ETag
		}
		if err == nil {
			if stops < 10 {
				t.Errorf("it was stopped %d times only", stops)
			}
			break
		}
		if stops > 100 {
			t.Fatal(err)
		}
	}
	w.look()
	w.wantAll(objects)
	a, _ := w.ring.Adopted("adopted")
	if c := a.Counts; c.Sealed+c.Already < uint64(len(objects)) || c.Problems != 0 {
		t.Errorf("got %+v for %d objects", c, len(objects))
	}
}

// stopping ends a run after some writes.
type stopping struct {
	*counting
	left int
	stop func()
}

func (s *stopping) Put(ctx context.Context, id backends.ObjectID, body backends.Body, opts *backends.PutOptions) (backends.Written, error) {
	s.mu.Lock()
	if s.left--; s.left == 0 {
		s.stop()
	}
	s.mu.Unlock()
	return s.counting.Put(ctx, id, body, opts)
}

func TestAdoptionEndsWhereAnotherGatewayTakesItOver(t *testing.T) {
	w := adopting(t, false, foreign(3))
	w.adopt1()
	w.stores["main"] = &racing{counting: w.store, key: "big", do: func() {
		w.ring.TakeAdoption("adopted", "another")
	}}
	if err := w.adopt(t.Context(), w.bucket); !errors.Is(err, keys.ErrAdoptionTaken) {
		t.Errorf("got %v, want ErrAdoptionTaken", err)
	}
	if err := w.adopt(t.Context(), w.bucket); !errors.Is(err, keys.ErrAdoptionTaken) {
		t.Errorf("at its start: got %v, want ErrAdoptionTaken", err)
	}
}

// bare is a store that hides what it can do beyond the contract.
type bare struct{ backends.Store }

// ignorant takes every write, whatever its conditions.
type ignorant struct{ *memstore.Store }

func (i ignorant) Put(ctx context.Context, id backends.ObjectID, body backends.Body, opts *backends.PutOptions) (backends.Written, error) {
	free := *opts
	free.Conditions = backends.Conditions{}
	return i.Store.Put(ctx, id, body, &free)
}

func TestAdoptionIsRefusedBeforeAnythingHappens(t *testing.T) {
	for name, test := range map[string]struct {
		arrange func(w *world)
		want    string
	}{
		"the backend encodes keys": {func(w *world) { w.stores["main"] = bare{w.store} }, "does not see"},
		"no such bucket": {func(w *world) {
			w.bucket = w.ring.AddAdoption(keys.NewBucket{Name: "adopted2", Store: "main", StoreName: "nothing", Owner: "ann"}, keys.Adoption{})
		}, `has no bucket "nothing"`},
		"a gateway's bucket":       {func(w *world) { w.putForeign(MirrorPrefix+"00", nil) }, "chatelaine recover"},
		"If-Match is not enforced": {func(w *world) { w.stores["main"] = ignorant{w.store.Store} }, "ignores If-Match"},
	} {
		t.Run(name, func(t *testing.T) {
			w := adopting(t, false, map[string][]byte{"o": noise(5)})
			test.arrange(w)
			err := w.adopt(t.Context(), w.bucket)
			_, ended := w.ring.Adopted(w.bucket.Name)
			if !errors.Is(err, errRefused) || !strings.Contains(ended.Refused, test.want) {
				t.Errorf("got %v, told %q, want %q", err, ended.Refused, test.want)
			}
			if isSealed(w.lying("o")) {
				t.Error("the object was sealed")
			}
		})
	}
}

func TestAdoptionKeepsToItsRate(t *testing.T) {
	for name, p := range map[string]*pacer{"objects": newPacer(100, 0), "bytes": newPacer(0, 10_000)} {
		began := time.Now()
		for range 11 {
			if err := p.wait(t.Context(), 100); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(began); took < 100*time.Millisecond {
			t.Errorf("%s: 11 objects took %v, want 100 ms or more", name, took)
		}
	}
}

func TestOldVersionsArePlaintextStillAndCounted(t *testing.T) {
	w := adopting(t, false, nil)
	if err := w.store.SetVersioning(t.Context(), old, backends.VersioningEnabled); err != nil {
		t.Fatal(err)
	}
	w.putForeign("o", noise(5))
	w.putForeign("o", noise(6))
	w.adopt1()
	var versions []string
	list, err := w.ListVersions(t.Context(), VersionsRequest{Bucket: w.bucket})
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range list.Versions {
		versions = append(versions, fmt.Sprint(v.Size))
	}
	if !slices.Equal(versions, []string{"6", "5"}) {
		t.Errorf("sizes of the versions: got %v", versions)
	}
	before := list.Versions[1].Version
	if got := w.mustGet(GetRequest{Key: "o", Version: before}); len(got) != 5 {
		t.Errorf("the older version: got %d bytes", len(got))
	}
	w.adopt1()
	if a, _ := w.ring.Adopted("adopted"); a.Counts.Sealed != 1 || a.Counts.OldVersions != 2 {
		t.Errorf("got %+v, want one sealed and two old versions", a.Counts)
	}
	if _, _, err := w.get(GetRequest{Key: "o", Version: before}); !errors.Is(err, ErrNotSealed) {
		t.Errorf("the older version afterwards: got %v, want ErrNotSealed", err)
	}
}
