package frontdoor

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"chatelaine/gateway/server"
)

// TestClientsThatTrickleOverTLSAreCut does to a TLS port what can be done before there is
// a request: a handshake by the byte, or half of one, and a header by the byte behind it.
func TestClientsThatTrickleOverTLSAreCut(t *testing.T) {
	const every, longest = 40 * time.Millisecond, 25 * time.Second
	o := plan(&record{})
	o.server.ReadHeader, o.server.TLS = 2*time.Second, certificate(t)
	s, err := listen(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx) }()
	t.Cleanup(func() {
		_ = s.Close()
		cancel()
		<-done
	})
	hello := clientHello(t)
	for _, tt := range []struct {
		name        string
		shaken      bool
		begin, drip string
	}{
		{"nothing", false, "", ""},
		{"a hello", false, "", hello},
		{"a hello and nothing", false, hello, ""},
		{"half of a hello", false, hello[:len(hello)/2], ""},
		{"behind a hello", false, hello, "\x16"},
		{"the first line", true, "", "GET /kkkkkkkk"},
		{"headers", true, "GET / HTTP/1.1\r\n", "a: b\r\n"},
		{"nothing behind a handshake", true, "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			conn := (&world{t: t, addr: s.Addr().String()}).dial()
			if tt.shaken {
				conn = tls.Client(conn, &tls.Config{InsecureSkipVerify: true}) // whose it is does not matter
			}
			_, _ = io.WriteString(conn, tt.begin)
			if tt.drip != "" {
				if took := drip(conn, tt.drip, every, longest); took >= longest {
					t.Errorf("a client that sends a byte every %v was still waited for after %v", every, took)
				}
				return
			}
			_ = conn.SetDeadline(time.Now().Add(longest))
			if _, err := io.Copy(io.Discard, conn); os.IsTimeout(err) {
				t.Errorf("a client that says nothing more was still waited for after %v", longest)
			}
		})
	}
}

// clientHello is the first that a client of TLS says.
func clientHello(t *testing.T) string {
	t.Helper()
	near, far := net.Pipe()
	defer near.Close()
	go func() { _ = tls.Client(far, &tls.Config{ServerName: "gateway.test"}).HandshakeContext(t.Context()) }()
	hello := make([]byte, 16<<10)
	n, err := near.Read(hello)
	if err != nil {
		t.Fatal(err)
	}
	return string(hello[:n])
}

// certificate is one that nobody has signed.
func certificate(t *testing.T) *server.TLS {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"gateway.test"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	files := &server.TLS{CertFile: filepath.Join(t.TempDir(), "cert.pem"), KeyFile: filepath.Join(t.TempDir(), "key.pem")}
	for name, block := range map[string]*pem.Block{files.CertFile: {Type: "CERTIFICATE", Bytes: der}, files.KeyFile: {Type: "PRIVATE KEY", Bytes: secret}} {
		if err := os.WriteFile(name, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return files
}
