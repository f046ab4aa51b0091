package keys

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"go.uber.org/zap"

	"chatelaine/kms"
	"chatelaine/kms/service/kmsv1"
)

// revoked is what this gateway knows to be revoked. Whoever keeps an answer of the
// KMS holds the lock for reading, so that no key is kept which the answer was too old
// for; heed holds it for writing while it ends what was kept before.
type revoked struct {
	sync.RWMutex
	known    bool
	epoch    uint64
	general  uint64
	heard    instant // when epoch was acted on
	unusable map[kms.KeyRef]bool
	canary   string
}

// errForbidden is for an answer that a block has overtaken.
var errForbidden = errors.New("its KEK was blocked meanwhile")

// heed acts on what is revoked, as an answer to what was sent at a time says. When it
// returns, nothing can be used that may not be. It returns at once where it knows.
func (c *Client) heed(r *kmsv1.Revocation, sent instant) {
	c.revoked.Lock()
	defer c.revoked.Unlock()
	v := &c.revoked
	overtaken := r.GetEpoch() < v.epoch && sent <= v.heard
	if v.known && (r.GetEpoch() == v.epoch || overtaken) {
		return
	}
	if v.known && r.GetGeneral() != v.general {
		c.askAgain()
	}
	v.known, v.epoch, v.general, v.canary = true, r.GetEpoch(), r.GetGeneral(), r.GetCanary()
	v.unusable = make(map[kms.KeyRef]bool, len(r.GetUnusable()))
	for _, u := range r.GetUnusable() {
		v.unusable[refOf(u)] = true
	}
	c.endUnder(v.unusable)
	c.endShredded(r.GetShredded())
	v.heard = c.clock.now()
	c.metrics.epoch.Set(float64(v.epoch))
	c.log.Info("revocation", zap.Uint64("epoch", v.epoch), zap.Int("unusable_keys", len(v.unusable)))
}

// askAgain makes new requests ask for everything again. Running transfers go on, as
// none of their keys is known to be blocked, and ask as well: what cannot be asked for
// within a lease is cut.
func (c *Client) askAgain() {
	c.generation.next()
	until := c.clock.now() + instant(c.lease.ttl())
	for _, e := range c.keys.entries.Values() {
		e.shorten(until)
	}
}

// endUnder ends every use of keys under KEKs, in running transfers too.
func (c *Client) endUnder(unusable map[kms.KeyRef]bool) {
	if len(unusable) == 0 {
		return
	}
	for _, id := range c.keys.entries.Keys() {
		if e, ok := c.keys.entries.Peek(id); ok && unusable[e.value.kek] && !e.value.blocked {
			c.block(e.value.space, id)
		}
	}
	for _, s := range c.signing.entries.Keys() {
		if e, ok := c.signing.entries.Peek(s); ok && unusable[e.value.kek] {
			c.signing.entries.Remove(s)
		}
	}
}

// endShredded ends every use of keys of shredded buckets, in running transfers too.
// Their records are asked for again.
func (c *Client) endShredded(spaces []string) {
	gone := make(map[Space]bool, len(spaces))
	for _, text := range spaces {
		space, err := uuid.Parse(text)
		if err != nil {
			c.log.Error("shredded space not understood", zap.String("space", text))
			continue
		}
		gone[Space(space)] = true
	}
	if len(gone) > 0 {
		c.forget(gone)
	}
}

// keepUnless keeps an answer, of what was asked for in a generation, where nothing
// speaks against it. It says whether the answer is fresh, or that its KEK is blocked.
func (c *Client) keepUnless(kek kms.KeyRef, generation uint64, keep func()) (fresh bool, err error) {
	c.revoked.RLock()
	defer c.revoked.RUnlock()
	if c.revoked.unusable[kek] {
		return false, fmt.Errorf("%w: %w", kms.ErrDisabled, errForbidden)
	}
	fresh = generation == c.generation.load()
	if fresh {
		keep()
	}
	return fresh, nil
}

func refOf(v *kmsv1.KeyVersion) kms.KeyRef {
	return kms.KeyRef{Name: v.GetKek(), Version: v.GetVersion()}
}

// heardTo is what a KMS was told under a lease.
type heardTo struct {
	lease string
	epoch uint64
}

// tell has Run acknowledge what was acted on.
func (c *Client) tell() {
	select {
	case c.tidings <- struct{}{}:
	default: // it is about to, and will say the newest
	}
}

// answer acknowledges until ctx ends.
func (c *Client) answer(ctx context.Context) {
	for {
		select {
		case <-c.tidings:
			c.acknowledge(ctx)
		case <-ctx.Done():
			return
		}
	}
}

// acknowledge tells the KMS what was acted on, where it does not know: somebody may
// be waiting for that. A failure is made good by the next renewal.
func (c *Client) acknowledge(ctx context.Context) {
	c.revoked.RLock()
	epoch, canary, known := c.revoked.epoch, c.revoked.canary, c.revoked.known
	blocked := c.revoked.blocks(kms.CanaryKEK)
	c.revoked.RUnlock()
	now := heardTo{c.lease.id(), epoch}
	if told := c.told.Load(); !known || now.lease == "" || told != nil && *told == now {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	state := c.sing(ctx, canary, blocked)
	err := c.again(ctx, "Heard", func(ctx context.Context) error {
		_, err := c.rpc.Heard(ctx, &kmsv1.HeardRequest{LeaseId: now.lease, Epoch: epoch, Canary: string(state)})
		return err
	})
	if err == nil {
		c.told.Store(&now)
	}
}

func (r *revoked) blocks(kek string) bool {
	for ref := range r.unusable {
		if ref.Name == kek {
			return true
		}
	}
	return false
}

// canaryTime bounds how long the canary's key is fetched.
const canaryTime = time.Second

// sing takes part in a canary: it holds the key of a space, and once its KEK is
// blocked, makes sure that the key cannot be used.
func (c *Client) sing(ctx context.Context, canary string, blocked bool) kms.CanaryState {
	parsed, err := uuid.Parse(canary)
	if err != nil {
		return ""
	}
	space := Space(parsed)
	if !blocked {
		ctx, cancel := context.WithTimeout(ctx, canaryTime)
		defer cancel()
		key, err := c.find(ctx, Bucket{Space: space}, wanted{space: space, current: true})
		if err != nil {
			return ""
		}
		c.canary.Store(&key.id)
		return kms.CanaryHeld
	}
	id := c.canary.Swap(nil)
	if id == nil {
		return ""
	}
	_, held := c.cachedKey(wanted{space: space, id: *id})
	if held || !errors.Is(c.Live(*id), ErrBlocked) {
		c.log.Error("the canary's key can be used while it is blocked")
		return kms.CanaryHeld
	}
	return kms.CanaryEnded
}

// listen has the KMS tell of revocations at once, until ctx ends. While there is no
// stream, the renewals of the lease bring them.
func (c *Client) listen(ctx context.Context) {
	const shortest, longest = 50 * time.Millisecond, 2 * time.Second
	wait := shortest
	for ctx.Err() == nil {
		began := c.clock.now()
		err := c.watch(ctx)
		if ctx.Err() != nil {
			return
		}
		if c.clock.now()-began > instant(longest) {
			wait = shortest
		}
		c.log.Debug("no stream of revocations", zap.Error(err))
		pause(ctx, wait)
		wait = min(2*wait, longest)
	}
}

// watch reads one stream to its end. One that says nothing for as long as a lease has
// broken: the KMS says something three times in that.
func (c *Client) watch(ctx context.Context) error {
	if err := c.lease.ensure(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	silence := c.lease.ttl()
	broken := time.AfterFunc(silence, cancel)
	defer broken.Stop()
	c.stream.Store(&cancel)
	id, sent := c.lease.id(), c.clock.now()
	stream, err := c.rpc.Watch(ctx, &kmsv1.WatchRequest{LeaseId: id})
	if err == nil {
		for stream.Receive() {
			broken.Reset(silence)
			c.metrics.pushed.Set(1)
			c.heed(stream.Msg().GetRevocation(), sent)
			c.tell()
		}
		err = errors.Join(stream.Err(), stream.Close())
	}
	c.metrics.pushed.Set(0)
	if errors.Is(err, kms.ErrLease) {
		return c.lease.replace(ctx, id)
	}
	return err
}

// hangUp ends the stream, so that another is made under the lease that is held.
func (c *Client) hangUp() {
	if cancel := c.stream.Load(); cancel != nil {
		(*cancel)()
	}
}

// leave gives the lease back: this client uses no key until it has another.
func (c *Client) leave(ctx context.Context) {
	held := c.lease.held.Swap(nil)
	if held == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if _, err := c.rpc.Heard(ctx, &kmsv1.HeardRequest{LeaseId: held.id, End: true}); err != nil {
		c.log.Debug("lease not given back", zap.Error(err)) // it runs out
	}
}

// spoken is what this client has said to the KMS of what was revoked.
type spoken struct {
	tidings chan struct{} // there may be something to be said
	told    atomic.Pointer[heardTo]
	stream  atomic.Pointer[context.CancelFunc]
	canary  atomic.Pointer[[16]byte] // the key that is held for a canary
}
