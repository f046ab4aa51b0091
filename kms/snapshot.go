package kms

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Snapshot is the registry as it was at one revision. Secrets in it are wrapped.
type Snapshot struct {
	Created  time.Time
	Revision int64  // of the newest record in it
	Items    []Item // by key; Revision of each is not kept
}

// passing says whether a record is about processes that run now, or their work, and so
// belongs into no snapshot. Ledgers belong into none as an old one would call what was
// written since forged: a bucket that is restored must learn anew (LedgerLost).
func passing(key string) bool {
	return key == canaryPath || slices.ContainsFunc([]string{replicaPath(""), "jobs/", removalPath(""), lastRemovalPath(""), ledgerRoot, ledgerStateRoot, ledgerScanRoot}, func(prefix string) bool {
		return strings.HasPrefix(key, prefix)
	})
}

// Snapshot reads the whole registry at one revision.
func (m *Manager) Snapshot(ctx context.Context) (Snapshot, error) {
	created := time.Now().UTC()
	items, err := m.registry.List(ctx, "")
	if err != nil {
		return Snapshot{}, fmt.Errorf("kms: taking a snapshot: %w", err)
	}
	s := Snapshot{Created: created}
	for _, item := range items {
		s.Revision = max(s.Revision, item.Revision)
		if !passing(item.Key) {
			s.Items = append(s.Items, Item{Key: item.Key, Value: item.Value})
		}
	}
	return s, nil
}

// Digest is SHA-256 over the items, in hex: of each the key and the value, with their
// lengths before them in 8 bytes.
func (s Snapshot) Digest() string {
	h := sha256.New()
	for _, item := range s.Items {
		for _, part := range [][]byte{[]byte(item.Key), item.Value} {
			var length [8]byte
			binary.BigEndian.PutUint64(length[:], uint64(len(part)))
			h.Write(length[:])
			h.Write(part)
		}
	}
	return hex.EncodeToString(h.Sum(nil))
}

// validate checks that the items are records of this schema, in order.
func (s Snapshot) validate() error {
	last := ""
	for _, item := range s.Items {
		if item.Key <= last {
			return fmt.Errorf("%w: record %q comes after %q", ErrInvalid, item.Key, last)
		}
		last = item.Key
		if _, err := decode[any](item); err != nil {
			return fmt.Errorf("%w: %w", ErrInvalid, err)
		}
	}
	return nil
}
