package registry

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	"go.uber.org/zap"

	"chatelaine/kms"
)

// EmbedConfig says where an embedded etcd lives.
type EmbedConfig struct {
	// Dir belongs to this one process while it runs. It is made with mode 0700.
	Dir string
	// Timeout of one read or transaction; 0 means 5 s.
	Timeout time.Duration
	// Retention is how long old revisions are kept for watches, at least; 0 means 5 min.
	// etcd compacts once in that time, so they are there for up to 2.1 times as long.
	Retention time.Duration
	// Quota is the length of the file in bytes at which etcd takes no changes any more.
	// 0 means 2 GiB.
	Quota  int64
	Logger *zap.Logger
}

// ErrLocked: another process has the directory.
var ErrLocked = errors.New("directory is in use by another process")

// embedded is the etcd that runs in this process. It has no listener at all: its
// client is connected inside the process (v3client), and a single member has no
// peers. So nobody else can reach it, and the length of Dir does not matter.
type embedded struct {
	etcd *embed.Etcd
	lock *os.File
}

// Embed starts a single-member etcd in this process and waits until it serves.
// What it acknowledges is on the disk (fsync). ErrLocked when another process
// uses Dir; kms.ErrFull when what it holds does not fit into the quota. A file that is
// over half of the quota is made as short as it can be. The caller closes the Store.
func Embed(ctx context.Context, c EmbedConfig) (*Store, error) {
	if c.Dir == "" || c.Quota < 0 {
		return nil, fmt.Errorf("registry: starting etcd: %w: directory %q, quota of %d bytes", kms.ErrInvalid, c.Dir, c.Quota)
	}
	lock, err := lockDir(c.Dir)
	if err != nil {
		return nil, fmt.Errorf("registry: starting etcd in %q: %w", c.Dir, err)
	}
	e, err := start(ctx, c)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("registry: starting etcd in %q: %w", c.Dir, err), lock.Close())
	}
	s := &Store{
		client:   v3client.New(e.Server),
		timeout:  cmp.Or(c.Timeout, 5*time.Second),
		embedded: &embedded{etcd: e, lock: lock},
	}
	if err := s.makeRoom(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("registry: starting etcd in %q: %w", c.Dir, err), s.Close())
	}
	return s, nil
}

// lockDir takes the directory for this process. etcd itself would wait for the
// other process for ever. The lock ends with the process, however it ends.
func lockDir(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		if errors.Is(err, syscall.EWOULDBLOCK) {
			err = ErrLocked
		}
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func start(ctx context.Context, c EmbedConfig) (*embed.Etcd, error) {
	level := zap.NewAtomicLevelAt(zap.ErrorLevel) // etcd warns of what is meant to be so
	e, err := embed.StartEtcd(etcdConfig(c, level))
	if err != nil {
		return nil, err
	}
	select {
	case <-e.Server.ReadyNotify():
		level.SetLevel(zap.WarnLevel)
		return e, nil
	case <-e.Server.StopNotify():
		err = errors.New("it stopped while starting")
	case err = <-e.Err():
	case <-ctx.Done():
		err = ctx.Err()
	}
	e.Close()
	return nil, err
}

func etcdConfig(c EmbedConfig, level zap.AtomicLevel) *embed.Config {
	logger := zap.NewNop()
	if c.Logger != nil {
		logger = c.Logger.Named("etcd").WithOptions(zap.IncreaseLevel(level))
	}
	nowhere := url.URL{Scheme: "http", Host: "localhost:1"} // etcd wants an address; none is listened on
	cfg := embed.NewConfig()
	cfg.Name = "kms"
	cfg.Dir = filepath.Join(c.Dir, "etcd")
	cfg.ListenPeerUrls, cfg.ListenClientUrls = nil, nil
	cfg.AdvertisePeerUrls, cfg.AdvertiseClientUrls = []url.URL{nowhere}, []url.URL{nowhere}
	cfg.InitialCluster = cfg.Name + "=" + nowhere.String()
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(logger)
	cfg.TickMs, cfg.ElectionMs = 20, 200 // it elects itself: there is nobody to wait for
	cfg.AutoCompactionMode = embed.CompactorModePeriodic
	cfg.AutoCompactionRetention = cmp.Or(c.Retention, 5*time.Minute).String()
	cfg.QuotaBackendBytes = cmp.Or(c.Quota, defaultQuota)
	cfg.MaxTxnOps = kms.MaxTransaction
	return cfg
}

func (e *embedded) close() error {
	e.etcd.Close()
	return e.lock.Close()
}
