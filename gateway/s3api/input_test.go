package s3api

import (
	"crypto/md5"
	"encoding/base64"
	"hash/crc32"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

func b64(b []byte) string { return base64.StdEncoding.EncodeToString(b) }

func crc32of(s string) string {
	h := crc32.NewIEEE()
	_, _ = h.Write([]byte(s))
	return b64(h.Sum(nil))
}

func md5of(s string) string {
	sum := md5.Sum([]byte(s))
	return b64(sum[:])
}

func chunked(s string) string { return strings.ReplaceAll(s, "\n", "\r\n") }

// Whatever is wrong with a PUT: a clear error, nothing stored, and what was there
// before is there still.
func TestABadPutStoresNothingAndLosesNothing(t *testing.T) {
	const trailer = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
	long := strings.Repeat("x", 300)
	for _, tt := range []struct {
		name   string
		s      sent
		status int
		code   string
	}{
		{"wrong secret", sent{key: annKey, secret: "wrong"}, 403, "SignatureDoesNotMatch"},
		{"unknown user", sent{key: "AKIANOBODY", secret: "x"}, 403, "InvalidAccessKeyId"},
		{"another principal", sent{key: bobKey, secret: bobSecret}, 403, "AccessDenied"},
		{"another hash of the body", sent{hash: strings.Repeat("ab", 32)}, 400, "XAmzContentSHA256Mismatch"},
		{"no signature", sent{spoil: func(r *http.Request) { r.Header.Del("Authorization") }}, 403, "AccessDenied"},
		{"an old date", sent{age: 20 * time.Minute}, 403, "RequestTimeTooSkewed"},
		{"a date to come", sent{age: -20 * time.Minute}, 403, "RequestTimeTooSkewed"},
		{"another checksum", sent{header: []string{"X-Amz-Checksum-Crc32: " + crc32of("other")}}, 400, "BadDigest"},
		{"a checksum that is none", sent{header: []string{"X-Amz-Checksum-Crc32: x"}}, 400, "InvalidRequest"},
		{"a checksum of the wrong length", sent{header: []string{"X-Amz-Checksum-Sha256: " + crc32of("new")}}, 400, "InvalidRequest"},
		{"two checksums", sent{header: []string{"X-Amz-Checksum-Crc32: " + crc32of("new"), "X-Amz-Checksum-Crc32c: AAAAAA=="}}, 400, "InvalidRequest"},
		{"an unknown checksum", sent{header: []string{"X-Amz-Checksum-Crc16: AAA="}}, 400, "InvalidRequest"},
		{"a checksum cut short", sent{header: []string{"X-Amz-Checksum-Sha512: AAAA"}}, 400, "InvalidRequest"},
		{"another MD5 as a checksum", sent{header: []string{"X-Amz-Checksum-Md5: " + md5of("other")}}, 400, "BadDigest"},
		{"an algorithm without checksum", sent{header: []string{"X-Amz-Sdk-Checksum-Algorithm: CRC32"}}, 400, "InvalidRequest"},
		{"an algorithm and another checksum", sent{header: []string{"X-Amz-Sdk-Checksum-Algorithm: SHA1", "X-Amz-Checksum-Crc32: " + crc32of("new")}}, 400, "InvalidRequest"},
		{"another MD5", sent{header: []string{"Content-Md5: " + md5of("other")}}, 400, "BadDigest"},
		{"an MD5 that is none", sent{header: []string{"Content-Md5: x"}}, 400, "InvalidDigest"},
		{"a reserved name", sent{path: "/bucket/.chatelaine/keys/x"}, 403, "AccessDenied"},
		{"a key of 1025 bytes", sent{path: "/bucket/" + strings.Repeat("k", 1025)}, 400, "KeyTooLongError"},
		{"a key that is not UTF-8", sent{path: "/bucket/%ff"}, 400, "InvalidURI"},
		{"oversized metadata", sent{header: []string{"X-Amz-Meta-A: " + strings.Repeat("v", 2048)}}, 400, "MetadataTooLarge"},
		{"metadata that does not fit into the envelope", sent{header: []string{"X-Amz-Meta-A: " + strings.Repeat("v", 1900)}}, 400, "MetadataTooLarge"},
		{"metadata of the gateway's name", sent{header: []string{"X-Amz-Meta-Cho1: 1.x"}}, 400, "InvalidArgument"},
		{"no such bucket", sent{path: "/nothing/k"}, 404, "NoSuchBucket"},
		{"no bucket's name", sent{path: "/X/k"}, 400, "InvalidBucketName"},
		{"another owner expected", sent{header: []string{"X-Amz-Expected-Bucket-Owner: bob"}}, 403, "AccessDenied"},
		{"the owner by another's access key", sent{header: []string{"X-Amz-Expected-Bucket-Owner: " + bobKey}}, 403, "AccessDenied"},
		{"a public ACL", sent{header: []string{"X-Amz-Acl: public-read"}}, 400, "AccessControlListNotSupported"},
		{"an unknown ACL", sent{header: []string{"X-Amz-Acl: nonsense"}}, 400, "InvalidArgument"},
		{"a grant", sent{header: []string{"X-Amz-Grant-Read: id=x"}}, 400, "AccessControlListNotSupported"},
		{"a cold class", sent{header: []string{"X-Amz-Storage-Class: GLACIER"}}, 501, "NotImplemented"},
		{"an unknown class", sent{header: []string{"X-Amz-Storage-Class: NONSENSE"}}, 400, "InvalidStorageClass"},
		{"a tag twice", sent{header: []string{"X-Amz-Tagging: a=b&a=c"}}, 400, "InvalidArgument"},
		{"a tag that is none", sent{header: []string{"X-Amz-Tagging: a%"}}, 400, "InvalidArgument"},
		{"a tag without a key", sent{header: []string{"X-Amz-Tagging: =b"}}, 400, "InvalidArgument"},
		{"a tag's key of other characters", sent{header: []string{"X-Amz-Tagging: a!=b"}}, 400, "InvalidTag"},
		{"a tag's value of other characters", sent{header: []string{"X-Amz-Tagging: a=(b)"}}, 400, "InvalidTag"},
		{"a tag of the system", sent{header: []string{"X-Amz-Tagging: aws:a=b"}}, 400, "InvalidTag"},
		{"a long tag", sent{header: []string{"X-Amz-Tagging: a=" + long}}, 400, "InvalidTag"},
		{"eleven tags", sent{header: []string{"X-Amz-Tagging: a&b&c&d&e&f&g&h&i&j&k"}}, 400, "BadRequest"},
		{"half a lock", sent{header: []string{"X-Amz-Object-Lock-Mode: GOVERNANCE"}}, 400, "InvalidArgument"},
		{"the other half", sent{header: []string{"X-Amz-Object-Lock-Retain-Until-Date: 2100-01-01T00:00:00Z"}}, 400, "InvalidArgument"},
		{"an unknown lock", sent{header: []string{"X-Amz-Object-Lock-Mode: x", "X-Amz-Object-Lock-Retain-Until-Date: 2100-01-01T00:00:00Z"}}, 400, "InvalidArgument"},
		{"a lock that has ended", sent{header: []string{"X-Amz-Object-Lock-Mode: GOVERNANCE", "X-Amz-Object-Lock-Retain-Until-Date: 2000-01-01T00:00:00Z"}}, 400, "InvalidArgument"},
		{"an unknown hold", sent{header: []string{"X-Amz-Object-Lock-Legal-Hold: x"}}, 400, "InvalidArgument"},
		{"a lock without a checksum", sent{header: []string{"X-Amz-Object-Lock-Legal-Hold: ON"}}, 400, "InvalidRequest"},
		{"a lock in a bucket without", sent{header: []string{"X-Amz-Object-Lock-Legal-Hold: ON", "Content-Md5: " + md5of("new")}}, 400, "InvalidRequest"},
		{"a customer's key", sent{header: []string{"X-Amz-Server-Side-Encryption-Customer-Algorithm: AES256"}}, 501, "NotImplemented"},
		{"an encryption context", sent{header: []string{"X-Amz-Server-Side-Encryption-Context: e30="}}, 501, "NotImplemented"},
		{"another KMS key", sent{header: []string{"X-Amz-Server-Side-Encryption: aws:kms", "X-Amz-Server-Side-Encryption-Aws-Kms-Key-Id: other"}}, 501, "NotImplemented"},
		{"an unknown encryption", sent{header: []string{"X-Amz-Server-Side-Encryption: rot13"}}, 400, "InvalidArgument"},
		{"a redirect to nowhere", sent{header: []string{"X-Amz-Website-Redirect-Location: ftp://x"}}, 400, "InvalidRedirectLocation"},
		{"an empty redirect", sent{header: []string{"X-Amz-Website-Redirect-Location: "}}, 400, "InvalidRedirectLocation"},
		{"a long redirect", sent{header: []string{"X-Amz-Website-Redirect-Location: /" + strings.Repeat("x", 2048)}}, 400, "MetadataTooLarge"},
		{"a redirect that does not fit into the envelope", sent{header: []string{"X-Amz-Website-Redirect-Location: /" + strings.Repeat("x", 2000)}}, 400, "MetadataTooLarge"},
		{"an offset", sent{header: []string{"X-Amz-Write-Offset-Bytes: 3"}}, 501, "NotImplemented"},
		{"a header that does not exist", sent{header: []string{"X-Amz-Brand-New: 1"}}, 501, "NotImplemented"},
		{"a header twice", sent{header: []string{"X-Amz-Storage-Class: STANDARD", "X-Amz-Storage-Class: GLACIER"}}, 400, "InvalidRequest"},
		{"a copy onto itself", sent{header: []string{"X-Amz-Copy-Source: /bucket/k"}}, 400, "InvalidRequest"},
		{"If-None-Match with a tag", sent{header: []string{`If-None-Match: "x"`}}, 501, "NotImplemented"},
		{"If-Match and If-None-Match", sent{header: []string{`If-Match: "x"`, "If-None-Match: *"}}, 501, "NotImplemented"},
		{"If-None-Match on what is there", sent{header: []string{"If-None-Match: *"}}, 412, "PreconditionFailed"},
		{"If-Match of another", sent{header: []string{`If-Match: "x"`}}, 412, "PreconditionFailed"},
		{"a session token", sent{header: []string{"X-Amz-Security-Token: t"}}, 400, "InvalidToken"},
		{"chunks without decoded length", sent{hash: trailer, body: chunked("3\nnew\n0\n\n")}, 411, "MissingContentLength"},
		{"chunks cut short", sent{hash: trailer, header: []string{"X-Amz-Decoded-Content-Length: 3"}, body: chunked("3\nnew\n0\n")}, 400, "IncompleteBody"},
		{"chunks of another length", sent{hash: trailer, header: []string{"X-Amz-Decoded-Content-Length: 9"}, body: chunked("3\nnew\n0\n\n")}, 400, "IncompleteBody"},
		{"small chunks", sent{hash: trailer, header: []string{"X-Amz-Decoded-Content-Length: 600"}, body: chunked("12c\n" + long + "\n12c\n" + long + "\n0\n\n")}, 400, "InvalidChunkSizeError"},
		{"another trailer", sent{hash: trailer, header: []string{"X-Amz-Decoded-Content-Length: 3", "X-Amz-Trailer: x-amz-checksum-crc32"}, body: chunked("3\nnew\n0\nx-amz-checksum-sha1:x\n\n")}, 400, "MalformedTrailerError"},
		{"a wrong trailer", sent{hash: trailer, header: []string{"X-Amz-Decoded-Content-Length: 3", "X-Amz-Trailer: x-amz-checksum-crc32"}, body: chunked("3\nnew\n0\nx-amz-checksum-crc32:" + crc32of("other") + "\n\n")}, 400, "BadDigest"},
		{"a trailer that is no checksum", sent{hash: trailer, header: []string{"X-Amz-Decoded-Content-Length: 3", "X-Amz-Trailer: x-amz-checksum-crc32"}, body: chunked("3\nnew\n0\nx-amz-checksum-crc32:x\n\n")}, 400, "InvalidRequest"},
		{"a trailer that is not supported", sent{hash: trailer, header: []string{"X-Amz-Decoded-Content-Length: 3", "X-Amz-Trailer: expires"}, body: chunked("3\nnew\n0\nexpires:x\n\n")}, 400, "InvalidRequest"},
		{"a trailer and a header", sent{hash: trailer, header: []string{"X-Amz-Checksum-Crc32: " + crc32of("new"), "X-Amz-Decoded-Content-Length: 3", "X-Amz-Trailer: x-amz-checksum-sha1"}, body: chunked("3\nnew\n0\nx-amz-checksum-sha1:x\n\n")}, 400, "InvalidRequest"},
		{"aws-chunked that is not", sent{hash: unsigned, header: []string{"Content-Encoding: aws-chunked"}}, 400, "InvalidArgument"},
		{"partNumber alone", sent{path: "/bucket/k?partNumber=1"}, 400, "InvalidArgument"},
		{"an unknown upload", sent{path: "/bucket/k?partNumber=1&uploadId=none"}, 404, "NoSuchUpload"},
		{"part 0", sent{path: "/bucket/k?partNumber=0&uploadId=none"}, 400, "InvalidArgument"},
		{"part 10001", sent{path: "/bucket/k?partNumber=10001&uploadId=none"}, 400, "InvalidArgument"},
		{"part 10000 of an unknown upload", sent{path: "/bucket/k?partNumber=10000&uploadId=none"}, 404, "NoSuchUpload"},
		{"an unknown sub-resource", sent{path: "/bucket/k?annotation"}, 501, "NotImplemented"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			w.put("k", "old")
			tt.s.method = "PUT"
			if tt.s.path == "" {
				tt.s.path = "/bucket/k"
			}
			if tt.s.body == "" {
				tt.s.body = "new"
			}
			a := w.send(tt.s)
			w.wants(a, tt.status, tt.code)
			if a.fault.Message == "" && tt.name != "an unknown ACL" || a.fault.RequestID != a.header.Get("X-Amz-Request-Id") || a.fault.Resource == "" {
				t.Errorf("the error does not say enough: %s", a.body)
			}
			equal(t, "stored", strings.Join(w.stored(), " "), "k")
			equal(t, "what was there", string(w.send(sent{method: "GET", path: "/bucket/k"}).body), "old")
		})
	}
}

func TestGoodPutsInEveryForm(t *testing.T) {
	const trailer = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
	for _, tt := range []struct {
		name string
		s    sent
	}{
		{"hash", sent{}},
		{"unsigned", sent{hash: unsigned}},
		{"checksum in the header", sent{header: []string{"X-Amz-Checksum-Crc32: " + crc32of("new"), "X-Amz-Sdk-Checksum-Algorithm: crc32"}}},
		{"Content-MD5", sent{header: []string{"Content-Md5: " + md5of("new")}}},
		{"trailer", sent{hash: trailer, header: []string{"Content-Encoding: aws-chunked", "X-Amz-Decoded-Content-Length: 3", "X-Amz-Trailer: x-amz-checksum-crc32"}, body: chunked("3\nnew\n0\nx-amz-checksum-crc32:" + crc32of("new") + "\n\n")}},
		{"chunks without trailer", sent{hash: trailer, header: []string{"X-Amz-Decoded-Content-Length: 3"}, body: chunked("3\nnew\n0\n\n")}},
		{"what changes nothing", sent{header: []string{
			"X-Amz-Acl: bucket-owner-full-control", "X-Amz-Storage-Class: STANDARD", "X-Amz-Server-Side-Encryption: aws:kms",
			"X-Amz-Expected-Bucket-Owner: ann", "X-Amz-Request-Payer: requester", "X-Amz-Server-Side-Encryption-Bucket-Key-Enabled: true",
		}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			tt.s.method, tt.s.path = "PUT", "/bucket/k"
			if tt.s.body == "" {
				tt.s.body = "new"
			}
			a := w.send(tt.s)
			w.wants(a, http.StatusOK, "")
			if a.header.Get("Etag") == "" || a.header.Get("X-Amz-Checksum-Type") != "FULL_OBJECT" {
				t.Errorf("the answer lacks something: %v", a.header)
			}
			got := w.send(sent{method: "GET", path: "/bucket/k"})
			equal(t, "stored", string(got.body), "new")
			equal(t, "encoding", got.header.Get("Content-Encoding"), "")
			equal(t, "type", got.header.Get("Content-Type"), "binary/octet-stream")
		})
	}
}

// A body that ends early must leave nothing, whatever its size: the last batch of
// sealed bytes is held back until all is known.
func TestALargeBodyWithAWrongChecksumLeavesNothing(t *testing.T) {
	w := newWorld(t)
	for _, size := range []int{1, 262144, 262145, 5 << 20} {
		body := string(noise(size))
		w.wants(w.send(sent{method: "PUT", path: "/bucket/k", body: body, hash: strings.Repeat("0", 64)}), 400, "XAmzContentSHA256Mismatch")
		w.wants(w.send(sent{method: "PUT", path: "/bucket/k", body: body, header: []string{"X-Amz-Checksum-Crc32: AAAAAA=="}}), 400, "BadDigest")
		equal(t, "stored", len(w.stored()), 0)
	}
}

func TestBadXMLIsRefused(t *testing.T) {
	w := newWorld(t)
	w.put("k", "old")
	entry := "<Object><Key>k</Key></Object>"
	for _, tt := range []struct {
		name, body string
		status     int
		code       string
	}{
		{"nothing", "", 400, "MalformedXML"},
		{"no XML", "{}", 400, "MalformedXML"},
		{"another root", "<Erase>" + entry + "</Erase>", 400, "MalformedXML"},
		{"not closed", "<Delete>" + entry, 400, "MalformedXML"},
		{"no objects", "<Delete></Delete>", 400, "MalformedXML"},
		{"an object without key", "<Delete><Object/></Delete>", 400, "MalformedXML"},
		{"something behind", "<Delete>" + entry + "</Delete><More/>", 400, "MalformedXML"},
		{"text behind", "<Delete>" + entry + "</Delete>more", 400, "MalformedXML"},
		{"an entity", `<!DOCTYPE d [<!ENTITY x "k">]><Delete><Object><Key>&x;</Key></Object></Delete>`, 400, "MalformedXML"},
		{"a document type", "<!DOCTYPE d><Delete>" + entry + "</Delete>", 400, "MalformedXML"},
		{"1001 keys", "<Delete>" + strings.Repeat(entry, 1001) + "</Delete>", 400, "MalformedXML"},
		{"3 MB", "<Delete>" + strings.Repeat(" ", 3<<20) + entry + "</Delete>", 400, "MaxMessageLengthExceeded"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := w.send(sent{method: "POST", path: "/bucket?delete", body: tt.body, header: []string{"Content-Md5: " + md5of(tt.body)}})
			w.wants(a, tt.status, tt.code)
		})
	}
	good := `<?xml version="1.0"?><!-- c --><Delete xmlns="http://s3.amazonaws.com/doc/2006-03-01/">` + entry + "</Delete>\n"
	w.wants(w.send(sent{method: "POST", path: "/bucket?delete", body: good}), 400, "InvalidRequest")
	w.wants(w.send(sent{method: "POST", path: "/bucket?delete", body: good, header: []string{"Content-Md5: " + md5of("x")}}), 400, "BadDigest")
	equal(t, "stored", strings.Join(w.stored(), " "), "k")
	w.wants(w.send(sent{method: "POST", path: "/bucket?delete", body: good, header: []string{"Content-Md5: " + md5of(good)}}), 200, "")
	equal(t, "left", len(w.stored()), 0)
}

func TestBadCompletesAreRefused(t *testing.T) {
	w := newWorld(t)
	c := w.s3()
	bucket, key := "bucket", "big"
	create, err := c.CreateMultipartUpload(t.Context(), &s3.CreateMultipartUploadInput{Bucket: &bucket, Key: &key, ChecksumAlgorithm: types.ChecksumAlgorithmCrc32})
	if err != nil {
		t.Fatal(err)
	}
	parts := uploadParts(t, c, *create.UploadId, types.ChecksumAlgorithmCrc32, noise(5<<20), noise(10))
	one := "<Part><PartNumber>1</PartNumber><ETag>" + *parts[0].ETag + "</ETag><ChecksumCRC32>" + *parts[0].ChecksumCRC32 + "</ChecksumCRC32></Part>"
	two := "<Part><PartNumber>2</PartNumber><ETag>" + *parts[1].ETag + "</ETag><ChecksumCRC32>" + *parts[1].ChecksumCRC32 + "</ChecksumCRC32></Part>"
	wrap := func(s string) string { return "<CompleteMultipartUpload>" + s + "</CompleteMultipartUpload>" }
	for _, tt := range []struct {
		name, body string
		header     []string
		status     int
		code       string
	}{
		{"nothing", "", nil, 400, "MalformedXML"},
		{"no parts", wrap(""), nil, 400, "MalformedXML"},
		{"no number", wrap("<Part><ETag>x</ETag></Part>"), nil, 400, "MalformedXML"},
		{"no ETag", wrap("<Part><PartNumber>1</PartNumber></Part>"), nil, 400, "MalformedXML"},
		{"part 0", wrap("<Part><PartNumber>0</PartNumber><ETag>x</ETag></Part>"), nil, 400, "InvalidArgument"},
		{"the wrong order", wrap(two + one), nil, 400, "InvalidPartOrder"},
		{"another ETag", wrap(strings.Replace(one, "<ETag>", "<ETag>x", 1)), nil, 400, "InvalidPart"},
		{"another checksum", wrap(one + strings.Replace(two, *parts[1].ChecksumCRC32, "AAAAAA==", 1)), nil, 400, "InvalidPart"},
		{"no checksum", wrap(one + two[:strings.Index(two, "<Checksum")] + "</Part>"), nil, 400, "InvalidRequest"},
		{"a checksum that is none", wrap(strings.Replace(one, *parts[0].ChecksumCRC32, "?", 1)), nil, 400, "InvalidArgument"},
		{"two checksums", wrap(strings.Replace(one, "<ChecksumCRC32>", "<ChecksumCRC32C>AAAAAA==</ChecksumCRC32C><ChecksumCRC32>", 1)), nil, 400, "InvalidArgument"},
		{"a second checksum that is none", wrap(strings.Replace(one, "</Part>", "<ChecksumSHA512>AAAA</ChecksumSHA512></Part>", 1)), nil, 400, "InvalidArgument"},
		{"a checksum by another algorithm", wrap(strings.ReplaceAll(one, "ChecksumCRC32", "ChecksumCRC32C") + two), nil, 400, "BadDigest"},
		{"another type", wrap(one + two), []string{"X-Amz-Checksum-Type: FULL_OBJECT"}, 400, "InvalidRequest"},
		{"another checksum of the whole", wrap(one + two), []string{"X-Amz-Checksum-Crc32: AAAAAA==-2"}, 400, "BadDigest"},
		{"a checksum of the whole that is none", wrap(one + two), []string{"X-Amz-Checksum-Crc32: x"}, 400, "InvalidRequest"},
		{"two checksums of the whole", wrap(one + two), []string{"X-Amz-Checksum-Crc32: AAAAAA==-2", "X-Amz-Checksum-Crc32c: AAAAAA=="}, 400, "InvalidRequest"},
		{"another size", wrap(one + two), []string{"X-Amz-Mp-Object-Size: 7"}, 400, "InvalidRequest"},
		{"a negative size", wrap(one + two), []string{"X-Amz-Mp-Object-Size: -7"}, 400, "InvalidRequest"},
		{"an unknown type", wrap(one + two), []string{"X-Amz-Checksum-Type: HALF"}, 400, "InvalidRequest"},
		{"a condition that does not hold", wrap(one + two), []string{`If-Match: "x"`}, 404, "NoSuchKey"},
		{"10001 parts", wrap(strings.Repeat(one[:strings.Index(one, "<ETag>")]+"<ETag>x</ETag></Part>", 10001)), nil, 400, "MalformedXML"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := w.send(sent{method: "POST", path: "/bucket/big?uploadId=" + *create.UploadId, body: tt.body, header: tt.header})
			w.wants(a, tt.status, tt.code)
			equal(t, "stored", len(w.stored()), 0)
		})
	}
	a := w.send(sent{method: "POST", path: "/bucket/big?uploadId=" + *create.UploadId, body: wrap(one + two)})
	w.wants(a, 200, "")
	if !strings.Contains(string(a.body), "<ChecksumType>COMPOSITE</ChecksumType>") {
		t.Errorf("got %s", a.body)
	}
}

func TestBadUploadsAreRefused(t *testing.T) {
	w := newWorld(t)
	for _, tt := range []struct {
		name   string
		header []string
		status int
		code   string
	}{
		{"an unknown algorithm", []string{"X-Amz-Checksum-Algorithm: CRC16"}, 400, "InvalidRequest"},
		{"XXHASH64 of the whole", []string{"X-Amz-Checksum-Algorithm: XXHASH64", "X-Amz-Checksum-Type: FULL_OBJECT"}, 400, "InvalidRequest"},
		{"a type alone", []string{"X-Amz-Checksum-Type: COMPOSITE"}, 400, "InvalidRequest"},
		{"an unknown type", []string{"X-Amz-Checksum-Algorithm: CRC32", "X-Amz-Checksum-Type: HALF"}, 400, "InvalidRequest"},
		{"SHA1 of the whole", []string{"X-Amz-Checksum-Algorithm: SHA1", "X-Amz-Checksum-Type: FULL_OBJECT"}, 400, "InvalidRequest"},
		{"composite CRC64NVME", []string{"X-Amz-Checksum-Algorithm: CRC64NVME", "X-Amz-Checksum-Type: COMPOSITE"}, 400, "InvalidRequest"},
		{"bad tags", []string{"X-Amz-Tagging: a=b&a=c"}, 400, "InvalidArgument"},
		{"a lock in a bucket without", []string{"X-Amz-Object-Lock-Legal-Hold: ON"}, 400, "InvalidRequest"},
		{"oversized metadata", []string{"X-Amz-Meta-A: " + strings.Repeat("v", 2048)}, 400, "MetadataTooLarge"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w.wants(w.send(sent{method: "POST", path: "/bucket/k?uploads", header: tt.header}), tt.status, tt.code)
		})
	}
}
