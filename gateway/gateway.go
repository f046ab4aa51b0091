// Package gateway puts the data plane together: keys and stores go in, HTTP handlers
// come out.
//
// It refuses to know which stores there are, where the KMS is and how it is reached,
// and who listens where. It is pure Go, and never sees a PIN, a KEK or a long-term
// secret.
package gateway

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.uber.org/zap"

	"chatelaine/backends"
	"chatelaine/gateway/access"
	"chatelaine/gateway/objects"
	"chatelaine/gateway/s3api"
	"chatelaine/gateway/sealed"
)

// Keys is where buckets, their keys and signing keys come from: a keys.Client
// outside of tests.
type Keys interface {
	objects.Keyring
	s3api.Keys
	// Ready is nil while the KMS serves and the lease is held.
	Ready(ctx context.Context) error
}

// Config is what New needs. The caller closes Keys and Stores, after the last request.
type Config struct {
	Keys Keys
	// Stores are the backends by the names that the registry keeps with buckets.
	Stores map[string]backends.Store
	// DefaultStore is where CreateBucket makes buckets, with BucketPrefix before
	// their names.
	DefaultStore, BucketPrefix string
	// Offered is as in objects.Config.
	Offered []string
	// MD5Buckets are as in objects.Config.
	MD5Buckets []string
	Authorizer access.Authorizer
	// Region and Domain are as in s3api.Config.
	Region, Domain string
	// Stall is how long a body may make no progress; 0 means s3api's default.
	Stall time.Duration
	// Metrics takes the collectors of all parts and is what /metrics shows.
	Metrics *prometheus.Registry
	Logger  *zap.Logger
	// Suite is the zero value but in tests.
	Suite sealed.Suite
}

// Gateway is the data plane as handlers.
type Gateway struct {
	objects *objects.Service
	s3      http.Handler
	admin   http.Handler
	health  *health
}

// New wires the parts, or says all that is wrong with its Config. It calls nobody:
// without the KMS, S3 answers 503 until it is there.
func New(c Config) (*Gateway, error) {
	if c.Metrics == nil || c.Logger == nil || c.Keys == nil {
		return nil, errors.New("gateway: Keys, Metrics and Logger must be given")
	}
	service, err := objects.New(objects.Config{
		Keys: c.Keys, Stores: c.Stores, DefaultStore: c.DefaultStore, Offered: c.Offered, Prefix: c.BucketPrefix, MD5Buckets: c.MD5Buckets,
		Logger: c.Logger, Suite: c.Suite,
	})
	if err != nil {
		return nil, err
	}
	s3, err := s3api.New(s3api.Config{
		Service: service, Keys: c.Keys, Authorizer: c.Authorizer, Region: c.Region, Domain: c.Domain,
		Stall: c.Stall, Logger: c.Logger,
	})
	if err != nil {
		return nil, err
	}
	if err := register(c.Metrics, s3, service, c.Keys); err != nil {
		return nil, err
	}
	g := &Gateway{objects: service, s3: s3, health: newHealth(c)}
	g.admin = g.adminHandler(c.Metrics)
	return g, nil
}

// register takes the collectors of those parts that are one or have one.
func register(registry *prometheus.Registry, parts ...any) error {
	for _, part := range parts {
		collector, ok := part.(prometheus.Collector)
		if has, indirect := part.(interface{ Collector() prometheus.Collector }); indirect {
			collector, ok = has.Collector(), true
		}
		if !ok {
			continue
		}
		if err := registry.Register(collector); err != nil {
			return fmt.Errorf("gateway: registering metrics: %w", err)
		}
	}
	return nil
}

// Run does what the KMS asks of gateways beside requests, until ctx ends, whose error
// it returns.
func (g *Gateway) Run(ctx context.Context) error { return g.objects.Run(ctx) }

// S3 is the handler of the S3 listener. It must get requests as they came: a mux in
// front of it that cleans paths breaks object keys.
func (g *Gateway) S3() http.Handler { return g.s3 }

// Admin is the handler of the admin listener: /healthz, /readyz and /metrics.
func (g *Gateway) Admin() http.Handler { return g.admin }

// Drain makes /readyz answer 503 from now on, so that load balancers look elsewhere
// while running requests end.
func (g *Gateway) Drain() { g.health.draining.Store(true) }

// Ready is what /readyz says, as an error.
func (g *Gateway) Ready(ctx context.Context) error { return g.health.ready(ctx).err }

func (g *Gateway) adminHandler(metrics *prometheus.Registry) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", alive)
	mux.Handle("GET /readyz", g.health)
	mux.Handle("GET /metrics", promhttp.HandlerFor(metrics, promhttp.HandlerOpts{Registry: metrics}))
	return mux
}
