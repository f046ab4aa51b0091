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
