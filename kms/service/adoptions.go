package service

import (
	"context"

	"chatelaine/kms"
	"chatelaine/kms/service/kmsv1"
)

// StartAdoption implements BucketService.
func (b *bucketAPI) StartAdoption(ctx context.Context, r *kmsv1.StartAdoptionRequest) (*kmsv1.StartAdoptionResponse, error) {
	a, err := b.manager.StartAdoption(ctx, b.newBucket(ctx, r.GetBucket()), kms.AdoptionOptions{
		Rate: r.GetRate(), Bytes: r.GetBytes(), Leave: r.GetLeave(),
	})
	if err != nil {
		return nil, err
	}
	b.removals.born(a.Space)
	return &kmsv1.StartAdoptionResponse{Adoption: adoptionJob(a)}, nil
}

// StopAdoption implements BucketService.
func (b *bucketAPI) StopAdoption(ctx context.Context, r *kmsv1.StopAdoptionRequest) (*kmsv1.StopAdoptionResponse, error) {
	a, err := b.manager.StopAdoption(ctx, r.GetName(), changeOf(ctx, r.GetChange()))
	if err != nil {
		return nil, err
	}
	return &kmsv1.StopAdoptionResponse{Adoption: adoptionJob(a)}, nil
}

// GetAdoption implements BucketService.
func (b *bucketAPI) GetAdoption(ctx context.Context, r *kmsv1.GetAdoptionRequest) (*kmsv1.GetAdoptionResponse, error) {
	a, err := b.manager.AdoptionOf(ctx, r.GetName())
	if err != nil {
		return nil, err
	}
	return &kmsv1.GetAdoptionResponse{Adoption: adoptionJob(a)}, nil
}

// MoveBucket implements BucketService.
func (b *bucketAPI) MoveBucket(ctx context.Context, r *kmsv1.MoveBucketRequest) (*kmsv1.MoveBucketResponse, error) {
	moved, err := b.manager.MoveBucket(ctx, r.GetName(), r.GetStore(), r.GetStoreName(), changeOf(ctx, r.GetChange()))
	if err != nil {
		return nil, err
	}
	return &kmsv1.MoveBucketResponse{Bucket: bucketDetails(moved)}, nil
}

func adoptionJob(a kms.Adoption) *kmsv1.AdoptionJob {
	out := &kmsv1.AdoptionJob{
		Bucket: a.Bucket, Store: a.Store, StoreName: a.StoreName, State: string(a.State), Told: adoptionMessage(a.Told), Trouble: a.Trouble,
		Started: timestamp(a.Started), CutOff: timestamp(a.CutOff), Ended: timestamp(a.Ended), Actor: a.Actor, Reason: a.Reason,
		Rate: a.Rate, Bytes: a.Bytes,
	}
	if signed := a.Signed; signed != nil {
		out.Statement, out.Key, out.Signature = signed.Statement, signed.Key, signed.Signature
	}
	return out
}

// BeginAdoption implements MirrorFeed.
func (f *mirrorFeed) BeginAdoption(ctx context.Context, r *kmsv1.BeginAdoptionRequest) (*kmsv1.BeginAdoptionResponse, error) {
	if err := f.leased(ctx, r.GetLeaseId()); err != nil {
		return nil, err
	}
	return &kmsv1.BeginAdoptionResponse{}, f.manager.BeginAdoption(ctx, r.GetSpace(), r.GetRunner(), r.GetCutOff().AsTime())
}

// Adopt implements MirrorFeed.
func (f *mirrorFeed) Adopt(ctx context.Context, r *kmsv1.AdoptRequest) (*kmsv1.AdoptResponse, error) {
	if err := f.leased(ctx, r.GetLeaseId()); err != nil {
		return nil, err
	}
	a, b, err := f.manager.Adopt(ctx, kms.AdoptionReport{
		Space: r.GetSpace(), Runner: r.GetRunner(), State: adoptionState(r.GetState()),
		Ended: r.GetEnded(), Trouble: r.GetTrouble(), Refused: r.GetRefused(),
	})
	if err != nil {
		return nil, err
	}
	return &kmsv1.AdoptResponse{Adoption: toAdopt(a, b)}, nil
}

func toAdopt(a kms.Adoption, b kms.Bucket) *kmsv1.Adoption {
	return &kmsv1.Adoption{Bucket: bucketMessage(b), Rate: a.Rate, Bytes: a.Bytes, Told: adoptionMessage(a.Told)}
}

func adoptionMessage(s kms.AdoptionState) *kmsv1.AdoptionState {
	out := &kmsv1.AdoptionState{
		Position: s.Position, SealedTo: s.SealedTo, Sealed: s.Sealed, SealedBytes: s.SealedBytes, Already: s.Already, Gone: s.Gone,
		SameEtag: s.SameETag, Locked: s.Locked, Problems: s.Problems, OldVersions: s.OldVersions,
	}
	for _, p := range s.First {
		out.FirstProblems = append(out.FirstProblems, &kmsv1.AdoptionProblem{Key: p.Key, Text: p.Text})
	}
	return out
}

func adoptionState(m *kmsv1.AdoptionState) *kms.AdoptionState {
	if m == nil {
		return nil
	}
	out := &kms.AdoptionState{
		Position: m.GetPosition(), SealedTo: m.GetSealedTo(), Sealed: m.GetSealed(), SealedBytes: m.GetSealedBytes(), Already: m.GetAlready(), Gone: m.GetGone(),
		SameETag: m.GetSameEtag(), Locked: m.GetLocked(), Problems: m.GetProblems(), OldVersions: m.GetOldVersions(),
	}
	for _, p := range m.GetFirstProblems() {
		out.First = append(out.First, kms.AdoptionProblem{Key: p.GetKey(), Text: p.GetText()})
	}
	return out
}
