package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"chatelaine/test/e2e/harness"
)

// command runs a command of the product for administrators against this world's KMS.
func (w *world) command(args ...string) (text string, code int) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, product, args...)
	cmd.Env = append(append(os.Environ(), w.cloud.env...), "CHATELAINE_KMS=unix://"+w.socket())
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		w.t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// must is command where nothing may go wrong.
func (w *world) must(args ...string) string {
	w.t.Helper()
	text, code := w.command(args...)
	if code != 0 {
		w.t.Fatalf("chatelaine %s: code %d: %s", strings.Join(args, " "), code, text)
	}
	return text
}

// socket is the address that `up` has written for its KMS.
func (w *world) socket() string {
	w.t.Helper()
	text, err := os.ReadFile(filepath.Join(w.Home(), "run", "kms.yaml"))
	if err != nil {
		w.t.Fatal(err)
	}
	return strings.Trim(between(string(text), "listen: unix://", "\n"), `"`)
}

// backendURL is where the sealed objects lie.
func (w *world) backendURL() string {
	if w.cloud.url != "" {
		return w.cloud.url
	}
	return "file://" + w.cloud.dir
}

// fill writes objects and remembers them.
func (w *world) fill(objects map[string][]byte, round int, buckets ...string) {
	w.t.Helper()
	for i, bucket := range buckets {
		for j, size := range []int{0, 1, 70_000, 5 << 20} {
			path := fmt.Sprintf("/%s/round-%d/%d", bucket, round, size)
			objects[path] = contentBytes(uint64(round*100+i*10+j), size)
			w.put(path, objects[path]).want(http.StatusOK)
		}
	}
}

func (w *world) allThere(objects map[string][]byte) {
	w.t.Helper()
	for path, body := range objects {
		if got := w.get(path).want(http.StatusOK); !bytes.Equal(got.body, body) {
			w.t.Errorf("%s: its %d bytes are not those that were written", path, len(got.body))
		}
	}
}

// loseState ends the product and loses the state of the KMS.
func (w *world) loseState() {
	w.t.Helper()
	w.stop()
	if err := os.RemoveAll(filepath.Join(w.Home(), "kms")); err != nil {
		w.t.Fatal(err)
	}
}

// TestEverythingIsReadAfterTheStateWasLost is the drill: etcd's folder is gone, and the
// token and the cloud are there. It happens twice, so that there are several epochs and
// KEK versions.
func TestEverythingIsReadAfterTheStateWasLost(t *testing.T) {
	for name, make := range clouds() {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, make(t))
			buckets := []string{w.bucket(), w.bucket()}
			objects := map[string][]byte{}
			for round := range 2 {
				w.fill(objects, round, buckets...)
				w.must("key", "rotate", "main")
				w.loseState()
				w.options.Args = []string{"--recover"}
				w.up()
				w.options.Args = nil
				if got := w.get("/" + buckets[0] + "/round-0/1"); got.status != http.StatusNotFound {
					t.Fatalf("before it is recovered: got status %d", got.status)
				}
				recover := []string{"recover", "--backend", w.backendURL(), "--owner", "first-user"}
				recover = append(recover, buckets...)
				if text := w.must(recover...); !strings.Contains(text, "would be made") {
					t.Errorf("a dry run says %s", text)
				}
				began := time.Now()
				w.must(append(recover, "--apply")...)
				t.Logf("recovered in %v", time.Since(began).Round(time.Millisecond))
				w.allThere(objects)
				if shown := w.must("key", "show", "main"); !strings.Contains(shown, fmt.Sprint(round+2)) {
					t.Errorf("key show: %s", shown)
				}
			}
			w.fill(objects, 2, buckets...)
			w.stop()
			w.up() // as always: nothing is left to recover
			w.allThere(objects)
		})
	}
}

func TestNothingIsRecoveredWithTheWrongTokenNorWithoutMirrors(t *testing.T) {
	w := newWorld(t, cloud{})
	bucket := w.bucket()
	objects := map[string][]byte{}
	w.fill(objects, 0, bucket)
	w.loseState()

	if _, err := harness.Up(t.Context(), w.options); err == nil || !strings.Contains(err.Error(), "--recover") {
		t.Errorf("a start without --recover: got %v, want a word of it", err)
	}
	token := filepath.Join(w.Home(), "token")
	if err := os.Rename(token, token+".right"); err != nil {
		t.Fatal(err)
	}
	recovering := *w.options
	recovering.Args = []string{"--recover"}
	if _, err := harness.Up(t.Context(), &recovering); err == nil || !strings.Contains(err.Error(), "put it back") {
		t.Errorf("without a token: got %v", err)
	}

	if err := os.RemoveAll(filepath.Join(w.Home(), "kms")); err != nil { // the starts left an empty state
		t.Fatal(err)
	}
	w.up() // which makes another token
	text, code := w.command("recover", "--backend", w.backendURL(), "--owner", "first-user", "--apply", bucket)
	if code != 1 || !strings.Contains(text, "another token") || !strings.Contains(text, "conflict") {
		t.Errorf("with another token: code %d: %s", code, text)
	}
	if got := w.do(harness.Request{Method: http.MethodGet, Path: "/"}); strings.Contains(string(got.body), bucket) {
		t.Errorf("it was recovered: %s", got.body)
	}
	w.loseState()
	if err := errors.Join(os.RemoveAll(token), os.Rename(token+".right", token)); err != nil {
		t.Fatal(err)
	}

	w.options.Args = recovering.Args
	w.up()
	w.hideMirrors(bucket, func() {
		if text, code := w.command("recover", "--backend", w.backendURL(), "--owner", "first-user", "--apply", bucket); code != 0 || !strings.Contains(text, "nothing") {
			t.Errorf("without mirrors: code %d: %s", code, text)
		}
	})
	w.must("recover", "--backend", w.backendURL(), "--owner", "first-user", "--apply", bucket)
	w.allThere(objects)
}

// hideMirrors takes the wrapped keys of a bucket out of the cloud while f runs.
func (w *world) hideMirrors(bucket string, f func()) {
	w.t.Helper()
	var found []string
	err := filepath.WalkDir(w.cloud.dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() && strings.Contains(path, bucket) && strings.Contains(path, "chatelaine") && strings.HasPrefix(d.Name(), "keys") {
			found = append(found, path)
			return filepath.SkipDir
		}
		return err
	})
	if err != nil || len(found) != 1 {
		w.t.Fatalf("the mirrors of %s: got %v, %v", bucket, found, err)
	}
	hidden := filepath.Join(w.t.TempDir(), "hidden")
	if err := os.Rename(found[0], hidden); err != nil {
		w.t.Fatal(err)
	}
	f()
	if err := os.Rename(hidden, found[0]); err != nil {
		w.t.Fatal(err)
	}
}

// TestABackupBringsUsersBackAndRecoveryWhatIsNewer loses the state after a backup, and
// more was written since.
func TestABackupBringsUsersBackAndRecoveryWhatIsNewer(t *testing.T) {
	program(t, "ssh-keygen")
	w := newWorld(t, cloud{})
	identity := filepath.Join(t.TempDir(), "operator")
	if out, err := exec.CommandContext(t.Context(), "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", identity).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	old := w.bucket()
	objects := map[string][]byte{}
	w.fill(objects, 0, old)
	file := filepath.Join(t.TempDir(), "registry.age")
	backup := []string{"backup", file, "--recipients-file", identity + ".pub", "--identity", identity}
	w.must(backup...)
	if text, code := w.command(backup...); code != 2 || !strings.Contains(text, "not written over") {
		t.Errorf("a second backup into the same file: code %d: %s", code, text)
	}
	w.must("key", "rotate", "main")
	fresh := w.bucket()
	w.fill(objects, 1, old, fresh)
	w.loseState()

	// The user of the backup comes back, and another one is first here.
	user := w.options.User
	w.options.User = harness.NewCredentials()
	w.options.Args = []string{"--recover"}
	w.up()
	w.options.Args = nil
	restore := []string{"restore", file, "--identity", identity}
	if text, code := w.command(restore...); code == 0 || !strings.Contains(text, "--merge") {
		t.Errorf("into a registry with a user: code %d: %s", code, text)
	}
	if text := w.must(append(restore, "--merge")...); !strings.Contains(text, "nothing was changed") {
		t.Errorf("a dry run: %s", text)
	}
	w.must(append(restore, "--merge", "--apply")...)
	text := w.must("recover", "--backend", w.backendURL(), "--owner", "first-user", "--apply")
	if !strings.Contains(text, "made") {
		t.Errorf("recovering what is newer: %s", text)
	}
	w.allThere(objects)
	c := rawClient(w.Endpoint, user)
	send(t, c, harness.Request{Method: http.MethodGet, Path: "/" + old + "/round-0/1"}).want(http.StatusOK)

	if text, code := w.command("restore", identity, "--identity", identity); code == 0 || !strings.Contains(text, "damaged") {
		t.Errorf("what is no backup: code %d: %s", code, text)
	}
}
