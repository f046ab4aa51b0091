package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestRewrapEndsInAReportThatIsVerifiedOffline(t *testing.T) {
	t.Parallel()
	run := administration(t)
	run(0, "user", "create", "alice")
	run(0, "key", "rotate", "main", "--yes")
	out, err := run(0, "key", "rewrap", "main")
	if !strings.Contains(out, "nothing") || !strings.Contains(out, "access-key") || !strings.Contains(err, "of") {
		t.Errorf("got %q and %q", out, err)
	}
	signed, _ := run(0, "report", "show", "main", "--json")
	key, _ := run(0, "report", "key")
	key = strings.TrimSpace(key)
	file := filepath.Join(t.TempDir(), "report")
	if err := os.WriteFile(file, []byte(signed), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, _ := run(0, "report", "verify", file, "--key", key); !strings.Contains(out, "nothing") {
		t.Errorf("got %q", out)
	}
	if _, err := run(exitFailure, "report", "verify", file, "--key", "SHA256:x"); !strings.Contains(err, key) {
		t.Errorf("got %q", err)
	}
	if err := os.WriteFile(file, []byte(strings.Replace(signed, `"signature": "`, `"signature": "A`, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	run(exitUsage, "report", "verify", file, "--key", key)
	if _, err := run(exitFailure, "key", "rewrap", "mian"); !strings.Contains(err, "did you mean main?") {
		t.Errorf("got %q", err)
	}
	run(exitFailure, "key", "rewrap", "nothing-like-it", "--stop")
}
