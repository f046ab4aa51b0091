package filestore

import (
	"context"
	"io"
	"os"

	"chatelaine/backends"
)

// MaxCopy is as large as MaxPut.
func (s *Store) MaxCopy() int64 { return s.MaxPut() }

// Copy has the kernel copy the bytes, or share them where the file system can.
func (s *Store) Copy(ctx context.Context, src, dst backends.ObjectID, opts *backends.CopyOptions) (backends.Written, error) {
	if opts == nil {
		opts = &backends.CopyOptions{}
	}
	w, err := s.copy(ctx, src, dst, opts)
	return w, wrap(err, "copying to", dst.Bucket, dst.Key)
}

func (s *Store) copy(ctx context.Context, src, dst backends.ObjectID, opts *backends.CopyOptions) (backends.Written, error) {
	if err := s.admit(ctx, dst.Bucket, dst.Key, opts.Attributes); err != nil {
		return backends.Written{}, err
	}
	h := newHeader(dst.Key, 0, opts.Attributes)
	if err := s.prepareVersion(dst.Bucket, &h); err != nil {
		return backends.Written{}, err
	}
	t, err := s.stageCopy(ctx, h, src, nil, opts.SourceIfMatch)
	if err != nil {
		return backends.Written{}, err
	}
	defer t.discard()
	return s.slot(dst.Bucket, dst.Key).commit(ctx, t, func(old record) error { return old.check(opts.Conditions) })
}

// CopyPart copies as Copy does.
func (s *Store) CopyPart(ctx context.Context, id backends.UploadID, number int, src backends.ObjectID, r *backends.Range, sourceIfMatch string) (backends.Part, error) {
	p, err := s.copyPart(ctx, id, number, src, r, sourceIfMatch)
	return p, wrap(err, "copying to a part of", id.Bucket, id.Key)
}

func (s *Store) copyPart(ctx context.Context, id backends.UploadID, number int, src backends.ObjectID, r *backends.Range, sourceIfMatch string) (backends.Part, error) {
	if err := backends.CheckPartNumber(number); err != nil {
		return backends.Part{}, err
	}
	if _, err := s.locked(ctx, id, nil); err != nil {
		return backends.Part{}, err
	}
	t, err := s.stageCopy(ctx, header{ETag: randomName()}, src, r, sourceIfMatch)
	if err != nil {
		return backends.Part{}, err
	}
	defer t.discard()
	return s.placePart(ctx, id, number, t)
}

// stageCopy is stage with the bytes of another object, which is held meanwhile.
func (s *Store) stageCopy(ctx context.Context, h header, src backends.ObjectID, r *backends.Range, ifMatch string) (*staged, error) {
	rec, err := s.open(ctx, src)
	if err != nil {
		return nil, err
	}
	body, within, err := s.source(src.Bucket, rec, r, ifMatch)
	if err != nil {
		rec.close()
		return nil, err
	}
	defer body.Close()
	h.Size = within.Length
	if h, err = h.aligned(rec.start + within.Offset); err != nil {
		return nil, err
	}
	t, err := s.stageFile(func(f *os.File) error { return copyWhole(ctx, f, h, body) })
	if err != nil {
		return nil, err
	}
	t.header = h
	return t, nil
}

// source checks what is asked of an object that is to be copied.
func (s *Store) source(bucket string, rec record, r *backends.Range, ifMatch string) (objectBody, backends.Range, error) {
	if ifMatch != "" && ifMatch != rec.ETag {
		return nil, backends.Range{}, backends.ErrPrecondition
	}
	within, err := r.Within(rec.Size)
	if err != nil {
		return nil, within, err
	}
	body, err := s.body(bucket, rec, within)
	return body, within, err
}

func copyWhole(ctx context.Context, f *os.File, h header, body io.WriterTo) error {
	head, err := h.encode()
	if err != nil {
		return err
	}
	if _, err := f.Write(head); err != nil {
		return err
	}
	n, err := body.WriteTo(&kernelCopy{f, ctx})
	if err == nil && n != h.Size {
		err = io.ErrUnexpectedEOF
	}
	return err
}

const (
	block    = 4 << 10  // of file systems that share blocks between files
	copyStep = 64 << 20 // bytes between looks at the context
)

// aligned pads a header so that what follows it begins as far behind the beginning
// of a block as offset is.
func (h header) aligned(offset int64) (header, error) {
	head, err := h.encode()
	h.pad = int((offset - int64(len(head))) & (block - 1))
	return h, err
}

// kernelCopy is a file that others are copied to with copy_file_range(2), which
// shares whole blocks where the file system can.
type kernelCopy struct {
	*os.File
	ctx context.Context //nolint:containedctx // lives as long as one call
}

func (c *kernelCopy) ReadFrom(r io.Reader) (n int64, err error) {
	from, ok := r.(*io.LimitedReader)
	if !ok {
		return c.File.ReadFrom(r)
	}
	at, err := c.Seek(0, io.SeekCurrent)
	for err == nil && from.N > 0 {
		if err := c.ctx.Err(); err != nil {
			return n, err
		}
		step := min(from.N, copyStep)
		if rest := at % block; rest > 0 {
			step = min(from.N, block-rest)
		}
		var m int64
		m, err = c.File.ReadFrom(&io.LimitedReader{R: from.R, N: step})
		if at, n, from.N = at+m, n+m, from.N-m; m < step {
			break
		}
		startWriting(c.File, at-m, m)
	}
	return n, err
}
