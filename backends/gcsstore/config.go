package gcsstore

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"cloud.google.com/go/storage"
	"google.golang.org/api/option"
	transport "google.golang.org/api/transport/http"
)

const (
	defaultStall    = time.Minute
	defaultEndpoint = "https://storage.googleapis.com"

	envAccessKeyID     = "CHATELAINE_BACKEND_ACCESS_KEY_ID"
	envSecretAccessKey = "CHATELAINE_BACKEND_SECRET_ACCESS_KEY"
)

// Secret is the key file of a service account. It is never shown.
type Secret struct{ value string }

// NewSecret hides value.
func NewSecret(value string) Secret { return Secret{value} }

// Format writes a placeholder, whatever the verb.
func (Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte("[secret]")) }

// MarshalText gives a placeholder.
func (Secret) MarshalText() ([]byte, error) { return []byte("[secret]"), nil }

// Config says which project it is and who the gateway is there.
type Config struct {
	// Project is the ID of the one whose buckets are listed and made.
	Project string
	// Location is where buckets are made: a region such as europe-west3, or EU. Required,
	// since Cloud Storage's own default is the United States.
	Location string
	// Endpoint is https://storage.googleapis.com where it is empty, or http://host:port of
	// an emulator, which is sent no credentials.
	Endpoint string
	// Account is the address of the service account that Secret must be of. Empty: any.
	Account string
	// Secret is the JSON key file of a service account. Empty: Application Default
	// Credentials, which are the file that GOOGLE_APPLICATION_CREDENTIALS names, workload
	// identity, or the machine's service account.
	Secret Secret
	// Stall is how long the service may make no progress at all, within a body or before
	// an answer; then a call fails with ErrUnavailable. 0 means a minute.
	Stall time.Duration
}

// ParseURL turns the one-line form of a store into a Config:
//
//	gcs://PROJECT?location=europe-west3
//	gcs+http://host:port/PROJECT?location=x      plain http, for an emulator
//
// There are no other options. Credentials in the URL are an error: they come from
// CHATELAINE_BACKEND_ACCESS_KEY_ID, the service account's address, and
// CHATELAINE_BACKEND_SECRET_ACCESS_KEY, its key file's text, or else are the Application
// Default Credentials.
func ParseURL(raw string) (Config, error) {
	u, err := url.Parse(raw)
	if err != nil {
		// The error of url.Parse quotes the whole URL, which may hold a secret.
		return Config{}, errors.New("gcsstore: parsing the URL of a store: it is malformed")
	}
	shown := u.Scheme + "://" + u.Host + u.Path
	cfg := Config{}
	path := strings.Trim(u.Path, "/")
	switch {
	case u.User != nil || u.Fragment != "" || u.Host == "":
		err = errors.New("want a host and no credentials")
	case u.Scheme == "gcs" && path == "":
		cfg.Project = u.Host
		cfg.Account, cfg.Secret = os.Getenv(envAccessKeyID), NewSecret(os.Getenv(envSecretAccessKey))
	case u.Scheme == "gcs+http" && path != "":
		cfg.Project, cfg.Endpoint = path, "http://"+u.Host
	default:
		err = errors.New("want gcs://PROJECT?location=REGION or gcs+http://host:port/PROJECT?location=REGION")
	}
	if err = firstError(err, cfg.setOptions(u.RawQuery)); err != nil {
		return Config{}, fmt.Errorf("gcsstore: parsing %q: %w", shown, err)
	}
	return cfg, nil
}

// setOptions shows no values: somebody may try a secret as an option.
func (c *Config) setOptions(query string) error {
	values, err := url.ParseQuery(query)
	if err != nil {
		return errors.New("the options are malformed")
	}
	for name, v := range values {
		if name != "location" || len(v) != 1 {
			return fmt.Errorf("option %q: want location=REGION, once", name)
		}
		c.Location = v[0]
	}
	return nil
}

// complete fills in what is zero and reports all that is wrong at once.
func (c *Config) complete() error {
	if c.Stall == 0 {
		c.Stall = defaultStall
	}
	if c.Endpoint == "" {
		c.Endpoint = defaultEndpoint
	}
	var errs []error
	add := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	u, err := url.Parse(c.Endpoint)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || strings.Trim(u.Path, "/")+u.RawQuery+u.Fragment != "":
		add("the endpoint is not https://host or http://host:port")
	case u.Scheme == "http" && c.Secret.value != "":
		add("a service account's token does not go over plain http")
	}
	c.Endpoint = strings.TrimSuffix(c.Endpoint, "/")
	if c.Project == "" {
		add("there is no project")
	}
	if c.Location == "" {
		add("there is no location: want location=REGION, where buckets are made")
	}
	if c.Stall < 0 {
		add("stall %v is negative", c.Stall)
	}
	return errors.Join(append(errs, c.checkSecret())...)
}

// checkSecret takes keys of service accounts alone: other credentials in this form can
// make the SDK fetch any URL and run any program. Those may be the default ones.
func (c *Config) checkSecret() error {
	if c.Secret.value == "" {
		return nil
	}
	var key struct {
		Type  string `json:"type"`
		Email string `json:"client_email"`
		Key   string `json:"private_key"`
	}
	err := json.Unmarshal([]byte(c.Secret.value), &key)
	if block, _ := pem.Decode([]byte(key.Key)); err != nil || block == nil || key.Type != string(option.ServiceAccount) {
		return errors.New("the secret is not the JSON key file of a service account")
	}
	if c.Account != "" && c.Account != key.Email {
		return fmt.Errorf("the key file is that of account %q, not of %q", key.Email, c.Account)
	}
	return nil
}

// authorize puts tokens on what goes through base. Nothing that is plain gets one.
func (c *Config) authorize(ctx context.Context, base http.RoundTripper) (http.RoundTripper, error) {
	if strings.HasPrefix(c.Endpoint, "http:") {
		return base, nil
	}
	opts := []option.ClientOption{option.WithScopes(storage.ScopeFullControl)}
	if c.Secret.value != "" {
		opts = append(opts, option.WithAuthCredentialsJSON(option.ServiceAccount, []byte(c.Secret.value)))
	}
	authorized, err := transport.NewTransport(ctx, base, opts...)
	if err != nil {
		if c.Secret.value != "" { // the SDK may quote the file
			return nil, errors.New("the service account's key cannot be used")
		}
		return nil, fmt.Errorf("finding credentials: %w", err)
	}
	return authorized, nil
}
