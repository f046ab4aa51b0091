package kms

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.uber.org/zap"
)

// OpenKey is a bucket key ready for use.
type OpenKey struct {
	ID       KeyID
	Key      Secret // 32 bytes
	Record   []byte // the mirror's record (mirror.go)
	Mirrored bool   // the mirror has it
	KEK      KeyRef // what it is wrapped under
	// Unwrapped is just before the provider was asked: what is cached from this
	// answer is as old as that, whenever it arrives.
	Unwrapped time.Time
	// Strict: whoever gets the key must use it once and forget it.
	Strict bool
}

// CurrentKey returns the key that a space seals with now. Where there is none, or
// it is older than the epoch period or has sealed enough, a new one is made; when several make one at
// once, the registry's transaction decides whose counts, and all return that one.
func (m *Manager) CurrentKey(ctx context.Context, space string) (OpenKey, error) {
	var open OpenKey
	err := retry(ctx, func() error {
		b, err := m.bucketOf(ctx, space)
		if err != nil {
			return err
		}
		if err := b.record.usable(); err != nil {
			return err
		}
		key, err := m.currentRecord(ctx, b)
		if err != nil {
			return err
		}
		open, err = m.open(ctx, b.record, key)
		return err
	})
	if err != nil {
		return OpenKey{}, fmt.Errorf("kms: current key of space %q: %w", space, err)
	}
	return open, nil
}

// BucketKey returns a key of a space by its id, current or not.
func (m *Manager) BucketKey(ctx context.Context, space string, id KeyID) (OpenKey, error) {
	open, err := m.bucketKey(ctx, space, id)
	if err != nil {
		return OpenKey{}, fmt.Errorf("kms: key %s of space %q: %w", id, space, err)
	}
	return open, nil
}

func (m *Manager) bucketKey(ctx context.Context, space string, id KeyID) (OpenKey, error) {
	b, err := m.bucketOf(ctx, space)
	if err != nil {
		return OpenKey{}, err
	}
	if err := b.record.usable(); err != nil {
		return OpenKey{}, err
	}
	key, err := read[BucketKey](ctx, m.registry, keyPath(space, id))
	if err != nil {
		return OpenKey{}, err
	}
	return m.open(ctx, b.record, key.record)
}

// currentRecord finds the bucket's current key, or makes it.
func (m *Manager) currentRecord(ctx context.Context, b stored[Bucket]) (BucketKey, error) {
	now := time.Now().UTC()
	cur, err := readMaybe[current](ctx, m.registry, currentPath(b.record.Space))
	if err != nil {
		return BucketKey{}, err
	}
	if cur.exists() && !cur.record.due(now, cmp.Or(b.record.EpochPeriod, m.epochPeriod), cmp.Or(b.record.EpochObjects, epochObjects)) {
		key, err := read[BucketKey](ctx, m.registry, keyPath(b.record.Space, cur.record.ID))
		return key.record, err
	}
	return m.makeEpoch(ctx, b, cur, now)
}

// due says whether the key's time is over, or it has sealed enough. One that is from the future was made before
// the wall clock was set back, or by a KMS whose clock is ahead: its age is not known,
// so beyond what clocks may differ by it is over too. A clock set back by less than the
// age lengthens the time by as much, to two periods at most.
func (c current) due(now time.Time, period time.Duration, objects uint64) bool {
	age := now.Sub(c.Created)
	return age >= period || age < -slack(period) || c.Sealed >= objects
}

// makeEpoch makes the key of the next epoch. ErrConflict when another did so
// first, when the bucket was changed or removed, or its KEK blocked.
func (m *Manager) makeEpoch(ctx context.Context, b stored[Bucket], cur stored[current], now time.Time) (BucketKey, error) {
	key := BucketKey{Space: b.record.Space, Epoch: cur.record.Epoch + 1, KEK: b.record.KEK, Created: now}
	_, _ = rand.Read(key.ID[:]) // never fails
	secret, err := m.newSecret(ctx, key.KEK)
	if err != nil {
		return BucketKey{}, err
	}
	ref, wrapped, kekIs, err := m.wrap(ctx, key.KEK, key.binding(), secret)
	if err != nil {
		return BucketKey{}, err
	}
	key.KEKVersion, key.Wrapped = ref.Version, wrapped
	copied, copyIs, err := m.copyFor(ctx, key, secret)
	if err != nil {
		return BucketKey{}, err
	}
	key.Recovery = copied
	record, err := put(keyPath(key.Space, key.ID), key)
	next, err2 := put(cur.is.Key, current{ID: key.ID, Epoch: key.Epoch, Created: key.Created})
	if err := errors.Join(err, err2); err != nil {
		return BucketKey{}, err
	}
	t := Transaction{If: append(copyIs, b.is, cur.is, kekIs, absent(record.Key)), Put: []Item{record, next}}
	if err := m.registry.Commit(ctx, t); err != nil {
		return BucketKey{}, err
	}
	m.log.Info("bucket key created", zap.String("bucket", b.record.Name), zap.Stringer("bucket_key", key.ID),
		zap.Uint64("epoch", key.Epoch), zap.Stringer("key", ref))
	return key, nil
}

// newSecret is 32 bytes of the provider's random XOR as many of the machine's, so
// that one good generator is enough.
func (m *Manager) newSecret(ctx context.Context, kekName string) (Secret, error) {
	kek, err := m.kekRecord(ctx, kekName)
	if err != nil {
		return Secret{}, err
	}
	p, err := m.providerOf(&kek.record, kek.record.Primary)
	if err != nil {
		return Secret{}, err
	}
	var local [32]byte
	_, _ = rand.Read(local[:]) // never fails
	remote, err := p.Random(ctx, len(local))
	if err != nil {
		return Secret{}, fmt.Errorf("asking for random bytes: %w", err)
	}
	if len(remote) != len(local) {
		return Secret{}, fmt.Errorf("%w: asked for %d random bytes, got %d", ErrUnsafe, len(local), len(remote))
	}
	secret := make([]byte, len(local))
	subtle.XORBytes(secret, local[:], remote)
	return NewSecret(secret), nil
}

// open unwraps a bucket key.
func (m *Manager) open(ctx context.Context, b Bucket, key BucketKey) (OpenKey, error) {
	secret, at, err := m.unwrap(ctx, key.ref(), key.binding(), key.Wrapped)
	if err != nil {
		return OpenKey{}, err
	}
	mirror, err := newMirror(b, key).marshal()
	if err != nil {
		return OpenKey{}, err
	}
	return OpenKey{
		ID: key.ID, Key: secret, Record: mirror, Mirrored: key.Mirrored, KEK: key.ref(),
		Unwrapped: at, Strict: b.Profile == Strict,
	}, nil
}

// ConfirmMirror notes that the backend has a record as the mirror of a key. It may be
// said again. Where the key was wrapped anew meanwhile, its mirror is to be written
// once more.
func (m *Manager) ConfirmMirror(ctx context.Context, space string, id KeyID, record []byte) error {
	written, err := ParseMirror(record)
	if err == nil && (written.Space != space || written.ID != id) {
		err = fmt.Errorf("%w: the record is of another key", ErrInvalid)
	}
	if err == nil {
		err = m.editMirrored(ctx, keyPath(space, id), func(k *BucketKey) { k.confirm(written) })
	}
	if err != nil {
		return fmt.Errorf("kms: confirming the mirror of key %s of space %q: %w", id, space, err)
	}
	return nil
}

// UnconfirmMirrors notes that the mirrors of all keys of a space are in doubt, so
// that each is written again before the key next seals.
func (m *Manager) UnconfirmMirrors(ctx context.Context, space string) error {
	if err := m.unconfirmMirrors(ctx, space); err != nil {
		return fmt.Errorf("kms: unconfirming the mirrors of space %q: %w", space, err)
	}
	return nil
}

func (m *Manager) unconfirmMirrors(ctx context.Context, space string) error {
	if _, err := m.bucketOf(ctx, space); err != nil {
		return err
	}
	items, err := m.registry.List(ctx, bucketKeysPath(space))
	if err != nil {
		return err
	}
	for _, item := range items {
		if err := m.editMirrored(ctx, item.Key, func(k *BucketKey) { k.Mirrored = false }); err != nil {
			return err
		}
	}
	return nil
}

// editMirrored has f change what is known of a key's mirror. There is a task for
// gateways where a copy under an old version is to be replaced.
func (m *Manager) editMirrored(ctx context.Context, path string, f func(*BucketKey)) error {
	return retry(ctx, func() error {
		s, err := read[BucketKey](ctx, m.registry, path)
		if err != nil {
			return err
		}
		key := s.record
		key.Stale = slices.Clone(key.Stale)
		f(&key)
		if key.Mirrored == s.record.Mirrored && slices.Equal(key.Stale, s.record.Stale) {
			return nil
		}
		item, err := put(path, key)
		if err != nil {
			return err
		}
		t := Transaction{If: []Condition{s.is}, Put: []Item{item}}
		if len(key.Stale) == 0 {
			t.Delete = []string{mirrorTaskPath(key.Space, key.ID)}
			return m.registry.Commit(ctx, t)
		}
		work, err := put(mirrorTaskPath(key.Space, key.ID), mirrorTask{Space: key.Space, ID: key.ID})
		if err != nil {
			return err
		}
		t.Put = append(t.Put, work)
		return m.registry.Commit(ctx, t)
	})
}
