package hsm

import (
	"crypto/rand"
	"errors"
	"fmt"
)

// Mechanism names a way to encrypt under a key, with the kind of key it needs.
type Mechanism string

// AESGCM is AES-256-GCM with a random 96-bit IV from this machine's generator and a
// 128-bit tag. Ciphertext: IV (12 bytes), then the encrypted bytes, then the tag
// (16). NIST SP 800-38D, 8.3, allows 2^32 encryptions under one key.
const AESGCM Mechanism = "aes-gcm"

// profile is how a mechanism is spoken: the calls, and the keys it needs.
type profile interface {
	// supported finds out whether the token has the mechanism.
	supported(c cryptoki, slot uint) error
	// generate makes a key with these attributes beside the mechanism's own.
	generate(c cryptoki, s sessionHandle, extra []attribute) (objectHandle, error)
	// template matches the mechanism's keys in a search.
	template() []attribute
	// verify checks the attributes that this kind of key must have.
	verify(c cryptoki, s sessionHandle, key objectHandle) error
	// dialect finds out, with a key, whether the token does it as encrypt expects.
	dialect(c cryptoki, s sessionHandle, key objectHandle) error
	encrypt(c cryptoki, s sessionHandle, key objectHandle, plaintext, aad []byte) ([]byte, error)
	decrypt(c cryptoki, s sessionHandle, key objectHandle, ciphertext, aad []byte) ([]byte, error)
}

// profileOf returns the profile of a mechanism that we know.
func profileOf(m Mechanism) (profile, error) {
	if m == AESGCM {
		return aesGCM{}, nil
	}
	return nil, fmt.Errorf("%w: mechanism %q", ErrUnsupported, m)
}

const (
	ivSize  = 12
	tagSize = 16
	keySize = 32

	// gcmRoom is how many bytes an answer may be longer than its input: a tag, an
	// IV that the token adds, and more. NSS answers a size that is too small when
	// asked for one, so it is never asked.
	gcmRoom = 64
)

// aesGCM is AESGCM in the dialect in which the caller gives the IV.
type aesGCM struct{}

func (aesGCM) supported(c cryptoki, slot uint) error {
	flags, err := c.mechanismFlags(slot, ckmAESGCM)
	if hasCode(err, ckrMechanismInvalid) || err == nil && flags&(ckfEncrypt|ckfDecrypt) != ckfEncrypt|ckfDecrypt {
		return fmt.Errorf("%w: the token does not encrypt and decrypt with CKM_AES_GCM", ErrUnsupported)
	}
	return err
}

func (g aesGCM) generate(c cryptoki, s sessionHandle, extra []attribute) (objectHandle, error) {
	return c.generateKey(s, ckmAESKeyGen, append(append(g.template(),
		attribute{ckaValueLen, uint(keySize)},
		attribute{ckaEncrypt, true}, attribute{ckaDecrypt, true},
		attribute{ckaWrap, false}, attribute{ckaUnwrap, false},
		attribute{ckaSign, false}, attribute{ckaVerify, false}, attribute{ckaDerive, false},
	), extra...))
}

func (aesGCM) template() []attribute {
	return []attribute{{ckaClass, uint(ckoSecretKey)}, {ckaKeyType, uint(ckkAES)}}
}

func (aesGCM) verify(c cryptoki, s sessionHandle, key objectHandle) error {
	value, err := c.attribute(s, key, ckaValueLen)
	if err != nil {
		return unreadable("CKA_VALUE_LEN", err)
	}
	if size, ok := ulong(value); !ok || size != keySize {
		return fmt.Errorf("%w: CKA_VALUE_LEN is not %d", ErrUnsafe, keySize)
	}
	return nil
}

func (aesGCM) encrypt(c cryptoki, s sessionHandle, key objectHandle, plaintext, aad []byte) ([]byte, error) {
	iv := make([]byte, ivSize, ivSize+len(plaintext)+tagSize)
	_, _ = rand.Read(iv) // never fails
	sealed, err := c.encryptGCM(s, key, gcmCall{iv: iv, aad: aad}, plaintext)
	if err != nil {
		return nil, err
	}
	if len(sealed) != len(plaintext)+tagSize {
		return nil, fmt.Errorf("%w: AES-GCM made %d bytes of %d", ErrUnsafe, len(sealed), len(plaintext))
	}
	return append(iv, sealed...), nil
}

func (aesGCM) decrypt(c cryptoki, s sessionHandle, key objectHandle, ciphertext, aad []byte) ([]byte, error) {
	if len(ciphertext) < ivSize+tagSize {
		return nil, fmt.Errorf("%w: %d bytes are too few", ErrCorrupt, len(ciphertext))
	}
	return c.decryptGCM(s, key, gcmCall{iv: ciphertext[:ivSize:ivSize], aad: aad}, ciphertext[ivSize:])
}

// ivDialect is who makes the IV of AES-GCM, and where it is then found.
type ivDialect string

const (
	callersIV   ivDialect = "takes the caller's IV"
	readBackIV  ivDialect = "makes the IV itself and writes it back (as CloudHSM and nShield do)"
	appendedIV  ivDialect = "makes the IV itself and appends it (as Luna does in FIPS mode)"
	prependedIV ivDialect = "makes the IV itself and puts it in front"
)

// dialect refuses every token that does not take the caller's IV.
func (aesGCM) dialect(c cryptoki, s sessionHandle, key objectHandle) error {
	found, err := probeIV(c, s, key)
	if err != nil {
		return err
	}
	if found != callersIV {
		return fmt.Errorf("%w: for AES-GCM this token %s; only tokens that take the caller's IV are supported", ErrUnsupported, found)
	}
	return nil
}

// probeIV offers IVs as the known kinds of tokens want them, and looks at what
// comes back. Whether it also decrypts is the self-test's matter.
func probeIV(c cryptoki, s sessionHandle, key objectHandle) (ivDialect, error) {
	random := make([]byte, ivSize)
	_, _ = rand.Read(random)
	var refusals []error
	for _, offered := range [][]byte{random, make([]byte, ivSize), nil} {
		found, err := offerIV(c, s, key, offered)
		if err == nil || !paramRefused(err) {
			return found, err
		}
		refusals = append(refusals, err)
	}
	return "", fmt.Errorf("%w: the token takes AES-GCM in no way that we know: %w", ErrUnsupported, errors.Join(refusals...))
}

func paramRefused(err error) bool {
	return hasCode(err, ckrMechanismParamInvalid, ckrArgumentsBad, ckrMechanismInvalid)
}

func offerIV(c cryptoki, s sessionHandle, key objectHandle, offered []byte) (ivDialect, error) {
	plaintext, iv := make([]byte, 32), append([]byte(nil), offered...)
	out, err := c.encryptGCM(s, key, gcmCall{iv: iv}, plaintext)
	switch {
	case err != nil:
		return "", err
	case len(out) == len(plaintext)+tagSize && string(iv) != string(offered):
		return readBackIV, nil
	case len(out) == len(plaintext)+tagSize && len(offered) > 0:
		return callersIV, nil
	case len(out) == len(plaintext)+tagSize+ivSize:
		return whereIV(c, s, key, out)
	}
	return "", fmt.Errorf("%w: AES-GCM made %d bytes of %d", ErrUnsupported, len(out), len(plaintext))
}

// whereIV tells an appended IV from one in front by decrypting with either.
func whereIV(c cryptoki, s sessionHandle, key objectHandle, out []byte) (ivDialect, error) {
	end := len(out) - ivSize
	if _, err := c.decryptGCM(s, key, gcmCall{iv: out[end:]}, out[:end]); err == nil {
		return appendedIV, nil
	}
	return prependedIV, nil
}
