package filestore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"chatelaine/backends"
)

// Get opens the object. What it returns stays whole when the object is replaced or
// deleted meanwhile.
func (s *Store) Get(ctx context.Context, id backends.ObjectID, opts *backends.GetOptions) (*backends.Object, error) {
	if opts == nil {
		opts = &backends.GetOptions{}
	}
	rec, err := s.open(ctx, id)
	if err != nil {
		return nil, wrap(err, "getting", id.Bucket, id.Key)
	}
	o, err := s.get(id.Bucket, rec, opts)
	if err != nil {
		rec.close()
		return nil, wrap(err, "getting", id.Bucket, id.Key)
	}
	return o, nil
}

func (s *Store) get(bucket string, rec record, opts *backends.GetOptions) (*backends.Object, error) {
	if err := opts.Conditions.CheckRead(rec.ETag, rec.modified); err != nil {
		return nil, err
	}
	r, err := opts.Range.Clip(rec.Size)
	if err != nil {
		return nil, err
	}
	body, err := s.body(bucket, rec, r)
	if err != nil {
		return nil, err
	}
	return &backends.Object{Info: rec.info(), Range: r, Body: body}, nil
}

// Head reads the object's header.
func (s *Store) Head(ctx context.Context, id backends.ObjectID, opts *backends.GetOptions) (backends.Info, error) {
	if opts == nil {
		opts = &backends.GetOptions{}
	}
	rec, err := s.open(ctx, id)
	rec.close()
	if err == nil {
		err = opts.Conditions.CheckRead(rec.ETag, rec.modified)
	}
	if err != nil {
		return backends.Info{}, wrap(err, "looking up", id.Bucket, id.Key)
	}
	return rec.info(), nil
}

// open opens an object's or a version's file. Where it has parts they are held, too:
// see dispose.
func (s *Store) open(ctx context.Context, id backends.ObjectID) (record, error) {
	if err := errors.Join(ctx.Err(), backends.CheckKey(id.Key)); err != nil {
		return record{}, err
	}
	if backends.CheckBucket(id.Bucket) != nil { // before its name becomes a path
		return record{}, backends.ErrBucketNotFound
	}
	k := s.slot(id.Bucket, id.Key)
	for range attempts {
		rec, err := k.open(id.Version)
		if err != nil {
			return record{}, k.whyNot(err)
		}
		held, err := rec.hold()
		if held {
			return rec, nil
		}
		rec.close()
		if err != nil {
			return record{}, err
		}
	}
	return record{}, fmt.Errorf("%w: %q is replaced all the time", backends.ErrUnavailable, k.path())
}

// whyNot says of what was not found whether its bucket was. Most reads find it, and
// need not look for the bucket.
func (k slot) whyNot(err error) error {
	if errors.Is(err, backends.ErrNotFound) || errors.Is(err, backends.ErrVersionNotFound) {
		if bucketErr := k.checkBucket(k.bucketName); bucketErr != nil {
			return bucketErr
		}
	}
	return err
}

// openObject opens the file of a key.
func openObject(path, key string) (record, error) {
	return openObjectWith(path, key, make([]byte, firstRead))
}

func openObjectWith(path, key string, buf []byte) (record, error) {
	rec, err := openRecordWith(path, buf)
	if err != nil {
		return record{}, gone(err, backends.ErrNotFound)
	}
	if rec.Key != key {
		rec.close()
		return record{}, fmt.Errorf("reading %q: %w: it holds key %q", path, errDamaged, rec.Key)
	}
	return rec, nil
}

// hold keeps the parts of an object from being removed until its file is closed.
// It is false where that may have begun: the file has been replaced.
func (r record) hold() (bool, error) {
	if r.Upload == "" {
		return true, nil
	}
	if err := flock(r.file, syscall.LOCK_SH); err != nil {
		return false, err
	}
	linked, err := isLinked(r.file)
	return linked, err
}

// isLinked says whether an open file still has a name.
func isLinked(f *os.File) (bool, error) {
	info, err := f.Stat()
	if err != nil {
		return false, err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	return !ok || st.Nlink > 0, nil
}

// objectBody is what Get returns, and what Copy copies.
type objectBody interface {
	io.ReadCloser
	io.WriterTo
}

func (s *Store) body(bucket string, rec record, r backends.Range) (objectBody, error) {
	if rec.Upload == "" {
		_, err := rec.file.Seek(rec.start+r.Offset, io.SeekStart)
		return &fileBody{rec.file, r.Length}, err
	}
	rows, err := rec.table()
	if err != nil {
		return nil, err
	}
	b := &partsBody{store: s, bucket: bucket, rec: rec, rows: rows, skip: r.Offset, left: r.Length}
	for len(b.rows) > 0 && b.skip >= b.rows[0].size {
		b.skip, b.rows = b.skip-b.rows[0].size, b.rows[1:]
	}
	return b, nil
}

// fileBody reads left bytes from a file. Its WriteTo lets a socket use sendfile(2).
type fileBody struct {
	file *os.File
	left int64
}

func (b *fileBody) Read(p []byte) (int, error) {
	if b.left == 0 {
		return 0, io.EOF
	}
	n, err := b.file.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	return n, b.early(err)
}

func (b *fileBody) WriteTo(w io.Writer) (int64, error) {
	var n int64
	var err error
	if to, ok := w.(io.ReaderFrom); ok {
		n, err = to.ReadFrom(&io.LimitedReader{R: b.file, N: b.left})
	} else {
		n, err = io.CopyBuffer(w, &io.LimitedReader{R: struct{ io.Reader }{b.file}, N: b.left}, make([]byte, min(b.left, pieceLen)+1))
	}
	b.left -= n
	if err == nil && b.left > 0 {
		err = io.EOF
	}
	return n, b.early(err)
}

// early says that a file has been cut under the reader's eyes.
func (b *fileBody) early(err error) error {
	if err == io.EOF && b.left > 0 { //nolint:errorlint // os.File returns it bare
		return fmt.Errorf("filestore: reading %q: %w", b.file.Name(), io.ErrUnexpectedEOF)
	}
	return err
}

func (b *fileBody) Close() error { return b.file.Close() }

// partsBody reads left bytes of parts, one after the other. It holds the object's
// file, and with it the parts, until it is closed.
type partsBody struct {
	store  *Store
	bucket string
	rec    record
	rows   []partRow // those not yet open
	skip   int64     // bytes of the next one that do not count
	left   int64
	part   *fileBody
}

func (b *partsBody) Read(p []byte) (int, error) {
	for {
		if err := b.next(); err != nil {
			return 0, err
		}
		n, err := b.part.Read(p)
		b.left -= int64(n)
		if err == io.EOF { //nolint:errorlint // fileBody returns it bare
			err = nil
		}
		if n > 0 || err != nil || len(p) == 0 {
			return n, err
		}
	}
}

func (b *partsBody) WriteTo(w io.Writer) (done int64, err error) {
	for {
		if err := b.next(); err != nil {
			if err == io.EOF { //nolint:errorlint // next returns it bare
				err = nil
			}
			return done, err
		}
		n, err := b.part.WriteTo(w)
		done, b.left = done+n, b.left-n
		if err != nil {
			return done, err
		}
	}
}

// next opens the next part where the current one has been read; io.EOF at the end.
func (b *partsBody) next() error {
	if b.left == 0 {
		return io.EOF
	}
	if b.part != nil && b.part.left > 0 {
		return nil
	}
	if err := b.closePart(); err != nil {
		return err
	}
	row := b.rows[0]
	rec, err := openRecord(b.store.partPath(b.bucket, b.rec.Upload, row.number))
	if err == nil && rec.Size != row.size {
		err = fmt.Errorf("reading %q: %w: a part of %d bytes, not %d", rec.file.Name(), errDamaged, rec.Size, row.size)
	}
	if err == nil {
		_, err = rec.file.Seek(rec.start+b.skip, io.SeekStart)
	}
	if err != nil {
		rec.close()
		return fmt.Errorf("filestore: %w", err)
	}
	b.part = &fileBody{rec.file, min(row.size-b.skip, b.left)}
	b.rows, b.skip = b.rows[1:], 0
	return nil
}

func (b *partsBody) closePart() error {
	if b.part == nil {
		return nil
	}
	defer func() { b.part = nil }()
	return b.part.Close()
}

// Close removes the parts where the object has been replaced meanwhile and this
// was its last reader.
func (b *partsBody) Close() error {
	err := b.closePart()
	if linked, _ := isLinked(b.rec.file); !linked {
		b.store.dispose(b.bucket, b.rec)
		return err
	}
	return errors.Join(err, b.rec.file.Close())
}
