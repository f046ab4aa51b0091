package e2e

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// s3cmd is older than most. It compares the MD5 of what it sends with the ETag that
// comes back, where that looks like one.
type s3cmd struct{ path, config string }

func newS3cmd(t *testing.T, w *world) tool {
	host := strings.TrimPrefix(w.Endpoint, "http://")
	config := filepath.Join(t.TempDir(), "s3cfg")
	text := "[default]\naccess_key = " + w.User.AccessKeyID + "\nsecret_key = " + w.User.SecretAccessKey +
		"\nhost_base = " + host + "\nhost_bucket = " + host +
		"\nuse_https = False\nbucket_location = us-east-1\nmultipart_chunk_size_mb = 15\nmax_retries = 0\nprogress_meter = False\n"
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return s3cmd{program(t, "s3cmd"), config}
}

func (c s3cmd) run(t *testing.T, args ...string) string {
	t.Helper()
	return command(t, nil, c.path, append([]string{"--config", c.config}, args...)...)
}

func (c s3cmd) MakeBucket(t *testing.T, bucket string) { c.run(t, "mb", "s3://"+bucket) }

func (c s3cmd) Upload(t *testing.T, dir, bucket, prefix string) {
	c.run(t, "put", "--recursive", dir+"/", "s3://"+bucket+"/"+prefix)
}

func (c s3cmd) Download(t *testing.T, bucket, prefix, dir string) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	c.run(t, "get", "--recursive", "s3://"+bucket+"/"+prefix, dir+"/")
}

// Verify has s3cmd look for differences both ways: there are none to copy.
func (c s3cmd) Verify(t *testing.T, dir, bucket, prefix string) {
	there := "s3://" + bucket + "/" + prefix
	for _, pair := range [][2]string{{dir + "/", there}, {there, dir + "/"}} {
		if out := c.run(t, "sync", "--no-check-md5", "--dry-run", pair[0], pair[1]); strings.Contains(out, "load: ") {
			t.Errorf("s3cmd sync of equal folders would copy: %s", tail(out, 500))
		}
	}
}

func (c s3cmd) List(t *testing.T, bucket, prefix string) map[string]int64 {
	sizes := map[string]int64{}
	top := "s3://" + bucket + "/" + prefix
	for line := range strings.Lines(c.run(t, "ls", "--recursive", top)) {
		facts, name, ok := strings.Cut(strings.TrimRight(line, "\n"), top)
		fields := strings.Fields(facts)
		if !ok || len(fields) != 3 {
			t.Fatalf("a line of s3cmd ls: %q", line)
		}
		size, err := strconv.ParseInt(fields[2], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		sizes[name] = size
	}
	return sizes
}

func (c s3cmd) Annotate(t *testing.T, file, bucket, key, contentType, note string) (gotType, gotNote string) {
	object := "s3://" + bucket + "/" + key
	c.run(t, "put", "--mime-type", contentType, "--add-header", "x-amz-meta-note: "+note, file, object)
	for line := range strings.Lines(c.run(t, "info", object)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		switch name {
		case "MIME type":
			gotType = strings.TrimSpace(value)
		case "x-amz-meta-note":
			gotNote = strings.TrimSpace(value)
		}
	}
	return gotType, gotNote
}

func (c s3cmd) Delete(t *testing.T, bucket string) {
	c.run(t, "rb", "--recursive", "--force", "s3://"+bucket)
}
