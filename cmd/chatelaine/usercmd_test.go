package main

import (
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// administration runs commands beside an `up`.
func administration(t *testing.T) func(want int, args ...string) (out, err string) {
	t.Helper()
	dir := t.TempDir()
	startUp(t, nil, "--data", filepath.Join(dir, ".run"), "--kek", "softkey")
	return func(want int, args ...string) (string, string) {
		t.Helper()
		c := startIn(t, dir, nil, args...)
		if code := c.end(t); code != want {
			t.Errorf("%v: ended with %d, want %d: %s", args, code, want, c.err.String())
		}
		return c.out.String(), c.err.String()
	}
}

func TestUserCommands(t *testing.T) {
	t.Parallel()
	run := administration(t)
	out, _ := run(0, "user", "create", "alice")
	credentials := regexp.MustCompile(`^AWS_ACCESS_KEY_ID=([A-Z0-9]{20})\nAWS_SECRET_ACCESS_KEY=([A-Za-z0-9]{40})\n$`).FindStringSubmatch(out)
	if credentials == nil {
		t.Fatalf("got %q", out)
	}
	id, secret := credentials[1], credentials[2]
	if _, err := run(exitFailure, "user", "create", "alice"); !strings.Contains(err, "rotate-secret") {
		t.Errorf("got %q", err)
	}
	if out, _ := run(0, "user", "rotate-secret", "alice", "--reason", "yearly"); !strings.Contains(out, id) || strings.Contains(out, secret) {
		t.Errorf("got %q", out)
	}
	if out, _ := run(0, "user", "list"); !regexp.MustCompile(`(?m)^alice +` + id + ` +active +\S+ \S+ +20\d\d-\S+ \S+ +main\.v1$`).MatchString(out) {
		t.Errorf("got %q", out)
	}
	if out, _ := run(0, "user", "rotate-secret", id, "--end-old", "now"); !regexp.MustCompile(`active +\S+ \S+ +- `).MatchString(out) {
		t.Errorf("got %q", out)
	}
	if out, _ := run(0, "user", "disable", "alice"); !strings.Contains(out, "disabled") {
		t.Errorf("got %q", out)
	}
	if out, _ := run(0, "user", "enable", "alice"); !strings.Contains(out, "active") {
		t.Errorf("got %q", out)
	}
	if out, _ := run(0, "user", "show", "alice"); !strings.Contains(out, "yearly") || !strings.Contains(out, "unix:") {
		t.Errorf("got %q", out)
	}
	if _, err := run(exitFailure, "user", "disable", "alcie"); !strings.Contains(err, "did you mean alice?") {
		t.Errorf("got %q", err)
	}
	run(exitUsage, "user", "rotate-secret", id, "--end-old", "later")
	run(exitUsage, "user")
}
