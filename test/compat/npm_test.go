package compat

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// installNPM is a folder with testdata/javascript and the packages that its lock file
// names, installed once into the cache.
func installNPM(t *testing.T) string {
	t.Helper()
	npm, source := program(t, "npm"), filepath.Join("testdata", "javascript")
	h := sha256.New()
	files := map[string][]byte{}
	for _, name := range []string{"package.json", "package-lock.json", "client.mjs"} {
		text, err := os.ReadFile(filepath.Join(source, name))
		if err != nil {
			t.Fatal(err)
		}
		files[name] = text
		fmt.Fprintf(h, "%s %d %s", name, len(text), text)
	}
	dir := filepath.Join(cache(t), "javascript-"+hex.EncodeToString(h.Sum(nil))[:16])
	if _, err := os.Stat(dir); err == nil {
		return dir
	}
	partial, err := os.MkdirTemp(filepath.Dir(dir), ".javascript-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(partial)
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(partial, name), text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error")
	cmd.Dir = partial
	if out, err := cmd.CombinedOutput(); err != nil {
		missing(t, fmt.Errorf("installing npm packages: %w: %s", err, out))
	}
	// Whole or not at all: somebody else may have been as fast.
	if err := os.Rename(partial, dir); err != nil && !os.IsExist(err) {
		t.Fatal(err)
	}
	return dir
}
