package kms

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"
)

// RestoreOptions say how a Snapshot is put back.
type RestoreOptions struct {
	// Apply writes. Without it nothing is changed: the report says what would be.
	Apply bool
	// Merge allows a registry that has buckets, users, policies or rules already.
	Merge bool
	// AllowMissing goes on without KEK versions that records need and the provider does
	// not have: they are recorded as destroyed.
	AllowMissing bool
	// Digest is what approvers sign. Empty means the snapshot's.
	Digest string
	Change Change
}

// RestoreReport says what was put back, or would be.
type RestoreReport struct {
	Applied bool
	Created time.Time // of the snapshot
	Digest  string
	Kinds   []RestoredKind // by name
	Notes   []string       // what a person should know
}

// RestoredKind counts records of one kind, by the first part of their keys.
type RestoredKind struct {
	Kind  string
	Added int
	Kept  int // the registry has them, and its own stay
	Left  int // not restored: see Notes
}

// Restore adds the records of a snapshot that the registry does not have. What it has
// stays, as it is newer: nothing is blocked, destroyed, disabled or removed there that
// would be taken back. KEKs are merged by version, and where the registry has adopted
// them only, the snapshot's word of what they are counts. The provider must hold the
// primary of each KEK and open what the snapshot has under it. Buckets begin a fresh
// epoch, and gateways ask for everything again.
//
// ErrExists where Merge is needed, ErrNotFound or ErrCorrupt with another token,
// ErrNeeded where AllowMissing is, ErrApproval, ErrInvalid. After ErrConflict or a crash
// it can be said again, with Merge.
func (m *Manager) Restore(ctx context.Context, s Snapshot, o RestoreOptions) (RestoreReport, error) {
	report, err := m.restore(ctx, s, o)
	if err != nil {
		return RestoreReport{}, fmt.Errorf("kms: restoring: %w", err)
	}
	return report, nil
}

func (m *Manager) restore(ctx context.Context, s Snapshot, o RestoreOptions) (RestoreReport, error) {
	if err := errors.Join(o.Change.validate(), s.validate()); err != nil {
		return RestoreReport{}, err
	}
	r, err := m.newRestore(ctx, s, o)
	if err != nil {
		return RestoreReport{}, err
	}
	if r.used && !o.Merge {
		return RestoreReport{}, fmt.Errorf("%w: the registry has buckets, users, policies or rules; it could only be merged with", ErrExists)
	}
	if err := r.plan(ctx); err != nil {
		return RestoreReport{}, err
	}
	report := r.report(s)
	report.Digest = cmp.Or(o.Digest, s.Digest())
	if !o.Apply {
		return report, nil
	}
	return report, r.apply(ctx, report.Digest)
}

// restoration is one Restore.
type restoration struct {
	*Manager
	o       RestoreOptions
	items   map[string]Item // the snapshot's
	present map[string]Item
	used    bool
	left    map[string]bool // keys of the snapshot that are not restored
	puts    []Item          // to be written where the present revision still is
	keks    map[string][]uint32
	notes   []string
}

func (m *Manager) newRestore(ctx context.Context, s Snapshot, o RestoreOptions) (*restoration, error) {
	present, err := m.registry.List(ctx, "")
	if err != nil {
		return nil, err
	}
	r := &restoration{
		Manager: m, o: o, items: map[string]Item{}, present: map[string]Item{}, left: map[string]bool{}, keks: map[string][]uint32{},
	}
	for _, item := range s.Items {
		r.items[item.Key] = item
	}
	for _, item := range present {
		r.present[item.Key] = item
		r.used = r.used || decides(item.Key)
	}
	return r, nil
}

// decides says whether a record is one that somebody made, and not the KMS by itself.
func decides(key string) bool {
	return strings.HasPrefix(key, bucketPath("")) && key != bucketPath(canaryBucket) ||
		strings.HasPrefix(key, accessKeyPath("")) || key == currentPolicyPath || key == rulesPath
}

// Records of package approval, which are restored as a whole or not at all: the rules
// prove how they came to be.
const (
	approvalRoot = "approval/"
	rulesPath    = approvalRoot + "rules"
)

// plan decides about each record.
func (r *restoration) plan(ctx context.Context) error {
	if err := r.leaveBuckets(); err != nil {
		return err
	}
	for _, key := range slices.Sorted(maps.Keys(r.items)) {
		if r.leaves(key) {
			r.left[key] = true
			continue
		}
		if err := r.planItem(ctx, key); err != nil {
			return err
		}
	}
	return nil
}

// leaves says whether a record is not restored for what it is.
func (r *restoration) leaves(key string) bool {
	switch {
	case r.left[key], passing(key), key == revocationPath, key == kekPath(CanaryKEK), key == highestPath(CanaryKEK):
		return true
	case strings.HasPrefix(key, approvalRoot):
		return r.has(rulesPath)
	case key == currentPolicyPath, strings.HasPrefix(key, "policies/"), strings.HasPrefix(key, "policytexts/"):
		return r.has(currentPolicyPath)
	}
	return false
}

func (r *restoration) has(key string) bool { _, ok := r.present[key]; return ok }

// planItem adds what is to be written of one record.
func (r *restoration) planItem(ctx context.Context, key string) error {
	item := r.items[key]
	switch {
	case strings.HasPrefix(key, kekPath("")):
		return r.planKEK(ctx, item)
	case strings.HasPrefix(key, highestPath("")):
		return larger(r, item, func(a, b highest) bool { return a.Version > b.Version })
	case key == clockPath:
		return larger(r, item, func(a, b keeperClock) bool { return a.Elapsed > b.Elapsed })
	case strings.HasPrefix(key, approvalRoot):
		r.puts = append(r.puts, item)
	case r.has(key):
	case strings.HasPrefix(key, currentPath("")):
		s, err := decode[current](item)
		if err != nil {
			return err
		}
		s.record.Created = time.Time{} // the next write begins an epoch
		fresh, err := put(key, s.record)
		r.puts = append(r.puts, fresh)
		return err
	default:
		r.puts = append(r.puts, item)
	}
	return nil
}

// larger writes the snapshot's record where it says more than the registry's.
func larger[T any](r *restoration, item Item, more func(a, b T) bool) error {
	theirs, err := decode[T](item)
	if err != nil {
		return err
	}
	if own, ok := r.present[item.Key]; ok {
		ours, err := decode[T](own)
		if err != nil || !more(theirs.record, ours.record) {
			return err
		}
	}
	r.puts = append(r.puts, item)
	return nil
}

// leaveBuckets finds the buckets that cannot come back, with all that is theirs.
func (r *restoration) leaveBuckets() error {
	for key, item := range r.items {
		if !strings.HasPrefix(key, bucketPath("")) {
			continue
		}
		s, err := decode[Bucket](item)
		if err != nil {
			return err
		}
		b := s.record
		why, err := r.bucketStands(b)
		if err != nil {
			return err
		}
		if why == "" {
			continue
		}
		if b.Name != canaryBucket {
			r.notes = append(r.notes, fmt.Sprintf("bucket %q is not restored: %s", b.Name, why))
		}
		for other := range r.items {
			if other == key || other == storePath(b.Store, b.StoreName) || strings.Contains(other, b.Space) {
				r.left[other] = true
			}
		}
	}
	return nil
}

// bucketStands says why a bucket cannot come back.
func (r *restoration) bucketStands(b Bucket) (string, error) {
	if b.Name == canaryBucket {
		return "canaries make their own", nil
	}
	if r.has(removalPath(b.Space)) {
		return "it was removed since", nil
	}
	if r.has(shredPath(b.Space)) {
		return "it was shredded", nil
	}
	if own, ok := r.present[bucketPath(b.Name)]; ok {
		s, err := decode[Bucket](own)
		if err != nil || s.record.Space == b.Space {
			return "", err
		}
		return "it was made anew since", nil
	}
	for _, path := range []string{spacePath(b.Space), storePath(b.Store, b.StoreName)} {
		if own, ok := r.present[path]; ok {
			s, err := decode[claim](own)
			if err != nil {
				return "", err
			}
			return fmt.Sprintf("bucket %q has its place", s.record.Bucket), nil
		}
	}
	return "", nil
}

// apply writes the plan: rules and KEKs first, then what is under them, then what can be
// seen; access keys come last.
func (r *restoration) apply(ctx context.Context, digest string) error {
	slices.SortFunc(r.puts, func(a, b Item) int {
		return cmp.Or(cmp.Compare(restoreRank(a.Key), restoreRank(b.Key)), cmp.Compare(a.Key, b.Key))
	})
	var t Transaction
	if r.used {
		grant, err := r.gate.Permit(ctx, r.o.Change.operation(ActionRestore, RegistryResource, map[string]string{"digest": digest}))
		if err != nil {
			return err
		}
		t.If, t.Put = grant.If, grant.Put
	}
	first := slices.IndexFunc(r.puts, func(i Item) bool { return restoreRank(i.Key) >= restoreRank(bucketKeysRoot) })
	if first < 0 {
		first = len(r.puts)
	}
	if err := r.commitAll(ctx, t, r.puts[:first]); err != nil {
		return err
	}
	if err := r.commitAll(ctx, Transaction{}, r.puts[first:]); err != nil {
		return err
	}
	for name, versions := range r.keks {
		if _, err := r.AdoptKEK(ctx, name, KEKOptions{Change: r.o.Change}, versions...); err != nil {
			return err
		}
	}
	r.log.Warn("the registry was restored from a snapshot", zap.String("digest", digest), zap.Int("records", len(r.puts)),
		zap.String("actor", r.o.Change.actor()))
	return retry(ctx, func() error {
		var t Transaction
		if err := r.leap(ctx, &t); err != nil {
			return err
		}
		return r.registry.Commit(ctx, t)
	})
}

// Bounds of a transaction of a restoration, under etcd's of 1.5 MB.
const (
	restoreBatch = MaxTransaction - 32 // a Grant has room too
	restoreBytes = 1 << 20
)

func (r *restoration) commitAll(ctx context.Context, t Transaction, puts []Item) error {
	size, held := 0, map[string]bool{}
	for _, item := range puts {
		if len(t.If) >= restoreBatch || len(t.Put) >= restoreBatch || len(t.Put) > 0 && size+len(item.Value) > restoreBytes {
			if err := r.registry.Commit(ctx, t); err != nil {
				return err
			}
			t, size = Transaction{}, 0
			clear(held)
		}
		is, err := r.kekOf(ctx, item)
		if err != nil {
			return err
		}
		if is.Key != "" && !held[is.Key] {
			held[is.Key] = true
			t.If = append(t.If, is)
		}
		t.If = append(t.If, Condition{Key: item.Key, Revision: r.present[item.Key].Revision})
		t.Put = append(t.Put, item)
		size += len(item.Value)
	}
	if len(t.Put) == 0 {
		return nil
	}
	return r.registry.Commit(ctx, t)
}

// kekOf is the condition that the KEK of a wrapped record has not changed, so that
// nothing is put under a version whose destruction begins. Its own record was written
// by an earlier transaction, as wrapped records are never in one with it.
func (r *restoration) kekOf(ctx context.Context, item Item) (Condition, error) {
	if !strings.HasPrefix(item.Key, bucketKeysRoot) && !strings.HasPrefix(item.Key, accessKeyPath("")) {
		return Condition{}, nil
	}
	ref, _, _, err := sealedRecord(item)
	if err != nil {
		return Condition{}, err
	}
	s, err := r.kekRecord(ctx, ref.Name)
	if err != nil {
		return Condition{}, fmt.Errorf("record %q: %w", item.Key, err)
	}
	if v := s.record.Version(ref.Version); v != nil && v.Destruction != nil {
		return Condition{}, fmt.Errorf("%w: record %q is under %s, which is to be destroyed: take that back first", ErrDisabled, item.Key, ref)
	}
	return s.is, nil
}

// restoreRank orders records; what is not listed comes in the place of the empty name.
func restoreRank(key string) int {
	order := []string{"approval", "policytexts", "policies", "policy", "keks", "kekhighest", "bucketkeys", "", "buckets", "accesskeys"}
	root, _, _ := strings.Cut(key, "/")
	if i := slices.Index(order, root); i >= 0 {
		return i
	}
	return slices.Index(order, "")
}

// report counts.
func (r *restoration) report(s Snapshot) RestoreReport {
	kinds := map[string]*RestoredKind{}
	written := map[string]bool{}
	for _, item := range r.puts {
		written[item.Key] = true
	}
	for key := range r.items {
		name, _, _ := strings.Cut(key, "/")
		k := kinds[name]
		if k == nil {
			k = &RestoredKind{Kind: name}
			kinds[name] = k
		}
		switch {
		case written[key]:
			k.Added++
		case r.left[key]:
			k.Left++
		default:
			k.Kept++
		}
	}
	out := RestoreReport{Applied: r.o.Apply, Created: s.Created, Notes: r.notes}
	for _, name := range slices.Sorted(maps.Keys(kinds)) {
		out.Kinds = append(out.Kinds, *kinds[name])
	}
	slices.Sort(out.Notes)
	out.Notes = append(out.Notes, "whoever was disabled, removed or blocked after "+s.Created.Format(time.RFC3339)+
		", and is not in the registry now, is as before: go through access keys, KEKs and buckets")
	return out
}
