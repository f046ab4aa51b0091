package sealed

import "io"

// Read says what an Opener is to open.
type Read struct {
	Window  Window // what the source of sealed bytes yields
	Off, N  int64  // plaintext bytes wanted, all of them within the object
	Header  []byte // what HeaderWindow asked for, nil if nothing
	Options Options
}

// Opener is an io.Reader of plaintext, and an io.WriterTo, which is its fast path: one Write for each batch.
// It is for one goroutine. Close it in any case: that gives its memory back (the source is the caller's to close).
//
// No byte leaves before the tag of its chunk was checked. On a read of the whole object the last batch leaves only after the
// trailer has been checked against the table and the plaintext (§5). A failure is ErrCorrupt, or the source's own error;
// after it nothing more is released. What has been released before is authentic, but not all that was asked for:
// the caller must not end its answer as if it were.
type Opener struct{}

// NewOpener opens r.N bytes from r.Off of the object that t describes, out of the sealed bytes of src.
// Nothing is read yet. It fails with ErrRange if the window does not cover them or they are not within the object.
func (s Suite) NewOpener(t *Table, dek Key, src io.Reader, r Read) (*Opener, error) {
	return nil, errSkeleton
}

// Read implements io.Reader.
func (o *Opener) Read(p []byte) (int, error) { return 0, errSkeleton }

// WriteTo implements io.WriterTo. An error of w comes back unchanged.
func (o *Opener) WriteTo(w io.Writer) (int64, error) { return 0, errSkeleton }

// Close gives the memory back. It can be called again and returns nil.
func (o *Opener) Close() error { return nil }
