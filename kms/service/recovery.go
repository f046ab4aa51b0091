package service

import (
	"context"
	"fmt"

	"connectrpc.com/connect"

	"chatelaine/kms"
	"chatelaine/kms/service/kmsv1"
	"chatelaine/kms/service/kmsv1/kmsv1connect"
)

// recoveryAPI is the RecoveryService.
type recoveryAPI struct {
	manager *kms.Manager
}

var _ kmsv1connect.RecoveryServiceHandler = (*recoveryAPI)(nil)

// Recover implements RecoveryService.
func (a *recoveryAPI) Recover(ctx context.Context, stream *connect.ClientStream[kmsv1.RecoverRequest]) (*kmsv1.RecoverResponse, error) {
	var recovery *kms.Recovery
	for stream.Receive() {
		var err error
		recovery, err = a.recoverNext(ctx, recovery, stream.Msg())
		if err != nil {
			return nil, err
		}
	}
	if err := stream.Err(); err != nil {
		return nil, err
	}
	if recovery == nil {
		return nil, errNoOptions("recovering")
	}
	report, err := recovery.Finish(ctx)
	if err != nil {
		return nil, err
	}
	return recoverMessage(report), nil
}

func errNoOptions(doing string) error {
	return fmt.Errorf("service: %s: %w: the first message must be the options, and no other may", doing, kms.ErrInvalid)
}

// recoverNext takes one message. The first makes the Recovery.
func (a *recoveryAPI) recoverNext(ctx context.Context, recovery *kms.Recovery, message *kmsv1.RecoverRequest) (*kms.Recovery, error) {
	options, first := message.GetWhat().(*kmsv1.RecoverRequest_Options)
	if first != (recovery == nil) {
		return nil, errNoOptions("recovering")
	}
	switch what := message.GetWhat().(type) {
	case *kmsv1.RecoverRequest_Bucket:
		return recovery, recovery.NewBucket(recoveredBucket(what.Bucket))
	case *kmsv1.RecoverRequest_Mirror:
		if opened := what.Mirror.GetOpened(); len(opened) > 0 {
			return recovery, recovery.AddOpened(what.Mirror.GetName(), what.Mirror.GetRecord(), kms.NewSecret(opened))
		}
		return recovery, recovery.AddMirror(ctx, what.Mirror.GetName(), what.Mirror.GetRecord())
	case *kmsv1.RecoverRequest_Options:
		return a.manager.NewRecovery(kms.RecoveryOptions{
			Apply: options.Options.GetApply(), Provider: options.Options.GetProvider(),
			RecoveryKEK: options.Options.GetRecoveryKek(), Change: changeOf(ctx, options.Options.GetChange()),
		})
	default:
		return nil, fmt.Errorf("service: recovering: %w: a message with nothing in it", kms.ErrInvalid)
	}
}

func recoveredBucket(b *kmsv1.RecoverBucket) kms.RecoveredBucket {
	return kms.RecoveredBucket{
		Name: b.GetName(), Store: b.GetStore(), StoreName: b.GetStoreName(), Owner: b.GetOwner(), Space: b.GetSpace(),
		KEK: b.GetKek(), Profile: kms.Profile(b.GetProfile()), ETag: kms.ETagMode(b.GetEtag()),
	}
}

func recoverMessage(r kms.RecoveryReport) *kmsv1.RecoverResponse {
	out := &kmsv1.RecoverResponse{Applied: r.Applied, Users: r.Users, Clean: r.Clean()}
	for _, ref := range r.Adopted {
		out.Adopted = append(out.Adopted, ref.String())
	}
	for _, b := range r.Buckets {
		out.Buckets = append(out.Buckets, recoveredMessage(b))
	}
	return out
}

func recoveredMessage(b kms.BucketReport) *kmsv1.RecoveredBucket {
	out := &kmsv1.RecoveredBucket{
		Name: b.Name, Store: b.Store, StoreName: b.StoreName, Owner: b.Owner, Space: b.Space,
		Kek: b.KEK, Profile: string(b.Profile), Etag: string(b.ETag), Outcome: string(b.Outcome),
		NewKeys: uint64(b.New), KnownKeys: uint64(b.Known), NewestEpoch: b.Newest,
		Missing: b.Missing, MissingCount: b.MissingCount, Warnings: b.Warnings, Problem: b.Problem,
	}
	for _, p := range b.Refused {
		out.Refused = append(out.Refused, &kmsv1.MirrorProblem{Mirror: p.Mirror, Problem: p.Problem})
	}
	return out
}
