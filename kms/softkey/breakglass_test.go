package softkey_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"chatelaine/kms"
)

// TestBreakGlassOpensWhatSoftwareKeysWrap has the script of deploy/break-glass open what was
// wrapped here, with the KEK's file, and refuse it under another KEK or changed.
func TestBreakGlassOpensWhatSoftwareKeysWrap(t *testing.T) {
	if testing.Short() {
		t.Skip("needs python3-cryptography")
	}
	if out, err := exec.CommandContext(t.Context(), "python3", "-c", "import cryptography").CombinedOutput(); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("python3-cryptography: %v: %s", err, out)
		}
		t.Skipf("python3-cryptography is missing: %v", err)
	}
	cfg, other := config(t), config(t)
	p, stranger := open(t, cfg), open(t, other)
	kek, wrongKEK := keyFile(t, p, cfg), keyFile(t, stranger, other)
	key := bytes.Repeat([]byte{0xa5, 0x5a}, 16)
	bound := kms.Binding{Purpose: "bucket-key", Space: "6ba7b810-9dad-11d1-80b4-00c04fd430c8", ID: strings.Repeat("5c", 16)}
	wrapped, err := p.Wrap(t.Context(), ref, bound, key)
	if err != nil {
		t.Fatal(err)
	}
	flipped := bytes.Clone(wrapped)
	flipped[len(flipped)/2] ^= 1
	for name, tt := range map[string]struct {
		wrapped []byte
		kek     string
		want    string
	}{
		"as it is":          {wrapped, kek, hex.EncodeToString(key) + "\n"},
		"under another KEK": {wrapped, wrongKEK, ""},
		"flipped":           {flipped, kek, ""},
	} {
		dir := t.TempDir()
		record := fmt.Appendf(nil, `{"id":%q,"space":%q,"kek":%q,"kek_version":%d,"wrapped":"%s"}`, bound.ID, bound.Space, ref.Name, ref.Version, base64.StdEncoding.EncodeToString(tt.wrapped))
		if err := os.WriteFile(filepath.Join(dir, "mirror"), record, 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := exec.CommandContext(t.Context(), "python3", "-B", "../../deploy/break-glass/unwrap.py",
			"--mirror", filepath.Join(dir, "mirror"), "--out", filepath.Join(dir, "key"), "--kek-file", tt.kek).CombinedOutput()
		got, missing := os.ReadFile(filepath.Join(dir, "key"))
		if string(got) != tt.want || (err == nil) != (tt.want != "") || (missing == nil) != (tt.want != "") {
			t.Errorf("%s: got %q and %v, want %q: %s", name, got, err, tt.want, out)
		}
	}
}
