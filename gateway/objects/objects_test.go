package objects

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"chatelaine/backends"
	"chatelaine/gateway/keys"
	"chatelaine/gateway/sealed"
)

const mib = 1 << 20

var sizes = []int64{0, 1, 16383, 16384, 16385, 3 * 16384, mib - 1, mib, mib + 1, 5*mib - 1, 5 * mib, 5*mib + 1, 11*mib + 7}

func TestObjectsOfASinglePutComeBackWholeInOneRequestEach(t *testing.T) {
	w := newWorld(t)
	for _, n := range sizes {
		data := noise(n)
		w.store.reset()
		put := w.put("key", data)
		if got := w.store.total(); got != 1 {
			t.Errorf("%d bytes: a put took %d requests, want 1", n, got)
		}
		w.store.reset()
		stat, got, err := w.get(GetRequest{Key: "key"})
		if err != nil || !bytes.Equal(got, data) {
			t.Fatalf("%d bytes: got %d other bytes, error %v", n, len(got), err)
		}
		if calls := w.store.total(); calls != 1 {
			t.Errorf("%d bytes: a get took %d requests, want 1", n, calls)
		}
		if stat.Size != n || stat.ETag != put.ETag || stat.Parts != 0 {
			t.Errorf("%d bytes: got %+v, want the size and ETag %q", n, stat, put.ETag)
		}
	}
}

func ranges(n int64) []ByteRange {
	var out []ByteRange
	if raceEnabled {
		return []ByteRange{{0, n}, {n / 2, -1}, {-1, n/3 + 1}, {n, -1}}
	}
	offsets := []int64{0, 1, 16383, 16384, 16385, mib, 5*mib - 1, 5 * mib, n / 2, n - 16385, n - 16384, n - 1, n, n + 1, 2*n + 40000}
	for _, first := range offsets {
		if first < 0 {
			continue
		}
		out = append(out, ByteRange{first, -1}, ByteRange{-1, max(1, first)})
		for _, last := range []int64{first, first + 1, first + 16384, n - 1, n, 1 << 62} {
			if last >= first {
				out = append(out, ByteRange{first, last})
			}
		}
	}
	return out
}

// slice is what a range of data is, by plain slicing.
func slice(data []byte, r ByteRange) (want []byte, satisfiable bool) {
	n := int64(len(data))
	first, last := r.First, n-1
	if n == 0 && first < 0 {
		return data, true
	}
	if first < 0 {
		first = max(0, n-r.Last)
	} else if r.Last >= 0 {
		last = min(r.Last, n-1)
	}
	if first >= n {
		return nil, false
	}
	return data[first : last+1], true
}

func checkRanges(t *testing.T, w *world, key string, data []byte, requests int) {
	t.Helper()
	for _, r := range ranges(int64(len(data))) {
		want, ok := slice(data, r)
		w.store.reset()
		_, got, err := w.get(GetRequest{Key: key, Range: &r})
		var beyond *RangeError
		switch {
		case !ok && (!errors.As(err, &beyond) || beyond.Size != int64(len(data)) || !errors.Is(err, backends.ErrRange)):
			t.Errorf("range %v of %d bytes: got %v, want a RangeError with the size", r, len(data), err)
		case ok && (err != nil || !bytes.Equal(got, want)):
			t.Fatalf("range %v of %d bytes: got %d bytes, want %d; error %v", r, len(data), len(got), len(want), err)
		case ok && len(data) > 0 && w.store.total() > requests:
			t.Errorf("range %v of %d bytes took %d requests, want %d", r, len(data), w.store.total(), requests)
		}
	}
}

func TestRangesOfASinglePutTakeOneRequest(t *testing.T) {
	w := newWorld(t)
	for _, n := range sizes {
		data := noise(n)
		w.put("key", data)
		checkRanges(t, w, "key", data, 1)
	}
}

func TestMultipartObjectsComeBackWholeAndInRanges(t *testing.T) {
	w := newWorld(t)
	tests := []struct {
		name    string
		numbers []int
		sizes   []int64
	}{
		{"one small part", []int{1}, []int64{100}},
		{"one empty part", []int{7}, []int64{0}},
		{"one large part", []int{1}, []int64{6 * mib}},
		{"gaps and uneven cuts", []int{2, 5, 9999}, []int64{5*mib + 3, 6*mib - 1, 5 * mib}},
		{"a small last part", []int{1, 2, 4}, []int64{5 * mib, 5*mib + 16384, 1}},
		{"parts 9999 and 10000", []int{1, 9999, 10000}, []int64{5 * mib, 5*mib + 1, 6*mib + 1}},
		{"part 10000 alone", []int{10000}, []int64{5*mib + 16384}},
		{"a small part 10000", []int{1, 10000}, []int64{5 * mib, 1}},
		{"an empty last part", []int{1, 2}, []int64{5 * mib, 0}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var data []byte
			var parts [][]byte
			for i, n := range tt.sizes {
				parts = append(parts, noise(n + int64(i)<<20)[:n])
				data = append(data, parts[i]...)
			}
			done := w.upload("multi", tt.numbers, parts)
			stat, got, err := w.get(GetRequest{Key: "multi"})
			if err != nil || !bytes.Equal(got, data) {
				t.Fatalf("got %d other bytes, error %v", len(got), err)
			}
			if stat.Size != int64(len(data)) || stat.Parts != len(parts) || stat.ETag != done.ETag {
				t.Errorf("got %+v, want %d bytes, %d parts, ETag %q", stat, len(data), len(parts), done.ETag)
			}
			checkRanges(t, w, "multi", data, 1)

			cold := *w
			cold.Service = w.replica()
			if len(data) > 0 {
				if got := cold.mustGet(GetRequest{Key: "multi", Range: &ByteRange{0, 0}}); !bytes.Equal(got, data[:1]) {
					t.Errorf("through a cold gateway: got %x", got)
				}
			}
			for i, number := range tt.numbers {
				if got := w.mustGet(GetRequest{Key: "multi", Part: number}); !bytes.Equal(got, parts[i]) {
					t.Errorf("part %d: got %d other bytes", number, len(got))
				}
			}
			if _, _, err := w.get(GetRequest{Key: "multi", Part: 3}); !errors.Is(err, backends.ErrRange) {
				t.Errorf("part 3: got %v, want ErrRange", err)
			}
			listed, _ := w.List(t.Context(), ListRequest{Bucket: w.bucket})
			if len(listed.Entries) != 1 || listed.Entries[0].Size != int64(len(data)) || listed.Entries[0].ETag != done.ETag {
				t.Errorf("listed %+v, want the size and ETag", listed.Entries)
			}
			checkNothingReservedLeft(t, w)
		})
	}
}

// checkNothingReservedLeft wants no stash and no staged part.
func checkNothingReservedLeft(t *testing.T, w *world) {
	t.Helper()
	page, err := w.store.List(t.Context(), w.bucket.StoreName, &backends.ListOptions{Prefix: ReservedPrefix + "uploads/"})
	if err != nil || len(page.Entries) != 0 {
		t.Errorf("left behind: %+v, error %v", page.Entries, err)
	}
}

func TestARangeOfAReplacedMultipartObjectIsThatOfTheNewOne(t *testing.T) {
	w := newWorld(t)
	w.upload("key", []int{1, 2}, [][]byte{noise(5 * mib), noise(77)})
	w.mustGet(GetRequest{Key: "key", Range: &ByteRange{10, 20}})
	other := noise(6*mib + 1)
	w.upload("key", []int{3, 4}, [][]byte{other, noise(78)})
	if got := w.mustGet(GetRequest{Key: "key", Range: &ByteRange{10, 20}}); !bytes.Equal(got, other[10:21]) {
		t.Error("got bytes of the replaced object")
	}
	w.put("key", []byte("short"))
	if got := w.mustGet(GetRequest{Key: "key", Range: &ByteRange{1, 2}}); string(got) != "ho" {
		t.Errorf("got %q, want %q", got, "ho")
	}
}

func TestAPartUploadedAgainThroughAnotherGatewayCountsOnce(t *testing.T) {
	w := newWorld(t)
	u, err := w.CreateUpload(t.Context(), CreateUploadRequest{Bucket: w.bucket, Key: "key"})
	if err != nil {
		t.Fatal(err)
	}
	second := *w
	second.Service = w.replica()
	first, again := noise(5*mib), noise(5*mib+9)
	stale := w.putPart(u, 1, first)
	fresh := second.putPart(u, 1, again)
	small := second.putPart(u, 2, []byte("tail"))
	_, err = w.Complete(t.Context(), CompleteRequest{UploadRef: u, Size: -1, Parts: []CompletePart{{Number: 1, ETag: stale.ETag}, {Number: 2, ETag: small.ETag}}})
	if !errors.Is(err, backends.ErrInvalidPart) {
		t.Fatalf("with the ETag of the replaced part: got %v, want ErrInvalidPart", err)
	}
	if _, err = w.Complete(t.Context(), CompleteRequest{UploadRef: u, Size: -1, Parts: []CompletePart{{Number: 1, ETag: fresh.ETag}, {Number: 2, ETag: small.ETag}}}); err != nil {
		t.Fatal(err)
	}
	if got := w.mustGet(GetRequest{Key: "key"}); !bytes.Equal(got, append(again, "tail"...)) {
		t.Error("got other bytes")
	}
}

func TestCompleteRefusesWhatIsNotTheUpload(t *testing.T) {
	w := newWorld(t)
	u, listed := w.uploadParts("key", []int{1, 2, 3}, [][]byte{noise(5 * mib), noise(100), noise(5 * mib)})
	_, others := w.uploadParts("other", []int{1}, [][]byte{noise(5 * mib)})
	tests := []struct {
		name  string
		parts []CompletePart
		size  int64
		want  error
	}{
		{"no parts", nil, -1, backends.ErrInvalidPart},
		{"out of order", []CompletePart{listed[2], listed[0]}, -1, ErrPartOrder},
		{"a part twice", []CompletePart{listed[0], listed[0]}, -1, ErrPartOrder},
		{"a small part before the last", listed, -1, backends.ErrTooSmall},
		{"another upload's part", others, -1, backends.ErrInvalidPart},
		{"another number's ETag", []CompletePart{{Number: 2, ETag: listed[0].ETag}}, -1, backends.ErrInvalidPart},
		{"a part that is not there", []CompletePart{{Number: 9, ETag: "0123456789abcdef0123456789abcdef-1"}}, -1, backends.ErrInvalidPart},
		{"another size", listed[:1], 5*mib + 1, ErrSizeMismatch},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := w.Complete(t.Context(), CompleteRequest{UploadRef: u, Parts: tt.parts, Size: tt.size})
			if !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
	if _, _, err := w.Head(t.Context(), GetRequest{Bucket: w.bucket, Key: "key"}); !errors.Is(err, backends.ErrNotFound) {
		t.Errorf("after refusals there is an object: %v", err)
	}
	if _, err := w.Complete(t.Context(), CompleteRequest{UploadRef: u, Parts: listed[:1], Size: 5 * mib}); err != nil {
		t.Errorf("after refusals the upload does not complete: %v", err)
	}
}

func TestCompletingAgainGivesTheSameAnswer(t *testing.T) {
	w := newWorld(t)
	u, listed := w.uploadParts("key", []int{1, 2}, [][]byte{noise(5 * mib), noise(100)})
	again := func(parts ...CompletePart) (PutResult, error) {
		return w.Complete(t.Context(), CompleteRequest{UploadRef: u, Parts: parts, Size: -1})
	}
	first, err := again(listed...)
	if err != nil {
		t.Fatal(err)
	}
	if second, err := again(listed...); err != nil || second.ETag != first.ETag || second.Size != first.Size {
		t.Errorf("got %+v, error %v, want %+v", second, err, first)
	}
	_, others := w.uploadParts("other", []int{1, 2}, [][]byte{noise(5 * mib), noise(100)})
	for name, parts := range map[string][]CompletePart{"fewer parts": listed[:1], "no parts": nil, "another upload's parts": others} {
		if _, err := again(parts...); !errors.Is(err, backends.ErrUploadNotFound) {
			t.Errorf("%s: got %v, want ErrUploadNotFound", name, err)
		}
	}
	w.put("key", []byte("replaced"))
	if _, err := again(listed...); !errors.Is(err, backends.ErrUploadNotFound) {
		t.Errorf("after the object was replaced: got %v, want ErrUploadNotFound", err)
	}
}

func TestUploadsOfOtherNamesAreNotFound(t *testing.T) {
	w := newWorld(t)
	u, _ := w.uploadParts("key", nil, nil)
	for _, ref := range []UploadRef{{u.Bucket, "other", u.ID}, {u.Bucket, "key", "nonsense"}} {
		_, err := w.PutPart(t.Context(), PutPartRequest{UploadRef: ref, Number: 1, Body: strings.NewReader("x"), Size: 1})
		if !errors.Is(err, backends.ErrUploadNotFound) {
			t.Errorf("putting a part of %v: got %v, want ErrUploadNotFound", ref.Key, err)
		}
		if err := w.Abort(t.Context(), ref); !errors.Is(err, backends.ErrUploadNotFound) {
			t.Errorf("aborting %v: got %v, want ErrUploadNotFound", ref.Key, err)
		}
	}
	w.putPart(u, 1, []byte("staged"))
	if err := w.Abort(t.Context(), u); err != nil {
		t.Fatal(err)
	}
	checkNothingReservedLeft(t, w)
	if _, err := w.PutPart(t.Context(), PutPartRequest{UploadRef: u, Number: 1, Body: strings.NewReader("x"), Size: 1}); !errors.Is(err, backends.ErrUploadNotFound) {
		t.Errorf("after Abort: got %v, want ErrUploadNotFound", err)
	}
}

func TestFailingBodiesLeaveNothing(t *testing.T) {
	w := newWorld(t)
	bad := errors.New("the signature is wrong")
	for _, n := range []int64{0, 1, 16384, mib, 2*mib + 5} {
		tests := []struct {
			name string
			put  PutRequest
			want error
		}{
			{"refused at its end", PutRequest{Body: &failing{bytes.NewReader(noise(n)), bad}, Size: n}, bad},
			{"short", PutRequest{Body: bytes.NewReader(noise(n)), Size: n + 1}, sealed.ErrShortBody},
			{"long", PutRequest{Body: bytes.NewReader(noise(n + 1)), Size: n}, sealed.ErrLongBody},
			{"refused with a late checksum", PutRequest{Body: &failing{bytes.NewReader(noise(n)), bad}, Size: n, Late: CRC32, LateValue: func() []byte { return make([]byte, 4) }}, bad},
			{"short with a late checksum", PutRequest{Body: bytes.NewReader(noise(n)), Size: n + 1, Late: CRC32, LateValue: func() []byte { return make([]byte, 4) }}, sealed.ErrShortBody},
			{"long with a late checksum", PutRequest{Body: bytes.NewReader(noise(n + 1)), Size: n, Late: CRC32, LateValue: func() []byte { return make([]byte, 4) }}, sealed.ErrLongBody},
		}
		for _, tt := range tests {
			tt.put.Bucket, tt.put.Key = w.bucket, "key"
			if _, err := w.Put(t.Context(), tt.put); !errors.Is(err, tt.want) {
				t.Errorf("%s, %d bytes: got %v, want %v", tt.name, n, err, tt.want)
			}
			if _, _, err := w.get(GetRequest{Key: "key"}); !errors.Is(err, backends.ErrNotFound) {
				t.Fatalf("%s, %d bytes: something was stored (%v)", tt.name, n, err)
			}
		}
	}
}

func TestAttributesAndChecksumsComeBack(t *testing.T) {
	w := newWorld(t)
	attrs := Attributes{
		ContentType: "text/plain", ContentEncoding: "gzip", ContentDisposition: "inline", ContentLanguage: "de",
		CacheControl: "no-store", Expires: "Thu, 01 Dec 1994 16:00:00 GMT", Metadata: map[string]string{"a": "1", "b": "", "ü": "ö"},
	}
	for _, n := range []int64{10, mib} {
		for _, late := range []bool{false, true} {
			r := PutRequest{Bucket: w.bucket, Key: "key", Body: bytes.NewReader(noise(n)), Size: n, Attributes: attrs}
			sum := Checksum{Algorithm: SHA256, Value: noise(32)}
			if late {
				r.Late, r.LateValue = sum.Algorithm, func() []byte { return sum.Value }
			} else {
				r.Checksums = []Checksum{sum}
			}
			if _, err := w.Put(t.Context(), r); err != nil {
				t.Fatal(err)
			}
			got, _, err := w.Head(t.Context(), GetRequest{Bucket: w.bucket, Key: "key", Checksums: true})
			if err != nil {
				t.Fatal(err)
			}
			if fmt.Sprintf("%+v", got.Attributes) != fmt.Sprintf("%+v", attrs) {
				t.Errorf("%d bytes: got %+v, want %+v", n, got.Attributes, attrs)
			}
			if len(got.Checksums) != 1 || got.Checksums[0].Algorithm != SHA256 || !bytes.Equal(got.Checksums[0].Value, sum.Value) {
				t.Errorf("%d bytes, late %v: got %+v, want %+v", n, late, got.Checksums, sum)
			}
			if _, body, err := w.get(GetRequest{Key: "key", Checksums: true}); err != nil || !bytes.Equal(body, noise(n)) {
				t.Errorf("%d bytes, late %v: got other bytes, error %v", n, late, err)
			}
		}
	}
	r := PutRequest{Bucket: w.bucket, Key: "key", Body: strings.NewReader(""), Attributes: Attributes{Metadata: map[string]string{"a": strings.Repeat("x", 2000)}}}
	if _, err := w.Put(t.Context(), r); !errors.Is(err, ErrMetadataTooLarge) {
		t.Errorf("got %v, want ErrMetadataTooLarge", err)
	}
}

func TestMultipartChecksumsCombine(t *testing.T) {
	w := newWorld(t)
	parts := [][]byte{noise(5*mib + 1), noise(5 * mib), noise(1000)}
	whole := slices.Concat(parts...)
	for _, composite := range []bool{false, true} {
		for _, a := range Algorithms() {
			if !composite && !a.Combines() || composite && a == CRC64NVME {
				continue
			}
			u, err := w.CreateUpload(t.Context(), CreateUploadRequest{Bucket: w.bucket, Key: "key", Algorithm: a, Composite: composite})
			if err != nil {
				t.Fatal(err)
			}
			var listed []CompletePart
			var sums []byte
			for i, data := range parts {
				p := w.putSummedPart(u, i+1, data, a)
				if !bytes.Equal(p.Checksum.Value, sumOf(a, data)) {
					t.Errorf("%s: part %d: got %x", a, i+1, p.Checksum.Value)
				}
				sums = append(sums, p.Checksum.Value...)
				listed = append(listed, CompletePart{Number: i + 1, ETag: p.ETag, Checksum: p.Checksum.Value, Algorithm: a})
			}
			want := Checksum{Algorithm: a, Composite: composite, Value: sumOf(a, whole)}
			if composite {
				want.Value, want.Parts = sumOf(a, sums), 3
			}
			false1 := want
			false1.Value = bytes.Repeat([]byte{1}, len(want.Value))
			if _, err := w.Complete(t.Context(), CompleteRequest{UploadRef: u, Parts: listed, Size: -1, Checksum: &false1}); !errors.Is(err, ErrChecksumMismatch) {
				t.Errorf("%s: a wrong checksum: got %v", a, err)
			}
			wrong := slices.Clone(listed)
			wrong[1].Checksum = sumOf(a, []byte("other"))
			if _, err := w.Complete(t.Context(), CompleteRequest{UploadRef: u, Parts: wrong, Size: -1}); !errors.Is(err, backends.ErrInvalidPart) {
				t.Errorf("%s: a wrong part checksum: got %v", a, err)
			}
			missing := slices.Clone(listed)
			missing[1].Checksum = nil
			if _, err := w.Complete(t.Context(), CompleteRequest{UploadRef: u, Parts: missing, Size: -1}); composite && !errors.Is(err, ErrChecksumMissing) {
				t.Errorf("%s: a missing part checksum: got %v", a, err)
			} else if !composite {
				if err != nil {
					t.Errorf("%s: without a part's checksum: %v", a, err)
				}
				continue // that was the Complete
			}
			if _, err := w.Complete(t.Context(), CompleteRequest{UploadRef: u, Parts: listed, Size: -1, Checksum: &want}); err != nil {
				t.Fatalf("%s: %v", a, err)
			}
			got, _, err := w.Head(t.Context(), GetRequest{Bucket: w.bucket, Key: "key", Checksums: true})
			if err != nil || len(got.Checksums) != 1 || fmt.Sprint(got.Checksums[0]) != fmt.Sprint(want) {
				t.Errorf("%s: got %+v, want %+v, error %v", a, got.Checksums, want, err)
			}
		}
	}
}

func TestConditionsUseTheVisibleETag(t *testing.T) {
	w := newWorld(t)
	for _, upload := range []bool{false, true} {
		etag := w.put("key", []byte("one")).ETag
		if upload {
			etag = w.upload("key", []int{1}, [][]byte{[]byte("one")}).ETag
		}
		read := func(c backends.Conditions) error {
			_, _, err := w.get(GetRequest{Key: "key", Conditions: c})
			return err
		}
		write := func(ifMatch, ifNoneMatch []string) error {
			_, err := w.Put(t.Context(), PutRequest{Bucket: w.bucket, Key: "key", Body: strings.NewReader("two"), Size: 3, IfMatch: ifMatch, IfNoneMatch: ifNoneMatch})
			return err
		}
		tests := []struct {
			name      string
			got, want error
		}{
			{"read if it matches", read(backends.Conditions{IfMatch: []string{etag}}), nil},
			{"read if another matches", read(backends.Conditions{IfMatch: []string{"other"}}), backends.ErrPrecondition},
			{"read if it is none", read(backends.Conditions{IfNoneMatch: []string{etag}}), backends.ErrNotModified},
			{"read if it is not another", read(backends.Conditions{IfNoneMatch: []string{"other"}}), nil},
			{"read if modified since later", read(backends.Conditions{IfModifiedSince: time.Now().Add(time.Hour)}), backends.ErrNotModified},
			{"create where there is one", write(nil, []string{"*"}), backends.ErrPrecondition},
			{"replace another", write([]string{"other"}, nil), backends.ErrPrecondition},
			{"replace what it hides", write([]string{strings.TrimSuffix(etag, "-1")}, nil), backends.ErrPrecondition},
			{"replace it", write([]string{etag}, nil), nil},
		}
		for _, tt := range tests {
			if !errors.Is(tt.got, tt.want) {
				t.Errorf("%s (multipart %v): got %v, want %v", tt.name, upload, tt.got, tt.want)
			}
		}
	}
}

func TestVisibleETagsMapBackAndNeverLookLikeAnMD5(t *testing.T) {
	md5 := strings.Repeat("0a", 16)
	for _, etag := range []string{md5, md5 + "-1", md5 + "-1-1", md5 + "-2", strings.ToUpper(md5), "0x8D4BCC2E4835CD0", "CLGt1", "*"} {
		v := visibleETag(etag)
		if got := backendETag(v); got != etag {
			t.Errorf("%q is shown as %q, which maps to %q", etag, v, got)
		}
		if hex32(v) {
			t.Errorf("%q is shown as %q, which looks like an MD5", etag, v)
		}
	}
	if got := backendETag(md5); got == md5 {
		t.Error("an ETag that is never shown matches")
	}
}

func TestSwappedAndForeignObjectsAreRefused(t *testing.T) {
	w := newWorld(t)
	w.put("a", noise(100))
	w.put("b", noise(100))
	id := func(key string) backends.ObjectID { return idOf(w.bucket, key, "") }
	object, err := w.store.Get(t.Context(), id("a"), nil)
	if err != nil {
		t.Fatal(err)
	}
	body := backends.Body{Reader: object.Body, Size: object.Size}
	if _, err := w.store.Put(t.Context(), id("b"), body, &backends.PutOptions{Attributes: object.Attributes}); err != nil {
		t.Fatal(err)
	}
	plain := backends.Body{Reader: strings.NewReader("plaintext"), Size: 9}
	if _, err := w.store.Put(t.Context(), id("c"), plain, nil); err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]error{"b": sealed.ErrCorrupt, "c": ErrNotSealed} {
		if _, got, err := w.get(GetRequest{Key: key}); !errors.Is(err, want) || len(got) > 0 {
			t.Errorf("getting %q: got %q, error %v, want %v", key, got, err, want)
		}
		if _, _, err := w.Head(t.Context(), GetRequest{Bucket: w.bucket, Key: key}); !errors.Is(err, want) {
			t.Errorf("heading %q: got %v, want %v", key, err, want)
		}
	}
}

func TestReservedAndImpossibleNamesAreRefusedOnEveryVerb(t *testing.T) {
	w := newWorld(t)
	for key, want := range map[string]error{
		".chatelaine/x": ErrReserved, ".chatelaine/": ErrReserved, "": ErrKeyName,
		strings.Repeat("k", 1025): ErrKeyName, "a\xff": ErrKeyName,
	} {
		ref := UploadRef{Bucket: w.bucket, Key: key, ID: "u"}
		_, put := w.Put(t.Context(), PutRequest{Bucket: w.bucket, Key: key, Body: strings.NewReader("")})
		_, get := w.Get(t.Context(), GetRequest{Bucket: w.bucket, Key: key})
		_, _, head := w.Head(t.Context(), GetRequest{Bucket: w.bucket, Key: key})
		_, del := w.Delete(t.Context(), DeleteRequest{Bucket: w.bucket, Key: key})
		_, create := w.CreateUpload(t.Context(), CreateUploadRequest{Bucket: w.bucket, Key: key})
		_, part := w.PutPart(t.Context(), PutPartRequest{UploadRef: ref, Number: 1, Body: strings.NewReader("")})
		_, complete := w.Complete(t.Context(), CompleteRequest{UploadRef: ref})
		_, parts := w.ListParts(t.Context(), PartsRequest{UploadRef: ref})
		for i, err := range []error{put, get, head, del, create, part, complete, parts, w.Abort(t.Context(), ref)} {
			if !errors.Is(err, want) {
				t.Errorf("verb %d on %.20q: got %v, want %v", i, key, err, want)
			}
		}
	}
	w.put(strings.Repeat("k", 1024), []byte("longest"))
	w.put(".chatelaine", []byte("not reserved"))
}

func TestABlockedKeyEndsRunningTransfers(t *testing.T) {
	w := newWorld(t)
	w.put("key", noise(8*mib))
	reader, err := w.Get(t.Context(), GetRequest{Bucket: w.bucket, Key: "key"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = reader.Close() }()
	var got bytes.Buffer
	_, err = reader.WriteTo(writerFunc(func(p []byte) (int, error) {
		w.ring.Fail(keys.ErrBlocked)
		return got.Write(p)
	}))
	if !errors.Is(err, keys.ErrBlocked) || got.Len() >= 8*mib {
		t.Errorf("reading on: got %d bytes, error %v", got.Len(), err)
	}
	w.ring.Fail(nil)
	body := &failing{src: readerFunc(func(p []byte) (int, error) {
		w.ring.Fail(keys.ErrBlocked)
		return len(p), nil
	})}
	_, err = w.Put(t.Context(), PutRequest{Bucket: w.bucket, Key: "new", Body: body, Size: 8 * mib})
	if !errors.Is(err, keys.ErrBlocked) {
		t.Errorf("writing on: got %v, want ErrBlocked", err)
	}
	w.ring.Fail(nil)
	if _, _, err := w.get(GetRequest{Key: "new"}); !errors.Is(err, backends.ErrNotFound) {
		t.Errorf("what was being written is there: %v", err)
	}
}

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func TestOldEpochsStillOpenAndNewOnesAreMirroredFirst(t *testing.T) {
	w := newWorld(t)
	w.put("old", []byte("old"))
	w.ring.NewEpoch(w.bucket)
	w.store.reset()
	w.put("new", []byte("new"))
	w.put("new2", []byte("new"))
	if got := w.store.total(); got != 3 {
		t.Errorf("two puts under a new key took %d requests, want 3: the mirror is stored once", got)
	}
	page, err := w.store.Store.List(t.Context(), w.bucket.StoreName, &backends.ListOptions{Prefix: MirrorPrefix})
	if err != nil || len(page.Entries) != 2 {
		t.Errorf("got %d mirrors, want 2 (%v)", len(page.Entries), err)
	}
	for _, key := range []string{"old", "new"} {
		if got := w.mustGet(GetRequest{Key: key}); string(got) != key {
			t.Errorf("got %q, want %q", got, key)
		}
	}
}
