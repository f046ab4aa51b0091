package objects

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"chatelaine/backends"
	"chatelaine/gateway/keys"
	"chatelaine/gateway/sealed"
)

// configPrefix begins the names of what clients configure on a bucket and the
// gateway itself acts on, or gives back: CORS rules, tags, lifecycle rules. They are sealed like objects, so that
// a provider can neither read nor change them.
const configPrefix = ReservedPrefix + "config/"

const (
	// MaxConfig is the longest configuration, in bytes.
	MaxConfig     = 256 << 10
	configTTL     = 10 * time.Second // how long another gateway's change may go unseen
	configEntries = 4096
)

// ErrNoConfig: the bucket has no configuration of that name.
var ErrNoConfig = errors.New("bucket has no such configuration")

type configKey struct {
	space keys.Space
	name  string
}

// cachedConfig is what was read, and when; nil bytes stand for what is not there.
type cachedConfig struct {
	data []byte
	read time.Time
}

// BucketConfig reads a configuration: ErrNoConfig where there is none. Another
// gateway's change is seen after ten seconds at the latest.
func (s *Service) BucketConfig(ctx context.Context, b keys.Bucket, name string) ([]byte, error) {
	key := configKey{b.Space, name}
	c, ok := s.configs.Get(key)
	if !ok || s.now().Sub(c.read) > configTTL {
		c = cachedConfig{read: s.now()}
		var err error
		if c.data, err = s.readConfig(ctx, b, name); err != nil && !errors.Is(err, backends.ErrNotFound) {
			return nil, wrap(err, "reading the configuration of", b)
		}
		s.configs.Add(key, c)
	}
	if c.data == nil {
		return nil, ErrNoConfig
	}
	return c.data, nil
}

func (s *Service) readConfig(ctx context.Context, b keys.Bucket, name string) ([]byte, error) {
	store, err := s.storeOf(b)
	if err != nil {
		return nil, err
	}
	key := configPrefix + name
	q := &query{Service: s, ctx: ctx, r: GetRequest{Bucket: b, Key: key}, store: store, id: idOf(b, key, "")}
	reader, err := q.get()
	if err != nil {
		return nil, err
	}
	defer func() { _ = reader.Close() }()
	if reader.Span.Length > MaxConfig {
		return nil, fmt.Errorf("%w: a configuration of %d bytes", sealed.ErrCorrupt, reader.Span.Length)
	}
	out := bytes.NewBuffer(make([]byte, 0, reader.Span.Length+1)) // never nil, also when empty
	_, err = reader.WriteTo(out)
	return out.Bytes(), err
}

// SetBucketConfig stores a configuration of at most MaxConfig bytes; nil removes it.
func (s *Service) SetBucketConfig(ctx context.Context, b keys.Bucket, name string, data []byte) error {
	defer s.configs.Remove(configKey{b.Space, name})
	store, err := s.storeOf(b)
	if err != nil {
		return err
	}
	if data == nil {
		_, err := store.Delete(ctx, idOf(b, configPrefix+name, ""), nil)
		return wrap(err, "removing a configuration of", b)
	}
	if len(data) > MaxConfig {
		return wrap(ErrBodyTooLarge, "storing a configuration of", b)
	}
	bk, err := s.sealingKey(ctx, b, store)
	if err != nil {
		return err
	}
	b.MD5 = false // nobody asks for its ETag
	r := PutRequest{Bucket: b, Key: configPrefix + name, Body: bytes.NewReader(data), Size: int64(len(data))}
	_, err = s.sealAndStore(ctx, store, bk, r)
	return wrap(err, "storing a configuration of", b)
}
