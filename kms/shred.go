package kms

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"
)

// Shred is the record of a bucket that was shredded. It stays when the bucket is
// removed: no recovery brings keys of its space back.
type Shred struct {
	ShredStatement
	// State says how far it has come. The keys are gone in either.
	State ShredState `json:"state"`
	// Problem is why the last sweep of the backend failed.
	Problem string `json:"problem,omitempty"`
	// Signed is the statement of the last sweep that succeeded.
	Signed *SignedReport `json:"signed,omitempty"`
}

// ShredState says how far a shredding has come.
type ShredState string

// The states of a shredding.
const (
	ShredSweeping ShredState = "sweeping" // a gateway is to delete the copies of the keys in the backend
	ShredDone     ShredState = "done"     // it did, and the statement is signed
)

// ShredStatement is what is signed of a shredding. It speaks of this registry and this
// backend: backups of either, and of the HSM, it knows nothing of.
type ShredStatement struct {
	Chatelaine string    `json:"chatelaine"` // shredKind
	Bucket     string    `json:"bucket"`
	Space      string    `json:"space"`
	Store      string    `json:"store"`
	StoreName  string    `json:"store_name"`
	Owner      string    `json:"owner"`
	Actor      string    `json:"actor"`
	Reason     string    `json:"reason,omitempty"`
	Approval   string    `json:"approval,omitempty"`
	Shredded   time.Time `json:"shredded"` // when the registry's keys were deleted
	// KeyCount keys were destroyed; Keys are the ids of the first maxListedKeys, and
	// KeysDigest is the SHA-256, in hex, of the 16 bytes of all ids, sorted.
	KeyCount   int      `json:"key_count"`
	Keys       []KeyID  `json:"keys"`
	KeysDigest string   `json:"keys_digest"`
	KEK        ShredKEK `json:"kek"`
	Sweep      *Sweep   `json:"sweep,omitempty"`
}

// ShredKEK says what became of the KEK that the bucket had.
type ShredKEK struct {
	Name string `json:"name"`
	// Outcome is for people: that it is to be destroyed, or why it is kept.
	Outcome string `json:"outcome,omitempty"`
}

// Sweep is what a gateway found in the backend, and what the KMS made of it.
type Sweep struct {
	At      time.Time `json:"at"`
	Gateway string    `json:"gateway"` // as the KMS knows it
	// Mirrors copies of keys were deleted over all sweeps; none was left after the last.
	Mirrors uint64 `json:"mirrors_deleted"`
	// Seen objects were listed, at most as many as a gateway looks through; Samples
	// are drawn from them at random.
	Seen    uint64   `json:"objects_seen"`
	Samples []Sample `json:"samples,omitempty"`
}

// Sample is an object that was looked at. Its key is one that the KMS has not.
type Sample struct {
	Object string `json:"object"`
	KeyID  string `json:"key_id,omitempty"` // hex; empty: it is not sealed at all
}

const (
	shredKind     = "shred-record/1"
	maxListedKeys = 5000
	// MaxSamples is how many samples a sweep may have.
	MaxSamples = 64

	shredTasksRoot = "tasks/shred/"
)

func shredPath(space string) string     { return "shreds/" + space }
func shredTaskPath(space string) string { return shredTasksRoot + space }

// shredTask asks gateways to sweep a bucket in the backend.
type shredTask struct {
	Space string `json:"space"`
}

// ShredBucket destroys the keys of a bucket, so that nothing in it can be opened
// again. In one transaction the registry loses them, gateways are told to end their
// use, running transfers too, and are asked to delete the copies in the backend. The
// bucket stays, in state BucketShredded: it can be listed, emptied and deleted.
//
// Said again, the backend is swept and sampled once more, and nothing else is done.
// ErrApproval, ErrNotFound, ErrInvalid for a bucket that is being made.
func (m *Manager) ShredBucket(ctx context.Context, name string, by Change) (Bucket, error) {
	b, err := m.editBucket(ctx, name, by, func(b *Bucket, t *Transaction) (bool, error) {
		switch b.State {
		case BucketCreating:
			return false, fmt.Errorf("%w: it is being made", ErrInvalid)
		case BucketAdopting:
			return false, fmt.Errorf("%w: it is being adopted, and plaintext in it would stay", ErrInvalid)
		case BucketShredded:
			return false, m.sweepAgain(ctx, b.Space)
		case BucketActive:
		}
		grant, err := m.gate.Permit(ctx, by.operation(ActionShred, "bucket/"+name, map[string]string{"space": b.Space}))
		if err != nil {
			return false, err
		}
		t.If, t.Put = append(t.If, grant.If...), append(t.Put, grant.Put...)
		b.State = BucketShredded
		b.note("shredded", by)
		if b.Ledger != nil { // nothing opens any more that could be older
			b.Ledger = nil
			t.dropLedger(b.Space)
		}
		return true, m.shred(ctx, *b, t, by)
	})
	if err != nil {
		return Bucket{}, fmt.Errorf("kms: shredding bucket %q: %w", name, err)
	}
	return b, nil
}

// shred adds the end of a bucket's keys to a transaction. Its condition on the current
// key has it see a key that is made meanwhile.
func (m *Manager) shred(ctx context.Context, b Bucket, t *Transaction, by Change) error {
	cur, err := readMaybe[current](ctx, m.registry, currentPath(b.Space))
	if err != nil {
		return err
	}
	keys, err := list[BucketKey](ctx, m.registry, bucketKeysPath(b.Space))
	if err != nil {
		return err
	}
	record, err := put(shredPath(b.Space), Shred{State: ShredSweeping, ShredStatement: newShredStatement(b, records(keys), by)})
	task, err2 := put(shredTaskPath(b.Space), shredTask{Space: b.Space})
	t.If = append(t.If, cur.is)
	t.Put = append(t.Put, record, task)
	t.Delete = append(t.Delete, currentPath(b.Space))
	t.DeletePrefix = append(t.DeletePrefix, bucketKeysPath(b.Space), mirrorTasksPath(b.Space))
	return errors.Join(err, err2)
}

func newShredStatement(b Bucket, keys []BucketKey, by Change) ShredStatement {
	s := ShredStatement{
		Chatelaine: shredKind, Bucket: b.Name, Space: b.Space, Store: b.Store, StoreName: b.StoreName, Owner: b.Owner,
		Actor: by.actor(), Reason: by.Reason, Approval: by.Approval, Shredded: time.Now().UTC(),
		KeyCount: len(keys), Keys: []KeyID{}, KEK: ShredKEK{Name: b.KEK},
	}
	digest := sha256.New()
	for _, k := range keys { // the registry lists them sorted
		_, _ = digest.Write(k.ID[:]) // never fails
		if len(s.Keys) < maxListedKeys {
			s.Keys = append(s.Keys, k.ID)
		}
	}
	s.KeysDigest = hex.EncodeToString(digest.Sum(nil))
	return s
}

// sweepAgain asks gateways once more to sweep a shredded bucket.
func (m *Manager) sweepAgain(ctx context.Context, space string) error {
	return m.editShred(ctx, space, func(s *Shred, t *Transaction) error {
		s.State, s.Problem = ShredSweeping, ""
		task, err := put(shredTaskPath(space), shredTask{Space: space})
		t.Put = append(t.Put, task)
		return err
	})
}

func (m *Manager) editShred(ctx context.Context, space string, f func(*Shred, *Transaction) error) error {
	return retry(ctx, func() error {
		s, err := read[Shred](ctx, m.registry, shredPath(space))
		if err != nil {
			return err
		}
		t := Transaction{If: []Condition{s.is}}
		if err := f(&s.record, &t); err != nil {
			return err
		}
		item, err := put(s.is.Key, s.record)
		if err != nil {
			return err
		}
		t.Put = append(t.Put, item)
		return m.registry.Commit(ctx, t)
	})
}

// ShredOf is the record of a bucket's shredding. ErrNotFound when there is no such
// bucket, or it was not shredded.
func (m *Manager) ShredOf(ctx context.Context, name string) (Shred, error) {
	b, err := m.Bucket(ctx, name)
	if err != nil {
		return Shred{}, err
	}
	s, err := read[Shred](ctx, m.registry, shredPath(b.Space))
	if err != nil {
		return Shred{}, fmt.Errorf("kms: finding the shredding of bucket %q: %w", name, err)
	}
	return s.record, nil
}

// UnsweptBuckets lists shredded buckets that gateways are to sweep.
func (m *Manager) UnsweptBuckets(ctx context.Context) ([]Bucket, error) {
	tasks, err := list[shredTask](ctx, m.registry, shredTasksRoot)
	if err != nil {
		return nil, fmt.Errorf("kms: listing buckets to be swept: %w", err)
	}
	var out []Bucket
	for _, s := range tasks {
		b, err := m.bucketOf(ctx, s.record.Space)
		if errors.Is(err, ErrNotFound) {
			continue // it was removed just now, and the task with it
		}
		if err != nil {
			return nil, fmt.Errorf("kms: looking up a bucket to be swept: %w", err)
		}
		out = append(out, b.record)
	}
	return out, nil
}

// Swept is what a gateway says of a sweep. Problem is why it failed.
type Swept struct {
	Space   string
	Gateway string // as the KMS knows it
	Mirrors uint64 // copies of keys that were deleted
	Left    uint64 // that could not be
	Seen    uint64 // objects listed
	Samples []Sample
	Problem string
}

// FinishShred takes in what a gateway found. Where no copy of a key is left, and no
// sampled object names a key that there is, the statement is signed and the task is
// over. Otherwise it is ErrConflict that says why not, and gateways try again. It may
// be said again.
//
// A KEK that was the bucket's own is destroyed with it where nothing needs it and
// its own rules allow that to who shredded the bucket.
func (m *Manager) FinishShred(ctx context.Context, swept Swept) error {
	if err := m.finishShred(ctx, swept); err != nil {
		return fmt.Errorf("kms: finishing the shredding of space %q: %w", swept.Space, err)
	}
	return nil
}

func (m *Manager) finishShred(ctx context.Context, swept Swept) error {
	if err := checkSpace(swept.Space); err != nil {
		return err
	}
	if len(swept.Samples) > MaxSamples || len(swept.Gateway) > 512 || len(swept.Problem) > 4096 {
		return fmt.Errorf("%w: too much is said of a sweep", ErrInvalid)
	}
	if err := m.checkSamples(ctx, &swept); err != nil {
		return err
	}
	s, err := read[Shred](ctx, m.registry, shredPath(swept.Space))
	if err != nil || s.record.State == ShredDone {
		return err
	}
	outcome := m.retireOwnKEK(ctx, s.record)
	err = m.editShred(ctx, swept.Space, func(s *Shred, t *Transaction) error {
		if s.State == ShredDone {
			return nil
		}
		s.KEK.Outcome = outcome
		return m.concludeShred(ctx, s, swept, t)
	})
	if err == nil {
		m.log.Info("bucket swept", zap.String("bucket", s.record.Bucket), zap.Uint64("mirrors_deleted", swept.Mirrors),
			zap.Int("samples", len(swept.Samples)), zap.String("problem", swept.Problem), zap.String("kek", outcome))
	}
	if err == nil && swept.Problem != "" {
		err = fmt.Errorf("%w: %s", ErrConflict, swept.Problem)
	}
	return err
}

// checkSamples makes a sample whose key is there a problem.
func (m *Manager) checkSamples(ctx context.Context, swept *Swept) error {
	if swept.Left > 0 && swept.Problem == "" {
		swept.Problem = fmt.Sprintf("%d copies of keys are left in the backend", swept.Left)
	}
	for _, sample := range swept.Samples {
		if sample.KeyID == "" {
			continue
		}
		var id KeyID
		if err := id.UnmarshalText([]byte(sample.KeyID)); err != nil {
			return err
		}
		_, err := m.registry.Get(ctx, keyPath(swept.Space, id))
		if err == nil {
			swept.Problem = fmt.Sprintf("object %q is under key %s, which is still there", sample.Object, id)
			continue
		}
		if !errors.Is(err, ErrNotFound) {
			return err
		}
	}
	return nil
}

func (m *Manager) concludeShred(ctx context.Context, s *Shred, swept Swept, t *Transaction) error {
	before := uint64(0)
	if s.Sweep != nil {
		before = s.Sweep.Mirrors
	}
	s.Sweep = &Sweep{
		At: time.Now().UTC(), Gateway: swept.Gateway, Mirrors: before + swept.Mirrors, Seen: swept.Seen, Samples: swept.Samples,
	}
	if s.Problem = swept.Problem; s.Problem != "" {
		return nil
	}
	statement, err := json.Marshal(s.ShredStatement)
	if err != nil {
		return err
	}
	public, signature, err := m.sign(ctx, signedMessage(statement))
	if err != nil {
		return err
	}
	s.State = ShredDone
	s.Signed = &SignedReport{Statement: statement, Key: public, Signature: signature}
	t.Delete = append(t.Delete, shredTaskPath(s.Space))
	return nil
}

// retireOwnKEK plans the destruction of the KEK of a shredded bucket, or says why not.
// Dual control sees it as what it is, an operation on the KEK, and the approval of the
// shredding does not stand for it.
func (m *Manager) retireOwnKEK(ctx context.Context, s Shred) string {
	name := s.KEK.Name
	kek, err := m.findKEK(ctx, name)
	if err != nil {
		return "not looked at: " + err.Error()
	}
	if due, planned := kek.record.planned(); planned {
		return "to be destroyed, not before " + due.UTC().Format(time.RFC3339)
	}
	if kek.record.Status() == string(Destroyed) {
		return "destroyed"
	}
	if err := m.unneeded(ctx, KeyRef{Name: name}); err != nil {
		return "kept: " + err.Error()
	}
	if !kek.record.DeletionAllowed {
		return "kept: nothing needs it, but its deletion_allowed is off"
	}
	by := Change{Actor: s.Actor, Reason: "its only bucket " + s.Bucket + " was shredded"}
	if kek.record.Status() == string(Active) {
		if _, err := m.DeactivateKEK(ctx, name, by); err != nil {
			return "kept: " + err.Error()
		}
	}
	done, err := m.ScheduleDestroy(ctx, name, 0, by)
	if err != nil {
		return "kept: " + err.Error()
	}
	due, _ := done.planned()
	return "to be destroyed, not before " + due.UTC().Format(time.RFC3339)
}

// planned says whether the destruction of the primary version is planned, and for when.
func (k *KEK) planned() (time.Time, bool) {
	v := k.Version(k.Primary)
	if v == nil || v.Destruction == nil {
		return time.Time{}, false
	}
	return v.Destruction.Due, true
}

// shredded lists the spaces of the shredded buckets that are registered.
func (m *Manager) shredded(ctx context.Context) ([]string, error) {
	all, err := list[Bucket](ctx, m.registry, bucketPath(""))
	if err != nil {
		return nil, err
	}
	var out []string
	for _, s := range all {
		if s.record.State == BucketShredded {
			out = append(out, s.record.Space)
		}
	}
	return out, nil
}

// usable returns ErrDisabled for a bucket whose keys were destroyed.
func (b Bucket) usable() error {
	if b.State == BucketShredded {
		return fmt.Errorf("%w: bucket %q was shredded, and its keys are destroyed", ErrDisabled, b.Name)
	}
	return nil
}

// VerifyShred reads the signed statement of a shredding and checks its signature,
// offline. As with VerifyReport, compare Fingerprint(signed.Key).
func VerifyShred(data []byte) (ShredStatement, SignedReport, error) {
	var s ShredStatement
	signed, err := verifySigned(data)
	if err == nil {
		err = strictly(signed.Statement, &s)
	}
	if err == nil && s.Chatelaine != shredKind {
		err = fmt.Errorf("%w: kind %q, want %q", ErrInvalid, s.Chatelaine, shredKind)
	}
	if err != nil {
		return ShredStatement{}, SignedReport{}, fmt.Errorf("kms: verifying the record of a shredding: %w", err)
	}
	return s, signed, nil
}

// IsShred says whether a signed report says of itself to be of a shredding. Nothing is
// verified.
func IsShred(data []byte) bool { return kindOf(data) == shredKind }

// kindOf is what a signed statement says to be; empty for what is none.
func kindOf(data []byte) string {
	var signed SignedReport
	var kind struct {
		Chatelaine string `json:"chatelaine"`
	}
	if json.Unmarshal(data, &signed) != nil || json.Unmarshal(signed.Statement, &kind) != nil {
		return ""
	}
	return kind.Chatelaine
}
