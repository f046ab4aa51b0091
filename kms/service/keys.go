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

// keyAPI is the KeyService.
type keyAPI struct {
	manager *kms.Manager
	blocks  *blocks
}

var _ kmsv1connect.KeyServiceHandler = (*keyAPI)(nil)

// changeOf is who changes what: the caller by the word of the connection, and what
// they say of it.
func changeOf(ctx context.Context, c *kmsv1.Change) kms.Change {
	return kms.Change{Actor: peerOf(ctx).name, Reason: c.GetReason(), Approval: c.GetApproval()}
}

// CreateKEK implements KeyService.
func (k *keyAPI) CreateKEK(ctx context.Context, r *kmsv1.CreateKEKRequest) (*kmsv1.CreateKEKResponse, error) {
	kek, err := k.manager.CreateKEK(ctx, r.GetName(), kms.KEKOptions{
		Provider: r.GetProvider(), Adopt: r.GetAdopt(), Change: changeOf(ctx, r.GetChange()),
	})
	if err != nil {
		return nil, err
	}
	return &kmsv1.CreateKEKResponse{Kek: kekMessage(kek)}, nil
}

// ListKEKs implements KeyService.
func (k *keyAPI) ListKEKs(ctx context.Context, _ *kmsv1.ListKEKsRequest) (*kmsv1.ListKEKsResponse, error) {
	keks, err := k.manager.KEKs(ctx)
	if err != nil {
		return nil, err
	}
	return &kmsv1.ListKEKsResponse{Keks: kekMessages(keks), DefaultKek: k.manager.DefaultKEK()}, nil
}

// GetKEK implements KeyService.
func (k *keyAPI) GetKEK(ctx context.Context, r *kmsv1.GetKEKRequest) (*kmsv1.GetKEKResponse, error) {
	kek, err := k.manager.KEK(ctx, r.GetName())
	if err != nil {
		return nil, err
	}
	return &kmsv1.GetKEKResponse{Kek: kekMessage(kek)}, nil
}

// RotateKEK implements KeyService.
func (k *keyAPI) RotateKEK(ctx context.Context, r *kmsv1.RotateKEKRequest) (*kmsv1.RotateKEKResponse, error) {
	rotate := k.manager.RotateKEK
	if to := r.GetProvider(); to != "" {
		rotate = func(ctx context.Context, name string, by kms.Change) (kms.KEK, error) {
			return k.manager.MigrateKEK(ctx, name, to, by)
		}
	}
	kek, err := rotate(ctx, r.GetName(), changeOf(ctx, r.GetChange()))
	if err != nil {
		return nil, err
	}
	return &kmsv1.RotateKEKResponse{Kek: kekMessage(kek)}, nil
}

// BlockKEK implements KeyService.
func (k *keyAPI) BlockKEK(ctx context.Context, r *kmsv1.BlockKEKRequest) (*kmsv1.BlockKEKResponse, error) {
	began := time.Now()
	kek, err := k.manager.BlockKEK(ctx, r.GetName(), r.GetVersion(), changeOf(ctx, r.GetChange()))
	if err != nil {
		return nil, err
	}
	return &kmsv1.BlockKEKResponse{Kek: kekMessage(kek), Effect: k.blocks.taken(ctx, began)}, nil
}

// UnblockKEK implements KeyService.
func (k *keyAPI) UnblockKEK(ctx context.Context, r *kmsv1.UnblockKEKRequest) (*kmsv1.UnblockKEKResponse, error) {
	kek, err := k.manager.UnblockKEK(ctx, r.GetName(), r.GetVersion(), changeOf(ctx, r.GetChange()))
	if err != nil {
		return nil, err
	}
	return &kmsv1.UnblockKEKResponse{Kek: kekMessage(kek)}, nil
}

// DeactivateKEK implements KeyService.
func (k *keyAPI) DeactivateKEK(ctx context.Context, r *kmsv1.DeactivateKEKRequest) (*kmsv1.DeactivateKEKResponse, error) {
	kek, err := k.manager.DeactivateKEK(ctx, r.GetName(), changeOf(ctx, r.GetChange()))
	if err != nil {
		return nil, err
	}
	return &kmsv1.DeactivateKEKResponse{Kek: kekMessage(kek)}, nil
}

// CompromiseKEK implements KeyService.
func (k *keyAPI) CompromiseKEK(ctx context.Context, r *kmsv1.CompromiseKEKRequest) (*kmsv1.CompromiseKEKResponse, error) {
	kek, err := k.manager.CompromiseKEK(ctx, r.GetName(), r.GetVersion(), changeOf(ctx, r.GetChange()))
	if err != nil {
		return nil, err
	}
	return &kmsv1.CompromiseKEKResponse{Kek: kekMessage(kek)}, nil
}

// DestroyKEK implements KeyService.
func (k *keyAPI) DestroyKEK(ctx context.Context, r *kmsv1.DestroyKEKRequest) (*kmsv1.DestroyKEKResponse, error) {
	kek, err := k.manager.ScheduleDestroy(ctx, r.GetName(), r.GetVersion(), changeOf(ctx, r.GetChange()))
	if err != nil {
		return nil, err
	}
	return &kmsv1.DestroyKEKResponse{Kek: kekMessage(kek)}, nil
}

// RestoreKEK implements KeyService.
func (k *keyAPI) RestoreKEK(ctx context.Context, r *kmsv1.RestoreKEKRequest) (*kmsv1.RestoreKEKResponse, error) {
	kek, err := k.manager.RestoreKEK(ctx, r.GetName(), r.GetVersion(), changeOf(ctx, r.GetChange()))
	if err != nil {
		return nil, err
	}
	return &kmsv1.RestoreKEKResponse{Kek: kekMessage(kek)}, nil
}

// SetKEK implements KeyService.
func (k *keyAPI) SetKEK(ctx context.Context, r *kmsv1.SetKEKRequest) (*kmsv1.SetKEKResponse, error) {
	kek, err := k.manager.SetKEK(ctx, r.GetName(), settingsOf(r), changeOf(ctx, r.GetChange()))
	if err != nil {
		return nil, err
	}
	return &kmsv1.SetKEKResponse{Kek: kekMessage(kek)}, nil
}

func settingsOf(r *kmsv1.SetKEKRequest) kms.KEKSettings {
	return kms.KEKSettings{
		AutoRotate: duration(r.GetAutoRotatePeriod()), WaitingPeriod: duration(r.GetWaitingPeriod()),
		MinDecryption: r.MinDecryptionVersion, DeletionAllowed: r.DeletionAllowed,
	}
}

func duration(d *durationpb.Duration) *time.Duration {
	if d == nil {
		return nil
	}
	out := d.AsDuration()
	return &out
}

// maxNeeds is how many needs an answer lists. They are counted in full.
const maxNeeds = 1000

// NeedsOfKEK implements KeyService.
func (k *keyAPI) NeedsOfKEK(ctx context.Context, r *kmsv1.NeedsOfKEKRequest) (*kmsv1.NeedsOfKEKResponse, error) {
	if _, err := k.manager.KEK(ctx, r.GetName()); err != nil {
		return nil, err
	}
	needs, err := k.manager.Needs(ctx, kms.KeyRef{Name: r.GetName(), Version: r.GetVersion()})
	if err != nil {
		return nil, err
	}
	out := &kmsv1.NeedsOfKEKResponse{Count: uint64(len(needs))}
	for _, n := range needs[:min(len(needs), maxNeeds)] {
		out.Needs = append(out.Needs, &kmsv1.Need{Kind: string(n.Kind), Id: n.ID, Bucket: n.Bucket, Version: n.Version, Recovery: string(n.Recovery)})
	}
	return out, nil
}

func kekMessages(keks []kms.KEK) []*kmsv1.KEK {
	var out []*kmsv1.KEK
	for i := range keks {
		out = append(out, kekMessage(keks[i]))
	}
	return out
}

func kekMessage(k kms.KEK) *kmsv1.KEK {
	out := &kmsv1.KEK{
		Name: k.Name, Provider: k.Provider, Primary: k.Primary, Created: timestamppb.New(k.Created), State: k.Status(),
		Rotated: timestamp(k.Rotated), AutoRotatePeriod: durationpb.New(k.AutoRotate), MinDecryptionVersion: k.MinDecryption,
		DeletionAllowed: k.DeletionAllowed, WaitingPeriod: durationpb.New(k.Wait()), History: eventMessages(k.History),
	}
	for i := range k.Versions {
		v := versionMessage(&k.Versions[i])
		v.Provider = k.Holder(v.GetNumber())
		out.Versions = append(out.Versions, v)
	}
	return out
}

func versionMessage(v *kms.KEKVersion) *kmsv1.KEKVersion {
	out := &kmsv1.KEKVersion{
		Number: v.Number, State: string(v.State), Created: timestamppb.New(v.Created), Mechanism: v.Mechanism, Uri: v.URI,
		History: eventMessages(v.History),
	}
	if d := v.Destruction; d != nil {
		out.DestroyAt, out.Destroying = timestamppb.New(d.Due), d.Started
	}
	return out
}

func eventMessages(history []kms.StateChange) []*kmsv1.KeyEvent {
	var out []*kmsv1.KeyEvent
	for _, c := range history {
		out = append(out, &kmsv1.KeyEvent{
			Event: c.Event, State: string(c.State), At: timestamppb.New(c.At), Actor: c.Actor, Reason: c.Reason,
		})
	}
	return out
}

// timestamp is nil for no time.
func timestamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}
