package hsm

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
)

// tagSize is AES-GCM's in bytes.
const tagSize = 16

// aesGCM is AESGCM or AESGCM16 in one of its dialects, which differ in encrypting only:
// every token takes the IV of a ciphertext that it is to decrypt.
type aesGCM struct {
	ivSize int
	speaks ivDialect // zero: not found out yet
}

func (g aesGCM) name() Mechanism {
	if g.ivSize == 16 {
		return AESGCM16
	}
	return AESGCM
}

func (aesGCM) supported(c cryptoki, slot uint) error {
	return requireMechanism(c, slot, ckmAESGCM, ckfEncrypt|ckfDecrypt, "CKM_AES_GCM")
}

func (aesGCM) parts() []part { return []part{{"", ckoSecretKey, ckkAES}} }

func (aesGCM) generate(c cryptoki, s sessionHandle, label string, extra []attribute) (material, error) {
	key, err := generateSecret(c, s, ckmAESKeyGen, ckkAES, label, uses(ckaEncrypt, ckaDecrypt), extra)
	return material{parts: []objectHandle{key}}, err
}

func (aesGCM) complete(c cryptoki, s sessionHandle, m *material) error {
	return wantSize(c, s, m.parts[0], keySize)
}

func (g aesGCM) nonceSize() int { return g.ivSize }

func (g aesGCM) encrypt(c cryptoki, s sessionHandle, m material, plaintext, aad []byte) ([]byte, error) {
	iv := g.offer()
	sealed, err := c.encrypt(s, m.parts[0], mechanism{kind: ckmAESGCM, iv: iv, ivBits: uint(8 * g.ivSize), aad: aad}, plaintext)
	if err != nil {
		return nil, err
	}
	want := len(plaintext) + tagSize
	if g.speaks == appendedIV || g.speaks == prependedIV {
		want += g.ivSize
	}
	if len(sealed) != want {
		return nil, errSize("AES-GCM", len(sealed), len(plaintext))
	}
	switch g.speaks {
	case appendedIV:
		end := len(plaintext) + tagSize
		return append(bytes.Clone(sealed[end:]), sealed[:end]...), nil
	case prependedIV:
		return sealed, nil
	}
	return append(iv, sealed...), nil
}

// offer is the IV that the token wants to be given.
func (g aesGCM) offer() []byte {
	switch g.speaks {
	case readBackIV:
		return make([]byte, g.ivSize)
	case appendedIV, prependedIV:
		return nil
	}
	return randomIV(g.ivSize)
}

// randomIV draws an IV from this machine's generator.
func randomIV(size int) []byte {
	iv := make([]byte, size)
	_, _ = rand.Read(iv) // never fails
	return iv
}

func (g aesGCM) decrypt(c cryptoki, s sessionHandle, m material, ciphertext, aad []byte) ([]byte, error) {
	if len(ciphertext) < g.ivSize+tagSize {
		return nil, fmt.Errorf("%w: %d bytes are too few", ErrCorrupt, len(ciphertext))
	}
	iv := bytes.Clone(ciphertext[:g.ivSize]) // a token might write into it
	return c.decrypt(s, m.parts[0], mechanism{kind: ckmAESGCM, iv: iv, aad: aad}, ciphertext[g.ivSize:])
}

// ivDialect is who makes the IV of AES-GCM, and where it is then found.
type ivDialect string

const (
	callersIV   ivDialect = "takes the caller's IV"
	readBackIV  ivDialect = "takes zeroes, makes the IV itself and writes it back" // CloudHSM, nShield
	appendedIV  ivDialect = "makes the IV itself and appends it"                   // Luna in FIPS mode
	prependedIV ivDialect = "makes the IV itself and puts it in front"
)

// dialect offers IVs as the known kinds of tokens want them, and looks at what
// comes back. Whether it also decrypts is the self-test's matter.
func (g aesGCM) dialect(c cryptoki, s sessionHandle, m material) (profile, error) {
	var refusals []error
	for _, offered := range [][]byte{randomIV(g.ivSize), make([]byte, g.ivSize), nil} {
		found, err := g.offerIV(c, s, m, offered)
		if err == nil {
			return aesGCM{g.ivSize, found}, nil
		}
		if !paramRefused(err) {
			return nil, err
		}
		refusals = append(refusals, err)
	}
	return nil, fmt.Errorf("%w: the token takes AES-GCM in no way that we know: %w", ErrUnsupported, errors.Join(refusals...))
}

// paramRefused tells the answers with which tokens refuse an IV that they do not want.
func paramRefused(err error) bool {
	return hasCode(err, ckrMechanismParamInvalid, ckrArgumentsBad, ckrMechanismInvalid)
}

func (g aesGCM) offerIV(c cryptoki, s sessionHandle, m material, offered []byte) (ivDialect, error) {
	plaintext, iv := make([]byte, 32), bytes.Clone(offered)
	out, err := c.encrypt(s, m.parts[0], mechanism{kind: ckmAESGCM, iv: iv, ivBits: uint(8 * g.ivSize)}, plaintext)
	added := len(out) - len(plaintext) - tagSize
	switch {
	case err != nil:
		return "", err
	case added == 0 && !bytes.Equal(iv, offered):
		return readBackIV, nil
	case added == 0 && len(offered) > 0 && !bytes.Equal(offered, make([]byte, len(offered))):
		return callersIV, nil
	case added == 0:
		return "", fmt.Errorf("%w: the token takes AES-GCM without an IV and does not tell which one it used", ErrUnsafe)
	case added == g.ivSize:
		return g.whereIV(c, s, m, out)
	case added == 28-g.ivSize: // the other size
		return "", fmt.Errorf("%w: the token makes IVs of %d bytes itself: use mechanism %q", ErrUnsupported, added, aesGCM{ivSize: added}.name())
	}
	return "", fmt.Errorf("%w: AES-GCM made %d bytes of %d", ErrUnsupported, len(out), len(plaintext))
}

// whereIV tells an appended IV from one in front by decrypting with either.
func (g aesGCM) whereIV(c cryptoki, s sessionHandle, m material, out []byte) (ivDialect, error) {
	end := len(out) - g.ivSize
	iv := bytes.Clone(out[end:])
	if _, err := c.decrypt(s, m.parts[0], mechanism{kind: ckmAESGCM, iv: iv}, out[:end]); err == nil {
		return appendedIV, nil
	}
	return prependedIV, nil
}
