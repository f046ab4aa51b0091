// Package softkey is the kms.Provider for development and tests of other packages:
// its KEK versions are files, which anyone who can read the disk has. It refuses to
// be anything more: no passphrase, no sealing, no claim of safety.
package softkey

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"sync"

	"go.uber.org/zap"

	"chatelaine/kms"
)

// Name is what the operator must write to get this provider.
const Name = "softkey"

// Mechanism is what KeyInfo says: AES-256-GCM, as for a token.
const Mechanism = "aes-gcm"

// Config says where the keys are.
type Config struct {
	// Name is the provider's name as the operator wrote it in the configuration.
	// Anything but "softkey" is refused: this provider is never a default.
	Name string
	// Dir is the folder of the keys. Required. It is made with mode 0700 if missing.
	Dir string
	// Logger gets a warning at every start. Required.
	Logger *zap.Logger
}

// Provider keeps each KEK version in a file "<name>.v<version>.key" of mode 0600.
// Files are read anew for each call, so a removed file is a removed key.
type Provider struct {
	dir string

	calls  sync.WaitGroup // running calls; Add only while mu is held and closed is false
	mu     sync.Mutex
	closed bool
}

var _ kms.Provider = (*Provider)(nil)

// New opens or makes the folder, and logs a warning. Errors: kms.ErrInvalid,
// kms.ErrUnsafe when others may enter the folder, or that of the file system.
func New(cfg Config) (*Provider, error) {
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("kms: opening softkey: %w: %w", kms.ErrInvalid, err)
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("kms: opening softkey: %w", err)
	}
	info, err := os.Stat(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("kms: opening softkey: %w", err)
	}
	if err := private(info); err != nil {
		return nil, fmt.Errorf("kms: opening softkey folder %q: %w", cfg.Dir, err)
	}
	cfg.Logger.Named(Name).Warn("KEYS ARE PLAIN FILES, for development only: whoever reads this folder can read all data",
		zap.String("dir", cfg.Dir))
	return &Provider{dir: cfg.Dir}, nil
}

func (c Config) validate() error {
	var problems []error
	if c.Name != Name {
		problems = append(problems, fmt.Errorf("the provider must be asked for by its name %q, not %q", Name, c.Name))
	}
	if c.Dir == "" {
		problems = append(problems, errors.New("dir is missing"))
	}
	if c.Logger == nil {
		problems = append(problems, errors.New("logger is missing"))
	}
	return errors.Join(problems...)
}

// private refuses what anybody but the owner may use.
func private(info fs.FileInfo) error {
	if info.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf("%w: its mode is %v; others must have no access", kms.ErrUnsafe, info.Mode().Perm())
	}
	return nil
}

// Create makes a key file, durably: when Create returns, a crash does not lose it.
func (p *Provider) Create(ctx context.Context, ref kms.KeyRef) (kms.KeyInfo, error) {
	return p.about(ctx, "creating", ref, func() (kms.KeyInfo, error) {
		if err := p.write(ref); err != nil {
			return kms.KeyInfo{}, err
		}
		return p.inspect(ref)
	})
}

// Inspect reads a key file.
func (p *Provider) Inspect(ctx context.Context, ref kms.KeyRef) (kms.KeyInfo, error) {
	return p.about(ctx, "inspecting", ref, func() (kms.KeyInfo, error) { return p.inspect(ref) })
}

// Destroy removes a key file, durably. What a disk keeps of removed files is not
// overwritten: this provider is for development.
func (p *Provider) Destroy(ctx context.Context, ref kms.KeyRef) error {
	_, err := call(ctx, p, ref, func() (struct{}, error) {
		if err := os.Remove(p.path(ref)); err != nil {
			return struct{}{}, p.missing(err)
		}
		return struct{}{}, syncDir(p.dir)
	})
	if err != nil {
		return fmt.Errorf("kms: destroying %q: %w", ref, err)
	}
	return nil
}

func (p *Provider) about(ctx context.Context, doing string, ref kms.KeyRef, f func() (kms.KeyInfo, error)) (kms.KeyInfo, error) {
	info, err := call(ctx, p, ref, f)
	if err != nil {
		return kms.KeyInfo{}, fmt.Errorf("kms: %s %q: %w", doing, ref, err)
	}
	return info, nil
}

func (p *Provider) inspect(ref kms.KeyRef) (kms.KeyInfo, error) {
	if _, err := p.aead(ref); err != nil {
		return kms.KeyInfo{}, err
	}
	info, err := os.Stat(p.path(ref))
	if err != nil {
		return kms.KeyInfo{}, err
	}
	uri := url.URL{Scheme: Name, Path: filepath.Base(p.path(ref))}
	return kms.KeyInfo{Ref: ref, Mechanism: Mechanism, URI: uri.String(), Created: info.ModTime()}, nil
}

// form is the first byte of what Wrap returns: an IV of 12 bytes, the ciphertext and
// a tag of 16 bytes follow. It is not the number of any form of another provider.
const form = 0xF1

const overhead = 1 + 12 + 32 + 16

// Wrap encrypts with the key of the file.
func (p *Provider) Wrap(ctx context.Context, ref kms.KeyRef, b kms.Binding, secret []byte) ([]byte, error) {
	wrapped, err := call(ctx, p, ref, func() ([]byte, error) { return p.wrap(ref, b, secret) })
	if err != nil {
		return nil, fmt.Errorf("kms: wrapping under %q: %w", ref, err)
	}
	return wrapped, nil
}

func (p *Provider) wrap(ref kms.KeyRef, b kms.Binding, secret []byte) ([]byte, error) {
	if len(secret) == 0 || len(secret) > kms.MaxSecret {
		return nil, fmt.Errorf("%w: a secret has 1 to %d bytes", kms.ErrInvalid, kms.MaxSecret)
	}
	aead, err := p.aead(ref)
	if err != nil {
		return nil, err
	}
	bound := kms.Bind(ref, b, secret)
	defer clear(bound)
	return aead.Seal([]byte{form}, nil, bound, b.Bytes(ref)), nil //nolint:gosec // G407: this AEAD draws its own nonce at each call
}

// Unwrap decrypts with the key of the file.
func (p *Provider) Unwrap(ctx context.Context, ref kms.KeyRef, b kms.Binding, wrapped []byte) ([]byte, error) {
	secret, err := call(ctx, p, ref, func() ([]byte, error) { return p.unwrap(ref, b, wrapped) })
	if err != nil {
		return nil, fmt.Errorf("kms: unwrapping under %q: %w", ref, err)
	}
	return secret, nil
}

func (p *Provider) unwrap(ref kms.KeyRef, b kms.Binding, wrapped []byte) ([]byte, error) {
	aead, err := p.aead(ref)
	if err != nil {
		return nil, err
	}
	if len(wrapped) <= overhead || len(wrapped) > overhead+kms.MaxSecret || wrapped[0] != form {
		return nil, fmt.Errorf("%w: it has not the form of a wrapped secret", kms.ErrCorrupt)
	}
	bound, err := aead.Open(nil, nil, wrapped[1:], b.Bytes(ref))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", kms.ErrCorrupt, err)
	}
	return kms.Unbind(ref, b, bound)
}

const maxRandom = 1024

// Random returns bytes of this machine's generator: there is no other.
func (p *Provider) Random(ctx context.Context, n int) ([]byte, error) {
	if err := p.begin(ctx); err != nil {
		return nil, fmt.Errorf("kms: drawing random bytes: %w", err)
	}
	defer p.calls.Done()
	if n < 1 || n > maxRandom {
		return nil, fmt.Errorf("kms: drawing %d random bytes: %w: 1 to %d can be had", n, kms.ErrInvalid, maxRandom)
	}
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	return b, nil
}

// Check looks whether the folder is there.
func (p *Provider) Check(ctx context.Context) error {
	if err := p.begin(ctx); err != nil {
		return fmt.Errorf("kms: checking softkey: %w", err)
	}
	defer p.calls.Done()
	if _, err := os.ReadDir(p.dir); err != nil {
		return fmt.Errorf("kms: checking softkey: %w: %w", kms.ErrUnavailable, err)
	}
	return nil
}

// Close waits for running calls. A second Close does nothing.
func (p *Provider) Close() error {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.calls.Wait()
	return nil
}

// begin counts a call. After nil, p.calls.Done must be called.
func (p *Provider) begin(ctx context.Context) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return kms.ErrClosed
	}
	p.calls.Add(1)
	return nil
}

// call runs f for a key that has a proper name, while the provider is open.
func call[T any](ctx context.Context, p *Provider, ref kms.KeyRef, f func() (T, error)) (T, error) {
	var zero T
	if err := p.begin(ctx); err != nil {
		return zero, err
	}
	defer p.calls.Done()
	if ref.Name == "" || len(ref.Name) > maxName || ref.Version == 0 {
		return zero, fmt.Errorf("%w: a KEK has a name of 1 to %d bytes and a version from 1", kms.ErrInvalid, maxName)
	}
	return f()
}

// maxName keeps file names under 255 bytes also when every byte is escaped.
const maxName = 64

// path is where a key version is. Names are escaped, so none leaves the folder.
func (p *Provider) path(ref kms.KeyRef) string {
	return filepath.Join(p.dir, url.PathEscape(ref.String())+".key")
}

const header = "chatelaine softkey 1: for development only\n"

// aead reads a key file.
func (p *Provider) aead(ref kms.KeyRef) (cipher.AEAD, error) {
	key, err := p.read(ref)
	if err != nil {
		return nil, err
	}
	defer clear(key)
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

func (p *Provider) read(ref kms.KeyRef) ([]byte, error) {
	info, err := os.Lstat(p.path(ref))
	if err != nil {
		return nil, p.missing(err)
	}
	if err := private(info); err != nil {
		return nil, err
	}
	text, err := os.ReadFile(p.path(ref))
	if err != nil {
		return nil, p.missing(err)
	}
	defer clear(text)
	return parse(text)
}

// missing tells a key that is not there from a folder that is not.
func (p *Provider) missing(err error) error {
	if _, gone := os.Stat(p.dir); gone == nil && errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %w", kms.ErrNotFound, err)
	}
	return fmt.Errorf("%w: %w", kms.ErrUnavailable, err)
}

// parse reads the contents of a key file: the header, 64 hexadecimal digits, a newline.
func parse(text []byte) ([]byte, error) {
	digits, ok := bytes.CutPrefix(text, []byte(header))
	digits, ended := bytes.CutSuffix(digits, []byte("\n"))
	key := make([]byte, 32)
	if !ok || !ended || len(digits) != hex.EncodedLen(len(key)) {
		return nil, fmt.Errorf("%w: the file is no softkey", kms.ErrUnsafe)
	}
	if _, err := hex.Decode(key, digits); err != nil {
		return nil, fmt.Errorf("%w: the file is no softkey", kms.ErrUnsafe)
	}
	if bytes.Equal(key, make([]byte, len(key))) {
		return nil, fmt.Errorf("%w: the key is all zeroes", kms.ErrUnsafe)
	}
	return key, nil
}

// write makes a key file under a name of its own, then gives it the right name if
// nobody has it: a crash leaves no half a key, and nothing is ever overwritten.
func (p *Provider) write(ref kms.KeyRef) error {
	key := make([]byte, 32)
	_, _ = rand.Read(key) // never fails
	defer clear(key)
	temporary, err := p.writeTemporary(hex.AppendEncode([]byte(header), key))
	if err != nil {
		return fmt.Errorf("%w: %w", kms.ErrUnavailable, err)
	}
	err = os.Link(temporary, p.path(ref))
	if errors.Is(err, fs.ErrExist) {
		err = fmt.Errorf("%w: %w", kms.ErrExists, err)
	}
	return errors.Join(err, os.Remove(temporary), syncDir(p.dir))
}

func (p *Provider) writeTemporary(text []byte) (string, error) {
	defer clear(text)
	f, err := os.CreateTemp(p.dir, ".new-*") // with mode 0600
	if err != nil {
		return "", err
	}
	_, err = f.Write(append(text, '\n'))
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return "", errors.Join(err, os.Remove(f.Name()))
	}
	return f.Name(), nil
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
