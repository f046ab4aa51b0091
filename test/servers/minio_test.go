package servers

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestMinIOAnswersAndAsksForCredentials(t *testing.T) {
	s := MinIO(t)
	resp, err := http.Get(s.Endpoint + "/")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if got, want := resp.StatusCode, http.StatusForbidden; got != want {
		t.Errorf("anonymous ListBuckets: got status %d, want %d", got, want)
	}
}

func TestSharedStartsOneServerAndStopEndsIt(t *testing.T) {
	var shared Shared
	defer shared.Stop()
	first, second := shared.MinIO(t), shared.MinIO(t)
	if first != second {
		t.Errorf("got two servers, %s and %s, want one", first.Endpoint, second.Endpoint)
	}
	shared.Stop()
	if _, err := http.Get(first.Endpoint); err == nil {
		t.Error("the server answers after Stop")
	}
	if _, err := os.Stat(first.Dir); !os.IsNotExist(err) {
		t.Errorf("the folder is still there after Stop: %v", err)
	}
}

func TestServerThatEndsAtOnceIsAnErrorWithItsOutput(t *testing.T) {
	script := filepath.Join(t.TempDir(), "minio")
	if err := os.WriteFile(script, []byte("#!/bin/sh\necho no such luck\nexit 1\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	_, _, err := startMinIO(t.Context(), script, t.TempDir())
	if err == nil || !strings.Contains(err.Error(), "no such luck") {
		t.Errorf("got %v, want an error with the server's output", err)
	}
}

func TestAMortalComesBackWithItsObjects(t *testing.T) {
	m := NewMortal(t)
	mark := filepath.Join(m.Dir, "bucket")
	if err := os.Mkdir(mark, 0o700); err != nil {
		t.Fatal(err)
	}
	m.Kill()
	if _, err := http.Get(m.Endpoint + "/"); err == nil {
		t.Error("it answers after Kill")
	}
	if err := m.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	resp, err := http.Get(m.Endpoint + "/")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if _, err := os.Stat(mark); err != nil {
		t.Error(err)
	}
}
