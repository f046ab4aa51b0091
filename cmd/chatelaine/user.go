package main

import (
	"context"
	"errors"
	"os"

	"chatelaine/kms/service/kmsv1"
	"chatelaine/kms/service/kmsv1/kmsv1connect"
)

// firstUser is the principal that `chatelaine up` makes where --user names no other.
const firstUser = "first-user"

// credentials are an S3 access key. The secret does not print, not even from inside
// another struct: of a func, fmt knows the address alone.
type credentials struct {
	id     string
	secret func() string
}

func newCredentials(id, secret string) credentials {
	return credentials{id, func() string { return secret }}
}

// userFromEnvironment reads the credentials that the first user is to have; none is
// the zero value.
func userFromEnvironment() (credentials, error) {
	id, secret := os.Getenv("CHATELAINE_ACCESS_KEY_ID"), os.Getenv("CHATELAINE_SECRET_ACCESS_KEY")
	if (id == "") != (secret == "") {
		return credentials{}, usageError{errors.New("CHATELAINE_ACCESS_KEY_ID and CHATELAINE_SECRET_ACCESS_KEY go together: one is missing")}
	}
	return newCredentials(id, secret), nil
}

// ensureUser makes the user of a name where there is none, and returns its credentials:
// those wanted, or else those that it had at the last start.
func ensureUser(ctx context.Context, admin kmsv1connect.AdminServiceClient, name string, wanted credentials) (credentials, error) {
	if wanted.id != "" {
		_, err := admin.EnsureAccessKey(ctx, &kmsv1.EnsureAccessKeyRequest{
			Id: wanted.id, Secret: wanted.secret(), Principal: name, Replace: true, Revealable: true,
		})
		return wanted, err
	}
	known, err := admin.ListAccessKeys(ctx, &kmsv1.ListAccessKeysRequest{})
	if err != nil {
		return credentials{}, err
	}
	if id := newestOf(name, known.GetAccessKeys()); id != "" {
		revealed, err := admin.RevealAccessKey(ctx, &kmsv1.RevealAccessKeyRequest{Id: id})
		return newCredentials(id, revealed.GetSecret()), err
	}
	made, err := admin.CreateAccessKey(ctx, &kmsv1.CreateAccessKeyRequest{Principal: name, Revealable: true})
	return newCredentials(made.GetAccessKey().GetId(), made.GetSecret()), err
}

// newestOf is the id of a user's newest usable access key, or empty.
func newestOf(name string, known []*kmsv1.AccessKey) string {
	var newest *kmsv1.AccessKey
	for _, key := range known {
		if key.GetPrincipal() != name || !key.GetRevealable() || key.GetStatus() != "active" {
			continue
		}
		if newest == nil || key.GetCreated().AsTime().After(newest.GetCreated().AsTime()) {
			newest = key
		}
	}
	return newest.GetId()
}
