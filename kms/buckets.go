package kms

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
)

// NewBucket is what a bucket is registered with.
type NewBucket struct {
	Name      string
	Store     string // the backend's name in the gateway's configuration
	StoreName string // the bucket's name there
	Owner     string // principal
	KEK       string // empty means the default KEK
	Profile   Profile
	ETag      ETagMode // empty: ETagBackend; an empty Profile is Standard
	// Settle is called for each bucket that was removed from the same name or place
	// in the store, and returns nil when no gateway can seal for that one any more.
	// nil is for whoever knows that there are none.
	Settle func(context.Context, Removal) error
	// EpochPeriod as in BucketSettings.
	EpochPeriod time.Duration
	// EpochObjects as in BucketSettings.
	EpochObjects uint64
	// Make asks gateways to make it in the store, and to activate it.
	Make bool
	// Ledger gives it the rollback guard from its first object on.
	Ledger bool
	Change Change

	adoption *Adoption // the bucket has objects of its own already
}

// Bucket returns the bucket of this name, whatever its state, or ErrNotFound,
// also for a name that no bucket can have.
func (m *Manager) Bucket(ctx context.Context, name string) (Bucket, error) {
	if checkName("bucket", name) != nil {
		return Bucket{}, fmt.Errorf("kms: finding bucket %q: %w", name, ErrNotFound)
	}
	s, err := read[Bucket](ctx, m.registry, bucketPath(name))
	if err != nil {
		return Bucket{}, fmt.Errorf("kms: finding bucket %q: %w", name, err)
	}
	return s.record, nil
}

// Buckets lists the buckets of a principal by name; an empty owner means all.
func (m *Manager) Buckets(ctx context.Context, owner string) ([]Bucket, error) {
	all, err := list[Bucket](ctx, m.registry, bucketPath(""))
	if err != nil {
		return nil, fmt.Errorf("kms: listing buckets: %w", err)
	}
	var out []Bucket
	for _, s := range all {
		if s.record.Name != canaryBucket && (owner == "" || s.record.Owner == owner) {
			out = append(out, s.record)
		}
	}
	return out, nil
}

// RegisterBucket makes the record of a bucket, in state creating. The space is
// chosen here. ErrExists when the name is taken, together with the bucket that has
// it; and, with no bucket, when another bucket has that bucket of the store. The
// errors of n.Settle are passed on.
func (m *Manager) RegisterBucket(ctx context.Context, n NewBucket) (Bucket, error) {
	var b Bucket
	err := retry(ctx, func() (err error) {
		b, err = m.registerBucket(ctx, n)
		return err
	})
	if err != nil {
		return b, fmt.Errorf("kms: registering bucket %q: %w", n.Name, err)
	}
	return b, nil
}

// registerBucket returns ErrConflict when the name was given and taken away
// meanwhile.
func (m *Manager) registerBucket(ctx context.Context, n NewBucket) (Bucket, error) {
	b, kekIs, err := m.newBucket(ctx, n)
	if err != nil {
		return Bucket{}, err
	}
	if taken, err := m.taken(ctx, n); err != nil {
		return taken, err
	}
	settled, err := m.settled(ctx, n)
	if err != nil {
		return Bucket{}, err
	}
	puts, err := bucketItems(b)
	if err != nil {
		return Bucket{}, err
	}
	t := Transaction{If: []Condition{settled, kekIs}, Put: puts}
	for _, item := range puts {
		t.If = append(t.If, absent(item.Key))
	}
	if n.adoption != nil {
		record, err := put(adoptionPath(b.Name), n.adoption.of(b))
		if err != nil {
			return Bucket{}, err
		}
		t.Put = append(t.Put, record)
	}
	if b.Ledger != nil {
		state, err := ledgerStateItem(b)
		if err != nil {
			return Bucket{}, err
		}
		t.Put = append(t.Put, state)
	}
	if n.Make {
		work, err := put(makeTaskPath(b.Name), claim{Bucket: b.Name})
		if err != nil {
			return Bucket{}, err
		}
		t.Put = append(t.Put, work)
	}
	err = m.registry.Commit(ctx, t)
	if errors.Is(err, ErrConflict) {
		if taken, takenErr := m.taken(ctx, n); takenErr != nil {
			return taken, takenErr
		}
	}
	if err != nil {
		return Bucket{}, err
	}
	return b, nil
}

// newBucket is the record of a bucket, and the condition that its KEK is still one
// that buckets can have.
func (m *Manager) newBucket(ctx context.Context, n NewBucket) (Bucket, Condition, error) {
	b := Bucket{
		Name: n.Name, Store: n.Store, StoreName: n.StoreName, Owner: n.Owner,
		Space: uuid.NewString(), KEK: cmp.Or(n.KEK, m.kek),
		Profile: cmp.Or(n.Profile, Standard), ETag: cmp.Or(n.ETag, ETagBackend),
		State: BucketCreating, Created: time.Now().UTC(), EpochPeriod: n.EpochPeriod, EpochObjects: n.EpochObjects,
	}
	if err := errors.Join(b.validate(), n.Change.validate()); err != nil {
		return Bucket{}, Condition{}, err
	}
	if b.note("registered", n.Change); n.adoption != nil {
		b.Adopting = &Adopting{}
	}
	if n.Ledger {
		b.Ledger = &Ledger{Stage: LedgerOn, Since: b.Created}
	}
	if n.Ledger && n.adoption != nil {
		return Bucket{}, Condition{}, fmt.Errorf("%w: set the rollback guard when the bucket is adopted", ErrInvalid)
	}
	is, err := m.wrappingKEK(ctx, b.KEK)
	return b, is, err
}

// invalidIfNotFound keeps "the KEK is not found" apart from "the bucket is not".
func invalidIfNotFound(err error) error {
	if errors.Is(err, ErrNotFound) {
		return fmt.Errorf("%w: there is none", ErrInvalid)
	}
	return err
}

func (b Bucket) validate() error {
	errs := []error{
		checkName("bucket", b.Name), checkName("store", b.Store), checkStoreName(b.StoreName),
		checkPrincipal(b.Owner), checkName("KEK", b.KEK),
	}
	if b.KEK == CanaryKEK {
		errs = append(errs, fmt.Errorf("%w: KEK %q is for canaries alone", ErrInvalid, b.KEK))
	}
	if b.Profile != Standard && b.Profile != Strict {
		errs = append(errs, fmt.Errorf("%w: profile %q", ErrInvalid, b.Profile))
	}
	if b.EpochPeriod != 0 && (b.EpochPeriod < time.Minute || b.EpochPeriod > maxEpochPeriod) {
		errs = append(errs, fmt.Errorf("%w: epoch period %v: want %v to %v, or 0", ErrInvalid, b.EpochPeriod, time.Minute, maxEpochPeriod))
	}
	if b.EpochObjects != 0 && (b.EpochObjects < minEpochObjects || b.EpochObjects > maxEpochObjects) {
		errs = append(errs, fmt.Errorf("%w: epoch of %d objects: want %d to %d, or 0", ErrInvalid, b.EpochObjects, minEpochObjects, uint64(maxEpochObjects)))
	}
	if b.ETag != ETagBackend && b.ETag != ETagMD5 {
		errs = append(errs, fmt.Errorf("%w: ETag mode %q", ErrInvalid, b.ETag))
	}
	return errors.Join(errs...)
}

// bucketItems are the bucket's record and the two names that it alone may hold.
func bucketItems(b Bucket) ([]Item, error) {
	record, err := put(bucketPath(b.Name), b)
	space, err2 := put(spacePath(b.Space), claim{Bucket: b.Name})
	store, err3 := put(storePath(b.Store, b.StoreName), claim{Bucket: b.Name})
	return []Item{record, space, store}, errors.Join(err, err2, err3)
}

// taken returns ErrExists, and the bucket that has the name, when a bucket cannot be
// registered; nil when it may be.
func (m *Manager) taken(ctx context.Context, n NewBucket) (Bucket, error) {
	s, err := readMaybe[Bucket](ctx, m.registry, bucketPath(n.Name))
	if err != nil {
		return Bucket{}, err
	}
	if s.exists() {
		return s.record, ErrExists
	}
	place, err := readMaybe[claim](ctx, m.registry, storePath(n.Store, n.StoreName))
	if err == nil && place.exists() {
		err = fmt.Errorf("another bucket is kept as %q in store %q: %w", n.StoreName, n.Store, ErrExists)
	}
	return Bucket{}, err
}

// ActivateBucket says that the store has the bucket too. It may be said again.
func (m *Manager) ActivateBucket(ctx context.Context, name string) error {
	err := retry(ctx, func() error {
		s, err := read[Bucket](ctx, m.registry, bucketPath(name))
		if err != nil || s.record.State == BucketActive {
			return err
		}
		if err := s.record.usable(); err != nil {
			return err
		}
		if s.record.Adopting != nil {
			return conflict("it is being adopted")
		}
		s.record.State = BucketActive
		if err := m.keyOfLedger(ctx, &s.record); err != nil {
			return err
		}
		item, err := put(s.is.Key, s.record)
		if err != nil {
			return err
		}
		return m.registry.Commit(ctx, Transaction{If: []Condition{s.is}, Put: []Item{item}, Delete: []string{makeTaskPath(name)}})
	})
	if err != nil {
		return fmt.Errorf("kms: activating bucket %q: %w", name, err)
	}
	return nil
}

// RemoveBucket removes the record of a bucket and its bucket keys, and leaves a
// Removal. What is still sealed under them cannot be opened from then on, but for the
// mirror in the backend. A gateway may hold a key of it until it hears of the Removal.
func (m *Manager) RemoveBucket(ctx context.Context, name string) error {
	return m.removeBucket(ctx, name, func(Bucket) error { return nil })
}

// RefuseBucket is RemoveBucket for one that could not be made in its store. ErrConflict
// when it is active.
func (m *Manager) RefuseBucket(ctx context.Context, name string) error {
	return m.removeBucket(ctx, name, func(b Bucket) error {
		if b.State != BucketCreating {
			return conflict("it was made")
		}
		if b.Adopting != nil {
			return conflict("it is being adopted")
		}
		return nil
	})
}

func (m *Manager) removeBucket(ctx context.Context, name string, may func(Bucket) error) error {
	err := retry(ctx, func() error {
		s, err := read[Bucket](ctx, m.registry, bucketPath(name))
		if err != nil {
			return err
		}
		if err := may(s.record); err != nil {
			return err
		}
		t, err := removal(s)
		if err != nil {
			return err
		}
		return m.registry.Commit(ctx, t)
	})
	if err != nil {
		return fmt.Errorf("kms: removing bucket %q: %w", name, err)
	}
	return nil
}

// removal removes all that there is of a bucket, and leaves a Removal.
func removal(s stored[Bucket]) (Transaction, error) {
	b := s.record
	t := Transaction{
		If:           []Condition{s.is},
		Delete:       []string{s.is.Key, spacePath(b.Space), storePath(b.Store, b.StoreName), currentPath(b.Space), makeTaskPath(b.Name), shredTaskPath(b.Space)},
		DeletePrefix: []string{bucketKeysPath(b.Space), mirrorTasksPath(b.Space)},
	}
	t.dropLedger(b.Space)
	return t, t.tombstone(b)
}

// bucketOf finds the bucket that has a space.
func (m *Manager) bucketOf(ctx context.Context, space string) (stored[Bucket], error) {
	if err := checkSpace(space); err != nil {
		return stored[Bucket]{}, err
	}
	c, err := read[claim](ctx, m.registry, spacePath(space))
	if err != nil {
		return stored[Bucket]{}, err
	}
	s, err := read[Bucket](ctx, m.registry, bucketPath(c.record.Bucket))
	if err == nil && s.record.Space != space {
		err = fmt.Errorf("%w: the bucket was removed", ErrNotFound)
	}
	return s, err
}
