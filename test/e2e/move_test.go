package e2e

import (
	"bytes"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"

	"chatelaine/test/e2e/harness"
)

// TestABucketMovesToAnotherCloud: it is copied sealed from files to MinIO, gateways are
// switched to it, and go on reading and writing there, with the old place gone.
func TestABucketMovesToAnotherCloud(t *testing.T) {
	large(t)
	to := onMinIO(t)
	k := planCluster(t, cloud{})
	k.cloud.env = to.env
	k.others = ", there: {url: '" + to.url + "', access_key_id_env: CHATELAINE_BACKEND_ACCESS_KEY_ID, secret_access_key_env: CHATELAINE_BACKEND_SECRET_ACCESS_KEY}"
	k.start(1)
	bucket, place := k.bucket(), newName()
	put := func(key, body string) {
		t.Helper()
		k.send(0, harness.Request{Method: http.MethodPut, Path: "/" + bucket + "/" + key, Body: strings.NewReader(body), Size: int64(len(body))}).want(http.StatusOK)
	}
	has := func(key, body string) {
		t.Helper()
		if got := k.send(0, harness.Request{Method: http.MethodGet, Path: "/" + bucket + "/" + key}).want(http.StatusOK); !bytes.Equal(got.body, []byte(body)) {
			t.Errorf("%s: got %d bytes, want %d", key, len(got.body), len(body))
		}
	}
	copyTo := func(args ...string) (string, error) {
		cmd := exec.CommandContext(t.Context(), product, append([]string{
			"bucket", "copy", bucket, "--to", "there/" + place, "--config", k.path("gateway-0.yaml"), "--kms", k.socket(),
		}, args...)...)
		cmd.Env = append(os.Environ(), to.env...)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	long := strings.Repeat("sealed here, opened there\n", 100_000)
	put("small", "a small object")
	put("large", long)
	if out, err := copyTo(); err != nil || !strings.Contains(out, "2 objects") {
		t.Fatalf("%v: %s", err, out)
	}
	put("small", "written since")
	if out, err := copyTo("--switch"); err != nil || !strings.Contains(out, "1 objects") || !strings.Contains(out, "switched") {
		t.Fatalf("%v: %s", err, out)
	}
	if err := os.RemoveAll(k.path("cloud")); err != nil {
		t.Fatal(err)
	}
	has("small", "written since")
	has("large", long)
	put("new", "there")
	has("new", "there")
	out, err := copyTo("--switch")
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 2 || !strings.Contains(out, "are the same") {
		t.Errorf("once more: %v: %s", err, out)
	}
}
