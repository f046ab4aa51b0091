package servers

import (
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// VersityGW starts versitygw over a folder, with versions, at most once; the binary is
// the one that CHATELAINE_VERSITYGW names, or is built once. Else it is like MinIO.
func (s *Shared) VersityGW(t testing.TB) *S3 {
	t.Helper()
	return s.serve(t, "versitygw-server", "CHATELAINE_VERSITYGW", func(ctx context.Context, path, dir string) (*S3, func(), error) {
		return again(func() (*S3, *process, error) { return tryVersityGW(ctx, path, dir) })
	})
}

func tryVersityGW(ctx context.Context, path, dir string) (*S3, *process, error) {
	address, err := freeAddress()
	if err != nil {
		return nil, nil, err
	}
	s := &S3{
		Endpoint:        "http://" + address,
		Region:          "us-east-1",
		AccessKeyID:     rand.Text(),
		SecretAccessKey: rand.Text(),
		Dir:             filepath.Join(dir, "objects"),
	}
	accounts, versions := filepath.Join(dir, "accounts"), filepath.Join(dir, "versions")
	for _, folder := range []string{s.Dir, accounts, versions} {
		if err := os.MkdirAll(folder, 0o700); err != nil {
			return nil, nil, fmt.Errorf("servers: making a folder for versitygw: %w", err)
		}
	}
	cmd := exec.Command(path, "--quiet", "--keep-alive", "--port", address, "--region", s.Region, "--iam-dir", accounts,
		"posix", "--versioning-dir", versions, s.Dir)
	cmd.Dir = dir
	cmd.Env = append(without("VGW_", "ROOT_"), "ROOT_ACCESS_KEY="+s.AccessKeyID, "ROOT_SECRET_KEY="+s.SecretAccessKey)
	p, err := start("versitygw", filepath.Join(dir, "versitygw.log"), cmd)
	if err != nil {
		return nil, nil, err
	}
	if err := p.await(ctx, listening(address)); err != nil {
		p.stop()
		return nil, p, err
	}
	return s, p, nil
}

// without is the environment but for variables that begin so.
func without(prefixes ...string) (env []string) {
	for _, v := range os.Environ() {
		kept := true
		for _, prefix := range prefixes {
			kept = kept && !strings.HasPrefix(v, prefix)
		}
		if kept {
			env = append(env, v)
		}
	}
	return env
}

// listening is nil once somebody listens on address.
func listening(address string) func(context.Context) error {
	return func(ctx context.Context) error {
		var d net.Dialer
		c, err := d.DialContext(ctx, "tcp", address)
		if err != nil {
			return err
		}
		return c.Close()
	}
}
