package gcsstore

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"cloud.google.com/go/storage"

	"chatelaine/backends"
	"chatelaine/backends/cloud"
)

const (
	// maxChunk is how much of a large body is held, to be sent again within its resumable
	// session. Smaller bodies go out in one request. The SDK wants multiples of step.
	maxChunk = 8 << 20
	step     = 256 << 10
)

// bodyReader sums a body up, and remembers the error that was its own.
type bodyReader struct {
	r   io.Reader
	sum uint32 // CRC32C
	err error
}

func (b *bodyReader) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	b.sum = crc32.Update(b.sum, crc32.MakeTable(crc32.Castagnoli), p[:n])
	if err != nil && !errors.Is(err, io.EOF) {
		b.err = err
	}
	return n, err
}

// writerOnly hides whatever else a writer can do, so that io.Copy uses its buffer.
type writerOnly struct{ io.Writer }

// chunkOf is more than the body where that fits, so that it goes out in one request.
func (s *Store) chunkOf(size int64) int {
	return int(min(int64(s.chunk), (size+step)/step*step))
}

// upload writes an object, whole or not at all. A body of a chunk or less goes out in one
// request, a larger one in a resumable session: both can be sent again, and nothing is
// visible before the last byte has arrived and the service has compared the CRC32C of the
// whole.
func (s *Store) upload(ctx context.Context, at place, body backends.Body, props properties, w write) (backends.Written, error) {
	if body.Size > maxObject {
		return backends.Written{}, fmt.Errorf("%w: %d bytes, at most %d", backends.ErrTooLarge, body.Size, int64(maxObject))
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	out := w.guard(s.object(at)).NewWriter(ctx)
	out.ContentType, out.Metadata, out.ChunkSize = props.contentType, props.metadata, s.chunkOf(body.Size)
	in := &bodyReader{r: body.Exactly()}
	_, err := io.CopyBuffer(writerOnly{out}, in, make([]byte, min(step, max(body.Size, 512))))
	if err != nil {
		cancel() // before Close, which would end the object here
		_ = out.Close()
		if in.err != nil {
			err = &cloud.BodyError{Err: in.err}
		}
		return backends.Written{}, err
	}
	if err := out.Close(); err != nil {
		return backends.Written{}, err
	}
	return s.compare(ctx, at, in.sum, out.Attrs())
}

// compare makes sure of what the service has told the SDK, and removes what is not what
// was sent.
func (s *Store) compare(ctx context.Context, at place, sum uint32, attrs *storage.ObjectAttrs) (backends.Written, error) {
	if attrs.Generation <= 0 {
		return backends.Written{}, fmt.Errorf("%w: %w: no generation", backends.ErrUnavailable, cloud.ErrMalformed)
	}
	if attrs.CRC32C != sum {
		err := fmt.Errorf("%w: %w", backends.ErrUnavailable, cloud.ErrDamaged)
		return backends.Written{}, cloud.Join(err, s.remove(ctx, at, attrs.Generation))
	}
	return writtenOf(attrs), nil
}

func writtenOf(attrs *storage.ObjectAttrs) backends.Written {
	return backends.Written{ETag: etagOf(attrs.Generation), Modified: attrs.Created}
}
