package service

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"chatelaine/kms"
	"chatelaine/kms/approval"
	"chatelaine/kms/service/kmsv1"
)

// keyOf is a person's private key.
func keyOf(name string) ed25519.PrivateKey {
	seed := sha256.Sum256([]byte(name))
	return ed25519.NewKeyFromSeed(seed[:])
}

func bare(b []byte) string { return "ed25519:" + base64.StdEncoding.EncodeToString(b) }

func signedBy(name string, statement []byte) string {
	return bare(ed25519.Sign(keyOf(name), statement))
}

func dualRules(more ...string) []byte {
	var b strings.Builder
	b.WriteString("people:\n")
	for _, name := range []string{"alice", "bob", "carol"} {
		fmt.Fprintf(&b, "  %s: {keys: [%q]}\n", name, bare(keyOf(name).Public().(ed25519.PublicKey)))
	}
	b.WriteString("groups: {security: [alice, bob, carol]}\n")
	b.WriteString("rules:\n  - {actions: [rules.put, policy.put], quorum: {security: 2}}\n")
	for _, rule := range more {
		b.WriteString("  - " + rule + "\n")
	}
	return []byte(b.String())
}

// ceremony turns dual control on.
func ceremony(t *testing.T, c *Clients, more ...string) {
	t.Helper()
	rules := dualRules(more...)
	begun, err := c.Approvals.BeginCeremony(t.Context(), &kmsv1.BeginCeremonyRequest{Rules: rules})
	if err != nil {
		t.Fatal(err)
	}
	apply := &kmsv1.ApplyCeremonyRequest{Statement: begun.GetStatement(), Rules: rules}
	for _, name := range []string{"alice", "bob", "carol"} {
		apply.Signatures = append(apply.Signatures, signedBy(name, begun.GetStatement()))
	}
	if _, err := c.Approvals.ApplyCeremony(t.Context(), apply); err != nil {
		t.Fatal(err)
	}
}

func TestAPolicyNeedsTwoPeopleWhereTheRulesSaySo(t *testing.T) {
	_, c := local(t, nil)
	ctx := t.Context()
	if rules, err := c.Approvals.GetRules(ctx, &kmsv1.GetRulesRequest{}); err != nil || rules.GetActive() {
		t.Fatalf("got %v, %v", rules, err)
	}
	ceremony(t, c)
	if rules, err := c.Approvals.GetRules(ctx, &kmsv1.GetRulesRequest{}); err != nil || !rules.GetActive() || rules.GetNumber() != 1 {
		t.Fatalf("got %v, %v", rules, err)
	}

	put := &kmsv1.PutPoliciesRequest{Document: &kmsv1.PolicyDocument{Policies: []byte(reading)}, Change: &kmsv1.Change{Reason: "bob helps"}}
	_, err := c.Policies.PutPolicies(ctx, put)
	wantErr(t, err, kms.ErrApproval)
	var needed *approval.NeededError
	if !errors.As(err, &needed) || needed.Operation.Action != kms.ActionPolicy || needed.Operation.Reason != "bob helps" || needed.Operation.Params["digest"] == "" {
		t.Fatalf("the operation did not travel: %v", err)
	}
	op := operationMessage(needed.Operation)
	_, err = c.Approvals.PrepareRequest(ctx, &kmsv1.PrepareRequestRequest{Operation: op})
	wantErr(t, err, kms.ErrDenied) // root is no person
	prepared, err := c.Approvals.PrepareRequest(ctx, &kmsv1.PrepareRequestRequest{Operation: op, As: "carol"})
	if err != nil || !prepared.GetMustSign() || prepared.GetExists() {
		t.Fatalf("got %v, %v", prepared, err)
	}
	made, err := c.Approvals.SubmitRequest(ctx, &kmsv1.SubmitRequestRequest{
		Statement: prepared.GetStatement(), Signature: signedBy("carol", prepared.GetStatement()),
	})
	if err != nil || made.GetRequest().GetState() != "pending" {
		t.Fatalf("got %v, %v", made, err)
	}
	id := made.GetRequest().GetId()
	put.Change.Approval = id
	_, err = c.Policies.PutPolicies(ctx, put)
	wantErr(t, err, kms.ErrApproval)

	q, _, err := approval.ParseStatement(made.GetRequest().GetStatement())
	if err != nil {
		t.Fatal(err)
	}
	vote := func(name string, verdict approval.Verdict) (*kmsv1.VoteResponse, error) {
		return c.Approvals.Vote(ctx, &kmsv1.VoteRequest{Id: id, Verdict: string(verdict), Signature: signedBy(name, q.Statement(verdict))})
	}
	_, err = vote("carol", approval.Approve)
	wantErr(t, err, kms.ErrDenied)
	for i, name := range []string{"alice", "bob"} {
		out, err := vote(name, approval.Approve)
		if want := []string{"pending", "approved"}[i]; err != nil || out.GetRequest().GetState() != want {
			t.Fatalf("got %v, %v", out, err)
		}
	}
	if out, err := c.Policies.PutPolicies(ctx, put); err != nil || !out.GetChanged() {
		t.Fatalf("got %v, %v", out, err)
	}

	list, err := c.Approvals.ListRequests(ctx, &kmsv1.ListRequestsRequest{All: true})
	if err != nil || len(list.GetRequests()) != 1 || list.GetRequests()[0].GetState() != "used" {
		t.Errorf("got %v, %v", list, err)
	}
	if list, err = c.Approvals.ListRequests(ctx, &kmsv1.ListRequestsRequest{}); err != nil || len(list.GetRequests()) != 0 {
		t.Errorf("got %v, %v", list, err)
	}
	exported, err := c.Approvals.ExportRequest(ctx, &kmsv1.ExportRequestRequest{Id: id[:6]})
	if err != nil {
		t.Fatal(err)
	}
	b, err := approval.ParseBundle(exported.GetBundle())
	if err != nil {
		t.Fatal(err)
	}
	if p, err := b.Verify(""); err != nil || !p.Approved {
		t.Errorf("got %+v, %v", p, err)
	}
}

func TestTheActorOfARequestIsWhoCalls(t *testing.T) {
	_, c := local(t, nil)
	ceremony(t, c)
	prepared, err := c.Approvals.PrepareRequest(t.Context(), &kmsv1.PrepareRequestRequest{
		Operation: &kmsv1.Operation{Action: string(kms.ActionShred), Resource: "bucket/b", Actor: "somebody else"}, As: "carol",
	})
	if err != nil {
		t.Fatal(err)
	}
	q, _, err := approval.ParseStatement(prepared.GetStatement())
	if err != nil || !strings.HasPrefix(q.Operation.Actor, "unix:") {
		t.Fatalf("actor %q, %v", q.Operation.Actor, err)
	}
	q.Operation.Actor = "somebody else"
	statement := q.Statement(approval.Ask)
	_, err = c.Approvals.SubmitRequest(t.Context(), &kmsv1.SubmitRequestRequest{Statement: statement, Signature: signedBy("carol", statement)})
	wantErr(t, err, kms.ErrDenied)
}

func TestRulesArePutWithAnApproval(t *testing.T) {
	_, c := local(t, nil)
	ceremony(t, c)
	_, err := c.Approvals.PutRules(t.Context(), &kmsv1.PutRulesRequest{Rules: append(dualRules(), "# x\n"...)})
	var needed *approval.NeededError
	if !errors.As(err, &needed) || needed.Operation.Action != kms.ActionRules {
		t.Errorf("got %v", err)
	}
	_, err = c.Approvals.PutRules(t.Context(), &kmsv1.PutRulesRequest{Rules: []byte("people: {}")})
	wantErr(t, err, kms.ErrInvalid)
	_, err = c.Approvals.GetRequest(t.Context(), &kmsv1.GetRequestRequest{Id: "0123"})
	wantErr(t, err, kms.ErrNotFound)
}

func TestBlockingTakesOnePersonAndUnblockingTwoMore(t *testing.T) {
	_, c := local(t, nil)
	ctx := t.Context()
	ceremony(t, c)
	if _, err := c.Keys.BlockKEK(ctx, &kmsv1.BlockKEKRequest{Name: "main"}); err != nil {
		t.Fatal(err)
	}
	unblock := &kmsv1.UnblockKEKRequest{Name: "main", Change: &kmsv1.Change{Reason: "over"}}
	_, err := c.Keys.UnblockKEK(ctx, unblock)
	var needed *approval.NeededError
	if !errors.As(err, &needed) {
		t.Fatalf("got %v", err)
	}
	q := askedBy(t, c, "alice", operationMessage(needed.Operation))
	unblock.Change.Approval = q.ID
	for _, name := range []string{"bob", "carol"} {
		_, err := c.Keys.UnblockKEK(ctx, unblock)
		wantErr(t, err, kms.ErrApproval)
		approvedBy(t, c, name, q)
	}
	if _, err := c.Keys.UnblockKEK(ctx, unblock); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Keys.BlockKEK(ctx, &kmsv1.BlockKEKRequest{Name: "main"}); err != nil {
		t.Fatal(err)
	}
	_, err = c.Keys.UnblockKEK(ctx, unblock)
	wantErr(t, err, kms.ErrApproval) // it is good for once
}

// askedBy makes a request as a person.
func askedBy(t *testing.T, c *Clients, name string, op *kmsv1.Operation) approval.Request {
	t.Helper()
	prepared, err := c.Approvals.PrepareRequest(t.Context(), &kmsv1.PrepareRequestRequest{Operation: op, As: name})
	if err != nil {
		t.Fatal(err)
	}
	statement := prepared.GetStatement()
	_, err = c.Approvals.SubmitRequest(t.Context(), &kmsv1.SubmitRequestRequest{Statement: statement, Signature: signedBy(name, statement)})
	if err != nil {
		t.Fatal(err)
	}
	q, _, err := approval.ParseStatement(statement)
	if err != nil {
		t.Fatal(err)
	}
	return q
}

func approvedBy(t *testing.T, c *Clients, name string, q approval.Request) {
	t.Helper()
	_, err := c.Approvals.Vote(t.Context(), &kmsv1.VoteRequest{
		Id: q.ID, Verdict: string(approval.Approve), Signature: signedBy(name, q.Statement(approval.Approve)),
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestAGatewayGetsNoKeyUntilItsUseIsApproved(t *testing.T) {
	w, c := local(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { w.control.Run(ctx); close(ended) }()
	defer func() { cancel(); <-ended }()
	ceremony(t, c, "{actions: [key.use], resources: [key/main], quorum: {security: 1}}")
	made, err := c.Gateway.RegisterBucket(ctx, &kmsv1.RegisterBucketRequest{Name: "b", Store: "files", StoreName: "b", Owner: "alice"})
	if err != nil {
		t.Fatal(err)
	}
	current := &kmsv1.CurrentRequest{LeaseId: leaseOf(t, c), Space: made.GetBucket().GetSpace()}
	_, err = c.Gateway.Current(ctx, current)
	wantErr(t, err, kms.ErrApproval)
	q := askedBy(t, c, "bob", &kmsv1.Operation{Action: string(kms.ActionUse), Resource: "key/main"})
	approvedBy(t, c, "alice", q)
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		if _, err = c.Gateway.Current(ctx, current); err == nil {
			return
		}
		if wantErr(t, err, kms.ErrApproval); time.Now().After(end) {
			t.Fatal("the approval opens nothing")
		}
	}
}
