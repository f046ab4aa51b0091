package e2e

import (
	"crypto/md5"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"chatelaine/test/e2e/harness"
)

// newMD5World has buckets of names that begin with md5 show MD5s.
func newMD5World(t *testing.T, c cloud) *world {
	t.Helper()
	config := filepath.Join(t.TempDir(), "gateway.yaml")
	if err := os.WriteFile(config, []byte("md5_buckets: ['md5*']\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return newWorld(t, c, func(o *harness.Options) { o.Config = config })
}

// TestMD5BucketsSatisfyClientsThatCompareMD5s has clients put files and hold them
// against ETags, their own and each other's, on a cloud whose lists have no envelopes.
func TestMD5BucketsSatisfyClientsThatCompareMD5s(t *testing.T) {
	w := newMD5World(t, onMinIO(t))
	aws, old := newDebianAWS(t, w).(awsCLI), newS3cmd(t, w).(s3cmd)
	old.MakeBucket(t, "md5-files")
	dir := t.TempDir()
	want := map[string]string{}
	for i, size := range []int{0, 1, 100_000, 300_000, 3_000_000, 7_000_000} {
		data := contentBytes(uint64(i), size)
		name := fmt.Sprintf("file-%d", size)
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
		want[name] = fmt.Sprintf("%x", md5.Sum(data))
	}
	if out := old.run(t, "put", "--recursive", dir+"/", "s3://md5-files/s3cmd/"); strings.Contains(out, "WARNING") {
		t.Errorf("s3cmd put: %s", tail(out, 500))
	}
	aws.Upload(t, dir, "md5-files", "aws")
	for _, client := range []string{"s3cmd", "aws"} {
		for name, sum := range want {
			key := client + "/" + name
			if got := strings.TrimSpace(aws.run(t, "s3api", "head-object", "--bucket", "md5-files", "--key", key, "--query", "ETag", "--output", "text")); got != `"`+sum+`"` {
				t.Errorf("HEAD of %s: got %s, want %s", key, got, sum)
			}
			if line := old.run(t, "ls", "--list-md5", "s3://md5-files/"+key); !strings.Contains(line, " "+sum+" ") {
				t.Errorf("list of %s: got %q, want %s in it", key, line, sum)
			}
		}
		if out := old.run(t, "sync", "--check-md5", "--dry-run", dir+"/", "s3://md5-files/"+client+"/"); strings.Contains(out, "load: ") {
			t.Errorf("s3cmd sync would copy what %s put: %s", client, tail(out, 500))
		}
		back := filepath.Join(t.TempDir(), client)
		old.Download(t, "md5-files", client+"/", back)
		for name, sum := range want {
			data, err := os.ReadFile(filepath.Join(back, name))
			if err != nil || fmt.Sprintf("%x", md5.Sum(data)) != sum {
				t.Errorf("%s of %s: %v, or other bytes", name, client, err)
			}
		}
	}
}

// TestMultipartETagsOfMD5BucketsAreThoseOfS3 checks the MD5 of the parts' MD5s.
func TestMultipartETagsOfMD5BucketsAreThoseOfS3(t *testing.T) {
	w := newMD5World(t, onMinIO(t))
	aws, old := newDebianAWS(t, w).(awsCLI), newS3cmd(t, w).(s3cmd)
	aws.MakeBucket(t, "md5-parts")
	data := contentBytes(1, 20_000_000)
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	aws.run(t, "s3", "cp", "--no-progress", file, "s3://md5-parts/aws")
	old.run(t, "put", file, "s3://md5-parts/s3cmd")
	for key, size := range map[string]int{"aws": 8 << 20, "s3cmd": 15 << 20} {
		var sums []byte
		n := 0
		for part := range slices.Chunk(data, size) {
			sum := md5.Sum(part)
			sums = append(sums, sum[:]...)
			n++
		}
		want := fmt.Sprintf("%x-%d", md5.Sum(sums), n)
		query := []string{"--bucket", "md5-parts", "--output", "text"}
		head := aws.run(t, append([]string{"s3api", "head-object", "--key", key, "--query", "ETag"}, query...)...)
		list := aws.run(t, append([]string{"s3api", "list-objects-v2", "--prefix", key, "--query", "Contents[0].ETag"}, query...)...)
		for way, got := range map[string]string{"HEAD": head, "list": list} {
			if got = strings.Trim(got, "\"\n"); got != want {
				t.Errorf("%s of %s: got %s, want %s", way, key, got, want)
			}
		}
	}
}

// TestUploadsGoOnFromListPartsAlone ends clients after two parts of three. Another one
// goes on with nothing but what ListParts says.
func TestUploadsGoOnFromListPartsAlone(t *testing.T) {
	w := newWorld(t, onMinIO(t))
	aws, old := newDebianAWS(t, w).(awsCLI), newS3cmd(t, w).(s3cmd)
	aws.MakeBucket(t, "resumed")
	data := contentBytes(3, 35<<20)
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	begin := func(key string, parts int) (id string) {
		at := []string{"--bucket", "resumed", "--key", key, "--output", "text"}
		id = strings.TrimSpace(aws.run(t, append([]string{"s3api", "create-multipart-upload", "--query", "UploadId"}, at...)...))
		for n := range parts {
			piece := filepath.Join(dir, fmt.Sprint(n))
			if err := os.WriteFile(piece, data[n*15<<20:min(len(data), (n+1)*15<<20)], 0o600); err != nil {
				t.Fatal(err)
			}
			aws.run(t, append([]string{"s3api", "upload-part", "--upload-id", id, "--part-number", fmt.Sprint(n + 1), "--body", piece}, at...)...)
		}
		return id
	}
	id := begin("aws", 3)
	listed := aws.run(t, "s3api", "list-parts", "--bucket", "resumed", "--key", "aws", "--upload-id", id, "--query", "{Parts: Parts[].{ETag: ETag, PartNumber: PartNumber}}", "--output", "json")
	var parts struct{ Parts []struct{ ETag string } }
	if err := json.Unmarshal([]byte(listed), &parts); err != nil || len(parts.Parts) != 3 || len(parts.Parts[0].ETag) < 90 {
		t.Fatalf("listed %s, error %v: want three ETags with tokens", listed, err)
	}
	aws.run(t, "s3api", "complete-multipart-upload", "--bucket", "resumed", "--key", "aws", "--upload-id", id, "--multipart-upload", listed)
	id = begin("s3cmd", 2)
	old.run(t, "put", "--continue-put", "--upload-id", id, file, "s3://resumed/s3cmd")
	for _, key := range []string{"aws", "s3cmd"} {
		if got := w.get("/resumed/" + key).want(200); md5.Sum(got.body) != md5.Sum(data) {
			t.Errorf("%s: got %d other bytes", key, len(got.body))
		}
	}
	if left := aws.run(t, "s3api", "list-multipart-uploads", "--bucket", "resumed", "--query", "Uploads", "--output", "text"); !strings.Contains(left, "None") {
		t.Errorf("left behind: %s", left)
	}
}
