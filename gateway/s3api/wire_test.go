package s3api

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"chatelaine/backends"
)

func TestWhatNobodyHasWrittenIsNotImplemented(t *testing.T) {
	w := newWorld(t)
	w.put("k", "old")
	for _, sub := range []string{
		"website", "replication", "analytics", "inventory", "metrics", "intelligent-tiering", "metadataTable", "notification", "session", "abac", "brand-new",
	} {
		for _, method := range []string{"GET", "PUT", "DELETE"} {
			w.wants(w.send(sent{method: method, path: "/bucket?" + sub}), 501, "NotImplemented")
		}
	}
	for _, path := range []string{"/bucket?policy", "/bucket?accelerate", "/bucket?versions", "/bucket?policyStatus"} {
		w.wants(w.send(sent{method: "PUT", path: path}), 501, "NotImplemented")
	}
	for _, sub := range []string{"torrent", "annotation", "renameObject", "append", "encryption"} {
		for _, method := range []string{"GET", "PUT", "DELETE"} {
			w.wants(w.send(sent{method: method, path: "/bucket/k?" + sub}), 501, "NotImplemented")
		}
	}
	for _, sub := range []string{"restore", "select&select-type=2", "brand-new"} {
		w.wants(w.send(sent{method: "POST", path: "/bucket/k?" + sub}), 501, "NotImplemented")
	}
	equal(t, "what was there", string(w.send(sent{method: "GET", path: "/bucket/k"}).body), "old")
}

func TestRequestsThatNameNoOperation(t *testing.T) {
	w := newWorld(t)
	for _, tt := range []struct {
		method, path, header string
		status               int
		code                 string
	}{
		{"POST", "/", "", 405, "MethodNotAllowed"},
		{"PUT", "/", "", 405, "MethodNotAllowed"},
		{"DELETE", "/", "", 405, "MethodNotAllowed"},
		{"PATCH", "/bucket/k", "", 405, "MethodNotAllowed"},
		{"POST", "/bucket/k", "", 405, "MethodNotAllowed"},
		{"POST", "/bucket", "", 412, "PreconditionFailed"},
		{"PUT", "/bucket/k?uploadId=x", "", 405, "MethodNotAllowed"},
		{"PUT", "/bucket/k?partNumber=1", "", 400, "InvalidArgument"},
		{"GET", "/bucket/k?uploads", "", 400, "InvalidRequest"},
		{"GET", "/bucket/k?versions", "", 400, "InvalidRequest"},
		{"GET", "/bucket/k", "X-Amz-Copy-Source: b/k", 400, "InvalidArgument"},
		{"DELETE", "/bucket", "X-Amz-Copy-Source: b/k", 400, "InvalidArgument"},
		{"GET", "/bucket?list-type=3", "", 400, "InvalidArgument"},
		{"GET", "/bucket?max-keys=x", "", 400, "InvalidArgument"},
		{"GET", "/bucket?max-keys=-1", "", 400, "InvalidArgument"},
		{"GET", "/bucket?encoding-type=rot13", "", 400, "InvalidArgument"},
		{"GET", "/bucket?list-type=2&continuation-token=?", "", 400, "InvalidArgument"},
		{"GET", "/?continuation-token=No+Bucket", "", 400, "InvalidArgument"},
		{"GET", "/bucket?uploads&max-uploads=-1", "", 400, "InvalidArgument"},
		{"GET", "/?max-buckets=0", "", 400, "InvalidArgument"},
		{"GET", "/bucket/k?partNumber=0", "", 400, "InvalidArgument"},
		{"GET", "/bucket/k?versionId=", "", 400, "InvalidArgument"},
		{"GET", "/bucket/k?partNumber=1", "Range: bytes=0-1", 400, "InvalidRequest"},
		{"GET", "/bucket/k", "X-Amz-Server-Side-Encryption-Customer-Key: x", 501, "NotImplemented"},
		{"DELETE", "/bucket/k", "X-Amz-Mfa: x", 501, "NotImplemented"},
		{"DELETE", "/bucket/k", "X-Amz-If-Match-Size: -3", 400, "InvalidArgument"},
		{"DELETE", "/bucket/k", "X-Amz-If-Match-Last-Modified-Time: yesterday", 400, "InvalidArgument"},
		{"DELETE", "/bucket/k?uploadId=x", "X-Amz-If-Match-Initiated-Time: yesterday", 400, "InvalidArgument"},
	} {
		s := sent{method: tt.method, path: tt.path}
		if tt.header != "" {
			s.header = []string{tt.header}
		}
		t.Run(tt.method+tt.path, func(t *testing.T) { w.wants(w.send(s), tt.status, tt.code) })
	}
}

func TestCreateBucketJudgesItsBody(t *testing.T) {
	where := func(s string) string {
		return "<CreateBucketConfiguration><LocationConstraint>" + s + "</LocationConstraint></CreateBucketConfiguration>"
	}
	for _, tt := range []struct {
		name, path, body string
		header           []string
		status           int
		code             string
	}{
		{"nothing", "/new", "", nil, 200, ""},
		{"our region", "/new", where(region), nil, 200, ""},
		{"us-east-1, which S3 names by saying nothing", "/new", where("us-east-1"), nil, 400, "InvalidLocationConstraint"},
		{"an empty constraint", "/new", where(""), nil, 200, ""},
		{"another region", "/new", where("ap-south-1"), nil, 400, "InvalidLocationConstraint"},
		{"a backend", "/new", where("second"), nil, 200, ""},
		{"a backend for a lock", "/new", where("second"), []string{"X-Amz-Bucket-Object-Lock-Enabled: true"}, 200, ""},
		{"a backend that is not offered", "/new", where("third"), nil, 400, "InvalidLocationConstraint"},
		{"a backend that is not offered, for a lock", "/new", where("third"), []string{"X-Amz-Bucket-Object-Lock-Enabled: true"}, 400, "InvalidLocationConstraint"},
		{"no XML", "/new", "x", nil, 400, "MalformedXML"},
		{"tags", "/new", "<CreateBucketConfiguration><Tags><Tag><Key>a</Key><Value>b</Value></Tag></Tags></CreateBucketConfiguration>", nil, 200, ""},
		{"bad tags", "/new", "<CreateBucketConfiguration><Tags><Tag><Key>a!</Key><Value>b</Value></Tag></Tags></CreateBucketConfiguration>", nil, 400, "InvalidTag"},
		{"a place", "/new", "<CreateBucketConfiguration><Location/></CreateBucketConfiguration>", nil, 501, "NotImplemented"},
		{"a lock", "/new", "", []string{"X-Amz-Bucket-Object-Lock-Enabled: true"}, 200, ""},
		{"half a lock", "/new", "", []string{"X-Amz-Bucket-Object-Lock-Enabled: maybe"}, 400, "InvalidArgument"},
		{"no lock", "/new", "", []string{"X-Amz-Bucket-Object-Lock-Enabled: false"}, 200, ""},
		{"the ownership it has", "/new", "", []string{"X-Amz-Object-Ownership: BucketOwnerEnforced"}, 200, ""},
		{"another ownership", "/new", "", []string{"X-Amz-Object-Ownership: ObjectWriter"}, 200, ""},
		{"another ownership and a public ACL", "/new", "", []string{"X-Amz-Object-Ownership: ObjectWriter", "X-Amz-Acl: public-read"}, 403, "AccessDenied"},
		{"no ownership", "/new", "", []string{"X-Amz-Object-Ownership: x"}, 400, "InvalidArgument"},
		{"a public ACL", "/new", "", []string{"X-Amz-Acl: public-read"}, 400, "InvalidBucketAclWithObjectOwnership"},
		{"a bad name", "/New", "", nil, 400, "InvalidBucketName"},
		{"one's own", "/bucket", "", nil, 409, "BucketAlreadyOwnedByYou"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			w.wants(w.send(sent{method: "PUT", path: tt.path, body: tt.body, header: tt.header}), tt.status, tt.code)
			status := http.StatusNotFound
			if tt.code == "" {
				status = http.StatusOK
			}
			equal(t, "HEAD afterwards", w.send(sent{method: "HEAD", path: "/new"}).status, status)
		})
	}
	w := newWorld(t)
	w.wants(w.send(sent{method: "PUT", path: "/bucket", key: bobKey, secret: bobSecret}), 409, "BucketAlreadyExists")
}

func TestALocationConstraintNamesABackend(t *testing.T) {
	w := newWorld(t)
	for _, tt := range []struct{ bucket, constraint, lock, lies string }{
		{"plain", "second", "false", "second"}, {"locked", "second", "true", "second"}, {"usual", region, "false", "main"}, {"named", "main", "false", "main"},
	} {
		body := "<CreateBucketConfiguration><LocationConstraint>" + tt.constraint + "</LocationConstraint></CreateBucketConfiguration>"
		w.wants(w.send(sent{method: "PUT", path: "/" + tt.bucket, body: body, header: []string{"X-Amz-Bucket-Object-Lock-Enabled: " + tt.lock}}), 200, "")
		onMain, onSecond := w.store.HeadBucket(t.Context(), "there-"+tt.bucket), w.second.HeadBucket(t.Context(), "there-"+tt.bucket)
		equal(t, tt.bucket+" is on second alone", onSecond == nil && errors.Is(onMain, backends.ErrBucketNotFound), tt.lies == "second")
		w.wants(w.send(sent{method: "PUT", path: "/" + tt.bucket + "/key", body: "data"}), 200, "")
		equal(t, "read back from "+tt.bucket, string(w.send(sent{path: "/" + tt.bucket + "/key"}).body), "data")
		if got := w.send(sent{path: "/" + tt.bucket + "?location"}).body; !strings.Contains(string(got), ">"+region+"<") {
			t.Errorf("clients sign for the region, and GetBucketLocation of %s says %s", tt.bucket, got)
		}
		equal(t, "where "+tt.bucket+" lies", w.send(sent{method: "HEAD", path: "/" + tt.bucket}).header.Get("X-Amz-Bucket-Location-Name"), tt.lies)
	}
}

func TestABucketOfOnesOwnIsNotCreatedAgainInAnyRegion(t *testing.T) {
	for _, region := range []string{"us-east-1", "eu-central-1"} {
		w := newWorld(t, func(c *Config) { c.Region = region })
		_, err := w.s3(func(o *s3.Options) { o.Region = region }).CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: aws.String("bucket")})
		equal(t, region, codeOf(err), "BucketAlreadyOwnedByYou")
	}
}

func TestUSEast1IsNoConstraintThereEither(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Region = "us-east-1" })
	create := func(constraint types.BucketLocationConstraint) error {
		_, err := w.s3(func(o *s3.Options) { o.Region = "us-east-1" }).CreateBucket(t.Context(), &s3.CreateBucketInput{
			Bucket: aws.String("new"), CreateBucketConfiguration: &types.CreateBucketConfiguration{LocationConstraint: constraint},
		})
		return err
	}
	equal(t, "us-east-1", codeOf(create("us-east-1")), "InvalidLocationConstraint")
	if err := create(""); err != nil {
		t.Errorf("no constraint: got %v", err)
	}
}

func TestRangesAreAnsweredAsS3Does(t *testing.T) {
	w := newWorld(t)
	w.put("k", "0123456789")
	w.put("empty", "")
	for _, tt := range []struct {
		key, spec, body string
		status          int
		contentRange    string
	}{
		{"k", "bytes=0-3", "0123", 206, "bytes 0-3/10"},
		{"k", "bytes=9-9", "9", 206, "bytes 9-9/10"},
		{"k", "bytes=5-", "56789", 206, "bytes 5-9/10"},
		{"k", "bytes=-3", "789", 206, "bytes 7-9/10"},
		{"k", "bytes=-30", "0123456789", 206, "bytes 0-9/10"},
		{"k", "bytes=8-100", "89", 206, "bytes 8-9/10"},
		{"k", "bytes=0-99999999999999999999999", "0123456789", 206, "bytes 0-9/10"},
		{"k", "bytes=0-1,3-4", "0123456789", 200, ""},
		{"k", "lines=0-1", "0123456789", 200, ""},
		{"k", "bytes=4-2", "0123456789", 200, ""},
		{"k", "bytes=a-b", "0123456789", 200, ""},
		{"k", "bytes=-", "0123456789", 200, ""},
		{"k", "bytes=10-", "", 416, "bytes */10"},
		{"k", "bytes=-0", "", 416, "bytes */10"},
		{"empty", "bytes=0-", "", 416, "bytes */0"},
		{"empty", "bytes=-5", "", 200, ""},
	} {
		for _, method := range []string{"GET", "HEAD"} {
			a := w.send(sent{method: method, path: "/bucket/" + tt.key, header: []string{"Range: " + tt.spec}})
			what := method + " " + tt.key + " " + tt.spec
			equal(t, what+" status", a.status, tt.status)
			equal(t, what+" Content-Range", a.header.Get("Content-Range"), tt.contentRange)
			if a.status < 300 && method == "GET" {
				equal(t, what+" body", string(a.body), tt.body)
			}
			if a.status < 300 {
				equal(t, what+" Content-Length", a.header.Get("Content-Length"), fmt.Sprint(len(tt.body)))
			}
			if a.status == 416 && method == "GET" {
				equal(t, what+" code", a.fault.Code, "InvalidRange")
				equal(t, what+" size", a.fault.ActualObjectSize, strings.TrimPrefix(tt.contentRange, "bytes */"))
				equal(t, what+" requested", a.fault.RangeRequested, tt.spec)
			}
			if method == "HEAD" {
				equal(t, what+" body", len(a.body), 0)
			}
		}
	}
	w.wants(w.send(sent{method: "GET", path: "/bucket/k?partNumber=7"}), 416, "InvalidPartNumber")
	equal(t, "part 1", string(w.send(sent{method: "GET", path: "/bucket/k?partNumber=1"}).body), "0123456789")
}

func TestConditionsOfReads(t *testing.T) {
	w := newWorld(t)
	etag := w.put("k", "v").header.Get("Etag")
	bare := strings.Trim(etag, `"`)
	before, after := time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat), time.Now().Add(time.Hour).UTC().Format(http.TimeFormat)
	for _, tt := range []struct {
		header string
		status int
	}{
		{"If-Match: " + etag, 200},
		{"If-Match: " + bare, 200},
		{`If-Match: "x", ` + etag, 200},
		{"If-Match: *", 200},
		{`If-Match: "x"`, 412},
		{"If-None-Match: " + etag, 304},
		{"If-None-Match: W/" + etag, 304},
		{"If-None-Match: *", 304},
		{`If-None-Match: "x"`, 200},
		{"If-Modified-Since: " + before, 200},
		{"If-Modified-Since: " + after, 304},
		{"If-Modified-Since: yesterday", 200},
		{"If-Unmodified-Since: " + after, 200},
		{"If-Unmodified-Since: " + before, 412},
		{"If-Unmodified-Since: yesterday", 200},
	} {
		for _, method := range []string{"GET", "HEAD"} {
			a := w.send(sent{method: method, path: "/bucket/k", header: []string{tt.header}})
			equal(t, method+" with "+tt.header, a.status, tt.status)
			if a.status == 304 && (a.header.Get("Etag") != etag || a.header.Get("Last-Modified") == "" || len(a.body) > 0) {
				t.Errorf("%s with %s: %v %q", method, tt.header, a.header, a.body)
			}
		}
	}
}

func TestEveryAnswerSaysWhoGaveIt(t *testing.T) {
	w := newWorld(t)
	w.put("k", "v")
	for _, s := range []sent{{method: "GET", path: "/bucket/k"}, {method: "GET", path: "/bucket/none"}, {method: "HEAD", path: "/bucket/none"}, {method: "PATCH", path: "/"}, {method: "DELETE", path: "/bucket/k"}} {
		a := w.send(s)
		if a.header.Get("X-Amz-Request-Id") == "" || a.header.Get("X-Amz-Id-2") == "" || a.header.Get("Date") == "" || a.header.Get("Server") != "Chatelaine" {
			t.Errorf("%s %s: %v", s.method, s.path, a.header)
		}
	}
	equal(t, "HEAD of nothing", len(w.send(sent{method: "HEAD", path: "/bucket/none"}).body), 0)
}

func TestVirtualHostedAddresses(t *testing.T) {
	w := newWorld(t)
	for _, host := range []string{"bucket.s3.example", "bucket.s3.example:8443", "Bucket.S3.Example"} {
		w.wants(w.send(sent{method: "PUT", path: "/dir/k", body: host, host: host}), 200, "")
		equal(t, host, string(w.send(sent{method: "GET", path: "/bucket/dir/k"}).body), host)
		w.wants(w.send(sent{method: "GET", path: "/", host: host}), 200, "")
	}
	w.wants(w.send(sent{method: "GET", path: "/bucket/dir/k", host: "s3.example"}), 200, "")
	w.wants(w.send(sent{method: "GET", path: "/dir/k", host: "other.s3.example"}), 404, "NoSuchBucket")
}

func TestKeysOfEveryKindAreKeptApart(t *testing.T) {
	w := newWorld(t)
	paths := []string{
		"a", "a/", "a//", "/a", "a/./b", "a/../b", "a%2Fb", "a%252Fb", "a+b", "a%20b", "a%2Bb", "%C3%A4", "a?", "..", ".", "%00x", "(x)!*'", "~", ".chatelain", ".chatelaine",
		strings.Repeat("k", 1024),
	}
	want := map[string]string{}
	for _, p := range paths {
		p = strings.ReplaceAll(p, "?", "%3F")
		w.put(p, p)
		want[p] = p
	}
	for p, body := range want {
		if p == "a%2Fb" || p == "a%2Bb" {
			continue // the same keys as a/b and a+b, written otherwise
		}
		got := string(w.send(sent{method: "GET", path: "/bucket/" + p}).body)
		if p == "a+b" {
			body = "a%2Bb"
		}
		equal(t, p, got, body)
	}
}

// raw speaks HTTP by hand.
func (w *world) raw() (net.Conn, *bufio.Reader) {
	w.t.Helper()
	conn, err := net.Dial("tcp", w.server.Listener.Addr().String())
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	return conn, bufio.NewReader(conn)
}

// head writes the request's header as bytes, with the length given.
func head(r *http.Request, length int, more ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\n", r.Method, r.URL.RequestURI(), r.URL.Host, length)
	for name, values := range r.Header {
		for _, v := range values {
			fmt.Fprintf(&b, "%s: %s\r\n", name, v)
		}
	}
	for _, line := range more {
		b.WriteString(line + "\r\n")
	}
	return b.String() + "\r\n"
}

func TestExpectContinueIsAnsweredBeforeTheBody(t *testing.T) {
	w := newWorld(t)
	good := w.request(sent{method: "PUT", path: "/bucket/k", body: "body", hash: unsigned})
	conn, in := w.raw()
	_, _ = io.WriteString(conn, head(good, 4, "Expect: 100-continue"))
	line, err := in.ReadString('\n')
	if err != nil || !strings.HasPrefix(line, "HTTP/1.1 100") {
		t.Fatalf("got %q and %v, want 100 Continue", line, err)
	}
	_, _ = io.WriteString(conn, "body")
	_, _ = in.ReadString('\n')
	if line, _ = in.ReadString('\n'); !strings.HasPrefix(line, "HTTP/1.1 200") {
		t.Errorf("got %q, want 200", line)
	}
	bad := w.request(sent{method: "PUT", path: "/bucket/k", body: "body", hash: unsigned, secret: "wrong", key: annKey})
	conn, in = w.raw()
	_, _ = io.WriteString(conn, head(bad, 4, "Expect: 100-continue"))
	if line, _ = in.ReadString('\n'); !strings.HasPrefix(line, "HTTP/1.1 403") {
		t.Errorf("got %q, want 403 without 100", line)
	}
}

func TestAConnectionOutlivesAnError(t *testing.T) {
	w := newWorld(t)
	conn, in := w.raw()
	for range 3 {
		bad := w.request(sent{method: "PUT", path: "/bucket/k", body: "body", hash: unsigned, secret: "wrong", key: annKey})
		_, _ = io.WriteString(conn, head(bad, 4)+"body")
		response, err := http.ReadResponse(in, bad)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, response.Body)
		response.Body.Close()
		equal(t, "status", response.StatusCode, 403)
	}
}

func TestACutBodyStoresNothing(t *testing.T) {
	w := newWorld(t)
	for _, length := range []int{10, 1 << 20} {
		conn, _ := w.raw()
		r := w.request(sent{method: "PUT", path: "/bucket/k", body: strings.Repeat("x", length), hash: unsigned})
		_, _ = io.WriteString(conn, head(r, length)+"half")
		conn.Close()
	}
	w.eventually("2 requests are over", func() bool { return w.logs.Len() == 2 })
	for _, entry := range w.logs.All() {
		equal(t, "code", entry.ContextMap()["code"], any("IncompleteBody"))
	}
	equal(t, "stored", len(w.stored()), 0)
}

// A client that writes all before it reads must find the answer, not a reset connection.
func TestARefusedBodyIsReadWithinBounds(t *testing.T) {
	for _, tt := range []struct {
		name     string
		size     int
		answered bool
	}{
		{"small", 100 << 10, true}, {"larger than net/http reads", 6 << 20, true}, {"too large", 64 << 20, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			r := w.request(sent{method: "PUT", path: "/bucket/k", body: "x", hash: unsigned, key: annKey, secret: "wrong"})
			conn, in := w.raw()
			_, err := io.WriteString(conn, head(r, tt.size)+strings.Repeat("x", tt.size))
			if !tt.answered {
				if err == nil {
					t.Error("all of the body was taken")
				}
				return
			}
			if err != nil {
				t.Fatalf("writing the body: %v", err)
			}
			response, err := http.ReadResponse(in, r)
			if err != nil {
				t.Fatalf("reading the answer: %v", err)
			}
			response.Body.Close()
			equal(t, "status", response.StatusCode, http.StatusForbidden)
		})
	}
}

func TestAStalledBodyIsCut(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Stall = 300 * time.Millisecond })
	for code, secret := range map[string]string{"RequestTimeout": annSecret, "SignatureDoesNotMatch": "wrong"} {
		conn, in := w.raw()
		r := w.request(sent{method: "PUT", path: "/bucket/k", body: strings.Repeat("x", 1000), hash: unsigned, key: annKey, secret: secret})
		_, _ = io.WriteString(conn, head(r, 1000)+"half")
		response, err := http.ReadResponse(in, r)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(response.Body)
		response.Body.Close()
		if !strings.Contains(string(body), "<Code>"+code+"</Code>") {
			t.Errorf("got %d %s, want %s", response.StatusCode, body, code)
		}
	}
	equal(t, "stored", len(w.stored()), 0)
}

// A slow client that makes progress lives, though the whole takes longer than the
// stall limit.
func TestASlowBodyIsNotCut(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Stall = 200 * time.Millisecond })
	conn, in := w.raw()
	r := w.request(sent{method: "PUT", path: "/bucket/k", body: "0123456789", hash: unsigned})
	_, _ = io.WriteString(conn, head(r, 10))
	for i := range 10 {
		time.Sleep(40 * time.Millisecond)
		_, _ = io.WriteString(conn, fmt.Sprint(i))
	}
	response, err := http.ReadResponse(in, r)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	equal(t, "status", response.StatusCode, 200)
	equal(t, "stored", string(w.send(sent{method: "GET", path: "/bucket/k"}).body), "0123456789")
}

func (w *world) eventually(what string, f func() bool) {
	w.t.Helper()
	for range 200 {
		if f() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	w.t.Errorf("never: %s", what)
}

func TestListingsInTheirExactShape(t *testing.T) {
	w := newWorld(t)
	w.put("a%20b", "v")
	body := string(w.send(sent{method: "GET", path: "/bucket?encoding-type=url&prefix=a%20&delimiter=%2B"}).body)
	for _, want := range []string{
		`<ListBucketResult xmlns="` + namespace + `"><Name>bucket</Name><Prefix>a%20</Prefix><Marker></Marker><MaxKeys>1000</MaxKeys><Delimiter>%2B</Delimiter><IsTruncated>false</IsTruncated><Contents><Key>a%20b</Key><LastModified>`,
		`<Size>1</Size><Owner><ID>ann</ID><DisplayName>ann</DisplayName></Owner><StorageClass>STANDARD</StorageClass><ChecksumAlgorithm>CRC64NVME</ChecksumAlgorithm><ChecksumType>FULL_OBJECT</ChecksumType></Contents><EncodingType>url</EncodingType></ListBucketResult>`,
	} {
		if !strings.Contains(body, want) {
			t.Errorf("got %s, want %s in it", body, want)
		}
	}
	none := string(w.send(sent{method: "GET", path: "/bucket?list-type=2&max-keys=0"}).body)
	if !strings.Contains(none, "<KeyCount>0</KeyCount><MaxKeys>0</MaxKeys><IsTruncated>false</IsTruncated></ListBucketResult>") {
		t.Errorf("max-keys=0: %s", none)
	}
	if clipped := string(w.send(sent{method: "GET", path: "/bucket?max-keys=5000"}).body); !strings.Contains(clipped, "<MaxKeys>1000</MaxKeys>") {
		t.Errorf("max-keys=5000: %s", clipped)
	}
}

// If-Range ties a range to a version: a client that resumes a download must not
// get the end of another object.
func TestIfRangeSendsTheWholeOfAnotherObject(t *testing.T) {
	w := newWorld(t)
	old := w.put("k", "0123456789").header.Get("Etag")
	for _, tt := range []struct {
		name, value, body string
		status            int
	}{
		{"the same", old, "6789", 206},
		{"another", `"other"`, "0123456789", 200},
		{"a date", time.Now().UTC().Format(http.TimeFormat), "0123456789", 200},
	} {
		for _, method := range []string{"GET", "HEAD"} {
			a := w.send(sent{method: method, path: "/bucket/k", header: []string{"Range: bytes=6-", "If-Range: " + tt.value}})
			equal(t, method+" "+tt.name, a.status, tt.status)
			equal(t, method+" "+tt.name+" length", a.header.Get("Content-Length"), fmt.Sprint(len(tt.body)))
			if method == "GET" {
				equal(t, tt.name, string(a.body), tt.body)
			}
		}
	}
}

// The size is known from the header: such a body must not even be begun.
func TestABodyAboveFiveGibibytesIsRefusedAtOnce(t *testing.T) {
	w := newWorld(t)
	r := w.request(sent{method: "PUT", path: "/bucket/k", body: "x", hash: unsigned})
	r.ContentLength = maxUpload + 1
	w.sign(r, sent{hash: unsigned})
	conn, in := w.raw()
	_, _ = io.WriteString(conn, head(r, maxUpload+1, "Expect: 100-continue"))
	response, err := http.ReadResponse(in, r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, _ := io.ReadAll(response.Body)
	if response.StatusCode != 400 || !strings.Contains(string(body), "<Code>EntityTooLarge</Code>") {
		t.Errorf("got %d %s", response.StatusCode, body)
	}
}

func TestABodyOfUnknownLengthIsRefused(t *testing.T) {
	w := newWorld(t)
	conn, in := w.raw()
	r := w.request(sent{method: "PUT", path: "/bucket/k", hash: unsigned})
	text := strings.Replace(head(r, 0), "Content-Length: 0", "Transfer-Encoding: chunked", 1)
	_, _ = io.WriteString(conn, text+"4\r\nbody\r\n0\r\n\r\n")
	response, err := http.ReadResponse(in, r)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	equal(t, "status", response.StatusCode, http.StatusLengthRequired)
}
