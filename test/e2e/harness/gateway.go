package harness

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"time"
)

// startPatience is how long a start may take: making a token and an etcd on a busy
// machine included.
const startPatience = 60 * time.Second

// Options are the command line of `chatelaine up`. Empty addresses become free ports,
// and stay: starting again with the same Options starts at the same addresses.
type Options struct {
	Binary  string
	Data    string // --data
	Backend string // --backend; empty means the product's default
	KEK     string // --kek; empty means softhsm
	Config  string // --config; empty means none
	Listen  string // --listen
	Admin   string // --admin-listen
	TLS     bool   // Config has a certificate
	User    Credentials
	Env     []string // beyond the user's
	Args    []string // further flags
}

// Gateway is a running `chatelaine up`.
type Gateway struct {
	*Process
	Options

	Endpoint string // of S3: a URL
	AdminURL string
}

// Up starts everything and returns when /readyz says 200. The caller ends it.
func Up(ctx context.Context, o *Options) (*Gateway, error) {
	g, err := Launch(o)
	if err != nil {
		return nil, err
	}
	if err := g.AwaitReady(ctx); err != nil {
		g.Kill()
		return nil, err
	}
	return g, nil
}

// Launch is Up without the waiting.
func Launch(o *Options) (*Gateway, error) {
	if err := o.fill(); err != nil {
		return nil, err
	}
	p, err := Start(o.Binary, filepath.Join(filepath.Dir(o.Data), filepath.Base(o.Data)+"-up"), o.args(), o.env())
	if err != nil {
		return nil, err
	}
	g := &Gateway{Process: p, Options: *o, Endpoint: "http://" + o.Listen, AdminURL: "http://" + o.Admin}
	if o.TLS {
		g.Endpoint = "https://" + o.Listen
	}
	return g, nil
}

func (o *Options) fill() (err error) {
	for _, address := range []*string{&o.Listen, &o.Admin} {
		if *address == "" {
			if *address, err = FreeAddress(); err != nil {
				return err
			}
		}
	}
	if o.User == (Credentials{}) {
		o.User = NewCredentials()
	}
	return nil
}

func (o *Options) args() []string {
	args := []string{"up", "--data", o.Data, "--listen", o.Listen, "--admin-listen", o.Admin}
	for flag, value := range map[string]string{"--backend": o.Backend, "--kek": o.KEK, "--config": o.Config} {
		if value != "" {
			args = append(args, flag, value)
		}
	}
	return append(args, o.Args...)
}

func (o *Options) env() []string {
	return append([]string{
		"CHATELAINE_ACCESS_KEY_ID=" + o.User.AccessKeyID,
		"CHATELAINE_SECRET_ACCESS_KEY=" + o.User.SecretAccessKey,
	}, o.Env...)
}

// Home is the folder of what stays at home.
func (g *Gateway) Home() string { return filepath.Join(g.Data, "home") }

// Ready is nil when /readyz says 200.
func (g *Gateway) Ready(ctx context.Context) error { return Ready(ctx, g.AdminURL) }

// AwaitReady waits until /readyz says 200.
func (g *Gateway) AwaitReady(ctx context.Context) error {
	return g.Await(ctx, startPatience, g.Ready)
}

// Metrics is what /metrics says.
func (g *Gateway) Metrics(ctx context.Context) (string, error) {
	status, body, err := get(ctx, g.AdminURL+"/metrics")
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("harness: asking for metrics: status %d", status)
	}
	return body, err
}

// Ready asks /readyz of an admin listener.
func Ready(ctx context.Context, admin string) error {
	status, body, err := get(ctx, admin+"/readyz")
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("harness: not ready: %d: %s", status, body)
	}
	return err
}

func get(ctx context.Context, url string) (int, string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, "", fmt.Errorf("harness: asking %q: %w", url, err)
	}
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return 0, "", fmt.Errorf("harness: asking %q: %w", url, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(body), err
}
