package service

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"chatelaine/kms"
	"chatelaine/kms/service/kmsv1"
)

const reading = `@id("read") permit (principal == User::"bob", action in Action::"read", resource in Bucket::"data") when { context.tls };`

func putReading(t *testing.T, c *Clients) *kmsv1.PutPoliciesResponse {
	t.Helper()
	out, err := c.Policies.PutPolicies(t.Context(), &kmsv1.PutPoliciesRequest{
		Document: &kmsv1.PolicyDocument{Policies: []byte(reading)}, Change: &kmsv1.Change{Reason: "bob helps"},
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestPoliciesArePutShownAndKept(t *testing.T) {
	_, c := local(t, nil)
	first, err := c.Policies.GetPolicies(t.Context(), &kmsv1.GetPoliciesRequest{})
	if err != nil || first.GetVersion().GetVersion() != 0 || !strings.Contains(string(first.GetDocument().GetPolicies()), "owner") {
		t.Fatalf("the default: got %v, %v", first, err)
	}
	if !strings.Contains(first.GetSchema(), `action "s3:GetObject"`) {
		t.Error("the schema does not have the actions")
	}
	if out := putReading(t, c); !out.GetChanged() || out.GetVersion().GetVersion() != 1 || out.GetReplaced() != 0 {
		t.Errorf("got %v", out)
	}
	if out := putReading(t, c); out.GetChanged() {
		t.Errorf("the same again: got %v", out)
	}
	now, err := c.Policies.GetPolicies(t.Context(), &kmsv1.GetPoliciesRequest{})
	v := now.GetVersion()
	if err != nil || string(now.GetDocument().GetPolicies()) != reading || v.GetReason() != "bob helps" || !strings.HasPrefix(v.GetActor(), "unix:") {
		t.Errorf("got %v, %v", now, err)
	}
	old, err := c.Policies.GetPolicies(t.Context(), &kmsv1.GetPoliciesRequest{Version: proto.Uint64(0)})
	if err != nil || !proto.Equal(old.GetDocument(), first.GetDocument()) {
		t.Errorf("version 0: got %v, %v", old, err)
	}
	_, err = c.Policies.GetPolicies(t.Context(), &kmsv1.GetPoliciesRequest{Version: proto.Uint64(9)})
	wantErr(t, err, kms.ErrNotFound)
	history, err := c.Policies.ListPolicyVersions(t.Context(), &kmsv1.ListPolicyVersionsRequest{})
	if err != nil || len(history.GetVersions()) != 1 {
		t.Errorf("got %v, %v", history, err)
	}
}

func TestInvalidPoliciesAreRefusedAndTheOldStay(t *testing.T) {
	_, c := local(t, nil)
	putReading(t, c)
	for _, checkOnly := range []bool{false, true} {
		_, err := c.Policies.PutPolicies(t.Context(), &kmsv1.PutPoliciesRequest{
			Document: &kmsv1.PolicyDocument{Policies: []byte(`permit (principal, action == Action::"s3:GetObjct", resource);`)}, CheckOnly: checkOnly,
		})
		wantErr(t, err, kms.ErrInvalid)
		if err == nil || !strings.Contains(err.Error(), `did you mean "s3:GetObject"`) {
			t.Errorf("the error does not help: %v", err)
		}
	}
	now, err := c.Policies.GetPolicies(t.Context(), &kmsv1.GetPoliciesRequest{})
	if err != nil || now.GetVersion().GetVersion() != 1 || string(now.GetDocument().GetPolicies()) != reading {
		t.Errorf("got %v, %v", now, err)
	}
}

func TestCheckingPoliciesChangesNothing(t *testing.T) {
	_, c := local(t, nil)
	out, err := c.Policies.PutPolicies(t.Context(), &kmsv1.PutPoliciesRequest{
		Document: &kmsv1.PolicyDocument{Policies: []byte(reading)}, CheckOnly: true,
	})
	if err != nil || !out.GetChanged() || out.GetVersion().GetVersion() != 1 || len(out.GetVersion().GetDigest()) != 64 {
		t.Errorf("got %v, %v", out, err)
	}
	if now, err := c.Policies.GetPolicies(t.Context(), &kmsv1.GetPoliciesRequest{}); err != nil || now.GetVersion().GetVersion() != 0 {
		t.Errorf("got %v, %v", now, err)
	}
}

func TestLongPoliciesFitIntoARequest(t *testing.T) {
	_, c := local(t, nil)
	long := reading + strings.Repeat(" ", kms.MaxPolicy-len(reading))
	entities := "[]" + strings.Repeat(" ", kms.MaxPolicy-2)
	if _, err := c.Policies.PutPolicies(t.Context(), &kmsv1.PutPoliciesRequest{
		Document: &kmsv1.PolicyDocument{Policies: []byte(long), Entities: []byte(entities)},
	}); err != nil {
		t.Fatal(err)
	}
	feed, err := c.PolicyFeed.Policies(t.Context(), &kmsv1.PoliciesRequest{LeaseId: leaseOf(t, c)})
	if err != nil || string(feed.GetDocument().GetPolicies()) != long {
		t.Errorf("got %d bytes, %v", len(feed.GetDocument().GetPolicies()), err)
	}
}

func TestTestingPoliciesDecidesAndExplains(t *testing.T) {
	_, c := local(t, nil)
	if _, err := c.Gateway.RegisterBucket(t.Context(), &kmsv1.RegisterBucketRequest{Name: "data", Store: "files", StoreName: "data", Owner: "olga"}); err != nil {
		t.Fatal(err)
	}
	get := func(change func(*kmsv1.TestPoliciesRequest)) *kmsv1.TestPoliciesResponse {
		t.Helper()
		r := &kmsv1.TestPoliciesRequest{Principal: "bob", Action: "s3:GetObject", Bucket: "data", Key: "k", Tls: true}
		if change != nil {
			change(r)
		}
		out, err := c.Policies.TestPolicies(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	if out := get(func(r *kmsv1.TestPoliciesRequest) { r.Principal = "olga" }); !out.GetAllow() || out.GetOwner() != "olga" {
		t.Errorf("the owner by default: got %v", out)
	}
	if out := get(func(r *kmsv1.TestPoliciesRequest) { r.Owner = proto.String("bob") }); !out.GetAllow() {
		t.Errorf("if bob were the owner: got %v", out)
	}
	if out := get(nil); out.GetAllow() {
		t.Errorf("a stranger by default: got %v", out)
	}
	candidate := &kmsv1.PolicyDocument{Policies: []byte(reading)}
	if out := get(func(r *kmsv1.TestPoliciesRequest) { r.Candidate = candidate }); !out.GetAllow() || out.GetPolicies()[0] != "read" {
		t.Errorf("by the candidate: got %v", out)
	}
	putReading(t, c)
	if out := get(nil); !out.GetAllow() || out.GetVersion() != 1 {
		t.Errorf("by what holds: got %v", out)
	}
	out := get(func(r *kmsv1.TestPoliciesRequest) { r.Tls = false })
	if miss := out.GetOutcomes()[0].GetMisses()[0]; out.GetAllow() || miss.GetPart() != "when" || miss.GetText() != "context.tls" {
		t.Errorf("without TLS: got %v", out)
	}
	for name, r := range map[string]*kmsv1.TestPoliciesRequest{
		"unknown action":    {Principal: "bob", Action: "s3:GetObjct", Bucket: "data"},
		"no principal":      {Action: "s3:GetObject", Bucket: "data"},
		"no bucket":         {Principal: "bob", Action: "s3:GetObject"},
		"no address":        {Principal: "bob", Action: "s3:GetObject", Bucket: "data", Source: "office"},
		"invalid candidate": {Principal: "bob", Action: "s3:GetObject", Bucket: "data", Candidate: &kmsv1.PolicyDocument{Policies: []byte("permit")}},
	} {
		if _, err := c.Policies.TestPolicies(t.Context(), r); err == nil {
			t.Errorf("%s was decided", name)
		} else {
			wantErr(t, err, kms.ErrInvalid)
		}
	}
}

func TestGatewaysAreGivenPoliciesUnderALeaseAndOnce(t *testing.T) {
	_, c := local(t, nil)
	lease := leaseOf(t, c)
	first, err := c.PolicyFeed.Policies(t.Context(), &kmsv1.PoliciesRequest{LeaseId: lease})
	if err != nil || first.GetDocument() == nil || first.GetVersion().GetVersion() != 0 {
		t.Fatalf("got %v, %v", first, err)
	}
	digest := first.GetVersion().GetDigest()
	again, err := c.PolicyFeed.Policies(t.Context(), &kmsv1.PoliciesRequest{LeaseId: lease, Digest: digest})
	if err != nil || again.GetDocument() != nil || again.GetVersion().GetDigest() != digest {
		t.Errorf("what the gateway has: got %v, %v", again, err)
	}
	putReading(t, c)
	next, err := c.PolicyFeed.Policies(t.Context(), &kmsv1.PoliciesRequest{LeaseId: lease, Digest: digest})
	if err != nil || string(next.GetDocument().GetPolicies()) != reading {
		t.Errorf("after a change: got %v, %v", next, err)
	}
	_, err = c.PolicyFeed.Policies(t.Context(), &kmsv1.PoliciesRequest{LeaseId: "made-up"})
	wantErr(t, err, kms.ErrLease)
}

func TestGatewaysAreGivenTheBucketsOfAllOwners(t *testing.T) {
	_, c := local(t, nil)
	for _, owner := range []string{"ann", "bob"} {
		if _, err := c.Gateway.RegisterBucket(t.Context(), &kmsv1.RegisterBucketRequest{Name: owner + "s", Store: "files", StoreName: owner, Owner: owner}); err != nil {
			t.Fatal(err)
		}
	}
	all, err := c.Gateway.ListBuckets(t.Context(), &kmsv1.ListBucketsRequest{})
	if err != nil || len(all.GetBuckets()) != 2 {
		t.Errorf("got %v, %v", all, err)
	}
}

func TestPoliciesAreForAdministratorsAndTheirFeedForGateways(t *testing.T) {
	for path, want := range map[string]peer{
		"/chatelaine.kms.v1.PolicyService/PutPolicies": {admin: true},
		"/chatelaine.kms.v1.PolicyFeed/Policies":       {gateway: true},
	} {
		if other := (peer{admin: !want.admin, gateway: !want.gateway}); !want.may(path) || other.may(path) {
			t.Errorf("%s: %+v may %t, %+v may %t", path, want, want.may(path), other, other.may(path))
		}
	}
}
