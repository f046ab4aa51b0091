package hsm

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1" //nolint:gosec // OAEP does not rest on collisions, and some tokens know no other
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"hash"
	"math/big"
)

const (
	defaultRSABits = 3072 // 128 bits of strength: NIST SP 800-57 part 1, table 2
	minRSABits     = 2048
	maxRSABits     = 8192
)

// rsaOAEP is RSAOAEPSHA256 or RSAOAEPSHA1. The token only decrypts.
type rsaOAEP struct {
	hash uint
	bits int // of keys that it makes
}

func (r rsaOAEP) newHash() hash.Hash {
	if r.hash == ckmSHA1 {
		return sha1.New() //nolint:gosec // see the import
	}
	return sha256.New()
}

func (rsaOAEP) supported(c cryptoki, slot uint) error {
	return requireMechanism(c, slot, ckmRSAOAEP, ckfDecrypt, "CKM_RSA_PKCS_OAEP")
}

func (rsaOAEP) parts() []part { return []part{{"", ckoPrivateKey, ckkRSA}} }

func (r rsaOAEP) generate(c cryptoki, s sessionHandle, label string, extra []attribute) (material, error) {
	token := false
	for _, a := range extra {
		if a.kind == ckaToken {
			token, _ = a.value.(bool)
		}
	}
	public := withExtra(label, []attribute{
		{ckaClass, uint(ckoPublicKey)},
		{ckaKeyType, uint(ckkRSA)},
		{ckaToken, token},
		{ckaModulusBits, uint(r.bits)},
		{ckaPublicExponent, []byte{1, 0, 1}},
		{ckaEncrypt, true},
		{ckaVerify, false},
		{ckaWrap, false},
	}, nil)
	private := withExtra(label, []attribute{
		{ckaClass, uint(ckoPrivateKey)},
		{ckaKeyType, uint(ckkRSA)},
		{ckaDecrypt, true},
		{ckaSign, false},
		{ckaUnwrap, false},
		{ckaDerive, false},
	}, extra)
	pub, key, err := c.generateKeyPair(s, ckmRSAKeyPairGen, public, private)
	return material{parts: []objectHandle{key}, public: pub}, err
}

// complete reads the public key from the private object, which cannot be put into a
// token by somebody who may only write public ones. The self-test shows that they
// belong together.
func (rsaOAEP) complete(c cryptoki, s sessionHandle, m *material) error {
	modulus, err := c.attribute(s, m.parts[0], ckaModulus)
	if err != nil {
		return unreadable("CKA_MODULUS", err)
	}
	exponent, err := c.attribute(s, m.parts[0], ckaPublicExponent)
	if (err != nil && !curable(err) || len(exponent) == 0) && m.public != 0 {
		// A private key need not have it: PKCS#11 v2.40, 2.1.3.
		exponent, err = c.attribute(s, m.public, ckaPublicExponent)
	}
	if err != nil {
		return unreadable("CKA_PUBLIC_EXPONENT", err)
	}
	n, e := new(big.Int).SetBytes(modulus), new(big.Int).SetBytes(exponent)
	if n.BitLen() < minRSABits || n.BitLen() > maxRSABits {
		return fmt.Errorf("%w: an RSA key of %d bits: want %d to %d", ErrUnsafe, n.BitLen(), minRSABits, maxRSABits)
	}
	if e.BitLen() > 31 || e.Cmp(big.NewInt(65537)) < 0 || e.Bit(0) == 0 {
		return fmt.Errorf("%w: the RSA key's public exponent is not an odd number of 65537 or more", ErrUnsafe)
	}
	m.rsa = &rsa.PublicKey{N: n, E: int(e.Int64())}
	return nil
}

func (r rsaOAEP) dialect(cryptoki, sessionHandle, material) (profile, error) { return r, nil }

func (rsaOAEP) nonceSize() int { return 0 }

// encrypt calls no token.
func (r rsaOAEP) encrypt(_ cryptoki, _ sessionHandle, m material, plaintext, aad []byte) ([]byte, error) {
	return r.seal(m.rsa, plaintext, aad)
}

func (r rsaOAEP) seal(key *rsa.PublicKey, plaintext, aad []byte) ([]byte, error) {
	context := sha256.Sum256(aad)
	bound := append(context[:], plaintext...)
	defer clear(bound)
	out, err := rsa.EncryptOAEP(r.newHash(), rand.Reader, key, bound, nil)
	if errors.Is(err, rsa.ErrMessageTooLong) {
		return nil, fmt.Errorf("%w: %d bytes are too many for an RSA key of %d bits", ErrInvalid, len(plaintext), key.N.BitLen())
	}
	if err != nil {
		return nil, fmt.Errorf("%w: the RSA key does not encrypt: %w", ErrUnsafe, err)
	}
	return out, nil
}

func (r rsaOAEP) decrypt(c cryptoki, s sessionHandle, m material, ciphertext, aad []byte) ([]byte, error) {
	if len(ciphertext) != m.rsa.Size() {
		return nil, fmt.Errorf("%w: %d bytes are not one RSA block", ErrCorrupt, len(ciphertext))
	}
	// A number that is not below the modulus is nobody's ciphertext. Tokens answer it
	// with codes that mean a wrong argument.
	if bytes.Compare(ciphertext, m.rsa.N.FillBytes(make([]byte, len(ciphertext)))) >= 0 {
		return nil, fmt.Errorf("%w: it is not below the modulus", ErrCorrupt)
	}
	bound, err := c.decrypt(s, m.parts[0], mechanism{kind: ckmRSAOAEP, hash: r.hash}, ciphertext)
	if err != nil {
		return nil, err
	}
	context := sha256.Sum256(aad)
	if len(bound) < len(context) || subtle.ConstantTimeCompare(bound[:len(context)], context[:]) != 1 {
		clear(bound)
		return nil, fmt.Errorf("%w: it is bound to other data", ErrCorrupt)
	}
	return bound[len(context):], nil
}
