// Package approval is dual control: what several people must agree to before it is
// done. It has the rules, the people and their keys, the requests and the signatures
// on them, and it is the kms.Gate that permits an operation once and no more.
//
// A signature is made by a person's own key, at that person's machine, over a text
// that says everything. So neither the KMS nor who administers it can make up an
// approval, and an exported one can be verified by anybody without a KMS.
//
// It refuses to know what operations do, and how they travel.
package approval

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"chatelaine/kms"
)

// Config is what a Control is made of.
type Config struct {
	// Registry is required. The caller closes it, after the last call.
	Registry kms.Registry
	// Ceremony pins the digest of the ceremony's statement. Where it is given, rules
	// that do not come from that ceremony are not obeyed, and without rules nothing is
	// permitted: whoever can write to the registry cannot turn dual control off. Empty:
	// the registry is believed.
	Ceremony string
	Logger   *zap.Logger
}

// Control is dual control on a registry. All methods may run concurrently, also in
// several processes on one registry. Before the ceremony there are no rules, and it
// permits everything.
type Control struct {
	registry kms.Registry
	pin      string
	clock    clock
	log      *zap.Logger

	mu    sync.Mutex
	known *lawbook // the version that was verified last

	changes atomic.Uint64 // that the watch has seen
	seen    atomic.Pointer[snapshot]
	loading chan struct{} // of capacity 1: held by who loads a snapshot
}

var _ kms.Gate = (*Control)(nil)

// New makes a Control. It reads nothing yet. Run makes it notice changes at once.
func New(c Config) (*Control, error) {
	if c.Registry == nil {
		return nil, fmt.Errorf("approval: checking the configuration: %w: no registry", kms.ErrInvalid)
	}
	if c.Ceremony != "" && !isDigest(c.Ceremony) {
		return nil, fmt.Errorf("approval: checking the configuration: %w: ceremony %q: want 64 hex digits", kms.ErrInvalid, c.Ceremony)
	}
	if c.Logger == nil {
		c.Logger = zap.NewNop()
	}
	return &Control{
		registry: c.Registry, pin: c.Ceremony, clock: newClock(),
		log: c.Logger.Named("approval"), loading: make(chan struct{}, 1),
	}, nil
}

func isDigest(s string) bool {
	_, err := hex.DecodeString(s)
	return err == nil && len(s) == 64
}

// NeededError says that an operation needs an approval and has named none. It is
// kms.ErrApproval, and has all that a request is made of.
type NeededError struct {
	Operation kms.Operation
	Text      string
}

// Error says what is needed and what to do.
func (e *NeededError) Error() string { return e.Text }

// Unwrap makes it kms.ErrApproval.
func (e *NeededError) Unwrap() error { return kms.ErrApproval }

// tolerance is how far the clocks of processes that share a registry may be apart.
const tolerance = 5 * time.Minute

// law reads the rules that hold now. nil, with the condition that there still are
// none, before the ceremony.
func (c *Control) law(ctx context.Context) (*lawbook, kms.Condition, error) {
	h, is, err := readMaybe[head](ctx, c.registry, headKey)
	if err != nil {
		return nil, is, fmt.Errorf("reading the rules: %w", err)
	}
	if is.Revision == 0 {
		if c.pin != "" {
			return nil, is, fmt.Errorf("%w: the configuration names a ceremony, and the registry has no rules: "+
				"restore the registry, or hold a ceremony and name that one", kms.ErrApproval)
		}
		return nil, is, nil
	}
	l, err := c.verified(ctx, h)
	if err != nil {
		return nil, is, fmt.Errorf("reading the rules: %w", err)
	}
	held := *l
	held.is = is
	return &held, is, nil
}

// verified is the lawbook of a version, whose descent from the ceremony is verified
// once.
func (c *Control) verified(ctx context.Context, h head) (*lawbook, error) {
	c.mu.Lock()
	known := c.known
	c.mu.Unlock()
	if known != nil && known.version == h.Version {
		return known, nil
	}
	history, err := c.history(ctx, h.Number)
	if err != nil {
		return nil, err
	}
	l, err := descend(history, c.pin)
	if err == nil && l.version != h.Version {
		err = errors.New("the registry names rules that are not those it has")
	}
	if err != nil {
		// Not ErrInvalid or ErrDenied: it is not the caller's fault. Nothing is permitted.
		return nil, fmt.Errorf("%w: the rules in the registry do not prove themselves: %s", kms.ErrApproval, err) //nolint:errorlint // see above
	}
	c.mu.Lock()
	c.known = l
	c.mu.Unlock()
	return l, nil
}

// history reads the versions of the rules up to a number, in order.
func (c *Control) history(ctx context.Context, number uint64) ([]Ruleset, error) {
	items, err := c.registry.List(ctx, rulesetsKey)
	if err != nil {
		return nil, err
	}
	var out []Ruleset
	for _, item := range items {
		s, err := decode[Ruleset](item)
		if err != nil {
			return nil, err
		}
		if s.Number <= number {
			out = append(out, s)
		}
	}
	return out, nil
}

// identity is the instance's id, which is made when it is first asked for.
func (c *Control) identity(ctx context.Context) (string, error) {
	for {
		record, is, err := readMaybe[instance](ctx, c.registry, instanceKey)
		if err != nil || is.Revision != 0 {
			return record.ID, err
		}
		item, err := put(instanceKey, instance{ID: newID()})
		if err != nil {
			return "", err
		}
		err = c.registry.Commit(ctx, kms.Transaction{If: []kms.Condition{is}, Put: []kms.Item{item}})
		if err != nil && !errors.Is(err, kms.ErrConflict) {
			return "", err
		}
	}
}

func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// attempts is how often a change is decided again after ErrConflict.
const attempts = 8

func retry(ctx context.Context, f func() error) error {
	var err error
	for range attempts {
		if err = f(); !errors.Is(err, kms.ErrConflict) {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return fmt.Errorf("%w: %w", kms.ErrUnavailable, err)
}
