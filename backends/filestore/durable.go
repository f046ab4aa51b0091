package filestore

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"chatelaine/backends"
)

// durable remembers folders whose own names are known to be on disk. A folder that
// was found to exist may have been made by another process that has not yet synced
// it, so each process makes sure of each folder once. Identity is needed because
// empty folders are removed and made anew under the same name.
type durable struct {
	mu  sync.Mutex
	ids map[string]folderID
}

const knownFolders = 1 << 14

func (d *durable) has(dir string, id folderID) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return id != folderID{} && d.ids[dir] == id
}

func (d *durable) add(dir string, id folderID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ids == nil || len(d.ids) >= knownFolders {
		d.ids = map[string]folderID{}
	}
	d.ids[dir] = id
}

// The three ways to change what names there are. Tests stop them.

func (s *Store) rename(from, to string) error {
	if err := s.moving(); err != nil {
		return err
	}
	return os.Rename(from, to)
}

func (s *Store) link(from, to string) error {
	if err := s.moving(); err != nil {
		return err
	}
	return os.Link(from, to)
}

func (s *Store) unlink(path string) error {
	if err := s.moving(); err != nil {
		return err
	}
	return os.Remove(path)
}

// syncFolder makes the names in a folder durable. A folder that has gone has none.
func (s *Store) syncFolder(dir string) error {
	f, err := os.Open(dir)
	if absent(err) {
		return nil
	}
	if err != nil {
		return mapped(err)
	}
	return mapped(errors.Join(s.fsync(f), f.Close()))
}

// settle makes the names in dir durable, and those of dir and of the folders above
// it as far as top.
func (s *Store) settle(dir, top string) error {
	if err := s.syncFolder(dir); err != nil {
		return err
	}
	for ; len(dir) > len(top); dir = filepath.Dir(dir) {
		id, err := identify(dir)
		if err == nil && s.known.has(dir, id) {
			continue
		}
		if err := s.syncFolder(filepath.Dir(dir)); err != nil {
			return err
		}
		if err == nil {
			s.known.add(dir, id)
		}
	}
	return nil
}

// makeFolders makes dir and what is missing above it, below top, which must be
// there. Where a folder vanishes meanwhile it leaves the rest to the next attempt.
func makeFolders(dir, top string) error {
	err := os.Mkdir(dir, 0o700)
	switch {
	case err == nil || errors.Is(err, fs.ErrExist):
		return nil
	case !absent(err):
		return err
	case len(dir) <= len(top)+1 || filepath.Dir(dir) == top:
		return backends.ErrBucketNotFound
	}
	if err := makeFolders(filepath.Dir(dir), top); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) && !absent(err) {
		return err
	}
	return nil
}

// prune removes dir and the folders above it, below top, as far as they are empty,
// and returns the lowest that is left. A writer that was about to use one finds it
// missing and makes it anew.
func prune(dir, top string) string {
	for len(dir) > len(top) && syscall.Rmdir(dir) == nil {
		dir = filepath.Dir(dir)
	}
	return dir
}
