package sealed

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
)

func singleSizes() []int64 {
	return []int64{0, 1, 2, ChunkSize - 1, ChunkSize, ChunkSize + 1, 2*ChunkSize - 1, 2 * ChunkSize, 2*ChunkSize + 1, 5*ChunkSize + 77}
}

func TestRangesOfSingleObjects(t *testing.T) {
	dek := testKey(t, 1)
	for _, n := range singleSizes() {
		o := sealSingle(t, Suite{}, dek, refText("single", n))
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			o.checkRanges(t, o.table.Window)
			o.checkRanges(t, func(off, n int64) (Window, error) { return RangeWindow(off, n), nil })
			o.checkRanges(t, func(off, _ int64) (Window, error) { return RangeWindow(off, ToEnd), nil })
			o.checkRanges(t, func(off, n int64) (Window, error) { return RangeWindow(off, n+1<<40), nil })
		})
	}
}

func TestSuffixWindowHoldsTheSuffixOfAnySingleObject(t *testing.T) {
	dek := testKey(t, 1)
	for _, n := range append(singleSizes(), MinPartSize+3, 3*MinPartSize) {
		o := sealSingle(t, Suite{}, dek, refText("suffix", n))
		o.checkRanges(t, func(off, _ int64) (Window, error) {
			at := max(0, o.table.Stored()-SuffixWindow(n-off))
			return Window{Offset: at, Length: ToEnd}, nil
		})
	}
	for _, length := range []int64{MaxPartSize - 1, MaxPartSize} { // by arithmetic alone: an object of 5 GiB is no unit test
		table, err := SingleTable(Envelope{Length: length, Salt: Salt{1}}, Size(length))
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range []int64{1, 2, ChunkSize - 1, ChunkSize, ChunkSize + 1, 64 * ChunkSize, length - 1, length} {
			start, _ := table.span(length-n, n)
			if got, want := SuffixWindow(n), Size(length)-start; got < want {
				t.Errorf("SuffixWindow(%d) of %d: got %d, want at least %d", n, length, got, want)
			}
		}
	}
	if got := SuffixWindow(8); got > 160<<10 {
		t.Errorf("SuffixWindow(8): got %d, want less than 160 KiB", got)
	}
}

func TestRangesOfMultipartObjects(t *testing.T) {
	for name, specs := range map[string][]partSpec{
		"gaps and unaligned cuts": {{number: 2, length: MinPartSize + 1}, {number: 7, length: MinPartSize + 12345}, {number: 9999, length: 10}},
		"aligned, empty last":     {{number: 1, length: MinPartSize}, {number: 2, length: 0}},
		"unbound":                 {{number: 1, length: MinPartSize + 5, unbound: true}, {number: 2, length: 3 * ChunkSize, unbound: true}},
		"one small part":          {{number: 3, length: ChunkSize + 1}},
		"one empty part":          {{number: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			var n int64
			for _, spec := range specs {
				n += spec.length
			}
			o := sealMultipart(t, Suite{}, testKey(t, 1), refText(name, n), specs)
			o.checkRanges(t, o.table.Window)
			got, err := o.open(Suite{}, Window{Length: ToEnd}, 0, n, Options{})
			if err != nil || !bytes.Equal(got, o.plain) {
				t.Errorf("whole: got %d bytes, %v", len(got), err)
			}
		})
	}
}

func TestWindowsRefuseWhatTheObjectHasNot(t *testing.T) {
	o := sealSingle(t, Suite{}, testKey(t, 1), refText("refuse", 3*ChunkSize))
	length := int64(3 * ChunkSize)
	for _, tt := range []struct{ off, n int64 }{{-1, 1}, {0, -1}, {0, 0}, {length, 1}, {0, length + 1}, {1, 1 << 62}, {1 << 62, 1 << 62}, {length, 0}} {
		if _, err := o.table.Window(tt.off, tt.n); !errors.Is(err, ErrRange) {
			t.Errorf("Window(%d, %d): got %v, want ErrRange", tt.off, tt.n, err)
		}
		if _, err := o.open(Suite{}, Window{Length: ToEnd}, tt.off, tt.n, Options{}); !errors.Is(err, ErrRange) {
			t.Errorf("NewOpener(%d, %d): got %v, want ErrRange", tt.off, tt.n, err)
		}
	}
	for _, w := range []Window{{Offset: 1, Length: ToEnd}, {Offset: -1, Length: ToEnd}, {Length: 100}, {Length: -2}} {
		if _, err := o.open(Suite{}, w, 0, length, Options{}); !errors.Is(err, ErrRange) {
			t.Errorf("window %v: got %v, want ErrRange", w, err)
		}
	}
}

func TestTrailersAreNotLookedForWhereNoObjectHasTheSize(t *testing.T) {
	for stored, want := range map[int64]error{Size(0): nil, Size(0) - 1: ErrCorrupt, 0: ErrCorrupt, -1: ErrCorrupt, Size(ChunkSize) - 1: ErrCorrupt, 1 << 62: ErrCorrupt} {
		w, err := TrailerWindow(stored)
		wantError(t, fmt.Sprintf("%d bytes", stored), err, want)
		if err == nil && w.Offset+w.Length != stored {
			t.Errorf("%d bytes: got %v, want a suffix", stored, w)
		}
	}
}

func TestUnboundPartsNeedTheirHeaderOnlyInside(t *testing.T) {
	o := sealMultipart(t, Suite{}, testKey(t, 1), refText("unbound", 2*MinPartSize), []partSpec{
		{number: 1, length: MinPartSize}, {number: 2, length: MinPartSize, unbound: true},
	})
	second := o.table.Entry(1)
	for _, tt := range []struct {
		off    int64
		needed bool
	}{
		{0, false},
		{ChunkSize, false},
		{MinPartSize - 1, false},
		{MinPartSize, false},
		{MinPartSize + ChunkSize - 1, false},
		{MinPartSize + ChunkSize, true},
		{2*MinPartSize - 1, true},
	} {
		w, needed := o.table.HeaderWindow(tt.off, 1)
		if needed != tt.needed || (needed && w != Window{Offset: second.Sealed, Length: HeaderSize}) {
			t.Errorf("HeaderWindow(%d): got %v, %t, want %t", tt.off, w, needed, tt.needed)
		}
	}
	off := int64(MinPartSize + ChunkSize)
	w, err := o.table.Window(off, 1)
	if err != nil {
		t.Fatal(err)
	}
	header := bytes.Clone(o.stored[second.Sealed:][:HeaderSize])
	header[HeaderSize-1] ^= 1
	for _, tt := range []struct {
		name   string
		header []byte
		want   error
	}{{"none", nil, ErrRange}, {"short", header[:10], ErrRange}, {"false", header, ErrCorrupt}} {
		_, err := Suite{}.NewOpener(o.table, o.dek, bytes.NewReader(w.slice(o.stored)), Read{Window: w, Off: off, N: 1, Header: tt.header})
		wantError(t, tt.name, err, tt.want)
	}
}
