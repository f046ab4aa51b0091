package backendtest

import (
	"errors"
	"time"

	"chatelaine/backends"
)

func conditionTests() map[string]func(*fixture) {
	return map[string]func(*fixture){
		"OfGetAndHead":           readConditions,
		"OfPut":                  putConditions,
		"OfPutWhereNothingIs":    putConditionsOnNothing,
		"OfDelete":               deleteConditions,
		"OfACompleteThatReplace": completeConditions,
	}
}

// readConditions is RFC 9110 section 13.2.2 as a table. An hour is more than clocks
// are apart.
func readConditions(f *fixture) {
	w := f.put("key", []byte("x"))
	info, err := f.store.Head(f.Context(), f.id("key"), nil)
	f.ok(err)
	tag, other, star := []string{w.ETag}, []string{"00000000000000000000000000000000"}, []string{"*"}
	before, after := info.Modified.Add(-time.Hour), time.Now().Add(-time.Second)
	if info.Modified.After(after) {
		after = info.Modified
	}
	changed, same := backends.ErrPrecondition, backends.ErrNotModified
	for _, c := range []struct {
		name string
		cond backends.Conditions
		want error
	}{
		{"nothing", backends.Conditions{}, nil},
		{"If-Match", backends.Conditions{IfMatch: tag}, nil},
		{"If-Match, other", backends.Conditions{IfMatch: other}, changed},
		{"If-None-Match, other", backends.Conditions{IfNoneMatch: other}, nil},
		{"If-None-Match", backends.Conditions{IfNoneMatch: tag}, same},
		{"If-None-Match: *", backends.Conditions{IfNoneMatch: star}, same},
		{"If-Unmodified-Since, before", backends.Conditions{IfUnmodifiedSince: before}, changed},
		{"If-Unmodified-Since, now", backends.Conditions{IfUnmodifiedSince: after}, nil},
		{"If-Modified-Since, before", backends.Conditions{IfModifiedSince: before}, nil},
		{"If-Modified-Since, now", backends.Conditions{IfModifiedSince: after}, same},
		{"If-Match wins over If-Unmodified-Since", backends.Conditions{IfMatch: tag, IfUnmodifiedSince: before}, nil},
		{"If-None-Match wins over If-Modified-Since", backends.Conditions{IfNoneMatch: other, IfModifiedSince: after}, nil},
		{"If-Match comes before If-None-Match", backends.Conditions{IfMatch: other, IfNoneMatch: tag}, changed},
	} {
		opts := &backends.GetOptions{Conditions: c.cond}
		_, _, err := f.tryRead("key", opts)
		checkReadCondition(f, "Get", c.name, err, c.want, w.ETag)
		_, err = f.store.Head(f.Context(), f.id("key"), opts)
		checkReadCondition(f, "Head", c.name, err, c.want, w.ETag)
	}
}

func checkReadCondition(f *fixture, method, name string, err, want error, etag string) {
	f.Helper()
	if want == nil && err != nil || !errors.Is(err, want) {
		f.Errorf("%s with %s: %v, want %v", method, name, err, want)
	}
	var nm *backends.NotModified
	if errors.Is(err, backends.ErrNotModified) && (!errors.As(err, &nm) || nm.ETag != etag || nm.Modified.IsZero()) {
		f.Errorf("%s with %s: NotModified is %+v, want ETag %s and a time", method, name, nm, etag)
	}
}

func putConditions(f *fixture) {
	w := f.put("key", []byte("one"))
	other := []string{"00000000000000000000000000000000"}
	_, err := f.putIf("key", []byte("two"), backends.Conditions{IfNoneMatch: []string{"*"}})
	f.is(err, backends.ErrPrecondition)
	f.holds("key", []byte("one"))
	_, err = f.putIf("key", []byte("two"), backends.Conditions{IfMatch: other})
	if f.opts.NoIfMatch {
		f.is(err, backends.ErrUnsupported)
		f.holds("key", []byte("one"))
		return
	}
	f.is(err, backends.ErrPrecondition)
	f.holds("key", []byte("one"))
	_, err = f.putIf("key", []byte("two"), backends.Conditions{IfMatch: []string{w.ETag}})
	f.ok(err)
	f.holds("key", []byte("two"))
	_, err = f.putIf("key", []byte("three"), backends.Conditions{IfMatch: []string{w.ETag}})
	f.is(err, backends.ErrPrecondition)
	f.holds("key", []byte("two"))
}

func putConditionsOnNothing(f *fixture) {
	_, err := f.putIf("key", []byte("one"), backends.Conditions{IfMatch: []string{"00000000000000000000000000000000"}})
	if f.opts.NoIfMatch {
		f.is(err, backends.ErrUnsupported)
	} else {
		f.is(err, backends.ErrNotFound, backends.ErrPrecondition)
	}
	f.lacks("key")
	_, err = f.putIf("key", []byte("one"), backends.Conditions{IfNoneMatch: []string{"*"}})
	f.ok(err)
	f.holds("key", []byte("one"))
}

func deleteConditions(f *fixture) {
	w := f.put("key", []byte("one"))
	remove := func(etag string) error {
		c := backends.Conditions{IfMatch: []string{etag}}
		_, err := f.store.Delete(f.Context(), f.id("key"), &backends.DeleteOptions{Conditions: c})
		return err
	}
	if f.opts.NoConditionalDelete {
		f.is(remove(w.ETag), backends.ErrUnsupported)
		f.holds("key", []byte("one"))
		return
	}
	f.is(remove("00000000000000000000000000000000"), backends.ErrPrecondition)
	f.holds("key", []byte("one"))
	f.ok(remove(w.ETag))
	f.lacks("key")
	f.is(remove(w.ETag), backends.ErrNotFound, backends.ErrPrecondition)
}

// completeConditions wants a Complete that fails to leave the upload as it was.
func completeConditions(f *fixture) {
	if f.parts == nil {
		f.Skip("the store has no multipart uploads")
	}
	w := f.put("key", []byte("one"))
	up, parts := f.upload("key", []byte("two"))
	for i, c := range []backends.Conditions{
		{IfNoneMatch: []string{"*"}},
		{IfMatch: []string{"00000000000000000000000000000000"}},
	} {
		_, err := f.parts.Complete(f.Context(), up, parts, c)
		if f.opts.NoConditionalComplete {
			f.is(err, backends.ErrUnsupported)
		} else {
			f.is(err, backends.ErrPrecondition)
		}
		f.holds("key", []byte("one"))
		page, err := f.parts.ListParts(f.Context(), up, 0, 0)
		f.ok(err)
		if len(page.Parts) != 1 {
			f.Fatalf("after failure %d the upload has parts %v", i, page.Parts)
		}
	}
	last := backends.Conditions{IfMatch: []string{w.ETag}}
	if f.opts.NoConditionalComplete {
		last = backends.Conditions{}
	}
	_, err := f.parts.Complete(f.Context(), up, parts, last)
	f.ok(err)
	f.holds("key", []byte("two"))
}
