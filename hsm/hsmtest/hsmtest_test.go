package hsmtest_test

import (
	"errors"
	"os"
	"testing"

	"chatelaine/hsm"
	"chatelaine/hsm/hsmtest"
)

func TestFoldersDoNotSeeEachOthersTokens(t *testing.T) {
	first := hsmtest.New(t)
	cfg := first.Token("one")
	t.Run("second", func(t *testing.T) {
		second := hsmtest.New(t)
		if got := os.Getenv("SOFTHSM2_CONF"); got != second.Conf || got == first.Conf {
			t.Errorf("SOFTHSM2_CONF is %q, want %q", got, second.Conf)
		}
		if token, err := hsm.Open(t.Context(), cfg); !errors.Is(err, hsm.ErrNoToken) {
			t.Errorf("got %v, %v, want ErrNoToken", token, err)
		}
	})
	token, err := hsm.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := token.Close(); err != nil {
		t.Error(err)
	}
}

func TestModuleCanBeChosen(t *testing.T) {
	t.Setenv("CHATELAINE_SOFTHSM_MODULE", "/somewhere/else.so")
	if got := hsmtest.Module(t); got != "/somewhere/else.so" {
		t.Errorf("got %q", got)
	}
}

func TestACloneHasTheKeysOfItsModel(t *testing.T) {
	f := hsmtest.New(t)
	one, key := f.Token("one"), hsm.Key{Label: "k", Mechanism: hsm.AESGCM}
	use := func(cfg hsm.Config, do func(*hsm.Token) error) {
		t.Helper()
		token, err := hsm.Open(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(do(token), token.Close()); err != nil {
			t.Error(err)
		}
	}
	var sealed []byte
	use(one, func(token *hsm.Token) (err error) {
		if _, err = token.Generate(t.Context(), key); err == nil {
			sealed, err = token.Encrypt(t.Context(), key, []byte("secret"), nil)
		}
		return err
	})
	use(f.Clone("one", "two"), func(token *hsm.Token) error {
		_, err := token.Decrypt(t.Context(), key, sealed, nil)
		return err
	})
	use(one, func(token *hsm.Token) error { return token.Check(t.Context()) })
}
