// Package access answers one question, who may do what, and records the answer in
// the same call. It refuses to know how a caller was authenticated.
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
	Source    netip.Addr
	TLS       bool
	RequestID string
}

// Authorizer decides and records. It may be called concurrently.
type Authorizer interface {
	// Authorize returns nil, ErrDenied or ErrUnrecorded, wrapped.
	Authorize(ctx context.Context, r Request) error
}
