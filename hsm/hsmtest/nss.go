package hsmtest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"chatelaine/hsm"
)

// NSS makes a token of NSS's softokn, a second module of other people's making, and
// returns how to open it. Without NSS the test is skipped, or fails where the variable
// CI is set.
func NSS(tb testing.TB) hsm.Config {
	tb.Helper()
	module := nssModule(tb)
	dir := tb.TempDir()
	pin := filepath.Join(dir, "pin")
	if err := os.WriteFile(pin, []byte(PIN), 0o600); err != nil {
		tb.Fatal(err)
	}
	if out, err := exec.CommandContext(tb.Context(), "certutil", "-N", "-d", "sql:"+dir, "-f", pin).CombinedOutput(); err != nil {
		tb.Fatalf("making NSS's database: %v: %s", err, out)
	}
	return hsm.Config{
		Module: module, Token: hsm.Selector{Label: "NSS Certificate DB"}, PIN: hsm.NewPIN(PIN),
		Parameters: fmt.Sprintf("configDir='sql:%s' certPrefix='' keyPrefix='' secmod='secmod.db' flags=readWrite", dir),
	}
}

func nssModule(tb testing.TB) string {
	tb.Helper()
	_, noTool := exec.LookPath("certutil")
	for _, path := range []string{
		"/usr/lib/x86_64-linux-gnu/libsoftokn3.so", "/usr/lib/aarch64-linux-gnu/libsoftokn3.so",
		"/usr/lib/x86_64-linux-gnu/nss/libsoftokn3.so", "/usr/lib64/libsoftokn3.so",
	} {
		if _, err := os.Stat(path); err == nil && noTool == nil {
			return path
		}
	}
	const missing = "NSS is not installed: apt-get install libnss3 libnss3-tools"
	if os.Getenv("CI") != "" {
		tb.Fatal(missing)
	}
	tb.Skip(missing)
	return ""
}
