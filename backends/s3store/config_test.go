package s3store

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestParseURL(t *testing.T) {
	for _, tt := range []struct {
		url  string
		want Config
	}{
		{"s3://", Config{}},
		{"s3://?region=eu-central-1", Config{Region: "eu-central-1"}},
		{"s3://s3.example.com", Config{Endpoint: "https://s3.example.com", PathStyle: true}},
		{"s3://s3.example.com:9000/?region=x&path-style=false", Config{Endpoint: "https://s3.example.com:9000", Region: "x"}},
		{"s3+http://127.0.0.1:9000", Config{Endpoint: "http://127.0.0.1:9000", PathStyle: true}},
		{"s3+http://[::1]:9000?checksum=none", Config{Endpoint: "http://[::1]:9000", PathStyle: true, Checksum: NoChecksum}},
		{
			"s3://h?ca-file=/etc/ca.pem&conditional-delete=true&conditional-copy=true&checksum=crc32c",
			Config{Endpoint: "https://h", PathStyle: true, CAFile: "/etc/ca.pem", ConditionalDelete: true, ConditionalCopy: true, Checksum: CRC32C},
		},
	} {
		got, err := ParseURL(tt.url)
		if err != nil || !reflect.DeepEqual(got, tt.want) {
			t.Errorf("ParseURL(%q): got %+v and %v, want %+v", tt.url, got, err, tt.want)
		}
	}
}

func TestParseURLRefuses(t *testing.T) {
	for _, url := range []string{
		"", "s3", "http://h", "s3+http://", "s3+http:///x", "s3://h/path", "s3://h#f", "s3:h", "s3://h?a=%zz",
		"s3://h?unknown=1", "s3://h?region=a&region=b", "s3://h?path-style=yes", "s3://id:pw@h", "s3://h:port",
	} {
		if got, err := ParseURL(url); err == nil {
			t.Errorf("ParseURL(%q): got %+v, want an error", url, got)
		}
	}
}

func TestParseURLNamesAllWrongOptionsAtOnce(t *testing.T) {
	_, err := ParseURL("s3://h?colour=red&path-style=maybe&region=a&region=b")
	for _, want := range []string{"colour", "path-style", "region"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want it to name %q", err, want)
		}
	}
}

func TestParseURLTakesCredentialsFromTheEnvironment(t *testing.T) {
	t.Setenv(envAccessKeyID, "theid")
	t.Setenv(envSecretAccessKey, "thesecret")
	cfg, err := ParseURL("s3+http://127.0.0.1:1")
	if err != nil {
		t.Fatal(err)
	}
	if cfg.AccessKeyID != "theid" || cfg.SecretAccessKey.value != "thesecret" {
		t.Errorf("got the ID %q, want theid and its secret", cfg.AccessKeyID)
	}
}

func TestCredentialsComeFromTheSDKWhereThereAreNone(t *testing.T) {
	t.Setenv("AWS_ACCESS_KEY_ID", "awsid")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "awssecret")
	provider, err := (&Config{Region: "us-east-1"}).credentials()
	if err != nil {
		t.Fatal(err)
	}
	got, err := provider.Retrieve(t.Context())
	if err != nil || got.AccessKeyID != "awsid" || got.SecretAccessKey != "awssecret" {
		t.Errorf("got %q and %v, want the account of the environment", got.AccessKeyID, err)
	}
}

func FuzzParseURLNeverShowsASecret(f *testing.F) {
	f.Add("s3", "h", "region=x")
	f.Add("s3+http", "127.0.0.1:1", "%zz")
	f.Add("s\x7f", "h:port", "a=b&a=c")
	f.Fuzz(func(t *testing.T, scheme, host, query string) {
		const planted = "PLANTEDSECRET"
		for _, url := range []string{
			scheme + "://id:" + planted + "@" + host + "?" + query,
			"s3://h?" + query + "&secret-access-key=" + planted,
			"s3://h/?" + query + "&secret-access-key=" + planted + "%zz",
		} {
			_, err := ParseURL(url)
			if err != nil && strings.Contains(err.Error(), planted) && !strings.ContainsAny(scheme, ":/?#") {
				t.Errorf("the error shows the secret: %v", err)
			}
		}
	})
}

func TestSecretPrintsNothingOfItself(t *testing.T) {
	const planted = "PLANTEDSECRET"
	cfg := Config{SecretAccessKey: NewSecret(planted)}
	inJSON, err := json.Marshal(cfg)
	if err != nil {
		t.Fatal(err)
	}
	outputs := []string{string(inJSON)}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		outputs = append(outputs, fmt.Sprintf(verb, cfg), fmt.Sprintf(verb, &cfg), fmt.Sprintf(verb, cfg.SecretAccessKey))
	}
	hex := fmt.Sprintf("%x", planted)
	for _, out := range outputs {
		if strings.Contains(out, planted) || strings.Contains(out, hex) {
			t.Errorf("the secret is in %q", out)
		}
	}
}

func TestNewReportsAllThatIsWrongAtOnce(t *testing.T) {
	_, err := New(Config{Endpoint: "ftp://h", AccessKeyID: "id", Checksum: "md5", Stall: -time.Second})
	for _, want := range []string{"ftp://h", "secret access key", "md5", "stall"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want it to name %q", err, want)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty.pem")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, cfg := range map[string]Config{
		"an address without path style": {Endpoint: "http://127.0.0.1:1"},
		"a path":                        {Endpoint: "http://h/p", PathStyle: true},
		"a password":                    {Endpoint: "http://u:p@h", PathStyle: true},
		"no host":                       {Endpoint: "http://:80", PathStyle: true},
		"no scheme":                     {Endpoint: "h:80", PathStyle: true},
		"a secret without ID":           {SecretAccessKey: NewSecret("s")},
		"a CA file that is not there":   {CAFile: empty + ".not"},
		"a CA file without certificate": {CAFile: empty},
	} {
		if _, err := New(cfg); err == nil {
			t.Errorf("%s: got no error", name)
		}
	}
}
