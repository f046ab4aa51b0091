package hsm_test

import (
	"errors"
	"testing"

	"chatelaine/hsm"
	"chatelaine/hsm/hsmtest"
)

// Two tokens of one module, each opened by itself, as the KMS does with two providers.
func TestTokensOfOneModuleShareIt(t *testing.T) {
	folder := hsmtest.New(t)
	var modules hsm.Modules
	var open []*hsm.Token
	configs := []hsm.Config{folder.Token("one"), folder.Token("two"), folder.Token("three")}
	for _, cfg := range configs[:2] {
		cfg.Modules = &modules
		token, err := hsm.Open(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, token)
	}
	if token, err := hsm.Open(t.Context(), configs[2]); !errors.Is(err, hsm.ErrInUse) {
		t.Errorf("one that does not share: got %v, %v, want ErrInUse", token, err)
	}
	key := newKey(t, open[1], "main.v1")
	closing(t, open[0])
	if err := open[1].Check(t.Context()); err != nil {
		t.Errorf("when the other was closed: %v", err)
	}
	if _, err := open[1].Find(t.Context(), key); err != nil {
		t.Errorf("when the other was closed: %v", err)
	}
	closing(t, open[1])
	for range 2 {
		if err := modules.Close(); err != nil {
			t.Error(err)
		}
	}
	token, err := hsm.Open(t.Context(), configs[2])
	if err != nil {
		t.Fatalf("when all were closed: %v", err)
	}
	closing(t, token)
}
