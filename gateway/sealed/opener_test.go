package sealed

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

func TestOpenerReadsInAnySteps(t *testing.T) {
	o := sealSingle(t, Suite{}, testKey(t, 1), refText("steps", 5*ChunkSize+9))
	for _, batch := range []int{0, 1, 2, 3, 64, 1000} {
		for _, step := range []int{1, 7, ChunkSize, 1 << 20} {
			r := Read{Window: Window{Length: ToEnd}, N: int64(len(o.plain)), Options: Options{Batch: batch}}
			opener, err := Suite{}.NewOpener(o.table, o.dek, iotest.HalfReader(bytes.NewReader(o.stored)), r)
			if err != nil {
				t.Fatal(err)
			}
			var got bytes.Buffer
			_, err = io.CopyBuffer(&got, struct{ io.Reader }{opener}, make([]byte, step))
			if err != nil || !bytes.Equal(got.Bytes(), o.plain) {
				t.Errorf("batch %d, step %d: got %d bytes, %v", batch, step, got.Len(), err)
			}
			if n, err := opener.Read(make([]byte, 1)); n != 0 || !atEnd(err) {
				t.Errorf("after the end: got %d, %v", n, err)
			}
			opener.Close()
		}
	}
}

// recorder notes the size of each Write.
type recorder struct{ sizes []int }

func (r *recorder) Write(p []byte) (int, error) {
	r.sizes = append(r.sizes, len(p))
	return len(p), nil
}

func TestOpenerWritesABatchAtOnce(t *testing.T) {
	o := sealSingle(t, Suite{}, testKey(t, 1), refText("batches", 130*ChunkSize+5))
	opener, err := Suite{}.NewOpener(o.table, o.dek, bytes.NewReader(o.stored), Read{Window: Window{Length: ToEnd}, N: int64(len(o.plain))})
	if err != nil {
		t.Fatal(err)
	}
	var r recorder
	if _, err := opener.WriteTo(&r); err != nil {
		t.Fatal(err)
	}
	want := []int{MaxBatch * ChunkSize, MaxBatch * ChunkSize, 2*ChunkSize + 5}
	if len(r.sizes) != 3 || r.sizes[0] != want[0] || r.sizes[1] != want[1] || r.sizes[2] != want[2] {
		t.Errorf("got writes of %v, want %v", r.sizes, want)
	}
}

// TestNothingLeavesBeforeItIsVerified flips each region of an object in turn and looks at what was released.
func TestNothingLeavesBeforeItIsVerified(t *testing.T) {
	dek := testKey(t, 1)
	single := sealSingle(t, Suite{}, dek, refText("flip", 6*ChunkSize+100))
	multi := sealMultipart(t, Suite{}, dek, refText("flip", MinPartSize+3*ChunkSize), []partSpec{{number: 1, length: MinPartSize + 7}, {number: 4, length: 3*ChunkSize - 7}})
	for name, o := range map[string]object{"single": single, "multipart": multi} {
		zeros := zerosOf(o)
		flips, step := 199, 1
		if raceEnabled {
			flips, step = 19, 20
		}
		for at := 0; at < len(o.stored); at += 1 + len(o.stored)/flips {
			checkFlip(t, name, o, at, zeros)
		}
		for at := len(o.stored) - 200; at < len(o.stored); at += step {
			checkFlip(t, name, o, at, zeros)
		}
	}
}

// zerosOf is the run of stored bytes that hold nothing.
func zerosOf(o object) Window {
	e := o.table.Entry(o.table.Len() - 1)
	start := e.Sealed + MessageSize(e.Length)
	return Window{Offset: start, Length: int64(len(o.stored)) - start - trailerSize(o.table.Len()) - footerSize}
}

func checkFlip(t *testing.T, name string, o object, at int, zeros Window) {
	t.Helper()
	o.stored[at] ^= 0x10
	defer func() { o.stored[at] ^= 0x10 }()
	got, err := o.open(Suite{}, Window{Length: ToEnd}, 0, int64(len(o.plain)), Options{Batch: 2})
	if ignored := int64(at) >= zeros.Offset && int64(at) < zeros.Offset+zeros.Length; ignored {
		if err != nil || !bytes.Equal(got, o.plain) {
			t.Errorf("%s, flip at %d among the zeros: %v", name, at, err)
		}
		return
	}
	if !errors.Is(err, ErrCorrupt) {
		t.Errorf("%s, flip at %d: got %v, want ErrCorrupt", name, at, err)
	}
	if !bytes.HasPrefix(o.plain, got) || len(got) == len(o.plain) {
		t.Errorf("%s, flip at %d: released %d of %d bytes, or false ones", name, at, len(got), len(o.plain))
	}
}

func TestOpenerFailsForGood(t *testing.T) {
	o := sealSingle(t, Suite{}, testKey(t, 1), refText("good", 4*ChunkSize))
	o.stored[HeaderSize+2*SealedChunkSize] ^= 1
	opener, err := Suite{}.NewOpener(o.table, o.dek, bytes.NewReader(o.stored), Read{Window: Window{Length: ToEnd}, N: 4 * ChunkSize, Options: Options{Batch: 1}})
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(opener)
	wantError(t, "first", err, ErrCorrupt)
	if len(got) != 2*ChunkSize {
		t.Errorf("released %d bytes, want %d", len(got), 2*ChunkSize)
	}
	_, err = opener.Read(make([]byte, 10))
	wantError(t, "Read again", err, ErrCorrupt)
	_, err = opener.WriteTo(io.Discard)
	wantError(t, "WriteTo again", err, ErrCorrupt)
}

func TestOpenerTellsACutFromAFailingSource(t *testing.T) {
	o := sealSingle(t, Suite{}, testKey(t, 1), refText("cut", 4*ChunkSize))
	boom := errors.New("connection reset")
	for _, tt := range []struct {
		name string
		tail io.Reader
		want error
		not  error
	}{
		{"cut", strings.NewReader(""), ErrCorrupt, boom},
		{"failing", iotest.ErrReader(boom), boom, ErrCorrupt},
		{"unexpected EOF of a transport", iotest.ErrReader(io.ErrUnexpectedEOF), io.ErrUnexpectedEOF, ErrCorrupt},
		{"idle", idle{}, io.ErrNoProgress, ErrCorrupt},
	} {
		for _, n := range []int{0, 10, HeaderSize + SealedChunkSize, len(o.stored) - 1, len(o.stored)} {
			if n == len(o.stored) && tt.name == "cut" {
				continue
			}
			src := io.MultiReader(bytes.NewReader(o.stored[:n]), tt.tail)
			opener, err := Suite{}.NewOpener(o.table, o.dek, src, Read{Window: Window{Length: ToEnd}, N: 4 * ChunkSize})
			if err != nil {
				t.Fatal(err)
			}
			_, err = opener.WriteTo(io.Discard)
			wantError(t, tt.name, err, tt.want)
			if errors.Is(err, tt.not) {
				t.Errorf("%s after %d bytes: %v is also %v", tt.name, n, err, tt.not)
			}
		}
	}
}

// idle is a source that never says anything.
type idle struct{}

func (idle) Read([]byte) (int, error) { return 0, nil }

func TestOpenerReturnsTheWritersError(t *testing.T) {
	o := sealSingle(t, Suite{}, testKey(t, 1), refText("writer", ChunkSize))
	boom := errors.New("client went away")
	for _, tt := range []struct {
		name string
		w    io.Writer
		want error
	}{{"failing", writer{err: boom}, boom}, {"short", writer{n: 5}, io.ErrShortWrite}} {
		opener, err := Suite{}.NewOpener(o.table, o.dek, bytes.NewReader(o.stored), Read{Window: Window{Length: ToEnd}, N: ChunkSize})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := opener.WriteTo(tt.w); !unchanged(err, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.name, err, tt.want)
		}
	}
}

type writer struct {
	n   int
	err error
}

func (w writer) Write([]byte) (int, error) { return w.n, w.err }

// TestWholeReadChecksTheTailBeforeTheLastByte replaces what follows the data by the tail of other objects.
func TestWholeReadChecksTheTailBeforeTheLastByte(t *testing.T) {
	dek, salt := testBytes(1, 32), testBytes(2, 24)
	data := refText("tail", 2*ChunkSize+1)
	good := refObject(dek, []refPart{{data: data, salt: salt}}, testBytes(3, 24), nil, nil)
	body := MessageSize(int64(len(data)))
	tailOf := func(p refPart, late []byte) []byte {
		o := refObject(dek, []refPart{p}, testBytes(4, 24), late, nil)
		return o[MessageSize(int64(len(p.data))):]
	}
	otherData := bytes.Clone(data)
	otherData[0] ^= 1
	for _, tt := range []struct {
		name string
		tail []byte
		want error
	}{
		{"its own", good[body:], nil},
		{"another salt for T", tailOf(refPart{data: data, salt: salt}, nil), nil},
		{"another salt of the part", tailOf(refPart{data: data, salt: testBytes(9, 24)}, nil), ErrCorrupt},
		{"another length", tailOf(refPart{data: data[1:], salt: salt}, nil), ErrCorrupt},
		{"another CRC", tailOf(refPart{data: otherData, salt: salt}, nil), ErrCorrupt},
		{"another part number", tailOf(refPart{number: 1, data: data, salt: salt}, nil), ErrCorrupt},
		{"unbound", tailOf(refPart{data: data, salt: salt, unbound: true}, nil), ErrCorrupt},
		{"a byte behind the footer", append(bytes.Clone(good[body:]), 0), ErrCorrupt},
		{"no magic", append(bytes.Clone(good[body:len(good)-1]), '2'), ErrCorrupt},
		{"nothing", nil, ErrCorrupt},
	} {
		table, err := SingleTable(Envelope{Length: int64(len(data)), Salt: Salt(salt)}, int64(len(good)))
		if err != nil {
			t.Fatal(err)
		}
		o := object{dek: testKey(t, 1), plain: data, stored: append(bytes.Clone(good[:body]), tt.tail...), table: table}
		got, err := o.open(Suite{}, Window{Length: ToEnd}, 0, int64(len(data)), Options{Batch: 1})
		if !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.name, err, tt.want)
		}
		if tt.want != nil && (len(got) != 2*ChunkSize || !bytes.HasPrefix(data, got)) {
			t.Errorf("%s: released %d bytes, want all but the last batch", tt.name, len(got))
		}
	}
}

// TestUnboundPartCanBeSwapped pins down the one thing that an unbound entry gives away (§6), and that a bound one does not.
func TestUnboundPartCanBeSwapped(t *testing.T) {
	for _, unbound := range []bool{false, true} {
		o := sealMultipart(t, Suite{}, testKey(t, 1), refText("second attempt", ChunkSize), []partSpec{{number: 1, length: ChunkSize, unbound: unbound}})
		first := refMessage(testBytes(1, 32), testBytes(7, 24), "cho1/part\x00\x00\x01", refText("first attempt", ChunkSize))
		copy(o.stored, first)
		got, err := o.open(Suite{}, Window{Length: ToEnd}, 0, ChunkSize, Options{})
		if unbound && (err != nil || !bytes.Equal(got, refText("first attempt", ChunkSize))) {
			t.Errorf("unbound: got %v", err)
		}
		if !unbound && (!errors.Is(err, ErrCorrupt) || len(got) > 0) {
			t.Errorf("bound: got %v, %d bytes", err, len(got))
		}
	}
}
