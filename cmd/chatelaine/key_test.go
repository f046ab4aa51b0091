package main

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	awscredentials "github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// site is the whole product with somebody who administers it and somebody who uses it.
type site struct {
	dir string
	*program
	s3 *s3.Client
}

func newSite(t *testing.T, args ...string) *site {
	t.Helper()
	dir := t.TempDir()
	s := &site{dir: dir, program: startUp(t, nil, append([]string{"--data", filepath.Join(dir, ".run")}, args...)...)}
	s.s3 = s3Of(t, s.program)
	return s
}

// s3Of is a client of what `chatelaine up` serves, as its first user.
func s3Of(t *testing.T, p *program) *s3.Client {
	t.Helper()
	return s3.New(s3.Options{
		BaseEndpoint: aws.String(p.said(t, "endpoint")), Region: "us-east-1", UsePathStyle: true, RetryMaxAttempts: 1,
		Credentials: awscredentials.NewStaticCredentialsProvider(p.said(t, "access key"), p.said(t, "secret"), ""),
	})
}

// run runs a command and wants an exit code; its texts are in what it returns.
func (s *site) run(t *testing.T, want int, args ...string) *program {
	t.Helper()
	c := startIn(t, s.dir, nil, args...)
	if code := c.end(t); code != want {
		t.Errorf("%v: ended with %d, want %d: %s", args, code, want, c.err.String())
	}
	return c
}

func (s *site) put(t *testing.T, bucket, key, text string) int {
	t.Helper()
	_, err := s.s3.PutObject(t.Context(), &s3.PutObjectInput{Bucket: &bucket, Key: &key, Body: strings.NewReader(text)})
	return status(t, err)
}

func (s *site) get(t *testing.T, bucket, key string) (string, int) {
	t.Helper()
	out, err := s.s3.GetObject(t.Context(), &s3.GetObjectInput{Bucket: &bucket, Key: &key})
	if err != nil {
		return "", status(t, err)
	}
	defer out.Body.Close()
	text, err := io.ReadAll(out.Body)
	return string(text), status(t, err)
}

func status(t *testing.T, err error) int {
	t.Helper()
	var answer *awshttp.ResponseError
	switch {
	case err == nil:
		return http.StatusOK
	case errors.As(err, &answer):
		return answer.HTTPStatusCode()
	}
	t.Fatal(err)
	return 0
}

func (s *site) bucket(t *testing.T, name string) {
	t.Helper()
	if _, err := s.s3.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: &name}); err != nil {
		t.Fatal(err)
	}
}

// needs counts what needs each version of the default key.
func (s *site) needs(t *testing.T) map[int]int {
	t.Helper()
	var answer struct {
		Needs []struct {
			Kind    string
			Version int
		}
	}
	text := s.run(t, 0, "key", "needs", "main", "--json").out.String()
	if err := json.Unmarshal([]byte(text), &answer); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	counts := map[int]int{}
	for _, n := range answer.Needs {
		if n.Kind == "bucket-key" {
			counts[n.Version]++
		}
	}
	return counts
}

func TestAKeyIsRotatedBlockedAndUnblockedUnderLiveData(t *testing.T) {
	t.Parallel()
	for _, kek := range []string{"softkey", "softhsm"} {
		t.Run(kek, func(t *testing.T) {
			t.Parallel()
			needSoftHSM(t, kek)
			lifeOfAKey(t, newSite(t, "--kek", kek))
		})
	}
}

func lifeOfAKey(t *testing.T, s *site) {
	t.Helper()
	s.bucket(t, "old")
	if got := s.put(t, "old", "object", "before"); got != http.StatusOK {
		t.Fatalf("put: %d", got)
	}
	if text := s.run(t, 0, "key", "rotate", "main", "--reason", "a test").out.String(); !strings.Contains(text, "2 (primary)") {
		t.Errorf("rotating: %s", text)
	}
	s.bucket(t, "new")
	if got := s.put(t, "new", "object", "after"); got != http.StatusOK {
		t.Fatalf("put after rotating: %d", got)
	}
	if counts := s.needs(t); counts[1] != 1 || counts[2] != 1 {
		t.Errorf("bucket keys by version: %v, want one each", counts)
	}
	s.reads(t, "when it was rotated", map[string]int{"old": 200, "new": 200})

	if text := s.run(t, 0, "key", "block", "main", "--version", "1").out.String(); !strings.Contains(text, "suspended") || !strings.Contains(text, "IN EFFECT AFTER") {
		t.Errorf("blocking: %s", text)
	}
	s.reads(t, "when version 1 was blocked", map[string]int{"old": 403})
	s.run(t, 0, "key", "unblock", "main", "--version", "1")
	s.reads(t, "when it was unblocked", map[string]int{"old": 200, "new": 200})

	s.run(t, 0, "key", "block", "main", "--reason", "an emergency")
	s.run(t, 0, "key", "block", "main") // again
	s.reads(t, "when all was blocked", map[string]int{"old": 403, "new": 403})
	if got := s.put(t, "new", "another", "x"); got != http.StatusForbidden {
		t.Errorf("put under a blocked key: %d, want 403", got)
	}
	s.run(t, exitFailure, "key", "rotate", "main")
	s.run(t, 0, "key", "unblock", "main")
	s.reads(t, "when all was unblocked", map[string]int{"old": 200, "new": 200})
	s.refusals(t)
	history := s.run(t, 0, "key", "show", "main").out.String()
	for _, want := range []string{"unix:", "an emergency", "a test", "superseded", "unblocked", "deletion_allowed"} {
		if !strings.Contains(history, want) {
			t.Errorf("the history lacks %q: %s", want, history)
		}
	}
}

func (s *site) reads(t *testing.T, when string, want map[string]int) {
	t.Helper()
	for bucket, code := range want {
		text, got := s.get(t, bucket, "object")
		if right := map[string]string{"old": "before", "new": "after"}[bucket]; got != code || code == http.StatusOK && text != right {
			t.Errorf("%s: %s/object: got %d and %q, want %d", when, bucket, got, text, code)
		}
	}
}

// refusals are commands that must change nothing, and say what to do.
func (s *site) refusals(t *testing.T) {
	t.Helper()
	for _, test := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"destroy", "main", "--version", "1", "--yes"}, exitUsage, "deletion_allowed is off"},
		{[]string{"destroy", "main", "--yes"}, exitUsage, "--version N or --all"},
		{[]string{"destroy", "main", "--version", "1"}, exitUsage, "say --yes"},
		{[]string{"restore", "main", "--version", "1"}, exitUsage, "no destruction of version 1 is planned"},
		{[]string{"compromise", "main", "--version", "2", "--yes"}, exitUsage, "rotate first"},
		{[]string{"deactivate", "main", "--yes"}, exitFailure, "chatelaine key needs"},
		{[]string{"unblock", "main"}, exitUsage, "not blocked"},
		{[]string{"block", "mian"}, exitFailure, "did you mean main?"},
		{[]string{"block", "main", "--version", "7"}, exitFailure, "version 7: not found"},
		{[]string{"set", "main", "--auto-rotate-period", "1s"}, exitUsage, "auto_rotate_period 1s"},
		{[]string{"set", "main", "--auto-rotate-period", "soon"}, exitUsage, "no duration"},
		{[]string{"create", "main"}, exitFailure, "already exists"},
		{[]string{"create", "main.v7"}, exitUsage, "look like a version"},
	} {
		c := s.run(t, test.code, append([]string{"key"}, test.args...)...)
		if !strings.Contains(c.err.String(), test.want) || c.out.String() != "" {
			t.Errorf("%v: got %q and %q, want %q", test.args, c.out.String(), c.err.String(), test.want)
		}
	}
	s.run(t, 0, "key", "set", "main", "--deletion-allowed", "--auto-rotate-period", "90d", "--waiting-period", "24h")
	c := s.run(t, exitFailure, "key", "destroy", "main", "--version", "1", "--yes")
	if text := c.err.String(); !strings.Contains(text, "still needed") || !strings.Contains(text, "chatelaine key rewrap") {
		t.Errorf("destroying what is needed: %s", text)
	}
}

func TestAKeyOfItsOwnIsMadeAndPlannedToBeDestroyed(t *testing.T) {
	t.Parallel()
	s := newSite(t, "--kek", "softkey")
	s.run(t, 0, "key", "create", "spare", "--reason", "a test")
	s.run(t, 0, "key", "rotate", "spare")
	s.run(t, 0, "key", "set", "spare", "--deletion-allowed")
	s.run(t, 0, "key", "compromise", "spare", "--version", "1", "--yes")
	if text := s.run(t, 0, "key", "destroy", "spare", "--version", "1", "--yes").out.String(); !strings.Contains(text, "compromised") {
		t.Errorf("got %s", text)
	}
	s.run(t, 0, "key", "restore", "spare", "--version", "1")
	s.run(t, 0, "key", "deactivate", "spare", "--yes")
	s.run(t, 0, "key", "destroy", "spare", "--all", "--yes")
	if text := s.run(t, 0, "key", "list").out.String(); !strings.Contains(text, "scheduled") {
		t.Errorf("got %s", text)
	}
	s.run(t, exitUsage, "key", "rotate", "spare")
	s.run(t, 0, "key", "restore", "spare", "--all")
	s.run(t, 0, "key", "rotate", "spare")
	if text := s.run(t, 0, "key", "show", "spare").out.String(); !strings.Contains(text, "3 (primary)") || !strings.Contains(text, "destruction taken back") {
		t.Errorf("got %s", text)
	}
}

func TestDays(t *testing.T) {
	for text, want := range map[string]string{"90d": "2160h0m0s", "24h": "24h0m0s", "0": "0s", "0d": "0s"} {
		if got, err := days(text); err != nil || got.AsDuration().String() != want {
			t.Errorf("%q: got %v, %v", text, got.AsDuration(), err)
		}
	}
	for _, text := range []string{"", "d", "-1d", "1.5d", "99999999999d", "40000d", "x"} {
		if _, err := days(text); err == nil {
			t.Errorf("%q was taken", text)
		}
	}
}
