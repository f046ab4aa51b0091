package backendtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"chatelaine/backends"
)

func bucketTests() map[string]func(*fixture) {
	return map[string]func(*fixture){
		"LiveFromCreateToDelete":          bucketLife,
		"AreNotDeletedWithObjectsInThem":  bucketNotEmpty,
		"AreDeletedWithUnfinishedUploads": bucketWithUpload,
		"AreReportedWhereTheyAreMissing":  bucketMissing,
		"RefuseNamesThatS3Refuses":        bucketNames,
		"AnswerCheck":                     func(f *fixture) { f.ok(f.store.Check(f.Context())) },
	}
}

func bucketLife(f *fixture) {
	ctx, name := f.Context(), bucketName()
	f.is(f.store.HeadBucket(ctx, name), backends.ErrBucketNotFound)
	f.ok(f.store.CreateBucket(ctx, name))
	f.ok(f.store.HeadBucket(ctx, name))
	f.is(f.store.CreateBucket(ctx, name), backends.ErrBucketExists)
	if i, infos := findBucket(f, name); i < 0 || infos[i].Created.IsZero() {
		f.Fatalf("ListBuckets does not have %q with a time: %v", name, infos)
	}
	f.ok(f.store.DeleteBucket(ctx, name))
	f.is(f.store.HeadBucket(ctx, name), backends.ErrBucketNotFound)
	f.is(f.store.DeleteBucket(ctx, name), backends.ErrBucketNotFound)
	if i, infos := findBucket(f, name); i >= 0 {
		f.Fatalf("ListBuckets still has %q: %v", name, infos)
	}
}

func findBucket(f *fixture, name string) (int, []backends.BucketInfo) {
	infos, err := f.store.ListBuckets(f.Context())
	f.ok(err)
	return slices.IndexFunc(infos, func(b backends.BucketInfo) bool { return b.Name == name }), infos
}

func bucketNotEmpty(f *fixture) {
	f.put("a/b/c", nil)
	f.is(f.store.DeleteBucket(f.Context(), f.bucket), backends.ErrBucketNotEmpty)
	f.holds("a/b/c", nil)
	_, err := f.store.Delete(f.Context(), f.id("a/b/c"), nil)
	f.ok(err)
	f.ok(f.store.DeleteBucket(f.Context(), f.bucket))
}

func bucketWithUpload(f *fixture) {
	if f.parts == nil {
		f.Skip("the store has no multipart uploads")
	}
	up, err := f.parts.CreateUpload(f.Context(), f.bucket, "key", backends.Attributes{})
	f.ok(err)
	_, err = f.parts.PutPart(f.Context(), up, 1, bodyOf([]byte("part")))
	f.ok(err)
	f.ok(f.store.DeleteBucket(f.Context(), f.bucket))
	f.ok(f.store.CreateBucket(f.Context(), f.bucket))
	_, err = f.parts.ListParts(f.Context(), up, 0, 0)
	f.is(err, backends.ErrUploadNotFound)
}

func bucketMissing(f *fixture) {
	f.ok(f.store.DeleteBucket(f.Context(), f.bucket))
	_, err := f.putIf("key", []byte("x"), backends.Conditions{})
	f.is(err, backends.ErrBucketNotFound)
	_, err = f.store.Get(f.Context(), f.id("key"), nil)
	f.is(err, backends.ErrBucketNotFound)
	// A HEAD has no body that could tell the two apart.
	_, err = f.store.Head(f.Context(), f.id("key"), nil)
	f.is(err, backends.ErrBucketNotFound, backends.ErrNotFound)
	_, err = f.store.Delete(f.Context(), f.id("key"), nil)
	f.is(err, backends.ErrBucketNotFound)
	_, err = f.store.List(f.Context(), f.bucket, nil)
	f.is(err, backends.ErrBucketNotFound)
	if f.parts == nil {
		return
	}
	_, err = f.parts.CreateUpload(f.Context(), f.bucket, "key", backends.Attributes{})
	f.is(err, backends.ErrBucketNotFound)
	_, err = f.parts.ListUploads(f.Context(), f.bucket, nil)
	f.is(err, backends.ErrBucketNotFound)
}

func bucketNames(f *fixture) {
	for _, name := range []string{"a", "UPPER", "under_score", "-dash", strings.Repeat("a", 64), "a..b", ".."} {
		err := f.store.CreateBucket(f.Context(), name)
		if !errors.Is(err, backends.ErrInvalidName) {
			f.Errorf("creating bucket %q: %v, want ErrInvalidName", name, err)
		}
	}
}

func objectTests() map[string]func(*fixture) {
	return map[string]func(*fixture){
		"OfAllSizesComeBackWhole":              objectSizes,
		"KeepTheirAttributes":                  objectAttributes,
		"RefuseTooMuchMetadata":                objectTooMuchMetadata,
		"AreDescribedTheSameByEveryMethod":     objectDescriptions,
		"AreReplacedAtOnce":                    objectOverwrite,
		"CanBeDeletedTwice":                    objectDelete,
		"CanBeClosedUnread":                    objectUnread,
		"StayWholeForReadersWhenTheyAreGoing":  objectReplacedWhileRead,
		"AreReportedWhereTheyAreMissing":       func(f *fixture) { f.lacks("missing"); f.lacks("a/missing/one") },
		"AreNotFoundBesideOthersOfAlmostTheir": objectNeighbours,
	}
}

func objectSizes(f *fixture) {
	const k, m = 1 << 10, 1 << 20
	sizes := []int{0, 1, 2, 15, 16*k - 1, 16 * k, 16*k + 1, 64 * k, m - 1, m, m + 1, m + 64*k, m + 64*k + 1, 5*m - 1, 5 * m, 5*m + 1, 17*m + 3}
	for _, n := range sizes {
		data := random(n, byte(n))
		f.put("object", data)
		f.holds("object", data)
	}
}

func objectAttributes(f *fixture) {
	want := backends.Attributes{
		ContentType: "application/x-chatelaine; v=1",
		Metadata:    map[string]string{"cho1": "1." + strings.Repeat("Az09-_", 300), "other-name": "a value with spaces, \"quotes\" and ~"},
	}
	_, err := f.store.Put(f.Context(), f.id("key"), bodyOf([]byte("x")), &backends.PutOptions{Attributes: want})
	f.ok(err)
	o, _ := f.read("key", nil)
	info, err := f.store.Head(f.Context(), f.id("key"), nil)
	f.ok(err)
	for _, got := range []backends.Attributes{o.Attributes, info.Attributes} {
		if got.ContentType != want.ContentType || !maps.Equal(got.Metadata, want.Metadata) {
			f.Errorf("got attributes %v, want %v", got, want)
		}
	}
	f.put("key", nil)
	if o, _ = f.read("key", nil); len(o.Attributes.Metadata) != 0 {
		f.Errorf("metadata %v of the object before", o.Attributes.Metadata)
	}
}

func objectTooMuchMetadata(f *fixture) {
	attrs := backends.Attributes{Metadata: map[string]string{"cho1": strings.Repeat("x", 3000)}}
	_, err := f.store.Put(f.Context(), f.id("key"), bodyOf([]byte("x")), &backends.PutOptions{Attributes: attrs})
	f.is(err, backends.ErrTooLarge)
	f.lacks("key")
}

func objectDescriptions(f *fixture) {
	w := f.put("some/key", []byte("hello"))
	o, _ := f.read("some/key", nil)
	info, err := f.store.Head(f.Context(), f.id("some/key"), nil)
	f.ok(err)
	page, err := f.store.List(f.Context(), f.bucket, nil)
	f.ok(err)
	if len(page.Entries) != 1 || page.Truncated {
		f.Fatalf("a page of %d entries, truncated: %v; want 1, false", len(page.Entries), page.Truncated)
	}
	for from, got := range map[string]backends.Info{"Get": o.Info, "Head": info, "List": page.Entries[0]} {
		if got.Key != "some/key" || got.Size != 5 || got.ETag != w.ETag || got.ETag == "" || strings.Contains(got.ETag, `"`) {
			f.Errorf("%s says %+v, want key some/key, size 5, ETag %q without quotes", from, got, w.ETag)
		}
		// Last-Modified has whole seconds, a listing has more.
		if d := got.Modified.Truncate(time.Second).Sub(info.Modified.Truncate(time.Second)); d != 0 || got.Modified.IsZero() {
			f.Errorf("%s says %v, Head %v", from, got.Modified, info.Modified)
		}
	}
}

func objectOverwrite(f *fixture) {
	tags := map[string]bool{}
	for i := range 10 {
		data := random(1000*(10-i), byte(i))
		tags[f.put("key", data).ETag] = true
		f.holds("key", data)
	}
	if len(tags) != 10 {
		f.Errorf("10 different objects had %d ETags", len(tags))
	}
}

func objectDelete(f *fixture) {
	f.put("a/key", []byte("x"))
	for range 2 {
		_, err := f.store.Delete(f.Context(), f.id("a/key"), nil)
		f.ok(err)
		f.lacks("a/key")
	}
}

func objectUnread(f *fixture) {
	f.put("key", random(8<<20, 1))
	for n := range 3 {
		o, err := f.store.Get(f.Context(), f.id("key"), nil)
		f.ok(err)
		_, err = io.ReadFull(o.Body, make([]byte, n))
		f.ok(errors.Join(err, o.Body.Close()))
	}
	f.put("key", []byte("still writable"))
	f.holds("key", []byte("still writable"))
}

func objectReplacedWhileRead(f *fixture) {
	before := random(3<<20, 1)
	for name, change := range map[string]func(key string){
		"replaced": func(key string) { f.put(key, random(3<<20, 2)) },
		"deleted": func(key string) {
			_, err := f.store.Delete(f.Context(), f.id(key), nil)
			f.ok(err)
		},
	} {
		f.put(name, before)
		o, err := f.store.Get(f.Context(), f.id(name), nil)
		f.ok(err)
		change(name)
		got, err := io.ReadAll(o.Body)
		if err == nil && !bytes.Equal(got, before) {
			f.Errorf("%s while it was read: other bytes came", name)
		}
		f.ok(o.Body.Close())
	}
}

func objectNeighbours(f *fixture) {
	f.put("a/key", []byte("x"))
	for _, key := range []string{"a", "a/", "a/ke", "a/key/", "a/key2", "A/KEY", "/a/key", "a//key"} {
		if f.opts.Refuses == nil || !f.opts.Refuses(key) {
			f.lacks(key)
		}
	}
}

func bodyTests() map[string]func(*fixture) {
	tests := map[string]func(*fixture){}
	for _, size := range []int{100, 3 << 20} {
		for name, c := range brokenBodies(size) {
			tests[fmt.Sprintf("%s/%d", name, size)] = func(f *fixture) { brokenBody(f, size, c) }
		}
	}
	return tests
}

var errReader = errors.New("the reader's own error")

type broken struct {
	reader func(data []byte) io.Reader
	want   error
}

func brokenBodies(size int) map[string]broken {
	failAt := func(n int) func([]byte) io.Reader {
		return func(data []byte) io.Reader { return io.MultiReader(bytes.NewReader(data[:n]), failing{}) }
	}
	return map[string]broken{
		"FailAtOnce":            {failAt(0), errReader},
		"FailHalfWay":           {failAt(size / 2), errReader},
		"FailInPlaceOfEnding":   {failAt(size), errReader},
		"EndAtOnce":             {func([]byte) io.Reader { return strings.NewReader("") }, io.ErrUnexpectedEOF},
		"EndOneByteEarly":       {func(data []byte) io.Reader { return bytes.NewReader(data[1:]) }, io.ErrUnexpectedEOF},
		"GoOnForOneByteTooMany": {func(data []byte) io.Reader { return bytes.NewReader(append(data, 0)) }, backends.ErrLongBody},
	}
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errReader }

// brokenBody wants nothing to be stored, over nothing and over an object.
func brokenBody(f *fixture, size int, c broken) {
	data := random(size, 1)
	put := func(key string) error {
		body := backends.Body{Reader: c.reader(slices.Clone(data)), Size: int64(size)}
		_, err := f.store.Put(f.Context(), f.id(key), body, nil)
		return err
	}
	f.is(put("new"), c.want)
	f.lacks("new")
	f.put("old", []byte("before"))
	f.is(put("old"), c.want)
	f.holds("old", []byte("before"))
}

func contextTests() map[string]func(*fixture) {
	return map[string]func(*fixture){
		"EndEveryCall":             contextCancelled,
		"EndAPutWhileItsBodyMoves": contextCancelledMidway,
	}
}

func contextCancelled(f *fixture) {
	f.put("key", []byte("before"))
	ctx, cancel := context.WithCancel(f.Context())
	cancel()
	var errs []error
	add := func(err error) { errs = append(errs, err) }
	_, err := f.store.Put(ctx, f.id("key"), bodyOf([]byte("after")), nil)
	add(err)
	_, err = f.store.Get(ctx, f.id("key"), nil)
	add(err)
	_, err = f.store.Head(ctx, f.id("key"), nil)
	add(err)
	_, err = f.store.Delete(ctx, f.id("key"), nil)
	add(err)
	_, err = f.store.List(ctx, f.bucket, nil)
	add(err)
	_, err = f.store.ListBuckets(ctx)
	add(err)
	add(f.store.CreateBucket(ctx, bucketName()))
	add(f.store.DeleteBucket(ctx, f.bucket))
	add(f.store.HeadBucket(ctx, f.bucket))
	add(f.store.Check(ctx))
	for i, err := range errs {
		if !errors.Is(err, context.Canceled) {
			f.Errorf("call %d of the test under a cancelled context: %v", i, err)
		}
	}
	f.holds("key", []byte("before"))
}

// cancelling cancels a context when left bytes of it have been read, and is slow from then
// on: a store that has all of a body may keep it, whatever becomes of who sent it.
type cancelling struct {
	io.Reader
	left   int
	cancel func()
}

func (c *cancelling) Read(p []byte) (int, error) {
	if c.left <= 0 {
		c.cancel()
		time.Sleep(20 * time.Millisecond)
	}
	n, err := c.Reader.Read(p[:min(len(p), 64<<10)])
	c.left -= n
	return n, err
}

func contextCancelledMidway(f *fixture) {
	f.put("key", []byte("before"))
	data := random(4<<20, 1)
	ctx, cancel := context.WithCancel(f.Context())
	defer cancel()
	body := backends.Body{Reader: &cancelling{bytes.NewReader(data), len(data) / 2, cancel}, Size: int64(len(data))}
	_, err := f.store.Put(ctx, f.id("key"), body, nil)
	f.is(err, context.Canceled)
	f.holds("key", []byte("before"))
}

func rangeTests() map[string]func(*fixture) {
	tests := map[string]func(*fixture){}
	for _, size := range []int{0, 1, 1000, 300 << 10} {
		tests[fmt.Sprintf("Of%dBytes", size)] = func(f *fixture) { ranges(f, size) }
	}
	return tests
}

// ranges compares every form of Range with slicing.
func ranges(f *fixture, size int) {
	data := random(size, 3)
	f.put("key", data)
	n := int64(size)
	marks := []int64{0, 1, n / 2, n - 1, n, n + 1, 10 * n}
	for _, offset := range marks {
		for _, length := range append(marks, -1, 1<<62) {
			if offset >= 0 && length != 0 {
				oneRange(f, data, backends.Range{Offset: offset, Length: length})
			}
		}
		if offset > 0 {
			oneRange(f, data, backends.Range{Offset: -offset})
		}
	}
}

func oneRange(f *fixture, data []byte, r backends.Range) {
	f.Helper()
	start, end := sliceOf(r, int64(len(data)))
	o, got, err := f.tryRead("key", &backends.GetOptions{Range: &r})
	if start == end {
		var re *backends.RangeError
		if emptySuffix := len(data) == 0 && r.Offset < 0 && err == nil && len(got) == 0; emptySuffix {
			return // RFC 9110 section 14.1.2 lets it pass
		}
		if !errors.As(err, &re) || !errors.Is(err, backends.ErrRange) || re.Size != int64(len(data)) && re.Size != -1 {
			f.Errorf("%+v of %d bytes: error %v, want a RangeError", r, len(data), err)
		}
		return
	}
	if err != nil {
		f.Fatalf("%+v of %d bytes: %v", r, len(data), err)
	}
	want := backends.Range{Offset: start, Length: end - start}
	if o.Range != want || o.Size != int64(len(data)) || !bytes.Equal(got, data[start:end]) {
		f.Errorf("%+v of %d bytes: Range %+v and Size %d with %d bytes, want %+v", r, len(data), o.Range, o.Size, len(got), want)
	}
}

// sliceOf is the obvious reading of the documentation of Range.
func sliceOf(r backends.Range, n int64) (start, end int64) {
	if r.Offset < 0 {
		return max(0, n+r.Offset), n
	}
	start = min(r.Offset, n)
	if r.Length < 0 || r.Length > n-start {
		return start, n
	}
	return start, start + r.Length
}
