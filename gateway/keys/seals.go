package keys

import (
	"sync"

	"chatelaine/kms/service/kmsv1"
)

// maxCounts is how many keys' counts go with one renewal.
const maxCounts = 1024

// seals counts what is sealed under bucket keys until the next renewal of the lease
// tells the KMS, which ends an epoch by it. The zero value is ready.
type seals struct {
	mu     sync.Mutex
	counts counts
}

type sealedKey struct {
	space Space
	id    [16]byte
}

type counts map[sealedKey]uint64

func (s *seals) add(k sealedKey, n uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.counts == nil {
		s.counts = make(counts)
	}
	s.counts[k] += n
}

// take returns what is to be told now; what is too much stays.
func (s *seals) take() counts {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.counts) <= maxCounts {
		all := s.counts
		s.counts = nil
		return all
	}
	some := make(counts, maxCounts)
	for k, n := range s.counts {
		if len(some) == maxCounts {
			break
		}
		some[k] = n
		delete(s.counts, k)
	}
	return some
}

// putBack keeps what the KMS may not have heard, for the next time. It may have: then it
// counts twice, and an epoch is shorter.
func (s *seals) putBack(c counts) {
	for k, n := range c {
		s.add(k, n)
	}
}

func (c counts) messages() []*kmsv1.Sealed {
	out := make([]*kmsv1.Sealed, 0, len(c))
	for k, n := range c {
		out = append(out, &kmsv1.Sealed{Space: k.space.String(), KeyId: k.id[:], Count: n})
	}
	return out
}

// replaced has Current ask again where the current key is one of those that have sealed
// enough. They are kept for what was sealed with them.
func (c *Client) replaced(full [][]byte) {
	for _, id := range full {
		if len(id) != len(sealedKey{}.id) {
			continue
		}
		e, ok := c.keys.entries.Peek([16]byte(id))
		if !ok {
			continue
		}
		space := e.value.space
		if cur, ok := c.current.entries.Peek(space); ok && cur.value == e.value.id {
			c.current.entries.Remove(space)
		}
	}
}
