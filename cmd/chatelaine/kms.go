package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"os"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/spf13/cobra"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"chatelaine/gateway/server"
	"chatelaine/hsm"
	"chatelaine/kms"
	"chatelaine/kms/approval"
	"chatelaine/kms/config"
	"chatelaine/kms/config/settings"
	"chatelaine/kms/policy"
	"chatelaine/kms/registry"
	"chatelaine/kms/service"
)

func kmsCommand() *cobra.Command {
	var file string
	var recovering bool
	cmd := &cobra.Command{
		Use:   "kms --config FILE",
		Short: "Run the key service: keys in an HSM, for gateways and administrators",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := config.Load(file)
			if err != nil {
				return usageError{err}
			}
			logger, err := newLogger(cmd.ErrOrStderr(), c.Log.Level, c.Log.Format, "kms")
			if err != nil {
				return err
			}
			restore, err := takeForeignLines(logger)
			if err != nil {
				return err
			}
			defer restore()
			return runKMS(cmd.Context(), c, recovering, logger)
		},
	}
	cmd.Flags().StringVar(&file, "config", "/etc/chatelaine/kms.yaml", "configuration file")
	cmd.Flags().BoolVar(&recovering, "recover", false, "take over the keys of the token: the first start after `chatelaine hsm ceremony`, or the state was lost, or put back from a backup (see `chatelaine recover`)")
	cmd.AddCommand(initTokenCommand())
	return cmd
}

// runKMS serves until ctx ends. Where the state was lost, the keys are to be there.
func runKMS(ctx context.Context, c config.Config, recovering bool, logger *zap.Logger) (err error) {
	records, err := openRegistry(ctx, c.State, logger)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, records.Close()) }()
	makeRoom(c)
	watch := newHSMWatch()
	name, providers, err := openProviders(ctx, c, watch, logger)
	if err != nil {
		return err
	}
	defer func() { err = watch.close(providers, err) }()

	control, err := approval.New(approval.Config{Registry: records, Ceremony: c.Ceremony, Logger: logger})
	if err != nil {
		return err
	}
	recovery, err := recoveryConfig(c.Recovery)
	if err != nil {
		return err
	}
	metrics := service.NewMetrics()
	manager, err := kms.NewManager(ctx, kms.Config{
		Registry: records, Providers: providers, DefaultProvider: name, DefaultKEK: c.KEK,
		EpochPeriod: c.Epoch, CheckPolicy: policy.Validate, Gate: control, Development: c.Development, Recovery: recovery, Observer: metrics, Logger: logger,
	})
	if err != nil {
		return err
	}
	if err := ensureKEKs(ctx, manager, c.KEK, recovering); err != nil {
		return err
	}
	if err := ensureRecovery(ctx, manager, c.Recovery, recovery, logger); err != nil {
		return err
	}
	svc, err := service.New(service.Config{
		Manager: manager, Approvals: control, Access: service.Access{Gateways: c.Gateways, Admins: c.Admins},
		LeaseTTL: c.Lease, KeyTTL: c.TTL, Canary: c.Canary, Metrics: metrics, Version: version, Logger: logger,
	})
	if err != nil {
		return err
	}
	return serveKMS(ctx, c, manager, control, svc, records, watch, logger)
}

// ensureKEKs makes the default KEK where there is none or, to recover, takes over what
// the token holds: a new key would open nothing.
func ensureKEKs(ctx context.Context, manager *kms.Manager, name string, recovering bool) error {
	if !recovering {
		_, err := manager.EnsureKEK(ctx, name)
		return err
	}
	by := kms.KEKOptions{Change: kms.Change{Reason: "started with --recover"}}
	if _, err := manager.AdoptKEK(ctx, name, by); err != nil {
		return err
	}
	if _, err := manager.AdoptKEK(ctx, kms.CanaryKEK, by); err != nil && !errors.Is(err, kms.ErrNotFound) {
		return err // the token of a KMS without canaries has no key for them
	}
	return nil
}

// serveKMS listens, tells that it is ready, serves and does what is due, until ctx
// ends or a part fails.
func serveKMS(ctx context.Context, c config.Config, manager *kms.Manager, control *approval.Control, svc *service.Service, records *registry.Store, watch *hsmWatch, logger *zap.Logger) error {
	group, ctx := errgroup.WithContext(ctx)
	if c.AdminListen != "" {
		admin, err := server.New(ctx, server.Config{Name: "kms-admin", Address: c.AdminListen, Handler: kmsAdmin(svc, watch), Logger: logger})
		if err != nil {
			return err
		}
		group.Go(func() error { return admin.Serve(ctx) })
	}
	listener, err := service.Listen(service.ListenConfig{Address: c.Listen, TLS: serviceTLS(c.TLS), Logger: logger})
	if err != nil {
		return err
	}
	group.Go(func() error { return service.Serve(ctx, listener, svc, logger) })
	group.Go(func() error { manager.Run(ctx); return nil })
	group.Go(func() error { return watch.wait(ctx) })
	group.Go(func() error { control.Run(ctx); return nil })
	group.Go(func() error {
		_ = svc.Run(ctx) // it ends with ctx alone
		return nil
	})
	group.Go(func() error {
		select {
		case <-ctx.Done():
			return nil
		case <-records.Stopped():
			return errors.New("kms: etcd stopped by itself; see its log lines above")
		}
	})
	logger.Info("serving", zap.String("address", c.Listen), zap.String("version", version))
	if err := notifyReady(); err != nil {
		logger.Warn("readiness could not be told", zap.Error(err))
	}
	return group.Wait()
}

func kmsAdmin(svc *service.Service, watch *hsmWatch) http.Handler {
	metrics := prometheus.NewRegistry()
	metrics.MustRegister(svc.Metrics(), watch, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(metrics, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		if err := svc.Ready(r.Context()); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	return mux
}

func openRegistry(ctx context.Context, c config.State, logger *zap.Logger) (*registry.Store, error) {
	quota := int64(c.QuotaMiB) << 20
	if c.Dir != "" {
		return registry.Embed(ctx, registry.EmbedConfig{Dir: c.Dir, Quota: quota, Logger: logger})
	}
	secure, err := clientTLS(c.TLS)
	if err != nil {
		return nil, usageError{err}
	}
	return registry.Dial(ctx, registry.DialConfig{Endpoints: c.Endpoints, TLS: secure, Quota: quota, Logger: logger})
}

// clientTLS is this end of mutual TLS towards an etcd; nil for none.
func clientTLS(c *config.TLS) (*tls.Config, error) {
	if c == nil {
		return nil, nil
	}
	pair, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("reading certificate %q: %w", c.CertFile, err)
	}
	pem, err := os.ReadFile(c.CAFile)
	if err != nil {
		return nil, fmt.Errorf("reading authorities: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("reading authorities: no certificate in %q", c.CAFile)
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}, RootCAs: pool}, nil
}

func serviceTLS(c *config.TLS) service.TLSFiles {
	if c == nil {
		return service.TLSFiles{}
	}
	return service.TLSFiles{Cert: c.CertFile, Key: c.KeyFile, CA: c.CAFile}
}

// initTokenCommand makes a token of a software module. It is a command, not a
// function of `up`, so that no other process loads a vendor's code.
func initTokenCommand() *cobra.Command {
	var module, label string
	var pin, soPIN settings.Secret
	cmd := &cobra.Command{
		Use:   "init-token --module FILE --label NAME --pin-file FILE --so-pin-file FILE",
		Short: "Make a token in the first free slot of a module, for development",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			user, err := pin.Read()
			if err != nil {
				return usageError{err}
			}
			officer, err := soPIN.Read()
			if err != nil {
				return usageError{err}
			}
			return hsm.InitToken(module, label, hsm.NewPIN(officer), hsm.NewPIN(user))
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&module, "module", "", "path of the PKCS#11 library")
	flags.StringVar(&label, "label", "", "label of the token")
	flags.StringVar(&pin.File, "pin-file", "", "file with the user's PIN")
	flags.StringVar(&soPIN.File, "so-pin-file", "", "file with the security officer's PIN")
	return cmd
}
