package sigv4

import (
	"encoding/hex"
	"net/http"
	"strconv"
	"strings"
)

// Payload says how a body is signed: the meaning of x-amz-content-sha256.
type Payload int

// The forms of a body.
const (
	// PayloadUnsigned is not bound by the signature.
	PayloadUnsigned Payload = iota
	// PayloadHash is bound by its SHA-256.
	PayloadHash
	// PayloadChunks is aws-chunked, each chunk signed.
	PayloadChunks
	// PayloadChunksTrailer is the same with a signed trailer.
	PayloadChunksTrailer
	// PayloadUnsignedTrailer is aws-chunked, not signed, with a trailer.
	PayloadUnsignedTrailer
)

const (
	unsignedPayload = "UNSIGNED-PAYLOAD"
	emptyHash       = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
)

// Chunked says whether the body comes in aws-chunked encoding.
func (p Payload) Chunked() bool { return p >= PayloadChunks }

func (p Payload) signed() bool { return p == PayloadChunks || p == PayloadChunksTrailer }

// parsePayload maps the words of x-amz-content-sha256.
func parsePayload(s string) (p Payload, ok bool) {
	switch s {
	case unsignedPayload:
		return PayloadUnsigned, true
	case "STREAMING-AWS4-HMAC-SHA256-PAYLOAD":
		return PayloadChunks, true
	case "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER":
		return PayloadChunksTrailer, true
	case "STREAMING-UNSIGNED-PAYLOAD-TRAILER":
		return PayloadUnsignedTrailer, true
	}
	return 0, false
}

// readPayload sets what the headers say of the body and returns the value of
// x-amz-content-sha256 as it is signed.
func (s *Signed) readPayload(r *http.Request, c *claim) (string, error) {
	declared := r.Header.Get("X-Amz-Content-Sha256")
	if declared == "" && c.presigned {
		if declared = c.queryHash; declared == "" {
			declared = unsignedPayload
		}
	}
	if err := s.setPayload(declared); err != nil {
		return "", err
	}
	s.Size = r.ContentLength
	if s.Payload.Chunked() {
		s.Size = decodedLength(r.Header.Get("X-Amz-Decoded-Content-Length"))
		s.Trailers = trailerNames(r.Header.Get("X-Amz-Trailer"))
	}
	return declared, nil
}

func (s *Signed) setPayload(declared string) error {
	if declared == "" {
		return &Error{Err: ErrNoContentHash}
	}
	if strings.HasPrefix(declared, "STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD") {
		return &Error{Err: ErrAsymmetric, Got: declared}
	}
	p, ok := parsePayload(declared)
	if !ok {
		p = PayloadHash
		if len(declared) != hex.EncodedLen(len(s.hash)) {
			return &Error{Err: ErrContentHash, Got: declared}
		}
		if _, err := hex.Decode(s.hash[:], []byte(declared)); err != nil {
			return &Error{Err: ErrContentHash, Got: declared}
		}
	}
	s.Payload = p
	return nil
}

// checkEmpty refuses a request without a body that claims the hash of something:
// nobody would read that body to find out.
func (s *Signed) checkEmpty(r *http.Request) error {
	if s.Payload != PayloadHash || r.ContentLength != 0 {
		return nil
	}
	if got := hex.EncodeToString(s.hash[:]); got != emptyHash {
		return &Error{Err: ErrBodyHash, Got: got, Want: emptyHash}
	}
	return nil
}

// decodedLength returns -1 for what is not a length.
func decodedLength(s string) int64 {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 {
		return -1
	}
	return n
}

func trailerNames(s string) []string {
	var names []string
	for _, name := range strings.Split(s, ",") {
		if name = strings.ToLower(strings.TrimSpace(name)); name != "" {
			names = append(names, name)
		}
	}
	return names
}
