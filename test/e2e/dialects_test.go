package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"chatelaine/test/e2e/harness"
	"chatelaine/test/servers"
)

// versitygw and cephs are the clouds of the tests that want another than MinIO; TestMain
// stops them.
var versitygw, cephs servers.Shared

// speaking is a cloud whose dialect is named.
func speaking(s *servers.S3, dialect string) cloud {
	c := cloudOf(s, "")
	c.url += "?dialect=" + dialect
	return c
}

func TestTheCommandLineWorksOnVersityGW(t *testing.T) {
	if testing.Short() {
		t.Skip("needs versitygw")
	}
	basics(t, speaking(versitygw.VersityGW(t), "versitygw"))
}

func TestTheCommandLineWorksOnCeph(t *testing.T) {
	if testing.Short() {
		t.Skip("needs Ceph")
	}
	basics(t, speaking(cephs.Ceph(t), "ceph"))
}

// basics stores a folder, one file of it by a multipart upload, and takes it back.
func basics(t *testing.T, c cloud) {
	t.Helper()
	w := newWorld(t, c)
	files := &folder{dir: filepath.Join(t.TempDir(), "files"), sizes: map[string]int64{}}
	for name, size := range map[string]int64{"empty": 0, "with space/ümlaut": 70_000, "big.bin": 20<<20 + 3} {
		files.write(t, name, size)
	}
	aws, bucket := newDebianAWS(t, w), newName()
	aws.MakeBucket(t, bucket)
	aws.Upload(t, files.dir, bucket, "pre fix/")
	assertSizes(t, aws.List(t, bucket, "pre fix/"), files.sizes)
	out := filepath.Join(t.TempDir(), "out")
	aws.Download(t, bucket, "pre fix/", out)
	files.assertSame(t, out)
	aws.Delete(t, bucket)
	w.do(harness.Request{Method: http.MethodHead, Path: "/" + bucket}).want(http.StatusNotFound)
	w.assertDiscreet()
}

// check is what `chatelaine backend check --json` answers.
type check struct {
	Safe     bool
	Dialect  string
	Left     []string
	Findings []struct {
		Name, Result, Table, Detail string
		Differs, Unsafe             bool
	}
}

func checked(t *testing.T, c cloud, wantCode int) (got check) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), product, "backend", "check", "--json", c.url)
	cmd.Env = append(os.Environ(), c.env...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) || cmd.ProcessState.ExitCode() != wantCode {
		t.Fatalf("%v, want exit code %d: %s\n%s", err, wantCode, out, stderr.String())
	}
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatal(err)
	}
	if len(got.Left) != 0 || len(got.Findings) < 30 {
		t.Errorf("%d findings, left behind: %q", len(got.Findings), got.Left)
	}
	return got
}

func TestBackendCheckFindsWhatTheTableSays(t *testing.T) {
	if testing.Short() {
		t.Skip("needs MinIO and versitygw")
	}
	for name, s := range map[string]*servers.S3{"minio": minio.MinIO(t), "versitygw": versitygw.VersityGW(t)} {
		assertTable(t, name, s)
	}
}

func TestBackendCheckFindsOnCephWhatTheTableSays(t *testing.T) {
	if testing.Short() {
		t.Skip("needs Ceph")
	}
	assertTable(t, "ceph", cephs.Ceph(t))
}

func assertTable(t *testing.T, name string, s *servers.S3) {
	t.Helper()
	got := checked(t, speaking(s, name), 0)
	if !got.Safe || got.Dialect != name {
		t.Errorf("%s: %+v", name, got)
	}
	for _, f := range got.Findings {
		if f.Differs {
			t.Errorf("%s: %s is %s, and the table says %s: %s", name, f.Name, f.Result, f.Table, f.Detail)
		}
	}
}

// A server that takes a//b for a/b, of which the gateway knows nothing, and one that
// ignores the condition of a delete, of which it was told the contrary.
func TestBackendCheckEndsBadlyWhereTheGatewayWouldBeFooled(t *testing.T) {
	if testing.Short() {
		t.Skip("needs MinIO and versitygw")
	}
	fooled := cloudOf(minio.MinIO(t), "")
	fooled.url += "?dialect=minio&conditional-delete=true"
	for name, c := range map[string]cloud{"keys-slashes": cloudOf(versitygw.VersityGW(t), ""), "if-match-delete": fooled} {
		got := checked(t, c, 1)
		var unsafe []string
		for _, f := range got.Findings {
			if f.Unsafe {
				unsafe = append(unsafe, f.Name)
			}
		}
		if got.Safe || strings.Join(unsafe, " ") != name {
			t.Errorf("safe: %v, unsafe are %q, want %q", got.Safe, unsafe, name)
		}
	}
}
