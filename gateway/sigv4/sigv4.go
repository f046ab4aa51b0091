// Package sigv4 verifies AWS Signature Version 4 as S3 uses it: in the
// Authorization header, in a presigned query, and on the chunks and the trailer of
// a streamed body.
//
// It refuses to know S3's operations and error codes, and secrets: it is given the
// key of one day, region and service, and never the secret that it was derived
// from. It imports the standard library alone.
//
// Source: Amazon S3 API Reference, "Authenticating Requests (AWS Signature Version 4)".
package sigv4

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"
)

const (
	algorithm      = "AWS4-HMAC-SHA256"
	algorithmECDSA = "AWS4-ECDSA-P256-SHA256"
	terminator     = "aws4_request"
	timeFormat     = "20060102T150405Z"
	dateFormat     = "20060102"

	// MaxSkew is how far a request's time may be from the verifier's clock.
	MaxSkew = 15 * time.Minute
	// MaxExpires is the longest life of a presigned request.
	MaxExpires = 7 * 24 * time.Hour
)

// Key is the signing key of one access key for one date, region and service: 32
// bytes that f must not keep. It may be used concurrently.
type Key interface {
	Use(f func(key []byte))
}

// Either is what a Lookup returns while an access key has two live secrets: whichever
// of both keys the request was signed with verifies it, and is then its Key.
type Either struct{ New, Old Key }

// Use gives the new key.
func (e Either) Use(f func(key []byte)) { e.New.Use(f) }

// first returns the first of the candidates that holds, or nil.
func first(key Key, holds func(Key) bool) Key {
	candidates := []Key{key}
	if e, ok := key.(Either); ok {
		candidates = []Key{e.New, e.Old}
	}
	if i := slices.IndexFunc(candidates, holds); i >= 0 {
		return candidates[i]
	}
	return nil
}

// Scope says which signing key a request claims. All of it but AccessKey has been
// checked against the Verifier and its clock when Lookup gets it.
type Scope struct {
	AccessKey string
	Date      string // yyyymmdd
	Region    string
	Service   string
}

// credential is the scope as it is signed.
func (s Scope) credential() string {
	return s.Date + "/" + s.Region + "/" + s.Service + "/" + terminator
}

// Lookup finds a signing key. It returns an error that is ErrUnknownKey for an
// access key that does not exist; any other error comes out of Verify as it is.
type Lookup func(ctx context.Context, s Scope) (Key, error)

// Verifier verifies requests to one region and service. Its fields must not change
// once it is used; it may be used concurrently.
type Verifier struct {
	Region  string
	Service string
	Lookup  Lookup
	Now     func() time.Time
}

// Signed is a request whose signature holds. What its body is like is known only
// once Body has been read to its end.
type Signed struct {
	Scope     Scope
	Key       Key
	Time      time.Time
	Presigned bool
	Payload   Payload
	// Trailers are the names in x-amz-trailer, in lower case.
	Trailers []string
	// Size is the length of the decoded body in bytes, or -1 where the request does
	// not say.
	Size int64

	hash      [sha256.Size]byte // of PayloadHash
	signature string            // seeds the chain of chunk signatures
	timestamp string
}

// claim is what a request says of its own signature.
type claim struct {
	scope         Scope
	credential    string // as it was written
	terminator    string
	signedHeaders []string
	signature     string
	timestamp     string
	time          time.Time
	presigned     bool
	form          bool
	expires       time.Duration
	query         []param // without X-Amz-Signature
	queryHash     string  // X-Amz-Content-Sha256 in the query
}

// Verify checks everything about a request's signature that comes before its
// body; it does not touch r.Body. The error is an *Error around one of this
// package's errors, or what Lookup returned.
func (v *Verifier) Verify(ctx context.Context, r *http.Request) (*Signed, error) {
	c, err := parseClaim(r)
	if err != nil {
		return nil, err
	}
	if err := v.checkScope(c); err != nil {
		return nil, err
	}
	if err := v.checkTime(c); err != nil {
		return nil, err
	}
	s := &Signed{Scope: c.scope, Time: c.time, Presigned: c.presigned, signature: c.signature, timestamp: c.timestamp}
	declared, err := s.readPayload(r, c)
	if err != nil {
		return nil, err
	}
	if missing := unsignedHeaders(r.Header, c.signedHeaders); len(missing) > 0 {
		return nil, &Error{Err: ErrUnsignedHeaders, Got: strings.Join(missing, ", ")}
	}
	if s.Key, err = v.Lookup(ctx, c.scope); err != nil {
		if errors.Is(err, ErrUnknownKey) {
			return nil, &Error{Err: ErrUnknownKey, Got: c.scope.AccessKey}
		}
		return nil, err
	}
	s.Key = first(s.Key, func(key Key) bool { return matches(key, r, c, declared) })
	if s.Key == nil {
		return nil, c.mismatch(r, declared)
	}
	return s, s.checkEmpty(r)
}

// parseClaim finds where the request carries its signature; more than one place
// is refused.
func parseClaim(r *http.Request) (*claim, error) {
	query, err := parseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, err
	}
	if err := singleHeaders(r.Header); err != nil {
		return nil, err
	}
	_, inHeader := r.Header["Authorization"]
	inQuery := isPresigned(query)
	switch {
	case inHeader && inQuery:
		return nil, &Error{Err: ErrTwoSignatures}
	case inHeader:
		return parseHeader(r, query)
	case inQuery:
		return parsePresigned(query)
	case isV2(query):
		return nil, &Error{Err: ErrVersion2, Query: true}
	}
	return nil, &Error{Err: ErrAnonymous}
}

// singleHeaders refuses the headers of this package where they are repeated: what
// one party reads first another reads last.
func singleHeaders(h http.Header) error {
	for _, name := range []string{
		"Authorization", "Date", "X-Amz-Date", "X-Amz-Content-Sha256",
		"X-Amz-Decoded-Content-Length", "X-Amz-Trailer", "X-Amz-Security-Token",
	} {
		if len(h[name]) > 1 {
			return &Error{Err: ErrDuplicate, Got: name}
		}
	}
	if len(h["X-Amz-Security-Token"]) > 0 {
		return &Error{Err: ErrToken}
	}
	return nil
}

// checkScope compares the credential with what this verifier serves, in the order
// in which AWS reports it.
func (v *Verifier) checkScope(c *claim) error {
	switch {
	case c.terminator != terminator:
		return &Error{Err: ErrTerminator, Query: c.presigned, Form: c.form, Credential: c.credential, Got: c.terminator}
	case c.scope.Service != v.Service:
		return &Error{Err: ErrService, Query: c.presigned, Form: c.form, Credential: c.credential, Got: c.scope.Service, Want: v.Service}
	case c.scope.Region != v.Region:
		return &Error{Err: ErrRegion, Query: c.presigned, Form: c.form, Credential: c.credential, Got: c.scope.Region, Want: v.Region}
	}
	if _, err := time.Parse(dateFormat, c.scope.Date); err != nil || len(c.scope.Date) != len(dateFormat) {
		return &Error{Err: ErrScopeDate, Query: c.presigned, Form: c.form, Credential: c.credential, Got: c.scope.Date}
	}
	if c.scope.Date != c.timestamp[:len(dateFormat)] {
		return &Error{Err: ErrDateMismatch, Query: c.presigned, Form: c.form, Credential: c.credential, Got: c.scope.Date, Want: c.timestamp[:len(dateFormat)]}
	}
	return nil
}

// checkTime holds a header's time against MaxSkew, and a presigned request's
// against its own life.
func (v *Verifier) checkTime(c *claim) error {
	now := v.Now()
	age := now.Sub(c.time)
	if !c.presigned {
		if age > MaxSkew || age < -MaxSkew {
			return &Error{Err: ErrSkew, Got: c.timestamp, Want: now.UTC().Format(timeFormat)}
		}
		return nil
	}
	if age < -MaxSkew {
		return &Error{Err: ErrNotYet, Query: true, Got: c.timestamp}
	}
	if age > c.expires {
		return &Error{
			Err: ErrExpired, Query: true,
			Got: c.time.Add(c.expires).UTC().Format(time.RFC3339), Want: now.UTC().Format(time.RFC3339),
		}
	}
	return nil
}

// unsignedHeaders lists what must be signed and is not: host, and every x-amz-* and
// x-chatelaine-* header that the signature does not bind in another way.
func unsignedHeaders(h http.Header, signed []string) []string {
	has := func(name string) bool {
		for _, s := range signed {
			if s == name {
				return true
			}
		}
		return false
	}
	var missing []string
	if !has("host") {
		missing = append(missing, "host")
	}
	for name := range h {
		low := strings.ToLower(name)
		if !strings.HasPrefix(low, "x-amz-") && !strings.HasPrefix(low, "x-chatelaine-") || low == "x-amz-date" || low == "x-amz-content-sha256" {
			continue // the time and the body's hash are in what is signed as they are
		}
		if !has(low) {
			missing = append(missing, low)
		}
	}
	slices.Sort(missing)
	return missing
}

// matches compares signatures in constant time. A path may be signed as the
// client wrote it or in AWS's canonical form: both name the same key.
func matches(key Key, r *http.Request, c *claim, payload string) bool {
	raw := r.URL.EscapedPath()
	canonical := canonicalPath(raw)
	if equalSignature(key, r, c, canonical, payload) {
		return true
	}
	return raw != canonical && raw != "" && equalSignature(key, r, c, raw, payload)
}

func equalSignature(key Key, r *http.Request, c *claim, path, payload string) bool {
	want := sign(key, []byte(c.stringToSign(canonicalRequest(r, c, path, payload))))
	return subtle.ConstantTimeCompare(want[:], []byte(c.signature)) == 1
}

// stringToSign is task 2 of the signature's calculation.
func (c *claim) stringToSign(canonical []byte) string {
	sum := sha256.Sum256(canonical)
	return algorithm + "\n" + c.timestamp + "\n" + c.scope.credential() + "\n" + hex.EncodeToString(sum[:])
}

// mismatch tells a client that signs wrongly what it should have signed.
func (c *claim) mismatch(r *http.Request, payload string) *Error {
	canonical := canonicalRequest(r, c, canonicalPath(r.URL.EscapedPath()), payload)
	return &Error{
		Err: ErrSignature, Query: c.presigned, Got: c.scope.AccessKey,
		Signature: c.signature, StringToSign: c.stringToSign(canonical), CanonicalRequest: string(canonical),
	}
}

// sign returns the HMAC in lower-case hexadecimal.
func sign(key Key, message []byte) (sig [2 * sha256.Size]byte) {
	key.Use(func(k []byte) {
		mac := hmac.New(sha256.New, k)
		mac.Write(message)
		hex.Encode(sig[:], mac.Sum(nil))
	})
	return sig
}

// Derive makes the signing key of a scope from a secret: what the other side of
// Lookup, and a test, does.
func Derive(secret string, s Scope) [sha256.Size]byte {
	key := []byte("AWS4" + secret)
	for _, part := range []string{s.Date, s.Region, s.Service, terminator} {
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte(part))
		key = mac.Sum(nil)
	}
	return [sha256.Size]byte(key)
}
