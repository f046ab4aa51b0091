package service

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"time"

	"connectrpc.com/connect"
	"go.uber.org/zap"

	"chatelaine/kms/service/kmsv1/kmsv1connect"
)

// Clients are the ends of the RPC for those who call it, one a service. Errors wrap the
// sentinels of package kms; a KMS that does not answer is kms.ErrUnavailable. They
// may be used concurrently.
type Clients struct {
	Gateway kmsv1connect.GatewayServiceClient
	Admin   kmsv1connect.AdminServiceClient
	Keys    kmsv1connect.KeyServiceClient
	// Policies is for administrators, and PolicyFeed for gateways.
	Policies   kmsv1connect.PolicyServiceClient
	PolicyFeed kmsv1connect.PolicyFeedClient
	Blocks  kmsv1connect.BlockServiceClient

	transport *http.Transport
}

// DialConfig says where the KMS is.
type DialConfig struct {
	Address string   // as in ListenConfig
	TLS     TLSFiles // for https
	Logger  *zap.Logger
}

// Dial prepares the clients. It connects at the first call. The caller closes them.
func Dial(c DialConfig) (*Clients, error) {
	clients, err := dial(c)
	if err != nil {
		return nil, fmt.Errorf("service: dialling %q: %w", c.Address, err)
	}
	return clients, nil
}

func dial(c DialConfig) (*Clients, error) {
	network, address, err := parseAddress(c.Address)
	if err != nil {
		return nil, err
	}
	dialer := &net.Dialer{Timeout: 3 * time.Second, KeepAlive: 10 * time.Second}
	transport := &http.Transport{
		MaxIdleConnsPerHost: 16, IdleConnTimeout: 90 * time.Second,
		TLSHandshakeTimeout: 5 * time.Second, ForceAttemptHTTP2: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, network, address)
		},
	}
	url := "http://kms"
	if network == "tcp" {
		url = "https://" + address
		if err := withTLS(transport, dialer, c); err != nil {
			return nil, err
		}
	}
	clients := NewClients(&http.Client{Transport: transport, CheckRedirect: noRedirect}, url)
	clients.transport = transport
	return clients, nil
}

// withTLS makes each new connection with the certificate files of that moment.
func withTLS(transport *http.Transport, dialer *net.Dialer, c DialConfig) error {
	reloader, err := newReloader(c.TLS, clientTLS, c.Logger)
	if err != nil {
		return err
	}
	transport.DialTLSContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		config := reloader.current().Clone()
		if config.ServerName == "" {
			config.ServerName, _, _ = net.SplitHostPort(address) // it has a port: parseAddress
		}
		tlsDialer := &tls.Dialer{NetDialer: dialer, Config: config}
		return tlsDialer.DialContext(ctx, network, address)
	}
	return nil
}

// noRedirect: a KMS does not redirect; whoever does is not it.
func noRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// NewClients makes clients over an HTTP client of one's own.
func NewClients(c connect.HTTPClient, baseURL string) *Clients {
	options := []connect.ClientOption{
		connect.WithInterceptors(restore{}),
		connect.WithAcceptCompression("gzip", nil, nil),
		connect.WithReadMaxBytes(16 << 20),
	}
	return &Clients{
		Gateway: kmsv1connect.NewGatewayServiceClient(c, baseURL, options...),
		Admin:   kmsv1connect.NewAdminServiceClient(c, baseURL, options...),
		Keys:    kmsv1connect.NewKeyServiceClient(c, baseURL, options...),

		Policies:   kmsv1connect.NewPolicyServiceClient(c, baseURL, options...),
		PolicyFeed: kmsv1connect.NewPolicyFeedClient(c, baseURL, options...),
		Blocks:  kmsv1connect.NewBlockServiceClient(c, baseURL, options...),
	}
}

// Close ends idle connections. Calls that run end by themselves.
func (c *Clients) Close() {
	if c.transport != nil {
		c.transport.CloseIdleConnections()
	}
}
