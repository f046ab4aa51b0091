package breakglass

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/google/uuid"

	"chatelaine/backends"
	"chatelaine/gateway/objects"
	"chatelaine/gateway/sealed"
	"chatelaine/kms"
	"chatelaine/kms/offline"
)

// ErrNoKey says that a bucket key cannot be had: there is no mirror of it, or what
// there is does not open. The cause is in the text and the chain.
var ErrNoKey = errors.New("bucket key cannot be had")

// Mirrors finds the mirror of a bucket key: the bytes, not yet believed, of at most
// kms.MaxMirror and one more. backends.ErrNotFound where there is none.
type Mirrors func(ctx context.Context, id sealed.KeyID) ([]byte, error)

// KeysConfig is what Keys opens mirrors with.
type KeysConfig struct {
	Mirrors Mirrors
	// Providers are asked in this order: a mirror does not say which of them holds its
	// KEK. They are the caller's to close.
	Providers []kms.Provider
	// Recovery opens recovery copies, where no provider opens a mirror, if one of Signers
	// (kms.Fingerprint) has signed them: anybody may wrap under a public key. nil: none.
	Recovery *offline.PrivateKey
	Signers  []string
	// Space is the only one whose keys are taken, in lower case; empty means any.
	Space string
}

// Keys opens bucket keys from their mirrors, once each. It asks nobody whether a KEK is
// blocked: whoever may use the provider may read. It may be used concurrently.
type Keys struct {
	c     KeysConfig
	mu    sync.Mutex
	known map[sealed.KeyID]bucketKey
}

// bucketKey is a key that was opened, or why it never will be.
type bucketKey struct {
	key    sealed.Key
	mirror kms.Mirror
	err    error
}

// NewKeys makes Keys.
func NewKeys(c KeysConfig) *Keys { return &Keys{c: c, known: map[sealed.KeyID]bucketKey{}} }

// find returns ErrNoKey for good, and other errors for now. One key is opened at a time.
func (k *Keys) find(ctx context.Context, id sealed.KeyID) (bucketKey, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if b, ok := k.known[id]; ok {
		return b, b.err
	}
	b, err := k.open(ctx, id)
	if b.err = err; err == nil || errors.Is(err, ErrNoKey) {
		k.known[id] = b
	}
	return b, err
}

func (k *Keys) open(ctx context.Context, id sealed.KeyID) (bucketKey, error) {
	data, err := k.c.Mirrors(ctx, id)
	if errors.Is(err, backends.ErrNotFound) {
		return bucketKey{}, fmt.Errorf("breakglass: %w: there is no mirror of key %x", ErrNoKey, id)
	}
	if err != nil {
		return bucketKey{}, fmt.Errorf("breakglass: reading the mirror of key %x: %w", id, err)
	}
	return k.prove(ctx, id, data)
}

// prove opens what is said to be the mirror of a key.
func (k *Keys) prove(ctx context.Context, id sealed.KeyID, data []byte) (bucketKey, error) {
	m, err := kms.ParseMirror(data)
	if err != nil {
		return bucketKey{}, fmt.Errorf("breakglass: %w: %w", ErrNoKey, err)
	}
	if sealed.KeyID(m.ID) != id {
		return bucketKey{}, fmt.Errorf("breakglass: %w: the mirror of key %x is one of key %s: it was swapped or renamed", ErrNoKey, id, m.ID)
	}
	if k.c.Space != "" && m.Space != k.c.Space {
		return bucketKey{}, fmt.Errorf("breakglass: %w: key %s is of space %s, another bucket's", ErrNoKey, m.ID, m.Space)
	}
	secret, err := k.unwrap(ctx, m)
	if err != nil {
		return bucketKey{}, err
	}
	b := bucketKey{mirror: m}
	secret.Use(func(raw []byte) { b.key, err = sealed.NewKey(raw) })
	if err != nil {
		return bucketKey{}, fmt.Errorf("breakglass: %w: %w", ErrNoKey, err)
	}
	return b, nil
}

// unwrap asks each provider, and then the recovery key.
func (k *Keys) unwrap(ctx context.Context, m kms.Mirror) (kms.Secret, error) {
	var refusals []error
	for _, open := range k.ways(m) {
		secret, err := open(ctx)
		if err == nil || !forGood(err) {
			return secret, err
		}
		refusals = append(refusals, err)
	}
	return kms.Secret{}, fmt.Errorf("breakglass: %w: %w", ErrNoKey, errors.Join(refusals...))
}

// ways are how a mirror might open.
func (k *Keys) ways(m kms.Mirror) (out []func(context.Context) (kms.Secret, error)) {
	for _, p := range k.c.Providers {
		out = append(out, func(ctx context.Context) (kms.Secret, error) { return m.Open(ctx, p) })
		if m.Recovery != nil && m.Recovery.KEK != "" {
			out = append(out, func(ctx context.Context) (kms.Secret, error) { return m.OpenCopy(ctx, p) })
		}
	}
	if k.c.Recovery != nil {
		out = append(out, func(context.Context) (kms.Secret, error) { return m.OpenRecovery(k.c.Recovery, k.c.Signers) })
	}
	return out
}

// forGood tells errors of a provider that asking again does not mend.
func forGood(err error) bool {
	for _, cause := range []error{kms.ErrNotFound, kms.ErrCorrupt, kms.ErrInvalid, kms.ErrUnsafe, kms.ErrAmbiguous, kms.ErrDenied, kms.ErrDisabled} {
		if errors.Is(err, cause) {
			return true
		}
	}
	return false
}

// BesideObjects finds mirrors where gateways put them: in the bucket whose objects they
// open.
func BesideObjects(store Source, bucket string) Mirrors {
	return func(ctx context.Context, id sealed.KeyID) ([]byte, error) {
		return readMirror(ctx, store, backends.ObjectID{Bucket: bucket, Key: objects.MirrorPrefix + hex.EncodeToString(id[:])})
	}
}

// readMirror reads a mirror, or enough of what is too long for one.
func readMirror(ctx context.Context, store Source, id backends.ObjectID) ([]byte, error) {
	o, err := store.Get(ctx, id, nil)
	if err != nil {
		return nil, err
	}
	defer func() { _ = o.Body.Close() }()
	return io.ReadAll(io.LimitReader(o.Body, kms.MaxMirror+1))
}

// Given finds mirrors among some that were read already, each of them proved only when it
// is used. It fails with kms.ErrInvalid for what is no mirror.
func Given(records ...[]byte) (Mirrors, error) {
	byID := map[sealed.KeyID][]byte{}
	for _, record := range records {
		m, err := kms.ParseMirror(record)
		if err != nil {
			return nil, fmt.Errorf("breakglass: reading a mirror: %w", err)
		}
		byID[sealed.KeyID(m.ID)] = record
	}
	return func(_ context.Context, id sealed.KeyID) ([]byte, error) {
		if record, ok := byID[id]; ok {
			return record, nil
		}
		return nil, backends.ErrNotFound
	}, nil
}

// look reads a mirror without opening it.
func (k *Keys) look(ctx context.Context, id sealed.KeyID) (*kms.Mirror, error) {
	data, err := k.c.Mirrors(ctx, id)
	if err != nil {
		return nil, err
	}
	m, err := kms.ParseMirror(data)
	if err == nil && sealed.KeyID(m.ID) != id {
		err = fmt.Errorf("%w: it is of key %s", kms.ErrInvalid, m.ID)
	}
	if err != nil {
		return nil, err
	}
	return &m, nil
}

// spaceOf is the space of a mirror as the format wants it.
func spaceOf(m kms.Mirror) (sealed.Space, error) {
	u, err := uuid.Parse(m.Space)
	if err != nil {
		return sealed.Space{}, fmt.Errorf("breakglass: reading space %q: %w", m.Space, err)
	}
	return sealed.Space(u), nil
}
