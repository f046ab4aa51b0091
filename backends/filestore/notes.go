package filestore

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"chatelaine/backends"
)

// note is what has changed of a version since it was written. It replaces what the
// version's header says, and counts for the one write that had the ETag, so that a
// note which outlives its version is nobody's.
type note struct {
	ETag string        `json:"etag"`
	Tags backends.Tags `json:"tags,omitempty"`
	Lock backends.Lock `json:"lock,omitzero"`
}

func (k slot) notePath(version string) string {
	return k.notes(k.bucketName) + "/" + k.rel + "/" + version
}

// annotate puts the note's tags and lock in the place of those of the header.
func (k slot) annotate(rec *record) error {
	path := k.notePath(rec.version())
	if there, err := isThere(path); !there {
		return err
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return present(err)
	}
	var n note
	if _, err := decode(b, &n); err != nil {
		return fmt.Errorf("reading %q: %w", path, err)
	}
	if n.ETag == rec.ETag {
		rec.Tags, rec.Lock = n.Tags, n.Lock
	}
	return nil
}

// writeNote replaces the note of a version. The caller holds the key's lock.
func (k slot) writeNote(version string, n note) error {
	path, top := k.notePath(version), k.notes(k.bucketName)
	if err := k.writeFramed(path, n); absent(err) {
		return &noFolder{filepath.Dir(path), top}
	} else if err != nil {
		return err
	}
	return k.settle(filepath.Dir(path), k.bucket(k.bucketName))
}

func (k slot) removeNote(version string) error {
	path := k.notePath(version)
	if err := k.unlink(path); err != nil {
		return present(err)
	}
	prune(filepath.Dir(path), k.notes(k.bucketName))
	return nil
}

// describe reads a version with its note and the settings of its bucket.
func (s *Store) describe(ctx context.Context, id backends.ObjectID) (rec record, c settings, err error) {
	if err = s.admit(ctx, id.Bucket, id.Key, backends.Attributes{}); err != nil {
		return rec, c, err
	}
	if rec, err = s.slot(id.Bucket, id.Key).open(id.Version); err != nil {
		return rec, c, err
	}
	rec.close()
	c, err = s.settings(id.Bucket)
	return rec, c, err
}

// amend has do change the note of a version, and returns the version.
func (s *Store) amend(ctx context.Context, id backends.ObjectID, do func(settings, *note) error) (version string, err error) {
	if err := s.admit(ctx, id.Bucket, id.Key, backends.Attributes{}); err != nil {
		return "", err
	}
	k := s.slot(id.Bucket, id.Key)
	err = k.change(func(c settings) error {
		rec, err := k.look(id.Version)
		rec.close()
		if err == nil {
			err = rec.present(id.Version)
		}
		if err == nil {
			err = k.annotate(&rec)
		}
		if err != nil {
			return err
		}
		n := note{rec.ETag, rec.Tags, rec.Lock}
		if err := do(c, &n); err != nil {
			return err
		}
		if c.versioned() {
			version = rec.version()
		}
		return k.writeNote(rec.version(), n)
	})
	return version, err
}

// Tags reads the tags of an object or version.
func (s *Store) Tags(ctx context.Context, id backends.ObjectID) (backends.Tags, string, error) {
	rec, _, err := s.describe(ctx, id)
	return rec.Tags, rec.called, wrap(err, "reading tags of", id.Bucket, id.Key)
}

// SetTags writes the tags beside the object, which stays as it is.
func (s *Store) SetTags(ctx context.Context, id backends.ObjectID, tags backends.Tags) (string, error) {
	version, err := "", tags.Check()
	if err == nil {
		version, err = s.amend(ctx, id, func(_ settings, n *note) error {
			n.Tags = tags
			return nil
		})
	}
	return version, wrap(err, "setting tags of", id.Bucket, id.Key)
}

// Lock reads the lock of a version.
func (s *Store) Lock(ctx context.Context, id backends.ObjectID) (backends.Lock, error) {
	rec, c, err := s.describe(ctx, id)
	if err == nil && !c.Lock.Enabled {
		err = backends.ErrNoLock
	}
	return rec.Lock, wrap(err, "reading the lock of", id.Bucket, id.Key)
}

// SetRetention writes the lock beside the version.
func (s *Store) SetRetention(ctx context.Context, id backends.ObjectID, mode backends.LockMode, until time.Time, bypass bool) error {
	err := s.amendLock(ctx, id, func(l backends.Lock) (backends.Lock, error) { return l.Retain(mode, until, time.Now(), bypass) })
	return wrap(err, "setting the retention of", id.Bucket, id.Key)
}

// SetHold writes the lock beside the version.
func (s *Store) SetHold(ctx context.Context, id backends.ObjectID, hold bool) error {
	err := s.amendLock(ctx, id, func(l backends.Lock) (backends.Lock, error) {
		return l.WithHold(hold), nil
	})
	return wrap(err, "setting the legal hold of", id.Bucket, id.Key)
}

func (s *Store) amendLock(ctx context.Context, id backends.ObjectID, do func(backends.Lock) (backends.Lock, error)) error {
	_, err := s.amend(ctx, id, func(c settings, n *note) (err error) {
		if !c.Lock.Enabled {
			return backends.ErrNoLock
		}
		n.Lock, err = do(n.Lock)
		return err
	})
	return err
}
