package s3api

import (
	"encoding/xml"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"chatelaine/gateway/objects"
)

func TestValidBucketName(t *testing.T) {
	for name, want := range map[string]bool{
		"abc": true, "a.b-c1": true, strings.Repeat("a", 63): true, "123": true,
		"": false, "ab": false, strings.Repeat("a", 64): false, "Abc": false, "a_b": false, "-abc": false, "abc-": false, ".abc": false, "abc.": false,
		"a..b": false, "192.168.0.1": false, "xn--abc": false, "sthree-a": false, "abc-s3alias": false, "abc--ol-s3": false, "abc--x-s3": false, "ä-bucket": false,
	} {
		equal(t, name, validBucketName(name), want)
	}
}

func TestETagsAreSplit(t *testing.T) {
	for in, want := range map[string][]string{
		"": nil, "*": {"*"}, `"a"`: {"a"}, "a": {"a"}, `W/"a"`: {"a"}, `"a", "b"`: {"a", "b"}, `"a","b",c`: {"a", "b", "c"}, `"a,b"`: {"a,b"},
		` , "a" , `: {"a"}, `"open`: {"open"}, `""`: nil,
	} {
		if got := etags([]string{in}); !slices.Equal(got, want) {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

func TestParseRange(t *testing.T) {
	for in, want := range map[string]*objects.ByteRange{
		"": nil, "bytes": nil, "bytes=": nil, "bytes=1": nil, "bytes=1-2": {First: 1, Last: 2}, "bytes=1-": {First: 1, Last: -1}, "bytes=-2": {First: -1, Last: 2},
		"bytes=-": nil, "bytes=2-1": nil, "bytes=0-1,2-3": nil, "bytes= 1-2": nil, "bytes=1 -2": nil, "bytes=+1-2": nil, "bytes=1--2": nil, "BYTES=1-2": nil,
		"bytes=-0": {First: math.MaxInt64, Last: -1}, "bytes=9223372036854775808-": {First: math.MaxInt64, Last: -1},
	} {
		got := parseRange(in)
		if (got == nil) != (want == nil) || got != nil && *got != *want {
			t.Errorf("%q: got %v, want %v", in, got, want)
		}
	}
}

func TestContentEncodingLosesAWSChunkedAlone(t *testing.T) {
	for in, want := range map[string]string{
		"": "", "aws-chunked": "", "gzip": "gzip", "aws-chunked,gzip": "gzip", "gzip, AWS-Chunked": "gzip", "gzip, br": "gzip,br",
	} {
		equal(t, in, contentEncoding([]string{in}), want)
	}
}

func TestMetadataIsTakenAsItCame(t *testing.T) {
	h := http.Header{"X-Amz-Meta-Colour": {"blue", "red"}, "X-Amz-Meta-Ü": {"größe"}, "Content-Type": {"x"}}
	got, err := metadata(h)
	if err != nil || got["colour"] != "blue,red" || got["ü"] != "größe" || len(got) != 2 {
		t.Errorf("got %v and %v", got, err)
	}
}

// What a presigned request carries in its query counts as headers, and is judged
// like them.
func TestParametersThatAreHeaders(t *testing.T) {
	r := httptest.NewRequest("PUT", "/b/k?x-amz-tagging=a%3Db&x-id=PutObject&X-Amz-Signature=s&partNumber=1&X-Amz-Meta-A=b", nil)
	r.Header.Set("X-Amz-Acl", "private")
	h, q, err := split(r)
	if err != nil || h.Get("X-Amz-Tagging") != "a=b" || h.Get("X-Amz-Meta-A") != "b" || h.Get("X-Amz-Acl") != "private" {
		t.Errorf("got %v and %v", h, err)
	}
	if len(q) != 1 || q.Get("partNumber") != "1" {
		t.Errorf("got %v", q)
	}
	if r.Header.Get("X-Amz-Tagging") != "" {
		t.Error("the request itself was changed")
	}
}

func TestKeysAreEncodedForListings(t *testing.T) {
	for in, want := range map[string]string{"a b": "a%20b", "a+b": "a%2Bb", "a/b": "a/b", "ä": "%C3%A4", "\x01": "%01", "\x11": "%11", "a-_.*": "a-_.*", "~": "%7E"} {
		equal(t, in, urlEncoder(true).encode(in), want)
		back, err := url.PathUnescape(want)
		if err != nil || back != in {
			t.Errorf("%q comes back as %q", in, back)
		}
		equal(t, in, urlEncoder(false).encode(in), in)
	}
}

// FuzzTarget checks that path-style requests are split where the client split
// them, whatever is escaped, and that both styles agree on the key.
func FuzzTarget(f *testing.F) {
	for _, p := range []string{"/", "/b", "/b/", "/b/k", "/b//k", "/b/%2F", "/b%2Fk", "/b/../k", "/%", "/b/%ff", "//k", "/b/a%20b+c", "/bucket/a%20b+c", "/bucket//", "/bucket"} {
		f.Add(p, "s3.example")
	}
	f.Fuzz(func(t *testing.T, path, host string) {
		u, err := url.ParseRequestURI(path)
		if err != nil || u.Host != "" || !strings.HasPrefix(path, "/") {
			return
		}
		got, err := parseTarget(&http.Request{URL: u, Host: host}, "")
		if err != nil {
			return
		}
		if len(got.key) > objects.MaxKey || got.level == levelObject && (got.key == "" || got.bucketName == "") || got.level == levelService && got.bucketName != "" {
			t.Fatalf("%q became %+v", path, got)
		}
		bucket, key, _ := strings.Cut(u.EscapedPath()[1:], "/")
		if b, _ := url.PathUnescape(bucket); b != got.bucketName {
			t.Errorf("%q: bucket %q", path, got.bucketName)
		}
		if !validBucketName(got.bucketName) {
			return
		}
		hosted := &http.Request{URL: &url.URL{}, Host: got.bucketName + ".s3.example:80"}
		if hosted.URL, err = url.ParseRequestURI("/" + key); err != nil {
			return
		}
		if same, err := parseTarget(hosted, "s3.example"); err != nil || same.key != got.key || same.bucketName != got.bucketName {
			t.Errorf("%q is %+v by path and %+v by host (%v)", path, got, same, err)
		}
	})
}

// FuzzRoute checks that a request reaches an operation only with parameters that
// the operation knows.
func FuzzRoute(f *testing.F) {
	for _, q := range []string{"", "uploads", "uploadId=x", "list-type=2&prefix=a", "acl", "partNumber=1&uploadId=x", "x-id=GetObject", "versions", "%zz", "a=b&a=c"} {
		f.Add("GET", q, byte(2))
		f.Add("PUT", q, byte(1))
	}
	table := routes()
	f.Fuzz(func(t *testing.T, method, query string, at byte) {
		r := &http.Request{Method: method, URL: &url.URL{Path: "/b/k", RawQuery: query}, Header: http.Header{}}
		c := &call{Handler: &Handler{routes: table}, r: r, target: target{level: level(at % 3)}}
		var err error
		if c.header, c.query, err = split(r); err != nil {
			return
		}
		got, err := c.match()
		if err != nil {
			return
		}
		known := append(slices.Clone(got.need), got.may...)
		for name := range c.query {
			if !slices.Contains(known, name) {
				t.Errorf("%s ?%s reached %s", method, query, got.name)
			}
		}
	})
}

// FuzzXML feeds documents to the decoders. What they take must come back the same
// when it is written and read again.
func FuzzXML(f *testing.F) {
	f.Add([]byte(`<Delete><Quiet>true</Quiet><Object><Key>k</Key><VersionId>v</VersionId></Object></Delete>`))
	f.Add([]byte(`<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>"x"</ETag><ChecksumCRC32>AAAAAA==</ChecksumCRC32></Part></CompleteMultipartUpload>`))
	f.Add([]byte(`<CreateBucketConfiguration><LocationConstraint>eu</LocationConstraint></CreateBucketConfiguration>`))
	f.Add([]byte(`<Tagging><TagSet><Tag><Key>a</Key><Value>b</Value></Tag></TagSet></Tagging>`))
	f.Add([]byte(`<CORSConfiguration><CORSRule><AllowedOrigin>h*x</AllowedOrigin><AllowedMethod>GET</AllowedMethod></CORSRule></CORSConfiguration>`))
	f.Add([]byte(`<!DOCTYPE x [<!ENTITY a "b">]><Delete>&a;</Delete>`))
	f.Fuzz(func(t *testing.T, text []byte) {
		var d deleteDocument
		if decodeXML(text, "Delete", &d) == nil {
			again, err := xml.Marshal(struct {
				XMLName xml.Name `xml:"Delete"`
				deleteDocument
			}{deleteDocument: d})
			var e deleteDocument
			if err != nil || decodeXML(again, "Delete", &e) != nil || fmt.Sprint(len(d.Objects)) != fmt.Sprint(len(e.Objects)) {
				t.Errorf("%q became %q (%v)", text, again, err)
			}
		}
		var c completeDocument
		if decodeXML(text, "CompleteMultipartUpload", &c) == nil {
			for _, p := range c.Parts {
				if part, err := p.parse(); err == nil && (part.Number < 1 || part.ETag == "" && strings.Trim(p.ETag, `"`) != "") {
					t.Errorf("%q became %+v", text, part)
				}
			}
		}
		_ = decodeXML(text, "CreateBucketConfiguration", &createBucketConfiguration{})
		var tagging taggingInput
		if decodeXML(text, "Tagging", &tagging) == nil {
			if tags, err := tagging.tags(maxObjectTags, "x"); err == nil && len(tags) != len(tagging.TagSet.Tags) {
				t.Errorf("%q became %v", text, tags)
			}
		}
		var rules corsInput
		if decodeXML(text, "CORSConfiguration", &rules) == nil {
			for _, r := range rules.Rules {
				if origin, ok := r.allows(corsRequest{origin: "https://x", method: "GET"}); ok && !matchWildcard(origin, "https://x") {
					t.Errorf("%q allows by %q", text, origin)
				}
			}
		}
	})
}

// FuzzHeaders feeds the parsers of conditions, ranges and checksums.
func FuzzHeaders(f *testing.F) {
	f.Add("bytes=0-1", `"a", W/"b", *`, "AAAAAA==", "x-amz-checksum-crc32")
	f.Add("bytes=-0", `"`, "AAAAAA==-2", ",")
	f.Fuzz(func(t *testing.T, byteRange, tags, sum, trailer string) {
		if r := parseRange(byteRange); r != nil && (r.First < 0 && r.Last <= 0 || r.First >= 0 && r.Last >= 0 && r.Last < r.First) {
			t.Errorf("%q became %+v", byteRange, r)
		}
		for _, tag := range etags([]string{tags}) {
			if tag == "" || strings.HasPrefix(tag, `"`) {
				t.Errorf("%q holds %q", tags, tag)
			}
		}
		h := http.Header{"X-Amz-Checksum-Crc32": {sum}}
		if s, err := parseChecksums(h, nil); err == nil && len(s.value) != 4 {
			t.Errorf("%q became %v", sum, s.value)
		}
		if s, err := parseChecksums(http.Header{}, []string{trailer}); err == nil && (s.trailer != trailer || s.algorithm.NewHash() == nil) {
			t.Errorf("%q became %+v", trailer, s)
		}
		for _, a := range objects.Algorithms() {
			size := a.NewHash().Size()
			if c, err := parseObjectChecksum(strings.ToLower(string(a)), sum); err == nil && (len(c.Value) != size || c.Composite && c.Parts < 1) {
				t.Errorf("%q became %+v", sum, c)
			}
		}
	})
}

// FuzzSource feeds copy sources and tags as headers carry them.
func FuzzSource(f *testing.F) {
	f.Add("/bucket/a%20b?versionId=x", "a=b&c=%C3%BC")
	f.Add("bucket%2Fk?versionId=", "a&a=%zz")
	f.Fuzz(func(t *testing.T, value, tags string) {
		if s, err := parseSource(value); err == nil && (!validBucketName(s.bucket) || s.key == "" || len(s.key) > objects.MaxKey || s.version != "" && !validVersion(s.version)) {
			t.Errorf("%q became %+v", value, s)
		}
		got, err := headerTags(tags)
		if err != nil {
			return
		}
		for key, v := range got {
			if checkTag(key, v) != nil || len(got) > maxObjectTags {
				t.Errorf("%q became %q", tags, got)
			}
		}
	})
}
