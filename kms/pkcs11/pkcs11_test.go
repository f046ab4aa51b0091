package pkcs11_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"chatelaine/hsm"
	"chatelaine/hsm/hsmtest"
	"chatelaine/kms"
	"chatelaine/kms/kmstest"
	"chatelaine/kms/pkcs11"
)

func open(t testing.TB, cfg pkcs11.Config) *pkcs11.Provider {
	t.Helper()
	p, err := pkcs11.New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

func TestConformance(t *testing.T) {
	kmstest.Run(t, func(t *testing.T) kms.Provider {
		return open(t, pkcs11.Config{HSM: hsmtest.Token(t)})
	})
}

// SoftHSM knows OAEP with SHA-1 only.
func TestConformanceOfMechanisms(t *testing.T) {
	for _, m := range []hsm.Mechanism{hsm.RSAOAEPSHA1, hsm.AESCBCHMAC} {
		t.Run(string(m), func(t *testing.T) {
			kmstest.Run(t, func(t *testing.T) kms.Provider {
				cfg := hsmtest.Token(t)
				cfg.RSABits = 2048 // quickly made
				return open(t, pkcs11.Config{HSM: cfg, Mechanism: m})
			})
		})
	}
}

func TestKeysKeepTheirMechanismWhenAnotherIsConfigured(t *testing.T) {
	cfg := pkcs11.Config{HSM: hsmtest.Token(t)}
	of := func(m hsm.Mechanism) pkcs11.Config { c := cfg; c.Mechanism = m; return c }
	forms := map[uint32][]byte{}
	mechanisms := []hsm.Mechanism{hsm.AESGCM, hsm.RSAOAEPSHA1, hsm.AESCBCHMAC}
	for i, m := range mechanisms {
		with(t, of(m), func(p *pkcs11.Provider) {
			at := kms.KeyRef{Name: ref.Name, Version: uint32(i + 1)}
			info, err := p.Create(t.Context(), at)
			if err != nil || info.Mechanism != string(m) {
				t.Fatalf("creating for %s: got %q, %v", m, info.Mechanism, err)
			}
			forms[at.Version] = wrapUnder(t, p, at)
		})
	}
	for _, configured := range mechanisms {
		with(t, of(configured), func(p *pkcs11.Provider) {
			for version, form := range forms {
				at := kms.KeyRef{Name: ref.Name, Version: version}
				if got, err := p.Unwrap(t.Context(), at, binding, form); err != nil || string(got) != "secret" {
					t.Errorf("version %d with %s configured: got %q, %v", version, configured, got, err)
				}
				if again := wrapUnder(t, p, at); again[0] != form[0] {
					t.Errorf("version %d with %s configured: wrapped as form %d, want %d", version, configured, again[0], form[0])
				}
				if info, err := p.Inspect(t.Context(), at); err != nil || info.Mechanism != string(mechanisms[version-1]) {
					t.Errorf("inspecting version %d: got %q, %v", version, info.Mechanism, err)
				}
				crossed := append([]byte{forms[version%3+1][0]}, form[1:]...)
				if _, err := p.Unwrap(t.Context(), at, binding, crossed); !errors.Is(err, kms.ErrCorrupt) {
					t.Errorf("version %d under another form's number: got %v, want ErrCorrupt", version, err)
				}
			}
		})
	}
}

// with opens a provider for the time of f, since the module is one for the process.
func with(t *testing.T, cfg pkcs11.Config, f func(*pkcs11.Provider)) {
	t.Helper()
	p, err := pkcs11.New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}()
	f(p)
}

func wrapUnder(t *testing.T, p *pkcs11.Provider, at kms.KeyRef) []byte {
	t.Helper()
	form, err := p.Wrap(t.Context(), at, binding, []byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	return form
}

func TestUnknownMechanismIsInvalid(t *testing.T) {
	for _, cfg := range []pkcs11.Config{{Mechanism: "rot13"}, {Mechanisms: map[string]hsm.Mechanism{"main": "rot13"}}} {
		if _, err := pkcs11.New(t.Context(), cfg); !errors.Is(err, kms.ErrInvalid) {
			t.Errorf("got %v, want ErrInvalid", err)
		}
	}
}

func TestConformanceOnOneSession(t *testing.T) {
	kmstest.Run(t, func(t *testing.T) kms.Provider {
		cfg := hsmtest.Token(t)
		cfg.MaxSessions = 1
		return open(t, pkcs11.Config{HSM: cfg, Prefix: "house-a/"})
	})
}

var (
	ref     = kms.KeyRef{Name: "main", Version: 1}
	binding = kms.Binding{Purpose: "bucket-key", Space: "s", ID: "i"}
)

func TestPrefixKeepsInstallationsApart(t *testing.T) {
	cfg := hsmtest.Token(t)
	lib, err := hsm.Load(cfg.Module)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = lib.Close() })
	cfg.Library = lib
	a, err := pkcs11.New(t.Context(), pkcs11.Config{HSM: cfg, Prefix: "a/"})
	if err != nil {
		t.Fatal(err)
	}
	info, err := a.Create(t.Context(), ref)
	if err != nil || !strings.Contains(info.URI, "object=a%2Fmain.v1") || info.Mechanism != "aes-gcm" {
		t.Errorf("got %+v, %v, want an object of label a/main.v1", info, err)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	b := open(t, pkcs11.Config{HSM: cfg, Prefix: "b/"})
	if _, err := b.Inspect(t.Context(), ref); !errors.Is(err, kms.ErrNotFound) {
		t.Errorf("the other's key: got %v, want ErrNotFound", err)
	}
}

func TestWrappedFormIsAsDocumented(t *testing.T) {
	p := open(t, pkcs11.Config{HSM: hsmtest.Token(t)})
	if _, err := p.Create(t.Context(), ref); err != nil {
		t.Fatal(err)
	}
	wrapped, err := p.Wrap(t.Context(), ref, binding, make([]byte, 32))
	if err != nil || len(wrapped) != 1+12+32+32+16 || wrapped[0] != 1 {
		t.Errorf("got %d bytes beginning with %d, %v", len(wrapped), wrapped[0], err)
	}
}

func TestUnwrapsAfterARestart(t *testing.T) {
	cfg := pkcs11.Config{HSM: hsmtest.Token(t)}
	before, err := pkcs11.New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := before.Create(t.Context(), ref); err != nil {
		t.Fatal(err)
	}
	wrapped, err := before.Wrap(t.Context(), ref, binding, []byte("secret"))
	if err := errors.Join(err, before.Close()); err != nil {
		t.Fatal(err)
	}
	got, err := open(t, cfg).Unwrap(t.Context(), ref, binding, wrapped)
	if err != nil || string(got) != "secret" {
		t.Errorf("got %q, %v", got, err)
	}
}

// A mechanism without associated data has nothing but the bound prefix.
func TestPrefixOfAnotherBindingIsCorrupt(t *testing.T) {
	cfg := hsmtest.Token(t)
	token, err := hsm.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	key := hsm.Key{Label: ref.String(), Mechanism: hsm.AESGCM}
	if _, err := token.Generate(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	other := kms.Binding{Purpose: "bucket-key", Space: "s", ID: "j"}
	sealed, err := token.Encrypt(t.Context(), key, kms.Bind(ref, other, []byte("secret")), binding.Bytes(ref))
	if err := errors.Join(err, token.Close()); err != nil {
		t.Fatal(err)
	}
	wrapped := append([]byte{1}, sealed...)
	if got, err := open(t, pkcs11.Config{HSM: cfg}).Unwrap(t.Context(), ref, binding, wrapped); !errors.Is(err, kms.ErrCorrupt) || got != nil {
		t.Errorf("got %q, %v, want ErrCorrupt", got, err)
	}
}

func FuzzUnwrap(f *testing.F) {
	p := open(f, pkcs11.Config{HSM: hsmtest.Token(f)})
	if _, err := p.Create(f.Context(), ref); err != nil {
		f.Fatal(err)
	}
	wrapped, err := p.Wrap(f.Context(), ref, binding, []byte("secret"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(wrapped)
	f.Add(bytes.Repeat([]byte{1}, len(wrapped)))
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

func TestErrorsOfTheHSMAreTheContracts(t *testing.T) {
	good := hsmtest.Token(t)
	for name, tt := range map[string]struct {
		change func(*hsm.Config)
		want   error
		cause  error
	}{
		"wrong PIN": {func(c *hsm.Config) { c.PIN = hsm.NewPIN("99999999") }, kms.ErrPIN, hsm.ErrPIN},
		"no token":  {func(c *hsm.Config) { c.Token.Label = "other" }, kms.ErrUnavailable, hsm.ErrNoToken},
		"no module": {func(c *hsm.Config) { c.Module = "/nowhere/p11.so" }, kms.ErrInvalid, hsm.ErrModule},
		"no PIN":    {func(c *hsm.Config) { c.PIN = hsm.PIN{} }, kms.ErrInvalid, hsm.ErrInvalid},
	} {
		cfg := good
		tt.change(&cfg)
		if _, err := pkcs11.New(t.Context(), pkcs11.Config{HSM: cfg}); !errors.Is(err, tt.want) || !errors.Is(err, tt.cause) {
			t.Errorf("%s: got %v, want %v caused by %v", name, err, tt.want, tt.cause)
		}
	}
}

func TestTokenThatIsTakenAwayIsUnavailable(t *testing.T) {
	folder := hsmtest.New(t)
	cfg := folder.Token("one")
	cfg.Retry = time.Nanosecond
	p := open(t, pkcs11.Config{HSM: cfg})
	if _, err := p.Create(t.Context(), ref); err != nil {
		t.Fatal(err)
	}
	wrapped, err := p.Wrap(t.Context(), ref, binding, []byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	away := filepath.Join(t.TempDir(), "away")
	if err := os.Rename(folder.Dir, away); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := p.Unwrap(t.Context(), ref, binding, wrapped); !errors.Is(err, kms.ErrUnavailable) || errors.Is(err, kms.ErrCorrupt) {
			t.Errorf("got %v, want ErrUnavailable", err)
		}
	}
	if err := os.Rename(away, folder.Dir); err != nil {
		t.Fatal(err)
	}
	if got, err := p.Unwrap(t.Context(), ref, binding, wrapped); err != nil || !bytes.Equal(got, []byte("secret")) {
		t.Errorf("when it was back: got %q, %v", got, err)
	}
}

func TestDuplicateLabelIsAmbiguous(t *testing.T) {
	cfg := hsmtest.Token(t)
	p, err := pkcs11.New(t.Context(), pkcs11.Config{HSM: cfg})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Create(t.Context(), ref); err != nil {
		t.Fatal(err)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	importKey(t, cfg, "main.v1")
	again := open(t, pkcs11.Config{HSM: cfg})
	if _, err := again.Inspect(t.Context(), ref); !errors.Is(err, kms.ErrAmbiguous) {
		t.Errorf("inspecting: got %v, want ErrAmbiguous", err)
	}
	if _, err := again.Wrap(t.Context(), ref, binding, []byte("secret")); !errors.Is(err, kms.ErrAmbiguous) {
		t.Errorf("wrapping: got %v, want ErrAmbiguous", err)
	}
	if _, err := again.Create(t.Context(), ref); !errors.Is(err, kms.ErrExists) {
		t.Errorf("creating: got %v, want ErrExists", err)
	}
}

func TestImportedKeyIsUnsafe(t *testing.T) {
	cfg := hsmtest.Token(t)
	importKey(t, cfg, "main.v1")
	p := open(t, pkcs11.Config{HSM: cfg})
	if _, err := p.Inspect(t.Context(), ref); !errors.Is(err, kms.ErrUnsafe) {
		t.Errorf("inspecting: got %v, want ErrUnsafe", err)
	}
	if _, err := p.Wrap(t.Context(), ref, binding, []byte("secret")); !errors.Is(err, kms.ErrUnsafe) {
		t.Errorf("wrapping: got %v, want ErrUnsafe", err)
	}
}

func TestExpiredContextEndsNew(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := pkcs11.New(ctx, pkcs11.Config{HSM: hsmtest.Token(t)}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
}
