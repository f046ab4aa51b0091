package keys

import (
	"context"
	"fmt"
	"strconv"

	"chatelaine/kms"
	"chatelaine/kms/service/kmsv1"
)

// Policies are the access policies that hold. They do not change: other policies are
// other Policies, so that a pointer tells one from the other.
type Policies struct {
	Version  uint64 // 0: the default
	Document kms.PolicyDocument
}

// heldPolicies are policies as they were at a generation.
type heldPolicies struct {
	generation uint64
	digest     string
	policies   *Policies
}

// Policies returns the access policies that hold. They are asked for again after each
// revocation, of which a change of policies is one, and without a lease there are
// none: a change counts for every request after the gateway has heard of it, and
// after the lease at the latest. Errors: ErrUnavailable.
func (c *Client) Policies(ctx context.Context) (*Policies, error) {
	p, err := c.findPolicies(ctx)
	if err != nil {
		return nil, fmt.Errorf("keys: access policies: %w", translate(err, ErrUnavailable))
	}
	return p, nil
}

func (c *Client) findPolicies(ctx context.Context) (*Policies, error) {
	if err := c.lease.ensure(ctx); err != nil {
		return nil, err
	}
	for range 3 { // while answers are older than the last revocation
		generation := c.generation.load()
		if held := c.policies.Load(); held != nil && held.generation == generation {
			return held.policies, nil
		}
		flight := "policies " + strconv.FormatUint(generation, 16)
		p, err := shared(ctx, c, flight, c.fetchPolicies)
		if err != nil || generation == c.generation.load() {
			return p, err
		}
	}
	return nil, fmt.Errorf("%w: policies are being changed", ErrUnavailable)
}

// fetchPolicies asks the KMS for the policies, unless they are those that are here,
// and keeps the answer unless something was revoked meanwhile.
func (c *Client) fetchPolicies(ctx context.Context) (*Policies, error) {
	generation, old := c.generation.load(), c.policies.Load()
	if old == nil {
		old = &heldPolicies{}
	}
	answer, _, err := leased(ctx, c, "Policies", func(ctx context.Context, lease string) (*kmsv1.PoliciesResponse, error) {
		return c.feed.Policies(ctx, &kmsv1.PoliciesRequest{LeaseId: lease, Digest: old.digest})
	})
	if err != nil {
		return nil, err
	}
	next, err := old.next(answer)
	if err != nil {
		return nil, err
	}
	next.generation = generation
	if generation == c.generation.load() {
		c.policies.Store(next)
	}
	return next.policies, nil
}

// next makes of an answer what is held after it.
func (h *heldPolicies) next(answer *kmsv1.PoliciesResponse) (*heldPolicies, error) {
	version, digest := answer.GetVersion().GetVersion(), answer.GetVersion().GetDigest()
	if answer.GetDocument() == nil {
		if h.policies == nil || digest != h.digest {
			return nil, fmt.Errorf("%w: no text for digest %q", kms.ErrCorrupt, digest)
		}
		if version == h.policies.Version {
			return &heldPolicies{digest: digest, policies: h.policies}, nil
		}
		return &heldPolicies{digest: digest, policies: &Policies{Version: version, Document: h.policies.Document}}, nil
	}
	d := kms.PolicyDocument{Policies: answer.GetDocument().GetPolicies(), Entities: answer.GetDocument().GetEntities()}
	if d.Digest() != digest {
		return nil, fmt.Errorf("%w: the text is not that of digest %q", kms.ErrCorrupt, digest)
	}
	return &heldPolicies{digest: digest, policies: &Policies{Version: version, Document: d}}, nil
}
