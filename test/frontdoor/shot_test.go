package frontdoor

import (
	"bufio"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"chatelaine/gateway/sigv4"
)

const (
	unsigned = "UNSIGNED-PAYLOAD"
	amzTime  = "20060102T150405Z"
)

func newReader(r io.Reader) *bufio.Reader { return bufio.NewReader(r) }

// shot is a request as it goes over the wire. It is signed as it should be; what is
// wrong with it is in loose, or done to its text.
type shot struct {
	method, path, query string // as they are sent
	host                string
	signed              []string      // "name: value", signed and sent
	loose               []string      // sent without a signature
	body                string        // behind the header, as it is
	payload             string        // x-amz-content-sha256; UNSIGNED-PAYLOAD where empty
	age                 time.Duration // how long ago it was signed
	open                bool          // the connection stays open
	unsized             bool          // no Content-Length
}

func (s shot) text() string {
	text, _ := s.sign()
	return text
}

// sign returns the request's text and its signature. It is written down from the API
// Reference, and shares nothing with the verifier but the derivation of the key.
func (s shot) sign() (text, signature string) {
	host, payload := s.host, s.payload
	if host == "" {
		host = "gateway.test"
	}
	if payload == "" {
		payload = unsigned
	}
	at := time.Now().UTC().Add(-s.age)
	signed := append([]string{"host: " + host, "x-amz-content-sha256: " + payload, "x-amz-date: " + at.Format(amzTime)}, s.signed...)
	names, canonical := canonicalHeaders(signed)
	request := strings.Join([]string{s.method, s.path, s.query, canonical, names, payload}, "\n")
	credential := scope(at)
	signature = mac(at, "AWS4-HMAC-SHA256\n"+at.Format(amzTime)+"\n"+credential+"\n"+digest(request))
	var b strings.Builder
	target := s.path
	if s.query != "" {
		target += "?" + s.query
	}
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\n%s\r\n", s.method, target, strings.Join(signed, "\r\n"))
	fmt.Fprintf(&b, "authorization: AWS4-HMAC-SHA256 Credential=%s/%s,SignedHeaders=%s,Signature=%s\r\n", keyID, credential, names, signature)
	for _, line := range s.loose {
		b.WriteString(line + "\r\n")
	}
	if !s.open {
		b.WriteString("connection: close\r\n")
	}
	if !s.unsized {
		fmt.Fprintf(&b, "content-length: %d\r\n", len(s.body))
	}
	return b.String() + "\r\n" + s.body, signature
}

// canonicalHeaders are names, and "name:value" lines with an empty one behind them.
func canonicalHeaders(lines []string) (names, text string) {
	sorted := slices.Clone(lines)
	slices.Sort(sorted)
	var list []string
	for _, line := range sorted {
		name, value, _ := strings.Cut(line, ": ")
		list = append(list, strings.ToLower(name))
		text += strings.ToLower(name) + ":" + value + "\n"
	}
	return strings.Join(list, ";"), text
}

func scope(at time.Time) string {
	return at.Format("20060102") + "/" + region + "/s3/aws4_request"
}

func mac(at time.Time, text string) string {
	key := sigv4.Derive(secret, sigv4.Scope{Date: at.Format("20060102"), Region: region, Service: "s3"})
	h := hmac.New(sha256.New, key[:])
	h.Write([]byte(text))
	return hex.EncodeToString(h.Sum(nil))
}

func digest(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

// put is a good PUT of an object.
func put(key, body string) shot {
	return shot{method: "PUT", path: "/" + bucket + "/" + key, body: body}
}
