package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"chatelaine/test/e2e/harness"
)

// awsCLI is Amazon's command line.
type awsCLI struct {
	path, endpoint string
	env            []string
}

func newDebianAWS(t *testing.T, w *world) tool {
	if _, err := os.Stat("/usr/bin/aws"); err == nil {
		return newAWS(t, w, "/usr/bin/aws")
	}
	return newAWS(t, w, program(t, "aws"))
}

func newAWS(t *testing.T, w *world, path string) tool {
	// Version 1 presigns by an old method unless it is told not to.
	config := filepath.Join(t.TempDir(), "aws.conf")
	if err := os.WriteFile(config, []byte("[default]\ns3 =\n  signature_version = s3v4\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return awsCLI{path, w.Endpoint, append(awsEnv(w.User), "AWS_CONFIG_FILE="+config)}
}

// awsEnv keeps an AWS client to what the test gives it.
func awsEnv(user harness.Credentials) []string {
	return []string{
		"AWS_ACCESS_KEY_ID=" + user.AccessKeyID, "AWS_SECRET_ACCESS_KEY=" + user.SecretAccessKey,
		"AWS_DEFAULT_REGION=us-east-1", "AWS_EC2_METADATA_DISABLED=true", "AWS_MAX_ATTEMPTS=1",
		"AWS_CONFIG_FILE=" + os.DevNull, "AWS_SHARED_CREDENTIALS_FILE=" + os.DevNull,
	}
}

func (c awsCLI) run(t *testing.T, args ...string) string {
	t.Helper()
	return command(t, c.env, c.path, append([]string{"--endpoint-url", c.endpoint}, args...)...)
}

func (c awsCLI) MakeBucket(t *testing.T, bucket string) { c.run(t, "s3", "mb", "s3://"+bucket) }

func (c awsCLI) Upload(t *testing.T, dir, bucket, prefix string) {
	c.run(t, "s3", "cp", "--recursive", "--no-progress", dir, "s3://"+bucket+"/"+prefix)
}

func (c awsCLI) Download(t *testing.T, bucket, prefix, dir string) {
	c.run(t, "s3", "cp", "--recursive", "--no-progress", "s3://"+bucket+"/"+prefix, dir)
}

func (c awsCLI) List(t *testing.T, bucket, prefix string) map[string]int64 {
	var page struct {
		Contents []struct {
			Key  string
			Size int64
		}
	}
	out := c.run(t, "s3api", "list-objects-v2", "--bucket", bucket, "--prefix", prefix, "--page-size", "7", "--output", "json")
	if err := json.Unmarshal([]byte(out), &page); err != nil {
		t.Fatal(err)
	}
	sizes := map[string]int64{}
	for _, o := range page.Contents {
		sizes[strings.TrimPrefix(o.Key, prefix)] = o.Size
	}
	return sizes
}

func (c awsCLI) Range(t *testing.T, bucket, key string, first, last int64) []byte {
	out := filepath.Join(t.TempDir(), "range")
	c.run(t, "s3api", "get-object", "--bucket", bucket, "--key", key, "--range", fmt.Sprintf("bytes=%d-%d", first, last), out)
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (c awsCLI) Presign(t *testing.T, bucket, key string) string {
	return strings.TrimSpace(c.run(t, "s3", "presign", "s3://"+bucket+"/"+key, "--expires-in", "60"))
}

func (c awsCLI) Annotate(t *testing.T, file, bucket, key, contentType, note string) (gotType, gotNote string) {
	c.run(t, "s3", "cp", "--no-progress", file, "s3://"+bucket+"/"+key, "--content-type", contentType, "--metadata", "note="+note)
	var head struct {
		ContentType string
		Metadata    map[string]string
	}
	out := c.run(t, "s3api", "head-object", "--bucket", bucket, "--key", key, "--output", "json")
	if err := json.Unmarshal([]byte(out), &head); err != nil {
		t.Fatal(err)
	}
	return head.ContentType, head.Metadata["note"]
}

func (c awsCLI) Delete(t *testing.T, bucket string) {
	c.run(t, "s3", "rb", "--force", "s3://"+bucket)
}
