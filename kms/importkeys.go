package kms

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// importBatch is how many bucket keys one transaction takes: each has a condition, one of
// its KEK, and perhaps a task; all together may have one of the recovery KEK.
const importBatch = MaxTransaction/2 - 1

// importKeys records bucket keys that the registry does not have, each only while its
// KEK version may unwrap.
func (m *Manager) importKeys(ctx context.Context, keys []BucketKey) error {
	for batch := range slices.Chunk(keys, importBatch) {
		if err := retry(ctx, func() error { return m.importBatch(ctx, batch) }); err != nil {
			return err
		}
	}
	return nil
}

func (m *Manager) importBatch(ctx context.Context, keys []BucketKey) error {
	var t Transaction
	seen := map[string]stored[KEK]{}
	for _, k := range keys {
		if err := m.holdOn(ctx, &t, seen, k.ref(), k.Recovery.ref()); err != nil {
			return err
		}
		old, err := readMaybe[BucketKey](ctx, m.registry, keyPath(k.Space, k.ID))
		if err != nil {
			return err
		}
		if old.exists() {
			continue
		}
		item, err := put(old.is.Key, k)
		if err != nil {
			return err
		}
		t.If = append(t.If, old.is)
		t.Put = append(t.Put, item)
		if !k.Mirrored {
			work, err := put(mirrorTaskPath(k.Space, k.ID), mirrorTask{Space: k.Space, ID: k.ID})
			if err != nil {
				return err
			}
			t.Put = append(t.Put, work)
		}
	}
	if len(t.Put) == 0 {
		return nil
	}
	return m.registry.Commit(ctx, t)
}

// holdOn makes a transaction depend on KEK versions that may unwrap; on each KEK's record
// once. The zero ref is none.
func (m *Manager) holdOn(ctx context.Context, t *Transaction, seen map[string]stored[KEK], refs ...KeyRef) error {
	for _, ref := range refs {
		if ref == (KeyRef{}) {
			continue
		}
		kek, ok := seen[ref.Name]
		if !ok {
			var err error
			if kek, err = m.kekRecord(ctx, ref.Name); err != nil {
				return err
			}
			seen[ref.Name] = kek
			t.If = append(t.If, kek.is)
		}
		if err := kek.record.mayUnwrap(ref.Version); err != nil {
			return err
		}
	}
	return nil
}

// recordRecovered records a bucket whose keys are recorded, and has the next write begin
// an epoch after the newest: what else there was under that one's key, nobody knows.
func (m *Manager) recordRecovered(ctx context.Context, p bucketPlan, newest uint64) error {
	t := Transaction{If: append(p.is, p.current.is)}
	switch {
	case !p.bucket.exists():
		items, err := bucketItems(p.bucket.record)
		if err != nil {
			return err
		}
		t.Put = items
	case p.noted:
		item, err := put(p.bucket.is.Key, p.bucket.record)
		if err != nil {
			return err
		}
		t.Put = []Item{item}
	}
	item, err := put(currentPath(p.bucket.record.Space), current{ID: p.newestKey(newest), Epoch: newest})
	if err != nil {
		return err
	}
	t.Put = append(t.Put, item)
	if err := m.leap(ctx, &t); err != nil {
		return err
	}
	err = m.registry.Commit(ctx, t)
	if errors.Is(err, ErrConflict) {
		return fmt.Errorf("%w: say it again", err)
	}
	return err
}

// newestKey is the key of the newest epoch; where the registry's own is as new, that.
func (p bucketPlan) newestKey(newest uint64) KeyID {
	if p.current.record.Epoch == newest {
		return p.current.record.ID
	}
	return p.newest
}

// leap adds a growth of the revocation epoch to a transaction that takes it above any
// that a lost registry may have had: as it grows by one a change, that is the time in
// milliseconds. Gateways then ask for everything again.
func (m *Manager) leap(ctx context.Context, t *Transaction) error {
	s, err := readMaybe[revocation](ctx, m.registry, revocationPath)
	if err != nil {
		return err
	}
	next := max(s.record.Epoch+1, uint64(max(time.Now().UnixMilli(), 0)))
	item, err := put(revocationPath, revocation{Epoch: next, Narrow: s.record.Narrow})
	t.If = append(t.If, s.is)
	t.Put = append(t.Put, item)
	return err
}

func compareRefs(a, b KeyRef) int {
	return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Version, b.Version))
}
