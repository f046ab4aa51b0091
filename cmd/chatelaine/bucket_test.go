package main

import (
	"strings"
	"testing"
)

func TestBucketCommands(t *testing.T) {
	t.Parallel()
	run := administration(t)
	run(0, "key", "create", "payments")
	if out, _ := run(0, "bucket", "create", "ledger", "--owner", "alice", "--profile", "strict", "--epoch", "1h"); !strings.Contains(out, "active") || !strings.Contains(out, "strict") {
		t.Errorf("got %q", out)
	}
	if _, err := run(exitFailure, "bucket", "create", "ledger", "--owner", "bob"); !strings.Contains(err, "already exists") {
		t.Errorf("got %q", err)
	}
	if _, err := run(exitFailure, "bucket", "attach", "other", "--owner", "bob", "--store-name", "ledger"); !strings.Contains(err, "already exists") {
		t.Errorf("got %q", err)
	}
	if out, _ := run(0, "bucket", "rotate", "ledger", "--reason", "staff left"); !strings.Contains(out, "ledger") {
		t.Errorf("got %q", out)
	}
	if out, _ := run(0, "bucket", "set", "ledger", "--kek", "payments", "--owner", "bob", "--profile", "standard"); !strings.Contains(out, "payments") || !strings.Contains(out, "bob") {
		t.Errorf("got %q", out)
	}
	out, _ := run(0, "bucket", "show", "ledger")
	for _, want := range []string{"payments.v1", "staff left", "kek is payments", "owner is bob", "1h0m0s"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in %q", want, out)
		}
	}
	if out, _ := run(0, "bucket", "list", "--json"); !strings.Contains(out, `"name": "ledger"`) {
		t.Errorf("got %q", out)
	}
	if _, err := run(exitUsage, "bucket", "set", "ledger", "--kek", "none"); !strings.Contains(err, "none") {
		t.Errorf("got %q", err)
	}
	if _, err := run(exitFailure, "bucket", "show", "legder"); !strings.Contains(err, "did you mean ledger?") {
		t.Errorf("got %q", err)
	}
}
