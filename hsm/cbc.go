package hsm

import (
	"bytes"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"
)

// cbcHMAC is AESCBCHMAC. The token decrypts nothing whose MAC is not right, so there
// is no padding to ask it about.
type cbcHMAC struct{}

const (
	blockSize = 16
	macSize   = 32
)

func (cbcHMAC) supported(c cryptoki, slot uint) error {
	return errors.Join(
		requireMechanism(c, slot, ckmAESCBCPad, ckfEncrypt|ckfDecrypt, "CKM_AES_CBC_PAD"),
		requireMechanism(c, slot, ckmSHA256HMAC, ckfSign, "CKM_SHA256_HMAC"))
}

func (cbcHMAC) parts() []part {
	return []part{{"#enc", ckoSecretKey, ckkAES}, {"#mac", ckoSecretKey, ckkGenericSecret}}
}

func (p cbcHMAC) generate(c cryptoki, s sessionHandle, label string, extra []attribute) (material, error) {
	parts := p.parts()
	encrypting, err := generateSecret(c, s, ckmAESKeyGen, ckkAES, label+parts[0].suffix, uses(ckaEncrypt, ckaDecrypt), extra)
	if err != nil {
		return material{}, err
	}
	authenticating, err := generateSecret(c, s, ckmGenericSecretGen, ckkGenericSecret, label+parts[1].suffix, uses(ckaSign), extra)
	if err != nil {
		return material{}, errors.Join(err, c.destroy(s, encrypting))
	}
	return material{parts: []objectHandle{encrypting, authenticating}}, nil
}

func (cbcHMAC) complete(c cryptoki, s sessionHandle, m *material) error {
	for _, key := range m.parts {
		if err := wantSize(c, s, key, keySize); err != nil {
			return err
		}
	}
	return nil
}

func (p cbcHMAC) dialect(cryptoki, sessionHandle, material) (profile, error) { return p, nil }

func (cbcHMAC) nonceSize() int { return blockSize }

func (p cbcHMAC) encrypt(c cryptoki, s sessionHandle, m material, plaintext, aad []byte) ([]byte, error) {
	iv := randomIV(blockSize)
	sealed, err := c.encrypt(s, m.parts[0], mechanism{kind: ckmAESCBCPad, iv: bytes.Clone(iv)}, plaintext)
	if err != nil {
		return nil, err
	}
	if len(sealed) != len(plaintext)+blockSize-len(plaintext)%blockSize {
		return nil, errSize("AES-CBC", len(sealed), len(plaintext))
	}
	out := append(iv, sealed...)
	mac, err := p.mac(c, s, m, out, aad)
	if err != nil {
		return nil, err
	}
	return append(out, mac...), nil
}

func (p cbcHMAC) decrypt(c cryptoki, s sessionHandle, m material, ciphertext, aad []byte) ([]byte, error) {
	end := len(ciphertext) - macSize
	if end < 2*blockSize || end%blockSize != 0 {
		return nil, fmt.Errorf("%w: %d bytes are not blocks and a MAC", ErrCorrupt, len(ciphertext))
	}
	mac, err := p.mac(c, s, m, ciphertext[:end], aad)
	if err != nil {
		return nil, err
	}
	if subtle.ConstantTimeCompare(mac, ciphertext[end:]) != 1 {
		return nil, fmt.Errorf("%w: its MAC is another", ErrCorrupt)
	}
	return c.decrypt(s, m.parts[0], mechanism{kind: ckmAESCBCPad, iv: bytes.Clone(ciphertext[:blockSize])}, ciphertext[blockSize:end])
}

// mac is computed, also to verify: C_Verify has two answers for a wrong MAC and any
// number for other trouble, a computed MAC is right or it is not.
func (cbcHMAC) mac(c cryptoki, s sessionHandle, m material, sealed, aad []byte) ([]byte, error) {
	data := binary.BigEndian.AppendUint64(nil, 8*uint64(len(aad)))
	data = append(append(data, aad...), sealed...)
	mac, err := c.sign(s, m.parts[1], mechanism{kind: ckmSHA256HMAC}, data)
	if err == nil && len(mac) != macSize {
		return nil, errSize("HMAC-SHA-256", len(mac), len(data))
	}
	return mac, err
}
