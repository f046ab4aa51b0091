package sealed

import (
	"math"
	"math/rand/v2"
	"testing"
)

// sizesAround are lengths around every kind of border in the size law.
func sizesAround() (sizes []int64) {
	for _, border := range []int64{0, ChunkSize, 2 * ChunkSize, 64 * ChunkSize, MinPartSize, 2 * MinPartSize, 3 * MinPartSize, MaxPartSize, maxSlots * MinPartSize, MaxParts * MinPartSize, MaxLength} {
		for d := int64(-2); d <= 2; d++ {
			if n := border + d; n >= 0 && n <= MaxLength {
				sizes = append(sizes, n)
			}
		}
	}
	return sizes
}

func TestSizeLaw(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	lengths := sizesAround()
	for range 100_000 {
		lengths = append(lengths, r.Int64N(1<<r.IntN(46)+1))
	}
	for _, n := range lengths {
		stored := Size(n)
		if stored != refSize(n) {
			t.Fatalf("Size(%d): got %d, want %d", n, stored, refSize(n))
		}
		if got, ok := PlainSize(stored); got != n || !ok {
			t.Fatalf("PlainSize(%d): got %d, %t, want %d", stored, got, ok, n)
		}
		if n < MaxLength && Size(n+1) <= stored {
			t.Fatalf("Size does not increase at %d", n)
		}
		for limit := stored; n < MaxLength && limit < Size(n+1); limit++ {
			if got := MaxPlain(limit); got != n {
				t.Fatalf("MaxPlain(%d): got %d, want %d", limit, got, n)
			}
			if _, ok := PlainSize(limit); ok != (limit == stored) {
				t.Fatalf("PlainSize(%d): got %t", limit, ok)
			}
		}
		if err := CheckSize(stored, n); err != nil {
			t.Fatal(err)
		}
		wantError(t, "CheckSize", CheckSize(stored+1, n), ErrCorrupt)
	}
}

func TestSizesBeyondTheFormat(t *testing.T) {
	for _, tt := range []struct {
		name      string
		got, want int64
	}{
		{"Size(-1)", Size(-1), -1},
		{"Size(MaxLength+1)", Size(MaxLength + 1), math.MaxInt64},
		{"Size(MaxInt64)", Size(math.MaxInt64), math.MaxInt64},
		{"MaxPlain(287)", MaxPlain(287), -1},
		{"MaxPlain(288)", MaxPlain(288), 0},
		{"MaxPlain(-1)", MaxPlain(-1), -1},
		{"MaxPlain(MinInt64)", MaxPlain(math.MinInt64), -1},
		{"MaxPlain(MaxInt64)", MaxPlain(math.MaxInt64), MaxLength},
	} {
		if tt.got != tt.want {
			t.Errorf("%s: got %d, want %d", tt.name, tt.got, tt.want)
		}
	}
	for _, stored := range []int64{-1, 0, 287, math.MaxInt64, math.MinInt64} {
		if _, ok := PlainSize(stored); ok {
			t.Errorf("PlainSize(%d) is ok", stored)
		}
	}
	wantError(t, "CheckSize of a negative length", CheckSize(-1, -1), ErrCorrupt)
	if n := MaxPlain(5 << 30); Size(n) > 5<<30 || Size(n+1) <= 5<<30 {
		t.Errorf("MaxPlain(5 GiB): got %d", n)
	}
}

// TestEveryCutFitsTheSizeLaw checks that there is room for the tail however an object was cut into parts.
func TestEveryCutFitsTheSizeLaw(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for i := range 2000 {
		n := 1 + r.IntN(1<<r.IntN(14))
		if i < 50 {
			n = MaxParts // one more than there are slots
		}
		parts := make([]Part, min(n, MaxParts))
		for i := range parts {
			parts[i] = Part{Number: i + 1, Length: MinPartSize + r.Int64N(1<<r.IntN(32)) - 1}
			if r.IntN(2) == 0 || parts[i].Length < MinPartSize {
				parts[i].Length = MinPartSize
			}
		}
		parts[len(parts)-1].Length = r.Int64N(1 << r.IntN(24))
		length, stored := sumParts(parts)
		if zeros := Size(length) - stored - trailerSize(len(parts)) - footerSize; zeros < 0 {
			t.Fatalf("%d parts, %d bytes: %d bytes too few", len(parts), length, -zeros)
		}
		if tail := Size(length) - stored; tail > MaxTail {
			t.Fatalf("%d parts, %d bytes: a tail of %d bytes", len(parts), length, tail)
		}
	}
}

func TestMessageSizeIsWhatMessagesHave(t *testing.T) {
	for _, n := range []int64{0, 1, ChunkSize - 1, ChunkSize, ChunkSize + 1, 3 * ChunkSize} {
		want := int64(len(refMessage(testBytes(1, 32), testBytes(2, 24), "", make([]byte, n))))
		if got := MessageSize(n); got != want {
			t.Errorf("MessageSize(%d): got %d, want %d", n, got, want)
		}
	}
}

func TestPartsOfInvertsTheSizeOfTrailers(t *testing.T) {
	for _, n := range []int{1, 2, 508, 509, 510, 5000, MaxParts} {
		size := trailerSize(n)
		if got := PartsOf(size); got != n {
			t.Errorf("%d parts: got %d", n, got)
		}
		for _, wrong := range []int64{size - 1, size + 1} {
			if got := PartsOf(wrong); got != 0 {
				t.Errorf("%d bytes: got %d parts, want none", wrong, got)
			}
		}
	}
	for _, wrong := range []int64{-1, 0, trailerSize(MaxParts) + entrySize, 1 << 40} {
		if got := PartsOf(wrong); got != 0 {
			t.Errorf("%d bytes: got %d parts, want none", wrong, got)
		}
	}
}
