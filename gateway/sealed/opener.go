package sealed

import (
	"encoding/binary"
	"fmt"
	"io"
	"slices"

	"github.com/minio/crc64nvme"
)

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
// No byte leaves before the tag of its chunk was checked. On a read of the whole object, by a window that is the whole
// object, the last batch leaves only after the trailer has been checked against the table and the plaintext (§5).
// A failure is ErrCorrupt, or wraps the source's own error; after it nothing more is released. What has been released before
// is authentic, but not all that was asked for: the caller must not end its answer as if it were.
type Opener struct {
	suite Suite
	dek   Key
	table *Table
	src   io.Reader
	read  Read
	whole bool
	lease

	skip  int64 // bytes of src before the first that is needed
	part  int   // index of the part at hand
	chunk int64 // index of its next chunk
	until int   // index of the last part
	msg   *message
	plain []byte // opened, not yet released; within buf
	crc   uint64 // of all plaintext so far, on a whole read
	done  bool
	err   error // once set, all that Read returns
}

// NewOpener opens r.N bytes from r.Off of the object that t describes, out of the sealed bytes of src.
// Nothing is read yet. It fails with ErrRange if the window does not cover them, they are not within the object,
// or a header is missing.
func (s Suite) NewOpener(t *Table, dek Key, src io.Reader, r Read) (*Opener, error) {
	if err := t.checkRange(r.Off, r.N); err != nil {
		return nil, err
	}
	start, end := t.span(r.Off, r.N)
	w := r.Window
	if w.Offset < 0 || w.Offset > start || (w.Length != ToEnd && w.Length < end-w.Offset) {
		return nil, fmt.Errorf("%w: window of %d bytes from %d, want %d to %d", ErrRange, w.Length, w.Offset, start, end)
	}
	o := &Opener{
		suite: s, dek: dek, table: t, src: src, read: r, skip: start - w.Offset,
		whole: r.N == t.length && w.Offset == 0 && (w.Length == ToEnd || w.Length >= t.stored),
		part:  t.find(r.Off), until: t.find(max(r.Off, r.Off+r.N-1)),
	}
	if o.whole {
		o.until = len(t.entries) - 1 // the last part may be empty
	}
	e := t.entries[o.part]
	if o.chunk = (r.Off - e.Plain) / ChunkSize; o.chunk > 0 {
		if err := o.resume(e); err != nil {
			return nil, err
		}
	}
	o.buffers, o.buf = s.Buffers, s.Buffers.get(batchSize(r.Options.Batch))
	return o, nil
}

// resume makes the keys of a part whose header is not among the bytes of src.
func (o *Opener) resume(e Entry) (err error) {
	if e.Bound() {
		o.msg, err = o.suite.newMessage(o.dek, e.Salt, partContext(e.Number))
		return err
	}
	if len(o.read.Header) != HeaderSize {
		return fmt.Errorf("%w: header of %d bytes for unbound part %d", ErrRange, len(o.read.Header), e.Number)
	}
	return o.begin(e, o.read.Header)
}

// begin makes the keys of a part from its stored header, and checks that.
func (o *Opener) begin(e Entry, header []byte) (err error) {
	salt := Salt(header)
	if e.Bound() && salt != e.Salt {
		return fmt.Errorf("%w: part %d is not the one in the table", ErrCorrupt, e.Number)
	}
	if o.msg, err = o.suite.newMessage(o.dek, salt, partContext(e.Number)); err != nil {
		return err
	}
	if !o.msg.committed(header) {
		return fmt.Errorf("%w: header of part %d", ErrCorrupt, e.Number)
	}
	return nil
}

// Read implements io.Reader.
func (o *Opener) Read(p []byte) (int, error) {
	if err := o.enter(); err != nil {
		return 0, err
	}
	defer o.leave()
	if len(p) == 0 {
		return 0, nil
	}
	if err := o.ready(); err != nil {
		return 0, err
	}
	n := copy(p, o.plain)
	o.plain = o.plain[n:]
	return n, nil
}

// WriteTo implements io.WriterTo. An error of w comes back unchanged and ends the Opener.
func (o *Opener) WriteTo(w io.Writer) (total int64, err error) {
	if err := o.enter(); err != nil {
		return 0, err
	}
	defer o.leave()
	for o.ready() == nil {
		n, err := w.Write(o.plain)
		total += int64(n)
		if err == nil && n < len(o.plain) {
			err = io.ErrShortWrite
		}
		if o.plain = nil; err != nil {
			o.err = err
			return total, err
		}
	}
	if atEnd(o.err) {
		return total, nil
	}
	return total, o.err
}

// ready sees to it that there is plaintext to release, or returns the error that ends the stream.
func (o *Opener) ready() error {
	for len(o.plain) == 0 && o.err == nil {
		if o.plain, o.err = o.next(); o.err != nil {
			o.plain = nil
		}
	}
	return o.err
}

// next opens the next batch, which never crosses the end of a part, and returns what of it was asked for.
// What it returns together with an error must not be released.
func (o *Opener) next() ([]byte, error) {
	if o.done {
		return nil, io.EOF
	}
	if err := o.discard(o.skip); err != nil {
		return nil, err
	}
	o.skip = 0
	e := o.table.entries[o.part]
	start := e.Plain + o.chunk*ChunkSize
	plain, err := o.openBatch(e)
	if err != nil {
		return nil, err
	}
	if o.chunk > e.chunkBefore(o.read.Off+o.read.N) {
		o.part, o.chunk = o.part+1, 0
		o.done = o.part > o.until
	}
	if o.whole && o.done {
		err = o.checkTail()
	}
	from := max(0, o.read.Off-start)
	to := min(int64(len(plain)), o.read.Off+o.read.N-start)
	return plain[from:to], err
}

// openBatch reads and opens as many chunks as belong to the range and fit into the buffer.
//
// The sealed bytes are read behind a lead of one chunk. So chunk k of the batch opens to a place that ends at or before its
// own sealed bytes, over chunks that are done with: the plaintext is contiguous, and one buffer is enough.
func (o *Opener) openBatch(e Entry) ([]byte, error) {
	first := o.chunk
	last := min(first+int64(o.buf.batch)-1, e.chunkBefore(o.read.Off+o.read.N))
	size := int(e.sealedEnd(last) - e.Sealed - HeaderSize - first*SealedChunkSize)
	if err := o.fetch(e, size); err != nil {
		return nil, err
	}
	o.buf.dirty = max(o.buf.dirty, int(last-first+1)*ChunkSize)
	plain, sealed := o.buf.b[:0], o.buf.b[ChunkSize:ChunkSize+size]
	for ; o.chunk <= last; o.chunk++ {
		n := min(len(sealed), SealedChunkSize)
		var err error
		if plain, err = o.msg.open(plain, o.chunk, sealed[:n]); err != nil {
			return nil, fmt.Errorf("%w: chunk %d of part %d", ErrCorrupt, o.chunk, e.Number)
		}
		sealed = sealed[n:]
	}
	if o.whole {
		o.crc = crc64nvme.Update(o.crc, plain)
	}
	return plain, nil
}

// fetch reads size bytes of chunks to behind the lead, with the header before them where a part begins.
func (o *Opener) fetch(e Entry, size int) error {
	if o.chunk > 0 {
		return o.fill(o.buf.b[ChunkSize : ChunkSize+size])
	}
	b := o.buf.b[ChunkSize-HeaderSize : ChunkSize+size]
	if err := o.fill(b); err != nil {
		return err
	}
	return o.begin(e, b[:HeaderSize])
}

// fill reads exactly len(b) bytes. A source that ends early is a cut object; one that fails is not.
func (o *Opener) fill(b []byte) error {
	n, err := fill(o.src, b)
	switch {
	case err == nil || (atEnd(err) && n == len(b)):
		return nil
	case atEnd(err):
		return fmt.Errorf("%w: stored bytes end early", ErrCorrupt)
	}
	return fmt.Errorf("sealed: reading stored bytes: %w", err)
}

// discard passes over n bytes by way of the part of the buffer that holds no plaintext between batches.
func (o *Opener) discard(n int64) error {
	scratch := o.buf.b[len(o.buf.b)-ChunkSize:]
	for ; n > 0; n -= min(n, ChunkSize) {
		if err := o.fill(scratch[:min(n, ChunkSize)]); err != nil {
			return err
		}
	}
	return nil
}

// checkTail ends a read of the whole object, when the last batch is open and not released: it reads all that follows and
// compares the trailer with the table and the plaintext.
func (o *Opener) checkTail() error {
	end, err := o.readTail()
	if err != nil {
		return err
	}
	msg, err := findTrailer(end, o.table.stored)
	if err != nil {
		return err
	}
	t, err := o.suite.openTrailer(msg, o.dek, o.table.kind, o.table.stored)
	if err != nil {
		return err
	}
	if !slices.Equal(newTable(o.table.kind, t, o.table.stored).entries, o.table.entries) {
		return fmt.Errorf("%w: trailer and table differ", ErrCorrupt)
	}
	if t.known && t.crc != o.crc {
		return fmt.Errorf("%w: CRC64NVME %016x, want %016x", ErrCorrupt, o.crc, t.crc)
	}
	return nil
}

// readTail passes over the zeros and returns T || footer, behind which src must end.
func (o *Opener) readTail() ([]byte, error) {
	e := o.table.entries[len(o.table.entries)-1]
	end := make([]byte, trailerSize(len(o.table.entries))+footerSize)
	zeros := o.table.stored - e.sealedEnd(e.lastChunk()) - int64(len(end))
	if err := o.discard(zeros); err != nil {
		return nil, err
	}
	if err := o.fill(end); err != nil {
		return nil, err
	}
	if int64(binary.BigEndian.Uint32(end[len(end)-footerSize:])) != int64(len(end)-footerSize) {
		return nil, fmt.Errorf("%w: footer", ErrCorrupt)
	}
	n, err := fill(o.src, o.buf.b[len(o.buf.b)-1:])
	if n > 0 {
		return nil, fmt.Errorf("%w: stored bytes go on behind the footer", ErrCorrupt)
	}
	if !atEnd(err) {
		return nil, fmt.Errorf("sealed: reading stored bytes: %w", err)
	}
	return end, nil
}

// Close gives the memory back and returns nil. It can be called again, and while Read or WriteTo runs, which go on as if
// it had not been; it does not stop them.
func (o *Opener) Close() error {
	o.close()
	return nil
}
