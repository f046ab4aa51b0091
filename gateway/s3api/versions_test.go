package s3api

import (
	"fmt"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

// versioned turns versions of ann's bucket on.
func (w *world) versioned() *world {
	w.t.Helper()
	body := "<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>"
	w.wants(w.send(sent{method: "PUT", path: "/bucket?versioning", body: body}), 200, "")
	return w
}

func versionOf(a answer) string { return a.header.Get("X-Amz-Version-Id") }

func TestTheVersioningOfABucket(t *testing.T) {
	w := newWorld(t)
	get := func() string { return string(w.send(sent{method: "GET", path: "/bucket?versioning"}).body) }
	if text := get(); strings.Contains(text, "Status") {
		t.Errorf("at first: %s", text)
	}
	for _, state := range []string{"Enabled", "Suspended"} {
		w.wants(w.send(sent{method: "PUT", path: "/bucket?versioning", body: "<VersioningConfiguration><Status>" + state + "</Status></VersioningConfiguration>"}), 200, "")
		if text := get(); !strings.Contains(text, "<Status>"+state+"</Status>") {
			t.Errorf("%s: %s", state, text)
		}
	}
	for body, code := range map[string]string{
		"":  "MissingRequestBodyError",
		"x": "MalformedXML", "<VersioningConfiguration/>": "MalformedXML",
		"<VersioningConfiguration><Status>enabled</Status></VersioningConfiguration>": "MalformedXML",
		"<Versioning><Status>Enabled</Status></Versioning>":                           "MalformedXML",
	} {
		w.wants(w.send(sent{method: "PUT", path: "/bucket?versioning", body: body}), 400, code)
	}
	mfa := "<VersioningConfiguration><Status>Enabled</Status><MfaDelete>Enabled</MfaDelete></VersioningConfiguration>"
	w.wants(w.send(sent{method: "PUT", path: "/bucket?versioning", body: mfa}), 501, "NotImplemented")
}

func TestOlderVersionsAreReadAndDeleted(t *testing.T) {
	w := newWorld(t).versioned()
	one, two := versionOf(w.put("k", "one")), versionOf(w.put("k", "two"))
	if one == "" || one == two {
		t.Fatalf("got versions %q and %q", one, two)
	}
	read := func(query string) answer { return w.send(sent{method: "GET", path: "/bucket/k" + query}) }
	equal(t, "the newest", string(read("").body), "two")
	equal(t, "its version", versionOf(read("")), two)
	equal(t, "the older", string(read("?versionId="+one).body), "one")
	equal(t, "asked for", w.access.last().Action, "s3:GetObjectVersion")
	equal(t, "a copy's source", versionOf(w.copy("/bucket/c", "bucket/k?versionId="+one)) != "", true)
	equal(t, "a copy", string(w.send(sent{method: "GET", path: "/bucket/c"}).body), "one")

	deleted := w.send(sent{method: "DELETE", path: "/bucket/k"})
	equal(t, "a marker is made", fmt.Sprint(deleted.status, " ", deleted.header.Get("X-Amz-Delete-Marker")), "204 true")
	marker := versionOf(deleted)
	gone := read("")
	w.wants(gone, 404, "NoSuchKey")
	equal(t, "a marker is met", gone.header.Get("X-Amz-Delete-Marker")+" "+versionOf(gone), "true "+marker)
	asked := read("?versionId=" + marker)
	w.wants(asked, 405, "MethodNotAllowed")
	equal(t, "a marker is asked for", asked.header.Get("X-Amz-Delete-Marker")+" "+asked.header.Get("Allow"), "true DELETE")
	if asked.header.Get("Last-Modified") == "" {
		t.Error("a marker has a time")
	}
	w.wants(w.copy("/bucket/c", "bucket/k?versionId="+marker), 400, "InvalidRequest")
	w.wants(w.copy("/bucket/c", "bucket/k"), 404, "NoSuchKey")

	lifted := w.send(sent{method: "DELETE", path: "/bucket/k?versionId=" + marker})
	equal(t, "the marker is deleted", fmt.Sprint(lifted.status, " ", lifted.header.Get("X-Amz-Delete-Marker"), " ", versionOf(lifted) == marker), "204 true true")
	equal(t, "asked for", w.access.last().Action, "s3:DeleteObjectVersion")
	equal(t, "the newest is back", string(read("").body), "two")
	w.wants(w.send(sent{method: "DELETE", path: "/bucket/k?versionId=" + two}), 204, "")
	equal(t, "the older is the newest", string(read("").body), "one")
	w.wants(read("?versionId="+two), 404, "NoSuchVersion")
	w.wants(read("?versionId="), 400, "InvalidArgument")
	w.wants(read("?versionId=a/b"), 400, "InvalidArgument")
	w.wants(read("?versionId=too-short-for-a-version"), 400, "InvalidArgument")
	w.wants(w.send(sent{method: "DELETE", path: "/bucket/k?versionId=a%20b"}), 400, "InvalidArgument")
}

func TestVersionsAreListed(t *testing.T) {
	w := newWorld(t)
	w.put("null", "0")
	w.versioned()
	for _, key := range []string{"a b", "a b", "d/1", "d/2"} {
		w.put(strings.ReplaceAll(key, " ", "%20"), key)
	}
	w.send(sent{method: "DELETE", path: "/bucket/a%20b"})
	var rows []string
	in := &s3.ListObjectVersionsInput{Bucket: aws.String("bucket"), MaxKeys: aws.Int32(2), Delimiter: aws.String("/")}
	pages := s3.NewListObjectVersionsPaginator(w.s3(), in)
	for pages.HasMorePages() {
		page, err := pages.NextPage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range page.Versions {
			rows = append(rows, fmt.Sprintln(*v.Key, *v.Size, *v.IsLatest, *v.VersionId == "null"))
		}
		for _, m := range page.DeleteMarkers {
			rows = append(rows, fmt.Sprintln("marker", *m.Key, *m.IsLatest, m.Owner != nil))
		}
		for _, p := range page.CommonPrefixes {
			rows = append(rows, *p.Prefix+"\n")
		}
	}
	equal(t, "rows", strings.Join(rows, ""), "a b 3 false false\nmarker a b true true\na b 3 false false\nd/\nnull 1 true true\n")
	if text := string(w.send(sent{method: "GET", path: "/bucket?versions&encoding-type=url&max-keys=1"}).body); !strings.Contains(text, "<NextKeyMarker>a%20b<") {
		t.Errorf("got %s", text)
	}
	for _, query := range []string{"max-keys=-1", "max-keys=x", "encoding-type=x", "version-id-marker=x", "key-marker=a&version-id-marker=a/b"} {
		w.wants(w.send(sent{method: "GET", path: "/bucket?versions&" + query}), 400, "InvalidArgument")
	}
	none := string(w.send(sent{method: "GET", path: "/bucket?versions&max-keys=0"}).body)
	if strings.Contains(none, "<Version>") || !strings.Contains(none, "<IsTruncated>false<") {
		t.Errorf("got %s", none)
	}
}

func TestDeleteObjectsKnowsVersionsAndMarkers(t *testing.T) {
	w := newWorld(t).versioned()
	one := versionOf(w.put("k", "one"))
	w.put("m", "1")
	marker := versionOf(w.send(sent{method: "DELETE", path: "/bucket/m"}))
	out, err := w.s3().DeleteObjects(t.Context(), &s3.DeleteObjectsInput{Bucket: aws.String("bucket"), Delete: &types.Delete{Objects: []types.ObjectIdentifier{
		{Key: aws.String("k"), VersionId: &one}, {Key: aws.String("m"), VersionId: &marker}, {Key: aws.String("new")}, {Key: aws.String("k"), VersionId: aws.String("a/b")},
	}}})
	if err != nil || len(out.Deleted) != 3 || len(out.Errors) != 1 {
		t.Fatalf("got %+v and %v", out, err)
	}
	d := out.Deleted
	equal(t, "a version", aws.ToString(d[0].VersionId) == one && d[0].DeleteMarker == nil, true)
	equal(t, "a marker", aws.ToString(d[1].VersionId) == marker && aws.ToBool(d[1].DeleteMarker) && aws.ToString(d[1].DeleteMarkerVersionId) == marker, true)
	equal(t, "a marker is made", d[2].VersionId == nil && aws.ToBool(d[2].DeleteMarker) && aws.ToString(d[2].DeleteMarkerVersionId) != "", true)
	equal(t, "no version", aws.ToString(out.Errors[0].Code), "InvalidArgument")
}

func TestAVersionedBucketIsDeletedOnceItIsEmpty(t *testing.T) {
	w := newWorld(t).versioned()
	one := versionOf(w.put("k", "one"))
	marker := versionOf(w.send(sent{method: "DELETE", path: "/bucket/k"}))
	w.wants(w.send(sent{method: "DELETE", path: "/bucket"}), 409, "BucketNotEmpty")
	for _, v := range []string{one, marker} {
		w.wants(w.send(sent{method: "DELETE", path: "/bucket/k?versionId=" + v}), 204, "")
	}
	w.wants(w.send(sent{method: "PUT", path: "/bucket?tagging", body: tagSet("a", "b")}), 204, "")
	w.wants(w.send(sent{method: "PUT", path: "/bucket?tagging", body: tagSet("a", "c")}), 204, "")
	w.wants(w.send(sent{method: "DELETE", path: "/bucket"}), 204, "")
}

// S3 says the version of what it has stored, but not that it is the null version.
func TestNullVersionsAreMadeInSilence(t *testing.T) {
	w := newWorld(t).versioned()
	w.wants(w.send(sent{method: "PUT", path: "/bucket?versioning", body: "<VersioningConfiguration><Status>Suspended</Status></VersioningConfiguration>"}), 200, "")
	equal(t, "PUT", versionOf(w.put("k", "v")), "")
	equal(t, "copy", versionOf(w.copy("/bucket/c", "bucket/k")), "")
	equal(t, "GET", versionOf(w.send(sent{method: "GET", path: "/bucket/k"})), "null")
	equal(t, "GET by version", string(w.send(sent{method: "GET", path: "/bucket/k?versionId=null"}).body), "v")
}

func TestListsSayWhatChecksumsVersionsHave(t *testing.T) {
	w := newWorld(t).versioned()
	w.wants(w.send(sent{method: "PUT", path: "/bucket/k", body: "one", header: []string{"X-Amz-Checksum-Crc32: nZmDVw=="}}), 400, "BadDigest")
	w.put("k", "one")
	w.wants(w.send(sent{method: "DELETE", path: "/bucket/k"}), 204, "")
	text := string(w.send(sent{method: "GET", path: "/bucket?versions"}).body)
	if !strings.Contains(text, `<ListVersionsResult xmlns="`+namespace+`">`) || strings.Contains(text, `xmlns=""`) {
		t.Errorf("got %s, want all of it in S3's namespace", text)
	}
	const said = "<ChecksumAlgorithm>CRC64NVME</ChecksumAlgorithm><ChecksumType>FULL_OBJECT</ChecksumType></Version>"
	if strings.Count(text, said) != 1 || strings.Count(text, "<ChecksumAlgorithm>") != 1 || !strings.Contains(text, "<DeleteMarker>") {
		t.Errorf("got %s, want one version with a checksum and a marker without", text)
	}
	for _, query := range []string{"max-keys=-1", "max-keys=-x"} {
		a := w.send(sent{method: "GET", path: "/bucket?versions&" + query})
		w.wants(a, 400, "InvalidArgument")
		if !strings.Contains(string(a.body), "max-keys cannot be negative") {
			t.Errorf("%s: %s", query, a.body)
		}
	}
}

func TestTheAttributesOfADeleteMarkerAreNotThere(t *testing.T) {
	w := newWorld(t).versioned()
	w.put("k", "one")
	marker := versionOf(w.send(sent{method: "DELETE", path: "/bucket/k"}))
	for _, query := range []string{"?attributes", "?attributes&versionId=" + marker} {
		a := w.send(sent{method: "GET", path: "/bucket/k" + query, header: []string{"X-Amz-Object-Attributes: ETag"}})
		w.wants(a, 404, "NoSuchKey")
		equal(t, query, a.header.Get("X-Amz-Delete-Marker")+" "+versionOf(a), "true "+marker)
	}
}
