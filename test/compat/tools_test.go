package compat

import (
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// awsCLI is Amazon's command line: s3, which copies folders, and s3api, which has a
// command for each operation.
type awsCLI struct {
	account
	t      *testing.T
	binary string
}

func (c awsCLI) run(args ...string) string {
	c.t.Helper()
	return command(c.t, append(c.env(), "AWS_MAX_ATTEMPTS=1"), c.binary, append([]string{"--endpoint-url", c.endpoint, "--output", "json"}, args...)...)
}

func (c awsCLI) into(answer any, args ...string) {
	c.t.Helper()
	if err := json.Unmarshal([]byte(c.run(args...)), answer); err != nil {
		c.t.Fatal(err)
	}
}

// newAWSCLI prefers Debian's to others of the PATH.
func newAWSCLI(t *testing.T, a account) awsCLI {
	t.Helper()
	if _, err := os.Stat("/usr/bin/aws"); err == nil {
		return awsCLI{a, t, "/usr/bin/aws"}
	}
	return awsCLI{a, t, program(t, "aws")}
}

// awsS3 syncs a folder there and back, and finds nothing to sync again.
func awsS3(t *testing.T, a account, dir string) {
	c, out := newAWSCLI(t, a), filepath.Join(t.TempDir(), "out")
	there := "s3://" + newName()
	c.run("s3", "mb", there)
	c.run("s3", "sync", "--no-progress", dir, there+"/f")
	if again := c.run("s3", "sync", "--no-progress", "--size-only", dir, there+"/f"); again != "" {
		t.Errorf("a second sync copies %.500s", again)
	}
	c.run("s3", "sync", "--no-progress", there+"/f", out)
	assertSame(t, out, dir)
	c.run("s3", "rb", "--force", there)
}

// awsS3API stores some files with one request each, and the big one in parts of its own.
func awsS3API(t *testing.T, a account, dir string) {
	c, out, bucket := newAWSCLI(t, a), filepath.Join(t.TempDir(), "out"), newName()
	c.run("s3api", "create-bucket", "--bucket", bucket)
	stored := 0
	for name, size := range sizesIn(t, dir) {
		if size > 0 && size < bigFor("filestore") && name != "Ünïcödé-日本語" {
			continue
		}
		c.throughS3API(bucket, name, filepath.Join(dir, name), out, size >= bigFor("filestore"))
		if err := sameFile(out, filepath.Join(dir, name)); err != nil {
			t.Errorf("%q: %v", name, err)
		}
		stored++
	}
	var list struct {
		Contents []struct{ Key string }
	}
	c.into(&list, "s3api", "list-objects-v2", "--bucket", bucket)
	if len(list.Contents) != stored || stored != 3 {
		t.Errorf("got %v listed of %d, want three", list.Contents, stored)
	}
	c.run("s3", "rb", "--force", "s3://"+bucket)
}

func (c awsCLI) throughS3API(bucket, key, from, to string, inParts bool) {
	c.t.Helper()
	object := []string{"--bucket", bucket, "--key", key}
	api := func(op string, args ...string) []string {
		return append(append([]string{"s3api", op}, object...), args...)
	}
	if !inParts {
		c.run(api("put-object", "--body", from)...)
		c.run(api("get-object", to)...)
		return
	}
	var upload struct{ UploadID string }
	c.into(&upload, api("create-multipart-upload", "--checksum-algorithm", "SHA256")...)
	var list struct {
		Parts []struct {
			PartNumber           int
			ETag, ChecksumSHA256 string
		}
	}
	for i, piece := range split(c.t, from, 3) {
		c.run(api("upload-part", "--upload-id", upload.UploadID, "--part-number", fmt.Sprint(i+1), "--checksum-algorithm", "SHA256", "--body", piece)...)
	}
	c.into(&list, api("list-parts", "--upload-id", upload.UploadID)...)
	text, err := json.Marshal(list)
	if err != nil {
		c.t.Fatal(err)
	}
	c.run(api("complete-multipart-upload", "--upload-id", upload.UploadID, "--multipart-upload", string(text))...)
	c.run(api("get-object", "--checksum-mode", "ENABLED", to)...)
}

// split cuts a file into n pieces of one size, but for the last.
func split(t *testing.T, file string, n int64) (pieces []string) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	size, dir := (info.Size()+n-1)/n, t.TempDir()
	for i := range n {
		piece := filepath.Join(dir, fmt.Sprint(i))
		copyTo(t, piece, f, size)
		pieces = append(pieces, piece)
	}
	return pieces
}

// boto3 is Amazon's library for Python with its transfer manager, in one of its modes
// of checksums.
func boto3(mode string) func(*testing.T, account, string) {
	return func(t *testing.T, a account, dir string) {
		out, script := filepath.Join(t.TempDir(), "out"), filepath.Join("testdata", "boto.py")
		printed := command(t, a.env(), botoPython(t), script, mode, a.endpoint, newName(), dir, out)
		sizes := map[string]int64{}
		if err := json.Unmarshal([]byte(printed), &sizes); err != nil {
			t.Fatalf("%v: %.300s", err, printed)
		}
		assertSizes(t, sizes, dir)
		assertSame(t, out, dir)
	}
}

// botoPython finds a Python whose boto3 has modes: Debian's 12 has none, and no other
// package does, so that the test is skipped in CI too.
func botoPython(t *testing.T) string {
	t.Helper()
	const probe = "import botocore.config; botocore.config.Config(request_checksum_calculation='when_required')"
	candidates := []string{"/usr/bin/python3", "python3"}
	if home, err := os.UserHomeDir(); err == nil {
		found, _ := filepath.Glob(filepath.Join(home, ".pyenv", "versions", "3.*", "bin", "python"))
		candidates = append(candidates, found...)
	}
	for _, python := range candidates {
		if path, err := exec.LookPath(python); err == nil && exec.Command(path, "-c", probe).Run() == nil {
			return path
		}
	}
	t.Skip("no Python here has a boto3 of 1.36 or newer")
	return ""
}

// s3cmd puts, gets and syncs; it compares MD5s wherever it has two: that of what it
// sends with an ETag that looks like one.
func s3cmd(t *testing.T, a account, dir string) {
	where, err := url.Parse(a.endpoint)
	if err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(t.TempDir(), "s3cfg")
	text := fmt.Sprintf("[default]\naccess_key = %s\nsecret_key = %s\nhost_base = %s\nhost_bucket = %[3]s\nuse_https = %t\nca_certs_file = %s\n"+
		"bucket_location = us-east-1\nmultipart_chunk_size_mb = 15\nmax_retries = 0\nprogress_meter = False\n",
		a.user.AccessKeyID, a.user.SecretAccessKey, where.Host, where.Scheme == "https", a.ca())
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) string {
		t.Helper()
		return command(t, nil, program(t, "s3cmd"), append([]string{"--config", config}, args...)...)
	}
	there, out, mine := "s3://"+newName()+md5Buckets, t.TempDir(), copyOf(t, dir)
	run("mb", there)
	run("put", "--recursive", mine+"/", there+"/f/")
	run("get", "--recursive", there+"/f/", out+"/")
	assertSame(t, out, dir)
	for _, pair := range [][2]string{{mine + "/", there + "/f/"}, {there + "/f/", out + "/"}} {
		if copied := run("sync", "--check-md5", "--dry-run", pair[0], pair[1]); strings.Contains(copied, "load: ") {
			t.Errorf("s3cmd sync of equal folders would copy %.500s", copied)
		}
	}
	spoil(t, filepath.Join(mine, "some", "16385 bytes.bin"))
	if copied := run("sync", "--check-md5", mine+"/", there+"/f/"); strings.Count(copied, "upload: ") != 1 {
		t.Errorf("s3cmd sync of one file that has changed copies %.500q, want that one", copied)
	}
	run("rb", "--recursive", "--force", there)
}

// rclone syncs there and back with several streams for a file, compares bytes, and
// deletes there what is not here any more.
func rclone(t *testing.T, a account, dir string) {
	env := []string{
		"RCLONE_CONFIG=" + filepath.Join(t.TempDir(), "rclone.conf"),
		"RCLONE_CONFIG_CH_TYPE=s3", "RCLONE_CONFIG_CH_PROVIDER=Other", "RCLONE_CONFIG_CH_ENDPOINT=" + a.endpoint,
		"RCLONE_CONFIG_CH_ACCESS_KEY_ID=" + a.user.AccessKeyID, "RCLONE_CONFIG_CH_SECRET_ACCESS_KEY=" + a.user.SecretAccessKey,
		"RCLONE_CONFIG_CH_REGION=us-east-1", "RCLONE_LOW_LEVEL_RETRIES=1", "RCLONE_RETRIES=1", "RCLONE_CA_CERT=" + a.ca(),
		"RCLONE_S3_UPLOAD_CUTOFF=10Mi", "RCLONE_S3_CHUNK_SIZE=7Mi", "RCLONE_S3_UPLOAD_CONCURRENCY=4",
		"RCLONE_MULTI_THREAD_CUTOFF=8Mi", "RCLONE_MULTI_THREAD_STREAMS=4",
	}
	run := func(args ...string) string { t.Helper(); return command(t, env, program(t, "rclone"), args...) }
	there, out, mine := "CH:"+newName(), filepath.Join(t.TempDir(), "out"), copyOf(t, dir)
	run("mkdir", there)
	run("sync", mine, there+"/f")
	run("check", mine, there+"/f")
	run("sync", there+"/f", out)
	assertSame(t, out, dir)
	spoil(t, filepath.Join(mine, "some", "16385 bytes.bin"))
	if err := os.Remove(filepath.Join(mine, "some", "1 bytes.bin")); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(filepath.Join(mine, "some", "16385 bytes.bin"), time.Time{}, time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err) // rclone looks at the time, where it has no hash
	}
	run("sync", mine, there+"/f")
	run("check", "--download", mine, there+"/f")
	run("purge", there)
}

// copyOf is a folder of links to another's files: only those that are spoilt cost space.
func copyOf(t *testing.T, dir string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "mine")
	command(t, nil, "cp", "-rl", dir, to)
	return to
}

// spoil replaces a file by one of the same size and time with other bytes.
func spoil(t *testing.T, path string) {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	writeFile(t, path, 77, info.Size())
	if err := os.Chtimes(path, time.Time{}, info.ModTime()); err != nil {
		t.Fatal(err)
	}
}
