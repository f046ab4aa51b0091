package s3api

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"strings"
	"testing"
)

// element is the text of the first element of a name.
func element(a answer, name string) string {
	_, rest, _ := strings.Cut(string(a.body), "<"+name+">")
	text, _, _ := strings.Cut(rest, "</"+name+">")
	return strings.NewReplacer("&#xA;", "\n", "&#34;", `"`, "&amp;", "&").Replace(text)
}

func TestAClientThatSignsWronglyIsToldWhatToSign(t *testing.T) {
	w := newWorld(t)
	a := w.send(sent{method: "GET", path: "/bucket/k?versionId=null", key: annKey, secret: "wrong", spoil: nil})
	w.wants(a, 403, "SignatureDoesNotMatch")
	canonical, text := element(a, "CanonicalRequest"), element(a, "StringToSign")
	if !strings.HasPrefix(canonical, "GET\n/bucket/k\nversionId=null\n") {
		t.Errorf("canonical request %q", canonical)
	}
	sum := sha256.Sum256([]byte(canonical))
	if !strings.HasPrefix(text, "AWS4-HMAC-SHA256\n") || !strings.HasSuffix(text, hex.EncodeToString(sum[:])) {
		t.Errorf("string to sign %q", text)
	}
	equal(t, "key", element(a, "AWSAccessKeyId"), annKey)
	equal(t, "length of the signature", len(element(a, "SignatureProvided")), 64)
	for name, want := range map[string]string{"StringToSignBytes": text, "CanonicalRequestBytes": canonical} {
		b, err := hex.DecodeString(strings.ReplaceAll(element(a, name), " ", ""))
		if err != nil || string(b) != want {
			t.Errorf("%s: got %q and %v, want %q", name, b, err, want)
		}
	}
	for _, entry := range w.logs.All() {
		for name, value := range entry.ContextMap() {
			if s, ok := value.(string); ok && (strings.Contains(s, "AWS4-HMAC") || strings.Contains(s, "x-amz-content-sha256")) {
				t.Errorf("the log's %s says what the request was: %s", name, s)
			}
		}
	}

	f := w.post(form{fields: map[string]string{"key": "k"}, secret: "wrong"})
	w.wants(f, 403, "SignatureDoesNotMatch")
	if policy, err := base64.StdEncoding.DecodeString(element(f, "StringToSign")); err != nil || !strings.Contains(string(policy), `"conditions"`) {
		t.Errorf("got %q and %v, want the policy", policy, err)
	}
	equal(t, "canonical request of a form", element(f, "CanonicalRequest"), "")
}

func TestDetailsOfErrors(t *testing.T) {
	w := newWorld(t)
	w.put("there", "v")
	for _, tt := range []struct {
		name string
		s    sent
		code string
		want map[string]string
	}{
		{
			"an MD5",
			sent{method: "PUT", path: "/bucket/k", body: "v", header: []string{"Content-Md5: " + md5of("other")}},
			"BadDigest",
			map[string]string{"ExpectedDigest": "795f3202b17cb6bc3d4b771d8c6c9eaf", "CalculatedDigest": md5of("v")},
		},
		{
			"a part without an upload",
			sent{method: "PUT", path: "/bucket/k?partNumber=1", body: "v"},
			"InvalidArgument",
			map[string]string{"ArgumentName": "partNumber", "ArgumentValue": "partNumber"},
		},
		{"chunks of a document about a bucket", sent{
			method: "PUT", path: "/bucket?tagging", body: "5\r\nhello\r\n0\r\n\r\n", hash: "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
			header: []string{"X-Amz-Decoded-Content-Length: 5"},
		}, "InvalidRequest", nil},
		{"a part that is not there", sent{method: "GET", path: "/bucket/there?partNumber=2"}, "InvalidPartNumber", map[string]string{"PartNumberRequested": "2"}},
		{
			"large headers",
			sent{method: "PUT", path: "/bucket/k", header: []string{"X-Amz-Custom: " + strings.Repeat("d", 8<<10)}},
			"RequestHeaderSectionTooLarge",
			map[string]string{"MaxSizeAllowed": "8192"},
		},
		{"many headers", sent{method: "GET", path: "/bucket/k", header: []string{"A: " + strings.Repeat("d", 4<<10), "B: " + strings.Repeat("d", 4<<10)}}, "RequestHeaderSectionTooLarge", nil},
		{"headers that are not too large", sent{method: "GET", path: "/bucket/k", header: []string{"A: " + strings.Repeat("d", 7<<10)}}, "NoSuchKey", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := w.send(tt.s)
			equal(t, "code", a.fault.Code, tt.code)
			for name, want := range tt.want {
				equal(t, name, element(a, name), want)
			}
		})
	}
}

func TestTheOnlyPartOfASingleObjectHasItsChecksum(t *testing.T) {
	w := newWorld(t)
	for key, body := range map[string]string{"empty": "", "small": "data", "large": string(noise(300 << 10))} {
		want := w.put(key, body, "X-Amz-Checksum-Sha256: "+sha256of(body)).header.Get("X-Amz-Checksum-Sha256")
		for _, method := range []string{"GET", "HEAD"} {
			a := w.send(sent{method: method, path: "/bucket/" + key + "?partNumber=1", header: []string{"X-Amz-Checksum-Mode: ENABLED"}})
			equal(t, method+" "+key, a.header.Get("X-Amz-Checksum-Sha256"), want)
		}
		a := w.send(sent{method: "GET", path: "/bucket/" + key, header: []string{"X-Amz-Checksum-Mode: ENABLED", "Range: bytes=0-1"}})
		equal(t, "of a range", a.header.Get("X-Amz-Checksum-Sha256"), "")
	}
}

func sha256of(s string) string {
	sum := sha256.Sum256([]byte(s))
	return base64.StdEncoding.EncodeToString(sum[:])
}
