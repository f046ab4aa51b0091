// Package config is the KMS's configuration: one strict YAML file as a struct that
// has been checked.
//
// It refuses to open anything: no token, no etcd, no socket. It refuses to hold a
// secret either, and knows only where secrets lie.
package config

import (
	"cmp"
	"time"

	"chatelaine/kms/config/settings"
)

// Config is the file. A field that the file does not mention has the value that its
// comment gives.
type Config struct {
	// Listen is unix:///path/of/socket or https://host:port. Required. Whoever can
	// open the socket may do everything; it is made for its owner alone (0600).
	Listen string `yaml:"listen"`
	// TLS is required for https, where it is mutual.
	TLS *TLS `yaml:"tls"`
	// Gateways and Admins are the names in client certificates (common name, DNS name
	// or URI) that may call as such. Over https both are required: nobody else may
	// call at all. Over a unix socket they must be absent.
	Gateways []string `yaml:"gateways"`
	Admins   []string `yaml:"admins"`
	State    State    `yaml:"state"`
	// Provider is where the KEKs are: exactly one of its parts. Required.
	Provider Provider `yaml:"provider"`
	// Providers are further ones, by a name that stays: the registry writes it down with
	// each key that `chatelaine key migrate` moves there. Provider is known there as
	// pkcs11, transit or softkey, or by its own name.
	Providers map[string]Provider `yaml:"providers"`
	// Recovery is what each bucket key is wrapped under beside its KEK, so that it can be
	// had when the provider of that is lost. Absent: nothing, and with the provider all
	// data is lost. Bucket keys from before get it by `chatelaine key rewrap`.
	Recovery *Recovery `yaml:"recovery"`
	// KEK is the name of the KEK that wraps access keys, and the bucket keys of
	// buckets that name no other. main. It is made on the first start.
	KEK string `yaml:"kek"`
	// Lease is how long a gateway may use keys without a word from here: the longest
	// that a block takes to hold everywhere. 15s; 3s to 5m.
	Lease time.Duration `yaml:"lease"`
	// TTL is how long a gateway may use a bucket key after the HSM has unwrapped it.
	// 5m; 10s to 1h. The longest that a key that was disabled in the HSM itself goes
	// on working. Shorter costs HSM calls: one a live bucket key, gateway and TTL.
	TTL time.Duration `yaml:"ttl"`
	// Ceremony pins dual control: the SHA-256 that `chatelaine ceremony apply` prints.
	// Where it is given, nothing that rules can be made for is permitted without rules
	// that come from that ceremony, so whoever can write to the state cannot turn dual
	// control off. Empty: the state is believed.
	Ceremony string `yaml:"ceremony"`
	// Epoch is the age at which a bucket gets a new key. 24h; at least 1m.
	Epoch time.Duration `yaml:"epoch"`
	// Canary is how often the kill switch is measured, with a key of its own: metric
	// chatelaine_block_latency_seconds. 1h; at least 10s, and 0 for never. All
	// replicas together run one in that time.
	Canary time.Duration `yaml:"canary"`
	// Development lets the secret of an access key be shown again, if it was made so.
	// false. Whoever administers the KMS can then read it.
	Development bool `yaml:"development"`
	// AdminListen is HOST:PORT of /healthz, /readyz and /metrics. Empty: none.
	AdminListen string `yaml:"admin_listen"`
	Log         Log    `yaml:"log"`
}

// TLS is the server's end of mutual TLS, in PEM. The files are read again when they change.
type TLS struct {
	CertFile string `yaml:"cert_file"`
	KeyFile  string `yaml:"key_file"`
	// CAFile holds the authorities that clients' certificates must come from. They
	// should issue for this purpose alone.
	CAFile string `yaml:"ca_file"`
}

// State is where records are kept: in this process, or in an etcd of yours.
type State struct {
	// Dir is the folder of the etcd inside this process. Back it up with the token: a
	// wrapped key is lost with either. One process may have it.
	Dir string `yaml:"dir"`
	// Endpoints are the URLs of an etcd cluster. All replicas of the KMS name the same. It
	// must forget history by itself (--auto-compaction-retention=5m), which etcd does not do
	// unless it is told to.
	Endpoints []string `yaml:"endpoints"`
	// QuotaMiB is how long etcd's file may become, in MiB: then it takes no changes any
	// more, no block either. 0; for Dir that is 2048, and 1024 to 8192 may be given. For
	// Endpoints it is the cluster's own quota, or 2048 of an etcd before 3.6, which does not
	// tell it; what is given holds where it is less. Writes in buckets with the rollback
	// guard are refused when half of it is in use.
	QuotaMiB int `yaml:"quota_mib"`
	// TLS towards Endpoints. Whoever can write to that etcd can deny service, and can
	// swap records, though not read or forge keys.
	TLS *TLS `yaml:"tls"`
}

// Provider is where KEKs live.
type Provider struct {
	// Name is what the registry knows Provider by. Empty: pkcs11, transit or softkey.
	// When keys have moved into one of Providers and that takes the place of Provider,
	// it must keep its name. In Providers it has no meaning.
	Name    string   `yaml:"name"`
	PKCS11  *PKCS11  `yaml:"pkcs11"`
	Transit *Transit `yaml:"transit"`
	SoftKey *SoftKey `yaml:"softkey"`
}

// Recovery is either public_key, or provider with kek. It is for bucket keys, not for the
// secrets of users.
type Recovery struct {
	// PublicKey is an RSA key in PEM, of 3072 to 8192 bits. Whoever has the private key
	// and sees the backend can read everything, also what was blocked, and what was
	// shredded where old copies of it are kept. It belongs where no network is.
	PublicKey string `yaml:"public_key"`
	// Provider is the name of one of Providers. No new bucket key is made, and so after
	// an epoch nothing is written, while it does not serve.
	Provider string `yaml:"provider"`
	// KEK is the name of the KEK there, which is made on the first start. recovery.
	KEK string `yaml:"kek"`
}

// Name is the name of the recovery KEK; empty where there is none.
func (r *Recovery) Name() string {
	if r == nil || r.Provider == "" {
		return ""
	}
	return cmp.Or(r.KEK, "recovery")
}

// PKCS11 is a token of an HSM.
type PKCS11 struct {
	// Module is the vendor's library. Required, unless the token's URI has a
	// module-path.
	Module string `yaml:"module"`
	// Parameters is a text that the module is initialised with. Empty: none. Only a
	// few want one, such as NSS: "configDir='sql:/folder' ...".
	Parameters string `yaml:"parameters"`
	// Token is the token's label, or a pkcs11: URI of RFC 7512. Required.
	Token string `yaml:"token"`
	// The PIN, from a file or from a variable of the environment, by name. Required,
	// unless the token's URI has a pin-source. It is tried once: tokens lock. A file
	// that everybody may read is refused.
	PINFile string `yaml:"pin_file"`
	PINEnv  string `yaml:"pin_env"`
	// Failover is further tokens that hold copies of the same keys, made by the
	// vendor's means. They stand in, in this order, while those before do not serve.
	// Empty: none. A module (with its parameters) or PIN that is not given is the first
	// token's.
	Failover []Token `yaml:"failover"`
	// Mechanism is how new keys wrap: aes-gcm, aes-gcm-iv16 (Luna in FIPS mode before
	// firmware 7.9.3), rsa-oaep-sha256, rsa-oaep-sha1 or aes-cbc-hmac. Keys that are
	// there keep theirs. Empty: aes-gcm.
	Mechanism string `yaml:"mechanism"`
	// Mechanisms has exceptions from Mechanism, by key name.
	Mechanisms map[string]string `yaml:"mechanisms"`
	// RSABits is the size of RSA keys that are made. 0: 3072; 2048 to 8192. Keys that
	// are there keep theirs.
	RSABits int `yaml:"rsa_bits"`
	// UserType is the PKCS#11 number of the user to log in as. 0: CKU_USER. A Luna's
	// crypto user, who can neither make nor destroy keys, is 0x80000001.
	UserType int `yaml:"user_type"`
	// ReadOnly opens read-only sessions: keys are used, and none is made or destroyed.
	ReadOnly bool `yaml:"read_only"`
	// Prefix begins the labels of our keys. Empty: none. Installations that share a
	// token need different ones.
	Prefix string `yaml:"prefix"`
	// MaxSessions is the size of the session pool. 0: 30, or what the token has less
	// a reserve.
	MaxSessions int `yaml:"max_sessions"`
	// Deadline is the longest that a call may take. 10s. The call itself cannot be
	// stopped; its session is not used again.
	// A call that has not returned for three times as long ends the process, with code
	// 1, so that its supervisor starts a new one: nothing else ends a call that hangs.
	Deadline time.Duration `yaml:"deadline"`
}

// First is the token that is no failover.
func (p PKCS11) First() Token {
	return Token{Module: p.Module, Parameters: p.Parameters, Name: p.Token, PINFile: p.PINFile, PINEnv: p.PINEnv}
}

// Token says where a token is and how to log in to it, with the settings of PKCS11.
type Token struct {
	Module     string `yaml:"module"`
	Parameters string `yaml:"parameters"`
	Name       string `yaml:"token"`
	PINFile    string `yaml:"pin_file"`
	PINEnv     string `yaml:"pin_env"`
}

// PIN says where the PIN is.
func (t Token) PIN() settings.Secret { return settings.Secret{File: t.PINFile, Env: t.PINEnv} }

// PIN says where the first token's PIN is.
func (p PKCS11) PIN() settings.Secret { return p.First().PIN() }

// Transit is the transit engine of a HashiCorp Vault or OpenBao. Exactly one of Token,
// AppRole, Kubernetes and Certificate says how to log in. What the policy must allow is
// in deploy/examples/vault-policy.hcl.
type Transit struct {
	// Address is https://host:port. Required. Plain http is taken for a loopback
	// address alone, where an agent may listen.
	Address string `yaml:"address"`
	// Namespace of Vault Enterprise or OpenBao. Empty: the root namespace, or none.
	Namespace string `yaml:"namespace"`
	// Mount is the path of the engine. transit.
	Mount string `yaml:"mount"`
	// Prefix begins the names of our keys. Empty: none. Installations that share an
	// engine need different ones.
	Prefix string `yaml:"prefix"`
	// CAFile holds the authorities of the server's certificate, in PEM. Empty: the
	// system's.
	CAFile      string              `yaml:"ca_file"`
	Token       *TransitToken       `yaml:"token"`
	AppRole     *TransitAppRole     `yaml:"approle"`
	Kubernetes  *TransitKubernetes  `yaml:"kubernetes"`
	Certificate *TransitCertificate `yaml:"certificate"`
	// Deadline is the longest that a call may take. 10s.
	Deadline time.Duration `yaml:"deadline"`
}

// TransitToken is a token that somebody else obtains, such as Vault Agent. It is
// renewed, and read anew when Vault refuses it. It needs the policy "default".
type TransitToken struct {
	File string `yaml:"file"`
	Env  string `yaml:"env"`
}

// Secret says where the token is.
func (t TransitToken) Secret() settings.Secret { return settings.Secret{File: t.File, Env: t.Env} }

// TransitAppRole logs in by AppRole. The secret id is read for each login.
type TransitAppRole struct {
	// Mount is the path of the auth method. approle.
	Mount        string `yaml:"mount"`
	RoleID       string `yaml:"role_id"`
	SecretIDFile string `yaml:"secret_id_file"`
	SecretIDEnv  string `yaml:"secret_id_env"`
}

// SecretID says where the secret id is.
func (t TransitAppRole) SecretID() settings.Secret {
	return settings.Secret{File: t.SecretIDFile, Env: t.SecretIDEnv}
}

// TransitKubernetes logs in with the token of the pod's service account.
type TransitKubernetes struct {
	// Mount is the path of the auth method. kubernetes.
	Mount string `yaml:"mount"`
	Role  string `yaml:"role"`
	// TokenFile is read for each login. /var/run/secrets/kubernetes.io/serviceaccount/token.
	TokenFile string `yaml:"token_file"`
}

// TransitCertificate logs in with a client certificate, in PEM. The files are read for
// each connection.
type TransitCertificate struct {
	// Mount is the path of the auth method. cert.
	Mount string `yaml:"mount"`
	// Role is the role to ask for. Empty: Vault finds it.
	Role     string `yaml:"role"`
	CertFile string `yaml:"cert_file"`
	KeyFile  string `yaml:"key_file"`
}

// SoftKey keeps KEKs in files, for development only: whoever reads the folder has
// them all.
type SoftKey struct {
	// Dir is the folder. Required.
	Dir string `yaml:"dir"`
}

// Log is the diagnostic log, on stderr.
type Log struct {
	// Level is debug, info, warn or error. info.
	Level string `yaml:"level"`
	// Format is json or console. json.
	Format string `yaml:"format"`
}

// Default is the configuration of an empty file. It is not complete: the address,
// the state and the provider have no default.
func Default() Config {
	return Config{
		KEK: "main", Lease: 15 * time.Second, TTL: 5 * time.Minute, Epoch: 24 * time.Hour, Canary: time.Hour,
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
	c.dropEmpty()
	c.check(&problems)
	return c, problems.Err(file)
}

// dropEmpty makes nothing of empty mappings, which say what nothing says.
func (c *Config) dropEmpty() {
	if len(c.Providers) == 0 {
		c.Providers = nil
	}
	all := []*PKCS11{c.Provider.PKCS11}
	for _, p := range c.Providers {
		all = append(all, p.PKCS11)
	}
	for _, p := range all {
		if p != nil && len(p.Mechanisms) == 0 {
			p.Mechanisms = nil
		}
	}
}
