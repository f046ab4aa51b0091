package hsm

import (
	"bytes"
	"context"
	"crypto/rsa"
	"errors"
	"fmt"
)

const (
	// MaxData is the longest plaintext that Encrypt takes, in bytes. RSA-OAEP takes
	// 286 bytes under a key of 3072 bits with SHA-256, and 158 under one of 2048.
	MaxData = 4096
	// MaxRandom is the most that Random returns at a time, in bytes.
	MaxRandom = 1024
)

// Generate makes a key in the token that can never leave it, reads its attributes
// back and tests it. Errors: ErrExists, ErrUnsafe (the key was destroyed again),
// ErrUnsupported, ErrRole, ErrInvalid, ErrUnavailable. After ErrUnavailable or ctx's
// error the key may be there or not: Find tells.
func (t *Token) Generate(ctx context.Context, key Key) (KeyInfo, error) {
	return t.about(ctx, operation{"generate", 1}, "generating", key, func(w *worker) error {
		_, err := w.create(key)
		return err
	})
}

// Find looks a key up in the token, reads its attributes back and tests it, also
// when it is known already. Errors: ErrNotFound, ErrAmbiguous, ErrUnsafe (with ErrKind
// when it is of another mechanism), ErrUnsupported, ErrInvalid, ErrUnavailable.
func (t *Token) Find(ctx context.Context, key Key) (KeyInfo, error) {
	return t.about(ctx, operation{"find", attempts}, "finding", key, func(w *worker) error {
		_, err := w.admit(key)
		return err
	})
}

// Destroy destroys a key in the token for good, whatever its attributes and its
// mechanism. Errors: ErrNotFound, ErrAmbiguous (then all keys of the label stay),
// ErrRole, ErrInvalid, ErrUnavailable. After ErrUnavailable or ctx's error the key may be there or not:
// Find tells.
func (t *Token) Destroy(ctx context.Context, key Key) error {
	t.public.forgetLabel(key.Label)
	_, err := t.about(ctx, operation{"destroy", 1}, "destroying", key, func(w *worker) error { return w.destroy(key) })
	return err
}

func (t *Token) about(ctx context.Context, op operation, doing string, key Key, f func(*worker) error) (KeyInfo, error) {
	if err := key.validate(); err != nil {
		return KeyInfo{}, fmt.Errorf("hsm: %s key %q: %w", doing, key.Label, err)
	}
	info, err := run(ctx, t, op, func(w *worker) (KeyInfo, error) { return w.describe(key), f(w) })
	if err != nil {
		return KeyInfo{}, fmt.Errorf("hsm: %s key %q: %w", doing, key.Label, err)
	}
	return info, nil
}

func (w *worker) describe(key Key) KeyInfo {
	kind := "secret-key"
	if key.Mechanism == RSAOAEPSHA256 || key.Mechanism == RSAOAEPSHA1 {
		kind = "private"
	}
	return KeyInfo{Key: key, URI: URI{
		Token:  Selector{Label: w.info.label, Serial: w.info.serial},
		Object: key.Label, Type: kind,
	}.String()}
}

// Encrypt encrypts 1 to MaxData bytes under a key, bound to aad. What it returns is
// laid out as the key's Mechanism says. Under an RSA key that was found before, this
// process encrypts by itself, also while the token is away. Errors: those of Find.
func (t *Token) Encrypt(ctx context.Context, key Key, plaintext, aad []byte) ([]byte, error) {
	if public := t.public.of(key); public != nil && t.serves(ctx) && len(plaintext) > 0 {
		return t.encryptHere(key, public, plaintext, aad)
	}
	return t.crypt(ctx, "encrypt", "encrypting", key, plaintext, aad, (*worker).encrypt)
}

func (t *Token) encryptHere(key Key, public *rsa.PublicKey, plaintext, aad []byte) ([]byte, error) {
	p, err := profiles{}.of(key.Mechanism)
	var out []byte
	if err == nil {
		out, err = p.encrypt(nil, 0, material{rsa: public}, plaintext, aad)
	}
	if err != nil {
		return nil, fmt.Errorf("hsm: encrypting under %q: %w", key.Label, err)
	}
	return out, nil
}

// serves tells whether an operation may begin that needs no token.
func (t *Token) serves(ctx context.Context) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return !t.closed && t.refused == nil && ctx.Err() == nil
}

// Decrypt decrypts what Encrypt returned for the same key and aad. Errors:
// ErrCorrupt, and those of Find.
func (t *Token) Decrypt(ctx context.Context, key Key, ciphertext, aad []byte) ([]byte, error) {
	return t.crypt(ctx, "decrypt", "decrypting", key, ciphertext, aad, (*worker).decrypt)
}

func (t *Token) crypt(ctx context.Context, name, doing string, key Key, in, aad []byte,
	f func(*worker, Key, []byte, []byte) ([]byte, error),
) ([]byte, error) {
	err := key.validate()
	if err == nil && (len(in) == 0 || len(in) > MaxData+outRoom || name == "encrypt" && len(in) > MaxData) {
		err = fmt.Errorf("%w: %d bytes", ErrInvalid, len(in))
	}
	if err != nil {
		return nil, fmt.Errorf("hsm: %s under %q: %w", doing, key.Label, err)
	}
	// The call may outlive this function, and then the caller owns in and aad again.
	in, aad = bytes.Clone(in), bytes.Clone(aad)
	out, err := run(ctx, t, operation{name, attempts}, func(w *worker) ([]byte, error) { return f(w, key, in, aad) })
	if err != nil {
		return nil, fmt.Errorf("hsm: %s under %q: %w", doing, key.Label, err)
	}
	return out, nil
}

func (w *worker) encrypt(key Key, plaintext, aad []byte) ([]byte, error) {
	k, err := w.key(key)
	if err != nil {
		return nil, err
	}
	out, err := k.profile.encrypt(w.c, w.session, k.material, plaintext, aad)
	w.forgetDead(key, err)
	return out, err
}

// decrypt tells bad data from a bad device: SoftHSM answers a bad tag with
// CKR_GENERAL_ERROR and nShield with CKR_FUNCTION_FAILED, which both also mean that
// the device is broken. If a known-good ciphertext decrypts, the data is bad.
func (w *worker) decrypt(key Key, ciphertext, aad []byte) ([]byte, error) {
	k, err := w.key(key)
	if err != nil {
		return nil, err
	}
	out, err := k.profile.decrypt(w.c, w.session, k.material, ciphertext, aad)
	w.forgetDead(key, err)
	switch diagnose(err) {
	case faultData:
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	case faultAmbiguous:
		if sick := k.sing(w); sick != nil {
			return nil, deviceFault(errors.Join(err, sick))
		}
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return out, err
}

// forgetDead drops a key whose handle has died, so that it is found anew.
func (w *worker) forgetDead(key Key, err error) {
	if diagnose(err) == faultHandle {
		w.remember(key, nil)
	}
}

// Random returns n bytes, 1 to MaxRandom, of the token's own generator.
func (t *Token) Random(ctx context.Context, n int) ([]byte, error) {
	if n < 1 || n > MaxRandom {
		return nil, fmt.Errorf("hsm: drawing %d random bytes: %w: 1 to %d can be had", n, ErrInvalid, MaxRandom)
	}
	out, err := run(ctx, t, operation{"random", attempts}, func(w *worker) ([]byte, error) {
		return w.c.random(w.session, n)
	})
	if err != nil {
		return nil, fmt.Errorf("hsm: drawing %d random bytes: %w", n, err)
	}
	return out, nil
}

// Check finds out whether the token serves: it decrypts a known ciphertext under a
// key that is in use, or, when none is yet, asks whether the session is logged in.
func (t *Token) Check(ctx context.Context) error {
	_, err := run(ctx, t, operation{"check", attempts}, func(w *worker) (struct{}, error) { return struct{}{}, w.check() })
	if err != nil {
		return fmt.Errorf("hsm: checking token %q: %w", t.cfg.Token, err)
	}
	return nil
}

func (w *worker) check() error {
	if k := w.anyKey(); k != nil {
		if err := k.sing(w); err != nil {
			return deviceFault(err)
		}
		return nil
	}
	return w.loggedIn()
}
