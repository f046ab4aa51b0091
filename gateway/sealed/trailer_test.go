package sealed

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"testing"
	"testing/iotest"
)

func parts(lengths ...int64) (out []Part) {
	for i, n := range lengths {
		out = append(out, Part{Number: i + 1, Length: n, Salt: Salt(testBytes(i, 24)), CRC: uint64(i), HasCRC: true})
	}
	return out
}

func TestTailRefusesFalseParts(t *testing.T) {
	renumbered := func(numbers ...int) []Part {
		out := parts(MinPartSize, MinPartSize)
		for i := range out {
			out[i].Number = numbers[i]
		}
		return out
	}
	for _, tt := range []struct {
		name  string
		parts []Part
		late  *Checksum
		want  error
	}{
		{"good", parts(MinPartSize, 0), nil, nil},
		{"none", nil, nil, ErrRange},
		{"too many", make([]Part, MaxParts+1), nil, ErrRange},
		{"part 0", renumbered(0, 1), nil, ErrPartNumber},
		{"part 10001", renumbered(1, 10001), nil, ErrPartNumber},
		{"same again", renumbered(3, 3), nil, ErrPartOrder},
		{"falling", renumbered(4, 3), nil, ErrPartOrder},
		{"small", parts(MinPartSize-1, 1), nil, ErrPartSize},
		{"negative", parts(MinPartSize, -1), nil, ErrRange},
		{"too long", parts(MaxPartSize + 1), nil, ErrRange},
		{"checksum of other parts", parts(MinPartSize, 0), &Checksum{Algorithm: CRC32, Scope: Composite, Value: []byte("1234"), Parts: 3}, ErrRange},
		{"false checksum", parts(0), &Checksum{Algorithm: CRC32, Value: []byte("123")}, ErrRange},
	} {
		_, err := Suite{}.NewTail(testKey(t, 1), tt.parts, tt.late, nil)
		if !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.name, err, tt.want)
		}
	}
}

func TestTailReadsAtAnyPlace(t *testing.T) {
	tail, err := Suite{}.NewTail(testKey(t, 1), parts(3*MinPartSize), &Checksum{Algorithm: CRC32, Scope: Composite, Value: []byte("1234"), Parts: 1}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if tail.zeros == 0 || tail.Length() != 3*MinPartSize {
		t.Fatalf("%d zeros, length %d", tail.zeros, tail.Length())
	}
	all, err := io.ReadAll(tail.Reader())
	if err != nil {
		t.Fatal(err)
	}
	if err := iotest.TestReader(tail.Reader(), all); err != nil {
		t.Error(err)
	}
	if want := Size(3*MinPartSize) - MessageSize(3*MinPartSize); int64(len(all)) != want || tail.Size() != want {
		t.Errorf("got %d bytes, want %d", len(all), want)
	}
	dirty := bytes.Repeat([]byte{0xff}, 10)
	if _, err := tail.ReadAt(dirty, 0); err != nil || !bytes.Equal(dirty, make([]byte, 10)) {
		t.Errorf("zeros are %x, %v", dirty, err)
	}
	for _, off := range []int64{-1, tail.Size() + 1} {
		_, err := tail.ReadAt(dirty, off)
		wantError(t, "ReadAt", err, ErrRange)
	}
	if crc, ok := tail.CRC(); !ok || crc != 0 {
		t.Errorf("CRC: got %x, %t", crc, ok)
	}
}

// TestLargestTail is about 10,000 parts of 5 MiB, whose bytes nobody has to hold.
func TestLargestTail(t *testing.T) {
	lengths := make([]int64, MaxParts)
	for i := range lengths {
		lengths[i] = MinPartSize
	}
	want := parts(lengths...)
	tail, err := Suite{}.NewTail(testKey(t, 1), want, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	all, err := io.ReadAll(tail.Reader())
	if err != nil {
		t.Fatal(err)
	}
	stored := Size(MaxParts * MinPartSize)
	if tail.Size() > MaxTail || tail.Size() != stored-MaxParts*MessageSize(MinPartSize) {
		t.Errorf("got a tail of %d bytes", tail.Size())
	}
	w, err := TrailerWindow(stored)
	if err != nil || w.Offset+w.Length != stored || w.Length > int64(len(all)) {
		t.Fatalf("got %v, %v for a tail of %d bytes", w, err, len(all))
	}
	table, err := Suite{}.OpenTrailer(all[int64(len(all))-w.Length:], testKey(t, 1), stored)
	if err != nil || table.Len() != MaxParts || table.Length() != MaxParts*MinPartSize || table.Stored() != stored || table.Kind() != Multipart {
		t.Fatalf("got %v", err)
	}
	last := table.Entry(MaxParts - 1)
	if last.Number != MaxParts || last.Salt != want[MaxParts-1].Salt || last.Plain != (MaxParts-1)*MinPartSize || last.Sealed != (MaxParts-1)*MessageSize(MinPartSize) {
		t.Errorf("got last part %+v", last)
	}
	wantCRC, _ := tail.CRC()
	if crc, ok := table.CRC(); !ok || crc != wantCRC {
		t.Errorf("got CRC %x, %t, want %x", crc, ok, wantCRC)
	}
}

func TestOpenTrailerWantsAllOfItAndNothingFalse(t *testing.T) {
	specs := []partSpec{{number: 1, length: MinPartSize + 9}, {number: 5, length: 77}}
	o := sealMultipart(t, Suite{}, testKey(t, 1), refText("trailer", MinPartSize+86), specs)
	stored := int64(len(o.stored))
	need := trailerSize(2) + footerSize
	flip := func(fromEnd int64) []byte {
		b := bytes.Clone(o.stored[stored-need:])
		b[need-fromEnd] ^= 1
		return b
	}
	for _, tt := range []struct {
		name   string
		suffix []byte
		dek    Key
		stored int64
		want   error
	}{
		{"exact", o.stored[stored-need:], o.dek, stored, nil},
		{"more", o.stored[100:], o.dek, stored, nil},
		{"one byte less", o.stored[stored-need+1:], o.dek, stored, ErrCorrupt},
		{"almost nothing", o.stored[stored-7:], o.dek, stored, ErrCorrupt},
		{"more than there is", append(bytes.Clone(o.stored), o.stored...), o.dek, stored, ErrCorrupt},
		{"another key", o.stored[stored-need:], testKey(t, 2), stored, ErrCorrupt},
		{"not a size", o.stored[stored-need:], o.dek, stored + 1, ErrCorrupt},
		{"another size", o.stored[stored-need:], o.dek, Size(MinPartSize + 87), ErrCorrupt},
		{"magic", flip(1), o.dek, stored, ErrCorrupt},
		{"length, low", flip(5), o.dek, stored, ErrCorrupt},
		{"length, high", flip(8), o.dek, stored, ErrCorrupt},
		{"tag", flip(9), o.dek, stored, ErrCorrupt},
		{"salt", flip(need), o.dek, stored, ErrCorrupt},
	} {
		if _, err := (Suite{}).OpenTrailer(tt.suffix, tt.dek, tt.stored); !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.name, err, tt.want)
		}
	}
}

// TestTrailerPlaintextIsStrict seals trailers that no writer of ours would.
func TestTrailerPlaintextIsStrict(t *testing.T) {
	good := encodeTrailer(parts(MinPartSize, 5), MinPartSize+5, 7, true, [4 + maxChecksum]byte{})
	stored := Size(MinPartSize + 5)
	set := func(at int, b ...byte) []byte {
		out := bytes.Clone(good)
		copy(out[at:], b)
		return out
	}
	long := binary.BigEndian.AppendUint64(nil, 1<<48|(MinPartSize-1))
	for _, tt := range []struct {
		name string
		pt   []byte
		want error
	}{
		{"as it should be", good, nil},
		{"cut", good[:len(good)-1], ErrCorrupt},
		{"empty", nil, ErrCorrupt},
		{"half of H", good[:tableHeadSize/2], ErrCorrupt},
		{"no entries", good[:tableHeadSize], ErrCorrupt},
		{"no entries, and none counted", set(7, 0)[:tableHeadSize], ErrCorrupt},
		{"version", set(0, 2), ErrUnsupported},
		{"flag", set(1, 5), ErrCorrupt},
		{"MD5", set(1, 3), nil},
		{"MD5 without flag", set(99, 1), ErrCorrupt},
		{"CRC without flag", set(1, 0), ErrCorrupt},
		{"reserved 2", set(3, 1), ErrCorrupt},
		{"reserved 24", set(31, 1), ErrCorrupt},
		{"reserved 100", set(103, 1), ErrCorrupt},
		{"count", set(7, 3), ErrCorrupt},
		{"huge count", set(4, 0xff), ErrCorrupt},
		{"sum", set(15, 6), ErrCorrupt},
		{"negative sum", set(8, 0xff), ErrCorrupt},
		{"checksum value without algorithm", set(36, 1), ErrCorrupt},
		{"checksum algorithm without value", set(32, 1), ErrCorrupt},
		{"checksum too long", set(34, 0, 65), ErrCorrupt},
		{"checksum not filled with zeros", set(32, 1, 0, 0, 4, 1, 2, 3, 4, 5), ErrCorrupt},
		{"checksum", set(32, 1, 0, 0, 4, 1, 2, 3, 4), nil},
		{"checksum that runs into an MD5", append(set(1, 3)[:34], append([]byte{0, 49}, set(1, 3)[36:]...)...), ErrCorrupt},
		{"part 0", set(tableHeadSize, 0, 0), ErrCorrupt},
		{"part 10001", set(tableHeadSize+entrySize, 0x27, 0x11), ErrCorrupt},
		{"same part", set(tableHeadSize+entrySize, 0, 1), ErrCorrupt},
		{"small part", set(tableHeadSize, long...), ErrCorrupt},
	} {
		msg, err := Suite{}.sealMessage(testKey(t, 1), trailerContext(), tt.pt)
		if err != nil {
			t.Fatal(err)
		}
		_, err = Suite{}.openTrailer(msg, testKey(t, 1), Multipart, stored)
		if !errors.Is(err, tt.want) || errors.Is(err, ErrPartOrder) || errors.Is(err, ErrPartSize) {
			t.Errorf("%s: got %v, want %v", tt.name, err, tt.want)
		}
	}
}

// TestTrailerSaysTheSumOfItsEntries seals a trailer that fits the stored size, and whose entries do not.
func TestTrailerSaysTheSumOfItsEntries(t *testing.T) {
	for sum, want := range map[int64]error{MinPartSize + 5: nil, MinPartSize + 4: ErrCorrupt, MinPartSize + 6: ErrCorrupt} {
		pt := encodeTrailer(parts(MinPartSize, 5), sum, 7, true, [4 + maxChecksum]byte{})
		msg, err := Suite{}.sealMessage(testKey(t, 1), trailerContext(), pt)
		if err != nil {
			t.Fatal(err)
		}
		_, err = Suite{}.openTrailer(msg, testKey(t, 1), Multipart, Size(sum))
		wantError(t, fmt.Sprintf("sum %d", sum), err, want)
	}
}

// TestTrailerOfASinglePutHasOnePartWithoutANumber seals trailers that say the right length.
func TestTrailerOfASinglePutHasOnePartWithoutANumber(t *testing.T) {
	salt := Salt(testBytes(3, 24))
	for _, tt := range []struct {
		name  string
		parts []Part
		want  error
	}{
		{"as it should be", []Part{{Length: 9, Salt: salt}}, nil},
		{"an empty part more", []Part{{Length: 9, Salt: salt}, {Salt: salt}}, ErrCorrupt},
		{"a number", []Part{{Number: 1, Length: 9, Salt: salt}}, ErrCorrupt},
		{"no salt", []Part{{Length: 9}}, ErrCorrupt},
	} {
		msg, err := Suite{}.sealMessage(testKey(t, 1), trailerContext(), encodeTrailer(tt.parts, 9, 7, true, [4 + maxChecksum]byte{}))
		if err != nil {
			t.Fatal(err)
		}
		_, err = Suite{}.openTrailer(msg, testKey(t, 1), Single, Size(9))
		wantError(t, tt.name, err, tt.want)
	}
}

// TestTrailerOfMorePartsThanThereCanBe is about bounds that hold twice: by their numbers and sizes, more parts than MaxParts,
// or than the object's size allows, are refused whatever length the footer and the head of the trailer say.
func TestTrailerOfMorePartsThanThereCanBe(t *testing.T) {
	lengths := make([]int64, MaxParts+1)
	for i := range lengths {
		lengths[i] = MinPartSize
	}
	for name, many := range map[string][]Part{"than MaxParts": parts(lengths...), "than the size allows": parts(3, 6)} {
		length, _ := sumParts(many)
		msg, err := Suite{}.sealMessage(testKey(t, 1), trailerContext(), encodeTrailer(many, length, 7, true, [4 + maxChecksum]byte{}))
		if err != nil {
			t.Fatal(err)
		}
		end := append(binary.BigEndian.AppendUint32(msg, uint32(len(msg))), footerText...)
		_, err = Suite{}.OpenTrailer(append(make([]byte, 100), end...), testKey(t, 1), Size(length))
		wantError(t, name, err, ErrCorrupt)
	}
}

func TestSingleTableWantsTheRightSize(t *testing.T) {
	e := Envelope{Length: 100, Salt: Salt{1}}
	if _, err := SingleTable(e, Size(100)); err != nil {
		t.Error(err)
	}
	for _, stored := range []int64{-1, 0, Size(99), Size(100) + 1, Size(101)} {
		_, err := SingleTable(e, stored)
		wantError(t, "false size", err, ErrCorrupt)
	}
	e.Kind = Multipart
	_, err := SingleTable(e, Size(100))
	wantError(t, "multipart", err, ErrRange)
}
