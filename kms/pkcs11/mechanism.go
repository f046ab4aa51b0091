package pkcs11

import (
	"context"
	"errors"
	"fmt"

	"chatelaine/hsm"
	"chatelaine/kms"
)

// form is a layout of a wrapped secret: its number, which is the first byte, and
// then what package hsm makes of the mechanism. Numbers are never reused.
type form struct {
	number    byte
	mechanism hsm.Mechanism
	// bound: the mechanism itself puts SHA-256 of the binding before the secret, as
	// kms.Bind does for the others. So all have the same plaintext.
	bound    bool
	overhead int // bytes that a wrapped secret has more, at least, and the form byte
}

func forms() []form {
	return []form{
		{0x01, hsm.AESGCM, false, 32 + 12 + 16},
		{0x02, hsm.RSAOAEPSHA256, true, 255 - kms.MaxSecret},
		{0x03, hsm.RSAOAEPSHA1, true, 255 - kms.MaxSecret},
		{0x04, hsm.AESCBCHMAC, false, 16 + 32 + 32},
		{0x05, hsm.AESGCM16, false, 32 + 16 + 16},
	}
}

// maxWrapped is the longest wrapped secret in bytes: an RSA block of 8192 bits.
const maxWrapped = 1 + 1024

func formOf(m hsm.Mechanism) form {
	for _, f := range forms() {
		if f.mechanism == m {
			return f
		}
	}
	return form{}
}

// readForm tells what a wrapped secret is, and refuses what cannot be one.
func readForm(wrapped []byte) (form, error) {
	for _, f := range forms() {
		if len(wrapped) > 0 && wrapped[0] == f.number && len(wrapped) > 1+f.overhead && len(wrapped) <= maxWrapped {
			return f, nil
		}
	}
	return form{}, fmt.Errorf("%w: it has not the form of a wrapped secret", kms.ErrCorrupt)
}

// shares tells whether a key of another mechanism decrypts this form as well: the
// key's kind is the same, and which of the two it is the token does not tell.
func (f form) shares(other hsm.Mechanism) bool {
	kinds := map[hsm.Mechanism]string{
		hsm.AESGCM: "aes", hsm.AESGCM16: "aes", hsm.RSAOAEPSHA256: "rsa", hsm.RSAOAEPSHA1: "rsa", hsm.AESCBCHMAC: "pair",
	}
	return kinds[f.mechanism] == kinds[other]
}

func (f form) bind(ref kms.KeyRef, b kms.Binding, secret []byte) []byte {
	if f.bound {
		return append([]byte(nil), secret...)
	}
	return kms.Bind(ref, b, secret)
}

func (f form) unbind(ref kms.KeyRef, b kms.Binding, plaintext []byte) ([]byte, error) {
	if f.bound {
		return plaintext, nil
	}
	return kms.Unbind(ref, b, plaintext)
}

func (c Config) validate() error {
	all := []hsm.Mechanism{c.mechanism("")}
	for _, m := range c.Mechanisms {
		all = append(all, m)
	}
	for _, m := range all {
		if formOf(m).mechanism != m {
			return fmt.Errorf("%w: mechanism %q: want one of %q", kms.ErrInvalid, m, hsm.Mechanisms())
		}
	}
	return nil
}

// mechanism is the one for new versions of a KEK.
func (c Config) mechanism(name string) hsm.Mechanism {
	if m := c.Mechanisms[name]; m != "" {
		return m
	}
	if c.Mechanism != "" {
		return c.Mechanism
	}
	return hsm.AESGCM
}

// mechanismOf finds out the mechanism of a KEK version once.
func (p *Provider) mechanismOf(ctx context.Context, ref kms.KeyRef, key hsm.Key) (hsm.Mechanism, error) {
	p.mu.Lock()
	m := p.found[ref]
	p.mu.Unlock()
	if m != "" {
		return m, nil
	}
	info, err := p.find(ctx, ref, key)
	if err == nil {
		p.remember(ref, info.Mechanism)
	}
	return info.Mechanism, err
}

// find looks a key up as one of the configured mechanism, and where it is none, as
// one of another: what is configured counts for new versions.
func (p *Provider) find(ctx context.Context, ref kms.KeyRef, key hsm.Key) (hsm.KeyInfo, error) {
	configured := key.Mechanism
	info, err := p.token.Find(ctx, key)
	if !otherKind(err) {
		return info, err
	}
	for _, key.Mechanism = range hsm.Mechanisms() {
		if key.Mechanism == configured {
			continue
		}
		// A mechanism that the token has not is no answer to where the key is.
		other, failed := p.token.Find(ctx, key)
		if !otherKind(failed) && !errors.Is(failed, hsm.ErrUnsupported) {
			return other, failed
		}
	}
	p.forget(ref)
	return hsm.KeyInfo{}, err
}

// otherKind tells that a key may be there under another mechanism.
func otherKind(err error) bool {
	return errors.Is(err, hsm.ErrKind) || errors.Is(err, hsm.ErrNotFound) && !errors.Is(err, hsm.ErrUnavailable)
}

func (p *Provider) remember(ref kms.KeyRef, m hsm.Mechanism) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.found[ref] = m
}

func (p *Provider) forget(ref kms.KeyRef) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.found, ref)
}
