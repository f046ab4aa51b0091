package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"chatelaine/hsm"
	"chatelaine/hsm/hsmtest"
	kmsconfig "chatelaine/kms/config"
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

func TestSettingsOfTheConfigurationReachTheToken(t *testing.T) {
	c := kmsconfig.PKCS11{
		Module: "/m.so", Parameters: "configDir='a'", Token: "one", RSABits: 4096, Mechanism: "rsa-oaep-sha256", UserType: 7, ReadOnly: true,
		Failover: []kmsconfig.Token{{Name: "two"}, {Name: "three", Module: "/n.so"}, {Name: "pkcs11:token=four?module-path=/o.so"}},
	}
	for i, want := range []hsm.Config{
		{Module: "/m.so", Parameters: "configDir='a'", Token: hsm.Selector{Label: "one"}},
		{Module: "/m.so", Parameters: "configDir='a'", Token: hsm.Selector{Label: "two"}},
		{Module: "/n.so", Token: hsm.Selector{Label: "three"}},
		{Module: "/o.so", Token: hsm.Selector{Label: "four"}},
	} {
		got, err := tokenOf(c, append([]kmsconfig.Token{c.First()}, c.Failover...)[i])
		if err != nil || got.Module != want.Module || got.Parameters != want.Parameters || got.Token != want.Token {
			t.Errorf("token %d: got %+v, %v, want %+v", i, got, err, want)
		}
		if got.RSABits != 4096 || got.Mechanism != hsm.RSAOAEPSHA256 || got.UserType != 7 || !got.ReadOnly {
			t.Errorf("token %d: got %+v", i, got)
		}
	}
}

// NSS does not start without its text.
func TestDoctorInitialisesAModuleWithItsParameters(t *testing.T) {
	token := hsmtest.NSS(t)
	args := []string{"hsm", "doctor", "--module", token.Module, "--token", token.Token.Label, "--measure", "0"}
	p := start(t, nil, args...)
	if code := p.end(t); code == 0 || !strings.Contains(p.out.String(), "failure  module") {
		t.Errorf("without: got %d, %s", code, p.out.String())
	}
	p = start(t, nil, append(args, "--parameters", token.Parameters)...)
	if p.end(t); !strings.Contains(p.out.String(), `token: "NSS Certificate DB" is there`) {
		t.Errorf("with: got %s%s", p.out.String(), p.err.String())
	}
}

func TestDoctorExaminesTheFailoverListAndEachMechanism(t *testing.T) {
	folder := hsmtest.New(t)
	one := folder.Token("one")
	folder.Token("two")
	pin := writeFile(t, "pin", hsmtest.PIN)
	config := writeFile(t, "kms.yaml", "listen: unix:///s\nstate: {dir: /d}\nprovider: {pkcs11: {module: "+one.Module+", token: one, pin_file: "+pin+
		", rsa_bits: 2048, mechanisms: {other: rsa-oaep-sha1}, failover: [{token: two}, {token: three}]}}\n")
	p := start(t, nil, "hsm", "doctor", "--config", config, "--make-key", "--measure", "0")
	if code := p.end(t); code != exitUsage {
		t.Errorf("got %d, %s", code, p.err.String())
	}
	for _, want := range []string{
		`failover "two"`, `"two" is there`, `failover "three"`, "no such token", "key other: there is no version", "was made for rsa-oaep-sha1", "worst: failure",
	} {
		if !strings.Contains(p.out.String(), want) {
			t.Errorf("it does not say %q:\n%s", want, p.out.String())
		}
	}
	p = start(t, nil, "hsm", "doctor", "--config", config, "--measure", "0", "--token", "two")
	if code := p.end(t); code != 0 || strings.Contains(p.out.String(), "failover") {
		t.Errorf("a token that was named alone: got %d, %s", code, p.out.String())
	}
}
