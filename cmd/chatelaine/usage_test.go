package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"chatelaine/hsm"
	"chatelaine/kms"
)

func TestVersion(t *testing.T) {
	p := start(t, nil, "version")
	if code := p.end(t); code != 0 || !strings.HasPrefix(p.out.String(), "chatelaine "+version+" go") {
		t.Errorf("got %d, %q, %q", code, p.out.String(), p.err.String())
	}
}

// recoveryFile is a key that package offline has for tests.
func recoveryFile(name string) string {
	return filepath.Join("..", "..", "kms", "offline", "testdata", name)
}

func TestMistakesEndWithACodeOfTheirOwnAndSayWhatIsWrong(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	data := filepath.Join(dir, "data")
	up := func(args ...string) []string {
		return append([]string{"up", "--data", data, "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--kek", "softkey"}, args...)
	}
	tests := map[string]struct {
		args []string
		env  []string
		want string
	}{
		"no command":          {nil, nil, "which command"},
		"unknown command":     {[]string{"down"}, nil, `unknown command "down"`},
		"unknown flag":        {[]string{"up", "--dta", "x"}, nil, "unknown flag: --dta"},
		"argument":            {[]string{"up", "x"}, nil, "unknown command"},
		"kek":                 {up("--kek", "hsm"), nil, `--kek "hsm": want softhsm or softkey`},
		"log level":           {up("--log-level", "loud"), nil, `"loud"`},
		"address":             {up("--listen", "localhost"), nil, "listen: is"},
		"backend scheme":      {up("--backend", "ftp://x"), nil, `scheme "ftp"`},
		"backend path":        {up("--backend", "file://relative/x"), nil, "three slashes"},
		"backend password":    {up("--backend", "s3://u:hunter2@h"), nil, "backends.main.url: holds credentials"},
		"backend option":      {up("--backend", "s3://h?regoin=x"), nil, "regoin"},
		"azure option":        {up("--backend", "azure://a.blob.core.windows.net?sig=x"), nil, `option "sig"`},
		"azure account":       {up("--backend", "azure://a.blob.core.windows.net"), nil, "no credentials"},
		"gcs option":          {up("--backend", "gcs://project?key=x"), nil, `option "key"`},
		"gcs location":        {up("--backend", "gcs+http://127.0.0.1:1/project"), nil, "no location"},
		"half credentials":    {up(), []string{"CHATELAINE_ACCESS_KEY_ID=x"}, "one is missing"},
		"user":                {up("--user", "two words"), nil, `principal "two words"`},
		"no such file":        {up("--config", filepath.Join(dir, "none")), nil, "no such file"},
		"unknown key":         {up("--config", file("a", "lisen: x")), nil, "lisen: is not a setting"},
		"own KMS":             {up("--config", file("b", "kms: {address: 'unix:///x'}")), nil, "`up` runs its own"},
		"gateway, no file":    {[]string{"gateway", "--config", filepath.Join(dir, "none")}, nil, "no such file"},
		"gateway, incomplete": {[]string{"gateway", "--config", file("c", "")}, nil, "backends: is empty"},
		"kms, incomplete":     {[]string{"kms", "--config", file("d", "")}, nil, "provider: wants exactly one"},
		"kms, wrong module": {
			[]string{"kms", "--config", file("e", "listen: unix://"+dir+"/s\nstate: {dir: "+dir+"/state}\nprovider: {pkcs11: {module: "+dir+"/none.so, token: x, pin_env: SOME_PIN}}")},
			[]string{"SOME_PIN=1234"},
			dir + "/none.so",
		},
		"no SoftHSM": {
			[]string{"up", "--data", filepath.Join(dir, "hsm"), "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"},
			[]string{"CHATELAINE_SOFTHSM_MODULE=" + dir + "/none.so"},
			dir + "/none.so",
		},
		"recovery, private key":    {up("--recovery-public-key", recoveryFile("private.pem")), nil, "it is a private key"},
		"recovery, small key":      {up("--recovery-public-key", recoveryFile("small.pem")), nil, "it has 2048 bits, want 3072 to 8192"},
		"recovery, no file":        {up("--recovery-public-key", filepath.Join(dir, "none")), nil, "no such file"},
		"recover, passphrase":      {[]string{"recover", "--recovery-key", recoveryFile("encrypted.pem")}, nil, "openssl pkey -in FILE | chatelaine recover --recovery-key -"},
		"recover, public key":      {[]string{"recover", "--recovery-key", recoveryFile("public.pem")}, nil, "wants the RSA private key"},
		"recover, no key file":     {[]string{"recover", "--recovery-key", filepath.Join(dir, "none")}, nil, "no such file"},
		"recover, empty stdin":     {[]string{"recover", "--recovery-key", "-"}, nil, "wants the RSA private key"},
		"recover, two ways":        {[]string{"recover", "--recovery-key", "-", "--recovery-kek"}, nil, "two ways"},
		"recover, lone signer":     {[]string{"recover", "--signer", "SHA256:x"}, nil, "with --recovery-key alone"},
		"init-token without flags": {[]string{"kms", "init-token"}, nil, "a label of 1 to 32 bytes and two PINs"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			p := start(t, tc.env, tc.args...)
			want := exitUsage
			if len(tc.args) > 0 && slices.Contains([]string{"up", "gateway", "kms"}, tc.args[0]) && !slices.Contains(tc.args, "init-token") {
				want = exitConfig
			}
			if code := p.end(t); code != want || !strings.Contains(p.err.String(), tc.want) {
				t.Errorf("got %d and %q, want %d and %q", code, p.err.String(), want, tc.want)
			}
			if strings.Contains(p.err.String(), "hunter2") {
				t.Error("it tells a secret")
			}
			if p.out.String() != "" {
				t.Errorf("it wrote %q to stdout", p.out.String())
			}
		})
	}
}

func TestPortInUseEndsWithCode1BeforeAnythingIsMade(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	data := filepath.Join(t.TempDir(), "data")
	p := start(t, nil, "up", "--data", data, "--kek", "softkey", "--listen", taken.Addr().String(), "--admin-listen", "127.0.0.1:0")
	if code := p.end(t); code != exitFailure || !strings.Contains(p.err.String(), "another program") {
		t.Errorf("got %d and %q", code, p.err.String())
	}
	if _, err := os.Stat(filepath.Join(data, "home", "softkey")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("keys were made: %v", err)
	}
}

func TestDataFolderThatCannotBeMadeIsAClearError(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	p := start(t, nil, "up", "--data", filepath.Join(file, "data"), "--kek", "softkey", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0")
	if code := p.end(t); code != exitFailure || !strings.Contains(p.err.String(), "opening the data folder") || !strings.Contains(p.err.String(), file) {
		t.Errorf("got %d and %q", code, p.err.String())
	}
}

func TestExitCodes(t *testing.T) {
	tests := map[string]struct {
		err  error
		want int
	}{
		"none":          {nil, 0},
		"failure":       {errors.New("x"), 1},
		"usage":         {usageError{errors.New("x")}, 2},
		"wrapped usage": {fmt.Errorf("y: %w", usageError{errors.New("x")}), 2},
		"PIN":           {fmt.Errorf("y: %w", kms.ErrPIN), 2},
		"module":        {fmt.Errorf("y: %w", hsm.ErrModule), 2},
		"unavailable":   {fmt.Errorf("y: %w", kms.ErrUnavailable), 1},
		"child's":       {fmt.Errorf("y: %w", &exitError{7, kms.ErrPIN}), 7},
	}
	for name, tc := range tests {
		if got := exitCode(tc.err); got != tc.want {
			t.Errorf("%s: got %d, want %d", name, got, tc.want)
		}
	}
}

func TestCredentialsDoNotPrint(t *testing.T) {
	c := newCredentials("AKIA", "hunter2")
	for _, format := range []string{"%v", "%+v", "%#v", "%s", "%q"} {
		if text := fmt.Sprintf(format, c) + fmt.Sprintf(format, &c) + fmt.Sprintf(format, greeting{user: c}); strings.Contains(text, "hunter2") {
			t.Errorf("%s: %s", format, text)
		}
	}
}

func TestQuoteMakesOneWordForAShell(t *testing.T) {
	for in, want := range map[string]string{
		"": "''", "abc+/=": "abc+/=", "a b": "'a b'", "a'b": `'a'\''b'`, "$x": "'$x'", "a;b": "'a;b'", "`x`": "'`x`'",
	} {
		if got := quote(in); got != want {
			t.Errorf("%q: got %s, want %s", in, got, want)
		}
	}
}
