package kms

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"
)

// NewAccessKey is what EnsureAccessKey needs.
type NewAccessKey struct {
	ID        string // 3 to 128 of A-Z, a-z, 0-9, '-', '_', '.'
	Secret    Secret // 8 to 128 bytes
	Principal string
	// Replace puts the secret and principal in the place of others, and enables
	// a disabled key again.
	Replace bool
	// Revealable keeps the secret for RevealAccessKey. Development only.
	Revealable bool
	Change     Change
}

// EnsureAccessKey makes an access key of a given id and secret. When it exists so
// already, nothing is done. With another secret or principal it is ErrExists, and
// when it was disabled ErrDisabled, unless Replace is set.
func (m *Manager) EnsureAccessKey(ctx context.Context, n NewAccessKey) error {
	if err := m.checkAccessKey(n); err != nil {
		return fmt.Errorf("kms: ensuring access key %q: %w", n.ID, err)
	}
	err := retry(ctx, func() error { return m.ensureAccessKey(ctx, n) })
	if err != nil {
		return fmt.Errorf("kms: ensuring access key %q: %w", n.ID, err)
	}
	return nil
}

// CreateAccessKey makes an access key with a fresh id and secret. The secret is
// returned here and, unless revealable, never again.
func (m *Manager) CreateAccessKey(ctx context.Context, principal string, revealable bool, by Change) (AccessKey, Secret, error) {
	n := NewAccessKey{ID: randomText(20, upper), Secret: freshSecret(), Principal: principal, Revealable: revealable, Change: by}
	err := m.checkAccessKey(n)
	if err == nil {
		err = retry(ctx, func() error { return m.writeAccessKey(ctx, n, absent(accessKeyPath(n.ID))) })
	}
	if err != nil {
		return AccessKey{}, Secret{}, fmt.Errorf("kms: creating an access key of %q: %w", principal, err)
	}
	s, err := read[AccessKey](ctx, m.registry, accessKeyPath(n.ID))
	if err != nil {
		return AccessKey{}, Secret{}, fmt.Errorf("kms: reading access key %q back: %w", n.ID, err)
	}
	return s.record, n.Secret, nil
}

// RevealAccessKey shows the secret of a key that was made revealable, or
// ErrDenied.
func (m *Manager) RevealAccessKey(ctx context.Context, id string) (Secret, error) {
	key, err := m.accessKey(ctx, id)
	if err == nil && !(key.record.Revealable && m.development) {
		err = fmt.Errorf("%w: its secret was shown once, when it was created", ErrDenied)
	}
	if err != nil {
		return Secret{}, fmt.Errorf("kms: revealing access key %q: %w", id, err)
	}
	secret, _, err := m.unwrap(ctx, key.record.ref(), key.record.binding(), key.record.Wrapped)
	if err != nil {
		return Secret{}, fmt.Errorf("kms: revealing access key %q: %w", id, err)
	}
	m.log.Warn("the secret of an access key was revealed", zap.String("access_key", id))
	return secret, nil
}

// AccessKeys lists all access keys by id, secrets wrapped.
func (m *Manager) AccessKeys(ctx context.Context) ([]AccessKey, error) {
	all, err := list[AccessKey](ctx, m.registry, accessKeyPath(""))
	if err != nil {
		return nil, fmt.Errorf("kms: listing access keys: %w", err)
	}
	return records(all), nil
}

func (m *Manager) accessKey(ctx context.Context, id string) (stored[AccessKey], error) {
	if err := checkAccessKeyID(id); err != nil {
		return stored[AccessKey]{}, err
	}
	return read[AccessKey](ctx, m.registry, accessKeyPath(id))
}

func (m *Manager) checkAccessKey(n NewAccessKey) error {
	errs := []error{checkAccessKeyID(n.ID), checkSecret(n.Secret), checkPrincipal(n.Principal), n.Change.validate()}
	if n.Revealable && !m.development {
		errs = append(errs, fmt.Errorf("%w: revealable access keys are for development only", ErrDenied))
	}
	return errors.Join(errs...)
}

func (m *Manager) ensureAccessKey(ctx context.Context, n NewAccessKey) error {
	old, err := readMaybe[AccessKey](ctx, m.registry, accessKeyPath(n.ID))
	if err != nil {
		return err
	}
	if !old.exists() {
		return m.writeAccessKey(ctx, n, old.is)
	}
	err = m.sameAccessKey(ctx, n, old.record)
	replaceable := errors.Is(err, ErrExists) || errors.Is(err, ErrDisabled)
	if replaceable && n.Replace {
		return m.writeAccessKey(ctx, n, old.is)
	}
	return err
}

// sameAccessKey returns nil when the record is what n asks for.
func (m *Manager) sameAccessKey(ctx context.Context, n NewAccessKey, old AccessKey) error {
	if old.Status != KeyEnabled {
		return fmt.Errorf("%w: it was disabled", ErrDisabled)
	}
	secret, _, err := m.unwrap(ctx, old.ref(), old.binding(), old.Wrapped)
	if err != nil {
		return err
	}
	if !secret.Equal(n.Secret) {
		return fmt.Errorf("%w: with another secret", ErrExists)
	}
	if old.Principal != n.Principal || old.Revealable != n.Revealable {
		return fmt.Errorf("%w: for principal %q, revealable: %t", ErrExists, old.Principal, old.Revealable)
	}
	return nil
}

// writeAccessKey records an access key where is holds. When it takes the place of
// another, gateways are told.
func (m *Manager) writeAccessKey(ctx context.Context, n NewAccessKey, is Condition) error {
	key := AccessKey{
		ID: n.ID, Principal: n.Principal, Status: KeyEnabled, Revealable: n.Revealable, Created: time.Now().UTC(),
	}
	key.note("created", n.Change)
	ref, wrapped, kekIs, err := m.wrap(ctx, m.kek, key.binding(), n.Secret)
	if err != nil {
		return err
	}
	key.KEK, key.KEKVersion, key.Wrapped = ref.Name, ref.Version, wrapped
	item, err := put(is.Key, key)
	if err != nil {
		return err
	}
	t := Transaction{If: []Condition{is, kekIs}, Put: []Item{item}}
	if is.Revision != 0 {
		if err := m.revoke(ctx, &t); err != nil {
			return err
		}
	}
	if err := m.registry.Commit(ctx, t); err != nil {
		return err
	}
	m.log.Info("access key written", zap.String("access_key", key.ID), zap.String("principal", key.Principal))
	return nil
}

// freshSecret is 40 random characters, about 206 bits.
func freshSecret() Secret { return NewSecret([]byte(randomText(40, upper+lower))) }

const (
	upper = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
	lower = "abcdefghijklmnopqrstuvwxyz"
)

// randomText draws n characters of an alphabet, each as likely as any other.
func randomText(n int, alphabet string) string {
	out := make([]byte, 0, n)
	limit := byte(256 - 256%len(alphabet))
	for len(out) < n {
		var draw [64]byte
		_, _ = rand.Read(draw[:]) // never fails
		for _, d := range draw {
			if d < limit && len(out) < n {
				out = append(out, alphabet[int(d)%len(alphabet)])
			}
		}
	}
	return string(out)
}
