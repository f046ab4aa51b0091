package config

import (
	"maps"
	"net"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"

	"chatelaine/kms/config/settings"
)

// names of backends are kept in the registry and used as metric labels.
var names = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)

func (c *Config) check(p *settings.Problems) {
	checkAddress("listen", c.Listen, p)
	checkAddress("admin_listen", c.AdminListen, p)
	if c.DebugListen != "" {
		checkLoopback("debug_listen", c.DebugListen, p)
	}
	if c.Region == "" || strings.ContainsAny(c.Region, "/ ") {
		p.Add("region", "is %q, want a name without spaces and slashes", c.Region)
	}
	if strings.ContainsAny(c.Domain, ":/ ") {
		p.Add("domain", "is %q, want a host name alone", c.Domain)
	}
	if c.TLS != nil {
		p.Required("tls.cert_file", c.TLS.CertFile)
		p.Required("tls.key_file", c.TLS.KeyFile)
	}
	c.KMS.check(p)
	c.checkBackends(p)
	for _, pattern := range c.MD5Buckets {
		if _, err := path.Match(pattern, ""); err != nil || pattern == "" {
			p.Add("md5_buckets", "has %q, want names of buckets or patterns with * and ?", pattern)
		}
	}
	c.Limits.check(p)
	p.OneOf("log.level", c.Log.Level, "debug", "info", "warn", "error")
	p.OneOf("log.format", c.Log.Format, "json", "console")
	p.Required("access_log.file", c.AccessLog.File)
}

func (k KMS) check(p *settings.Problems) {
	sockets, hosts := 0, 0
	for address := range strings.SplitSeq(k.Address, ",") {
		socket, unix := strings.CutPrefix(address, "unix://")
		u, err := url.Parse(address)
		switch {
		case unix && strings.HasPrefix(socket, "/"):
			sockets++
		case err == nil && u.Scheme == "https" && u.Port() != "" && strings.Trim(u.Path, "/") == "":
			hosts++
		default:
			p.Add("kms.address", "is %q, want unix:///path or https://host:port", address)
		}
	}
	switch {
	case sockets > 0 && hosts > 0:
		p.Add("kms.address", "is %q, want all unix sockets or all https", k.Address)
	case sockets > 0 && k.TLS != nil:
		p.Add("kms.tls", "is given, and a unix socket has no TLS")
	case hosts > 0:
		k.checkTLS(p)
	}
}

func (k KMS) checkTLS(p *settings.Problems) {
	if k.TLS == nil {
		p.Add("kms.tls", "is missing: the KMS knows gateways by their certificates")
		return
	}
	p.Required("kms.tls.cert_file", k.TLS.CertFile)
	p.Required("kms.tls.key_file", k.TLS.KeyFile)
	p.Required("kms.tls.ca_file", k.TLS.CAFile)
}

func (c *Config) checkBackends(p *settings.Problems) {
	if len(c.Backends) == 0 {
		p.Add("backends", "is empty, want at least one")
		return
	}
	for _, name := range slices.Sorted(maps.Keys(c.Backends)) {
		path := settings.Join("backends", name)
		if !names.MatchString(name) {
			p.Add(path, "is not a name of 1 to 63 lower-case letters, digits and hyphens")
		}
		c.Backends[name].check(path, p)
		if c.Backends[name].Offered && name == c.Region {
			p.Add(path+".offered", "is true, and a LocationConstraint %q is the region, which means the default backend", name)
		}
	}
	if c.DefaultBackend == "" && len(c.Backends) == 1 {
		for name := range c.Backends {
			c.DefaultBackend = name
		}
	}
	if _, ok := c.Backends[c.DefaultBackend]; !ok {
		p.Add("default_backend", "is %q, want the name of one of the backends", c.DefaultBackend)
	}
}

func (b Backend) check(path string, p *settings.Problems) {
	u, err := url.Parse(b.URL)
	switch {
	case err != nil || u.Scheme == "": // an error of url.Parse may quote a password
		p.Add(path+".url", "is not a URL such as s3://host:port or file:///folder")
	case u.User != nil:
		p.Add(path+".url", "holds credentials, want them in secret_access_key_file or _env")
	}
	b.AccessKeyID().Check(path+".access_key_id", p)
	b.SecretAccessKey().Check(path+".secret_access_key", p)
	if b.AccessKeyID().Given() != b.SecretAccessKey().Given() {
		p.Add(path, "names one of access key id and secret access key, want both or none")
	}
}

func (l Limits) check(p *settings.Problems) {
	if l.MaxHeaderBytes < 16<<10 {
		p.Add("limits.max_header_bytes", "is %d, want at least 16384", l.MaxHeaderBytes)
	}
	for path, d := range map[string]int64{
		"limits.read_header": int64(l.ReadHeader), "limits.idle": int64(l.Idle),
		"limits.stall": int64(l.Stall), "limits.drain": int64(l.Drain),
	} {
		if d <= 0 {
			p.Add(path, "is not above zero")
		}
	}
}

func checkAddress(path, address string, p *settings.Problems) {
	if _, port, err := net.SplitHostPort(address); err != nil || port == "" {
		p.Add(path, "is %q, want HOST:PORT", address)
	}
}

func checkLoopback(path, address string, p *settings.Problems) {
	host, _, err := net.SplitHostPort(address)
	if ip := net.ParseIP(host); err != nil || host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		p.Add(path, "is %q, want a loopback address with a port: profiles hold keys", address)
	}
}
