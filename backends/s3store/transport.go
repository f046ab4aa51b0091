package s3store

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// smallBatch is enough for a body that is buffered, manyBatch for one of many
	// bodies at once: 16 sealed chunks, a message header and framing. With them the
	// memory of a transfer stays bounded when there are many.
	smallBatch = 64 << 10
	manyBatch  = 16*(16<<10+16) + 8<<10
	manyBodies = 8
	// batchSize is what a body's Reader is asked for at once and what goes to the
	// socket in one write. It has room for 64 sealed chunks, a message header and
	// the framing of aws-chunked, so that a sealer fills it in one call.
	batchSize = 1<<20 + 64<<10
	// bufferSize holds the header of a request or answer, and small bodies with it.
	bufferSize = 16 << 10
	// answerLimit bounds answers that are read whole. A page of 1000 keys of 1024
	// bytes, each written as %XX, is 3 MiB.
	answerLimit = 16 << 20
	// completeFactor times Stall is how long the answer to a Complete or a copy may
	// take: the store moves gigabytes before it.
	completeFactor = 10

	idlePerHost = 256
	// idleTimeout is below the 30 seconds after which MinIO hangs up.
	idleTimeout   = 25 * time.Second
	dialTimeout   = 10 * time.Second
	keepAlive     = 15 * time.Second
	continueDelay = time.Second
)

// newTransport speaks HTTP/1.1 only: one stream to a connection is what moves
// large bodies at the least cost.
//
// net/http has its own idea of how much of a body to move at once, hence the
// dialer.
func newTransport(d *dialer, patience time.Duration) *http.Transport {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	return &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            d.dial,
		DialTLSContext:         d.dialTLS,
		TLSClientConfig:        d.tls, // for what goes through a proxy
		Protocols:              protocols,
		DisableCompression:     true,
		MaxIdleConnsPerHost:    idlePerHost,
		IdleConnTimeout:        idleTimeout,
		TLSHandshakeTimeout:    dialTimeout,
		ExpectContinueTimeout:  continueDelay,
		ResponseHeaderTimeout:  patience,
		MaxResponseHeaderBytes: 256 << 10,
		ReadBufferSize:         bufferSize,
		WriteBufferSize:        bufferSize,
	}
}

type dialer struct {
	net     net.Dialer
	tls     *tls.Config
	stall   time.Duration
	batches *batches
}

func newDialer(roots *x509.CertPool, stall time.Duration) *dialer {
	return &dialer{
		net:     net.Dialer{Timeout: dialTimeout, KeepAlive: keepAlive},
		stall:   stall,
		batches: newBatches(),
		tls: &tls.Config{
			MinVersion:                  tls.VersionTLS12,
			RootCAs:                     roots,
			NextProtos:                  []string{"http/1.1"},
			ClientSessionCache:          tls.NewLRUClientSessionCache(idlePerHost),
			DynamicRecordSizingDisabled: true,
		},
	}
}

func (d *dialer) dial(ctx context.Context, network, address string) (net.Conn, error) {
	c, err := d.net.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return &conn{Conn: c, batches: d.batches, stall: d.stall}, nil
}

func (d *dialer) dialTLS(ctx context.Context, network, address string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	raw, err := d.net.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	cfg := d.tls.Clone()
	cfg.ServerName = host
	c := tls.Client(raw, cfg)
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	if err := c.HandshakeContext(ctx); err != nil {
		raw.Close()
		return nil, err
	}
	return &conn{Conn: c, batches: d.batches, stall: d.stall}, nil
}

// conn is a connection that moves request bodies in large pieces and gives up a
// peer that takes nothing for as long as stall.
type conn struct {
	net.Conn
	batches *batches
	stall   time.Duration
}

func (c *conn) Write(p []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(c.stall)); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}

// ReadFrom is what net/http's Transport copies a request body with. Its own copy
// loop takes 32 KiB at a time, and a TCPConn tries splice before that.
func (c *conn) ReadFrom(r io.Reader) (written int64, err error) {
	batch, done := c.batches.get(r)
	defer done()
	for {
		n, readErr := r.Read(batch)
		if n > 0 {
			n, err := c.Write(batch[:n])
			written += int64(n)
			if err != nil {
				return written, err
			}
		}
		if readErr == io.EOF {
			return written, nil
		}
		if readErr != nil {
			return written, readErr
		}
	}
}

// batches are the buffers that bodies go through, of three sizes.
type batches struct {
	bodies           atomic.Int64 // under way
	small, many, few sync.Pool    // of *[]byte
}

func newBatches() *batches {
	sized := func(n int) sync.Pool {
		return sync.Pool{New: func() any { b := make([]byte, n); return &b }}
	}
	return &batches{small: sized(smallBatch), many: sized(manyBatch), few: sized(batchSize)}
}

// get takes a buffer for a body; done gives it back.
func (b *batches) get(r io.Reader) (batch []byte, done func()) {
	pool := &b.few
	if b.bodies.Add(1) > manyBodies {
		pool = &b.many
	}
	if limited, ok := r.(*io.LimitedReader); ok && limited.N <= smallBatch {
		pool = &b.small
	}
	p, _ := pool.Get().(*[]byte)
	return *p, func() {
		b.bodies.Add(-1)
		pool.Put(p)
	}
}

// answers is the client that the SDK sends with. It follows no redirects: the body
// is gone by then, and the operator should learn of a wrong region. It bounds what
// a store can make the gateway hold in memory, and how long it may keep silent.
type answers struct {
	transport *http.Transport
	stall     time.Duration
	limit     int64 // of bytes that are read
	// streams says that the body of a success is handed out, without a limit.
	streams bool
}

// Do implements s3.HTTPClient.
func (a answers) Do(r *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(r.Context())
	r = r.WithContext(ctx)
	// The SDK leaves the version out, and then the transport does not wait for the
	// store's consent that Expect asks for.
	r.Proto, r.ProtoMajor, r.ProtoMinor = "HTTP/1.1", 1, 1
	resp, err := a.transport.RoundTrip(r)
	if err != nil {
		cancel(nil)
		return nil, err
	}
	body := io.Reader(resp.Body)
	if !a.streams || resp.StatusCode >= http.StatusMultipleChoices {
		body = io.LimitReader(resp.Body, a.limit)
	}
	resp.Body = &answer{r: body, c: resp.Body, cancel: cancel, stall: a.stall}
	return resp, nil
}

// answer is the body of an answer. A Read in which nothing arrives for as long as
// stall fails with errStalled.
type answer struct {
	r      io.Reader
	c      io.Closer
	cancel context.CancelCauseFunc
	stall  time.Duration
	timer  *time.Timer
}

func (a *answer) Read(p []byte) (int, error) {
	if a.timer == nil {
		a.timer = time.AfterFunc(a.stall, func() { a.cancel(errStalled) })
	} else {
		a.timer.Reset(a.stall)
	}
	defer a.timer.Stop()
	return a.r.Read(p)
}

// Close gives the connection back if all has been read and hangs up otherwise: the
// rest is not waited for.
func (a *answer) Close() error {
	err := a.c.Close()
	a.cancel(nil)
	return err
}
