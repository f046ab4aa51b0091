package transit

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/hashicorp/vault/api"

	"chatelaine/kms"
)

// Auth is how to log in: exactly one of its parts is given. Secrets are functions and
// files, read anew for each login, as whoever issues them replaces them.
type Auth struct {
	Token       *Token
	AppRole     *AppRole
	Kubernetes  *Kubernetes
	Certificate *Certificate
}

// Token is a token that somebody else obtained, such as Vault Agent. It is renewed as
// long as Vault lets it be, and read anew when it is refused. It needs the policy
// "default", as all tokens do here: without it Vault does not tell how long it lives.
type Token struct{ Read func() (string, error) }

// AppRole is the auth method of that name.
type AppRole struct {
	Mount    string // empty: "approle"
	RoleID   string
	SecretID func() (string, error)
}

// Kubernetes logs in with the token of the pod's service account.
type Kubernetes struct {
	Mount string // empty: "kubernetes"
	Role  string
	// TokenFile is empty for /var/run/secrets/kubernetes.io/serviceaccount/token.
	TokenFile string
}

// Certificate logs in with a TLS client certificate, in PEM.
type Certificate struct {
	Mount    string // empty: "cert"
	Role     string // empty: Vault finds the one that the certificate fits
	CertFile string
	KeyFile  string
}

func (a Auth) validate() error {
	given := 0
	var problems []error
	want := func(ok bool, what string) {
		if !ok {
			problems = append(problems, errors.New(what))
		}
	}
	if a.Token != nil {
		given++
		want(a.Token.Read != nil, "a token is missing")
	}
	if a.AppRole != nil {
		given++
		want(a.AppRole.RoleID != "" && a.AppRole.SecretID != nil, "AppRole wants a role id and a secret id")
	}
	if a.Kubernetes != nil {
		given++
		want(a.Kubernetes.Role != "", "Kubernetes wants a role")
	}
	if a.Certificate != nil {
		given++
		want(a.Certificate.CertFile != "" && a.Certificate.KeyFile != "", "a client certificate wants a certificate and a key")
	}
	want(given == 1, "want exactly one way to log in")
	return errors.Join(problems...)
}

// ours says whether tokens are made for us, so that we may revoke them.
func (a Auth) ours() bool { return a.Token == nil }

// login obtains a token. client makes a client with a token, or with none.
func (a Auth) login(ctx context.Context, client func(token string) (*api.Client, error)) (*api.SecretAuth, error) {
	if a.Token != nil {
		return a.Token.login(ctx, client)
	}
	c, err := client("")
	if err != nil {
		return nil, fmt.Errorf("%w: %w", kms.ErrInvalid, err)
	}
	mount, body, err := a.request()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", kms.ErrUnavailable, err)
	}
	answer, err := c.Logical().WriteWithContext(ctx, "auth/"+mount+"/login", body)
	if err != nil {
		return nil, translateLogin(err)
	}
	if answer == nil || answer.Auth == nil || answer.Auth.ClientToken == "" {
		return nil, fmt.Errorf("%w: Vault answered the login without a token", kms.ErrUnavailable)
	}
	return answer.Auth, nil
}

// request is the mount and the body of a login.
func (a Auth) request() (string, map[string]any, error) {
	switch {
	case a.AppRole != nil:
		secret, err := a.AppRole.SecretID()
		return mountOf(a.AppRole.Mount, "approle"), map[string]any{"role_id": a.AppRole.RoleID, "secret_id": secret}, err
	case a.Kubernetes != nil:
		jwt, err := os.ReadFile(cmp.Or(a.Kubernetes.TokenFile, "/var/run/secrets/kubernetes.io/serviceaccount/token"))
		return mountOf(a.Kubernetes.Mount, "kubernetes"), map[string]any{"role": a.Kubernetes.Role, "jwt": strings.TrimSpace(string(jwt))}, err
	}
	body := map[string]any{}
	if a.Certificate.Role != "" {
		body["name"] = a.Certificate.Role
	}
	return mountOf(a.Certificate.Mount, "cert"), body, nil
}

func mountOf(given, usual string) string { return cmp.Or(strings.Trim(given, "/"), usual) }

// login looks at a token that was given to us.
func (t *Token) login(ctx context.Context, client func(token string) (*api.Client, error)) (*api.SecretAuth, error) {
	token, err := t.Read()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", kms.ErrUnavailable, err)
	}
	with, err := client(token)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", kms.ErrInvalid, err)
	}
	answer, err := with.Auth().Token().LookupSelfWithContext(ctx)
	if err != nil {
		return nil, translateLogin(err)
	}
	ttl, errTTL := answer.TokenTTL()
	renewable, errRenewable := answer.TokenIsRenewable()
	if err := errors.Join(errTTL, errRenewable); err != nil {
		return nil, fmt.Errorf("%w: %w", kms.ErrUnavailable, err)
	}
	return &api.SecretAuth{ClientToken: token, LeaseDuration: int(ttl.Seconds()), Renewable: renewable}, nil
}

// translateLogin is translate, where Vault's refusal is one of the login.
func translateLogin(err error) error {
	var answer *api.ResponseError
	if errors.As(err, &answer) && answer.StatusCode >= 400 && answer.StatusCode < 404 {
		return fmt.Errorf("%w: Vault refuses the login: %w", kms.ErrDenied, answered{answer.StatusCode, said(answer)})
	}
	return translate(err)
}

// checkAddress refuses an address to which a token would go in the clear.
func checkAddress(address string) error {
	u, err := url.Parse(address)
	switch {
	case err != nil || u.Host == "" || u.User != nil || strings.Trim(u.Path, "/") != "":
		return errors.New("the address: want https://host:port")
	case u.Scheme == "https":
		return nil
	case u.Scheme == "http" && loopback(u.Hostname()):
		return nil
	}
	return fmt.Errorf("address %q: want https, or http to a loopback address", address)
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// newHTTP is how the server is reached.
func newHTTP(cfg Config) (*http.Client, error) {
	secured := &tls.Config{MinVersion: tls.VersionTLS12}
	if cfg.CAFile != "" {
		pem, err := os.ReadFile(cfg.CAFile)
		if err != nil {
			return nil, err
		}
		secured.RootCAs = x509.NewCertPool()
		if !secured.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%q has no certificate in PEM", cfg.CAFile)
		}
	}
	if own := cfg.Auth.Certificate; own != nil {
		if _, err := tls.LoadX509KeyPair(own.CertFile, own.KeyFile); err != nil {
			return nil, err
		}
		secured.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			pair, err := tls.LoadX509KeyPair(own.CertFile, own.KeyFile) // it is replaced before it expires
			return &pair, err
		}
	}
	return &http.Client{
		Transport: &http.Transport{
			Proxy:               http.ProxyFromEnvironment,
			DialContext:         (&net.Dialer{Timeout: 5 * time.Second, KeepAlive: 15 * time.Second}).DialContext,
			TLSClientConfig:     secured,
			TLSHandshakeTimeout: 5 * time.Second,
			MaxIdleConnsPerHost: 64,
			IdleConnTimeout:     90 * time.Second,
			ForceAttemptHTTP2:   true,
		},
		// Vault's client follows the one redirect of a standby node by itself.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, nil
}

// newClient is a client with or without a token. It takes neither a token nor a
// namespace nor headers from the environment, as Vault's client would, and retries
// nothing.
func newClient(cfg Config, through *http.Client, token string) (*api.Client, error) {
	c, err := api.NewClient(&api.Config{
		Address:    cfg.Address,
		HttpClient: through,
		CheckRetry: func(context.Context, *http.Response, error) (bool, error) { return false, nil },
	})
	if err != nil {
		return nil, err
	}
	c.SetHeaders(http.Header{api.RequestHeaderName: {"true"}})
	if cfg.Namespace != "" {
		c.SetNamespace(cfg.Namespace)
	}
	c.SetToken(token)
	return c, nil
}
