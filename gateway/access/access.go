// Package access answers one question, who may do what, and records the answer in
// the same call. What decides are the access policies of the KMS, which package
// kms/policy evaluates. It refuses to know how a caller was authenticated.
package access

import (
	"context"
	"errors"
	"net/netip"
)

// Errors of Authorize.
var (
	// ErrDenied: the principal may not do this. Answer 403.
	ErrDenied = errors.New("access denied")
	// ErrUndecided: there are no policies to decide by, so nothing may happen. Answer
	// 503.
	ErrUndecided = errors.New("no policies to decide by")
	// ErrUnrecorded: the decision could not be recorded, so nothing may happen.
	// Answer 503.
	ErrUnrecorded = errors.New("decision could not be recorded")
)

// Request is what is to be decided. Action is S3's name: "s3:GetObject".
// Owner is the bucket's owner, empty where there is no bucket.
type Request struct {
	Principal string
	AccessKey string // its id
	Action    string
	Bucket    string
	Owner     string
	Key       string
	Prefix    string // of a list
	Source    netip.Addr
	TLS       bool
	Presigned bool   // signed in a URL or a form
	Reason    string // that the client gave, and signed; empty for none
	RequestID string
}

// Authorizer decides and records. It may be called concurrently.
type Authorizer interface {
	// Authorize returns nil, ErrDenied, ErrUndecided or ErrUnrecorded, wrapped.
	Authorize(ctx context.Context, r Request) error
	// Sees says whether the principal is shown the bucket in a list of buckets. Action,
	// Key and Prefix are not looked at. It records nothing: that the buckets were
	// listed is a decision of its own. Errors: ErrUndecided.
	Sees(ctx context.Context, r Request) (bool, error)
}
