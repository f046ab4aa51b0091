package backends

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

func TestConditionsFollowThePrecedenceOfRFC9110(t *testing.T) {
	at := time.Date(2026, 11, 21, 10, 0, 0, 500e6, time.UTC)
	sec, before := at.Truncate(time.Second), at.Add(-time.Hour)
	tag, other, star := []string{"x", "e"}, []string{"x"}, []string{"*"}
	for _, c := range []struct {
		name                 string
		cond                 Conditions
		read, write, missing error
	}{
		{"none", Conditions{}, nil, nil, nil},
		{"match", Conditions{IfMatch: tag}, nil, nil, ErrNotFound},
		{"match other", Conditions{IfMatch: other}, ErrPrecondition, ErrPrecondition, ErrNotFound},
		{"match any", Conditions{IfMatch: star}, nil, nil, ErrNotFound},
		{"none match", Conditions{IfNoneMatch: tag}, ErrNotModified, ErrPrecondition, nil},
		{"none match other", Conditions{IfNoneMatch: other}, nil, nil, nil},
		{"none match any", Conditions{IfNoneMatch: star}, ErrNotModified, ErrPrecondition, nil},
		{"unmodified since that second", Conditions{IfUnmodifiedSince: sec}, nil, nil, nil},
		{"unmodified since before", Conditions{IfUnmodifiedSince: before}, ErrPrecondition, ErrPrecondition, nil},
		{"modified since that second", Conditions{IfModifiedSince: sec}, ErrNotModified, nil, nil},
		{"modified since before", Conditions{IfModifiedSince: before}, nil, nil, nil},
		{"match, and unmodified since before", Conditions{IfMatch: tag, IfUnmodifiedSince: before}, nil, nil, ErrNotFound},
		{"none match other, and modified since then", Conditions{IfNoneMatch: other, IfModifiedSince: sec}, nil, nil, nil},
		{"match other, and none match", Conditions{IfMatch: other, IfNoneMatch: tag}, ErrPrecondition, ErrPrecondition, ErrNotFound},
	} {
		if got := c.cond.CheckRead("e", at); !errors.Is(got, c.read) {
			t.Errorf("%s: reading: %v, want %v", c.name, got, c.read)
		}
		if got := c.cond.CheckWrite("e", at, true); !errors.Is(got, c.write) {
			t.Errorf("%s: writing: %v, want %v", c.name, got, c.write)
		}
		if got := c.cond.CheckWrite("", time.Time{}, false); !errors.Is(got, c.missing) {
			t.Errorf("%s: writing what is not there: %v, want %v", c.name, got, c.missing)
		}
		if c.cond.IsZero() != (c.name == "none") {
			t.Errorf("%s: IsZero is %v", c.name, c.cond.IsZero())
		}
	}
	var nm *NotModified
	if err := (Conditions{IfNoneMatch: star}).CheckRead("e", at); !errors.As(err, &nm) || nm.ETag != "e" || !nm.Modified.Equal(at) {
		t.Errorf("NotModified is %+v", nm)
	}
}

// checkClip compares Clip with marking the bytes one by one.
func checkClip(t *testing.T, r Range, size int64) {
	t.Helper()
	var want []int64
	for i := range size {
		fromStart := r.Offset >= 0 && i >= r.Offset && (r.Length < 0 || i-r.Offset < r.Length)
		fromEnd := r.Offset < 0 && r.Offset+size-i <= 0
		if fromStart || fromEnd {
			want = append(want, i)
		}
	}
	got, err := r.Clip(size)
	if len(want) == 0 {
		var re *RangeError
		if !errors.As(err, &re) || re.Size != size {
			t.Errorf("%+v of %d: %+v, %v; want a RangeError", r, size, got, err)
		}
		return
	}
	if err != nil || got != (Range{want[0], int64(len(want))}) {
		t.Errorf("%+v of %d: %+v, %v; want %d bytes from %d", r, size, got, err, len(want), want[0])
	}
}

func TestRangesClipToTheBytesThatTheyName(t *testing.T) {
	const big = 1<<63 - 1
	numbers := []int64{-big - 1, -big, -9, -8, -7, -1, 0, 1, 2, 6, 7, 8, 9, big}
	for size := range int64(9) {
		for _, offset := range numbers {
			for _, length := range numbers {
				checkClip(t, Range{offset, length}, size)
			}
		}
		if got, err := (*Range)(nil).Clip(size); err != nil || got != (Range{0, size}) {
			t.Errorf("all of %d: %+v, %v", size, got, err)
		}
	}
}

func FuzzRangeClip(f *testing.F) {
	f.Add(int64(5), int64(-1), int64(10))
	f.Add(int64(-1<<63), int64(1<<62), int64(0))
	f.Fuzz(func(t *testing.T, offset, length, size int64) {
		checkClip(t, Range{offset, length}, max(0, size)%300)
	})
}

func TestExactlyEndsOnlyWhereBodyAndSizeDo(t *testing.T) {
	own := errors.New("own")
	for _, c := range []struct {
		name string
		body Body
		want error
	}{
		{"whole", Body{strings.NewReader("hello"), 5}, nil},
		{"whole, byte by byte", Body{iotest.OneByteReader(strings.NewReader("hello")), 5}, nil},
		{"whole, EOF with data", Body{iotest.DataErrReader(strings.NewReader("hello")), 5}, nil},
		{"short", Body{strings.NewReader("hell"), 5}, io.ErrUnexpectedEOF},
		{"short, EOF with data", Body{iotest.DataErrReader(strings.NewReader("hell")), 5}, io.ErrUnexpectedEOF},
		{"long", Body{strings.NewReader("hello!"), 5}, ErrLongBody},
		{"failing", Body{io.MultiReader(strings.NewReader("he"), iotest.ErrReader(own)), 5}, own},
		{"failing at the end", Body{io.MultiReader(strings.NewReader("hello"), iotest.ErrReader(own)), 5}, own},
		{"never ending", Body{io.MultiReader(strings.NewReader("hello"), idle{}), 5}, io.ErrNoProgress},
	} {
		got, err := io.ReadAll(c.body.Exactly())
		whole := c.want == nil && err == nil && string(got) == "hello"
		broken := c.want != nil && errors.Is(err, c.want) && len(got) < 5
		if !whole && !broken {
			t.Errorf("%s: %q, %v; want %v", c.name, got, err, c.want)
		}
	}
	for _, c := range []struct {
		body Body
		ok   bool
	}{{Body{}, true}, {Body{strings.NewReader(""), 0}, true}, {Body{strings.NewReader("x"), 0}, false}, {Body{nil, 1}, false}, {Body{nil, -1}, false}} {
		if got, err := io.ReadAll(c.body.Exactly()); len(got) != 0 || (err == nil) != c.ok {
			t.Errorf("%+v: %q, %v; want success: %v", c.body, got, err, c.ok)
		}
	}
}

type idle struct{}

func (idle) Read([]byte) (int, error) { return 0, nil }

// sortedKeys is the Keys of a sorted slice.
type sortedKeys struct {
	keys  []string
	calls int
}

func (s *sortedKeys) Ceil(from string) (string, bool, error) {
	s.calls++
	i, _ := slices.BinarySearch(s.keys, from)
	if i == len(s.keys) {
		return "", false, nil
	}
	return s.keys[i], true, nil
}

func (s *sortedKeys) Info(key string) (Info, error) { return Info{Key: key}, nil }

// checkListing reads a listing in pages, each going on by token or by After, and
// compares it with going through all keys.
func checkListing(t *testing.T, keys []string, o ListOptions, byAfter bool) {
	t.Helper()
	want := obviousRows(keys, o)
	var got []string
	for {
		s := &sortedKeys{keys: keys}
		page, err := ListPage(t.Context(), s, &o)
		if err != nil {
			t.Fatal(err)
		}
		rows := pageRows(page)
		got = append(got, rows...)
		if full := len(rows) == pageLimit(o.Limit); page.Truncated && !full || s.calls > len(rows)+2 {
			t.Fatalf("%+v: a page of %d rows with %d calls, truncated: %v", o, len(rows), s.calls, page.Truncated)
		}
		if !page.Truncated {
			break
		}
		if o.Token = page.Token; byAfter {
			o.Token, o.After = "", rows[len(rows)-1][1:]
		}
	}
	if !slices.Equal(got, want) {
		t.Fatalf("%+v, by After: %v, of %q:\ngot  %q\nwant %q", o, byAfter, keys, got, want)
	}
}

func obviousRows(keys []string, o ListOptions) (rows []string) {
	for _, key := range keys {
		if !strings.HasPrefix(key, o.Prefix) {
			continue
		}
		row := "O" + key
		if i := strings.Index(key[len(o.Prefix):], o.Delimiter); o.Delimiter != "" && i >= 0 {
			row = "P" + key[:len(o.Prefix)+i+len(o.Delimiter)]
		}
		if row[1:] > o.After && !slices.Contains(rows, row) {
			rows = append(rows, row)
		}
	}
	return rows
}

func pageRows(p *Page) (rows []string) {
	for _, e := range p.Entries {
		rows = append(rows, "O"+e.Key)
	}
	for _, c := range p.Prefixes {
		rows = append(rows, "P"+c)
	}
	slices.SortFunc(rows, func(a, b string) int { return strings.Compare(a[1:], b[1:]) })
	return rows
}

func TestListPageIsWhatGoingThroughAllKeysGives(t *testing.T) {
	keys := []string{"/", "//", "a", "a-b", "a/", "a/b", "a/b/c", "a/b/d", "a/c", "a//", "a0", "b", "b//c", "b/c", "ba", "\xff", "\xff\xff/x", "é/x"}
	slices.Sort(keys)
	for _, prefix := range []string{"", "a", "a/", "a/b", "b/", "/", "c", "\xff"} {
		for _, delimiter := range []string{"", "/", "b", "//", "\xff"} {
			for _, after := range append([]string{"", "a/a", "zz"}, keys...) {
				for limit := range 5 {
					o := ListOptions{Prefix: prefix, Delimiter: delimiter, After: after, Limit: limit}
					checkListing(t, keys, o, false)
					checkListing(t, keys, o, true)
				}
			}
		}
	}
}

func FuzzListPage(f *testing.F) {
	f.Add("a,a/b,a-b,b/c", "", "/", "", uint8(1))
	f.Add("\xff,\xff/\xff", "\xff", "\xff", "a", uint8(2))
	f.Fuzz(func(t *testing.T, list, prefix, delimiter, after string, limit uint8) {
		keys := slices.DeleteFunc(strings.Split(list, ","), func(k string) bool { return k == "" })
		slices.Sort(keys)
		o := ListOptions{Prefix: prefix, Delimiter: delimiter, After: after, Limit: int(limit)%4 + 1}
		checkListing(t, slices.Compact(keys), o, limit&4 != 0)
	})
}

func TestListPageLeavesOutWhatHasGoneAndRefusesForeignTokens(t *testing.T) {
	page, err := ListPage(t.Context(), vanishing{&sortedKeys{keys: []string{"a", "b", "c"}}}, &ListOptions{Limit: 2})
	if err != nil || len(page.Entries) != 2 || page.Entries[1].Key != "c" || page.Truncated {
		t.Errorf("got %+v, %v; want a and c", page, err)
	}
	if _, err := ListPage(t.Context(), &sortedKeys{}, &ListOptions{Token: "!"}); !errors.Is(err, ErrInvalidName) {
		t.Errorf("token !: %v", err)
	}
}

type vanishing struct{ *sortedKeys }

func (v vanishing) Info(key string) (Info, error) {
	if key == "b" {
		return Info{}, ErrNotFound
	}
	return v.sortedKeys.Info(key)
}

func TestPageUploadsIsWhatGoingThroughAllUploadsGives(t *testing.T) {
	var all []Upload
	for i, key := range []string{"a", "a/b", "a/b", "a/b", "a/c", "a\x00", "b", "b/c/d", "c"} {
		all = append(all, Upload{UploadID: UploadID{Key: key, ID: fmt.Sprint(i)}})
	}
	slices.SortFunc(all, func(a, b Upload) int { return strings.Compare(a.Key, b.Key) })
	for _, prefix := range []string{"", "a", "a/", "x"} {
		for _, delimiter := range []string{"", "/"} {
			for limit := range 6 {
				o := ListUploadsOptions{Prefix: prefix, Delimiter: delimiter, Limit: limit}
				got, want := uploadRows(t, all, o), obviousUploadRows(all, o)
				if !slices.Equal(got, want) {
					t.Errorf("%+v: got %q, want %q", o, got, want)
				}
			}
		}
	}
	page := PageUploads(slices.Clone(all), &ListUploadsOptions{KeyMarker: "a/b"})
	if page.Uploads[0].Key != "a/c" {
		t.Errorf("a key marker alone goes on at %q, want a/c", page.Uploads[0].Key)
	}
}

func uploadRows(t *testing.T, all []Upload, o ListUploadsOptions) (rows []string) {
	t.Helper()
	all = slices.Clone(all)
	slices.Reverse(all)
	for range 100 {
		page := PageUploads(all, &o)
		n := len(page.Uploads) + len(page.Prefixes)
		if n > pageLimit(o.Limit) || page.Truncated && n < pageLimit(o.Limit) {
			t.Fatalf("%+v: %d rows", o, n)
		}
		for _, u := range page.Uploads {
			rows = append(rows, u.Key+" "+u.ID)
		}
		rows = append(rows, page.Prefixes...)
		if !page.Truncated {
			slices.Sort(rows)
			return rows
		}
		o.KeyMarker, o.IDMarker = page.NextKey, page.NextIDMarker
	}
	t.Fatalf("%+v: there is no end to it", o)
	return nil
}

func obviousUploadRows(all []Upload, o ListUploadsOptions) (rows []string) {
	for _, u := range all {
		row := u.Key + " " + u.ID
		if common, ok := RollUp(u.Key, o.Prefix, o.Delimiter); ok {
			row = common
		}
		if strings.HasPrefix(u.Key, o.Prefix) && !slices.Contains(rows, row) {
			rows = append(rows, row)
		}
	}
	slices.Sort(rows)
	return rows
}

func TestPagePartsGoesOnAboveTheMarker(t *testing.T) {
	parts := []Part{{Number: 2}, {Number: 5}, {Number: 9}}
	for _, c := range []struct {
		after, limit int
		want         []int
		next         int
	}{
		{0, 0, []int{2, 5, 9}, 0},
		{0, 3, []int{2, 5, 9}, 0},
		{0, 2, []int{2, 5}, 5},
		{2, 1, []int{5}, 5},
		{5, 1, []int{9}, 0},
		{4, 0, []int{5, 9}, 0},
		{9, 0, nil, 0},
	} {
		page := PageParts(parts, c.after, c.limit)
		var got []int
		for _, p := range page.Parts {
			got = append(got, p.Number)
		}
		if !slices.Equal(got, c.want) || page.Next != c.next {
			t.Errorf("after %d, limit %d: %v and %d, want %v and %d", c.after, c.limit, got, page.Next, c.want, c.next)
		}
	}
}

func TestCheckPartsWantsWhatS3Wants(t *testing.T) {
	have := map[int]Part{1: {Number: 1, ETag: "a", Size: MinPart}, 2: {Number: 2, ETag: "b", Size: 1}, 3: {Number: 3, ETag: "c", Size: 1}}
	part := func(n int, etag string) Part { return Part{Number: n, ETag: etag} }
	for name, c := range map[string]struct {
		parts []Part
		want  error
	}{
		"good":        {[]Part{part(1, "a"), part(3, "c")}, nil},
		"none":        {nil, ErrInvalidPart},
		"wrong ETag":  {[]Part{part(1, "b")}, ErrInvalidPart},
		"missing":     {[]Part{part(4, "")}, ErrInvalidPart},
		"twice":       {[]Part{part(1, "a"), part(1, "a")}, ErrInvalidPart},
		"wrong order": {[]Part{part(2, "b"), part(1, "a")}, ErrInvalidPart},
		"too small":   {[]Part{part(2, "b"), part(3, "c")}, ErrTooSmall},
	} {
		got, err := CheckParts(c.parts, have)
		if !errors.Is(err, c.want) || (c.want == nil) != (err == nil) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
		if err == nil && (len(got) != len(c.parts) || got[0].Size != MinPart) {
			t.Errorf("%s: got %+v", name, got)
		}
	}
}

func TestNamesAndAttributesAreThoseOfS3(t *testing.T) {
	for name, want := range map[string]bool{
		"abc": true, "a-b.c": true, "123": true, strings.Repeat("a", 63): true, "1.2.3.4.5": true, "xn--a": true,
		"": false, "ab": false, strings.Repeat("a", 64): false, "Abc": false, "a_b": false, "-ab": false, "ab-": false, ".ab": false,
		"a..b": false, "...": false, "a/b": false, "a b": false, "é12": false, "1.2.3.4": false, "ab\n": false,
	} {
		if err := CheckBucket(name); (err == nil) != want || err != nil && !errors.Is(err, ErrInvalidName) {
			t.Errorf("bucket %q: %v, want success: %v", name, err, want)
		}
	}
	for key, want := range map[string]bool{"a": true, "..": true, "\n": true, strings.Repeat("é", 512): true, "": false, strings.Repeat("a", 1025): false, "\xff": false} {
		if err := CheckKey(key); (err == nil) != want || err != nil && !errors.Is(err, ErrInvalidName) {
			t.Errorf("key %.10q: %v, want success: %v", key, err, want)
		}
	}
	for _, c := range []struct {
		metadata map[string]string
		want     error
	}{
		{map[string]string{"cho1": strings.Repeat("x", 2044)}, nil},
		{map[string]string{"cho1": strings.Repeat("x", 2045)}, ErrTooLarge},
		{map[string]string{"Cho1": "x"}, ErrInvalidName},
		{map[string]string{"": "x"}, ErrInvalidName},
		{map[string]string{"a b": "x"}, ErrInvalidName},
		{map[string]string{"a": "x\r\ny"}, ErrInvalidName},
		{map[string]string{"a": "é"}, ErrInvalidName},
	} {
		if err := (Attributes{Metadata: c.metadata}).Check(); !errors.Is(err, c.want) || (c.want == nil) != (err == nil) {
			t.Errorf("metadata %.40v: %v, want %v", c.metadata, err, c.want)
		}
	}
}

func TestAsFindsCapabilitiesBeneathDecorators(t *testing.T) {
	inner := capable{}
	if got, ok := As[interface{ Capability() string }](wrapper{wrapper{inner}}); !ok || got.Capability() != "yes" {
		t.Errorf("got %v, %v", got, ok)
	}
	if _, ok := As[Multiparter](wrapper{inner}); ok {
		t.Error("found what is not there")
	}
}

type capable struct{ Store }

func (capable) Capability() string { return "yes" }

type wrapper struct{ Store }

func (w wrapper) Unwrap() Store { return w.Store }
