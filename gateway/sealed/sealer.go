package sealed

import (
	"fmt"
	"io"

	"github.com/minio/crc64nvme"
)

// Options are per stream.
type Options struct {
	// Batch is the number of chunks of 16 KiB that are read, sealed or opened at once, rounded up to a power of two.
	// 0 means MaxBatch; make it smaller when very many streams run. A stream's memory is about (Batch+1) * 16 KiB.
	Batch int
	// Checksum, if not nil, is called by a Sealer of kind Single once its source has ended: the trailer carries the result
	// (Attributes.LateChecksum announces it). Its error comes out of Read, and the object does not come to be.
	Checksum func() (Checksum, error)
	// MD5, if not nil, is called likewise. It returns 16 bytes for the trailer (Attributes.LateMD5 announces them), or nil.
	MD5 func() []byte
}

// Sealer is an io.Reader of sealed bytes around a source of plaintext. It is for one goroutine.
// Close it in any case: that gives its memory back (the source is the caller's to close).
type Sealer struct {
	suite Suite
	dek   Key
	src   io.Reader
	part  Part
	msg   *message
	late  func() (Checksum, error)
	md5   func() []byte
	lease

	left    int64  // plaintext bytes not yet read from src
	ended   bool   // src has returned io.EOF after the last of them
	plain   []byte // read, not yet sealed; within buf
	chunk   int64  // index of the next chunk to seal
	last    bool   // the short chunk has been sealed
	pending []byte // sealed, not yet emitted
	tail    io.Reader
	probe   [1]byte // where a byte too many would land
	err     error   // once set, all that Read returns
}

// NewSealer seals an object of kind Single: exactly n plaintext bytes of src, at most MaxPartSize, become exactly Size(n)
// bytes. The salt for the envelope is Part().Salt, known at once.
//
// The last batch of data is withheld until src has ended with io.EOF after n bytes, so a source that checks signatures and
// checksums must return its verdict instead of io.EOF. That error, or any other of src, comes out of Read unchanged;
// a shorter or longer body is ErrShortBody or ErrLongBody. After an error nothing more is emitted, so what came out is no object.
func (s Suite) NewSealer(src io.Reader, n int64, dek Key, o Options) (*Sealer, error) {
	return s.newSealer(src, Part{Length: n}, dek, o)
}

// NewPartSealer seals part number (1 to MaxParts) of an object of kind Multipart: n bytes become MessageSize(n).
// Everything else is as with NewSealer. When Read has returned io.EOF, Part() is what the token and the trailer need.
func (s Suite) NewPartSealer(src io.Reader, n int64, dek Key, number int, o Options) (*Sealer, error) {
	if number < 1 || number > MaxParts {
		return nil, fmt.Errorf("%w: %d", ErrPartNumber, number)
	}
	return s.newSealer(src, Part{Number: number, Length: n}, dek, o)
}

func (s Suite) newSealer(src io.Reader, p Part, dek Key, o Options) (*Sealer, error) {
	if p.Length < 0 || p.Length > MaxPartSize {
		return nil, fmt.Errorf("%w: body of %d bytes", ErrRange, p.Length)
	}
	var err error
	if p.Salt, err = s.newSalt(); err != nil {
		return nil, err
	}
	m, err := s.newMessage(dek, p.Salt, partContext(p.Number))
	if err != nil {
		return nil, err
	}
	return &Sealer{
		suite: s, dek: dek, src: src, part: p, msg: m, left: p.Length, late: o.Checksum, md5: o.MD5,
		lease: lease{buffers: s.Buffers, buf: s.Buffers.get(batchSize(o.Batch))},
	}, nil
}

// Part describes what is being sealed. Its CRC is valid, and HasCRC true, once Read has returned io.EOF.
func (s *Sealer) Part() Part { return s.part }

// Size is the number of bytes that Read yields in all.
func (s *Sealer) Size() int64 {
	if s.part.Number == 0 {
		return Size(s.part.Length)
	}
	return MessageSize(s.part.Length)
}

// Read seals straight into p: as many chunks of a batch as fit. It is fastest with 1 MiB and more, and takes any size.
func (s *Sealer) Read(p []byte) (n int, err error) {
	if err := s.enter(); err != nil {
		return 0, err
	}
	defer s.leave()
	if s.err == nil && len(s.plain) == 0 && len(s.pending) == 0 && !s.ended {
		s.err = s.refill()
	}
	for n < len(p) && s.err == nil {
		k := s.emit(p[n:], n == 0)
		if n += k; k == 0 {
			break
		}
	}
	if n > 0 || len(p) == 0 {
		return n, nil
	}
	return 0, s.err
}

// refill reads the next batch of plaintext and, behind the last, the end of src.
func (s *Sealer) refill() error {
	b := s.buf.b[:min(s.left, int64(s.buf.batch)*ChunkSize)]
	s.buf.dirty = max(s.buf.dirty, len(b))
	n, err := fill(s.src, b)
	s.left -= int64(n)
	if s.left == 0 && err == nil {
		err = s.end()
	}
	switch {
	case atEnd(err) && s.left > 0:
		return fmt.Errorf("%w: %d of %d bytes", ErrShortBody, s.part.Length-s.left, s.part.Length)
	case atEnd(err):
		s.ended = true
	case err != nil:
		return err
	}
	s.part.CRC = crc64nvme.Update(s.part.CRC, b) // of a batch at once: twice as fast as chunk by chunk
	if s.plain = b; s.chunk == 0 {
		s.pending = s.msg.header[:]
	}
	return nil
}

// end returns the error that src ends with: io.EOF where all is well.
func (s *Sealer) end() error {
	n, err := fill(s.src, s.probe[:])
	if n > 0 && (err == nil || atEnd(err)) {
		return fmt.Errorf("%w: more than %d bytes", ErrLongBody, s.part.Length)
	}
	return err
}

// spill is room for one sealed chunk, behind the plaintext in the buffer.
func (s *Sealer) spill() []byte { return s.buf.b[len(s.buf.b)-SealedChunkSize:] }

// emit puts sealed bytes into p and returns how many. Zero means that the batch is used up, that another chunk does not fit
// (where must is false), or that s.err is set.
func (s *Sealer) emit(p []byte, must bool) int {
	switch {
	case len(s.pending) > 0:
		n := copy(p, s.pending)
		s.pending = s.pending[n:]
		return n
	case s.last:
		return s.emitTail(p)
	case len(s.plain) < ChunkSize && !s.ended:
		return 0
	}
	size := min(len(s.plain), ChunkSize)
	if len(p) >= size+TagSize {
		return len(s.sealChunk(p[:0], size))
	}
	if !must {
		return 0
	}
	s.pending = s.sealChunk(s.spill()[:0], size)
	return s.emit(p, must)
}

// sealChunk seals the next size bytes.
func (s *Sealer) sealChunk(dst []byte, size int) []byte {
	out := s.msg.seal(dst, s.chunk, s.plain[:size])
	s.plain = s.plain[size:]
	s.chunk++
	s.last = size < ChunkSize
	s.part.HasCRC = s.last
	return out
}

// emitTail ends a part, or puts out what follows the only part of an object of kind Single.
func (s *Sealer) emitTail(p []byte) (n int) {
	if s.part.Number != 0 {
		s.err = io.EOF
		return 0
	}
	if s.tail == nil {
		if s.tail, s.err = s.makeTail(); s.err != nil {
			return 0
		}
	}
	n, s.err = s.tail.Read(p)
	return n
}

// makeTail makes what follows the only part.
func (s *Sealer) makeTail() (io.Reader, error) {
	var late *Checksum
	if s.late != nil {
		c, err := s.late()
		if err != nil {
			return nil, err
		}
		late = &c
	}
	var md5 []byte
	if s.md5 != nil {
		md5 = s.md5()
	}
	t, err := s.suite.newTail(s.dek, []Part{s.part}, late, md5)
	if err != nil {
		return nil, err
	}
	return t.Reader(), nil
}

// Close gives the memory back and returns nil. It can be called again, and while Read runs, as HTTP clients do; Read then
// ends as it would have. Part stays valid.
func (s *Sealer) Close() error {
	s.close()
	return nil
}
