package transit_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"chatelaine/kms"
	"chatelaine/kms/transit"
	"chatelaine/test/servers"
)

// policyText is the least that the provider needs, as README.md gives it.
const policyText = `
path "transit/keys/*"    { capabilities = ["create", "read", "update", "delete"] }
path "transit/encrypt/*" { capabilities = ["update"] }
path "transit/decrypt/*" { capabilities = ["update"] }
path "transit/random/*"  { capabilities = ["update"] }
`

func givePolicy(t *testing.T, v *servers.Vault, text string) {
	t.Helper()
	v.Do(t, http.MethodPost, "sys/policies/acl/chatelaine", map[string]any{"policy": text})
}

// approle makes a role and a login with it.
func approle(t *testing.T, v *servers.Vault, role map[string]any) transit.Auth {
	t.Helper()
	givePolicy(t, v, policyText)
	v.Do(t, http.MethodPost, "sys/auth/approle", map[string]any{"type": "approle"})
	role["token_policies"] = "chatelaine"
	v.Do(t, http.MethodPost, "auth/approle/role/kms", role)
	id := v.Do(t, http.MethodGet, "auth/approle/role/kms/role-id", nil)["role_id"].(string)
	secret := v.Do(t, http.MethodPost, "auth/approle/role/kms/secret-id", nil)["secret_id"].(string)
	return transit.Auth{AppRole: &transit.AppRole{RoleID: id, SecretID: func() (string, error) { return secret, nil }}}
}

// roundTrip makes each call that the policy must allow.
func roundTrip(t *testing.T, p *transit.Provider) {
	t.Helper()
	create(t, p, ref)
	if got, err := p.Unwrap(t.Context(), ref, binding, wrap(t, p)); err != nil || string(got) != "secret" {
		t.Errorf("unwrapping: got %q, %v", got, err)
	}
	if _, err := p.Random(t.Context(), 32); err != nil {
		t.Error(err)
	}
	if err := p.Destroy(t.Context(), ref); err != nil {
		t.Error(err)
	}
	if err := p.Destroy(t.Context(), ref); !errors.Is(err, kms.ErrNotFound) {
		t.Errorf("destroying it again: got %v, want ErrNotFound", err)
	}
}

func TestAppRoleLogsIn(t *testing.T) {
	v := servers.StartVault(t, servers.VaultOptions{})
	p := open(t, transit.Config{Address: v.Address, Auth: approle(t, v, map[string]any{})})
	roundTrip(t, p)
	wrong := approleWith(t, v, "00000000-0000-0000-0000-000000000000")
	if _, err := transit.New(t.Context(), transit.Config{Address: v.Address, Auth: wrong}); !errors.Is(err, kms.ErrDenied) {
		t.Errorf("another secret id: got %v, want ErrDenied", err)
	} else if strings.Contains(err.Error(), "00000000-") {
		t.Errorf("the error shows the secret id: %v", err)
	}
}

func approleWith(t *testing.T, v *servers.Vault, secret string) transit.Auth {
	t.Helper()
	id := v.Do(t, http.MethodGet, "auth/approle/role/kms/role-id", nil)["role_id"].(string)
	return transit.Auth{AppRole: &transit.AppRole{RoleID: id, SecretID: func() (string, error) { return secret, nil }}}
}

// The Kubernetes that Vault asks about the pod's token is a few lines here.
func TestKubernetesLogsIn(t *testing.T) {
	cluster := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var review struct {
			Spec struct{ Token string } `json:"spec"`
		}
		_ = json.NewDecoder(r.Body).Decode(&review)
		status := map[string]any{"authenticated": false, "error": "unknown token"}
		if strings.HasSuffix(review.Spec.Token, "."+encoded("genuine")) {
			status = map[string]any{"authenticated": true, "user": map[string]any{"username": "system:serviceaccount:chatelaine:kms", "uid": "u-1"}}
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusCreated)
		_ = json.NewEncoder(w).Encode(map[string]any{"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "status": status})
	}))
	defer cluster.Close()
	v := servers.StartVault(t, servers.VaultOptions{})
	givePolicy(t, v, policyText)
	v.Do(t, http.MethodPost, "sys/auth/cluster-a", map[string]any{"type": "kubernetes"})
	v.Do(t, http.MethodPost, "auth/cluster-a/config", map[string]any{
		"kubernetes_host": cluster.URL, "token_reviewer_jwt": "r.e.v", "disable_local_ca_jwt": true,
	})
	v.Do(t, http.MethodPost, "auth/cluster-a/role/kms", map[string]any{
		"bound_service_account_names": "kms", "bound_service_account_namespaces": "chatelaine",
		"token_policies": "chatelaine", "alias_name_source": "serviceaccount_name",
	})
	file := filepath.Join(t.TempDir(), "token")
	login := transit.Auth{Kubernetes: &transit.Kubernetes{Mount: "cluster-a", Role: "kms", TokenFile: file}}
	claims := `{"sub":"system:serviceaccount:chatelaine:kms","iss":"kubernetes/serviceaccount","kubernetes.io":{"namespace":"chatelaine","serviceaccount":{"name":"kms","uid":"u-1"}}}`
	write(t, file, jwt(claims, "genuine"))
	roundTrip(t, open(t, transit.Config{Address: v.Address, Auth: login}))
	write(t, file, jwt(claims, "forged"))
	if _, err := transit.New(t.Context(), transit.Config{Address: v.Address, Auth: login}); !errors.Is(err, kms.ErrDenied) {
		t.Errorf("a forged token: got %v, want ErrDenied", err)
	}
}

func TestCertificateLogsIn(t *testing.T) {
	dir := t.TempDir()
	authority := newAuthority(t, dir)
	server := authority.issue(t, dir, "server")
	client := authority.issue(t, dir, "kms")
	other := newAuthority(t, t.TempDir()).issue(t, dir, "stranger")
	roots := x509.NewCertPool()
	roots.AddCert(authority.cert)
	v := servers.StartVault(t, servers.VaultOptions{
		CertFile: server.CertFile, KeyFile: server.KeyFile,
		Client: &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}},
	})
	givePolicy(t, v, policyText)
	v.Do(t, http.MethodPost, "sys/auth/cert", map[string]any{"type": "cert"})
	text, err := os.ReadFile(authority.file)
	if err != nil {
		t.Fatal(err)
	}
	v.Do(t, http.MethodPost, "auth/cert/certs/kms", map[string]any{
		"certificate": string(text), "allowed_common_names": "kms", "token_policies": "chatelaine",
	})
	cfg := transit.Config{Address: v.Address, CAFile: authority.file, Auth: transit.Auth{Certificate: &client}}
	roundTrip(t, open(t, cfg))
	cfg.Auth.Certificate = &other
	if _, err := transit.New(t.Context(), cfg); !errors.Is(err, kms.ErrDenied) {
		t.Errorf("another's certificate: got %v, want ErrDenied", err)
	}
	cfg.Auth.Certificate, cfg.CAFile = &client, ""
	if _, err := transit.New(t.Context(), cfg); !errors.Is(err, kms.ErrUnavailable) {
		t.Errorf("a server of an unknown authority: got %v, want ErrUnavailable", err)
	}
}

// counting passes calls on to Vault, and counts logins, renewals and lookups.
type counting struct {
	*httptest.Server
	logins, renewals, lookups atomic.Int64
	namespaces                atomic.Value
}

func newCounting(t *testing.T, v *servers.Vault) *counting {
	t.Helper()
	c := &counting{}
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasSuffix(r.URL.Path, "/login"):
			c.logins.Add(1)
		case strings.HasSuffix(r.URL.Path, "/renew-self"):
			c.renewals.Add(1)
		case strings.HasSuffix(r.URL.Path, "/lookup-self"):
			c.lookups.Add(1)
		}
		c.namespaces.Store(r.Header.Get("X-Vault-Namespace"))
		c.pass(w, r, v.Address)
	}))
	t.Cleanup(c.Close)
	return c
}

func (c *counting) pass(w http.ResponseWriter, r *http.Request, to string) {
	body, _ := io.ReadAll(r.Body)
	req, _ := http.NewRequestWithContext(r.Context(), r.Method, to+r.URL.Path, bytes.NewReader(body))
	req.Header = r.Header.Clone()
	req.Header.Del("X-Vault-Namespace") // this Vault has none
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	defer resp.Body.Close()
	w.WriteHeader(resp.StatusCode)
	_, _ = io.Copy(w, resp.Body)
}

// revokeAll revokes every token that the role has obtained.
func revokeAll(t *testing.T, v *servers.Vault) {
	t.Helper()
	v.Do(t, http.MethodPut, "sys/leases/revoke-prefix/auth/approle/login", nil)
}

// A token that is revoked under load is replaced at once, by one login; one that is
// revoked again and again is not replaced again and again.
func TestRevokedTokenIsReplacedWithoutAStorm(t *testing.T) {
	t.Parallel()
	v := servers.StartVault(t, servers.VaultOptions{})
	c := newCounting(t, v)
	p := open(t, transit.Config{Address: c.URL, Auth: approle(t, v, map[string]any{})})
	create(t, p, ref)
	form := wrap(t, p)
	ctx, cancel := context.WithTimeout(t.Context(), 7*time.Second)
	defer cancel()
	before := c.logins.Load()
	var good, bad atomic.Int64
	done := make(chan struct{})
	for range 32 {
		go func() {
			defer func() { done <- struct{}{} }()
			for ctx.Err() == nil {
				_, err := p.Unwrap(ctx, ref, binding, form)
				switch {
				case err == nil:
					good.Add(1)
				case ctx.Err() != nil:
				case errors.Is(err, kms.ErrUnavailable), errors.Is(err, kms.ErrDenied):
					bad.Add(1)
				default:
					t.Errorf("got %v", err)
				}
				time.Sleep(5 * time.Millisecond)
			}
		}()
	}
	for _, at := range []time.Duration{0, 200 * time.Millisecond, 3 * time.Second} {
		time.Sleep(at)
		revokeAll(t, v)
	}
	for range 32 {
		<-done
	}
	if n := c.logins.Load() - before; n < 1 || n > 3 {
		t.Errorf("%d logins in 7 s, want 1 to 3", n)
	}
	t.Logf("%d calls worked, %d did not; %d logins, %d lookups", good.Load(), bad.Load(), c.logins.Load()-before, c.lookups.Load())
	if got, err := p.Unwrap(t.Context(), ref, binding, form); err != nil || string(got) != "secret" {
		t.Errorf("at the end: got %q, %v", got, err)
	}
}

// A policy that forbids is no reason to log in.
func TestForbiddenKeyIsDeniedWithoutLogins(t *testing.T) {
	t.Parallel()
	v := servers.StartVault(t, servers.VaultOptions{})
	c := newCounting(t, v)
	p := open(t, transit.Config{Address: c.URL, Auth: approle(t, v, map[string]any{})})
	create(t, p, ref)
	form := wrap(t, p)
	givePolicy(t, v, strings.Replace(policyText, "decrypt", "nothing", 1))
	before := c.logins.Load()
	for range 50 {
		if _, err := p.Unwrap(t.Context(), ref, binding, form); !errors.Is(err, kms.ErrDenied) {
			t.Fatalf("got %v, want ErrDenied", err)
		}
	}
	if n, asked := c.logins.Load()-before, c.lookups.Load(); n != 0 || asked > 5 {
		t.Errorf("%d logins and %d lookups, want none and a few", n, asked)
	}
	wrap(t, p) // what is allowed works
	givePolicy(t, v, policyText)
	if _, err := p.Unwrap(t.Context(), ref, binding, form); err != nil {
		t.Errorf("allowed again: %v", err)
	}
}

func TestTokenIsRenewedAndReplacedInTime(t *testing.T) {
	t.Parallel()
	v := servers.StartVault(t, servers.VaultOptions{})
	c := newCounting(t, v)
	// It lives 3 s, and 8 s at the most: it is renewed, then replaced.
	p := open(t, transit.Config{Address: c.URL, Auth: approle(t, v, map[string]any{"token_ttl": "3s", "token_max_ttl": "8s"})})
	create(t, p, ref)
	form := wrap(t, p)
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if _, err := p.Unwrap(t.Context(), ref, binding, form); err != nil {
			t.Fatalf("%v before the end: %v", time.Until(end), err)
		}
	}
	if n, logins := c.renewals.Load(), c.logins.Load(); n < 2 || n > 10 || logins < 2 || logins > 4 {
		t.Errorf("%d renewals and %d logins in 10 s, want a few", n, logins)
	}
}

func TestGivenTokenIsReadAnewWhenRefused(t *testing.T) {
	t.Parallel()
	v := servers.StartVault(t, servers.VaultOptions{})
	givePolicy(t, v, policyText)
	issue := func() string {
		return v.Do(t, http.MethodPost, "auth/token/create", map[string]any{"policies": []string{"chatelaine"}, "ttl": "1h"})["client_token"].(string)
	}
	var given atomic.Value
	given.Store(issue())
	p := open(t, transit.Config{Address: v.Address, Auth: transit.Auth{Token: &transit.Token{Read: func() (string, error) { return given.Load().(string), nil }}}})
	create(t, p, ref)
	old := given.Load().(string)
	given.Store(issue())
	v.Do(t, http.MethodPost, "auth/token/revoke", map[string]any{"token": old})
	wrap(t, p)
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	// It was given to us: it is not ours to revoke.
	v.Do(t, http.MethodPost, "auth/token/lookup", map[string]any{"token": given.Load().(string)})
}

func TestRevokedTokenThatIsAllThereIsIsUnavailable(t *testing.T) {
	t.Parallel()
	v := servers.StartVault(t, servers.VaultOptions{})
	givePolicy(t, v, policyText)
	text := v.Do(t, http.MethodPost, "auth/token/create", map[string]any{"policies": []string{"chatelaine"}})["client_token"].(string)
	p := open(t, transit.Config{Address: v.Address, Auth: token(text)})
	create(t, p, ref)
	v.Do(t, http.MethodPost, "auth/token/revoke", map[string]any{"token": text})
	for range 3 {
		_, err := p.Wrap(t.Context(), ref, binding, []byte("secret"))
		if !errors.Is(err, kms.ErrUnavailable) || errors.Is(err, kms.ErrDenied) {
			t.Errorf("got %v, want ErrUnavailable", err)
		}
		if strings.Contains(err.Error(), text) {
			t.Errorf("the error shows the token: %v", err)
		}
	}
}

func TestOwnTokenIsGivenBack(t *testing.T) {
	v := servers.StartVault(t, servers.VaultOptions{})
	p := open(t, transit.Config{Address: v.Address, Auth: approle(t, v, map[string]any{})})
	tokens := func() int {
		list, _ := v.Do(t, "LIST", "auth/token/accessors", nil)["keys"].([]any)
		return len(list)
	}
	before := tokens()
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if after := tokens(); after != before-1 {
		t.Errorf("%d tokens, and after Close %d, want one less", before, after)
	}
}

func TestNamespaceIsNamedInEachCall(t *testing.T) {
	v := servers.StartVault(t, servers.VaultOptions{})
	c := newCounting(t, v)
	t.Setenv("VAULT_NAMESPACE", "of/the/environment")
	t.Setenv("VAULT_TOKEN", "of the environment")
	for _, want := range []string{"team/a", ""} {
		p := open(t, transit.Config{Address: c.URL, Namespace: want, Auth: token(v.Token)})
		if err := p.Check(t.Context()); err != nil || c.namespaces.Load() != want {
			t.Errorf("got %q, %v, want %q", c.namespaces.Load(), err, want)
		}
	}
}

func TestAnswersBecomeTheContractsErrors(t *testing.T) {
	var status atomic.Int64
	var body atomic.Value
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "lookup-self") {
			_, _ = io.WriteString(w, `{"data":{"ttl":0,"renewable":false}}`)
			return
		}
		w.WriteHeader(int(status.Load()))
		_, _ = io.WriteString(w, body.Load().(string))
	}))
	defer s.Close()
	p := open(t, transit.Config{Address: s.URL, Auth: token("t"), Deadline: time.Second})
	form := append([]byte{0x21}, make([]byte, 80)...)
	for name, tt := range map[string]struct {
		status int
		body   string
		want   error
	}{
		"sealed":          {503, `{"errors":["Vault is sealed"]}`, kms.ErrUnavailable},
		"standby":         {473, `{"errors":[]}`, kms.ErrUnavailable},
		"too many":        {429, `{"errors":["request path: rate limit quota exceeded"]}`, kms.ErrUnavailable},
		"internal":        {500, `{"errors":["internal error"]}`, kms.ErrUnavailable},
		"no engine":       {404, `{"errors":["no handler for route"]}`, kms.ErrUnavailable},
		"a proxy's page":  {502, `<html>bad gateway</html>`, kms.ErrUnavailable},
		"no JSON":         {200, `<html>hello</html>`, kms.ErrUnavailable},
		"nothing":         {200, ``, kms.ErrUnavailable},
		"policy":          {403, `{"errors":["permission denied"]}`, kms.ErrDenied},
		"no key":          {400, `{"errors":["encryption key not found"]}`, kms.ErrNotFound},
		"forged":          {400, `{"errors":["cipher: message authentication failed"]}`, kms.ErrCorrupt},
		"shut off":        {400, `{"errors":["ciphertext or signature version is disallowed by policy (too old)"]}`, kms.ErrDisabled},
		"something new":   {400, `{"errors":["we have never heard of this"]}`, kms.ErrUnavailable},
		"no base64":       {200, `{"data":{"plaintext":"?"}}`, kms.ErrUnavailable},
		"another's bytes": {200, `{"data":{"plaintext":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=="}}`, kms.ErrCorrupt},
	} {
		status.Store(int64(tt.status))
		body.Store(tt.body)
		got, err := p.Unwrap(t.Context(), ref, binding, form)
		if !errors.Is(err, tt.want) || got != nil {
			t.Errorf("%s: got %q, %v, want %v", name, got, err, tt.want)
		}
	}
}

func TestVaultThatDoesNotAnswerIsUnavailableAtTheDeadline(t *testing.T) {
	hang := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "lookup-self") {
			_, _ = io.WriteString(w, `{"data":{"ttl":0,"renewable":false}}`)
			return
		}
		<-hang
	}))
	defer s.Close()
	defer close(hang)
	p := open(t, transit.Config{Address: s.URL, Auth: token("t"), Deadline: 200 * time.Millisecond})
	began := time.Now()
	if err := p.Check(t.Context()); !errors.Is(err, kms.ErrUnavailable) || time.Since(began) > 5*time.Second {
		t.Errorf("got %v after %v, want ErrUnavailable after 200ms", err, time.Since(began))
	}
}

// authority issues certificates for 127.0.0.1.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	file string
}

func newAuthority(t *testing.T, dir string) authority {
	t.Helper()
	key, cert, der := certify(t, &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign,
	}, nil)
	a := authority{cert: cert, key: key, file: filepath.Join(dir, "ca.pem")}
	write(t, a.file, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	return a
}

func (a authority) issue(t *testing.T, dir, name string) transit.Certificate {
	t.Helper()
	key, _, der := certify(t, &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, &a)
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	c := transit.Certificate{CertFile: filepath.Join(dir, name+".pem"), KeyFile: filepath.Join(dir, name+".key")}
	write(t, c.CertFile, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	write(t, c.KeyFile, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})))
	return c
}

// certify signs a certificate, by itself without an authority.
func certify(t *testing.T, c *x509.Certificate, by *authority) (*ecdsa.PrivateKey, *x509.Certificate, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, signer := c, key
	if by != nil {
		parent, signer = by.cert, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return key, cert, der
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// jwt is a token of that form; who signed it is what Vault asks the cluster.
func jwt(claims, signature string) string {
	return encoded(`{"alg":"RS256"}`) + "." + encoded(claims) + "." + encoded(signature)
}

func encoded(part string) string { return base64.RawURLEncoding.EncodeToString([]byte(part)) }
