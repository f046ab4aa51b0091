package sigv4

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// oracle decodes aws-chunked the slow and obvious way: all in memory, one step of
// the format after the other. ok is whether the body must be accepted.
func oracle(s *Signed, raw string) (data []byte, ok bool) {
	prev, small := s.signature, false
	check := func(name, middle, signature string, signedData []byte) bool {
		want := obviousSignature(s, name, prev, middle, signedData)
		prev = want
		return want == signature
	}
	for {
		header, rest, found := strings.Cut(raw, "\r\n")
		if !found || len(header)+2 > maxLine || strings.ContainsAny(header, "\r\n") {
			return nil, false
		}
		digits, signature, hasSignature := strings.Cut(header, ";chunk-signature=")
		if hasSignature != s.Payload.signed() || len(digits) > 15 || strings.ContainsAny(digits, "+-_xX") {
			return nil, false
		}
		size, err := strconv.ParseInt(digits, 16, 64)
		if err != nil || size > int64(len(rest)) {
			return nil, false
		}
		chunk := rest[:size]
		if size > 0 {
			if small || !strings.HasPrefix(rest[size:], "\r\n") {
				return nil, false
			}
			rest, small = rest[size+2:], size < MinChunk
		}
		if s.Payload.signed() && !check("AWS4-HMAC-SHA256-PAYLOAD", emptyHash+"\n", signature, []byte(chunk)) {
			return nil, false
		}
		raw, data = rest, append(data, chunk...)
		if size == 0 {
			break
		}
	}
	return data, int64(len(data)) == s.Size && oracleTrailer(s, raw, check)
}

func oracleTrailer(s *Signed, raw string, check func(name, middle, signature string, data []byte) bool) bool {
	signed, got, signature := "", map[string]string{}, ""
	for lines := 0; ; lines++ {
		line, rest, found := strings.Cut(raw, "\n")
		if !found || lines == maxTrailers || len(line)+1 > maxLine {
			return false
		}
		raw = rest
		line = strings.TrimSuffix(line, "\r")
		if strings.Contains(line, "\r") {
			return false
		}
		if line == "" {
			if s.Payload == PayloadChunksTrailer && signed != "" && signature == "" {
				continue
			}
			break
		}
		name, value, colon := strings.Cut(line, ":")
		name = strings.ToLower(strings.TrimSpace(name))
		if !colon || signature != "" {
			return false
		}
		if name == signatureName && s.Payload == PayloadChunksTrailer {
			if signature = value; value == "" {
				return false
			}
			continue
		}
		if _, again := got[name]; again {
			return false
		}
		got[name] = strings.TrimSpace(value)
		signed += name + ":" + got[name] + "\n"
	}
	if s.Payload == PayloadChunksTrailer && signed+signature != "" && !check("AWS4-HMAC-SHA256-TRAILER", "", signature, []byte(signed)) {
		return false
	}
	for _, name := range s.Trailers {
		if got[name] == "" {
			return false
		}
	}
	return len(got) == len(s.Trailers) && strings.Trim(raw, "\r\n") == "" && len(raw) < maxLine
}

// FuzzChunked compares the streaming decoder with the oracle, in pieces of a size
// that the fuzzer chooses.
func FuzzChunked(f *testing.F) {
	const name = "x-amz-checksum-crc32"
	for _, p := range []Payload{PayloadChunks, PayloadChunksTrailer, PayloadUnsignedTrailer} {
		for _, size := range []int{0, 5, 8200} {
			s := signedBody(p, int64(size), name)
			f.Add(byte(p), int64(size), byte(1), byte(255), encode(s, noise(size), 8192, trailerLine))
			f.Add(byte(p), int64(size), byte(0), byte(3), encode(s, noise(size), 8192))
		}
	}
	f.Add(byte(PayloadUnsignedTrailer), int64(5), byte(1), byte(2), []byte("5\r\nhello\r\n0\r\n"+name+": x\n\r\n\r\n"))
	f.Fuzz(func(t *testing.T, mode byte, size int64, trailers, piece byte, raw []byte) {
		p := PayloadChunks + Payload(mode%3)
		if size < 0 || size > 1<<20 {
			return
		}
		s := signedBody(p, size)
		if trailers&1 == 1 {
			s.Trailers = []string{name}
		}
		want, accept := oracle(s, string(raw))
		got, err := io.ReadAll(s.Open(pieces{bytes.NewReader(raw), int(piece) + 1}))
		var e *Error
		switch {
		case accept != (err == nil):
			t.Fatalf("got %v, oracle accepts: %v", err, accept)
		case err != nil && !errors.As(err, &e):
			t.Fatalf("got an error of another kind: %v", err)
		case err == nil && !bytes.Equal(got, want):
			t.Fatalf("got %d bytes, want %d", len(got), len(want))
		case int64(len(got)) > size:
			t.Fatalf("released %d bytes of %d", len(got), size)
		}
	})
}

// pieces limits each Read.
type pieces struct {
	src io.Reader
	n   int
}

func (p pieces) Read(b []byte) (int, error) { return p.src.Read(b[:min(len(b), p.n)]) }

// FuzzVerify feeds the verifier requests that nobody signed with the right key. It
// must refuse them all, with an *Error, and not panic.
func FuzzVerify(f *testing.F) {
	f.Add("GET", "/b/k", "", algorithm+" Credential="+clockScope+",SignedHeaders=host,Signature="+strings.Repeat("0", 64), clock, emptyHash)
	f.Add("PUT", "/b//%2e", "a=b&c", algorithm+" Credential=a/b/c,SignedHeaders=;,Signature=0", clock, unsignedPayload)
	f.Add("GET", "/", "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential="+url.QueryEscape(clockScope)+
		"&X-Amz-Date="+clock+"&X-Amz-Expires=9&X-Amz-SignedHeaders=host&X-Amz-Signature=0", "", "", "")
	f.Fuzz(func(t *testing.T, method, path, query, auth, date, hash string) {
		u, err := url.ParseRequestURI(path)
		if err != nil {
			return
		}
		u.RawQuery = query
		r := &http.Request{Method: method, URL: u, Host: "h", Header: http.Header{}, Body: http.NoBody}
		for name, value := range map[string]string{"Authorization": auth, "X-Amz-Date": date, "X-Amz-Content-Sha256": hash} {
			if value != "" {
				r.Header.Set(name, value)
			}
		}
		s, err := exampleVerifier(clock).Verify(t.Context(), r)
		var e *Error
		if err == nil || s != nil && !errors.Is(err, ErrBodyHash) {
			t.Fatalf("accepted %q %q", auth, query)
		}
		if !errors.As(err, &e) {
			t.Fatalf("an error of another kind: %v", err)
		}
	})
}

// FuzzCanonicalQuery checks that the canonical query is sorted, stands for the same
// parameters, and is its own canonical form.
func FuzzCanonicalQuery(f *testing.F) {
	for _, q := range []string{"", "a", "a=", "b=2&a=1", "a=2&a=1", "a=%2B&b=+", "&&", "x=%E2%82%AC", "=v"} {
		f.Add(q)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		params, err := parseQuery(raw)
		if err != nil {
			return
		}
		once := string(appendQuery(nil, params))
		again, err := parseQuery(once)
		if err != nil {
			t.Fatalf("%q became %q: %v", raw, once, err)
		}
		if twice := string(appendQuery(nil, again)); twice != once {
			t.Errorf("%q became %q and then %q", raw, once, twice)
		}
		byName := func(a, b param) int {
			return strings.Compare(hex.EncodeToString([]byte(a.name+"\x00"+a.value)), hex.EncodeToString([]byte(b.name+"\x00"+b.value)))
		}
		slices.SortFunc(params, byName)
		slices.SortFunc(again, byName)
		if !slices.Equal(params, again) {
			t.Errorf("%q stands for %q, its canonical form for %q", raw, params, again)
		}
	})
}
