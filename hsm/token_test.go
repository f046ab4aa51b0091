package hsm_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"chatelaine/hsm"
	"chatelaine/hsm/hsmtest"
)

// What a real token does: SoftHSM.

func newKey(t testing.TB, token *hsm.Token, label string) hsm.Key {
	t.Helper()
	key := hsm.Key{Label: label, Mechanism: hsm.AESGCM}
	if _, err := token.Generate(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	return key
}

func TestEncryptedBytesDecryptUnderTheSameKeyAndData(t *testing.T) {
	token := hsmtest.Open(t)
	key := newKey(t, token, "main.v1")
	for _, size := range []int{1, 32, hsm.MaxData} {
		for _, aad := range [][]byte{nil, []byte("context")} {
			plaintext := bytes.Repeat([]byte{7}, size)
			sealed, err := token.Encrypt(t.Context(), key, plaintext, aad)
			if err != nil {
				t.Fatal(err)
			}
			if len(sealed) != size+28 {
				t.Errorf("%d bytes became %d, want 28 more", size, len(sealed))
			}
			got, err := token.Decrypt(t.Context(), key, sealed, aad)
			if err != nil || !bytes.Equal(got, plaintext) {
				t.Errorf("%d bytes: got %d bytes, %v", size, len(got), err)
			}
		}
	}
}

func TestNothingElseDecrypts(t *testing.T) {
	token := hsmtest.Open(t)
	key, other := newKey(t, token, "main.v1"), newKey(t, token, "main.v2")
	aad := []byte("context")
	sealed, err := token.Encrypt(t.Context(), key, []byte("secret"), aad)
	if err != nil {
		t.Fatal(err)
	}
	flipped := bytes.Clone(sealed)
	flipped[len(flipped)/2] ^= 1
	for name, tt := range map[string]struct {
		key         hsm.Key
		sealed, aad []byte
	}{
		"wrong key":        {other, sealed, aad},
		"wrong data":       {key, sealed, []byte("contexT")},
		"no data":          {key, sealed, nil},
		"flipped bit":      {key, flipped, aad},
		"truncated":        {key, sealed[:len(sealed)-1], aad},
		"extended":         {key, append(bytes.Clone(sealed), 0), aad},
		"shorter than tag": {key, sealed[:20], aad},
	} {
		if got, err := token.Decrypt(t.Context(), tt.key, tt.sealed, tt.aad); !errors.Is(err, hsm.ErrCorrupt) || got != nil {
			t.Errorf("%s: got %q, %v, want ErrCorrupt", name, got, err)
		}
	}
	if _, err := token.Decrypt(t.Context(), key, sealed, aad); err != nil {
		t.Errorf("the right one, afterwards: %v", err)
	}
}

func TestKeysAreFoundByTheirOneLabel(t *testing.T) {
	folder := hsmtest.New(t)
	cfg := folder.Token("one")
	token, err := hsm.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer closing(t, token)
	key := newKey(t, token, "main.v1")
	if _, err := token.Generate(t.Context(), key); !errors.Is(err, hsm.ErrExists) {
		t.Errorf("generating it again: got %v, want ErrExists", err)
	}
	info, err := token.Find(t.Context(), key)
	if err != nil || info.Mechanism != hsm.AESGCM {
		t.Errorf("got %+v, %v", info, err)
	}
	uri, err := hsm.ParseURI(info.URI)
	if err != nil || uri.Object != "main.v1" || uri.Token.Label != "one" || uri.Token.Serial == "" {
		t.Errorf("its URI %q is %+v, %v", info.URI, uri, err)
	}
	if _, err := token.Find(t.Context(), hsm.Key{Label: "main.v2", Mechanism: hsm.AESGCM}); !errors.Is(err, hsm.ErrNotFound) {
		t.Errorf("another label: got %v, want ErrNotFound", err)
	}
}

func TestKeysOutliveTheProcess(t *testing.T) {
	cfg := hsmtest.Token(t)
	key := hsm.Key{Label: "main.v1", Mechanism: hsm.AESGCM}
	var sealed []byte
	opened(t, cfg, func(token *hsm.Token) (err error) {
		newKey(t, token, key.Label)
		sealed, err = token.Encrypt(t.Context(), key, []byte("secret"), nil)
		return err
	})
	opened(t, cfg, func(token *hsm.Token) error {
		got, err := token.Decrypt(t.Context(), key, sealed, nil)
		if string(got) != "secret" {
			t.Errorf("got %q", got)
		}
		return err
	})
}

// opened opens a token for as long as f runs.
func opened(t *testing.T, cfg hsm.Config, f func(*hsm.Token) error) {
	t.Helper()
	token, err := hsm.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer closing(t, token)
	if err := f(token); err != nil {
		t.Error(err)
	}
}

func closing(t *testing.T, token *hsm.Token) {
	t.Helper()
	if err := token.Close(); err != nil {
		t.Error(err)
	}
}

func TestOpenSaysWhatIsWrong(t *testing.T) {
	folder := hsmtest.New(t)
	good := folder.Token("one")
	folder.Token("two")
	noModule := filepath.Join(t.TempDir(), "pkcs11.so")
	notOne := filepath.Join(t.TempDir(), "notes.txt")
	if err := os.WriteFile(notOne, []byte("no ELF"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		change func(*hsm.Config)
		want   error
		says   []string
	}{
		"module is missing": {func(c *hsm.Config) { c.Module = noModule }, hsm.ErrModule, []string{noModule, "no such file"}},
		"module is none":    {func(c *hsm.Config) { c.Module = notOne }, hsm.ErrModule, []string{notOne}},
		"other library":     {func(c *hsm.Config) { c.Module = "libdl.so.2" }, hsm.ErrModule, []string{"C_GetFunctionList"}},
		"token is missing":  {func(c *hsm.Config) { c.Token.Label = "three" }, hsm.ErrNoToken, []string{`"three" is not there`, `"one"`, `"two"`, folder.Module, folder.Conf}},
		"wrong PIN":         {func(c *hsm.Config) { c.PIN = hsm.NewPIN("99999999") }, hsm.ErrPIN, []string{"tried once", `"one"`}},
		"nothing is set":    {func(c *hsm.Config) { *c = hsm.Config{} }, hsm.ErrInvalid, []string{"module", "token", "PIN"}},
		"negative number":   {func(c *hsm.Config) { c.MaxSessions = -1 }, hsm.ErrInvalid, []string{"negative"}},
	} {
		cfg := good
		tt.change(&cfg)
		_, err := hsm.Open(t.Context(), cfg)
		if !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %v", name, err, tt.want)
			continue
		}
		for _, words := range tt.says {
			if !strings.Contains(err.Error(), words) {
				t.Errorf("%s: %q does not say %q", name, err, words)
			}
		}
		if strings.Contains(err.Error(), "99999999") {
			t.Errorf("%s: the error shows the PIN", name)
		}
	}
}

func TestTokenThatIsTakenAwayIsUnavailableUntilItIsBack(t *testing.T) {
	folder := hsmtest.New(t)
	cfg := folder.Token("one")
	cfg.Retry = time.Nanosecond
	token, err := hsm.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer closing(t, token)
	key := newKey(t, token, "main.v1")
	sealed, err := token.Encrypt(t.Context(), key, []byte("secret"), nil)
	if err != nil {
		t.Fatal(err)
	}
	inside, err := filepath.Glob(filepath.Join(folder.Dir, "*"))
	if err != nil || len(inside) != 1 {
		t.Fatalf("got %q, %v, want the folder of one token", inside, err)
	}
	for name, path := range map[string]string{"all tokens": folder.Dir, "this token": inside[0]} {
		away := filepath.Join(t.TempDir(), "away")
		rename(t, path, away)
		for what, f := range map[string]func() error{
			"check":   func() error { return token.Check(t.Context()) },
			"encrypt": func() error { _, err := token.Encrypt(t.Context(), key, []byte("secret"), nil); return err },
			"decrypt": func() error { _, err := token.Decrypt(t.Context(), key, sealed, nil); return err },
			"find":    func() error { _, err := token.Find(t.Context(), key); return err },
			"find another": func() error {
				_, err := token.Find(t.Context(), hsm.Key{Label: "y", Mechanism: hsm.AESGCM})
				return err
			},
			"generate": func() error {
				_, err := token.Generate(t.Context(), hsm.Key{Label: "x", Mechanism: hsm.AESGCM})
				return err
			},
		} {
			err := f()
			if what == "generate" && errors.Is(err, hsm.ErrUnavailable) {
				continue // it is not tried again after the loss has been noticed
			}
			if !errors.Is(err, hsm.ErrUnavailable) || errors.Is(err, hsm.ErrCorrupt) || !strings.Contains(err.Error(), `"one" is not there`) {
				t.Errorf("%s away: %s: got %v, want ErrUnavailable saying that the token is not there", name, what, err)
			}
		}
		rename(t, away, path)
		if got, err := token.Decrypt(t.Context(), key, sealed, nil); err != nil || string(got) != "secret" {
			t.Errorf("%s back: got %q, %v", name, got, err)
		}
	}
}

func rename(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

func TestOpenWithoutAnyTokenFolderNamesTokenAndConfiguration(t *testing.T) {
	folder := hsmtest.New(t)
	cfg := folder.Token("one")
	rename(t, folder.Dir, folder.Dir+".away")
	_, err := hsm.Open(t.Context(), cfg)
	if !errors.Is(err, hsm.ErrUnavailable) || !strings.Contains(err.Error(), `"one" is not there`) || !strings.Contains(err.Error(), folder.Conf) {
		t.Errorf("got %v, want ErrUnavailable naming the token and %s", err, folder.Conf)
	}
}

func TestTokensOfOneModuleShareALibrary(t *testing.T) {
	folder := hsmtest.New(t)
	one, two := folder.Token("one"), folder.Token("two")
	lib, err := hsm.Load(folder.Module)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := lib.Close(); err != nil {
			t.Error(err)
		}
	}()
	if _, err := hsm.Open(t.Context(), one); !errors.Is(err, hsm.ErrInUse) {
		t.Errorf("loading it again: got %v, want ErrInUse", err)
	}
	one.Library, two.Library = lib, lib
	opened(t, one, func(first *hsm.Token) error {
		key := newKey(t, first, "main.v1")
		opened(t, two, func(second *hsm.Token) error {
			if _, err := second.Find(t.Context(), key); !errors.Is(err, hsm.ErrNotFound) {
				t.Errorf("a key of the other token: got %v, want ErrNotFound", err)
			}
			return nil
		})
		_, err := first.Find(t.Context(), key)
		return err
	})
}

func TestInitTokenRefusesALabelThatIsTaken(t *testing.T) {
	folder := hsmtest.New(t)
	folder.Token("one")
	pin := hsm.NewPIN("123456")
	if err := hsm.InitToken(folder.Module, "one", pin, pin); !errors.Is(err, hsm.ErrExists) {
		t.Errorf("got %v, want ErrExists", err)
	}
	for _, label := range []string{"", strings.Repeat("x", 33)} {
		if err := hsm.InitToken(folder.Module, label, pin, pin); !errors.Is(err, hsm.ErrInvalid) {
			t.Errorf("label %q: got %v, want ErrInvalid", label, err)
		}
	}
}

func TestRandomIsNotConstant(t *testing.T) {
	token := hsmtest.Open(t)
	a, err := token.Random(t.Context(), 32)
	if err != nil {
		t.Fatal(err)
	}
	b, err := token.Random(t.Context(), 32)
	if err != nil || bytes.Equal(a, b) || len(a) != 32 {
		t.Errorf("got %x and %x, %v", a, b, err)
	}
	for _, n := range []int{0, -1, hsm.MaxRandom + 1} {
		if _, err := token.Random(t.Context(), n); !errors.Is(err, hsm.ErrInvalid) {
			t.Errorf("%d bytes: got %v, want ErrInvalid", n, err)
		}
	}
}

func TestArgumentsAreCheckedBeforeTheTokenIsAsked(t *testing.T) {
	token := hsmtest.Open(t)
	key := newKey(t, token, "main.v1")
	for name, f := range map[string]func() error{
		"no plaintext":  func() error { _, err := token.Encrypt(t.Context(), key, nil, nil); return err },
		"too much":      func() error { _, err := token.Encrypt(t.Context(), key, make([]byte, hsm.MaxData+1), nil); return err },
		"no ciphertext": func() error { _, err := token.Decrypt(t.Context(), key, nil, nil); return err },
		"no label":      func() error { _, err := token.Find(t.Context(), hsm.Key{Mechanism: hsm.AESGCM}); return err },
		"a label too long": func() error {
			_, err := token.Generate(t.Context(), hsm.Key{Label: strings.Repeat("x", 256), Mechanism: hsm.AESGCM})
			return err
		},
	} {
		if err := f(); !errors.Is(err, hsm.ErrInvalid) {
			t.Errorf("%s: got %v, want ErrInvalid", name, err)
		}
	}
	if _, err := token.Find(t.Context(), hsm.Key{Label: "x", Mechanism: "rot13"}); !errors.Is(err, hsm.ErrUnsupported) {
		t.Errorf("an unknown mechanism: got %v, want ErrUnsupported", err)
	}
}

func TestClosedTokenAndCancelledContext(t *testing.T) {
	token, err := hsm.Open(t.Context(), hsmtest.Token(t))
	if err != nil {
		t.Fatal(err)
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if err := token.Check(cancelled); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
	for range 2 {
		closing(t, token)
	}
	if err := token.Check(t.Context()); !errors.Is(err, hsm.ErrClosed) {
		t.Errorf("got %v, want ErrClosed", err)
	}
	if got := token.Label(); got != "" {
		t.Errorf("a closed token is still %q", got)
	}
}

func TestManyCallersAtOnce(t *testing.T) {
	cfg := hsmtest.Token(t)
	cfg.MaxSessions = 8
	opened(t, cfg, func(token *hsm.Token) error {
		key := newKey(t, token, "main.v1")
		var group sync.WaitGroup
		for i := range 64 {
			group.Go(func() { roundTrip(t, token, key, bytes.Repeat([]byte{byte(i)}, 32)) })
		}
		group.Wait()
		return nil
	})
}

func roundTrip(t *testing.T, token *hsm.Token, key hsm.Key, secret []byte) {
	sealed, err := token.Encrypt(t.Context(), key, secret, secret[:1])
	if err != nil {
		t.Error(err)
		return
	}
	if got, err := token.Decrypt(t.Context(), key, sealed, secret[:1]); err != nil || !bytes.Equal(got, secret) {
		t.Errorf("got %x, %v, want %x", got, err, secret)
	}
}

func TestADestroyedKeyIsGoneAlsoForAnotherLogin(t *testing.T) {
	token := hsmtest.Open(t)
	key, other := newKey(t, token, "main.v1"), newKey(t, token, "main.v2")
	if err := token.Destroy(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	if _, err := token.Find(t.Context(), key); !errors.Is(err, hsm.ErrNotFound) {
		t.Errorf("got %v", err)
	}
	if err := token.Destroy(t.Context(), key); !errors.Is(err, hsm.ErrNotFound) {
		t.Errorf("again: got %v", err)
	}
	if _, err := token.Find(t.Context(), other); err != nil {
		t.Errorf("another key: %v", err)
	}
}
