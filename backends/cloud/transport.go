// Package cloud is what the drivers of clouds with a protocol of their own have in
// common: connections that give up a peer that stalls, the errors of the contract,
// uploads whose parts are objects, and pages of listings.
//
// It refuses to know any cloud, and its SDK.
package cloud

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"time"
)

const (
	idlePerHost = 256
	dialTimeout = 10 * time.Second
	keepAlive   = 15 * time.Second
	// patience times stall is how long an answer may take to begin: the service copies
	// and puts together before it.
	patience   = 5
	bufferSize = 256 << 10
	maxHeader  = 256 << 10
)

// NewTransport speaks HTTP/1.1 only: one connection for each request is what makes large
// transfers fast. A connection on which nothing moves for as long as stall is given up, but
// an answer may take five times that to begin. One that is idle is kept for idle, or for
// stall where that is shorter. It follows the proxy of the environment, and wants TLS 1.2.
func NewTransport(stall, idle time.Duration) *http.Transport {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	dialer := net.Dialer{Timeout: dialTimeout, KeepAlive: keepAlive}
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
		IdleConnTimeout:        min(idle, stall),
		TLSHandshakeTimeout:    dialTimeout,
		ResponseHeaderTimeout:  patience * stall,
		MaxResponseHeaderBytes: maxHeader,
		ReadBufferSize:         bufferSize,
		WriteBufferSize:        bufferSize,
	}
}

// NoRedirect is a CheckRedirect that follows none: what a service redirects to would see
// the credentials.
func NoRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

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
