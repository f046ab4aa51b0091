package sigv4

import "errors"

// Errors of Verify. They come in an *Error.
var (
	// ErrAnonymous: the request carries no signature.
	ErrAnonymous = errors.New("sigv4: request is not signed")
	// ErrTwoSignatures: one in the header and one in the query.
	ErrTwoSignatures = errors.New("sigv4: more than one signature")
	// ErrDuplicate: a header or parameter that must come once is repeated.
	ErrDuplicate = errors.New("sigv4: repeated header or parameter")
	// ErrVersion2: a signature of version 2.
	ErrVersion2 = errors.New("sigv4: signature version 2")
	// ErrAsymmetric: SigV4A (ECDSA), in the header, the query or the body.
	ErrAsymmetric = errors.New("sigv4: asymmetric signature")
	// ErrToken: a session token, which permanent access keys do not have.
	ErrToken = errors.New("sigv4: session token")
	// ErrHeaderForm: the Authorization header has no space.
	ErrHeaderForm = errors.New("sigv4: authorization header has no scheme")
	// ErrScheme: an unknown authorization scheme or X-Amz-Algorithm.
	ErrScheme = errors.New("sigv4: unknown authorization scheme")
	// ErrComponents: not three components in the header, or a parameter is missing
	// in the query.
	ErrComponents = errors.New("sigv4: wrong number of components")
	// ErrComponent: a component without "=".
	ErrComponent       = errors.New("sigv4: malformed component")
	ErrNoCredential    = errors.New("sigv4: no Credential")
	ErrNoSignedHeaders = errors.New("sigv4: no SignedHeaders")
	ErrNoSignature     = errors.New("sigv4: no Signature")
	// ErrCredential: not five parts.
	ErrCredential = errors.New("sigv4: malformed credential")
	ErrTerminator = errors.New("sigv4: credential ends in the wrong word")
	ErrService    = errors.New("sigv4: credential is for another service")
	ErrRegion     = errors.New("sigv4: credential is for another region")
	// ErrScopeDate: the credential's date is no date.
	ErrScopeDate = errors.New("sigv4: malformed date in credential")
	// ErrDateMismatch: the credential's date is not the request's.
	ErrDateMismatch = errors.New("sigv4: credential is for another date")
	// ErrNoDate: neither X-Amz-Date nor Date holds a time.
	ErrNoDate = errors.New("sigv4: no valid date")
	// ErrSkew: the request's time is too far from the clock.
	ErrSkew = errors.New("sigv4: request time too skewed")
	// ErrExpiresNumber, ErrExpiresNegative, ErrExpiresTooLarge: X-Amz-Expires.
	ErrExpiresNumber   = errors.New("sigv4: expiry is not a number")
	ErrExpiresNegative = errors.New("sigv4: expiry is negative")
	ErrExpiresTooLarge = errors.New("sigv4: expiry is more than a week")
	// ErrExpired and ErrNotYet: outside a presigned request's life.
	ErrExpired = errors.New("sigv4: presigned request has expired")
	ErrNotYet  = errors.New("sigv4: presigned request is not valid yet")
	// ErrQuery: the query string cannot be decoded.
	ErrQuery = errors.New("sigv4: malformed query string")
	// ErrUnsignedHeaders: headers that must be signed are not.
	ErrUnsignedHeaders = errors.New("sigv4: headers are not signed")
	// ErrNoContentHash: no x-amz-content-sha256.
	ErrNoContentHash = errors.New("sigv4: no x-amz-content-sha256")
	// ErrContentHash: x-amz-content-sha256 is neither a hash nor a known word.
	ErrContentHash = errors.New("sigv4: malformed x-amz-content-sha256")
	// ErrUnknownKey: no such access key.
	ErrUnknownKey = errors.New("sigv4: unknown access key")
	// ErrSignature: the signature of the request, of a chunk or of the trailer does
	// not match.
	ErrSignature = errors.New("sigv4: signature does not match")
)

// Errors of Body. ErrSignature is one of them too.
var (
	// ErrBodyHash: the body is not what x-amz-content-sha256 says.
	ErrBodyHash = errors.New("sigv4: body does not match its hash")
	// ErrIncomplete: the body ends early, or its chunks are malformed.
	ErrIncomplete = errors.New("sigv4: body is incomplete or malformed")
	// ErrLength: the chunks do not add up to x-amz-decoded-content-length.
	ErrLength = errors.New("sigv4: body has another length than declared")
	// ErrChunkSize: a chunk other than the last is below MinChunk.
	ErrChunkSize = errors.New("sigv4: chunk too small")
	// ErrTrailer: the trailer is not what x-amz-trailer declares.
	ErrTrailer = errors.New("sigv4: malformed trailer")
)

// Error is a refusal with what is needed to explain it to the client. Nothing in
// it is secret: it quotes the request.
type Error struct {
	Err   error // one of this package's errors
	Query bool  // the signature was in the query
	Form  bool  // the signature was in a form
	// Credential is the whole credential, where a part of it is wrong.
	Credential string
	// Got is what the request says, Want what it should say, where that makes sense.
	Got, Want string
	// Signature is the one that came with the request or form, where it does not match;
	// StringToSign is what would have to be signed, and CanonicalRequest what that is
	// the hash of. The latter is empty for a form.
	Signature, StringToSign, CanonicalRequest string
}

func (e *Error) Error() string { return e.Err.Error() }

// Unwrap gives the reason to errors.Is.
func (e *Error) Unwrap() error { return e.Err }
