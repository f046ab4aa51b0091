package s3store

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"net/http"
	"strconv"
	"sync"

	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"
	"github.com/minio/crc64nvme"

	"chatelaine/backends"
)

const (
	// smallBody is up to which size a body is held in memory: then it can be sent
	// again, and its checksum goes ahead of it, signed with the headers.
	smallBody = 64 << 10
	// chunkSize is the size of an aws-chunk. Each one costs 10 bytes of framing and
	// a cut in what Reader is asked for. MinIO holds a whole chunk in memory and
	// refuses one above 16 MiB.
	chunkSize = 4 << 20
	// expectSize is from which size on a body waits for the store's consent, so that
	// a refusal (a condition that does not hold, a bucket that is gone) costs none
	// of it.
	expectSize = 1 << 20

	unsignedPayload = "UNSIGNED-PAYLOAD"
	unsignedTrailer = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
)

// header is the name of the header or trailer that carries the checksum.
func (c Checksum) header() string { return "x-amz-checksum-" + string(c) }

func (c Checksum) hash() hash.Hash {
	if c == CRC32C {
		return crc32.New(crc32.MakeTable(crc32.Castagnoli))
	}
	return crc64nvme.New()
}

// payload is the body of one Put or PutPart on its way to the store. The SDK takes
// unseekable bodies over TLS alone and copies them through buffers of its own, so
// its operations are called without a body, and this middleware puts one in.
type payload struct {
	source *source
	stream io.Reader // what is sent: the body itself, or framed
	length int64     // of stream in bytes
	hash   string    // x-amz-content-sha256
	header http.Header
	small  *[smallBody]byte // that stream reads from; nil for a stream
}

// newPayload reads the body if it is small. What it fails with is the body's error.
func newPayload(body backends.Body, sum Checksum, pool *sync.Pool) (*payload, error) {
	p := &payload{
		source: &source{r: body.Exactly()},
		length: body.Size,
		hash:   unsignedPayload,
		header: http.Header{},
	}
	if body.Size >= expectSize {
		p.header.Set("Expect", "100-continue")
	}
	switch {
	case body.Size <= smallBody:
		return p, p.buffer(sum, pool)
	case sum == NoChecksum:
		p.stream = p.source
	default:
		p.frame(sum)
	}
	return p, nil
}

// buffer takes the whole body into memory.
func (p *payload) buffer(sum Checksum, pool *sync.Pool) error {
	p.small, _ = pool.Get().(*[smallBody]byte)
	all := p.small[:max(p.length, 0)]
	if _, err := io.ReadFull(p.source, all); err != nil {
		return err
	}
	if _, err := p.source.Read(make([]byte, 1)); err != io.EOF { //nolint:errorlint // a bare io.EOF is the protocol of io.Reader
		return err
	}
	p.stream = bytes.NewReader(all)
	if sum != NoChecksum {
		h := sum.hash()
		_, _ = h.Write(all)
		p.header.Set(sum.header(), base64.StdEncoding.EncodeToString(h.Sum(nil)))
	}
	return nil
}

// frame wraps the body in aws-chunked with a trailer (S3 API, "Signature
// calculations: including trailing headers").
func (p *payload) frame(sum Checksum) {
	f := newFramer(p.source, p.length, sum)
	p.header.Set("Content-Encoding", "aws-chunked")
	p.header.Set("X-Amz-Decoded-Content-Length", strconv.FormatInt(p.length, 10))
	p.header.Set("X-Amz-Trailer", sum.header())
	p.stream, p.length, p.hash = f, f.encoded(), unsignedTrailer
}

// release gives the memory back once the call is over. The SDK closes the body
// before it returns, so nothing reads from it any more.
func (p *payload) release(pool *sync.Pool) {
	if p.small != nil {
		pool.Put(p.small)
	}
}

// options are those of the call that sends the payload.
func (p *payload) options(o *s3.Options) {
	o.ContinueHeaderThresholdBytes = -1
	o.APIOptions = append(o.APIOptions, func(stack *middleware.Stack) error {
		return stack.Finalize.Add(p, middleware.Before)
	})
}

// ID implements middleware.FinalizeMiddleware.
func (*payload) ID() string { return "chatelaine:payload" }

// HandleFinalize implements middleware.FinalizeMiddleware. It runs before the loop
// of attempts and before the signature.
func (p *payload) HandleFinalize(ctx context.Context, in middleware.FinalizeInput, next middleware.FinalizeHandler) (
	middleware.FinalizeOutput, middleware.Metadata, error,
) {
	req, ok := in.Request.(*smithyhttp.Request)
	if !ok {
		return middleware.FinalizeOutput{}, middleware.Metadata{}, fmt.Errorf("s3store: sending a body: a %T is no HTTP request", in.Request)
	}
	req, err := req.SetStream(p.stream)
	if err != nil {
		return middleware.FinalizeOutput{}, middleware.Metadata{}, err
	}
	req.ContentLength = p.length
	for name, values := range p.header {
		req.Header[name] = values
	}
	in.Request = req
	return next.HandleFinalize(v4.SetPayloadHash(ctx, p.hash), in)
}

// source remembers how reading the body went: on the way back from the transport
// its error may be lost behind the one of the broken connection. The SDK's lock on
// request bodies orders its reads before the end of the call.
type source struct {
	r    io.Reader
	err  error // the body's own
	done bool  // read to its end
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	switch {
	case err == io.EOF:
		s.done = true
	case err != nil:
		s.err = err
	}
	return n, err
}

// framer encodes a body of known size as aws-chunked.
type framer struct {
	body    io.Reader
	size    int64
	sum     Checksum
	hash    hash.Hash
	left    int64  // of the body, beyond the present chunk
	chunk   int64  // what is left of the present chunk
	pending []byte // framing to send next
	ended   bool   // pending is the last of it
}

func newFramer(body io.Reader, size int64, sum Checksum) *framer {
	f := &framer{body: body, size: size, left: size, sum: sum, hash: sum.hash()}
	f.pending = f.open(nil)
	return f
}

// encoded is the length of all that Read yields.
func (f *framer) encoded() int64 {
	framing := func(n int64) int64 { return int64(len(strconv.FormatInt(n, 16)) + len("\r\n\r\n")) }
	total := f.size + f.size/chunkSize*framing(chunkSize)
	if rest := f.size % chunkSize; rest > 0 {
		total += framing(rest)
	}
	sum := base64.StdEncoding.EncodedLen(f.hash.Size())
	return total + int64(len("0\r\n")+len(f.sum.header())+len(":")+sum+len("\r\n\r\n"))
}

// open begins the next chunk, which is the empty one at the end.
func (f *framer) open(b []byte) []byte {
	f.chunk = min(f.left, chunkSize)
	f.left -= f.chunk
	b = strconv.AppendInt(b, f.chunk, 16)
	return append(b, "\r\n"...)
}

// Read fills p as far as it can, so that framing never travels alone and the body's
// Reader gets all of p but that.
func (f *framer) Read(p []byte) (n int, err error) {
	for n < len(p) {
		c := copy(p[n:], f.pending)
		f.pending = f.pending[c:]
		n += c
		if len(f.pending) > 0 {
			break
		}
		if f.ended {
			return n, io.EOF
		}
		c, err = f.data(p[n:])
		n += c
		if err != nil || c == 0 && len(f.pending) == 0 {
			return n, err
		}
	}
	return n, nil
}

// data reads of the present chunk into p and lines up the framing that follows.
func (f *framer) data(p []byte) (n int, err error) {
	if f.chunk > 0 {
		n, err = f.body.Read(p[:min(int64(len(p)), f.chunk)])
		_, _ = f.hash.Write(p[:n])
		f.chunk -= int64(n)
		if err == io.EOF {
			err = nil
		}
		if f.chunk == 0 {
			f.pending = f.open(append(f.pending[:0], "\r\n"...))
		}
		return n, err
	}
	f.pending = f.trailer(f.pending[:0])
	f.ended = true
	return 0, nil
}

// trailer appends what follows the empty chunk.
func (f *framer) trailer(b []byte) []byte {
	b = append(b, f.sum.header()...)
	b = append(b, ':')
	b = base64.StdEncoding.AppendEncode(b, f.hash.Sum(nil))
	return append(b, "\r\n\r\n"...)
}
