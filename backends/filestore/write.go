package filestore

import (
	"context"
	"errors"
	"io"
	"os"
	"syscall"
	"time"

	"chatelaine/backends"
)

const (
	writeAhead = 8 << 20 // bytes after which the kernel is told to begin writing
	attempts   = 100     // of a change that others make begin again
)

// Put writes the object to a temporary file, syncs it, renames it into place and
// syncs the folder. The condition and the rename are one step to everybody else.
func (s *Store) Put(ctx context.Context, id backends.ObjectID, body backends.Body, opts *backends.PutOptions) (backends.Written, error) {
	if opts == nil {
		opts = &backends.PutOptions{}
	}
	w, err := s.put(ctx, id, body, opts)
	return w, wrap(err, "putting", id.Bucket, id.Key)
}

func (s *Store) put(ctx context.Context, id backends.ObjectID, body backends.Body, opts *backends.PutOptions) (backends.Written, error) {
	if err := s.admit(ctx, id.Bucket, id.Key, opts.Attributes); err != nil {
		return backends.Written{}, err
	}
	h := newHeader(id.Key, body.Size, opts.Attributes)
	if err := s.prepareVersion(id.Bucket, &h); err != nil {
		return backends.Written{}, err
	}
	t, err := s.stage(ctx, h, body)
	if err != nil {
		return backends.Written{}, err
	}
	defer t.discard()
	return s.slot(id.Bucket, id.Key).commit(ctx, t, func(old record) error { return old.check(opts.Conditions) })
}

// admit makes the checks that need no body.
func (s *Store) admit(ctx context.Context, bucket, key string, attrs backends.Attributes) error {
	for _, err := range []error{ctx.Err(), backends.CheckKey(key), attrs.Check(), s.checkBucket(bucket)} {
		if err != nil {
			return err
		}
	}
	return nil
}

// staged is a complete, durable file that is not visible yet. It is flocked as
// long as its process lives, so that sweepers leave it alone.
type staged struct {
	header
	file     *os.File
	modified time.Time
	placed   bool // renamed: discard no longer removes it
}

func (t *staged) discard() {
	if !t.placed {
		os.Remove(t.file.Name())
	}
	t.file.Close()
}

// stage writes a header and a body to a temporary file and syncs it.
func (s *Store) stage(ctx context.Context, h header, body backends.Body) (*staged, error) {
	head, err := h.encode()
	if err != nil {
		return nil, err
	}
	t, err := s.stageFile(func(f *os.File) error {
		buf, release := s.buffer(int64(len(head)) + body.Size)
		defer release()
		return copyBody(ctx, f, buf, copy(buf, head), body.Exactly())
	})
	if err != nil {
		return nil, err
	}
	t.header = h
	return t, nil
}

// stageFile has write fill a temporary file and syncs it.
func (s *Store) stageFile(write func(f *os.File) error) (*staged, error) {
	f, err := os.OpenFile(s.path("tmp", randomName()), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	t := &staged{file: f}
	err = flock(f, syscall.LOCK_EX)
	if err == nil {
		err = write(f)
	}
	if err == nil {
		err = s.finish(t)
	}
	if err != nil {
		t.discard()
		return nil, err
	}
	return t, nil
}

// finish takes the time of a written file and syncs it.
func (s *Store) finish(t *staged) error {
	info, err := t.file.Stat()
	if err != nil {
		return err
	}
	t.modified = info.ModTime()
	return s.fsync(t.file)
}

// buffer returns a buffer for n bytes in steps of pieceLen. Headers fit into it.
func (s *Store) buffer(n int64) (buf []byte, release func()) {
	if n < pieceLen/16 {
		return make([]byte, max(n, 0)+1), func() {}
	}
	p := s.buffers.Get().(*[]byte)
	return *p, func() { s.buffers.Put(p) }
}

// copyBody writes buf[:have] and then all of r, in writes of wholeWrite bytes or
// somewhat more. r mostly gets room for 64 sealed chunks, so that it can seal
// straight into buf.
func copyBody(ctx context.Context, f *os.File, buf []byte, have int, r io.Reader) error {
	var done, begun int64
	for ended := false; !ended; {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := r.Read(buf[have:])
		have += n
		if ended = err == io.EOF; err != nil && !ended {
			return err
		}
		if have < min(wholeWrite, len(buf)) && !ended {
			continue
		}
		if _, err := f.Write(buf[:have]); err != nil {
			return err
		}
		done, have = done+int64(have), 0
		if done-begun >= writeAhead {
			startWriting(f, begun, done-begun)
			begun = done
		}
	}
	return ctx.Err()
}

// current opens what is at a path; the zero record where nothing is. A damaged
// object exists, has no ETag that a condition could match, and can be replaced.
func (s *Store) current(path string) (record, error) {
	r, err := openRecord(path)
	switch {
	case absent(err):
		return record{}, nil
	case errors.Is(err, errDamaged):
		f, err := os.Open(path)
		return record{file: f, damaged: true}, err
	}
	return r, err
}
