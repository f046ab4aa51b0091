package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestShreddingABucketEndsInARecordThatIsVerifiedOffline(t *testing.T) {
	t.Parallel()
	run := administration(t)
	run(0, "bucket", "create", "ledger", "--owner", "alice")
	run(0, "bucket", "create", "other", "--owner", "alice")
	if _, err := run(exitUsage, "bucket", "shred", "ledger"); !strings.Contains(err, "--yes") {
		t.Errorf("got %q", err)
	}
	if _, err := run(exitFailure, "bucket", "shred", "legder", "--yes"); !strings.Contains(err, "did you mean ledger?") {
		t.Errorf("got %q", err)
	}
	signed, _ := run(0, "bucket", "shred", "ledger", "--yes", "--reason", "the contract ended", "--json")
	key, _ := run(0, "report", "key")
	key = strings.TrimSpace(key)
	file := filepath.Join(t.TempDir(), "record")
	if err := os.WriteFile(file, []byte(signed), 0o600); err != nil {
		t.Fatal(err)
	}
	out, _ := run(0, "report", "verify", file, "--key", key)
	for _, want := range []string{"ledger", "the contract ended", "unix:", "COPIES DELETED"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in %q", want, out)
		}
	}
	run(exitFailure, "report", "verify", file, "--key", "SHA256:x")
	if out, _ := run(0, "bucket", "show", "ledger"); !strings.Contains(out, "shredded") || !strings.Contains(out, "keys were destroyed") {
		t.Errorf("got %q", out)
	}
	if out, _ := run(0, "bucket", "show", "other"); strings.Contains(out, "shredded") || !strings.Contains(out, "main.v1") {
		t.Errorf("of another bucket: got %q", out)
	}
	if out, _ := run(0, "bucket", "shred", "ledger", "--yes"); !strings.Contains(out, "KEYS DESTROYED") { // swept again
		t.Errorf("got %q", out)
	}
}
