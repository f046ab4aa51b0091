package service

import (
	"encoding/json"
	"errors"
	"testing"

	"chatelaine/kms"
	"chatelaine/kms/approval"
	"chatelaine/kms/service/kmsv1"
)

func TestShreddingTakesTwoPeopleWhereTheRulesSaySo(t *testing.T) {
	w, c := local(t, nil)
	ctx := t.Context()
	ceremony(t, c, "{actions: [bucket.shred], quorum: {security: 2}}")
	b, err := w.manager.RegisterBucket(ctx, kms.NewBucket{Name: "b", Store: "s", StoreName: "b", Owner: "alice"})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.manager.ActivateBucket(ctx, "b"); err != nil {
		t.Fatal(err)
	}
	shred := &kmsv1.ShredBucketRequest{Name: "b", Change: &kmsv1.Change{Reason: "the end"}}
	_, err = c.Buckets.ShredBucket(ctx, shred)
	var needed *approval.NeededError
	if !errors.As(err, &needed) || needed.Operation.Action != kms.ActionShred || needed.Operation.Params["space"] != b.Space {
		t.Fatalf("got %v", err)
	}
	prepared, err := c.Approvals.PrepareRequest(ctx, &kmsv1.PrepareRequestRequest{Operation: operationMessage(needed.Operation), As: "carol"})
	if err != nil {
		t.Fatal(err)
	}
	made, err := c.Approvals.SubmitRequest(ctx, &kmsv1.SubmitRequestRequest{
		Statement: prepared.GetStatement(), Signature: signedBy("carol", prepared.GetStatement()),
	})
	if err != nil {
		t.Fatal(err)
	}
	shred.Change.Approval = made.GetRequest().GetId()
	q, _, err := approval.ParseStatement(prepared.GetStatement())
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"alice", "bob"} {
		_, err := c.Buckets.ShredBucket(ctx, shred)
		wantErr(t, err, kms.ErrApproval)
		if _, err := c.Approvals.Vote(ctx, &kmsv1.VoteRequest{
			Id: q.ID, Verdict: string(approval.Approve), Signature: signedBy(name, q.Statement(approval.Approve)),
		}); err != nil {
			t.Fatal(err)
		}
	}
	done, err := c.Buckets.ShredBucket(ctx, shred)
	if err != nil || done.GetBucket().GetBucket().GetState() != string(kms.BucketShredded) || !done.GetEffect().GetComplete() {
		t.Fatalf("got %v, %v", done, err)
	}
	_, err = c.Mirrors.Swept(ctx, &kmsv1.SweptRequest{Space: b.Space})
	wantErr(t, err, kms.ErrLease)
	if _, err := c.Mirrors.Swept(ctx, &kmsv1.SweptRequest{LeaseId: leaseOf(t, c), Space: b.Space}); err != nil {
		t.Fatal(err)
	}
	record, err := c.Buckets.GetShred(ctx, &kmsv1.GetShredRequest{Name: "b"})
	if err != nil || record.GetState() != string(kms.ShredDone) {
		t.Fatalf("got %v, %v", record, err)
	}
	data, _ := json.Marshal(kms.SignedReport{Statement: record.GetStatement(), Key: record.GetKey(), Signature: record.GetSignature()})
	if s, _, err := kms.VerifyShred(data); err != nil || s.Approval != q.ID || s.Reason != "the end" {
		t.Errorf("got %+v, %v", s, err)
	}
}
