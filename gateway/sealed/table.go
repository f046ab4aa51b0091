package sealed

import (
	"fmt"
	"sort"
)

// Entry is one part within an object that is stored.
type Entry struct {
	Number int   // 0 for kind Single
	Length int64 // plaintext bytes
	Salt   Salt  // zero: unbound
	Plain  int64 // offset of its first byte in the plaintext of the object
	Sealed int64 // offset of its header in the stored object
}

// Bound tells whether the trailer vouches for the salt of the part.
func (e Entry) Bound() bool { return !e.Salt.IsZero() }

// lastChunk is the index of the short chunk that ends the part.
func (e Entry) lastChunk() int64 { return e.Length / ChunkSize }

// chunkBefore is the last chunk that a range needs that ends before offset end of the object's plaintext.
// A range that ends with the part needs the chunk that ends it, even if that is empty.
func (e Entry) chunkBefore(end int64) int64 {
	if end >= e.Plain+e.Length {
		return e.lastChunk()
	}
	return (end - 1 - e.Plain) / ChunkSize
}

// sealedEnd is where chunk i ends in the stored object.
func (e Entry) sealedEnd(i int64) int64 {
	if i == e.lastChunk() {
		return e.Sealed + MessageSize(e.Length)
	}
	return e.Sealed + HeaderSize + (i+1)*SealedChunkSize
}

// Table knows where everything lies in a stored object. It holds no secret, never changes and may be shared and cached
// for as long as the object has the same envelope: its ETag is what the provider says.
type Table struct {
	kind    Kind
	entries []Entry
	length  int64
	stored  int64
	crc     uint64
	known   bool
	late    *Checksum
	md5     []byte
}

// SingleTable makes the table of an object of kind Single from its envelope and the size that the backend claims.
// It fails with ErrCorrupt where they do not fit, and with ErrRange for another kind.
func SingleTable(e Envelope, stored int64) (*Table, error) {
	if e.Kind != Single {
		return nil, fmt.Errorf("%w: kind %d has its table in the trailer", ErrRange, e.Kind)
	}
	if err := CheckSize(stored, e.Length); err != nil {
		return nil, err
	}
	return newTable(Single, trailer{length: e.Length, parts: []Part{{Length: e.Length, Salt: e.Salt}}}, stored), nil
}

// OpenTrailer makes the table of an object of kind Multipart from a suffix of it (TrailerWindow, or any longer one) and the
// size that the backend claims. It fails with ErrCorrupt if the trailer is not in the suffix, or not that of this object.
func (s Suite) OpenTrailer(suffix []byte, dek Key, stored int64) (*Table, error) {
	msg, err := findTrailer(suffix, stored)
	if err != nil {
		return nil, err
	}
	t, err := s.openTrailer(msg, dek, Multipart, stored)
	if err != nil {
		return nil, err
	}
	return newTable(Multipart, t, stored), nil
}

// OpenSingleTrailer makes the table of an object of kind Single like SingleTable, and reads its trailer from a suffix of the
// object (TrailerWindow): that is where a late checksum is (Attributes.LateChecksum). It fails like OpenTrailer.
func (s Suite) OpenSingleTrailer(suffix []byte, e Envelope, stored int64) (*Table, error) {
	if _, err := SingleTable(e, stored); err != nil {
		return nil, err
	}
	msg, err := findTrailer(suffix, stored)
	if err != nil {
		return nil, err
	}
	t, err := s.openTrailer(msg, e.DEK, Single, stored)
	if err != nil {
		return nil, err
	}
	if p := t.parts[0]; p.Salt != e.Salt || p.Length != e.Length {
		return nil, fmt.Errorf("%w: trailer of another object", ErrCorrupt)
	}
	return newTable(Single, t, stored), nil
}

func newTable(kind Kind, t trailer, stored int64) *Table {
	table := &Table{kind: kind, length: t.length, stored: stored, crc: t.crc, known: t.known, late: t.late, md5: t.md5, entries: make([]Entry, len(t.parts))}
	var plain, sealed int64
	for i, p := range t.parts {
		table.entries[i] = Entry{Number: p.Number, Length: p.Length, Salt: p.Salt, Plain: plain, Sealed: sealed}
		plain += p.Length
		sealed += MessageSize(p.Length)
	}
	return table
}

// Kind is the kind of the object.
func (t *Table) Kind() Kind { return t.kind }

// Length is the plaintext length of the object in bytes.
func (t *Table) Length() int64 { return t.length }

// Stored is the stored size in bytes.
func (t *Table) Stored() int64 { return t.stored }

// Len is the number of parts, at least 1.
func (t *Table) Len() int { return len(t.entries) }

// Entry returns part i, counted from 0 to Len()-1.
func (t *Table) Entry(i int) Entry { return t.entries[i] }

// CRC is the CRC64NVME of the plaintext; ok is false if the trailer does not know it, or has not been read (SingleTable).
func (t *Table) CRC() (crc uint64, ok bool) { return t.crc, t.known }

// Checksum is the checksum of the object that its trailer carries; ok is false if there is none, or the trailer has not been
// read (SingleTable).
func (t *Table) Checksum() (c Checksum, ok bool) {
	if t.late == nil {
		return Checksum{}, false
	}
	return *t.late, true
}

// MD5 is what the trailer carries for the ETag (Attributes.LateMD5): of the plaintext for kind Single, of the parts' MD5s for
// kind Multipart. It is nil if there is none, or the trailer has not been read (SingleTable).
func (t *Table) MD5() []byte { return append([]byte(nil), t.md5...) }

// Window covers n plaintext bytes from off, across parts. For the whole plaintext it is the whole object, so that an Opener
// can check all of it. It fails with ErrRange if the object has no such bytes, and for none unless the object is empty.
func (t *Table) Window(off, n int64) (Window, error) {
	if err := t.checkRange(off, n); err != nil {
		return Window{}, err
	}
	if n == t.length {
		return Window{Length: t.stored}, nil
	}
	start, end := t.span(off, n)
	return Window{Offset: start, Length: end - start}, nil
}

// HeaderWindow says whether a range needs one small read more: it starts inside an unbound part (§6), whose header Window
// does not cover. The bytes of that window go into Read.Header. It is never needed for a range that Window refuses.
func (t *Table) HeaderWindow(off, n int64) (w Window, needed bool) {
	if t.checkRange(off, n) != nil {
		return Window{}, false
	}
	e := t.entries[t.find(off)]
	return Window{Offset: e.Sealed, Length: HeaderSize}, !e.Bound() && off-e.Plain >= ChunkSize
}

func (t *Table) checkRange(off, n int64) error {
	if off < 0 || n < 0 || n > t.length-off || (n == 0 && t.length > 0) {
		return fmt.Errorf("%w: %d bytes from %d of an object of %d", ErrRange, n, off, t.length)
	}
	return nil
}

// span is the stored bytes from the first to the last chunk that a range needs. A first chunk includes its header.
func (t *Table) span(off, n int64) (start, end int64) {
	e := t.entries[t.find(off)]
	start = e.Sealed + chunkOffset((off-e.Plain)/ChunkSize)
	e = t.entries[t.find(max(off, off+n-1))]
	return start, e.sealedEnd(e.chunkBefore(off + n))
}

// find is the index of the part that holds plaintext byte off; 0 in an empty object.
func (t *Table) find(off int64) int {
	i := sort.Search(len(t.entries), func(i int) bool { return t.entries[i].Plain+t.entries[i].Length > off })
	return min(i, len(t.entries)-1)
}
