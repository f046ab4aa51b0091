package azurestore

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"time"
)

// A client waits at the other end: what takes longer than these is better told.
const (
	maxRetries = 3
	firstDelay = 100 * time.Millisecond
	maxDelay   = time.Second

	idlePerHost = 256
	idleTimeout = 25 * time.Second
	dialTimeout = 10 * time.Second
	// patience times Stall is how long an answer may take to begin: the service copies
	// blocks before it.
	patience   = 5
	bufferSize = 256 << 10
)

// newTransport speaks HTTP/1.1 only, as the service does.
func newTransport(stall time.Duration) *http.Transport {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	dialer := net.Dialer{Timeout: dialTimeout, KeepAlive: 15 * time.Second}
	return &http.Transport{
		Proxy: http.ProxyFromEnvironment,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			c, err := dialer.DialContext(ctx, network, address)
			if err != nil {
				return nil, err
			}
			return &conn{Conn: c, stall: stall}, nil
		},
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
		Protocols:              protocols,
		DisableCompression:     true,
		MaxIdleConnsPerHost:    idlePerHost,
		IdleConnTimeout:        min(idleTimeout, stall),
		TLSHandshakeTimeout:    dialTimeout,
		ResponseHeaderTimeout:  patience * stall,
		MaxResponseHeaderBytes: 256 << 10,
		ReadBufferSize:         bufferSize,
		WriteBufferSize:        bufferSize,
	}
}

// conn gives up a peer that takes nothing for as long as stall, or that sends nothing
// for so much longer that it cannot be at work.
type conn struct {
	net.Conn
	stall time.Duration
}

func (c *conn) Write(p []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(c.stall)); err != nil {
		return 0, err
	}
	// An answer is waited for from the last byte of its request on.
	if err := c.SetReadDeadline(time.Now().Add((patience + 1) * c.stall)); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}

func (c *conn) Read(p []byte) (int, error) {
	if err := c.SetReadDeadline(time.Now().Add((patience + 1) * c.stall)); err != nil {
		return 0, err
	}
	return c.Conn.Read(p)
}
