package kms

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.uber.org/zap"
)

// A user is a principal that has access keys. There is no record of users beside
// those of their access keys, and no password: what a user may do is for the access
// policies to say.

// Bounds of the time for which two secrets of an access key are live.
const (
	DefaultOverlap = 24 * time.Hour
	maxOverlap     = 90 * 24 * time.Hour
)

// AccessKeysOf lists the access keys of a principal, or the one of an id. ErrNotFound
// when there is none.
func (m *Manager) AccessKeysOf(ctx context.Context, user string) ([]AccessKey, error) {
	found, err := m.accessKeysOf(ctx, user)
	if err != nil {
		return nil, fmt.Errorf("kms: finding user %q: %w", user, err)
	}
	return records(found), nil
}

func (m *Manager) accessKeysOf(ctx context.Context, user string) ([]stored[AccessKey], error) {
	all, err := list[AccessKey](ctx, m.registry, accessKeyPath(""))
	if err != nil {
		return nil, err
	}
	found := slices.DeleteFunc(all, func(s stored[AccessKey]) bool {
		return s.record.ID != user && s.record.Principal != user
	})
	if i := slices.IndexFunc(found, func(s stored[AccessKey]) bool { return s.record.ID == user }); i >= 0 {
		return found[i : i+1], nil // whatever principals are called
	}
	if len(found) == 0 {
		return nil, ErrNotFound
	}
	return found, nil
}

// CreateUser makes the first access key of a principal, as CreateAccessKey does.
// ErrExists when it has one, unless another is wanted.
func (m *Manager) CreateUser(ctx context.Context, principal string, another bool, by Change) (AccessKey, Secret, error) {
	if !another {
		_, err := m.AccessKeysOf(ctx, principal)
		if err == nil {
			return AccessKey{}, Secret{}, fmt.Errorf("kms: creating user %q: %w", principal, ErrExists)
		}
		if !errors.Is(err, ErrNotFound) {
			return AccessKey{}, Secret{}, err
		}
	}
	return m.CreateAccessKey(ctx, principal, false, by)
}

// RotateSecret gives an access key a new secret, which is returned this once. The one
// before stays live for the overlap: 0 ends it at once, and 90 days are the most. A
// third one, from an earlier change, ends now. ErrDisabled when the key is disabled.
func (m *Manager) RotateSecret(ctx context.Context, id string, overlap time.Duration, by Change) (AccessKey, Secret, error) {
	var key AccessKey
	secret, err := freshSecret(), by.validate()
	if overlap < 0 || overlap > maxOverlap {
		err = errors.Join(err, fmt.Errorf("%w: two secrets live for %v: want 0 to %v", ErrInvalid, overlap, maxOverlap))
	}
	if err == nil {
		err = retry(ctx, func() error {
			s, err := m.accessKey(ctx, id)
			if err != nil {
				return err
			}
			key, err = m.rotateSecret(ctx, s, secret, overlap, by)
			return err
		})
	}
	if err != nil {
		return AccessKey{}, Secret{}, fmt.Errorf("kms: changing the secret of access key %q: %w", id, err)
	}
	m.log.Info("access key has a new secret", zap.String("access_key", id), zap.Duration("overlap", overlap), zap.String("actor", by.actor()))
	return key, secret, nil
}

func (m *Manager) rotateSecret(ctx context.Context, s stored[AccessKey], secret Secret, overlap time.Duration, by Change) (AccessKey, error) {
	key := s.record
	if key.Status != KeyEnabled {
		return key, fmt.Errorf("%w: enable the access key first", ErrDisabled)
	}
	before, _, err := m.unwrap(ctx, key.ref(), key.binding(), key.Wrapped)
	if err != nil {
		return key, err
	}
	ref, wrapped, kekIs, err := m.wrap(ctx, m.kek, key.binding(), secret)
	if err != nil {
		return key, err
	}
	key.KEK, key.KEKVersion, key.Wrapped, key.Old = ref.Name, ref.Version, wrapped, nil
	if overlap > 0 {
		if key.Old, err = m.keepOld(ctx, ref, key, before, overlap); err != nil {
			return key, err
		}
	}
	key.note("secret changed", by)
	return key, m.commitAccessKeys(ctx, []Condition{s.is, kekIs}, key)
}

// keepOld wraps the secret before under the version that the new one is wrapped under.
func (m *Manager) keepOld(ctx context.Context, ref KeyRef, key AccessKey, before Secret, overlap time.Duration) (*OldSecret, error) {
	clock, err := m.clock(ctx)
	if err != nil {
		return nil, err
	}
	got, wrapped, _, err := m.wrap(ctx, ref.Name, key.binding(), before)
	if err != nil {
		return nil, err
	}
	if got != ref {
		return nil, fmt.Errorf("%w: the KEK was rotated", ErrConflict)
	}
	return &OldSecret{Wrapped: wrapped, Ends: time.Now().UTC().Add(overlap), EndsClock: clock + overlap + slack(overlap)}, nil
}

// left is how long the old secret is live still, at most 0 when it has ended.
func (o *OldSecret) left(now time.Time, clock time.Duration) time.Duration {
	if o == nil {
		return 0
	}
	return min(o.Ends.Sub(now), o.EndsClock-clock)
}

// oldSecret opens the secret before, and says how long it is live; 0 for none.
func (m *Manager) oldSecret(ctx context.Context, key AccessKey) (Secret, time.Duration, error) {
	if key.Old == nil {
		return Secret{}, 0, nil
	}
	clock, err := m.clock(ctx)
	if err != nil {
		return Secret{}, 0, err
	}
	left := key.Old.left(time.Now(), clock)
	if left <= 0 {
		return Secret{}, 0, nil
	}
	secret, _, err := m.unwrap(ctx, key.ref(), key.binding(), key.Old.Wrapped)
	return secret, left, err
}

// EndOldSecret ends the life of the secret before at once. ErrInvalid when there is
// none.
func (m *Manager) EndOldSecret(ctx context.Context, id string, by Change) (AccessKey, error) {
	keys, err := m.editAccessKeys(ctx, id, by, func(key *AccessKey) (bool, error) {
		if key.ID != id {
			return false, nil
		}
		if key.Old == nil {
			return false, fmt.Errorf("%w: access key %q has one secret only", ErrInvalid, id)
		}
		key.Old = nil
		key.note("old secret ended", by)
		return true, nil
	})
	if err != nil {
		return AccessKey{}, fmt.Errorf("kms: ending the old secret of access key %q: %w", id, err)
	}
	return keys[0], nil
}

// SetUserStatus enables or disables all access keys of a principal, or the one of an
// id. Gateways learn of it at once. It may be said again.
func (m *Manager) SetUserStatus(ctx context.Context, user string, status KeyStatus, by Change) ([]AccessKey, error) {
	if status != KeyEnabled && status != KeyDisabled {
		return nil, fmt.Errorf("kms: changing user %q: %w: status %q", user, ErrInvalid, status)
	}
	event := map[KeyStatus]string{KeyEnabled: "enabled", KeyDisabled: "disabled"}[status]
	keys, err := m.editAccessKeys(ctx, user, by, func(key *AccessKey) (bool, error) {
		if key.Status == status {
			return false, nil
		}
		key.Status = status
		key.note(event, by)
		return true, nil
	})
	if err != nil {
		return nil, fmt.Errorf("kms: changing user %q: %w", user, err)
	}
	m.log.Info("user "+event, zap.String("user", user), zap.String("actor", by.actor()), zap.String("reason", by.Reason))
	return keys, nil
}

// DisableAccessKey ends the use of an access key. Gateways learn of it with the
// revocation epoch. It may be said again.
func (m *Manager) DisableAccessKey(ctx context.Context, id string, by Change) error {
	if _, err := m.accessKey(ctx, id); err != nil {
		return fmt.Errorf("kms: disabling access key %q: %w", id, err)
	}
	_, err := m.SetUserStatus(ctx, id, KeyDisabled, by)
	return err
}

// editAccessKeys has f change the access keys of a user, and records those that it
// did change in one transaction.
func (m *Manager) editAccessKeys(ctx context.Context, user string, by Change, f func(*AccessKey) (changed bool, err error)) ([]AccessKey, error) {
	if err := by.validate(); err != nil {
		return nil, err
	}
	var out []AccessKey
	err := retry(ctx, func() error {
		found, err := m.accessKeysOf(ctx, user)
		if err != nil {
			return err
		}
		out = nil
		var is []Condition
		var changed []AccessKey
		for _, s := range found {
			edited, err := f(&s.record)
			if err != nil {
				return err
			}
			if edited {
				is, changed = append(is, s.is), append(changed, s.record)
			}
			out = append(out, s.record)
		}
		if len(changed) == 0 {
			return nil
		}
		return m.commitAccessKeys(ctx, is, changed...)
	})
	return out, err
}

// commitAccessKeys records changed access keys, and tells gateways.
func (m *Manager) commitAccessKeys(ctx context.Context, is []Condition, keys ...AccessKey) error {
	t := Transaction{If: is}
	for _, key := range keys {
		item, err := put(accessKeyPath(key.ID), key)
		if err != nil {
			return err
		}
		t.Put = append(t.Put, item)
	}
	if err := m.revoke(ctx, &t); err != nil {
		return err
	}
	return m.registry.Commit(ctx, t)
}

// note writes a line of history.
func (k *AccessKey) note(event string, by Change) {
	k.History = remember(k.History, StateChange{Event: event, At: time.Now().UTC(), Actor: by.actor(), Reason: by.Reason})
}
