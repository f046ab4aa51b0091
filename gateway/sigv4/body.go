package sigv4

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"hash"
	"io"
)

// Body is the decoded body of a signed request. It reads straight into the
// caller's buffer, allocates nothing once made, and gives io.EOF only when length,
// hash, chunk signatures and trailer are right: the last bytes and the verdict
// come from the same Read. It is for one goroutine.
type Body struct {
	frame frame
	size  int64
	left  int64 // bytes still to come; negative where that is not known
	err   error // what the next Read returns
}

// frame is how a body lies on the wire.
type frame interface {
	// read fills p with decoded bytes. io.EOF means that there are no more.
	read(p []byte) (int, error)
	// finish reads what comes after the last decoded byte and decides.
	finish() error
}

// Open returns the decoded body of the request that s is about; src is its raw
// body. The errors of Read are those of this package, in an *Error, and src's own.
func (s *Signed) Open(src io.Reader) *Body {
	b := &Body{size: s.Size, left: s.Size}
	switch s.Payload {
	case PayloadUnsigned:
		b.frame = &plain{src: src}
	case PayloadHash:
		b.frame = &plain{src: src, sum: sha256.New(), want: s.hash}
	default:
		b.frame = newChunked(s, src)
	}
	return b
}

// Size is the length of the decoded body in bytes, or -1.
func (b *Body) Size() int64 { return b.size }

// Trailer returns a trailer's value, or "" where it did not come. It is complete
// once Read has returned io.EOF.
func (b *Body) Trailer(name string) string {
	if c, ok := b.frame.(*chunked); ok {
		return c.trailer[name]
	}
	return ""
}

// Read implements io.Reader.
func (b *Body) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	if b.left == 0 {
		return 0, b.end()
	}
	if len(p) == 0 {
		return 0, nil
	}
	if b.left > 0 && int64(len(p)) > b.left {
		p = p[:b.left]
	}
	n, err := b.frame.read(p)
	if b.left > 0 {
		b.left -= int64(n)
	}
	switch {
	case b.left == 0 && (err == nil || errors.Is(err, io.EOF)):
		return n, b.end()
	case err != nil:
		return n, b.fail(err)
	}
	return n, nil
}

// end asks the frame for its verdict, once.
func (b *Body) end() error {
	b.err = io.EOF
	if err := b.frame.finish(); err != nil {
		b.err = err
	}
	return b.err
}

// fail turns an early end into an error; where the length is not known, an end is
// not early.
func (b *Body) fail(err error) error {
	switch {
	case !errors.Is(err, io.EOF):
		b.err = err
	case b.left < 0:
		return b.end()
	default:
		b.err = &Error{Err: ErrIncomplete}
	}
	return b.err
}

// plain is a body without framing, with or without a hash.
type plain struct {
	src  io.Reader
	sum  hash.Hash // nil where the body is not signed
	want [sha256.Size]byte
}

func (f *plain) read(p []byte) (int, error) {
	n, err := f.src.Read(p)
	if f.sum != nil {
		f.sum.Write(p[:n])
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = io.EOF
	}
	return n, err
}

func (f *plain) finish() error {
	if f.sum == nil {
		return nil
	}
	var got [sha256.Size]byte
	f.sum.Sum(got[:0])
	if subtle.ConstantTimeCompare(got[:], f.want[:]) == 1 {
		return nil
	}
	return &Error{Err: ErrBodyHash, Got: hex.EncodeToString(f.want[:]), Want: hex.EncodeToString(got[:])}
}
