package azurestore

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
)

func TestParseURLTakesHostsAndNoSecrets(t *testing.T) {
	t.Setenv(envAccessKeyID, "")
	t.Setenv(envSecretAccessKey, "")
	for raw, want := range map[string]Config{
		"azure://acc.blob.core.windows.net":                {Endpoint: "https://acc.blob.core.windows.net"},
		"azure+http://127.0.0.1:1/acc?checksum=none":       {Endpoint: "http://127.0.0.1:1/acc", NoChecksum: true},
		"azure://acc.blob.core.windows.net?checksum=crc64": {Endpoint: "https://acc.blob.core.windows.net"},
	} {
		if got, err := ParseURL(raw); err != nil || got != want {
			t.Errorf("%s: %+v, %v; want %+v", raw, got, err, want)
		}
	}
	for _, raw := range []string{
		"", "azure://", "s3://host", "azure://user:hunter2@host", "azure://host#x", "azure://host?sig=hunter2", "azure://host?checksum=hunter2",
		"azure://host?checksum=none&checksum=none", "azure://ho st?hunter2", "azure://host?%zz=hunter2",
	} {
		if _, err := ParseURL(raw); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", raw, err)
		}
	}
}

func TestNewRefusesWhatCannotWork(t *testing.T) {
	key := NewSecret(base64.StdEncoding.EncodeToString([]byte("key")))
	const endpoint = "https://acc.blob.core.windows.net"
	for name, c := range map[string]struct {
		cfg  Config
		want string
	}{
		"a key":               {Config{Endpoint: endpoint, Secret: key}, ""},
		"a signature":         {Config{Endpoint: endpoint, Secret: NewSecret("?sv=2024-01-01&sig=abc%3D")}, ""},
		"no credentials":      {Config{Endpoint: endpoint}, "no credentials"},
		"another account":     {Config{Endpoint: endpoint, Account: "other", Secret: key}, "of account"},
		"neither key nor SAS": {Config{Endpoint: endpoint, Secret: NewSecret("hunter2!")}, "neither"},
		"no endpoint":         {Config{Secret: key}, "endpoint"},
		"a query in the URL":  {Config{Endpoint: endpoint + "?sig=hunter2", Secret: key}, "endpoint"},
		"a negative time":     {Config{Endpoint: endpoint, Secret: key, Stall: -1}, "negative"},
	} {
		_, err := New(c.cfg)
		if (err == nil) != (c.want == "") || err != nil && (!strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "hunter2")) {
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
