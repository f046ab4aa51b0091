package kms

import (
	"bytes"
	"cmp"
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"go.uber.org/zap"

	"chatelaine/kms/offline"
)

// RecoveryCopy is a bucket key wrapped a second time, so that it can be had when the
// provider of its KEK is lost. It is under an offline RSA key, or under a KEK that
// another provider holds: RSA or KEK is set, never both.
//
// The KMS makes and checks it, and opens it for a Recovery alone.
type RecoveryCopy struct {
	// RSA is the fingerprint of the public key (offline.PublicKey.Fingerprint).
	RSA string `json:"rsa,omitempty"`
	// KEK and KEKVersion name the recovery KEK's version.
	KEK        string `json:"kek,omitempty"`
	KEKVersion uint32 `json:"kek_version,omitempty"`
	Wrapped    []byte `json:"wrapped"`
	// Signer is the Ed25519 key of the installation that made a copy under RSA, and
	// Signature its word for it: whoever knows a public key could wrap under it.
	Signer    []byte `json:"signer,omitempty"`
	Signature []byte `json:"signature,omitempty"`
}

// ref is the KEK version that the copy is under; zero where it is under an RSA key.
func (c *RecoveryCopy) ref() KeyRef {
	if c == nil {
		return KeyRef{}
	}
	return KeyRef{Name: c.KEK, Version: c.KEKVersion}
}

// equal says whether two copies are the same, or both are none.
func (c *RecoveryCopy) equal(other *RecoveryCopy) bool {
	if c == nil || other == nil {
		return c == other
	}
	return c.RSA == other.RSA && c.ref() == other.ref() && bytes.Equal(c.Wrapped, other.Wrapped) &&
		bytes.Equal(c.Signer, other.Signer) && bytes.Equal(c.Signature, other.Signature)
}

func (c *RecoveryCopy) validate() error {
	if c == nil {
		return nil
	}
	if len(c.Wrapped) == 0 || (c.RSA == "") == (c.KEK == "") {
		return fmt.Errorf("%w: a recovery copy with nothing in it, or under nothing, or under two keys", ErrInvalid)
	}
	if c.KEK != "" {
		if c.KEKVersion == 0 || len(c.Signer)+len(c.Signature) > 0 {
			return fmt.Errorf("%w: a recovery copy under a KEK without a version, or with a signature", ErrInvalid)
		}
		return checkName("recovery KEK", c.KEK)
	}
	if !offline.IsFingerprint(c.RSA) || c.KEKVersion != 0 || len(c.Signer) != ed25519.PublicKeySize || len(c.Signature) != ed25519.SignatureSize {
		return fmt.Errorf("%w: a recovery copy under an RSA key without its fingerprint or a signature", ErrInvalid)
	}
	return nil
}

// recoveryLabel is the OAEP label of a bucket key's copy: "cho1/recovery" 00, then as
// u32 big-endian length and bytes the version of this form, the space, the key's id in
// hex, its epoch in decimal, and the fingerprint of the RSA key.
func recoveryLabel(k BucketKey, fingerprint string) []byte {
	out := append([]byte("cho1/recovery"), 0)
	for _, field := range []string{"1", k.Space, k.ID.String(), strconv.FormatUint(k.Epoch, 10), fingerprint} {
		out = binary.BigEndian.AppendUint32(out, uint32(len(field)))
		out = append(out, field...)
	}
	return out
}

// recoveryMessage is what is signed of a copy: "chatelaine recovery copy" 00, the
// label's length as u32 big-endian, the label, and what was wrapped under it.
func recoveryMessage(label, wrapped []byte) []byte {
	out := append([]byte("chatelaine recovery copy"), 0)
	out = binary.BigEndian.AppendUint32(out, uint32(len(label)))
	return append(append(out, label...), wrapped...)
}

// recoveryBinding binds a copy under a KEK to the same things as recoveryLabel.
func (k BucketKey) recoveryBinding() Binding {
	return Binding{Purpose: "recovery", Space: k.Space, ID: k.ID.String() + "/" + strconv.FormatUint(k.Epoch, 10)}
}

// RecoveryState says how a bucket key could be had without the provider of its KEK.
type RecoveryState string

// The states of a recovery copy.
const (
	RecoveryUnset RecoveryState = ""     // it has none, and none is configured
	RecoveryKept  RecoveryState = "yes"  // it is under the key that is configured
	RecoveryLacks RecoveryState = "none" // it was made before one was configured: the rewrapping makes one
	RecoveryOld   RecoveryState = "old"  // it is under another key than the configured one, or none is
)

// RecoveryHome is where recovery copies belong. The zero value is nowhere.
type RecoveryHome struct {
	rsa string
	kek KeyRef
}

// RecoveryHome is where the configuration, and the recovery KEK's record, have it now.
func (m *Manager) RecoveryHome(ctx context.Context) (RecoveryHome, error) {
	if m.recovery.Key != nil {
		return RecoveryHome{rsa: m.recovery.Key.Fingerprint()}, nil
	}
	if m.recovery.KEK == "" {
		return RecoveryHome{}, nil
	}
	kek, err := m.kekRecord(ctx, m.recovery.KEK)
	if err != nil {
		return RecoveryHome{}, fmt.Errorf("finding the recovery KEK: %w", err)
	}
	return RecoveryHome{kek: kek.record.Ref(kek.record.Primary)}, nil
}

// State says where a bucket key's copy is.
func (h RecoveryHome) State(k BucketKey) RecoveryState {
	c := k.Recovery
	switch {
	case c == nil && (h == RecoveryHome{} || k.KEK == CanaryKEK):
		return RecoveryUnset
	case c == nil:
		return RecoveryLacks
	case h != RecoveryHome{} && c.RSA == h.rsa && c.ref() == h.kek:
		return RecoveryKept
	}
	return RecoveryOld
}

// wanting says whether a copy is to be made, also in the place of another.
func (h RecoveryHome) wanting(k BucketKey) bool {
	state := h.State(k)
	return h != RecoveryHome{} && (state == RecoveryLacks || state == RecoveryOld)
}

// copyFor wraps a bucket key for a recovery, or returns nil where none is configured.
// The transaction that records it must hold on the conditions.
//
// What cannot be wrapped so is an error, and not a key without a copy: that would be
// noticed on the day when it is needed.
func (m *Manager) copyFor(ctx context.Context, k BucketKey, secret Secret) (*RecoveryCopy, []Condition, error) {
	var c *RecoveryCopy
	var is []Condition
	var err error
	switch {
	case k.KEK == CanaryKEK: // nothing is sealed under its keys
	case m.recovery.Key != nil:
		c, err = m.copyUnderRSA(ctx, k, secret)
	case m.recovery.KEK != "":
		var ref KeyRef
		var kekIs Condition
		c = &RecoveryCopy{}
		ref, c.Wrapped, kekIs, err = m.wrap(ctx, m.recovery.KEK, k.recoveryBinding(), secret)
		c.KEK, c.KEKVersion, is = ref.Name, ref.Version, []Condition{kekIs}
	}
	if err != nil {
		return nil, nil, fmt.Errorf("wrapping it for a recovery: %w", err)
	}
	return c, is, nil
}

func (m *Manager) copyUnderRSA(ctx context.Context, k BucketKey, secret Secret) (*RecoveryCopy, error) {
	c := &RecoveryCopy{RSA: m.recovery.Key.Fingerprint()}
	label := recoveryLabel(k, c.RSA)
	var err error
	secret.Use(func(plain []byte) { c.Wrapped, err = m.recovery.Key.Wrap(label, plain) })
	if err != nil {
		return nil, err
	}
	c.Signer, c.Signature, err = m.sign(ctx, recoveryMessage(label, c.Wrapped))
	return c, err
}

// OpenRecovery opens a mirror's copy with the offline key, where one of the signers, by
// Fingerprint, has signed it. Nothing else in the mirror is true for that but the space,
// the key's id and its epoch. ErrNotFound without a copy, ErrDenied for another signer,
// ErrCorrupt for another key and for what was swapped or changed.
func (m Mirror) OpenRecovery(key *offline.PrivateKey, signers []string) (Secret, error) {
	secret, err := m.openRecovery(key, signers)
	if err != nil {
		return Secret{}, fmt.Errorf("kms: opening the recovery copy of key %s: %w", m.ID, err)
	}
	return secret, nil
}

func (m Mirror) openRecovery(key *offline.PrivateKey, signers []string) (Secret, error) {
	c := m.Recovery
	switch {
	case c == nil:
		return Secret{}, fmt.Errorf("it has none, and only its HSM opens it: %w", ErrNotFound)
	case c.RSA == "":
		return Secret{}, fmt.Errorf("it is under KEK %s, not under an RSA key: %w", c.ref(), ErrNotFound)
	case c.RSA != key.Public().Fingerprint():
		return Secret{}, fmt.Errorf("%w: it is under RSA key %s, and this one is %s", ErrCorrupt, c.RSA, key.Public().Fingerprint())
	}
	label := recoveryLabel(m.key(), c.RSA)
	if !ed25519.Verify(c.Signer, recoveryMessage(label, c.Wrapped), c.Signature) {
		return Secret{}, fmt.Errorf("%w: its signature is wrong: it was changed, or belongs to another key", ErrCorrupt)
	}
	if signer := Fingerprint(c.Signer); !slices.Contains(signers, signer) {
		return Secret{}, fmt.Errorf("%w: it is signed by %s", ErrDenied, signer)
	}
	secret, err := key.Unwrap(label, c.Wrapped)
	if err != nil {
		return Secret{}, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return NewSecret(secret), nil
}

// RecoveryConfig says what each bucket key is wrapped under a second time. The zero
// value is nothing; both are refused.
type RecoveryConfig struct {
	// Key is an RSA key whose private part is offline.
	Key *offline.PublicKey
	// KEK is a KEK that another provider than the default one holds. No bucket can be
	// put under it. EnsureRecoveryKEK must have been called before the first key is made.
	KEK string
}

func (c RecoveryConfig) validate(defaultKEK string) error {
	if c.KEK == "" {
		return nil
	}
	errs := []error{checkNewKEK(c.KEK)}
	if c.Key != nil {
		errs = append(errs, fmt.Errorf("%w: a recovery KEK beside an RSA key", ErrInvalid))
	}
	if c.KEK == defaultKEK || c.KEK == CanaryKEK {
		errs = append(errs, fmt.Errorf("%w: KEK %q cannot be the recovery KEK too", ErrInvalid, c.KEK))
	}
	return errors.Join(errs...)
}

// EnsureRecoveryKEK makes the recovery KEK in a provider, where there is none. One that
// the provider holds and the registry does not know is adopted: that is how it is after
// the loss for which it is there. ErrInvalid where the registry has it elsewhere.
func (m *Manager) EnsureRecoveryKEK(ctx context.Context, provider string) (KEK, error) {
	kek, err := m.ensureRecoveryKEK(ctx, provider)
	if err != nil {
		return KEK{}, fmt.Errorf("kms: finding or making the recovery KEK %q: %w", m.recovery.KEK, err)
	}
	return kek, nil
}

func (m *Manager) ensureRecoveryKEK(ctx context.Context, provider string) (KEK, error) {
	name, by := m.recovery.KEK, KEKOptions{Provider: provider, Change: Change{Reason: "it is the recovery KEK of the configuration"}}
	s, err := readMaybe[KEK](ctx, m.registry, kekPath(name))
	if err == nil && !s.exists() {
		_, err = m.AdoptKEK(ctx, name, by)
		switch {
		case errors.Is(err, ErrNotFound):
			_, err = m.EnsureKEKOf(ctx, name, by)
		case errors.Is(err, ErrConflict): // another KMS was faster
			err = nil
		}
	}
	if err == nil {
		s, err = read[KEK](ctx, m.registry, kekPath(name))
	}
	if err == nil && s.record.Primary == 0 { // another KMS is making it
		s.record, err = m.EnsureKEKOf(ctx, name, by)
	}
	if err != nil {
		return KEK{}, err
	}
	if held := s.record.Provider; held != cmp.Or(provider, m.provider) {
		return KEK{}, fmt.Errorf("%w: provider %q holds it, and the configuration says %q: `chatelaine key migrate` moves it, or choose another name", ErrInvalid, held, provider)
	}
	m.warnOfOneProvider(ctx, s.record)
	return s.record, nil
}

// warnOfOneProvider tells of a recovery KEK that would be lost with what it is for.
func (m *Manager) warnOfOneProvider(ctx context.Context, recovery KEK) {
	kek, err := m.kekRecord(ctx, m.kek)
	if err == nil && kek.record.Provider == recovery.Provider {
		m.log.Warn("the default KEK and the recovery KEK are with one provider, and would be lost together",
			zap.String("kek", m.kek), zap.String("recovery_kek", recovery.Name), zap.String("provider", recovery.Provider))
	}
}
