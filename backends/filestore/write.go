package filestore

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"chatelaine/backends"
)

const (
	writeAhead = 8 << 20 // bytes after which the kernel is told to begin writing
	attempts   = 100     // of a rename into folders that others remove
)

var errNoFolder = errors.New("the folder is not there")

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
	t, err := s.stage(ctx, header{
		Key: id.Key, Size: body.Size, ETag: randomName(),
		ContentType: opts.Attributes.ContentType, Metadata: opts.Attributes.Metadata,
	}, body)
	if err != nil {
		return backends.Written{}, err
	}
	defer t.discard()
	old, err := s.commit(id.Bucket, id.Key, t, func(old record) error { return old.check(opts.Conditions) })
	if err != nil {
		return backends.Written{}, err
	}
	s.dispose(id.Bucket, old)
	return backends.Written{ETag: t.etag, Modified: t.modified}, nil
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
	file     *os.File
	etag     string
	modified time.Time
	placed   bool // renamed: discard no longer removes it
}

func (t *staged) discard() {
	if !t.placed {
		os.Remove(t.file.Name()) //nolint:errcheck // the sweeper comes again
	}
	t.file.Close() //nolint:errcheck // it was synced, or is of no use
}

// stage writes a header and a body to a temporary file and syncs it.
func (s *Store) stage(ctx context.Context, h header, body backends.Body) (*staged, error) {
	head, err := h.encode()
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(s.path("tmp", randomName()), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	t := &staged{file: f, etag: h.ETag}
	if err := s.fill(ctx, t, head, body); err != nil {
		t.discard()
		return nil, err
	}
	return t, nil
}

func (s *Store) fill(ctx context.Context, t *staged, head []byte, body backends.Body) error {
	if err := flock(t.file, syscall.LOCK_EX); err != nil {
		return err
	}
	buf, release := s.buffer(int64(len(head)) + body.Size)
	defer release()
	if err := copyBody(ctx, t.file, buf, copy(buf, head), body.Exactly()); err != nil {
		return err
	}
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
		if ended = err == io.EOF; err != nil && !ended { //nolint:errorlint // exactReader returns it bare
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

// commit makes t the object of a key where allow agrees to what it replaces, and
// returns that: open where it has parts, and then the caller disposes of it.
func (s *Store) commit(bucket, key string, t *staged, allow func(old record) error) (old record, err error) {
	top := s.objects(bucket)
	path := top + "/" + keyPath(key)
	for range attempts {
		err = s.locks.with(bucket, key, func() error {
			old, err = s.replace(bucket, path, t, allow)
			return err
		})
		if !errors.Is(err, errNoFolder) {
			break
		}
		if err := makeFolders(filepath.Dir(path), top); err != nil {
			return record{}, err
		}
	}
	if err != nil {
		return record{}, err
	}
	return old, s.settle(filepath.Dir(path), top)
}

// replace is the part of commit under the key's lock.
func (s *Store) replace(bucket, path string, t *staged, allow func(old record) error) (record, error) {
	old, err := s.current(path)
	if err != nil {
		return record{}, err
	}
	if err := allow(old); err != nil {
		old.close()
		return record{}, err
	}
	if err := s.forgetUpload(bucket, old.Upload); err != nil {
		old.close()
		return record{}, err
	}
	if err := os.Rename(t.file.Name(), path); err != nil {
		old.close()
		return record{}, gone(err, errNoFolder)
	}
	t.placed = true
	return old, nil
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
		return record{file: f}, err
	}
	return r, err
}

// Delete unlinks the object and the folders that it leaves empty, and syncs the
// folder above them.
func (s *Store) Delete(ctx context.Context, id backends.ObjectID, opts *backends.DeleteOptions) (backends.Deleted, error) {
	if opts == nil {
		opts = &backends.DeleteOptions{}
	}
	err := s.admit(ctx, id.Bucket, id.Key, backends.Attributes{})
	if err == nil && id.Version == "" {
		err = s.remove(id.Bucket, id.Key, opts.Conditions)
	}
	return backends.Deleted{}, wrap(err, "deleting", id.Bucket, id.Key)
}

func (s *Store) remove(bucket, key string, cond backends.Conditions) error {
	top := s.objects(bucket)
	path := top + "/" + keyPath(key)
	var old record
	err := s.locks.with(bucket, key, func() (err error) {
		if old, err = s.current(path); err != nil {
			return err
		}
		if err := old.check(cond); err != nil || !old.exists() {
			return err
		}
		if err := s.forgetUpload(bucket, old.Upload); err != nil {
			return err
		}
		return os.Remove(path)
	})
	if err != nil || !old.exists() {
		old.close()
		return err
	}
	err = s.settle(prune(filepath.Dir(path), top), top)
	s.dispose(bucket, old)
	return err
}
