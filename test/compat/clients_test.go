package compat

import (
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/feature/s3/transfermanager"
	"github.com/aws/aws-sdk-go-v2/feature/s3/transfermanager/types"
)

// client is one that people use, on a folder: it stores it in a bucket of its own and
// reads it back.
type client struct {
	name string
	use  func(t *testing.T, a account, dir string)
}

func clients() []client {
	return []client{
		{"aws-cli s3", awsS3},
		{"aws-cli s3api", awsS3API},
		{"boto3 when supported", boto3("when_supported")},
		{"boto3 when required", boto3("when_required")},
		{"s3cmd", s3cmd},
		{"rclone", rclone},
		{"restic", restic},
		{"transfer manager", transferManager},
		{"javascript", javascript},
		{"s3fs", s3fs},
	}
}

// TestClientsGetBackWhatTheyStore has each client store files of 0 bytes to 300 MB over
// HTTP and MinIO, and of up to 20 MB over HTTPS and files, with an authority that only
// the client is told of.
func TestClientsGetBackWhatTheyStore(t *testing.T) {
	for name, cloud := range clouds() {
		t.Run(name, func(t *testing.T) {
			var trusted *authority
			if name == "filestore" {
				trusted = newAuthority(t)
			}
			w, dir := newWorldWith(t, cloud(t), trusted), newFolder(t, bigFor(name))
			for _, c := range clients() {
				t.Run(c.name, func(t *testing.T) { c.use(t, w.account, dir) })
			}
		})
	}
}

// restic backs up twice, checks all data, restores, and prunes what only the first
// backup needs.
func restic(t *testing.T, a account, dir string) {
	binary, bucket := program(t, "restic"), newName()
	env := append(a.env(), "RESTIC_PASSWORD=correct horse", "RESTIC_REPOSITORY=s3:"+a.endpoint+"/"+bucket+"/backups")
	options := []string{"--no-cache", "--quiet"}
	if a.trusted != nil {
		options = append(options, "--cacert", a.ca())
	}
	run := func(args ...string) string {
		t.Helper()
		return command(t, env, binary, append(options, args...)...)
	}
	run("init")
	extra := filepath.Join(t.TempDir(), "extra")
	writeFile(t, filepath.Join(extra, "gone soon"), 55, 9_000_000)
	run("backup", "--tag", "first", extra)
	run("backup", "--tag", "second", dir)
	run("check", "--read-data")
	out := t.TempDir()
	run("restore", "latest", "--tag", "second", "--target", out)
	assertSame(t, filepath.Join(out, dir), dir)
	run("forget", snapshot(t, run("snapshots", "--tag", "first", "--json")), "--prune")
	run("check", "--read-data")
	if left := run("snapshots", "--json"); strings.Contains(left, "first") || !strings.Contains(left, "second") {
		t.Errorf("after forget: got %.300s, want the second snapshot alone", left)
	}
}

// snapshot is the id of the only one that restic has printed.
func snapshot(t *testing.T, printed string) string {
	t.Helper()
	var list []struct{ ID string }
	if err := json.Unmarshal([]byte(printed), &list); err != nil || len(list) != 1 {
		t.Fatalf("got %d snapshots and %v, want one: %.300s", len(list), err, printed)
	}
	return list[0].ID
}

// javascript is Amazon's SDK for it: client-s3 and lib-storage.
func javascript(t *testing.T, a account, dir string) {
	node, out := program(t, "node"), filepath.Join(t.TempDir(), "out")
	script := filepath.Join(installNPM(t), "client.mjs")
	printed := command(t, a.env(), node, script, a.endpoint, newName(), dir, out)
	sizes := map[string]int64{}
	if err := json.Unmarshal([]byte(printed), &sizes); err != nil {
		t.Fatalf("%v: %.300s", err, printed)
	}
	assertSizes(t, sizes, dir)
	assertSame(t, out, dir)
}

// transferManager is that of Amazon's SDK for Go: it sends and fetches in pieces, several
// at once. Files go up and come back by their parts; streams, which it cannot wind back,
// go up and come back by ranges.
func transferManager(t *testing.T, a account, dir string) {
	client, bucket := a.sdk(), a.bucket(t)
	for name, way := range map[string]struct {
		pieces types.GetObjectType
		body   func(*os.File) io.Reader
	}{
		"files, parts":    {types.GetObjectParts, func(f *os.File) io.Reader { return f }},
		"streams, ranges": {types.GetObjectRanges, func(f *os.File) io.Reader { return struct{ io.Reader }{f} }},
	} {
		t.Run(name, func(t *testing.T) {
			m := transfermanager.New(client, func(o *transfermanager.Options) {
				o.PartSizeBytes, o.MultipartUploadThreshold, o.Concurrency, o.GetObjectType = 6<<20, 6<<20, 4, way.pieces
			})
			out := t.TempDir()
			for name := range sizesIn(t, dir) {
				if err := upload(t, m, bucket, name, filepath.Join(dir, name), way.body); err != nil {
					t.Fatalf("uploading %q: %v", name, err)
				}
				if err := download(t, m, bucket, name, filepath.Join(out, name)); err != nil {
					t.Fatalf("downloading %q: %v", name, err)
				}
			}
			assertSame(t, out, dir)
		})
	}
}

func upload(t *testing.T, m *transfermanager.Client, bucket, key, path string, body func(*os.File) io.Reader) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = m.UploadObject(t.Context(), &transfermanager.UploadObjectInput{Bucket: &bucket, Key: &key, Body: body(f)})
	return err
}

func download(t *testing.T, m *transfermanager.Client, bucket, key, path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = m.DownloadObject(t.Context(), &transfermanager.DownloadObjectInput{Bucket: &bucket, Key: &key, WriterAt: f})
	return err
}
