package sealed

import (
	"errors"
	"io"
)

const (
	tableHeadSize = 32 // H of §4
	entrySize     = 32
)

var errSkeleton = errors.New("sealed: not written yet")

// Part is one part of an object as it goes into the trailer and the token.
type Part struct {
	Number int    // 1 to MaxParts; 0 is the only part of a Single object
	Length int64  // plaintext bytes
	Salt   Salt   // of its message; zero: unbound (§6)
	CRC    uint64 // CRC64NVME of its plaintext
	HasCRC bool   // whether CRC is known; it is not for an unbound part
}

// Tail is all that follows the parts of an object: zeros || T || footer (§4). It can be read often and concurrently.
type Tail struct{}

// NewTail builds the tail of an object of kind Multipart from all its parts, in order. It fails with ErrPartNumber,
// ErrPartOrder or ErrPartSize, and with ErrRange for no parts, too many, or too long ones.
func (s Suite) NewTail(dek Key, parts []Part) (*Tail, error) { return nil, errSkeleton }

// Size is the length of the tail in bytes, at most about 1.5 MB.
func (t *Tail) Size() int64 { return 0 }

// ReadAt implements io.ReaderAt.
func (t *Tail) ReadAt(p []byte, off int64) (int, error) { return 0, errSkeleton }

// Reader returns a reader of the whole tail that can also seek.
func (t *Tail) Reader() *io.SectionReader { return io.NewSectionReader(t, 0, t.Size()) }

// Entry is one part within an object that is stored.
type Entry struct {
	Number int
	Length int64 // plaintext bytes
	Salt   Salt  // zero: unbound
	Plain  int64 // offset of its first byte in the plaintext of the object
	Sealed int64 // offset of its header in the stored object
}

// Bound tells whether the trailer vouches for the salt of the part.
func (e Entry) Bound() bool { return !e.Salt.IsZero() }

// Table knows where everything lies in a stored object. It holds no secret, never changes and may be shared.
type Table struct {
	entries []Entry
	length  int64
	stored  int64
}

// SingleTable makes the table of an object of kind Single from its envelope and the size that the backend claims.
// It fails with ErrCorrupt where they do not fit.
func SingleTable(e Envelope, stored int64) (*Table, error) { return nil, errSkeleton }

// OpenTrailer makes the table of an object of kind Multipart from a suffix of it (TrailerWindow, or any that holds the
// trailer) and the size that the backend claims. It fails with ErrRange if the suffix does not hold all of the trailer,
// and with ErrCorrupt if it is not that of this object.
func (s Suite) OpenTrailer(suffix []byte, dek Key, stored int64) (*Table, error) {
	return nil, errSkeleton
}

// Length is the plaintext length of the object in bytes.
func (t *Table) Length() int64 { return t.length }

// Stored is the stored size in bytes.
func (t *Table) Stored() int64 { return t.stored }

// Len is the number of parts, at least 1.
func (t *Table) Len() int { return len(t.entries) }

// Entry returns part i, counted from 0.
func (t *Table) Entry(i int) Entry { return t.entries[i] }

// CRC is the CRC64NVME of the plaintext; ok is false if the trailer does not know it, or has not been read (SingleTable).
func (t *Table) CRC() (crc uint64, ok bool) { return 0, false }

// Window covers n plaintext bytes from off, across parts. It is the whole object for the whole plaintext.
// It fails with ErrRange if the object has no such bytes.
func (t *Table) Window(off, n int64) (Window, error) { return Window{}, errSkeleton }

// HeaderWindow says whether a range needs one small read more: it starts inside an unbound part whose header Window does
// not cover. The bytes of that window go into Read.Header.
func (t *Table) HeaderWindow(off, n int64) (w Window, needed bool) { return Window{}, false }
