// Package keys is the gateway's side of the KMS: buckets, bucket keys and signing
// keys, cached for as long as a lease and their own time to live allow.
//
// It refuses to know KEKs, PINs and long-term secrets: none of them ever reach a
// gateway.
package keys

import (
	"errors"
	"fmt"
	"io"
	"time"

	"chatelaine/gateway/sealed"
)

// Errors that callers tell apart.
var (
	// ErrUnavailable: the KMS or its HSM does not answer, or the lease has run out.
	// Answer 503 with Retry-After.
	ErrUnavailable = errors.New("key service is unavailable")
	// ErrBlocked: the key was blocked, or its state forbids the use. Answer 403.
	ErrBlocked = errors.New("key is blocked")
	// ErrBucketNotFound: no such bucket is registered.
	ErrBucketNotFound = errors.New("no such bucket")
	// ErrBucketExists: another principal has a bucket of this name.
	ErrBucketExists = errors.New("bucket name is taken")
	// ErrBucketOwned: the principal has a bucket of this name already.
	ErrBucketOwned = errors.New("bucket is yours already")
	// ErrBucketBusy: a bucket of this name was removed just now, and other gateways may
	// still use its keys. Try again. Answer 409 OperationAborted.
	ErrBucketBusy = errors.New("bucket of this name is being removed")
	// ErrKeyNotFound: no bucket key has this id in this space.
	ErrKeyNotFound = errors.New("no such bucket key")
	// ErrAccessKeyNotFound: no active access key has this id.
	ErrAccessKeyNotFound = errors.New("no such access key")
)

// Space is the UUID of a bucket as raw bytes (FORMAT.md section 2).
type Space [16]byte

// Bucket is a bucket as the registry knows it.
type Bucket struct {
	Name      string
	Space     Space
	Store     string // name of the backend in the configuration
	StoreName string // the bucket's name there
	KEK       string // name of the KEK that wraps its bucket keys
	Owner     string // principal
	Strict    bool   // nothing of it is cached
	MD5       bool   // ETags are the MD5 of the plaintext ("etag: md5")
	Created   time.Time
	// Active is false from registration until the store has the bucket too.
	Active bool
	// Shredded: its keys are destroyed. It is Active, as it can be listed, emptied and
	// deleted; for all that needs a key the KMS answers ErrBlocked.
	Shredded bool
	// Adopting says which of its objects may be plaintext still; zero means none.
	Adopting Adopting
	// Guarded: it has the rollback guard, whose digests are keyed by LedgerKey.
	Guarded   bool
	LedgerKey [16]byte // id of a bucket key
}

// Adopting is how far the objects that a bucket had before it was the gateway's are
// sealed.
type Adopting struct {
	// CutOff is the store's time when it began; zero means that the bucket is not being
	// adopted. What was modified later is not plaintext of then.
	CutOff time.Time
	// SealedTo: all objects up to this key, it included, are sealed.
	SealedTo string
}

// MayBePlain says whether an object may be one that was there before. It is never so
// in a bucket that is not being adopted.
func (b Bucket) MayBePlain(key string, modified time.Time) bool {
	return !b.Adopting.CutOff.IsZero() && key > b.Adopting.SealedTo && !modified.After(b.Adopting.CutOff)
}

// NewBucket is what RegisterBucket needs. The KMS chooses Space.
type NewBucket struct {
	Name, Store, StoreName, Owner string
	KEK                           string // empty means the KMS's default
	MD5                           bool   // ETags are the MD5 of the plaintext
}

// BucketKey is one epoch's key of a bucket. It is a value to be used now and not
// to be kept: ask again for the next request.
type BucketKey struct {
	ID  [16]byte
	Key sealed.Key
	// Record is the wrapped record, to be mirrored to the backend before the key
	// is first used to seal. Mirrored says that it is there.
	Record   []byte
	Mirrored bool
}

// SigningKey is the SigV4 key of one access key for one day, region and service:
// HMAC(HMAC(HMAC(HMAC("AWS4"+secret, date), region), service), "aws4_request").
// It does not print.
type SigningKey struct {
	// A closure, as fmt would print an array in a field of a field.
	key       func() *[32]byte
	old       func() *[32]byte // nil: there is one secret only
	Principal string
}

// NewSigningKey takes the 32 derived bytes.
func NewSigningKey(key [32]byte, principal string) SigningKey {
	return SigningKey{key: func() *[32]byte { return &key }, Principal: principal}
}

// WithOld adds the key of the access key's secret before, while that is live too.
func (k SigningKey) WithOld(old [32]byte) SigningKey {
	k.old = func() *[32]byte { return &old }
	return k
}

// Old is the key of the secret before, and whether there is one.
func (k SigningKey) Old() (SigningKey, bool) {
	return SigningKey{key: k.old, Principal: k.Principal}, k.old != nil
}

// Use calls f with the key's bytes, which f must neither keep nor change; with none
// for the zero SigningKey.
func (k SigningKey) Use(f func(key []byte)) {
	if k.key == nil {
		f(nil)
		return
	}
	f(k.key()[:])
}

// Format hides the key, whatever the verb.
func (k SigningKey) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, k.String()) }

// String hides the key.
func (k SigningKey) String() string { return "signing key of " + k.Principal }

// GoString hides the key.
func (k SigningKey) GoString() string { return k.String() }
