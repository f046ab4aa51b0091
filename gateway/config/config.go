// Package config is the gateway's configuration: one strict YAML file as a struct
// that has been checked.
//
// It refuses to open anything: no port, no store, no KMS. It refuses to hold a
// secret either, and knows only where secrets lie.
package config

import (
	"slices"
	"time"

	"chatelaine/kms/config/settings"
)

// Config is the file. A field that the file does not mention has the value that its
// comment gives.
type Config struct {
	// Listen is HOST:PORT of S3. 127.0.0.1:9000. On an address that others can reach,
	// set tls: without it, whoever is on the way reads the plaintext that this product
	// keeps from the cloud.
	Listen string `yaml:"listen"`
	// AdminListen is HOST:PORT of /healthz, /readyz and /metrics. 127.0.0.1:9001. It
	// knows no authentication: metrics show load, and no names.
	AdminListen string `yaml:"admin_listen"`
	// DebugListen is HOST:PORT of /debug/pprof. Empty: none. Profiles and heap dumps
	// hold keys and plaintext: loopback only, and not for long.
	DebugListen string `yaml:"debug_listen"`
	// Domain is the base of virtual-hosted requests: with s3.example.org, the bucket
	// of photos.s3.example.org is photos. Empty: path style only.
	Domain string `yaml:"domain"`
	// Region is the one that clients sign for. us-east-1.
	Region string `yaml:"region"`
	// TLS of the S3 listener. Absent: plain HTTP.
	TLS *TLS `yaml:"tls"`
	KMS KMS  `yaml:"kms"`
	// Backends are the clouds, by names that the registry keeps with each bucket: a
	// name must never be given to another cloud.
	Backends map[string]Backend `yaml:"backends"`
	// DefaultBackend is where CreateBucket makes buckets whose LocationConstraint does not
	// name another that is offered. It may be left out where there is one backend.
	DefaultBackend string `yaml:"default_backend"`
	// BucketPrefix begins the names of buckets there, since clouds share one space of
	// names among all their customers. Empty: none. It counts towards the 63
	// characters that a name may have.
	BucketPrefix string `yaml:"bucket_prefix"`
	// MD5Buckets are names of buckets, or patterns of them with * and ?, that shall show
	// the MD5 of the plaintext as ETags. It is decided when a bucket is made. Empty: none.
	// MD5 sums 0.7 GB/s on a core, and lists ask the cloud for what they do not know yet.
	MD5Buckets []string  `yaml:"md5_buckets"`
	Limits     Limits    `yaml:"limits"`
	Log        Log       `yaml:"log"`
	AccessLog  AccessLog `yaml:"access_log"`
}

// TLS names a certificate and its key in PEM. They are read again when they change.
type TLS struct {
	CertFile string `yaml:"cert_file"`
	KeyFile  string `yaml:"key_file"`
}

// KMS says where the key service is and who the gateway is to it.
type KMS struct {
	// Address is unix:///path/of/socket or https://host:port, or several with commas
	// between: replicas of one KMS, of which the next is used when one does not
	// answer. Required, but for
	// `chatelaine up`, which starts its own.
	Address string `yaml:"address"`
	// TLS is required for https: the KMS knows gateways by their certificates alone.
	TLS *ClientTLS `yaml:"tls"`
}

// ClientTLS is one end of mutual TLS.
type ClientTLS struct {
	CertFile string `yaml:"cert_file"`
	KeyFile  string `yaml:"key_file"`
	// CAFile holds the authorities that the other end's certificate must come from.
	CAFile string `yaml:"ca_file"`
}

// Backend is one cloud.
type Backend struct {
	// URL is file:///folder, s3://host:port?options or s3+http://host:port?options,
	// azure://ACCOUNT.blob.core.windows.net or, for an emulator,
	// azure+http://host:port/ACCOUNT?checksum=none; gcs://PROJECT?location=REGION or, for
	// an emulator, gcs+http://host:port/PROJECT?location=REGION.
	// Credentials in it are refused: URLs are shown and logged.
	URL string `yaml:"url"`
	// Dialect says which server speaks S3 there: minio, ceph, versitygw, or a cloud.
	// `chatelaine backend dialects` lists them with what is known of each. Empty: the one
	// that the URL's host belongs to, else generic. For s3 only. A wrong one may make the
	// gateway send conditions that the server ignores, and so overwrite or delete.
	Dialect string `yaml:"dialect"`
	// The gateway's own account there, from a file or from a variable of the
	// environment, by name. None: CHATELAINE_BACKEND_ACCESS_KEY_ID and
	// CHATELAINE_BACKEND_SECRET_ACCESS_KEY, else what the SDK finds (shared files,
	// roles). It needs the right to read, write, list and delete, and no more. On Azure
	// the ID is the account's name and the secret its key or a shared access signature; on
	// Google Cloud the address of a service account and the text of its JSON key file.
	AccessKeyIDFile     string `yaml:"access_key_id_file"`
	AccessKeyIDEnv      string `yaml:"access_key_id_env"`
	SecretAccessKeyFile string `yaml:"secret_access_key_file"`
	SecretAccessKeyEnv  string `yaml:"secret_access_key_env"`
	// Offered lets whoever may make buckets choose this backend: the LocationConstraint of
	// CreateBucket is then its name. Without it buckets are made here, but on the default
	// backend, by `chatelaine bucket create --backend` alone.
	Offered bool `yaml:"offered"`
}

// Offered are the names of the backends that are, in order.
func (c *Config) Offered() (names []string) {
	for name, b := range c.Backends {
		if b.Offered {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// AccessKeyID says where the account's name is.
func (b Backend) AccessKeyID() settings.Secret {
	return settings.Secret{File: b.AccessKeyIDFile, Env: b.AccessKeyIDEnv}
}

// SecretAccessKey says where the account's secret is.
func (b Backend) SecretAccessKey() settings.Secret {
	return settings.Secret{File: b.SecretAccessKeyFile, Env: b.SecretAccessKeyEnv}
}

// Limits protect the gateway from its clients.
type Limits struct {
	// ReadHeader is the longest time for a request's header or a TLS handshake. 10s.
	ReadHeader time.Duration `yaml:"read_header"`
	// Idle is how long a connection may wait for its next request. 2m.
	Idle time.Duration `yaml:"idle"`
	// Stall is how long a body may make no progress before it is cut. 1m. A slow
	// client is not cut, however slow.
	Stall time.Duration `yaml:"stall"`
	// Drain is how long running requests may go on after SIGTERM. 30s. The service
	// manager's patience must be longer.
	Drain time.Duration `yaml:"drain"`
	// MaxHeaderBytes is the longest request header. 65536.
	MaxHeaderBytes int `yaml:"max_header_bytes"`
}

// Log is the diagnostic log, on stderr.
type Log struct {
	// Level is debug, info, warn or error. info. debug names buckets and object keys.
	Level string `yaml:"level"`
	// Format is json or console. json.
	Format string `yaml:"format"`
}

// AccessLog records every decision: who was allowed or refused what.
type AccessLog struct {
	// File is appended to; it is never rotated or shortened here. Required, but for
	// `chatelaine up`, which puts it into its data folder. What cannot be recorded is
	// refused, so a full disk here stops S3.
	File string `yaml:"file"`
}

// Default is the configuration of an empty file. It is not complete: a backend, the
// KMS's address and the access log have no default.
func Default() Config {
	return Config{
		Listen:      "127.0.0.1:9000",
		AdminListen: "127.0.0.1:9001",
		Region:      "us-east-1",
		Limits: Limits{
			ReadHeader: 10 * time.Second, Idle: 2 * time.Minute, Stall: time.Minute,
			Drain: 30 * time.Second, MaxHeaderBytes: 64 << 10,
		},
		Log: Log{Level: "info", Format: "json"},
	}
}

// Load reads a file over the defaults and checks it. The *settings.Error that it
// returns names all problems.
func Load(file string) (Config, error) {
	var problems settings.Problems
	c := Default()
	if err := settings.Load(file, &c, &problems); err != nil {
		return Config{}, err
	}
	c.check(&problems)
	return c, problems.Err(file)
}

// LoadPartial is Load for a caller that fills in itself what is missing, and calls
// Check then: `chatelaine up`.
func LoadPartial(file string) (Config, error) {
	var problems settings.Problems
	c := Default()
	if err := settings.Load(file, &c, &problems); err != nil {
		return Config{}, err
	}
	return c, problems.Err(file)
}

// Check checks a configuration that was not only loaded. Source leads the error's text.
func (c *Config) Check(source string) error {
	var problems settings.Problems
	c.check(&problems)
	return problems.Err(source)
}
