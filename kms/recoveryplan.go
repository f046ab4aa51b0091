package kms

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"go.uber.org/zap"
)

// RecoveryReport says what was recovered, or would be.
type RecoveryReport struct {
	Applied bool
	Buckets []BucketReport // as they were named
	// Adopted are KEK versions that the provider holds and the registry did not know,
	// and under which mirrors are.
	Adopted []KeyRef
	// Users says whether the registry has access keys. No mirror has any.
	Users bool
}

// BucketReport is what a Recovery found of one bucket.
type BucketReport struct {
	Name, Store, StoreName, Owner, Space string

	KEK     string
	Profile Profile
	ETag    ETagMode
	Outcome RecoveryOutcome
	New     int // bucket keys that the registry did not have
	Known   int // bucket keys that it had
	Newest  uint64
	Refused []MirrorProblem
	// Missing are epochs before the newest of which there is no key: what was sealed in
	// them stays closed. At most maxMissing are listed. That the newest are missing, no
	// mirror can show.
	Missing      []uint64
	MissingCount uint64
	Warnings     []string
	// Problem is why nothing of the bucket is recovered.
	Problem string
}

// RecoveryOutcome is what becomes of a bucket.
type RecoveryOutcome string

// The outcomes.
const (
	RecoveryMade     RecoveryOutcome = "made"     // the registry did not have it
	RecoveryMerged   RecoveryOutcome = "merged"   // keys that were missing are added
	RecoveryNothing  RecoveryOutcome = "nothing"  // there is nothing to add
	RecoveryConflict RecoveryOutcome = "conflict" // it is left alone: see Problem
)

// MirrorProblem is why a mirror was refused.
type MirrorProblem struct{ Mirror, Problem string }

const maxMissing = 20

// Clean says whether nothing was refused, missing or in conflict.
func (r RecoveryReport) Clean() bool {
	return !slices.ContainsFunc(r.Buckets, func(b BucketReport) bool {
		return b.Outcome == RecoveryConflict || len(b.Refused) > 0 || b.MissingCount > 0
	})
}

// Finish decides about each bucket and, with RecoveryOptions.Apply, records what can
// be. A bucket that cannot does not keep others from it. It may be begun anew after any
// error, and after a crash: what is recorded already is then known.
func (r *Recovery) Finish(ctx context.Context) (RecoveryReport, error) {
	report := RecoveryReport{Applied: r.o.Apply}
	r.refuseTwins()
	if err := r.permit(ctx); err != nil {
		return report, fmt.Errorf("kms: recovering: %w", err)
	}
	for _, b := range r.buckets {
		if err := r.settle(ctx, b); err != nil {
			return report, fmt.Errorf("kms: recovering bucket %q: %w", b.Name, err)
		}
		report.Buckets = append(report.Buckets, b.report)
	}
	report.Adopted = r.adopted()
	keys, err := r.m.AccessKeys(ctx)
	report.Users = len(keys) > 0
	return report, err
}

// permit asks the rules of dual control about keys that were had from recovery copies:
// nothing but the caller's word says what they are, so they come in as a backup does, and
// like one freely where there is nothing yet.
func (r *Recovery) permit(ctx context.Context) error {
	if !r.o.Apply || r.copies == 0 {
		return nil
	}
	items, err := r.m.registry.List(ctx, "")
	if err != nil || !slices.ContainsFunc(items, func(i Item) bool { return decides(i.Key) }) {
		return err
	}
	grant, err := r.m.gate.Permit(ctx, r.o.Change.operation(ActionRestore, RegistryResource,
		map[string]string{"digest": hex.EncodeToString(r.opened.Sum(nil)), "from": "recovery copies"}))
	if err != nil || len(grant.If)+len(grant.Put) == 0 {
		return err
	}
	return r.m.registry.Commit(ctx, Transaction{If: grant.If, Put: grant.Put})
}

// refuseTwins finds the space of each bucket, and refuses those of which two have the
// same: somebody has copied one into the other, and whose it is, no mirror can tell.
func (r *Recovery) refuseTwins() {
	holders := map[string][]*recovering{}
	for _, b := range r.buckets {
		b.chooseSpace()
		if b.report.Space != "" {
			holders[b.report.Space] = append(holders[b.report.Space], b)
		}
	}
	for space, all := range holders {
		for _, b := range all {
			if len(all) > 1 {
				b.conflict("the keys of space %s lie in %d buckets: leave those out that are copies", space, len(all))
			}
		}
	}
}

// chooseSpace refuses mirrors of another space than the bucket's.
func (b *recovering) chooseSpace() {
	spaces := map[string]int{}
	for _, m := range b.good {
		spaces[m.Space]++
	}
	space := b.Space
	if space == "" {
		if len(spaces) > 1 {
			b.conflict("there are keys of %d spaces in it, and only one is its own: name that (%v)", len(spaces), spaces)
			return
		}
		for only := range spaces {
			space = only
		}
	}
	b.report.Space = space
	b.good = slices.DeleteFunc(b.good, func(m Mirror) bool {
		if m.Space == space {
			return false
		}
		problem := fmt.Sprintf("it belongs to space %s: it was swapped", m.Space)
		b.report.Refused = append(b.report.Refused, MirrorProblem{m.ID.String(), problem})
		return true
	})
	slices.SortFunc(b.good, func(x, y Mirror) int { return int(min(max(int64(x.Epoch)-int64(y.Epoch), -1), 1)) })
}

func (b *recovering) conflict(format string, args ...any) {
	b.report.Outcome, b.report.Problem = RecoveryConflict, fmt.Sprintf(format, args...)
}

// settle decides about one bucket and records it.
func (r *Recovery) settle(ctx context.Context, b *recovering) error {
	if b.report.Outcome == RecoveryConflict {
		return nil
	}
	if len(b.good) == 0 {
		b.report.Outcome = RecoveryNothing
		if len(b.report.Refused) > 0 {
			b.conflict("none of its keys could be opened")
		}
		return nil
	}
	p, err := r.plan(ctx, b)
	if err != nil || b.report.Outcome == RecoveryConflict || !r.o.Apply {
		return err
	}
	return r.apply(ctx, b, p)
}

// bucketPlan is what is to be written for a bucket, and what must still hold then.
type bucketPlan struct {
	bucket  stored[Bucket]
	keys    []BucketKey // that the registry does not have
	newest  KeyID       // of all mirrors
	current stored[current]
	is      []Condition
	noted   bool // the bucket's record has a new line
}

// plan compares a bucket with the registry. It writes nothing.
func (r *Recovery) plan(ctx context.Context, b *recovering) (bucketPlan, error) {
	var p bucketPlan
	if err := r.place(ctx, b, &p); err != nil || b.report.Outcome == RecoveryConflict {
		return p, err
	}
	known, err := list[BucketKey](ctx, r.m.registry, bucketKeysPath(b.report.Space))
	if err != nil {
		return p, err
	}
	if p.current, err = readMaybe[current](ctx, r.m.registry, currentPath(b.report.Space)); err != nil {
		return p, err
	}
	if err := r.chooseKEK(ctx, b, &p); err != nil || b.report.Outcome == RecoveryConflict {
		return p, err
	}
	b.compare(&p, records(known))
	return p, nil
}

// chooseKEK finds the KEK that keys from recovery copies are to be under. Nothing is
// adopted for them: what their mirrors name is lost.
func (r *Recovery) chooseKEK(ctx context.Context, b *recovering, p *bucketPlan) error {
	if !b.copied {
		return nil
	}
	name := b.good[len(b.good)-1].KEK // a hint, as all else that the newest mirror says
	switch {
	case p.bucket.exists():
		name = p.bucket.record.KEK
	case b.KEK != "":
		name = b.KEK
	}
	_, err := r.m.wrappingKEK(ctx, name)
	if errors.Is(err, ErrInvalid) && !p.bucket.exists() && b.KEK == "" {
		b.warn("its mirrors name KEK %q, which this KMS has not: it comes under %q", name, r.m.kek)
		name = r.m.kek
		_, err = r.m.wrappingKEK(ctx, name)
	}
	if errors.Is(err, ErrInvalid) {
		b.conflict("its keys cannot be wrapped: %v", err)
		return nil
	}
	b.KEK = name
	return err
}

// wrapAgain wraps keys from recovery copies under the bucket's KEK, and makes the copies
// that are configured.
func (r *Recovery) wrapAgain(ctx context.Context, b *recovering, p *bucketPlan) error {
	for i := range p.keys {
		k := &p.keys[i]
		secret := b.secrets[k.ID]
		if b.copied {
			ref, wrapped, _, err := r.m.wrap(ctx, p.bucket.record.KEK, k.binding(), secret)
			if err != nil {
				return err
			}
			k.KEK, k.KEKVersion, k.Wrapped = ref.Name, ref.Version, wrapped
			r.m.log.Warn("bucket key had from its recovery copy", zap.String("bucket", b.Name), zap.Stringer("bucket_key", k.ID),
				zap.Uint64("epoch", k.Epoch), zap.Stringer("key", ref), zap.String("actor", r.o.Change.actor()))
		}
		var err error
		if k.Recovery, _, err = r.m.copyFor(ctx, *k, secret); err != nil {
			return err
		}
		if b.copied || k.Recovery != nil { // the mirror is to be written anew, and reports tell until it is
			k.Mirrored = false
			k.addStale(k.ref())
		}
	}
	return nil
}

// noteOpened writes into a bucket's history that keys of it came from recovery copies.
func (r *Recovery) noteOpened(b *recovering, p *bucketPlan) {
	if b.copied {
		p.bucket.record.note(fmt.Sprintf("recovered %d keys from recovery copies", len(p.keys)), r.o.Change)
		p.noted = true
	}
}

// place finds the bucket's record in the registry, or makes sure that there is room.
func (r *Recovery) place(ctx context.Context, b *recovering, p *bucketPlan) error {
	space := b.report.Space
	record, err := readMaybe[Bucket](ctx, r.m.registry, bucketPath(b.Name))
	claimed, err2 := readMaybe[claim](ctx, r.m.registry, spacePath(space))
	stands, err3 := readMaybe[claim](ctx, r.m.registry, storePath(b.Store, b.StoreName))
	removed, err4 := readMaybe[Removal](ctx, r.m.registry, removalPath(space))
	last, err5 := readMaybe[lastRemoval](ctx, r.m.registry, lastRemovalPath(b.Name))
	shredded, err6 := readMaybe[Shred](ctx, r.m.registry, shredPath(space))
	if err := errors.Join(err, err2, err3, err4, err5, err6); err != nil {
		return err
	}
	p.bucket, p.is = record, []Condition{record.is, claimed.is, stands.is, removed.is, last.is, shredded.is}
	have := record.record
	switch {
	case shredded.exists():
		b.conflict("the bucket was shredded at %s", shredded.record.Shredded.Format(time.RFC3339))
	case removed.exists():
		b.conflict("the bucket was removed at %s, and its keys were left", removed.record.Removed.Format(time.RFC3339))
	case record.exists() && have.Space != space:
		b.conflict("the registry has a bucket of this name with another space (%s)", have.Space)
	case claimed.exists() && claimed.record.Bucket != b.Name:
		b.conflict("space %s is that of bucket %q", space, claimed.record.Bucket)
	case stands.exists() && stands.record.Bucket != b.Name:
		b.conflict("bucket %q is kept there", stands.record.Bucket)
	case record.exists() && (have.Store != b.Store || have.StoreName != b.StoreName):
		b.conflict("the registry has it in store %q as %q", have.Store, have.StoreName)
	case record.exists() && have.Owner != b.Owner:
		b.conflict("the registry has it as %q's", have.Owner)
	}
	return nil
}

// compare fills the plan and the report.
func (b *recovering) compare(p *bucketPlan, known []BucketKey) {
	have, epochs := map[KeyID]BucketKey{}, map[uint64]bool{}
	for _, k := range known {
		have[k.ID], epochs[k.Epoch] = k, true
	}
	newest := b.good[len(b.good)-1]
	p.newest = newest.ID
	for _, m := range b.good {
		if k, ok := have[m.ID]; ok {
			b.report.Known++
			if k.ref() != m.key().ref() {
				b.warn("the mirror of key %s is under %s, the registry's under %s: it is an old copy", m.ID, m.key().ref(), k.ref())
			}
			continue
		}
		if epochs[m.Epoch] {
			b.warn("epoch %d has several keys", m.Epoch)
		}
		epochs[m.Epoch] = true
		p.keys = append(p.keys, m.key())
	}
	b.report.New, b.report.Newest = len(p.keys), max(newest.Epoch, p.current.record.Epoch)
	if b.report.Outcome = RecoveryMerged; !p.bucket.exists() {
		b.report.Outcome = RecoveryMade
		p.bucket.record = b.record(newest, b.good[0].Created)
		if err := p.bucket.record.validate(); err != nil {
			b.conflict("its mirrors' hints cannot be: %v", err)
		}
		b.hints(newest)
	} else if len(p.keys) == 0 {
		b.report.Outcome = RecoveryNothing
	}
	record := p.bucket.record
	b.report.KEK, b.report.Profile, b.report.ETag = record.KEK, record.Profile, record.ETag
	b.countMissing(epochs)
}

func (b *recovering) warn(format string, args ...any) {
	b.report.Warnings = append(b.report.Warnings, fmt.Sprintf(format, args...))
}

// hints warns of what mirrors say otherwise than the operator or among each other.
func (b *recovering) hints(newest Mirror) {
	if newest.Bucket != b.Name {
		b.warn("its newest mirror calls it %q", newest.Bucket)
	}
	for _, m := range b.good {
		if m.Profile != newest.Profile || m.ETag != newest.ETag || m.Bucket != newest.Bucket {
			b.warn("its mirrors differ in name, profile or ETags: look at them before it is used")
			return
		}
	}
}

func (b *recovering) countMissing(epochs map[uint64]bool) {
	b.report.MissingCount = b.report.Newest - uint64(len(epochs))
	if b.report.MissingCount > math.MaxInt64 { // more keys than epochs
		b.report.MissingCount = 0
	}
	for e := uint64(1); e < b.report.Newest && len(b.report.Missing) < int(min(b.report.MissingCount, maxMissing)); e++ {
		if !epochs[e] {
			b.report.Missing = append(b.report.Missing, e)
		}
	}
}

// apply adopts the KEKs, records the keys, and then the bucket: before that nothing
// sees them. A later run finds what a crash has left.
func (r *Recovery) apply(ctx context.Context, b *recovering, p bucketPlan) error {
	if b.report.Outcome == RecoveryNothing {
		return nil
	}
	r.noteOpened(b, &p)
	err := r.wrapAgain(ctx, b, &p)
	if err == nil {
		err = r.adoptKEKs(ctx, p)
	}
	if err == nil {
		err = r.m.importKeys(ctx, p.keys)
	}
	if err == nil {
		err = r.m.recordRecovered(ctx, p, b.report.Newest)
	}
	switch {
	case err == nil:
		r.m.log.Warn("bucket recovered from its mirrors", zap.String("bucket", b.Name), zap.String("space", b.report.Space),
			zap.Int("keys", len(p.keys)), zap.String("owner", b.Owner), zap.String("actor", r.o.Change.actor()))
		return nil
	case errors.Is(err, ErrUnavailable) || ctx.Err() != nil:
		return err
	default:
		b.conflict("%v", err)
		return nil
	}
}

// adoptKEKs adopts those that the keys of a plan and its bucket need.
func (r *Recovery) adoptKEKs(ctx context.Context, p bucketPlan) error {
	names := map[string]bool{p.bucket.record.KEK: true}
	for _, k := range p.keys {
		names[k.KEK] = true
	}
	for name := range names {
		s, err := r.kek(ctx, name)
		if err != nil {
			return err
		}
		if s.exists() && len(r.adopt[name]) == 0 {
			continue
		}
		o := KEKOptions{Provider: r.o.Provider, Change: r.o.Change}
		if _, err := r.m.AdoptKEK(ctx, name, o, r.adopt[name]...); err != nil {
			return err
		}
	}
	return nil
}

// adopted lists what mirrors named, the registry did not know and the provider has.
func (r *Recovery) adopted() []KeyRef {
	var out []KeyRef
	for _, b := range r.buckets {
		for _, m := range b.good {
			ref := m.key().ref()
			if !b.copied && slices.Contains(r.adopt[ref.Name], ref.Version) && !slices.Contains(out, ref) {
				out = append(out, ref)
			}
		}
	}
	slices.SortFunc(out, func(a, b KeyRef) int { return compareRefs(a, b) })
	return out
}
