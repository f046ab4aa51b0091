package kms

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"go.uber.org/zap"
)

// BucketSettings are what SetBucket changes; nil leaves a setting as it is. Its ETag
// mode is none of them: objects that are there would change their ETags.
type BucketSettings struct {
	// KEK wraps the bucket's next keys. Those it has are moved by a job for the KEK
	// before (StartRewrap); objects stay as they are.
	KEK *string
	// Profile Strict holds for what is asked from then on; gateways forget the keys
	// that they have.
	Profile *Profile
	Owner   *string
	// EpochPeriod is the age at which a bucket key is replaced for new objects: a
	// minute to 10 years, 0 for the KMS's own.
	EpochPeriod *time.Duration
	// EpochObjects is the number of objects after which a bucket key is replaced for new
	// ones, about (Manager.Sealed): 1000 to 2^32, 0 for 2^20.
	EpochObjects *uint64
	// Ledger is the rollback guard.
	Ledger *LedgerSetting
}

// maxEpochPeriod is the longest time for which one key seals.
const maxEpochPeriod = 10 * 365 * 24 * time.Hour

// An epoch's number of objects: the default, and what may be asked for. Each object's
// envelope is a message under its bucket key, with a key of its own derived by a random
// salt (FORMAT.md): 2^32 of them are far from where salts would meet.
const (
	epochObjects    = 1 << 20
	minEpochObjects = 1000
	maxEpochObjects = 1 << 32
)

// SetBucket changes settings of a bucket. Gateways learn of it at once. ErrNotFound,
// ErrInvalid, ErrDisabled for one that was shredded.
func (m *Manager) SetBucket(ctx context.Context, name string, s BucketSettings, by Change) (Bucket, error) {
	b, err := m.editBucket(ctx, name, by, func(b *Bucket, t *Transaction) (bool, error) {
		if err := b.usable(); err != nil {
			return false, err
		}
		if s.KEK != nil && *s.KEK != b.KEK {
			is, err := m.wrappingKEK(ctx, *s.KEK)
			if err != nil {
				return false, err
			}
			t.If = append(t.If, is)
		}
		changed := s.apply(b, by)
		if s.Ledger != nil {
			set, err := m.setLedger(ctx, b, *s.Ledger, t, by)
			if err != nil {
				return false, err
			}
			changed = changed || set
		}
		return changed, b.validate()
	})
	if err != nil {
		return Bucket{}, fmt.Errorf("kms: setting bucket %q: %w", name, err)
	}
	return b, nil
}

// apply writes the settings that differ, each with a line of history.
func (s BucketSettings) apply(b *Bucket, by Change) (changed bool) {
	note := func(event string) {
		b.note(event, by)
		changed = true
	}
	if s.KEK != nil && *s.KEK != b.KEK {
		b.KEK = *s.KEK
		note("kek is " + b.KEK)
	}
	if s.Profile != nil && *s.Profile != b.Profile {
		b.Profile = *s.Profile
		note("profile is " + string(b.Profile))
	}
	if s.Owner != nil && *s.Owner != b.Owner {
		b.Owner = *s.Owner
		note("owner is " + b.Owner)
	}
	if s.EpochPeriod != nil && *s.EpochPeriod != b.EpochPeriod {
		b.EpochPeriod = *s.EpochPeriod
		note("epoch period is " + b.EpochPeriod.String())
	}
	if s.EpochObjects != nil && *s.EpochObjects != b.EpochObjects {
		b.EpochObjects = *s.EpochObjects
		note("epoch objects are " + strconv.FormatUint(b.EpochObjects, 10))
	}
	return changed
}

// wrappingKEK is the condition that a KEK is one that buckets can have.
func (m *Manager) wrappingKEK(ctx context.Context, name string) (Condition, error) {
	if err := checkName("KEK", name); err != nil {
		return Condition{}, err
	}
	if name == m.recovery.KEK {
		return Condition{}, fmt.Errorf("%w: KEK %q is for recovery alone", ErrInvalid, name)
	}
	kek, err := read[KEK](ctx, m.registry, kekPath(name))
	if err != nil {
		return Condition{}, fmt.Errorf("KEK %q: %w", name, invalidIfNotFound(err))
	}
	if kek.record.retired() {
		return Condition{}, fmt.Errorf("%w: KEK %q is %s", ErrInvalid, name, kek.record.Status())
	}
	return kek.is, nil
}

// RotateBucket ends the use of a bucket's current key for what is written from now on:
// the next write makes another. What was sealed under it opens as before.
func (m *Manager) RotateBucket(ctx context.Context, name string, by Change) (Bucket, error) {
	b, err := m.editBucket(ctx, name, by, func(b *Bucket, t *Transaction) (bool, error) {
		if err := b.usable(); err != nil {
			return false, err
		}
		cur, err := readMaybe[current](ctx, m.registry, currentPath(b.Space))
		if err != nil || !cur.exists() {
			return false, err // its first key will be a new one
		}
		cur.record.Created = time.Time{} // older than any period
		item, err := put(cur.is.Key, cur.record)
		t.If, t.Put = append(t.If, cur.is), append(t.Put, item)
		b.note("key rotated", by)
		return true, err
	})
	if err != nil {
		return Bucket{}, fmt.Errorf("kms: rotating the key of bucket %q: %w", name, err)
	}
	return b, nil
}

// editBucket has f change a bucket, records it, and tells gateways.
func (m *Manager) editBucket(ctx context.Context, name string, by Change, f func(*Bucket, *Transaction) (changed bool, err error)) (Bucket, error) {
	if err := errors.Join(checkName("bucket", name), by.validate()); err != nil {
		return Bucket{}, err
	}
	var b Bucket
	err := retry(ctx, func() error {
		s, err := read[Bucket](ctx, m.registry, bucketPath(name))
		if errors.Is(err, ErrNotFound) {
			err = ErrNotFound // where it was looked for helps nobody
		}
		if err != nil {
			return err
		}
		b = s.record
		t := Transaction{If: []Condition{s.is}}
		changed, err := f(&b, &t)
		if err != nil || !changed {
			return err
		}
		item, err := put(s.is.Key, b)
		if err != nil {
			return err
		}
		t.Put = append(t.Put, item)
		if err := m.revoke(ctx, &t); err != nil {
			return err
		}
		return m.registry.Commit(ctx, t)
	})
	if err != nil {
		return Bucket{}, err
	}
	m.log.Info("bucket changed", zap.String("bucket", name), zap.String("actor", by.actor()), zap.String("reason", by.Reason))
	return b, nil
}

// note writes a line of history.
func (b *Bucket) note(event string, by Change) {
	b.History = remember(b.History, StateChange{Event: event, At: time.Now().UTC(), Actor: by.actor(), Reason: by.Reason})
}

// BucketKeys lists the keys of a bucket, wrapped, oldest epoch first.
func (m *Manager) BucketKeys(ctx context.Context, name string) ([]BucketKey, error) {
	b, err := m.Bucket(ctx, name)
	if err != nil {
		return nil, err
	}
	all, err := list[BucketKey](ctx, m.registry, bucketKeysPath(b.Space))
	if err != nil {
		return nil, fmt.Errorf("kms: listing the keys of bucket %q: %w", name, err)
	}
	keys := records(all)
	slices.SortFunc(keys, func(a, b BucketKey) int { return cmp.Compare(a.Epoch, b.Epoch) })
	return keys, nil
}
