package servers

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// GCS is a running server that speaks the protocol of Google Cloud Storage, and takes
// everybody for the owner of everything.
type GCS struct {
	Endpoint string // http://127.0.0.1:port
	Project  string
	// Dir has what the server was sent, one file for each request. The objects are in its
	// memory.
	Dir string
}

// FakeGCS starts a fake-gcs-server that lives as long as the test. It is the program that
// CHATELAINE_FAKE_GCS_SERVER names, or is built once (test/tools). Where neither can be
// had the test is skipped, or fails if CI is set.
func FakeGCS(t testing.TB) *GCS {
	t.Helper()
	path, err := binary(t.Context(), "fake-gcs-server", "CHATELAINE_FAKE_GCS_SERVER")
	if err != nil {
		unavailable(t, err)
	}
	s, stop, err := startFakeGCS(t.Context(), path, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	return s
}

// startFakeGCS tries again when somebody else has taken the port in between.
func startFakeGCS(ctx context.Context, path, dir string) (*GCS, func(), error) {
	var errs []error
	for range 3 {
		s, p, err := tryFakeGCS(ctx, path, dir)
		if err == nil {
			return s, p.stop, nil
		}
		errs = append(errs, err)
		if p == nil || !strings.Contains(p.tail(), "address already in use") {
			break
		}
	}
	return nil, nil, errors.Join(errs...)
}

func tryFakeGCS(ctx context.Context, path, dir string) (*GCS, *process, error) {
	address, err := freeAddress()
	if err != nil {
		return nil, nil, err
	}
	s := &GCS{Endpoint: "http://" + address, Project: "project-1", Dir: filepath.Join(dir, "requests")}
	cmd := exec.Command(path, "-listen", address, "-dir", s.Dir)
	cmd.Dir = dir
	p, err := start("fake-gcs-server", filepath.Join(dir, "fake-gcs-server.log"), cmd)
	if err != nil {
		return nil, nil, err
	}
	if err := p.await(ctx, s.ready); err != nil {
		p.stop()
		return nil, p, err
	}
	return s, p, nil
}

// ready is nil once the server answers.
func (s *GCS) ready(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.Endpoint+"/_internal/healthcheck", nil)
	if err != nil {
		return err
	}
	client := http.Client{Timeout: time.Second}
	defer client.CloseIdleConnections()
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("servers: asking for the health of fake-gcs-server: %s", resp.Status)
	}
	return nil
}
