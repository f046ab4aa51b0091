package hostile

import (
	"bytes"
	"io"
	"testing"
)

// rope is bytes in pieces that are never changed, so that an attack on one byte of a
// large object copies one byte. Offsets beyond the end mean the end.
type rope [][]byte

func (r rope) size() (n int64) {
	for _, piece := range r {
		n += int64(len(piece))
	}
	return n
}

// cut is n bytes from off.
func (r rope) cut(off, n int64) rope {
	var out rope
	for _, piece := range r {
		if skip := min(off, int64(len(piece))); skip > 0 {
			piece, off = piece[skip:], off-skip
		}
		piece = piece[:min(n, int64(len(piece)))]
		n -= int64(len(piece))
		if len(piece) > 0 {
			out = append(out, piece)
		}
	}
	return out
}

func (r rope) from(off int64) rope { return r.cut(off, r.size()) }

// splice puts other bytes in the place of n bytes at off.
func (r rope) splice(off, n int64, in rope) rope {
	out := append(rope{}, r.cut(0, off)...)
	return append(append(out, in...), r.from(off+n)...)
}

// flip changes the bits of mask in one byte.
func (r rope) flip(off int64, mask byte) rope {
	b := r.cut(off, 1).bytes()
	if len(b) == 0 {
		return r
	}
	return r.splice(off, 1, rope{{b[0] ^ mask}})
}

// swap exchanges n bytes at a with n bytes at b, behind them.
func (r rope) swap(a, b, n int64) rope {
	first, second := r.cut(a, n), r.cut(b, n)
	return r.splice(b, n, first).splice(a, n, second)
}

// bytes copies.
func (r rope) bytes() []byte { return bytes.Join(r, nil) }

func (r rope) reader() io.Reader {
	readers := make([]io.Reader, 0, len(r))
	for _, piece := range r {
		readers = append(readers, bytes.NewReader(piece))
	}
	return io.MultiReader(readers...)
}

func TestARopeIsEditedWithoutChangingItsPieces(t *testing.T) {
	r := rope{[]byte("abc"), nil, []byte("defg"), []byte("h")}
	for _, tt := range []struct {
		name string
		got  rope
		want string
	}{
		{"as it is", r, "abcdefgh"},
		{"cut within", r.cut(2, 3), "cde"},
		{"cut beyond the end", r.cut(6, 9), "gh"},
		{"spliced", r.splice(1, 4, rope{[]byte("XY")}), "aXYfgh"},
		{"flipped", r.flip(3, 1), "abcefgh"[:3] + "e" + "efgh"},
		{"flipped beyond the end", r.flip(8, 1), "abcdefgh"},
		{"swapped", r.swap(0, 5, 2), "fgcdeabh"},
		{"still as it was", r, "abcdefgh"},
	} {
		if got := string(tt.got.bytes()); got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
		read, err := io.ReadAll(tt.got.reader())
		if err != nil || string(read) != tt.want || tt.got.size() != int64(len(tt.want)) {
			t.Errorf("%s: read %q of %d bytes and %v, want %q", tt.name, read, tt.got.size(), err, tt.want)
		}
	}
}
