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

	"chatelaine/backends"
)

const minPart = 5 << 20 // of S3

func multipartTests() map[string]func(*fixture) {
	return map[string]func(*fixture){
		"PutsPartsTogetherInTheOrderOfNumbers":  partsInOrder,
		"TakesNumbersWithGaps":                  partsWithGaps,
		"CountsThePartThatCameLast":             partsAgain,
		"CanBeOfOneEmptyPart":                   partsEmpty,
		"KnowsOnlyItsOwnUploads":                partsUnknownUpload,
		"RefusesPartsThatAreNotThere":           partsInvalid,
		"RefusesSmallPartsButTheLast":           partsTooSmall,
		"RefusesNumbersOutOfBounds":             partsNumbers,
		"CompletesOnce":                         partsTwice,
		"ListsPartsInPages":                     partsListed,
		"ListsUploadsInPages":                   uploadsListed,
		"AbortsWithoutATrace":                   partsAborted,
		"StoresNoPartOfABrokenBody":             partsBroken,
		"IsNotConfusedByPartsDuringComplete":    partsDuringComplete,
		"StaysWholeForReadersWhenItIsGoing":     partsReplacedWhileRead,
		"HasOneWinnerOfManyConditionalComplete": partsConcurrentCompletes,
		"EndsWithItsContext":                    partsCancelled,
		"TakesBodiesOfAtLeastAPart":             partsMaxPut,
	}
}

// upload makes an upload of these parts, numbered from 1.
func (f *fixture) upload(key string, data ...[]byte) (backends.UploadID, []backends.Part) {
	f.Helper()
	up, err := f.parts.CreateUpload(f.Context(), f.bucket, key, backends.Attributes{})
	f.ok(err)
	parts := make([]backends.Part, len(data))
	for i, d := range data {
		parts[i] = f.part(up, i+1, d)
	}
	return up, parts
}

func (f *fixture) part(up backends.UploadID, number int, data []byte) backends.Part {
	f.Helper()
	p, err := f.parts.PutPart(f.Context(), up, number, bodyOf(data))
	f.ok(err)
	if p.Number != number || p.ETag == "" || p.Size != int64(len(data)) {
		f.Fatalf("part %d of %d bytes is described as %+v", number, len(data), p)
	}
	return p
}

func (f *fixture) complete(up backends.UploadID, parts []backends.Part) (backends.Written, error) {
	return f.parts.Complete(f.Context(), up, parts, backends.Conditions{})
}

func partsInOrder(f *fixture) {
	attrs := backends.Attributes{ContentType: "x/y", Metadata: map[string]string{"cho1": "envelope"}}
	up, err := f.parts.CreateUpload(f.Context(), f.bucket, "a/key", attrs)
	f.ok(err)
	f.lacks("a/key")
	data := [][]byte{random(minPart, 1), random(minPart+1, 2), random(100, 3)}
	parts := make([]backends.Part, 3)
	for _, i := range []int{2, 0, 1} {
		parts[i] = f.part(up, i+1, data[i])
	}
	f.lacks("a/key")
	w, err := f.complete(up, parts)
	f.ok(err)
	whole := bytes.Join(data, nil)
	f.holds("a/key", whole)
	info, err := f.store.Head(f.Context(), f.id("a/key"), nil)
	f.ok(err)
	if info.ETag != w.ETag || info.Attributes.ContentType != "x/y" || !maps.Equal(info.Attributes.Metadata, attrs.Metadata) {
		f.Errorf("Head says %+v, want ETag %s and %+v", info, w.ETag, attrs)
	}
	partsRanges(f, "a/key", whole)
}

// partsRanges reads ranges around the borders of the parts.
func partsRanges(f *fixture, key string, data []byte) {
	f.Helper()
	n := int64(len(data))
	for _, border := range []int64{0, minPart, 2*minPart + 1, n} {
		for _, r := range [][2]int64{{border - 1, 2}, {border, 1}, {border - 10, 20}, {border, -1}, {border - 1, minPart + 3}, {border - n - 1, 0}} {
			r := backends.Range{Offset: r[0], Length: r[1]}
			start, end := sliceOf(r, n)
			if start == end || r.Offset < 0 && r.Length != 0 {
				continue
			}
			o, got := f.read(key, &backends.GetOptions{Range: &r})
			if !bytes.Equal(got, data[start:end]) || o.Range.Offset != start {
				f.Errorf("range %+v: other bytes than [%d,%d)", r, start, end)
			}
		}
	}
}

func partsWithGaps(f *fixture) {
	up, _ := f.upload("key")
	data := [][]byte{random(minPart, 1), random(minPart, 2), random(1, 3)}
	var parts []backends.Part
	for i, number := range []int{2, 7, 10000} {
		parts = append(parts, f.part(up, number, data[i]))
	}
	if !f.opts.NamesAllParts {
		f.part(up, 5, []byte("this one is not named"))
	}
	_, err := f.complete(up, parts)
	f.ok(err)
	f.holds("key", bytes.Join(data, nil))
}

func partsAgain(f *fixture) {
	up, old := f.upload("key", []byte("first attempt"))
	again := f.part(up, 1, []byte("second"))
	_, err := f.complete(up, old)
	f.is(err, backends.ErrInvalidPart)
	_, err = f.complete(up, []backends.Part{again})
	f.ok(err)
	f.holds("key", []byte("second"))
}

func partsEmpty(f *fixture) {
	up, parts := f.upload("key", nil)
	_, err := f.complete(up, parts)
	f.ok(err)
	f.holds("key", nil)
}

func partsUnknownUpload(f *fixture) {
	up, parts := f.upload("key", []byte("x"))
	other := up
	other.Key = "other"
	for _, id := range []backends.UploadID{
		other,
		{Bucket: f.bucket, Key: "key", ID: "0000000000000000ffffffffffffffff"},
		{Bucket: f.bucket, Key: "key", ID: "../" + up.ID},
	} {
		_, err := f.parts.PutPart(f.Context(), id, 1, bodyOf([]byte("y")))
		f.is(err, backends.ErrUploadNotFound)
		f.completesUnknown(id, parts)
		_, err = f.parts.ListParts(f.Context(), id, 0, 0)
		f.is(err, backends.ErrUploadNotFound)
		f.abortsUnknown(id)
	}
	_, err := f.complete(up, parts)
	f.ok(err)
	f.holds("key", []byte("x"))
}

func partsInvalid(f *fixture) {
	up, parts := f.upload("key", random(minPart, 1), random(minPart, 2))
	wrong := parts[1]
	wrong.ETag = "00000000000000000000000000000000"
	missing := parts[1]
	missing.Number = 3
	for name, named := range map[string][]backends.Part{
		"another ETag":    {parts[0], wrong},
		"a missing part":  {parts[0], missing},
		"the wrong order": {parts[1], parts[0]},
		"one part twice":  {parts[0], parts[0]},
		"no part at all":  {},
	} {
		if _, err := f.complete(up, named); !errors.Is(err, backends.ErrInvalidPart) {
			f.Errorf("completing with %s: %v, want ErrInvalidPart", name, err)
		}
		f.lacks("key")
	}
	_, err := f.complete(up, parts)
	f.ok(err)
}

func partsTooSmall(f *fixture) {
	up, parts := f.upload("key", random(minPart-1, 1), []byte("last"))
	_, err := f.complete(up, parts)
	f.is(err, backends.ErrTooSmall)
	f.lacks("key")
	if f.opts.NamesAllParts {
		_, err = f.complete(up, parts[1:])
		f.is(err, backends.ErrInvalidPart)
		f.lacks("key")
		return
	}
	_, err = f.complete(up, parts[1:])
	f.ok(err)
	f.holds("key", []byte("last"))
}

func partsNumbers(f *fixture) {
	up, _ := f.upload("key")
	for _, number := range []int{-1, 0, 10001} {
		if _, err := f.parts.PutPart(f.Context(), up, number, bodyOf([]byte("x"))); err == nil {
			f.Errorf("part %d was taken", number)
		}
	}
	f.ok(f.parts.Abort(f.Context(), up))
}

// partsTwice allows what S3 does: the same answer again.
func partsTwice(f *fixture) {
	up, parts := f.upload("key", []byte("x"))
	w, err := f.complete(up, parts)
	f.ok(err)
	w2, err := f.complete(up, parts)
	if err == nil && w2.ETag != w.ETag {
		f.Errorf("completed twice, with ETags %s and %s", w.ETag, w2.ETag)
	}
	f.is(err, nil, backends.ErrUploadNotFound)
	_, err = f.parts.PutPart(f.Context(), up, 2, bodyOf([]byte("y")))
	f.is(err, backends.ErrUploadNotFound)
	f.is(f.parts.Abort(f.Context(), up), nil, backends.ErrUploadNotFound) // 204 on S3
	f.holds("key", []byte("x"))
}

func partsListed(f *fixture) {
	up, _ := f.upload("key")
	var want []backends.Part
	for _, number := range []int{1, 2, 3, 9, 10, 11, 100, 9999} {
		want = append(want, f.part(up, number, random(number, 1)))
	}
	for limit := range 10 {
		var got []backends.Part
		for after, more := 0, true; more; more = after != 0 {
			page, err := f.parts.ListParts(f.Context(), up, after, limit)
			f.ok(err)
			if limit > 0 && len(page.Parts) > limit {
				f.Fatalf("a page of %d parts, limit %d", len(page.Parts), limit)
			}
			got, after = append(got, page.Parts...), page.Next
		}
		same := func(a, b backends.Part) bool {
			return a.Number == b.Number && a.ETag == b.ETag && a.Size == b.Size && !a.Modified.IsZero()
		}
		if !slices.EqualFunc(got, want, same) {
			f.Errorf("limit %d: got %v, want %v", limit, got, want)
		}
	}
	f.ok(f.parts.Abort(f.Context(), up))
}

func uploadsListed(f *fixture) {
	var want []string
	for _, key := range []string{"a", "a/b", "a/b", "a/c", "b", "b/c/d", "c d+é"} {
		if f.opts.UploadsByKeyOnly {
			key = strings.ReplaceAll(key, "a/b", "a-b")
		}
		up, _ := f.upload(key)
		want = append(want, "O "+key+" "+up.ID)
	}
	if f.opts.UploadsByKeyOnly {
		got := f.uploadRows(backends.ListUploadsOptions{Prefix: "b"})
		if !slices.Equal(got, want[4:5]) {
			f.Errorf("got %q, want %q", got, want[4:5])
		}
		return
	}
	if f.opts.UploadsInOnePage {
		f.uploadsListedAtOnce(want)
		return
	}
	for limit := range 8 {
		if got := f.uploadRows(backends.ListUploadsOptions{Limit: limit}); !slices.Equal(got, want) {
			f.Errorf("limit %d: got %q, want %q", limit, got, want)
		}
		if got := f.uploadRows(backends.ListUploadsOptions{Limit: limit, Prefix: "a/"}); !slices.Equal(got, want[1:4]) {
			f.Errorf("limit %d, prefix a/: got %q, want %q", limit, got, want[1:4])
		}
		rolled := []string{want[0], "P a/", want[4], "P b/", want[6]}
		if got := f.uploadRows(backends.ListUploadsOptions{Limit: limit, Delimiter: "/"}); !slices.Equal(got, rolled) {
			f.Errorf("limit %d, delimiter /: got %q, want %q", limit, got, rolled)
		}
	}
	if got := f.uploadRows(backends.ListUploadsOptions{KeyMarker: "a/b"}); !slices.Equal(got, want[3:]) {
		f.Errorf("above key a/b: got %q, want %q", got, want[3:])
	}
}

// uploadsListedAtOnce is for stores whose rows of one key come in any order.
func (f *fixture) uploadsListedAtOnce(want []string) {
	f.Helper()
	for prefix, want := range map[string][]string{"": want, "a/": want[1:4], "b": want[4:6]} {
		got := f.uploadRows(backends.ListUploadsOptions{Prefix: prefix})
		slices.Sort(got)
		if want = slices.Sorted(slices.Values(want)); !slices.Equal(got, want) {
			f.Errorf("prefix %q: got %q, want %q", prefix, got, want)
		}
	}
}

func (f *fixture) uploadRows(opts backends.ListUploadsOptions) (rows []string) {
	f.Helper()
	for range 100 {
		page, err := f.parts.ListUploads(f.Context(), f.bucket, &opts)
		f.ok(err)
		var got []string
		for _, u := range page.Uploads {
			if u.Started.IsZero() || u.Bucket != f.bucket {
				f.Errorf("an upload is listed as %+v", u)
			}
			got = append(got, "O "+u.Key+" "+u.ID)
		}
		for _, p := range page.Prefixes {
			got = append(got, "P "+p)
		}
		slices.SortStableFunc(got, func(a, b string) int { return strings.Compare(a[2:], b[2:]) })
		if rows = append(rows, got...); opts.Limit > 0 && len(got) > opts.Limit {
			f.Fatalf("a page of %d uploads, limit %d", len(got), opts.Limit)
		}
		if !page.Truncated {
			return rows
		}
		opts.KeyMarker, opts.IDMarker = page.NextKey, page.NextIDMarker
	}
	f.Fatal("there is no end to it")
	return nil
}

// abortsUnknown aborts an upload that is not there.
func (f *fixture) abortsUnknown(id backends.UploadID) {
	f.Helper()
	err := f.parts.Abort(f.Context(), id)
	if err != nil || !f.opts.AbortsUnknown {
		f.is(err, backends.ErrUploadNotFound)
	}
}

// completesUnknown completes an upload that is not there.
func (f *fixture) completesUnknown(id backends.UploadID, parts []backends.Part) {
	f.Helper()
	_, err := f.complete(id, parts)
	if !f.opts.FailsOnUnknown || !errors.Is(err, backends.ErrUnavailable) {
		f.is(err, backends.ErrUploadNotFound)
	}
}

func partsAborted(f *fixture) {
	up, parts := f.upload("key", random(minPart, 1))
	f.ok(f.parts.Abort(f.Context(), up))
	f.abortsUnknown(up)
	f.completesUnknown(up, parts)
	_, err := f.parts.PutPart(f.Context(), up, 1, bodyOf([]byte("x")))
	f.is(err, backends.ErrUploadNotFound)
	f.lacks("key")
	if got := f.uploadRows(backends.ListUploadsOptions{Prefix: "key"}); len(got) != 0 {
		f.Errorf("still listed: %q", got)
	}
}

func partsBroken(f *fixture) {
	const size = 1 << 20
	up, _ := f.upload("key")
	for name, c := range brokenBodies(size) {
		body := backends.Body{Reader: c.reader(random(size, 1)), Size: size}
		if _, err := f.parts.PutPart(f.Context(), up, 1, body); !errors.Is(err, c.want) {
			f.Errorf("%s: %v, want %v", name, err, c.want)
		}
		page, err := f.parts.ListParts(f.Context(), up, 0, 0)
		f.ok(err)
		if len(page.Parts) != 0 {
			f.Fatalf("%s: stored all the same: %v", name, page.Parts)
		}
	}
	f.ok(f.parts.Abort(f.Context(), up))
}

// partsDuringComplete puts the part again and again while the upload is completed:
// the object is of the part that was named, or there is none.
func partsDuringComplete(f *fixture) {
	for round := range 5 {
		key := fmt.Sprintf("key-%d", round)
		data := []byte("the part that is named")
		up, parts := f.upload(key, data)
		completed := make(chan error, 1)
		f.each(8, func(i int) error {
			if i == 4 {
				_, err := f.complete(up, parts)
				completed <- err
				return nil
			}
			_, err := f.parts.PutPart(f.Context(), up, 1, bodyOf(fmt.Appendf(nil, "another part %d", i)))
			if errors.Is(err, backends.ErrUploadNotFound) {
				return nil
			}
			return err
		})
		if err := <-completed; err == nil {
			f.holds(key, data)
		} else {
			f.is(err, backends.ErrInvalidPart)
			f.lacks(key)
			f.ok(f.parts.Abort(f.Context(), up))
		}
	}
}

func partsReplacedWhileRead(f *fixture) {
	if f.opts.ReadersBlockWriters {
		f.Skip("a reader that waits makes the writer wait")
	}
	data := [][]byte{random(minPart, 1), random(minPart, 2)}
	for name, change := range map[string]func(key string){
		"replaced": func(key string) { f.put(key, []byte("other")) },
		"deleted": func(key string) {
			_, err := f.store.Delete(f.Context(), f.id(key), nil)
			f.ok(err)
		},
	} {
		up, parts := f.upload(name, data...)
		_, err := f.complete(up, parts)
		f.ok(err)
		o, err := f.store.Get(f.Context(), f.id(name), nil)
		f.ok(err)
		_, err = io.ReadFull(o.Body, make([]byte, 10))
		f.ok(err)
		change(name)
		got, err := io.ReadAll(o.Body)
		if err == nil && !bytes.Equal(got, bytes.Join(data, nil)[10:]) {
			f.Errorf("%s while it was read: other bytes came", name)
		}
		f.ok(o.Body.Close())
	}
	f.holds("replaced", []byte("other"))
	f.lacks("deleted")
}

func partsConcurrentCompletes(f *fixture) {
	if f.opts.NoConditionalComplete {
		f.Skip("the store refuses conditions of Complete, which another test checks")
	}
	const n = 8
	won := make(chan int, n)
	ups, parts := make([]backends.UploadID, n), make([][]backends.Part, n)
	for i := range n {
		ups[i], parts[i] = f.upload("key", []byte{byte(i)})
	}
	f.each(n, func(i int) error {
		_, err := f.parts.Complete(f.Context(), ups[i], parts[i], backends.Conditions{IfNoneMatch: []string{"*"}})
		if lost(err) {
			return nil
		}
		won <- i
		return err
	})
	if len(won) != 1 {
		f.Fatalf("%d of %d completes won", len(won), n)
	}
	f.holds("key", []byte{byte(<-won)})
}

func partsCancelled(f *fixture) {
	up, parts := f.upload("key", []byte("x"))
	ctx, cancel := context.WithCancel(f.Context())
	cancel()
	var errs []error
	add := func(err error) { errs = append(errs, err) }
	_, err := f.parts.CreateUpload(ctx, f.bucket, "key", backends.Attributes{})
	add(err)
	_, err = f.parts.PutPart(ctx, up, 1, bodyOf([]byte("y")))
	add(err)
	_, err = f.parts.Complete(ctx, up, parts, backends.Conditions{})
	add(err)
	_, err = f.parts.ListParts(ctx, up, 0, 0)
	add(err)
	_, err = f.parts.ListUploads(ctx, f.bucket, nil)
	add(err)
	add(f.parts.Abort(ctx, up))
	for i, err := range errs {
		if !errors.Is(err, context.Canceled) {
			f.Errorf("call %d of the test under a cancelled context: %v", i, err)
		}
	}
	_, err = f.complete(up, parts)
	f.ok(err)
	f.holds("key", []byte("x"))
}

func partsMaxPut(f *fixture) {
	if got := f.parts.MaxPut(); got < minPart {
		f.Errorf("MaxPut is %d", got)
	}
}
