// Package s3store keeps sealed objects in S3: on AWS, and on servers that speak its
// protocol.
//
// It moves bodies in one pass and in large pieces, with one request for each call,
// and turns the store's errors into those of the contract. It refuses to know what
// the bytes are, what a bucket is called by the gateway's clients, and the names of
// the gateway's own objects.
package s3store

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go"
	"github.com/aws/smithy-go/logging"
	"go.uber.org/zap"

	"chatelaine/backends"
)

// maxPut is S3's limit of a single PUT and of a part (user guide, "Multipart upload
// limits").
const maxPut = 5 << 30

// A client waits at the other end: what takes longer than these is better told.
const (
	attempts     = 3
	firstBackoff = 100 * time.Millisecond
	maxBackoff   = time.Second
)

// backoff is up to 100 ms before the first repetition, and up to twice as long
// before each one that follows.
func backoff(attempt int, _ error) (time.Duration, error) {
	most := min(firstBackoff<<min(max(attempt-1, 0), 10), maxBackoff)
	return rand.N(most), nil //nolint:gosec // G404: to spread requests, not to hide anything
}

// Store is a backends.Store with all capabilities of that package. Put and PutPart return only
// once Reader is no longer being read, also when their context is cancelled: a
// Reader that blocks must itself end with the context.
type Store struct {
	cfg       Config
	client    *s3.Client
	transport *http.Transport
	patient   *http.Transport // for Complete and copies
	small     sync.Pool       // of *[smallBody]byte
	streaming answers
	complete  answers
}

var (
	_ backends.Store       = (*Store)(nil)
	_ backends.Multiparter = (*Store)(nil)
	_ backends.Copier      = (*Store)(nil)
	_ backends.Versioner   = (*Store)(nil)
	_ backends.Tagger      = (*Store)(nil)
	_ backends.Locker      = (*Store)(nil)
)

// New opens a store. It makes no request: Check does. The store must be closed.
func New(cfg Config) (*Store, error) {
	if err := cfg.complete(); err != nil {
		return nil, fmt.Errorf("s3store: checking the configuration: %w", err)
	}
	roots, err := cfg.roots()
	if err != nil {
		return nil, fmt.Errorf("s3store: %w", err)
	}
	creds, err := cfg.credentials()
	if err != nil {
		return nil, fmt.Errorf("s3store: finding credentials: %w", err)
	}
	d := newDialer(roots, cfg.Stall)
	s := &Store{
		cfg:       cfg,
		transport: newTransport(d, cfg.Stall),
		patient:   newTransport(d, completeFactor*cfg.Stall),
		small:     sync.Pool{New: func() any { return new([smallBody]byte) }},
	}
	s.streaming = answers{transport: s.transport, stall: cfg.Stall, limit: cfg.answers, streams: true}
	s.complete = answers{transport: s.patient, stall: completeFactor * cfg.Stall, limit: cfg.answers}
	s.client = s3.New(s.options(creds))
	return s, nil
}

// Open is New without the capabilities that the dialect's row denies: copies, and
// versions with all that hangs on them.
func Open(cfg Config) (backends.Store, error) {
	s, err := New(cfg)
	if err != nil {
		return nil, err
	}
	return s.offered(), nil
}

func (s *Store) offered() backends.Store {
	d := s.cfg.dialect
	switch {
	case d.Versions == No && d.Copies == No:
		return struct{ plain }{s}
	case d.Versions == No:
		return struct {
			plain
			backends.Copier
		}{s, s}
	case d.Copies == No:
		return struct {
			plain
			backends.Versioner
			backends.Tagger
			backends.Locker
			backends.Lifecycler
		}{s, s, s, s, s}
	}
	return s
}

// Trial is for finding out what a server really does: trial is c with nothing refused
// ahead, own what c makes the store rely on, and row what the table says of the server.
// Facts of own are Unknown where the store sends a condition and hopes.
func (c Config) Trial() (trial Config, own, row Dialect, err error) {
	if err := c.complete(); err != nil {
		return Config{}, Dialect{}, Dialect{}, fmt.Errorf("s3store: checking the configuration: %w", err)
	}
	if row, _, err = DialectOf(c.Dialect, c.Endpoint); err != nil {
		return Config{}, Dialect{}, Dialect{}, err
	}
	own = c.dialect
	own.IfOnDelete, own.IfOnCopy, own.LeadingSlash = factOf(c.ConditionalDelete), factOf(c.ConditionalCopy), factOf(c.LeadingSlash)
	if !row.aws {
		c.Dialect = generic
	}
	c.ConditionalPut, c.ConditionalDelete, c.ConditionalCopy, c.LeadingSlash = true, true, true, true
	return c, own, row, nil
}

func factOf(b bool) Fact {
	if b {
		return Yes
	}
	return No
}

// plain is what every server can do.
type plain interface {
	backends.Store
	backends.Multiparter
	backends.Foreigner
}

// Dialect is the row that the store acts by, and what the configuration made of it.
func (s *Store) Dialect() Dialect { return s.cfg.dialect }

func (c *Config) credentials() (aws.CredentialsProvider, error) {
	if c.AccessKeyID != "" {
		return credentials.NewStaticCredentialsProvider(c.AccessKeyID, c.SecretAccessKey.value, ""), nil
	}
	found, err := config.LoadDefaultConfig(context.Background(), config.WithRegion(c.Region))
	if err != nil {
		return nil, err
	}
	return found.Credentials, nil
}

func (s *Store) options(creds aws.CredentialsProvider) s3.Options {
	disable := true
	return s3.Options{
		BaseEndpoint: optional(s.cfg.Endpoint),
		Region:       s.cfg.Region,
		UsePathStyle: s.cfg.PathStyle,
		Credentials:  creds,
		HTTPClient:   answers{transport: s.transport, stall: s.cfg.Stall, limit: s.cfg.answers},
		Retryer: retry.NewStandard(func(o *retry.StandardOptions) {
			o.MaxAttempts = attempts
			o.Backoff = retry.BackoffDelayerFunc(backoff)
			// S3 throttles by 503; others by 429, which the SDK knows by some codes only.
			o.Retryables = append(o.Retryables, retry.RetryableHTTPStatusCode{Codes: map[int]struct{}{http.StatusTooManyRequests: {}}})
			if s.cfg.dialect.FoldersCollide {
				o.Retryables = append(o.Retryables, retry.RetryableErrorCode{Codes: map[string]struct{}{collision: {}}})
			}
		}),
		// The sealed bytes are authenticated by who opens them, and framed by payload.
		RequestChecksumCalculation:  aws.RequestChecksumCalculationWhenRequired,
		ResponseChecksumValidation:  aws.ResponseChecksumValidationWhenRequired,
		DisableS3ExpressSessionAuth: &disable,
		Logger:                      zapLogger{s.cfg.Logger.Named("s3store")},
	}
}

// once is for calls that must not be repeated: what an answer that was lost has
// done would be taken for what somebody else did.
func once(o *s3.Options) { o.Retryer = aws.NopRetryer{} }

// Check lists the buckets. An account that may not do that is fine: the store knew
// it and answered.
func (s *Store) Check(ctx context.Context) error {
	one := int32(1)
	_, err := s.client.ListBuckets(ctx, &s3.ListBucketsInput{MaxBuckets: &one})
	var api smithy.APIError
	if errors.As(err, &api) && api.ErrorCode() == "AccessDenied" {
		return nil
	}
	return wrap(ctx, "checking the store", backends.ErrUnavailable, err)
}

// Close hangs up connections that are idle. The error is nil.
func (s *Store) Close() error {
	s.transport.CloseIdleConnections()
	s.patient.CloseIdleConnections()
	return nil
}

// MaxPut is 5 GiB.
func (*Store) MaxPut() int64 { return maxPut }

type zapLogger struct{ log *zap.Logger }

// Logf implements logging.Logger.
func (l zapLogger) Logf(class logging.Classification, format string, v ...any) {
	log := l.log.Debug
	if class == logging.Warn {
		log = l.log.Warn
	}
	log(fmt.Sprintf(format, v...))
}
