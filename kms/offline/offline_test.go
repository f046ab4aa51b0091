package offline

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func file(t testing.TB, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func private(t testing.TB, name string) *PrivateKey {
	t.Helper()
	key, err := ParsePrivateKey(file(t, name))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestWhatIsWrappedOpensWithThePrivateKeyAndTheLabelAlone(t *testing.T) {
	key, other := private(t, "private.pem"), private(t, "other.pem")
	public, err := ParsePublicKey(file(t, "public.pem"))
	if err != nil {
		t.Fatal(err)
	}
	if public.Fingerprint() != key.Public().Fingerprint() || public.Fingerprint() == other.Public().Fingerprint() || !IsFingerprint(public.Fingerprint()) {
		t.Errorf("fingerprints: got %s, the private key's %s, another's %s", public.Fingerprint(), key.Public().Fingerprint(), other.Public().Fingerprint())
	}
	secret, label := bytes.Repeat([]byte{7}, 32), []byte("label")
	wrapped, err := public.Wrap(label, secret)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := public.Wrap(label, secret); err != nil || bytes.Equal(again, wrapped) {
		t.Errorf("wrapped again: %v, and the same bytes: %t", err, bytes.Equal(again, wrapped))
	}
	got, err := key.Unwrap(label, wrapped)
	if err != nil || !bytes.Equal(got, secret) {
		t.Errorf("got %x, %v, want %x", got, err, secret)
	}
	flipped := bytes.Clone(wrapped)
	flipped[len(flipped)-1] ^= 1
	for name, open := range map[string]func() ([]byte, error){
		"another label": func() ([]byte, error) { return key.Unwrap([]byte("Label"), wrapped) },
		"another key":   func() ([]byte, error) { return other.Unwrap(label, wrapped) },
		"a flipped bit": func() ([]byte, error) { return key.Unwrap(label, flipped) },
		"cut":           func() ([]byte, error) { return key.Unwrap(label, wrapped[1:]) },
		"nothing":       func() ([]byte, error) { return key.Unwrap(label, nil) },
	} {
		if got, err := open(); !errors.Is(err, ErrUnwrap) {
			t.Errorf("%s: got %x, %v, want ErrUnwrap", name, got, err)
		}
	}
}

func TestUnfitPublicKeysAreRefused(t *testing.T) {
	good := string(file(t, "public.pem"))
	for name, text := range map[string]string{
		"has 2048 bits":       string(file(t, "small.pem")),
		"its exponent is 3":   string(file(t, "exponent-3.pem")),
		"no RSA public key":   string(file(t, "ec.pem")),
		"a private key":       string(file(t, "private.pem")),
		"is a private key":    string(file(t, "encrypted.pem")),
		"nothing else":        good + good,
		"one PEM block":       "text\n" + good,
		"block and nothing":   "",
		"block PUBLIC KEY":    strings.ReplaceAll(good, "PUBLIC KEY", "CERTIFICATE"),
		"is no RSA":           "-----BEGIN RSA PUBLIC KEY-----\nAAAA\n-----END RSA PUBLIC KEY-----\n",
		"it is a private key": good + string(file(t, "private.pem")),
	} {
		if _, err := ParsePublicKey([]byte(text)); !errors.Is(err, ErrKey) || !strings.Contains(err.Error(), name) {
			t.Errorf("got %v, want ErrKey with %q", err, name)
		}
	}
	if _, err := ParsePublicKey(file(t, "private.pem")); !errors.Is(err, ErrPrivate) {
		t.Errorf("a private key: got %v, want ErrPrivate", err)
	}
}

func TestUnfitPrivateKeysAreRefused(t *testing.T) {
	for name, want := range map[string]error{
		"encrypted.pem": ErrEncrypted, "encrypted-old.pem": ErrEncrypted, "public.pem": ErrKey, "ec.pem": ErrKey, "README.md": ErrKey,
	} {
		if _, err := ParsePrivateKey(file(t, name)); !errors.Is(err, want) {
			t.Errorf("%s: got %v, want %v", name, err, want)
		}
	}
}

func TestAPrivateKeyShowsItsFingerprintAlone(t *testing.T) {
	key := private(t, "private.pem")
	want := "offline.PrivateKey(" + key.Public().Fingerprint() + ")"
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d"} {
		if got := fmt.Sprintf(verb, key); got != want {
			t.Errorf("%s: got %s, want %s", verb, got, want)
		}
	}
}

func TestIsFingerprint(t *testing.T) {
	good := private(t, "private.pem").Public().Fingerprint()
	for text, want := range map[string]bool{
		good: true, "": false, "SHA256:": false, good + "=": false, strings.TrimPrefix(good, "SHA256:"): false, "MD5:" + good[7:]: false, good + "A": false,
	} {
		if got := IsFingerprint(text); got != want {
			t.Errorf("%q: got %t, want %t", text, got, want)
		}
	}
}

func FuzzParsePublicKey(f *testing.F) {
	for _, name := range []string{"public.pem", "ec.pem", "private.pem"} {
		f.Add(file(f, name))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		key, err := ParsePublicKey(text)
		if err != nil {
			return
		}
		if _, err := key.Wrap(nil, make([]byte, 32)); err != nil {
			t.Fatalf("it parses and does not wrap: %v", err)
		}
	})
}
