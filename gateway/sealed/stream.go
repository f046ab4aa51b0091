package sealed

import "io"

// maxIdle is how often in a row a source may answer with neither bytes nor an error.
const maxIdle = 100

// atEnd tells whether a reader has ended well. An error that merely wraps io.EOF, such as the verdict of a failed check, is
// no good end: the contract of io.Reader is about the value itself.
func atEnd(err error) bool {
	return err == io.EOF //nolint:errorlint // errors.Is would take a wrapped io.EOF for the end
}

// fill reads until b is full or src fails. Unlike io.ReadFull it keeps an error that comes with the last bytes,
// and leaves an early io.EOF as it is.
func fill(src io.Reader, b []byte) (n int, err error) {
	for idle := 0; n < len(b) && err == nil; {
		var m int
		m, err = src.Read(b[n:])
		n += m
		if idle++; m > 0 {
			idle = 0
		}
		if idle == maxIdle && err == nil {
			err = io.ErrNoProgress
		}
	}
	return n, err
}
