package kms

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Errors of a Registry beside ErrNotFound and ErrUnavailable.
var (
	// ErrConflict: a condition of a transaction did not hold, so nothing was
	// changed. Read again and decide again.
	ErrConflict = errors.New("state was changed meanwhile")
	// ErrCompacted: the history that a watch asked for is gone. Read everything
	// again and watch from there.
	ErrCompacted = errors.New("history was compacted")
)

// Item is one record of the registry as bytes.
type Item struct {
	Key   string
	Value []byte
	// Revision is that of the item's last change. It is above 0 and only grows
	// over the whole registry.
	Revision int64
}

// Condition holds when the item's last change is that of Revision; 0 means that
// there must be no such item.
type Condition struct {
	Key      string
	Revision int64
}

// Transaction is applied as a whole when all its conditions hold, or not at all.
// Each key may be changed once only, and at most MaxTransaction lines fit.
type Transaction struct {
	If           []Condition
	Put          []Item // Revision is not looked at
	Delete       []string
	DeletePrefix []string
}

// MaxTransaction is how many conditions, and how many changes, a Transaction may
// have (etcd's default limit of operations, --max-txn-ops).
const MaxTransaction = 128

// Event is one change: Deleted, or else the item's new value.
type Event struct {
	Item
	Deleted bool
}

// Usage is how full a registry is, in bytes.
type Usage struct {
	// InUse is what its records take, and what they were before until that is compacted.
	InUse int64
	// File is the length of its file, which does not shrink when records are deleted: what
	// is free in it is used again.
	File int64
	// Quota is the length at which the registry takes no changes any more. 0: none is known.
	Quota int64
}

// Registry is where the KMS keeps its state. Package kms/registry has it on etcd.
//
// All methods may run concurrently, also from several processes. Reads see every
// transaction that was acknowledged before they began, by whichever process.
// An acknowledged transaction survives the death of the machine. A registry that
// does not answer is ErrUnavailable, and then a transaction may or may not have
// been applied. The value of a returned Item belongs to the caller.
type Registry interface {
	// Get returns one item or ErrNotFound.
	Get(ctx context.Context, key string) (Item, error)
	// List returns the items whose keys begin with prefix, sorted by key.
	List(ctx context.Context, prefix string) ([]Item, error)
	// Commit applies a transaction, or returns ErrConflict.
	Commit(ctx context.Context, t Transaction) error
	// Revision is that of the newest change to anything, perhaps 0. What is read
	// afterwards is no older, and a Watch after it sees all that comes later.
	Revision(ctx context.Context) (int64, error)
	// Watch calls f for each change after the given revision to a key with the
	// prefix, in order, until ctx ends (whose error it returns), f fails (whose
	// error it returns) or the history is gone (ErrCompacted).
	Watch(ctx context.Context, prefix string, after int64, f func(Event) error) error
	// Usage says how full the registry is; of several members, the fullest. It may be some
	// hundred milliseconds old. It is no call for the path of a request.
	Usage(ctx context.Context) (Usage, error)
	// Check makes the smallest call that shows that the registry serves.
	Check(ctx context.Context) error
}

// absent is the condition that there is no item of this key.
func absent(key string) Condition { return Condition{Key: key} }

// Validate checks what a Registry must refuse: too many lines, a key changed twice.
func (t Transaction) Validate() error {
	changes := len(t.Put) + len(t.Delete) + len(t.DeletePrefix)
	if len(t.If) > MaxTransaction || changes > MaxTransaction {
		return fmt.Errorf("%w: transaction of %d conditions and %d changes", ErrInvalid, len(t.If), changes)
	}
	seen := make(map[string]bool, changes)
	for _, key := range t.changed() {
		if seen[key] || t.deletesPrefixOf(key) {
			return fmt.Errorf("%w: transaction changes %q twice", ErrInvalid, key)
		}
		seen[key] = true
	}
	return nil
}

func (t Transaction) changed() []string {
	keys := slices.Clone(t.Delete)
	for _, item := range t.Put {
		keys = append(keys, item.Key)
	}
	return keys
}

func (t Transaction) deletesPrefixOf(key string) bool {
	return slices.ContainsFunc(t.DeletePrefix, func(prefix string) bool { return strings.HasPrefix(key, prefix) })
}
