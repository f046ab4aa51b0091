package access

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"chatelaine/gateway/keys"
	"chatelaine/kms/policy"
)

// Source gives the policies that hold: keys.Client outside of tests. It is asked for
// each decision, and so answers from memory. One pointer always means the same
// policies.
type Source interface {
	Policies(ctx context.Context) (*keys.Policies, error)
}

// Policies is the Authorizer by the policies of the KMS. Without them nothing is
// allowed.
type Policies struct {
	source Source
	log    *Log
	now    func() time.Time

	ready     atomic.Pointer[compiled]
	compiling sync.Mutex
}

// compiled is what was made of policies.
type compiled struct {
	from *keys.Policies
	set  *policy.Set
	err  error
}

// New makes an Authorizer that records to log.
func New(source Source, log *Log) *Policies {
	return &Policies{source: source, log: log, now: time.Now}
}

// Authorize decides and records. What is denied, or cannot be decided, is recorded
// too.
func (p *Policies) Authorize(ctx context.Context, r Request) error {
	c, err := p.current(ctx)
	if err != nil {
		undecided := fmt.Errorf("access: %s on %q by %q: %w: %w", r.Action, r.Bucket, r.Principal, ErrUndecided, err)
		if err := p.log.record(r, 0, policy.Decision{Errors: []string{ErrUndecided.Error()}}); err != nil {
			return fmt.Errorf("%w: %w", ErrUnrecorded, err)
		}
		return undecided
	}
	d := c.set.Decide(p.question(r))
	if err := p.log.record(r, c.from.Version, d); err != nil {
		return fmt.Errorf("%w: %w", ErrUnrecorded, err)
	}
	if !d.Allow {
		return fmt.Errorf("access: %s on %q by %q: %w", r.Action, r.Bucket, r.Principal, ErrDenied)
	}
	return nil
}

// Sees implements Authorizer.
func (p *Policies) Sees(ctx context.Context, r Request) (bool, error) {
	c, err := p.current(ctx)
	if err != nil {
		return false, fmt.Errorf("access: looking at %q for %q: %w: %w", r.Bucket, r.Principal, ErrUndecided, err)
	}
	return c.set.Sees(p.question(r)), nil
}

func (p *Policies) question(r Request) policy.Request {
	return policy.Request{
		Principal: r.Principal, AccessKey: r.AccessKey, Action: r.Action, Bucket: r.Bucket, Owner: r.Owner, Key: r.Key,
		Prefix: r.Prefix, Source: r.Source, TLS: r.TLS, Presigned: r.Presigned, Reason: r.Reason, Time: p.now(),
	}
}

// current is what holds now, ready to decide. Policies that do not compile are kept
// as such: each request would only find it out again.
func (p *Policies) current(ctx context.Context) (*compiled, error) {
	from, err := p.source.Policies(ctx)
	if err != nil {
		return nil, err
	}
	if c := p.ready.Load(); c != nil && c.from == from {
		return c, c.err
	}
	p.compiling.Lock()
	defer p.compiling.Unlock()
	if c := p.ready.Load(); c != nil && c.from == from {
		return c, c.err
	}
	c := &compiled{from: from}
	c.set, c.err = policy.Compile(from.Document)
	p.ready.Store(c)
	return c, c.err
}

// fixed is a Source of policies that do not change.
type fixed struct{ policies *keys.Policies }

// Policies implements Source.
func (f fixed) Policies(context.Context) (*keys.Policies, error) { return f.policies, nil }

// Default is a Source of the policies that hold where none were put: buckets are
// their owners'. It is for gateways without a KMS, in tests.
func Default() Source { return fixed{&keys.Policies{Document: policy.Default()}} }
