package s3api

import (
	"fmt"
	"strings"
	"testing"
)

// tagSet is a document of tags.
func tagSet(pairs ...string) string {
	var b strings.Builder
	for i := 0; i+1 < len(pairs); i += 2 {
		fmt.Fprintf(&b, "<Tag><Key>%s</Key><Value>%s</Value></Tag>", pairs[i], pairs[i+1])
	}
	return "<Tagging><TagSet>" + b.String() + "</TagSet></Tagging>"
}

func manyTags(n int) string {
	var pairs []string
	for i := range n {
		pairs = append(pairs, fmt.Sprint("k", i), "v")
	}
	return tagSet(pairs...)
}

func TestTagsOfAnObject(t *testing.T) {
	w := newWorld(t).versioned()
	version := versionOf(w.put("k", "v", "X-Amz-Tagging: b=2&a=%C3%BC%20x&c="))
	get := w.send(sent{method: "GET", path: "/bucket/k?tagging"})
	equal(t, "tags", string(get.body[strings.Index(string(get.body), "<TagSet>"):]),
		"<TagSet><Tag><Key>a</Key><Value>ü x</Value></Tag><Tag><Key>b</Key><Value>2</Value></Tag><Tag><Key>c</Key><Value></Value></Tag></TagSet></Tagging>")
	equal(t, "their version", versionOf(get), version)
	equal(t, "their number", w.send(sent{method: "HEAD", path: "/bucket/k"}).header.Get("X-Amz-Tagging-Count"), "3")
	newer := versionOf(w.put("k", "v2"))
	w.wants(w.send(sent{method: "PUT", path: "/bucket/k?tagging&versionId=" + version, body: tagSet("x", "y")}), 200, "")
	equal(t, "asked for", w.access.last().Action, "s3:PutObjectVersionTagging")
	if text := string(w.send(sent{method: "GET", path: "/bucket/k?tagging&versionId=" + version}).body); !strings.Contains(text, "<Key>x</Key>") {
		t.Errorf("got %s", text)
	}
	if text := string(w.send(sent{method: "GET", path: "/bucket/k?tagging"}).body); strings.Contains(text, "<Tag>") {
		t.Errorf("the newer version has tags: %s", text)
	}
	gone := w.send(sent{method: "DELETE", path: "/bucket/k?tagging&versionId=" + version})
	w.wants(gone, 204, "")
	equal(t, "version of removal", versionOf(gone), version)
	marker := versionOf(w.send(sent{method: "DELETE", path: "/bucket/k"}))
	for _, method := range []string{"GET", "DELETE", "PUT"} {
		s := sent{method: method, path: "/bucket/k?tagging&versionId=" + marker}
		if method == "PUT" {
			s.body = tagSet("a", "b")
		}
		w.wants(w.send(s), 405, "MethodNotAllowed")
		s.path = "/bucket/none?tagging"
		w.wants(w.send(s), 404, "NoSuchKey")
	}
	_ = newer
}

func TestTagsOfAnUploadAreThoseOfTheObject(t *testing.T) {
	w := newWorld(t)
	create := string(w.send(sent{method: "POST", path: "/bucket/k?uploads", header: []string{"X-Amz-Tagging: a=b"}}).body)
	_, rest, _ := strings.Cut(create, "<UploadId>")
	id, _, _ := strings.Cut(rest, "<")
	part := w.send(sent{method: "PUT", path: "/bucket/k?partNumber=1&uploadId=" + id, body: "x"})
	body := "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>" + part.header.Get("Etag") + "</ETag></Part></CompleteMultipartUpload>"
	w.wants(w.send(sent{method: "POST", path: "/bucket/k?uploadId=" + id, body: body}), 200, "")
	equal(t, "tags", w.send(sent{method: "HEAD", path: "/bucket/k"}).header.Get("X-Amz-Tagging-Count"), "1")
}

func TestBadTagsAreRefused(t *testing.T) {
	w := newWorld(t)
	w.put("k", "v", "X-Amz-Tagging: old=1")
	w.wants(w.send(sent{method: "PUT", path: "/bucket?tagging", body: tagSet("old", "1")}), 204, "")
	for _, tt := range []struct{ name, body, code string }{
		{"no document", "", "MissingRequestBodyError"},
		{"another document", "<Delete/>", "MalformedXML"},
		{"no set", "<Tagging/>", "MalformedXML"},
		{"a key twice", tagSet("a", "b", "a", "c"), "InvalidTag"},
		{"no key", tagSet("", "b"), "InvalidTag"},
		{"a long key", tagSet(strings.Repeat("ü", 129), "b"), "InvalidTag"},
		{"a long value", tagSet("a", strings.Repeat("ü", 257)), "InvalidTag"},
		{"other characters in a key", tagSet("a,b", "c"), "InvalidTag"},
		{"other characters in a value", tagSet("a", "b;c"), "InvalidTag"},
		{"of the system", tagSet("AWS:a", "b"), "InvalidTag"},
		{"too many", manyTags(51), "BadRequest"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, path := range []string{"/bucket/k?tagging", "/bucket?tagging"} {
				w.wants(w.send(sent{method: "PUT", path: path, body: tt.body}), 400, tt.code)
				if text := string(w.send(sent{method: "GET", path: path}).body); !strings.Contains(text, "<Key>old</Key>") {
					t.Errorf("%s: what was there is lost: %s", path, text)
				}
			}
		})
	}
	w.wants(w.send(sent{method: "PUT", path: "/bucket/k?tagging", body: manyTags(11)}), 400, "BadRequest")
	w.wants(w.send(sent{method: "PUT", path: "/bucket/k?tagging", body: tagSet(strings.Repeat("ü", 128), strings.Repeat("ü", 256))}), 200, "")
	w.wants(w.send(sent{method: "PUT", path: "/bucket/k?tagging", body: tagSet("a", "b"), header: []string{"Content-Md5: " + md5of("x")}}), 400, "BadDigest")
}

func TestTagsOfABucket(t *testing.T) {
	w := newWorld(t)
	get := sent{method: "GET", path: "/bucket?tagging"}
	w.wants(w.send(get), 404, "NoSuchTagSet")
	w.wants(w.send(sent{method: "PUT", path: "/bucket?tagging", body: manyTags(50)}), 204, "")
	if a := w.send(get); strings.Count(string(a.body), "<Tag>") != 50 || a.header.Get("Content-Type") != "application/xml" {
		t.Errorf("got %s", a.body)
	}
	w.wants(w.send(sent{method: "DELETE", path: "/bucket?tagging"}), 204, "")
	w.wants(w.send(get), 404, "NoSuchTagSet")
	equal(t, "stored", len(w.stored()), 0)
}
