package sealed

import (
	"errors"
	"math/bits"
	"sync"
	"sync/atomic"
)

var errClosed = errors.New("sealed: used after Close")

// Buffers recycles the memory of Sealers and Openers: one buffer for each stream, of about 16 KiB more than a batch.
// The zero value is ready. It may be used concurrently and must not be copied. What a stream wrote is cleared before
// another stream gets the buffer.
type Buffers struct {
	pools [7]sync.Pool // of *buffer, by log2 of the chunks in a batch
}

// buffer holds one batch. dirty is the length of the front that may hold plaintext.
type buffer struct {
	b     []byte
	batch int
	dirty int
}

// batchSize rounds what a caller asked for to the next power of two within 1 to MaxBatch; 0 asks for MaxBatch.
func batchSize(asked int) int {
	if asked <= 0 || asked >= MaxBatch {
		return MaxBatch
	}
	return 1 << bits.Len(uint(asked-1))
}

func (p *Buffers) get(batch int) *buffer {
	if p != nil {
		if b, ok := p.pools[bits.Len(uint(batch))-1].Get().(*buffer); ok {
			return b
		}
	}
	return &buffer{b: make([]byte, ChunkSize+batch*SealedChunkSize), batch: batch}
}

func (p *Buffers) put(b *buffer) {
	if b == nil {
		return
	}
	clear(b.b[:b.dirty])
	b.dirty = 0
	if p != nil {
		p.pools[bits.Len(uint(b.batch))-1].Put(b)
	}
}

// lease is a stream's hold on its buffer. An HTTP client may close a request body while another goroutine still reads from
// it, so Close must not take the buffer away under a running Read: whoever of the two comes last gives it back.
type lease struct {
	buffers *Buffers
	buf     *buffer
	mu      sync.Mutex // held while the stream runs
	closed  atomic.Bool
}

// enter begins a use of the buffer, or fails where the stream is closed. After nil, leave must follow.
func (l *lease) enter() error {
	l.mu.Lock()
	if l.closed.Load() {
		l.leave()
		return errClosed
	}
	return nil
}

func (l *lease) leave() {
	l.mu.Unlock()
	if l.closed.Load() {
		l.release()
	}
}

func (l *lease) close() {
	l.closed.Store(true)
	l.release()
}

// release gives the buffer back unless the stream runs: then leave will.
func (l *lease) release() {
	if !l.mu.TryLock() {
		return
	}
	defer l.mu.Unlock()
	l.buffers.put(l.buf)
	l.buf = nil
}
