package service

import (
	"context"

	"google.golang.org/protobuf/types/known/timestamppb"

	"chatelaine/kms"
	"chatelaine/kms/service/kmsv1"
	"chatelaine/kms/service/kmsv1/kmsv1connect"
)

// keyAPI is the KeyService.
type keyAPI struct {
	kmsv1connect.UnimplementedKeyServiceHandler
	manager *kms.Manager
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

func kekMessages(keks []kms.KEK) []*kmsv1.KEK {
	var out []*kmsv1.KEK
	for _, kek := range keks {
		out = append(out, kekMessage(kek))
	}
	return out
}

func kekMessage(k kms.KEK) *kmsv1.KEK {
	out := &kmsv1.KEK{Name: k.Name, Provider: k.Provider, Primary: k.Primary, Created: timestamppb.New(k.Created)}
	for _, v := range k.Versions {
		out.Versions = append(out.Versions, versionMessage(v))
	}
	return out
}

func versionMessage(v kms.KEKVersion) *kmsv1.KEKVersion {
	out := &kmsv1.KEKVersion{
		Number: v.Number, State: string(v.State), Created: timestamppb.New(v.Created), Mechanism: v.Mechanism, Uri: v.URI,
	}
	for _, c := range v.History {
		out.History = append(out.History, &kmsv1.KeyEvent{
			State: string(c.State), At: timestamppb.New(c.At), Actor: c.Actor, Reason: c.Reason,
		})
	}
	return out
}
