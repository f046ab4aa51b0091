package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/pprof"
	"os"
	"runtime/debug"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/spf13/cobra"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"chatelaine/backends"
	"chatelaine/gateway"
	"chatelaine/gateway/access"
	"chatelaine/gateway/config"
	"chatelaine/gateway/keys"
	"chatelaine/gateway/server"
	"chatelaine/kms/service"
)

func gatewayCommand() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "gateway --config FILE",
		Short: "Run a gateway: S3 for applications, sealed objects for the clouds",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := config.Load(file)
			if err != nil {
				return usageError{err}
			}
			logger, err := newLogger(cmd.ErrOrStderr(), c.Log.Level, c.Log.Format, "gateway")
			if err != nil {
				return err
			}
			restore, err := takeForeignLines(logger)
			if err != nil {
				return err
			}
			defer restore()
			return runGateway(cmd.Context(), c, logger)
		},
	}
	cmd.Flags().StringVar(&file, "config", "/etc/chatelaine/gateway.yaml", "configuration file")
	return cmd
}

func runGateway(ctx context.Context, c config.Config, logger *zap.Logger) (err error) {
	p, err := openPlane(ctx, c, logger)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	logger.Info("serving", zap.Stringer("address", p.s3.Addr()), zap.Stringer("admin", p.admin.Addr()), zap.String("version", version))
	if err := notifyReady(); err != nil {
		logger.Warn("readiness could not be told", zap.Error(err))
	}
	begin := make(chan struct{})
	close(begin)
	return p.serve(ctx, begin)
}

// boundMemory makes the collector run when the heap has grown by half instead of
// doubled: what a gateway holds is the buffers of its running transfers, and their
// bound is promised. GOGC in the environment wins.
func boundMemory() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(50)
	}
}

// plane is the data plane of this process, with its listeners bound.
type plane struct {
	gateway          *gateway.Gateway
	keys             *keys.Client
	stores           map[string]backends.Store
	accessLog        io.Closer
	s3, admin, debug *server.Server // debug may be nil
}

// openPlane binds the listeners and wires the gateway. It does not need the KMS to
// be there yet. The caller closes it.
func openPlane(ctx context.Context, c config.Config, logger *zap.Logger) (_ *plane, err error) {
	boundMemory()
	p := &plane{}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.Close())
		}
	}()
	authorizer, err := p.openParts(ctx, c, logger)
	if err != nil {
		return nil, err
	}
	metrics := prometheus.NewRegistry()
	metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	p.gateway, err = gateway.New(gateway.Config{
		Keys: p.keys, Stores: p.stores, DefaultStore: c.DefaultBackend, Offered: c.Offered(), BucketPrefix: c.BucketPrefix, MD5Buckets: c.MD5Buckets,
		Authorizer: authorizer, Region: c.Region, Domain: c.Domain, Stall: c.Limits.Stall,
		Metrics: metrics, Logger: logger,
	})
	if err != nil {
		return nil, err
	}
	return p, p.listen(ctx, c, logger)
}

// openParts opens what the gateway works with.
func (p *plane) openParts(ctx context.Context, c config.Config, logger *zap.Logger) (_ access.Authorizer, err error) {
	record, closer, err := access.OpenLog(c.AccessLog.File)
	if err != nil {
		return nil, err
	}
	p.accessLog = closer
	if p.stores, err = openStores(ctx, c.Backends, logger); err != nil {
		return nil, err
	}
	p.keys, err = keys.New(keys.Config{
		Address: c.KMS.Address, TLS: kmsTLS(c.KMS.TLS), GatewayID: gatewayID(), Logger: logger,
	})
	if err != nil {
		return nil, err
	}
	return access.New(p.keys, record), nil
}

func kmsTLS(c *config.ClientTLS) service.TLSFiles {
	if c == nil {
		return service.TLSFiles{}
	}
	return service.TLSFiles{Cert: c.CertFile, Key: c.KeyFile, CA: c.CAFile}
}

// gatewayID is the name that people see beside a lease. There may be several gateways
// on a host.
func gatewayID() string {
	name, err := os.Hostname()
	if err != nil || name == "" {
		name = "gateway"
	}
	return fmt.Sprintf("%s/%d", name, os.Getpid())
}

func (p *plane) listen(ctx context.Context, c config.Config, logger *zap.Logger) (err error) {
	common := server.Config{
		ReadHeader: c.Limits.ReadHeader, Idle: c.Limits.Idle, Drain: c.Limits.Drain,
		MaxHeader: c.Limits.MaxHeaderBytes, Logger: logger,
	}
	s3 := common
	s3.Name, s3.Address, s3.Handler = "s3", c.Listen, p.gateway.S3()
	if c.TLS != nil {
		s3.TLS = &server.TLS{CertFile: c.TLS.CertFile, KeyFile: c.TLS.KeyFile}
	}
	if p.s3, err = server.New(ctx, s3); err != nil {
		return err
	}
	admin := common
	admin.Name, admin.Address, admin.Handler = "admin", c.AdminListen, p.gateway.Admin()
	if p.admin, err = server.New(ctx, admin); err != nil {
		return err
	}
	if c.DebugListen == "" {
		return nil
	}
	debug := common
	debug.Name, debug.Address, debug.Handler = "debug", c.DebugListen, profiles()
	p.debug, err = server.New(ctx, debug)
	return err
}

// profiles is net/http/pprof without its registration in the default mux.
func profiles() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	return mux
}

// serve answers until ctx ends, and then in order: readiness goes, running S3
// requests end with keys still at hand, then the rest stops. The KMS is left alone
// until kmsThere is closed.
func (p *plane) serve(ctx context.Context, kmsThere <-chan struct{}) error {
	group, ctx := errgroup.WithContext(ctx)
	late, stop := context.WithCancel(context.WithoutCancel(ctx))
	context.AfterFunc(ctx, p.gateway.Drain)
	group.Go(func() error {
		defer stop()
		return p.s3.Serve(ctx)
	})
	group.Go(func() error { return p.admin.Serve(late) })
	group.Go(func() error {
		select {
		case <-late.Done():
		case <-kmsThere:
			_ = p.keys.Run(late) // it ends with late alone
		}
		return nil
	})
	group.Go(func() error {
		select {
		case <-late.Done():
		case <-kmsThere:
			_ = p.gateway.Run(late) // it ends with late alone
		}
		return nil
	})
	if p.debug != nil {
		group.Go(func() error { return p.debug.Serve(late) })
	}
	return group.Wait()
}

// Close lets go of what openPlane has opened, as far as it came.
func (p *plane) Close() error {
	var problems []error
	for _, s := range []*server.Server{p.s3, p.admin, p.debug} {
		if s != nil {
			problems = append(problems, s.Close())
		}
	}
	if p.keys != nil {
		problems = append(problems, p.keys.Close())
	}
	problems = append(problems, closeStores(p.stores))
	if p.accessLog != nil {
		problems = append(problems, p.accessLog.Close())
	}
	return errors.Join(problems...)
}
