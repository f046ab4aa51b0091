package e2e

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// boto is Amazon's library for Python, by way of testdata/boto.py.
type boto struct {
	python, script string
	env            []string
}

func newDebianBoto(t *testing.T, w *world) tool {
	python := "/usr/bin/python3"
	if err := exec.Command(python, "-c", "import boto3").Run(); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("python3-boto3 is not installed: %v", err)
		}
		t.Skipf("python3-boto3 is not installed: %v", err)
	}
	return newBoto(t, w, python)
}

func newBoto(t *testing.T, w *world, python string) tool {
	script, err := filepath.Abs(filepath.Join("testdata", "boto.py"))
	if err != nil {
		t.Fatal(err)
	}
	return boto{python, script, append(awsEnv(w.User), "ENDPOINT="+w.Endpoint)}
}

func (b boto) run(t *testing.T, args ...string) string {
	t.Helper()
	return command(t, b.env, b.python, append([]string{b.script}, args...)...)
}

func (b boto) MakeBucket(t *testing.T, bucket string) { b.run(t, "make", bucket) }

func (b boto) Upload(t *testing.T, dir, bucket, prefix string) {
	b.run(t, "upload", dir, bucket, prefix)
}

func (b boto) Download(t *testing.T, bucket, prefix, dir string) {
	b.run(t, "download", bucket, prefix, dir)
}

func (b boto) List(t *testing.T, bucket, prefix string) map[string]int64 {
	sizes := map[string]int64{}
	if err := json.Unmarshal([]byte(b.run(t, "list", bucket, prefix)), &sizes); err != nil {
		t.Fatal(err)
	}
	return sizes
}

func (b boto) Range(t *testing.T, bucket, key string, first, last int64) []byte {
	return []byte(b.run(t, "range", bucket, key, strconv.FormatInt(first, 10), strconv.FormatInt(last, 10)))
}

func (b boto) Presign(t *testing.T, bucket, key string) string {
	return strings.TrimSpace(b.run(t, "presign", bucket, key))
}

func (b boto) Annotate(t *testing.T, file, bucket, key, contentType, note string) (gotType, gotNote string) {
	var got [2]string
	if err := json.Unmarshal([]byte(b.run(t, "annotate", file, bucket, key, contentType, note)), &got); err != nil {
		t.Fatal(err)
	}
	return got[0], got[1]
}

func (b boto) Delete(t *testing.T, bucket string) { b.run(t, "delete", bucket) }
