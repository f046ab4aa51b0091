package e2e

import (
	"bytes"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"chatelaine/test/e2e/harness"
)

// tool is a client that people use, as they use it on a folder. Its methods end the
// test where the client fails.
type tool interface {
	MakeBucket(t *testing.T, bucket string)
	// Upload stores a folder's files under prefix, which ends in a slash.
	Upload(t *testing.T, dir, bucket, prefix string)
	// List gives the sizes of what lies under prefix, by name below it.
	List(t *testing.T, bucket, prefix string) map[string]int64
	// Download brings what lies under prefix into a folder.
	Download(t *testing.T, bucket, prefix, dir string)
	// Annotate stores a file with a content type and a piece of metadata, and returns
	// both as the client reads them back.
	Annotate(t *testing.T, file, bucket, key, contentType, note string) (gotType, gotNote string)
	// Delete deletes everything in the bucket, and the bucket.
	Delete(t *testing.T, bucket string)
}

// ranger is a tool that reads parts of objects.
type ranger interface {
	Range(t *testing.T, bucket, key string, first, last int64) []byte
}

// presigner is a tool that makes URLs for those who have no credentials.
type presigner interface {
	Presign(t *testing.T, bucket, key string) string
}

// verifier is a tool that compares a folder with what lies under a prefix.
type verifier interface {
	Verify(t *testing.T, dir, bucket, prefix string)
}

// client is a tool that may be there or not.
type client struct {
	name string
	make func(t *testing.T, w *world) tool
}

// clientsFor lists all on a cloud; two of them in a short run.
func clientsFor(cloud string) []client {
	list := []client{{"aws-sdk-go", newGoSDK}, {"aws-cli", newDebianAWS}}
	if testing.Short() {
		return list
	}
	list = append(list, client{"boto3", newDebianBoto}, client{"rclone", newRclone}, client{"s3cmd", newS3cmd})
	if cloud == "filestore" {
		list = append(list, newerClients()...)
	}
	return list
}

// newerClients are those that send checksums by default, where somebody has installed
// them beside Debian's.
func newerClients() []client {
	var list []client
	for _, path := range pyenv("aws") {
		list = append(list, client{"newer aws-cli", func(t *testing.T, w *world) tool { return newAWS(t, w, path) }})
	}
	for _, path := range pyenv("python") {
		if exec.Command(path, "-c", "import boto3").Run() == nil {
			list = append(list, client{"newer boto3", func(t *testing.T, w *world) tool { return newBoto(t, w, path) }})
		}
	}
	return list
}

// pyenv finds a program in the Pythons that pyenv has installed.
func pyenv(name string) []string {
	home, err := os.UserHomeDir()
	if err != nil {
		return nil
	}
	found, _ := filepath.Glob(filepath.Join(home, ".pyenv", "versions", "3.*", "bin", name))
	return found
}

// TestClientsStoreAFolderAndGetItBack has a big file of five parts or more for each
// client, and of 200 MB in `make long`. Files of 300 MB are test/compat's.
func TestClientsStoreAFolderAndGetItBack(t *testing.T) {
	big := int64(64_000_000)
	switch {
	case testing.Short():
		big = 20_000_000
	case long():
		big = 200_000_000
	}
	files := newFolder(t, big)
	for name, make := range clouds() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, make(t))
			for _, c := range clientsFor(name) {
				t.Run(c.name, func(t *testing.T) {
					w := *w
					w.t = t
					session{&w, c.make(t, &w), files}.run()
				})
			}
			w.assertDiscreet()
		})
	}
}

// session is what one client does on one cloud.
type session struct {
	*world
	tool  tool
	files *folder
}

func (s session) run() {
	t, bucket := s.t, newName()
	s.tool.MakeBucket(t, bucket)
	s.tool.Upload(t, s.files.dir, bucket, "pre fix/")
	assertSizes(t, s.tool.List(t, bucket, "pre fix/"), s.files.sizes)
	out := filepath.Join(t.TempDir(), "out")
	s.tool.Download(t, bucket, "pre fix/", out)
	s.files.assertSame(t, out)
	if v, ok := s.tool.(verifier); ok {
		v.Verify(t, s.files.dir, bucket, "pre fix/")
	}
	s.ranges(bucket)
	s.presigned(bucket)
	s.annotated(bucket)
	s.assertSealed()
	s.tool.Delete(t, bucket)
	s.do(harness.Request{Method: http.MethodHead, Path: "/" + bucket}).want(http.StatusNotFound)
}

// ranges reads within a part, across chunks and parts, and up to the end.
func (s session) ranges(bucket string) {
	r, ok := s.tool.(ranger)
	if !ok {
		return
	}
	size := s.files.sizes["big/file.bin"]
	for _, span := range [][2]int64{{0, 0}, {8<<20 - 5, 8<<20 + 5}, {1 << 20, 12 << 20}, {size - 7, size - 1}} {
		got := r.Range(s.t, bucket, "pre fix/big/file.bin", span[0], span[1])
		if want := s.files.middle(s.t, "big/file.bin", span[0], span[1]); !bytes.Equal(got, want) {
			s.t.Errorf("bytes %d to %d of the big file: got %d other bytes, want %d", span[0], span[1], len(got), len(want))
		}
	}
}

// presigned has curl fetch what the tool has made a URL for.
func (s session) presigned(bucket string) {
	p, ok := s.tool.(presigner)
	if !ok {
		return
	}
	for _, name := range []string{"with space.txt", "sizes/1048576.bin"} {
		url := p.Presign(s.t, bucket, "pre fix/"+name)
		out := filepath.Join(s.t.TempDir(), "fetched")
		command(s.t, nil, program(s.t, "curl"), "--silent", "--show-error", "--fail", "--output", out, url)
		assertSameFile(s.t, out, s.files.path(name))
		if strings.Contains(url, s.User.SecretAccessKey) {
			s.t.Error("the URL holds the secret")
		}
	}
}

func (s session) annotated(bucket string) {
	note := marker("meta")
	contentType := "application/x-" + strings.ToLower(marker("type"))
	gotType, gotNote := s.tool.Annotate(s.t, s.files.path("sizes/16385.bin"), bucket, "annotated", contentType, note)
	if gotType != contentType || gotNote != note {
		s.t.Errorf("read back: got type %q and note %q, want %q and %q", gotType, gotNote, contentType, note)
	}
}

// command runs a program to its end and returns what it printed.
func command(t *testing.T, env []string, name string, args ...string) string {
	t.Helper()
	out, err := tryCommand(t, env, name, args...)
	if err != nil {
		t.Fatalf("%s %.300q: %v", name, args, err)
	}
	return out
}

func tryCommand(t *testing.T, env []string, name string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "LC_ALL=C.UTF-8", "TZ=UTC"}, env...)
	cmd.WaitDelay = time.Second
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if err != nil {
		err = &commandError{err, tail(errs.String()+out.String(), 2000)}
	}
	return out.String(), err
}

// commandError is a program's failure with what it said.
type commandError struct {
	error
	said string
}

func (e *commandError) Error() string { return e.error.Error() + ": " + e.said }

func tail(s string, n int) string { return s[max(0, len(s)-n):] }

func readAll(t *testing.T, r io.ReadCloser) []byte {
	t.Helper()
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
