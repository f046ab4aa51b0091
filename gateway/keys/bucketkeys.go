package keys

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"chatelaine/gateway/sealed"
	"chatelaine/kms"
	"chatelaine/kms/service/kmsv1"
)

// openKey is a bucket key as it is kept. For a strict bucket, and for a key that was
// blocked, it holds no key but what Live must know.
type openKey struct {
	space    Space
	id       [16]byte
	key      sealed.Key
	record   []byte
	mirrored *atomic.Bool
	kek      kms.KeyRef // what it is wrapped under
	blocked  bool
}

func (k openKey) bucketKey() BucketKey {
	return BucketKey{ID: k.id, Key: k.key, Record: k.record, Mirrored: k.mirrored.Load()}
}

// Current returns the key that a bucket seals with now, and counts that something is
// sealed with it. Errors: ErrUnavailable,
// ErrBlocked, ErrBucketNotFound.
func (c *Client) Current(ctx context.Context, b Bucket) (BucketKey, error) {
	key, err := c.find(ctx, b, wanted{space: b.Space, current: true})
	if err != nil {
		return BucketKey{}, fmt.Errorf("keys: current key of bucket %q: %w", b.Name, translate(err, ErrBucketNotFound))
	}
	c.seals.add(sealedKey{b.Space, key.id}, 1)
	return key.bucketKey(), nil
}

// ByID returns a key of a bucket by its id. Errors: ErrUnavailable, ErrBlocked,
// ErrKeyNotFound.
func (c *Client) ByID(ctx context.Context, b Bucket, id [16]byte) (BucketKey, error) {
	key, err := c.find(ctx, b, wanted{space: b.Space, id: id})
	if err != nil {
		return BucketKey{}, fmt.Errorf("keys: key %x of bucket %q: %w", id, b.Name, translate(err, ErrKeyNotFound))
	}
	return key.bucketKey(), nil
}

// Live says whether a running transfer may go on using a bucket key: nil,
// ErrUnavailable (no lease, or the key could not be refreshed in time, or is not
// kept any more), ErrBlocked, or ErrBucketNotFound when the bucket was removed. It
// asks nobody and costs a look into two tables.
//
// Ask it once more between the backend's answer to a write and one's own. When it
// then says nil, no other bucket had taken the name yet, and what was written lies in
// the bucket that it was sealed for.
func (c *Client) Live(id [16]byte) error {
	if !c.lease.valid() {
		return fmt.Errorf("keys: without a lease: %w", ErrUnavailable)
	}
	e, ok := c.keys.entries.Get(id)
	switch now := c.clock.now(); {
	case !ok:
		return fmt.Errorf("keys: key %x is not held: %w", id, ErrUnavailable)
	case c.gone.Contains(e.value.space):
		return fmt.Errorf("keys: key %x: %w: %w", id, ErrBucketNotFound, errRemoved)
	case e.value.blocked:
		return fmt.Errorf("keys: key %x: %w", id, ErrBlocked)
	case !e.alive(now):
		return fmt.Errorf("keys: key %x could not be refreshed: %w", id, ErrUnavailable)
	default:
		c.refreshKey(e, now)
		return nil
	}
}

// ConfirmMirror says that the backend has this record of the key.
func (c *Client) ConfirmMirror(ctx context.Context, b Bucket, id [16]byte, record []byte) error {
	err := c.again(ctx, "ConfirmMirror", func(ctx context.Context) error {
		_, err := c.rpc.ConfirmMirror(ctx, &kmsv1.ConfirmMirrorRequest{Space: b.Space.String(), KeyId: id[:], Record: record})
		return err
	})
	if err != nil {
		return fmt.Errorf("keys: confirming the mirror of key %x of bucket %q: %w", id, b.Name, translate(err, ErrKeyNotFound))
	}
	if e, ok := c.keys.entries.Peek(id); ok && e.value.mirrored != nil {
		e.value.mirrored.Store(true)
	}
	return nil
}

// UnconfirmMirrors says that the backend may have none of the bucket's records.
func (c *Client) UnconfirmMirrors(ctx context.Context, b Bucket) error {
	err := c.again(ctx, "UnconfirmMirrors", func(ctx context.Context) error {
		_, err := c.rpc.UnconfirmMirrors(ctx, &kmsv1.UnconfirmMirrorsRequest{Space: b.Space.String()})
		return err
	})
	c.generation.next() // whatever the error says: it may have been done
	if err != nil {
		return fmt.Errorf("keys: unconfirming the mirrors of bucket %q: %w", b.Name, translate(err, ErrBucketNotFound))
	}
	return nil
}

// wanted names a bucket key: the current one, or one by its id.
type wanted struct {
	space   Space
	id      [16]byte
	current bool
}

func (w wanted) String() string { return fmt.Sprintf("key %x %x %t", w.space, w.id, w.current) }

// find returns a key from the cache, or asks for it. It needs a lease either way.
func (c *Client) find(ctx context.Context, b Bucket, w wanted) (openKey, error) {
	if err := c.lease.ensure(ctx); err != nil {
		return openKey{}, err
	}
	if b.Strict {
		return untilFresh(func() (fetchedKey, error) { return c.fetchKey(ctx, w) })
	}
	if key, ok := c.cachedKey(w); ok {
		return key, nil
	}
	return untilFresh(func() (fetchedKey, error) {
		name := w.String() + strconv.FormatUint(c.generation.load(), 16)
		return shared(ctx, c, name, func(ctx context.Context) (fetchedKey, error) { return c.fetchKey(ctx, w) })
	})
}

// fetchedKey is not fresh when something was revoked since it was asked for.
type fetchedKey struct {
	key   openKey
	fresh bool
}

// untilFresh asks again while answers are older than the last revocation.
func untilFresh(fetch func() (fetchedKey, error)) (openKey, error) {
	for range 3 {
		if got, err := fetch(); err != nil || got.fresh {
			return got.key, err
		}
	}
	return openKey{}, fmt.Errorf("%w: keys are being revoked", ErrUnavailable)
}

// cachedKey looks for a key, and has it refreshed where it is time.
func (c *Client) cachedKey(w wanted) (openKey, bool) {
	now, generation := c.clock.now(), c.generation.load()
	if w.current {
		cur, ok := c.current.get(w.space, now, generation)
		if !ok {
			return openKey{}, false
		}
		w.id = cur.value
	}
	e, ok := c.keys.get(w.id, now, generation)
	if !ok || e.value.space != w.space || e.value.key.IsZero() {
		return openKey{}, false
	}
	c.refreshKey(e, now)
	return e.value, true
}

// refreshKey has Run ask for a key again when it is time. The current key is asked
// for as such, so that one unwrapping serves readers and writers.
func (c *Client) refreshKey(e *entry[openKey], now instant) {
	w := wanted{space: e.value.space, id: e.value.id}
	if cur, ok := c.current.entries.Peek(w.space); ok && cur.value == w.id {
		w = wanted{space: w.space, current: true}
	}
	refresh(c, e, now, func(ctx context.Context) error {
		_, err := c.fetchKey(ctx, w)
		return err
	})
}

// refresh has Run do a task for an entry that is due. When Run is behind, it is left
// for the next use.
func refresh[V any](c *Client, e *entry[V], now instant, task func(context.Context) error) {
	if !e.due(now) {
		return
	}
	run := func(ctx context.Context) {
		bounded, cancel := context.WithTimeout(ctx, c.timeout)
		defer cancel()
		c.metrics.refreshed(task(bounded))
		e.done(c.clock.now())
	}
	select {
	case c.tasks <- run:
	default:
		e.left()
	}
}

// fetchKey asks the KMS for a key, and keeps it if it is fresh.
func (c *Client) fetchKey(ctx context.Context, w wanted) (fetchedKey, error) {
	generation := c.generation.load()
	answer, sent, err := leased(ctx, c, w.op(), func(ctx context.Context, lease string) (*kmsv1.BucketKeyResponse, error) {
		if w.current {
			return c.rpc.Current(ctx, &kmsv1.CurrentRequest{LeaseId: lease, Space: w.space.String()})
		}
		return c.rpc.BucketKey(ctx, &kmsv1.BucketKeyRequest{LeaseId: lease, Space: w.space.String(), KeyId: w.id[:]})
	})
	if err != nil {
		c.refused(w, err)
		return fetchedKey{}, err
	}
	key, err := w.open(answer)
	if err != nil {
		return fetchedKey{}, err
	}
	fresh, err := c.keepUnless(key.kek, generation, func() { c.keep(w, key, answer, generation, sent) })
	if err != nil {
		return fetchedKey{}, err
	}
	if c.gone.Contains(w.space) { // looked at after it was kept: removed looks at what is kept after this was set
		c.forget(map[Space]bool{w.space: true})
		return fetchedKey{}, fmt.Errorf("%w: %w", kms.ErrNotFound, errRemoved)
	}
	return fetchedKey{key: key, fresh: fresh}, nil
}

func (c *Client) keep(w wanted, key openKey, answer *kmsv1.BucketKeyResponse, generation uint64, sent instant) {
	if answer.GetNoCache() {
		key.key, key.record = sealed.Key{}, nil
	}
	ttl := answer.GetTtl().AsDuration()
	c.keys.put(key.id, key, generation, sent, ttl)
	if w.current {
		c.current.put(w.space, key.id, generation, sent, ttl)
	}
}

func (w wanted) op() string {
	if w.current {
		return "Current"
	}
	return "BucketKey"
}

// open takes the key out of an answer, and clears it there.
func (w wanted) open(answer *kmsv1.BucketKeyResponse) (openKey, error) {
	defer clear(answer.GetKey())
	if len(answer.GetKeyId()) != len(w.id) {
		return openKey{}, fmt.Errorf("key id of %d bytes", len(answer.GetKeyId()))
	}
	id := [16]byte(answer.GetKeyId())
	if !w.current && id != w.id {
		return openKey{}, fmt.Errorf("asked for key %x, got %x", w.id, id)
	}
	key, err := sealed.NewKey(answer.GetKey())
	if err != nil {
		return openKey{}, err
	}
	mirrored := new(atomic.Bool)
	mirrored.Store(answer.GetMirrored())
	return openKey{space: w.space, id: id, key: key, record: answer.GetRecord(), mirrored: mirrored, kek: refOf(answer.GetKek())}, nil
}

// refused ends the use of a key that the KMS will not give any more, by running
// transfers too. That it does not answer changes nothing.
func (c *Client) refused(w wanted, err error) {
	err = translate(err, ErrKeyNotFound)
	if !errors.Is(err, ErrBlocked) && !errors.Is(err, ErrKeyNotFound) {
		return
	}
	if cur, ok := c.current.entries.Peek(w.space); w.current && ok {
		w.id = cur.value
		c.current.entries.Remove(w.space)
	}
	if e, ok := c.keys.entries.Peek(w.id); ok && e.value.space == w.space {
		c.block(w.space, w.id)
	}
}

// blockedTTL is how long running transfers are told that a key is blocked. Later
// they are told that it is not held.
const blockedTTL = time.Hour

// String is the space as the KMS writes it.
func (s Space) String() string { return uuid.UUID(s).String() }
