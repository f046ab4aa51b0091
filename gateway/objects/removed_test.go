package objects

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"go.uber.org/zap"

	"chatelaine/backends"
	"chatelaine/gateway/keys"
)

// losing is a store during whose writes the bucket is removed: the gateway hears of
// it when the last byte is on its way already.
type losing struct {
	*counting
	removed func()
}

func (l *losing) Put(ctx context.Context, id backends.ObjectID, body backends.Body, opts *backends.PutOptions) (backends.Written, error) {
	defer l.removed()
	return l.counting.Put(ctx, id, body, opts)
}

func (l *losing) Complete(ctx context.Context, id backends.UploadID, parts []backends.Part, cond backends.Conditions) (backends.Written, error) {
	defer l.removed()
	return l.counting.Complete(ctx, id, parts, cond)
}

func (l *losing) Copy(ctx context.Context, from, to backends.ObjectID, opts *backends.CopyOptions) (backends.Written, error) {
	defer l.removed()
	return l.counting.Copy(ctx, from, to, opts)
}

func TestAWriteIsNotAcknowledgedWhenItsKeyWasTakenAwayMeanwhile(t *testing.T) {
	w := newWorld(t)
	store := &losing{counting: w.store, removed: func() {}}
	s, err := New(Config{Keys: w.ring, Stores: map[string]backends.Store{"main": store}, DefaultStore: "main", Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	w.Service = s
	data := noise(1000)
	w.put("source", data)
	u, parts := w.uploadParts("parts", []int{1}, [][]byte{data})
	store.removed = func() { w.ring.Fail(keys.ErrBucketNotFound) }
	writes := map[string]func(context.Context) error{
		"put": func(ctx context.Context) error {
			_, err := s.Put(ctx, PutRequest{Bucket: w.bucket, Key: "put", Body: bytes.NewReader(data), Size: int64(len(data))})
			return err
		},
		"copy": func(ctx context.Context) error {
			_, err := s.Copy(ctx, CopyRequest{Source: GetRequest{Bucket: w.bucket, Key: "source"}, Bucket: w.bucket, Key: "copy"})
			return err
		},
		"parts": func(ctx context.Context) error {
			_, err := s.Complete(ctx, CompleteRequest{UploadRef: u, Parts: parts, Size: -1})
			return err
		},
	}
	for key, write := range writes {
		if err := write(t.Context()); !errors.Is(err, keys.ErrBucketNotFound) {
			t.Errorf("%s: got %v, want ErrBucketNotFound", key, err)
		}
		w.ring.Fail(nil)
		if _, err := w.store.Head(t.Context(), idOf(w.bucket, key, ""), nil); err != nil {
			t.Errorf("%s: the store has nothing, so the test shows nothing: %v", key, err)
		}
	}
}
