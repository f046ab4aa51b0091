// Package pkcs11 is the kms.Provider on an HSM: it names KEK versions in a token,
// binds secrets to their context and lays out the wrapped form. It refuses to know
// how PKCS#11 is spoken, which is package hsm's, and who may use which key.
package pkcs11

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"chatelaine/hsm"
	"chatelaine/kms"
)

// Config names the token and the keys in it.
type Config struct {
	// HSM says which token, and how to use it.
	HSM hsm.Config
	// Failover is further tokens that have the same keys, in the order in which they
	// stand in when the ones before do not serve. New keys are made in HSM; they are
	// copied by the vendor's means. See hsm.Group.
	Failover []hsm.Config
	// Prefix begins the label of each key that is ours: version 3 of "main" is
	// "<prefix>main.v3". Installations that share a token need different ones.
	// Zero: no prefix.
	Prefix string
	// Mechanism is how new KEK versions wrap. Versions that are there keep theirs: it
	// is found out from the key, and what is wrapped says it by itself. Zero:
	// hsm.AESGCM.
	Mechanism hsm.Mechanism
	// Mechanisms has exceptions from Mechanism, by KEK name.
	Mechanisms map[string]hsm.Mechanism
}

// Provider is a kms.Provider whose KEK versions are keys in a token.
type Provider struct {
	token  device
	cfg    Config
	closed atomic.Bool

	mu    sync.Mutex
	found map[kms.KeyRef]hsm.Mechanism // of KEK versions that were found or made
}

var _ kms.Provider = (*Provider)(nil)

// device is one token or several.
type device interface {
	Generate(ctx context.Context, key hsm.Key) (hsm.KeyInfo, error)
	Find(ctx context.Context, key hsm.Key) (hsm.KeyInfo, error)
	Destroy(ctx context.Context, key hsm.Key) error
	Encrypt(ctx context.Context, key hsm.Key, plaintext, aad []byte) ([]byte, error)
	Decrypt(ctx context.Context, key hsm.Key, ciphertext, aad []byte) ([]byte, error)
	Random(ctx context.Context, n int) ([]byte, error)
	Check(ctx context.Context) error
	States() []hsm.State
	Close() error
}

func openDevice(ctx context.Context, cfg Config) (device, error) {
	if len(cfg.Failover) == 0 {
		return hsm.Open(ctx, cfg.HSM)
	}
	return hsm.OpenGroup(ctx, append([]hsm.Config{cfg.HSM}, cfg.Failover...))
}

// New opens the token, which loads the module, logs in and tests how the token
// encrypts. The caller closes the Provider. Errors: kms.ErrPIN (the PIN was tried
// once: do not call New again with it, tokens lock), kms.ErrUnsafe, kms.ErrInvalid,
// kms.ErrAmbiguous, kms.ErrUnavailable, ctx's error; the hsm package's is in the chain.
func New(ctx context.Context, cfg Config) (*Provider, error) {
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("kms: opening the HSM: %w", err)
	}
	cfg.HSM.Mechanism = cfg.mechanism("") // what the token is probed with
	cfg.Failover = slices.Clone(cfg.Failover)
	for i := range cfg.Failover {
		cfg.Failover[i].Mechanism = cfg.HSM.Mechanism
	}
	token, err := openDevice(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("kms: opening the HSM: %w", translate(err))
	}
	return &Provider{token: token, cfg: cfg, found: map[kms.KeyRef]hsm.Mechanism{}}, nil
}

// Create makes a KEK version in the token, for the mechanism that is configured.
func (p *Provider) Create(ctx context.Context, ref kms.KeyRef) (kms.KeyInfo, error) {
	return p.about(ctx, "creating", ref, p.token.Generate)
}

// Destroy destroys a KEK version in the token. Another token of the same HSM group,
// and backups, may still have it.
func (p *Provider) Destroy(ctx context.Context, ref kms.KeyRef) error {
	_, err := p.about(ctx, "destroying", ref, func(ctx context.Context, key hsm.Key) (hsm.KeyInfo, error) {
		p.forget(ref)
		return hsm.KeyInfo{}, p.token.Destroy(ctx, key)
	})
	return err
}

// Inspect finds a KEK version and its mechanism, reads its attributes and tests it.
func (p *Provider) Inspect(ctx context.Context, ref kms.KeyRef) (kms.KeyInfo, error) {
	return p.about(ctx, "inspecting", ref, func(ctx context.Context, key hsm.Key) (hsm.KeyInfo, error) {
		return p.find(ctx, ref, key)
	})
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
	if info.Mechanism != "" {
		p.remember(ref, info.Mechanism)
	}
	return kms.KeyInfo{Ref: ref, Mechanism: string(info.Mechanism), URI: info.URI}, nil
}

// Wrap makes one call of the HSM, or none under an RSA key that was used before.
func (p *Provider) Wrap(ctx context.Context, ref kms.KeyRef, b kms.Binding, secret []byte) ([]byte, error) {
	wrapped, err := p.wrap(ctx, ref, b, secret)
	if err != nil {
		return nil, fmt.Errorf("kms: wrapping under %q: %w", ref, translate(err))
	}
	return wrapped, nil
}

func (p *Provider) wrap(ctx context.Context, ref kms.KeyRef, b kms.Binding, secret []byte) ([]byte, error) {
	key, err := p.key(ctx, ref)
	if err != nil {
		return nil, err
	}
	if len(secret) == 0 || len(secret) > kms.MaxSecret {
		return nil, fmt.Errorf("%w: a secret has 1 to %d bytes", kms.ErrInvalid, kms.MaxSecret)
	}
	if key.Mechanism, err = p.mechanismOf(ctx, ref, key); err != nil {
		return nil, err
	}
	f := formOf(key.Mechanism)
	plaintext := f.bind(ref, b, secret)
	defer clear(plaintext)
	sealed, err := p.token.Encrypt(ctx, key, plaintext, b.Bytes(ref))
	if err != nil {
		return nil, err
	}
	return append([]byte{f.number}, sealed...), nil
}

// Unwrap makes one call of the HSM (two under aes-cbc-hmac), and one more when the
// HSM's answer may mean bad data as well as a bad device.
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
	f, err := readForm(wrapped)
	if err != nil {
		return nil, err
	}
	mechanism, err := p.mechanismOf(ctx, ref, key)
	if err != nil {
		return nil, err
	}
	if mechanism != f.mechanism && !f.shares(mechanism) {
		return nil, fmt.Errorf("%w: it is of mechanism %q and the key of %q", kms.ErrCorrupt, f.mechanism, mechanism)
	}
	key.Mechanism = f.mechanism
	plaintext, err := p.token.Decrypt(ctx, key, wrapped[1:], b.Bytes(ref))
	if errors.Is(err, hsm.ErrUnsupported) && mechanism != f.mechanism {
		return nil, fmt.Errorf("%w: %w", kms.ErrCorrupt, err) // this token never wrapped it
	}
	if err != nil {
		return nil, err
	}
	return f.unbind(ref, b, plaintext)
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

// States is the state of each token, for metrics.
func (p *Provider) States() []hsm.State { return p.token.States() }

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
	return p.cfg.Key(ref)
}

// Key is what a KEK version is called in the token, and the mechanism that it is made
// for. ErrInvalid when it has no name, a long one, or no version.
func (c Config) Key(ref kms.KeyRef) (hsm.Key, error) {
	if ref.Name == "" || len(ref.Name) > maxName || ref.Version == 0 {
		return hsm.Key{}, fmt.Errorf("%w: a KEK has a name of 1 to %d bytes and a version from 1", kms.ErrInvalid, maxName)
	}
	return hsm.Key{Label: c.Prefix + ref.String(), Mechanism: c.mechanism(ref.Name)}, nil
}

// translate puts the contract's sentinel before an error of package hsm and keeps
// the cause. What has no sentinel there, like a context's error, stays as it is.
func translate(err error) error {
	for _, t := range []struct{ hsm, kms error }{
		{hsm.ErrPIN, kms.ErrPIN},
		{hsm.ErrRole, kms.ErrDenied},
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
