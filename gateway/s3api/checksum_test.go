package s3api

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"chatelaine/gateway/objects"
)

func sumOf(a objects.Algorithm, text string) string {
	h := a.NewHash()
	h.Write([]byte(text))
	return base64.StdEncoding.EncodeToString(h.Sum(nil))
}

// A way is how a checksum may come with an object of the text "abcdefg".
func ways() map[string]func(w *world, header, value string) answer {
	const text = "abcdefg"
	put := func(path string) func(w *world, header, value string) answer {
		return func(w *world, header, value string) answer {
			return w.send(sent{method: "PUT", path: path, body: text, header: []string{header + ": " + value}})
		}
	}
	return map[string]func(w *world, header, value string) answer{
		"header": put("/bucket/k"),
		"trailer": func(w *world, header, value string) answer {
			return w.send(sent{
				method: "PUT", path: "/bucket/k", hash: "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
				header: []string{"X-Amz-Decoded-Content-Length: 7", "X-Amz-Trailer: " + header},
				body:   "7\r\n" + text + "\r\n0\r\n" + header + ":" + value + "\r\n\r\n",
			})
		},
		"form": func(w *world, header, value string) answer {
			return w.post(form{fields: map[string]string{"key": "k", header: value}, file: text})
		},
		"part": func(w *world, header, value string) answer {
			id := w.create("X-Amz-Checksum-Algorithm: " + strings.TrimPrefix(header, checksumPrefix))
			return put("/bucket/k?partNumber=1&uploadId="+id)(w, header, value)
		},
		"part without": func(w *world, header, value string) answer { // an upload that was asked for nothing
			return put("/bucket/k?partNumber=1&uploadId="+w.create())(w, header, value)
		},
	}
}

// create begins an upload of the key "k" and returns its id.
func (w *world) create(header ...string) string {
	w.t.Helper()
	a := w.send(sent{method: "POST", path: "/bucket/k?uploads", header: header})
	w.wants(a, 200, "")
	return between(string(a.body), "<UploadId>", "</UploadId>")
}

func between(text, first, last string) string {
	_, text, _ = strings.Cut(text, first)
	text, _, _ = strings.Cut(text, last)
	return text
}

func TestEveryChecksumIsVerifiedWhicheverWayItComes(t *testing.T) {
	for way, send := range ways() {
		t.Run(way, func(t *testing.T) {
			w := newWorld(t)
			for _, a := range objects.Algorithms() {
				header := checksumHeader(a)
				right := sumOf(a, "abcdefg")
				for _, tt := range []struct{ value, code string }{
					{sumOf(a, "abcdefh"), "BadDigest"},
					{"invalid", "InvalidRequest"},
					{"c2hvcnQ=", "InvalidRequest"}, // of no algorithm's length
				} {
					w.wants(send(w, header, tt.value), 400, tt.code)
				}
				equal(t, "stored after wrong ones", fmt.Sprint(w.stored()), "[]")
				got := send(w, header, right)
				if got.status >= 300 {
					t.Fatalf("%s: got %d %s", a, got.status, got.body)
				}
				if way == "part without" {
					header, right = checksumHeader(objects.CRC64NVME), sumOf(objects.CRC64NVME, "abcdefg")
				}
				equal(t, string(a), got.header.Get(header), right)
				if strings.HasPrefix(way, "part") {
					continue
				}
				head := w.send(sent{method: "HEAD", path: "/bucket/k", header: []string{"X-Amz-Checksum-Mode: ENABLED"}})
				equal(t, "HEAD's "+string(a), head.header.Get(header), right)
				equal(t, "type", head.header.Get(checksumTypeHeader), "FULL_OBJECT")
				attributes := w.send(sent{method: "GET", path: "/bucket/k?attributes", header: []string{"X-Amz-Object-Attributes: Checksum"}})
				element := "Checksum" + string(a)
				equal(t, "GetObjectAttributes", between(string(attributes.body), "<"+element+">", "</"+element+">"), right)
				w.wants(w.send(sent{method: "DELETE", path: "/bucket/k"}), 204, "")
			}
		})
	}
}

func TestCopiesComeWithTheChecksumAskedFor(t *testing.T) {
	w := newWorld(t)
	w.put("source", "data", "X-Amz-Checksum-Sha1: "+sumOf(objects.SHA1, "data"))
	for _, a := range objects.Algorithms() {
		element := "Checksum" + string(a)
		whole := w.copy("/bucket/whole", "bucket/source", "X-Amz-Checksum-Algorithm: "+string(a))
		equal(t, "CopyObject's "+element, between(string(whole.body), "<"+element+">", "</"+element+">"), sumOf(a, "data"))
		id := w.create("X-Amz-Checksum-Algorithm: " + string(a))
		part := w.copy("/bucket/k?partNumber=1&uploadId="+id, "bucket/source")
		equal(t, "UploadPartCopy's "+element, between(string(part.body), "<"+element+">", "</"+element+">"), sumOf(a, "data"))
		if n := strings.Count(string(part.body), "<Checksum"); n != 1 {
			t.Errorf("%s: %d checksum elements in %s", a, n, part.body)
		}
	}
	part := w.copy("/bucket/k?partNumber=1&uploadId="+w.create(), "bucket/source")
	w.wants(part, 200, "")
	if strings.Contains(string(part.body), "Checksum") {
		t.Errorf("nothing was asked for: got %s", part.body)
	}
}

func TestTheTypeOfAChecksumFollowsFromTheAlgorithm(t *testing.T) {
	w := newWorld(t)
	for _, a := range objects.Algorithms() {
		kinds := map[string]string{"": "COMPOSITE", "composite": "COMPOSITE", "Full_Object": ""}
		switch a {
		case objects.CRC32, objects.CRC32C:
			kinds["Full_Object"] = "FULL_OBJECT"
		case objects.CRC64NVME:
			kinds = map[string]string{"": "FULL_OBJECT", "composite": "", "Full_Object": "FULL_OBJECT"}
		}
		for kind, want := range kinds {
			header := []string{"X-Amz-Checksum-Algorithm: " + strings.ToLower(string(a))}
			if kind != "" {
				header = append(header, "X-Amz-Checksum-Type: "+kind)
			}
			got := w.send(sent{method: "POST", path: "/bucket/k?uploads", header: header})
			if want == "" {
				w.wants(got, 400, "InvalidRequest")
				equal(t, "message", got.fault.Message, "The "+strings.ToUpper(kind)+" checksum type cannot be used with the "+strings.ToLower(string(a))+" checksum algorithm.")
				continue
			}
			w.wants(got, 200, "")
			equal(t, string(a)+" "+kind, got.header.Get(checksumTypeHeader), want)
			equal(t, "algorithm", got.header.Get("X-Amz-Checksum-Algorithm"), string(a))
		}
	}
}

func TestPartsOfUploadsThatAskForAChecksum(t *testing.T) {
	w := newWorld(t)
	const mismatch = "Checksum Type mismatch occurred, expected checksum Type: "
	for _, tt := range []struct {
		name, upload, part, want string
	}{
		{"another", "X-Amz-Checksum-Algorithm: CRC32", "X-Amz-Checksum-Sha256: " + sumOf(objects.SHA256, "data"), mismatch + "CRC32, actual checksum Type: SHA256"},
		{"none", "X-Amz-Checksum-Algorithm: XXHASH3", "X-Amz-Meta-A: b", mismatch + "XXHASH3, actual checksum Type: null"},
		{"two", "X-Amz-Checksum-Algorithm: CRC32", "X-Amz-Checksum-Crc32: \nX-Amz-Checksum-Sha1: ", "Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed."},
		{"an empty one", "X-Amz-Checksum-Algorithm: MD5", "X-Amz-Checksum-Md5: ", "Value for x-amz-checksum-md5 header is invalid."},
	} {
		header := strings.Split(tt.part, "\n")
		if header[0] == "X-Amz-Meta-A: b" {
			header = nil
		}
		a := w.send(sent{method: "PUT", path: "/bucket/k?partNumber=1&uploadId=" + w.create(tt.upload), body: "data", header: header})
		w.wants(a, 400, "InvalidRequest")
		equal(t, tt.name, a.fault.Message, tt.want)
	}
}

func TestCompleteSaysWhichRuleIsBroken(t *testing.T) {
	w := newWorld(t)
	id := w.create("X-Amz-Checksum-Algorithm: SHA1")
	part := w.send(sent{method: "PUT", path: "/bucket/k?partNumber=1&uploadId=" + id, body: "data", header: []string{"X-Amz-Checksum-Sha1: " + sumOf(objects.SHA1, "data")}})
	w.wants(part, 200, "")
	list := func(checksums string) string {
		return "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>" + part.header.Get("Etag") + "</ETag>" + checksums + "</Part></CompleteMultipartUpload>"
	}
	right := "<ChecksumSHA1>" + sumOf(objects.SHA1, "data") + "</ChecksumSHA1>"
	other := "<ChecksumXXHASH64>" + sumOf(objects.XXHASH64, "data") + "</ChecksumXXHASH64>"
	for _, tt := range []struct{ name, list, header, code, message string }{
		{"missing", "", "", "InvalidRequest", "The upload was created using a sha1 checksum. The complete request must include the checksum for each part. It was missing for part 1 in the request."},
		{"another", other, "", "BadDigest", "The xxhash64 you specified for part 1 did not match what we received."},
		{"two", right + other, "", "InvalidArgument", "Invalid Base64 or multiple checksums present in request"},
		{"the type", right, "X-Amz-Checksum-Type: FULL_OBJECT", "InvalidRequest", "The upload was created using the COMPOSITE checksum mode. The complete request must use the same checksum mode."},
		{"the whole", right, "X-Amz-Checksum-Sha1: " + sumOf(objects.SHA1, "data"), "BadDigest", "The SHA1 you specified did not match the calculated checksum."},
		{"no whole", right, "X-Amz-Checksum-Sha1: x-1", "InvalidRequest", "Value for x-amz-checksum-sha1 header is invalid."},
	} {
		var header []string
		if tt.header != "" {
			header = []string{tt.header}
		}
		a := w.send(sent{method: "POST", path: "/bucket/k?uploadId=" + id, body: list(tt.list), header: header})
		w.wants(a, 400, tt.code)
		equal(t, tt.name, a.fault.Message, tt.message)
		equal(t, "stored", len(w.stored()), 0)
	}
	h := objects.SHA1.NewHash()
	first := objects.SHA1.NewHash()
	first.Write([]byte("data"))
	h.Write(first.Sum(nil))
	whole := base64.StdEncoding.EncodeToString(h.Sum(nil)) + "-1"
	a := w.send(sent{method: "POST", path: "/bucket/k?uploadId=" + id, body: list(right), header: []string{"X-Amz-Checksum-Sha1: " + whole, "X-Amz-Checksum-Type: COMPOSITE"}})
	w.wants(a, 200, "")
	equal(t, "the whole", between(string(a.body), "<ChecksumSHA1>", "</ChecksumSHA1>"), whole)
}

func TestTheSizeOfAnUploadIsCompared(t *testing.T) {
	w := newWorld(t)
	id := w.create()
	part := w.send(sent{method: "PUT", path: "/bucket/k?partNumber=1&uploadId=" + id, body: "data"})
	list := "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>" + part.header.Get("Etag") + "</ETag></Part></CompleteMultipartUpload>"
	a := w.send(sent{method: "POST", path: "/bucket/k?uploadId=" + id, body: list, header: []string{"X-Amz-Mp-Object-Size: 7"}})
	w.wants(a, 400, "InvalidRequest")
	equal(t, "message", a.fault.Message, "The provided 'x-amz-mp-object-size' header value 7 does not match what was computed: 4")
	w.wants(w.send(sent{method: "POST", path: "/bucket/k?uploadId=" + id, body: list, header: []string{"X-Amz-Mp-Object-Size: 4"}}), 200, "")
}

func TestTheOnlyPartOfAnObjectHasItsChecksum(t *testing.T) {
	w := newWorld(t)
	sum := sumOf(objects.SHA256, "")
	w.put("empty", "", "X-Amz-Checksum-Sha256: "+sum)
	large := string(noise(300 << 10)) // whose checksum lies in the trailer
	w.put("large", large)
	id := w.create("X-Amz-Checksum-Algorithm: CRC32", "X-Amz-Checksum-Type: FULL_OBJECT")
	part := w.send(sent{method: "PUT", path: "/bucket/k?partNumber=1&uploadId=" + id, body: "data"})
	list := "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>" + part.header.Get("Etag") + "</ETag></Part></CompleteMultipartUpload>"
	w.wants(w.send(sent{method: "POST", path: "/bucket/k?uploadId=" + id, body: list}), 200, "")
	for _, method := range []string{"GET", "HEAD"} {
		for _, tt := range []struct{ path, header, want string }{
			{"/bucket/empty?partNumber=1", "X-Amz-Checksum-Sha256", sum},
			{"/bucket/large?partNumber=1", "X-Amz-Checksum-Crc64nvme", sumOf(objects.CRC64NVME, large)},
			{"/bucket/k", "X-Amz-Checksum-Crc32", crc32of("data")},
			{"/bucket/k?partNumber=1", "X-Amz-Checksum-Crc32", ""}, // that of a real part is not kept
		} {
			a := w.send(sent{method: method, path: tt.path, header: []string{"X-Amz-Checksum-Mode: ENABLED"}})
			equal(t, method+" "+tt.path, a.header.Get(tt.header), tt.want)
		}
	}
}

// SDKs presign a PUT with the checksum of no body at all, unless they are told another.
func TestPresignedChecksumsOfNothingAreIgnored(t *testing.T) {
	w := newWorld(t)
	for _, tt := range []struct {
		name  string
		query string
		body  string
		code  string
	}{
		{"of nothing", "x-amz-checksum-crc32=AAAAAA%3D%3D&x-amz-sdk-checksum-algorithm=CRC32", "data", ""},
		{"of nothing, in capitals", "X-Amz-Checksum-Xxhash3=" + url.QueryEscape(sumOf(objects.XXHASH3, "")), "data", ""},
		{"of nothing, and nothing comes", "x-amz-checksum-crc32=AAAAAA%3D%3D&x-amz-sdk-checksum-algorithm=CRC32", "", ""},
		{"of the body", "x-amz-checksum-sha256=" + url.QueryEscape(sumOf(objects.SHA256, "data")), "data", ""},
		{"of another body", "x-amz-checksum-sha256=" + url.QueryEscape(sumOf(objects.SHA256, "other")), "data", "BadDigest"},
		{"none", "x-amz-checksum-sha256=x", "data", "InvalidRequest"},
		{"an algorithm alone", "x-amz-sdk-checksum-algorithm=CRC32", "data", "InvalidRequest"},
		{"of nothing, twice", "x-amz-checksum-crc32=AAAAAA%3D%3D&x-amz-checksum-crc32=AAAAAA%3D%3D", "data", "InvalidRequest"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPut, w.server.URL+"/bucket/k?"+tt.query+"&X-Amz-Expires=60", nil)
			if err != nil {
				t.Fatal(err)
			}
			signer := v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = true })
			address, _, err := signer.PresignHTTP(t.Context(), aws.Credentials{AccessKeyID: annKey, SecretAccessKey: annSecret}, r, unsigned, "s3", region, time.Now())
			if err != nil {
				t.Fatal(err)
			}
			if r, err = http.NewRequestWithContext(t.Context(), http.MethodPut, address, strings.NewReader(tt.body)); err != nil {
				t.Fatal(err)
			}
			status := 400
			if tt.code == "" {
				status = 200
			}
			w.wants(w.do(r), status, tt.code)
		})
	}
	// In a header it speaks of this very body.
	w.wants(w.send(sent{method: "PUT", path: "/bucket/k", body: "data", header: []string{"X-Amz-Checksum-Crc32: AAAAAA=="}}), 400, "BadDigest")
}

func TestAWrongMD5IsToldAsS3Does(t *testing.T) {
	w := newWorld(t)
	a := w.send(sent{method: "PUT", path: "/bucket/k", body: "data", header: []string{"Content-Md5: " + md5of("other")}})
	w.wants(a, 400, "BadDigest")
	equal(t, "expected", between(string(a.body), "<ExpectedDigest>", "</"), "795f3202b17cb6bc3d4b771d8c6c9eaf")
	equal(t, "calculated", between(string(a.body), "<CalculatedDigest>", "</"), md5of("data"))
}

func TestListsOfUploadsNameTheirChecksums(t *testing.T) {
	w := newWorld(t)
	w.create("X-Amz-Checksum-Algorithm: SHA512")
	list := string(w.send(sent{method: "GET", path: "/bucket?uploads"}).body)
	if !strings.Contains(list, "<ChecksumAlgorithm>SHA512</ChecksumAlgorithm><ChecksumType>COMPOSITE</ChecksumType>") {
		t.Errorf("got %s", list)
	}
	id := between(list, "<UploadId>", "</UploadId>")
	w.wants(w.send(sent{method: "DELETE", path: "/bucket/k?uploadId=" + id}), 204, "")
	w.create()
	list = string(w.send(sent{method: "GET", path: "/bucket?uploads"}).body)
	if strings.Contains(list, "Checksum") || !strings.Contains(list, "<UploadId>") {
		t.Errorf("nothing was asked for: got %s", list)
	}
}
