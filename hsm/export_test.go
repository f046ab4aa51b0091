package hsm

import "testing"

// BareKey is a key in a token and one session, without pool, deadline,
// goroutine or cache around it: what a benchmark compares a Token with.
type BareKey struct {
	c       cryptoki
	session sessionHandle
	key     material
}

func bareGCM() aesGCM { return aesGCM{12, callersIV} }

// OpenBare loads a module and makes a key in the token of the given label.
func OpenBare(path, label string, pin PIN) (*BareKey, error) {
	lib, err := Load(path)
	if err != nil {
		return nil, err
	}
	slot, _, err := findToken(lib, Selector{Label: label})
	if err != nil {
		return nil, err
	}
	b := &BareKey{c: lib.c}
	if b.session, err = lib.c.openSession(slot, false); err != nil {
		return nil, err
	}
	if err := pin.Use(func(pin string) error { return lib.c.login(b.session, ckuUser, pin) }); err != nil {
		return nil, err
	}
	b.key, err = bareGCM().generate(lib.c, b.session, "bare", []attribute{{ckaToken, true}, {ckaPrivate, true}, {ckaSensitive, true}, {ckaExtractable, false}})
	return b, err
}

// Encrypt makes the two calls of AES-GCM.
func (b *BareKey) Encrypt(plaintext, aad []byte) ([]byte, error) {
	return bareGCM().encrypt(b.c, b.session, b.key, plaintext, aad)
}

// Decrypt makes the two calls of AES-GCM.
func (b *BareKey) Decrypt(ciphertext, aad []byte) ([]byte, error) {
	return bareGCM().decrypt(b.c, b.session, b.key, ciphertext, aad)
}

// Close finalises the module.
func (b *BareKey) Close() error { return b.c.finalize() }

// provenance is a module whose keys say that they were made in it and never left:
// NSS forgets that of the keys that it keeps.
type provenance struct{ cryptoki }

func (p provenance) attribute(s sessionHandle, o objectHandle, kind uint) ([]byte, error) {
	if kind == ckaLocal || kind == ckaNeverExtractable || kind == ckaAlwaysSensitive {
		return []byte{1}, nil
	}
	return p.cryptoki.attribute(s, o, kind)
}

// LoadBelieving is Load for a module whose keys are believed to be of its own making.
func LoadBelieving(cfg Config) (*Library, error) {
	c, err := load(cfg.Module, cfg.Parameters)
	if err != nil {
		return nil, err
	}
	return start(cfg.Module, provenance{c})
}

// PlayRoundTrip is what each vendor's script plays.
func PlayRoundTrip(t *testing.T, token *Token, key Key) { playRoundTrip(t, nil, token, key) }
