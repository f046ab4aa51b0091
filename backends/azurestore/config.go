package azurestore

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/service"
)

const (
	defaultStall = time.Minute

	envAccessKeyID     = "CHATELAINE_BACKEND_ACCESS_KEY_ID"
	envSecretAccessKey = "CHATELAINE_BACKEND_SECRET_ACCESS_KEY"
)

// Secret is an account key or a shared access signature. It is never shown.
type Secret struct{ value string }

// NewSecret hides value.
func NewSecret(value string) Secret { return Secret{value} }

// Format writes a placeholder, whatever the verb.
func (Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte("[secret]")) }

// MarshalText gives a placeholder.
func (Secret) MarshalText() ([]byte, error) { return []byte("[secret]"), nil }

// Config says where the account is and how to speak to it.
type Config struct {
	// Endpoint is https://ACCOUNT.blob.core.windows.net, the same in another cloud, or
	// http://host:port/ACCOUNT of an emulator.
	Endpoint string
	// Account is the account's name. Empty: the one in Endpoint.
	Account string
	// Secret is the account's key in base64, or a shared access signature.
	Secret Secret
	// Credential is used where there is no Secret: what Entra ID gives. One of the two is
	// required.
	Credential azcore.TokenCredential
	// NoChecksum says that the service takes no CRC64 (Azurite). Nothing but TLS and the
	// seal then guards the bytes on their way, and damage is noticed at the first read.
	NoChecksum bool
	// Stall is how long the service may make no progress at all, within a body or before
	// an answer; then a call fails with ErrUnavailable. 0 means a minute.
	Stall time.Duration
}

// ParseURL turns the one-line form of a store into a Config:
//
//	azure://ACCOUNT.blob.core.windows.net[?options]  https
//	azure+http://host:port/ACCOUNT[?options]         plain http, for an emulator
//
// The only option is checksum, which is crc64 or none. Credentials in the URL are an error: they come from
// CHATELAINE_BACKEND_ACCESS_KEY_ID, the account's name, and
// CHATELAINE_BACKEND_SECRET_ACCESS_KEY, its key or a shared access signature.
func ParseURL(raw string) (Config, error) {
	u, err := url.Parse(raw)
	if err != nil {
		// The error of url.Parse quotes the whole URL, which may hold a signature.
		return Config{}, errors.New("azurestore: parsing the URL of a store: it is malformed")
	}
	place := u.Scheme + "://" + u.Host + u.Path
	scheme, ok := map[string]string{"azure": "https", "azure+http": "http"}[u.Scheme]
	if !ok || u.Host == "" || u.User != nil || u.Fragment != "" {
		return Config{}, fmt.Errorf("azurestore: parsing %q: want azure://ACCOUNT.blob.core.windows.net or azure+http://host:port/ACCOUNT and nothing else", place)
	}
	cfg := Config{
		Endpoint: scheme + "://" + u.Host + u.Path,
		Account:  os.Getenv(envAccessKeyID),
		Secret:   NewSecret(os.Getenv(envSecretAccessKey)),
	}
	if err := cfg.setOptions(u.RawQuery); err != nil {
		return Config{}, fmt.Errorf("azurestore: parsing %q: %w", place, err)
	}
	return cfg, nil
}

// setOptions shows no values: somebody may try a signature as an option.
func (c *Config) setOptions(query string) error {
	values, err := url.ParseQuery(query)
	if err != nil {
		return errors.New("the options are malformed")
	}
	for name, v := range values {
		if name != "checksum" || len(v) != 1 || v[0] != "crc64" && v[0] != "none" {
			return fmt.Errorf("option %q: want checksum=crc64 or checksum=none, once", name)
		}
		c.NoChecksum = v[0] == "none"
	}
	return nil
}

// complete fills in what is zero and reports all that is wrong at once.
func (c *Config) complete() error {
	if c.Stall == 0 {
		c.Stall = defaultStall
	}
	u, err := url.Parse(c.Endpoint)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return errors.New("the endpoint is not http://host/ACCOUNT or https://ACCOUNT.host")
	}
	found := strings.Trim(u.Path, "/")
	if found == "" {
		found, _, _ = strings.Cut(u.Hostname(), ".")
	}
	if c.Account == "" {
		c.Account = found
	}
	var errs []error
	if c.Account != found {
		errs = append(errs, fmt.Errorf("the endpoint is that of account %q, not of %q", found, c.Account))
	}
	if c.Secret.value == "" && c.Credential == nil {
		errs = append(errs, errors.New("there are no credentials: want the account's key, a shared access signature or those of Entra ID"))
	}
	if c.Credential != nil && u.Scheme == "http" {
		errs = append(errs, errors.New("a token of Entra ID does not go over plain http"))
	}
	if c.Stall < 0 {
		errs = append(errs, fmt.Errorf("stall %v is negative", c.Stall))
	}
	return errors.Join(errs...)
}

// isSAS tells a shared access signature, a query with a signature in it, from an
// account's key, which is base64.
func (s Secret) isSAS() bool {
	values, err := url.ParseQuery(strings.TrimPrefix(s.value, "?"))
	return err == nil && values.Get("sig") != "" && values.Get("sv") != ""
}

func (c *Config) client(options *service.ClientOptions) (*service.Client, error) {
	switch {
	case c.Secret.value == "":
		return service.NewClient(c.Endpoint, c.Credential, options)
	case c.Secret.isSAS():
		return service.NewClientWithNoCredential(c.Endpoint+"?"+strings.TrimPrefix(c.Secret.value, "?"), options)
	}
	if _, err := base64.StdEncoding.DecodeString(c.Secret.value); err != nil {
		return nil, errors.New("the secret is neither an account's key, which is base64, nor a shared access signature, which has sv= and sig=")
	}
	key, err := service.NewSharedKeyCredential(c.Account, c.Secret.value)
	if err != nil {
		return nil, errors.New("the account's key is malformed")
	}
	return service.NewClientWithSharedKeyCredential(c.Endpoint, key, options)
}
