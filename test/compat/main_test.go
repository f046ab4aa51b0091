// Package compat asks others whether the gateway is S3: versitygw's suite of single
// tests, with MinIO itself for comparison, and clients that people use beyond those of
// test/e2e. It also holds what an application counts on when several gateways serve it:
// races have one winner, and lists cost what the cloud's own cost.
//
// What the suite finds is written to RESULTS.md. A test of it that fails and is not
// explained in testdata/explained.txt fails this one.
//
// It knows the product by its command line and by S3, and refuses to know more.
package compat

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"chatelaine/test/e2e/harness"
	"chatelaine/test/servers"
)

// product is its binary; minio is the cloud of all tests but the suite's, which wants
// empty ones. TestMain sets them up.
var (
	product string
	minio   servers.Shared
)

func TestMain(m *testing.M) {
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (int, error) {
	dir, err := os.MkdirTemp("", "chatelaine-compat-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	if product, err = harness.Build(context.Background(), dir); err != nil {
		return 0, err
	}
	defer minio.Stop()
	return m.Run(), nil
}

// large skips what takes long from a short run.
func large(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("takes long")
	}
}

// program finds a program that Debian has a package for. Without it the test is
// skipped, or fails in CI.
func program(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		missing(t, err)
	}
	return path
}

func missing(t *testing.T, why error) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatal(why)
	}
	t.Skip(why)
}

// tool is the path of a program that test/tools builds.
func tool(t *testing.T, name string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), filepath.Join("..", "tools", "build.sh"), name)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		missing(t, fmt.Errorf("building %s: %w", name, err))
	}
	return strings.TrimSpace(string(out))
}

// cache is a folder for what takes long to make, of the same place as the tools'.
func cache(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("CHATELAINE_CACHE")
	if dir == "" {
		base, err := os.UserCacheDir()
		if err != nil {
			t.Fatal(err)
		}
		dir = filepath.Join(base, "chatelaine")
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// command runs a program to its end, with little in its environment but env, and
// returns what it printed.
func command(t *testing.T, env []string, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "LC_ALL=C.UTF-8", "TZ=UTC"}, env...)
	cmd.WaitDelay = time.Second
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		said := errs.String() + out.String()
		t.Fatalf("%s %.300q: %v: %s", name, args, err, said[max(0, len(said)-2000):])
	}
	return out.String()
}

// newName is a bucket name that no other test has.
func newName() string { return "compat-" + strings.ToLower(rand.Text()[:16]) }
