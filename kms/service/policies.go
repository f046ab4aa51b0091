package service

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"chatelaine/kms"
	"chatelaine/kms/policy"
	"chatelaine/kms/service/kmsv1"
	"chatelaine/kms/service/kmsv1/kmsv1connect"
)

// maxPolicyRequest is the longest body of a request to PolicyService, in bytes.
const maxPolicyRequest = 2*kms.MaxPolicy + maxRequest

// policyAPI is the PolicyService.
type policyAPI struct {
	manager *kms.Manager
}

var _ kmsv1connect.PolicyServiceHandler = (*policyAPI)(nil)

// PutPolicies implements PolicyService.
func (p *policyAPI) PutPolicies(ctx context.Context, r *kmsv1.PutPoliciesRequest) (*kmsv1.PutPoliciesResponse, error) {
	d := documentOf(r.GetDocument())
	old, _, err := p.manager.CurrentPolicies(ctx)
	if err != nil {
		return nil, err
	}
	out := &kmsv1.PutPoliciesResponse{Replaced: old.Version}
	if r.GetCheckOnly() {
		next := kms.PolicySet{Version: old.Version + 1, Digest: d.Digest()}
		if next.Digest == old.Digest {
			next = old
		}
		out.Version, out.Changed = policyVersion(next), next.Version != old.Version
		return out, p.manager.CheckPolicy(d)
	}
	made, err := p.manager.PutPolicies(ctx, d, changeOf(ctx, r.GetChange()))
	if err != nil {
		return nil, err
	}
	out.Version, out.Changed = policyVersion(made), made.Version != old.Version
	return out, nil
}

// GetPolicies implements PolicyService.
func (p *policyAPI) GetPolicies(ctx context.Context, r *kmsv1.GetPoliciesRequest) (*kmsv1.GetPoliciesResponse, error) {
	s, d, err := p.version(ctx, r.Version)
	if err != nil {
		return nil, err
	}
	s, d = orDefault(s, d)
	return &kmsv1.GetPoliciesResponse{Version: policyVersion(s), Document: policyDocument(d), Schema: policy.Schema()}, nil
}

// version finds a version, or that which holds for nil.
func (p *policyAPI) version(ctx context.Context, version *uint64) (kms.PolicySet, kms.PolicyDocument, error) {
	switch {
	case version == nil:
		return p.manager.CurrentPolicies(ctx)
	case *version == 0:
		return kms.PolicySet{}, kms.PolicyDocument{}, nil
	default:
		return p.manager.Policies(ctx, *version)
	}
}

// orDefault is the default policies in the place of none.
func orDefault(s kms.PolicySet, d kms.PolicyDocument) (kms.PolicySet, kms.PolicyDocument) {
	if s.Version > 0 {
		return s, d
	}
	d = policy.Default()
	return kms.PolicySet{Digest: d.Digest()}, d
}

// ListPolicyVersions implements PolicyService.
func (p *policyAPI) ListPolicyVersions(ctx context.Context, _ *kmsv1.ListPolicyVersionsRequest) (*kmsv1.ListPolicyVersionsResponse, error) {
	all, err := p.manager.PolicyHistory(ctx)
	if err != nil {
		return nil, err
	}
	out := &kmsv1.ListPolicyVersionsResponse{}
	for _, s := range all {
		out.Versions = append(out.Versions, policyVersion(s))
	}
	return out, nil
}

// TestPolicies implements PolicyService.
func (p *policyAPI) TestPolicies(ctx context.Context, r *kmsv1.TestPoliciesRequest) (*kmsv1.TestPoliciesResponse, error) {
	q, err := p.question(ctx, r)
	if err != nil {
		return nil, fmt.Errorf("service: testing access policies: %w", err)
	}
	s, set, err := p.tested(ctx, r.GetCandidate())
	if err != nil {
		return nil, err
	}
	e := set.Explain(q)
	out := &kmsv1.TestPoliciesResponse{
		Allow: e.Allow, Policies: e.Policies, Errors: e.Errors, Owner: q.Owner, Version: s.Version,
	}
	for _, o := range e.Outcomes {
		out.Outcomes = append(out.Outcomes, outcomeMessage(o))
	}
	return out, nil
}

// tested is the candidate, which is checked, or else the policies that hold.
func (p *policyAPI) tested(ctx context.Context, candidate *kmsv1.PolicyDocument) (kms.PolicySet, *policy.Set, error) {
	if candidate != nil {
		set, err := policy.Check(documentOf(candidate))
		return kms.PolicySet{}, set, err
	}
	s, d, err := p.manager.CurrentPolicies(ctx)
	if err != nil {
		return s, nil, err
	}
	s, d = orDefault(s, d)
	set, err := policy.Compile(d)
	return s, set, err
}

func (p *policyAPI) question(ctx context.Context, r *kmsv1.TestPoliciesRequest) (policy.Request, error) {
	q := policy.Request{
		Principal: r.GetPrincipal(), AccessKey: r.GetAccessKey(), Action: r.GetAction(), Bucket: r.GetBucket(), Key: r.GetKey(),
		Prefix: r.GetPrefix(), TLS: r.GetTls(), Presigned: r.GetPresigned(), Reason: r.GetReason(), Time: time.Now(),
		Source: netip.AddrFrom4([4]byte{127, 0, 0, 1}),
	}
	if r.GetTime() != nil {
		q.Time = r.GetTime().AsTime()
	}
	var err error
	if r.GetSource() != "" {
		if q.Source, err = netip.ParseAddr(r.GetSource()); err != nil {
			return q, fmt.Errorf("%w: source %q is no IP address", kms.ErrInvalid, r.GetSource())
		}
	}
	if err := policy.CheckRequest(q); err != nil {
		return q, err
	}
	q.Owner, err = p.ownerOf(ctx, r)
	return q, err
}

// ownerOf is the owner that was named, or else that of the bucket if there is one.
func (p *policyAPI) ownerOf(ctx context.Context, r *kmsv1.TestPoliciesRequest) (string, error) {
	if r.Owner != nil || r.GetBucket() == "" || r.GetAction() == "s3:CreateBucket" {
		return r.GetOwner(), nil
	}
	b, err := p.manager.Bucket(ctx, r.GetBucket())
	if errors.Is(err, kms.ErrNotFound) {
		return "", nil
	}
	return b.Owner, err
}

// policyFeed is the PolicyFeed.
type policyFeed struct {
	manager *kms.Manager
	leased  func(context.Context, string) error
}

var _ kmsv1connect.PolicyFeedHandler = (*policyFeed)(nil)

// Policies implements PolicyFeed.
func (p *policyFeed) Policies(ctx context.Context, r *kmsv1.PoliciesRequest) (*kmsv1.PoliciesResponse, error) {
	if err := p.leased(ctx, r.GetLeaseId()); err != nil {
		return nil, err
	}
	s, d, err := p.manager.CurrentPolicies(ctx)
	if err != nil {
		return nil, err
	}
	s, d = orDefault(s, d)
	out := &kmsv1.PoliciesResponse{Version: policyVersion(s)}
	if s.Digest != r.GetDigest() {
		out.Document = policyDocument(d)
	}
	return out, nil
}

func documentOf(d *kmsv1.PolicyDocument) kms.PolicyDocument {
	return kms.PolicyDocument{Policies: d.GetPolicies(), Entities: d.GetEntities()}
}

func policyDocument(d kms.PolicyDocument) *kmsv1.PolicyDocument {
	return &kmsv1.PolicyDocument{Policies: d.Policies, Entities: d.Entities}
}

func policyVersion(s kms.PolicySet) *kmsv1.PolicyVersion {
	out := &kmsv1.PolicyVersion{Version: s.Version, Digest: s.Digest, Actor: s.Actor, Reason: s.Reason, Approval: s.Approval}
	if !s.Created.IsZero() {
		out.Created = timestamppb.New(s.Created)
	}
	return out
}

func outcomeMessage(o policy.Outcome) *kmsv1.PolicyOutcome {
	out := &kmsv1.PolicyOutcome{Id: o.ID, Line: uint32(o.Line), Effect: o.Effect, Applies: o.Applies}
	for _, m := range o.Misses {
		out.Misses = append(out.Misses, &kmsv1.PolicyMiss{Part: m.Part, Text: m.Text, Error: m.Error})
	}
	return out
}
