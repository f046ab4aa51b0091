// Package harness runs the product as its users do: it builds the binary, starts it
// with data in a folder of its own, waits until it is ready, keeps what it prints,
// measures it from outside and ends it. Tests and benchmarks share it.
//
// It knows command lines, files and signals, and refuses to know what is tested: it
// imports nothing of the product.
package harness

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Credentials are an account's of S3.
type Credentials struct{ AccessKeyID, SecretAccessKey string }

// NewCredentials makes some that nobody else has.
func NewCredentials() Credentials {
	return Credentials{AccessKeyID: "AK" + rand.Text()[:18], SecretAccessKey: rand.Text() + rand.Text()[:14]}
}

// buildTags are those of `make build`.
const buildTags = "disable_grpc_modules"

// Build returns the path of the product's binary: what CHATELAINE_BIN names, or one
// that it builds into dir.
func Build(ctx context.Context, dir string) (string, error) {
	if path := os.Getenv("CHATELAINE_BIN"); path != "" {
		return filepath.Abs(path)
	}
	root, err := moduleRoot()
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "chatelaine")
	cmd := exec.CommandContext(ctx, "go", "build", "-tags", buildTags, "-o", path, "./cmd/chatelaine")
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("harness: building the binary: %w: %s", err, out)
	}
	return path, nil
}

// moduleRoot is the folder of the product's go.mod, above the working directory.
func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("harness: finding the module: %w", err)
	}
	for {
		mod, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && strings.HasPrefix(string(mod), "module chatelaine\n") {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("harness: finding the module: no go.mod above the working directory")
		}
		dir = filepath.Dir(dir)
	}
}

// FreeAddress is a loopback address whose port nobody listened on a moment ago.
func FreeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("harness: finding a free port: %w", err)
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// environment is that of this process without what configures the product or an S3
// client.
func environment() []string {
	var env []string
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "CHATELAINE_") && !strings.HasPrefix(v, "AWS_") && !strings.HasPrefix(v, "SOFTHSM2_") {
			env = append(env, v)
		}
	}
	if module := os.Getenv("CHATELAINE_SOFTHSM_MODULE"); module != "" {
		env = append(env, "CHATELAINE_SOFTHSM_MODULE="+module)
	}
	return env
}
