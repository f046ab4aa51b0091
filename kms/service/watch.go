package service

import (
	"context"
	"fmt"
	"time"

	"connectrpc.com/connect"

	"chatelaine/kms"
	"chatelaine/kms/service/kmsv1"
)

// Watch implements GatewayService.
func (g *gatewayAPI) Watch(ctx context.Context, r *kmsv1.WatchRequest, stream *connect.ServerStream[kmsv1.WatchResponse]) error {
	if _, err := g.board.newest(ctx); err != nil {
		return fmt.Errorf("service: watching revocations: %w", err)
	}
	alive := time.NewTicker(g.leases.ttl / 3)
	defer alive.Stop()
	for {
		news := g.board.look()
		if news.closed {
			return fmt.Errorf("service: watching revocations: %w: the KMS is about to end", kms.ErrUnavailable)
		}
		if err := g.leased(ctx, r.GetLeaseId()); err != nil {
			return err
		}
		if err := stream.Send(&kmsv1.WatchResponse{Revocation: revocationMessage(news.Revocation)}); err != nil {
			return err
		}
		select {
		case <-news.changed:
		case <-alive.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// Heard implements GatewayService.
func (g *gatewayAPI) Heard(ctx context.Context, r *kmsv1.HeardRequest) (*kmsv1.HeardResponse, error) {
	peer := peerOf(ctx).name
	if r.GetEnd() {
		g.leases.end(peer, r.GetLeaseId())
		return &kmsv1.HeardResponse{}, nil
	}
	canary := kms.CanaryState(r.GetCanary())
	if canary != "" && canary != kms.CanaryHeld && canary != kms.CanaryEnded {
		return nil, fmt.Errorf("service: hearing of a revocation: %w: canary %q", kms.ErrInvalid, canary)
	}
	if err := g.leases.hear(peer, r.GetLeaseId(), said{epoch: r.GetEpoch(), at: time.Now(), canary: canary}); err != nil {
		return nil, fmt.Errorf("service: hearing of a revocation: %w", err)
	}
	return &kmsv1.HeardResponse{}, nil
}

func revocationMessage(r kms.Revocation) *kmsv1.Revocation {
	out := &kmsv1.Revocation{Epoch: r.Epoch, General: r.General, Canary: r.Canary, Shredded: r.Shredded}
	for _, ref := range r.Unusable {
		out.Unusable = append(out.Unusable, refMessage(ref))
	}
	return out
}

func refMessage(ref kms.KeyRef) *kmsv1.KeyVersion {
	return &kmsv1.KeyVersion{Kek: ref.Name, Version: ref.Version}
}
