package servers

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Azure is a running server that speaks the protocol of Azure Blob Storage.
type Azure struct {
	Endpoint string // http://127.0.0.1:port/account
	Account  string
	Key      string // base64
	// Dir is where the server keeps its blobs.
	Dir string
}

// Azurite starts an Azurite that lives as long as the test. It is the program that
// CHATELAINE_AZURITE names, or is installed once (test/tools). Where neither can be had
// the test is skipped, or fails if CI is set.
func Azurite(t testing.TB) *Azure {
	t.Helper()
	path, err := binary(t.Context(), "azurite", "CHATELAINE_AZURITE")
	if err != nil {
		unavailable(t, err)
	}
	s, stop, err := startAzurite(t.Context(), path, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	return s
}

// startAzurite tries again when somebody else has taken the port in between.
func startAzurite(ctx context.Context, path, dir string) (*Azure, func(), error) {
	var errs []error
	for range 3 {
		s, p, err := tryAzurite(ctx, path, dir)
		if err == nil {
			return s, p.stop, nil
		}
		errs = append(errs, err)
		if p == nil || !strings.Contains(p.tail(), "EADDRINUSE") {
			break
		}
	}
	return nil, nil, errors.Join(errs...)
}

func tryAzurite(ctx context.Context, path, dir string) (*Azure, *process, error) {
	address, err := freeAddress()
	if err != nil {
		return nil, nil, err
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, nil, err
	}
	key := make([]byte, 64)
	_, _ = rand.Read(key) // it never fails
	s := &Azure{Account: "account1", Key: base64.StdEncoding.EncodeToString(key), Dir: filepath.Join(dir, "blobs")}
	s.Endpoint = "http://" + address + "/" + s.Account
	cmd := exec.Command(path, "--blobHost", host, "--blobPort", port, "--location", s.Dir,
		"--silent", "--disableTelemetry", "--skipApiVersionCheck")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "AZURITE_ACCOUNTS="+s.Account+":"+s.Key)
	p, err := start("azurite", filepath.Join(dir, "azurite.log"), cmd)
	if err != nil {
		return nil, nil, err
	}
	listens := func(ctx context.Context) error {
		var d net.Dialer
		c, err := d.DialContext(ctx, "tcp", address)
		if err != nil {
			return fmt.Errorf("servers: connecting to Azurite: %w", err)
		}
		return c.Close()
	}
	if err := p.await(ctx, listens); err != nil {
		p.stop()
		return nil, p, err
	}
	return s, p, nil
}
