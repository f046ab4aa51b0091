// Package vectors has other programs than ours agree with the frozen vectors.
package vectors

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// TestPythonAgreesWithEveryVector runs verify.py: it seals each vector anew, has
// deploy/break-glass/read.py open what was sealed, and refuse what is hostile.
func TestPythonAgreesWithEveryVector(t *testing.T) {
	if testing.Short() {
		t.Skip("needs python3-cryptography, and takes seconds")
	}
	if out, err := exec.CommandContext(t.Context(), "python3", "-c", "import cryptography").CombinedOutput(); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("python3-cryptography: %v: %s", err, out)
		}
		t.Skipf("python3-cryptography is missing: %v", err)
	}
	out, err := exec.CommandContext(t.Context(), "python3", "verify.py").CombinedOutput()
	if err != nil {
		t.Errorf("verify.py: %v", err)
	}
	for _, file := range []string{"objects", "envelopes", "uploads", "hostile", "recovery"} {
		n := count(t, file)
		if want := fmt.Sprintf("%s: %d of %d agree\n", file, n, n); n == 0 || !strings.Contains(string(out), want) {
			t.Errorf("got %s\nwant %s", out, want)
		}
	}
}

// count is how many vectors a file has.
func count(t *testing.T, file string) int {
	t.Helper()
	b, err := os.ReadFile(file + ".json")
	if err != nil {
		t.Fatal(err)
	}
	var all []json.RawMessage
	if err := json.Unmarshal(b, &all); err != nil {
		t.Fatal(err)
	}
	return len(all)
}
