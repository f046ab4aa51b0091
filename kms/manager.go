package kms

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"
)

// Config is what a Manager is made of.
type Config struct {
	// Registry holds the state. The caller closes it, after the last call.
	Registry Registry
	// Providers by name. The caller closes them, after the last call. A name is
	// written into the registry with each KEK made there, so it must stay.
	Providers map[string]Provider
	// DefaultProvider makes new KEKs. It may be empty when there is one provider.
	DefaultProvider string
	// DefaultKEK wraps access keys, and bucket keys of buckets that name no KEK.
	// Empty means "main".
	DefaultKEK string
	// EpochPeriod is the age at which a bucket's key is replaced by a new one for
	// what is written from then on. 0 means 24 h; less than a minute is refused.
	EpochPeriod time.Duration
	// ProviderTimeout bounds each call to a provider. 0 means 10 s.
	ProviderTimeout time.Duration
	// Development allows access keys whose secret can be shown again. With it,
	// whoever administers the KMS can read those secrets.
	Development bool
	// Gate holds the rules of dual control. nil means that there are none.
	Gate Gate
	// CheckPolicy says what is wrong with access policies, as ErrInvalid. nil means
	// that none can be put.
	CheckPolicy func(PolicyDocument) error
	// Recovery is what each bucket key is wrapped under beside its KEK. Zero: nothing.
	Recovery RecoveryConfig
	// LedgerSettle is how long after a bucket was given the rollback guard its objects
	// begin to be taken in. 0 means 30 s: longer than a gateway can have an older record
	// of the bucket. Less is for tests.
	LedgerSettle time.Duration
	// Observer is told of calls to providers, and of how full the registry is. It may be
	// nil.
	Observer Observer
	Logger   *zap.Logger
}

// Manager is the key plane: every rule about keys, buckets and access keys is
// kept here. All methods may run concurrently, and several Managers, also in
// several processes, may share one registry.
//
// Errors wrap the sentinels of this package. One that is none of them means that
// a record or the registry is broken.
type Manager struct {
	registry    Registry
	providers   map[string]Provider
	provider    string // default
	kek         string // default
	gate        Gate
	checkPolicy func(PolicyDocument) error
	epochPeriod time.Duration
	development bool
	recovery    RecoveryConfig
	id          string        // tells this Manager from others that share the registry
	making      sync.Map      // names of KEKs of which this Manager is making a version
	jobs        chan struct{} // has Run look for jobs at once
	tallies     tallies
	ledgers     *ledgers
	room        room
	observer    Observer
	// ledgerSettle is how long after the rollback guard was set learning begins.
	ledgerSettle time.Duration
	log          *zap.Logger
}

// NewManager checks the configuration, then that each KEK version which data
// depends on is in its provider. A version that is missing is an error: nothing
// is made anew in its place. ctx bounds the checks.
func NewManager(ctx context.Context, c Config) (*Manager, error) {
	c = c.withDefaults()
	if err := c.validate(); err != nil {
		return nil, fmt.Errorf("kms: checking the configuration: %w", err)
	}
	m := &Manager{
		registry:    c.Registry,
		providers:   c.guarded(),
		provider:    c.DefaultProvider,
		kek:         c.DefaultKEK,
		gate:        c.Gate,
		checkPolicy: c.CheckPolicy,
		epochPeriod: c.EpochPeriod,
		development: c.Development,
		recovery:    c.Recovery,
		id:          rand.Text(),
		jobs:        make(chan struct{}, 1),
		ledgers:     newLedgers(),
		observer:    c.Observer,
		log:         c.Logger.Named("kms"),

		ledgerSettle: cmp.Or(c.LedgerSettle, ledgerSettle),
	}
	if err := m.verifyKEKs(ctx); err != nil {
		return nil, fmt.Errorf("kms: comparing the registry with the providers: %w", err)
	}
	m.lookAtUsage(ctx)
	return m, nil
}

func (c Config) withDefaults() Config {
	c.DefaultKEK = cmp.Or(c.DefaultKEK, "main")
	c.EpochPeriod = cmp.Or(c.EpochPeriod, 24*time.Hour)
	c.ProviderTimeout = cmp.Or(c.ProviderTimeout, 10*time.Second)
	if len(c.Providers) == 1 && c.DefaultProvider == "" {
		for name := range c.Providers {
			c.DefaultProvider = name
		}
	}
	if c.Gate == nil {
		c.Gate = ungated{}
	}
	if c.Observer == nil {
		c.Observer = silent{}
	}
	if c.Logger == nil {
		c.Logger = zap.NewNop()
	}
	return c
}

func (c Config) validate() error {
	errs := []error{checkName("default KEK", c.DefaultKEK), c.Recovery.validate(c.DefaultKEK)}
	if c.Registry == nil {
		errs = append(errs, fmt.Errorf("%w: no registry", ErrInvalid))
	}
	if c.Providers[c.DefaultProvider] == nil {
		errs = append(errs, fmt.Errorf("%w: no provider %q, which is the default", ErrInvalid, c.DefaultProvider))
	}
	for name := range c.Providers {
		errs = append(errs, checkName("provider", name))
	}
	if c.EpochPeriod < time.Minute {
		errs = append(errs, fmt.Errorf("%w: epoch period %v is under a minute", ErrInvalid, c.EpochPeriod))
	}
	if c.ProviderTimeout < 0 {
		errs = append(errs, fmt.Errorf("%w: provider timeout %v", ErrInvalid, c.ProviderTimeout))
	}
	return errors.Join(errs...)
}

func (c Config) guarded() map[string]Provider {
	out := make(map[string]Provider, len(c.Providers))
	for name, p := range c.Providers {
		out[name] = &guard{Provider: p, name: name, timeout: c.ProviderTimeout, observer: c.Observer}
	}
	return out
}

// verifyKEKs reports every KEK version that is needed and not to be had.
func (m *Manager) verifyKEKs(ctx context.Context) error {
	keks, err := m.KEKs(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for i := range keks {
		for _, v := range keks[i].Versions {
			if v.needed() {
				errs = append(errs, m.verifyVersion(ctx, &keks[i], v.Number))
			}
		}
	}
	return errors.Join(errs...)
}

func (m *Manager) verifyVersion(ctx context.Context, kek *KEK, number uint32) error {
	ref := kek.Ref(number)
	p, err := m.providerOf(kek, number)
	if err != nil {
		return err
	}
	_, err = p.Inspect(ctx, ref)
	if errors.Is(err, ErrNotFound) {
		return fmt.Errorf("KEK %s is in the registry but not in the token of provider %q; "+
			"restore the token from its backup, or, if this is another token, set the provider to the right one "+
			"(a new key would open none of the data): %w", ref, kek.Holder(number), err)
	}
	if err != nil {
		return fmt.Errorf("inspecting KEK %s in provider %q: %w", ref, kek.Holder(number), err)
	}
	return nil
}

// providerOf finds the provider that holds a KEK version, or would make it.
func (m *Manager) providerOf(kek *KEK, number uint32) (Provider, error) {
	name := kek.Holder(number)
	p := m.providers[name]
	if p == nil {
		return nil, fmt.Errorf("%w: KEK %q is held by provider %q, which is not configured", ErrUnavailable, kek.Name, name)
	}
	return p, nil
}

// attempts is how often a change is decided again after ErrConflict. Whoever
// loses that often is contending with something that never stops.
const attempts = 8

// retry runs a read-decide-commit function until it does not conflict.
func retry(ctx context.Context, f func() error) error {
	var err error
	for range attempts {
		var settled errSettled
		if err = f(); !errors.Is(err, ErrConflict) || errors.As(err, &settled) {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, err)
}

// ProviderStatus says whether a provider serves.
type ProviderStatus struct {
	Name string
	Err  error // nil: it serves
}

// Status says how the parts are. Errors are in it and not returned.
type Status struct {
	Providers   []ProviderStatus // by name
	Registry    error            // nil: it serves
	KEKs        []KEK
	Revocations uint64
	DefaultKEK  string
}
