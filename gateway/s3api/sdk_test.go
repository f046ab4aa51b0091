package s3api

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

func TestTheSDKManagesBuckets(t *testing.T) {
	w := newWorld(t)
	c := w.s3()
	if _, err := c.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: aws.String("second"), CreateBucketConfiguration: &types.CreateBucketConfiguration{LocationConstraint: region}}); err != nil {
		t.Fatal(err)
	}
	_, err := c.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: aws.String("second")})
	equal(t, "creating it again", codeOf(err), "BucketAlreadyOwnedByYou")
	all, err := c.ListBuckets(t.Context(), &s3.ListBucketsInput{})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, b := range all.Buckets {
		names = append(names, *b.Name)
	}
	if !slices.Equal(names, []string{"bucket", "second"}) {
		t.Errorf("got buckets %v", names)
	}
	head, err := c.HeadBucket(t.Context(), &s3.HeadBucketInput{Bucket: aws.String("second")})
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "region", *head.BucketRegion, region)
	where, err := c.GetBucketLocation(t.Context(), &s3.GetBucketLocationInput{Bucket: aws.String("second")})
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "location", string(where.LocationConstraint), region)
	if _, err := c.DeleteBucket(t.Context(), &s3.DeleteBucketInput{Bucket: aws.String("second")}); err != nil {
		t.Fatal(err)
	}
	_, err = c.HeadBucket(t.Context(), &s3.HeadBucketInput{Bucket: aws.String("second")})
	equal(t, "after deleting it", codeOf(err), "NotFound")
}

func TestListBucketsPages(t *testing.T) {
	w := newWorld(t)
	c := w.s3()
	for _, name := range []string{"alpha", "beta", "gamma"} {
		if _, err := c.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: aws.String(name)}); err != nil {
			t.Fatal(err)
		}
	}
	var names []string
	pages := s3.NewListBucketsPaginator(c, &s3.ListBucketsInput{MaxBuckets: aws.Int32(1)})
	for pages.HasMorePages() {
		page, err := pages.NextPage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if len(page.Buckets) > 1 {
			t.Errorf("got a page of %d", len(page.Buckets))
		}
		for _, b := range page.Buckets {
			names = append(names, *b.Name)
		}
	}
	equal(t, "names", strings.Join(names, " "), "alpha beta bucket gamma")
	some, err := c.ListBuckets(t.Context(), &s3.ListBucketsInput{Prefix: aws.String("b")})
	if err != nil || len(some.Buckets) != 2 {
		t.Errorf("with a prefix: got %d buckets and %v, want 2", len(some.Buckets), err)
	}
}

// The SDK sends checksums in headers over HTTP and in trailers over TLS.
func TestTheSDKPutsGetsAndHeads(t *testing.T) {
	for name, w := range map[string]*world{"HTTP": newWorld(t), "TLS": newWorld(t).secure()} {
		for _, size := range []int{0, 1, 16384, 300000, 3 << 20} {
			t.Run(fmt.Sprint(name, size), func(t *testing.T) { roundTrip(t, w.s3(), size) })
		}
	}
}

func roundTrip(t *testing.T, c *s3.Client, size int) {
	data, key := noise(size), "dir/ä +%2F"+fmt.Sprint(size)
	put, err := c.PutObject(t.Context(), &s3.PutObjectInput{
		Bucket: aws.String("bucket"), Key: &key, Body: bytes.NewReader(data), ContentType: aws.String("text/x"),
		Metadata: map[string]string{"colour": "blue"}, CacheControl: aws.String("no-store"), ServerSideEncryption: types.ServerSideEncryptionAes256,
	})
	if err != nil {
		t.Fatal(err)
	}
	if aws.ToString(put.ChecksumCRC32) == "" {
		t.Error("PUT does not give the checksum back")
	}
	get, err := c.GetObject(t.Context(), &s3.GetObjectInput{Bucket: aws.String("bucket"), Key: &key, ChecksumMode: types.ChecksumModeEnabled})
	if err != nil {
		t.Fatal(err)
	}
	defer get.Body.Close()
	sameBytes(t, get.Body, data)
	equal(t, "ETag", aws.ToString(get.ETag), aws.ToString(put.ETag))
	equal(t, "type", aws.ToString(get.ContentType), "text/x")
	equal(t, "cache control", aws.ToString(get.CacheControl), "no-store")
	equal(t, "metadata", get.Metadata["colour"], "blue")
	equal(t, "encryption", string(get.ServerSideEncryption), "aws:kms")
	equal(t, "checksum", aws.ToString(get.ChecksumCRC32), aws.ToString(put.ChecksumCRC32))
	head, err := c.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: aws.String("bucket"), Key: &key, ChecksumMode: types.ChecksumModeEnabled})
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "HEAD's length", aws.ToInt64(head.ContentLength), int64(size))
	equal(t, "HEAD's checksum", aws.ToString(head.ChecksumCRC32), aws.ToString(put.ChecksumCRC32))
	if _, err := c.DeleteObject(t.Context(), &s3.DeleteObjectInput{Bucket: aws.String("bucket"), Key: &key}); err != nil {
		t.Fatal(err)
	}
	_, err = c.GetObject(t.Context(), &s3.GetObjectInput{Bucket: aws.String("bucket"), Key: &key})
	equal(t, "after deleting it", codeOf(err), "NoSuchKey")
}

func TestAnUploadInPartsComesTogether(t *testing.T) {
	for name, kind := range map[string]struct {
		algorithm types.ChecksumAlgorithm
		kind      types.ChecksumType
		want      string
	}{
		"none asked for":     {"", "", "FULL_OBJECT"},
		"composite":          {types.ChecksumAlgorithmSha256, types.ChecksumTypeComposite, "COMPOSITE"},
		"full object":        {types.ChecksumAlgorithmCrc32c, types.ChecksumTypeFullObject, "FULL_OBJECT"},
		"full object, crc64": {types.ChecksumAlgorithmCrc64nvme, "", "FULL_OBJECT"},
		"SHA512":             {types.ChecksumAlgorithmSha512, "", "COMPOSITE"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			c := w.s3()
			create, err := c.CreateMultipartUpload(t.Context(), &s3.CreateMultipartUploadInput{
				Bucket: aws.String("bucket"), Key: aws.String("big"), ChecksumAlgorithm: kind.algorithm, ChecksumType: kind.kind,
				Metadata: map[string]string{"a": "b"},
			})
			if err != nil {
				t.Fatal(err)
			}
			data := noise(5<<20 + 1234)
			parts := uploadParts(t, c, *create.UploadId, create.ChecksumAlgorithm, data[:5<<20], data[5<<20:])
			done, err := c.CompleteMultipartUpload(t.Context(), &s3.CompleteMultipartUploadInput{
				Bucket: aws.String("bucket"), Key: aws.String("big"), UploadId: create.UploadId, MpuObjectSize: aws.Int64(int64(len(data))),
				MultipartUpload: &types.CompletedMultipartUpload{Parts: parts},
			})
			if err != nil {
				t.Fatal(err)
			}
			equal(t, "type of checksum", string(done.ChecksumType), kind.want)
			get, err := c.GetObject(t.Context(), &s3.GetObjectInput{Bucket: aws.String("bucket"), Key: aws.String("big"), ChecksumMode: types.ChecksumModeEnabled})
			if err != nil {
				t.Fatal(err)
			}
			defer get.Body.Close()
			sameBytes(t, get.Body, data)
			equal(t, "ETag", aws.ToString(get.ETag), aws.ToString(done.ETag))
			equal(t, "metadata", get.Metadata["a"], "b")
			second, err := c.GetObject(t.Context(), &s3.GetObjectInput{Bucket: aws.String("bucket"), Key: aws.String("big"), PartNumber: aws.Int32(2)})
			if err != nil {
				t.Fatal(err)
			}
			defer second.Body.Close()
			sameBytes(t, second.Body, data[5<<20:])
			equal(t, "parts", aws.ToInt32(second.PartsCount), int32(2))
		})
	}
}

func uploadParts(t *testing.T, c *s3.Client, id string, algorithm types.ChecksumAlgorithm, pieces ...[]byte) (parts []types.CompletedPart) {
	t.Helper()
	for i, piece := range pieces {
		number := aws.Int32(int32(i + 1))
		put, err := c.UploadPart(t.Context(), &s3.UploadPartInput{
			Bucket: aws.String("bucket"), Key: aws.String("big"), UploadId: &id, PartNumber: number, Body: bytes.NewReader(piece), ChecksumAlgorithm: algorithm,
		})
		if err != nil {
			t.Fatal(err)
		}
		parts = append(parts, types.CompletedPart{
			PartNumber: number, ETag: put.ETag, ChecksumCRC32: put.ChecksumCRC32, ChecksumCRC32C: put.ChecksumCRC32C,
			ChecksumCRC64NVME: put.ChecksumCRC64NVME, ChecksumSHA1: put.ChecksumSHA1, ChecksumSHA256: put.ChecksumSHA256,
			ChecksumSHA512: put.ChecksumSHA512,
		})
	}
	return parts
}

func TestUploadsAndPartsAreListedAndAborted(t *testing.T) {
	w := newWorld(t)
	c := w.s3()
	create, err := c.CreateMultipartUpload(t.Context(), &s3.CreateMultipartUploadInput{Bucket: aws.String("bucket"), Key: aws.String("big"), ChecksumAlgorithm: types.ChecksumAlgorithmCrc32})
	if err != nil {
		t.Fatal(err)
	}
	uploadParts(t, c, *create.UploadId, types.ChecksumAlgorithmCrc32, noise(5<<20), noise(10))
	uploads, err := c.ListMultipartUploads(t.Context(), &s3.ListMultipartUploadsInput{Bucket: aws.String("bucket")})
	if err != nil || len(uploads.Uploads) != 1 {
		t.Fatalf("got %d uploads and %v, want 1", len(uploads.Uploads), err)
	}
	equal(t, "upload", *uploads.Uploads[0].UploadId, *create.UploadId)
	var sizes []int64
	pages := s3.NewListPartsPaginator(c, &s3.ListPartsInput{Bucket: aws.String("bucket"), Key: aws.String("big"), UploadId: create.UploadId, MaxParts: aws.Int32(1)})
	for pages.HasMorePages() {
		page, err := pages.NextPage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		equal(t, "algorithm", string(page.ChecksumAlgorithm), "CRC32")
		for _, p := range page.Parts {
			sizes = append(sizes, *p.Size)
		}
	}
	if !slices.Equal(sizes, []int64{5 << 20, 10}) {
		t.Errorf("got parts of %v bytes", sizes)
	}
	abort := &s3.AbortMultipartUploadInput{Bucket: aws.String("bucket"), Key: aws.String("big"), UploadId: create.UploadId}
	if _, err := c.AbortMultipartUpload(t.Context(), abort); err != nil {
		t.Fatal(err)
	}
	_, err = c.ListParts(t.Context(), &s3.ListPartsInput{Bucket: aws.String("bucket"), Key: aws.String("big"), UploadId: create.UploadId})
	equal(t, "after aborting", codeOf(err), "NoSuchUpload")
}

func TestListingsPageInBothVersions(t *testing.T) {
	w := newWorld(t)
	c := w.s3()
	keys := []string{"a", "b/1", "b/2", "c d", "c+d", "e/x", "ü"}
	for _, key := range keys {
		if _, err := c.PutObject(t.Context(), &s3.PutObjectInput{Bucket: aws.String("bucket"), Key: &key, Body: strings.NewReader(key)}); err != nil {
			t.Fatal(err)
		}
	}
	var flat, rolled []string
	two := s3.NewListObjectsV2Paginator(c, &s3.ListObjectsV2Input{Bucket: aws.String("bucket"), MaxKeys: aws.Int32(2)})
	for two.HasMorePages() {
		page, err := two.NextPage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		equal(t, "KeyCount", int(aws.ToInt32(page.KeyCount)), len(page.Contents))
		for _, o := range page.Contents {
			flat = append(flat, *o.Key)
			equal(t, *o.Key+"'s size", *o.Size, int64(len(*o.Key)))
		}
	}
	if !slices.Equal(flat, keys) {
		t.Errorf("V2: got %q, want %q", flat, keys)
	}
	marker := ""
	for {
		page, err := c.ListObjects(t.Context(), &s3.ListObjectsInput{Bucket: aws.String("bucket"), MaxKeys: aws.Int32(2), Delimiter: aws.String("/"), Marker: &marker})
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range page.Contents {
			rolled = append(rolled, *o.Key)
			equal(t, "owner", *o.Owner.ID, "ann")
		}
		for _, p := range page.CommonPrefixes {
			rolled = append(rolled, *p.Prefix)
		}
		if !*page.IsTruncated {
			break
		}
		marker = *page.NextMarker
	}
	slices.Sort(rolled)
	if want := []string{"a", "b/", "c d", "c+d", "e/", "ü"}; !slices.Equal(rolled, want) {
		t.Errorf("V1: got %q, want %q", rolled, want)
	}
}

func TestDeleteObjectsReportsEachKey(t *testing.T) {
	w := newWorld(t)
	w.put("one", "1")
	w.put("two", "2")
	out, err := w.s3().DeleteObjects(t.Context(), &s3.DeleteObjectsInput{Bucket: aws.String("bucket"), Delete: &types.Delete{Objects: []types.ObjectIdentifier{
		{Key: aws.String("one")}, {Key: aws.String("missing")}, {Key: aws.String("denied/x")}, {Key: aws.String(".chatelaine/keys/x")}, {Key: aws.String(strings.Repeat("k", 1025))},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	if len(out.Deleted) != 2 || *out.Deleted[0].Key != "one" || *out.Deleted[1].Key != "missing" {
		t.Errorf("got %d deleted", len(out.Deleted))
	}
	var codes []string
	for _, e := range out.Errors {
		codes = append(codes, *e.Code)
	}
	equal(t, "errors", strings.Join(codes, " "), "AccessDenied AccessDenied KeyTooLongError")
	equal(t, "left", strings.Join(w.stored(), " "), "two")
	quiet, err := w.s3().DeleteObjects(t.Context(), &s3.DeleteObjectsInput{Bucket: aws.String("bucket"), Delete: &types.Delete{Quiet: aws.Bool(true), Objects: []types.ObjectIdentifier{{Key: aws.String("two")}}}})
	if err != nil || len(quiet.Deleted)+len(quiet.Errors) != 0 {
		t.Errorf("quiet: got %d, %d and %v", len(quiet.Deleted), len(quiet.Errors), err)
	}
}

func TestPresignedRequestsWork(t *testing.T) {
	for _, when := range []aws.RequestChecksumCalculation{aws.RequestChecksumCalculationWhenRequired, aws.RequestChecksumCalculationWhenSupported} {
		checkPresigned(t, when)
	}
}

func checkPresigned(t *testing.T, when aws.RequestChecksumCalculation) {
	t.Helper()
	w := newWorld(t)
	presign := s3.NewPresignClient(w.s3(func(o *s3.Options) { o.RequestChecksumCalculation = when }))
	put, err := presign.PresignPutObject(t.Context(), &s3.PutObjectInput{Bucket: aws.String("bucket"), Key: aws.String("k +ü")})
	if err != nil {
		t.Fatal(err)
	}
	r, err := http.NewRequestWithContext(t.Context(), put.Method, put.URL, strings.NewReader("body"))
	if err != nil {
		t.Fatal(err)
	}
	w.wants(w.do(r), http.StatusOK, "")
	get, err := presign.PresignGetObject(t.Context(), &s3.GetObjectInput{
		Bucket: aws.String("bucket"), Key: aws.String("k +ü"), ResponseContentType: aws.String("text/y"), ResponseContentDisposition: aws.String("attachment"),
	}, s3.WithPresignExpires(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	if r, err = http.NewRequestWithContext(t.Context(), get.Method, get.URL, nil); err != nil {
		t.Fatal(err)
	}
	a := w.do(r)
	equal(t, "body", string(a.body), "body")
	equal(t, "type", a.header.Get("Content-Type"), "text/y")
	equal(t, "disposition", a.header.Get("Content-Disposition"), "attachment")
	r.URL.RawQuery = strings.Replace(r.URL.RawQuery, "text%2Fy", "text%2Fz", 1)
	w.wants(w.do(r), http.StatusForbidden, "SignatureDoesNotMatch")
}

func TestConditionsOfTheSDK(t *testing.T) {
	w := newWorld(t)
	c := w.s3()
	etag := w.put("k", "one").header.Get("Etag")
	_, err := c.PutObject(t.Context(), &s3.PutObjectInput{Bucket: aws.String("bucket"), Key: aws.String("k"), Body: strings.NewReader("two"), IfNoneMatch: aws.String("*")})
	equal(t, "putting what is there", codeOf(err), "PreconditionFailed")
	_, err = c.PutObject(t.Context(), &s3.PutObjectInput{Bucket: aws.String("bucket"), Key: aws.String("k"), Body: strings.NewReader("two"), IfMatch: aws.String(`"other"`)})
	equal(t, "putting over another", codeOf(err), "PreconditionFailed")
	if _, err = c.PutObject(t.Context(), &s3.PutObjectInput{Bucket: aws.String("bucket"), Key: aws.String("k"), Body: strings.NewReader("two"), IfMatch: &etag}); err != nil {
		t.Errorf("putting over the same: %v", err)
	}
	get, err := c.GetObject(t.Context(), &s3.GetObjectInput{Bucket: aws.String("bucket"), Key: aws.String("k")})
	if err != nil {
		t.Fatal(err)
	}
	defer get.Body.Close()
	if b, _ := io.ReadAll(get.Body); string(b) != "two" {
		t.Errorf("got %q", b)
	}
}
