package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"chatelaine/gateway/config"
	kmsconfig "chatelaine/kms/config"
	"chatelaine/kms/config/settings"
	"chatelaine/kms/offline"
	"chatelaine/kms/service"
)

// upOptions are the flags of `chatelaine up`. Flags win over the file.
type upOptions struct {
	data, listen, admin, backend, kek, file, user, logLevel, logFormat, recoveryKey string

	recover bool
}

// upBackend is the name of the only backend, where no file names others.
const upBackend = "main"

const upHelp = `Runs the whole product on this machine: a gateway, and a key service in a process
of its own, on a SoftHSM token and a folder. For development and for a first look.

The data folder holds cloud/, which is what a foreign cloud would have (or name a
real one with --backend), and home/, which never leaves: the token, the state of the
key service, the log of decisions.

CHATELAINE_ACCESS_KEY_ID and CHATELAINE_SECRET_ACCESS_KEY fix the credentials of the
first user; without them, some are made once and shown at every start. The user is
called --user, and owns the buckets that it makes.
CHATELAINE_BACKEND_ACCESS_KEY_ID and CHATELAINE_BACKEND_SECRET_ACCESS_KEY are the
gateway's own for an s3:// backend.

Exit codes: 0, 1 failure, 78 usage or configuration, which another start would not mend.`

func upCommand() *cobra.Command {
	var o upOptions
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Run everything on this machine, for development",
		Long:  upHelp,
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := o.config(cmd.Flags().Changed)
			if err != nil {
				return err
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
			return up(cmd.Context(), o, c, logger, cmd.OutOrStdout())
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&o.data, "data", "chatelaine-data", "data folder; made if it is missing")
	flags.StringVar(&o.listen, "listen", "127.0.0.1:9000", "HOST:PORT of S3")
	flags.StringVar(&o.admin, "admin-listen", "127.0.0.1:9001", "HOST:PORT of /healthz, /readyz and /metrics")
	flags.StringVar(&o.backend, "backend", "", "where sealed objects lie: file:///folder, s3://host:port?region=..., s3+http://host:port, azure://account.blob.core.windows.net or gcs://project?location=... (default DATA/cloud)")
	flags.StringVar(&o.kek, "kek", "softhsm", "what holds the keys: softhsm or softkey (plain files)")
	flags.StringVar(&o.file, "config", "", "the gateway's configuration file; flags win over it")
	flags.StringVar(&o.user, "user", firstUser, "the first user's name, which owns what it makes: 1 to 128 visible ASCII characters, no /")
	flags.BoolVar(&o.recover, "recover", false, "the state was lost, or put back from a backup: take over the keys of the token (see `chatelaine recover`)")
	flags.StringVar(&o.recoveryKey, "recovery-public-key", "", "RSA public key in PEM that bucket keys are wrapped under too (see `chatelaine recover`)")
	flags.StringVar(&o.logLevel, "log-level", "info", "debug, info, warn or error")
	flags.StringVar(&o.logFormat, "log-format", "console", "json or console")
	return cmd
}

// config is the gateway's configuration, but for the parts that lie in the data folder.
func (o upOptions) config(changed func(flag string) bool) (config.Config, error) {
	if o.kek != "softhsm" && o.kek != "softkey" {
		return config.Config{}, usageError{fmt.Errorf("--kek %q: want softhsm or softkey", o.kek)}
	}
	c := config.Default()
	if o.file != "" {
		var err error
		if c, err = config.LoadPartial(o.file); err != nil {
			return c, usageError{err}
		}
		if c.KMS != (config.KMS{}) {
			return c, usageError{fmt.Errorf("%s: kms is given, and `up` runs its own; to use another, run `chatelaine gateway`", o.file)}
		}
	}
	for _, flag := range []struct {
		name, value string
		field       *string
	}{
		{"listen", o.listen, &c.Listen},
		{"admin-listen", o.admin, &c.AdminListen},
		{"log-level", o.logLevel, &c.Log.Level},
		{"log-format", o.logFormat, &c.Log.Format},
	} {
		if o.file == "" || changed(flag.name) {
			*flag.field = flag.value
		}
	}
	return c, o.chooseBackend(&c)
}

// chooseBackend makes --backend the default backend. The file may configure the same
// URL, and then has its credentials.
func (o upOptions) chooseBackend(c *config.Config) error {
	if o.backend == "" {
		return nil
	}
	for name, b := range c.Backends {
		if b.URL == o.backend {
			c.DefaultBackend = name
			return nil
		}
	}
	if len(c.Backends) > 0 {
		return usageError{fmt.Errorf("--backend %q is none of the backends in %s: name it there", o.backend, o.file)}
	}
	c.Backends = map[string]config.Backend{upBackend: {URL: o.backend}}
	c.DefaultBackend = upBackend
	return nil
}

// complete adds what lies in the data folder, and checks the whole.
func (o upOptions) complete(c *config.Config, h *home) error {
	c.KMS.Address = "unix://" + h.kmsSocket()
	if c.AccessLog.File == "" {
		c.AccessLog.File = h.accessLog()
	}
	if len(c.Backends) == 0 {
		c.Backends = map[string]config.Backend{upBackend: {URL: "file://" + h.cloud()}}
		c.DefaultBackend = upBackend
	}
	source := o.file
	if source == "" {
		source = "flags"
	}
	return c.Check(source)
}

// up runs the KMS as a child process and the gateway in this one, until ctx ends.
func up(ctx context.Context, o upOptions, c config.Config, logger *zap.Logger, stdout io.Writer) (err error) {
	user, err := userFromEnvironment()
	if err != nil {
		return err
	}
	h, err := openHome(o.data)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.Close()) }()
	if err := o.complete(&c, h); err != nil {
		return err
	}
	p, err := openPlane(ctx, c, logger)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	kmsProcess, socket, err := o.prepareKMS(ctx, h, c, logger)
	if err != nil {
		return err
	}
	defer socket.Close()
	context.AfterFunc(ctx, func() {
		logger.Info("stopping: running requests end first; a second signal cuts them")
	})
	return runTogether(ctx, p, kmsProcess, socket, func(ctx context.Context) error {
		return announce(ctx, p, kmsProcess, logger, greeting{options: o, config: c, home: h, user: user, address: p.s3.Addr().String()}, stdout)
	})
}

// prepareKMS makes the token where needed, and all that the KMS process is given.
func (o upOptions) prepareKMS(ctx context.Context, h *home, c config.Config, logger *zap.Logger) (*child, *notifySocket, error) {
	executable, err := os.Executable()
	if err != nil {
		return nil, nil, fmt.Errorf("finding our own program: %w", err)
	}
	k := kmsconfig.Default()
	k.Listen, k.State.Dir, k.Development = "unix://"+h.kmsSocket(), h.state(), true
	k.Log = kmsconfig.Log(c.Log)
	var environment []string
	if err := errors.Join(o.recoverable(h), o.addRecovery(&k)); err != nil {
		return nil, nil, err
	}
	if o.kek == "softkey" {
		k.Provider, err = prepareSoftKey(h)
	} else {
		k.Provider, environment, err = (&softHSM{home: h}).prepare(ctx, executable)
	}
	if err != nil {
		return nil, nil, err
	}
	file := filepath.Join(h.run(), "kms.yaml")
	if err := writeSettings(file, k); err != nil {
		return nil, nil, err
	}
	socket, err := listenNotify(h.notify())
	if err != nil {
		return nil, nil, err
	}
	environment = append(append(childEnvironment(), environment...), "NOTIFY_SOCKET="+socket.name())
	command := func(ctx context.Context) *exec.Cmd {
		args := []string{"kms", "--config", file}
		if o.recover {
			args = append(args, "--recover")
		}
		cmd := exec.CommandContext(ctx, executable, args...) //nolint:gosec // G204: ourselves
		cmd.Env, cmd.Stderr = environment, os.Stderr
		return cmd
	}
	return newChild(command, logger.Named("kms")), socket, nil
}

// recoverable refuses to make keys where there were to be some already.
func (o upOptions) recoverable(h *home) error {
	folder := h.token()
	if o.kek == "softkey" {
		folder = h.softKey()
	}
	there, err := notEmpty(folder)
	if err != nil || there || !o.recover {
		return err
	}
	return usageError{fmt.Errorf("%w: --recover takes over the keys in %q, and that is not there: put it back from a backup", errNoKeys, folder)}
}

// addRecovery reads the public key that bucket keys are wrapped under too.
func (o upOptions) addRecovery(k *kmsconfig.Config) error {
	if o.recoveryKey == "" {
		return nil
	}
	text, err := os.ReadFile(o.recoveryKey)
	if err == nil {
		_, err = offline.ParsePublicKey(text)
	}
	if err != nil {
		return usageError{fmt.Errorf("--recovery-public-key: %w", err)}
	}
	k.Recovery = &kmsconfig.Recovery{PublicKey: string(text)}
	return nil
}

func writeSettings(name string, c kmsconfig.Config) error {
	text, err := settings.Encode(c)
	if err == nil {
		err = os.WriteFile(name, text, 0o600)
	}
	if err != nil {
		return fmt.Errorf("writing the KMS's configuration: %w", err)
	}
	return nil
}

// childEnvironment is what the KMS may see of ours: the clouds' credentials and the
// first user's are not its business.
func childEnvironment() []string {
	var kept []string
	for _, variable := range os.Environ() {
		ours := strings.HasPrefix(variable, "CHATELAINE_") || strings.HasPrefix(variable, "AWS_")
		if !ours && !strings.HasPrefix(variable, "NOTIFY_SOCKET=") {
			kept = append(kept, variable)
		}
	}
	return kept
}

// runTogether runs both halves. When ctx ends, S3 is drained while the KMS still
// serves; then the KMS is stopped. When one half fails, the other is stopped in the
// same order.
func runTogether(ctx context.Context, p *plane, kmsProcess *child, socket *notifySocket, begin func(context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	late, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var group errgroup.Group
	group.Go(func() error {
		defer cancel()
		return kmsProcess.run(late)
	})
	group.Go(func() error { socket.watch(late, kmsProcess.reportReady); return nil })
	group.Go(func() error {
		defer stop()
		defer cancel()
		return p.serve(ctx, kmsProcess.ready)
	})
	group.Go(func() error {
		err := begin(ctx)
		if err != nil && ctx.Err() == nil {
			cancel()
			return err
		}
		return nil
	})
	return group.Wait()
}

// announce waits until everything serves, makes the first user and greets.
func announce(ctx context.Context, p *plane, kmsProcess *child, logger *zap.Logger, g greeting, stdout io.Writer) error {
	select {
	case <-ctx.Done():
		return nil
	case <-kmsProcess.ready:
	}
	clients, err := service.Dial(service.DialConfig{Address: g.config.KMS.Address, Logger: zap.NewNop()})
	if err != nil {
		return err
	}
	defer clients.Close()
	if g.user, err = ensureUser(ctx, clients.Admin, g.options.user, g.user); err != nil {
		return err
	}
	if err := waitReady(ctx, p, logger); err != nil {
		return err
	}
	if err := notifyReady(); err != nil {
		return err
	}
	return g.print(stdout)
}

// waitReady waits for the first lease and the backend. A backend that does not answer
// is worth a word now and then, and no reason to give up.
func waitReady(ctx context.Context, p *plane, logger *zap.Logger) error {
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	said := time.Now()
	for err := p.gateway.Ready(ctx); err != nil; err = p.gateway.Ready(ctx) {
		if time.Since(said) > 5*time.Second {
			logger.Warn("not ready yet", zap.Error(err))
			said = time.Now()
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
	}
	return nil
}
