package sealed

import (
	"bytes"
	"io"
	"testing"
)

func TestBatchSizes(t *testing.T) {
	for _, tt := range []struct{ asked, want int }{{-1, 64}, {0, 64}, {1, 1}, {2, 2}, {3, 4}, {33, 64}, {64, 64}, {65, 64}} {
		if got := batchSize(tt.asked); got != tt.want {
			t.Errorf("batchSize(%d): got %d, want %d", tt.asked, got, tt.want)
		}
	}
	pool := new(Buffers)
	for batch := 1; batch <= MaxBatch; batch *= 2 {
		b := pool.get(batch)
		if len(b.b) != ChunkSize+batch*SealedChunkSize {
			t.Errorf("batch %d: got a buffer of %d bytes", batch, len(b.b))
		}
		pool.put(b)
		if again := pool.get(batch); again.batch != batch {
			t.Errorf("batch %d: got one for %d back", batch, again.batch)
		}
	}
}

func TestBuffersForgetPlaintext(t *testing.T) {
	secret := bytes.Repeat([]byte("plaintext "), 20_000)
	s := Suite{Buffers: new(Buffers)}
	o := sealSingle(t, s, testKey(t, 1), secret)
	sealer, err := s.NewSealer(bytes.NewReader(secret), int64(len(secret)), testKey(t, 1), Options{})
	if err != nil {
		t.Fatal(err)
	}
	opener, err := s.NewOpener(o.table, o.dek, bytes.NewReader(o.stored), Read{Window: Window{Length: ToEnd}, N: int64(len(secret))})
	if err != nil {
		t.Fatal(err)
	}
	for name, stream := range map[string]struct {
		io.ReadCloser
		buf *buffer
	}{"sealer": {sealer, sealer.buf}, "opener": {opener, opener.buf}} {
		if _, err := io.ReadFull(stream, make([]byte, 100)); err != nil {
			t.Fatal(err)
		}
		if !bytes.Contains(stream.buf.b, []byte("plaintext")) {
			t.Errorf("%s: the test looks at the wrong buffer", name)
		}
		if err := stream.Close(); err != nil || bytes.Contains(stream.buf.b, []byte("plaintext")) {
			t.Errorf("%s: plaintext is left in the buffer (%v)", name, err)
		}
		if _, err := stream.Read(make([]byte, 1)); err == nil || atEnd(err) {
			t.Errorf("%s: Read after Close gives %v", name, err)
		}
		if err := stream.Close(); err != nil {
			t.Error(err)
		}
	}
}

// gate is a source that stops in the middle of a Read.
type gate struct {
	reached, open chan struct{}
	src           io.Reader
}

func (g *gate) Read(p []byte) (int, error) {
	close(g.reached)
	<-g.open
	return g.src.Read(p)
}

// TestCloseDuringReadDoesNotGiveTheBufferAway is about what net/http does to a request body.
func TestCloseDuringReadDoesNotGiveTheBufferAway(t *testing.T) {
	s := Suite{Buffers: new(Buffers)}
	g := &gate{reached: make(chan struct{}), open: make(chan struct{}), src: bytes.NewReader(nil)}
	sealer, err := s.NewSealer(g, 0, testKey(t, 1), Options{})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() {
		_, err := sealer.Read(make([]byte, 10))
		done <- err
	}()
	<-g.reached
	if err := sealer.Close(); err != nil || sealer.buf == nil {
		t.Errorf("Close took the buffer from a running Read (%v)", err)
	}
	close(g.open)
	if err := <-done; err != nil {
		t.Errorf("Read: %v", err)
	}
	if sealer.buf != nil {
		t.Error("Read did not give the buffer back")
	}
}
