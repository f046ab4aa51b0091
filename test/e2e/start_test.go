package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"chatelaine/test/e2e/harness"
)

func TestEverythingIsThereAfterASecondStart(t *testing.T) {
	for name, make := range clouds() {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, make(t))
			bucket := w.bucket()
			body := contentBytes(1, 3<<20)
			etag := w.put("/"+bucket+"/kept", body).want(200).header.Get("ETag")
			w.stop()
			w.up()
			got := w.get("/" + bucket + "/kept").want(200)
			if string(got.body) != string(body) || got.header.Get("ETag") != etag {
				t.Errorf("got %d bytes with ETag %s, want the %d that were stored with %s", len(got.body), got.header.Get("ETag"), len(body), etag)
			}
		})
	}
}

// credentialsLine finds what a person would copy.
var credentialsLine = regexp.MustCompile(`(?m)^\s*(access key|secret)\s+(\S+)\s*$`)

func TestCredentialsThatAreMadeAreShownAgainAtTheNextStart(t *testing.T) {
	w := planWorld(t, cloud{})
	var shown [2]harness.Credentials
	for i := range shown {
		// No credentials are given, so some are made.
		p, err := harness.Start(product, filepath.Join(t.TempDir(), "up"), []string{
			"up", "--data", w.options.Data, "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0",
		}, nil)
		if err != nil {
			t.Fatal(err)
		}
		err = p.Await(t.Context(), stopPatience, func(context.Context) error { return printed(p, &shown[i]) })
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Stop(stopPatience); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(p.Stderr(), shown[i].SecretAccessKey) {
			t.Error("the log holds the secret")
		}
	}
	if shown[0] != shown[1] {
		t.Errorf("got %v at the second start, want %v as at the first", shown[1], shown[0])
	}
}

func printed(p *harness.Process, c *harness.Credentials) error {
	found := map[string]string{}
	for _, m := range credentialsLine.FindAllStringSubmatch(p.Stdout(), -1) {
		found[m[1]] = m[2]
	}
	*c = harness.Credentials{AccessKeyID: found["access key"], SecretAccessKey: found["secret"]}
	if c.AccessKeyID == "" || c.SecretAccessKey == "" {
		return errors.New("no credentials yet")
	}
	return nil
}

// refused starts the product, which must end by itself, with the exit code, and say
// all of the words on stderr. No secret may be among them.
func (w *world) refused(code int, words ...string) {
	w.t.Helper()
	g, err := harness.Launch(w.options)
	if err != nil {
		w.t.Fatal(err)
	}
	before := len(g.Stderr())
	defer g.Kill()
	got, err := g.Wait(stopPatience)
	if err != nil {
		w.t.Fatal(err)
	}
	if got != code {
		w.t.Errorf("got exit code %d, want %d", got, code)
	}
	said := g.Stderr()
	for _, word := range words {
		if !strings.Contains(said, word) {
			w.t.Errorf("the error does not say %q: %s", word, tail(said, 1500))
		}
	}
	if strings.Contains(said[min(before, len(said)):], w.options.User.SecretAccessKey) {
		w.t.Error("the error holds the secret")
	}
}

func TestWithoutTheTokenNothingStartsAndTheErrorSaysWhy(t *testing.T) {
	w := newWorld(t, cloud{})
	bucket := w.bucket()
	w.put("/"+bucket+"/kept", []byte("kept")).want(200)
	w.stop()
	token := filepath.Join(w.Home(), "token")
	if err := os.Rename(token, token+".away"); err != nil {
		t.Fatal(err)
	}
	w.refused(1, token, "not there")
	if _, err := os.Stat(token); !os.IsNotExist(err) {
		t.Errorf("a new token was made: %v", err)
	}
	if err := os.Rename(token+".away", token); err != nil {
		t.Fatal(err)
	}
	w.up()
	if got := w.get("/" + bucket + "/kept").want(200); string(got.body) != "kept" {
		t.Errorf("got %q, want kept", got.body)
	}
}

// TestAnotherTokenOpensNothing puts a fresh token where the old one was.
func TestAnotherTokenOpensNothing(t *testing.T) {
	w, other := newWorld(t, cloud{}), newWorld(t, cloud{})
	w.put("/"+w.bucket()+"/kept", []byte("kept")).want(200)
	w.stop()
	other.stop()
	token := filepath.Join(w.Home(), "token")
	if err := os.RemoveAll(token); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(other.Home(), "token"), token); err != nil {
		t.Fatal(err)
	}
	w.refused(1, "main.v1")
}

// pkcs11Spy is a module of OpenSC that hands all calls on to another and records
// them.
func pkcs11Spy(t *testing.T) string {
	t.Helper()
	for _, pattern := range []string{"/usr/lib/*/pkcs11-spy.so", "/usr/lib/pkcs11-spy.so", "/usr/lib64/pkcs11-spy.so"} {
		if found, _ := filepath.Glob(pattern); len(found) > 0 {
			return found[0]
		}
	}
	if os.Getenv("CI") != "" {
		t.Fatal("pkcs11-spy.so of opensc is not installed")
	}
	t.Skip("pkcs11-spy.so of opensc is not installed")
	return ""
}

func softHSM(t *testing.T) string {
	t.Helper()
	if named := os.Getenv("CHATELAINE_SOFTHSM_MODULE"); named != "" {
		return named
	}
	for _, pattern := range []string{"/usr/lib/softhsm/libsofthsm2.so", "/usr/lib/*/softhsm/libsofthsm2.so"} {
		if found, _ := filepath.Glob(pattern); len(found) > 0 {
			return found[0]
		}
	}
	t.Fatal("SoftHSM's module is not where it is expected")
	return ""
}

// misconfigured is the exit code of a service that a supervisor is not to start again.
const misconfigured = 78

func TestAWrongPINIsTriedOnce(t *testing.T) {
	spy := pkcs11Spy(t)
	w := newWorld(t, cloud{})
	w.stop()
	pin := filepath.Join(w.Home(), "token", "pin")
	right, err := os.ReadFile(pin)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(pin, []byte("0000111122223333"), 0o600); err != nil {
		t.Fatal(err)
	}
	record := filepath.Join(t.TempDir(), "calls")
	w.options.Env = append(w.options.Env, "CHATELAINE_SOFTHSM_MODULE="+spy, "PKCS11SPY="+softHSM(t), "PKCS11SPY_OUTPUT="+record)
	w.refused(misconfigured, "PIN")
	if calls, err := os.ReadFile(record); err != nil || strings.Count(string(calls), "C_Login\n") != 1 {
		t.Errorf("got %d logins (%v), want 1", strings.Count(string(calls), "C_Login\n"), err)
	}
	if g := strings.Count(string(right), "\n"); g > 1 {
		t.Fatalf("the PIN file has %d lines", g)
	}
	if err := os.WriteFile(pin, right, 0o600); err != nil {
		t.Fatal(err)
	}
	w.up()
}

func TestStartIsRefusedWithAReason(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(t *testing.T, o *harness.Options)
		code   int
		words  []string
	}{
		{"module that is not there", func(_ *testing.T, o *harness.Options) {
			o.Env = append(o.Env, "CHATELAINE_SOFTHSM_MODULE=/nonexistent/module.so")
		}, misconfigured, []string{"/nonexistent/module.so"}},
		{"module that is no library", func(t *testing.T, o *harness.Options) {
			name := filepath.Join(t.TempDir(), "module.so")
			if err := os.WriteFile(name, []byte("not a library"), 0o600); err != nil {
				t.Fatal(err)
			}
			o.Env = append(o.Env, "CHATELAINE_SOFTHSM_MODULE="+name)
		}, misconfigured, []string{"module.so"}},
		{"unknown configuration keys", func(t *testing.T, o *harness.Options) {
			o.Config = writeConfig(t, "listne: 127.0.0.1:1\nlimits:\n  stal: 1m\n")
		}, misconfigured, []string{"listne", "stal"}},
		{"configuration that is no YAML", func(t *testing.T, o *harness.Options) {
			o.Config = writeConfig(t, "listen: [")
		}, misconfigured, []string{"config.yaml"}},
		{"unknown flag", func(_ *testing.T, o *harness.Options) { o.KEK = "paper" }, misconfigured, []string{"paper", "softhsm"}},
		{"unknown backend", func(_ *testing.T, o *harness.Options) { o.Backend = "ftp://host" }, misconfigured, []string{"ftp"}},
		{"unknown option of a backend", func(_ *testing.T, o *harness.Options) { o.Backend = "s3+http://127.0.0.1:1?colour=red" }, misconfigured, []string{"colour"}},
		{"secret in a URL", func(_ *testing.T, o *harness.Options) {
			o.Backend = "s3+http://id:" + o.User.SecretAccessKey + "@127.0.0.1:1"
		}, misconfigured, []string{"backend"}},
		{"secret that is too short", func(_ *testing.T, o *harness.Options) { o.User.SecretAccessKey = "shrt" }, misconfigured, []string{"secret"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := planWorld(t, cloud{})
			tt.change(t, w.options)
			w.refused(tt.code, tt.words...)
		})
	}
}

func writeConfig(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestASecondUpOnTheSameDataIsRefused(t *testing.T) {
	w := newWorld(t, cloud{})
	second := *w.options
	second.Listen, second.Admin = "", ""
	(&world{t: t, options: &second}).refused(1, "another", w.options.Data)
	if err := w.Ready(t.Context()); err != nil {
		t.Errorf("the first one: %v", err)
	}
}

func TestCommandLine(t *testing.T) {
	for _, tt := range []struct {
		args []string
		code int
		out  string
	}{
		{[]string{"version"}, 0, "chatelaine "},
		{[]string{"nonsense"}, 2, ""},
		{[]string{"up", "--nonsense"}, misconfigured, ""},
		{[]string{"gateway", "--config", "/nonexistent.yaml"}, misconfigured, ""},
		{[]string{"kms", "--config", "/nonexistent.yaml"}, misconfigured, ""},
	} {
		t.Run(fmt.Sprint(tt.args), func(t *testing.T) {
			p, err := harness.Start(product, filepath.Join(t.TempDir(), "run"), tt.args, nil)
			if err != nil {
				t.Fatal(err)
			}
			code, err := p.Wait(stopPatience)
			if err != nil || code != tt.code || !strings.HasPrefix(p.Stdout(), tt.out) {
				t.Errorf("got code %d, output %q and %v, want code %d and %q", code, p.Stdout(), err, tt.code, tt.out)
			}
			if tt.code != 0 && p.Stderr() == "" {
				t.Error("it failed and said nothing")
			}
		})
	}
}
