package service

import (
	"context"
	"encoding/hex"

	"google.golang.org/protobuf/types/known/timestamppb"

	"chatelaine/kms"
	"chatelaine/kms/service/kmsv1"
	"chatelaine/kms/service/kmsv1/kmsv1connect"
)

// jobAPI is the JobService.
type jobAPI struct {
	manager *kms.Manager
}

var _ kmsv1connect.JobServiceHandler = (*jobAPI)(nil)

// StartRewrap implements JobService.
func (j *jobAPI) StartRewrap(ctx context.Context, r *kmsv1.StartRewrapRequest) (*kmsv1.StartRewrapResponse, error) {
	job, err := j.manager.StartRewrap(ctx, r.GetKek(), r.GetRate(), changeOf(ctx, r.GetChange()))
	if err != nil {
		return nil, err
	}
	return &kmsv1.StartRewrapResponse{Job: jobMessage(job)}, nil
}

// StopRewrap implements JobService.
func (j *jobAPI) StopRewrap(ctx context.Context, r *kmsv1.StopRewrapRequest) (*kmsv1.StopRewrapResponse, error) {
	job, err := j.manager.StopRewrap(ctx, r.GetKek(), changeOf(ctx, r.GetChange()))
	if err != nil {
		return nil, err
	}
	return &kmsv1.StopRewrapResponse{Job: jobMessage(job)}, nil
}

// GetRewrap implements JobService.
func (j *jobAPI) GetRewrap(ctx context.Context, r *kmsv1.GetRewrapRequest) (*kmsv1.GetRewrapResponse, error) {
	job, err := j.manager.RewrapJob(ctx, r.GetKek())
	if err != nil {
		return nil, err
	}
	return &kmsv1.GetRewrapResponse{Job: jobMessage(job)}, nil
}

// Report implements JobService.
func (j *jobAPI) Report(ctx context.Context, r *kmsv1.ReportRequest) (*kmsv1.ReportResponse, error) {
	_, signed, err := j.manager.Report(ctx, r.GetKek())
	if err != nil {
		return nil, err
	}
	return &kmsv1.ReportResponse{Statement: signed.Statement, Key: signed.Key, Signature: signed.Signature}, nil
}

// GetReportKey implements JobService.
func (j *jobAPI) GetReportKey(ctx context.Context, _ *kmsv1.GetReportKeyRequest) (*kmsv1.GetReportKeyResponse, error) {
	key, err := j.manager.InstanceKey(ctx)
	if err != nil {
		return nil, err
	}
	return &kmsv1.GetReportKeyResponse{Key: key, Fingerprint: kms.Fingerprint(key)}, nil
}

func jobMessage(j kms.Job) *kmsv1.RewrapJob {
	return &kmsv1.RewrapJob{
		Kek: j.KEK, State: string(j.State), Total: j.Total, Done: j.Done, Rate: j.Rate, Problem: j.Problem,
		Started: timestamppb.New(j.Started), Ended: timestamp(j.Ended), Actor: j.Actor, Reason: j.Reason,
	}
}

// mirrorFeed is the MirrorFeed.
type mirrorFeed struct {
	manager *kms.Manager
	leased  func(context.Context, string) error
}

var _ kmsv1connect.MirrorFeedHandler = (*mirrorFeed)(nil)

// maxUnmirrored is how many keys an answer has.
const maxUnmirrored = 64

// Unmirrored implements MirrorFeed.
func (f *mirrorFeed) Unmirrored(ctx context.Context, r *kmsv1.UnmirroredRequest) (*kmsv1.UnmirroredResponse, error) {
	if err := f.leased(ctx, r.GetLeaseId()); err != nil {
		return nil, err
	}
	keys, err := f.manager.UnmirroredKeys(ctx, maxUnmirrored)
	if err != nil {
		return nil, err
	}
	out := &kmsv1.UnmirroredResponse{}
	for _, k := range keys {
		out.Keys = append(out.Keys, &kmsv1.UnmirroredKey{Bucket: bucketMessage(k.Bucket), KeyId: k.ID[:], Record: k.Record})
	}
	unmade, err := f.manager.UnmadeBuckets(ctx)
	if err != nil {
		return nil, err
	}
	for _, b := range unmade {
		out.Unmade = append(out.Unmade, bucketMessage(b))
	}
	unswept, err := f.manager.UnsweptBuckets(ctx)
	if err != nil {
		return nil, err
	}
	for _, b := range unswept {
		out.Unswept = append(out.Unswept, bucketMessage(b))
	}
	adoptions, buckets, err := f.manager.Adoptions(ctx)
	if err != nil {
		return nil, err
	}
	for i, a := range adoptions {
		out.Adoptions = append(out.Adoptions, toAdopt(a, buckets[i]))
	}
	learning, err := f.manager.LearningBuckets(ctx)
	if err != nil {
		return nil, err
	}
	for _, b := range learning {
		out.Learning = append(out.Learning, bucketMessage(b))
	}
	return out, nil
}

// Swept implements MirrorFeed.
func (f *mirrorFeed) Swept(ctx context.Context, r *kmsv1.SweptRequest) (*kmsv1.SweptResponse, error) {
	if err := f.leased(ctx, r.GetLeaseId()); err != nil {
		return nil, err
	}
	swept := kms.Swept{
		Space: r.GetSpace(), Gateway: peerOf(ctx).name, Mirrors: r.GetMirrors(), Left: r.GetLeft(), Seen: r.GetSeen(), Problem: r.GetProblem(),
	}
	for _, s := range r.GetSamples() {
		swept.Samples = append(swept.Samples, kms.Sample{Object: s.GetObject(), KeyID: hex.EncodeToString(s.GetKeyId())})
	}
	return &kmsv1.SweptResponse{}, f.manager.FinishShred(ctx, swept)
}
