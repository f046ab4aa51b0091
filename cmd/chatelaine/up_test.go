package main

import (
	"bytes"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

func TestUpServesAndASecondStartHasTheSameUser(t *testing.T) {
	t.Parallel()
	data := filepath.Join(t.TempDir(), "data")
	p := startUp(t, nil, "--data", data, "--kek", "softkey")
	for path, want := range map[string]int{"/healthz": 200, "/readyz": 200, "/metrics": 200, "/debug/pprof/": 404} {
		if got := get(p.admin() + path); got != want {
			t.Errorf("%s: got %d, want %d", path, got, want)
		}
	}
	if got := get(p.said(t, "endpoint")); got != http.StatusForbidden {
		t.Errorf("an anonymous request got %d, want 403", got)
	}
	id, secret := p.said(t, "access key"), p.said(t, "secret")
	if len(id) != 20 || len(secret) != 40 {
		t.Errorf("got access key %q and a secret of %d characters", id, len(secret))
	}
	kms := p.kmsProcess()
	if code := p.stop(t, syscall.SIGINT); code != 0 {
		t.Errorf("Ctrl-C: got %d, want 0: %s", code, p.err.String())
	}
	if alive(kms) {
		t.Error("the KMS process is left behind")
	}
	secretNowhere(t, data, secret)
	if strings.Contains(p.err.String(), secret) {
		t.Error("the log tells the secret")
	}

	p = startUp(t, nil, "--data", data, "--kek", "softkey")
	if gotID, gotSecret := p.said(t, "access key"), p.said(t, "secret"); gotID != id || gotSecret != secret {
		t.Errorf("got another user: %q", gotID)
	}
	if code := p.stop(t, syscall.SIGTERM); code != 0 {
		t.Errorf("SIGTERM: got %d, want 0: %s", code, p.err.String())
	}
}

// secretNowhere looks for a secret in every file below a folder.
func secretNowhere(t *testing.T, root, secret string) {
	t.Helper()
	err := filepath.WalkDir(root, func(name string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		text, err := os.ReadFile(name)
		if bytes.Contains(text, []byte(secret)) {
			t.Errorf("%s has the secret", name)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func TestEnvironmentFixesTheFirstUser(t *testing.T) {
	t.Parallel()
	data := filepath.Join(t.TempDir(), "data")
	for _, secret := range []string{"first-secret", "second-secret"} {
		p := startUp(t, []string{"CHATELAINE_ACCESS_KEY_ID=AKIAMINE", "CHATELAINE_SECRET_ACCESS_KEY=" + secret}, "--data", data, "--kek", "softkey")
		if p.said(t, "access key") != "AKIAMINE" || p.said(t, "secret") != secret {
			t.Errorf("got %s", p.out.String())
		}
		p.stop(t, syscall.SIGINT)
		secretNowhere(t, data, secret)
	}
	p := startUp(t, nil, "--data", data, "--kek", "softkey")
	if p.said(t, "secret") != "second-secret" {
		t.Errorf("without the environment: got %s", p.out.String())
	}
}

func TestFirstUserIsNamedAfterItsAccessKey(t *testing.T) {
	t.Parallel()
	p := startUp(t, []string{"CHATELAINE_ACCESS_KEY_ID=AKIAMINE", "CHATELAINE_SECRET_ACCESS_KEY=first-secret"},
		"--data", filepath.Join(t.TempDir(), "data"), "--kek", "softkey", "--user", "AKIAMINE")
	if got := ownerShown(t, p); got != "AKIAMINE" {
		t.Errorf("buckets belong to %q, want AKIAMINE", got)
	}
}

func TestEachUserKeepsItsAccessKey(t *testing.T) {
	t.Parallel()
	data := filepath.Join(t.TempDir(), "data")
	ids := map[string]string{}
	for _, user := range []string{"ann", "bob", "ann"} {
		p := startUp(t, nil, "--data", data, "--kek", "softkey", "--user", user)
		id := p.said(t, "access key")
		if ids[user] != "" && ids[user] != id {
			t.Errorf("%s: got %s, want %s again", user, id, ids[user])
		}
		if got := ownerShown(t, p); got != user {
			t.Errorf("%s's access key is %q's", user, got)
		}
		ids[user] = id
		p.stop(t, syscall.SIGINT)
	}
	if ids["ann"] == ids["bob"] {
		t.Error("two users have one access key")
	}
}

// ownerShown is who S3 says owns the buckets of the first user.
func ownerShown(t *testing.T, p *program) string {
	t.Helper()
	out, err := s3Of(t, p).ListBuckets(t.Context(), &s3.ListBucketsInput{})
	if err != nil {
		t.Fatal(err)
	}
	return aws.ToString(out.Owner.ID)
}

func TestTwoOnOneDataFolder(t *testing.T) {
	t.Parallel()
	data := filepath.Join(t.TempDir(), "data")
	startUp(t, nil, "--data", data, "--kek", "softkey")
	second := start(t, nil, "up", "--data", data, "--kek", "softkey", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0")
	if code := second.end(t); code != exitFailure || !strings.Contains(second.err.String(), "another `chatelaine up`") {
		t.Errorf("got %d and %q", code, second.err.String())
	}
}

func TestKMSIsStartedAgainWhenItDies(t *testing.T) {
	t.Parallel()
	p := startUp(t, nil, "--data", filepath.Join(t.TempDir(), "data"), "--kek", "softkey")
	first := p.kmsProcess()
	if err := syscall.Kill(first, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "another KMS process", func() bool { second := p.kmsProcess(); return second != 0 && second != first })
	eventually(t, "its readiness", func() bool { return strings.Contains(p.err.String(), "serves again") })
	eventually(t, "readiness", func() bool { return get(p.admin()+"/readyz") == 200 })
	if !strings.Contains(p.err.String(), "ERROR") {
		t.Error("no line of level error for a KMS that died")
	}
	if code := p.stop(t, syscall.SIGINT); code != 0 {
		t.Errorf("got %d: %s", code, p.err.String())
	}
}

func TestReadinessEndsWithTheKMS(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for a lease to run out")
	}
	t.Parallel()
	p := startUp(t, nil, "--data", filepath.Join(t.TempDir(), "data"), "--kek", "softkey")
	kms := p.kmsProcess()
	if err := syscall.Kill(kms, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	eventually(t, "503", func() bool { return get(p.admin()+"/readyz") == 503 })
	if got := get(p.admin() + "/healthz"); got != 200 {
		t.Errorf("/healthz: got %d, want 200", got)
	}
	if err := syscall.Kill(kms, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	eventually(t, "200", func() bool { return get(p.admin()+"/readyz") == 200 })
}

func TestKMSEndsWithItsParentHoweverThatEnds(t *testing.T) {
	t.Parallel()
	p := startUp(t, nil, "--data", filepath.Join(t.TempDir(), "data"), "--kek", "softkey")
	kms := p.kmsProcess()
	p.stop(t, syscall.SIGKILL)
	eventually(t, "the KMS's end", func() bool { return !alive(kms) })
}

func TestSecondSignalEndsAtOnce(t *testing.T) {
	t.Parallel()
	p := startUp(t, nil, "--data", filepath.Join(t.TempDir(), "data"), "--kek", "softkey")
	kms := p.kmsProcess()
	if err := syscall.Kill(kms, syscall.SIGSTOP); err != nil { // the first signal waits for it
		t.Fatal(err)
	}
	defer func() { _ = syscall.Kill(kms, syscall.SIGKILL) }()
	if err := p.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	time.Sleep(200 * time.Millisecond)
	begun := time.Now()
	if code := p.stop(t, syscall.SIGINT); code == 0 {
		t.Error("got 0 from a process that was cut short")
	}
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
}

func TestLongDataPathHasRoomForItsSockets(t *testing.T) {
	t.Parallel()
	data := filepath.Join(t.TempDir(), strings.Repeat("long", 30))
	p := startUp(t, nil, "--data", data, "--kek", "softkey")
	if code := p.stop(t, syscall.SIGINT); code != 0 {
		t.Errorf("got %d: %s", code, p.err.String())
	}
}

func TestMissingKeysAreNeverMadeAnew(t *testing.T) {
	t.Parallel()
	for _, kek := range []string{"softkey", "softhsm"} {
		t.Run(kek, func(t *testing.T) {
			needSoftHSM(t, kek)
			data := filepath.Join(t.TempDir(), "data")
			startUp(t, nil, "--data", data, "--kek", kek).stop(t, syscall.SIGINT)
			folder := filepath.Join(data, "home", map[string]string{"softkey": "softkey", "softhsm": "token"}[kek])
			if err := os.Rename(folder, folder+".away"); err != nil {
				t.Fatal(err)
			}
			p := start(t, nil, "up", "--data", data, "--kek", kek, "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0")
			if code := p.end(t); code == 0 || !strings.Contains(p.err.String(), folder) || !strings.Contains(p.err.String(), "Put the folder back") {
				t.Errorf("got %d and %q", code, p.err.String())
			}
			if _, err := os.Stat(folder); err == nil {
				t.Error("keys were made anew")
			}
			other := map[string]string{"softkey": "softhsm", "softhsm": "softkey"}[kek]
			if err := os.Rename(folder+".away", folder); err != nil {
				t.Fatal(err)
			}
			p = start(t, nil, "up", "--data", data, "--kek", other, "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0")
			if code := p.end(t); code != exitConfig || !strings.Contains(p.err.String(), "made with --kek "+kek) {
				t.Errorf("with --kek %s: got %d and %q", other, code, p.err.String())
			}
			startUp(t, nil, "--data", data, "--kek", kek)
		})
	}
}

func TestMovedDataFolderStillOpens(t *testing.T) {
	t.Parallel()
	needSoftHSM(t, "softhsm")
	data := filepath.Join(t.TempDir(), "data")
	first := startUp(t, nil, "--data", data)
	secret := first.said(t, "secret")
	first.stop(t, syscall.SIGINT)
	secretNowhere(t, data, secret)
	if err := os.Rename(data, data+"-moved"); err != nil {
		t.Fatal(err)
	}
	second := startUp(t, nil, "--data", data+"-moved")
	if second.said(t, "secret") != secret {
		t.Error("got another user")
	}
}

func TestWrongPINIsTriedOnceAndEndsWithCode78(t *testing.T) {
	t.Parallel()
	needSoftHSM(t, "softhsm")
	data := filepath.Join(t.TempDir(), "data")
	startUp(t, nil, "--data", data).stop(t, syscall.SIGINT)
	if err := os.WriteFile(filepath.Join(data, "home", "token", "pin"), []byte("wrong-pin-1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := start(t, nil, "up", "--data", data, "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0")
	if code := p.end(t); code != exitConfig || strings.Count(p.err.String(), "not logged in") != 1 ||
		!strings.Contains(p.err.String(), "chatelaine: kms: opening the HSM: the token refused the PIN") {
		t.Errorf("got %d and %q, want 78 and the refusal, once", code, p.err.String())
	}
	if strings.Contains(p.err.String(), "wrong-pin-1") {
		t.Error("it tells the PIN")
	}
}

func TestPINThatIsNoLongerRightEndsItAll(t *testing.T) {
	t.Parallel()
	needSoftHSM(t, "softhsm")
	data := filepath.Join(t.TempDir(), "data")
	p := startUp(t, nil, "--data", data)
	if err := os.WriteFile(filepath.Join(data, "home", "token", "pin"), []byte("wrong-pin-1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(p.kmsProcess(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if code := p.end(t); code != exitConfig || strings.Count(p.err.String(), "not logged in") != 1 {
		t.Errorf("got %d and %q, want 78 and one attempt", code, p.err.String())
	}
}

func TestBackendThatIsAwayIsWaitedFor(t *testing.T) {
	t.Parallel()
	p := start(t, []string{"CHATELAINE_BACKEND_ACCESS_KEY_ID=x", "CHATELAINE_BACKEND_SECRET_ACCESS_KEY=y"},
		"up", "--data", filepath.Join(t.TempDir(), "data"), "--kek", "softkey", "--backend", "s3+http://127.0.0.1:1",
		"--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0")
	eventually(t, "a word", func() bool { return strings.Contains(p.err.String(), "not ready yet") })
	if p.out.String() != "" {
		t.Errorf("it greeted: %s", p.out.String())
	}
	if code := p.stop(t, syscall.SIGINT); code != 0 {
		t.Errorf("got %d: %s", code, p.err.String())
	}
}

func TestFoldersAtHomeAreTheirOwnersAlone(t *testing.T) {
	t.Parallel()
	data := filepath.Join(t.TempDir(), "data")
	startUp(t, nil, "--data", data, "--kek", "softkey").stop(t, syscall.SIGINT)
	for _, name := range []string{"", "home", "home/kms", "home/softkey", "home/run", "home/access.log", "home/run/kms.yaml"} {
		info, err := os.Stat(filepath.Join(data, name))
		if err != nil {
			t.Error(err)
		} else if info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%q has mode %v", name, info.Mode())
		}
	}
}

// needSoftHSM skips a test of SoftHSM where it is not installed, but in CI.
func needSoftHSM(t *testing.T, kek string) {
	t.Helper()
	if kek != "softhsm" {
		return
	}
	if _, err := findSoftHSM(); err == nil {
		return
	}
	if os.Getenv("CI") != "" {
		t.Fatal("SoftHSM is not installed")
	}
	t.Skip("SoftHSM is not installed")
}
