package keys

import (
	"context"
	"errors"
	"sync/atomic"

	"github.com/google/uuid"
	"go.uber.org/zap"
)

// errRemoved is for a key that arrived when its bucket was gone already.
var errRemoved = errors.New("the bucket was removed meanwhile")

// remembered is how many removed spaces are kept, so that an answer which was under
// way does not bring a key back. Answers come within seconds.
const remembered = 16384

// removed ends every use of buckets that the KMS says are gone. It must be done
// before the lease that came along is used: from the next renewal on, the KMS may
// give their names away.
func (c *Client) removed(spaces []string) {
	gone := make(map[Space]bool, len(spaces))
	for _, text := range spaces {
		space, err := uuid.Parse(text)
		if err != nil {
			c.log.Error("removed space not understood", zap.String("space", text))
			continue
		}
		gone[Space(space)] = true
		c.gone.Add(Space(space), struct{}{})
	}
	if len(gone) > 0 {
		c.forget(gone)
	}
}

// forget drops the records of buckets and blocks their keys, in running transfers
// too.
func (c *Client) forget(gone map[Space]bool) {
	for _, name := range c.buckets.entries.Keys() {
		if e, ok := c.buckets.entries.Peek(name); ok && gone[e.value.Space] {
			c.buckets.entries.Remove(name)
		}
	}
	for space := range gone {
		c.current.entries.Remove(space)
	}
	for _, id := range c.keys.entries.Keys() {
		if e, ok := c.keys.entries.Peek(id); ok && gone[e.value.space] && !e.value.blocked {
			c.block(e.value.space, id)
		}
	}
}

// block leaves an entry without a key.
func (c *Client) block(space Space, id [16]byte) {
	tombstone := openKey{space: space, id: id, mirrored: new(atomic.Bool), blocked: true}
	c.keys.put(id, tombstone, c.generation.load(), c.clock.now(), blockedTTL)
}

// learn renews the lease until an answer is of a question that was asked after the
// call: it tells of a removal just made, and the renewal after it tells the KMS that
// this gateway has heard. So a client that deletes a bucket and makes it again does
// not wait for its own gateway.
func (c *Client) learn(ctx context.Context) {
	began := c.clock.now()
	for range 2 { // the first may join a renewal under way
		if err := c.lease.renew(ctx); err != nil {
			return // the name waits for the next renewal
		}
		if h := c.lease.held.Load(); h != nil && h.sent >= began {
			return
		}
	}
}
