package azurestore

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"sync"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/streaming"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blob"
	"github.com/minio/crc64nvme"

	"chatelaine/backends"
	"chatelaine/backends/cloud"
)

// smallBody is what is held in memory, to be sent with its checksum and again.
const smallBody = 256 << 10

var (
	errGone   = errors.New("the body cannot be sent again")
	errClosed = errors.New("the call has ended")
)

// payload is a body as the SDK wants it. A small one is in memory and may be sent
// again, with its checksum ahead; any other goes out once, and its checksum is compared
// with the one that comes back.
type payload struct {
	small     *bytes.Reader // or nil
	unchecked bool          // no checksum is sent or compared

	mu     sync.Mutex // held while Reader is being read
	r      io.Reader
	size   int64
	sum    hash.Hash64 // Azure's CRC64 is that of NVMe
	begun  bool
	closed bool
	whole  bool
	err    error // Reader's own
}

// newPayload reads a small body. The error is Reader's.
func (s *Store) newPayload(body backends.Body) (*payload, error) {
	p := &payload{unchecked: s.cfg.NoChecksum, r: body.Exactly(), size: body.Size, sum: crc64nvme.New()}
	if body.Size > smallBody {
		return p, nil
	}
	data, err := io.ReadAll(p.r)
	if err != nil {
		return nil, fmt.Errorf("reading the body: %w", err)
	}
	p.small = bytes.NewReader(data)
	return p, nil
}

// body is what the SDK reads, and the checksum that it sends.
func (p *payload) body() (io.ReadSeekCloser, blob.TransferValidationType) {
	if p.small != nil && p.unchecked {
		return streaming.NopCloser(p.small), nil
	}
	if p.small != nil {
		return streaming.NopCloser(p.small), blob.TransferValidationTypeComputeCRC64()
	}
	return p, nil
}

// context keeps the SDK from repeating what cannot be.
func (p *payload) context(ctx context.Context) context.Context {
	if p.small != nil {
		return ctx
	}
	return once(ctx)
}

func (p *payload) Read(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return 0, errClosed
	}
	p.begun = true
	n, err := p.r.Read(b)
	if !p.unchecked {
		p.sum.Write(b[:n])
	}
	if err == io.EOF {
		p.whole = true
	} else if err != nil {
		p.err = err
	}
	return n, err
}

// Seek tells the size and goes nowhere.
func (p *payload) Seek(offset int64, whence int) (int64, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case offset == 0 && whence == io.SeekEnd:
		return p.size, nil
	case offset == 0 && whence != io.SeekEnd && !p.begun:
		return 0, nil
	}
	return 0, errGone
}

// Close is nothing: the transport calls it when it likes.
func (*payload) Close() error { return nil }

// finish waits until Reader is not read any more and says what became of the body. The
// body's own error wins over what became of the connection because of it.
func (p *payload) finish(answered []byte, err error) error {
	if p.small != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	switch {
	case p.err != nil:
		return &cloud.BodyError{Err: p.err}
	case err != nil:
		return err
	case !p.whole:
		return fmt.Errorf("%w: %w", backends.ErrUnavailable, cloud.ErrUnread)
	case !p.unchecked && len(answered) == 8 && binary.LittleEndian.Uint64(answered) != p.sum.Sum64():
		return fmt.Errorf("%w: %w", backends.ErrUnavailable, cloud.ErrDamaged)
	}
	return nil
}
