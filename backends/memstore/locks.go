package memstore

import (
	"context"
	"maps"
	"slices"
	"time"

	"chatelaine/backends"
)

// change puts in the place of a version a copy of it that do has changed.
func (b *bucket) change(id backends.ObjectID, do func(*backends.Attributes) error) (version string, err error) {
	o, err := b.find(id)
	if err != nil {
		return "", err
	}
	changed := *o
	if err := do(&changed.info.Attributes); err != nil {
		return "", err
	}
	h := slices.Clone(b.objects[id.Key])
	h[h.index(o.version())] = &changed
	b.objects[id.Key] = h
	return b.name(o), nil
}

func (s *Store) Tags(ctx context.Context, id backends.ObjectID) (tags backends.Tags, version string, err error) {
	err = s.with(ctx, id.Bucket, func(b *bucket) error {
		o, err := b.find(id)
		if err == nil {
			tags, version = maps.Clone(o.info.Attributes.Tags), b.name(o)
		}
		return err
	})
	return tags, version, wrap(err, "reading tags of", id.Bucket, id.Key)
}

func (s *Store) SetTags(ctx context.Context, id backends.ObjectID, tags backends.Tags) (version string, err error) {
	if err = tags.Check(); err == nil {
		err = s.with(ctx, id.Bucket, func(b *bucket) (err error) {
			version, err = b.change(id, func(a *backends.Attributes) error {
				a.Tags = maps.Clone(tags)
				return nil
			})
			return err
		})
	}
	return version, wrap(err, "setting tags of", id.Bucket, id.Key)
}

func (s *Store) CreateLockedBucket(ctx context.Context, name string) error {
	return s.createBucket(ctx, name, backends.VersioningEnabled, backends.LockConfig{Enabled: true})
}

func (s *Store) LockConfig(ctx context.Context, name string) (c backends.LockConfig, err error) {
	err = s.with(ctx, name, func(b *bucket) error {
		c = b.lock
		return nil
	})
	return c, wrap(err, "reading the lock of", name, "")
}

func (s *Store) SetLockConfig(ctx context.Context, name string, c backends.LockConfig) error {
	err := s.with(ctx, name, func(b *bucket) error {
		if err := c.CheckSet(b.versioning); err != nil {
			return err
		}
		b.lock = c
		return nil
	})
	return wrap(err, "setting the lock of", name, "")
}

func (s *Store) Lock(ctx context.Context, id backends.ObjectID) (l backends.Lock, err error) {
	err = s.with(ctx, id.Bucket, func(b *bucket) error {
		o, err := b.find(id)
		if err == nil {
			l, err = o.info.Attributes.Lock, b.lockable()
		}
		return err
	})
	return l, wrap(err, "reading the lock of", id.Bucket, id.Key)
}

func (s *Store) SetRetention(ctx context.Context, id backends.ObjectID, mode backends.LockMode, until time.Time, bypass bool) error {
	err := s.changeLock(ctx, id, func(l backends.Lock) (backends.Lock, error) { return l.Retain(mode, until, time.Now(), bypass) })
	return wrap(err, "setting the retention of", id.Bucket, id.Key)
}

func (s *Store) SetHold(ctx context.Context, id backends.ObjectID, hold bool) error {
	err := s.changeLock(ctx, id, func(l backends.Lock) (backends.Lock, error) {
		return l.WithHold(hold), nil
	})
	return wrap(err, "setting the legal hold of", id.Bucket, id.Key)
}

func (s *Store) changeLock(ctx context.Context, id backends.ObjectID, do func(backends.Lock) (backends.Lock, error)) error {
	return s.with(ctx, id.Bucket, func(b *bucket) error {
		if err := b.lockable(); err != nil {
			return err
		}
		_, err := b.change(id, func(a *backends.Attributes) (err error) {
			a.Lock, err = do(a.Lock)
			return err
		})
		return err
	})
}

func (b *bucket) lockable() error {
	if !b.lock.Enabled {
		return backends.ErrNoLock
	}
	return nil
}
