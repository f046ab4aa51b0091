package softkey_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"chatelaine/kms"
	"chatelaine/kms/kmstest"
	"chatelaine/kms/softkey"
)

func config(t *testing.T) softkey.Config {
	return softkey.Config{Name: softkey.Name, Dir: filepath.Join(t.TempDir(), "keys"), Logger: zap.NewNop()}
}

func open(t *testing.T, cfg softkey.Config) *softkey.Provider {
	t.Helper()
	p, err := softkey.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return p
}

func TestConformance(t *testing.T) {
	kmstest.Run(t, func(t *testing.T) kms.Provider { return open(t, config(t)) })
}

func TestRunsOnlyWhenAskedForByName(t *testing.T) {
	for _, name := range []string{"", "pkcs11", "Softkey"} {
		cfg := config(t)
		cfg.Name = name
		if _, err := softkey.New(cfg); !errors.Is(err, kms.ErrInvalid) {
			t.Errorf("asked for as %q: got %v, want ErrInvalid", name, err)
		}
	}
	_, err := softkey.New(softkey.Config{})
	for _, missing := range []string{"name", "dir", "logger"} {
		if err == nil || !strings.Contains(err.Error(), missing) {
			t.Errorf("an empty configuration: %v does not say %q", err, missing)
		}
	}
}

func TestWarnsAtEveryStart(t *testing.T) {
	core, logs := observer.New(zapcore.WarnLevel)
	cfg := config(t)
	cfg.Logger = zap.New(core)
	for want := 1; want <= 2; want++ {
		open(t, cfg)
		if got := logs.FilterMessageSnippet("development only").Len(); got != want {
			t.Errorf("after %d starts there are %d warnings", want, got)
		}
	}
}

var (
	ref     = kms.KeyRef{Name: "main", Version: 1}
	binding = kms.Binding{Purpose: "bucket-key", Space: "s", ID: "i"}
)

// keyFile makes one key and returns the path of its file.
func keyFile(t *testing.T, p kms.Provider, cfg softkey.Config) string {
	t.Helper()
	if _, err := p.Create(t.Context(), ref); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(cfg.Dir, "*"))
	if err != nil || len(files) != 1 {
		t.Fatalf("got the files %q, %v, want one", files, err)
	}
	return files[0]
}

func TestKeysArePrivateFilesThatOutliveTheProcess(t *testing.T) {
	cfg := config(t)
	p := open(t, cfg)
	path := keyFile(t, p, cfg)
	for path, want := range map[string]os.FileMode{path: 0o600, cfg.Dir: 0o700} {
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm() != want {
			t.Errorf("%s has mode %v, %v, want %v", path, info.Mode().Perm(), err, want)
		}
	}
	wrapped, err := p.Wrap(t.Context(), ref, binding, []byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	got, err := open(t, cfg).Unwrap(t.Context(), ref, binding, wrapped)
	if err != nil || string(got) != "secret" {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestNamesDoNotLeaveTheFolder(t *testing.T) {
	cfg := config(t)
	p := open(t, cfg)
	for _, name := range []string{"../../etc/passwd", "..", "/abs", "a/b", "a%2Fb", "\x00"} {
		if _, err := p.Create(t.Context(), kms.KeyRef{Name: name, Version: 1}); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
	files, err := os.ReadDir(cfg.Dir)
	if err != nil || len(files) != 6 {
		t.Errorf("got %d files, %v, want 6", len(files), err)
	}
}

func TestUnsafeFilesAreRefused(t *testing.T) {
	for name, spoil := range map[string]func(path string) error{
		"readable by the group": func(path string) error { return os.Chmod(path, 0o640) },
		"empty":                 func(path string) error { return os.Truncate(path, 0) },
		"cut off":               func(path string) error { return os.Truncate(path, 70) },
		"all zeroes": func(path string) error {
			text, err := os.ReadFile(path)
			line := bytes.LastIndexByte(bytes.TrimSuffix(text, []byte("\n")), '\n') + 1
			zero := append(text[:line:line], strings.Repeat("0", 64)+"\n"...)
			return errors.Join(err, os.WriteFile(path, zero, 0o600))
		},
		"no digits": func(path string) error {
			text, err := os.ReadFile(path)
			text[len(text)-2] = 'x'
			return errors.Join(err, os.WriteFile(path, text, 0o600))
		},
	} {
		cfg := config(t)
		p := open(t, cfg)
		if err := spoil(keyFile(t, p, cfg)); err != nil {
			t.Fatal(err)
		}
		if _, err := p.Wrap(t.Context(), ref, binding, []byte("secret")); !errors.Is(err, kms.ErrUnsafe) {
			t.Errorf("%s: got %v, want ErrUnsafe", name, err)
		}
	}
}

func TestFolderThatOthersMayEnterIsUnsafe(t *testing.T) {
	cfg := config(t)
	if err := os.Mkdir(cfg.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(cfg.Dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := softkey.New(cfg); !errors.Is(err, kms.ErrUnsafe) {
		t.Errorf("got %v, want ErrUnsafe", err)
	}
}

func TestFolderThatIsTakenAwayIsUnavailable(t *testing.T) {
	cfg := config(t)
	p := open(t, cfg)
	keyFile(t, p, cfg)
	if err := os.Rename(cfg.Dir, cfg.Dir+".away"); err != nil {
		t.Fatal(err)
	}
	_, wrapping := p.Wrap(t.Context(), ref, binding, []byte("secret"))
	_, creating := p.Create(t.Context(), ref)
	for what, err := range map[string]error{"checking": p.Check(t.Context()), "wrapping": wrapping, "creating": creating} {
		if !errors.Is(err, kms.ErrUnavailable) {
			t.Errorf("%s: got %v, want ErrUnavailable", what, err)
		}
	}
}
