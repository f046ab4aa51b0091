package sealed

import "io"

// Options are per stream.
type Options struct {
	// Batch is the number of chunks of 16 KiB that are read, sealed or opened at once, rounded up to a power of two.
	// 0 means MaxBatch; make it smaller when very many streams run. A stream's memory is about (Batch+1) * 16 KiB.
	Batch int
}

// Sealer is an io.Reader of sealed bytes around a source of plaintext. It is for one goroutine.
// Close it in any case: that gives its memory back (the source is the caller's to close).
type Sealer struct {
	part Part
	err  error
}

// NewSealer seals an object of kind Single: exactly n plaintext bytes of src become exactly Size(n) bytes.
// The salt for the envelope is Part().Salt, known at once.
//
// The last batch of data is withheld until src has ended with io.EOF after n bytes, so a source that checks signatures and
// checksums must return its verdict instead of io.EOF. That error, or any other of src, comes out of Read unchanged;
// a shorter or longer body is ErrShortBody or ErrLongBody. After an error nothing more is emitted, so what came out is no object.
func (s Suite) NewSealer(src io.Reader, n int64, dek Key, o Options) (*Sealer, error) {
	return nil, errSkeleton
}

// NewPartSealer seals part number (1 to MaxParts) of an object of kind Multipart: n bytes become MessageSize(n).
// Everything else is as with NewSealer. When Read has returned io.EOF, Part() is what the token and the trailer need.
func (s Suite) NewPartSealer(src io.Reader, n int64, dek Key, number int, o Options) (*Sealer, error) {
	return nil, errSkeleton
}

// Part describes what is being sealed. Its CRC is valid once Read has returned io.EOF.
func (s *Sealer) Part() Part { return s.part }

// Size is the number of bytes that Read yields in all.
func (s *Sealer) Size() int64 { return 0 }

// Read seals straight into p: as many chunks as fit. It is fastest with 1 MiB and more, and takes any size.
func (s *Sealer) Read(p []byte) (int, error) { return 0, errSkeleton }

// Close gives the memory back. It can be called again and returns nil. Part stays valid.
func (s *Sealer) Close() error { return nil }
