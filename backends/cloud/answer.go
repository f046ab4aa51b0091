package cloud

import (
	"errors"
	"fmt"
	"io"

	"chatelaine/backends"
)

// Answer is the body of an object that is read: exactly the bytes that the answer's
// header has promised, or an error. It reads Body to its end, where an SDK compares
// checksums.
type Answer struct {
	Body io.ReadCloser
	Left int64 // bytes
	// Wrap gives an error of Body, and those of the contract, the driver's name.
	Wrap func(error) error
}

// Read implements io.Reader. An answer that ends early or late is backends.ErrUnavailable.
func (a *Answer) Read(p []byte) (int, error) {
	n, err := a.Body.Read(p)
	a.Left -= int64(n)
	switch {
	case a.Left < 0:
		return 0, a.Wrap(fmt.Errorf("%w: more bytes than were promised", backends.ErrUnavailable))
	case err == nil:
		return n, nil
	case errors.Is(err, io.EOF) && a.Left == 0:
		return n, io.EOF
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return n, a.Wrap(fmt.Errorf("%d bytes are missing: %w: %w", a.Left, backends.ErrUnavailable, io.ErrUnexpectedEOF))
	}
	return n, a.Wrap(err)
}

// Close closes Body.
func (a *Answer) Close() error { return a.Body.Close() }
