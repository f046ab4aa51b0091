package kms_test

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"chatelaine/kms"
)

// signs derives the keys of an access key's live secrets.
func (f *fixture) signs(t *testing.T, id string) kms.SigningKey {
	t.Helper()
	key, err := f.SigningKey(t.Context(), id, today(), "eu", "s3")
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestTwoSecretsAreLiveUntilTheOverlapIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		made, first, err := f.CreateUser(t.Context(), "alice", false, kms.Change{Actor: "root"})
		if err != nil {
			t.Fatal(err)
		}
		before := f.signs(t, made.ID)
		key, second, err := f.RotateSecret(t.Context(), made.ID, 25*time.Hour, kms.Change{Actor: "root", Reason: "yearly"})
		if err != nil || second.Equal(first) || key.ID != made.ID {
			t.Fatalf("got %+v, %v", key, err)
		}
		now := f.signs(t, made.ID)
		if now.Key.Equal(before.Key) || !now.Old.Equal(before.Key) || now.OldTTL <= 24*time.Hour {
			t.Errorf("the old key is not the one before: %v left", now.OldTTL)
		}
		_, _, err = f.RotateSecret(t.Context(), made.ID, 25*time.Hour, kms.Change{})
		if err != nil || !f.signs(t, made.ID).Old.Equal(now.Key) {
			t.Errorf("after another change the old one is not the second: %v", err)
		}
		time.Sleep(25*time.Hour - time.Second)
		if f.signs(t, made.ID).Old.Len() == 0 {
			t.Error("the old secret ended too early")
		}
		time.Sleep(time.Second)
		if after := f.signs(t, made.ID); after.Old.Len() != 0 || after.OldTTL != 0 {
			t.Errorf("the old secret is live after its end, for %v", after.OldTTL)
		}
	})
}

func TestTheOldSecretEndsByTheKeepersClockWhenTheOtherStands(t *testing.T) {
	f := newFixture(t)
	made, _, err := f.CreateUser(t.Context(), "alice", false, kms.Change{})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := f.RotateSecret(t.Context(), made.ID, time.Hour, kms.Change{}); err != nil {
		t.Fatal(err)
	}
	clock := kms.Item{Key: "clock", Value: []byte(`{"schema":1,"record":{"elapsed":3900000000000,"keeper":"x"}}`)}
	if err := f.registry.Commit(t.Context(), kms.Transaction{Put: []kms.Item{clock}}); err != nil {
		t.Fatal(err)
	}
	if f.signs(t, made.ID).Old.Len() != 0 {
		t.Error("the old secret is live after 65 minutes of the keeper's clock")
	}
}

func TestAnOldSecretCanBeEndedAtOnce(t *testing.T) {
	f := newFixture(t)
	made, _, err := f.CreateUser(t.Context(), "alice", false, kms.Change{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.EndOldSecret(t.Context(), made.ID, kms.Change{})
	wantErr(t, err, kms.ErrInvalid)
	if _, _, err := f.RotateSecret(t.Context(), made.ID, time.Hour, kms.Change{}); err != nil {
		t.Fatal(err)
	}
	epoch, _ := f.Revocations(t.Context())
	if _, err := f.EndOldSecret(t.Context(), made.ID, kms.Change{Actor: "root"}); err != nil {
		t.Fatal(err)
	}
	if now, _ := f.Revocations(t.Context()); now != epoch+1 {
		t.Errorf("revocation epoch %d, want %d", now, epoch+1)
	}
	if f.signs(t, made.ID).Old.Len() != 0 {
		t.Error("it is live still")
	}
	if _, _, err := f.RotateSecret(t.Context(), made.ID, 0, kms.Change{}); err != nil || f.signs(t, made.ID).Old.Len() != 0 {
		t.Errorf("without an overlap the old one is live: %v", err)
	}
}

func TestAUserIsDisabledWithAllAccessKeysAndEnabledAgain(t *testing.T) {
	f := newFixture(t)
	first, _, err := f.CreateUser(t.Context(), "alice", false, kms.Change{})
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = f.CreateUser(t.Context(), "alice", false, kms.Change{})
	wantErr(t, err, kms.ErrExists)
	second, _, err := f.CreateUser(t.Context(), "alice", true, kms.Change{})
	if err != nil {
		t.Fatal(err)
	}
	other, _, err := f.CreateUser(t.Context(), "bob", false, kms.Change{})
	if err != nil {
		t.Fatal(err)
	}
	keys, err := f.SetUserStatus(t.Context(), "alice", kms.KeyDisabled, kms.Change{Actor: "root", Reason: "left"})
	if err != nil || len(keys) != 2 {
		t.Fatalf("got %d keys, %v", len(keys), err)
	}
	for _, id := range []string{first.ID, second.ID} {
		_, err := f.SigningKey(t.Context(), id, today(), "eu", "s3")
		wantErr(t, err, kms.ErrNotFound)
	}
	f.signs(t, other.ID)
	_, _, err = f.RotateSecret(t.Context(), first.ID, time.Hour, kms.Change{})
	wantErr(t, err, kms.ErrDisabled)
	if _, err := f.SetUserStatus(t.Context(), first.ID, kms.KeyEnabled, kms.Change{Actor: "root"}); err != nil {
		t.Fatal(err)
	}
	f.signs(t, first.ID)
	_, err = f.SigningKey(t.Context(), second.ID, today(), "eu", "s3")
	wantErr(t, err, kms.ErrNotFound)
	keys, err = f.AccessKeysOf(t.Context(), first.ID)
	var events []string
	for _, e := range keys[0].History {
		events = append(events, e.Event+" "+e.Actor)
	}
	if want := []string{"created kms", "disabled root", "enabled root"}; err != nil || !slices.Equal(events, want) {
		t.Errorf("got %q, want %q, %v", events, want, err)
	}
}

func TestChangesOfUsersThatAreRefused(t *testing.T) {
	f := newFixture(t)
	key, _, err := f.CreateUser(t.Context(), "alice", false, kms.Change{})
	if err != nil {
		t.Fatal(err)
	}
	long := kms.Change{Reason: strings.Repeat("x", 513)}
	rotate := func(id string, d time.Duration, by kms.Change) error {
		_, _, err := f.RotateSecret(t.Context(), id, d, by)
		return err
	}
	status := func(user string, s kms.KeyStatus, by kms.Change) error {
		_, err := f.SetUserStatus(t.Context(), user, s, by)
		return err
	}
	for name, test := range map[string]struct{ got, want error }{
		"unknown key":     {rotate("NOBODY", time.Hour, kms.Change{}), kms.ErrNotFound},
		"negative":        {rotate(key.ID, -1, kms.Change{}), kms.ErrInvalid},
		"too long":        {rotate(key.ID, 91*24*time.Hour, kms.Change{}), kms.ErrInvalid},
		"reason":          {rotate(key.ID, time.Hour, long), kms.ErrInvalid},
		"unknown user":    {status("nobody", kms.KeyDisabled, kms.Change{}), kms.ErrNotFound},
		"unknown status":  {status("alice", "gone", kms.Change{}), kms.ErrInvalid},
		"status's reason": {status("alice", kms.KeyDisabled, long), kms.ErrInvalid},
	} {
		t.Run(name, func(t *testing.T) { wantErr(t, test.got, test.want) })
	}
	if f.signs(t, key.ID).Old.Len() != 0 {
		t.Error("a refused change changed something")
	}
}
