package frontdoor

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestNoRequestIsSmuggled sends, behind a request whose end two servers may see at
// different places, a second one that is signed and good. A proxy in front would have
// taken it for a body, or for another client's. It must not be answered.
func TestNoRequestIsSmuggled(t *testing.T) {
	w := newWorld(t, func(o *options) { o.gateway.Stall = 2 * time.Second })
	second := put("smuggled", "x").text()
	if got := w.exchange(shot{method: "GET", path: "/" + bucket + "/kept", open: true}.text() + second); len(got) != 2 || got[1].status != 200 {
		t.Fatalf("two good requests on one connection: got %v, want two answers: nothing would be seen of an attack", got)
	}
	w.wants(shot{method: "DELETE", path: "/" + bucket + "/smuggled"}, 204, "")
	for name, raw := range smugglers(second) {
		t.Run(name, func(t *testing.T) {
			w := w.at(t)
			answers := w.exchange(raw)
			if len(answers) > 1 {
				t.Errorf("got %d answers, want one at most: %v", len(answers), answers)
			}
			w.unchanged()
		})
	}
}

// smugglers are requests with the second behind what the gateway takes for their end,
// or what it might.
func smugglers(second string) map[string]string {
	get := func(loose ...string) string {
		return shot{method: "GET", path: "/" + bucket + "/kept", open: true, unsized: true, loose: loose}.text()
	}
	length := fmt.Sprintf("content-length: %d", len("0\r\n\r\n"+second))
	chunk := fmt.Sprintf("%x\r\n", len(second))
	old := strings.Replace(get("transfer-encoding: chunked", "connection: keep-alive", fmt.Sprintf("content-length: %d", len(chunk))), "HTTP/1.1", "HTTP/1.0", 1)
	return map[string]string{
		"length, then chunks":            get(length, "transfer-encoding: chunked") + "0\r\n\r\n" + second,
		"chunks, then length":            get("transfer-encoding: chunked", length) + "0\r\n\r\n" + second,
		"chunks in a folded line":        get(length, "transfer-encoding:\r\n chunked") + "0\r\n\r\n" + second,
		"chunks behind a bare line feed": get(length, "x: y\ntransfer-encoding: chunked") + "0\r\n\r\n" + second,
		"chunks in HTTP/1.0":             old + chunk + second + "\r\n0\r\n\r\n",
		"two lengths":                    get(length, "content-length: 0") + second,
		"two lengths in one line":        get("content-length: 0, 5") + second,
		"a folded length":                get("content-length: 0\r\n 5") + second,
		"a signed length":                get("content-length: +0") + second,
		"a negative length":              get("content-length: -1") + second,
		"a length in hexadecimal":        get("content-length: 0x0") + second,
		"no number":                      get("content-length: ") + second,
		"a length behind a bare LF":      get(length, "x: y\ncontent-length: 0") + second,
		"two encodings":                  get(length, "transfer-encoding: chunked", "transfer-encoding: identity") + "0\r\n\r\n" + second,
		"two encodings in one line":      get(length, "transfer-encoding: identity, chunked") + "0\r\n\r\n" + second,
		"an unknown encoding":            get(length, "transfer-encoding: xchunked") + "0\r\n\r\n" + second,
		"an encoding with a tab inside":  get(length, "transfer-encoding: chun\tked") + "0\r\n\r\n" + second,
		"an encoding with a control":     get(length, "transfer-encoding: \x0bchunked") + "0\r\n\r\n" + second,
		"a blank before the colon":       get("content-length: 0", "transfer-encoding : chunked") + second,
		"a blank before the first name":  get("content-length: 0", " transfer-encoding: chunked") + second,
		"a bare CR in a value":           get("content-length: 0", "x: y\rtransfer-encoding: chunked") + second,
		"a NUL in a value":               get("content-length: 0", "x: y\x00z") + second,
		"a line without a colon":         get("content-length: 0", "transfer-encoding") + second,
		"two hosts":                      get("content-length: 0", "host: other.test") + second,
		"an upgrade":                     get("content-length: 0", "connection: upgrade, http2-settings, close", "upgrade: h2c", "http2-settings: AAMAAABkAARAAAAAAAIAAAAA") + second,
		"HTTP/2 without asking":          "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + second,
		"a version that does not exist":  strings.Replace(get("content-length: 0"), "HTTP/1.1", "HTTP/1.1\x0b", 1) + second,
	}
}

// TestChunksOfHTTPAreStrict sends bodies in chunks that parsers disagree about. The
// first is good.
func TestChunksOfHTTPAreStrict(t *testing.T) {
	w := newWorld(t, func(o *options) { o.gateway.Stall = 2 * time.Second })
	const inner = "5\r\nhello\r\n0\r\n\r\n" // aws-chunked, without which S3 takes no body of unknown length
	const end = "\r\n0\r\n\r\n"
	for _, tt := range []struct {
		name, body string
		status     int
	}{
		{"good", "f\r\n" + inner + end, 200},
		{"a size behind 0x", "0xf\r\n" + inner + end, 400},
		{"a size with a sign", "+f\r\n" + inner + end, 400},
		{"a negative size", "-f\r\n" + inner + end, 400},
		{"a size beyond 64 bits", "1000000000000000f\r\n" + inner + end, 400},
		{"no size", "\r\n" + inner + end, 400},
		{"LF behind the size", "f\n" + inner + end, 400},
		{"LF in an extension", "f;a\nb\r\n" + inner + end, 400},
		{"no line end behind the data", "f\r\n" + inner + "0\r\n\r\n", 400},
		{"more data than the size", "e\r\n" + inner + end, 400},
		{"an extension of 64 KiB", "f;" + strings.Repeat("x", 64<<10) + "\r\n" + inner + end, 400},
		{"the end is missing", "f\r\n" + inner + "\r\n", 400},
		{"a trailer without a colon", "f\r\n" + inner + "\r\n0\r\nx\r\n\r\n", 400},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := w.at(t)
			s := put("chunked", tt.body)
			s.payload, s.unsized = "STREAMING-UNSIGNED-PAYLOAD-TRAILER", true
			s.signed = []string{"x-amz-decoded-content-length: 5"}
			s.loose = []string{"transfer-encoding: chunked"}
			if got := w.send(s); got.status != tt.status {
				t.Errorf("got %d %s, want %d", got.status, got.body, tt.status)
			}
			if tt.status == 200 {
				w.wants(shot{method: "DELETE", path: s.path}, 204, "")
			}
			w.unchanged()
		})
	}
}
