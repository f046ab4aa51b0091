package e2e

import (
	"encoding/json"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// rclone copies and compares trees.
type rclone struct {
	path string
	env  []string
}

func newRclone(t *testing.T, w *world) tool {
	return rclone{program(t, "rclone"), []string{
		"RCLONE_CONFIG=" + filepath.Join(t.TempDir(), "rclone.conf"),
		"RCLONE_CONFIG_CH_TYPE=s3", "RCLONE_CONFIG_CH_PROVIDER=Other", "RCLONE_CONFIG_CH_ENDPOINT=" + w.Endpoint,
		"RCLONE_CONFIG_CH_ACCESS_KEY_ID=" + w.User.AccessKeyID, "RCLONE_CONFIG_CH_SECRET_ACCESS_KEY=" + w.User.SecretAccessKey,
		"RCLONE_CONFIG_CH_REGION=us-east-1", "RCLONE_LOW_LEVEL_RETRIES=1", "RCLONE_RETRIES=1",
		"RCLONE_S3_UPLOAD_CUTOFF=16Mi", "RCLONE_S3_CHUNK_SIZE=7Mi",
	}}
}

func (r rclone) run(t *testing.T, args ...string) string {
	t.Helper()
	return command(t, r.env, r.path, args...)
}

func (r rclone) MakeBucket(t *testing.T, bucket string) { r.run(t, "mkdir", "CH:"+bucket) }

func (r rclone) Upload(t *testing.T, dir, bucket, prefix string) {
	r.run(t, "copy", dir, "CH:"+bucket+"/"+prefix)
}

func (r rclone) Download(t *testing.T, bucket, prefix, dir string) {
	r.run(t, "copy", "CH:"+bucket+"/"+prefix, dir)
}

// Verify has rclone compare the bytes, and count them.
func (r rclone) Verify(t *testing.T, dir, bucket, prefix string) {
	r.run(t, "check", "--download", dir, "CH:"+bucket+"/"+prefix)
	var there, here struct{ Count, Bytes int64 }
	for path, size := range map[string]any{"CH:" + bucket + "/" + prefix: &there, dir: &here} {
		if err := json.Unmarshal([]byte(r.run(t, "size", "--json", path)), size); err != nil {
			t.Fatal(err)
		}
	}
	if there != here {
		t.Errorf("rclone size: got %+v, want %+v", there, here)
	}
	if out, err := tryCommand(t, r.env, r.path, "check", "--download", filepath.Join(dir, "logs"), "CH:"+bucket+"/"+prefix+"sizes"); err == nil {
		t.Errorf("rclone check found no difference between two folders that differ: %s", out)
	}
}

func (r rclone) List(t *testing.T, bucket, prefix string) map[string]int64 {
	var entries []struct {
		Path string
		Size int64
	}
	out := r.run(t, "lsjson", "--recursive", "--files-only", "CH:"+bucket+"/"+prefix)
	if err := json.Unmarshal([]byte(out), &entries); err != nil {
		t.Fatal(err)
	}
	sizes := map[string]int64{}
	for _, e := range entries {
		sizes[e.Path] = e.Size
	}
	return sizes
}

func (r rclone) Range(t *testing.T, bucket, key string, first, last int64) []byte {
	return []byte(r.run(t, "cat", "--offset", strconv.FormatInt(first, 10), "--count", strconv.FormatInt(last-first+1, 10), "CH:"+bucket+"/"+key))
}

func (r rclone) Presign(t *testing.T, bucket, key string) string {
	return strings.TrimSpace(r.run(t, "link", "--expire", "60s", "CH:"+bucket+"/"+key))
}

func (r rclone) Annotate(t *testing.T, file, bucket, key, contentType, note string) (gotType, gotNote string) {
	r.run(t, "copyto", "--header-upload", "Content-Type: "+contentType, "--header-upload", "x-amz-meta-note: "+note, file, "CH:"+bucket+"/"+key)
	var entries []struct {
		MimeType string
		Metadata map[string]string
	}
	if err := json.Unmarshal([]byte(r.run(t, "lsjson", "--stat=false", "--metadata", "CH:"+bucket+"/"+key)), &entries); err != nil || len(entries) != 1 {
		t.Fatalf("lsjson of one object: got %v and %v", entries, err)
	}
	return entries[0].MimeType, entries[0].Metadata["note"]
}

func (r rclone) Delete(t *testing.T, bucket string) { r.run(t, "purge", "CH:"+bucket) }
