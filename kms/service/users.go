package service

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"chatelaine/kms"
	"chatelaine/kms/service/kmsv1"
	"chatelaine/kms/service/kmsv1/kmsv1connect"
)

// userAPI is the UserService.
type userAPI struct {
	manager *kms.Manager
}

var _ kmsv1connect.UserServiceHandler = (*userAPI)(nil)

// CreateUser implements UserService.
func (u *userAPI) CreateUser(ctx context.Context, r *kmsv1.CreateUserRequest) (*kmsv1.CreateUserResponse, error) {
	key, secret, err := u.manager.CreateUser(ctx, r.GetPrincipal(), r.GetAnother(), changeOf(ctx, r.GetChange()))
	if err != nil {
		return nil, err
	}
	return &kmsv1.CreateUserResponse{Key: userKeyMessage(key), Secret: string(reveal(secret))}, nil
}

// ListUsers implements UserService.
func (u *userAPI) ListUsers(ctx context.Context, _ *kmsv1.ListUsersRequest) (*kmsv1.ListUsersResponse, error) {
	keys, err := u.manager.AccessKeys(ctx)
	if err != nil {
		return nil, err
	}
	return &kmsv1.ListUsersResponse{Keys: userKeyMessages(keys)}, nil
}

// GetUser implements UserService.
func (u *userAPI) GetUser(ctx context.Context, r *kmsv1.GetUserRequest) (*kmsv1.GetUserResponse, error) {
	keys, err := u.manager.AccessKeysOf(ctx, r.GetUser())
	if err != nil {
		return nil, err
	}
	return &kmsv1.GetUserResponse{Keys: userKeyMessages(keys)}, nil
}

// RotateSecret implements UserService.
func (u *userAPI) RotateSecret(ctx context.Context, r *kmsv1.RotateSecretRequest) (*kmsv1.RotateSecretResponse, error) {
	id, err := u.oneKey(ctx, r.GetUser())
	if err != nil {
		return nil, err
	}
	overlap := kms.DefaultOverlap
	if r.GetOverlap() != nil {
		overlap = r.GetOverlap().AsDuration()
	}
	key, secret, err := u.manager.RotateSecret(ctx, id, overlap, changeOf(ctx, r.GetChange()))
	if err != nil {
		return nil, err
	}
	return &kmsv1.RotateSecretResponse{Key: userKeyMessage(key), Secret: string(reveal(secret))}, nil
}

// EndOldSecret implements UserService.
func (u *userAPI) EndOldSecret(ctx context.Context, r *kmsv1.EndOldSecretRequest) (*kmsv1.EndOldSecretResponse, error) {
	id, err := u.oneKey(ctx, r.GetUser())
	if err != nil {
		return nil, err
	}
	key, err := u.manager.EndOldSecret(ctx, id, changeOf(ctx, r.GetChange()))
	if err != nil {
		return nil, err
	}
	return &kmsv1.EndOldSecretResponse{Key: userKeyMessage(key)}, nil
}

// SetUserStatus implements UserService.
func (u *userAPI) SetUserStatus(ctx context.Context, r *kmsv1.SetUserStatusRequest) (*kmsv1.SetUserStatusResponse, error) {
	keys, err := u.manager.SetUserStatus(ctx, r.GetUser(), kms.KeyStatus(r.GetStatus()), changeOf(ctx, r.GetChange()))
	if err != nil {
		return nil, err
	}
	return &kmsv1.SetUserStatusResponse{Keys: userKeyMessages(keys)}, nil
}

// oneKey is the one access key that is meant by its id, or by its principal.
func (u *userAPI) oneKey(ctx context.Context, user string) (string, error) {
	keys, err := u.manager.AccessKeysOf(ctx, user)
	if err != nil {
		return "", err
	}
	if len(keys) > 1 {
		keys = slices.DeleteFunc(keys, func(k kms.AccessKey) bool { return k.Status != kms.KeyEnabled })
	}
	if len(keys) == 1 {
		return keys[0].ID, nil
	}
	var ids []string
	for _, k := range keys {
		ids = append(ids, k.ID)
	}
	return "", fmt.Errorf("service: finding the access key of %q: %w: name one by its id: %s", user, kms.ErrInvalid, strings.Join(ids, ", "))
}

// userKeyMessages sorts by principal and id.
func userKeyMessages(keys []kms.AccessKey) []*kmsv1.UserKey {
	slices.SortFunc(keys, func(a, b kms.AccessKey) int {
		return cmp.Or(strings.Compare(a.Principal, b.Principal), strings.Compare(a.ID, b.ID))
	})
	var out []*kmsv1.UserKey
	for _, k := range keys {
		out = append(out, userKeyMessage(k))
	}
	return out
}

func userKeyMessage(k kms.AccessKey) *kmsv1.UserKey {
	out := &kmsv1.UserKey{
		Id: k.ID, Principal: k.Principal, Status: string(k.Status), Created: timestamppb.New(k.Created),
		Kek: refMessage(kms.KeyRef{Name: k.KEK, Version: k.KEKVersion}), History: eventMessages(k.History),
	}
	if k.Old != nil && k.Old.Ends.After(time.Now()) {
		out.OldSecretEnds = timestamppb.New(k.Old.Ends)
	}
	return out
}
