// Package gcsstore keeps sealed objects in Google Cloud Storage, by its own API.
//
// It turns generations into ETags and conditions, puts large objects together from
// parts that the service composes itself, and turns the service's errors into those of
// the contract. It refuses to know what the bytes are.
package gcsstore

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"cloud.google.com/go/storage"
	"github.com/googleapis/gax-go/v2"
	"google.golang.org/api/iterator"
	"google.golang.org/api/option"

	"chatelaine/backends"
	"chatelaine/backends/cloud"
)

// maxObject is the largest object (Cloud Storage, "Quotas and limits").
const maxObject = 5 << 40

// Store is a backends.Store that is a Multiparter, a Copier, a Versioner, a Tagger and a Foreigner too. Put and PutPart
// return only once Reader is no longer being read, also when their context is
// cancelled: a Reader that blocks must itself end with the context.
type Store struct {
	cfg       Config
	client    *storage.Client
	transport *http.Transport
	chunk     int // maxChunk; less in tests

	leases          leases
	lease, settling time.Duration
}

var (
	_ backends.Store       = (*Store)(nil)
	_ backends.Multiparter = (*Store)(nil)
	_ backends.Copier      = (*Store)(nil)
	_ backends.Foreigner   = (*Store)(nil)
	_ backends.Versioner   = (*Store)(nil)
	_ backends.Tagger      = (*Store)(nil)
)

// New opens a store. It asks the service for nothing, Check does; but without a Secret
// it looks for the credentials of the environment, which may mean asking the machine's
// metadata server. The store must be closed.
func New(ctx context.Context, cfg Config) (*Store, error) {
	if err := cfg.complete(); err != nil {
		return nil, fmt.Errorf("gcsstore: checking the configuration: %w", err)
	}
	s := &Store{cfg: cfg, transport: cloud.NewTransport(cfg.Stall, idleTimeout), chunk: maxChunk, lease: lease, settling: settling}
	if cfg.Endpoint != defaultEndpoint {
		s.lease, s.settling = emulatorLease, 0
	}
	authorized, err := cfg.authorize(ctx, s.transport)
	if err != nil {
		return nil, fmt.Errorf("gcsstore: opening project %q: %w", cfg.Project, err)
	}
	s.client, err = storage.NewClient(ctx,
		option.WithHTTPClient(&http.Client{Transport: &budgeted{authorized}, CheckRedirect: cloud.NoRedirect}),
		option.WithoutAuthentication(), // the transport sees to it
		option.WithEndpoint(cfg.Endpoint+"/storage/v1/"),
		storage.WithXMLReads(), // their answers have the metadata
		storage.WithDisabledClientMetrics(),
	)
	if err != nil {
		return nil, fmt.Errorf("gcsstore: opening project %q: %w", cfg.Project, err)
	}
	s.retry(backoff())
	return s, nil
}

func (s *Store) retry(pauses gax.Backoff) {
	s.client.SetRetry(storage.WithPolicy(storage.RetryAlways), storage.WithBackoff(pauses), storage.WithErrorFunc(again))
}

// Check lists buckets. Credentials that may not do that are fine: the service knew them
// and answered.
func (s *Store) Check(ctx context.Context) error {
	ctx = withBudget(ctx)
	var one []*storage.BucketAttrs
	_, err := iterator.NewPager(s.client.Buckets(ctx, s.cfg.Project), 1, "").NextPage(&one)
	if statusOf(err) == http.StatusForbidden {
		return nil
	}
	return wrap(ctx, "checking the store", err)
}

// Close hangs up connections that are idle.
func (s *Store) Close() error {
	err := s.client.Close()
	s.transport.CloseIdleConnections()
	if err != nil {
		return fmt.Errorf("gcsstore: closing the store: %w", err)
	}
	return nil
}

// MaxPut is 5 TiB.
func (*Store) MaxPut() int64 { return maxObject }

// MaxCopy is 5 TiB.
func (*Store) MaxCopy() int64 { return maxObject }

// place is an object of the service's.
type place struct{ bucket, name string }

func (s *Store) object(at place) *storage.ObjectHandle {
	return s.client.Bucket(at.bucket).Object(at.name)
}

// once is for requests that must not be repeated: what one whose answer was lost has
// done would be taken for what somebody else did.
func once() storage.RetryOption { return storage.WithPolicy(storage.RetryNever) }

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
