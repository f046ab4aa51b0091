package kms

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
)

// KEKOptions are what CreateKEK may be given beside a name.
type KEKOptions struct {
	// Provider that makes it; empty means the default one.
	Provider string
	// Adopt takes a version 1 that the provider holds already and the registry
	// does not know, as after the loss of the registry. Nothing is made then.
	Adopt  bool
	Change Change
}

// CreateKEK makes a KEK: its version 1 in the provider, tested, then recorded as
// active. ErrExists when the registry knows it, also as destroyed, or when the provider
// holds such a key already and Adopt is false. ErrConflict while somebody else is
// making it; what another Manager has not finished within 15 s, as it crashed, is
// taken over. Where the record of a KEK of this name was lost, and its versions are
// remembered, the first version has the number after them.
func (m *Manager) CreateKEK(ctx context.Context, name string, o KEKOptions) (KEK, error) {
	kek, err := m.createKEK(ctx, name, o)
	if err != nil {
		return KEK{}, fmt.Errorf("kms: creating KEK %q: %w", name, err)
	}
	return kek, nil
}

// EnsureKEK returns the KEK of this name, or creates it when the registry has
// none. While another Manager creates it, EnsureKEK waits.
func (m *Manager) EnsureKEK(ctx context.Context, name string) (KEK, error) {
	return m.EnsureKEKOf(ctx, name, KEKOptions{})
}

// EnsureKEKOf is EnsureKEK with options for one that is created.
func (m *Manager) EnsureKEKOf(ctx context.Context, name string, o KEKOptions) (KEK, error) {
	for {
		s, err := readMaybe[KEK](ctx, m.registry, kekPath(name))
		if err != nil {
			return KEK{}, fmt.Errorf("kms: reading KEK %q: %w", name, err)
		}
		if s.record.Primary != 0 {
			return s.record, nil
		}
		kek, err := m.CreateKEK(ctx, name, o)
		if !errors.Is(err, ErrConflict) {
			return kek, err
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return KEK{}, fmt.Errorf("kms: waiting for KEK %q: %w", name, ctx.Err())
		}
	}
}

// DefaultKEK is the name of the KEK that is used where none is named.
func (m *Manager) DefaultKEK() string { return m.kek }

// KEK returns the KEK of this name, or ErrNotFound.
func (m *Manager) KEK(ctx context.Context, name string) (KEK, error) {
	if err := checkName("KEK", name); err != nil {
		return KEK{}, fmt.Errorf("kms: finding a KEK: %w", err)
	}
	s, err := m.findKEK(ctx, name)
	if err != nil {
		return KEK{}, fmt.Errorf("kms: finding KEK %q: %w", name, err)
	}
	return s.record, nil
}

// KEKs lists all KEKs by name.
func (m *Manager) KEKs(ctx context.Context) ([]KEK, error) {
	all, err := list[KEK](ctx, m.registry, kekPath(""))
	if err != nil {
		return nil, fmt.Errorf("kms: listing KEKs: %w", err)
	}
	return records(all), nil
}

// selfTest shows that a KEK version opens what it wrapped, and nothing else. A
// key that opens everything is as bad as one that opens nothing.
func selfTest(ctx context.Context, p Provider, ref KeyRef) error {
	secret := make([]byte, 32)
	_, _ = rand.Read(secret) // never fails
	b := Binding{Purpose: "self-test", ID: ref.String()}
	wrapped, err := p.Wrap(ctx, ref, b, secret)
	if err != nil {
		return err
	}
	if err := opensTo(ctx, p, ref, b, wrapped, secret); err != nil {
		return err
	}
	if err := refuses(ctx, p, ref, Binding{Purpose: b.Purpose, ID: "another"}, wrapped); err != nil {
		return fmt.Errorf("another binding: %w", err)
	}
	flipped := slices.Clone(wrapped)
	flipped[len(flipped)-1] ^= 1
	if err := refuses(ctx, p, ref, b, flipped); err != nil {
		return fmt.Errorf("a flipped bit: %w", err)
	}
	again, err := p.Wrap(ctx, ref, b, secret)
	if err == nil && bytes.Equal(again, wrapped) {
		return fmt.Errorf("%w: it wraps the same secret to the same bytes", ErrUnsafe)
	}
	return err
}

// opensTo shows that wrapped bytes unwrap to the secret.
func opensTo(ctx context.Context, p Provider, ref KeyRef, b Binding, wrapped, secret []byte) error {
	got, err := p.Unwrap(ctx, ref, b, wrapped)
	if err != nil {
		return err
	}
	if !NewSecret(got).Equal(NewSecret(secret)) {
		return fmt.Errorf("%w: it unwraps to something else", ErrCorrupt)
	}
	return nil
}

// refuses shows that wrapped bytes do not unwrap.
func refuses(ctx context.Context, p Provider, ref KeyRef, b Binding, wrapped []byte) error {
	_, err := p.Unwrap(ctx, ref, b, wrapped)
	if errors.Is(err, ErrCorrupt) {
		return nil
	}
	if err != nil {
		return err
	}
	return fmt.Errorf("%w: it was accepted", ErrUnsafe)
}

// wrap wraps a secret under the primary version of a KEK. The transaction that
// records the result must hold on the returned condition, so that a KEK which was
// blocked meanwhile records nothing.
func (m *Manager) wrap(ctx context.Context, name string, b Binding, secret Secret) (KeyRef, []byte, Condition, error) {
	s, err := m.usable(ctx, name)
	if err != nil {
		return KeyRef{}, nil, Condition{}, err
	}
	kek := s.record
	if err := kek.mayWrap(); err != nil {
		return KeyRef{}, nil, Condition{}, err
	}
	p, err := m.providerOf(&kek, kek.Primary)
	if err != nil {
		return KeyRef{}, nil, Condition{}, err
	}
	ref := kek.Ref(kek.Primary)
	var wrapped []byte
	secret.Use(func(plain []byte) {
		if wrapped, err = p.Wrap(ctx, ref, b, plain); err == nil {
			err = opensTo(ctx, p, ref, b, wrapped, plain)
		}
	})
	if err != nil {
		return KeyRef{}, nil, Condition{}, fmt.Errorf("wrapping under %s: %w", ref, withoutNotFound(err))
	}
	return ref, wrapped, s.is, nil
}

// unwrap opens a wrapped secret where the state of its KEK version allows it. The
// time is that of just before the provider was asked.
func (m *Manager) unwrap(ctx context.Context, ref KeyRef, b Binding, wrapped []byte) (Secret, time.Time, error) {
	s, err := m.usable(ctx, ref.Name)
	if err != nil {
		return Secret{}, time.Time{}, err
	}
	kek := s.record
	if err := kek.mayUnwrap(ref.Version); err != nil {
		return Secret{}, time.Time{}, err
	}
	p, err := m.providerOf(&kek, ref.Version)
	if err != nil {
		return Secret{}, time.Time{}, err
	}
	at := time.Now()
	plain, err := p.Unwrap(ctx, ref, b, wrapped)
	if err != nil {
		return Secret{}, time.Time{}, fmt.Errorf("unwrapping under %s: %w", ref, withoutNotFound(err))
	}
	return NewSecret(plain), at, nil
}

// usable reads a KEK whose rules of dual control, if there are any, allow its use.
func (m *Manager) usable(ctx context.Context, name string) (stored[KEK], error) {
	s, err := m.kekRecord(ctx, name)
	if err != nil {
		return s, err
	}
	if err := m.gate.Usable(ctx, name); err != nil {
		return s, fmt.Errorf("using KEK %q: %w", name, err)
	}
	return s, nil
}

// kekRecord reads a KEK that other records need.
func (m *Manager) kekRecord(ctx context.Context, name string) (stored[KEK], error) {
	s, err := read[KEK](ctx, m.registry, kekPath(name))
	if err != nil {
		return s, fmt.Errorf("KEK %q: %w", name, withoutNotFound(err))
	}
	return s, nil
}

// withoutNotFound makes ErrUnavailable of ErrNotFound where what is missing is a
// KEK and not what the caller asked for: nobody may take a token that lost a key
// for proof that a bucket key or an access key does not exist.
func withoutNotFound(err error) error {
	if errors.Is(err, ErrNotFound) {
		return fmt.Errorf("%w: %v", ErrUnavailable, err) //nolint:errorlint // the cause is to be hidden from errors.Is
	}
	return err
}

// Status asks every part how it is.
func (m *Manager) Status(ctx context.Context) Status {
	s := Status{DefaultKEK: m.kek, Registry: m.registry.Check(ctx)}
	for _, name := range slices.Sorted(maps.Keys(m.providers)) {
		s.Providers = append(s.Providers, ProviderStatus{Name: name, Err: m.providers[name].Check(ctx)})
	}
	var kekErr, epochErr error
	s.KEKs, kekErr = m.KEKs(ctx)
	s.Revocations, epochErr = m.Revocations(ctx)
	s.Registry = errors.Join(s.Registry, kekErr, epochErr)
	return s
}

// Check returns nil when the registry and every provider serve.
func (m *Manager) Check(ctx context.Context) error {
	errs := []error{m.registry.Check(ctx)}
	for _, name := range slices.Sorted(maps.Keys(m.providers)) {
		errs = append(errs, m.providers[name].Check(ctx))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("kms: checking: %w", err)
	}
	return nil
}
