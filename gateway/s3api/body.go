package s3api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"chatelaine/gateway/sigv4"
)

const (
	// minRate is what a body must come to in the long run, in bytes a second, and grace
	// how many stall limits it is waited for beyond that. It is not about slow clients,
	// which are a hundred times faster, but about those that hold on to the gateway with
	// a byte now and then.
	minRate = 256
	grace   = 10
)

// progress counts what is read of a request's body, and cuts a client that makes
// none: each Read may take as long as the stall limit, and all of them together no
// longer than patience says. At the end of the body the limit is lifted, so that a
// slow backend is not taken for a slow client.
type progress struct {
	src    io.Reader
	rc     *http.ResponseController
	stall  time.Duration
	n      int64
	waited time.Duration // in Read

	ended, abandoned bool
	stranger         bool  // nobody knows yet who sends this
	broken           error // of chunks; net/http says something else the second time
}

func newProgress(w http.ResponseWriter, src io.Reader, stall time.Duration) *progress {
	return &progress{src: src, rc: http.NewResponseController(w), stall: stall}
}

// Read implements io.Reader. A connection that has no deadlines goes without.
func (p *progress) Read(b []byte) (int, error) {
	if p.broken != nil {
		return 0, p.broken
	}
	began := time.Now()
	_ = p.rc.SetReadDeadline(began.Add(p.patience()))
	n, err := p.src.Read(b)
	p.n += int64(n)
	p.waited += time.Since(began)
	switch {
	case err == nil:
	case errors.Is(err, io.EOF):
		p.ended = true
		_ = p.rc.SetReadDeadline(time.Time{})
	case malformedChunks(err):
		p.broken = fmt.Errorf("s3api: reading a body: %w: %w", sigv4.ErrIncomplete, err)
		err = p.broken
	}
	return n, err
}

// malformedChunks tells net/http's errors about chunks, which have no type, from those
// of the connection.
func malformedChunks(err error) bool {
	var network net.Error
	return !errors.As(err, &network) && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, http.ErrBodyReadAfterClose) &&
		!errors.Is(err, context.Canceled) && !errors.Is(err, net.ErrClosed)
}

// patience is how long the next Read may take. What a stranger sends before its
// signature must be there within one stall limit.
func (p *progress) patience() time.Duration {
	if p.stranger {
		return p.stall - p.waited
	}
	return min(p.stall, grace*p.stall+time.Duration(p.n)*(time.Second/minRate)-p.waited)
}

// abandon bounds the time in which what a handler left of a body is read and thrown
// away: net/http does so before it sends the answer, for which the other half of the
// limit is left. Only the first call counts.
func (p *progress) abandon() {
	if !p.ended && !p.abandoned {
		p.abandoned = true
		_ = p.rc.SetReadDeadline(time.Now().Add(min(drainTime, p.stall/2)))
		_ = p.rc.SetWriteDeadline(time.Now().Add(p.stall))
	}
}

const (
	// maxDrain is how much of a refused request's body is read and thrown away, in
	// bytes, and drainTime how long that may take at most.
	maxDrain  = 8 << 20
	drainTime = 5 * time.Second
)

// drain sends the answer and reads on, within bounds. A client that writes all of a
// body before it reads would otherwise meet a connection that was reset, and never
// see why. One that waits for 100 Continue has not begun to write.
func (c *call) drain() {
	if c.body.ended || c.r.ContentLength == 0 || c.r.Header.Get("Expect") != "" {
		return
	}
	_ = c.w.rc.Flush()
	_, _ = io.CopyN(io.Discard, c.r.Body, maxDrain)
}

// response counts what is written, remembers the status, and moves the write
// deadline along.
type response struct {
	http.ResponseWriter
	rc     *http.ResponseController
	stall  time.Duration
	status int
	n      int64
	alarm  bool // a person must look at this
}

func newResponse(w http.ResponseWriter, stall time.Duration) *response {
	r := &response{ResponseWriter: w, rc: http.NewResponseController(w), stall: stall}
	r.extend()
	return r
}

func (r *response) extend() { _ = r.rc.SetWriteDeadline(time.Now().Add(r.stall)) }

// interrupt makes what reads from or writes to the client now fail.
func (r *response) interrupt() {
	past := time.Unix(1, 0)
	_ = r.rc.SetReadDeadline(past)
	_ = r.rc.SetWriteDeadline(past)
}

// WriteHeader implements http.ResponseWriter.
func (r *response) WriteHeader(status int) {
	if r.status == 0 {
		r.status = status
	}
	r.extend()
	r.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (r *response) Write(b []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	r.extend()
	n, err := r.ResponseWriter.Write(b)
	r.n += int64(n)
	return n, err
}

// sayContinue answers Expect: 100-continue where nobody else does: net/http says it
// when a body is first read, and of an empty one nothing is. botocore needs it, as it
// mistakes a final answer that comes at once for that of its next request as well.
func sayContinue(w http.ResponseWriter, r *http.Request) {
	if r.ContentLength == 0 && strings.EqualFold(r.Header.Get("Expect"), "100-continue") {
		w.WriteHeader(http.StatusContinue)
	}
}

// upload is a request's body as a service reads it: decoded, counted, and checked
// in the Read that returns its last byte.
type upload struct {
	*verified
	size int64
}

// openUpload makes the body of PutObject and UploadPart.
func (c *call) openUpload() (*upload, error) {
	if c.signed.Size < 0 {
		return nil, missingContentLength()
	}
	if c.signed.Size > maxUpload {
		return nil, entityTooLarge(c.signed.Size)
	}
	v, err := c.openVerified()
	if err != nil {
		return nil, err
	}
	return &upload{verified: v, size: c.signed.Size}, nil
}

// openVerified puts the checksums that the request states on its body.
func (c *call) openVerified() (*verified, error) {
	stated, err := parseChecksums(c.header, c.signed.Trailers)
	if err != nil {
		return nil, err
	}
	body, err := c.openBody()
	if err != nil {
		return nil, err
	}
	return newVerified(body, stated), nil
}

// openPlain is the body without the checksum headers: those of Complete are of the
// object. A trailer and Content-MD5 are of the body still.
func (c *call) openPlain() (*verified, error) {
	h := http.Header{}
	if sum := c.header.Values("Content-Md5"); len(sum) > 0 {
		h["Content-Md5"] = sum
	}
	stated, err := parseChecksums(h, c.signed.Trailers)
	if err != nil {
		return nil, err
	}
	body, err := c.openBody()
	if err != nil {
		return nil, err
	}
	return newVerified(body, stated), nil
}

func (c *call) openBody() (*sigv4.Body, error) {
	if c.signed.Payload == sigv4.PayloadUnsigned && chunkedEncoding(c.header) {
		return nil, invalidArgument("aws-chunked encoding is not supported when x-amz-content-sha256 UNSIGNED-PAYLOAD is supplied.",
			"Content-Encoding", c.header.Get("Content-Encoding"))
	}
	if c.signed.Payload.Chunked() && c.signed.Size < 0 {
		return nil, missingContentLength()
	}
	if c.content != nil {
		return c.signed.Open(c.content), nil
	}
	return c.signed.Open(c.body), nil
}

// chunkedEncoding says whether Content-Encoding names aws-chunked.
func chunkedEncoding(h http.Header) bool {
	for _, v := range h.Values("Content-Encoding") {
		for _, coding := range strings.Split(v, ",") {
			if strings.EqualFold(strings.TrimSpace(coding), "aws-chunked") {
				return true
			}
		}
	}
	return false
}
