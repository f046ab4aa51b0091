package sealed

import (
	"bytes"
	"encoding/base64"
	"errors"
	"testing"
)

// The seeds are in the code and small. Each target holds a parser to this: it never panics, it fails with one of the errors
// it promises, and what it accepts has one spelling only.

func FuzzMessageOpen(f *testing.F) {
	var s Suite
	k := testKey(f, 1)
	for _, n := range []int{0, 1, ChunkSize, ChunkSize + 1} {
		f.Add(refMessage(testBytes(1, 32), testBytes(2, 24), "ctx", make([]byte, n)))
	}
	f.Fuzz(func(t *testing.T, msg []byte) {
		pt, err := s.openMessage(k, []byte("ctx"), msg)
		if err != nil {
			if !errors.Is(err, ErrCorrupt) {
				t.Fatal(err)
			}
			return
		}
		if again := refMessage(testBytes(1, 32), msg[:SaltSize], "ctx", pt); !bytes.Equal(again, msg) {
			t.Errorf("a message of %d bytes has two spellings", len(msg))
		}
	})
}

func FuzzEnvelopeHeader(f *testing.F) {
	var s Suite
	header, err := s.SealEnvelope(testKeyID, testKey(f, 9), testName, testEnvelope(f))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(header)
	f.Add("")
	f.Add("1.")
	f.Add("1.AAAA\n")
	f.Fuzz(func(t *testing.T, header string) {
		id, msg, err := splitEnvelope(header)
		if err == nil && envelopePrefix+base64.RawURLEncoding.EncodeToString(append(id[:], msg...)) != header {
			t.Errorf("%q has two spellings", header)
		}
		if _, err := s.OpenEnvelope(header, testKey(t, 9), testName); err != nil && !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrUnsupported) {
			t.Error(err)
		}
	})
}

func FuzzEnvelopePlaintext(f *testing.F) {
	e := testEnvelope(f)
	full, err := e.encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(full)
	f.Add(full[:envelopeFixed])
	f.Fuzz(func(t *testing.T, pt []byte) {
		e, err := decodeEnvelope(pt)
		if err != nil {
			if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrUnsupported) {
				t.Fatal(err)
			}
			return
		}
		again, err := e.encode()
		if err != nil || len(again) != len(pt) {
			t.Fatalf("%d bytes became %d, %v", len(pt), len(again), err)
		}
		back, err := decodeEnvelope(again)
		if err != nil || !equalEnvelopes(back, e) {
			t.Fatalf("got %+v, %v, want %+v", back, err, e)
		}
	})
}

func FuzzTrailerPlaintext(f *testing.F) {
	f.Add(encodeTrailer(parts(5), 5, 7, true, [4 + maxChecksum]byte{1, 0, 0, 4, 1, 2, 3, 4}))
	f.Add(encodeTrailer(parts(MinPartSize, 5), MinPartSize+5, 0, false, [4 + maxChecksum]byte{}))
	withMD5 := encodeTrailer(parts(5), 5, 7, true, [4 + maxChecksum]byte{1, 0, 0, 4, 1, 2, 3, 4})
	f.Add(append([]byte{withMD5[0], flagCRC | flagMD5}, withMD5[2:]...))
	f.Fuzz(func(t *testing.T, pt []byte) {
		got, err := decodeTrailer(pt)
		if err != nil {
			if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrUnsupported) {
				t.Fatal(err)
			}
			return
		}
		late, err := encodeLate(got.late, len(got.parts))
		if err != nil {
			t.Fatal(err)
		}
		again := encodeTrailer(got.parts, got.length, got.crc, got.known, late)
		if err := addMD5(again, got.late, got.md5); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(again, pt) {
			t.Errorf("got %x, want %x", again, pt)
		}
	})
}

// FuzzTrailerSuffix seals the fuzzer's own plaintext, so that what lies behind the tag is reached.
func FuzzTrailerSuffix(f *testing.F) {
	f.Add(encodeTrailer(parts(5), 5, 7, true, [4 + maxChecksum]byte{}), uint32(trailerSize(1)), Size(5))
	f.Add([]byte{}, uint32(0), int64(0))
	f.Fuzz(func(t *testing.T, pt []byte, length uint32, stored int64) {
		msg := refMessage(testBytes(1, 32), testBytes(2, 24), "cho1/trl\x00", pt)
		suffix := append(msg, refU64(uint64(length))[4:]+footerText...)
		table, err := Suite{}.OpenTrailer(suffix, testKey(t, 1), stored)
		if err != nil {
			if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrUnsupported) {
				t.Fatal(err)
			}
			return
		}
		checkTable(t, table, stored)
	})
}

// checkTable holds a table to what its users rely on.
func checkTable(t *testing.T, table *Table, stored int64) {
	t.Helper()
	var plain, sealed int64
	for i := range table.Len() {
		e := table.Entry(i)
		if e.Plain != plain || e.Sealed != sealed || e.Length < 0 {
			t.Fatalf("entry %d: got %+v", i, e)
		}
		plain, sealed = plain+e.Length, sealed+MessageSize(e.Length)
	}
	if table.Length() != plain || table.Stored() != stored || Size(plain) != stored || sealed+trailerSize(table.Len())+footerSize > stored {
		t.Fatalf("%d bytes in %d, claiming %d in %d", plain, sealed, table.Length(), table.Stored())
	}
	if w, err := table.Window(0, plain); err != nil || w != (Window{Length: stored}) {
		t.Fatalf("whole window: %v, %v", w, err)
	}
}

func FuzzToken(f *testing.F) {
	for _, size := range []int{0, 4, 64} {
		p := testPart()
		p.Checksum = testBytes(1, size)
		visible, err := JoinETag(testKey(f, 1), testPlace, p)
		if err != nil {
			f.Fatal(err)
		}
		kept, err := Suite{}.SealToken(testKey(f, 1), testPlace, p)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(visible)
		f.Add(kept)
	}
	f.Add("-")
	f.Fuzz(func(t *testing.T, visible string) {
		if p, err := (Suite{}).OpenToken(testKey(t, 1), testPlace, visible); err != nil && !errors.Is(err, ErrToken) || err == nil && p.Number != testPlace.Number {
			t.Fatalf("got %+v, %v", p, err)
		}
		backend, p, err := OpenETag(testKey(t, 1), testPlace.UploadID, testPlace.Number, visible)
		if err != nil {
			if !errors.Is(err, ErrToken) && !errors.Is(err, ErrNoToken) {
				t.Fatal(err)
			}
			return
		}
		again, err := JoinETag(testKey(t, 1), TokenPlace{UploadID: testPlace.UploadID, Number: testPlace.Number, ETag: backend}, p)
		if err != nil || again != visible {
			t.Errorf("got %q, %v, want %q", again, err, visible)
		}
	})
}

func FuzzStash(f *testing.F) {
	good, err := Suite{}.SealStash(testKeyID, testKey(f, 9), testUpload, Stash{DEK: testKey(f, 1), Created: testCreated})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good, testBytes(1, stashPlain))
	f.Add([]byte{}, append(testBytes(1, 32), 0, 0, 0, 0, 0, 0, 0, 1, 5, 1))
	f.Fuzz(func(t *testing.T, stash, pt []byte) {
		if _, err := (Suite{}).OpenStash(stash, testKey(t, 9), testUpload); err != nil && !errors.Is(err, ErrCorrupt) {
			t.Error(err)
		}
		st, err := decodeStash(pt)
		if err != nil {
			if !errors.Is(err, ErrCorrupt) {
				t.Error(err)
			}
			return
		}
		sealed, err := Suite{}.SealStash(testKeyID, testKey(t, 9), testUpload, st)
		if err != nil {
			t.Fatal(err)
		}
		back, err := Suite{}.OpenStash(sealed, testKey(t, 9), testUpload)
		if err != nil || !back.DEK.Equal(st.DEK) || back.Algorithm != st.Algorithm || back.Scope != st.Scope || !back.Created.Equal(st.Created) {
			t.Errorf("got %+v, %v, want %+v", back, err, st)
		}
	})
}

// FuzzWindow compares windows with the plain definition of where a byte lies.
func FuzzWindow(f *testing.F) {
	f.Add(int64(0), int64(1), int64(5), int64(7))
	f.Add(int64(ChunkSize), int64(ChunkSize), int64(MinPartSize), int64(MinPartSize))
	f.Add(int64(MinPartSize-1), int64(2), int64(MinPartSize), int64(0))
	f.Fuzz(func(t *testing.T, off, n, first, second int64) {
		first, second = MinPartSize+(first&MaxPartSize)%(MaxPartSize-MinPartSize), second&(MaxPartSize-1)
		length := first + second
		table := newTable(Multipart, trailer{length: length, parts: parts(first, second)}, Size(length))
		w, err := table.Window(off, n)
		if bad := off < 0 || n <= 0 || off >= length || n > length-off; bad != (err != nil) {
			t.Fatalf("Window(%d, %d) of %d: %v", off, n, length, err)
		}
		if err != nil || n == length {
			return
		}
		at := func(x int64) (start, end int64) { // of the chunk that holds byte x
			if x < first {
				return 56 + x/16384*16400, 56 + x/16384*16400 + min(16384, first-x/16384*16384) + 16
			}
			base := MessageSize(first)
			x -= first
			return base + 56 + x/16384*16400, base + 56 + x/16384*16400 + min(16384, second-x/16384*16384) + 16
		}
		start, _ := at(off)
		_, end := at(off + n - 1)
		if w.Offset > start || start-w.Offset > HeaderSize || w.Offset+w.Length < end || w.Offset+w.Length > end+TagSize {
			t.Errorf("Window(%d, %d): got %v, want %d to %d", off, n, w, start, end)
		}
	})
}
