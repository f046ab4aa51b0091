package service

import (
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"chatelaine/kms"
	"chatelaine/kms/service/kmsv1"
)

func TestTheLifeOfAKeyOverTheRPC(t *testing.T) {
	_, c := local(t, nil)
	ctx, keys := t.Context(), c.Keys
	change := &kmsv1.Change{Reason: "a test"}
	calls := []struct {
		name  string
		do    func() (*kmsv1.KEK, error)
		state string // of the whole
		first string // of version 1
	}{
		{"create", func() (*kmsv1.KEK, error) {
			r, err := keys.CreateKEK(ctx, &kmsv1.CreateKEKRequest{Name: "own", Change: change})
			return r.GetKek(), err
		}, "active", "active"},
		{"rotate", func() (*kmsv1.KEK, error) {
			r, err := keys.RotateKEK(ctx, &kmsv1.RotateKEKRequest{Name: "own", Change: change})
			return r.GetKek(), err
		}, "active", "deactivated"},
		{"block", func() (*kmsv1.KEK, error) {
			r, err := keys.BlockKEK(ctx, &kmsv1.BlockKEKRequest{Name: "own", Change: change})
			return r.GetKek(), err
		}, "blocked", "suspended"},
		{"unblock", func() (*kmsv1.KEK, error) {
			r, err := keys.UnblockKEK(ctx, &kmsv1.UnblockKEKRequest{Name: "own", Change: change})
			return r.GetKek(), err
		}, "active", "deactivated"},
		{"compromise", func() (*kmsv1.KEK, error) {
			r, err := keys.CompromiseKEK(ctx, &kmsv1.CompromiseKEKRequest{Name: "own", Version: 1, Change: change})
			return r.GetKek(), err
		}, "active", "compromised"},
		{"set", func() (*kmsv1.KEK, error) {
			allowed, least := true, uint32(2)
			r, err := keys.SetKEK(ctx, &kmsv1.SetKEKRequest{
				Name: "own", DeletionAllowed: &allowed, MinDecryptionVersion: &least, Change: change,
				AutoRotatePeriod: durationpb.New(48 * time.Hour), WaitingPeriod: durationpb.New(36 * time.Hour),
			})
			return r.GetKek(), err
		}, "active", "compromised"},
		{"destroy", func() (*kmsv1.KEK, error) {
			r, err := keys.DestroyKEK(ctx, &kmsv1.DestroyKEKRequest{Name: "own", Version: 1, Change: change})
			return r.GetKek(), err
		}, "active", "compromised"},
		{"deactivate", func() (*kmsv1.KEK, error) {
			r, err := keys.DeactivateKEK(ctx, &kmsv1.DeactivateKEKRequest{Name: "own", Change: change})
			return r.GetKek(), err
		}, "deactivated", "compromised"},
		{"destroy all", func() (*kmsv1.KEK, error) {
			r, err := keys.DestroyKEK(ctx, &kmsv1.DestroyKEKRequest{Name: "own", Change: change})
			return r.GetKek(), err
		}, "scheduled", "compromised"},
		{"restore", func() (*kmsv1.KEK, error) {
			r, err := keys.RestoreKEK(ctx, &kmsv1.RestoreKEKRequest{Name: "own", Version: 2, Change: change})
			return r.GetKek(), err
		}, "deactivated", "compromised"},
	}
	for _, call := range calls {
		got, err := call.do()
		if err != nil || got.GetState() != call.state || got.GetVersions()[0].GetState() != call.first {
			t.Fatalf("%s: got %v, %v, want %s and %s", call.name, got, err, call.state, call.first)
		}
	}
	answer, err := keys.GetKEK(ctx, &kmsv1.GetKEKRequest{Name: "own"})
	if err != nil {
		t.Fatal(err)
	}
	k := answer.GetKek()
	if k.GetAutoRotatePeriod().AsDuration() != 48*time.Hour || k.GetWaitingPeriod().AsDuration() != 36*time.Hour ||
		k.GetMinDecryptionVersion() != 2 || !k.GetDeletionAllowed() || k.GetPrimary() != 2 || !k.GetRotated().IsValid() {
		t.Errorf("got %v", k)
	}
	if due := k.GetVersions()[0].GetDestroyAt(); due.AsTime().Before(time.Now().Add(35*time.Hour)) || k.GetVersions()[1].GetDestroyAt() != nil {
		t.Errorf("destroyed at %v and %v", due, k.GetVersions()[1].GetDestroyAt())
	}
	for _, v := range k.GetVersions() {
		for _, e := range v.GetHistory() {
			if e.GetReason() != "a test" || e.GetActor() == "" || e.GetEvent() == "" || !e.GetAt().IsValid() {
				t.Errorf("version %d: %v", v.GetNumber(), e)
			}
		}
	}
}

func TestErrorsOfKeysTravel(t *testing.T) {
	_, c := local(t, nil)
	ctx, keys := t.Context(), c.Keys
	_, err := keys.GetKEK(ctx, &kmsv1.GetKEKRequest{Name: "none"})
	wantErr(t, err, kms.ErrNotFound)
	_, err = keys.NeedsOfKEK(ctx, &kmsv1.NeedsOfKEKRequest{Name: "none"})
	wantErr(t, err, kms.ErrNotFound)
	_, err = keys.DeactivateKEK(ctx, &kmsv1.DeactivateKEKRequest{Name: "main"})
	wantErr(t, err, kms.ErrNeeded)
	_, err = keys.UnblockKEK(ctx, &kmsv1.UnblockKEKRequest{Name: "main"})
	wantErr(t, err, kms.ErrInvalid)
	if _, err := keys.BlockKEK(ctx, &kmsv1.BlockKEKRequest{Name: "main"}); err != nil {
		t.Fatal(err)
	}
	_, err = keys.RotateKEK(ctx, &kmsv1.RotateKEKRequest{Name: "main"})
	wantErr(t, err, kms.ErrDisabled)
	needs, err := keys.NeedsOfKEK(ctx, &kmsv1.NeedsOfKEKRequest{Name: "main"})
	if err != nil || needs.GetCount() != 1 || needs.GetNeeds()[0].GetKind() != "default" {
		t.Errorf("got %v, %v", needs, err)
	}
}
