package kmstest_test

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/zap"

	"chatelaine/kms"
	"chatelaine/kms/kmstest"
	"chatelaine/kms/softkey"
)

// defective is a provider with one defect, on top of one without.
type defective struct {
	kms.Provider
	name string
}

// defects are what the suite must notice, and the case that does.
var defects = map[string]string{
	"ignores the key version":   "WrongKeyFails",
	"ignores the space":         "WrongBindingFails",
	"ignores the purpose":       "WrongBindingFails",
	"ignores the id":            "WrongBindingFails",
	"ignores the last byte":     "FlippedBitFails",
	"ignores what is behind":    "WrongLengthFails",
	"all-zero key":              "WrongKeyFails",
	"deterministic":             "SameSecretWrapsDifferently",
	"does not encrypt":          "WrappedFormHidesTheSecret",
	"creates twice":             "KeyIsCreatedOnce",
	"unknown keys are corrupt":  "UnknownKeyIsNotFound",
	"takes any size":            "SecretOfImproperSizeIsInvalid",
	"ignores the context":       "CancelledContextEndsCalls",
	"works on after Close":      "ClosedProviderRefuses",
	"constant random":           "RandomIsNotConstant",
	"shows the secret":          "SecretOfImproperSizeIsInvalid",
	"returns bytes with errors": "FlippedBitFails",
	"changes its argument":      "ArgumentsAreLeftAlone",
	"destroys nothing":          "DestroyedKeyIsGone",
	"destroys in silence":       "DestroyedKeyIsGone",
	"destroys another":          "DestructionLeavesOthersAlone",
}

func TestSuiteNoticesDefects(t *testing.T) {
	for name, want := range defects {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestDefective$")
			cmd.Env = append(os.Environ(), "KMSTEST_DEFECT="+name)
			out, err := cmd.CombinedOutput()
			var failed *exec.ExitError
			if !errors.As(err, &failed) || !strings.Contains(string(out), "--- FAIL: TestDefective/"+want) {
				t.Errorf("the suite did not fail at %s: %v\n%s", want, err, out)
			}
		})
	}
}

// TestDefective is what TestSuiteNoticesDefects runs in processes of its own, since
// a test cannot fail inside of one that passes. By itself it runs without a defect.
func TestDefective(t *testing.T) {
	kmstest.Run(t, func(t *testing.T) kms.Provider {
		p, err := softkey.New(softkey.Config{Name: softkey.Name, Dir: filepath.Join(t.TempDir(), "keys"), Logger: zap.NewNop()})
		if err != nil {
			t.Fatal(err)
		}
		return &defective{p, os.Getenv("KMSTEST_DEFECT")}
	})
}

func (d *defective) Create(ctx context.Context, ref kms.KeyRef) (kms.KeyInfo, error) {
	info, err := d.Provider.Create(ctx, ref)
	if d.name == "creates twice" && errors.Is(err, kms.ErrExists) {
		return d.Inspect(ctx, ref)
	}
	return info, err
}

func (d *defective) Destroy(ctx context.Context, ref kms.KeyRef) error {
	switch d.name {
	case "destroys nothing":
		_, err := d.Inspect(ctx, ref)
		return err
	case "destroys another":
		_ = d.Provider.Destroy(ctx, kms.KeyRef{Name: ref.Name, Version: ref.Version + 1})
	}
	err := d.Provider.Destroy(ctx, ref)
	if d.name == "destroys in silence" && errors.Is(err, kms.ErrNotFound) {
		return nil
	}
	return err
}

func (d *defective) Wrap(ctx context.Context, ref kms.KeyRef, b kms.Binding, secret []byte) ([]byte, error) {
	switch d.name {
	case "takes any size":
		if len(secret) == 0 || len(secret) > kms.MaxSecret {
			secret = make([]byte, kms.MaxSecret)
		}
	case "shows the secret":
		if len(secret) == 0 {
			return nil, fmt.Errorf("no size for %s", "planted-secret-of-32-bytes-here!")
		}
	case "does not encrypt":
		_, err := d.Provider.Wrap(ctx, ref, b, secret)
		return append([]byte("plain"), secret...), err
	case "deterministic", "all-zero key":
		if _, err := d.Inspect(ctx, ref); err != nil {
			return nil, err
		}
		return zeroKey(d.name, ref).Seal(nil, make([]byte, 12), secret, b.Bytes(kms.KeyRef{})), nil
	}
	wrapped, err := d.Provider.Wrap(d.context(ctx), d.ref(ref), d.binding(b), secret)
	if d.name == "ignores the last byte" && err == nil {
		return append(wrapped, 0), nil
	}
	return wrapped, err
}

func (d *defective) Unwrap(ctx context.Context, ref kms.KeyRef, b kms.Binding, wrapped []byte) ([]byte, error) {
	switch {
	case d.name == "does not encrypt" && len(wrapped) > 5:
		return wrapped[5:], nil
	case d.name == "deterministic", d.name == "all-zero key":
		out, err := zeroKey(d.name, ref).Open(nil, make([]byte, 12), wrapped, b.Bytes(kms.KeyRef{}))
		return out, corrupt(err)
	case d.name == "ignores the last byte" && len(wrapped) > 0:
		wrapped = wrapped[:len(wrapped)-1]
	case d.name == "ignores what is behind":
		wrapped = wrapped[:min(len(wrapped), 1+12+32+32+16)]
	}
	got, err := d.Provider.Unwrap(d.context(ctx), d.ref(ref), d.binding(b), wrapped)
	switch {
	case d.name == "returns bytes with errors" && err != nil:
		return []byte("oops"), err
	case d.name == "changes its argument" && err == nil:
		clear(wrapped)
	case d.name == "unknown keys are corrupt" && errors.Is(err, kms.ErrNotFound):
		return nil, kms.ErrCorrupt
	}
	return got, err
}

func (d *defective) Random(ctx context.Context, n int) ([]byte, error) {
	b, err := d.Provider.Random(ctx, n)
	if d.name == "constant random" && err == nil {
		return bytes.Repeat([]byte{4}, n), nil
	}
	return b, err
}

func (d *defective) Close() error {
	if d.name == "works on after Close" {
		return nil
	}
	return d.Provider.Close()
}

func (d *defective) context(ctx context.Context) context.Context {
	if d.name == "ignores the context" {
		return context.WithoutCancel(ctx)
	}
	return ctx
}

func (d *defective) ref(ref kms.KeyRef) kms.KeyRef {
	if d.name == "ignores the key version" && ref.Version == 2 {
		ref.Version = 1
	}
	return ref
}

func (d *defective) binding(b kms.Binding) kms.Binding {
	switch d.name {
	case "ignores the space":
		b.Space = ""
	case "ignores the purpose":
		b.Purpose = ""
	case "ignores the id":
		b.ID = ""
	}
	return b
}

// zeroKey is the AEAD of a key of zeroes, or of one that at least depends on the ref.
func zeroKey(defect string, ref kms.KeyRef) cipher.AEAD {
	key := make([]byte, 32)
	if defect == "deterministic" {
		copy(key, ref.String())
	}
	block, _ := aes.NewCipher(key)
	aead, _ := cipher.NewGCM(block)
	return aead
}

func corrupt(err error) error {
	if err != nil {
		return kms.ErrCorrupt
	}
	return nil
}
