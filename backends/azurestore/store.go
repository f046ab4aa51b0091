// Package azurestore keeps sealed objects as block blobs in Azure Storage.
//
// It turns keys into names that Azure holds as they are, makes large objects from
// blocks that the service copies itself, and turns the service's errors into those of
// the contract. It refuses to know what the bytes are.
package azurestore

import (
	"context"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/bloberror"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blockblob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/service"

	"chatelaine/backends"
	"chatelaine/backends/cloud"
)

const (
	// maxPut is what Put Blob takes in one request (Azure, "Scalability and performance
	// targets for Blob Storage").
	maxPut = 5000 << 20

	// A client waits at the other end: what takes longer than these is better told.
	maxRetries = 3
	firstDelay = 100 * time.Millisecond
	maxDelay   = time.Second

	idleTimeout = 25 * time.Second
)

// Store is a backends.Store that is a Multiparter, a Copier and a Tagger too. Put and PutPart
// return only once Reader is no longer being read, also when their context is
// cancelled: a Reader that blocks must itself end with the context.
type Store struct {
	cfg       Config
	service   *service.Client
	transport *http.Transport
	// streamed says that the service cannot copy from a URL (Azurite): the bytes then
	// come through the gateway.
	streamed atomic.Bool
}

var (
	_ backends.Store       = (*Store)(nil)
	_ backends.Multiparter = (*Store)(nil)
	_ backends.Copier      = (*Store)(nil)
	_ backends.Tagger      = (*Store)(nil)
)

// New opens a store. It makes no request: Check does. The store must be closed.
func New(cfg Config) (*Store, error) {
	if err := cfg.complete(); err != nil {
		return nil, fmt.Errorf("azurestore: checking the configuration: %w", err)
	}
	s := &Store{cfg: cfg, transport: cloud.NewTransport(cfg.Stall, idleTimeout)}
	options := &service.ClientOptions{ClientOptions: azcore.ClientOptions{
		Transport: &http.Client{Transport: s.transport, CheckRedirect: cloud.NoRedirect},
		Retry: policy.RetryOptions{
			MaxRetries: maxRetries, RetryDelay: firstDelay, MaxRetryDelay: maxDelay,
		},
		Telemetry: policy.TelemetryOptions{Disabled: true},
	}}
	var err error
	if s.service, err = cfg.client(options); err != nil {
		return nil, fmt.Errorf("azurestore: opening the account: %w", err)
	}
	return s, nil
}

// Check lists containers. Credentials that may not do that are fine: the service knew
// them and answered.
func (s *Store) Check(ctx context.Context) error {
	one := int32(1)
	_, err := s.service.NewListContainersPager(&service.ListContainersOptions{MaxResults: &one}).NextPage(ctx)
	if bloberror.HasCode(err, bloberror.AuthorizationPermissionMismatch, bloberror.AuthorizationResourceTypeMismatch) {
		return nil
	}
	return wrap(ctx, "checking the store", err)
}

// Close hangs up connections that are idle. The error is nil.
func (s *Store) Close() error {
	s.transport.CloseIdleConnections()
	return nil
}

// MaxPut is 5000 MiB.
func (*Store) MaxPut() int64 { return maxPut }

// MaxCopy is 5000 MiB.
func (*Store) MaxCopy() int64 { return maxPut }

func (s *Store) container(bucket string) *container.Client {
	return s.service.NewContainerClient(bucket)
}

func (s *Store) blob(bucket, name string) *blockblob.Client {
	return s.container(bucket).NewBlockBlobClient(name)
}

// once is for requests that must not be repeated: their body is gone, or what an answer
// that was lost has done would be taken for what somebody else did.
func once(ctx context.Context) context.Context {
	return policy.WithRetryOptions(ctx, policy.RetryOptions{MaxRetries: -1})
}

func deref[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
