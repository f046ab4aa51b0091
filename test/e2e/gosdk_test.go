package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/feature/s3/manager"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

// goSDK is Amazon's library for Go, with its checksums by default.
type goSDK struct{ s3 *s3.Client }

func newGoSDK(_ *testing.T, w *world) tool { return goSDK{w.sdk()} }

func (g goSDK) MakeBucket(t *testing.T, bucket string) {
	if _, err := g.s3.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: &bucket}); err != nil {
		t.Fatal(err)
	}
}

func (g goSDK) Upload(t *testing.T, dir, bucket, prefix string) {
	uploader := manager.NewUploader(g.s3, func(u *manager.Uploader) { u.PartSize = 9 << 20 }) //nolint:staticcheck // its successor is a module of its own, and applications still use this
	err := filepath.WalkDir(dir, func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		body, err := os.Open(path)
		if err != nil {
			return err
		}
		defer body.Close()
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		key := prefix + filepath.ToSlash(name)
		_, err = uploader.Upload(t.Context(), &s3.PutObjectInput{Bucket: &bucket, Key: &key, Body: body}) //nolint:staticcheck // its successor is a module of its own, and applications still use this
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func (g goSDK) Download(t *testing.T, bucket, prefix, dir string) {
	downloader := manager.NewDownloader(g.s3) //nolint:staticcheck // its successor is a module of its own, and applications still use this
	for name := range g.List(t, bucket, prefix) {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		file, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		_, err = downloader.Download(t.Context(), file, &s3.GetObjectInput{Bucket: &bucket, Key: aws.String(prefix + name)}) //nolint:staticcheck // its successor is a module of its own, and applications still use this
		file.Close()
		if err != nil {
			t.Fatalf("downloading %q: %v", name, err)
		}
	}
}

func (g goSDK) List(t *testing.T, bucket, prefix string) map[string]int64 {
	sizes := map[string]int64{}
	pages := s3.NewListObjectsV2Paginator(g.s3, &s3.ListObjectsV2Input{Bucket: &bucket, Prefix: &prefix, MaxKeys: aws.Int32(11)})
	for pages.HasMorePages() {
		page, err := pages.NextPage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range page.Contents {
			sizes[strings.TrimPrefix(*o.Key, prefix)] = *o.Size
		}
	}
	return sizes
}

func (g goSDK) Range(t *testing.T, bucket, key string, first, last int64) []byte {
	out, err := g.s3.GetObject(t.Context(), &s3.GetObjectInput{
		Bucket: &bucket, Key: &key, Range: aws.String(fmt.Sprintf("bytes=%d-%d", first, last)),
	})
	if err != nil {
		t.Fatal(err)
	}
	return readAll(t, out.Body)
}

func (g goSDK) Presign(t *testing.T, bucket, key string) string {
	r, err := s3.NewPresignClient(g.s3).PresignGetObject(t.Context(), &s3.GetObjectInput{Bucket: &bucket, Key: &key}, s3.WithPresignExpires(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	return r.URL
}

func (g goSDK) Annotate(t *testing.T, file, bucket, key, contentType, note string) (gotType, gotNote string) {
	body, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	_, err = g.s3.PutObject(t.Context(), &s3.PutObjectInput{
		Bucket: &bucket, Key: &key, Body: body, ContentType: &contentType, Metadata: map[string]string{"note": note},
	})
	if err != nil {
		t.Fatal(err)
	}
	head, err := g.s3.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: &bucket, Key: &key})
	if err != nil {
		t.Fatal(err)
	}
	return aws.ToString(head.ContentType), head.Metadata["note"]
}

func (g goSDK) Delete(t *testing.T, bucket string) {
	var objects []types.ObjectIdentifier
	for name := range g.List(t, bucket, "") {
		objects = append(objects, types.ObjectIdentifier{Key: aws.String(name)})
	}
	out, err := g.s3.DeleteObjects(t.Context(), &s3.DeleteObjectsInput{Bucket: &bucket, Delete: &types.Delete{Objects: objects}})
	if err != nil || len(out.Errors) > 0 {
		t.Fatalf("deleting everything: %v, %+v", err, out)
	}
	if _, err := g.s3.DeleteBucket(t.Context(), &s3.DeleteBucketInput{Bucket: &bucket}); err != nil {
		t.Fatal(err)
	}
}
