package gcsstore

import (
	"fmt"
	"strings"
	"testing"
)

const key = `{"type":"service_account","client_email":"gw@p.iam.gserviceaccount.com","private_key":"-----BEGIN PRIVATE KEY-----\nhunter22\n-----END PRIVATE KEY-----\n"}`

func TestParseURLTakesProjectsAndNoSecrets(t *testing.T) {
	t.Setenv(envAccessKeyID, "gw")
	t.Setenv(envSecretAccessKey, "hunter2")
	for raw, want := range map[string]Config{
		"gcs://p-1?location=europe-west3":        {Project: "p-1", Location: "europe-west3", Account: "gw", Secret: NewSecret("hunter2")},
		"gcs://p-1":                              {Project: "p-1", Account: "gw", Secret: NewSecret("hunter2")},
		"gcs+http://127.0.0.1:1/p-1?location=EU": {Project: "p-1", Location: "EU", Endpoint: "http://127.0.0.1:1"},
	} {
		if got, err := ParseURL(raw); err != nil || got != want {
			t.Errorf("%s: %+v, %v; want %+v", raw, got, err, want)
		}
	}
	for _, raw := range []string{
		"", "gcs://", "gcs:p-1", "s3://host", "gcs://u:hunter2@p-1", "gcs://p-1#hunter2", "gcs://p-1/x", "gcs://p-1?key=hunter2", "gcs+http://127.0.0.1:1",
		"gcs://p-1?location=a&location=hunter2", "gcs://p 1?hunter2", "gcs://p-1?%zz=hunter2",
	} {
		if _, err := ParseURL(raw); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", raw, err)
		}
	}
}

func TestNewRefusesWhatCannotWork(t *testing.T) {
	good := Config{Project: "p", Location: "EU", Secret: NewSecret(key)}
	for name, c := range map[string]struct {
		change func(*Config)
		want   string
	}{
		"another account":        {func(c *Config) { c.Account = "other" }, "is that of account"},
		"a secret of S3":         {func(c *Config) { c.Secret = NewSecret("hunter2") }, "not the JSON key file"},
		"credentials that fetch": {func(c *Config) { c.Secret = NewSecret(strings.Replace(key, "service_account", "external_account", 1)) }, "not the JSON key file"},
		"a key that is none":     {func(c *Config) { c.Secret = NewSecret(strings.Replace(key, "BEGIN", "GIN", 1)) }, "not the JSON key file"},
		"no project":             {func(c *Config) { c.Project = "" }, "no project"},
		"no location":            {func(c *Config) { c.Location = "" }, "no location"},
		"an endpoint with more":  {func(c *Config) { c.Endpoint = "https://h/hunter2" }, "endpoint"},
		"a secret in the clear":  {func(c *Config) { c.Endpoint = "http://h" }, "plain http"},
		"a negative time":        {func(c *Config) { c.Stall = -1 }, "negative"},
	} {
		cfg := good
		c.change(&cfg)
		if _, err := New(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

func TestSecretsAreNotShown(t *testing.T) {
	c := Config{Secret: NewSecret("hunter2")}
	text, err := c.Secret.MarshalText()
	if shown := fmt.Sprintf("%v %+v %#v %s %s", c, c, c, c.Secret, text); err != nil || strings.Contains(shown, "hunter2") {
		t.Errorf("shown: %s, %v", shown, err)
	}
}

func TestETagsAreGenerationsAndNothingElseIs(t *testing.T) {
	if g, ok := generationOf(etagOf(1712345678901234)); !ok || g != 1712345678901234 {
		t.Errorf("got %d, %v", g, ok)
	}
	for _, etag := range []string{"", "*", "0", "00000000000000000000000000000000", "01", "+1", "-1", "1 ", "9223372036854775808", "1e3"} {
		if g, ok := generationOf(etag); ok {
			t.Errorf("%q is generation %d", etag, g)
		}
	}
}
