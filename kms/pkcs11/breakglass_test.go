package pkcs11_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"chatelaine/hsm"
	"chatelaine/hsm/hsmtest"
	"chatelaine/kms"
	"chatelaine/kms/pkcs11"
)

// mirror is what deploy/break-glass/unwrap.py reads of a bucket key (FORMAT.md section 9).
type mirror struct {
	ID         string `json:"id"`
	Space      string `json:"space"`
	KEK        string `json:"kek"`
	KEKVersion uint32 `json:"kek_version"`
	Wrapped    []byte `json:"wrapped"`
}

// TestBreakGlassOpensWhatEachMechanismWraps has the script of deploy/break-glass open what
// was wrapped here, by the token's library, and refuse it as another bucket's. SoftHSM
// knows OAEP with SHA-1 only.
func TestBreakGlassOpensWhatEachMechanismWraps(t *testing.T) {
	if _, err := exec.LookPath("python3"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	cfg := hsmtest.Token(t)
	cfg.RSABits = 2048 // quickly made
	key := bytes.Repeat([]byte{0xa5, 0x5a}, 16)
	for i, m := range []hsm.Mechanism{hsm.AESGCM, hsm.AESGCM16, hsm.RSAOAEPSHA1, hsm.AESCBCHMAC} {
		at := kms.KeyRef{Name: "main", Version: uint32(i + 1)}
		good := mirror{ID: strings.Repeat("5c", 16), Space: "6ba7b810-9dad-11d1-80b4-00c04fd430c8", KEK: at.Name, KEKVersion: at.Version}
		with(t, pkcs11.Config{HSM: cfg, Mechanism: m, Prefix: "ours-"}, func(p *pkcs11.Provider) {
			_, err := p.Create(t.Context(), at)
			if err == nil {
				good.Wrapped, err = p.Wrap(t.Context(), at, kms.Binding{Purpose: "bucket-key", Space: good.Space, ID: good.ID}, key)
			}
			if err != nil {
				t.Fatalf("wrapping with %s: %v", m, err)
			}
		})
		if got, said := breakGlass(t, good); got != hex.EncodeToString(key)+"\n" {
			t.Errorf("%s: got %q, want the key: %s", m, got, said)
		}
		moved := good
		moved.Space = "6ba7b811-9dad-11d1-80b4-00c04fd430c8"
		if got, said := breakGlass(t, moved); got != "" || said == "" {
			t.Errorf("%s, of another space: got %q, want a refusal: %s", m, got, said)
		}
	}
}

// breakGlass returns the file that unwrap.py makes, and what it says where it makes none.
func breakGlass(t *testing.T, m mirror) (file, said string) {
	t.Helper()
	dir := t.TempDir()
	record, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{"mirror": record, "pin": []byte(hsmtest.PIN)} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	out, err := exec.CommandContext(t.Context(), "python3", "-B", "../../deploy/break-glass/unwrap.py", "--mirror", filepath.Join(dir, "mirror"),
		"--out", filepath.Join(dir, "key"), "--module", hsmtest.Module(t), "--token", hsmtest.Label, "--pin-file", filepath.Join(dir, "pin"),
		"--prefix", "ours-").CombinedOutput()
	opened, missing := os.ReadFile(filepath.Join(dir, "key"))
	if (err == nil) != (missing == nil) {
		t.Errorf("it ends with %v, and its file is there: %t", err, missing == nil)
	}
	return string(opened), string(out)
}
