package kms

import (
	"context"
	"errors"
	"fmt"
)

// MoveBucket says that a bucket lies in another place from now on; gateways look there
// at once. Its objects must have been copied. The records of its keys are written there
// anew. ErrNotFound, ErrInvalid, ErrExists when another bucket has that place, ErrDisabled
// for one that was shredded, ErrConflict while it is being made or adopted.
func (m *Manager) MoveBucket(ctx context.Context, name, store, storeName string, by Change) (Bucket, error) {
	b, err := m.editBucket(ctx, name, by, func(b *Bucket, t *Transaction) (bool, error) {
		if err := errors.Join(b.usable(), checkName("store", store), checkStoreName(storeName)); err != nil {
			return false, err
		}
		if b.State != BucketActive {
			return false, conflict("it is %s", b.State)
		}
		if b.Store == store && b.StoreName == storeName {
			return false, nil
		}
		place, err := readMaybe[claim](ctx, m.registry, storePath(store, storeName))
		if err != nil {
			return false, err
		}
		if place.exists() {
			return false, fmt.Errorf("another bucket is kept as %q in store %q: %w", storeName, store, ErrExists)
		}
		item, err := put(place.is.Key, claim{Bucket: name})
		t.If, t.Put = append(t.If, place.is), append(t.Put, item)
		t.Delete = append(t.Delete, storePath(b.Store, b.StoreName))
		b.note(fmt.Sprintf("moved from %s/%s to %s/%s", b.Store, b.StoreName, store, storeName), by)
		b.Store, b.StoreName = store, storeName
		return true, err
	})
	if err == nil {
		err = m.mirrorAgain(ctx, b.Space)
	}
	if err != nil {
		return Bucket{}, fmt.Errorf("kms: moving bucket %q: %w", name, err)
	}
	return b, nil
}

// mirrorAgain asks gateways to write the mirrors of all keys of a space: also of those
// that seal nothing any more.
func (m *Manager) mirrorAgain(ctx context.Context, space string) error {
	items, err := m.registry.List(ctx, bucketKeysPath(space))
	if err != nil {
		return err
	}
	for _, item := range items {
		err := m.editMirrored(ctx, item.Key, func(k *BucketKey) {
			k.Mirrored = false
			k.addStale(k.ref()) // what makes it a task, until it is confirmed
		})
		if err != nil {
			return err
		}
	}
	return nil
}
