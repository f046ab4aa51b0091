package config

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"chatelaine/kms/config/settings"
)

// least is the smallest file that is complete.
const least = `
listen: unix:///run/kms.sock
state: {dir: /var/lib/kms}
provider: {softkey: {dir: /var/lib/keys}}
`

func load(t *testing.T, text string) (Config, error) {
	t.Helper()
	name := filepath.Join(t.TempDir(), "kms.yaml")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return Load(name)
}

func TestExampleLoads(t *testing.T) {
	c, err := Load("../../deploy/examples/kms.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if c.Provider.PKCS11 == nil || c.Provider.PKCS11.PIN().File == "" || c.Lease != 15*time.Second {
		t.Errorf("got %+v", c)
	}
}

func TestTokensURIMayNameModuleAndPIN(t *testing.T) {
	c, err := load(t, "listen: unix:///s\nstate: {dir: /d}\nprovider: {pkcs11: {token: 'pkcs11:token=a?module-path=/m.so&pin-source=/p', "+
		"mechanism: rsa-oaep-sha256, mechanisms: {other: aes-gcm}, failover: [{token: b, module: /n.so}]}}")
	if err != nil {
		t.Fatal(err)
	}
	p := c.Provider.PKCS11
	if p.Mechanism != "rsa-oaep-sha256" || p.Mechanisms["other"] != "aes-gcm" || len(p.Failover) != 1 || p.Failover[0].Module != "/n.so" {
		t.Errorf("got %+v", p)
	}
}

func TestVaultExampleLoads(t *testing.T) {
	c, err := Load("../../deploy/examples/kms-vault.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if c.Provider.Transit == nil || c.Provider.Transit.AppRole == nil || !c.Provider.Transit.AppRole.SecretID().Given() {
		t.Errorf("got %+v", c)
	}
}

func TestDefaultsStandWhereTheFileIsSilent(t *testing.T) {
	c, err := load(t, least)
	if err != nil {
		t.Fatal(err)
	}
	if c.KEK != "main" || c.TTL != 5*time.Minute || c.Epoch != 24*time.Hour || c.Development {
		t.Errorf("got %+v", c)
	}
}

func TestWhatIsEncodedLoadsTheSame(t *testing.T) {
	want, err := Load("../../deploy/examples/kms.yaml")
	if err != nil {
		t.Fatal(err)
	}
	want.Provider.PKCS11.PINFile = "/a folder: with 'quotes' # and more/\"pin\"" // names are people's
	text, err := settings.Encode(want)
	if err != nil {
		t.Fatal(err)
	}
	got, err := load(t, string(text))
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v, want %+v, from\n%s", got, err, want, text)
	}
}

// key is a key that package offline has for tests, quoted for YAML.
func key(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "offline", "testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return strconv.Quote(string(text))
}

func TestARecoveryIsUnderAnRSAKeyOrWithAnotherProvider(t *testing.T) {
	c, err := load(t, least+"recovery: {public_key: "+key(t, "public.pem")+"}\n")
	if err != nil || c.Recovery.Name() != "" || !strings.HasPrefix(c.Recovery.PublicKey, "-----BEGIN PUBLIC KEY-----\n") {
		t.Errorf("got %+v, %v", c.Recovery, err)
	}
	text, err := settings.Encode(c)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := load(t, string(text)); err != nil || !reflect.DeepEqual(again, c) {
		t.Errorf("encoded and loaded: got %+v, %v", again, err)
	}
	c, err = load(t, least+"providers: {vault: {softkey: {dir: /d}}}\nrecovery: {provider: vault}\n")
	if err != nil || c.Recovery.Name() != "recovery" {
		t.Errorf("got %+v, %v", c.Recovery, err)
	}
	if c, err = load(t, least); err != nil || c.Recovery.Name() != "" {
		t.Errorf("without one: got %+v, %v", c.Recovery, err)
	}
}

func TestEachMistakeIsFound(t *testing.T) {
	const tls = "tls: {cert_file: a, key_file: b, ca_file: c}\n"
	tests := map[string]struct{ text, want string }{
		"no address":             {"listen: ''", "listen: is"},
		"plain TCP":              {"listen: 'http://h:1'", "listen: is"},
		"https without TLS":      {"listen: 'https://h:1'\ngateways: [a]\nadmins: [b]", "tls: is missing"},
		"https without CA":       {"listen: 'https://h:1'\ngateways: [a]\nadmins: [b]\ntls: {cert_file: a, key_file: b}", "tls.ca_file: is missing"},
		"https for nobody":       {"listen: 'https://h:1'\nadmins: [b]\n" + tls, "gateways: wants"},
		"https without admins":   {"listen: 'https://h:1'\ngateways: [b]\n" + tls, "admins: wants"},
		"https for no name":      {"listen: 'https://h:1'\nadmins: [b]\ngateways: ['']\n" + tls, "gateways: wants"},
		"socket with names":      {"listen: unix:///s\ngateways: [a]", "listen: is a unix socket"},
		"no state":               {"state: {}", "state: wants exactly one"},
		"two states":             {"state: {dir: d, endpoints: ['https://h:1']}", "state: wants exactly one"},
		"endpoint, no URL":       {"state: {endpoints: [localhost]}", "state.endpoints: wants URLs"},
		"etcd TLS without key":   {"state: {endpoints: ['https://h:1'], tls: {cert_file: a, ca_file: b}}", "state.tls.key_file: is missing"},
		"tiny quota":             {"state: {dir: d, quota_mib: 1023}", "state.quota_mib: is 1023, want 1024 to 8192"},
		"negative quota":         {"state: {endpoints: ['https://h:1'], quota_mib: -1}", "state.quota_mib: is -1, want 1024 to 1048576"},
		"huge quota":             {"state: {dir: d, quota_mib: 8193}", "state.quota_mib: is 8193, want 1024 to 8192"},
		"no provider":            {"provider: {}", "provider: wants exactly one"},
		"two providers":          {"provider: {softkey: {dir: d}, pkcs11: {module: m, token: t, pin_env: P}}", "provider: wants exactly one"},
		"further one, empty":     {"providers: {b: {}}", "providers.b: wants exactly one"},
		"further one, no dir":    {"providers: {b: {softkey: {}}}", "providers.b.softkey.dir: is missing"},
		"two of one name":        {"providers: {softkey: {softkey: {dir: d}}}", "providers.softkey: has a name beside"},
		"transit nowhere":        {"provider: {transit: {token: {env: T}}}", "provider.transit.address: is missing"},
		"transit without login":  {"provider: {transit: {address: 'https://v:8200'}}", "provider.transit: wants exactly one of token"},
		"two logins":             {"provider: {transit: {address: 'https://v:8200', token: {env: T}, kubernetes: {role: r}}}", "provider.transit: wants exactly one of token"},
		"two tokens":             {"provider: {transit: {address: 'https://v:8200', token: {env: T, file: f}}}", "provider.transit.token: wants exactly one"},
		"AppRole without secret": {"provider: {transit: {address: 'https://v:8200', approle: {role_id: r}}}", "provider.transit.approle: wants secret_id_file"},
		"Kubernetes, no role":    {"provider: {transit: {address: 'https://v:8200', kubernetes: {}}}", "provider.transit.kubernetes.role: is missing"},
		"certificate, no key":    {"provider: {transit: {address: 'https://v:8200', certificate: {cert_file: c}}}", "provider.transit.certificate.key_file: is missing"},
		"token in the file":      {"provider: {transit: {address: 'https://v:8200', token: {text: '123456'}}}", "provider.transit.token.text: is not a setting"},
		"softkey without dir":    {"provider: {softkey: {}}", "provider.softkey.dir: is missing"},
		"pkcs11 without module":  {"provider: {pkcs11: {token: t, pin_env: P}}", "provider.pkcs11.module: is missing"},
		"pkcs11 without token":   {"provider: {pkcs11: {module: m, pin_env: P}}", "provider.pkcs11.token: is missing"},
		"pkcs11 without PIN":     {"provider: {pkcs11: {module: m, token: t}}", "provider.pkcs11: wants pin_file or pin_env"},
		"two PINs":               {"provider: {pkcs11: {module: m, token: t, pin_env: P, pin_file: f}}", "provider.pkcs11.pin_file: is given beside"},
		"PIN in the file":        {"provider: {pkcs11: {module: m, token: t, pin: '123456'}}", "provider.pkcs11.pin: is not a setting"},
		"failover without token": {"provider: {pkcs11: {module: m, token: t, pin_env: P, failover: [{pin_env: Q}]}}", "provider.pkcs11.failover[0].token: is missing"},
		"negative sessions":      {"provider: {pkcs11: {module: m, token: t, pin_env: P, max_sessions: -1}}", "provider.pkcs11.max_sessions: is negative"},
		"small RSA keys":         {"provider: {pkcs11: {module: m, token: t, pin_env: P, rsa_bits: 1024}}", "provider.pkcs11.rsa_bits: is 1024"},
		"one module, two texts":  {"provider: {pkcs11: {module: m, token: t, pin_env: P, parameters: a, failover: [{token: u, parameters: b}]}}", "provider.pkcs11.failover[0].parameters: differs"},
		"no KEK":                 {"kek: ''", "kek: is missing"},
		"short lease":            {"lease: 1s", "lease: is 1s"},
		"long lease":             {"lease: 1h", "lease: is 1h"},
		"ceremony":               {"ceremony: abcd", `ceremony: is "abcd", want a SHA-256`},
		"short TTL":              {"ttl: 1s", "ttl: is 1s"},
		"long TTL":               {"ttl: 24h", "ttl: is 24h"},
		"TTL below the lease":    {"ttl: 10s", "ttl: is 10s, less than the lease"},
		"short epoch":            {"epoch: 1s", "epoch: is 1s"},
		"admin without port":     {"admin_listen: localhost", "admin_listen: is"},
		"log level":              {"log: {level: loud}", "log.level: is"},
		"log format":             {"log: {format: xml}", "log.format: is"},
		"recovery of nothing":    {"recovery: {}", "recovery: wants exactly one"},
		"recovery twice":         {"recovery: {public_key: x, provider: b}\nproviders: {b: {softkey: {dir: d}}}", "recovery: wants exactly one"},
		"recovery, no key":       {"recovery: {public_key: x}", "recovery.public_key: cannot be used"},
		"recovery, small key":    {"recovery: {public_key: " + key(t, "small.pem") + "}", "recovery.public_key: cannot be used: offline: reading a key: key is not fit for recovery: it has 2048 bits"},
		"recovery, private key":  {"recovery: {public_key: " + key(t, "private.pem") + "}", "recovery.public_key: is a private key, which must never be here"},
		"recovery, locked key":   {"recovery: {public_key: " + key(t, "encrypted.pem") + "}", "recovery.public_key: is a private key, which must never be here"},
		"recovery nowhere":       {"recovery: {provider: b}", `recovery.provider: is "b", want the name`},
		"recovery by the first":  {"recovery: {provider: softkey}", `recovery.provider: is "softkey", want the name`},
		"recovery by default":    {"recovery: {provider: b, kek: main}\nproviders: {b: {softkey: {dir: d}}}", "recovery.kek: is the default KEK"},
		"recovery, KEK of RSA":   {"recovery: {public_key: x, kek: k}", "recovery.kek: is given without"},
		"unknown key":            {"kke: x", "kke: is not a setting"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			section, _, _ := strings.Cut(tc.text, ":")
			var kept []string
			for line := range strings.Lines(least) {
				if !strings.HasPrefix(line, section+":") {
					kept = append(kept, line)
				}
			}
			_, err := load(t, strings.Join(kept, "")+tc.text+"\n")
			var found *settings.Error
			if !errors.As(err, &found) || !strings.Contains(err.Error(), "\n  "+tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
			if err != nil && (strings.Contains(err.Error(), "123456") || strings.Contains(err.Error(), "-----BEGIN")) {
				t.Errorf("the error tells a secret: %v", err)
			}
		})
	}
}
