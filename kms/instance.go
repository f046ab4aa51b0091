package kms

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"time"
)

// instance is the record of the key with which a KMS signs its reports. All Managers
// of one registry share it.
type instance struct {
	Public     []byte    `json:"public"` // Ed25519, 32 bytes
	KEK        string    `json:"kek"`
	KEKVersion uint32    `json:"kek_version"`
	Wrapped    []byte    `json:"wrapped"` // the seed, 32 bytes
	Created    time.Time `json:"created"`
}

const instancePath = "instance"

func (i instance) ref() KeyRef { return KeyRef{Name: i.KEK, Version: i.KEKVersion} }

func (i instance) binding() Binding {
	return Binding{Purpose: "instance-key", ID: hex.EncodeToString(i.Public)}
}

// InstanceKey is the public key of this KMS's reports, made at the first call.
func (m *Manager) InstanceKey(ctx context.Context) (ed25519.PublicKey, error) {
	s, err := m.ensureInstance(ctx)
	if err != nil {
		return nil, fmt.Errorf("kms: finding the instance's key: %w", err)
	}
	return s.record.Public, nil
}

func (m *Manager) ensureInstance(ctx context.Context) (s stored[instance], err error) {
	err = retry(ctx, func() error {
		s, err = readMaybe[instance](ctx, m.registry, instancePath)
		if err != nil || s.exists() {
			return err
		}
		if err := m.makeInstance(ctx, s.is); err != nil {
			return err
		}
		s, err = read[instance](ctx, m.registry, instancePath)
		return err
	})
	return s, err
}

func (m *Manager) makeInstance(ctx context.Context, is Condition) error {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	own := instance{Public: public, Created: time.Now().UTC()}
	ref, wrapped, kekIs, err := m.wrap(ctx, m.kek, own.binding(), NewSecret(private.Seed()))
	if err != nil {
		return err
	}
	own.KEK, own.KEKVersion, own.Wrapped = ref.Name, ref.Version, wrapped
	return m.commitInstance(ctx, own, is, kekIs)
}

func (m *Manager) commitInstance(ctx context.Context, own instance, is ...Condition) error {
	item, err := put(instancePath, own)
	if err != nil {
		return err
	}
	return m.registry.Commit(ctx, Transaction{If: is, Put: []Item{item}})
}

// sign signs with the instance's key.
func (m *Manager) sign(ctx context.Context, message []byte) (public ed25519.PublicKey, signature []byte, err error) {
	s, err := m.ensureInstance(ctx)
	if err != nil {
		return nil, nil, err
	}
	seed, _, err := m.unwrap(ctx, s.record.ref(), s.record.binding(), s.record.Wrapped)
	if err != nil {
		return nil, nil, err
	}
	seed.Use(func(b []byte) {
		if len(b) != ed25519.SeedSize {
			err = fmt.Errorf("%w: seed of %d bytes", ErrCorrupt, len(b))
			return
		}
		private := ed25519.NewKeyFromSeed(b)
		if !private.Public().(ed25519.PublicKey).Equal(ed25519.PublicKey(s.record.Public)) { //nolint:forcetypeassert // crypto/ed25519 promises it
			err = fmt.Errorf("%w: it is the key of another instance", ErrCorrupt)
			return
		}
		signature = ed25519.Sign(private, message)
	})
	return s.record.Public, signature, err
}

// rewrapInstance wraps the instance's key under the primary version of the default KEK.
func (m *Manager) rewrapInstance(ctx context.Context) error {
	err := retry(ctx, func() error {
		s, err := read[instance](ctx, m.registry, instancePath)
		if err != nil {
			return err
		}
		own := s.record
		ref, wrapped, kekIs, err := m.rewrap(ctx, own.ref(), m.kek, own.binding(), own.Wrapped)
		if err != nil || wrapped == nil {
			return err
		}
		own.KEK, own.KEKVersion, own.Wrapped = ref.Name, ref.Version, wrapped
		return m.commitInstance(ctx, own, s.is, kekIs)
	})
	if err != nil && !errors.Is(err, ErrNotFound) {
		return fmt.Errorf("rewrapping the instance's key: %w", err)
	}
	return nil
}
