package e2e

import (
	"bufio"
	"bytes"
	"crypto/md5"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"chatelaine/test/e2e/harness"
)

// TestBadRequestsAreRefusedAndChangeNothing sends what must not be stored over what
// is there, and beside it.
func TestBadRequestsAreRefusedAndChangeNothing(t *testing.T) {
	for name, make := range clouds() {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, make(t))
			h := &hostile{world: w, bucket: w.bucket(), kept: contentBytes(5, 100_000)}
			w.put(h.path("kept"), h.kept).want(200)
			for _, tt := range badRequests() {
				t.Run(tt.name, func(t *testing.T) { h.refuse(t, tt) })
			}
			if got := w.get(h.path("kept")).want(200); !bytes.Equal(got.body, h.kept) {
				t.Errorf("what was there has changed: got %d bytes, want %d", len(got.body), len(h.kept))
			}
			h.assertNothingElse()
			w.assertDiscreet()
		})
	}
}

type hostile struct {
	*world
	bucket string
	kept   []byte
}

func (h *hostile) path(key string) string { return "/" + h.bucket + "/" + key }

// badRequest is a request that is refused with a code.
type badRequest struct {
	name   string
	status int
	code   string
	// client and request are changed before the signature, send what it has signed.
	client  func(*harness.Client)
	request func(h *hostile, r *harness.Request)
	after   func(*http.Request)
}

func body(r *harness.Request, b []byte) { r.Body, r.Size = bytes.NewReader(b), int64(len(b)) }

func header(name, value string) func(*hostile, *harness.Request) {
	return func(_ *hostile, r *harness.Request) { r.Header.Set(name, value) }
}

func badRequests() []badRequest {
	long := strings.Repeat("k", 1025)
	return []badRequest{
		{name: "wrong secret", status: 403, code: "SignatureDoesNotMatch", client: func(c *harness.Client) { c.User.SecretAccessKey += "x" }},
		{name: "unknown user", status: 403, code: "InvalidAccessKeyId", client: func(c *harness.Client) { c.User.AccessKeyID = "AKNOBODYKNOWSTHIS12" }},
		{name: "clock behind", status: 403, code: "RequestTimeTooSkewed", client: skewed(-16 * time.Minute)},
		{name: "clock ahead", status: 403, code: "RequestTimeTooSkewed", client: skewed(16 * time.Minute)},
		{name: "another region", status: 400, code: "AuthorizationHeaderMalformed", client: func(c *harness.Client) { c.Region = "mars-north-1" }},
		{name: "no signature", status: 403, code: "AccessDenied", after: func(r *http.Request) { r.Header.Del("Authorization") }},
		{name: "changed after signing", status: 403, code: "SignatureDoesNotMatch", after: func(r *http.Request) { r.URL.Path += "x" }},
		{name: "header added after signing", status: 403, code: "AccessDenied", after: func(r *http.Request) { r.Header.Set("X-Amz-Meta-Added", "1") }},
		{name: "body that is not the signed one", status: 400, code: "XAmzContentSHA256Mismatch", request: func(_ *hostile, r *harness.Request) { r.Hash = harness.Hash([]byte("another")) }},
		{name: "wrong checksum", status: 400, code: "BadDigest", request: header("X-Amz-Checksum-Crc32c", "AAAAAA==")},
		{name: "malformed checksum", status: 400, code: "InvalidRequest", request: header("X-Amz-Checksum-Crc32c", "AAA")},
		{name: "wrong Content-MD5", status: 400, code: "BadDigest", request: header("Content-Md5", md5Of("another"))},
		{name: "malformed Content-MD5", status: 400, code: "InvalidDigest", request: header("Content-Md5", "xyz")},
		{name: "wrong checksum of a newer kind", status: 400, code: "BadDigest", request: header("X-Amz-Checksum-Xxhash64", "AAAAAAAAAAA=")},
		{name: "checksum of a kind that does not exist", status: 400, code: "InvalidRequest", request: header("X-Amz-Checksum-Blake3", "AAAAAAAAAAA=")},
		{name: "key of 1025 bytes", status: 400, code: "KeyTooLongError", request: func(h *hostile, r *harness.Request) { r.Path = h.path(long) }},
		{name: "reserved name", status: 403, code: "AccessDenied", request: func(h *hostile, r *harness.Request) { r.Path = h.path(".chatelaine/keys/x") }},
		{name: "oversized metadata", status: 400, code: "MetadataTooLarge", request: header("X-Amz-Meta-Big", strings.Repeat("m", 2049))},
		{name: "metadata that does not fit the envelope", status: 400, code: "MetadataTooLarge", request: header("X-Amz-Meta-Big", strings.Repeat("m", 1900))},
		{name: "metadata of our own name", status: 400, code: "InvalidArgument", request: header("X-Amz-Meta-Cho1", "1.abc")},
		{name: "key of the customer's", status: 501, code: "NotImplemented", request: header("X-Amz-Server-Side-Encryption-Customer-Algorithm", "AES256")},
		{name: "public ACL", status: 400, code: "AccessControlListNotSupported", request: header("X-Amz-Acl", "public-read")},
		{name: "unknown sub-resource", status: 501, code: "NotImplemented", request: func(_ *hostile, r *harness.Request) { r.Query = url.Values{"mystery": {""}} }},
		{name: "no such bucket", status: 404, code: "NoSuchBucket", request: func(_ *hostile, r *harness.Request) { r.Path = "/" + newName() + "/kept" }},
		{name: "part number 10001", status: 400, code: "InvalidArgument", request: func(_ *hostile, r *harness.Request) {
			r.Query = url.Values{"partNumber": {"10001"}, "uploadId": {"x"}}
		}},
		{name: "no such upload", status: 404, code: "NoSuchUpload", request: func(_ *hostile, r *harness.Request) {
			r.Query = url.Values{"partNumber": {"1"}, "uploadId": {"18ea34753a802835981494b0db00cf83"}}
		}},
		{name: "no length", status: 411, code: "MissingContentLength", request: func(_ *hostile, r *harness.Request) { r.Size = -1 }},
		{name: "creating what is there", status: 412, code: "PreconditionFailed", request: header("If-None-Match", "*")},
		{name: "replacing what is not there any more", status: 412, code: "PreconditionFailed", request: header("If-Match", `"00000000000000000000000000000000-1"`)},
	}
}

func skewed(by time.Duration) func(*harness.Client) {
	return func(c *harness.Client) { c.Now = func() time.Time { return time.Now().Add(by) } }
}

func md5Of(s string) string {
	sum := md5.Sum([]byte(s))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// refuse sends a PUT over the object that is there, with one thing wrong.
func (h *hostile) refuse(t *testing.T, tt badRequest) {
	c := h.client()
	if tt.client != nil {
		tt.client(c)
	}
	r := harness.Request{Method: http.MethodPut, Path: h.path("kept"), Header: http.Header{}}
	body(&r, contentBytes(6, 50_000))
	if tt.request != nil {
		tt.request(h, &r)
	}
	req, err := c.Sign(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	if tt.after != nil {
		tt.after(req)
	}
	resp, err := c.HTTP.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	a := &answer{t, resp.StatusCode, resp.Header, readAll(t, resp.Body)}
	if a.status != tt.status || a.code() != tt.code {
		t.Errorf("got %d %s, want %d %s: %.500s", a.status, a.code(), tt.status, tt.code, a.body)
	}
	if a.header.Get("X-Amz-Request-Id") == "" {
		t.Error("the answer has no request id")
	}
}

// assertNothingElse finds the one object that was stored, and no unfinished upload.
func (h *hostile) assertNothingElse() {
	h.t.Helper()
	list := h.do(harness.Request{Method: http.MethodGet, Path: "/" + h.bucket, Query: url.Values{"list-type": {"2"}}}).want(200)
	if n := bytes.Count(list.body, []byte("<Key>")); n != 1 {
		h.t.Errorf("got %d objects, want 1: %s", n, list.body)
	}
	list = h.do(harness.Request{Method: http.MethodGet, Path: "/" + h.bucket, Query: url.Values{"uploads": {""}}}).want(200)
	if n := bytes.Count(list.body, []byte("<Upload>")); n != 0 {
		h.t.Errorf("got %d uploads, want none: %s", n, list.body)
	}
}

// TestABodyThatIsCutStoresNothing declares more than it sends, then hangs up.
func TestABodyThatIsCutStoresNothing(t *testing.T) {
	for name, make := range clouds() {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, make(t))
			h := &hostile{world: w, bucket: w.bucket(), kept: contentBytes(5, 100_000)}
			w.put(h.path("kept"), h.kept).want(200)
			for _, sent := range []int{0, 1, 100_000, 1 << 20, 5<<20 - 1} {
				h.cut(t, 5<<20, sent)
			}
			// Whatever the gateway does about it, it has done when these are through.
			for range 3 {
				w.put(h.path("kept"), h.kept).want(200)
			}
			time.Sleep(200 * time.Millisecond)
			if got := w.get(h.path("kept")).want(200); !bytes.Equal(got.body, h.kept) {
				t.Errorf("what was there has changed: got %d bytes", len(got.body))
			}
			h.assertNothingElse()
		})
	}
}

// cut begins to send a body of a declared size and hangs up.
func (h *hostile) cut(t *testing.T, declared, sent int) {
	t.Helper()
	r := harness.Request{Method: http.MethodPut, Path: h.path("cut"), Body: strings.NewReader("x"), Size: int64(declared)}
	conn := h.begin(t, r)
	defer conn.Close()
	if _, err := conn.Write(contentBytes(9, sent)); err != nil {
		t.Fatal(err)
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err == nil && resp.StatusCode < 300 {
		t.Errorf("%d of %d bytes: got status %d", sent, declared, resp.StatusCode)
	}
}

// begin sends the head of a signed request over a connection of its own.
func (h *hostile) begin(t *testing.T, r harness.Request) net.Conn {
	t.Helper()
	req, err := h.client().Sign(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp", req.URL.Host)
	if err != nil {
		t.Fatal(err)
	}
	var head bytes.Buffer
	fmt.Fprintf(&head, "%s %s HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\n", req.Method, req.URL.RequestURI(), req.URL.Host, r.Size)
	if err := req.Header.Write(&head); err != nil {
		t.Fatal(err)
	}
	head.WriteString("\r\n")
	if _, err := conn.Write(head.Bytes()); err != nil {
		t.Fatal(err)
	}
	return conn
}

// TestContinueIsSaidFirst waits for 100 Continue as clients do who would rather not
// send a body in vain; an empty body is no exception: botocore trips over that.
func TestContinueIsSaidFirst(t *testing.T) {
	w := newWorld(t, cloud{})
	h := &hostile{world: w, bucket: w.bucket()}
	for _, tt := range []struct {
		name  string
		body  string
		spoil bool
		asked bool
	}{{"with a body", "hello", false, true}, {"without one", "", false, true}, {"refused", "hello", true, false}} {
		t.Run(tt.name, func(t *testing.T) {
			r := harness.Request{
				Method: http.MethodPut, Path: h.path("continued"), Header: http.Header{"Expect": {"100-continue"}},
				Body: strings.NewReader(tt.body), Size: int64(len(tt.body)), Hash: harness.Unsigned,
			}
			if tt.spoil {
				r.Path = "/" + newName() + "/continued"
			}
			conn := h.begin(t, r)
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
			in := bufio.NewReader(conn)
			line, err := in.ReadString('\n')
			if err != nil || strings.Contains(line, " 100 ") != tt.asked {
				t.Fatalf("the first line: got %q and %v, want 100: %t", line, err, tt.asked)
			}
			if !tt.asked {
				return
			}
			for line != "\r\n" && err == nil {
				line, err = in.ReadString('\n')
			}
			_, _ = io.WriteString(conn, tt.body)
			resp, err := http.ReadResponse(in, nil)
			if err != nil || resp.StatusCode != 200 {
				t.Errorf("the answer: got %v and %v, want 200", resp, err)
			}
		})
	}
}
