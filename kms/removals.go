package kms

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Removal is the tombstone of a bucket. A gateway may still have the record of the
// bucket and a key of its space; a bucket that took the name or the place in the
// store meanwhile would get objects that nobody can open.
type Removal struct {
	Bucket    string `json:"bucket"`
	Space     string `json:"space"`
	Store     string `json:"store"`
	StoreName string `json:"store_name"`
	// Removed is for people. No clock is compared with it.
	Removed time.Time `json:"removed"`
}

// concerns says whether a new bucket would stand in the removed one's place.
func (r Removal) concerns(n NewBucket) bool {
	return r.Bucket == n.Name || r.Store == n.Store && r.StoreName == n.StoreName
}

// lastRemoval is changed by each removal of a bucket of that name, so that who
// registers the name notices one that comes between.
type lastRemoval struct {
	Space string `json:"space"`
}

// Removals lists the buckets that were removed and not forgotten yet.
func (m *Manager) Removals(ctx context.Context) ([]Removal, error) {
	all, err := list[Removal](ctx, m.registry, removalPath(""))
	if err != nil {
		return nil, fmt.Errorf("kms: listing removed buckets: %w", err)
	}
	return records(all), nil
}

// ForgetRemoval ends the memory of a removal. Call it when no gateway can have a key
// of its space any more. It may be said again.
func (m *Manager) ForgetRemoval(ctx context.Context, r Removal) error {
	err := retry(ctx, func() error {
		last, err := readMaybe[lastRemoval](ctx, m.registry, lastRemovalPath(r.Bucket))
		if err != nil {
			return err
		}
		t := Transaction{Delete: []string{removalPath(r.Space)}}
		if last.record.Space == r.Space {
			t.If = append(t.If, last.is)
			t.Delete = append(t.Delete, last.is.Key)
		}
		return m.registry.Commit(ctx, t)
	})
	if err != nil {
		return fmt.Errorf("kms: forgetting the removal of bucket %q: %w", r.Bucket, err)
	}
	return nil
}

// tombstone adds the memory of a bucket to the transaction that removes it.
func (t *Transaction) tombstone(b Bucket) error {
	removal, err := put(removalPath(b.Space), Removal{
		Bucket: b.Name, Space: b.Space, Store: b.Store, StoreName: b.StoreName, Removed: time.Now().UTC(),
	})
	last, err2 := put(lastRemovalPath(b.Name), lastRemoval{Space: b.Space})
	t.Put = append(t.Put, removal, last)
	return errors.Join(err, err2)
}

// settled has a new bucket wait for those that it follows. The condition is that no
// other of its name was removed since.
func (m *Manager) settled(ctx context.Context, n NewBucket) (Condition, error) {
	last, err := readMaybe[lastRemoval](ctx, m.registry, lastRemovalPath(n.Name))
	if err != nil || n.Settle == nil {
		return last.is, err
	}
	all, err := m.Removals(ctx)
	if err != nil {
		return last.is, err
	}
	for _, r := range all {
		if !r.concerns(n) {
			continue
		}
		if err := n.Settle(ctx, r); err != nil {
			return last.is, fmt.Errorf("waiting for gateways to let go of a removed bucket: %w", err)
		}
	}
	return last.is, nil
}

// Exclusive says whether no other process can share the registry.
func (m *Manager) Exclusive() bool {
	r, ok := m.registry.(interface{ Exclusive() bool })
	return ok && r.Exclusive()
}
