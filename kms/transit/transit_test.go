package transit_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"chatelaine/kms"
	"chatelaine/kms/kmstest"
	"chatelaine/kms/transit"
	"chatelaine/test/servers"
)

var (
	ref     = kms.KeyRef{Name: "main", Version: 1}
	binding = kms.Binding{Purpose: "bucket-key", Space: "s", ID: "i"}
)

// token is a login with a given token.
func token(text string) transit.Auth {
	return transit.Auth{Token: &transit.Token{Read: func() (string, error) { return text, nil }}}
}

func open(t testing.TB, cfg transit.Config) *transit.Provider {
	t.Helper()
	p, err := transit.New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return p
}

func create(t testing.TB, p *transit.Provider, ref kms.KeyRef) kms.KeyInfo {
	t.Helper()
	info, err := p.Create(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	return info
}

func TestConformance(t *testing.T) {
	v := servers.StartVault(t, servers.VaultOptions{})
	kmstest.Run(t, func(t *testing.T) kms.Provider {
		// Each case has an engine of its own.
		mount := "engines/" + strings.ToLower(strings.ReplaceAll(t.Name(), "/", "-"))
		v.Do(t, http.MethodPost, "sys/mounts/"+mount, map[string]any{"type": "transit"})
		return open(t, transit.Config{Address: v.Address, Mount: mount, Auth: token(v.Token)})
	})
}

func TestKeyIsMadeSafely(t *testing.T) {
	v := servers.StartVault(t, servers.VaultOptions{})
	p := open(t, transit.Config{Address: v.Address, Prefix: "house-a.", Auth: token(v.Token)})
	info := create(t, p, ref)
	if info.URI != "vault:transit/keys/house-a.main.v1" || info.Mechanism != "aes-gcm" || time.Since(info.Created).Abs() > time.Minute {
		t.Errorf("got %+v", info)
	}
	key := v.Do(t, http.MethodGet, "transit/keys/house-a.main.v1", nil)
	for attribute, want := range map[string]any{
		"type": "aes256-gcm96", "exportable": false, "allow_plaintext_backup": false, "derived": false,
		"auto_rotate_period": 0.0, "latest_version": 1.0, "deletion_allowed": false,
	} {
		if key[attribute] != want {
			t.Errorf("%s: got %v, want %v", attribute, key[attribute], want)
		}
	}
}

func TestUnsafeKeyIsRefused(t *testing.T) {
	v := servers.StartVault(t, servers.VaultOptions{})
	p := open(t, transit.Config{Address: v.Address, Auth: token(v.Token)})
	for name, attributes := range map[string]map[string]any{
		"exportable.v1": {"exportable": true},
		"backup.v1":     {"allow_plaintext_backup": true},
		"derived.v1":    {"derived": true},
		"chacha.v1":     {"type": "chacha20-poly1305"},
		"rsa.v1":        {"type": "rsa-2048"},
	} {
		v.Do(t, http.MethodPost, "transit/keys/"+name, attributes)
		key := kms.KeyRef{Name: strings.TrimSuffix(name, ".v1"), Version: 1}
		if _, err := p.Inspect(t.Context(), key); !errors.Is(err, kms.ErrUnsafe) {
			t.Errorf("%s: got %v, want ErrUnsafe", name, err)
		}
	}
}

// Somebody may rotate the key in Vault: our versions stay what they are.
func TestVaultsOwnVersionsDoNotMatter(t *testing.T) {
	v := servers.StartVault(t, servers.VaultOptions{})
	p := open(t, transit.Config{Address: v.Address, Auth: token(v.Token)})
	create(t, p, ref)
	before := wrap(t, p)
	v.Do(t, http.MethodPost, "transit/keys/main.v1/rotate", nil)
	after := wrap(t, p)
	for _, form := range [][]byte{before, after} {
		if got, err := p.Unwrap(t.Context(), ref, binding, form); err != nil || string(got) != "secret" {
			t.Errorf("got %q, %v", got, err)
		}
	}
	v.Do(t, http.MethodPost, "transit/keys/main.v1/config", map[string]any{"min_decryption_version": 2})
	if _, err := p.Unwrap(t.Context(), ref, binding, after); !errors.Is(err, kms.ErrDisabled) {
		t.Errorf("shut off in Vault: got %v, want ErrDisabled", err)
	}
	if _, err := p.Inspect(t.Context(), ref); !errors.Is(err, kms.ErrDisabled) {
		t.Errorf("inspecting it: got %v, want ErrDisabled", err)
	}
	v.Do(t, http.MethodPost, "transit/keys/main.v1/config", map[string]any{"min_encryption_version": 2})
	if _, err := p.Wrap(t.Context(), ref, binding, []byte("secret")); !errors.Is(err, kms.ErrDisabled) {
		t.Errorf("wrapping: got %v, want ErrDisabled", err)
	}
}

func wrap(t *testing.T, p *transit.Provider) []byte {
	t.Helper()
	wrapped, err := p.Wrap(t.Context(), ref, binding, []byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	return wrapped
}

func TestWrappedFormIsAsDocumented(t *testing.T) {
	v := servers.StartVault(t, servers.VaultOptions{})
	p := open(t, transit.Config{Address: v.Address, Auth: token(v.Token)})
	create(t, p, ref)
	key := bytes.Repeat([]byte{7}, 32)
	wrapped, err := p.Wrap(t.Context(), ref, binding, key)
	if err != nil || len(wrapped) != 1+12+32+32+16 || wrapped[0] != 0x21 {
		t.Fatalf("got %d bytes beginning with %x, %v", len(wrapped), wrapped[0], err)
	}
	const bound = "cho1/wrap\x00" + "\x00\x00\x00\x0abucket-key" + "\x00\x00\x00\x04main" + "\x00\x00\x00\x011" + "\x00\x00\x00\x01s" + "\x00\x00\x00\x01i"
	answer := v.Do(t, http.MethodPost, "transit/decrypt/main.v1", map[string]any{ // as deploy/break-glass/README.md has people do
		"ciphertext":      "vault:v1:" + base64.StdEncoding.EncodeToString(wrapped[1:]),
		"associated_data": base64.StdEncoding.EncodeToString([]byte(bound)),
	})
	text, _ := answer["plaintext"].(string)
	if opened, err := base64.StdEncoding.DecodeString(text); err != nil || len(opened) != 64 || !bytes.Equal(opened[32:], key) {
		t.Errorf("Vault opens it as %x, %v, want 64 bytes that end with the key", opened, err)
	}
}

func TestUnknownKeyIsNotMadeByWrapping(t *testing.T) {
	v := servers.StartVault(t, servers.VaultOptions{})
	p := open(t, transit.Config{Address: v.Address, Auth: token(v.Token)})
	if _, err := p.Wrap(t.Context(), ref, binding, []byte("secret")); !errors.Is(err, kms.ErrNotFound) {
		t.Errorf("got %v, want ErrNotFound", err)
	}
	if err := v.Call(t.Context(), http.MethodGet, "transit/keys/main.v1", nil, nil); err == nil {
		t.Error("Vault has made the key")
	}
}

func TestEngineThatIsNotMountedIsUnavailable(t *testing.T) {
	v := servers.StartVault(t, servers.VaultOptions{})
	p := open(t, transit.Config{Address: v.Address, Mount: "elsewhere", Auth: token(v.Token)})
	_, err := p.Inspect(t.Context(), ref)
	if !errors.Is(err, kms.ErrUnavailable) || errors.Is(err, kms.ErrNotFound) {
		t.Errorf("inspecting: got %v, want ErrUnavailable", err)
	}
	if err := p.Check(t.Context()); !errors.Is(err, kms.ErrUnavailable) {
		t.Errorf("checking: got %v, want ErrUnavailable", err)
	}
}

func TestSealedVaultIsUnavailable(t *testing.T) {
	v := servers.StartVault(t, servers.VaultOptions{})
	p := open(t, transit.Config{Address: v.Address, Auth: token(v.Token)})
	create(t, p, ref)
	wrapped := wrap(t, p)
	v.Do(t, http.MethodPost, "sys/seal", nil)
	if _, err := p.Unwrap(t.Context(), ref, binding, wrapped); !errors.Is(err, kms.ErrUnavailable) {
		t.Errorf("got %v, want ErrUnavailable", err)
	}
	if err := p.Destroy(t.Context(), ref); !errors.Is(err, kms.ErrUnavailable) {
		t.Errorf("destroying: got %v, want ErrUnavailable", err)
	}
}

func TestConfigurationThatCannotWorkIsInvalid(t *testing.T) {
	good := transit.Config{Address: "https://127.0.0.1:1", Auth: token("t")}
	for name, change := range map[string]func(*transit.Config){
		"no address":  func(c *transit.Config) { c.Address = "" },
		"plain http":  func(c *transit.Config) { c.Address = "http://vault.example:8200" },
		"credentials": func(c *transit.Config) { c.Address = "https://u:p@127.0.0.1:8200" },
		"no login":    func(c *transit.Config) { c.Auth = transit.Auth{} },
		"two logins":  func(c *transit.Config) { c.Auth.Kubernetes = &transit.Kubernetes{Role: "r"} },
		"prefix":      func(c *transit.Config) { c.Prefix = "a/" },
		"no CA":       func(c *transit.Config) { c.CAFile = "/nowhere" },
		"no certificate": func(c *transit.Config) {
			c.Auth = transit.Auth{Certificate: &transit.Certificate{CertFile: "/nowhere", KeyFile: "/nowhere"}}
		},
		"negative":        func(c *transit.Config) { c.Deadline = -1 },
		"AppRole without": func(c *transit.Config) { c.Auth = transit.Auth{AppRole: &transit.AppRole{}} },
	} {
		cfg := good
		change(&cfg)
		if _, err := transit.New(t.Context(), cfg); !errors.Is(err, kms.ErrInvalid) {
			t.Errorf("%s: got %v, want ErrInvalid", name, err)
		} else if strings.Contains(err.Error(), "u:p") {
			t.Errorf("%s: the error shows the credentials: %v", name, err)
		}
	}
	if _, err := transit.New(t.Context(), good); !errors.Is(err, kms.ErrUnavailable) {
		t.Errorf("nobody there: got %v, want ErrUnavailable", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := transit.New(ctx, good); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: got %v, want context.Canceled", err)
	}
}

func FuzzUnwrap(f *testing.F) {
	v := servers.StartVault(f, servers.VaultOptions{})
	p := open(f, transit.Config{Address: v.Address, Auth: token(v.Token)})
	create(f, p, ref)
	wrapped, err := p.Wrap(f.Context(), ref, binding, []byte("secret"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(wrapped)
	f.Add(bytes.Repeat([]byte{0x21}, len(wrapped)))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, form []byte) {
		got, err := p.Unwrap(t.Context(), ref, binding, form)
		if bytes.Equal(form, wrapped) {
			if err != nil || string(got) != "secret" {
				t.Errorf("got %q, %v", got, err)
			}
		} else if !errors.Is(err, kms.ErrCorrupt) || got != nil {
			t.Errorf("%x: got %q, %v, want ErrCorrupt", form, got, err)
		}
	})
}
