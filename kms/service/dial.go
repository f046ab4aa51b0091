package service

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"
	"go.uber.org/zap"

	"chatelaine/kms"
	"chatelaine/kms/service/kmsv1/kmsv1connect"
)

// Clients are the ends of the RPC for those who call it, one a service. Errors wrap the
// sentinels of package kms; a KMS that does not answer is kms.ErrUnavailable. They
// may be used concurrently.
type Clients struct {
	Gateway kmsv1connect.GatewayServiceClient
	Admin   kmsv1connect.AdminServiceClient
	Keys    kmsv1connect.KeyServiceClient
	Users   kmsv1connect.UserServiceClient
	Jobs    kmsv1connect.JobServiceClient
	Buckets kmsv1connect.BucketServiceClient
	Mirrors kmsv1connect.MirrorFeedClient // for gateways
	Ledgers kmsv1connect.LedgerFeedClient // for gateways
	// Policies is for administrators, and PolicyFeed for gateways.
	Policies   kmsv1connect.PolicyServiceClient
	PolicyFeed kmsv1connect.PolicyFeedClient
	Blocks     kmsv1connect.BlockServiceClient
	Approvals  kmsv1connect.ApprovalServiceClient
	Recovery   kmsv1connect.RecoveryServiceClient

	roaming *roaming
}

// DialConfig says where the KMS is.
type DialConfig struct {
	// Address is as in ListenConfig, or several with commas between: replicas that
	// share a registry, all over https or all on Unix sockets. One is used until it
	// does not answer, and then the next.
	Address string
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
	var r roaming
	url := ""
	for address := range strings.SplitSeq(c.Address, ",") {
		transport, base, err := newTransport(c, address)
		if err != nil {
			return nil, err
		}
		if url != "" && base != url {
			return nil, fmt.Errorf("%w: some addresses are Unix sockets and some are not", kms.ErrInvalid)
		}
		url = base
		r.transports = append(r.transports, transport)
	}
	clients := NewClients(&http.Client{Transport: &r, CheckRedirect: noRedirect}, url)
	clients.roaming = &r
	return clients, nil
}

// newTransport makes the transport to one address, and says how URLs begin there.
func newTransport(c DialConfig, to string) (*http.Transport, string, error) {
	network, address, err := parseAddress(to)
	if err != nil {
		return nil, "", err
	}
	dialer := &net.Dialer{Timeout: 3 * time.Second, KeepAlive: 10 * time.Second}
	transport := &http.Transport{
		// HTTP/1.1 has a call in a connection: as many as a gateway may have at once,
		// or those above are closed and made anew for each call.
		MaxIdleConnsPerHost: 256, IdleConnTimeout: 90 * time.Second,
		TLSHandshakeTimeout: 5 * time.Second, ForceAttemptHTTP2: true,
		HTTP2: &http.HTTP2Config{SendPingTimeout: 5 * time.Second, PingTimeout: 3 * time.Second},
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, network, address)
		},
	}
	if network != "tcp" {
		return transport, "http://kms", nil
	}
	return transport, "https://kms", withTLS(transport, dialer, address, c)
}

// withTLS makes each new connection with the certificate files of that moment.
func withTLS(transport *http.Transport, dialer *net.Dialer, address string, c DialConfig) error {
	reloader, err := newReloader(c.TLS, clientTLS, c.Logger)
	if err != nil {
		return err
	}
	transport.DialTLSContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
		config := reloader.current().Clone()
		if config.ServerName == "" {
			config.ServerName, _, _ = net.SplitHostPort(address) // it has a port: parseAddress
		}
		tlsDialer := &tls.Dialer{NetDialer: dialer, Config: config}
		return tlsDialer.DialContext(ctx, network, address)
	}
	return nil
}

// roaming sends requests to one of several replicas, and to the next after one that
// did not answer.
type roaming struct {
	transports []*http.Transport
	at         atomic.Uint32 // counts; the transport is that modulo their number
}

// RoundTrip implements http.RoundTripper.
func (r *roaming) RoundTrip(request *http.Request) (*http.Response, error) {
	at := r.at.Load()
	response, err := r.transports[int(at)%len(r.transports)].RoundTrip(request)
	if err != nil && !errors.Is(err, context.Canceled) {
		r.at.CompareAndSwap(at, at+1)
	}
	return response, err
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
		Users:   kmsv1connect.NewUserServiceClient(c, baseURL, options...),
		Jobs:    kmsv1connect.NewJobServiceClient(c, baseURL, options...),
		Buckets: kmsv1connect.NewBucketServiceClient(c, baseURL, options...),
		Mirrors: kmsv1connect.NewMirrorFeedClient(c, baseURL, options...),
		Ledgers: kmsv1connect.NewLedgerFeedClient(c, baseURL, options...),

		Policies:   kmsv1connect.NewPolicyServiceClient(c, baseURL, options...),
		PolicyFeed: kmsv1connect.NewPolicyFeedClient(c, baseURL, options...),
		Blocks:     kmsv1connect.NewBlockServiceClient(c, baseURL, options...),
		Approvals:  kmsv1connect.NewApprovalServiceClient(c, baseURL, options...),
		Recovery:   kmsv1connect.NewRecoveryServiceClient(c, baseURL, options...),
	}
}

// Several says whether there are replicas to choose from.
func (c *Clients) Several() bool { return c.roaming != nil && len(c.roaming.transports) > 1 }

// Elsewhere sends what follows to the next replica, as the one in use answers and
// cannot do its work.
func (c *Clients) Elsewhere() {
	if c.Several() {
		c.roaming.at.Add(1)
	}
}

// Close ends idle connections. Calls that run end by themselves.
func (c *Clients) Close() {
	if c.roaming == nil {
		return
	}
	for _, transport := range c.roaming.transports {
		transport.CloseIdleConnections()
	}
}
