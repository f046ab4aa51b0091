package hsm

import (
	"bytes"
	"crypto/rand"
	"fmt"

	"go.uber.org/zap"
)

// canary is a ciphertext that is known to decrypt under its key.
type canary struct{ plaintext, ciphertext, aad []byte }

// probe tries the configured mechanism with a key that lives only in the session. A
// token that makes no such keys, or for this user makes none, is probed with the
// first key that is used: every key is tested before its first use anyway.
func (t *Token) probe(a *attachment) error {
	p, err := a.profiles.of(t.cfg.Mechanism)
	if err == nil {
		err = p.supported(t.lib.c, a.slot)
	}
	if err != nil {
		return err
	}
	m, err := p.generate(t.lib.c, a.anchor, "chatelaine-probe", []attribute{
		{ckaToken, false}, {ckaPrivate, true}, {ckaSensitive, true}, {ckaExtractable, false},
	})
	// Of a refusal the codes are many, and some are those of a lost device: that is
	// seen soon enough.
	if fault := diagnose(err); fault == faultOther || fault == faultAmbiguous || hasCode(err, ckrUserNotLoggedIn) {
		t.log.Warn("no session keys: the mechanism is probed with the first key instead", zap.Error(err))
		return nil
	}
	if err != nil {
		return err
	}
	if err = p.complete(t.lib.c, a.anchor, &m); err == nil {
		_, _, err = selfTest(p, t.lib.c, a.anchor, m)
	}
	if paramRefused(err) {
		err = fmt.Errorf("%w: the token does not do %s: %w", ErrUnsupported, t.cfg.Mechanism, err)
	}
	if destroyed := destroyAll(t.lib.c, a.anchor, m.handles()); err == nil {
		err = destroyed
	}
	return err
}

// selfTest finds the token's dialect and shows that under this key the same bytes
// encrypt differently each time and decrypt again, and that a changed bit and
// other associated data do not. A token is not believed: SoftHSM, for one, takes no
// IV at all without a word and encrypts deterministically. It returns the profile in
// the token's dialect.
func selfTest(p profile, c cryptoki, s sessionHandle, m material) (profile, canary, error) {
	p, err := p.dialect(c, s, m)
	if err != nil {
		return nil, canary{}, err
	}
	k := canary{plaintext: make([]byte, 32), aad: []byte("hsm self-test")}
	_, _ = rand.Read(k.plaintext)
	if k.ciphertext, err = p.encrypt(c, s, m, k.plaintext, k.aad); err != nil {
		return nil, canary{}, err
	}
	again, err := p.encrypt(c, s, m, k.plaintext, k.aad)
	if err != nil {
		return nil, canary{}, err
	}
	if err := differ(k.ciphertext, again, p.nonceSize()); err != nil {
		return nil, canary{}, err
	}
	if err := k.refusals(p, c, s, m); err != nil {
		return nil, canary{}, err
	}
	return p, k, k.sing(p, c, s, m)
}

func differ(a, b []byte, nonce int) error {
	switch {
	case bytes.Equal(a, b):
		return fmt.Errorf("%w: the self-test encrypted the same bytes to the same ciphertext twice", ErrUnsafe)
	case nonce > 0 && bytes.Equal(a[:nonce], b[:nonce]):
		return fmt.Errorf("%w: the self-test saw the same IV twice", ErrUnsafe)
	case bytes.Equal(a[nonce:], b[nonce:]):
		return fmt.Errorf("%w: the token does not use the IV that it is given", ErrUnsafe)
	}
	return nil
}

// refusals shows that nothing but the right ciphertext with the right data decrypts.
func (k canary) refusals(p profile, c cryptoki, s sessionHandle, m material) error {
	for _, at := range []int{0, p.nonceSize() + 1, len(k.ciphertext) - 1} {
		flipped := bytes.Clone(k.ciphertext)
		flipped[at] ^= 0x10
		_, err := p.decrypt(c, s, m, flipped, k.aad)
		if err := refused(err, fmt.Sprintf("with a bit of byte %d changed", at)); err != nil {
			return err
		}
	}
	_, err := p.decrypt(c, s, m, k.ciphertext, []byte("hsm other-test"))
	return refused(err, "under other associated data")
}

// refused turns a decryption that must fail into its verdict.
func refused(err error, what string) error {
	switch diagnose(err) {
	case faultData, faultAmbiguous, faultOther:
		return nil
	case faultNone:
		return fmt.Errorf("%w: the self-test decrypted a ciphertext %s", ErrUnsafe, what)
	}
	return err
}

// sing decrypts the canary: nil means that the device and the key are well.
func (k canary) sing(p profile, c cryptoki, s sessionHandle, m material) error {
	got, err := p.decrypt(c, s, m, k.ciphertext, k.aad)
	if err != nil {
		return fmt.Errorf("decrypting a ciphertext that is known to be good: %w", err)
	}
	if !bytes.Equal(got, k.plaintext) {
		return fmt.Errorf("%w: a ciphertext decrypted to other bytes than were encrypted", ErrUnsafe)
	}
	return nil
}
