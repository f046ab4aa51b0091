// Package keystest is a keyring in memory, for tests of what lies above the KMS.
package keystest

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"sort"
	"sync"
	"time"

	"chatelaine/gateway/keys"
	"chatelaine/gateway/sealed"
)

// Ring does what keys.Client does, from maps. It may be used concurrently.
type Ring struct {
	mu      sync.Mutex
	buckets map[string]keys.Bucket
	keys    map[keys.Space][]keys.BucketKey // the last is current
	users   map[string]user
	fail    error
	work    keys.Work
	sweeps  []keys.Sweep
	record  func(space keys.Space, id [16]byte, raw []byte) []byte

	adoptions map[string]keys.Adoption
	runners   map[string]string
	ended     map[string]keys.AdoptionProgress
	ledgers   ledgers
}

type user struct{ secret, principal string }

// New makes an empty Ring.
func New() *Ring {
	return &Ring{
		buckets: map[string]keys.Bucket{}, keys: map[keys.Space][]keys.BucketKey{}, users: map[string]user{},
		adoptions: map[string]keys.Adoption{}, runners: map[string]string{}, ended: map[string]keys.AdoptionProgress{},
	}
}

// AddUser makes an access key.
func (r *Ring) AddUser(id, secret, principal string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.users[id] = user{secret, principal}
}

// RecordWith has the records of keys that are made from now on be what f returns, where
// they are to be real mirrors.
func (r *Ring) RecordWith(f func(space keys.Space, id [16]byte, raw []byte) []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.record = f
}

// Fail makes every call answer err until it is called with nil.
func (r *Ring) Fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fail = err
}

// NewEpoch gives a bucket a new current key.
func (r *Ring) NewEpoch(b keys.Bucket) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.newKey(b.Space)
}

func (r *Ring) newKey(space keys.Space) keys.BucketKey {
	var id [16]byte
	raw := make([]byte, 32)
	_, _ = rand.Read(id[:])
	_, _ = rand.Read(raw)
	key, err := sealed.NewKey(raw)
	if err != nil {
		panic(err)
	}
	bk := keys.BucketKey{ID: id, Key: key, Record: append([]byte("record of "), id[:]...)}
	if r.record != nil {
		bk.Record = r.record(space, id, raw)
	}
	r.keys[space] = append(r.keys[space], bk)
	return bk
}

// Bucket is keys.Client's.
func (r *Ring) Bucket(_ context.Context, name string) (keys.Bucket, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	b, ok := r.buckets[name]
	if r.fail == nil && !ok {
		return b, keys.ErrBucketNotFound
	}
	return b, r.fail
}

// Buckets is keys.Client's.
func (r *Ring) Buckets(context.Context) ([]keys.Bucket, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []keys.Bucket
	for _, b := range r.buckets {
		out = append(out, b)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Name < out[j].Name })
	return out, r.fail
}

// RegisterBucket is keys.Client's.
func (r *Ring) RegisterBucket(_ context.Context, n keys.NewBucket) (keys.Bucket, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.fail != nil {
		return keys.Bucket{}, r.fail
	}
	if b, ok := r.buckets[n.Name]; ok && b.Owner == n.Owner {
		return b, keys.ErrBucketOwned
	} else if ok {
		return keys.Bucket{}, keys.ErrBucketExists
	}
	b := keys.Bucket{Name: n.Name, Store: n.Store, StoreName: n.StoreName, Owner: n.Owner, KEK: "main", MD5: n.MD5, Created: time.Now()}
	_, _ = rand.Read(b.Space[:])
	r.buckets[n.Name] = b
	return b, nil
}

// ActivateBucket is keys.Client's.
func (r *Ring) ActivateBucket(_ context.Context, name string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	b, ok := r.buckets[name]
	if !ok {
		return keys.ErrBucketNotFound
	}
	b.Active = true
	r.buckets[name] = b
	return r.fail
}

// RemoveBucket is keys.Client's.
func (r *Ring) RemoveBucket(_ context.Context, name string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.fail == nil {
		delete(r.keys, r.buckets[name].Space)
		delete(r.buckets, name)
	}
	return r.fail
}

// Current is keys.Client's.
func (r *Ring) Current(_ context.Context, b keys.Bucket) (keys.BucketKey, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.fail != nil {
		return keys.BucketKey{}, r.fail
	}
	if r.buckets[b.Name].Shredded {
		return keys.BucketKey{}, keys.ErrBlocked
	}
	if all := r.keys[b.Space]; len(all) > 0 {
		return all[len(all)-1], nil
	}
	return r.newKey(b.Space), nil
}

// ByID is keys.Client's.
func (r *Ring) ByID(_ context.Context, b keys.Bucket, id [16]byte) (keys.BucketKey, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, bk := range r.keys[b.Space] {
		if bk.ID == id && r.fail == nil {
			return bk, nil
		}
	}
	if r.fail != nil {
		return keys.BucketKey{}, r.fail
	}
	if r.buckets[b.Name].Shredded {
		return keys.BucketKey{}, keys.ErrBlocked
	}
	return keys.BucketKey{}, keys.ErrKeyNotFound
}

// ConfirmMirror is keys.Client's.
func (r *Ring) ConfirmMirror(_ context.Context, b keys.Bucket, id [16]byte, _ []byte) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, bk := range r.keys[b.Space] {
		if bk.ID == id {
			r.keys[b.Space][i].Mirrored = true
		}
	}
	return r.fail
}

// RefuseBucket is keys.Client's.
func (r *Ring) RefuseBucket(ctx context.Context, name string) error {
	if b, err := r.Bucket(ctx, name); err != nil || b.Active {
		return err
	}
	return r.RemoveBucket(ctx, name)
}

// Ask makes w the answer of the next Work.
func (r *Ring) Ask(w keys.Work) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.work = w
}

// Work is keys.Client's: here it is what Ask was given, once.
func (r *Ring) Work(context.Context) (keys.Work, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	w := r.work
	r.work = keys.Work{}
	return w, r.fail
}

// Swept is keys.Client's.
func (r *Ring) Swept(_ context.Context, s keys.Sweep) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sweeps = append(r.sweeps, s)
	return r.fail
}

// Sweeps are what Swept was told.
func (r *Ring) Sweeps() []keys.Sweep {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.sweeps
}

// Shred takes the keys of a bucket away, as the KMS does.
func (r *Ring) Shred(name string) keys.Bucket {
	r.mu.Lock()
	defer r.mu.Unlock()
	b := r.buckets[name]
	b.Shredded = true
	r.buckets[name] = b
	delete(r.keys, b.Space)
	return b
}

// Live is keys.Client's.
func (r *Ring) Live([16]byte) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.fail
}

// SigningKey is keys.Client's.
func (r *Ring) SigningKey(_ context.Context, accessKeyID, date, region, service string) (keys.SigningKey, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	u, ok := r.users[accessKeyID]
	if r.fail != nil {
		return keys.SigningKey{}, r.fail
	}
	if !ok {
		return keys.SigningKey{}, keys.ErrAccessKeyNotFound
	}
	key := []byte("AWS4" + u.secret)
	for _, part := range []string{date, region, service, "aws4_request"} {
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte(part))
		key = mac.Sum(nil)
	}
	return keys.NewSigningKey([32]byte(key), u.principal), nil
}
