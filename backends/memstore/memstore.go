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
	_ backends.Copier      = (*Store)(nil)
	_ backends.Versioner   = (*Store)(nil)
	_ backends.Tagger      = (*Store)(nil)
	_ backends.Locker      = (*Store)(nil)
)

// Store is a backends.Store with every capability. ETags are 32 random hex digits,
// with "-" and the number of parts behind them where there are parts.
type Store struct {
	mu      sync.Mutex // held for lookups and pointer changes, never while bytes move
	buckets map[string]*bucket
}

type bucket struct {
	created    time.Time
	objects    map[string]history
	keys       keySet // those whose newest version is an object
	all        keySet // those that have versions or markers
	uploads    map[string]*upload
	versioning backends.Versioning
	lock       backends.LockConfig
}

// object is a version or a delete marker. It is never changed once it is in a bucket.
type object struct {
	info   backends.Info
	pieces pieces
	stamp  backends.Stamp
	null   bool // its version is called null
	marker bool
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
	return s.createBucket(ctx, name, "", backends.LockConfig{})
}

func (s *Store) createBucket(ctx context.Context, name string, v backends.Versioning, lock backends.LockConfig) error {
	if err := errors.Join(ctx.Err(), backends.CheckBucket(name)); err != nil {
		return fmt.Errorf("memstore: creating bucket %q: %w", name, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.buckets[name] != nil {
		return fmt.Errorf("memstore: creating bucket %q: %w", name, backends.ErrBucketExists)
	}
	s.buckets[name] = &bucket{
		created: time.Now(), objects: map[string]history{}, uploads: map[string]*upload{}, versioning: v, lock: lock,
	}
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

func (s *Store) store(ctx context.Context, bucketName string, o *object, cond backends.Conditions) (w backends.Written, err error) {
	err = s.with(ctx, bucketName, func(b *bucket) (err error) {
		w, err = b.store(o, cond)
		return err
	})
	return w, err
}

// find describes an object, or a version.
func (s *Store) find(ctx context.Context, id backends.ObjectID) (info backends.Info, p pieces, err error) {
	err = s.with(ctx, id.Bucket, func(b *bucket) error {
		o, err := b.find(id)
		if err == nil {
			info, p = b.describe(o), o.pieces
		}
		return err
	})
	return info, p, err
}

func (s *Store) Get(ctx context.Context, id backends.ObjectID, opts *backends.GetOptions) (*backends.Object, error) {
	if opts == nil {
		opts = &backends.GetOptions{}
	}
	info, p, err := s.find(ctx, id)
	if err == nil {
		err = opts.Conditions.CheckRead(info.ETag, info.Modified)
	}
	if err != nil {
		return nil, wrap(err, "getting", id.Bucket, id.Key)
	}
	r, err := opts.Range.Clip(info.Size)
	if err != nil {
		return nil, wrap(err, "getting", id.Bucket, id.Key)
	}
	return &backends.Object{Info: info, Range: r, Body: p.open(r)}, nil
}

func (s *Store) Head(ctx context.Context, id backends.ObjectID, opts *backends.GetOptions) (backends.Info, error) {
	if opts == nil {
		opts = &backends.GetOptions{}
	}
	info, _, err := s.find(ctx, id)
	if err == nil {
		err = opts.Conditions.CheckRead(info.ETag, info.Modified)
	}
	if err != nil {
		return backends.Info{}, wrap(err, "looking up", id.Bucket, id.Key)
	}
	return info, nil
}

func (s *Store) Delete(ctx context.Context, id backends.ObjectID, opts *backends.DeleteOptions) (d backends.Deleted, err error) {
	if opts == nil {
		opts = &backends.DeleteOptions{}
	}
	err = s.with(ctx, id.Bucket, func(b *bucket) (err error) {
		if id.Version == "" && b.versioning != backends.VersioningOff {
			d, err = b.mark(id.Key, opts.Conditions)
		} else {
			d, err = b.remove(id, opts)
		}
		return err
	})
	return d, wrap(err, "deleting", id.Bucket, id.Key)
}

// Foreign implements backends.Foreigner: keys are kept as they are.
func (s *Store) Foreign(ctx context.Context, bucket string) error { return s.HeadBucket(ctx, bucket) }

func (s *Store) List(ctx context.Context, name string, opts *backends.ListOptions) (page *backends.Page, err error) {
	err = s.with(ctx, name, func(b *bucket) (err error) {
		b.keys.settle(func(key string) bool { return b.objects[key].live() != nil })
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

// Info leaves the attributes to ListPage, which drops all but the metadata. A
// listing names no versions.
func (b *bucket) Info(key string) (backends.Info, error) { return b.objects[key].live().info, nil }

func newObject(key, etag string, attrs backends.Attributes, p pieces) *object {
	attrs = cloned(attrs)
	return &object{info: backends.Info{Key: key, Size: p.size(), ETag: etag, Modified: time.Now(), Attributes: attrs}, pieces: p}
}

// cloned returns attributes whose maps are not the caller's.
func cloned(attrs backends.Attributes) backends.Attributes {
	attrs.Metadata, attrs.Tags = maps.Clone(attrs.Metadata), maps.Clone(attrs.Tags)
	return attrs
}

// describe returns the info with maps that the caller may change.
func (b *bucket) describe(o *object) backends.Info {
	info := o.info
	info.Version, info.TagCount = b.name(o), len(info.Attributes.Tags)
	info.Attributes.Tags = nil
	info.Attributes = cloned(info.Attributes)
	return info
}

func newETag() string {
	b := make([]byte, 16)
	rand.Read(b)
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
		if err == io.EOF {
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

// cut returns a part of the bytes without copying them.
func (p pieces) cut(r backends.Range) pieces {
	var cut pieces
	skip, left := r.Offset, r.Length
	for _, piece := range p {
		if drop := min(skip, int64(len(piece))); drop > 0 {
			piece, skip = piece[drop:], skip-drop
		}
		piece = piece[:min(left, int64(len(piece)))]
		left -= int64(len(piece))
		if len(piece) > 0 {
			cut = append(cut, piece)
		}
	}
	return cut
}

func (p pieces) open(r backends.Range) io.ReadCloser {
	p = p.cut(r)
	if len(p) == 1 {
		return body{bytes.NewReader(p[0])}
	}
	readers := make([]io.Reader, 0, len(p))
	for _, piece := range p {
		readers = append(readers, bytes.NewReader(piece))
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
