package frontdoor

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"strings"
	"testing"
	"time"
)

const emptyHash = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

// stream is an upload in signed chunks, taken apart.
type stream struct {
	shot
	seed   string
	chunks []string // each with its signature and line ends; the last is empty
	lines  []string // of the trailer, its signature last
}

// newStream signs chunks of a body as S3 wants it, with a checksum in the trailer.
func newStream(key string, parts ...string) *stream {
	now := time.Now().UTC()
	s := &stream{shot: put(key, "")}
	s.payload = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"
	body := strings.Join(parts, "")
	s.signed = []string{fmt.Sprintf("x-amz-decoded-content-length: %d", len(body)), "x-amz-trailer: x-amz-checksum-crc32c"}
	_, s.seed = s.sign()
	previous := s.seed
	head := "\n" + now.Format(amzTime) + "\n" + scope(now) + "\n"
	for _, part := range append(parts, "") {
		previous = mac(now, "AWS4-HMAC-SHA256-PAYLOAD"+head+previous+"\n"+emptyHash+"\n"+digest(part))
		chunk := fmt.Sprintf("%x;chunk-signature=%s\r\n", len(part), previous)
		if part != "" {
			chunk += part + "\r\n"
		}
		s.chunks = append(s.chunks, chunk)
	}
	line := "x-amz-checksum-crc32c:" + crc(body)
	s.lines = []string{line, "x-amz-trailer-signature:" + mac(now, "AWS4-HMAC-SHA256-TRAILER"+head+previous+"\n"+digest(line+"\n"))}
	return s
}

func crc(body string) string {
	sum := crc32.Checksum([]byte(body), crc32.MakeTable(crc32.Castagnoli))
	return base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint32(nil, sum))
}

func (s *stream) text() string {
	s.body = strings.Join(s.chunks, "") + strings.Join(s.lines, "\r\n") + "\r\n\r\n"
	return s.shot.text()
}

// TestChainsOfChunksHoldTogether bends uploads whose chunks are each signed, as
// somebody on the way could who has seen another upload of the same client.
func TestChainsOfChunksHoldTogether(t *testing.T) {
	w := newWorld(t)
	part := func(c string) string { return strings.Repeat(c, 8<<10) }
	other := newStream("other", part("a"), part("b"), part("c"))
	for _, tt := range []struct {
		name string
		bend func(s *stream)
		code string // empty for success
	}{
		{"good", func(*stream) {}, ""},
		{"the first chunk is missing", func(s *stream) { s.chunks = s.chunks[1:] }, "SignatureDoesNotMatch"},
		{"a chunk is missing", func(s *stream) { s.chunks = append(s.chunks[:1], s.chunks[2:]...) }, "SignatureDoesNotMatch"},
		{"the last chunk with data is missing", func(s *stream) { s.chunks = append(s.chunks[:2], s.chunks[3]) }, "SignatureDoesNotMatch"},
		{"two chunks are swapped", func(s *stream) { s.chunks[0], s.chunks[1] = s.chunks[1], s.chunks[0] }, "SignatureDoesNotMatch"},
		{"a chunk comes twice", func(s *stream) { s.chunks[1] = s.chunks[0] }, "SignatureDoesNotMatch"},
		{"a chunk comes twice beyond the length", func(s *stream) { s.chunks = append(s.chunks[:3], s.chunks[2], s.chunks[3]) }, "SignatureDoesNotMatch"},
		{"a chunk of another upload", func(s *stream) { s.chunks[1] = other.chunks[1] }, "SignatureDoesNotMatch"},
		{"all chunks of another upload", func(s *stream) { s.chunks = other.chunks }, "SignatureDoesNotMatch"},
		{"a chunk with other data", func(s *stream) { s.chunks[1] = strings.Replace(s.chunks[1], "bbb", "bxb", 1) }, "SignatureDoesNotMatch"},
		{"two chunks made one", func(s *stream) {
			s.chunks[0] = strings.Replace(s.chunks[0], "2000;", "4000;", 1)
			s.chunks[0] = strings.TrimSuffix(s.chunks[0], "\r\n") + part("b") + "\r\n"
			s.chunks = append(s.chunks[:1], s.chunks[2:]...)
		}, "SignatureDoesNotMatch"},
		{"no signature on a chunk", func(s *stream) { s.chunks[1] = "2000\r\n" + part("b") + "\r\n" }, "IncompleteBody"},
		{"two signatures on a chunk", func(s *stream) { s.chunks[1] = swap(";", ";chunk-signature="+strings.Repeat("0", 64)+";")(s.chunks[1]) }, "IncompleteBody"},
		{"an end in the middle", func(s *stream) { s.chunks = []string{s.chunks[0], s.chunks[3]} }, "SignatureDoesNotMatch"},
		{"no end", func(s *stream) { s.chunks, s.lines = s.chunks[:3], nil }, "IncompleteBody"},
		{"no trailer", func(s *stream) { s.lines = nil }, "MalformedTrailerError"},
		{"a trailer without its signature", func(s *stream) { s.lines = s.lines[:1] }, "IncompleteBody"},
		{"a signature without a trailer", func(s *stream) { s.lines = s.lines[1:] }, "SignatureDoesNotMatch"},
		{"a trailer of another upload", func(s *stream) { s.lines = other.lines }, "SignatureDoesNotMatch"},
		{"another checksum", func(s *stream) { s.lines[0] = "x-amz-checksum-crc32c:AAAAAA==" }, "SignatureDoesNotMatch"},
		{"a header as a trailer", func(s *stream) { s.lines = append([]string{"x-amz-meta-evil:1"}, s.lines...) }, "SignatureDoesNotMatch"},
		{"a trailer twice", func(s *stream) { s.lines = append([]string{s.lines[0]}, s.lines...) }, "MalformedTrailerError"},
		{"trailers without end", func(s *stream) {
			for i := range 10_000 {
				s.lines = append(s.lines, fmt.Sprintf("x-%d:1", i))
			}
		}, "IncompleteBody"},
		{"a trailer without end", func(s *stream) { s.lines[0] += strings.Repeat("x", 1<<20) }, "IncompleteBody"},
		{"made an unsigned stream", func(s *stream) {
			s.loose = append(s.loose, "x-amz-content-sha256: STREAMING-UNSIGNED-PAYLOAD-TRAILER")
		}, "InvalidRequest"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := w.at(t)
			s := newStream("kept", part("a"), part("b"), part("c"))
			if tt.code == "" {
				s = newStream("whole", part("a"), part("b"), part("c"))
			}
			tt.bend(s)
			got := w.exchange(s.text())
			if len(got) != 1 || (got[0].status == 200) != (tt.code == "") || !strings.Contains(got[0].body, codeElement(tt.code)) {
				t.Errorf("got %.600s, want %s", fmt.Sprint(got), tt.code)
			}
			if tt.code == "" {
				w.wants(shot{method: "DELETE", path: s.path}, 204, "")
			}
			w.unchanged()
		})
	}
}
