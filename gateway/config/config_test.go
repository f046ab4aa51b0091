package config

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"chatelaine/kms/config/settings"
)

// least is the smallest file that is complete.
const least = `
kms: {address: "unix:///run/kms.sock"}
backends: {main: {url: "file:///srv"}}
access_log: {file: /var/log/access}
`

func load(t *testing.T, text string) (Config, error) {
	t.Helper()
	name := filepath.Join(t.TempDir(), "gateway.yaml")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return Load(name)
}

func TestExampleLoads(t *testing.T) {
	c, err := Load("../../deploy/examples/gateway.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if c.DefaultBackend != "cloud" || c.Limits.Drain != 30*time.Second {
		t.Errorf("got %+v", c)
	}
	if got, want := slices.Sorted(maps.Keys(c.Backends)), []string{"archive", "azure", "cloud", "google"}; !slices.Equal(got, want) {
		t.Errorf("got backends %q, want %q", got, want)
	}
	if got, want := c.Offered(), []string{"archive"}; !slices.Equal(got, want) {
		t.Errorf("got offered %q, want %q", got, want)
	}
	if got, want := c.Backends["archive"].SecretAccessKey(), (settings.Secret{Env: "ARCHIVE_SECRET_ACCESS_KEY"}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestDefaultsStandWhereTheFileIsSilent(t *testing.T) {
	c, err := load(t, least)
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	if c.Listen != want.Listen || c.Limits != want.Limits || c.Log != want.Log || c.DefaultBackend != "main" {
		t.Errorf("got %+v", c)
	}
}

func TestEachMistakeIsFound(t *testing.T) {
	tests := map[string]struct{ text, want string }{
		"listen without port":     {"listen: localhost", "listen: is"},
		"admin without port":      {"admin_listen: ''", "admin_listen: is"},
		"debug for everybody":     {"debug_listen: 0.0.0.0:6060", "debug_listen: is"},
		"debug by name":           {"debug_listen: example.org:6060", "debug_listen: is"},
		"region":                  {"region: a/b", "region: is"},
		"domain with port":        {"domain: s3.example.org:9000", "domain: is"},
		"half a certificate":      {"tls: {cert_file: c}", "tls.key_file: is missing"},
		"the other half":          {"tls: {key_file: c}", "tls.cert_file: is missing"},
		"log level":               {"log: {level: loud}", "log.level: is"},
		"log format":              {"log: {format: xml}", "log.format: is"},
		"zero limit":              {"limits: {drain: 0s}", "limits.drain: is not above zero"},
		"small header":            {"limits: {max_header_bytes: 1}", "limits.max_header_bytes: is 1"},
		"unknown default":         {"default_backend: other", "default_backend: is"},
		"unknown key":             {"lisen: x", "lisen: is not a setting"},
		"no KMS":                  {"kms: {address: ''}", "kms.address: is"},
		"KMS over plain http":     {"kms: {address: 'http://h:1'}", "kms.address: is"},
		"relative socket":         {"kms: {address: 'unix://kms.sock'}", "kms.address: is"},
		"KMS without certificate": {"kms: {address: 'https://h:1'}", "kms.tls: is missing"},
		"KMS without authority":   {"kms: {address: 'https://h:1', tls: {cert_file: a, key_file: b}}", "kms.tls.ca_file: is missing"},
		"TLS on a socket":         {"kms: {address: 'unix:///s', tls: {}}", "kms.tls: is given"},
		"no backends":             {"backends: {}", "backends: is empty"},
		"backend without scheme":  {"backends: {main: {url: /srv}}", "backends.main.url: is not a URL"},
		"backend's name":          {"backends: {Main_1: {url: 'file:///x'}}", "backends.Main_1: is not a name"},
		"credentials in the URL":  {"backends: {main: {url: 's3://user:hunter2@host'}}", "backends.main.url: holds credentials"},
		"a region's name offered": {"backends: {us-east-1: {url: 'file:///x', offered: true}}", "backends.us-east-1.offered: is true"},
		"secret without id":       {"backends: {main: {url: 'file:///x', secret_access_key_env: X}}", "backends.main: names one"},
		"secret in two places": {
			"backends: {main: {url: 'file:///x', access_key_id_env: A, secret_access_key_env: X, secret_access_key_file: y}}",
			"backends.main.secret_access_key_file: is given beside",
		},
		"bad pattern":   {"md5_buckets: ['a[']", "md5_buckets: has \"a[\""},
		"empty pattern": {"md5_buckets: ['']", "md5_buckets: has \"\""},
		"no access log": {"access_log: {file: ''}", "access_log.file: is missing"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			// The mistake replaces the section of the least file that it is about.
			section, _, _ := strings.Cut(tc.text, ":")
			var kept []string
			for line := range strings.Lines(least) {
				if !strings.HasPrefix(line, section+":") {
					kept = append(kept, line)
				}
			}
			_, err := load(t, strings.Join(kept, "")+tc.text+"\n")
			var found *settings.Error
			if !errors.As(err, &found) || !strings.Contains(err.Error(), "\n  "+tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
			if err != nil && strings.Contains(err.Error(), "hunter2") {
				t.Errorf("the error tells a secret: %v", err)
			}
		})
	}
}

func TestAnEmptyFileNamesAllThatIsMissing(t *testing.T) {
	_, err := load(t, "")
	for _, path := range []string{"kms.address", "backends", "access_log.file"} {
		if err == nil || !strings.Contains(err.Error(), "\n  "+path+": ") {
			t.Errorf("got %v, want a problem with %s", err, path)
		}
	}
}

func TestLoadPartialLeavesCheckingToTheCaller(t *testing.T) {
	name := filepath.Join(t.TempDir(), "up.yaml")
	if err := os.WriteFile(name, []byte("region: r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := LoadPartial(name)
	if err != nil || c.Region != "r" {
		t.Fatalf("got %+v, %v", c, err)
	}
	if c.Check(name) == nil {
		t.Error("Check found nothing wrong with an incomplete configuration")
	}
	if err := os.WriteFile(name, []byte("reigon: r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadPartial(name); err == nil {
		t.Error("an unknown key passed")
	}
}
