// Package service is the RPC of the key plane: what gateways and administrators
// may ask of a kms.Manager, under which lease, over which connection. It also has
// the client's end (Dial).
//
// It refuses to know how keys are made and kept, and what a gateway does with them.
package service

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"connectrpc.com/connect"
	"go.uber.org/zap"

	"chatelaine/kms"
	"chatelaine/kms/approval"
	"chatelaine/kms/service/kmsv1/kmsv1connect"
)

// Config is what a Service is made of.
type Config struct {
	// Manager is required. The caller keeps it until the Service serves no more.
	Manager *kms.Manager
	// Approvals is the Manager's Gate. nil: there is no ApprovalService.
	Approvals *approval.Control
	// Access says who may call over mutual TLS. The zero value lets nobody. On a
	// Unix socket, whoever may open the socket may call everything.
	Access Access
	// LeaseTTL is how long a gateway may use keys without hearing from the KMS.
	// 0 means 15 s. It bounds how late a block is effective, and how long the name of
	// a removed bucket may have to wait. Processes that share a registry need the same
	// one; after it is lowered, let the old time pass before buckets are deleted.
	LeaseTTL time.Duration
	// KeyTTL is how long a key may be used after it was unwrapped. 0 means 300 s.
	KeyTTL time.Duration
	// CallTimeout bounds each call. 0 means 30 s. Under LeaseTTL and 2 s, registering
	// a bucket anew can fail as busy where it would only have to wait.
	CallTimeout time.Duration
	// MaxLeases bounds the live leases of this process. 0 means 4096.
	MaxLeases int
	// Canary is how often a canary measures the kill switch. 0 means never.
	Canary time.Duration
	// Metrics may be nil; then the Service has its own.
	Metrics *Metrics
	Version string // of the program, for Status
	Logger  *zap.Logger
}

// Service answers RPCs. It is an http.Handler and may be used concurrently.
type Service struct {
	manager *kms.Manager
	board   *board
	blocks  *blocks
	access  Access
	mux     *http.ServeMux
	metrics *Metrics
	refuse  *connect.ErrorWriter
	log     *zap.Logger
}

// maxRequest is the longest request body in bytes: names and ids, nothing else.
const maxRequest = 64 << 10

// New makes a Service.
func New(c Config) (*Service, error) {
	c = c.withDefaults()
	if err := c.validate(); err != nil {
		return nil, fmt.Errorf("service: checking the configuration: %w", err)
	}
	s := &Service{
		manager: c.Manager, access: c.Access, mux: http.NewServeMux(),
		metrics: c.Metrics, refuse: connect.NewErrorWriter(), log: c.Logger.Named("service"),
	}
	options := []connect.HandlerOption{
		connect.WithInterceptors(&intercept{timeout: c.CallTimeout, metrics: c.Metrics, log: s.log}),
		connect.WithReadMaxBytes(maxRequest),
		connect.WithCompressMinBytes(maxRequest),
		connect.WithRecover(s.recovered),
	}
	leases := newLeases(c.LeaseTTL, c.MaxLeases, c.Metrics)
	s.board = newBoard(c.Manager, s.log)
	s.blocks = newBlocks(c, leases, s.board, s.log)
	gateway := &gatewayAPI{
		manager: c.Manager, leases: leases, board: s.board, replicas: s.blocks.replicas,
		removals: newRemovals(c.Manager, leases, c.KeyTTL, s.log), keyTTL: c.KeyTTL,
	}
	admin := &adminAPI{manager: c.Manager, leases: leases, version: c.Version}
	s.mux.Handle(kmsv1connect.NewGatewayServiceHandler(gateway, options...))
	s.mux.Handle(kmsv1connect.NewAdminServiceHandler(admin, options...))
	s.mux.Handle(kmsv1connect.NewKeyServiceHandler(&keyAPI{manager: c.Manager, blocks: s.blocks}, options...))
	s.mux.Handle(kmsv1connect.NewUserServiceHandler(&userAPI{manager: c.Manager}, options...))
	s.mux.Handle(kmsv1connect.NewBucketServiceHandler(&bucketAPI{manager: c.Manager, removals: gateway.removals, blocks: s.blocks}, options...))
	s.mux.Handle(kmsv1connect.NewJobServiceHandler(&jobAPI{manager: c.Manager}, options...))
	s.mux.Handle(kmsv1connect.NewMirrorFeedHandler(&mirrorFeed{manager: c.Manager, leased: gateway.leased}, options...))
	s.mux.Handle(kmsv1connect.NewLedgerFeedHandler(&ledgerFeed{manager: c.Manager, leased: gateway.leased}, options...))
	s.mux.Handle(kmsv1connect.NewPolicyServiceHandler(&policyAPI{manager: c.Manager}, append(options, connect.WithReadMaxBytes(maxPolicyRequest))...))
	s.mux.Handle(kmsv1connect.NewPolicyFeedHandler(&policyFeed{manager: c.Manager, leased: gateway.leased}, options...))
	s.mux.Handle(kmsv1connect.NewBlockServiceHandler(s.blocks, options...))
	s.mux.Handle(kmsv1connect.NewRecoveryServiceHandler(&recoveryAPI{manager: c.Manager},
		append(options, connect.WithReadMaxBytes(maxSnapshotMessage))...))
	if c.Approvals != nil {
		s.mux.Handle(kmsv1connect.NewApprovalServiceHandler(&approvalAPI{control: c.Approvals},
			append(options, connect.WithReadMaxBytes(maxApprovalRequest))...))
	}
	return s, nil
}

func (c Config) withDefaults() Config {
	c.LeaseTTL = cmp.Or(c.LeaseTTL, 15*time.Second)
	c.KeyTTL = cmp.Or(c.KeyTTL, 300*time.Second)
	c.CallTimeout = cmp.Or(c.CallTimeout, 30*time.Second)
	c.MaxLeases = cmp.Or(c.MaxLeases, 4096)
	if c.Metrics == nil {
		c.Metrics = NewMetrics()
	}
	if c.Logger == nil {
		c.Logger = zap.NewNop()
	}
	return c
}

func (c Config) validate() error {
	var errs []error
	if c.Manager == nil {
		errs = append(errs, fmt.Errorf("%w: no manager", kms.ErrInvalid))
	}
	if c.LeaseTTL < time.Second {
		errs = append(errs, fmt.Errorf("%w: lease of %v is under a second", kms.ErrInvalid, c.LeaseTTL))
	}
	if c.KeyTTL < c.LeaseTTL {
		errs = append(errs, fmt.Errorf("%w: keys live for %v, less than a lease of %v", kms.ErrInvalid, c.KeyTTL, c.LeaseTTL))
	}
	if c.CallTimeout < 0 || c.MaxLeases < 0 || c.Canary < 0 {
		errs = append(errs, fmt.Errorf("%w: a limit is negative", kms.ErrInvalid))
	}
	return errors.Join(errs...)
}

// Run pushes what is revoked to gateways, and has canaries run, until ctx ends, whose
// error it returns. Without it everything works, but gateways learn of a block when
// they renew their leases. Once it has ended, no stream goes on.
func (s *Service) Run(ctx context.Context) error {
	var group sync.WaitGroup
	group.Go(func() { s.board.follow(ctx) })
	group.Go(func() { s.blocks.run(ctx) })
	group.Wait()
	return ctx.Err()
}

// ServeHTTP finds out who calls, and lets nobody do what they may not.
func (s *Service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	caller := s.access.identify(r)
	if !caller.may(r.URL.Path) {
		s.metrics.rpc("refused", kms.ErrDenied, 0)
		s.log.Warn("call refused", zap.String("path", r.URL.Path), zap.String("peer", caller.name))
		err := fmt.Errorf("service: %w: %s", kms.ErrDenied, caller)
		_ = s.refuse.Write(w, r, toConnect(err)) // the caller may be gone
		return
	}
	s.mux.ServeHTTP(w, r.WithContext(withPeer(r.Context(), caller)))
}

// Ready returns nil when the registry and all providers serve.
func (s *Service) Ready(ctx context.Context) error { return s.manager.Check(ctx) }

// Metrics is the Prometheus collector of the service.
func (s *Service) Metrics() *Metrics { return s.metrics }

func (s *Service) recovered(_ context.Context, spec connect.Spec, _ http.Header, value any) error {
	s.log.Error("call panicked", zap.String("op", spec.Procedure), zap.Any("panic", value), zap.Stack("stack"))
	return connect.NewError(connect.CodeInternal, errors.New("service: internal error"))
}
