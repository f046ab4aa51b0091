package kms

import (
	"context"
	"fmt"
	"slices"
)

// Revocation is what gateways must learn of at once. It is a state and no list of
// events: whoever has missed some of them is right after the next.
type Revocation struct {
	// Epoch grows by each change that gateways must learn of.
	Epoch uint64
	// General grows by those changes that are not in Unusable: what a gateway
	// fetched before, it asks for again.
	General uint64
	// Unusable are the KEK versions under which nothing may be used now, by name and
	// number: bucket keys and signing keys under them end at once.
	Unusable []KeyRef
	// Canary is the space whose key gateways hold while a canary runs, or empty.
	Canary string
	// Shredded are the spaces of shredded buckets: their keys end at once.
	Shredded []string
}

// Revocations is the revocation epoch: it grows by each change that gateways must
// learn of at once.
func (m *Manager) Revocations(ctx context.Context) (uint64, error) {
	s, err := readMaybe[revocation](ctx, m.registry, revocationPath)
	if err != nil {
		return 0, fmt.Errorf("kms: reading the revocation epoch: %w", err)
	}
	return s.record.Epoch, nil
}

// Revocation reads all that belongs to the revocation epoch, as it was at one moment.
func (m *Manager) Revocation(ctx context.Context) (Revocation, error) {
	var out Revocation
	err := retry(ctx, func() (err error) {
		out, err = m.revocation(ctx)
		return err
	})
	if err != nil {
		return Revocation{}, fmt.Errorf("kms: reading what is revoked: %w", err)
	}
	return out, nil
}

// revocation returns ErrConflict when something was revoked while it was reading.
func (m *Manager) revocation(ctx context.Context) (Revocation, error) {
	before, err := readMaybe[revocation](ctx, m.registry, revocationPath)
	if err != nil {
		return Revocation{}, err
	}
	unusable, err := m.unusable(ctx)
	if err != nil {
		return Revocation{}, err
	}
	watched, err := readMaybe[canary](ctx, m.registry, canaryPath)
	if err != nil {
		return Revocation{}, err
	}
	shredded, err := m.shredded(ctx)
	if err != nil {
		return Revocation{}, err
	}
	after, err := readMaybe[revocation](ctx, m.registry, revocationPath)
	if err == nil && after.is != before.is {
		err = ErrConflict
	}
	r := before.record
	out := Revocation{Epoch: r.Epoch, General: r.Epoch - r.Narrow, Unusable: unusable, Shredded: shredded}
	if watched.record.Running {
		out.Canary = watched.record.Space
	}
	return out, err
}

// unusable lists the KEK versions that something may have been wrapped under, and
// that unwrap nothing now. Only what the records say is in it, since it may change with
// the epoch alone: rules of dual control for use can run out by themselves.
func (m *Manager) unusable(ctx context.Context) ([]KeyRef, error) {
	all, err := list[KEK](ctx, m.registry, kekPath(""))
	if err != nil {
		return nil, err
	}
	var out []KeyRef
	for _, s := range all {
		out = append(out, s.record.unusable()...)
	}
	return out, nil
}

func (k *KEK) unusable() (out []KeyRef) {
	for _, v := range k.Versions {
		if v.State != PreActive && k.mayUnwrap(v.Number) != nil {
			out = append(out, k.Ref(v.Number))
		}
	}
	return out
}

// Forbids says whether nothing under a KEK version may be used.
func (r Revocation) Forbids(ref KeyRef) bool { return slices.Contains(r.Unusable, ref) }

// WatchRevocations calls f when something may have been revoked: once when every
// later change is sure to be seen, and then after each. Errors are those of
// Registry.Watch.
func (m *Manager) WatchRevocations(ctx context.Context, f func() error) error {
	return m.follow(ctx, revocationPath, func(Event) error { return f() }, f)
}

// follow watches a prefix. It calls begun once no later change can be missed.
func (m *Manager) follow(ctx context.Context, prefix string, f func(Event) error, begun func() error) error {
	revision, err := m.registry.Revision(ctx)
	if err != nil {
		return err
	}
	if err := begun(); err != nil {
		return err
	}
	return m.registry.Watch(ctx, prefix, revision, f)
}

// revoke adds the growth of the revocation epoch to a transaction, after which
// gateways ask for everything again.
func (m *Manager) revoke(ctx context.Context, t *Transaction) error {
	return m.grow(ctx, t, 0)
}

// revokeNarrow is revoke for a change that shows in Revocation.Unusable or
// Revocation.Canary: gateways ask for nothing else again.
func (m *Manager) revokeNarrow(ctx context.Context, t *Transaction) error {
	return m.grow(ctx, t, 1)
}

func (m *Manager) grow(ctx context.Context, t *Transaction, narrow uint64) error {
	s, err := readMaybe[revocation](ctx, m.registry, revocationPath)
	if err != nil {
		return err
	}
	item, err := put(revocationPath, revocation{Epoch: s.record.Epoch + 1, Narrow: s.record.Narrow + narrow})
	if err != nil {
		return err
	}
	t.If = append(t.If, s.is)
	t.Put = append(t.Put, item)
	return nil
}
