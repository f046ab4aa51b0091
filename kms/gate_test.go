package kms_test

import (
	"context"
	"fmt"
	"testing"

	"chatelaine/kms"
)

// shut is a Gate that lets nobody use a KEK.
type shut struct{ kek string }

func (s shut) Permit(context.Context, kms.Operation) (kms.Grant, error) {
	return kms.Grant{}, kms.ErrApproval
}

func (s shut) Usable(_ context.Context, kek string) error {
	if kek == s.kek {
		return fmt.Errorf("%w: nobody opened it", kms.ErrApproval)
	}
	return nil
}

func TestAKEKWhoseUseWasNotApprovedWrapsAndUnwrapsNothing(t *testing.T) {
	f := newFixture(t)
	b := f.bucket(t, "data")
	made := current(t, f.Manager, b.Space)
	c := f.config()
	c.Gate = shut{kek: "main"}
	gated := f.manager(t, c)
	_, err := gated.CurrentKey(t.Context(), b.Space)
	wantErr(t, err, kms.ErrApproval)
	_, err = gated.BucketKey(t.Context(), b.Space, made.ID)
	wantErr(t, err, kms.ErrApproval)
	_, _, err = gated.CreateAccessKey(t.Context(), "alice", false, kms.Change{})
	wantErr(t, err, kms.ErrApproval)
}
