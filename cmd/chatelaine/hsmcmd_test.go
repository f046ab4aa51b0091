package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"chatelaine/hsm/hsmtest"
)

// tokenFile makes a SoftHSM token and a configuration of a KMS on it.
func tokenFile(t *testing.T, pin string) string {
	t.Helper()
	token := hsmtest.Token(t)
	dir := t.TempDir()
	name := filepath.Join(dir, "kms.yaml")
	text := "listen: unix://" + dir + "/s\nstate: {dir: " + dir + "/state}\nprovider:\n  pkcs11: {module: " + token.Module +
		", token: " + hsmtest.Label + ", pin_file: " + dir + "/pin, prefix: c-}\n"
	for file, content := range map[string]string{name: text, filepath.Join(dir, "pin"): pin + "\n"} {
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return name
}

func TestDoctorExaminesTheTokenOfAConfiguration(t *testing.T) {
	config := tokenFile(t, hsmtest.PIN)
	p := start(t, nil, "hsm", "doctor", "--config", config, "--make-key", "--measure", "10ms")
	if code := p.end(t); code != 0 {
		t.Fatalf("got %d, %s%s", code, p.out.String(), p.err.String())
	}
	for _, want := range []string{
		hsmtest.Label, "CKM_AES_GCM", "key c-main: there is no version of it yet", "c-doctor-", "takes the caller's IV",
		"always_sensitive=true", "(CKM_AES_ECB)", "unwrap, 30 at once", "mend: ", "worst: warning",
	} {
		if !strings.Contains(p.out.String(), want) {
			t.Errorf("it does not say %q:\n%s", want, p.out.String())
		}
	}
	p = start(t, nil, "hsm", "doctor", "--config", config, "--measure", "0", "--json")
	var report struct {
		Keys     []any
		Findings []struct{ Level, Text string }
	}
	if code := p.end(t); code != 0 || json.Unmarshal([]byte(p.out.String()), &report) != nil || len(report.Findings) < 5 || len(report.Keys) != 0 {
		t.Errorf("got %d, %s", code, p.out.String())
	}
}

func TestDoctorEndsWithCode2WhereAPersonMustMendIt(t *testing.T) {
	wrong := tokenFile(t, "00000000")
	p := start(t, nil, "hsm", "doctor", "--config", wrong)
	if code := p.end(t); code != exitUsage || !strings.Contains(p.out.String(), "failure  login") || strings.Contains(p.out.String()+p.err.String(), "00000000") {
		t.Errorf("got %d, %s%s", code, p.out.String(), p.err.String())
	}
	p = start(t, nil, "hsm", "doctor", "--config", wrong, "--token", "other")
	if code := p.end(t); code != exitUsage || !strings.Contains(p.out.String(), "no such token") {
		t.Errorf("got %d, %s", code, p.out.String())
	}
}

func TestHSMCommandsSayWhatIsMissing(t *testing.T) {
	for name, tc := range map[string]struct {
		args []string
		want string
	}{
		"no command":   {[]string{"hsm"}, "which command"},
		"no module":    {[]string{"hsm", "doctor", "--token", "x"}, "which module"},
		"no token":     {[]string{"hsm", "doctor", "--module", "x"}, "which token"},
		"two PINs":     {[]string{"hsm", "doctor", "--module", "x", "--token", "y", "--pin-file", "a", "--pin-env", "B"}, "pin_file: is given beside"},
		"PIN not read": {[]string{"hsm", "doctor", "--module", "x", "--token", "y", "--pin-file", "/none"}, "no such file"},
		"bad URI":      {[]string{"hsm", "doctor", "--module", "x", "--token", "pkcs11:colour=red"}, "colour"},
		"no file":      {[]string{"hsm", "doctor", "--config", "/none"}, "no such file"},
	} {
		p := start(t, nil, tc.args...)
		if code := p.end(t); code != exitUsage || !strings.Contains(p.err.String(), tc.want) {
			t.Errorf("%s: got %d, %s", name, code, p.err.String())
		}
	}
}
