package probe

import (
	"fmt"
	"slices"
	"sort"
	"strings"

	"chatelaine/backends"
)

func (p *prober) keyTrials() []trial {
	return []trial{
		{name: "keys-unicode", must: true, refuses: "objects would stand for each other", try: func() (Result, string) {
			return p.apart("é", "e\u0301", "日本語", "a b", "a+b", "a%2Fb", "a%20b", "A", "a")
		}},
		{name: "keys-long", refuses: "keys that the store refuses: KeyTooLong or InvalidArgument", try: p.longKeys},
		{name: "keys-slashes", relied: true, refuses: "keys with //, . or .. between slashes", try: func() (Result, string) {
			return p.apart("s/x", "s//x", "s/./x", "s/y/../x", "s/x/")
		}},
		{name: "keys-leading-slash", relied: true, refuses: "keys that begin with a slash", try: p.leadingSlash},
		{name: "keys-folders", refuses: "a key below another key, such as a/b beside a", try: func() (Result, string) {
			return p.apart("f", "f/x", "f/x/y")
		}},
		{name: "keys-markers", refuses: "keys that end with a slash", try: func() (Result, string) { return p.apart("marker/") }},
	}
}

// apart puts all keys, and wants each to have its own bytes afterwards.
func (p *prober) apart(keys ...string) (Result, string) {
	var refused, taken []string
	for _, key := range keys {
		if _, err := p.put(key, []byte(key)); err != nil {
			refused = append(refused, fmt.Sprintf("%q", key))
			continue
		}
		taken = append(taken, key)
	}
	for _, key := range taken {
		if wrong := p.holds(key, []byte(key)); wrong != "" {
			return Ignored, fmt.Sprintf("%q: %s", key, wrong)
		}
	}
	if len(refused) > 0 {
		return No, "refused: " + strings.Join(refused, " ")
	}
	return Yes, ""
}

// leadingSlash needs a bucket of its own, as its keys cannot be below a prefix.
func (p *prober) leadingSlash() (Result, string) {
	if !p.own {
		return Untried, "not in a bucket that somebody else has"
	}
	at := func(key string) backends.ObjectID { return backends.ObjectID{Bucket: p.bucket, Key: key} }
	for _, key := range []string{"slash", "/slash"} {
		if _, err := p.Store.Put(p.ctx, at(key), body([]byte(key)), nil); err != nil {
			return failed(fmt.Sprintf("putting %q", key), err)
		}
	}
	for _, key := range []string{"slash", "/slash"} {
		if _, data, err := p.read(at(key), nil); err != nil || string(data) != key {
			return Ignored, fmt.Sprintf("%q and %q are one object", "slash", "/slash")
		}
	}
	return Yes, ""
}

func (p *prober) longKeys() (Result, string) {
	flat := strings.Repeat("k", backends.MaxKey-len(p.prefix))
	deep := strings.Repeat("0123456789abcde/", backends.MaxKey/16)[:backends.MaxKey-len(p.prefix)-1] + "x"
	result, detail := p.apart(flat, deep)
	if result != No {
		return result, detail
	}
	return No, p.longest(flat) + ", " + p.longest(deep)
}

// longest says how much of key the store takes. What it takes of one length it takes of
// every shorter one, or the answer is merely one that it takes.
func (p *prober) longest(key string) string {
	what := "one segment"
	if strings.Contains(key, "/") {
		what = "segments of 15"
	}
	refused := sort.Search(len(key), func(n int) bool {
		name := strings.TrimSuffix(key[:n+1], "/")
		_, err := p.put(name, []byte("x"))
		if err == nil { // a shorter one may be this one's folder
			_, err = p.Store.Delete(p.ctx, p.id(name), nil)
		}
		return err != nil
	})
	return fmt.Sprintf("%s: at most %d bytes with the trial's prefix", what, len(p.prefix)+refused)
}

func (p *prober) listTrials() []trial {
	return []trial{
		{name: "list", must: true, refuses: "listings would be wrong", try: p.list},
		{name: "list-after-write", must: true, refuses: "listings would miss objects", try: p.listAfterWrite},
	}
}

func (p *prober) listed(prefix, delimiter string, limit int) (rows []string, err error) {
	opts := &backends.ListOptions{Prefix: p.prefix + prefix, Delimiter: delimiter, Limit: limit}
	for range 100 {
		page, err := p.Store.List(p.ctx, p.bucket, opts)
		if err != nil {
			return nil, err
		}
		for _, e := range page.Entries {
			rows = append(rows, strings.TrimPrefix(e.Key, p.prefix))
		}
		for _, common := range page.Prefixes {
			rows = append(rows, strings.TrimPrefix(common, p.prefix))
		}
		if !page.Truncated {
			return rows, nil
		}
		opts.Token = page.Token
	}
	return nil, fmt.Errorf("probe: listing %q: there is no end to it", prefix)
}

func (p *prober) list() (Result, string) {
	keys := []string{"l/B", "l/a-1", "l/a.2", "l/b", "l/c/1", "l/c/2", "l/é"}
	for _, key := range keys {
		if _, err := p.put(key, nil); err != nil {
			return failed("putting", err)
		}
	}
	for _, limit := range []int{0, 1, 3} {
		got, err := p.listed("l/", "", limit)
		if err != nil {
			return failed("listing", err)
		}
		if !slices.Equal(got, keys) {
			return No, fmt.Sprintf("pages of %d have %q, want %q", limit, got, keys)
		}
		got, err = p.listed("l/", "/", limit)
		if err != nil {
			return failed("listing", err)
		}
		slices.Sort(got)
		if want := []string{"l/B", "l/a-1", "l/a.2", "l/b", "l/c/", "l/é"}; !slices.Equal(got, want) {
			return No, fmt.Sprintf("with a delimiter, pages of %d have %q, want %q", limit, got, want)
		}
	}
	return Yes, "in the order of bytes, in pages of 1, 3 and all"
}

func (p *prober) listAfterWrite() (Result, string) {
	for i := range 10 {
		key := fmt.Sprint("fresh/", i)
		if _, err := p.put(key, nil); err != nil {
			return failed("putting", err)
		}
		if got, err := p.listed("fresh/", "", 0); err != nil || !slices.Contains(got, key) {
			return No, fmt.Sprintf("a new object is not listed: %v", err)
		}
		if _, err := p.Store.Delete(p.ctx, p.id(key), nil); err != nil {
			return failed("deleting", err)
		}
		if got, err := p.listed("fresh/", "", 0); err != nil || slices.Contains(got, key) {
			return No, fmt.Sprintf("a deleted object is listed: %v", err)
		}
	}
	return Yes, "ten times in a row"
}
