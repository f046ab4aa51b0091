package filestore

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"syscall"

	"chatelaine/backends"
)

func (s *Store) bucket(name string) string  { return s.path("buckets", name) }
func (s *Store) objects(name string) string { return s.path("buckets", name, "objects") }

// CreateBucket makes the folders of a bucket aside and renames them into place.
func (s *Store) CreateBucket(ctx context.Context, name string) error {
	return s.create(ctx, name, settings{})
}

func (s *Store) create(ctx context.Context, name string, c settings) error {
	err := ctx.Err()
	if err == nil {
		err = backends.CheckBucket(name)
	}
	if err == nil {
		err = s.createBucket(name, c)
	}
	return wrap(err, "creating bucket", name, "")
}

func (s *Store) createBucket(name string, c settings) error {
	temp := s.path("tmp", newFolder+randomName())
	defer os.RemoveAll(temp)
	for _, dir := range []string{"", "/objects", "/uploads", "/parts"} {
		if err := os.Mkdir(temp+dir, 0o700); err != nil {
			return err
		}
	}
	if err := os.WriteFile(temp+"/created", nil, 0o600); err != nil {
		return err
	}
	if c != (settings{}) {
		if err := s.writeSettings(temp, c); err != nil {
			return err
		}
	}
	if err := s.syncFolder(temp); err != nil {
		return err
	}
	err := syscall.Rename(temp, s.bucket(name))
	if errors.Is(err, syscall.ENOTEMPTY) || errors.Is(err, syscall.EEXIST) {
		return backends.ErrBucketExists
	}
	if err != nil {
		return &os.LinkError{Op: "rename", Old: temp, New: s.bucket(name), Err: err}
	}
	return s.syncFolder(s.path("buckets"))
}

// DeleteBucket looks for an object or a version and renames the bucket away under all locks at
// once, so that nothing is put in between.
func (s *Store) DeleteBucket(ctx context.Context, name string) error {
	temp := s.path("tmp", oldFolder+randomName())
	err := s.HeadBucket(ctx, name)
	if err == nil {
		err = s.locks.withAll(func() error { return s.retireBucket(name, temp) })
	}
	if err == nil {
		err = errors.Join(s.syncFolder(s.path("buckets")), os.RemoveAll(temp))
	}
	return wrap(err, "deleting bucket", name, "")
}

func (s *Store) retireBucket(name, temp string) error {
	_, found, err := anyKey(s.objects(name), "", nil)
	if err == nil && !found {
		_, found, err = anyKey(s.versions(name), "", holdsNames)
	}
	if err != nil {
		return err
	}
	if found {
		return backends.ErrBucketNotEmpty
	}
	if err = os.Rename(s.bucket(name), temp); absent(err) {
		return backends.ErrBucketNotFound
	}
	return err
}

// HeadBucket looks for the bucket's folder.
func (s *Store) HeadBucket(ctx context.Context, name string) error {
	err := ctx.Err()
	if err == nil {
		err = s.checkBucket(name)
	}
	return wrap(err, "looking up bucket", name, "")
}

// checkBucket must come before a name becomes a path.
func (s *Store) checkBucket(name string) error {
	if backends.CheckBucket(name) != nil {
		return backends.ErrBucketNotFound
	}
	there, err := isThere(s.objects(name))
	if err == nil && !there {
		err = backends.ErrBucketNotFound
	}
	return err
}

// ListBuckets reads the buckets folder.
func (s *Store) ListBuckets(ctx context.Context) ([]backends.BucketInfo, error) {
	entries, err := os.ReadDir(s.path("buckets"))
	infos := make([]backends.BucketInfo, 0, len(entries))
	for _, e := range entries {
		if backends.CheckBucket(e.Name()) != nil {
			continue
		}
		info, err := os.Lstat(s.bucket(e.Name()) + "/created")
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, wrap(err, "listing", "buckets", "")
		}
		infos = append(infos, backends.BucketInfo{Name: e.Name(), Created: info.ModTime()})
	}
	return infos, wrap(errors.Join(ctx.Err(), err), "listing", "buckets", "")
}
