package frontdoor

import (
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// drip writes a byte at a time until the other side has had enough, and returns how
// long that took.
func drip(conn net.Conn, text string, every, longest time.Duration) time.Duration {
	began := time.Now()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = io.Copy(io.Discard, conn)
	}()
	ticks := time.NewTicker(every)
	defer ticks.Stop()
	for i := 0; time.Since(began) < longest; i++ {
		select {
		case <-ended:
			return time.Since(began)
		case <-ticks.C:
			_, _ = io.WriteString(conn, text[i%len(text):i%len(text)+1])
		}
	}
	return longest
}

// TestClientsThatTrickleAreCut sends a byte now and then, each soon enough not to count
// as stalled. The limits are shorter than the product's; without them, each of these
// connections would stay until the test gives up.
func TestClientsThatTrickleAreCut(t *testing.T) {
	const stall, every, longest = 500 * time.Millisecond, 40 * time.Millisecond, 25 * time.Second
	w := newWorld(t, func(o *options) { o.server.ReadHeader, o.gateway.Stall = 2*time.Second, stall })
	form := "POST /" + bucket + " HTTP/1.1\r\nhost: gateway.test\r\ncontent-length: 100000\r\ncontent-type: multipart/form-data; boundary=b\r\n\r\n"
	long := func(s shot) string {
		return strings.Replace(s.text(), "content-length: 0", "content-length: 100000", 1)
	}
	chunked := put("slow", "")
	chunked.unsized, chunked.payload = true, "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
	chunked.signed, chunked.loose = []string{"x-amz-decoded-content-length: 100000"}, []string{"transfer-encoding: chunked"}
	anonymous := "PUT /" + bucket + "/slow HTTP/1.1\r\nhost: gateway.test\r\ncontent-length: 100000\r\n\r\n"
	for _, tt := range []struct{ name, begin, drip string }{
		{"nothing", "", ""},
		{"the first line", "", "GET /kkkkkkkk"},
		{"headers", "GET / HTTP/1.1\r\n", "a: b\r\n"},
		{"one header", "GET / HTTP/1.1\r\nhost: ", "h"},
		{"a body", long(put("slow", "")), "x"},
		{"a body in chunks", chunked.text() + "1\r\n", "x"},
		{"the size of a chunk", chunked.text(), "0"},
		{"a body that nobody signed", anonymous, "x"},
		{"a form that nobody signed", form + "--b\r\nContent-Disposition: form-data; name=key\r\n\r\n", "x"},
		{"a document", strings.Replace(document("POST", "/"+bucket, "delete=", "").text(), "content-length: 0", "content-length: 100000", 1) + "<Delete>", " "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			conn := w.at(t).dial()
			_, _ = io.WriteString(conn, tt.begin)
			if tt.drip == "" {
				_ = conn.SetDeadline(time.Now().Add(longest))
				if _, err := io.ReadAll(conn); err != nil {
					t.Errorf("a connection that says nothing: got %v, want its end", err)
				}
				return
			}
			if took := drip(conn, tt.drip, every, longest); took >= longest {
				t.Errorf("a client that sends %q every %v was still waited for after %v", tt.drip, every, took)
			}
		})
	}
}

// TestAClientThatDoesNotReadIsCut asks for an object and takes nothing of it.
func TestAClientThatDoesNotReadIsCut(t *testing.T) {
	w := newWorld(t, func(o *options) { o.gateway.Stall = 2 * time.Second })
	w.wants(put("large", strings.Repeat("x", 32<<20)), 200, "")
	conn := w.dial()
	if err := conn.(*net.TCPConn).SetReadBuffer(4 << 10); err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(conn, shot{method: "GET", path: "/" + bucket + "/large"}.text())
	gone := false
	for range 500 { // the gateway has hung up once it refuses what is written to it
		time.Sleep(50 * time.Millisecond)
		if _, err := io.WriteString(conn, "x"); err != nil {
			gone = true
			break
		}
	}
	if !gone {
		t.Error("a client that reads nothing is still waited for after 25 seconds")
	}
}
