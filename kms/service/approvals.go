package service

import (
	"context"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"chatelaine/kms"
	"chatelaine/kms/approval"
	"chatelaine/kms/service/kmsv1"
	"chatelaine/kms/service/kmsv1/kmsv1connect"
)

// maxApprovalRequest is the longest body of a request to ApprovalService, in bytes.
const maxApprovalRequest = approval.MaxAttachment + maxRequest

// approvalAPI is the ApprovalService.
type approvalAPI struct {
	control *approval.Control
}

var _ kmsv1connect.ApprovalServiceHandler = (*approvalAPI)(nil)

// GetRules implements ApprovalService.
func (a *approvalAPI) GetRules(ctx context.Context, _ *kmsv1.GetRulesRequest) (*kmsv1.GetRulesResponse, error) {
	law, err := a.control.Law(ctx)
	if err != nil || !law.Active {
		return &kmsv1.GetRulesResponse{}, err
	}
	return &kmsv1.GetRulesResponse{
		Active: true, Rules: law.Rules.Text(), Number: law.Number, Digest: law.Rules.Digest(),
		Ceremony: law.Ceremony, Instance: law.Instance,
	}, nil
}

// PutRules implements ApprovalService.
func (a *approvalAPI) PutRules(ctx context.Context, r *kmsv1.PutRulesRequest) (*kmsv1.PutRulesResponse, error) {
	c := changeOf(ctx, r.GetChange())
	number, err := a.control.PutRules(ctx, r.GetRules(), c.Actor, c.Reason, c.Approval)
	return &kmsv1.PutRulesResponse{Number: number}, err
}

// PrepareRequest implements ApprovalService. Who asks is who calls, whatever the
// message says.
func (a *approvalAPI) PrepareRequest(ctx context.Context, r *kmsv1.PrepareRequestRequest) (*kmsv1.PrepareRequestResponse, error) {
	op := operationOf(r.GetOperation())
	op.Actor = peerOf(ctx).name
	q, signed, found, err := a.control.Prepare(ctx, op, r.GetAs())
	if err != nil {
		return nil, err
	}
	return &kmsv1.PrepareRequestResponse{Statement: q.Statement(approval.Ask), MustSign: signed, Exists: found}, nil
}

// SubmitRequest implements ApprovalService.
func (a *approvalAPI) SubmitRequest(ctx context.Context, r *kmsv1.SubmitRequestRequest) (*kmsv1.SubmitRequestResponse, error) {
	s, err := a.control.Submit(ctx, peerOf(ctx).name, r.GetStatement(), r.GetSignature(), r.GetAttachment())
	if err != nil {
		return nil, err
	}
	return &kmsv1.SubmitRequestResponse{Request: approvalRequest(s)}, nil
}

// ListRequests implements ApprovalService.
func (a *approvalAPI) ListRequests(ctx context.Context, r *kmsv1.ListRequestsRequest) (*kmsv1.ListRequestsResponse, error) {
	all, err := a.control.Requests(ctx, r.GetAll())
	if err != nil {
		return nil, err
	}
	out := &kmsv1.ListRequestsResponse{}
	for _, s := range all {
		out.Requests = append(out.Requests, approvalRequest(s))
	}
	return out, nil
}

// GetRequest implements ApprovalService.
func (a *approvalAPI) GetRequest(ctx context.Context, r *kmsv1.GetRequestRequest) (*kmsv1.GetRequestResponse, error) {
	record, s, err := a.control.Request(ctx, r.GetId())
	if err != nil {
		return nil, err
	}
	return &kmsv1.GetRequestResponse{Request: approvalRequest(s), Attachment: record.Attachment}, nil
}

// Vote implements ApprovalService.
func (a *approvalAPI) Vote(ctx context.Context, r *kmsv1.VoteRequest) (*kmsv1.VoteResponse, error) {
	s, err := a.control.Vote(ctx, r.GetId(), approval.Verdict(r.GetVerdict()), r.GetSignature())
	if err != nil {
		return nil, err
	}
	return &kmsv1.VoteResponse{Request: approvalRequest(s)}, nil
}

// ExportRequest implements ApprovalService.
func (a *approvalAPI) ExportRequest(ctx context.Context, r *kmsv1.ExportRequestRequest) (*kmsv1.ExportRequestResponse, error) {
	b, err := a.control.Export(ctx, r.GetId())
	if err != nil {
		return nil, err
	}
	text, err := b.Encode()
	return &kmsv1.ExportRequestResponse{Bundle: text}, err
}

// BeginCeremony implements ApprovalService.
func (a *approvalAPI) BeginCeremony(ctx context.Context, r *kmsv1.BeginCeremonyRequest) (*kmsv1.BeginCeremonyResponse, error) {
	statement, err := a.control.BeginCeremony(ctx, r.GetRules())
	return &kmsv1.BeginCeremonyResponse{Statement: statement}, err
}

// ApplyCeremony implements ApprovalService.
func (a *approvalAPI) ApplyCeremony(ctx context.Context, r *kmsv1.ApplyCeremonyRequest) (*kmsv1.ApplyCeremonyResponse, error) {
	b, err := a.control.ApplyCeremony(ctx, r.GetStatement(), r.GetRules(), r.GetSignatures())
	if err != nil {
		return nil, err
	}
	text, err := b.Encode()
	return &kmsv1.ApplyCeremonyResponse{Bundle: text}, err
}

func approvalRequest(s approval.Standing) *kmsv1.ApprovalRequest {
	q := s.Request
	return &kmsv1.ApprovalRequest{
		Id: q.ID, Statement: q.Statement(approval.Ask), Operation: operationMessage(q.Operation), Requester: q.Requester,
		Created: timestamppb.New(q.Created), Expires: timestamppb.New(q.Expires),
		State: string(s.State), Why: s.Why, Needs: s.Rule.String(), Approvers: s.Approvers,
		Ready: maybeTime(s.Ready), Until: maybeTime(s.Until),
	}
}

func maybeTime(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

func operationMessage(op kms.Operation) *kmsv1.Operation {
	return &kmsv1.Operation{
		Action: string(op.Action), Resource: op.Resource, Params: op.Params, Actor: op.Actor, Reason: op.Reason,
	}
}

func operationOf(op *kmsv1.Operation) kms.Operation {
	return kms.Operation{
		Action: kms.Action(op.GetAction()), Resource: op.GetResource(), Params: op.GetParams(),
		Actor: op.GetActor(), Reason: op.GetReason(),
	}
}
