package approval

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"strings"

	"golang.org/x/crypto/ssh"

	"chatelaine/kms"
)

// rawPrefix begins a public key, or a signature, that is Ed25519 without SSH around
// it: for signers that are no SSH agents, such as an HSM.
const rawPrefix = "ed25519:"

// Key is a person's public key: an SSH key of type ssh-ed25519 or
// sk-ssh-ed25519@openssh.com (on a hardware token, which must have been touched), or
// a bare Ed25519 key. Other algorithms are refused.
type Key struct {
	public ssh.PublicKey
	raw    bool
}

// ParseKey reads a line of an SSH .pub file, or "ed25519:" and 32 bytes in Base64.
func ParseKey(text string) (Key, error) {
	text = strings.TrimSpace(text)
	if encoded, ok := strings.CutPrefix(text, rawPrefix); ok {
		return parseRawKey(encoded)
	}
	public, _, options, rest, err := ssh.ParseAuthorizedKey([]byte(text))
	if err != nil || len(options) > 0 || len(rest) > 0 {
		return Key{}, fmt.Errorf("%w: %q is no public key; want a line like `ssh-ed25519 AAAA...`, or `ed25519:` and Base64", kms.ErrInvalid, abbreviated(text))
	}
	if !acceptable(public) {
		return Key{}, fmt.Errorf("%w: a key of type %s; want ssh-ed25519 or sk-ssh-ed25519@openssh.com", kms.ErrInvalid, public.Type())
	}
	return Key{public: public}, nil
}

func parseRawKey(encoded string) (Key, error) {
	b, err := base64.StdEncoding.Strict().DecodeString(encoded)
	if err != nil || len(b) != ed25519.PublicKeySize {
		return Key{}, fmt.Errorf("%w: %q: want `ed25519:` and %d bytes in Base64", kms.ErrInvalid, abbreviated(encoded), ed25519.PublicKeySize)
	}
	public, err := ssh.NewPublicKey(ed25519.PublicKey(b))
	if err != nil {
		return Key{}, fmt.Errorf("%w: %w", kms.ErrInvalid, err)
	}
	return Key{public: public, raw: true}, nil
}

func acceptable(k ssh.PublicKey) bool {
	return k.Type() == ssh.KeyAlgoED25519 || k.Type() == ssh.KeyAlgoSKED25519
}

// Fingerprint is SHA256:... as ssh-keygen -l prints it.
func (k Key) Fingerprint() string { return ssh.FingerprintSHA256(k.public) }

// String is the key in the one form that it has here, which ParseKey reads: without a
// comment.
func (k Key) String() string {
	if public, ok := k.public.(ssh.CryptoPublicKey); ok && k.raw {
		if bare, ok := public.CryptoPublicKey().(ed25519.PublicKey); ok {
			return rawPrefix + base64.StdEncoding.EncodeToString(bare)
		}
	}
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(k.public)))
}

// Same says whether two keys are one, in whatever form they are written.
func (k Key) Same(other Key) bool { return k.same(other.public) }

// Verify checks a signature over a message, as `ssh-keygen -Y sign -n chatelaine` makes
// it or, for a bare key, "ed25519:" and Base64. ErrDenied when it is by another key or
// over another message; ErrInvalid when it is no signature.
func (k Key) Verify(message []byte, signature string) error {
	if err := k.verify(message, signature); err != nil {
		return fmt.Errorf("approval: checking a signature: %w", err)
	}
	return nil
}

func (k Key) verify(message []byte, signature string) error {
	if encoded, ok := strings.CutPrefix(strings.TrimSpace(signature), rawPrefix); ok {
		if !k.verifyRaw(message, encoded) {
			return fmt.Errorf("%w: the signature is not over this statement, or by another key than %s", kms.ErrDenied, k.Fingerprint())
		}
		return nil
	}
	parsed, public, err := parseSSHSig([]byte(signature))
	if err != nil {
		return err
	}
	if !k.same(public) {
		return fmt.Errorf("%w: the signature is by the key %s, and not by %s", kms.ErrDenied, Key{public: public}.Fingerprint(), k.Fingerprint())
	}
	return parsed.verify(public, message)
}

// same says whether two keys are one, in whatever form they are written.
func (k Key) same(other ssh.PublicKey) bool {
	return bytes.Equal(k.public.Marshal(), other.Marshal())
}

// verifyRaw checks "ed25519:" and 64 bytes in Base64.
func (k Key) verifyRaw(message []byte, encoded string) bool {
	signature, err := base64.StdEncoding.Strict().DecodeString(strings.TrimSpace(encoded))
	if err != nil || !k.raw {
		return false
	}
	return k.public.Verify(message, &ssh.Signature{Format: ssh.KeyAlgoED25519, Blob: signature}) == nil
}

func abbreviated(s string) string {
	if len(s) > 40 {
		return s[:40] + "..."
	}
	return s
}
