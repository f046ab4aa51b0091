package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// buckets are those that a file backend has.
func bucketsIn(t *testing.T, root string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(root, "buckets"))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestBackendCheckAnswersInJSONAndLeavesNothing(t *testing.T) {
	root := t.TempDir()
	config := filepath.Join(t.TempDir(), "gateway.yaml")
	text := "kms: {address: \"unix:///run/kms.sock\"}\nbackends: {main: {url: \"file://" + root + "\"}}\naccess_log: {file: /dev/null}\n"
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var out, progress bytes.Buffer
	if code := run([]string{"backend", "check", "--json", "--config", config, "main"}, &out, &progress); code != 0 {
		t.Fatalf("exit code %d: %s", code, progress.String())
	}
	var answer struct {
		Safe     bool
		Bucket   string
		Findings []struct{ Name, Result string }
	}
	if err := json.Unmarshal(out.Bytes(), &answer); err != nil {
		t.Fatal(err)
	}
	if !answer.Safe || answer.Bucket == "" || len(answer.Findings) < 20 || answer.Findings[0].Result != "yes" {
		t.Errorf("got %+v", answer)
	}
	if left := bucketsIn(t, root); len(left) != 0 {
		t.Errorf("left behind: %q", left)
	}
	if !strings.Contains(progress.String(), "if-none-match") {
		t.Errorf("progress is %q", progress.String())
	}
}

func TestBackendCheckCleansUpWhenItIsInterrupted(t *testing.T) {
	root := t.TempDir()
	p := start(t, nil, "backend", "check", "file://"+root)
	for until := time.Now().Add(30 * time.Second); !strings.Contains(p.err.String(), " objects\n"); time.Sleep(time.Millisecond) {
		if time.Now().After(until) {
			t.Fatalf("it does not begin: %s", p.err.String())
		}
	}
	if err := p.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if code := p.end(t); code != exitFailure {
		t.Errorf("exit code %d: %s", code, p.err.String())
	}
	if left := bucketsIn(t, root); len(left) != 0 {
		t.Errorf("left behind: %q", left)
	}
}

func TestBackendCheckRefusesWhatItCannotTry(t *testing.T) {
	config := "../../deploy/examples/gateway.yaml"
	for name, tc := range map[string]struct {
		args []string
		code int
		want string
	}{
		"an unknown name":            {[]string{"--config", config, "nothing"}, exitUsage, "is not in"},
		"no configuration":           {[]string{"--config", "/nonexistent", "main"}, exitUsage, "nonexistent"},
		"an unknown dialect":         {[]string{"--dialect", "klingon", "s3://h"}, exitUsage, "minio"},
		"a dialect of files":         {[]string{"--dialect", "minio", "file:///nonexistent"}, exitUsage, "only S3"},
		"an unknown scheme":          {[]string{"ftp://h"}, exitUsage, "scheme"},
		"nobody there":               {[]string{"s3+http://127.0.0.1:1"}, exitFailure, "--bucket"},
		"two of them":                {[]string{"file:///a", "file:///b"}, exitUsage, "arg"},
		"a secret in the URL":        {[]string{"s3://id:hunter2@h"}, exitUsage, "want scheme"},
		"a bucket that is not there": {[]string{"--bucket", "none-such", "file://" + t.TempDir()}, exitFailure, "bucket not found"},
	} {
		t.Setenv("CHATELAINE_BACKEND_ACCESS_KEY_ID", "id")
		t.Setenv("CHATELAINE_BACKEND_SECRET_ACCESS_KEY", "hunter2")
		var out, text bytes.Buffer
		code := run(append([]string{"backend", "check"}, tc.args...), &out, &text)
		if code != tc.code || !strings.Contains(text.String(), tc.want) {
			t.Errorf("%s: exit code %d and %q, want %d and %q", name, code, text.String(), tc.code, tc.want)
		}
		if strings.Contains(out.String()+text.String(), "hunter2") {
			t.Errorf("%s: a secret is told", name)
		}
	}
}

func TestDialectsAreListed(t *testing.T) {
	var out, text bytes.Buffer
	if code := run([]string{"backend", "dialects"}, &out, &text); code != 0 || !strings.Contains(out.String(), "s3.{region}.amazonaws.eu") {
		t.Errorf("exit code %d: %s%s", code, out.String(), text.String())
	}
	out.Reset()
	var rows []struct {
		Name, Note string
		Sources    []string
	}
	if code := run([]string{"backend", "dialects", "--json"}, &out, &text); code != 0 {
		t.Fatalf("exit code %d: %s", code, text.String())
	}
	if err := json.Unmarshal(out.Bytes(), &rows); err != nil || len(rows) < 20 || len(rows[0].Sources) == 0 {
		t.Errorf("got %d rows, %v", len(rows), err)
	}
}
