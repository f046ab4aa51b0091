package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestARecoveryKEKIsMadeOnceAndFoundAgainAfterALoss runs a KMS with two providers, and loses
// its state and the first.
func TestARecoveryKEKIsMadeOnceAndFoundAgainAfterALoss(t *testing.T) {
	t.Parallel()
	dir, cloud, socket := t.TempDir(), t.TempDir(), filepath.Join(t.TempDir(), "s")
	file := writeFile(t, "kms.yaml", fmt.Sprintf("listen: unix://%s\nstate: {dir: %s/state}\nprovider: {softkey: {dir: %s/keys}}\n"+
		"providers: {second: {softkey: {dir: %s/second}}}\nrecovery: {provider: second}\n", socket, dir, dir, dir))
	run := func(args ...string) (string, int) {
		p := start(t, nil, append(args, "--kms", "unix://"+socket)...)
		code := p.end(t)
		return p.out.String() + p.err.String(), code
	}
	for _, want := range []string{"created", "adopted"} {
		server := start(t, nil, "kms", "--config", file)
		eventually(t, "the KMS", func() bool { return strings.Contains(server.err.String(), `"msg":"serving"`) })
		if text, code := run("key", "show", "recovery"); code != 0 || !strings.Contains(text, "second") || !strings.Contains(text, want) || !strings.Contains(text, "it is the recovery KEK") {
			t.Errorf("key show: code %d, want 0 and %q: %s", code, want, text)
		}
		if text, code := run("recover", "--backend", "file://"+cloud, "--owner", "alice", "--recovery-kek"); code != 0 || !strings.Contains(text, "no bucket has keys there") {
			t.Errorf("recover: code %d: %s", code, text)
		}
		if text, code := run("bucket", "create", "b", "--owner", "alice", "--kek", "recovery"); code == 0 || !strings.Contains(text, "for recovery alone") {
			t.Errorf("bucket create: code %d: %s", code, text)
		}
		if code := server.stop(t, syscall.SIGTERM); code != 0 {
			t.Errorf("the KMS: code %d: %s", code, server.err.String())
		}
		for _, lost := range []string{"state", "keys"} {
			if err := os.RemoveAll(filepath.Join(dir, lost)); err != nil {
				t.Fatal(err)
			}
		}
	}
}
