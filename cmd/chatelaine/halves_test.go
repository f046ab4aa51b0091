package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"chatelaine/kms/service"
	"chatelaine/kms/service/kmsv1"
)

// authority signs certificates into a folder as NAME.crt and NAME.key, with itself
// as ca.crt.
type authority struct {
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{dir: t.TempDir()}
	a.cert, a.key = a.write(t, "ca", &x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	return a
}

func (a *authority) issue(t *testing.T, name string) {
	t.Helper()
	a.write(t, name, &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	})
}

func (a *authority) write(t *testing.T, name string, template *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for suffix, block := range map[string]*pem.Block{
		".crt": {Type: "CERTIFICATE", Bytes: der}, ".key": {Type: "PRIVATE KEY", Bytes: private},
	} {
		if err := os.WriteFile(filepath.Join(a.dir, name+suffix), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}

// yaml is the tls section of whoever has the certificate.
func (a *authority) yaml(name string) string {
	return fmt.Sprintf("{cert_file: %s/%s.crt, key_file: %s/%s.key, ca_file: %s/ca.crt}", a.dir, name, a.dir, name, a.dir)
}

func (a *authority) files(name string) service.TLSFiles {
	return service.TLSFiles{Cert: a.dir + "/" + name + ".crt", Key: a.dir + "/" + name + ".key", CA: a.dir + "/ca.crt"}
}

func writeFile(t *testing.T, name, text string) string {
	t.Helper()
	name = filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestHalvesRunApartOverMutualTLS(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	for _, name := range []string{"kms", "gateway", "admin"} {
		a.issue(t, name)
	}
	dir, kmsAddress, kmsAdmin, s3, admin := t.TempDir(), adminAddress(t), adminAddress(t), adminAddress(t), adminAddress(t)
	kms := start(t, nil, "kms", "--config", writeFile(t, "kms.yaml", fmt.Sprintf(
		"listen: https://%s\ntls: %s\ngateways: [gateway]\nadmins: [admin]\nadmin_listen: %s\nstate: {dir: %s/state}\nprovider: {softkey: {dir: %s/keys}}\n",
		kmsAddress, a.yaml("kms"), kmsAdmin, dir, dir)))
	eventually(t, "the KMS", func() bool { return get("http://"+kmsAdmin+"/readyz") == 200 })

	gateway := start(t, nil, "gateway", "--config", writeFile(t, "gateway.yaml", fmt.Sprintf(
		"listen: %s\nadmin_listen: %s\nkms: {address: 'https://%s', tls: %s}\nbackends: {main: {url: 'file://%s/cloud'}}\naccess_log: {file: %s/access}\n",
		s3, admin, kmsAddress, a.yaml("gateway"), dir, dir)))
	eventually(t, "the gateway", func() bool { return get("http://"+admin+"/readyz") == 200 })
	if got := get("http://" + s3); got != 403 {
		t.Errorf("an anonymous request got %d, want 403", got)
	}
	administer(t, a, kmsAddress)
	if got := get("http://" + kmsAdmin + "/metrics"); got != 200 {
		t.Errorf("/metrics of the KMS: got %d", got)
	}
	for _, p := range []*program{gateway, kms} {
		if code := p.stop(t, syscall.SIGTERM); code != 0 {
			t.Errorf("got %d: %s", code, p.err.String())
		}
	}
}

// administer shows that an administrator may what a gateway may not.
func administer(t *testing.T, a *authority, address string) {
	t.Helper()
	for name, allowed := range map[string]bool{"admin": true, "gateway": false} {
		clients, err := service.Dial(service.DialConfig{Address: "https://" + address, TLS: a.files(name)})
		if err != nil {
			t.Fatal(err)
		}
		_, err = clients.Admin.CreateAccessKey(t.Context(), &kmsv1.CreateAccessKeyRequest{Principal: "somebody"})
		if (err == nil) != allowed {
			t.Errorf("%s: got %v", name, err)
		}
		clients.Close()
	}
}

func TestGatewayStartsWithoutItsKMS(t *testing.T) {
	t.Parallel()
	dir, s3, admin := t.TempDir(), adminAddress(t), adminAddress(t)
	gateway := start(t, nil, "gateway", "--config", writeFile(t, "gateway.yaml", fmt.Sprintf(
		"listen: %s\nadmin_listen: %s\nkms: {address: 'unix://%s/none.sock'}\nbackends: {main: {url: 'file://%s/cloud'}}\naccess_log: {file: %s/access}\n",
		s3, admin, dir, dir, dir)))
	eventually(t, "life", func() bool { return get("http://"+admin+"/healthz") == 200 })
	if got := get("http://" + admin + "/readyz"); got != 503 {
		t.Errorf("/readyz: got %d, want 503", got)
	}
	if code := gateway.stop(t, syscall.SIGTERM); code != 0 {
		t.Errorf("got %d: %s", code, gateway.err.String())
	}
}

func TestUnitsStartWhatThereIs(t *testing.T) {
	t.Parallel()
	units, err := filepath.Glob("../../deploy/systemd/*.service")
	if err != nil || len(units) != 2 {
		t.Fatalf("got %q, %v", units, err)
	}
	for _, unit := range units {
		text, err := os.ReadFile(unit)
		if err != nil {
			t.Fatal(err)
		}
		_, command, _ := strings.Cut(string(text), "\nExecStart=/usr/bin/chatelaine ")
		command, _, _ = strings.Cut(command, "\n")
		args := strings.Fields(command)
		if len(args) != 3 || !slices.Contains([]string{"gateway", "kms"}, args[0]) {
			t.Fatalf("%s starts %q", unit, args)
		}
		args[2] = filepath.Join(t.TempDir(), "none.yaml")
		p := start(t, nil, args...)
		if code := p.end(t); code != exitConfig || !strings.Contains(p.err.String(), "none.yaml") {
			t.Errorf("%s: got %d and %q", unit, code, p.err.String())
		}
		if !strings.Contains(string(text), fmt.Sprintf("\nRestartPreventExitStatus=%d\n", exitConfig)) {
			t.Errorf("%s starts it again after %d, a wrong configuration", unit, exitConfig)
		}
	}
}
