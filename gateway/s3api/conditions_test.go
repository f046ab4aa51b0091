package s3api

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"chatelaine/backends"
)

func TestDeletesThatDescribeTheirObject(t *testing.T) {
	w := newWorld(t)
	etag := w.put("k", "dummy").header.Get("Etag")
	modified := w.send(sent{method: "HEAD", path: "/bucket/k"}).header.Get("Last-Modified")
	at, err := http.ParseTime(modified)
	if err != nil {
		t.Fatal(err)
	}
	size, when := "X-Amz-If-Match-Size: ", "X-Amz-If-Match-Last-Modified-Time: "
	for _, header := range [][]string{
		{size + "6"},
		{size + strconv.Itoa(int(w.storedSize("k")))},
		{when + at.AddDate(-1, 0, 0).Format(http.TimeFormat)},
		{when + at.AddDate(1, 0, 0).Format(http.TimeFormat)},
		{when + at.Format(time.RFC3339Nano)[:19] + ".999Z"},
		{size + "5", when + at.Add(time.Second).Format(http.TimeFormat)},
		{size + "6", when + modified},
		{size + "5", `If-Match: "x"`},
		{size + "6", "If-Match: " + etag},
	} {
		w.wants(w.send(sent{method: "DELETE", path: "/bucket/k", header: header}), 412, "PreconditionFailed")
	}
	equal(t, "what was there", string(w.send(sent{method: "GET", path: "/bucket/k"}).body), "dummy")
	w.wants(w.send(sent{method: "DELETE", path: "/bucket/k", header: []string{size + "5", when + modified, "If-Match: " + etag}}), 204, "")
	equal(t, "stored", len(w.stored()), 0)
	w.wants(w.send(sent{method: "DELETE", path: "/bucket/k", header: []string{size + "5"}}), 204, "")
	w.wants(w.send(sent{method: "DELETE", path: "/bucket/k", header: []string{size + "5", "If-Match: " + etag}}), 404, "NoSuchKey")
}

// storedSize is how long an object is at the backend, in bytes.
func (w *world) storedSize(key string) int64 {
	w.t.Helper()
	info, err := w.store.Head(w.t.Context(), backends.ObjectID{Bucket: "there-bucket", Key: key}, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	return info.Size
}

func TestDeletesOfManyThatDescribeTheirObjects(t *testing.T) {
	w := newWorld(t)
	w.put("a", "one")
	w.put("b", "four")
	body := "<Delete><Object><Key>a</Key><Size>3</Size></Object><Object><Key>b</Key><Size>3</Size></Object>" +
		"<Object><Key>c</Key><Size>x</Size></Object><Object><Key>b</Key><LastModifiedTime>2020-01-01T00:00:00Z</LastModifiedTime></Object></Delete>"
	a := w.send(sent{method: "POST", path: "/bucket?delete", body: body, header: []string{"Content-MD5: " + md5of(body)}})
	w.wants(a, 200, "")
	for code, n := range map[string]int{"<Deleted><Key>a</Key></Deleted>": 1, "<Code>PreconditionFailed</Code>": 2, "<Code>InvalidArgument</Code>": 1} {
		if got := strings.Count(string(a.body), code); got != n {
			t.Errorf("%s: got it %d times, want %d: %s", code, got, n, a.body)
		}
	}
	equal(t, "stored", fmt.Sprint(w.stored()), "[b]")
}

func TestAbortOfAnUploadThatBeganAtATime(t *testing.T) {
	w := newWorld(t)
	c := w.s3()
	key := aws.String("k")
	create := func() *string {
		up, err := c.CreateMultipartUpload(t.Context(), &s3.CreateMultipartUploadInput{Bucket: aws.String("bucket"), Key: key})
		if err != nil {
			t.Fatal(err)
		}
		return up.UploadId
	}
	_, id, _ := create(), create(), create()
	list, err := c.ListMultipartUploads(t.Context(), &s3.ListMultipartUploadsInput{Bucket: aws.String("bucket")})
	if err != nil || len(list.Uploads) != 3 {
		t.Fatalf("got %v and %v", list, err)
	}
	began := *list.Uploads[slices.IndexFunc(list.Uploads, func(u types.MultipartUpload) bool { return *u.UploadId == *id })].Initiated
	abort := func(when time.Time) string {
		_, err := c.AbortMultipartUpload(t.Context(), &s3.AbortMultipartUploadInput{Bucket: aws.String("bucket"), Key: key, UploadId: id, IfMatchInitiatedTime: &when})
		return codeOf(err)
	}
	for _, other := range []time.Time{began.AddDate(-1, 0, 0), began.AddDate(1, 0, 0), began.Add(-2 * time.Second)} {
		equal(t, other.String(), abort(other), "PreconditionFailed")
	}
	equal(t, "when it began", abort(began), "")
	equal(t, "once more", abort(began), "NoSuchUpload")
}
