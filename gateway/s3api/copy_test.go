package s3api

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"chatelaine/backends"
	"chatelaine/gateway/objects"
)

func (w *world) bucket(principal, name string) {
	w.t.Helper()
	if err := w.handler.Service.CreateBucketOn(w.t.Context(), principal, name, ""); err != nil {
		w.t.Fatal(err)
	}
}

// copy sends a copy to a path.
func (w *world) copy(path, source string, header ...string) answer {
	w.t.Helper()
	return w.send(sent{method: "PUT", path: path, header: append(header, "X-Amz-Copy-Source: "+source)})
}

func TestACopyIsTheSource(t *testing.T) {
	w := newWorld(t)
	w.bucket("ann", "second")
	w.put("a b+c/ü", "data", "Content-Type: text/x", "X-Amz-Meta-A: b", "X-Amz-Tagging: t=1", "X-Amz-Checksum-Crc32: "+crc32of("data"))
	for _, tt := range []struct{ name, source string }{
		{"escaped", "bucket/a%20b%2Bc/%C3%BC"}, {"with a slash", "/bucket/a%20b+c/%C3%BC"}, {"all escaped", "bucket%2Fa%20b%2Bc%2F%C3%BC"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := w.copy("/second/copy", tt.source)
			w.wants(a, 200, "")
			if !strings.Contains(string(a.body), "<ChecksumCRC32>"+crc32of("data")+"</ChecksumCRC32>") || !strings.Contains(string(a.body), "<LastModified>2") {
				t.Errorf("got %s", a.body)
			}
			get := w.send(sent{method: "GET", path: "/second/copy"})
			equal(t, "body", string(get.body), "data")
			equal(t, "type", get.header.Get("Content-Type"), "text/x")
			equal(t, "metadata", get.header.Get("X-Amz-Meta-A"), "b")
			equal(t, "tags", get.header.Get("X-Amz-Tagging-Count"), "1")
		})
	}
}

func TestACopyReplacesWhatIsAskedFor(t *testing.T) {
	w := newWorld(t)
	w.put("k", "data", "Content-Type: text/x", "X-Amz-Meta-A: b", "X-Amz-Tagging: t=1")
	w.wants(w.copy("/bucket/kept", "bucket/k", "X-Amz-Meta-C: d", "X-Amz-Tagging: u=2&v=3"), 200, "")
	kept := w.send(sent{method: "HEAD", path: "/bucket/kept"})
	equal(t, "metadata that is kept", kept.header.Get("X-Amz-Meta-A")+kept.header.Get("X-Amz-Meta-C"), "b")
	equal(t, "tags that are kept", kept.header.Get("X-Amz-Tagging-Count"), "1")
	w.wants(w.copy("/bucket/k", "bucket/k", "X-Amz-Metadata-Directive: REPLACE", "X-Amz-Meta-C: d", "Content-Type: text/y",
		"X-Amz-Tagging-Directive: REPLACE", "X-Amz-Tagging: u=2&v=3"), 200, "")
	get := w.send(sent{method: "GET", path: "/bucket/k"})
	equal(t, "body", string(get.body), "data")
	equal(t, "type", get.header.Get("Content-Type"), "text/y")
	equal(t, "metadata", get.header.Get("X-Amz-Meta-A")+get.header.Get("X-Amz-Meta-C"), "d")
	equal(t, "tags", get.header.Get("X-Amz-Tagging-Count"), "2")
	w.wants(w.copy("/bucket/k", "bucket/k", "X-Amz-Checksum-Algorithm: SHA256"), 200, "")
	head := w.send(sent{method: "HEAD", path: "/bucket/k", header: []string{"X-Amz-Checksum-Mode: ENABLED"}})
	if head.header.Get("X-Amz-Checksum-Sha256") == "" || head.header.Get("X-Amz-Checksum-Crc64nvme") != "" {
		t.Errorf("got %v", head.header)
	}
}

func TestBadCopiesAreRefused(t *testing.T) {
	w := newWorld(t)
	w.bucket("bob", "theirs")
	w.put("k", "data")
	etag := w.put("there", "old").header.Get("Etag")
	const past, future = "Sat, 01 Jan 2000 00:00:00 GMT", "Fri, 01 Jan 2100 00:00:00 GMT"
	for _, tt := range []struct {
		name, source string
		header       []string
		status       int
		code         string
	}{
		{"an escape that is none", "bucket/%zz", nil, 400, "InvalidArgument"},
		{"no bucket's name", "B/k", nil, 400, "InvalidArgument"},
		{"no key", "bucket/", nil, 400, "InvalidArgument"},
		{"no key and no slash", "bucket", nil, 400, "InvalidArgument"},
		{"an empty version", "bucket/k?versionId=", nil, 400, "InvalidArgument"},
		{"no version", "bucket/k?versionId=../x", nil, 400, "InvalidArgument"},
		{"an unknown version", "bucket/k?versionId=0123", nil, 404, "NoSuchVersion"},
		{"no such bucket", "nothing/k", nil, 404, "NoSuchBucket"},
		{"no such key", "bucket/nothing", nil, 404, "NoSuchKey"},
		{"a reserved key", "bucket/.chatelaine/keys/x", nil, 403, "AccessDenied"},
		{"another's bucket", "theirs/k", nil, 403, "AccessDenied"},
		{"a key that may not be read", "bucket/denied", nil, 403, "AccessDenied"},
		{"another owner", "bucket/k", []string{"X-Amz-Source-Expected-Bucket-Owner: bob"}, 403, "AccessDenied"},
		{"the owner by another's access key", "bucket/k", []string{"X-Amz-Source-Expected-Bucket-Owner: " + bobKey}, 403, "AccessDenied"},
		{"a metadata directive", "bucket/k", []string{"X-Amz-Metadata-Directive: x"}, 400, "InvalidArgument"},
		{"a tagging directive", "bucket/k", []string{"X-Amz-Tagging-Directive: x"}, 400, "InvalidArgument"},
		{"an annotation directive", "bucket/k", []string{"X-Amz-Annotation-Directive: COPY"}, 501, "NotImplemented"},
		{"an algorithm", "bucket/k", []string{"X-Amz-Checksum-Algorithm: x"}, 400, "InvalidRequest"},
		{"onto itself", "bucket/there", nil, 400, "InvalidRequest"},
		{"If-Match", "bucket/k", []string{`X-Amz-Copy-Source-If-Match: "x"`}, 412, "PreconditionFailed"},
		{"If-None-Match", "bucket/k", []string{"X-Amz-Copy-Source-If-None-Match: *"}, 412, "PreconditionFailed"},
		{"If-Modified-Since", "bucket/k", []string{"X-Amz-Copy-Source-If-Modified-Since: " + future}, 412, "PreconditionFailed"},
		{"If-Unmodified-Since", "bucket/k", []string{"X-Amz-Copy-Source-If-Unmodified-Since: " + past}, 412, "PreconditionFailed"},
		{"If-None-Match at the other end", "bucket/k", []string{"If-None-Match: *"}, 412, "PreconditionFailed"},
		{"If-Match at the other end", "bucket/k", []string{`If-Match: "x"`}, 412, "PreconditionFailed"},
		{"a customer's key of the source", "bucket/k", []string{"X-Amz-Copy-Source-Server-Side-Encryption-Customer-Algorithm: AES256"}, 501, "NotImplemented"},
		{"a lock in a bucket without", "bucket/k", []string{"X-Amz-Object-Lock-Legal-Hold: ON"}, 400, "InvalidRequest"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w.wants(w.copy("/bucket/there", tt.source, tt.header...), tt.status, tt.code)
			equal(t, "what was there", string(w.send(sent{method: "GET", path: "/bucket/there"}).body), "old")
		})
	}
	w.wants(w.copy("/bucket/there", "bucket/k", "If-Match: "+etag), 200, "")
	w.wants(w.copy("/bucket/denied/x", "bucket/k"), 403, "AccessDenied")
}

func TestPartsAreCopied(t *testing.T) {
	w := newWorld(t)
	data := string(noise(6 << 20))
	w.put("src", data)
	c := w.s3()
	create, err := c.CreateMultipartUpload(t.Context(), &s3.CreateMultipartUploadInput{Bucket: aws.String("bucket"), Key: aws.String("big"), ChecksumAlgorithm: types.ChecksumAlgorithmCrc32})
	if err != nil {
		t.Fatal(err)
	}
	var parts []types.CompletedPart
	for i, r := range []string{"bytes=0-5242879", "bytes=5242880-6291455", ""} {
		in := &s3.UploadPartCopyInput{
			Bucket: aws.String("bucket"), Key: aws.String("big"), UploadId: create.UploadId, PartNumber: aws.Int32(int32(i + 1)), CopySource: aws.String("bucket/src"),
		}
		if r != "" {
			in.CopySourceRange = &r
		}
		if i == 1 { // a part that is too small for the middle
			in.CopySourceRange = nil
		}
		out, err := c.UploadPartCopy(t.Context(), in)
		if err != nil {
			t.Fatal(err)
		}
		parts = append(parts, types.CompletedPart{PartNumber: in.PartNumber, ETag: out.CopyPartResult.ETag, ChecksumCRC32: out.CopyPartResult.ChecksumCRC32})
	}
	if _, err := c.CompleteMultipartUpload(t.Context(), &s3.CompleteMultipartUploadInput{
		Bucket: aws.String("bucket"), Key: aws.String("big"), UploadId: create.UploadId, MultipartUpload: &types.CompletedMultipartUpload{Parts: parts},
	}); err != nil {
		t.Fatal(err)
	}
	sameBytes(t, strings.NewReader(string(w.send(sent{method: "GET", path: "/bucket/big"}).body)), []byte(data[:5<<20]+data+data))
	path := "/bucket/k?partNumber=1&uploadId=" + *create.UploadId
	for _, tt := range []struct {
		name, path, source, spec string
		status                   int
		code                     string
	}{
		{"beyond the end", path, "bucket/src", "bytes=0-6291456", 400, "InvalidArgument"},
		{"open", path, "bucket/src", "bytes=0-", 400, "InvalidArgument"},
		{"a suffix", path, "bucket/src", "bytes=-5", 400, "InvalidArgument"},
		{"two", path, "bucket/src", "bytes=0-1,3-4", 400, "InvalidArgument"},
		{"backwards", path, "bucket/src", "bytes=4-1", 400, "InvalidArgument"},
		{"spaces", path, "bucket/src", "bytes= 0-1", 400, "InvalidArgument"},
		{"no unit", path, "bucket/src", "0-1", 400, "InvalidArgument"},
		{"no such source", path, "bucket/none", "bytes=0-1", 404, "NoSuchKey"},
		{"no such upload", path, "bucket/src", "bytes=0-1", 404, "NoSuchUpload"},
		{"part 0", "/bucket/k?partNumber=0&uploadId=x", "bucket/src", "bytes=0-1", 400, "InvalidArgument"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w.wants(w.copy(tt.path, tt.source, "X-Amz-Copy-Source-Range: "+tt.spec), tt.status, tt.code)
		})
	}
	w.wants(w.copy(path, "bucket/src", "X-Amz-Copy-Source-Range: bytes=0-1", `X-Amz-Copy-Source-If-None-Match: *`), 412, "PreconditionFailed")
}

// slowCopy is a service whose Copy takes its time.
type slowCopy struct {
	Service
	err error
}

func (s *slowCopy) Copy(context.Context, objects.CopyRequest) (objects.CopyResult, error) {
	time.Sleep(60 * time.Millisecond)
	return objects.CopyResult{PutResult: objects.PutResult{ETag: "tag"}}, s.err
}

func TestACopyThatTakesLongGivesSignsOfLife(t *testing.T) {
	for want, err := range map[string]error{"<ETag>&#34;tag&#34;</ETag>": nil, "<Code>NoSuchKey</Code>": backends.ErrNotFound} {
		w := newWorld(t, func(c *Config) { c.Service = &slowCopy{c.Service, err} })
		w.handler.patience = 10 * time.Millisecond
		a := w.copy("/bucket/k", "bucket/other")
		if a.status != http.StatusOK || !strings.Contains(string(a.body), want) || !strings.Contains(string(a.body), "?>\n ") {
			t.Errorf("got %d %s", a.status, a.body)
		}
	}
}

// Both ends of a copy are asked for, each by its own names.
func TestBothEndsOfACopyAreAuthorized(t *testing.T) {
	w := newWorld(t)
	w.put("k", "data")
	w.access.asked = nil
	w.wants(w.copy("/bucket/new", "bucket/k", "X-Amz-Tagging-Directive: REPLACE", "X-Amz-Tagging: a=b"), 200, "")
	var got []string
	for _, r := range w.access.asked {
		got = append(got, r.Action+" "+r.Bucket+"/"+r.Key)
	}
	equal(t, "asked", strings.Join(got, ", "), "s3:PutObject bucket/new, s3:GetObject bucket/k, s3:PutObjectTagging bucket/new")
}

func TestAttributesOfAnObject(t *testing.T) {
	w := newWorld(t)
	c := w.s3()
	put := w.put("k", "data", "X-Amz-Checksum-Crc32: "+crc32of("data"))
	all := types.ObjectAttributes("").Values()
	out, err := c.GetObjectAttributes(t.Context(), &s3.GetObjectAttributesInput{Bucket: aws.String("bucket"), Key: aws.String("k"), ObjectAttributes: all})
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "ETag", aws.ToString(out.ETag), strings.Trim(put.header.Get("Etag"), `"`))
	equal(t, "size", aws.ToInt64(out.ObjectSize), int64(4))
	equal(t, "checksum", aws.ToString(out.Checksum.ChecksumCRC32), crc32of("data"))
	equal(t, "class", string(out.StorageClass), "STANDARD")
	if out.ObjectParts != nil || out.LastModified == nil {
		t.Errorf("got %+v", out)
	}
	for _, tt := range []struct {
		name, path, header string
		status             int
		code               string
	}{
		{"none", "k", "", 400, "InvalidRequest"},
		{"empty", "k", "X-Amz-Object-Attributes: ,", 400, "InvalidRequest"},
		{"unknown", "k", "X-Amz-Object-Attributes: ETag,Colour", 400, "InvalidArgument"},
		{"no such key", "none", "X-Amz-Object-Attributes: ETag", 404, "NoSuchKey"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := sent{method: "GET", path: "/bucket/" + tt.path + "?attributes"}
			if tt.header != "" {
				s.header = []string{tt.header}
			}
			w.wants(w.send(s), tt.status, tt.code)
		})
	}
}

func TestAttributesShowAPageOfParts(t *testing.T) {
	parts := []objects.PartInfo{{Number: 1, Size: 10}, {Number: 3, Size: 20}, {Number: 7, Size: 5}}
	for _, tt := range []struct {
		after, limit int64
		want         []int
		truncated    bool
		next         int64
	}{
		{0, 1000, []int{1, 3, 7}, false, 7},
		{0, 2, []int{1, 3}, true, 3},
		{3, 2, []int{7}, false, 7},
		{7, 2, nil, false, 7},
		{0, 0, nil, false, 0},
	} {
		got := partsPage(parts, tt.after, tt.limit)
		var numbers []int
		for _, p := range got.Parts {
			numbers = append(numbers, p.PartNumber)
		}
		if len(numbers) != len(tt.want) || got.IsTruncated != tt.truncated || got.NextPartNumberMarker != tt.next || got.TotalPartsCount != 3 {
			t.Errorf("after %d, %d at most: got %+v", tt.after, tt.limit, got)
		}
	}
}
