package server

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

// certificate makes a self-signed pair for 127.0.0.1 with the serial number given.
func certificate(t testing.TB, serial int64) (cert, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
}

// replace puts a file in the place of another as deployment tools do: by rename.
func replace(t testing.TB, name string, content []byte) {
	t.Helper()
	if err := os.WriteFile(name+".new", content, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(name+".new", name); err != nil {
		t.Fatal(err)
	}
}

func pairFiles(t testing.TB, serial int64) *TLS {
	t.Helper()
	dir := t.TempDir()
	files := &TLS{CertFile: filepath.Join(dir, "cert.pem"), KeyFile: filepath.Join(dir, "key.pem")}
	cert, key := certificate(t, serial)
	replace(t, files.CertFile, cert)
	replace(t, files.KeyFile, key)
	return files
}

// serial is the serial number of the certificate that a new connection is shown.
func serial(t *testing.T, s *Server) int64 {
	t.Helper()
	conn, err := tls.Dial("tcp", s.Addr().String(), &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0].SerialNumber.Int64()
}

func TestCertificateIsReloadedAndABrokenOneKeepsTheOld(t *testing.T) {
	core, logs := observer.New(zap.DebugLevel)
	files := pairFiles(t, 1)
	s, _, _ := start(t, Config{TLS: files, Handler: http.HandlerFunc(hello), Logger: zap.New(core)})
	expect := func(want int64, when string) {
		t.Helper()
		if got := serial(t, s); got != want {
			t.Errorf("%s: got certificate %d, want %d", when, got, want)
		}
	}
	expect(1, "at first")

	cert, key := certificate(t, 2)
	replace(t, files.CertFile, cert)
	expect(1, "with the certificate replaced and the key not yet")
	expect(1, "and again")
	if n := logs.FilterLevelExact(zap.ErrorLevel).Len(); n != 1 {
		t.Errorf("got %d error lines, want one for one broken state", n)
	}
	replace(t, files.KeyFile, key)
	expect(2, "with both replaced")

	replace(t, files.CertFile, []byte("not PEM"))
	expect(2, "with a certificate that is none")
	if err := os.Remove(files.KeyFile); err != nil {
		t.Fatal(err)
	}
	expect(2, "with the key gone")
}

func TestBadCertificateAtStartIsAnError(t *testing.T) {
	files := pairFiles(t, 1)
	replace(t, files.KeyFile, []byte("not PEM"))
	_, err := New(t.Context(), Config{Address: "127.0.0.1:0", TLS: files})
	if err == nil || !strings.Contains(err.Error(), files.KeyFile) {
		t.Errorf("got %v, want an error that names %q", err, files.KeyFile)
	}
}

func TestOldTLSVersionsAreRefused(t *testing.T) {
	s, _, _ := start(t, Config{TLS: pairFiles(t, 1), Handler: http.HandlerFunc(hello)})
	_, err := tls.Dial("tcp", s.Addr().String(), &tls.Config{
		InsecureSkipVerify: true, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11,
	})
	if err == nil {
		t.Error("TLS 1.1 was accepted")
	}
}

func TestOnlyHTTP1IsNegotiated(t *testing.T) {
	s, _, _ := start(t, Config{TLS: pairFiles(t, 1), Handler: http.HandlerFunc(hello)})
	conn, err := tls.Dial("tcp", s.Addr().String(), &tls.Config{
		InsecureSkipVerify: true, NextProtos: []string{"h2", "http/1.1"},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if got := conn.ConnectionState().NegotiatedProtocol; got != "http/1.1" {
		t.Errorf("got %q", got)
	}
}
