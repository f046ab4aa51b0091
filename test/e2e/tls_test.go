package e2e

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"chatelaine/test/e2e/harness"
)

// certificate is a self-made one for loopback, as files.
type certificate struct {
	cert, key string
	leaf      *x509.Certificate
}

func newCertificate(t *testing.T, dir string, serial int64) certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "end to end"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	c := certificate{filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"), leaf}
	replace(t, c.cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	replace(t, c.key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}))
	return c
}

// replace puts a file in place whole.
func replace(t *testing.T, name string, text []byte) {
	t.Helper()
	if err := os.WriteFile(name+".new", text, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(name+".new", name); err != nil {
		t.Fatal(err)
	}
}

func (c certificate) client() *http.Client {
	pool := x509.NewCertPool()
	pool.AddCert(c.leaf)
	return &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}
}

// newSecureWorld is the product on HTTPS.
func newSecureWorld(t *testing.T) (*world, certificate) {
	t.Helper()
	c := newCertificate(t, t.TempDir(), 1)
	config := writeConfig(t, "tls:\n  cert_file: "+c.cert+"\n  key_file: "+c.key+"\n")
	return newWorld(t, cloud{}, func(o *harness.Options) { o.Config, o.TLS = config, true }), c
}

// TestHTTPSClientsSendTrailers has clients send what they send over HTTPS alone:
// bodies in chunks without signatures, with the checksum behind them.
func TestHTTPSClientsSendTrailers(t *testing.T) {
	w, c := newSecureWorld(t)
	secure := rawClient(w.Endpoint, w.User)
	secure.HTTP = c.client()
	bucket := newName()
	send(t, secure, harness.Request{Method: http.MethodPut, Path: "/" + bucket}).want(200)
	body := contentBytes(3, 3<<20+17)

	t.Run("aws-sdk-go", func(t *testing.T) {
		var sent string
		_, err := sdkClient(w.Endpoint, w.User, c.client()).PutObject(t.Context(), &s3.PutObjectInput{
			Bucket: &bucket, Key: aws.String("go"), Body: io.LimitReader(strings.NewReader(string(body)), int64(len(body))), ContentLength: aws.Int64(int64(len(body))),
		}, s3.WithAPIOptions(noteSigning(&sent)))
		if err != nil {
			t.Fatal(err)
		}
		wantTrailer(t, sent)
		wantBody(t, send(t, secure, harness.Request{Method: http.MethodGet, Path: "/" + bucket + "/go"}).want(200), body)
	})
	for _, b := range newerClients() {
		if b.name != "newer boto3" {
			continue
		}
		t.Run(b.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "body")
			replace(t, file, body)
			python := b.make(t, w).(boto)
			python.env = append(python.env, "AWS_CA_BUNDLE="+c.cert)
			wantTrailer(t, strings.TrimSpace(python.run(t, "sent", file, bucket, "python")))
			wantBody(t, send(t, secure, harness.Request{Method: http.MethodGet, Path: "/" + bucket + "/python"}).want(200), body)
		})
	}
	w.assertSealed()
	w.assertDiscreet()
}

func wantTrailer(t *testing.T, sent string) {
	t.Helper()
	if sent != "STREAMING-UNSIGNED-PAYLOAD-TRAILER" {
		t.Errorf("got a body signed as %q: this does not test trailers", sent)
	}
}

func wantBody(t *testing.T, a *answer, want []byte) {
	t.Helper()
	if string(a.body) != string(want) {
		t.Errorf("got %d other bytes, want %d", len(a.body), len(want))
	}
}

// noteSigning keeps how a request's body is signed.
func noteSigning(sent *string) func(*middleware.Stack) error {
	return func(stack *middleware.Stack) error {
		return stack.Finalize.Add(middleware.FinalizeMiddlewareFunc("note", func(
			ctx context.Context, in middleware.FinalizeInput, next middleware.FinalizeHandler,
		) (middleware.FinalizeOutput, middleware.Metadata, error) {
			if r, ok := in.Request.(*smithyhttp.Request); ok {
				*sent = r.Header.Get("X-Amz-Content-Sha256")
			}
			return next.HandleFinalize(ctx, in)
		}), middleware.After)
	}
}

func TestACertificateThatChangesIsServed(t *testing.T) {
	w, old := newSecureWorld(t)
	serial := func(c certificate) int64 {
		t.Helper()
		resp, err := c.client().Get(w.Endpoint + "/")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		return resp.TLS.PeerCertificates[0].SerialNumber.Int64()
	}
	if got := serial(old); got != 1 {
		t.Errorf("got certificate %d, want 1", got)
	}
	replace(t, old.cert, []byte("no certificate"))
	if got := serial(old); got != 1 {
		t.Errorf("with a broken file: got certificate %d, want the old one", got)
	}
	fresh := newCertificate(t, filepath.Dir(old.cert), 2)
	if got := serial(fresh); got != 2 {
		t.Errorf("got certificate %d, want 2", got)
	}
}

func TestPlainHTTPIsNotServedOnTheTLSPort(t *testing.T) {
	w, _ := newSecureWorld(t)
	resp, err := http.Get(strings.Replace(w.Endpoint, "https", "http", 1))
	if err == nil {
		defer resp.Body.Close()
		if resp.StatusCode == 200 {
			t.Errorf("got %s", resp.Status)
		}
	}
}
