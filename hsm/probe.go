package hsm

import (
	"bytes"
	"crypto/rand"
	"fmt"

	"go.uber.org/zap"
)

// canary is a ciphertext that is known to decrypt under its key.
type canary struct{ plaintext, ciphertext, aad []byte }

// probe tries the default mechanism with a key that lives only in the session. A
// token that makes no such keys is probed with the first key that is used: every
// key is tested before its first use anyway.
func (t *Token) probe(a *attachment) error {
	p := aesGCM{}
	if err := p.supported(t.lib.c, a.slot); err != nil {
		return err
	}
	key, err := p.generate(t.lib.c, a.anchor, []attribute{
		{ckaToken, false}, {ckaPrivate, true}, {ckaSensitive, true}, {ckaExtractable, false},
	})
	if diagnose(err) == faultOther {
		t.log.Warn("no session keys: the mechanism is probed with the first key instead", zap.Error(err))
		return nil
	}
	if err != nil {
		return err
	}
	_, err = selfTest(p, t.lib.c, a.anchor, key)
	if destroyed := t.lib.c.destroy(a.anchor, key); err == nil {
		err = destroyed
	}
	return err
}

// selfTest finds the token's dialect and shows that under this key the same bytes
// encrypt differently each time and decrypt again, and that a changed bit and
// other associated data do not. A token is not believed: SoftHSM, for one, takes no
// IV at all without a word and encrypts deterministically.
func selfTest(p profile, c cryptoki, s sessionHandle, key objectHandle) (canary, error) {
	if err := p.dialect(c, s, key); err != nil {
		return canary{}, err
	}
	k := canary{plaintext: make([]byte, 32), aad: []byte("hsm self-test")}
	_, _ = rand.Read(k.plaintext)
	var err error
	if k.ciphertext, err = p.encrypt(c, s, key, k.plaintext, k.aad); err != nil {
		return canary{}, err
	}
	again, err := p.encrypt(c, s, key, k.plaintext, k.aad)
	if err != nil {
		return canary{}, err
	}
	if err := differ(k.ciphertext, again); err != nil {
		return canary{}, err
	}
	if err := k.refusals(p, c, s, key); err != nil {
		return canary{}, err
	}
	return k, k.sing(p, c, s, key)
}

func differ(a, b []byte) error {
	switch {
	case bytes.Equal(a, b):
		return fmt.Errorf("%w: the self-test encrypted the same bytes to the same ciphertext twice", ErrUnsafe)
	case bytes.Equal(a[:ivSize], b[:ivSize]):
		return fmt.Errorf("%w: the self-test saw the same IV twice", ErrUnsafe)
	case bytes.Equal(a[ivSize:], b[ivSize:]):
		return fmt.Errorf("%w: the token does not use the IV that it is given", ErrUnsafe)
	}
	return nil
}

// refusals shows that nothing but the right ciphertext with the right data decrypts.
func (k canary) refusals(p profile, c cryptoki, s sessionHandle, key objectHandle) error {
	for _, at := range []int{0, ivSize, len(k.ciphertext) - 1} {
		flipped := bytes.Clone(k.ciphertext)
		flipped[at] ^= 0x10
		_, err := p.decrypt(c, s, key, flipped, k.aad)
		if err := refused(err, fmt.Sprintf("with a bit of byte %d changed", at)); err != nil {
			return err
		}
	}
	_, err := p.decrypt(c, s, key, k.ciphertext, []byte("hsm other-test"))
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
func (k canary) sing(p profile, c cryptoki, s sessionHandle, key objectHandle) error {
	got, err := p.decrypt(c, s, key, k.ciphertext, k.aad)
	if err != nil {
		return fmt.Errorf("decrypting a ciphertext that is known to be good: %w", err)
	}
	if !bytes.Equal(got, k.plaintext) {
		return fmt.Errorf("%w: a ciphertext decrypted to other bytes than were encrypted", ErrUnsafe)
	}
	return nil
}
