// Package pkcs11 is the kms.Provider on an HSM: it names KEK versions in a token,
// binds secrets to their context and lays out the wrapped form. It refuses to know
// how PKCS#11 is spoken, which is package hsm's, and who may use which key.
package pkcs11

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"chatelaine/hsm"
	"chatelaine/kms"
)

// Config names the token and the keys in it.
type Config struct {
	// HSM says which token, and how to use it.
	HSM hsm.Config
	// Prefix begins the label of each key that is ours: version 3 of "main" is
	// "<prefix>main.v3". Installations that share a token need different ones.
	// Zero: no prefix.
	Prefix string
}

// The first byte of a wrapped secret says how it is wrapped. Numbers are never
// reused. All carry kms.Bind(ref, binding, secret) as plaintext.
const (
	// formAESGCM: 12 bytes IV, ciphertext, 16 bytes tag, with the associated data
	// Binding.Bytes(ref).
	formAESGCM = 0x01
)

// sealedOverhead is what kms.Bind, the form byte, the IV and the tag add.
const sealedOverhead = 32 + 1 + 12 + 16

// Provider is a kms.Provider whose KEK versions are AES-256 keys in a token.
type Provider struct {
	token  *hsm.Token
	prefix string
	closed atomic.Bool
}

var _ kms.Provider = (*Provider)(nil)

// New opens the token, which loads the module, logs in and tests how the token
// encrypts. The caller closes the Provider. Errors: kms.ErrPIN (the PIN was tried
// once: do not call New again with it, tokens lock), kms.ErrUnsafe, kms.ErrInvalid,
// kms.ErrAmbiguous, kms.ErrUnavailable, ctx's error; the hsm package's is in the chain.
func New(ctx context.Context, cfg Config) (*Provider, error) {
	token, err := hsm.Open(ctx, cfg.HSM)
	if err != nil {
		return nil, fmt.Errorf("kms: opening the HSM: %w", translate(err))
	}
	return &Provider{token: token, prefix: cfg.Prefix}, nil
}

// Create makes a KEK version in the token.
func (p *Provider) Create(ctx context.Context, ref kms.KeyRef) (kms.KeyInfo, error) {
	return p.about(ctx, "creating", ref, p.token.Generate)
}

// Destroy destroys a KEK version in the token. Another token of the same HSM group,
// and backups, may still have it.
func (p *Provider) Destroy(ctx context.Context, ref kms.KeyRef) error {
	_, err := p.about(ctx, "destroying", ref, func(ctx context.Context, key hsm.Key) (hsm.KeyInfo, error) {
		return hsm.KeyInfo{}, p.token.Destroy(ctx, key)
	})
	return err
}

// Inspect finds a KEK version, reads its attributes and tests it.
func (p *Provider) Inspect(ctx context.Context, ref kms.KeyRef) (kms.KeyInfo, error) {
	return p.about(ctx, "inspecting", ref, p.token.Find)
}

func (p *Provider) about(ctx context.Context, doing string, ref kms.KeyRef,
	f func(context.Context, hsm.Key) (hsm.KeyInfo, error),
) (kms.KeyInfo, error) {
	key, err := p.key(ctx, ref)
	if err != nil {
		return kms.KeyInfo{}, fmt.Errorf("kms: %s %q: %w", doing, ref, err)
	}
	info, err := f(ctx, key)
	if err != nil {
		return kms.KeyInfo{}, fmt.Errorf("kms: %s %q: %w", doing, ref, translate(err))
	}
	return kms.KeyInfo{Ref: ref, Mechanism: string(info.Mechanism), URI: info.URI}, nil
}

// Wrap makes one call of the HSM.
func (p *Provider) Wrap(ctx context.Context, ref kms.KeyRef, b kms.Binding, secret []byte) ([]byte, error) {
	key, err := p.key(ctx, ref)
	if err == nil && (len(secret) == 0 || len(secret) > kms.MaxSecret) {
		err = fmt.Errorf("%w: a secret has 1 to %d bytes", kms.ErrInvalid, kms.MaxSecret)
	}
	if err != nil {
		return nil, fmt.Errorf("kms: wrapping under %q: %w", ref, err)
	}
	bound := kms.Bind(ref, b, secret)
	defer clear(bound)
	sealed, err := p.token.Encrypt(ctx, key, bound, b.Bytes(ref))
	if err != nil {
		return nil, fmt.Errorf("kms: wrapping under %q: %w", ref, translate(err))
	}
	return append([]byte{formAESGCM}, sealed...), nil
}

// Unwrap makes one call of the HSM, and a second one when the HSM's answer may mean
// bad data as well as a bad device.
func (p *Provider) Unwrap(ctx context.Context, ref kms.KeyRef, b kms.Binding, wrapped []byte) ([]byte, error) {
	secret, err := p.unwrap(ctx, ref, b, wrapped)
	if err != nil {
		return nil, fmt.Errorf("kms: unwrapping under %q: %w", ref, translate(err))
	}
	return secret, nil
}

func (p *Provider) unwrap(ctx context.Context, ref kms.KeyRef, b kms.Binding, wrapped []byte) ([]byte, error) {
	key, err := p.key(ctx, ref)
	if err != nil {
		return nil, err
	}
	if len(wrapped) <= sealedOverhead || len(wrapped) > sealedOverhead+kms.MaxSecret || wrapped[0] != formAESGCM {
		return nil, fmt.Errorf("%w: it has not the form of a wrapped secret", kms.ErrCorrupt)
	}
	bound, err := p.token.Decrypt(ctx, key, wrapped[1:], b.Bytes(ref))
	if err != nil {
		return nil, err
	}
	return kms.Unbind(ref, b, bound)
}

// Random returns n bytes of the HSM's generator.
func (p *Provider) Random(ctx context.Context, n int) ([]byte, error) {
	if err := p.serves(ctx); err != nil {
		return nil, fmt.Errorf("kms: drawing random bytes: %w", err)
	}
	b, err := p.token.Random(ctx, n)
	if err != nil {
		return nil, fmt.Errorf("kms: drawing random bytes: %w", translate(err))
	}
	return b, nil
}

// Check makes one call of the HSM: see hsm.Token.Check.
func (p *Provider) Check(ctx context.Context) error {
	if err := p.serves(ctx); err != nil {
		return fmt.Errorf("kms: checking the HSM: %w", err)
	}
	if err := p.token.Check(ctx); err != nil {
		return fmt.Errorf("kms: checking the HSM: %w", translate(err))
	}
	return nil
}

// Close waits for running calls, logs out, and finalises the module unless it was
// given to New as a Library. A second Close does nothing.
func (p *Provider) Close() error {
	p.closed.Store(true)
	if err := p.token.Close(); err != nil {
		return fmt.Errorf("kms: closing the HSM: %w", translate(err))
	}
	return nil
}

// serves is what every method asks first, so that all answer alike.
func (p *Provider) serves(ctx context.Context) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if p.closed.Load() {
		return kms.ErrClosed
	}
	return nil
}

// maxName is the longest name of a KEK in bytes, which leaves room for the rest of
// the label.
const maxName = 128

func (p *Provider) key(ctx context.Context, ref kms.KeyRef) (hsm.Key, error) {
	if err := p.serves(ctx); err != nil {
		return hsm.Key{}, err
	}
	if ref.Name == "" || len(ref.Name) > maxName || ref.Version == 0 {
		return hsm.Key{}, fmt.Errorf("%w: a KEK has a name of 1 to %d bytes and a version from 1", kms.ErrInvalid, maxName)
	}
	return hsm.Key{Label: p.prefix + ref.String(), Mechanism: hsm.AESGCM}, nil
}

// translate puts the contract's sentinel before an error of package hsm and keeps
// the cause. What has no sentinel there, like a context's error, stays as it is.
func translate(err error) error {
	for _, t := range []struct{ hsm, kms error }{
		{hsm.ErrPIN, kms.ErrPIN},
		{hsm.ErrCorrupt, kms.ErrCorrupt},
		{hsm.ErrUnsafe, kms.ErrUnsafe},
		{hsm.ErrAmbiguous, kms.ErrAmbiguous},
		{hsm.ErrUnavailable, kms.ErrUnavailable}, // before ErrNotFound: a lost token has no keys
		{hsm.ErrNotFound, kms.ErrNotFound},
		{hsm.ErrExists, kms.ErrExists},
		{hsm.ErrInvalid, kms.ErrInvalid},
		{hsm.ErrClosed, kms.ErrClosed},
		{hsm.ErrUnsupported, kms.ErrInvalid},
		{hsm.ErrModule, kms.ErrInvalid},
		{hsm.ErrInUse, kms.ErrInvalid},
	} {
		if errors.Is(err, t.hsm) {
			return fmt.Errorf("%w: %w", t.kms, err)
		}
	}
	return err
}
