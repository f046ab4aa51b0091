package hsm_test

import (
	"errors"
	"strings"
	"testing"

	"chatelaine/hsm"
	"chatelaine/hsm/hsmtest"
)

// NSS's softokn is the second real module. What differs is in DECISIONS.md.

func TestNSSForgetsWhereItsKeysAreFromAndIsRefused(t *testing.T) {
	token, err := hsm.Open(t.Context(), hsmtest.NSS(t))
	if err != nil {
		t.Fatal(err)
	}
	defer closing(t, token)
	_, err = token.Generate(t.Context(), hsm.Key{Label: "main.v1", Mechanism: hsm.AESGCM})
	if !errors.Is(err, hsm.ErrUnsafe) || !strings.Contains(err.Error(), "CKA_LOCAL") {
		t.Errorf("got %v, want ErrUnsafe naming CKA_LOCAL", err)
	}
	if _, err := token.Find(t.Context(), hsm.Key{Label: "main.v1", Mechanism: hsm.AESGCM}); !errors.Is(err, hsm.ErrNotFound) {
		t.Errorf("the refused key: got %v, want ErrNotFound", err)
	}
}

func TestNSSSpeaksTheMechanisms(t *testing.T) {
	for _, m := range []hsm.Mechanism{hsm.AESGCM, hsm.AESGCM16, hsm.AESCBCHMAC, hsm.RSAOAEPSHA256, hsm.RSAOAEPSHA1} {
		t.Run(string(m), func(t *testing.T) {
			cfg := hsmtest.NSS(t)
			lib, err := hsm.LoadBelieving(cfg)
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := lib.Close(); err != nil {
					t.Error(err)
				}
			}()
			cfg.Library, cfg.Mechanism, cfg.RSABits = lib, m, 2048
			token, err := hsm.Open(t.Context(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			defer closing(t, token)
			hsm.PlayRoundTrip(t, token, hsm.Key{Label: "main.v1", Mechanism: m})
		})
	}
}
