package backends

import (
	"errors"
	"fmt"
	"io"
)

// ErrLongBody comes from a Body whose Reader has more than Size bytes.
var ErrLongBody = errors.New("body is longer than its size")

// Exactly is Reader with Size enforced, for drivers to read in its place. It ends
// with io.EOF after exactly Size bytes and only where Reader ends there too. Where
// Reader ends early it fails with io.ErrUnexpectedEOF, where Reader goes on with
// ErrLongBody, and in both cases the last piece is withheld, so that what a driver
// sends on is never complete. Reader's own errors come out as they are. A nil
// Reader is an empty one.
func (b Body) Exactly() io.Reader { return &exactReader{r: b.Reader, left: b.Size} }

type exactReader struct {
	r    io.Reader
	left int64
	err  error // sticky
}

func (e *exactReader) Read(p []byte) (int, error) {
	if e.err != nil || len(p) == 0 {
		return 0, e.err
	}
	if e.left < 0 {
		e.err = fmt.Errorf("backends: reading a body: its size %d is negative", e.left)
		return 0, e.err
	}
	if e.r == nil {
		e.r = eofReader{}
	}
	n, err := e.read(p)
	if err == nil && e.left == 0 {
		err = e.end()
	}
	e.err = err
	if err != nil && err != io.EOF { //nolint:errorlint // a bare io.EOF is the protocol of io.Reader
		return 0, err
	}
	return n, err
}

// read reads some of what is left. Its io.EOF means that all of it has been read.
func (e *exactReader) read(p []byte) (int, error) {
	if e.left == 0 {
		return 0, nil
	}
	n, err := e.r.Read(p[:min(int64(len(p)), e.left)])
	e.left -= int64(n)
	if err == io.EOF && e.left > 0 {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// end looks beyond the last byte.
func (e *exactReader) end() error {
	var one [1]byte
	for range 100 {
		n, err := e.r.Read(one[:])
		switch {
		case n > 0:
			return ErrLongBody
		case err != nil:
			return err
		}
	}
	return io.ErrNoProgress
}

type eofReader struct{}

func (eofReader) Read([]byte) (int, error) { return 0, io.EOF }
