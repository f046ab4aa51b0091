package sealed

import (
	"bytes"
	"crypto/cipher"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"
	"testing/iotest"
)

func TestSealerYieldsWhatTheReferenceYields(t *testing.T) {
	dek, salt, trailerSalt := testBytes(1, 32), testBytes(2, 24), testBytes(3, 24)
	for _, n := range append(singleSizes(), 64*ChunkSize-1, 64*ChunkSize, 64*ChunkSize+1, 128*ChunkSize, MinPartSize) {
		data := refText("sealer", n)
		want := refObject(dek, []refPart{{data: data, salt: salt}}, trailerSalt, nil, nil)
		for _, batch := range []int{0, 1, 3} {
			for _, step := range []int{1, 100, TagSize, SealedChunkSize, 32 << 10, 1 << 20} {
				if step == 1 && n > 3*ChunkSize {
					continue
				}
				sealer, err := fixedSuite(salt, trailerSalt).NewSealer(bytes.NewReader(data), n, testKey(t, 1), Options{Batch: batch})
				if err != nil {
					t.Fatal(err)
				}
				if sealer.Part().Salt != Salt(salt) || sealer.Size() != int64(len(want)) {
					t.Fatalf("%d bytes: salt or size is not known at once", n)
				}
				var got bytes.Buffer
				_, err = io.CopyBuffer(&got, struct{ io.Reader }{sealer}, make([]byte, step))
				if err != nil || !bytes.Equal(got.Bytes(), want) {
					t.Fatalf("%d bytes, batch %d, step %d: got %d bytes, %v", n, batch, step, got.Len(), err)
				}
				if p := sealer.Part(); p.CRC != refCRC(data) || !p.HasCRC || p.Length != n {
					t.Errorf("%d bytes: got part %+v", n, p)
				}
				sealer.Close()
			}
		}
	}
}

func TestPartSealerYieldsTheMessageAlone(t *testing.T) {
	for _, n := range singleSizes() {
		data := refText("part", n)
		sealer, err := fixedSuite(testBytes(2, 24)).NewPartSealer(bytes.NewReader(data), n, testKey(t, 1), 77, Options{})
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(iotest.OneByteReader(sealer))
		want := refMessage(testBytes(1, 32), testBytes(2, 24), "cho1/part\x00\x00\x4d", data)
		if err != nil || !bytes.Equal(got, want) || sealer.Size() != int64(len(want)) {
			t.Errorf("%d bytes: got %d, want %d, %v", n, len(got), len(want), err)
		}
	}
}

// source yields data in one piece and then err, together with the last byte if joined.
type source struct {
	data   []byte
	err    error
	joined bool
}

func (s *source) Read(p []byte) (int, error) {
	n := copy(p, s.data)
	s.data = s.data[n:]
	if len(s.data) == 0 && (s.joined || n == 0) {
		return n, s.err
	}
	return n, nil
}

// TestFalseBodiesNeverBecomeObjects is about all that a source can do wrong, at sizes around a chunk and a batch.
func TestFalseBodiesNeverBecomeObjects(t *testing.T) {
	boom := errors.New("signature does not match")
	wrapped := fmt.Errorf("trailer of the request: %w", io.EOF)
	dek := testKey(t, 1)
	for _, n := range []int64{0, 1, ChunkSize, 64 * ChunkSize, 64*ChunkSize + 1, 130 * ChunkSize} {
		for _, joined := range []bool{false, true} {
			for _, tt := range []struct {
				name string
				have int64
				err  error
				want error
			}{
				{"one too few", n - 1, io.EOF, ErrShortBody},
				{"one too many", n + 1, io.EOF, ErrLongBody},
				{"a batch too many", n + MaxBatch*ChunkSize, io.EOF, ErrLongBody},
				{"verdict at the end", n, boom, boom},
				{"failing midway", n / 2, boom, boom},
				{"verdict that wraps io.EOF", n, wrapped, wrapped},
				{"failing behind the end", n + 1, boom, boom},
				{"cut by the transport", n / 2, io.ErrUnexpectedEOF, io.ErrUnexpectedEOF},
			} {
				if tt.have < 0 {
					continue
				}
				src := &source{data: refText("false", tt.have), err: tt.err, joined: joined}
				sealer, err := Suite{}.NewSealer(src, n, dek, Options{})
				if err != nil {
					t.Fatal(err)
				}
				got, err := io.ReadAll(sealer)
				name := fmt.Sprintf("%s of %d bytes, joined %t", tt.name, n, joined)
				if tt.name == "failing behind the end" && errors.Is(err, ErrLongBody) {
					err = boom // either verdict is right
				}
				if !errors.Is(err, tt.want) || (unchanged(tt.want, boom) && !unchanged(err, boom)) {
					t.Errorf("%s: got %v, want %v", name, err, tt.want)
				}
				checkWithheld(t, name, got, n)
				if _, again := sealer.Read(make([]byte, 1<<20)); again == nil || atEnd(again) {
					t.Errorf("%s: reading on gives %v", name, again)
				}
			}
		}
	}
}

// unchanged tells whether err is want itself, and not something around it.
func unchanged(err, want error) bool {
	return err == want //nolint:errorlint // that is the point
}

// checkWithheld sees to it that no part of the last batch got out.
func checkWithheld(t *testing.T, name string, got []byte, n int64) {
	t.Helper()
	batches := max(0, (n-1)/(MaxBatch*ChunkSize))
	most := int64(0)
	if batches > 0 {
		most = HeaderSize + batches*MaxBatch*SealedChunkSize
	}
	if int64(len(got)) > most {
		t.Errorf("%s: %d bytes got out, want at most %d", name, len(got), most)
	}
}

func TestSealerRefusesWhatTheFormatHasNot(t *testing.T) {
	dek := testKey(t, 1)
	for _, n := range []int64{-1, MaxPartSize + 1} {
		_, err := Suite{}.NewSealer(&endless{}, n, dek, Options{})
		wantError(t, fmt.Sprint(n), err, ErrRange)
	}
	for _, number := range []int{-1, 0, MaxParts + 1} {
		_, err := Suite{}.NewPartSealer(&endless{}, 0, dek, number, Options{})
		wantError(t, fmt.Sprint(number), err, ErrPartNumber)
	}
	boom := errors.New("no entropy")
	_, err := Suite{Rand: iotest.ErrReader(boom)}.NewSealer(&endless{}, 0, dek, Options{})
	wantError(t, "randomness", err, boom)
	_, err = Suite{Rand: iotest.ErrReader(boom)}.NewDEK()
	wantError(t, "randomness for a DEK", err, boom)
	_, err = Suite{NewAEAD: func([]byte) (cipher.AEAD, error) { return nil, boom }}.NewSealer(&endless{}, 0, dek, Options{})
	wantError(t, "cipher", err, boom)
	sealer, err := fixedSuite(testBytes(2, 24)).NewSealer(&endless{}, 0, dek, Options{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.ReadAll(sealer)
	wantError(t, "randomness for the trailer", err, io.EOF)
	if atEnd(err) {
		t.Error("a trailer that cannot be sealed looks like a good end")
	}
}

func TestIdleSourceIsNoProgress(t *testing.T) {
	sealer, err := Suite{}.NewSealer(idle{}, 10, testKey(t, 1), Options{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = sealer.Read(make([]byte, 100))
	wantError(t, "Read", err, io.ErrNoProgress)
}

// onceAEAD panics when a nonce comes again under the same key: the hook that end-to-end tests use too.
type onceAEAD struct {
	cipher.AEAD
	key  string
	seen *sync.Map
}

func (a onceAEAD) Seal(dst, nonce, pt, ad []byte) []byte {
	if _, again := a.seen.LoadOrStore(a.key+string(nonce), true); again {
		panic("nonce used twice")
	}
	return a.AEAD.Seal(dst, nonce, pt, ad)
}

func onceSuite() Suite {
	seen := new(sync.Map)
	return Suite{NewAEAD: func(key []byte) (cipher.AEAD, error) {
		a, err := Suite{}.aead(key)
		return onceAEAD{AEAD: a, key: string(key), seen: seen}, err
	}}
}

func TestNoNonceIsUsedTwice(t *testing.T) {
	s, dek := onceSuite(), testKey(t, 1)
	for range 3 { // the same part and bytes, again and again
		o := sealMultipart(t, s, dek, refText("again", MinPartSize+300*ChunkSize), []partSpec{{number: 1, length: MinPartSize}, {number: 2, length: 300 * ChunkSize}})
		if got, err := o.open(s, Window{Length: ToEnd}, 0, int64(len(o.plain)), Options{}); err != nil || !bytes.Equal(got, o.plain) {
			t.Fatal(err)
		}
		sealSingle(t, s, dek, refText("again", ChunkSize))
	}
}

func TestNonceHookNoticesRepetition(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("the same salt twice went unnoticed")
		}
	}()
	s := onceSuite()
	for range 2 {
		s.Rand = bytes.NewReader(testBytes(2, 100))
		sealSingle(t, s, testKey(t, 1), nil)
	}
}

// TestAllocationsDoNotGrowWithChunks compares streams of one batch with streams of sixteen.
func TestAllocationsDoNotGrowWithChunks(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates, and sync.Pool forgets on purpose")
	}
	s := Suite{Buffers: new(Buffers)}
	dek := testKey(t, 1)
	out := make([]byte, MaxBatch*SealedChunkSize)
	count := func(n int64) float64 {
		o := sealSingle(t, s, dek, refText("allocations", n))
		return testing.AllocsPerRun(5, func() {
			sealer, err := s.NewSealer(&endless{left: n}, n, dek, Options{})
			for err == nil {
				_, err = sealer.Read(out)
			}
			sealer.Close()
			opener, err := s.NewOpener(o.table, dek, bytes.NewReader(o.stored), Read{Window: Window{Length: ToEnd}, N: n})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := opener.WriteTo(io.Discard); err != nil {
				t.Fatal(err)
			}
			opener.Close()
		})
	}
	few, many := count(MaxBatch*ChunkSize-1), count(16*MaxBatch*ChunkSize)
	if many-few > 5 { // 960 chunks more
		t.Errorf("got %.0f allocations for 64 chunks, %.0f for 1024", few, many)
	}
}

func TestLateChecksum(t *testing.T) {
	data := refText("late", 3*ChunkSize)
	late := Checksum{Algorithm: SHA256, Value: testBytes(5, 32)}
	dek := testKey(t, 1)
	read := func(o Options) ([]byte, error) {
		sealer, err := fixedSuite(testBytes(2, 24), testBytes(3, 24)).NewSealer(bytes.NewReader(data), int64(len(data)), dek, o)
		if err != nil {
			t.Fatal(err)
		}
		return io.ReadAll(sealer)
	}
	got, err := read(Options{Checksum: func() (Checksum, error) { return late, nil }})
	want := refObject(testBytes(1, 32), []refPart{{data: data, salt: testBytes(2, 24)}}, testBytes(3, 24), append([]byte{5, 0, 0, 32}, late.Value...), nil)
	if err != nil || !bytes.Equal(got, want) {
		t.Fatalf("got %d bytes, %v", len(got), err)
	}
	e := Envelope{DEK: dek, Length: int64(len(data)), Salt: Salt(testBytes(2, 24))}
	table, err := Suite{}.OpenSingleTrailer(got[len(got)-1000:], e, int64(len(got)))
	if err != nil {
		t.Fatal(err)
	}
	if c, ok := table.Checksum(); !ok || c.Algorithm != SHA256 || !bytes.Equal(c.Value, late.Value) {
		t.Errorf("got %+v, %t", c, ok)
	}
	e.Salt[0] ^= 1
	_, err = Suite{}.OpenSingleTrailer(got[len(got)-1000:], e, int64(len(got)))
	wantError(t, "another salt", err, ErrCorrupt)
	boom := errors.New("checksum differs")
	got, err = read(Options{Checksum: func() (Checksum, error) { return late, boom }})
	if !unchanged(err, boom) || len(got) >= len(want)-int(trailerSize(1)) {
		t.Errorf("got %d bytes, %v", len(got), err)
	}
	_, err = read(Options{Checksum: func() (Checksum, error) { return Checksum{Algorithm: SHA256, Value: []byte{1}}, nil }})
	wantError(t, "false length", err, ErrRange)
}
