package filestore

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"chatelaine/backends"
)

const settingsName = "settings"

// settings are what a bucket does with versions. A bucket whose settings are zero
// has no file of them.
type settings struct {
	Versioning backends.Versioning `json:"versioning,omitempty"`
	Lock       backends.LockConfig `json:"lock,omitzero"`
}

func (c settings) versioned() bool { return c.Versioning != backends.VersioningOff }

// fits says that a version with this header can be added to the bucket as it is.
func (c settings) fits(h header) bool {
	return c.versioned() == (h.Stamp != "") && h.Null == (c.Versioning == backends.VersioningSuspended)
}

// fill makes a header fit, and adds the default retention where h has none.
func (c settings) fill(h *header) (err error) {
	if h.Stamp, h.Null = "", c.Versioning == backends.VersioningSuspended; c.versioned() {
		h.Stamp = backends.NewStamp("")
	}
	if !h.Marker {
		h.Lock, err = c.Lock.Apply(h.Lock, time.Now())
	}
	return err
}

// prepareVersion fills the header of a version to be. backends.ErrNoLock.
func (s *Store) prepareVersion(bucket string, h *header) error {
	c, err := s.settings(bucket)
	if err != nil {
		return err
	}
	return c.fill(h)
}

// settings reads a bucket's settings. They count for a change of a key as long as
// the key's lock is held.
func (s *Store) settings(bucket string) (c settings, err error) {
	path := s.bucket(bucket) + "/" + settingsName
	if there, err := isThere(path); !there {
		return c, err
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return c, present(err)
	}
	if _, err := decode(b, &c); err != nil {
		return c, fmt.Errorf("reading the settings of %q: %w", bucket, err)
	}
	return c, nil
}

// writeSettings puts settings into a bucket's folder, whose names are not synced yet.
func (s *Store) writeSettings(dir string, c settings) error {
	return s.writeFramed(dir+"/"+settingsName, c)
}

// writeFramed replaces a small file at once. The folder's names are not synced yet.
func (s *Store) writeFramed(path string, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	b, err := frame(text)
	if err != nil {
		return err
	}
	t, err := s.stageFile(func(f *os.File) error {
		_, err := f.Write(b)
		return err
	})
	if err != nil {
		return err
	}
	defer t.discard()
	err = s.rename(t.file.Name(), path)
	t.placed = err == nil
	return err
}

// readSettings is settings for callers who name a bucket.
func (s *Store) readSettings(ctx context.Context, bucket string) (settings, error) {
	if err := ctx.Err(); err != nil {
		return settings{}, err
	}
	if err := s.checkBucket(bucket); err != nil {
		return settings{}, err
	}
	return s.settings(bucket)
}

// changeSettings changes settings while no key of any bucket is being changed.
func (s *Store) changeSettings(ctx context.Context, bucket string, do func(*settings) error) error {
	if _, err := s.readSettings(ctx, bucket); err != nil {
		return err
	}
	return s.locks.withAll(func() error {
		c, err := s.readSettings(ctx, bucket)
		if err != nil {
			return err
		}
		if err := do(&c); err != nil {
			return err
		}
		if err := s.writeSettings(s.bucket(bucket), c); err != nil {
			return err
		}
		return s.syncFolder(s.bucket(bucket))
	})
}

// Versioning reads the state of a bucket's versions.
func (s *Store) Versioning(ctx context.Context, bucket string) (backends.Versioning, error) {
	c, err := s.readSettings(ctx, bucket)
	return c.Versioning, wrap(err, "reading the versioning of", bucket, "")
}

// SetVersioning counts for every change that has not been made when it returns.
func (s *Store) SetVersioning(ctx context.Context, bucket string, v backends.Versioning) error {
	err := s.changeSettings(ctx, bucket, func(c *settings) error {
		c.Versioning = v
		return c.Lock.CheckVersioning(v)
	})
	return wrap(err, "setting the versioning of", bucket, "")
}

// CreateLockedBucket makes the bucket with its settings in it.
func (s *Store) CreateLockedBucket(ctx context.Context, bucket string) error {
	return s.create(ctx, bucket, settings{backends.VersioningEnabled, backends.LockConfig{Enabled: true}})
}

// LockConfig reads a bucket's Object Lock.
func (s *Store) LockConfig(ctx context.Context, bucket string) (backends.LockConfig, error) {
	c, err := s.readSettings(ctx, bucket)
	return c.Lock, wrap(err, "reading the lock of", bucket, "")
}

// SetLockConfig counts for versions whose writing begins afterwards.
func (s *Store) SetLockConfig(ctx context.Context, bucket string, lock backends.LockConfig) error {
	err := s.changeSettings(ctx, bucket, func(c *settings) error {
		c.Lock = lock
		return lock.CheckSet(c.Versioning)
	})
	return wrap(err, "setting the lock of", bucket, "")
}
