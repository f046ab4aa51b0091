// Package e2e tests the product as a black box: the binary over a SoftHSM token, with
// its data in files or in a MinIO, driven by the clients that people use, killed in
// the middle and started again.
//
// It refuses to know how anything is done inside; what it asserts, a user, an
// operator or a cloud could see. The one exception is the test of nonces, which has
// to look at each key that is used.
package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"testing"

	"chatelaine/test/e2e/harness"
	"chatelaine/test/servers"
)

// product is its binary; minio is the cloud of all tests that want one. TestMain sets
// them up.
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
	dir, err := os.MkdirTemp("", "chatelaine-e2e-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	if product, err = harness.Build(context.Background(), dir); err != nil {
		return 0, err
	}
	defer minio.Stop()
	defer versitygw.Stop()
	defer cephs.Stop()
	return m.Run(), nil
}

// program finds a program that Debian has a package for. Without it the test is
// skipped, or fails in CI.
func program(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err == nil {
		return path
	}
	if os.Getenv("CI") != "" {
		t.Fatal(err)
	}
	t.Skip(err)
	return ""
}

// large skips what takes long from a short run.
func large(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("takes long")
	}
}

// long says that this is `make long`, where what `make test` shortens is run in full.
func long() bool { return os.Getenv("CHATELAINE_TEST_LONG") != "" }
