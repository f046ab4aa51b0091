package kms_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"testing"
	"time"

	"chatelaine/kms"
)

const plantedSecret = "planted/Secret+Of40Characters0123456789AB"

func accessKey() kms.NewAccessKey {
	return kms.NewAccessKey{ID: "AKIDEXAMPLE", Secret: kms.NewSecret([]byte(plantedSecret)), Principal: "alice", Revealable: true}
}

func today() string { return time.Now().UTC().Format("20060102") }

func errorsIsNotFound(err error) bool { return errors.Is(err, kms.ErrNotFound) }

func TestCreateAccessKeyMakesOneLikeThoseOfAWS(t *testing.T) {
	f := newFixture(t)
	key, secret, err := f.CreateAccessKey(t.Context(), "alice", false, kms.Change{})
	if err != nil {
		t.Fatal(err)
	}
	if !regexp.MustCompile(`^[A-Z0-9]{20}$`).MatchString(key.ID) || !regexp.MustCompile(`^[A-Za-z0-9]{40}$`).Match(bytesOf(secret)) {
		t.Errorf("id %q, secret of %d bytes", key.ID, secret.Len())
	}
	_, err = f.RevealAccessKey(t.Context(), key.ID)
	wantErr(t, err, kms.ErrDenied)
	keys, err := f.AccessKeys(t.Context())
	if err != nil || len(keys) != 1 || keys[0].ID != key.ID || keys[0].Principal != "alice" {
		t.Errorf("got %+v, %v", keys, err)
	}
}

func TestEnsureAccessKey(t *testing.T) {
	f := newFixture(t)
	for range 2 {
		if err := f.EnsureAccessKey(t.Context(), accessKey()); err != nil {
			t.Fatal(err)
		}
	}
	before, _ := f.AccessKeys(t.Context())
	epoch, _ := f.Revocations(t.Context())

	other := accessKey()
	other.Secret = kms.NewSecret([]byte("another secret"))
	wantErr(t, f.EnsureAccessKey(t.Context(), other), kms.ErrExists)
	stranger := accessKey()
	stranger.Principal = "mallory"
	wantErr(t, f.EnsureAccessKey(t.Context(), stranger), kms.ErrExists)
	if after, _ := f.AccessKeys(t.Context()); !bytes.Equal(after[0].Wrapped, before[0].Wrapped) {
		t.Error("a refused change was made")
	}

	other.Replace = true
	if err := f.EnsureAccessKey(t.Context(), other); err != nil {
		t.Fatal(err)
	}
	secret, err := f.RevealAccessKey(t.Context(), other.ID)
	if err != nil || !secret.Equal(other.Secret) {
		t.Errorf("the secret was not replaced: %v", err)
	}
	if now, _ := f.Revocations(t.Context()); now != epoch+1 {
		t.Errorf("revocation epoch %d, want %d", now, epoch+1)
	}
}

func TestEnsureAccessKeyRefusesWhatIsWrong(t *testing.T) {
	f := newFixture(t)
	tests := map[string]func(*kms.NewAccessKey){
		"short id":     func(n *kms.NewAccessKey) { n.ID = "ab" },
		"short secret": func(n *kms.NewAccessKey) { n.Secret = kms.NewSecret([]byte("1234567")) },
		"no principal": func(n *kms.NewAccessKey) { n.Principal = "" },
	}
	for name, spoil := range tests {
		n := accessKey()
		spoil(&n)
		if err := f.EnsureAccessKey(t.Context(), n); !errors.Is(err, kms.ErrInvalid) {
			t.Errorf("%s: got %v, want ErrInvalid", name, err)
		}
	}
}

func TestSecretsAreRevealedInDevelopmentOnly(t *testing.T) {
	f := newFixture(t)
	if err := f.EnsureAccessKey(t.Context(), accessKey()); err != nil {
		t.Fatal(err)
	}
	c := f.config()
	c.Development = false
	production := f.manager(t, c)
	_, err := production.RevealAccessKey(t.Context(), accessKey().ID)
	wantErr(t, err, kms.ErrDenied)
	_, _, err = production.CreateAccessKey(t.Context(), "alice", true, kms.Change{})
	wantErr(t, err, kms.ErrDenied)
}

func TestADisabledAccessKeyDoesNotSign(t *testing.T) {
	f := newFixture(t)
	if err := f.EnsureAccessKey(t.Context(), accessKey()); err != nil {
		t.Fatal(err)
	}
	key, err := f.SigningKey(t.Context(), "AKIDEXAMPLE", today(), "eu", "s3")
	if err != nil || key.Principal != "alice" || key.Key.Len() != 32 {
		t.Fatalf("got %+v, %v", key, err)
	}
	epoch, _ := f.Revocations(t.Context())
	for range 2 {
		if err := f.DisableAccessKey(t.Context(), "AKIDEXAMPLE", kms.Change{}); err != nil {
			t.Fatal(err)
		}
	}
	if now, _ := f.Revocations(t.Context()); now != epoch+1 {
		t.Errorf("revocation epoch %d, want %d", now, epoch+1)
	}
	_, err = f.SigningKey(t.Context(), "AKIDEXAMPLE", today(), "eu", "s3")
	wantErr(t, err, kms.ErrNotFound)
	wantErr(t, f.EnsureAccessKey(t.Context(), accessKey()), kms.ErrDisabled)
	wantErr(t, f.DisableAccessKey(t.Context(), "NOBODY", kms.Change{}), kms.ErrNotFound)
}

func TestSigningKeyRefusesWhatItShould(t *testing.T) {
	f := newFixture(t)
	if err := f.EnsureAccessKey(t.Context(), accessKey()); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		id, date, region, service string
		want                      error
	}{
		{"NOBODY", today(), "eu", "s3", kms.ErrNotFound},
		{"no/one", today(), "eu", "s3", kms.ErrNotFound},
		{"AKIDEXAMPLE", "20200101", "eu", "s3", kms.ErrDenied},
		{"AKIDEXAMPLE", today(), "", "s3", kms.ErrDenied},
		{"AKIDEXAMPLE", today(), "eu", "s3\n", kms.ErrDenied},
	}
	for _, test := range tests {
		_, err := f.SigningKey(t.Context(), test.id, test.date, test.region, test.service)
		wantErr(t, err, test.want)
	}
}

func TestWrappedSecretsAreBoundToTheirAccessKey(t *testing.T) {
	f := newFixture(t)
	mine, theirs := accessKey(), accessKey()
	theirs.ID, theirs.Secret = "OTHER", kms.NewSecret([]byte("other secret"))
	for _, n := range []kms.NewAccessKey{mine, theirs} {
		if err := f.EnsureAccessKey(t.Context(), n); err != nil {
			t.Fatal(err)
		}
	}
	item, err := f.registry.Get(t.Context(), "accesskeys/OTHER")
	if err != nil {
		t.Fatal(err)
	}
	item.Key = "accesskeys/AKIDEXAMPLE"
	item.Value = bytes.Replace(item.Value, []byte(`"OTHER"`), []byte(`"AKIDEXAMPLE"`), 1)
	if err := f.registry.Commit(t.Context(), kms.Transaction{Put: []kms.Item{item}}); err != nil {
		t.Fatal(err)
	}
	_, err = f.SigningKey(t.Context(), "AKIDEXAMPLE", today(), "eu", "s3")
	wantErr(t, err, kms.ErrCorrupt)
}

func TestSecretsAreNeitherLoggedNorStoredNorInErrors(t *testing.T) {
	f := newFixture(t)
	out := &bytes.Buffer{}
	note := func(values ...any) { fmt.Fprintf(out, "%v %+v %#v\n", values, values, values) }
	note(f.EnsureAccessKey(t.Context(), accessKey()))
	wrong := accessKey()
	wrong.Secret = kms.NewSecret([]byte("also-planted-secret"))
	note(f.EnsureAccessKey(t.Context(), wrong), wrong)
	signing, err := f.SigningKey(t.Context(), "AKIDEXAMPLE", today(), "eu", "s3")
	note(signing, err)
	b := f.bucket(t, "b")
	key := current(t, f.Manager, b.Space)
	note(key)
	f.edit(t, "accesskeys/AKIDEXAMPLE", `"wrapped":"`, `"wrapped":"AAAA`)
	_, err = f.SigningKey(t.Context(), "AKIDEXAMPLE", today(), "eu", "s3")
	note(err)
	items, err := f.registry.List(t.Context(), "")
	if err != nil || len(items) == 0 || f.logs.Len() == 0 {
		t.Fatalf("nothing to search: %d items, %d bytes of logs, %v", len(items), f.logs.Len(), err)
	}
	for _, item := range items {
		out.Write(item.Value)
	}
	out.Write(f.logs.Bytes())
	for _, secret := range [][]byte{[]byte(plantedSecret), []byte("also-planted-secret"), bytesOf(signing.Key), bytesOf(key.Key)} {
		for _, form := range []string{string(secret), hex.EncodeToString(secret), base64.StdEncoding.EncodeToString(secret), fmt.Sprint(secret)} {
			if bytes.Contains(out.Bytes(), []byte(form)) {
				t.Errorf("a secret is in the output as %q", form)
			}
		}
	}
}
