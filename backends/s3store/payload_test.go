package s3store

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"
)

// unframe decodes aws-chunked in the most obvious way.
func unframe(t testing.TB, framed string) (body, trailer string) {
	t.Helper()
	for {
		length, rest, ok := strings.Cut(framed, "\r\n")
		n, err := strconv.ParseInt(length, 16, 64)
		if !ok || err != nil {
			t.Fatalf("chunk header %.40q: %v", framed, err)
		}
		if n == 0 {
			trailer, ok = strings.CutSuffix(rest, "\r\n\r\n")
			if !ok || strings.Contains(trailer, "\r\n") {
				t.Fatalf("trailer %q: want one line and an empty one", rest)
			}
			return body, trailer
		}
		if int64(len(rest)) < n+2 || rest[n:n+2] != "\r\n" {
			t.Fatalf("chunk of %d bytes has no end", n)
		}
		body, framed = body+rest[:n], rest[n+2:]
	}
}

func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i % 251)
	}
	return b
}

func TestFramedBodyDecodesToTheBodyAndItsChecksum(t *testing.T) {
	for _, sum := range []Checksum{CRC64NVME, CRC32C} {
		for _, n := range []int{0, 1, chunkSize - 1, chunkSize, chunkSize + 1, 2 * chunkSize, 2*chunkSize + 12345} {
			want := pattern(n)
			f := newFramer(bytes.NewReader(want), int64(n), sum)
			length := f.encoded()
			framed, err := io.ReadAll(f)
			if err != nil {
				t.Fatal(err)
			}
			if got := int64(len(framed)); got != length {
				t.Errorf("%s, %d bytes: got %d framed bytes, said %d", sum, n, got, length)
			}
			body, trailer := unframe(t, string(framed))
			if body != string(want) {
				t.Errorf("%s, %d bytes: the body is another one", sum, n)
			}
			h := sum.hash()
			h.Write(want)
			if got, want := trailer, sum.header()+":"+base64.StdEncoding.EncodeToString(h.Sum(nil)); got != want {
				t.Errorf("%s, %d bytes: got trailer %q, want %q", sum, n, got, want)
			}
		}
	}
}

// The check value of the catalogue of CRC algorithms, for "123456789".
func TestChecksumsAreThePublishedOnes(t *testing.T) {
	for sum, want := range map[Checksum]string{CRC64NVME: "ae8b14860a799888", CRC32C: "e3069283"} {
		h := sum.hash()
		h.Write([]byte("123456789"))
		if got := fmt.Sprintf("%x", h.Sum(nil)); got != want {
			t.Errorf("%s: got %s, want %s", sum, got, want)
		}
	}
}

func FuzzFramerReadsInAnyPieces(f *testing.F) {
	f.Add([]byte("hello"), uint8(1), false)
	f.Add([]byte(""), uint8(3), true)
	f.Add(pattern(300), uint8(200), true)
	f.Fuzz(func(t *testing.T, body []byte, piece uint8, halves bool) {
		var r io.Reader = bytes.NewReader(body)
		if halves {
			r = iotest.HalfReader(r)
		}
		framer := newFramer(r, int64(len(body)), CRC64NVME)
		var framed []byte
		buf := make([]byte, int(piece)+1)
		for {
			n, err := framer.Read(buf)
			framed = append(framed, buf[:n]...)
			if err == io.EOF { //nolint:errorlint // the protocol of io.Reader
				break
			}
			if err != nil || n == 0 {
				t.Fatalf("got %d bytes and %v", n, err)
			}
		}
		if got, _ := unframe(t, string(framed)); got != string(body) {
			t.Errorf("got %q, want %q", got, body)
		}
	})
}

func TestFramerPassesErrorsOnAndNeverEndsAfterThem(t *testing.T) {
	broken := errors.New("broken")
	body := io.MultiReader(strings.NewReader("abc"), iotest.ErrReader(broken))
	framed, err := io.ReadAll(newFramer(body, 6, CRC64NVME))
	if !errors.Is(err, broken) {
		t.Errorf("got %v, want the body's error", err)
	}
	if strings.Contains(string(framed), "\r\n0\r\n") {
		t.Errorf("got %q, which ends as if it were whole", framed)
	}
}

func TestFramerGivesTheBodyAllOfTheBuffer(t *testing.T) {
	var sizes []int
	body := readerFunc(func(p []byte) (int, error) {
		sizes = append(sizes, len(p))
		return len(p), nil
	})
	f := newFramer(body, 3*chunkSize, CRC64NVME)
	if n, err := f.Read(make([]byte, batchSize)); n != batchSize || err != nil {
		t.Errorf("got %d bytes and %v, want a full buffer", n, err)
	}
	if got := sizes[0]; len(sizes) != 1 || got < 1<<20 {
		t.Errorf("got reads of %v bytes, want one of more than a MiB", sizes)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }
