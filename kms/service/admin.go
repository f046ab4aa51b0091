package service

import (
	"context"

	"google.golang.org/protobuf/types/known/timestamppb"

	"chatelaine/kms"
	"chatelaine/kms/service/kmsv1"
	"chatelaine/kms/service/kmsv1/kmsv1connect"
)

// adminAPI is the AdminService.
type adminAPI struct {
	manager *kms.Manager
	leases  *leases
	version string
}

var _ kmsv1connect.AdminServiceHandler = (*adminAPI)(nil)

// EnsureAccessKey implements AdminService.
func (a *adminAPI) EnsureAccessKey(ctx context.Context, r *kmsv1.EnsureAccessKeyRequest) (*kmsv1.EnsureAccessKeyResponse, error) {
	return &kmsv1.EnsureAccessKeyResponse{}, a.manager.EnsureAccessKey(ctx, kms.NewAccessKey{
		ID: r.GetId(), Secret: kms.NewSecret([]byte(r.GetSecret())), Principal: r.GetPrincipal(),
		Replace: r.GetReplace(), Revealable: r.GetRevealable(), Change: changeOf(ctx, nil),
	})
}

// CreateAccessKey implements AdminService.
func (a *adminAPI) CreateAccessKey(ctx context.Context, r *kmsv1.CreateAccessKeyRequest) (*kmsv1.CreateAccessKeyResponse, error) {
	key, secret, err := a.manager.CreateAccessKey(ctx, r.GetPrincipal(), r.GetRevealable(), changeOf(ctx, nil))
	if err != nil {
		return nil, err
	}
	return &kmsv1.CreateAccessKeyResponse{AccessKey: accessKeyMessage(key), Secret: string(reveal(secret))}, nil
}

// RevealAccessKey implements AdminService.
func (a *adminAPI) RevealAccessKey(ctx context.Context, r *kmsv1.RevealAccessKeyRequest) (*kmsv1.RevealAccessKeyResponse, error) {
	secret, err := a.manager.RevealAccessKey(ctx, r.GetId())
	if err != nil {
		return nil, err
	}
	return &kmsv1.RevealAccessKeyResponse{Secret: string(reveal(secret))}, nil
}

// ListAccessKeys implements AdminService.
func (a *adminAPI) ListAccessKeys(ctx context.Context, _ *kmsv1.ListAccessKeysRequest) (*kmsv1.ListAccessKeysResponse, error) {
	keys, err := a.manager.AccessKeys(ctx)
	if err != nil {
		return nil, err
	}
	out := &kmsv1.ListAccessKeysResponse{}
	for _, key := range keys {
		out.AccessKeys = append(out.AccessKeys, accessKeyMessage(key))
	}
	return out, nil
}

// DisableAccessKey implements AdminService.
func (a *adminAPI) DisableAccessKey(ctx context.Context, r *kmsv1.DisableAccessKeyRequest) (*kmsv1.DisableAccessKeyResponse, error) {
	return &kmsv1.DisableAccessKeyResponse{}, a.manager.DisableAccessKey(ctx, r.GetId(), changeOf(ctx, nil))
}

// Status implements AdminService. It answers also when a part is down.
func (a *adminAPI) Status(ctx context.Context, _ *kmsv1.StatusRequest) (*kmsv1.StatusResponse, error) {
	s := a.manager.Status(ctx)
	out := &kmsv1.StatusResponse{
		Parts: []*kmsv1.Part{part("registry", s.Registry)}, Keks: kekMessages(s.KEKs), DefaultKek: s.DefaultKEK,
		RevocationEpoch: s.Revocations, Leases: uint32(a.leases.count()), Version: a.version,
	}
	for _, p := range s.Providers {
		out.Parts = append(out.Parts, part("provider/"+p.Name, p.Err))
	}
	out.Ready = true
	for _, p := range out.GetParts() {
		out.Ready = out.Ready && p.GetServes()
	}
	return out, nil
}

func part(name string, err error) *kmsv1.Part {
	if err != nil {
		return &kmsv1.Part{Name: name, Problem: err.Error()}
	}
	return &kmsv1.Part{Name: name, Serves: true}
}

func accessKeyMessage(k kms.AccessKey) *kmsv1.AccessKey {
	return &kmsv1.AccessKey{
		Id: k.ID, Principal: k.Principal, Status: string(k.Status),
		Revealable: k.Revealable, Created: timestamppb.New(k.Created),
	}
}
