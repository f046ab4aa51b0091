package keys

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"
	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"golang.org/x/sync/singleflight"

	"chatelaine/kms"
	"chatelaine/kms/service"
	"chatelaine/kms/service/kmsv1/kmsv1connect"
)

// Config is what a Client is made of. A limit of 0 means the default.
type Config struct {
	Address string           // of the KMS: unix:///path or https://host:port, or several with commas between
	TLS     service.TLSFiles // for https
	// GatewayID names this gateway in the KMS's logs: 1 to 128 bytes.
	GatewayID string
	Logger    *zap.Logger

	MaxBucketKeys  int // bucket keys kept; 16384. Fewer than are in use at once cuts transfers
	MaxSigningKeys int // signing keys kept; 16384
	MaxBuckets     int // bucket records kept; 16384
	// CallTimeout bounds each call to the KMS; 10 s. RegisterBucket may take a lease
	// and 3 s more.
	CallTimeout time.Duration
}

// Client is a gateway's connection to the KMS, with its caches. All methods may run
// concurrently.
//
// No key is used without a lease, which ends its time to live after the last
// renewal that succeeded was sent. A cached key expires its time to live after the
// request for it was sent; neither use nor failed refreshes move that. Both are
// measured on the monotonic clock.
type Client struct {
	rpc     kmsv1connect.GatewayServiceClient
	feed    kmsv1connect.PolicyFeedClient
	mirrors kmsv1connect.MirrorFeedClient
	ledgers kmsv1connect.LedgerFeedClient
	close   func()
	// elsewhere has another replica of the KMS asked; nil where there is one only.
	elsewhere func()
	timeout   time.Duration
	log       *zap.Logger
	metrics   *metrics

	clock   clock
	lease   *lease
	flights singleflight.Group
	tasks   chan func(context.Context) // refreshes to be done by Run

	revoked revoked
	spoken

	generation generation
	keys       *table[[16]byte, openKey]
	current    *table[Space, [16]byte]
	signing    *table[scope, openSigning]
	unknown    *table[string, struct{}] // access keys that are not
	buckets    *table[string, Bucket]
	edits      generation                  // of buckets, by this client
	gone       *lru.Cache[Space, struct{}] // spaces of removed buckets
	policies   atomic.Pointer[heldPolicies]
	seals      seals
}

// New makes a client. It connects at the first call, or in Run. The caller closes it.
func New(c Config) (*Client, error) {
	clients, err := service.Dial(service.DialConfig{Address: c.Address, TLS: c.TLS, Logger: c.Logger})
	if err != nil {
		return nil, fmt.Errorf("keys: making a client: %w", err)
	}
	client, err := newClient(c, clients)
	if err != nil {
		clients.Close()
		return nil, fmt.Errorf("keys: making a client: %w", err)
	}
	client.close = clients.Close
	if clients.Several() {
		client.elsewhere = clients.Elsewhere
	}
	return client, nil
}

// workers is how many refreshes run at once, and waiting how many may wait: a KMS
// that was away is not asked for everything in one moment.
const (
	workers = 4
	waiting = 1024
)

func newClient(c Config, clients *service.Clients) (*Client, error) {
	if n := len(c.GatewayID); n < 1 || n > 128 {
		return nil, fmt.Errorf("%w: gateway id of %d bytes, want 1 to 128", kms.ErrInvalid, n)
	}
	if c.Logger == nil {
		c.Logger = zap.NewNop()
	}
	m := newMetrics()
	client := &Client{
		rpc: clients.Gateway, feed: clients.PolicyFeed, mirrors: clients.Mirrors, ledgers: clients.Ledgers, close: func() {}, log: c.Logger.Named("keys"), metrics: m,
		timeout: cmp.Or(c.CallTimeout, 10*time.Second),
		clock:   clock{start: time.Now()},
		tasks:   make(chan func(context.Context), waiting),
	}
	client.tidings = make(chan struct{}, 1)
	client.lease = newLease(client, c.GatewayID)
	m.watch(client.lease)
	var errs [6]error
	client.keys, errs[0] = newTable[[16]byte, openKey](cmp.Or(c.MaxBucketKeys, 16384), m.cache("bucket_key"))
	client.current, errs[1] = newTable[Space, [16]byte](cmp.Or(c.MaxBucketKeys, 16384), m.cache("current"))
	client.signing, errs[2] = newTable[scope, openSigning](cmp.Or(c.MaxSigningKeys, 16384), m.cache("signing_key"))
	client.unknown, errs[3] = newTable[string, struct{}](cmp.Or(c.MaxSigningKeys, 16384), m.cache("unknown_access_key"))
	client.buckets, errs[4] = newTable[string, Bucket](cmp.Or(c.MaxBuckets, 16384), m.cache("bucket"))
	client.gone, errs[5] = lru.New[Space, struct{}](remembered)
	return client, errors.Join(errs[:]...)
}

// Run renews the lease, hears of what is revoked at once, and refreshes what is in use,
// until ctx ends; then it gives the lease back and returns ctx's error. Without it the
// client works, but asks for each thing only when it is wanted and not there.
func (c *Client) Run(ctx context.Context) error {
	var group sync.WaitGroup
	for range workers {
		group.Go(func() { c.work(ctx) })
	}
	group.Go(func() { c.lease.keep(ctx) })
	group.Go(func() { c.listen(ctx) })
	group.Go(func() { c.answer(ctx) })
	group.Wait()
	c.leave(ctx)
	return ctx.Err()
}

func (c *Client) work(ctx context.Context) {
	for {
		select {
		case task := <-c.tasks:
			task(ctx)
		case <-ctx.Done():
			return
		}
	}
}

// Close lets the connections go. Call it after Run has ended.
func (c *Client) Close() error {
	c.close()
	return nil
}

// Ready returns nil while the gateway holds a lease and the KMS answered when it was
// last asked to renew it, or else ErrUnavailable.
func (c *Client) Ready(ctx context.Context) error {
	if err := c.lease.ensure(ctx); err != nil {
		return err
	}
	if err := c.lease.trouble(); err != nil {
		return fmt.Errorf("keys: renewing the lease: %w", err)
	}
	return nil
}

// Collector is the client's Prometheus collector.
func (c *Client) Collector() prometheus.Collector { return c.metrics }

// shared lets callers who want the same at the same time wait for one call. It does
// not end with the first caller's context.
func shared[V any](ctx context.Context, c *Client, name string, call func(context.Context) (V, error)) (V, error) {
	var none V
	answers := c.flights.DoChan(name, func() (any, error) {
		bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.timeout)
		defer cancel()
		return call(bounded)
	})
	select {
	case answer := <-answers:
		if answer.Err != nil {
			return none, answer.Err
		}
		value, _ := answer.Val.(V)
		return value, nil
	case <-ctx.Done():
		return none, ctx.Err()
	}
}

// leased calls the KMS with a lease, and says when the call was sent. A KMS that
// does not know the lease, as it was restarted, is asked for another at once; a
// connection that broke is tried once more.
func leased[V any](ctx context.Context, c *Client, op string, call func(ctx context.Context, lease string) (V, error)) (V, instant, error) {
	var none V
	for attempt := 0; ; attempt++ {
		if err := c.lease.ensure(ctx); err != nil {
			return none, 0, err
		}
		id := c.lease.id()
		sent := c.clock.now()
		answer, err := call(ctx, id)
		c.metrics.call(op, err)
		switch {
		case err == nil:
			return answer, sent, nil
		case attempt == 0 && errors.Is(err, kms.ErrLease):
			if err := c.lease.replace(ctx, id); err != nil {
				return none, 0, err
			}
		case attempt == 0 && brokenConnection(err):
			pause(ctx, 20*time.Millisecond)
		default:
			return none, 0, err
		}
	}
}

// once calls the KMS where no lease is needed.
func (c *Client) once(ctx context.Context, op string, call func(context.Context) error) error {
	return c.onceWithin(ctx, c.timeout, op, call)
}

func (c *Client) onceWithin(ctx context.Context, timeout time.Duration, op string, call func(context.Context) error) error {
	bounded, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	err := call(bounded)
	c.metrics.call(op, err)
	return err
}

// again is once for calls that may be made twice: a connection that broke is tried
// once more.
func (c *Client) again(ctx context.Context, op string, call func(context.Context) error) error {
	err := c.once(ctx, op, call)
	if err != nil && brokenConnection(err) {
		pause(ctx, 20*time.Millisecond)
		err = c.once(ctx, op, call)
	}
	return err
}

// brokenConnection: the KMS did not say no, it said nothing.
func brokenConnection(err error) bool {
	return errors.Is(err, kms.ErrUnavailable) && !errors.Is(err, context.DeadlineExceeded) && !wire(err)
}

// wire says whether an error is an answer of the KMS.
func wire(err error) bool {
	var answer *connect.Error
	return errors.As(err, &answer) && connect.IsWireError(answer)
}

// pause waits for d to 2 d, or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d + rand.N(d)) //nolint:gosec // jitter is no secret
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// translate makes this package's errors of the KMS's. What is none of them is a
// fault that trying again does not mend (ErrCorrupt, ErrInvalid).
func translate(err, notFound error) error {
	switch {
	case errors.Is(err, kms.ErrBusy):
		return fmt.Errorf("%w: %w", ErrBucketBusy, err)
	case errors.Is(err, kms.ErrNotFound):
		return fmt.Errorf("%w: %w", notFound, err)
	case errors.Is(err, kms.ErrDisabled), errors.Is(err, kms.ErrDenied), errors.Is(err, kms.ErrApproval):
		return fmt.Errorf("%w: %w", ErrBlocked, err)
	case errors.Is(err, kms.ErrUnavailable), errors.Is(err, kms.ErrClosed), errors.Is(err, kms.ErrLease),
		errors.Is(err, kms.ErrPIN), errors.Is(err, kms.ErrUnsafe), errors.Is(err, kms.ErrAmbiguous):
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	default:
		return err
	}
}
