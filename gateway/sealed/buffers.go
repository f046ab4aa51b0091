package sealed

import (
	"math/bits"
	"sync"
)

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
