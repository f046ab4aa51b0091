package keys

import (
	"math/rand/v2"
	"sync/atomic"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
)

// instant is a point on a client's clock, in nanoseconds since it was made.
type instant int64

// clock is monotonic: steps of the wall clock do not move it.
type clock struct{ start time.Time }

func (c clock) now() instant { return instant(time.Since(c.start)) }

// generation counts events after which an answer to what was asked before them must
// not be kept.
type generation struct{ n atomic.Uint64 }

func (g *generation) load() uint64 { return g.n.Load() }
func (g *generation) next()        { g.n.Add(1) }

// table keeps values for as long as they may be used, and no more than a number of
// them: the least recently used goes first.
type table[K comparable, V any] struct {
	entries *lru.Cache[K, *entry[V]]
	counter cacheCounter
}

type entry[V any] struct {
	value      V
	generation uint64
	expires    atomic.Int64 // an instant; only ever moved to an earlier one
	refreshAt  atomic.Int64 // an instant
	refreshing atomic.Bool
}

func newTable[K comparable, V any](size int, counter cacheCounter) (*table[K, V], error) {
	entries, err := lru.New[K, *entry[V]](size)
	return &table[K, V]{entries: entries, counter: counter}, err
}

// get finds an entry of this generation that may be used now.
func (t *table[K, V]) get(key K, now instant, generation uint64) (*entry[V], bool) {
	e, ok := t.entries.Get(key)
	ok = ok && e.generation == generation && e.alive(now)
	t.counter.count(ok)
	if !ok {
		return nil, false
	}
	return e, true
}

// put keeps a value for its time to live, counted from when it was asked for. It is
// due to be refreshed after 65 to 75 % of that.
func (t *table[K, V]) put(key K, value V, generation uint64, sent instant, ttl time.Duration) {
	e := &entry[V]{value: value, generation: generation}
	e.expires.Store(int64(sent) + int64(ttl))
	e.refreshAt.Store(int64(sent) + int64(ttl)*65/100 + jitter(ttl/10))
	t.entries.Add(key, e)
}

func (e *entry[V]) alive(now instant) bool { return int64(now) < e.expires.Load() }

// due claims the refresh of an entry for the caller, who must call done.
func (e *entry[V]) due(now instant) bool {
	return int64(now) >= e.refreshAt.Load() && e.refreshing.CompareAndSwap(false, true)
}

// retryAfter is the least time between two refreshes of one entry. With failures it
// is this to twice this.
const retryAfter = time.Second

// done ends a refresh. If the entry is still there, the next is not at once.
func (e *entry[V]) done(now instant) {
	e.refreshAt.Store(int64(now) + int64(retryAfter) + jitter(retryAfter))
	e.refreshing.Store(false)
}

// shorten lets an entry live no longer than until, and be refreshed at its next use.
func (e *entry[V]) shorten(until instant) {
	for {
		old := e.expires.Load()
		if old <= int64(until) || e.expires.CompareAndSwap(old, int64(until)) {
			break
		}
	}
	e.refreshAt.Store(0)
}

// left ends a refresh that was never begun: the next use tries again.
func (e *entry[V]) left() { e.refreshing.Store(false) }

// jitter is 0 to d, and 0 where d is over.
func jitter(d time.Duration) int64 {
	return rand.Int64N(max(int64(d), 0) + 1) //nolint:gosec // jitter is no secret
}
