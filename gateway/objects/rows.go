package objects

import (
	"context"
	"sync"

	"chatelaine/backends"
	"chatelaine/gateway/keys"
	"chatelaine/gateway/sealed"
)

const (
	// maxRowKeys is how many bucket keys are looked for while one page is made.
	maxRowKeys = 8
	// rowWorkers is how many envelopes of a page are opened at once, and rowShare how
	// many are worth one more. An envelope takes about 8 microseconds.
	rowWorkers = 4
	rowShare   = 64
)

// rows makes the rows of one page. Where the backend's listing comes with the
// envelopes, it says what checksums objects have. A page never fails for that:
// what does not open is listed without.
type rows struct {
	*Service
	bucket keys.Bucket
	find   keyFinder

	mu     sync.Mutex
	known  map[sealed.KeyID]keys.BucketKey
	failed bool // a key was looked for in vain: others are not
}

func (s *Service) rows(ctx context.Context, b keys.Bucket) *rows {
	return &rows{Service: s, bucket: b, find: s.finder(ctx, b), known: map[sealed.KeyID]keys.BucketKey{}}
}

// entries are the rows of objects, in their order.
func (r *rows) entries(infos []backends.Info) []Entry {
	entries := make([]Entry, len(infos))
	share := max(rowShare, (len(infos)+rowWorkers-1)/rowWorkers)
	var running sync.WaitGroup
	for first := 0; first < len(infos); first += share {
		last := min(first+share, len(infos))
		running.Go(func() {
			for i := first; i < last; i++ {
				entries[i] = r.entry(infos[i])
			}
		})
	}
	running.Wait()
	return entries
}

func (r *rows) entry(i backends.Info) Entry {
	if r.isPlain(i) {
		return Entry{Key: i.Key, Size: max(-1, i.Size), ETag: plainETag(r.bucket, i.ETag), Modified: i.Modified, Class: i.Class}
	}
	e := Entry{Key: i.Key, Size: -1, ETag: visibleETag(i.ETag), Modified: i.Modified, Class: i.Class}
	if n, ok := sealed.PlainSize(i.Size); ok {
		e.Size = n
	}
	if len(i.Attributes.Metadata) > 0 && !r.bucket.Strict {
		e.Algorithm, e.Composite = r.checksum(i)
	}
	return e
}

// checksum is that of an object of a single PUT. That of a multipart object lies in
// its trailer, which is another request away.
func (r *rows) checksum(i backends.Info) (_ Algorithm, composite bool) {
	env, _, err := r.openEnvelope(r.bucket, i.Key, i, r.key)
	if err != nil {
		return "", false
	}
	if len(env.Attributes.Checksums) > 0 {
		c := env.Attributes.Checksums[0]
		return fromSealedAlgorithm(c.Algorithm), c.Scope == sealed.Composite
	}
	return fromSealedAlgorithm(env.Attributes.LateChecksum), false
}

// key finds a bucket key once for the page, and no more of them once one was
// missing: a KMS that is away must not be waited for again and again.
func (r *rows) key(id sealed.KeyID) (keys.BucketKey, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if bk, ok := r.known[id]; ok {
		return bk, nil
	}
	if r.failed || len(r.known) == maxRowKeys {
		return keys.BucketKey{}, keys.ErrUnavailable
	}
	bk, err := r.find(id)
	if err != nil {
		r.failed = true
		return bk, err
	}
	r.known[id] = bk
	return bk, nil
}
