// Package filestore is a store on a POSIX file system. What it has acknowledged
// survives a kill -9 and a power cut, and several processes may serve one folder.
//
// It refuses to know of networks, and of file systems that fold the case of names
// or do without flock. DECISIONS.md explains the layout:
//
//	FORMAT                         what this folder is
//	locks/00 … ff                  flocked around every change, by hash of bucket and key
//	tmp/                           files and folders on their way in or out
//	buckets/B/objects/…            an object a file: header, then its bytes or its table of parts
//	buckets/B/versions/…/VERSION   versions that are not the newest, and delete markers
//	buckets/B/notes/…/VERSION      tags and locks that were changed after the write
//	buckets/B/settings             versioning and Object Lock, where they are not off
//	buckets/B/uploads/ID           an unfinished upload: key and attributes
//	buckets/B/parts/ID/NNNNN       the parts of an upload, and later of the object made from it
package filestore

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"go.uber.org/zap"

	"chatelaine/backends"
)

var (
	_ backends.Store       = (*Store)(nil)
	_ backends.Multiparter = (*Store)(nil)
	_ backends.Copier      = (*Store)(nil)
	_ backends.Versioner   = (*Store)(nil)
	_ backends.Tagger      = (*Store)(nil)
	_ backends.Locker      = (*Store)(nil)
)

// Config is what New needs.
type Config struct {
	// Root is the folder; it is made if it is not there, and must be empty or a
	// filestore's. At most 768 bytes as an absolute path.
	Root string
	// Logger gets a line for each leftover that cannot be swept; nil logs nothing.
	Logger *zap.Logger
}

const (
	format     = "chatelaine filestore 1\n"
	maxRoot    = 768                 // leaves room for the longest key within PATH_MAX
	wholeWrite = 1 << 20             // bytes of a write, at least, where there are so many
	pieceLen   = wholeWrite + 64<<10 // bytes of a buffer
)

// Store is a backends.Store with every capability. ETags are 32 random hex digits,
// new at every write, with "-" and the number of parts behind them where there are
// parts.
type Store struct {
	root    string
	log     *zap.Logger
	locks   *locks
	buffers sync.Pool // *[]byte of pieceLen
	known   durable
	names   folderCache
	fsync   func(*os.File) error // os.File.Sync; tests put faults here
	moving  func() error         // comes before every change of a name; for tests

	stop    context.CancelFunc
	sweeper sync.WaitGroup
}

// New opens the folder, which other processes may have open too, and starts to
// sweep what killed ones have left there.
func New(cfg Config) (*Store, error) {
	root, err := filepath.Abs(cfg.Root)
	if cfg.Root == "" || err != nil || len(root) > maxRoot {
		return nil, errors.Join(fmt.Errorf("filestore: opening %q: a root of 1 to %d bytes is needed", cfg.Root, maxRoot), err)
	}
	s := &Store{root: root, log: cfg.Logger, fsync: (*os.File).Sync, moving: func() error { return nil }}
	if s.log == nil {
		s.log = zap.NewNop()
	}
	s.buffers.New = func() any { b := make([]byte, pieceLen); return &b }
	if err := s.prepare(); err != nil {
		return nil, fmt.Errorf("filestore: opening %q: %w", root, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.stop = cancel
	s.sweeper.Go(func() { s.sweep(ctx) })
	return s, nil
}

// prepare makes or recognizes the folder.
func (s *Store) prepare() (err error) {
	if err := os.MkdirAll(s.root, 0o700); err != nil {
		return mapped(err)
	}
	if err := s.claim(); err != nil {
		return err
	}
	for _, dir := range []string{"locks", "tmp", "buckets"} {
		if err := os.Mkdir(s.path(dir), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return mapped(err)
		}
	}
	if err := s.probe(); err != nil {
		return err
	}
	if s.locks, err = openLocks(s.path("locks")); err != nil {
		return err
	}
	return errors.Join(s.syncFolder(s.root), s.syncFolder(filepath.Dir(s.root)))
}

// claim writes FORMAT into an empty folder, and otherwise compares it.
func (s *Store) claim() error {
	// FORMAT is looked for last: another process may be about to write it.
	entries, err := os.ReadDir(s.root)
	if err != nil {
		return mapped(err)
	}
	got, err := os.ReadFile(s.path("FORMAT"))
	if err == nil && !bytes.Equal(got, []byte(format)) {
		return fmt.Errorf("FORMAT is %.40q, not %q", got, format)
	}
	if !absent(err) {
		return mapped(err)
	}
	for _, e := range entries {
		if n := e.Name(); n != "lost+found" && !strings.HasPrefix(n, "FORMAT") {
			return fmt.Errorf("the folder holds %q and no FORMAT: it is not a filestore", n)
		}
	}
	return s.writeFormat()
}

// writeFormat lets several processes claim a new folder at once.
func (s *Store) writeFormat() error {
	temp := s.path("FORMAT." + randomName())
	if err := os.WriteFile(temp, []byte(format), 0o600); err != nil {
		return mapped(errors.Join(err, os.Remove(temp)))
	}
	return mapped(os.Rename(temp, s.path("FORMAT")))
}

// probe refuses file systems on which two keys would be one file.
func (s *Store) probe() error {
	name := randomName()
	for made, other := range map[string]string{"case-a": "case-A", "nf-\u00e9": "nf-e\u0301"} {
		f, err := os.OpenFile(s.path("tmp", name+made), os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return mapped(err)
		}
		_, err = os.Lstat(s.path("tmp", name+other))
		if err2 := errors.Join(f.Close(), os.Remove(f.Name())); err2 != nil {
			return mapped(err2)
		}
		if err == nil {
			return fmt.Errorf("the file system takes %q and %q for one name", made, other)
		}
	}
	return nil
}

// Close waits for the sweeper and lets go of the lock files. It does not wait for
// calls that are under way.
func (s *Store) Close() error {
	s.stop()
	s.sweeper.Wait()
	return s.locks.close()
}

// Check makes and removes an empty file.
func (s *Store) Check(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	f, err := os.OpenFile(s.path("tmp", randomName()), os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("filestore: checking %q: %w", s.root, mapped(err))
	}
	return errors.Join(f.Close(), os.Remove(f.Name()))
}

// path joins names below the root. They are never a key or part of one.
func (s *Store) path(elem ...string) string {
	return s.root + "/" + strings.Join(elem, "/")
}

func randomName() string {
	b := make([]byte, 16)
	rand.Read(b)
	return hex.EncodeToString(b)
}

// mapped adds the contract's error to one of the operating system.
func mapped(err error) error {
	for _, m := range []struct {
		is  syscall.Errno
		add error
	}{
		{syscall.ENOSPC, backends.ErrFull},
		{syscall.EDQUOT, backends.ErrFull},
		{syscall.EFBIG, backends.ErrTooLarge},
		{syscall.ENAMETOOLONG, backends.ErrInvalidName},
		{syscall.EACCES, backends.ErrDenied},
		{syscall.EPERM, backends.ErrDenied},
		{syscall.EROFS, backends.ErrDenied},
		{syscall.EIO, backends.ErrUnavailable},
		{syscall.EMFILE, backends.ErrUnavailable},
		{syscall.ENFILE, backends.ErrUnavailable},
		{syscall.ESTALE, backends.ErrUnavailable},
	} {
		if errors.Is(err, m.is) {
			return fmt.Errorf("%w: %w", m.add, err)
		}
	}
	return err
}

func wrap(err error, doing, bucket, key string) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("filestore: %s %q: %w", doing, strings.TrimSuffix(bucket+"/"+key, "/"), mapped(err))
}
