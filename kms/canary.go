package kms

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"go.uber.org/zap"
)

// A canary measures how long the kill switch takes, with a KEK and a bucket of its
// own: gateways are asked to hold the canary's bucket key, then its KEK is blocked
// for a moment. No data key is ever under that KEK, so no approval is asked for.

// CanaryKEK is the KEK that canaries block. No bucket can be put under it.
const CanaryKEK = "chatelaine-canary"

// canaryBucket is no name that a bucket of S3, or RegisterBucket, can have.
const canaryBucket = ".canary"

// CanaryState is what a gateway says of the canary's key.
type CanaryState string

// The states. None is that of a gateway that does not take part.
const (
	CanaryHeld  CanaryState = "held"  // it has the key, and may use it
	CanaryEnded CanaryState = "ended" // it had the key, and may not use it any more
)

// canary is the record that lets one canary run at a time.
type canary struct {
	Space   string    `json:"space"`
	Running bool      `json:"running"`
	Runner  string    `json:"runner"` // the Manager
	Began   time.Time `json:"began"`
}

const canaryPath = "canary"

// canaryPatience is how long a canary may take before another may begin: one whose
// KMS crashed.
const canaryPatience = 2 * time.Minute

// canaryHistory is how many changes of state the canary's KEK remembers.
const canaryHistory = 8

// LastCanary is when a canary last began; the zero time if none ever did.
func (m *Manager) LastCanary(ctx context.Context) (time.Time, error) {
	s, err := readMaybe[canary](ctx, m.registry, canaryPath)
	if err != nil {
		return time.Time{}, fmt.Errorf("kms: reading when a canary ran: %w", err)
	}
	return s.record.Began, nil
}

// BeginCanary has gateways hold the canary's key. It makes KEK and bucket where they
// are missing. ErrConflict while another canary runs. Whoever begins must EndCanary.
func (m *Manager) BeginCanary(ctx context.Context) error {
	_, err := m.EnsureKEK(ctx, CanaryKEK)
	if err == nil {
		err = retry(ctx, func() error { return m.beginCanary(ctx) })
	}
	return canaryError("beginning a canary", err)
}

// errCanaryRuns is ErrConflict for callers. It is none inside, as it is not mended by
// reading again.
var errCanaryRuns = errors.New("another canary is running")

func canaryError(doing string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, errCanaryRuns):
		return fmt.Errorf("kms: %s: %w: %w", doing, ErrConflict, err)
	default:
		return fmt.Errorf("kms: %s: %w", doing, err)
	}
}

func (m *Manager) beginCanary(ctx context.Context) error {
	s, err := readMaybe[canary](ctx, m.registry, canaryPath)
	if err != nil {
		return err
	}
	now, c := time.Now().UTC(), s.record
	// A clock that was set back makes the age negative: then nothing is waited for.
	if age := now.Sub(c.Began); c.Running && c.Runner != m.id && age >= 0 && age < canaryPatience {
		return errCanaryRuns
	}
	var t Transaction
	if c.Space == "" {
		if c.Space, err = m.canarySpace(&t, now); err != nil {
			return err
		}
	}
	c.Running, c.Runner, c.Began = true, m.id, now
	return m.commitCanary(ctx, s.is, c, Active, t)
}

// canarySpace adds the canary's bucket to a transaction.
func (m *Manager) canarySpace(t *Transaction, now time.Time) (string, error) {
	b := Bucket{
		Name: canaryBucket, Space: uuid.NewString(), Store: "none", StoreName: canaryBucket, KEK: CanaryKEK,
		Profile: Standard, ETag: ETagBackend, Owner: "chatelaine", State: BucketActive, Created: now,
	}
	items, err := bucketItems(b)
	for _, item := range items {
		t.If = append(t.If, absent(item.Key))
	}
	t.Put = append(t.Put, items...)
	return b.Space, err
}

// BlockCanary blocks the canary's KEK, as the kill switch would.
func (m *Manager) BlockCanary(ctx context.Context) error {
	return m.changeCanary(ctx, "blocking the canary", true, Suspended)
}

// EndCanary unblocks the canary's KEK, and lets gateways forget its key.
func (m *Manager) EndCanary(ctx context.Context) error {
	return m.changeCanary(ctx, "ending a canary", false, Active)
}

func (m *Manager) changeCanary(ctx context.Context, doing string, running bool, to KeyState) error {
	err := retry(ctx, func() error {
		s, err := read[canary](ctx, m.registry, canaryPath)
		if err != nil {
			return err
		}
		c := s.record
		if !c.Running || c.Runner != m.id {
			return errCanaryRuns
		}
		c.Running = running
		return m.commitCanary(ctx, s.is, c, to, Transaction{})
	})
	return canaryError(doing, err)
}

// commitCanary adds the record, the state of the canary's KEK and the growth of the
// revocation epoch to a transaction, and commits it.
func (m *Manager) commitCanary(ctx context.Context, is Condition, c canary, to KeyState, t Transaction) error {
	kek, err := m.kekRecord(ctx, CanaryKEK)
	if err != nil {
		return err
	}
	v := kek.record.Version(kek.record.Primary)
	if v == nil {
		return fmt.Errorf("%w: KEK %q has no version", ErrUnavailable, CanaryKEK)
	}
	if kek.record.Blocked || v.Suspension != nil {
		return fmt.Errorf("%w: somebody has blocked KEK %q", ErrDisabled, CanaryKEK)
	}
	if v.State != to {
		change := StateChange{Event: "canary", State: to, At: time.Now().UTC(), Actor: "canary"}
		if err := v.change(change); err != nil {
			return err
		}
		v.History = slices.Clone(v.History[max(0, len(v.History)-canaryHistory):])
	}
	kekItem, err := put(kek.is.Key, kek.record)
	record, err2 := put(canaryPath, c)
	if err := errors.Join(err, err2, m.revokeNarrow(ctx, &t)); err != nil {
		return err
	}
	t.If = append(t.If, is, kek.is)
	t.Put = append(t.Put, kekItem, record)
	if err := m.registry.Commit(ctx, t); err != nil {
		return err
	}
	m.log.Debug("canary", zap.String("state", string(to)), zap.Bool("running", c.Running))
	return nil
}
