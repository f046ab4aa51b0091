package compat

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// s3fs mounts a bucket, copies a folder in, changes some of it in place, and compares
// after another mount, which has nothing cached.
func s3fs(t *testing.T, a account, dir string) {
	requireFUSE(t)
	m := &mount{t: t, account: a, binary: program(t, "s3fs"), bucket: a.bucket(t), dir: t.TempDir()}
	want := filepath.Join(t.TempDir(), "want")
	command(t, nil, "cp", "-r", dir, want)
	m.up()
	inside := filepath.Join(m.dir, "folder")
	command(t, nil, "cp", "-r", dir, inside)
	for _, root := range []string{want, inside} {
		alter(t, root)
	}
	m.down()
	m.up()
	assertSame(t, inside, want)
	command(t, nil, "rm", "-r", inside)
	if left := sizesIn(t, m.dir); len(left) > 0 {
		t.Errorf("after rm: got %d files, want none", len(left))
	}
	m.down()
}

// requireFUSE skips where the machine mounts nothing, in CI too: no package mends that.
func requireFUSE(t *testing.T) {
	t.Helper()
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("s3fs needs FUSE: %v", err)
	}
	f.Close()
	probe := t.TempDir()
	if err := syscall.Mount("none", probe, "tmpfs", 0, "size=4k"); err != nil {
		t.Skipf("s3fs needs leave to mount: %v", err)
	}
	if err := syscall.Unmount(probe, 0); err != nil {
		t.Error(err)
	}
}

// alter appends, renames and deletes as programs do. It cuts nothing short: s3fs 1.90
// then stores zeros, on MinIO itself too.
func alter(t *testing.T, root string) {
	t.Helper()
	some := filepath.Join(root, "some")
	old, moved := filepath.Join(some, fmt.Sprintf("%d bytes.bin", 1<<20)), filepath.Join(root, "moved")
	end, err := os.OpenFile(filepath.Join(some, "16384 bytes.bin"), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = end.WriteString("appended")
	err = errors.Join(err, end.Close(), os.Rename(old, moved), os.Remove(filepath.Join(some, "16383 bytes.bin")))
	if err != nil {
		t.Fatal(err)
	}
}

// mount is a bucket as a folder.
type mount struct {
	account
	t           *testing.T
	binary      string
	bucket, dir string
	process     *exec.Cmd
}

func (m *mount) up() {
	m.t.Helper()
	passwd := filepath.Join(m.t.TempDir(), "passwd")
	if err := os.WriteFile(passwd, []byte(m.user.AccessKeyID+":"+m.user.SecretAccessKey), 0o600); err != nil {
		m.t.Fatal(err)
	}
	log := filepath.Join(m.t.TempDir(), "s3fs.log")
	m.process = exec.Command(m.binary, m.bucket, m.dir, "-f", "-o", "url="+m.endpoint, "-o", "use_path_request_style",
		"-o", "passwd_file="+passwd, "-o", "endpoint=us-east-1", "-o", "logfile="+log)
	m.process.Env = append(os.Environ(), m.env()...)
	before := device(m.t, m.dir)
	if err := m.process.Start(); err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(m.end)
	for deadline := time.Now().Add(20 * time.Second); device(m.t, m.dir) == before; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			text, _ := os.ReadFile(log)
			m.t.Fatalf("s3fs does not mount: %s", text[max(0, len(text)-2000):])
		}
	}
}

// device tells a folder from what is mounted on it.
func device(t *testing.T, dir string) uint64 {
	t.Helper()
	var s syscall.Stat_t
	if err := syscall.Stat(dir, &s); err != nil {
		t.Fatal(err)
	}
	return s.Dev
}

// down returns when all that was written is stored.
func (m *mount) down() {
	m.t.Helper()
	command(m.t, nil, "umount", m.dir)
	if err := m.process.Wait(); err != nil {
		m.t.Error(err)
	}
	m.process = nil
}

// end is for a test that failed while mounted.
func (m *mount) end() {
	if m.process == nil {
		return
	}
	_ = syscall.Unmount(m.dir, syscall.MNT_DETACH)
	_ = m.process.Process.Kill()
	_ = m.process.Wait()
	m.process = nil
}
