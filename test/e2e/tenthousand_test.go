package e2e

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"golang.org/x/sync/errgroup"

	"chatelaine/backends"
	"chatelaine/gateway/sealed"
)

// lastPartSize is that of part 10000, in bytes: more than all others.
const lastPartSize = 6<<20 + 17

// numbered is an upload through Amazon's library, whose parts tell their numbers.
type numbered struct {
	*world
	s3          *s3.Client
	bucket, key string
	id          *string
	noise       []byte
	mu          sync.Mutex
	etags       map[int32]string
}

func (w *world) numbered(bucket string) *numbered {
	w.t.Helper()
	u := &numbered{world: w, s3: w.sdk(), bucket: bucket, key: "numbered", noise: contentBytes(5, lastPartSize), etags: map[int32]string{}}
	made, err := u.s3.CreateMultipartUpload(w.t.Context(), &s3.CreateMultipartUploadInput{Bucket: &bucket, Key: &u.key})
	if err != nil {
		w.t.Fatal(err)
	}
	u.id = made.UploadId
	return u
}

// length is that of a part.
func (*numbered) length(number int32) int64 {
	if number == 10000 {
		return lastPartSize
	}
	return partSize
}

// data is a part: noise with its number at both ends.
func (u *numbered) data(number int32) []byte {
	size := u.length(number)
	b := bytes.Clone(u.noise[:size])
	binary.BigEndian.PutUint32(b, uint32(number))
	binary.BigEndian.PutUint32(b[size-4:], uint32(number))
	return b
}

func (u *numbered) put(ctx context.Context, number int32, data []byte) error {
	out, err := u.s3.UploadPart(ctx, &s3.UploadPartInput{Bucket: &u.bucket, Key: &u.key, UploadId: u.id, PartNumber: &number, Body: bytes.NewReader(data)})
	if err != nil {
		return fmt.Errorf("part %d: %w", number, err)
	}
	u.mu.Lock()
	u.etags[number] = *out.ETag
	u.mu.Unlock()
	return nil
}

// send puts parts, several at once; each hundredth with other bytes first. It calls each
// after every one.
func (u *numbered) send(numbers []int32, each func()) error {
	group, ctx := errgroup.WithContext(u.t.Context())
	group.SetLimit(6)
	for _, n := range numbers {
		group.Go(func() error {
			if n%100 == 0 {
				if err := u.put(ctx, n, u.data(n + 1)[:partSize]); err != nil {
					return err
				}
			}
			err := u.put(ctx, n, u.data(n))
			each()
			return err
		})
	}
	return group.Wait()
}

// listed are all parts, by the library's pages of 1000.
func (u *numbered) listed() (parts []types.Part) {
	u.t.Helper()
	pages := s3.NewListPartsPaginator(u.s3, &s3.ListPartsInput{Bucket: &u.bucket, Key: &u.key, UploadId: u.id})
	for pages.HasMorePages() {
		page, err := pages.NextPage(u.t.Context())
		if err != nil {
			u.t.Fatal(err)
		}
		parts = append(parts, page.Parts...)
	}
	return parts
}

// wantListed wants just the parts that were acknowledged.
func (u *numbered) wantListed() {
	u.t.Helper()
	listed := u.listed()
	for _, p := range listed {
		if *p.ETag != u.etags[*p.PartNumber] || *p.Size != u.length(*p.PartNumber) {
			u.t.Errorf("part %d is listed with %d bytes and ETag %s, want %s", *p.PartNumber, *p.Size, *p.ETag, u.etags[*p.PartNumber])
		}
	}
	if len(listed) != len(u.etags) {
		u.t.Errorf("%d parts are listed, want %d", len(listed), len(u.etags))
	}
}

func (u *numbered) complete() error {
	var parts []types.CompletedPart
	for n, etag := range u.etags {
		parts = append(parts, types.CompletedPart{PartNumber: aws.Int32(n), ETag: &etag})
	}
	slices.SortFunc(parts, func(a, b types.CompletedPart) int { return int(*a.PartNumber - *b.PartNumber) })
	_, err := u.s3.CompleteMultipartUpload(u.t.Context(), &s3.CompleteMultipartUploadInput{
		Bucket: &u.bucket, Key: &u.key, UploadId: u.id, MultipartUpload: &types.CompletedMultipartUpload{Parts: parts}, IfNoneMatch: aws.String("*"),
	})
	return err
}

func (u *numbered) get(in s3.GetObjectInput) ([]byte, error) {
	in.Bucket, in.Key = &u.bucket, &u.key
	out, err := u.s3.GetObject(u.t.Context(), &in)
	if err != nil {
		return nil, err
	}
	defer out.Body.Close()
	return io.ReadAll(out.Body)
}

// wantReadable reads across the borders of parts, and some parts whole.
func (u *numbered) wantReadable(numbers []int32, whole ...int32) {
	u.t.Helper()
	at := int64(0)
	for i, n := range numbers[:len(numbers)-1] {
		at += u.length(n)
		if i%499 != 0 && i < len(numbers)-3 {
			continue
		}
		before, after := u.data(n), u.data(numbers[i+1])
		want := append(before[len(before)-20:], after[:20]...)
		got, err := u.get(s3.GetObjectInput{Range: aws.String(fmt.Sprintf("bytes=%d-%d", at-20, at+19))})
		if err != nil || !bytes.Equal(got, want) {
			u.t.Errorf("between part %d and the next: got %x, error %v, want %x", n, got, err, want)
		}
	}
	for _, n := range whole {
		if got, err := u.get(s3.GetObjectInput{PartNumber: &n}); err != nil || !bytes.Equal(got, u.data(n)) {
			u.t.Errorf("part %d: got %d other bytes, error %v", n, len(got), err)
		}
	}
	head, err := u.s3.HeadObject(u.t.Context(), &s3.HeadObjectInput{Bucket: &u.bucket, Key: &u.key, PartNumber: aws.Int32(numbers[0])})
	if err != nil || *head.PartsCount != int32(len(numbers)) {
		u.t.Errorf("HEAD says %+v, error %v, want %d parts", head, err, len(numbers))
	}
}

// farNumbers is the short form of TestTenThousandPartsInOneUpload: on files and MinIO, and
// in `make clouds` on every place.
func (m *manyClouds) farNumbers() {
	numbers := []int32{1, 2, 9999, 10000}
	for _, p := range m.places {
		if p.name != "files" && p.name != "minio" && !allClouds() {
			continue
		}
		u := m.numbered(m.buckets[p.name])
		if err := u.send(numbers, func() {}); err != nil {
			m.t.Fatalf("%s: %v", p.name, err)
		}
		u.wantListed()
		if err := u.complete(); err != nil {
			m.t.Fatalf("%s: %v", p.name, err)
		}
		u.wantReadable(numbers, 10000)
	}
}

// longPartCount is how many parts the long upload has: CHATELAINE_TEST_PARTS.
func longPartCount(t *testing.T) int {
	t.Helper()
	text := os.Getenv("CHATELAINE_TEST_PARTS")
	if text == "" {
		t.Skip("moves 52 GB: make parts")
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 10 || n > 10000 {
		t.Fatalf("CHATELAINE_TEST_PARTS is %q, want 10 to 10000", text)
	}
	return n
}

// TestTenThousandPartsInOneUpload is an upload of 52 GB to an S3 that ends at part 10000
// and keeps the ends of parts alone. The gateway is killed in the middle of it, and
// another goes on from what ListParts says.
func TestTenThousandPartsInOneUpload(t *testing.T) {
	count := longPartCount(t)
	numbers := make([]int32, count)
	for i := range numbers {
		numbers[i] = int32(10000 - count + i + 1)
	}
	sparse, c := newSparseCloud(t, int(numbers[0]), 10000)
	w := newWorld(t, c)
	u := w.numbered(w.bucket())
	began := time.Now()
	var done atomic.Int64
	err := u.send(numbers[:count/2], func() {
		if done.Add(1) == int64(count/4) {
			w.Kill()
		}
	})
	if err == nil {
		t.Fatal("no part failed when the gateway was killed")
	}
	w.up()
	u.s3, u.etags = w.sdk(), map[int32]string{}
	for _, p := range u.listed() {
		if n := *p.PartNumber; n%100 != 0 { // those may be the other bytes
			u.etags[n] = *p.ETag
		}
	}
	t.Logf("%d parts were listed after the kill", len(u.etags))
	missing := slices.DeleteFunc(slices.Clone(numbers), func(n int32) bool { return u.etags[n] != "" })
	if err := u.send(missing, func() {}); err != nil {
		t.Fatal(err)
	}
	sent := time.Now()
	u.wantListed()
	listed := time.Now()
	if err := u.complete(); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d parts: sent in %s, listed in %s, completed in %s", count, sent.Sub(began), listed.Sub(sent), time.Since(listed))
	u.wantReadable(numbers, numbers[0], 10000)
	size := int64(count-1)*partSize + lastPartSize
	stored := sparse.object("/" + u.bucket + "/" + u.key)
	if stored.size != sealed.Size(size) || len(stored.parts) != count {
		t.Errorf("%d bytes are stored in %d parts, want %d in %d", stored.size, len(stored.parts), sealed.Size(size), count)
	}
	page, err := sparse.small.List(t.Context(), u.bucket, &backends.ListOptions{Prefix: ".chatelaine/uploads/"})
	if err != nil || len(page.Entries) != 0 {
		t.Errorf("left behind: %d objects, error %v", len(page.Entries), err)
	}
	_, err = u.s3.UploadPart(t.Context(), &s3.UploadPartInput{Bucket: &u.bucket, Key: &u.key, UploadId: u.id, PartNumber: aws.Int32(1), Body: bytes.NewReader(nil)})
	var gone interface{ HTTPStatusCode() int }
	if !errors.As(err, &gone) || gone.HTTPStatusCode() != http.StatusNotFound {
		t.Errorf("the upload is still there: %v", err)
	}
}
