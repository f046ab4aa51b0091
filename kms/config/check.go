package config

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"

	"chatelaine/kms/config/settings"
	"chatelaine/kms/offline"
)

func (c *Config) check(p *settings.Problems) {
	c.checkListen(p)
	c.State.check(p)
	c.Provider.check("provider", p)
	for name, other := range c.Providers {
		if other.Name != "" || name == c.Provider.KnownAs() {
			p.Add("providers."+name, "has a name beside, or that of provider")
		}
		other.check("providers."+name, p)
	}
	c.checkRecovery(p)
	p.Required("kek", c.KEK)
	between("lease", c.Lease, 3*time.Second, 5*time.Minute, p)
	between("ttl", c.TTL, 10*time.Second, time.Hour, p)
	if c.TTL < c.Lease {
		p.Add("ttl", "is %v, less than the lease of %v", c.TTL, c.Lease)
	}
	if c.Canary != 0 && c.Canary < 10*time.Second {
		p.Add("canary", "is %v, want at least 10s, or 0 for none", c.Canary)
	}
	if b, err := hex.DecodeString(c.Ceremony); c.Ceremony != "" && (err != nil || len(b) != 32) {
		p.Add("ceremony", "is %q, want a SHA-256 in hex: 64 digits", c.Ceremony)
	}
	if c.Epoch < time.Minute {
		p.Add("epoch", "is %v, want at least 1m", c.Epoch)
	}
	if _, port, err := net.SplitHostPort(c.AdminListen); c.AdminListen != "" && (err != nil || port == "") {
		p.Add("admin_listen", "is %q, want HOST:PORT", c.AdminListen)
	}
	p.OneOf("log.level", c.Log.Level, "debug", "info", "warn", "error")
	p.OneOf("log.format", c.Log.Format, "json", "console")
}

func (c *Config) checkRecovery(p *settings.Problems) {
	r := c.Recovery
	if r == nil {
		return
	}
	if (r.PublicKey == "") == (r.Provider == "") {
		p.Add("recovery", "wants exactly one of public_key and provider")
	}
	if r.PublicKey != "" {
		_, err := offline.ParsePublicKey([]byte(r.PublicKey))
		switch {
		case errors.Is(err, offline.ErrPrivate):
			p.Add("recovery.public_key", "is a private key, which must never be here: take it away and keep it offline, and put in what `openssl pkey -pubout` makes of it")
		case err != nil:
			p.Add("recovery.public_key", "cannot be used: %v", err)
		}
	}
	if _, known := c.Providers[r.Provider]; r.Provider != "" && !known {
		p.Add("recovery.provider", "is %q, want the name of one of providers: another than provider, with which it would be lost", r.Provider)
	}
	if r.KEK != "" && r.Provider == "" {
		p.Add("recovery.kek", "is given without a provider that has it")
	}
	if r.Name() != "" && r.Name() == c.KEK {
		p.Add("recovery.kek", "is the default KEK, want another name")
	}
}

func (c *Config) checkListen(p *settings.Problems) {
	socket, unix := strings.CutPrefix(c.Listen, "unix://")
	u, err := url.Parse(c.Listen)
	switch {
	case unix && strings.HasPrefix(socket, "/"):
		if c.TLS != nil || len(c.Gateways)+len(c.Admins) > 0 {
			p.Add("listen", "is a unix socket, where tls, gateways and admins have no meaning: whoever can open it may call")
		}
	case err == nil && u.Scheme == "https" && u.Port() != "" && strings.Trim(u.Path, "/") == "":
		c.checkMutual(p)
	default:
		p.Add("listen", "is %q, want unix:///path or https://host:port", c.Listen)
	}
}

func (c *Config) checkMutual(p *settings.Problems) {
	if c.TLS == nil {
		p.Add("tls", "is missing, and https needs it")
	} else {
		c.TLS.check("tls", p)
	}
	for path, names := range map[string][]string{"gateways": c.Gateways, "admins": c.Admins} {
		if len(names) == 0 || slices.Contains(names, "") {
			p.Add(path, "wants the names in the certificates that may call")
		}
	}
}

func (t *TLS) check(path string, p *settings.Problems) {
	p.Required(path+".cert_file", t.CertFile)
	p.Required(path+".key_file", t.KeyFile)
	p.Required(path+".ca_file", t.CAFile)
}

func (s State) check(p *settings.Problems) {
	if (s.Dir == "") == (len(s.Endpoints) == 0) {
		p.Add("state", "wants exactly one of dir and endpoints")
	}
	for _, e := range s.Endpoints {
		if u, err := url.Parse(e); err != nil || u.Host == "" || u.User != nil {
			p.Add("state.endpoints", "wants URLs such as https://host:2379, without credentials")
		}
	}
	if most := s.mostQuota(); s.QuotaMiB != 0 && (s.QuotaMiB < 1024 || s.QuotaMiB > most) {
		p.Add("state.quota_mib", "is %d, want 1024 to %d, or 0 for etcd's own", s.QuotaMiB, most)
	}
	if s.TLS != nil {
		s.TLS.check("state.tls", p)
	}
}

// mostQuota is the largest quota in MiB: etcd advises against more than 8 GiB, but a
// cluster is somebody else's to judge. The smallest leaves enough of it that clients do
// not fill before the KMS looks (kms/DECISIONS.md).
func (s State) mostQuota() int {
	if s.Dir != "" {
		return 8 << 10
	}
	return 1 << 20
}

// KnownAs is the name that the registry keeps with keys.
func (v Provider) KnownAs() string {
	switch {
	case v.Name != "":
		return v.Name
	case v.Transit != nil:
		return "transit"
	case v.SoftKey != nil:
		return "softkey"
	}
	return "pkcs11"
}

func (v Provider) check(path string, p *settings.Problems) {
	if count(v.PKCS11 != nil, v.Transit != nil, v.SoftKey != nil) != 1 {
		p.Add(path, "wants exactly one of pkcs11, transit and softkey")
	}
	if v.PKCS11 != nil {
		v.PKCS11.check(path+".pkcs11", p)
	}
	if v.Transit != nil {
		v.Transit.check(path+".transit", p)
	}
	if v.SoftKey != nil {
		p.Required(path+".softkey.dir", v.SoftKey.Dir)
	}
}

// count is how many are true.
func count(given ...bool) int {
	n := 0
	for _, one := range given {
		if one {
			n++
		}
	}
	return n
}

func (v *Transit) check(path string, p *settings.Problems) {
	p.Required(path+".address", v.Address)
	if v.Deadline < 0 {
		p.Add(path+".deadline", "is negative")
	}
	if count(v.Token != nil, v.AppRole != nil, v.Kubernetes != nil, v.Certificate != nil) != 1 {
		p.Add(path, "wants exactly one of token, approle, kubernetes and certificate")
	}
	if v.Token != nil && count(v.Token.File != "", v.Token.Env != "") != 1 {
		p.Add(path+".token", "wants exactly one of file and env")
	}
	if v.AppRole != nil {
		p.Required(path+".approle.role_id", v.AppRole.RoleID)
		v.AppRole.SecretID().Check(path+".approle.secret_id", p)
		if !v.AppRole.SecretID().Given() {
			p.Add(path+".approle", "wants secret_id_file or secret_id_env")
		}
	}
	if v.Kubernetes != nil {
		p.Required(path+".kubernetes.role", v.Kubernetes.Role)
	}
	if v.Certificate != nil {
		p.Required(path+".certificate.cert_file", v.Certificate.CertFile)
		p.Required(path+".certificate.key_file", v.Certificate.KeyFile)
	}
}

func (v *PKCS11) check(path string, p *settings.Problems) {
	if v.Module == "" && !v.First().says("module-path=") {
		p.Required(path+".module", v.Module)
	}
	p.Required(path+".token", v.Token)
	v.PIN().Check(path+".pin", p)
	if !v.PIN().Given() && !v.First().says("pin-source=") {
		p.Add(path, "wants pin_file or pin_env")
	}
	if v.UserType < 0 {
		p.Add(path+".user_type", "is negative")
	}
	if v.RSABits != 0 && (v.RSABits < 2048 || v.RSABits > 8192) {
		p.Add(path+".rsa_bits", "is %d, want 2048 to 8192, or 0 for 3072", v.RSABits)
	}
	if v.MaxSessions < 0 {
		p.Add(path+".max_sessions", "is negative")
	}
	for i, other := range v.Failover {
		path := fmt.Sprintf("%s.failover[%d]", path, i)
		p.Required(path+".token", other.Name)
		other.PIN().Check(path+".pin", p)
		if other.Parameters != "" && (other.Module == "" || other.Module == v.Module) && !other.says("module-path=") && other.Parameters != v.Parameters {
			p.Add(path+".parameters", "differs from those of the first token, whose module it has: a module is initialised once")
		}
	}
}

// says tells whether the token is named by a URI with this attribute.
func (t Token) says(attribute string) bool {
	return strings.HasPrefix(t.Name, "pkcs11:") && strings.Contains(t.Name, attribute)
}

func between(path string, v, low, high time.Duration, p *settings.Problems) {
	if v < low || v > high {
		p.Add(path, "is %v, want %v to %v", v, low, high)
	}
}
