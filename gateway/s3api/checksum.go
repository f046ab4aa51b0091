package s3api

import (
	"bytes"
	"crypto/md5" //nolint:gosec // Content-MD5 is S3's, not for secrecy
	"encoding/base64"
	"errors"
	"hash"
	"io"
	"net/http"
	"slices"
	"strings"

	"chatelaine/gateway/objects"
	"chatelaine/gateway/sigv4"
)

const (
	checksumPrefix     = "x-amz-checksum-"
	checksumTypeHeader = "x-amz-checksum-type"
)

// algorithmOf finds an algorithm by its name in any case; "" where there is none.
func algorithmOf(name string) objects.Algorithm {
	if a := objects.Algorithm(strings.ToUpper(name)); slices.Contains(objects.Algorithms(), a) {
		return a
	}
	return ""
}

func checksumHeader(a objects.Algorithm) string { return checksumPrefix + strings.ToLower(string(a)) }

// stated is what a request says of its body beside the signature. At most one of
// value and trailer is set.
type stated struct {
	algorithm objects.Algorithm // "" where no checksum is stated
	value     []byte            // from the header
	trailer   string            // the trailer's name, where it comes there
	md5       []byte
}

// parseChecksums reads checksum headers, x-amz-trailer, Content-MD5 and
// x-amz-sdk-checksum-algorithm, and refuses what contradicts itself.
func parseChecksums(h http.Header, trailers []string) (stated, error) {
	var s stated
	name, value, err := checksumIn(h)
	if err != nil {
		return s, err
	}
	if name != "" {
		if len(trailers) > 0 {
			return s, multipleChecksums()
		}
		if err := s.fromHeader(name, value); err != nil {
			return s, err
		}
	}
	if err := s.fromTrailers(trailers); err != nil {
		return s, err
	}
	if err := s.sdkAlgorithm(h.Get("X-Amz-Sdk-Checksum-Algorithm")); err != nil {
		return s, err
	}
	return s, s.contentMD5(h)
}

// checksumIn finds the one x-amz-checksum-NAME header that there may be. That there
// are several is told before anything is said of their values.
func checksumIn(h http.Header) (name, value string, err error) {
	for header, values := range h {
		suffix, ok := strings.CutPrefix(strings.ToLower(header), checksumPrefix)
		if !ok || notAChecksum(suffix) {
			continue
		}
		if name != "" || len(values) > 1 {
			return "", "", multipleChecksums()
		}
		name, value = suffix, values[0]
	}
	return name, value, nil
}

// notAChecksum is true for headers of the same prefix that hold no value.
func notAChecksum(suffix string) bool {
	return suffix == "algorithm" || suffix == "type" || suffix == "mode"
}

func (s *stated) fromHeader(name, value string) error {
	if s.algorithm = algorithmOf(name); s.algorithm == "" {
		return invalidRequest("The algorithm type you specified in x-amz-checksum- header is invalid.")
	}
	var ok bool
	if s.value, ok = decodeChecksum(s.algorithm, value); !ok {
		return invalidChecksum(checksumHeader(s.algorithm))
	}
	return nil
}

func (s *stated) fromTrailers(trailers []string) error {
	for _, name := range trailers {
		algorithm, ok := strings.CutPrefix(name, checksumPrefix)
		switch {
		case !ok || algorithmOf(algorithm) == "":
			return invalidRequest("The value specified in the x-amz-trailer header is not supported")
		case s.trailer != "":
			return multipleChecksums()
		}
		s.algorithm, s.trailer = algorithmOf(algorithm), name
	}
	return nil
}

func (s *stated) sdkAlgorithm(name string) error {
	const header = "x-amz-sdk-checksum-algorithm"
	switch {
	case name == "":
		return nil
	case algorithmOf(name) == "":
		return invalidChecksum(header)
	case s.algorithm == "":
		return invalidRequest(header + " specified, but no corresponding x-amz-checksum-* or x-amz-trailer headers were found.")
	case s.algorithm != algorithmOf(name):
		return invalidChecksum(header)
	}
	return nil
}

func (s *stated) contentMD5(h http.Header) error {
	values := h.Values("Content-Md5")
	if len(values) == 0 {
		return nil
	}
	sum, err := base64.StdEncoding.DecodeString(strings.TrimSpace(values[0]))
	if err != nil || len(sum) != md5.Size || len(values) > 1 {
		return invalidDigest(values[0])
	}
	s.md5 = sum
	return nil
}

func decodeChecksum(a objects.Algorithm, value string) ([]byte, bool) {
	sum, err := base64.StdEncoding.DecodeString(value)
	return sum, err == nil && len(sum) == a.NewHash().Size()
}

// verified is a body that is hashed while it is read. The Read that would end it
// with io.EOF ends it with an error when a checksum differs.
type verified struct {
	body   *sigv4.Body
	stated stated
	sum    hash.Hash // of stated.algorithm; nil without
	md5    hash.Hash // nil without Content-MD5
	err    error
}

func newVerified(body *sigv4.Body, s stated) *verified {
	v := &verified{body: body, stated: s}
	if s.algorithm != "" {
		v.sum = s.algorithm.NewHash()
	}
	if s.md5 != nil {
		v.md5 = md5.New() //nolint:gosec // as above
	}
	return v
}

// Read implements io.Reader. It reads straight into p.
func (v *verified) Read(p []byte) (int, error) {
	if v.err != nil {
		return 0, v.err
	}
	n, err := v.body.Read(p)
	if v.sum != nil {
		v.sum.Write(p[:n])
	}
	if v.md5 != nil {
		v.md5.Write(p[:n])
	}
	if errors.Is(err, io.EOF) {
		if bad := v.check(); bad != nil {
			err = bad
		}
	}
	v.err = err
	return n, err
}

// check compares at the end of the body.
func (v *verified) check() error {
	if v.md5 != nil {
		if got := v.md5.Sum(nil); !bytes.Equal(got, v.stated.md5) {
			return badMD5(v.stated.md5, got)
		}
	}
	want := v.stated.value
	if v.stated.trailer != "" {
		var ok bool
		if want, ok = decodeChecksum(v.stated.algorithm, v.body.Trailer(v.stated.trailer)); !ok {
			return invalidRequest("Value for " + v.stated.trailer + " trailing header is invalid.")
		}
	}
	if want != nil && !bytes.Equal(want, v.value()) {
		return badDigest(v.stated.algorithm)
	}
	return nil
}

// value is the computed checksum, right once Read has returned io.EOF.
func (v *verified) value() []byte { return v.sum.Sum(nil) }

// setChecksum writes a checksum into the answer's headers.
func setChecksum(h http.Header, sum objects.Checksum) {
	if sum.Algorithm == "" || len(sum.Value) == 0 {
		return
	}
	h.Set(checksumHeader(sum.Algorithm), encodeChecksum(sum))
	h.Set(checksumTypeHeader, checksumType(sum.Composite))
}

func checksumType(composite bool) string {
	if composite {
		return "COMPOSITE"
	}
	return "FULL_OBJECT"
}
