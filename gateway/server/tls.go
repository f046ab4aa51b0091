package server

import (
	"crypto/tls"
	"fmt"
	"os"
	"sync"

	"go.uber.org/zap"
)

// TLS names the files of a certificate chain and its key, in PEM. They are looked at
// at every handshake, and read again when they have changed.
type TLS struct{ CertFile, KeyFile string }

// config loads the pair, so that a bad one is a start-up error. A nil TLS gives nil.
func (t *TLS) config(logger *zap.Logger) (*tls.Config, error) {
	if t == nil {
		return nil, nil
	}
	pair := &pair{files: *t, logger: logger}
	if err := pair.load(pair.stamp()); err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		NextProtos: []string{"http/1.1"},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return pair.current(), nil
		},
	}, nil
}

// pair is a certificate with its key as the files last held them in a usable state.
type pair struct {
	files  TLS
	logger *zap.Logger

	mu     sync.Mutex
	seen   stamp // of the last attempt, a failed one too
	loaded *tls.Certificate
}

// stamp tells whether two files are those that were read. Both are followed through
// symbolic links, which is how Kubernetes and certbot replace them. A file that is
// not there is nil.
type stamp [2]os.FileInfo

func (p *pair) stamp() stamp {
	var s stamp
	for i, name := range []string{p.files.CertFile, p.files.KeyFile} {
		if info, err := os.Stat(name); err == nil {
			s[i] = info
		}
	}
	return s
}

func (s stamp) equal(other stamp) bool {
	for i, a := range s {
		b := other[i]
		if a == nil || b == nil {
			if a != b {
				return false
			}
			continue
		}
		// Times alone are not enough: they move in steps of milliseconds.
		if !os.SameFile(a, b) || a.Size() != b.Size() || !a.ModTime().Equal(b.ModTime()) {
			return false
		}
	}
	return true
}

// current is the certificate for a handshake that begins now. A new pair that does
// not load, for instance because only one file has been replaced yet, leaves the
// old one in use; it is logged once for each change.
func (p *pair) current() *tls.Certificate {
	now := p.stamp()
	p.mu.Lock()
	defer p.mu.Unlock()
	if now.equal(p.seen) {
		return p.loaded
	}
	if err := p.load(now); err != nil {
		p.logger.Error("certificate changed and does not load; the old one stays in use", zap.Error(err))
		return p.loaded
	}
	p.logger.Info("certificate loaded again", zap.String("file", p.files.CertFile))
	return p.loaded
}

// load reads the pair. The stamp is taken before the reading: a change in between
// is seen at the next handshake.
func (p *pair) load(at stamp) error {
	p.seen = at
	cert, err := tls.LoadX509KeyPair(p.files.CertFile, p.files.KeyFile)
	if err != nil {
		return fmt.Errorf("server: loading certificate %q with key %q: %w", p.files.CertFile, p.files.KeyFile, err)
	}
	p.loaded = &cert
	return nil
}
