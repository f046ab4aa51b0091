package sigv4

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"
)

func sum256(b []byte) []byte {
	sum := sha256.Sum256(b)
	return sum[:]
}

func noise(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{byte(n)}).Read(b)
	return b
}

// signedBody is a Signed as Verify makes it, of a mode and size.
func signedBody(p Payload, size int64, trailers ...string) *Signed {
	scope := Scope{exampleKey, "20260301", "us-east-1", "s3"}
	return &Signed{
		Scope: scope, Key: testKey(Derive(exampleSecret, scope)), Payload: p, Size: size, Trailers: trailers,
		signature: strings.Repeat("5", 64), timestamp: clock,
	}
}

// encode writes data in chunks as the client of s would; trailer lines have no
// line ends.
func encode(s *Signed, data []byte, chunk int, trailer ...string) []byte {
	var out bytes.Buffer
	prev := s.signature
	write := func(piece []byte) {
		fmt.Fprintf(&out, "%x", len(piece))
		if s.Payload.signed() {
			prev = obviousSignature(s, "AWS4-HMAC-SHA256-PAYLOAD", prev, emptyHash+"\n", piece)
			out.WriteString(";chunk-signature=" + prev)
		}
		out.WriteString("\r\n")
		if len(piece) > 0 {
			out.Write(piece)
			out.WriteString("\r\n")
		}
	}
	for rest := data; len(rest) > 0; rest = rest[min(chunk, len(rest)):] {
		write(rest[:min(chunk, len(rest))])
	}
	write(nil)
	raw := ""
	for _, line := range trailer {
		raw += line + "\n"
		out.WriteString(line + "\r\n")
	}
	if s.Payload == PayloadChunksTrailer {
		out.WriteString(signatureName + ":" + obviousSignature(s, "AWS4-HMAC-SHA256-TRAILER", prev, "", []byte(raw)) + "\r\n")
	}
	out.WriteString("\r\n")
	return out.Bytes()
}

func obviousSignature(s *Signed, name, prev, middle string, data []byte) string {
	sts := name + "\n" + s.timestamp + "\n" + s.Scope.credential() + "\n" + prev + "\n" + middle + hex.EncodeToString(sum256(data))
	sig := sign(s.Key, []byte(sts))
	return string(sig[:])
}

const trailerLine = "x-amz-checksum-crc32:AAAAAA=="

func TestEveryBodyModeComesThroughInAnyPieces(t *testing.T) {
	for _, size := range []int{0, 1, 8191, 8192, 8193, 70000} {
		data := noise(size)
		for _, p := range []Payload{PayloadUnsigned, PayloadHash, PayloadChunks, PayloadChunksTrailer, PayloadUnsignedTrailer} {
			var trailers, lines []string
			if p == PayloadChunksTrailer || p == PayloadUnsignedTrailer {
				trailers, lines = []string{"x-amz-checksum-crc32"}, []string{trailerLine}
			}
			s := signedBody(p, int64(size), trailers...)
			s.hash = sha256.Sum256(data)
			raw := data
			if p.Chunked() {
				raw = encode(s, data, 8192, lines...)
			}
			for name, wrap := range map[string]func(io.Reader) io.Reader{
				"whole": func(r io.Reader) io.Reader { return r }, "bytes": iotest.OneByteReader,
				"halves": iotest.HalfReader, "eager EOF": iotest.DataErrReader,
			} {
				body := s.Open(wrap(bytes.NewReader(raw)))
				got, err := io.ReadAll(body)
				if err != nil || !bytes.Equal(got, data) {
					t.Errorf("%v, %d bytes, %s: got %d bytes and %v", p, size, name, len(got), err)
				}
				if len(lines) > 0 && body.Trailer("x-amz-checksum-crc32") != "AAAAAA==" {
					t.Errorf("%v, %d bytes, %s: the trailer is lost", p, size, name)
				}
			}
		}
	}
}

// The sealed writer below holds back its last batch until it has seen io.EOF: the
// last bytes of a false body must therefore never come with, or before, io.EOF.
func TestTheVerdictComesWithTheLastBytes(t *testing.T) {
	data := noise(20000)
	good := signedBody(PayloadHash, 20000)
	good.hash = sha256.Sum256(data)
	lying := signedBody(PayloadHash, 20000)
	chunks := signedBody(PayloadChunks, 20000)
	raw := encode(chunks, data, 8192)
	spoiled := bytes.Clone(raw)
	spoiled[len(spoiled)-10] ^= 1 // in the signature of the empty chunk
	for _, tt := range []struct {
		name string
		s    *Signed
		raw  []byte
		want error
	}{
		{"hash", good, data, io.EOF},
		{"false hash", lying, data, ErrBodyHash},
		{"chunks", chunks, raw, io.EOF},
		{"false chunks", chunks, spoiled, ErrSignature},
	} {
		t.Run(tt.name, func(t *testing.T) {
			body, total := tt.s.Open(bytes.NewReader(tt.raw)), 0
			for {
				n, err := body.Read(make([]byte, 1<<20))
				if total += n; total < len(data) {
					if err != nil {
						t.Fatalf("after %d bytes: %v", total, err)
					}
					continue
				}
				if !errors.Is(err, tt.want) {
					t.Errorf("with the last bytes: got %v, want %v", err, tt.want)
				}
				if _, again := body.Read(make([]byte, 1)); !errors.Is(again, tt.want) {
					t.Errorf("afterwards: got %v, want %v", again, tt.want)
				}
				return
			}
		})
	}
}

func TestFalseBodiesAreRefused(t *testing.T) {
	chunked := func(s string) []byte { return []byte(strings.ReplaceAll(s, "\n", "\r\n")) }
	const crc = "x-amz-checksum-crc64nvme"
	for _, tt := range []struct {
		name     string
		size     int64
		trailers string
		raw      []byte
		want     error
	}{
		{"good", 5, crc, chunked("5\nhello\n0\n" + crc + ":M3eFcAZSQlc=\n\n"), nil},
		{"good, trailer's line ends in LF alone", 5, crc, []byte("5\r\nhello\r\n0\r\n" + crc + ":M3eFcAZSQlc=\n\r\n\r\n"), nil},
		{"LF alone after the size", 10, "", []byte("A\ndummy data\r\n0\r\n\r\n"), ErrIncomplete},
		{"no line end after the data", 10, "", chunked("A\ndummy data0\n\n"), ErrIncomplete},
		{"a line too many", 10, "", chunked("A\nXYZ\ndummy data\n0\n\n"), ErrIncomplete},
		{"a size too large", 10, "", chunked("B\ndummy data\n0\n\n"), ErrIncomplete},
		{"cut before the end", 10, "", chunked("A\ndummy data\n0\n"), ErrIncomplete},
		{"cut in the trailer", 10, crc, chunked("A\ndummy data\n0\n" + crc + ":dPVWc2vU1+Q=\n"), ErrIncomplete},
		{"cut before the data", 10, "", chunked("A\n"), ErrIncomplete},
		{"cut in the data", 10, "", chunked("A\ndummy"), ErrIncomplete},
		{"no size", 10, "", chunked("invalid_chunk_size\ndummy data\n0\n\n"), ErrIncomplete},
		{"no second size", 10, crc, chunked("A\ndummy data\nJ\n" + crc + ":dPVWc2vU1+Q=\n\n"), ErrIncomplete},
		{"a negative size", 10, "", chunked("-A\ndummy data\n0\n\n"), ErrIncomplete},
		{"a size beyond all", 10, "", chunked("FFFFFFFFFFFFFFFF\ndummy data\n0\n\n"), ErrIncomplete},
		{"an extension", 10, "", chunked("A;chunk-signature=00\ndummy data\n0\n\n"), ErrIncomplete},
		{"something after the end", 10, "", chunked("A\ndummy data\n0\n\nmore"), ErrIncomplete},
		{"a line without end", 10, "", bytes.Repeat([]byte("A"), 5000), ErrIncomplete},
		{"longer than declared", 5, "", chunked("b\nabcdefghijk\n0\n\n"), ErrLength},
		{"a chunk more than declared", 10000, "", chunked("2710\n" + strings.Repeat("a", 10000) + "\n5\nabcde\n0\n\n"), ErrLength},
		{"much longer than declared", 5, "", chunked("30d40\n" + strings.Repeat("a", 200000) + "\n0\n\n"), ErrLength},
		{"shorter than declared", 200, "", chunked("b\nabcdefghijk\n0\n\n"), ErrLength},
		{"longer than declared, and another trailer", 7, crc, chunked("a\ndummy data\n0\nx-amz-checksum-sha256:eXuw=\n\n"), ErrLength},
		{"a small chunk before another", 200, "", chunked("64\n" + strings.Repeat("a", 100) + "\n64\n" + strings.Repeat("a", 100) + "\n0\n\n"), ErrChunkSize},
		{"no trailer", 5, crc, chunked("5\nhello\n0\n\n"), ErrTrailer},
		{"a trailer without name", 5, crc, chunked("5\nhello\n0\n:M3eFcAZSQlc=\n\n"), ErrTrailer},
		{"a trailer that was not declared", 5, "", chunked("5\nhello\n0\n" + crc + ":M3eFcAZSQlc=\n\n"), ErrTrailer},
		{"another trailer", 5, crc, chunked("5\nhello\n0\ninvalid_trailer:M3eFcAZSQlc=\n\n"), ErrTrailer},
		{"a trailer without value", 5, crc, chunked("5\nhello\n0\n" + crc + ":\n\n"), ErrTrailer},
		{"a trailer twice", 5, crc, chunked("5\nhello\n0\n" + crc + ":a\n" + crc + ":b\n\n"), ErrTrailer},
		{"too many trailers", 5, crc, chunked("5\nhello\n0\na:1\nb:1\nc:1\nd:1\ne:1\nf:1\ng:1\nh:1\n\n"), ErrTrailer},
		{"no colon", 5, crc, chunked("5\nhello\n0\nnothing\n\n"), ErrIncomplete},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := signedBody(PayloadUnsignedTrailer, tt.size, trailerNames(tt.trailers)...)
			got, err := io.ReadAll(s.Open(bytes.NewReader(tt.raw)))
			if !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
			if int64(len(got)) > tt.size {
				t.Errorf("released %d bytes of %d declared", len(got), tt.size)
			}
		})
	}
}

func TestFalseSignedTrailersAreRefused(t *testing.T) {
	s := signedBody(PayloadChunksTrailer, 5, "x-amz-checksum-crc32")
	raw := string(encode(s, []byte("hello"), 8192, trailerLine))
	for _, tt := range []struct {
		name, old, with string
		want            error
	}{
		{"good", "", "", nil},
		{"as minio-go writes it", "AAAAAA==\r\n", "AAAAAA==\n\r\n", nil},
		{"another value", "AAAAAA==", "BAAAAA==", ErrSignature},
		{"no signature", signatureName, "x-amz-other", ErrIncomplete},
		{"a short signature", signatureName + ":", signatureName + ":a", ErrIncomplete},
		{"a signature of nothing", raw[strings.Index(raw, trailerLine):], "\r\n" + signatureName + ":" + strings.Repeat("0", 64) + "\r\n\r\n", ErrTrailer},
		{"nothing at all", raw[strings.Index(raw, trailerLine):], "\r\n", ErrTrailer},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := io.ReadAll(s.Open(strings.NewReader(strings.Replace(raw, tt.old, tt.with, 1))))
			if !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
}

func TestShortAndBrokenPlainBodies(t *testing.T) {
	broken := errors.New("connection reset")
	for _, tt := range []struct {
		name string
		src  io.Reader
		want error
	}{
		{"short", strings.NewReader("1234"), ErrIncomplete},
		{"cut", io.MultiReader(strings.NewReader("1234"), iotest.ErrReader(io.ErrUnexpectedEOF)), ErrIncomplete},
		{"broken", io.MultiReader(strings.NewReader("1234"), iotest.ErrReader(broken)), broken},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := io.ReadAll(signedBody(PayloadUnsigned, 5).Open(tt.src)); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
}

// Reads of a mebibyte must reach the source as they are, not in the pieces of a
// small buffer.
func TestLargeReadsGoStraightToTheSource(t *testing.T) {
	data := noise(4 << 20)
	for _, p := range []Payload{PayloadUnsigned, PayloadHash, PayloadChunks} {
		s := signedBody(p, int64(len(data)))
		s.hash = sha256.Sum256(data)
		raw := data
		if p.Chunked() {
			raw = encode(s, data, 1<<20)
		}
		src := bytes.NewReader(raw)
		small, reads := 0, 0
		body := s.Open(readerFunc(func(b []byte) (int, error) {
			if reads++; len(b) < 256<<10 {
				small++
			}
			return src.Read(b)
		}))
		if _, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{body}, make([]byte, 1<<20)); err != nil {
			t.Fatal(err)
		}
		if reads > 20 || small > 12 {
			t.Errorf("%v: %d reads, %d of them small", p, reads, small)
		}
	}
}

func TestReadingDoesNotAllocate(t *testing.T) {
	data := noise(1 << 20)
	s := signedBody(PayloadChunks, 1<<20)
	raw := encode(s, data, 64<<10)
	src := bytes.NewReader(raw)
	body, buf := s.Open(src), make([]byte, 64<<10)
	got := testing.AllocsPerRun(10, func() {
		if _, err := body.Read(buf); err != nil {
			t.Fatal(err)
		}
	})
	if got > 0 {
		t.Errorf("got %v allocations a read", got)
	}
}

func BenchmarkBody(b *testing.B) {
	data := noise(64 << 20)
	for _, p := range []Payload{PayloadUnsigned, PayloadHash, PayloadChunks, PayloadUnsignedTrailer} {
		s := signedBody(p, int64(len(data)))
		s.hash = sha256.Sum256(data)
		raw := data
		if p.Chunked() {
			raw = encode(s, data, 64<<10)
		}
		b.Run(strconv.Itoa(int(p)), func(b *testing.B) {
			b.SetBytes(int64(len(data)))
			buf := make([]byte, 1<<20)
			for b.Loop() {
				if _, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{s.Open(bytes.NewReader(raw))}, buf); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
