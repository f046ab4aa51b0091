package harness

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
)

// Pattern yields bytes that do not compress, as fast as memory is copied. It may be
// used by many readers at once.
type Pattern struct{ block []byte }

// NewPattern makes one that repeats after 1 MiB and a bit.
func NewPattern(seed uint64) *Pattern {
	block := make([]byte, 1<<20+4099)
	_, _ = rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), 1}).Read(block)
	return &Pattern{block}
}

// Reader yields size bytes.
func (p *Pattern) Reader(size int64) io.Reader {
	return io.LimitReader(&patternReader{block: p.block}, size)
}

type patternReader struct {
	block []byte
	at    int
}

// Read implements io.Reader.
func (r *patternReader) Read(b []byte) (int, error) {
	n := 0
	for n < len(b) {
		k := copy(b[n:], r.block[r.at:])
		n += k
		r.at = (r.at + k) % len(r.block)
	}
	return n, nil
}

// Drain reads an answer's body to its end, in large steps, and returns its length.
func Drain(body io.Reader) (int64, error) {
	buffer := make([]byte, 256<<10)
	var total int64
	for {
		n, err := body.Read(buffer)
		total += int64(n)
		if errors.Is(err, io.EOF) {
			return total, nil
		}
		if err != nil {
			return total, fmt.Errorf("harness: reading a body: %w", err)
		}
	}
}
