package objects

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"

	"chatelaine/backends"
	"chatelaine/gateway/keys"
)

// client is one that stops in the middle: reading from it and writing to it block
// until it is interrupted.
type client struct {
	first    io.Reader // what it sends before it stops
	once     sync.Once
	stopped  chan struct{} // closed when it has stopped
	released chan struct{}
	release  sync.Once
}

func newClient(first []byte) *client {
	return &client{first: bytes.NewReader(first), stopped: make(chan struct{}), released: make(chan struct{})}
}

func (c *client) interrupt() { c.release.Do(func() { close(c.released) }) }

func (c *client) stop() error {
	c.once.Do(func() { close(c.stopped) })
	select {
	case <-c.released:
		return os.ErrDeadlineExceeded
	case <-time.After(10 * time.Second):
		return errors.New("never interrupted")
	}
}

func (c *client) Read(p []byte) (int, error) {
	if n, err := c.first.Read(p); err == nil {
		return n, nil
	}
	return 0, c.stop()
}

func (c *client) Write([]byte) (int, error) { return 0, c.stop() }

func TestATransferThatWaitsForItsClientIsCutWithinASecond(t *testing.T) {
	w := newWorld(t)
	data := noise(3 << 20)
	w.put("object", data)
	u, err := w.CreateUpload(t.Context(), CreateUploadRequest{Bucket: w.bucket, Key: "parts"})
	if err != nil {
		t.Fatal(err)
	}
	transfers := map[string]func(context.Context, *client) error{
		"get": func(ctx context.Context, c *client) error {
			r, err := w.Get(ctx, GetRequest{Bucket: w.bucket, Key: "object"})
			if err != nil {
				return err
			}
			defer func() { _ = r.Close() }()
			_, err = r.WriteTo(c)
			return err
		},
		"put": func(ctx context.Context, c *client) error {
			_, err := w.Put(ctx, PutRequest{Bucket: w.bucket, Key: "new", Body: c, Size: int64(len(data))})
			return err
		},
		"part": func(ctx context.Context, c *client) error {
			_, err := w.PutPart(ctx, PutPartRequest{UploadRef: u, Number: 1, Body: c, Size: 6 << 20})
			return err
		},
	}
	for name, transfer := range transfers {
		t.Run(name, func(t *testing.T) {
			defer w.ring.Fail(nil)
			c := newClient(data[:1<<20])
			done := make(chan error, 1)
			go func() { done <- transfer(WithInterrupt(t.Context(), c.interrupt), c) }()
			<-c.stopped
			time.Sleep(2 * watchPeriod)
			select {
			case err := <-done:
				t.Fatalf("ended while its key may be used: %v", err)
			default:
			}
			blocked := time.Now()
			w.ring.Fail(keys.ErrBlocked)
			if err := <-done; !errors.Is(err, keys.ErrBlocked) {
				t.Errorf("got %v, want ErrBlocked", err)
			}
			if took := time.Since(blocked); took > time.Second {
				t.Errorf("it was cut after %v", took)
			}
		})
	}
}

func TestNothingIsInterruptedAfterATransfer(t *testing.T) {
	calls := make(chan struct{}, 16)
	ctx := WithInterrupt(t.Context(), func() { calls <- struct{}{} })
	stop := watched(ctx, func() error { return keys.ErrBlocked })
	<-calls
	stop()
	for len(calls) > 0 {
		<-calls
	}
	time.Sleep(2 * watchPeriod)
	if len(calls) > 0 {
		t.Error("interrupted after the end")
	}
}

// late is a store that answers a part or a new upload when the key is gone.
type late struct {
	*counting
	removed func()
}

func (l *late) PutPart(ctx context.Context, u backends.UploadID, number int, body backends.Body) (backends.Part, error) {
	defer l.removed()
	return l.counting.PutPart(ctx, u, number, body)
}

func (l *late) CreateUpload(ctx context.Context, bucket, key string, attrs backends.Attributes) (backends.UploadID, error) {
	defer l.removed()
	return l.counting.CreateUpload(ctx, bucket, key, attrs)
}

func TestNoStepOfAnUploadIsAcknowledgedWithoutItsKey(t *testing.T) {
	w := newWorld(t)
	store := &late{counting: w.store, removed: func() {}}
	s, err := New(Config{Keys: w.ring, Stores: map[string]backends.Store{"main": store}, DefaultStore: "main", Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	create := func() (UploadRef, error) {
		return s.CreateUpload(t.Context(), CreateUploadRequest{Bucket: w.bucket, Key: "parts"})
	}
	u, err := create()
	if err != nil {
		t.Fatal(err)
	}
	steps := map[string]func() error{
		"create": func() error { _, err := create(); return err },
		"part": func() error {
			_, err := s.PutPart(t.Context(), PutPartRequest{UploadRef: u, Number: 1, Body: bytes.NewReader(noise(6 << 20)), Size: 6 << 20})
			return err
		},
	}
	for name, step := range steps {
		store.removed = func() { w.ring.Fail(keys.ErrBlocked) }
		if err := step(); !errors.Is(err, keys.ErrBlocked) {
			t.Errorf("%s: got %v, want ErrBlocked", name, err)
		}
		w.ring.Fail(nil)
		store.removed = func() {}
		if err := step(); err != nil {
			t.Errorf("%s with its key: %v", name, err)
		}
	}
}
