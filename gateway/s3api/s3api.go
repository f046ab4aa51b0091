// Package s3api is the S3 wire protocol: it parses a request to an operation,
// has its signature verified and its access decided, calls the service and writes
// the answer, headers, XML and errors as S3 does.
//
// It refuses to know how objects are sealed and where they lie, and it does no
// arithmetic on offsets. What it does not know, it answers with NotImplemented:
// nothing of a request is ever dropped silently.
//
// Source: Amazon S3 API Reference; the shape of errors and texts are AWS's.
package s3api

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"go.uber.org/zap"

	"chatelaine/gateway/access"
	"chatelaine/gateway/keys"
	"chatelaine/gateway/sigv4"
)

// Keys finds signing keys: keys.Client outside of tests. An unknown access key is
// keys.ErrAccessKeyNotFound.
type Keys interface {
	SigningKey(ctx context.Context, accessKey, date, region, service string) (keys.SigningKey, error)
}

// Config is what New needs. All fields without a default must be set.
type Config struct {
	Service    Service
	Keys       Keys
	Authorizer access.Authorizer
	// Region is what clients must sign for and what GetBucketLocation says.
	Region string
	// Domain is the base of virtual-hosted addresses: BUCKET.Domain. Empty means path
	// style only.
	Domain string
	// Stall is how long a client may make no progress on a body, either way, before
	// its connection is cut. 0 means 60 s.
	Stall  time.Duration
	Logger *zap.Logger
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// Handler answers S3 requests, and is a prometheus.Collector. It must get requests
// as they came: a mux that cleans paths breaks keys.
type Handler struct {
	Config
	verifier sigv4.Verifier
	routes   []route
	causes   []cause
	metrics  *metrics
	log      *zap.Logger
	hostID   string
	patience time.Duration // after which a client that waits for Complete gets a sign of life
}

// New makes a Handler, or says all that is wrong with its Config.
func New(c Config) (*Handler, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	c.Stall = cmp.Or(c.Stall, time.Minute)
	c.Domain = strings.ToLower(c.Domain)
	if c.Now == nil {
		c.Now = time.Now
	}
	h := &Handler{Config: c, routes: routes(), causes: causes(), metrics: newMetrics(), log: c.Logger.Named("s3"), hostID: randomID(24), patience: 10 * time.Second}
	h.verifier = sigv4.Verifier{Region: c.Region, Service: "s3", Lookup: h.signingKey, Now: c.Now}
	return h, nil
}

func (c Config) check() error {
	var errs []error
	for _, need := range []struct {
		name  string
		given bool
	}{
		{"Service", c.Service != nil},
		{"Keys", c.Keys != nil},
		{"Authorizer", c.Authorizer != nil},
		{"Region", c.Region != ""},
		{"Logger", c.Logger != nil},
	} {
		if !need.given {
			errs = append(errs, fmt.Errorf("s3api: %s must be given", need.name))
		}
	}
	if c.Stall < 0 {
		errs = append(errs, fmt.Errorf("s3api: stall limit %s is negative", c.Stall))
	}
	return errors.Join(errs...)
}

// signingKey is the verifier's Lookup.
func (h *Handler) signingKey(ctx context.Context, s sigv4.Scope) (sigv4.Key, error) {
	key, err := h.Keys.SigningKey(ctx, s.AccessKey, s.Date, s.Region, s.Service)
	if errors.Is(err, keys.ErrAccessKeyNotFound) {
		return nil, fmt.Errorf("%w: %w", sigv4.ErrUnknownKey, err)
	}
	if old, ok := key.Old(); ok {
		return sigv4.Either{New: key, Old: old}, err
	}
	return key, err
}

// ServeHTTP answers one request. Headers, signature and access are checked before
// the body is read, so that a client that waits for 100 Continue is told first.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	sayContinue(w, r)
	c := h.newCall(w, r)
	h.metrics.inFlight.Inc()
	defer func() {
		h.metrics.inFlight.Dec()
		c.finish()
	}()
	if err := c.serve(); err != nil {
		c.fail(err)
		c.drain()
	}
}
