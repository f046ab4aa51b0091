package service

import (
	"context"
	"errors"
	"sync"
	"time"

	"go.uber.org/zap"

	"chatelaine/kms"
)

// board is where this process puts up what is revoked, for all streams to read.
//
// It follows the registry, so it tells of what any process has committed. Should it
// fall behind, the next renewal of any lease reads the registry and puts it right.
type board struct {
	manager *kms.Manager
	log     *zap.Logger

	reading sync.Mutex // one reads at a time, so that what is put up is never older

	mu      sync.Mutex
	now     kms.Revocation
	known   bool
	since   time.Time     // when this process learned of now.Epoch
	changed chan struct{} // closed and replaced by each change
	closed  bool
}

func newBoard(m *kms.Manager, log *zap.Logger) *board {
	return &board{manager: m, log: log, changed: make(chan struct{})}
}

// poster is what is on the board at one moment.
type poster struct {
	kms.Revocation
	known   bool
	since   time.Time
	changed <-chan struct{}
	closed  bool
}

func (b *board) look() poster {
	b.mu.Lock()
	defer b.mu.Unlock()
	return poster{b.now, b.known, b.since, b.changed, b.closed}
}

// newest asks the registry for the epoch, and for the rest where that has changed.
func (b *board) newest(ctx context.Context) (poster, error) {
	epoch, err := b.manager.Revocations(ctx)
	if err != nil {
		return poster{}, err
	}
	if p := b.look(); p.known && p.Epoch == epoch {
		return p, nil
	}
	return b.read(ctx)
}

// read puts up what the registry says now.
func (b *board) read(ctx context.Context) (poster, error) {
	b.reading.Lock()
	defer b.reading.Unlock()
	revocation, err := b.manager.Revocation(ctx)
	if err != nil {
		return poster{}, err
	}
	b.put(revocation)
	return b.look(), nil
}

func (b *board) put(r kms.Revocation) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.known && b.now.Epoch == r.Epoch {
		return
	}
	b.now, b.known, b.since = r, true, time.Now()
	b.wake()
}

func (b *board) wake() {
	close(b.changed)
	b.changed = make(chan struct{})
}

// close ends the streams, for a process that is about to end.
func (b *board) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	b.wake()
}

// follow keeps the board right until ctx ends.
func (b *board) follow(ctx context.Context) {
	defer b.close()
	persist(ctx, b.log, "following revocations", func(ctx context.Context) error {
		return b.manager.WatchRevocations(ctx, func() error {
			_, err := b.read(ctx)
			return err
		})
	})
}

// persist calls f again and again until ctx ends, with a pause that grows to a second.
func persist(ctx context.Context, log *zap.Logger, doing string, f func(context.Context) error) {
	const shortest, longest = 20 * time.Millisecond, time.Second
	wait := shortest
	for ctx.Err() == nil {
		began := time.Now()
		err := f(ctx)
		if ctx.Err() != nil {
			return
		}
		if !errors.Is(err, kms.ErrCompacted) {
			log.Warn(doing, zap.Error(err))
		}
		if time.Since(began) > longest {
			wait = shortest
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
		}
		wait = min(2*wait, longest)
	}
}
