package hsm

import (
	"crypto/rsa"
	"errors"
	"fmt"
)

// Mechanism names a way to encrypt under a key, with the kind of key it needs. It is
// to be kept with each ciphertext, since a token's keys do not tell it.
type Mechanism string

const (
	// AESGCM is AES-256-GCM with a random 96-bit IV and a 128-bit tag, whoever makes
	// the IV. Ciphertext: IV (12 bytes), then the encrypted bytes, then the tag (16).
	// NIST SP 800-38D, 8.3, allows 2^32 encryptions under one key.
	AESGCM Mechanism = "aes-gcm"
	// AESGCM16 is AESGCM with a random 128-bit IV, for tokens that make no other,
	// such as a Luna in FIPS mode before firmware 7.9.3.
	AESGCM16 Mechanism = "aes-gcm-iv16"
	// RSAOAEPSHA256 is RSA-OAEP (RFC 8017, 7.1) with SHA-256, also in MGF1, and an
	// empty label. The token decrypts; this process encrypts with the public key and
	// needs no token for it. Plaintext: SHA-256 of the associated data, then the
	// caller's bytes. Ciphertext: as long as the modulus. Anybody who has the public
	// key can make one: it is secret, not authentic.
	RSAOAEPSHA256 Mechanism = "rsa-oaep-sha256"
	// RSAOAEPSHA1 is RSAOAEPSHA256 with SHA-1 in both places, for tokens that know
	// no other. OAEP does not rest on SHA-1's resistance to collisions. The associated
	// data is hashed with SHA-256 nevertheless.
	RSAOAEPSHA1 Mechanism = "rsa-oaep-sha1"
	// AESCBCHMAC is encrypt-then-MAC under two keys of the token: AES-256-CBC with
	// PKCS#7 padding, and HMAC-SHA-256 of the associated data's length in bits (8
	// bytes, big endian), the associated data, IV and encrypted bytes. Ciphertext:
	// IV (16 bytes), encrypted bytes, MAC (32).
	AESCBCHMAC Mechanism = "aes-cbc-hmac"
)

// Mechanisms lists all mechanisms, the default first.
func Mechanisms() []Mechanism {
	return []Mechanism{AESGCM, AESGCM16, AESCBCHMAC, RSAOAEPSHA256, RSAOAEPSHA1}
}

// profile is how a mechanism is spoken: the calls, and the keys it needs.
type profile interface {
	// supported finds out whether the token has the mechanism.
	supported(c cryptoki, slot uint) error
	// parts are the objects that make up one of the mechanism's keys.
	parts() []part
	// generate makes a key. extra gives the attributes of each of its secret parts
	// beside the mechanism's own.
	generate(c cryptoki, s sessionHandle, label string, extra []attribute) (material, error)
	// complete reads what more of a key is needed, and refuses one of improper size.
	complete(c cryptoki, s sessionHandle, m *material) error
	// dialect finds out, with a key, how the token does it, and returns the profile
	// that speaks so.
	dialect(c cryptoki, s sessionHandle, m material) (profile, error)
	// nonceSize is how many bytes of a ciphertext's beginning never repeat, if it
	// has such a beginning.
	nonceSize() int
	encrypt(c cryptoki, s sessionHandle, m material, plaintext, aad []byte) ([]byte, error)
	decrypt(c cryptoki, s sessionHandle, m material, ciphertext, aad []byte) ([]byte, error)
}

// part is a secret object of a key: how its label goes on, and what it must be.
type part struct {
	suffix      string
	class, kind uint
}

// suffixes are the ends of labels that the parts of some mechanism have.
func suffixes() []string { return []string{"", "#enc", "#mac"} }

// material is the handles of a key, as long as they live.
type material struct {
	parts  []objectHandle // in the order of profile.parts
	public objectHandle   // the object with the public half, or 0
	rsa    *rsa.PublicKey // of RSA mechanisms
}

// handles are all objects of the key.
func (m material) handles() []objectHandle {
	if m.public == 0 {
		return m.parts
	}
	return append([]objectHandle{m.public}, m.parts...)
}

// profiles is what mechanisms need to know of the configuration.
type profiles struct{ rsaBits int }

// of returns the profile of a mechanism that we know.
func (p profiles) of(m Mechanism) (profile, error) {
	switch m {
	case AESGCM:
		return aesGCM{ivSize: 12}, nil
	case AESGCM16:
		return aesGCM{ivSize: 16}, nil
	case RSAOAEPSHA256:
		return rsaOAEP{ckmSHA256, p.rsaBits}, nil
	case RSAOAEPSHA1:
		return rsaOAEP{ckmSHA1, p.rsaBits}, nil
	case AESCBCHMAC:
		return cbcHMAC{}, nil
	}
	return nil, fmt.Errorf("%w: mechanism %q", ErrUnsupported, m)
}

// requireMechanism refuses a token whose mechanism of this name cannot do all that
// the flags say.
func requireMechanism(c cryptoki, slot, kind, flags uint, name string) error {
	got, err := c.mechanismFlags(slot, kind)
	if hasCode(err, ckrMechanismInvalid) || err == nil && got&flags != flags {
		return fmt.Errorf("%w: the token does not do all that is needed of %s", ErrUnsupported, name)
	}
	return err
}

// withExtra is a template with a label, an id and further attributes. The id is the
// label, for tools that show nothing else.
func withExtra(label string, own, extra []attribute) []attribute {
	out := append([]attribute{{ckaLabel, label}, {ckaID, []byte(label)}}, own...)
	return append(out, extra...)
}

// uses are the attributes that say what a key is for: for these and nothing else.
func uses(allowed ...uint) []attribute {
	out := []attribute{}
	for _, kind := range []uint{ckaEncrypt, ckaDecrypt, ckaWrap, ckaUnwrap, ckaSign, ckaVerify, ckaDerive} {
		value := false
		for _, a := range allowed {
			value = value || a == kind
		}
		out = append(out, attribute{kind, value})
	}
	return out
}

// wantSize refuses a secret key of another size in bytes.
func wantSize(c cryptoki, s sessionHandle, key objectHandle, want uint) error {
	value, err := c.attribute(s, key, ckaValueLen)
	if err != nil {
		return unreadable("CKA_VALUE_LEN", err)
	}
	if size, ok := ulong(value); !ok || size != want {
		return fmt.Errorf("%w: CKA_VALUE_LEN is not %d", ErrUnsafe, want)
	}
	return nil
}

// generateSecret makes one secret key.
func generateSecret(c cryptoki, s sessionHandle, generator, kind uint, label string, own, extra []attribute) (objectHandle, error) {
	return c.generateKey(s, generator, withExtra(label, append(own,
		attribute{ckaClass, uint(ckoSecretKey)}, attribute{ckaKeyType, kind}, attribute{ckaValueLen, uint(keySize)}), extra))
}

// keySize is the size of our secret keys in bytes.
const keySize = 32

// outRoom is how many bytes an answer may be longer than its input: a tag, an IV
// that the token adds, a MAC, and more. NSS answers a size that is too small when
// asked for one, so it is never asked.
const outRoom = 64

// errSize is a token that made other bytes than the mechanism says.
func errSize(mechanism string, got, of int) error {
	return fmt.Errorf("%w: %s made %d bytes of %d", ErrUnsafe, mechanism, got, of)
}

// destroyAll destroys what was made of a key that is not to stay.
func destroyAll(c cryptoki, s sessionHandle, handles []objectHandle) error {
	var problems []error
	for _, h := range handles {
		problems = append(problems, c.destroy(s, h))
	}
	return errors.Join(problems...)
}
