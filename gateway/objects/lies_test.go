package objects

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"chatelaine/backends"
	"chatelaine/gateway/keys"
	"chatelaine/gateway/sealed"
)

// liar is a store whose answers are changed before the gateway has them.
type liar struct {
	*counting
	get      func(*backends.Object)
	head     func(*backends.Info)
	part     func(*backends.Part)
	complete error
}

func (l *liar) Get(ctx context.Context, id backends.ObjectID, opts *backends.GetOptions) (*backends.Object, error) {
	o, err := l.counting.Get(ctx, id, opts)
	if err == nil && l.get != nil {
		l.get(o)
	}
	return o, err
}

func (l *liar) Head(ctx context.Context, id backends.ObjectID, opts *backends.GetOptions) (backends.Info, error) {
	info, err := l.counting.Head(ctx, id, opts)
	if err == nil && l.head != nil {
		l.head(&info)
	}
	return info, err
}

func (l *liar) ListParts(ctx context.Context, id backends.UploadID, after, limit int) (*backends.PartsPage, error) {
	page, err := l.counting.ListParts(ctx, id, after, limit)
	for i := range page.Parts {
		if l.part != nil {
			l.part(&page.Parts[i])
		}
	}
	return page, err
}

func (l *liar) Complete(ctx context.Context, id backends.UploadID, parts []backends.Part, cond backends.Conditions) (backends.Written, error) {
	if l.complete != nil {
		return backends.Written{}, l.complete
	}
	return l.counting.Complete(ctx, id, parts, cond)
}

// lied puts a store that lies before another gateway of the world's.
func (w *world) lied() *liar {
	w.t.Helper()
	l := &liar{counting: w.store}
	limits := w.limits
	w.Service = w.replica()
	w.stores, w.limits = map[string]backends.Store{"main": l}, limits
	return l
}

// wantErr wants an error, and none that says nothing.
func wantErr(t *testing.T, what string, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

func TestAnAnswerWithAnotherRangeIsRefused(t *testing.T) {
	w := newWorld(t)
	w.put("key", noise(100_000))
	l := w.lied()
	for name, lie := range map[string]func(*backends.Object){
		"that begins later":      func(o *backends.Object) { o.Range.Offset += 16 },
		"that is shorter":        func(o *backends.Object) { o.Range.Length = 100 },
		"that begins before all": func(o *backends.Object) { o.Range.Offset = -1 },
	} {
		l.get = lie
		_, data, err := w.get(GetRequest{Key: "key", Range: &ByteRange{First: 40_000, Last: 50_000}})
		if wantErr(t, name, err, sealed.ErrRange); len(data) != 0 {
			t.Errorf("%s: got %d bytes", name, len(data))
		}
	}
}

func TestFalseSizesAreFoundOut(t *testing.T) {
	w := newWorld(t)
	w.upload("multi", []int{1}, [][]byte{noise(20_000)})
	w.put("single", noise(100))
	l := w.lied()
	l.head = func(i *backends.Info) { i.Size = 5 }
	for name, r := range map[string]GetRequest{
		"parts": {Key: "multi"}, "parts, with checksums": {Key: "multi", Checksums: true}, "one PUT": {Key: "single"},
	} {
		r.Bucket = w.bucket
		_, _, err := w.Head(t.Context(), r)
		wantErr(t, name, err, sealed.ErrCorrupt)
	}
	l.head = nil
	far := w.otherBucket("other")
	l.get = func(o *backends.Object) { o.Size = sealed.Size(99) }
	q, err := w.newQuery(t.Context(), GetRequest{Bucket: w.bucket, Key: "single"})
	if err != nil {
		t.Fatal(err)
	}
	f, _, err := q.source()
	if err != nil {
		t.Fatal(err)
	}
	c := &copying{query: q, f: f, store: w.store, id: idOf(far, "copy", ""), opts: &backends.PutOptions{}}
	_, err = c.stream(t.Context())
	wantErr(t, "a copy through the gateway", err, sealed.ErrCorrupt)
}

func TestARangeOfAKnownObjectKeepsItsConditions(t *testing.T) {
	w := newWorld(t)
	w.upload("key", []int{1, 2}, [][]byte{noise(5 * mib), noise(9)})
	first := &ByteRange{First: 0, Last: 9}
	w.mustGet(GetRequest{Key: "key", Range: first}) // its table is known now
	_, _, err := w.get(GetRequest{Key: "key", Range: first, Conditions: backends.Conditions{IfMatch: []string{"another"}}})
	wantErr(t, "If-Match", err, backends.ErrPrecondition)
	_, _, err = w.get(GetRequest{Key: "key", Range: first, Conditions: backends.Conditions{IfUnmodifiedSince: time.Unix(1, 0)}})
	wantErr(t, "If-Unmodified-Since", err, backends.ErrPrecondition)
	var beyond *RangeError
	if _, _, err = w.get(GetRequest{Key: "key", Range: &ByteRange{First: 6 * mib, Last: -1}}); !errors.As(err, &beyond) || beyond.Size != 5*mib+9 {
		t.Errorf("beyond its end: got %v, want a RangeError", err)
	}
	if _, _, err := w.Head(t.Context(), GetRequest{Bucket: w.bucket, Key: "key", Range: &ByteRange{First: 6 * mib, Last: -1}}); !errors.As(err, &beyond) {
		t.Errorf("HEAD beyond its end: got %v, want a RangeError", err)
	}
	w.ring.Fail(keys.ErrBlocked)
	_, _, err = w.get(GetRequest{Key: "key", Range: first})
	wantErr(t, "when its key is blocked", err, keys.ErrBlocked)
}

func TestAPartTableIsNotUsedForAnotherObjectInOneRequest(t *testing.T) {
	w := newWorld(t)
	store := &relabelled{w.store, "0123456789abcdef0123456789abcdef"}
	writer, reader := w.Service, w.replica()
	reader.stores = map[string]backends.Store{"main": store}
	for _, seed := range []byte{1, 2} { // of one size
		data := bytes.Repeat([]byte{seed}, 20_000)
		w.Service = writer
		w.upload("same", []int{1}, [][]byte{data})
		w.Service = reader
		if got := w.mustGet(GetRequest{Key: "same", Range: &ByteRange{First: 100, Last: 17_000}}); !bytes.Equal(got, data[100:17_001]) {
			t.Errorf("object %d: got %d other bytes", seed, len(got))
		}
	}
}

// TestEmptyObjectsAreOpenedToo: there is no chunk whose tag could fail.
func TestEmptyObjectsAreOpenedToo(t *testing.T) {
	w := newWorld(t)
	w.put("a", nil)
	w.put("b", nil)
	info, err := w.store.Store.Head(t.Context(), idOf(w.bucket, "b", ""), nil)
	if err != nil {
		t.Fatal(err)
	}
	l := w.lied()
	for name, header := range map[string]string{"another's envelope": headerOf(info), "no envelope": "1.AAAA", "one letter less": headerOf(info)[1:]} {
		l.head = func(i *backends.Info) { i.Attributes.Metadata[sealed.MetadataName] = header }
		l.get = func(o *backends.Object) { l.head(&o.Info) }
		_, _, err := w.Head(t.Context(), GetRequest{Bucket: w.bucket, Key: "a"})
		want := ErrNotSealed
		if header == headerOf(info) {
			want = sealed.ErrCorrupt
		}
		wantErr(t, name+", HEAD", err, want)
		_, _, err = w.get(GetRequest{Key: "a"})
		wantErr(t, name+", GET", err, want)
		_, _, err = w.get(GetRequest{Key: "a", Range: &ByteRange{First: 1 << 40, Last: -1}})
		wantErr(t, name+", beyond its end", err, want)
	}
}

// sharing is a keyring that gives a bucket's keys out for any other.
type sharing struct {
	Keyring
	b keys.Bucket
}

func (s sharing) ByID(ctx context.Context, _ keys.Bucket, id [16]byte) (keys.BucketKey, error) {
	return s.Keyring.ByID(ctx, s.b, id)
}

func TestAnEnvelopeIsOfItsSpaceAlone(t *testing.T) {
	w := newWorld(t)
	w.put("key", []byte("data"))
	here := w.bucket
	there := here
	there.Space[0] ^= 1
	w.keys = sharing{w.keys, here}
	if got := w.mustGet(GetRequest{Key: "key"}); string(got) != "data" {
		t.Errorf("in its space: got %q", got)
	}
	w.bucket = there
	_, _, err := w.get(GetRequest{Key: "key"})
	wantErr(t, "in another space", err, sealed.ErrCorrupt)
}

func TestPlaintextIsNoMoreAndNoLessThanWasAskedFor(t *testing.T) {
	data := noise(1000)
	w := adopting(t, false, map[string][]byte{"o": data})
	w.adopt1()
	l := w.lied()
	l.get = func(o *backends.Object) { o.Body = io.NopCloser(bytes.NewReader(append(bytes.Clone(data), "more"...))) }
	if got := w.mustGet(GetRequest{Key: "o"}); !bytes.Equal(got, data) {
		t.Errorf("a longer body: got %d bytes, want %d", len(got), len(data))
	}
	l.get = func(o *backends.Object) { o.Body = io.NopCloser(bytes.NewReader(data[:999])) }
	_, _, err := w.get(GetRequest{Key: "o"})
	wantErr(t, "a shorter body", err, io.ErrUnexpectedEOF)
}

func TestACompleteThatTheStoreHasForgottenIsNotTakenForAnotherObject(t *testing.T) {
	w := newWorld(t)
	u, listed := w.uploadParts("key", []int{1}, [][]byte{noise(9)})
	l := w.lied()
	l.complete = backends.ErrUploadNotFound
	for name, put := range map[string]func(){"of a client's": func() { w.put("key", []byte("another")) }, "that is not sealed": func() {
		if _, err := w.store.Store.Put(t.Context(), idOf(w.bucket, "key", ""), backends.Body{Reader: strings.NewReader("")}, nil); err != nil {
			t.Fatal(err)
		}
	}} {
		put()
		_, err := w.Complete(t.Context(), CompleteRequest{UploadRef: u, Parts: listed, Size: -1})
		wantErr(t, "an object "+name, err, backends.ErrUploadNotFound)
	}
}

func TestCompletingAgainWantsTheSameAttempts(t *testing.T) {
	w := newWorld(t)
	u, _ := w.uploadParts("key", nil, nil)
	early, late := w.putPart(u, 1, noise(9)), w.putPart(u, 1, noise(9))
	complete := func(etag string) error {
		_, err := w.Complete(t.Context(), CompleteRequest{UploadRef: u, Parts: []CompletePart{{Number: 1, ETag: etag}}, Size: -1})
		return err
	}
	if err := complete(late.ETag); err != nil {
		t.Fatal(err)
	}
	wantErr(t, "the attempt that was taken", complete(late.ETag), nil)
	wantErr(t, "an earlier attempt", complete(early.ETag), backends.ErrUploadNotFound)
}

func TestFalsePartsAreNotBelieved(t *testing.T) {
	w := newWorld(t)
	u, put := w.uploadParts("key", []int{1, 2}, [][]byte{noise(5 * mib), noise(5*mib + 1)})
	l := w.lied()
	l.part = func(p *backends.Part) { p.Size++ }
	if listed := w.listParts(w.Service, u, 10); len(listed) != 2 || listed[0].ETag == put[0].ETag || listed[0].Checksum != nil {
		t.Errorf("parts of other sizes: listed %+v, want them without their tokens", listed)
	}
	l.part = func(p *backends.Part) { p.Size = sealed.MessageSize(321*sealed.ChunkSize) - 1 }
	_, err := w.ListParts(t.Context(), PartsRequest{UploadRef: u})
	wantErr(t, "parts of no size of ours", err, sealed.ErrCorrupt)
	l.part = func(p *backends.Part) { p.Size, p.ETag = sealed.MessageSize(sealed.MaxPartSize+1), "x" }
	_, err = w.Complete(t.Context(), CompleteRequest{UploadRef: u, Parts: []CompletePart{{Number: 1, ETag: "x"}}, Size: -1})
	wantErr(t, "a part that is too long", err, sealed.ErrRange)

	l.part = nil
	o, err := w.openUpload(t.Context(), u, true)
	if err != nil {
		t.Fatal(err)
	}
	first, _, _ := strings.Cut(put[0].ETag, "-")
	second, _, _ := strings.Cut(put[1].ETag, "-")
	known := &knownParts{upload: o}
	_, err = known.find(t.Context(), 1, first)
	wantErr(t, "its own ETag", err, nil)
	for name, etag := range map[string]string{"another part's ETag": second, "an ETag of none": strings.Repeat("0", 32)} {
		_, err := known.find(t.Context(), 1, etag)
		wantErr(t, name, err, backends.ErrInvalidPart)
	}
}

func TestAStagedPartOfAnotherSizeIsRefused(t *testing.T) {
	w := newWorld(t)
	u, listed := w.uploadParts("key", []int{1}, [][]byte{noise(9)})
	l := w.lied()
	l.get = func(o *backends.Object) {
		if strings.HasSuffix(o.Key, "00001") || o.Size == sealed.MessageSize(9) {
			o.Size++
		}
	}
	_, err := w.Complete(t.Context(), CompleteRequest{UploadRef: u, Parts: listed, Size: -1})
	wantErr(t, "one byte more", err, sealed.ErrCorrupt)
}

func TestAnUnboundPartHasNoChecksumToCompareWith(t *testing.T) {
	w := newWorld(t)
	u, put := w.uploadParts("key", []int{1}, [][]byte{[]byte("abc")})
	for _, name := range w.folder(u) {
		if strings.Contains(name, ".") {
			w.forget(u, name)
		}
	}
	etag, _, _ := strings.Cut(put[0].ETag, "-")
	part := CompletePart{Number: 1, ETag: etag + "-1", Algorithm: SHA256, Checksum: sumOf(SHA256, []byte("other"))}
	_, err := w.Complete(t.Context(), CompleteRequest{UploadRef: u, Parts: []CompletePart{part}, Size: -1})
	wantErr(t, "a checksum that nobody asked for", err, backends.ErrInvalidPart)
}

func TestAFalseTokenOfAnEmptyPartIsIgnored(t *testing.T) {
	w := newWorld(t)
	u, _ := w.uploadParts("key", []int{1}, [][]byte{nil})
	for _, name := range w.folder(u) {
		if strings.Contains(name, ".") {
			w.forget(u, name)
		}
	}
	w.plant(u, "00001."+strings.Repeat("A", 150))
	if listed := w.listParts(w.Service, u, 10); len(listed) != 1 || listed[0].Size != 0 {
		t.Errorf("listed %+v, want one empty part", listed)
	}
}

func TestAStashThatWasCutIsCorrupt(t *testing.T) {
	w := newWorld(t)
	u, _ := w.uploadParts("key", nil, nil)
	l := w.lied()
	l.get = func(o *backends.Object) { o.Body = io.NopCloser(strings.NewReader("short")) }
	_, err := w.PutPart(t.Context(), PutPartRequest{UploadRef: u, Number: 1, Body: strings.NewReader("x"), Size: 1})
	wantErr(t, "five bytes", err, sealed.ErrCorrupt)
}

func TestAnObjectWithAFalseEnvelopeIsNotAdopted(t *testing.T) {
	w := adopting(t, false, nil)
	sealedElsewhere := func(key string) {
		opts := &backends.PutOptions{Attributes: backends.Attributes{Metadata: map[string]string{sealed.MetadataName: "1.AAAA"}}}
		if _, err := w.store.Put(t.Context(), backends.ObjectID{Bucket: old, Key: key}, backends.Body{Reader: strings.NewReader("x"), Size: 1}, opts); err != nil {
			t.Fatal(err)
		}
	}
	sealedElsewhere("before")
	w.adopt1()
	sealedElsewhere("later")
	w.adopt1()
	a, _ := w.ring.Adopted("adopted")
	if a.Counts.Problems != 2 || a.Counts.Sealed+a.Counts.Already != 0 {
		t.Errorf("counted %+v, want two problems", a.Counts)
	}
	for _, key := range []string{"before", "later"} {
		if got := headerOf(w.lying(key)); got != "1.AAAA" {
			t.Errorf("%s was replaced: it has the envelope %q", key, got)
		}
	}
}

func TestAnObjectThatIsNewerThanItsRowIsNotAdopted(t *testing.T) {
	w := adopting(t, false, map[string][]byte{"o": noise(100)})
	w.adopt1()
	l := w.lied()
	l.get = func(o *backends.Object) { o.Modified = o.Modified.Add(time.Hour) }
	w.adopt1()
	a, _ := w.ring.Adopted("adopted")
	if a.Counts.Problems != 1 || a.Counts.Sealed != 0 || isSealed(w.lying("o")) {
		t.Errorf("counted %+v, want a problem and the object as it was", a.Counts)
	}
}
