package service

import (
	"context"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"chatelaine/kms"
	"chatelaine/kms/service/kmsv1"
	"chatelaine/kms/service/kmsv1/kmsv1connect"
)

// bucketAPI is the BucketService.
type bucketAPI struct {
	manager  *kms.Manager
	removals *removals
	blocks   *blocks
}

var _ kmsv1connect.BucketServiceHandler = (*bucketAPI)(nil)

// RegisterNewBucket implements BucketService.
func (b *bucketAPI) RegisterNewBucket(ctx context.Context, r *kmsv1.RegisterNewBucketRequest) (*kmsv1.RegisterNewBucketResponse, error) {
	made, err := b.manager.RegisterBucket(ctx, b.newBucket(ctx, r))
	if err != nil {
		return nil, err
	}
	b.removals.born(made.Space)
	return &kmsv1.RegisterNewBucketResponse{Bucket: bucketDetails(made)}, nil
}

func (b *bucketAPI) newBucket(ctx context.Context, r *kmsv1.RegisterNewBucketRequest) kms.NewBucket {
	return kms.NewBucket{
		Name: r.GetName(), Store: r.GetStore(), StoreName: r.GetStoreName(), Owner: r.GetOwner(), KEK: r.GetKek(),
		Profile: kms.Profile(r.GetProfile()), ETag: kms.ETagMode(r.GetEtag()), EpochPeriod: r.GetEpochPeriod().AsDuration(),
		EpochObjects: r.GetEpochObjects(), Ledger: r.GetLedger(),
		Settle: b.removals.settle, Make: true, Change: changeOf(ctx, r.GetChange()),
	}
}

// ListAllBuckets implements BucketService.
func (b *bucketAPI) ListAllBuckets(ctx context.Context, _ *kmsv1.ListAllBucketsRequest) (*kmsv1.ListAllBucketsResponse, error) {
	all, err := b.manager.Buckets(ctx, "")
	if err != nil {
		return nil, err
	}
	out := &kmsv1.ListAllBucketsResponse{}
	for _, one := range all {
		out.Buckets = append(out.Buckets, bucketDetails(one))
	}
	return out, nil
}

// GetBucket implements BucketService.
func (b *bucketAPI) GetBucket(ctx context.Context, r *kmsv1.GetBucketRequest) (*kmsv1.GetBucketResponse, error) {
	found, err := b.manager.Bucket(ctx, r.GetName())
	if err != nil {
		return nil, err
	}
	keys, err := b.manager.BucketKeys(ctx, r.GetName())
	if err != nil {
		return nil, err
	}
	home, err := b.manager.RecoveryHome(ctx)
	if err != nil {
		return nil, err
	}
	out := bucketDetails(found)
	if out.Learned, out.Trouble, err = b.manager.LedgerProgress(ctx, found.Space); err != nil {
		return nil, err
	}
	for _, k := range keys {
		out.Keys = append(out.Keys, bucketKeyDetails(k, home))
	}
	return &kmsv1.GetBucketResponse{Bucket: out}, nil
}

// SetBucket implements BucketService.
func (b *bucketAPI) SetBucket(ctx context.Context, r *kmsv1.SetBucketRequest) (*kmsv1.SetBucketResponse, error) {
	before, err := b.manager.Bucket(ctx, r.GetName())
	if err != nil {
		return nil, err
	}
	settings := kms.BucketSettings{KEK: r.Kek, Owner: r.Owner, EpochPeriod: duration(r.GetEpochPeriod()), EpochObjects: r.EpochObjects}
	if r.Profile != nil {
		profile := kms.Profile(r.GetProfile())
		settings.Profile = &profile
	}
	if r.Ledger != nil {
		ledger := kms.LedgerSetting(r.GetLedger())
		settings.Ledger = &ledger
	}
	set, err := b.manager.SetBucket(ctx, r.GetName(), settings, changeOf(ctx, r.GetChange()))
	if err != nil {
		return nil, err
	}
	return &kmsv1.SetBucketResponse{Bucket: bucketDetails(set), KekBefore: before.KEK}, nil
}

// RotateBucket implements BucketService.
func (b *bucketAPI) RotateBucket(ctx context.Context, r *kmsv1.RotateBucketRequest) (*kmsv1.RotateBucketResponse, error) {
	rotated, err := b.manager.RotateBucket(ctx, r.GetName(), changeOf(ctx, r.GetChange()))
	if err != nil {
		return nil, err
	}
	return &kmsv1.RotateBucketResponse{Bucket: bucketDetails(rotated)}, nil
}

// ShredBucket implements BucketService.
func (b *bucketAPI) ShredBucket(ctx context.Context, r *kmsv1.ShredBucketRequest) (*kmsv1.ShredBucketResponse, error) {
	began := time.Now()
	shredded, err := b.manager.ShredBucket(ctx, r.GetName(), changeOf(ctx, r.GetChange()))
	if err != nil {
		return nil, err
	}
	return &kmsv1.ShredBucketResponse{Bucket: bucketDetails(shredded), Effect: b.blocks.taken(ctx, began)}, nil
}

// GetShred implements BucketService.
func (b *bucketAPI) GetShred(ctx context.Context, r *kmsv1.GetShredRequest) (*kmsv1.GetShredResponse, error) {
	shred, err := b.manager.ShredOf(ctx, r.GetName())
	if err != nil {
		return nil, err
	}
	out := &kmsv1.GetShredResponse{State: string(shred.State), Problem: shred.Problem}
	if signed := shred.Signed; signed != nil {
		out.Statement, out.Key, out.Signature = signed.Statement, signed.Key, signed.Signature
	}
	return out, nil
}

func bucketDetails(b kms.Bucket) *kmsv1.BucketDetails {
	return &kmsv1.BucketDetails{
		Bucket: bucketMessage(b), EpochPeriod: durationpb.New(b.EpochPeriod), EpochObjects: b.EpochObjects, History: eventMessages(b.History),
	}
}

func bucketKeyDetails(k kms.BucketKey, home kms.RecoveryHome) *kmsv1.BucketKeyDetails {
	out := &kmsv1.BucketKeyDetails{
		Id: k.ID.String(), Epoch: k.Epoch, Kek: refMessage(kms.KeyRef{Name: k.KEK, Version: k.KEKVersion}),
		Created: timestamppb.New(k.Created), Mirrored: k.Mirrored, Recovery: string(home.State(k)),
	}
	for _, ref := range k.Stale {
		out.Stale = append(out.Stale, refMessage(ref))
	}
	return out
}
