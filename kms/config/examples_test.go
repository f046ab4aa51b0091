package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestEveryExampleOfAnHSMLoadsAndSaysWhatWasTried(t *testing.T) {
	files, err := filepath.Glob("../../deploy/examples/hsm/*.yaml")
	if err != nil || len(files) != 7 {
		t.Fatalf("got %q, %v, want 7 files", files, err)
	}
	list, err := os.ReadFile("../../deploy/examples/hsm/README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		c, err := Load(file)
		if err != nil {
			t.Error(err)
			continue
		}
		if p := c.Provider.PKCS11; p == nil || p.Prefix == "" || p.PINFile == "" || !filepath.IsAbs(p.Module) {
			t.Errorf("%s: got %+v", file, p)
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"ried: ", "# Known: ", "# Source: "} {
			if !strings.Contains(string(text), want) && (want != "# Known: " || !strings.Contains(string(text), "# Open: ")) {
				t.Errorf("%s has no %q", file, want)
			}
		}
		if !strings.Contains(string(list), "("+filepath.Base(file)+")") {
			t.Errorf("the list has no %s", file)
		}
	}
}
