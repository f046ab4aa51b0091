// Package memstore is a store in memory, for tests and benchmarks. It answers as
// S3 does, with its limits and its errors.
//
// It refuses to know of durability: what it holds is gone with the process.
package memstore

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"chatelaine/backends"
)

var (
	_ backends.Store       = (*Store)(nil)
	_ backends.Multiparter = (*Store)(nil)
)

// Store is a backends.Store and a backends.Multiparter. ETags are 32 random hex
// digits, with "-" and the number of parts behind them where there are parts.
type Store struct {
	mu      sync.Mutex // held for lookups and pointer changes, never while bytes move
	buckets map[string]*bucket
}

type bucket struct {
	created time.Time
	objects map[string]*object
	keys    keySet
	uploads map[string]*upload
}

// object is never changed once it is in a bucket.
type object struct {
	info   backends.Info
	pieces pieces
}

// New returns an empty store.
func New() *Store { return &Store{buckets: map[string]*bucket{}} }

// Check always succeeds.
func (*Store) Check(ctx context.Context) error { return ctx.Err() }

// Close does nothing.
func (*Store) Close() error { return nil }

// with runs do with the bucket, locked.
func (s *Store) with(ctx context.Context, name string, do func(*bucket) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	b, ok := s.buckets[name]
	if !ok {
		return backends.ErrBucketNotFound
	}
	return do(b)
}

func (s *Store) CreateBucket(ctx context.Context, name string) error {
	if err := errors.Join(ctx.Err(), backends.CheckBucket(name)); err != nil {
		return fmt.Errorf("memstore: creating bucket %q: %w", name, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.buckets[name] != nil {
		return fmt.Errorf("memstore: creating bucket %q: %w", name, backends.ErrBucketExists)
	}
	s.buckets[name] = &bucket{created: time.Now(), objects: map[string]*object{}, uploads: map[string]*upload{}}
	return nil
}

func (s *Store) DeleteBucket(ctx context.Context, name string) error {
	err := s.with(ctx, name, func(b *bucket) error {
		if len(b.objects) > 0 {
			return backends.ErrBucketNotEmpty
		}
		delete(s.buckets, name)
		return nil
	})
	return wrap(err, "deleting bucket", name, "")
}

func (s *Store) HeadBucket(ctx context.Context, name string) error {
	return wrap(s.with(ctx, name, func(*bucket) error { return nil }), "looking up bucket", name, "")
}

func (s *Store) ListBuckets(ctx context.Context) ([]backends.BucketInfo, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	infos := make([]backends.BucketInfo, 0, len(s.buckets))
	for _, name := range slices.Sorted(maps.Keys(s.buckets)) {
		infos = append(infos, backends.BucketInfo{Name: name, Created: s.buckets[name].created})
	}
	return infos, ctx.Err()
}

func (s *Store) Put(ctx context.Context, id backends.ObjectID, body backends.Body, opts *backends.PutOptions) (backends.Written, error) {
	if opts == nil {
		opts = &backends.PutOptions{}
	}
	w, err := s.put(ctx, id, body, opts)
	return w, wrap(err, "putting", id.Bucket, id.Key)
}

func (s *Store) put(ctx context.Context, id backends.ObjectID, body backends.Body, opts *backends.PutOptions) (backends.Written, error) {
	if err := errors.Join(backends.CheckKey(id.Key), opts.Attributes.Check(), s.HeadBucket(ctx, id.Bucket)); err != nil {
		return backends.Written{}, err
	}
	data, err := readBody(ctx, body)
	if err != nil {
		return backends.Written{}, err
	}
	return s.store(ctx, id.Bucket, newObject(id.Key, newETag(), opts.Attributes, data), opts.Conditions)
}

func (s *Store) store(ctx context.Context, bucketName string, o *object, cond backends.Conditions) (backends.Written, error) {
	err := s.with(ctx, bucketName, func(b *bucket) error { return b.store(o, cond) })
	if err != nil {
		return backends.Written{}, err
	}
	return backends.Written{ETag: o.info.ETag, Modified: o.info.Modified}, nil
}

func (b *bucket) store(o *object, cond backends.Conditions) error {
	old, exists := b.objects[o.info.Key]
	if exists {
		if err := cond.CheckWrite(old.info.ETag, old.info.Modified, true); err != nil {
			return err
		}
	} else if err := cond.CheckWrite("", time.Time{}, false); err != nil {
		return err
	}
	if !exists {
		b.keys.add(o.info.Key)
	}
	b.objects[o.info.Key] = o
	return nil
}

func (s *Store) find(ctx context.Context, id backends.ObjectID) (o *object, err error) {
	err = s.with(ctx, id.Bucket, func(b *bucket) error {
		o = b.objects[id.Key]
		if o == nil || id.Version != "" {
			return backends.ErrNotFound
		}
		return nil
	})
	return o, err
}

func (s *Store) Get(ctx context.Context, id backends.ObjectID, opts *backends.GetOptions) (*backends.Object, error) {
	if opts == nil {
		opts = &backends.GetOptions{}
	}
	o, err := s.find(ctx, id)
	if err != nil {
		return nil, wrap(err, "getting", id.Bucket, id.Key)
	}
	if err := opts.Conditions.CheckRead(o.info.ETag, o.info.Modified); err != nil {
		return nil, wrap(err, "getting", id.Bucket, id.Key)
	}
	r, err := opts.Range.Clip(o.info.Size)
	if err != nil {
		return nil, wrap(err, "getting", id.Bucket, id.Key)
	}
	return &backends.Object{Info: o.describe(), Range: r, Body: o.pieces.open(r)}, nil
}

func (s *Store) Head(ctx context.Context, id backends.ObjectID, opts *backends.GetOptions) (backends.Info, error) {
	if opts == nil {
		opts = &backends.GetOptions{}
	}
	o, err := s.find(ctx, id)
	if err == nil {
		err = opts.Conditions.CheckRead(o.info.ETag, o.info.Modified)
	}
	if err != nil {
		return backends.Info{}, wrap(err, "looking up", id.Bucket, id.Key)
	}
	return o.describe(), nil
}

func (s *Store) Delete(ctx context.Context, id backends.ObjectID, opts *backends.DeleteOptions) (backends.Deleted, error) {
	if opts == nil {
		opts = &backends.DeleteOptions{}
	}
	err := s.with(ctx, id.Bucket, func(b *bucket) error {
		o, ok := b.objects[id.Key]
		if !ok || id.Version != "" {
			return opts.Conditions.CheckWrite("", time.Time{}, false)
		}
		if err := opts.Conditions.CheckWrite(o.info.ETag, o.info.Modified, true); err != nil {
			return err
		}
		delete(b.objects, id.Key)
		b.keys.remove()
		return nil
	})
	return backends.Deleted{}, wrap(err, "deleting", id.Bucket, id.Key)
}

func (s *Store) List(ctx context.Context, name string, opts *backends.ListOptions) (page *backends.Page, err error) {
	err = s.with(ctx, name, func(b *bucket) (err error) {
		b.keys.settle(func(key string) bool { return b.objects[key] != nil })
		page, err = backends.ListPage(ctx, b, opts)
		return err
	})
	return page, wrap(err, "listing", name, "")
}

// Ceil and Info make a settled bucket a backends.Keys.
func (b *bucket) Ceil(from string) (string, bool, error) {
	key, ok := b.keys.ceil(from)
	return key, ok, nil
}

func (b *bucket) Info(key string) (backends.Info, error) { return b.objects[key].info, nil }

func newObject(key, etag string, attrs backends.Attributes, p pieces) *object {
	attrs.Metadata = maps.Clone(attrs.Metadata)
	return &object{backends.Info{Key: key, Size: p.size(), ETag: etag, Modified: time.Now(), Attributes: attrs}, p}
}

// describe returns the info with metadata that the caller may change.
func (o *object) describe() backends.Info {
	info := o.info
	info.Attributes.Metadata = maps.Clone(info.Attributes.Metadata)
	return info
}

func newETag() string {
	b := make([]byte, 16)
	rand.Read(b) //nolint:errcheck // crypto/rand.Read never fails
	return hex.EncodeToString(b)
}

const (
	step     = 1<<20 + 64<<10 // bytes of a read: room for 64 sealed chunks
	maxPiece = 32 << 20
)

// readBody reads in steps, so that a cancelled context ends it, and into pieces, so
// that nothing is copied and a false size costs no more than one.
func readBody(ctx context.Context, body backends.Body) (p pieces, err error) {
	if body.Size > backends.MaxPart {
		return nil, backends.ErrTooLarge
	}
	r, left := body.Exactly(), body.Size
	for piece := []byte(nil); ; {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if len(piece) == cap(piece) {
			p, piece = append(p, piece), make([]byte, 0, max(1, min(left, maxPiece)))
		}
		n, err := r.Read(piece[len(piece):min(cap(piece), len(piece)+step)])
		piece, left = piece[:len(piece)+n], left-int64(n)
		if err == io.EOF { //nolint:errorlint // exactReader returns it bare
			return append(p, piece), nil
		}
		if err != nil {
			return nil, err
		}
	}
}

// pieces are the bytes of an object; some may be empty.
type pieces [][]byte

func (p pieces) size() (n int64) {
	for _, piece := range p {
		n += int64(len(piece))
	}
	return n
}

func (p pieces) open(r backends.Range) io.ReadCloser {
	readers := make([]io.Reader, 0, len(p))
	skip, left := r.Offset, r.Length
	for _, piece := range p {
		if drop := min(skip, int64(len(piece))); drop > 0 {
			piece, skip = piece[drop:], skip-drop
		}
		piece = piece[:min(left, int64(len(piece)))]
		left -= int64(len(piece))
		if len(piece) > 0 {
			readers = append(readers, bytes.NewReader(piece))
		}
	}
	if len(readers) == 1 {
		return body{readers[0].(*bytes.Reader)}
	}
	return io.NopCloser(io.MultiReader(readers...))
}

// body keeps bytes.Reader's WriteTo.
type body struct{ *bytes.Reader }

func (body) Close() error { return nil }

// keySet is a sorted set for many additions between listings.
type keySet struct {
	sorted []string
	fresh  []string // added since, unsorted
	stale  bool     // sorted or fresh hold keys that have gone
}

func (k *keySet) add(key string) { k.fresh = append(k.fresh, key) }
func (k *keySet) remove()        { k.stale = true }

// settle sorts the keys and drops those that live denies.
func (k *keySet) settle(live func(string) bool) {
	if len(k.fresh) > 0 {
		all := append(k.sorted, k.fresh...)
		slices.Sort(all)
		k.sorted, k.fresh = slices.Compact(all), nil
	}
	if k.stale {
		k.sorted = slices.DeleteFunc(k.sorted, func(key string) bool { return !live(key) })
		k.stale = false
	}
}

func (k *keySet) ceil(from string) (string, bool) {
	i, _ := slices.BinarySearch(k.sorted, from)
	if i == len(k.sorted) {
		return "", false
	}
	return k.sorted[i], true
}

func wrap(err error, doing, bucket, key string) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("memstore: %s %q: %w", doing, strings.TrimSuffix(bucket+"/"+key, "/"), err)
}
