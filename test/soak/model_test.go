package soak

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/http"
	"testing"
)

// version is content by its seed and size in bytes; no seed means that there is no
// object.
type version struct {
	seed uint64
	size int
}

func (v version) there() bool { return v.seed != 0 }

// bytes is the content.
func (v version) bytes() []byte {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], v.seed)
	b := make([]byte, v.size)
	_, _ = rand.NewChaCha8(key).Read(b) // it never fails
	return b
}

// belief is what a key may hold: what was acknowledged last, or what was tried since
// and not acknowledged. A key that is not settled is not written again until nothing
// is under way any more and it has been read: what was tried may yet come true.
type belief struct {
	is    version
	etag  string // of is; empty: not known
	maybe []version
}

func (b *belief) settled() bool { return len(b.maybe) == 0 }

// try notes that the key is about to become v.
func (b *belief) try(v version) { b.maybe = append(b.maybe, v) }

// settle notes that the key is v.
func (b *belief) settle(v version, etag string) { *b = belief{is: v, etag: etag} }

// judge finds the version that the answer to a GET shows. An error says that it is
// none that it may be.
func (b *belief) judge(a *answer) (version, error) {
	for _, v := range append([]version{b.is}, b.maybe...) {
		if v.matches(a) && (v != b.is || b.etag == "" || a.etag() == b.etag) {
			return v, nil
		}
	}
	return version{}, fmt.Errorf("status %d, ETag %s and %d bytes are none of %+v", a.status, a.etag(), len(a.body), *b)
}

func (v version) matches(a *answer) bool {
	if !v.there() {
		return a.status == http.StatusNotFound
	}
	return a.status == http.StatusOK && bytes.Equal(a.body, v.bytes())
}

// judgeSize is judge for a listing, which shows a size or nothing.
func (b *belief) judgeSize(size int64, listed bool) error {
	for _, v := range append([]version{b.is}, b.maybe...) {
		if v.there() == listed && (!listed || size == int64(v.size)) {
			return nil
		}
	}
	return fmt.Errorf("listed: %v, with %d bytes; it is one of %+v", listed, size, *b)
}

func TestTheModelTellsRightFromWrong(t *testing.T) {
	is, tried := version{3, 100}, version{4, 100}
	ok := func(body []byte) *answer {
		return &answer{status: http.StatusOK, body: body, header: http.Header{"Etag": {`"e"`}}}
	}
	settled, open := belief{is: is, etag: `"e"`}, belief{is: is, maybe: []version{tried, {}}}
	for name, c := range map[string]struct {
		belief belief
		answer *answer
		want   bool
	}{
		"what was acknowledged":          {settled, ok(is.bytes()), true},
		"another ETag":                   {belief{is: is, etag: `"f"`}, ok(is.bytes()), false},
		"what nobody wrote":              {settled, ok(tried.bytes()), false},
		"a short body":                   {settled, ok(is.bytes()[:99]), false},
		"gone":                           {settled, &answer{status: 404}, false},
		"what was tried":                 {open, ok(tried.bytes()), true},
		"before what was tried":          {open, ok(is.bytes()), true},
		"a deletion that was tried":      {open, &answer{status: 404}, true},
		"neither, with something tried":  {open, ok(version{5, 100}.bytes()), false},
		"there though it was never made": {belief{}, ok(nil), false},
	} {
		if _, err := c.belief.judge(c.answer); (err == nil) != c.want {
			t.Errorf("%s: got %v, want right: %v", name, err, c.want)
		}
	}
}

func TestTheModelJudgesListings(t *testing.T) {
	b := belief{is: version{3, 100}}
	for _, c := range []struct {
		size   int64
		listed bool
		want   bool
	}{{100, true, true}, {99, true, false}, {0, false, false}} {
		if err := b.judgeSize(c.size, c.listed); (err == nil) != c.want {
			t.Errorf("%+v: got %v", c, err)
		}
	}
}
