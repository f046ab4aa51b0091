package objects

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"sync/atomic"
	"time"
	"unicode/utf8"

	lru "github.com/hashicorp/golang-lru/v2"
	"go.uber.org/zap"

	"chatelaine/backends"
	"chatelaine/gateway/keys"
	"chatelaine/gateway/sealed"
)

// Keyring is where buckets and their keys come from: keys.Client outside of tests.
type Keyring interface {
	Bucket(ctx context.Context, name string) (keys.Bucket, error)
	Buckets(ctx context.Context) ([]keys.Bucket, error)
	RegisterBucket(ctx context.Context, b keys.NewBucket) (keys.Bucket, error)
	ActivateBucket(ctx context.Context, name string) error
	RemoveBucket(ctx context.Context, name string) error
	Current(ctx context.Context, b keys.Bucket) (keys.BucketKey, error)
	ByID(ctx context.Context, b keys.Bucket, id [16]byte) (keys.BucketKey, error)
	ConfirmMirror(ctx context.Context, b keys.Bucket, id [16]byte, record []byte) error
	RefuseBucket(ctx context.Context, name string) error
	Work(ctx context.Context) (keys.Work, error)
	Swept(ctx context.Context, s keys.Sweep) error
	BeginAdoption(ctx context.Context, b keys.Bucket, runner string, cutOff time.Time) error
	Adopt(ctx context.Context, p keys.AdoptionProgress) (keys.Adoption, error)
	Live(id [16]byte) error
	LookLedger(ctx context.Context, b keys.Bucket, name keys.Mark) (keys.LedgerView, error)
	BeginWrite(ctx context.Context, a keys.LedgerAttempt) error
	EndWrite(ctx context.Context, a keys.LedgerAttempt, applied bool) error
	SettleLedger(ctx context.Context, s keys.Sighting) error
	Learn(ctx context.Context, l keys.LedgerLesson) (cursor []byte, err error)
}

// Config is what a Service needs.
type Config struct {
	Keys Keyring
	// Stores are the backends by the names that buckets know them under. The
	// Service does not close them.
	Stores map[string]backends.Store
	// DefaultStore is where CreateBucket makes buckets, with Prefix before the name.
	DefaultStore string
	Prefix       string
	// Offered are stores that CreateBucketOn may name beside the default one.
	Offered []string
	// MD5Buckets are patterns (path.Match) of the names of new buckets whose ETags
	// shall be MD5s. It is decided when a bucket is made.
	MD5Buckets []string
	Logger     *zap.Logger
	// Suite is the zero value but in tests.
	Suite sealed.Suite
	// Tables is how many part tables of multipart objects are kept: about 64 bytes
	// a part. 0 means 1024.
	Tables int
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// Service serves plaintext objects out of sealed ones. All methods may run
// concurrently.
type Service struct {
	keys    Keyring
	stores  map[string]backends.Store
	store   string
	offered []string
	prefix  string
	log     *zap.Logger
	suite   sealed.Suite
	tables  *lru.Cache[tableKey, cachedTable]
	stashes *lru.Cache[stashKey, []byte]
	configs *lru.Cache[configKey, cachedConfig]
	etags   *lru.Cache[etagKey, string]
	md5     []string
	now     func() time.Time
	streams atomic.Int64
	metrics *metrics
	limits  adoptLimits
}

// New makes a Service, or says all that is wrong with its Config.
func New(c Config) (*Service, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	if c.Suite.Buffers == nil {
		c.Suite.Buffers = &sealed.Buffers{}
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Tables == 0 {
		c.Tables = 1024
	}
	tables, err := lru.New[tableKey, cachedTable](c.Tables)
	if err != nil {
		return nil, fmt.Errorf("objects: making the table cache: %w", err)
	}
	stashes, err := lru.New[stashKey, []byte](4096)
	if err != nil {
		return nil, fmt.Errorf("objects: making the stash cache: %w", err)
	}
	configs, err := lru.New[configKey, cachedConfig](configEntries)
	if err != nil {
		return nil, fmt.Errorf("objects: making the configuration cache: %w", err)
	}
	etags, err := lru.New[etagKey, string](etagEntries)
	if err != nil {
		return nil, fmt.Errorf("objects: making the ETag cache: %w", err)
	}
	return &Service{
		keys: c.Keys, stores: c.Stores, store: c.DefaultStore, offered: c.Offered, prefix: c.Prefix, log: c.Logger.Named("objects"),
		suite: c.Suite, tables: tables, stashes: stashes, configs: configs, etags: etags, md5: c.MD5Buckets, now: c.Now,
		metrics: newMetrics(), limits: defaultAdoptLimits(),
	}, nil
}

func (c Config) check() error {
	var errs []error
	if c.Keys == nil || c.Logger == nil {
		errs = append(errs, errors.New("objects: Keys and Logger must be given"))
	}
	if c.Stores[c.DefaultStore] == nil {
		errs = append(errs, fmt.Errorf("objects: default store %q is not among the stores", c.DefaultStore))
	}
	for _, name := range c.Offered {
		if c.Stores[name] == nil {
			errs = append(errs, fmt.Errorf("objects: store %q, which is offered, is not among the stores", name))
		}
	}
	for _, pattern := range c.MD5Buckets {
		if _, err := path.Match(pattern, ""); err != nil {
			errs = append(errs, fmt.Errorf("objects: reading the pattern %q: %w", pattern, err))
		}
	}
	return errors.Join(errs...)
}

// wantsMD5 says whether a new bucket's ETags shall be MD5s.
func (s *Service) wantsMD5(bucket string) bool {
	return slices.ContainsFunc(s.md5, func(pattern string) bool {
		ok, err := path.Match(pattern, bucket)
		return ok && err == nil
	})
}

// storeOf finds the backend that holds a bucket.
func (s *Service) storeOf(b keys.Bucket) (backends.Store, error) {
	store, ok := s.stores[b.Store]
	if !ok {
		return nil, fmt.Errorf("objects: bucket %q lies on backend %q, which is not configured here: %w", b.Name, b.Store, backends.ErrUnavailable)
	}
	return store, nil
}

// multiparter finds the backend of a bucket as one that takes uploads in parts.
func (s *Service) multiparter(b keys.Bucket) (backends.Store, backends.Multiparter, error) {
	store, err := s.storeOf(b)
	if err != nil {
		return nil, nil, err
	}
	mp, ok := backends.As[backends.Multiparter](store)
	if !ok {
		return nil, nil, fmt.Errorf("objects: uploading in parts: %w", ErrUnsupported)
	}
	return store, mp, nil
}

// checkKey refuses names that no client may use.
func checkKey(key string) error {
	switch {
	case key == "" || len(key) > MaxKey || !utf8.ValidString(key):
		return fmt.Errorf("objects: %w", ErrKeyName)
	case Reserved(key):
		return fmt.Errorf("objects: %w", ErrReserved)
	}
	return nil
}

func nameOf(b keys.Bucket, key string) sealed.ObjectName {
	return sealed.ObjectName{Space: sealed.Space(b.Space), Key: key}
}

func idOf(b keys.Bucket, key, version string) backends.ObjectID {
	return backends.ObjectID{Bucket: b.StoreName, Key: key, Version: version}
}

// stream counts a running transfer of n plaintext bytes and says how many chunks
// it may work on at once: the more transfers, the fewer, so that memory stays
// within 2 MiB for each. The caller calls done when the transfer has ended.
func (s *Service) stream(size int64) (o sealed.Options, done func()) {
	n := s.streams.Add(1)
	switch {
	case n > 16:
		o.Batch = 16
	case n > 8:
		o.Batch = 32
	default:
		o.Batch = sealed.MaxBatch
	}
	o.Batch = int(min(int64(o.Batch), size/sealed.ChunkSize+1))
	var once atomic.Bool
	return o, func() {
		if once.CompareAndSwap(false, true) {
			s.streams.Add(-1)
		}
	}
}
