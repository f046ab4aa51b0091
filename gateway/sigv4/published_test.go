package sigv4

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// The examples of the S3 API Reference, "Signature Calculations for the
// Authorization Header" (single and multiple chunks) and "Authenticating Requests:
// Using Query Parameters", use this access key, secret and time.
const (
	exampleKey    = "AKIAIOSFODNN7EXAMPLE"
	exampleSecret = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
	exampleScope  = "/20130524/us-east-1/s3/aws4_request"
	exampleTime   = "20130524T000000Z"
)

type testKey [32]byte

func (k testKey) Use(f func([]byte)) { f(k[:]) }

// lookupExample derives keys as the KMS does.
func lookupExample(_ context.Context, s Scope) (Key, error) {
	if s.AccessKey != exampleKey {
		return nil, ErrUnknownKey
	}
	return testKey(Derive(exampleSecret, s)), nil
}

func exampleVerifier(at string) *Verifier {
	return &Verifier{Region: "us-east-1", Service: "s3", Lookup: lookupExample, Now: func() time.Time {
		t, err := time.Parse(timeFormat, at)
		if err != nil {
			panic(err)
		}
		return t
	}}
}

// request makes a server's view of a request from header lines.
func request(method, target, body string, header ...string) *http.Request {
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	for _, line := range header {
		name, value, _ := strings.Cut(line, ":")
		if name == "Host" {
			r.Host = value
			continue
		}
		r.Header.Add(name, value)
	}
	return r
}

func authorization(signed, signature string) string {
	return "Authorization:" + algorithm + " Credential=" + exampleKey + exampleScope + ",SignedHeaders=" + signed + ",Signature=" + signature
}

func TestPublishedExamplesVerify(t *testing.T) {
	const host = "Host:examplebucket.s3.amazonaws.com"
	date := "X-Amz-Date:" + exampleTime
	empty := "X-Amz-Content-Sha256:" + emptyHash
	for _, tt := range []struct {
		name string
		r    *http.Request
	}{
		{"get object", request("GET", "/test.txt", "", host, date, empty, "Range:bytes=0-9",
			authorization("host;range;x-amz-content-sha256;x-amz-date", "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"))},
		{"put object", request("PUT", "/test$file.text", "Welcome to Amazon S3.", host, date, "Date:Fri, 24 May 2013 00:00:00 GMT",
			"X-Amz-Storage-Class:REDUCED_REDUNDANCY", "X-Amz-Content-Sha256:44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072",
			authorization("date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class", "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd"))},
		{"get bucket lifecycle", request("GET", "/?lifecycle", "", host, date, empty,
			authorization("host;x-amz-content-sha256;x-amz-date", "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"))},
		{"list objects", request("GET", "/?max-keys=2&prefix=J", "", host, date, empty,
			authorization("host;x-amz-content-sha256;x-amz-date", "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"))},
		{"presigned", request("GET", "/test.txt?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request"+
			"&X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host"+
			"&X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404", "", host)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, err := exampleVerifier(exampleTime).Verify(t.Context(), tt.r)
			if err != nil {
				t.Fatal(err)
			}
			if s.Scope.AccessKey != exampleKey {
				t.Errorf("got access key %q", s.Scope.AccessKey)
			}
			if _, err := io.Copy(io.Discard, s.Open(tt.r.Body)); err != nil {
				t.Errorf("reading the body: %v", err)
			}
		})
	}
}

// chunk is a chunk of the examples: so many bytes "a".
func chunk(size, n, signature string) string {
	count := map[string]int{"10000": 65536, "400": 1024}[n]
	return size + ";chunk-signature=" + signature + "\r\n" + strings.Repeat("a", count) + "\r\n"
}

func chunkedExample() *http.Request {
	body := chunk("10000", "10000", "ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648") +
		chunk("400", "400", "0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497") +
		chunk("0", "", "b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9")
	return request("PUT", "/examplebucket/chunkObject.txt", body, "Host:s3.amazonaws.com", "X-Amz-Date:"+exampleTime,
		"X-Amz-Storage-Class:REDUCED_REDUNDANCY", "X-Amz-Content-Sha256:STREAMING-AWS4-HMAC-SHA256-PAYLOAD",
		"Content-Encoding:aws-chunked", "X-Amz-Decoded-Content-Length:66560", "Content-Length:66824",
		authorization("content-encoding;content-length;host;x-amz-content-sha256;x-amz-date;x-amz-decoded-content-length;x-amz-storage-class",
			"4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9"))
}

func trailerExample() *http.Request {
	body := chunk("10000", "10000", "b474d8862b1487a5145d686f57f013e54db672cee1c953b3010fb58501ef5aa2") +
		chunk("400", "400", "1c1344b170168f8e65b41376b44b20fe354e373826ccbbe2c1d40a8cae51e5c7") +
		"0;chunk-signature=2ca2aba2005185cf7159c6277faf83795951dd77a3a99e6e65d5c9f85863f992\r\n" +
		"x-amz-checksum-crc32c:sOO8/Q==\r\n" +
		"x-amz-trailer-signature:d81f82fc3505edab99d459891051a732e8730629a2e4a59689829ca17fe2e435\r\n\r\n"
	return request("PUT", "/examplebucket/chunkObject.txt", body, "Host:s3.amazonaws.com", "X-Amz-Date:"+exampleTime,
		"X-Amz-Storage-Class:REDUCED_REDUNDANCY", "X-Amz-Content-Sha256:STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER",
		"Content-Encoding:aws-chunked", "X-Amz-Decoded-Content-Length:66560", "X-Amz-Trailer:x-amz-checksum-crc32c",
		authorization("content-encoding;host;x-amz-content-sha256;x-amz-date;x-amz-decoded-content-length;x-amz-storage-class;x-amz-trailer",
			"106e2a8a18243abcf37539882f36619c00e2dfc72633413f02d3b74544bfeb8e"))
}

func TestPublishedChunkedExamplesVerify(t *testing.T) {
	for name, r := range map[string]*http.Request{"chunks": chunkedExample(), "trailer": trailerExample()} {
		t.Run(name, func(t *testing.T) {
			s, err := exampleVerifier(exampleTime).Verify(t.Context(), r)
			if err != nil {
				t.Fatal(err)
			}
			body := s.Open(r.Body)
			got, err := io.ReadAll(body)
			if err != nil {
				t.Fatal(err)
			}
			if want := bytes.Repeat([]byte("a"), 66560); !bytes.Equal(got, want) {
				t.Errorf("got %d bytes, want %d", len(got), len(want))
			}
			if got := body.Trailer("x-amz-checksum-crc32c"); name == "trailer" && got != "sOO8/Q==" {
				t.Errorf("got trailer %q", got)
			}
		})
	}
}

// Every byte of a signed body is bound: changing any one in headers, data, frame or
// trailer must end in an error.
func TestAChangedByteOfASignedBodyIsNoticed(t *testing.T) {
	for name, make := range map[string]func() *http.Request{"chunks": chunkedExample, "trailer": trailerExample} {
		t.Run(name, func(t *testing.T) {
			raw, err := io.ReadAll(make().Body)
			if err != nil {
				t.Fatal(err)
			}
			for at := 0; at < len(raw); at += step(at, len(raw)) {
				changed := bytes.Clone(raw)
				changed[at] ^= 1
				r := make()
				s, err := exampleVerifier(exampleTime).Verify(t.Context(), r)
				if err != nil {
					t.Fatal(err)
				}
				_, err = io.Copy(io.Discard, s.Open(bytes.NewReader(changed)))
				var e *Error
				if !errors.As(err, &e) {
					t.Fatalf("byte %d (%q) changed: got %v, want an error", at, raw[at:at+1], err)
				}
			}
		})
	}
}

// step visits the frame byte by byte and strides over the data.
func step(at, n int) int {
	if at > 200 && at < 65000 || at > 66000 && at < n-700 {
		return 977
	}
	return 1
}
