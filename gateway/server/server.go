// Package server carries a handler to the network: it listens, speaks TLS with
// certificates that may change under it, keeps slow clients from holding on for
// ever, and drains when it is told to stop.
//
// It refuses to know what is served: S3, metrics and profiles come as handlers.
package server

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"syscall"
	"time"

	"go.uber.org/zap"
)

// Config is what New needs. Zero durations and sizes mean the defaults beside them.
type Config struct {
	// Name tells the listeners of one process apart in logs: "s3", "admin".
	Name string
	// Address is HOST:PORT. Port 0 takes a free one; Server.Addr says which.
	Address string
	Handler http.Handler
	// TLS is nil for plain HTTP.
	TLS *TLS
	// ReadHeader is the longest time for a request's header, and for a TLS handshake
	// (10 s). Bodies have no such limit: their handlers move a deadline along with
	// progress, so that a slow client lives and a stalled one does not.
	ReadHeader time.Duration
	// Idle is how long a kept-alive connection may wait for its next request (120 s).
	Idle time.Duration
	// Drain is how long running requests may go on after the stop (30 s).
	Drain time.Duration
	// MaxHeader is the longest request header in bytes (64 KiB).
	MaxHeader int
	Logger    *zap.Logger
}

// Server is a listener with its HTTP server. It has bound its address already.
type Server struct {
	config   Config
	listener net.Listener
	http     *http.Server
}

// New binds the address, so that a port in use or a bad certificate is known before
// anything else starts. The caller runs Serve, which closes the listener; without
// Serve, the caller calls Close.
func New(ctx context.Context, config Config) (*Server, error) {
	config = config.withDefaults()
	secure, err := config.TLS.config(config.Logger)
	if err != nil {
		return nil, err
	}
	listener, err := listen(ctx, config.Address)
	if err != nil {
		return nil, fmt.Errorf("server: listening for %s: %w", config.Name, err)
	}
	if secure != nil {
		listener = tls.NewListener(listener, secure)
	}
	return &Server{config, listener, newHTTP(config)}, nil
}

func (c Config) withDefaults() Config {
	c.ReadHeader = cmp.Or(c.ReadHeader, 10*time.Second)
	c.Idle = cmp.Or(c.Idle, 2*time.Minute)
	c.Drain = cmp.Or(c.Drain, 30*time.Second)
	c.MaxHeader = cmp.Or(c.MaxHeader, 64<<10)
	if c.Logger == nil {
		c.Logger = zap.NewNop()
	}
	c.Logger = c.Logger.Named("server").With(zap.String("listener", c.Name))
	return c
}

func newHTTP(c Config) *http.Server {
	var protocols http.Protocols
	protocols.SetHTTP1(true) // and not HTTP/2: DECISIONS.md
	return &http.Server{
		Handler:           framed(c.Handler),
		ReadHeaderTimeout: c.ReadHeader,
		IdleTimeout:       c.Idle,
		MaxHeaderBytes:    c.MaxHeader,
		Protocols:         &protocols,
		ErrorLog:          errorLog(c.Logger),
	}
}

// framed gives a connection up after each request of which another server may see the
// end elsewhere: net/http takes Transfer-Encoding where Content-Length is there too,
// and overlooks it in HTTP/1.0, and a handler sees neither any more. What a proxy took
// for a body is then never taken for a request (RFC 9112, section 6.1).
func framed(handler http.Handler) http.Handler {
	if handler == nil {
		return nil
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if len(r.TransferEncoding) > 0 || !r.ProtoAtLeast(1, 1) {
			w.Header().Set("Connection", "close")
		}
		handler.ServeHTTP(w, r)
	})
}

// listen binds with TCP keep-alive, so that a peer that vanished is noticed.
// TCP_NODELAY is Go's default and stays: bodies are written in large pieces.
func listen(ctx context.Context, address string) (net.Listener, error) {
	lc := net.ListenConfig{KeepAliveConfig: net.KeepAliveConfig{
		Enable: true, Idle: 30 * time.Second, Interval: 10 * time.Second, Count: 6,
	}}
	listener, err := lc.Listen(ctx, "tcp", address)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("%w: another program, or another chatelaine, has this port; stop it or choose another", err)
	}
	return listener, err
}

// Addr is the bound address.
func (s *Server) Addr() net.Addr { return s.listener.Addr() }

// Serve answers requests until ctx ends, then takes no new connection, lets running
// requests end, and cuts those that have not when Config.Drain is over. It returns
// nil after either, and an error when the listener fails.
func (s *Server) Serve(ctx context.Context) error {
	failed := make(chan error, 1)
	go func() { failed <- s.http.Serve(s.listener) }()
	select {
	case err := <-failed:
		return fmt.Errorf("server: serving %s: %w", s.config.Name, err)
	case <-ctx.Done():
	}
	return s.drain(context.WithoutCancel(ctx))
}

func (s *Server) drain(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.config.Drain)
	defer cancel()
	err := s.http.Shutdown(ctx)
	if !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	s.config.Logger.Warn("cutting requests that did not end in time", zap.Duration("drain", s.config.Drain))
	return s.http.Close()
}

// Close gives the address up at once and cuts what runs.
func (s *Server) Close() error {
	return errors.Join(s.http.Close(), ignoreClosed(s.listener.Close()))
}

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}
