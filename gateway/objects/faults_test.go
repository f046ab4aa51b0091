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

// limited is a store that takes small bodies only, and part numbers from 1.
type limited struct {
	*counting
	max int64
}

func (l *limited) MaxPut() int64 { return l.max }

func (l *limited) Put(ctx context.Context, id backends.ObjectID, body backends.Body, opts *backends.PutOptions) (backends.Written, error) {
	if body.Size > l.max {
		return backends.Written{}, backends.ErrTooLarge
	}
	return l.counting.Put(ctx, id, body, opts)
}

func TestAPutBeyondTheBackendsLimitIsStoredInParts(t *testing.T) {
	w := newWorld(t)
	s, err := New(Config{
		Keys: w.ring, Stores: map[string]backends.Store{"main": &limited{w.store, 4 * mib}}, DefaultStore: "main", Logger: zap.NewNop(),
	})
	if err != nil {
		t.Fatal(err)
	}
	w.Service = s
	data := noise(4*mib - 100) // fits as plaintext, not when sealed
	w.put("key", data)
	stat, got, err := w.get(GetRequest{Key: "key"})
	if err != nil || !bytes.Equal(got, data) || stat.Parts != 0 {
		t.Errorf("got %d other bytes in %d parts, error %v", len(got), stat.Parts, err)
	}
	bad := errors.New("wrong checksum")
	_, err = w.Put(t.Context(), PutRequest{Bucket: w.bucket, Key: "bad", Body: &failing{bytes.NewReader(data), bad}, Size: int64(len(data))})
	if !errors.Is(err, bad) {
		t.Errorf("got %v, want the body's error", err)
	}
	page, _ := w.ListUploads(t.Context(), UploadsRequest{Bucket: w.bucket})
	if len(page.Uploads) != 0 {
		t.Errorf("left behind: %+v", page.Uploads)
	}
}

// flaky fails the next call of an operation, before or after it was applied.
type flaky struct {
	*counting
	op      string
	applied bool
}

var errLost = errors.New("the connection broke")

func (f *flaky) hit(op string) (before, after error) {
	if f.op != op {
		return nil, nil
	}
	f.op = ""
	if f.applied {
		return nil, errLost
	}
	return errLost, nil
}

func (f *flaky) Put(ctx context.Context, id backends.ObjectID, body backends.Body, opts *backends.PutOptions) (backends.Written, error) {
	before, after := f.hit("put")
	if before != nil {
		return backends.Written{}, before
	}
	w, err := f.counting.Put(ctx, id, body, opts)
	return w, errors.Join(err, after)
}

func (f *flaky) PutPart(ctx context.Context, id backends.UploadID, number int, body backends.Body) (backends.Part, error) {
	before, after := f.hit("part")
	if before != nil {
		return backends.Part{}, before
	}
	p, err := f.counting.PutPart(ctx, id, number, body)
	return p, errors.Join(err, after)
}

func (f *flaky) Complete(ctx context.Context, id backends.UploadID, parts []backends.Part, cond backends.Conditions) (backends.Written, error) {
	before, after := f.hit("complete")
	if before != nil {
		return backends.Written{}, before
	}
	w, err := f.counting.Complete(ctx, id, parts, cond)
	return w, errors.Join(err, after)
}

func (f *flaky) CreateUpload(ctx context.Context, bucket, key string, attrs backends.Attributes) (backends.UploadID, error) {
	before, after := f.hit("create")
	if before != nil {
		return backends.UploadID{}, before
	}
	u, err := f.counting.CreateUpload(ctx, bucket, key, attrs)
	return u, errors.Join(err, after)
}

func (f *flaky) CreateBucket(ctx context.Context, bucket string) error {
	before, after := f.hit("bucket")
	if before != nil {
		return before
	}
	return errors.Join(f.counting.CreateBucket(ctx, bucket), after)
}

func (f *flaky) Delete(ctx context.Context, id backends.ObjectID, opts *backends.DeleteOptions) (backends.Deleted, error) {
	before, after := f.hit("delete")
	if before != nil {
		return backends.Deleted{}, before
	}
	d, err := f.counting.Delete(ctx, id, opts)
	return d, errors.Join(err, after)
}

func newFlakyWorld(t *testing.T) (*world, *flaky) {
	t.Helper()
	w := newWorld(t)
	f := &flaky{counting: w.store}
	s, err := New(Config{Keys: w.ring, Stores: map[string]backends.Store{"main": f}, DefaultStore: "main", Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	w.Service = s
	return w, f
}

func TestAFailingStoreLeavesTheOldOrTheNewObjectWhole(t *testing.T) {
	for _, applied := range []bool{false, true} {
		w, f := newFlakyWorld(t)
		before, after := noise(mib+3), noise(2*mib+5)
		w.put("key", before)
		f.op, f.applied = "put", applied
		_, err := w.Put(t.Context(), PutRequest{Bucket: w.bucket, Key: "key", Body: bytes.NewReader(after), Size: int64(len(after))})
		if !errors.Is(err, errLost) {
			t.Errorf("applied %v: got %v, want the store's error", applied, err)
		}
		want := before
		if applied {
			want = after
		}
		if got := w.mustGet(GetRequest{Key: "key"}); !bytes.Equal(got, want) {
			t.Errorf("applied %v: got %d other bytes", applied, len(got))
		}
	}
}

func TestAFailingMirrorKeepsTheNewKeyFromBeingUsed(t *testing.T) {
	for _, applied := range []bool{false, true} {
		w, f := newFlakyWorld(t)
		w.ring.NewEpoch(w.bucket)
		f.op, f.applied = "put", applied
		_, err := w.Put(t.Context(), PutRequest{Bucket: w.bucket, Key: "key", Body: bytes.NewReader(nil)})
		if !errors.Is(err, errLost) {
			t.Errorf("applied %v: got %v, want the store's error", applied, err)
		}
		if _, _, err := w.get(GetRequest{Key: "key"}); !errors.Is(err, backends.ErrNotFound) {
			t.Errorf("applied %v: an object was stored under a key without a mirror (%v)", applied, err)
		}
		w.put("key", []byte("again"))
		if got := len(w.mirrors()); got != 2 {
			t.Errorf("applied %v: got %d mirrors, want 2", applied, got)
		}
	}
}

func TestUploadsSurviveAFailingStoreAtEveryStep(t *testing.T) {
	for _, step := range []string{"part", "complete"} {
		for _, applied := range []bool{false, true} {
			w, f := newFlakyWorld(t)
			data := noise(5 * mib)
			u, listed := w.uploadParts("key", []int{1}, [][]byte{data})
			f.op, f.applied = step, applied // "part" hits the trailer's
			r := CompleteRequest{UploadRef: u, Parts: listed, Size: -1}
			if _, err := w.Complete(t.Context(), r); !errors.Is(err, errLost) {
				t.Errorf("%s, applied %v: got %v, want the store's error", step, applied, err)
			}
			if _, err := w.Complete(t.Context(), r); err != nil {
				t.Errorf("%s, applied %v: completing again: %v", step, applied, err)
			}
			if got := w.mustGet(GetRequest{Key: "key"}); !bytes.Equal(got, data) {
				t.Errorf("%s, applied %v: got other bytes", step, applied)
			}
			checkNothingReservedLeft(t, w)
		}
	}
}

func TestAnUploadWhoseStashCannotBeStoredIsAborted(t *testing.T) {
	w, f := newFlakyWorld(t)
	f.op = "put"
	if _, err := w.CreateUpload(t.Context(), CreateUploadRequest{Bucket: w.bucket, Key: "key"}); !errors.Is(err, errLost) {
		t.Errorf("got %v, want the store's error", err)
	}
	page, err := w.ListUploads(t.Context(), UploadsRequest{Bucket: w.bucket})
	if err != nil || len(page.Uploads) != 0 {
		t.Errorf("left behind: %+v, error %v", page.Uploads, err)
	}
}

func TestCreateBucketCanBeRepeatedAfterAnyFailure(t *testing.T) {
	for _, step := range []string{"bucket", "put"} {
		for _, applied := range []bool{false, true} {
			w, f := newFlakyWorld(t)
			f.op, f.applied = step, applied
			if err := w.CreateBucket(t.Context(), "ann", "new"); !errors.Is(err, errLost) {
				t.Errorf("%s, applied %v: got %v, want the store's error", step, applied, err)
			}
			if _, err := w.Bucket(t.Context(), "new"); !errors.Is(err, keys.ErrBucketNotFound) {
				t.Errorf("%s, applied %v: a half-made bucket can be used (%v)", step, applied, err)
			}
			if err := w.CreateBucket(t.Context(), "ann", "new"); err != nil {
				t.Errorf("%s, applied %v: making it again: %v", step, applied, err)
			}
		}
	}
}

func TestDeleteBucketPutsMirrorsBackWhenItFails(t *testing.T) {
	w, f := newFlakyWorld(t)
	f.op, f.applied = "delete", true
	if err := w.DeleteBucket(t.Context(), w.bucket); !errors.Is(err, errLost) {
		t.Fatalf("got %v, want the store's error", err)
	}
	if got := len(w.mirrors()); got != 1 {
		t.Errorf("got %d mirrors, want 1", got)
	}
}
