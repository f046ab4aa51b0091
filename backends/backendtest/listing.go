package backendtest

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"chatelaine/backends"
)

func listingTests() map[string]func(*fixture) {
	return map[string]func(*fixture){
		"OfNothingIsEmpty":                   listNothing,
		"IsTheSameInPagesOfEveryLimit":       listPages,
		"GoesOnAboveAfter":                   listAfter,
		"HasPagesOf1000WhereNoLimitIsGiven":  listDefault,
		"SeesWhatHappensBetweenPages":        listWhileChanging,
		"KnowsOnlyTheTokensThatItHasGiven":   listBadToken,
		"OfOneCommonPrefixIsNotTruncated":    listOnePrefix,
		"IsEmptyWherePrefixOrAfterIsTheLast": listBeyond,
		"HasTheMetadataOfHeadOrNone":         listMetadata,
	}
}

// listedKeys are keys that are below and beside each other in every way, without
// any that is known to be refused somewhere.
func (f *fixture) listedKeys() []string {
	keys := []string{
		"a/b", "a/b1", "a/c/d", "a/c/e", "a/c/f/g", "a-b", "a-b/c", "a.txt", "a0", "b", "b-/x", "b0/y", "c/1", "c/2", "c/3", "c/4/5/6",
		"d e/f", "d+e/f", "dé/x", "dé/ü/y", "e/f", "photos/2024/01/a.jpg", "photos/2024/01/b.jpg", "photos/2024/02/a.jpg",
		"photos/2025/01/a.jpg", "photos-2", "photos0", "z", "zz/zz", "😀/x", "\U0010ffff",
	}
	if f.opts.Merges {
		keys = slices.DeleteFunc(keys, func(k string) bool { return k == "a-b" })
	}
	slices.Sort(keys)
	return keys
}

func listPrefixes() []string {
	return []string{"", "a", "a/", "a/c", "a/c/", "b", "d", "photos", "photos/", "photos/2024/", "photos/2024/0", "none", "z", "😀", "zzzz"}
}

func (f *fixture) fill(keys []string) {
	f.Helper()
	f.each(len(keys), func(i int) error {
		_, err := f.putIf(keys[i], []byte(keys[i]), backends.Conditions{})
		return err
	})
}

// rows is the oracle: what a listing of all keys must have, in order. Common
// prefixes have a "P " before them and objects an "O ".
func rows(keys []string, opts backends.ListOptions) (rows []string) {
	for _, key := range keys {
		if !strings.HasPrefix(key, opts.Prefix) {
			continue
		}
		row := "O " + key
		if before, _, ok := strings.Cut(key[len(opts.Prefix):], opts.Delimiter); ok && opts.Delimiter != "" {
			row = "P " + opts.Prefix + before + opts.Delimiter
		}
		if row[2:] > opts.After && !slices.Contains(rows, row) {
			rows = append(rows, row)
		}
	}
	return rows
}

// rowsOf merges the rows of a page.
func rowsOf(page *backends.Page) []string {
	rows := make([]string, 0, len(page.Entries)+len(page.Prefixes))
	for _, e := range page.Entries {
		rows = append(rows, "O "+e.Key)
	}
	for _, p := range page.Prefixes {
		rows = append(rows, "P "+p)
	}
	slices.SortStableFunc(rows, func(a, b string) int { return strings.Compare(a[2:], b[2:]) })
	return rows
}

// listAll reads all pages, and checks each.
func (f *fixture) listAll(opts backends.ListOptions) (all []string) {
	f.Helper()
	for range 10000 {
		page, err := f.store.List(f.Context(), f.bucket, &opts)
		f.ok(err)
		got := rowsOf(page)
		all = append(all, got...)
		if opts.Limit > 0 && (len(got) > opts.Limit || page.Truncated && len(got) < opts.Limit) {
			f.Fatalf("%+v: a page of %d rows, truncated: %v", opts, len(got), page.Truncated)
		}
		if !page.Truncated {
			return all
		}
		if page.Token == "" || page.Token == opts.Token {
			f.Fatalf("%+v: a truncated page with token %q", opts, page.Token)
		}
		opts.Token = page.Token
	}
	f.Fatalf("%+v: there is no end to it", opts)
	return nil
}

func listNothing(f *fixture) {
	for _, opts := range []backends.ListOptions{{}, {Prefix: "a"}, {Delimiter: "/"}, {After: "a"}, {Limit: 1}} {
		page, err := f.store.List(f.Context(), f.bucket, &opts)
		f.ok(err)
		if len(page.Entries)+len(page.Prefixes) != 0 || page.Truncated {
			f.Errorf("%+v: got %+v", opts, page)
		}
	}
}

func listPages(f *fixture) {
	keys := f.listedKeys()
	f.fill(keys)
	for _, prefix := range listPrefixes() {
		for _, delimiter := range []string{"", "/"} {
			for _, limit := range []int{0, 1, 2, 3, 5, 7, 1000} {
				opts := backends.ListOptions{Prefix: prefix, Delimiter: delimiter, Limit: limit}
				if got, want := f.listAll(opts), rows(keys, opts); !slices.Equal(got, want) {
					f.Errorf("%+v: got %q,\nwant %q", opts, got, want)
				}
			}
		}
	}
}

// listAfter lists above every row and above what is just below and above it, and so
// also shows that After of the last row is the same as the page's token.
func listAfter(f *fixture) {
	keys := f.listedKeys()
	f.fill(keys)
	for _, prefix := range []string{"", "a/", "photos/"} {
		for _, delimiter := range []string{"", "/"} {
			for _, row := range rows(keys, backends.ListOptions{Prefix: prefix, Delimiter: delimiter}) {
				f.listAboveRow(keys, backends.ListOptions{Prefix: prefix, Delimiter: delimiter}, row[2:])
			}
		}
	}
	if f.opts.LooseAfter {
		return
	}
	for _, after := range []string{"a/b", "a/c/d", "photos/2024/01/a.jpg", "c/", "c/2"} {
		f.listAboveRow(keys, backends.ListOptions{Delimiter: "/"}, after)
	}
}

func (f *fixture) listAboveRow(keys []string, opts backends.ListOptions, after string) {
	f.Helper()
	for _, limit := range []int{0, 2} {
		opts.After, opts.Limit = after, limit
		if got, want := f.listAll(opts), rows(keys, opts); !slices.Equal(got, want) {
			f.Errorf("%+v: got %q,\nwant %q", opts, got, want)
		}
	}
}

func listDefault(f *fixture) {
	keys := make([]string, 1003)
	for i := range keys {
		keys[i] = fmt.Sprintf("some/key-%05d", i)
	}
	f.fill(keys)
	page, err := f.store.List(f.Context(), f.bucket, nil)
	f.ok(err)
	if got := keysOf(page.Entries); !slices.Equal(got, keys[:1000]) || !page.Truncated {
		f.Fatalf("%d entries, truncated: %v; want the first 1000, true", len(got), page.Truncated)
	}
	if got, want := f.listAll(backends.ListOptions{}), rows(keys, backends.ListOptions{}); !slices.Equal(got, want) {
		f.Fatalf("%d rows, want %d", len(got), len(want))
	}
	page, err = f.store.List(f.Context(), f.bucket, &backends.ListOptions{Prefix: "some/key-00", Limit: 1000})
	f.ok(err)
	if len(page.Entries) != 1000 || page.Truncated && !f.opts.PromisesMore {
		f.Errorf("%d entries, truncated: %v; want 1000, false", len(page.Entries), page.Truncated)
	}
}

func listWhileChanging(f *fixture) {
	f.fill([]string{"k/1", "k/2", "k/3", "k/4"})
	page, err := f.store.List(f.Context(), f.bucket, &backends.ListOptions{Limit: 2})
	f.ok(err)
	_, err = f.store.Delete(f.Context(), f.id("k/2"), nil)
	f.ok(err)
	_, err = f.store.Delete(f.Context(), f.id("k/3"), nil)
	f.ok(err)
	f.put("k/0", nil)
	f.put("k/5", nil)
	page, err = f.store.List(f.Context(), f.bucket, &backends.ListOptions{Limit: 9, Token: page.Token})
	f.ok(err)
	if got, want := keysOf(page.Entries), []string{"k/4", "k/5"}; !slices.Equal(got, want) {
		f.Errorf("got %q, want %q", got, want)
	}
}

func listBadToken(f *fixture) {
	if f.opts.TakesAnyToken {
		f.Skip("any token is one")
	}
	f.fill([]string{"a", "b"})
	page, err := f.store.List(f.Context(), f.bucket, &backends.ListOptions{Limit: 1, Token: "\x00 no token of ours \xff"})
	if err == nil && len(page.Entries) == 1 && page.Entries[0].Key == "a" {
		f.Error("a token that was never given out begins a listing anew")
	}
}

func listOnePrefix(f *fixture) {
	f.fill([]string{"a/1", "a/2", "a/3"})
	page, err := f.store.List(f.Context(), f.bucket, &backends.ListOptions{Delimiter: "/", Limit: 1})
	f.ok(err)
	if !slices.Equal(page.Prefixes, []string{"a/"}) || len(page.Entries) != 0 || page.Truncated {
		f.Errorf("got %+v, want the prefix a/ alone, not truncated", page)
	}
}

func listBeyond(f *fixture) {
	f.fill([]string{"a", "b"})
	for _, opts := range []backends.ListOptions{{After: "b"}, {After: "zzz"}, {Prefix: "zzz"}, {Prefix: "a", After: "b"}, {Prefix: "\U0010ffff"}} {
		if got := f.listAll(opts); len(got) != 0 {
			f.Errorf("%+v: got %q, want nothing", opts, got)
		}
	}
	if got := f.listAll(backends.ListOptions{Prefix: "b", After: "a"}); !slices.Equal(got, []string{"O b"}) {
		f.Errorf("prefix b after a: got %q", got)
	}
}

// listMetadata: a listing that has metadata at hand has all of it, of the object that
// it lists, and nothing else of the attributes.
func listMetadata(f *fixture) {
	attrs := func(key string) backends.Attributes {
		return backends.Attributes{ContentType: "text/x", Metadata: map[string]string{"one": "of " + key, "two": "2"}}
	}
	for _, key := range []string{"a", "a", "b"} {
		_, err := f.store.Put(f.Context(), f.id(key), bodyOf(nil), &backends.PutOptions{Attributes: attrs(key)})
		f.ok(err)
	}
	page, err := f.store.List(f.Context(), f.bucket, nil)
	f.ok(err)
	for _, e := range page.Entries {
		if got := e.Attributes; got.Metadata != nil && !maps.Equal(got.Metadata, attrs(e.Key).Metadata) || got.ContentType != "" {
			f.Errorf("%q: got %+v, want no attributes, or all of its metadata alone", e.Key, got)
		}
	}
}
