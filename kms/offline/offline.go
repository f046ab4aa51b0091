// Package offline wraps small secrets under an RSA public key whose private key is kept
// where no network reaches, and unwraps them with that when it is fetched: RSAES-OAEP
// (RFC 8017 section 7.1) with SHA-256 for both of its hashes.
//
// It refuses to know what the secrets are, and to keep a private key.
package offline

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
)

// Sizes of keys, in bits. NIST SP 800-57 part 1 gives 3072 the strength of AES-128, and
// no less is good for data after 2030. The upper one bounds records and time.
const (
	MinBits = 3072
	MaxBits = 8192
)

// minExponent is the smallest public exponent of NIST SP 800-56B section 6.2.
const minExponent = 65537

// Errors of this package. Texts never quote what was parsed.
var (
	// ErrKey: the text holds no key that is fit.
	ErrKey = errors.New("key is not fit for recovery")
	// ErrPrivate: a private key was given where a public one belongs.
	ErrPrivate = errors.New("it is a private key")
	// ErrEncrypted: the private key is under a passphrase.
	ErrEncrypted = errors.New("the private key has a passphrase")
	// ErrUnwrap: it was wrapped for another key or label, or was changed since.
	ErrUnwrap = errors.New("wrapped secret does not open")
)

// PublicKey wraps. Its methods may run concurrently.
type PublicKey struct {
	key         *rsa.PublicKey
	fingerprint string
}

// ParsePublicKey reads one RSA key of MinBits to MaxBits in PEM: PUBLIC KEY, as
// `openssl pkey -pubout` writes it, or RSA PUBLIC KEY. ErrKey, and ErrPrivate beside it
// for a private key.
func ParsePublicKey(text []byte) (*PublicKey, error) {
	key, err := parsePublic(text)
	if err != nil {
		return nil, fmt.Errorf("offline: reading a public key: %w: %w", ErrKey, err)
	}
	return newPublicKey(key)
}

func parsePublic(text []byte) (*rsa.PublicKey, error) {
	if bytes.Contains(text, []byte("PRIVATE KEY")) {
		return nil, ErrPrivate
	}
	block, err := onlyBlock(text)
	if err != nil {
		return nil, err
	}
	switch block.Type {
	case "RSA PUBLIC KEY":
		key, err := x509.ParsePKCS1PublicKey(block.Bytes)
		if err != nil {
			return nil, errors.New("it is no RSA public key")
		}
		return key, nil
	case "PUBLIC KEY":
		parsed, err := x509.ParsePKIXPublicKey(block.Bytes)
		key, ok := parsed.(*rsa.PublicKey)
		if err != nil || !ok {
			return nil, errors.New("it is no RSA public key")
		}
		return key, nil
	}
	return nil, errors.New("want a PEM block PUBLIC KEY")
}

// onlyBlock is the one block of PEM that the text has, with nothing around it.
func onlyBlock(text []byte) (*pem.Block, error) {
	block, rest := pem.Decode(text)
	before, _, _ := bytes.Cut(text, []byte("-----BEGIN"))
	if block == nil || len(bytes.TrimSpace(rest)) > 0 || len(bytes.TrimSpace(before)) > 0 {
		return nil, errors.New("want one PEM block and nothing else")
	}
	return block, nil
}

func newPublicKey(key *rsa.PublicKey) (*PublicKey, error) {
	if err := checkSize(key); err != nil {
		return nil, fmt.Errorf("offline: reading a key: %w: %w", ErrKey, err)
	}
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return nil, fmt.Errorf("offline: reading a key: %w: %w", ErrKey, err)
	}
	sum := sha256.Sum256(der)
	return &PublicKey{key: key, fingerprint: fingerprintPrefix + base64.RawStdEncoding.EncodeToString(sum[:])}, nil
}

func checkSize(key *rsa.PublicKey) error {
	if bits := key.N.BitLen(); bits < MinBits || bits > MaxBits {
		return fmt.Errorf("it has %d bits, want %d to %d", bits, MinBits, MaxBits)
	}
	if key.E < minExponent || key.E%2 == 0 {
		return fmt.Errorf("its exponent is %d, want an odd one from %d", key.E, minExponent)
	}
	return nil
}

const fingerprintPrefix = "SHA256:"

// Fingerprint names the key: "SHA256:" and unpadded base64 of the SHA-256 of its
// SubjectPublicKeyInfo (RFC 5280), 50 characters.
func (p *PublicKey) Fingerprint() string { return p.fingerprint }

// IsFingerprint says whether a text has the form of a Fingerprint.
func IsFingerprint(text string) bool {
	sum, ok := strings.CutPrefix(text, fingerprintPrefix)
	raw, err := base64.RawStdEncoding.Strict().DecodeString(sum)
	return ok && err == nil && len(raw) == sha256.Size
}

// Wrap encrypts a secret, of at most 318 bytes for the smallest key. The same label must be given to
// Unwrap; it is authenticated with the secret, but by nobody: whoever has the public key
// can wrap.
func (p *PublicKey) Wrap(label, secret []byte) ([]byte, error) {
	wrapped, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, p.key, secret, label)
	if err != nil {
		return nil, fmt.Errorf("offline: wrapping under %s: %w", p.fingerprint, err)
	}
	return wrapped, nil
}

// PrivateKey unwraps. Its methods may run concurrently. It shows itself to no format.
type PrivateKey struct {
	key    func() *rsa.PrivateKey // a func, which reflection cannot look into
	public *PublicKey
}

// ParsePrivateKey reads one RSA key in PEM: PRIVATE KEY (PKCS #8) or RSA PRIVATE KEY.
// ErrKey; ErrEncrypted for one under a passphrase, which is for other programs to lift.
func ParsePrivateKey(text []byte) (*PrivateKey, error) {
	key, err := parsePrivate(text)
	if err != nil {
		return nil, fmt.Errorf("offline: reading a private key: %w", err)
	}
	public, err := newPublicKey(&key.PublicKey)
	if err != nil {
		return nil, err
	}
	return &PrivateKey{key: func() *rsa.PrivateKey { return key }, public: public}, nil
}

func parsePrivate(text []byte) (*rsa.PrivateKey, error) {
	block, err := onlyBlock(text)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKey, err)
	}
	if block.Type == "ENCRYPTED PRIVATE KEY" || strings.Contains(block.Headers["Proc-Type"], "ENCRYPTED") {
		return nil, ErrEncrypted
	}
	var parsed any
	switch block.Type {
	case "PRIVATE KEY":
		parsed, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	case "RSA PRIVATE KEY":
		parsed, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	}
	key, ok := parsed.(*rsa.PrivateKey)
	if err != nil || !ok {
		return nil, fmt.Errorf("%w: want an RSA key, in a PEM block PRIVATE KEY", ErrKey)
	}
	return key, nil
}

// Public is the key that wraps for this one.
func (p *PrivateKey) Public() *PublicKey { return p.public }

// Unwrap decrypts what Wrap returned for the same label, or returns ErrUnwrap.
func (p *PrivateKey) Unwrap(label, wrapped []byte) ([]byte, error) {
	secret, err := rsa.DecryptOAEP(sha256.New(), nil, p.key(), wrapped, label)
	if err != nil {
		return nil, fmt.Errorf("offline: unwrapping with %s: %w", p.public.fingerprint, ErrUnwrap)
	}
	return secret, nil
}

// Format shows the fingerprint alone.
func (p *PrivateKey) Format(f fmt.State, _ rune) {
	_, _ = f.Write([]byte("offline.PrivateKey(" + p.public.fingerprint + ")"))
}
