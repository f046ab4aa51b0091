package service

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"chatelaine/kms"
	"chatelaine/kms/service/kmsv1"
	"chatelaine/kms/service/kmsv1/kmsv1connect"
)

// gatewayAPI is the GatewayService.
type gatewayAPI struct {
	manager  *kms.Manager
	leases   *leases
	board    *board
	replicas *replicas
	removals *removals
	keyTTL   time.Duration
}

var _ kmsv1connect.GatewayServiceHandler = (*gatewayAPI)(nil)

// Renew asks the registry before it answers: a KMS that cannot see a block or a
// removal gives no lease. The lease counts from before that, so that whoever revokes
// something meanwhile waits for its holder.
func (g *gatewayAPI) Renew(ctx context.Context, r *kmsv1.RenewRequest) (*kmsv1.RenewResponse, error) {
	answer, err := g.renew(ctx, r)
	if err != nil {
		return nil, fmt.Errorf("service: renewing a lease: %w", err)
	}
	return answer, nil
}

func (g *gatewayAPI) renew(ctx context.Context, r *kmsv1.RenewRequest) (*kmsv1.RenewResponse, error) {
	if n := len(r.GetGatewayId()); n < 1 || n > 128 {
		return nil, fmt.Errorf("%w: gateway id of %d bytes", kms.ErrInvalid, n)
	}
	peer, heard := peerOf(ctx).name, r.GetHeard()
	if g.leases.check(peer, r.GetLeaseId()) != nil {
		heard = 0 // it was counted by another process, or under a lease that ran out
	}
	if err := g.replicas.mayLease(ctx); err != nil {
		return nil, err
	}
	id, err := g.leases.renew(asking{holder: peer, gateway: r.GetGatewayId(), id: r.GetLeaseId(), heard: heard})
	if err != nil {
		return nil, err
	}
	answer, err := g.terms(ctx, heard)
	if err != nil {
		if id != r.GetLeaseId() {
			g.leases.end(peer, id) // nobody will learn of it
		}
		return nil, err
	}
	answer.LeaseId = id
	answer.Full, err = g.sealed(r.GetSealed())
	return answer, err
}

// maxSealed is the most keys of which a renewal may say what was sealed under them.
const maxSealed = 1024

// sealed has the manager count, and returns the keys that are not to be sealed with.
func (g *gatewayAPI) sealed(counts []*kmsv1.Sealed) ([][]byte, error) {
	if len(counts) > maxSealed {
		return nil, fmt.Errorf("%w: counts of %d keys, want %d at most", kms.ErrInvalid, len(counts), maxSealed)
	}
	all := make([]kms.Sealed, 0, len(counts))
	for _, c := range counts {
		id, err := keyID(c.GetKeyId())
		if err != nil {
			return nil, err
		}
		all = append(all, kms.Sealed{Space: c.GetSpace(), ID: id, Count: c.GetCount()})
	}
	full, err := g.manager.Sealed(all)
	out := make([][]byte, len(full))
	for i := range full {
		out[i] = full[i][:]
	}
	return out, err
}

// terms are what the holder of a lease must know.
func (g *gatewayAPI) terms(ctx context.Context, heard uint64) (*kmsv1.RenewResponse, error) {
	news, err := g.board.newest(ctx)
	if err != nil {
		return nil, err
	}
	count, spaces, err := g.removals.look(ctx, heard)
	if err != nil {
		return nil, err
	}
	return &kmsv1.RenewResponse{
		Ttl: durationpb.New(g.leases.ttl), Revocation: revocationMessage(news.Revocation), Removals: count, RemovedSpaces: spaces,
	}, nil
}

// Current implements GatewayService.
func (g *gatewayAPI) Current(ctx context.Context, r *kmsv1.CurrentRequest) (*kmsv1.BucketKeyResponse, error) {
	if err := g.leased(ctx, r.GetLeaseId()); err != nil {
		return nil, err
	}
	key, err := g.manager.CurrentKey(ctx, r.GetSpace())
	return g.bucketKey(key, err)
}

// BucketKey implements GatewayService.
func (g *gatewayAPI) BucketKey(ctx context.Context, r *kmsv1.BucketKeyRequest) (*kmsv1.BucketKeyResponse, error) {
	if err := g.leased(ctx, r.GetLeaseId()); err != nil {
		return nil, err
	}
	id, err := keyID(r.GetKeyId())
	if err != nil {
		return nil, err
	}
	key, err := g.manager.BucketKey(ctx, r.GetSpace(), id)
	return g.bucketKey(key, err)
}

// SigningKey implements GatewayService.
func (g *gatewayAPI) SigningKey(ctx context.Context, r *kmsv1.SigningKeyRequest) (*kmsv1.SigningKeyResponse, error) {
	if err := g.leased(ctx, r.GetLeaseId()); err != nil {
		return nil, err
	}
	key, err := g.manager.SigningKey(ctx, r.GetAccessKeyId(), r.GetDate(), r.GetRegion(), r.GetService())
	if err != nil {
		return nil, err
	}
	out := &kmsv1.SigningKeyResponse{
		Key: reveal(key.Key), Principal: key.Principal, Ttl: g.ttl(key.Unwrapped), Kek: refMessage(key.KEK),
	}
	if key.Old.Len() > 0 {
		out.OldKey, out.OldTtl = reveal(key.Old), durationpb.New(key.OldTTL)
	}
	return out, nil
}

// ConfirmMirror implements GatewayService.
func (g *gatewayAPI) ConfirmMirror(ctx context.Context, r *kmsv1.ConfirmMirrorRequest) (*kmsv1.ConfirmMirrorResponse, error) {
	id, err := keyID(r.GetKeyId())
	if err != nil {
		return nil, err
	}
	return &kmsv1.ConfirmMirrorResponse{}, g.manager.ConfirmMirror(ctx, r.GetSpace(), id, r.GetRecord())
}

// UnconfirmMirrors implements GatewayService.
func (g *gatewayAPI) UnconfirmMirrors(ctx context.Context, r *kmsv1.UnconfirmMirrorsRequest) (*kmsv1.UnconfirmMirrorsResponse, error) {
	return &kmsv1.UnconfirmMirrorsResponse{}, g.manager.UnconfirmMirrors(ctx, r.GetSpace())
}

// Bucket implements GatewayService.
func (g *gatewayAPI) Bucket(ctx context.Context, r *kmsv1.BucketRequest) (*kmsv1.BucketResponse, error) {
	b, err := g.manager.Bucket(ctx, r.GetName())
	if err != nil {
		return nil, err
	}
	return &kmsv1.BucketResponse{Bucket: bucketMessage(b)}, nil
}

// ListBuckets implements GatewayService.
func (g *gatewayAPI) ListBuckets(ctx context.Context, r *kmsv1.ListBucketsRequest) (*kmsv1.ListBucketsResponse, error) {
	buckets, err := g.manager.Buckets(ctx, r.GetOwner())
	if err != nil {
		return nil, err
	}
	out := &kmsv1.ListBucketsResponse{}
	for _, b := range buckets {
		out.Buckets = append(out.Buckets, bucketMessage(b))
	}
	return out, nil
}

// RegisterBucket implements GatewayService.
func (g *gatewayAPI) RegisterBucket(ctx context.Context, r *kmsv1.RegisterBucketRequest) (*kmsv1.RegisterBucketResponse, error) {
	b, err := g.manager.RegisterBucket(ctx, kms.NewBucket{
		Name: r.GetName(), Store: r.GetStore(), StoreName: r.GetStoreName(), Owner: r.GetOwner(), KEK: r.GetKek(),
		Profile: kms.Profile(r.GetProfile()), ETag: kms.ETagMode(r.GetEtag()), Settle: g.removals.settle,
	})
	switch {
	case err == nil:
		g.removals.born(b.Space)
		return registered(kmsv1.RegisterBucketResponse_OUTCOME_CREATED, bucketMessage(b)), nil
	case errors.Is(err, kms.ErrExists) && b.Owner == r.GetOwner():
		return registered(kmsv1.RegisterBucketResponse_OUTCOME_OWNED, bucketMessage(b)), nil
	case errors.Is(err, kms.ErrExists):
		return registered(kmsv1.RegisterBucketResponse_OUTCOME_TAKEN, nil), nil
	default:
		return nil, err
	}
}

func registered(outcome kmsv1.RegisterBucketResponse_Outcome, b *kmsv1.Bucket) *kmsv1.RegisterBucketResponse {
	return &kmsv1.RegisterBucketResponse{Outcome: outcome, Bucket: b}
}

// ActivateBucket implements GatewayService.
func (g *gatewayAPI) ActivateBucket(ctx context.Context, r *kmsv1.ActivateBucketRequest) (*kmsv1.ActivateBucketResponse, error) {
	return &kmsv1.ActivateBucketResponse{}, g.manager.ActivateBucket(ctx, r.GetName())
}

// RemoveBucket implements GatewayService.
func (g *gatewayAPI) RemoveBucket(ctx context.Context, r *kmsv1.RemoveBucketRequest) (*kmsv1.RemoveBucketResponse, error) {
	if r.GetUnmade() {
		return &kmsv1.RemoveBucketResponse{}, g.manager.RefuseBucket(ctx, r.GetName())
	}
	return &kmsv1.RemoveBucketResponse{}, g.manager.RemoveBucket(ctx, r.GetName())
}

func (g *gatewayAPI) leased(ctx context.Context, id string) error {
	if err := g.leases.check(peerOf(ctx).name, id); err != nil {
		return fmt.Errorf("service: checking the lease: %w", err)
	}
	return nil
}

func (g *gatewayAPI) bucketKey(key kms.OpenKey, err error) (*kmsv1.BucketKeyResponse, error) {
	if err != nil {
		return nil, err
	}
	return &kmsv1.BucketKeyResponse{
		KeyId: key.ID[:], Key: reveal(key.Key), Record: key.Record, Mirrored: key.Mirrored,
		Ttl: g.ttl(key.Unwrapped), NoCache: key.Strict, Kek: refMessage(key.KEK),
	}, nil
}

// ttl is what is left of a key's life since it was unwrapped.
func (g *gatewayAPI) ttl(unwrapped time.Time) *durationpb.Duration {
	return durationpb.New(max(0, g.keyTTL-time.Since(unwrapped)))
}

// reveal copies a secret into an answer: the one place where it leaves its type.
func reveal(s kms.Secret) []byte {
	var out []byte
	s.Use(func(b []byte) { out = append(out, b...) })
	return out
}

func keyID(b []byte) (kms.KeyID, error) {
	if len(b) != len(kms.KeyID{}) {
		return kms.KeyID{}, fmt.Errorf("service: %w: key id of %d bytes", kms.ErrInvalid, len(b))
	}
	return kms.KeyID(b), nil
}

func bucketMessage(b kms.Bucket) *kmsv1.Bucket {
	out := &kmsv1.Bucket{
		Name: b.Name, Space: b.Space, Store: b.Store, StoreName: b.StoreName, Kek: b.KEK,
		Profile: string(b.Profile), Etag: string(b.ETag), Owner: b.Owner, State: string(b.State),
		Created: timestamppb.New(b.Created),
	}
	if b.Adopting != nil {
		out.CutOff, out.SealedTo = timestamp(b.Adopting.CutOff), b.Adopting.SealedTo
	}
	if b.Ledger != nil {
		out.Ledger, out.LedgerKey = string(b.Ledger.Stage), b.Ledger.Key[:]
	}
	return out
}
