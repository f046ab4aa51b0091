package e2e

import (
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// recoveryFile is a key that package offline has for tests.
func recoveryFile(t *testing.T, name string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("..", "..", "kms", "offline", "testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// loseEverything ends the product and loses the state of the KMS and the token.
func (w *world) loseEverything() {
	w.t.Helper()
	w.loseState()
	if err := os.RemoveAll(filepath.Join(w.Home(), "token")); err != nil {
		w.t.Fatal(err)
	}
}

// TestEverythingIsReadAfterTheTokenWasLostToo is the drill with the offline key: state and
// token are gone, and the cloud is there. The first bucket has keys from before the
// recovery was configured.
func TestEverythingIsReadAfterTheTokenWasLostToo(t *testing.T) {
	w := newWorld(t, cloud{})
	old := w.bucket()
	objects := map[string][]byte{}
	w.fill(objects, 0, old)
	w.stop()
	w.options.Args = []string{"--recovery-public-key", recoveryFile(t, "public.pem")}
	w.up()
	if shown := w.must("bucket", "show", old); !strings.Contains(shown, "none") {
		t.Errorf("a key from before: bucket show says %s", shown)
	}
	if shown := w.must("key", "needs", "main"); !strings.Contains(shown, "none") {
		t.Errorf("a key from before: key needs says %s", shown)
	}
	w.must("key", "rewrap", "main")
	if shown := w.must("bucket", "show", old); strings.Contains(shown, "none") {
		t.Errorf("rewrapped: bucket show says %s", shown)
	}
	fresh := w.bucket()
	w.must("bucket", "rotate", old)
	w.fill(objects, 1, old, fresh)
	signer := strings.TrimSpace(w.must("report", "key"))
	w.loseEverything()

	w.up() // which makes another token
	recover := []string{"recover", "--backend", w.backendURL(), "--owner", "first-user", "--apply"}
	refused := func(want string, args ...string) {
		t.Helper()
		text, code := w.command(append(recover, args...)...)
		if code != 1 || !strings.Contains(text, want) || !strings.Contains(text, "conflict") {
			t.Errorf("recover %v: code %d, want 1 and %q: %s", args, code, want, text)
		}
		if got := w.get("/" + fresh + "/round-1/1"); got.status != http.StatusNotFound {
			t.Errorf("recover %v: an object answers %d", args, got.status)
		}
	}
	refused("another token")
	refused("and this one is", "--recovery-key", recoveryFile(t, "other.pem"), "--signer", signer)
	refused("name it with --signer", "--recovery-key", recoveryFile(t, "private.pem"))
	w.must(append(recover, "--recovery-key", recoveryFile(t, "private.pem"), "--signer", signer)...)
	w.allThere(objects)

	w.fill(objects, 2, old, fresh)
	w.must("key", "rewrap", "main") // which waits for the mirrors
	w.loseState()                   // now the new token opens all by itself
	w.options.Args = append(w.options.Args, "--recover")
	w.up()
	w.must(recover...)
	w.allThere(objects)
	if shown := w.must("bucket", "show", old); strings.Contains(shown, "none") {
		t.Errorf("recovered with the token: bucket show says %s", shown)
	}
}

// TestSwappedRecoveryCopiesAreRefused exchanges what two buckets have in the cloud.
func TestSwappedRecoveryCopiesAreRefused(t *testing.T) {
	w := planWorld(t, cloud{})
	w.options.Args = []string{"--recovery-public-key", recoveryFile(t, "public.pem")}
	w.up()
	one, two := w.bucket(), w.bucket()
	w.fill(map[string][]byte{}, 0, one, two)
	signer := strings.TrimSpace(w.must("report", "key"))
	w.loseEverything()
	swap(t, w.mirrorOf(one), w.mirrorOf(two))
	w.up()
	text, code := w.command("recover", "--backend", w.backendURL(), "--owner", "first-user", "--apply",
		"--recovery-key", recoveryFile(t, "private.pem"), "--signer", signer)
	if code != 1 || strings.Count(text, "signature is wrong") != 2 {
		t.Errorf("code %d, want 1 and both refused: %s", code, text)
	}
}

// mirrorOf finds the file of a bucket's only mirror.
func (w *world) mirrorOf(bucket string) string {
	w.t.Helper()
	var found []string
	err := filepath.WalkDir(w.cloud.dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() && strings.Contains(path, bucket) {
			text, readErr := os.ReadFile(path)
			err = readErr
			if strings.Contains(string(text), `{"chatelaine":"bucket-key/2"`) {
				found = append(found, path)
			}
		}
		return err
	})
	if err != nil || len(found) != 1 {
		w.t.Fatalf("the mirrors of %s: got %v, %v", bucket, found, err)
	}
	return found[0]
}

// swap exchanges the recovery copies of two mirrors of the same length.
func swap(t *testing.T, one, two string) {
	t.Helper()
	a, errA := os.ReadFile(one)
	b, errB := os.ReadFile(two)
	if err := errors.Join(errA, errB); err != nil {
		t.Fatal(err)
	}
	copyA, copyB := recoveryOf(t, string(a)), recoveryOf(t, string(b))
	errA = os.WriteFile(one, []byte(strings.Replace(string(a), copyA, copyB, 1)), 0o600)
	errB = os.WriteFile(two, []byte(strings.Replace(string(b), copyB, copyA, 1)), 0o600)
	if err := errors.Join(errA, errB); err != nil || len(copyA) != len(copyB) {
		t.Fatalf("%v; copies of %d and %d bytes", err, len(copyA), len(copyB))
	}
}

func recoveryOf(t *testing.T, mirror string) string {
	t.Helper()
	_, after, ok := strings.Cut(mirror, `"recovery":`)
	text, _, ended := strings.Cut(after, "}")
	if !ok || !ended {
		t.Fatalf("the mirror has no recovery copy: %s", mirror)
	}
	return text
}
