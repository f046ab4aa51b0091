package service

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"chatelaine/kms"
	"chatelaine/kms/service/kmsv1"
)

func TestAddresses(t *testing.T) {
	tests := []struct{ address, network, at string }{
		{"unix:///run/kms.sock", "unix", "/run/kms.sock"},
		{"https://127.0.0.1:7443", "tcp", "127.0.0.1:7443"},
		{"https://kms.example.org:7443/", "tcp", "kms.example.org:7443"},
		{"tcp://[::1]:1", "tcp", "[::1]:1"},
		{"unix://relative/kms.sock", "", ""},
		{"unix:relative", "", ""},
		{"http://127.0.0.1:80", "", ""},
		{"https://127.0.0.1", "", ""},
		{"https://127.0.0.1:1/path", "", ""},
		{"127.0.0.1:80", "", ""},
		{"", "", ""},
		{"unix:///" + strings.Repeat("x", 107), "", ""},
	}
	for _, test := range tests {
		network, at, err := parseAddress(test.address)
		if network != test.network || at != test.at || (err == nil) != (test.network != "") {
			t.Errorf("%q: got %q %q %v", test.address, network, at, err)
		}
	}
}

func TestASocketIsPrivateAndGoesWithItsListener(t *testing.T) {
	address := socket(t)
	path := strings.TrimPrefix(address, "unix://")
	l, err := Listen(ListenConfig{Address: address})
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != os.ModeSocket|0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if _, err := Listen(ListenConfig{Address: address}); err == nil {
		t.Error("two listen on one socket")
	} else {
		wantErr(t, err, kms.ErrExists)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if left, _ := os.ReadDir(filepath.Dir(path)); len(left) != 0 {
		t.Errorf("files are left: %v", left)
	}
}

func TestAStaleSocketIsReplacedAndAFileIsNot(t *testing.T) {
	address := socket(t)
	path := strings.TrimPrefix(address, "unix://")
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	_ = dead.Close()
	first, err := Listen(ListenConfig{Address: address})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	second, err := Listen(ListenConfig{Address: address})
	if err != nil {
		t.Fatal(err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Errorf("a listener removed its successor's socket: %v", err)
	}
	_ = second.Close()

	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = Listen(ListenConfig{Address: address})
	wantErr(t, err, kms.ErrExists)
	if data, _ := os.ReadFile(path); string(data) != "precious" {
		t.Error("a file was replaced")
	}
}

func TestASocketsPathMayBeAsLongAsLinuxAllows(t *testing.T) {
	address := socket(t)
	address += strings.Repeat("x", len("unix://")+maxSocketPath-len(address))
	w := newWorld(t, nil)
	w.serve(t, ListenConfig{Address: address})
	leaseOf(t, connected(t, DialConfig{Address: address}))
	_, err := Listen(ListenConfig{Address: address + "x"})
	wantErr(t, err, kms.ErrInvalid)
}

func TestADeadKMSIsUnavailable(t *testing.T) {
	w := newWorld(t, nil)
	address, stop := w.serve(t, ListenConfig{Address: socket(t)})
	c := connected(t, DialConfig{Address: address})
	leaseOf(t, c)
	stop()
	_, err := c.Gateway.Renew(t.Context(), &kmsv1.RenewRequest{GatewayId: "gw"})
	wantErr(t, err, kms.ErrUnavailable)
	w.serve(t, ListenConfig{Address: address})
	leaseOf(t, c)
}

// authority issues certificates for a test.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{}
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: "test authority"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	a.cert, a.key, a.pem = issue(t, template, nil)
	return a
}

func issue(t *testing.T, template *x509.Certificate, by *authority) (*x509.Certificate, *ecdsa.PrivateKey, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template.SerialNumber, _ = rand.Int(rand.Reader, big.NewInt(1<<62))
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, signer := template, key
	if by != nil {
		parent, signer = by.cert, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert, key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// files issues a certificate and writes it, its key and the CA that it trusts.
func (a *authority) files(t *testing.T, template x509.Certificate, trusts *authority) TLSFiles {
	t.Helper()
	dir := t.TempDir()
	out := TLSFiles{Cert: filepath.Join(dir, "cert"), Key: filepath.Join(dir, "key"), CA: filepath.Join(dir, "ca")}
	a.write(t, out, template, trusts)
	return out
}

func (a *authority) write(t *testing.T, to TLSFiles, template x509.Certificate, trusts *authority) {
	t.Helper()
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	_, key, cert := issue(t, &template, a)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for path, data := range map[string][]byte{
		to.Cert: cert, to.Key: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), to.CA: trusts.pem,
	} {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func named(cn string) x509.Certificate { return x509.Certificate{Subject: pkix.Name{CommonName: cn}} }

func serverTemplate() x509.Certificate {
	return x509.Certificate{Subject: pkix.Name{CommonName: "kms"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
}

func TestMutualTLSLetsInOnlyWhoIsListed(t *testing.T) {
	ca, stranger := newAuthority(t), newAuthority(t)
	w := newWorld(t, func(c *Config) {
		c.Access = Access{Gateways: []string{"gw1", "spiffe://example.org/gw", "ou:gateways"}, Admins: []string{"admin1"}}
	})
	address, _ := w.serve(t, ListenConfig{Address: "https://127.0.0.1:0", TLS: ca.files(t, serverTemplate(), ca)})
	uri, _ := url.Parse("spiffe://example.org/gw")
	unit := x509.Certificate{Subject: pkix.Name{CommonName: "x", OrganizationalUnit: []string{"gateways"}}}
	tests := []struct {
		name           string
		files          TLSFiles
		gateway, admin error
	}{
		{"gateway by CN", ca.files(t, named("gw1"), ca), nil, kms.ErrDenied},
		{"gateway by URI", ca.files(t, x509.Certificate{URIs: []*url.URL{uri}}, ca), nil, kms.ErrDenied},
		{"gateway by DNS name", ca.files(t, x509.Certificate{DNSNames: []string{"gw1"}}, ca), nil, kms.ErrDenied},
		{"gateway by unit", ca.files(t, unit, ca), nil, kms.ErrDenied},
		{"admin", ca.files(t, named("admin1"), ca), kms.ErrDenied, nil},
		{"not listed", ca.files(t, named("gw2"), ca), kms.ErrDenied, kms.ErrDenied},
		{"CN is no unit", ca.files(t, named("ou:gateways"), ca), kms.ErrDenied, kms.ErrDenied},
		{"unit is no CN", ca.files(t, named("gateways"), ca), kms.ErrDenied, kms.ErrDenied},
		{"another authority's", stranger.files(t, named("gw1"), ca), kms.ErrUnavailable, kms.ErrUnavailable},
		{"does not trust the server", ca.files(t, named("gw1"), stranger), kms.ErrUnavailable, kms.ErrUnavailable},
	}
	for _, test := range tests {
		c := connected(t, DialConfig{Address: address, TLS: test.files})
		_, gateway := c.Gateway.Renew(t.Context(), &kmsv1.RenewRequest{GatewayId: "gw"})
		_, admin := c.Admin.Status(t.Context(), &kmsv1.StatusRequest{})
		if !is(gateway, test.gateway) || !is(admin, test.admin) {
			t.Errorf("%s: gateway %v, admin %v", test.name, gateway, admin)
		}
	}
}

func is(err, want error) bool {
	if want == nil {
		return err == nil
	}
	_, isWanted := reasonOf(err)
	return isWanted && sentinelWord(err) == sentinelWord(want)
}

func sentinelWord(err error) string { r, _ := reasonOf(err); return r.word }

func TestALeaseOfOneGatewayIsNoOtherGateways(t *testing.T) {
	ca := newAuthority(t)
	w := newWorld(t, func(c *Config) { c.Access = Access{Gateways: []string{"gw1", "gw2"}} })
	address, _ := w.serve(t, ListenConfig{Address: "https://127.0.0.1:0", TLS: ca.files(t, serverTemplate(), ca)})
	first := connected(t, DialConfig{Address: address, TLS: ca.files(t, named("gw1"), ca)})
	second := connected(t, DialConfig{Address: address, TLS: ca.files(t, named("gw2"), ca)})
	_, err := second.Gateway.Current(t.Context(), &kmsv1.CurrentRequest{LeaseId: leaseOf(t, first), Space: "x"})
	wantErr(t, err, kms.ErrLease)
}

func TestNobodyGetsInWithoutACertificate(t *testing.T) {
	ca := newAuthority(t)
	w := newWorld(t, func(c *Config) { c.Access = Access{Gateways: []string{""}, Admins: []string{""}} })
	address, _ := w.serve(t, ListenConfig{Address: "https://127.0.0.1:0", TLS: ca.files(t, serverTemplate(), ca)})
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	if response, err := client.Get(address); err == nil {
		_ = response.Body.Close()
		t.Errorf("got %s, want a failed handshake", response.Status)
	}
	if response, err := http.Get("http" + strings.TrimPrefix(address, "https")); err == nil {
		_ = response.Body.Close()
		if response.StatusCode != http.StatusBadRequest {
			t.Errorf("plain HTTP: got %s", response.Status)
		}
	}
}

func TestCertificatesAreReadAgainWhenTheyChange(t *testing.T) {
	old, young := newAuthority(t), newAuthority(t)
	serverFiles := old.files(t, serverTemplate(), old)
	w := newWorld(t, func(c *Config) { c.Access = Access{Gateways: []string{"gw1"}} })
	address, _ := w.serve(t, ListenConfig{Address: "https://127.0.0.1:0", TLS: serverFiles})
	clientFiles := old.files(t, named("gw1"), old)
	c := connected(t, DialConfig{Address: address, TLS: clientFiles, Logger: zap.NewNop()})
	leaseOf(t, c)

	if err := os.WriteFile(serverFiles.Key, []byte("not a key"), 0o600); err != nil {
		t.Fatal(err)
	}
	c.Close()
	leaseOf(t, c)
	if !strings.Contains(w.logs.String(), "last good ones stay in use") {
		t.Error("nobody was told of the bad file")
	}

	young.write(t, serverFiles, serverTemplate(), young)
	c.Close()
	_, err := c.Gateway.Renew(t.Context(), &kmsv1.RenewRequest{GatewayId: "gw"})
	wantErr(t, err, kms.ErrUnavailable)
	young.write(t, clientFiles, named("gw1"), young)
	leaseOf(t, c)
}

func TestListenNeedsCertificates(t *testing.T) {
	if _, err := Listen(ListenConfig{Address: "https://127.0.0.1:0"}); err == nil {
		t.Error("it listens without certificates")
	}
	if _, err := Dial(DialConfig{Address: "https://127.0.0.1:1"}); err == nil {
		t.Error("it dials without certificates")
	}
}

func TestOnAUnixSocketTheKernelNamesTheCaller(t *testing.T) {
	_, c := local(t, nil)
	made, err := c.Keys.CreateKEK(t.Context(), &kmsv1.CreateKEKRequest{Name: "second", Change: &kmsv1.Change{Reason: "a test"}})
	if err != nil {
		t.Fatal(err)
	}
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range made.GetKek().GetVersions()[0].GetHistory() {
		if e.GetActor() != "unix:"+me.Username || e.GetReason() != "a test" {
			t.Errorf("got %v", e)
		}
	}
	if p := localPeer("", errors.New("who knows")); p.gateway || p.admin {
		t.Errorf("somebody whom nobody can name may call: %v", p)
	}
}
