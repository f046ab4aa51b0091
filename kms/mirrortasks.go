package kms

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
)

// mirrorTask asks gateways to write the mirror of a key: it was wrapped anew, and may
// never be used to seal again. It goes with the confirmation.
type mirrorTask struct {
	Space string `json:"space"`
	ID    KeyID  `json:"id"`
}

const mirrorTasksRoot = "tasks/mirror/"

func mirrorTasksPath(space string) string          { return mirrorTasksRoot + space + "/" }
func mirrorTaskPath(space string, id KeyID) string { return mirrorTasksPath(space) + id.String() }

// makeTaskPath is where gateways are asked to make a bucket; the record is a claim.
func makeTaskPath(bucket string) string { return "tasks/make/" + bucket }

// UnmadeBuckets lists buckets that gateways are asked to make in their stores.
func (m *Manager) UnmadeBuckets(ctx context.Context) ([]Bucket, error) {
	tasks, err := list[claim](ctx, m.registry, makeTaskPath(""))
	if err != nil {
		return nil, fmt.Errorf("kms: listing buckets to be made: %w", err)
	}
	var out []Bucket
	for _, s := range tasks {
		b, err := m.Bucket(ctx, s.record.Bucket)
		if errors.Is(err, ErrNotFound) {
			continue // it was removed just now
		}
		if err != nil {
			return nil, err
		}
		out = append(out, b)
	}
	return out, nil
}

// Unmirrored is a key whose mirror a gateway should write.
type Unmirrored struct {
	Bucket Bucket
	ID     KeyID
	Record []byte // the mirror's bytes, to be given to ConfirmMirror
}

// UnmirroredKeys lists keys that were wrapped anew and not mirrored since, at most
// limit of them.
func (m *Manager) UnmirroredKeys(ctx context.Context, limit int) ([]Unmirrored, error) {
	tasks, err := list[mirrorTask](ctx, m.registry, mirrorTasksRoot)
	if err != nil {
		return nil, fmt.Errorf("kms: listing mirrors to be written: %w", err)
	}
	var out []Unmirrored
	for _, s := range tasks[:min(limit, len(tasks))] {
		u, err := m.unmirrored(ctx, s.record)
		if errors.Is(err, ErrNotFound) {
			err = m.registry.Commit(ctx, Transaction{If: []Condition{s.is}, Delete: []string{s.is.Key}})
			if err == nil || errors.Is(err, ErrConflict) {
				continue // the bucket was removed
			}
		}
		if err != nil {
			return nil, fmt.Errorf("kms: looking up a mirror to be written: %w", err)
		}
		out = append(out, u)
	}
	return out, nil
}

func (m *Manager) unmirrored(ctx context.Context, task mirrorTask) (Unmirrored, error) {
	b, err := m.bucketOf(ctx, task.Space)
	if err != nil {
		return Unmirrored{}, err
	}
	key, err := read[BucketKey](ctx, m.registry, keyPath(task.Space, task.ID))
	if err != nil {
		return Unmirrored{}, err
	}
	record, err := newMirror(b.record, key.record).marshal()
	return Unmirrored{Bucket: b.record, ID: task.ID, Record: record}, err
}

// addStale notes that the backend may have a copy under another version; nothing for none.
func (k *BucketKey) addStale(ref KeyRef) {
	if ref != (KeyRef{}) && !slices.Contains(k.Stale, ref) {
		k.Stale = append(k.Stale, ref)
	}
}

// confirm notes what a gateway wrote into the backend. A record that is not the
// present one may have been written over it: then it has to be written again.
func (k *BucketKey) confirm(written Mirror) {
	if bytes.Equal(written.Wrapped, k.Wrapped) && written.KEK == k.KEK && written.KEKVersion == k.KEKVersion && written.Recovery.equal(k.Recovery) {
		k.Mirrored, k.Stale = true, nil
		return
	}
	k.Mirrored = false
	k.addStale(KeyRef{Name: written.KEK, Version: written.KEKVersion})
	k.addStale(written.Recovery.ref())
}
