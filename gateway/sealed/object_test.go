package sealed

import (
	"bytes"
	"io"
	"testing"
)

// object is a sealed object together with what it was made from.
type object struct {
	kind   Kind
	dek    Key
	plain  []byte
	stored []byte
	table  *Table
}

// sealSingle seals n bytes as one PUT.
func sealSingle(t testing.TB, s Suite, dek Key, plain []byte) object {
	t.Helper()
	sealer, err := s.NewSealer(bytes.NewReader(plain), int64(len(plain)), dek, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer sealer.Close()
	stored, err := io.ReadAll(sealer)
	if err != nil {
		t.Fatal(err)
	}
	table, err := SingleTable(Envelope{DEK: dek, Length: int64(len(plain)), Salt: sealer.Part().Salt}, int64(len(stored)))
	if err != nil {
		t.Fatal(err)
	}
	return object{kind: Single, dek: dek, plain: plain, stored: stored, table: table}
}

// partSpec is a part to upload. An unbound part comes without a token.
type partSpec struct {
	number  int
	length  int64
	unbound bool
}

// sealMultipart uploads consecutive pieces of plain, as long as specs say.
func sealMultipart(t testing.TB, s Suite, dek Key, plain []byte, specs []partSpec) object {
	t.Helper()
	var stored []byte
	var parts []Part
	rest := plain
	for _, spec := range specs {
		sealer, err := s.NewPartSealer(bytes.NewReader(rest[:spec.length]), spec.length, dek, spec.number, Options{})
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(sealer)
		if err != nil || int64(len(b)) != sealer.Size() || sealer.Size() != MessageSize(spec.length) {
			t.Fatalf("part %d: %d bytes, %v", spec.number, len(b), err)
		}
		p := sealer.Part()
		sealer.Close()
		if spec.unbound {
			p = Part{Number: p.Number, Length: p.Length}
		}
		stored, parts, rest = append(stored, b...), append(parts, p), rest[spec.length:]
	}
	tail, err := s.NewTail(dek, parts, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	end, err := io.ReadAll(tail.Reader())
	if err != nil || int64(len(end)) != tail.Size() {
		t.Fatalf("tail of %d bytes, %v", len(end), err)
	}
	stored = append(stored, end...)
	w, err := TrailerWindow(int64(len(stored)))
	if err != nil {
		t.Fatal(err)
	}
	table, err := s.OpenTrailer(stored[w.Offset:], dek, int64(len(stored)))
	if err != nil {
		t.Fatal(err)
	}
	return object{kind: Multipart, dek: dek, plain: plain, stored: stored, table: table}
}

// slice is what a backend answers for a window.
func (w Window) slice(stored []byte) []byte {
	b := stored[min(max(0, w.Offset), int64(len(stored))):]
	if w.Length >= 0 {
		b = b[:min(w.Length, int64(len(b)))]
	}
	return b
}

// open reads n bytes from off by the window w, with the extra read that an unbound part may need.
func (o object) open(s Suite, w Window, off, n int64, opt Options) ([]byte, error) {
	r := Read{Window: w, Off: off, N: n, Options: opt}
	if h, needed := o.table.HeaderWindow(off, n); needed {
		r.Header = h.slice(o.stored)
	}
	opener, err := s.NewOpener(o.table, o.dek, bytes.NewReader(w.slice(o.stored)), r)
	if err != nil {
		return nil, err
	}
	defer opener.Close()
	var out bytes.Buffer
	_, err = opener.WriteTo(&out)
	return out.Bytes(), err
}

// points are offsets around all borders of chunks and parts that differ in kind.
func (o object) points() (points []int64) {
	borders := []int64{0, o.table.Length()}
	for i := range o.table.Len() {
		e := o.table.Entry(i)
		borders = append(borders, e.Plain, e.Plain+ChunkSize, e.Plain+2*ChunkSize, e.Plain+e.Length/ChunkSize*ChunkSize, e.Plain+e.Length)
	}
	seen := map[int64]bool{}
	for _, b := range borders {
		for d := int64(-1); d <= 1; d++ {
			if p := b + d; p >= 0 && p <= o.table.Length() && !seen[p] {
				seen[p] = true
				points = append(points, p)
			}
		}
	}
	return points
}

// checkRanges opens every range between two points and compares it with slicing the whole. Under the race detector, which
// makes it fifty times slower and looks for something else, long ranges are left out.
func (o object) checkRanges(t *testing.T, window func(off, n int64) (Window, error)) {
	t.Helper()
	s := Suite{Buffers: new(Buffers)}
	points := o.points()
	for _, off := range points {
		for _, end := range points {
			if end <= off || (raceEnabled && end-off > 4*ChunkSize) {
				continue
			}
			w, err := window(off, end-off)
			if err != nil {
				t.Fatalf("[%d, %d): %v", off, end, err)
			}
			got, err := o.open(s, w, off, end-off, Options{})
			if err != nil || !bytes.Equal(got, o.plain[off:end]) {
				t.Fatalf("[%d, %d) by %v: got %d bytes, %v", off, end, w, len(got), err)
			}
		}
	}
}
