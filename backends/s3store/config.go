package s3store

import (
	"cmp"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"time"

	"go.uber.org/zap"
)

// Checksum is what guards the sealed bytes on their way to the store. S3 takes
// either, some servers that speak S3 do not.
type Checksum string

const (
	// CRC64NVME is the default: S3's own default, and with three to four times the
	// speed of CRC32C here.
	CRC64NVME Checksum = "crc64nvme"
	// CRC32C is for servers that do not know CRC64NVME.
	CRC32C Checksum = "crc32c"
	// NoChecksum sends bodies as they are, without trailer or checksum. It is for
	// servers that do not know aws-chunked trailers, such as Ceph before 18.
	NoChecksum Checksum = "none"
)

// Secret is a string that prints as a placeholder, whatever the verb.
type Secret struct{ value string }

// NewSecret makes value unprintable.
func NewSecret(value string) Secret { return Secret{value} }

// Format prints a placeholder.
func (Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte("[secret]")) }

// MarshalText gives a placeholder.
func (Secret) MarshalText() ([]byte, error) { return []byte("[secret]"), nil }

// Config says where the store is and how to speak to it. The zero value is AWS
// in us-east-1 with the credentials that the environment has.
type Config struct {
	// Dialect names a row of Dialects. Empty means the one that the host of Endpoint
	// has, or "generic". What this Config says itself goes before the row.
	Dialect string
	// Endpoint is https://host[:port] or http://host[:port]. Empty means AWS. Over
	// http neither requests nor answers are private, and an answer can be forged;
	// the sealed bytes are protected either way.
	Endpoint string
	// Region is what the host of Endpoint or the dialect says, where empty.
	Region string
	// PathStyle puts the bucket into the path and not into the host name. Most
	// servers but AWS want it.
	PathStyle bool
	// AccessKeyID and SecretAccessKey are the gateway's own account. Without an
	// AccessKeyID the SDK's chain looks for one: environment, shared files, roles.
	AccessKeyID     string
	SecretAccessKey Secret
	// CAFile names a PEM file of the only authorities that are trusted for
	// Endpoint. Empty means those of the system.
	CAFile string
	// Checksum is that of the dialect where empty.
	Checksum Checksum
	// ConditionalPut says that the server honours If-Match and If-None-Match on PUT and
	// Complete although its dialect says that it does not. A server that ignores them
	// overwrites.
	ConditionalPut bool
	// ConditionalDelete says that the server honours If-Match on a delete. AWS
	// does and needs no word of it. A server that does not (MinIO, for one) ignores
	// the header and deletes: then Delete with a condition is ErrUnsupported.
	ConditionalDelete bool
	// ConditionalCopy says that the server honours If-Match and If-None-Match of the
	// destination of a copy. AWS does and needs no word of it. A server that does not
	// (MinIO, for one) ignores the headers and copies: then Copy with a condition is
	// ErrUnsupported.
	ConditionalCopy bool
	// LeadingSlash says that the server keeps the keys "/a" and "a" apart. AWS does
	// and needs no word of it. A server that does not (MinIO, for one) would write the
	// one over the other: then such a key is ErrInvalidName.
	LeadingSlash bool
	// Stall is how long the store may make no progress at all, within a body or
	// before an answer; then a call fails with ErrUnavailable. 0 means a minute. An
	// answer to Complete or to a copy may take ten times as long.
	Stall time.Duration
	// Logger gets what the SDK has to say. nil means nobody.
	Logger *zap.Logger

	dialect Dialect // set by complete
	// answers is the most bytes of an answer that is read whole. 0 means answerLimit,
	// as it does but in tests.
	answers int64
}

const (
	defaultRegion = "us-east-1"
	defaultStall  = time.Minute

	envAccessKeyID     = "CHATELAINE_BACKEND_ACCESS_KEY_ID"
	envSecretAccessKey = "CHATELAINE_BACKEND_SECRET_ACCESS_KEY"
)

// ParseURL turns the one-line form of a store into a Config:
//
//	s3://host[:port][?options]       https
//	s3+http://host[:port][?options]  plain http
//	s3://[?options]                  AWS
//
// Options are dialect, region, path-style (true unless the store is AWS), ca-file,
// checksum, conditional-put, conditional-delete, conditional-copy and leading-slash. An unknown or repeated one
// is an error, and so are credentials in the URL: they come from
// CHATELAINE_BACKEND_ACCESS_KEY_ID and CHATELAINE_BACKEND_SECRET_ACCESS_KEY, else from
// where the SDK finds them.
func ParseURL(raw string) (Config, error) {
	u, err := url.Parse(raw)
	if err != nil {
		// The error of url.Parse quotes the whole URL, which may hold a password.
		return Config{}, errors.New("s3store: parsing the URL of a store: it is malformed")
	}
	// Neither does an error here show more: somebody may try a secret as an option.
	place := u.Scheme + "://" + u.Host
	if u.User != nil || u.Fragment != "" || u.Opaque != "" || strings.Trim(u.Path, "/") != "" {
		return Config{}, fmt.Errorf("s3store: parsing %q: want scheme://host:port?options and nothing else", place)
	}
	cfg := Config{
		PathStyle:       u.Host != "",
		AccessKeyID:     os.Getenv(envAccessKeyID),
		SecretAccessKey: NewSecret(os.Getenv(envSecretAccessKey)),
	}
	switch {
	case u.Scheme == "s3" && u.Host == "":
	case u.Scheme == "s3":
		cfg.Endpoint = "https://" + u.Host
	case u.Scheme == "s3+http" && u.Host != "":
		cfg.Endpoint = "http://" + u.Host
	default:
		return Config{}, fmt.Errorf("s3store: parsing %q: want s3:// or s3+http://host", place)
	}
	if err := cfg.setOptions(u.RawQuery); err != nil {
		return Config{}, fmt.Errorf("s3store: parsing %q: %w", place, err)
	}
	return cfg, nil
}

// setOptions reports all that is wrong with the options at once.
func (c *Config) setOptions(query string) error {
	values, err := url.ParseQuery(query)
	if err != nil {
		return errors.New("the options are malformed")
	}
	var errs []error
	for name, v := range values {
		if len(v) != 1 {
			errs = append(errs, fmt.Errorf("option %q is repeated", name))
			continue
		}
		if err := c.setOption(name, v[0]); err != nil {
			errs = append(errs, fmt.Errorf("option %q: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

func (c *Config) setOption(name, value string) (err error) {
	switch name {
	case "dialect":
		c.Dialect = value
		_, _, err = DialectOf(value, "")
	case "region":
		c.Region = value
	case "path-style":
		c.PathStyle, err = parseSwitch(value)
	case "ca-file":
		c.CAFile = value
	case "checksum":
		c.Checksum = Checksum(value)
	case "conditional-put":
		c.ConditionalPut, err = parseSwitch(value)
	case "conditional-delete":
		c.ConditionalDelete, err = parseSwitch(value)
	case "conditional-copy":
		c.ConditionalCopy, err = parseSwitch(value)
	case "leading-slash":
		c.LeadingSlash, err = parseSwitch(value)
	default:
		err = errors.New("there is no such option")
	}
	return err
}

func parseSwitch(value string) (bool, error) {
	if value != "true" && value != "false" {
		return false, fmt.Errorf("want true or false, not %q", value)
	}
	return value == "true", nil
}

// complete fills in what is zero and reports all that is wrong at once.
func (c *Config) complete() error {
	err := c.applyDialect()
	if c.Stall == 0 {
		c.Stall = defaultStall
	}
	if c.Logger == nil {
		c.Logger = zap.NewNop()
	}
	c.answers = cmp.Or(c.answers, answerLimit)
	return errors.Join(err, c.checkEndpoint(), c.checkCredentials(), c.checkRest())
}

// applyDialect fills in what the dialect says and the Config does not.
func (c *Config) applyDialect() error {
	d, region, err := DialectOf(c.Dialect, c.Endpoint)
	if err != nil {
		return err
	}
	c.Region = cmp.Or(c.Region, region, defaultRegion)
	c.Checksum = cmp.Or(c.Checksum, d.Checksum)
	if c.ConditionalPut {
		d.IfNoneMatch, d.IfMatch, d.IfOnComplete = Yes, Yes, Yes
	}
	c.ConditionalDelete = c.ConditionalDelete || d.IfOnDelete == Yes
	c.ConditionalCopy = c.ConditionalCopy || d.IfOnCopy == Yes
	c.LeadingSlash = c.LeadingSlash || d.LeadingSlash == Yes
	c.dialect = d
	return nil
}

// isAWS is true for private endpoints of AWS, too.
func (c *Config) isAWS() bool { return c.dialect.aws }

func (c *Config) checkEndpoint() error {
	if c.Endpoint == "" {
		return nil
	}
	u, err := url.Parse(c.Endpoint)
	if err != nil {
		return errors.New("the endpoint is malformed")
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" ||
		u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		return fmt.Errorf("endpoint %q: want http://host or https://host, with a port or without", u.Redacted())
	}
	if _, err := netip.ParseAddr(u.Hostname()); err == nil && !c.PathStyle {
		return fmt.Errorf("endpoint %q is an address and cannot have buckets in its host name: set PathStyle", c.Endpoint)
	}
	return nil
}

func (c *Config) checkCredentials() error {
	if (c.AccessKeyID == "") != (c.SecretAccessKey.value == "") {
		return errors.New("access key ID and secret access key go together: one is missing")
	}
	return nil
}

func (c *Config) checkRest() error {
	var errs []error
	switch c.Checksum {
	case CRC64NVME, CRC32C, NoChecksum:
	default:
		errs = append(errs, fmt.Errorf("checksum %q: want %s, %s or %s", c.Checksum, CRC64NVME, CRC32C, NoChecksum))
	}
	if c.Stall < 0 {
		errs = append(errs, fmt.Errorf("stall %v is negative", c.Stall))
	}
	return errors.Join(errs...)
}

// roots are the authorities of CAFile, or nil for those of the system.
func (c *Config) roots() (*x509.CertPool, error) {
	if c.CAFile == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(c.CAFile)
	if err != nil {
		return nil, fmt.Errorf("reading the authorities: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("reading the authorities: no certificate in %q", c.CAFile)
	}
	return pool, nil
}
