package probe

import (
	"bytes"
	"crypto/md5" //nolint:gosec // G501: to tell the form of ETags
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"

	"chatelaine/backends"
)

// Sizes in bytes: what goes out at once, and what goes out as a stream.
const (
	small = 1000
	large = 1<<20 + 1
	// header is the longest metadata value that the gateway writes, under its name.
	header     = 2033
	headerName = "cho1"
)

func (p *prober) objectTrials() []trial {
	return []trial{
		{name: "objects", must: true, refuses: "nothing can be kept there", try: p.objects},
		{name: "read-after-write", must: true, refuses: "clients would read what they have replaced", try: p.readAfterWrite},
		{name: "whole-or-nothing", must: true, refuses: "a broken upload would leave an object", try: p.wholeOrNothing},
		{name: "ranges", must: true, refuses: "ranges of objects cannot be read", try: p.ranges},
		{name: "metadata", must: true, refuses: "the envelope of an object is kept there", try: p.metadata},
		{name: "etag-md5", refuses: "nothing: the gateway gives ETags of its own form", try: p.etag},
	}
}

func body(data []byte) backends.Body {
	return backends.Body{Reader: bytes.NewReader(data), Size: int64(len(data))}
}

// pattern is n bytes that differ from place to place.
func pattern(n int, seed byte) []byte {
	const step = 1009 // a prime, so that no piece of it looks like the next
	block := make([]byte, step)
	for i := range block {
		block[i] = byte(i>>8) ^ byte(i) ^ seed
	}
	return bytes.Repeat(block, n/step+1)[:n]
}

func (p *prober) put(key string, data []byte) (backends.Written, error) {
	return p.Store.Put(p.ctx, p.id(key), body(data), nil)
}

func (p *prober) read(id backends.ObjectID, r *backends.Range) (*backends.Object, []byte, error) {
	o, err := p.Store.Get(p.ctx, id, &backends.GetOptions{Range: r})
	if err != nil {
		return nil, nil, err
	}
	data, err := io.ReadAll(o.Body)
	return o, data, errors.Join(err, o.Body.Close())
}

// holds says in words what is wrong with the bytes of an object.
func (p *prober) holds(key string, want []byte) string {
	_, data, err := p.read(p.id(key), nil)
	switch {
	case err != nil:
		return "reading it back: " + err.Error()
	case !bytes.Equal(data, want):
		return fmt.Sprintf("other bytes come back: %d of %d", len(data), len(want))
	}
	return ""
}

func (p *prober) objects() (Result, string) {
	for i, n := range []int{0, small, large} {
		key, data := fmt.Sprint("object-", n), pattern(n, byte(i))
		if _, err := p.put(key, data); err != nil {
			return failed(fmt.Sprintf("putting %d bytes", n), err)
		}
		if wrong := p.holds(key, data); wrong != "" {
			return No, wrong
		}
		if _, err := p.Store.Delete(p.ctx, p.id(key), nil); err != nil {
			return failed("deleting", err)
		}
		if _, err := p.Store.Head(p.ctx, p.id(key), nil); !errors.Is(err, backends.ErrNotFound) {
			return No, fmt.Sprintf("after its delete, HEAD says: %v", err)
		}
	}
	return Yes, ""
}

// readAfterWrite replaces an object again and again. It cannot prove that a store is
// consistent, but finds those that cache.
func (p *prober) readAfterWrite() (Result, string) {
	for i := range 10 {
		data := pattern(small+i, byte(i))
		w, err := p.put("replaced", data)
		if err != nil {
			return failed("putting", err)
		}
		if wrong := p.holds("replaced", data); wrong != "" {
			return No, wrong
		}
		info, err := p.Store.Head(p.ctx, p.id("replaced"), nil)
		if err != nil || info.Size != int64(len(data)) || info.ETag != w.ETag {
			return No, fmt.Sprintf("HEAD tells of another object: %v", err)
		}
	}
	return Yes, "ten times in a row"
}

// errBroken is what a body ends with.
var errBroken = errors.New("the body ends here on purpose")

func (p *prober) wholeOrNothing() (Result, string) {
	for _, n := range []int{small, large} {
		half := io.MultiReader(bytes.NewReader(pattern(n/2, 7)), brokenReader{})
		_, err := p.Store.Put(p.ctx, p.id("broken"), backends.Body{Reader: half, Size: int64(n)}, nil)
		if err == nil {
			return Ignored, "a body that broke off was taken for whole"
		}
		if _, err := p.Store.Head(p.ctx, p.id("broken"), nil); !errors.Is(err, backends.ErrNotFound) {
			return Ignored, fmt.Sprintf("something of a body that broke off is there: %v", err)
		}
	}
	return Yes, ""
}

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, errBroken }

func (p *prober) ranges() (Result, string) {
	data := pattern(large, 3)
	if _, err := p.put("ranges", data); err != nil {
		return failed("putting", err)
	}
	n := int64(len(data))
	for _, c := range []struct {
		r        backends.Range
		from, to int64
	}{
		{backends.Range{Offset: 0, Length: 1}, 0, 1},
		{backends.Range{Offset: 65536, Length: 16400}, 65536, 81936},
		{backends.Range{Offset: n - 10, Length: 100}, n - 10, n},
		{backends.Range{Offset: n - 10, Length: -1}, n - 10, n},
		{backends.Range{Offset: -20}, n - 20, n},
	} {
		o, got, err := p.read(p.id("ranges"), &c.r)
		if err != nil {
			return failed(fmt.Sprintf("range %+v", c.r), err)
		}
		if !bytes.Equal(got, data[c.from:c.to]) || o.Size != n {
			return Ignored, fmt.Sprintf("range %+v: %d bytes of an object of %d", c.r, len(got), o.Size)
		}
	}
	if _, _, err := p.read(p.id("ranges"), &backends.Range{Offset: n, Length: 1}); !errors.Is(err, backends.ErrRange) {
		return No, fmt.Sprintf("a range beyond the end: %v", err)
	}
	return Yes, ""
}

func (p *prober) metadata() (Result, string) {
	value := strings.Repeat("aB3+/=", header)[:header]
	_, err := p.Store.Put(p.ctx, p.id("metadata"), body(nil), &backends.PutOptions{
		Attributes: backends.Attributes{ContentType: "application/octet-stream", Metadata: map[string]string{headerName: value}},
	})
	if err != nil {
		return failed(fmt.Sprintf("a value of %d bytes", header), err)
	}
	info, err := p.Store.Head(p.ctx, p.id("metadata"), nil)
	if err != nil {
		return failed("HEAD", err)
	}
	if info.Attributes.Metadata[headerName] != value {
		return Ignored, "another value comes back"
	}
	return Yes, fmt.Sprintf("%d bytes, with their case", header)
}

func (p *prober) etag() (Result, string) {
	data := pattern(small, 9)
	w, err := p.put("etag", data)
	if err != nil {
		return failed("putting", err)
	}
	sum := md5.Sum(data) //nolint:gosec // G401: see above
	if w.ETag == hex.EncodeToString(sum[:]) {
		return Yes, ""
	}
	return No, fmt.Sprintf("%.64q", w.ETag)
}

// checksumTrials put with each variant, as a header and as a trailer.
func (p *prober) checksumTrials() (trials []trial) {
	for _, name := range []string{"crc64nvme", "crc32c"} {
		store, ok := p.Variants[name]
		if !ok {
			continue
		}
		trials = append(trials, trial{
			name: "checksum-" + name, refuses: "say checksum=none or another in the URL",
			try: func() (Result, string) {
				for _, n := range []int{small, large} {
					data := pattern(n, 5)
					if _, err := store.Put(p.ctx, p.id("checksum"), body(data), nil); err != nil {
						return failed(fmt.Sprintf("a body of %d bytes", n), err)
					}
					if wrong := p.holds("checksum", data); wrong != "" {
						return Ignored, wrong
					}
				}
				return Yes, "as header and as trailer; whether they are verified was not tried"
			},
		})
	}
	return trials
}
