package service

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"go.uber.org/zap"

	"chatelaine/kms"
)

// TLSFiles are the PEM files of one end of a mutual TLS connection. They are read
// again when they change; files that do not fit together are reported, and the
// last good ones stay in use.
type TLSFiles struct {
	Cert string // this end's certificate, followed by its chain
	Key  string // its private key
	CA   string // the authorities that the other end's certificate must come from
	// ServerName is what a client expects in the server's certificate; empty means
	// the host of the address. A server does not look at it.
	ServerName string
}

// IsZero says whether nothing is set.
func (f TLSFiles) IsZero() bool { return f == TLSFiles{} }

// load reads the files into a configuration of either end.
func (f TLSFiles) load() (*tls.Config, error) {
	pair, err := tls.LoadX509KeyPair(f.Cert, f.Key)
	if err != nil {
		return nil, fmt.Errorf("reading certificate %q: %w", f.Cert, err)
	}
	pem, err := os.ReadFile(f.CA)
	if err != nil {
		return nil, fmt.Errorf("reading authorities: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%w: no certificate in %q", kms.ErrInvalid, f.CA)
	}
	return &tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{pair},
		RootCAs:      pool,
		ClientCAs:    pool,
		ServerName:   f.ServerName,
		NextProtos:   []string{"h2", "http/1.1"},
	}, nil
}

// serverTLS makes the configuration that of a server: every client must show a
// certificate, at every connection, so sessions are not resumed.
func serverTLS(c *tls.Config) {
	c.ClientAuth = tls.RequireAndVerifyClientCert
	c.SessionTicketsDisabled = true
}

func clientTLS(*tls.Config) {}

// reloader holds the configuration of files that may change.
type reloader struct {
	files TLSFiles
	shape func(*tls.Config)
	log   *zap.Logger

	mu     sync.Mutex
	stamp  [3]fileStamp
	config *tls.Config
}

type fileStamp struct {
	modified time.Time
	size     int64
}

func newReloader(files TLSFiles, shape func(*tls.Config), log *zap.Logger) (*reloader, error) {
	if log == nil {
		log = zap.NewNop()
	}
	r := &reloader{files: files, shape: shape, log: log.Named("tls")}
	if err := r.reload(); err != nil {
		return nil, fmt.Errorf("mutual TLS: %w", err)
	}
	return r, nil
}

// current is the configuration for a connection that is being made now.
func (r *reloader) current() *tls.Config {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.reload(); err != nil {
		r.log.Error("certificate files changed but do not load; the last good ones stay in use", zap.Error(err))
	}
	return r.config
}

// reload loads the files if they changed since the last attempt.
func (r *reloader) reload() error {
	stamp, err := r.files.stamp()
	if err != nil {
		return err
	}
	if r.config != nil && stamp == r.stamp {
		return nil
	}
	config, err := r.files.load()
	if err != nil {
		return err
	}
	r.shape(config)
	r.config, r.stamp = config, stamp
	return nil
}

func (f TLSFiles) stamp() (out [3]fileStamp, err error) {
	for i, path := range []string{f.Cert, f.Key, f.CA} {
		if path == "" {
			return out, errors.New("want the paths of a certificate, its key and an authority")
		}
		info, err := os.Stat(path)
		if err != nil {
			return out, err
		}
		out[i] = fileStamp{modified: info.ModTime(), size: info.Size()}
	}
	return out, nil
}
