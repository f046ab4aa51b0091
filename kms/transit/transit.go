// Package transit is the kms.Provider on the transit engine of HashiCorp Vault or
// OpenBao: it names KEK versions there, binds secrets to their context, lays out the
// wrapped form, and keeps a token. It refuses to know who may use which key.
package transit

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/vault/api"
	"go.uber.org/zap"

	"chatelaine/kms"
)

// Config says which Vault, how to log in, and which keys in it are ours.
type Config struct {
	// Address is the URL of the server, https://host:8200. Plain http is taken for a
	// loopback address alone. Required.
	Address string
	// Namespace of Vault Enterprise or OpenBao. Empty: the root namespace, or none.
	Namespace string
	// Mount is the path of the transit engine. Empty: "transit".
	Mount string
	// Prefix begins the name of each key that is ours: version 3 of "main" is
	// "<prefix>main.v3". Installations that share an engine need different ones.
	Prefix string
	// CAFile holds the authorities of the server's certificate, in PEM. Empty: those
	// of the system.
	CAFile string
	// Auth is how to log in: exactly one of its parts. Required.
	Auth Auth
	// Deadline bounds each call. 0: 10 s.
	Deadline time.Duration
	// Logger is told of logins and of renewals that failed. nil: nobody is.
	Logger *zap.Logger
}

func (c Config) withDefaults() Config {
	c.Mount = cmp.Or(strings.Trim(c.Mount, "/"), "transit")
	c.Namespace = strings.Trim(c.Namespace, "/")
	c.Deadline = cmp.Or(c.Deadline, 10*time.Second)
	if c.Logger == nil {
		c.Logger = zap.NewNop()
	}
	return c
}

func (c Config) validate() error {
	problems := []error{checkAddress(c.Address), c.Auth.validate()}
	if c.Prefix != "" && !keyNames.MatchString(c.Prefix) {
		problems = append(problems, fmt.Errorf("prefix %q: want letters, digits, and then also . - and _", c.Prefix))
	}
	if c.Deadline < 0 {
		problems = append(problems, fmt.Errorf("deadline %v is negative", c.Deadline))
	}
	return errors.Join(problems...)
}

// Provider is a kms.Provider whose KEK versions are keys of type aes256-gcm96 in a
// transit engine.
type Provider struct {
	session  *session
	mount    string
	prefix   string
	where    string // namespace and mount, for people
	deadline time.Duration

	calls  sync.WaitGroup // running calls; Add only while mu is held and closed is false
	mu     sync.Mutex
	closed bool
}

var _ kms.Provider = (*Provider)(nil)

// New logs in. The caller closes the Provider. Errors: kms.ErrInvalid,
// kms.ErrUnavailable, kms.ErrDenied when Vault refuses the login, ctx's error.
func New(ctx context.Context, cfg Config) (*Provider, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("kms: opening Vault: %w: %w", kms.ErrInvalid, err)
	}
	s, err := newSession(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("kms: opening Vault at %q: %w", cfg.Address, err)
	}
	where := strings.TrimPrefix(cfg.Namespace+"/"+cfg.Mount, "/")
	return &Provider{session: s, mount: cfg.Mount, prefix: cfg.Prefix, where: where, deadline: cfg.Deadline}, nil
}

// Create makes a key of its own for the version.
func (p *Provider) Create(ctx context.Context, ref kms.KeyRef) (info kms.KeyInfo, err error) {
	err = p.do(ctx, func(ctx context.Context) error {
		key, err := p.key(ref)
		if err != nil {
			return err
		}
		if _, err := p.inspect(ctx, key); !errors.Is(err, kms.ErrNotFound) {
			return cmp.Or(err, kms.ErrExists)
		}
		if err := p.create(ctx, key); err != nil {
			return err
		}
		info, err = p.inspect(ctx, key)
		info.Ref = ref
		return err
	})
	if err != nil {
		return kms.KeyInfo{}, fmt.Errorf("kms: creating %q: %w", ref, err)
	}
	return info, nil
}

// create makes a key, or returns ErrExists. Vault answers alike when there is one
// already, so what it answers must have a number that only this call knows: the
// period of rotation, of more than a century, which is then taken away.
func (p *Provider) create(ctx context.Context, key string) error {
	mark := markPeriod()
	made, err := p.write(ctx, "keys/"+key, map[string]any{
		"type": keyType, "exportable": false, "allow_plaintext_backup": false, "derived": false,
		"auto_rotate_period": fmt.Sprint(mark),
	})
	if err != nil {
		return err
	}
	if made == nil || number(made.Data["auto_rotate_period"]) != mark {
		return kms.ErrExists
	}
	_, err = p.write(ctx, "keys/"+key+"/config", map[string]any{"auto_rotate_period": "0"})
	return err
}

// markPeriod is a random number of seconds: 100 to 168 years.
func markPeriod() int64 {
	var b [4]byte
	_, _ = rand.Read(b[:]) // never fails
	return 100*365*24*3600 + int64(binary.BigEndian.Uint32(b[:])>>1)
}

// Inspect reads the attributes of a KEK version: kms.ErrUnsafe when the key could be
// read out of Vault or is of another type, kms.ErrDisabled when Vault's own
// min_decryption_version shuts it off.
func (p *Provider) Inspect(ctx context.Context, ref kms.KeyRef) (info kms.KeyInfo, err error) {
	err = p.do(ctx, func(ctx context.Context) error {
		key, err := p.key(ref)
		if err != nil {
			return err
		}
		info, err = p.inspect(ctx, key)
		info.Ref = ref
		return err
	})
	if err != nil {
		return kms.KeyInfo{}, fmt.Errorf("kms: inspecting %q: %w", ref, err)
	}
	return info, nil
}

func (p *Provider) inspect(ctx context.Context, key string) (kms.KeyInfo, error) {
	answer, err := p.session.call(ctx, func(c *api.Client) (*api.Secret, error) {
		return read(ctx, c, p.mount+"/keys/"+key)
	})
	if err != nil {
		return kms.KeyInfo{}, err
	}
	if err := checkKey(answer.Data); err != nil {
		return kms.KeyInfo{}, err
	}
	info := kms.KeyInfo{Mechanism: mechanism, URI: "vault:" + p.where + "/keys/" + key}
	if versions, ok := answer.Data["keys"].(map[string]any); ok {
		if made := number(versions["1"]); made > 0 {
			info.Created = time.Unix(made, 0).UTC()
		}
	}
	return info, nil
}

// read is for api.Logical's method of that name, which does not tell a key that is not
// there from an engine that is not there.
func read(ctx context.Context, c *api.Client, path string) (*api.Secret, error) {
	answer, err := c.Logical().ReadRawWithContext(ctx, path)
	if answer != nil {
		defer answer.Body.Close()
	}
	if err != nil {
		return nil, err
	}
	return api.ParseSecret(answer.Body)
}

// checkKey reads a key's attributes.
func checkKey(data map[string]any) error {
	if data["type"] != keyType {
		return fmt.Errorf("%w: it is of type %v, want %s", kms.ErrUnsafe, data["type"], keyType)
	}
	for _, attribute := range []string{"exportable", "allow_plaintext_backup", "derived", "imported_key"} {
		if set, _ := data[attribute].(bool); set {
			return fmt.Errorf("%w: it is %s", kms.ErrUnsafe, attribute)
		}
	}
	if n := number(data["min_decryption_version"]); n > 1 {
		return fmt.Errorf("%w: Vault's min_decryption_version of the key is %d, and it wraps with version 1", kms.ErrDisabled, n)
	}
	return nil
}

// Destroy allows the deletion of the key, and deletes it.
func (p *Provider) Destroy(ctx context.Context, ref kms.KeyRef) error {
	err := p.do(ctx, func(ctx context.Context) error {
		key, err := p.key(ref)
		if err != nil {
			return err
		}
		if _, err := p.write(ctx, "keys/"+key+"/config", map[string]any{"deletion_allowed": true}); err != nil {
			return err
		}
		_, err = p.session.call(ctx, func(c *api.Client) (*api.Secret, error) {
			return c.Logical().DeleteWithContext(ctx, p.mount+"/keys/"+key)
		})
		return err
	})
	if err != nil {
		return fmt.Errorf("kms: destroying %q: %w", ref, err)
	}
	return nil
}

// Wrap makes one call.
func (p *Provider) Wrap(ctx context.Context, ref kms.KeyRef, b kms.Binding, secret []byte) (wrapped []byte, err error) {
	err = p.do(ctx, func(ctx context.Context) error {
		key, err := p.key(ref)
		if err != nil {
			return err
		}
		if len(secret) == 0 || len(secret) > kms.MaxSecret {
			return fmt.Errorf("%w: a secret has 1 to %d bytes", kms.ErrInvalid, kms.MaxSecret)
		}
		bound := kms.Bind(ref, b, secret)
		defer clear(bound)
		answer, err := p.write(ctx, "encrypt/"+key, map[string]any{
			"plaintext":       base64.StdEncoding.EncodeToString(bound),
			"associated_data": base64.StdEncoding.EncodeToString(b.Bytes(ref)),
			"key_version":     1,
			// Vault would make a key that it does not know. Of no type, it cannot.
			"type": "none",
		})
		if err != nil {
			return err
		}
		wrapped, err = parseCiphertext(text(answer, "ciphertext"), len(bound))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("kms: wrapping under %q: %w", ref, err)
	}
	return wrapped, nil
}

// Unwrap makes one call.
func (p *Provider) Unwrap(ctx context.Context, ref kms.KeyRef, b kms.Binding, wrapped []byte) (secret []byte, err error) {
	err = p.do(ctx, func(ctx context.Context) error {
		secret, err = p.unwrap(ctx, ref, b, wrapped)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("kms: unwrapping under %q: %w", ref, err)
	}
	return secret, nil
}

func (p *Provider) unwrap(ctx context.Context, ref kms.KeyRef, b kms.Binding, wrapped []byte) ([]byte, error) {
	key, err := p.key(ref)
	if err != nil {
		return nil, err
	}
	ciphertext, ok := formatCiphertext(wrapped)
	if !ok {
		// The contract wants ErrNotFound for a key that is not there, whatever the form.
		if _, err := p.inspect(ctx, key); err != nil {
			return nil, err
		}
		return nil, fmt.Errorf("%w: it has not the form of a wrapped secret", kms.ErrCorrupt)
	}
	answer, err := p.write(ctx, "decrypt/"+key, map[string]any{
		"ciphertext":      ciphertext,
		"associated_data": base64.StdEncoding.EncodeToString(b.Bytes(ref)),
	})
	if err != nil {
		return nil, err
	}
	bound, err := base64.StdEncoding.DecodeString(text(answer, "plaintext"))
	if err != nil || len(bound) == 0 {
		return nil, fmt.Errorf("%w: Vault's answer has no plaintext", kms.ErrUnavailable)
	}
	return kms.Unbind(ref, b, bound)
}

// Random returns n bytes of Vault's generator.
func (p *Provider) Random(ctx context.Context, n int) (random []byte, err error) {
	err = p.do(ctx, func(ctx context.Context) error {
		if n < 1 || n > 1024 {
			return fmt.Errorf("%w: %d bytes, want 1 to 1024", kms.ErrInvalid, n)
		}
		random, err = p.random(ctx, n)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("kms: drawing random bytes: %w", err)
	}
	return random, nil
}

func (p *Provider) random(ctx context.Context, n int) ([]byte, error) {
	answer, err := p.write(ctx, fmt.Sprintf("random/%d", n), map[string]any{"format": "base64"})
	if err != nil {
		return nil, err
	}
	random, err := base64.StdEncoding.DecodeString(text(answer, "random_bytes"))
	if err != nil || len(random) != n {
		return nil, fmt.Errorf("%w: asked for %d random bytes, got %d", kms.ErrUnavailable, n, len(random))
	}
	return random, nil
}

// Check draws a byte, which needs a token and an engine that is not sealed.
func (p *Provider) Check(ctx context.Context) error {
	err := p.do(ctx, func(ctx context.Context) error {
		_, err := p.random(ctx, 1)
		return err
	})
	if err != nil {
		return fmt.Errorf("kms: checking Vault: %w", err)
	}
	return nil
}

// Close waits for running calls and gives the token back to Vault, unless the token
// was given to us. A second Close does nothing.
func (p *Provider) Close() error {
	p.mu.Lock()
	was := p.closed
	p.closed = true
	p.mu.Unlock()
	p.calls.Wait()
	if !was {
		p.session.close()
	}
	return nil
}

// do runs a call within the deadline.
func (p *Provider) do(ctx context.Context, call func(context.Context) error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return kms.ErrClosed
	}
	p.calls.Add(1)
	p.mu.Unlock()
	defer p.calls.Done()
	bounded, cancel := context.WithTimeout(ctx, p.deadline)
	defer cancel()
	err := call(bounded)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case bounded.Err() != nil:
		return fmt.Errorf("%w: Vault took over %v", kms.ErrUnavailable, p.deadline)
	}
	return err
}

func (p *Provider) write(ctx context.Context, path string, data map[string]any) (*api.Secret, error) {
	return p.session.call(ctx, func(c *api.Client) (*api.Secret, error) {
		return c.Logical().WriteWithContext(ctx, p.mount+"/"+path, data)
	})
}

// maxName is the longest name of a KEK in bytes.
const maxName = 128

// keyNames are Vault's, but for the last sign, which is a digit of ours.
var keyNames = regexp.MustCompile(`^\w[\w.-]*$`)

// key is the name of a KEK version's key in Vault.
func (p *Provider) key(ref kms.KeyRef) (string, error) {
	if ref.Name == "" || len(ref.Name) > maxName || ref.Version == 0 {
		return "", fmt.Errorf("%w: a KEK has a name of 1 to %d bytes and a version from 1", kms.ErrInvalid, maxName)
	}
	key := p.prefix + ref.String()
	if !keyNames.MatchString(key) {
		return "", fmt.Errorf("%w: Vault takes no key %q: want letters, digits, and then also . - and _", kms.ErrInvalid, key)
	}
	return key, nil
}
