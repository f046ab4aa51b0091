package access

import (
	"context"
	"fmt"
)

// Owners is the Authorizer in which a bucket's owner may do everything with it
// and nobody else anything. Every principal may make buckets and list its own.
type Owners struct {
	log *Log
}

// NewOwners makes an Owners that records to log.
func NewOwners(log *Log) *Owners { return &Owners{log: log} }

// Authorize decides and records. What is denied is recorded too.
func (o *Owners) Authorize(_ context.Context, r Request) error {
	allowed := decide(r)
	if err := o.log.record(r, allowed); err != nil {
		return fmt.Errorf("%w: %w", ErrUnrecorded, err)
	}
	if !allowed {
		return fmt.Errorf("access: %s on %q by %q: %w", r.Action, r.Bucket, r.Principal, ErrDenied)
	}
	return nil
}

// decide denies by default.
func decide(r Request) bool {
	switch {
	case r.Principal == "":
		return false
	case r.Action == "s3:ListAllMyBuckets", r.Action == "s3:CreateBucket":
		return true
	}
	return r.Owner != "" && r.Owner == r.Principal
}
