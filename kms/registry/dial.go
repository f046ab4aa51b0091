package registry

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"chatelaine/kms"
)

// DialConfig says where an external etcd is.
type DialConfig struct {
	// Endpoints are URLs: https://host:port; http:// for loopback addresses only.
	Endpoints []string
	// TLS holds the certificate authority of the cluster and the client's own
	// certificate. It may be nil when all endpoints are http.
	TLS *tls.Config
	// Timeout of one read or transaction; 0 means 5 s.
	Timeout time.Duration
	// Quota is the length of the members' files in bytes up to which the cluster is used.
	// 0 means the cluster's own quota; of one that does not tell it (before etcd 3.6),
	// 2 GiB, which is etcd's default.
	Quota  int64
	Logger *zap.Logger
}

// Dial connects to an external etcd cluster and makes sure that it answers, or
// returns kms.ErrUnavailable. The caller closes the Store.
func Dial(ctx context.Context, c DialConfig) (*Store, error) {
	if err := c.validate(); err != nil {
		return nil, fmt.Errorf("registry: dialling etcd: %w", err)
	}
	logger := zap.NewNop()
	if c.Logger != nil {
		logger = c.Logger.Named("etcd").WithOptions(zap.IncreaseLevel(zap.WarnLevel))
	}
	client, err := clientv3.New(clientv3.Config{
		Endpoints:            c.Endpoints,
		TLS:                  c.TLS,
		Logger:               logger,
		DialKeepAliveTime:    10 * time.Second,
		DialKeepAliveTimeout: 5 * time.Second,
	})
	if err != nil {
		return nil, fmt.Errorf("registry: dialling etcd: %w", err)
	}
	s := &Store{client: client, timeout: cmp.Or(c.Timeout, 5*time.Second), quota: c.Quota}
	if err := s.Check(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("registry: dialling etcd: %w", err), s.Close())
	}
	return s, nil
}

func (c DialConfig) validate() error {
	if len(c.Endpoints) == 0 {
		return fmt.Errorf("%w: no endpoints", kms.ErrInvalid)
	}
	var errs []error
	if c.Quota < 0 {
		errs = append(errs, fmt.Errorf("%w: quota of %d bytes", kms.ErrInvalid, c.Quota))
	}
	for _, endpoint := range c.Endpoints {
		errs = append(errs, c.validateEndpoint(endpoint))
	}
	return errors.Join(errs...)
}

func (c DialConfig) validateEndpoint(endpoint string) error {
	u, err := url.Parse(endpoint)
	if err != nil {
		return fmt.Errorf("%w: endpoint: %w", kms.ErrInvalid, err)
	}
	switch {
	case u.Scheme == "https" && c.TLS != nil:
		return nil
	case u.Scheme == "https":
		return fmt.Errorf("%w: endpoint %q needs TLS settings", kms.ErrInvalid, endpoint)
	case u.Scheme == "http" && isLoopback(u.Hostname()):
		return nil
	default:
		return fmt.Errorf("%w: endpoint %q: want https://host:port", kms.ErrInvalid, endpoint)
	}
}

// isLoopback says whether a host may be spoken to without TLS.
func isLoopback(host string) bool {
	return host == "localhost" || net.ParseIP(host).IsLoopback()
}
