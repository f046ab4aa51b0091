package objects

import (
	"bytes"
	"context"
	"testing"

	"go.uber.org/zap"

	"chatelaine/backends"
)

// relabelled is a store that shows one ETag for whatever it has.
type relabelled struct {
	backends.Store
	etag string
}

func (r *relabelled) Head(ctx context.Context, id backends.ObjectID, _ *backends.GetOptions) (backends.Info, error) {
	info, err := r.Store.Head(ctx, id, nil)
	info.ETag = r.etag
	return info, err
}

func (r *relabelled) Get(ctx context.Context, id backends.ObjectID, opts *backends.GetOptions) (*backends.Object, error) {
	object, err := r.Store.Get(ctx, id, &backends.GetOptions{Range: opts.Range})
	if err == nil {
		object.ETag = r.etag
	}
	return object, err
}

func TestAPartTableIsNotUsedForAnotherObjectOfTheSameETag(t *testing.T) {
	w := newWorld(t)
	store := &relabelled{w.store, "0123456789abcdef0123456789abcdef"}
	s, err := New(Config{Keys: w.ring, Stores: map[string]backends.Store{"main": store}, DefaultStore: "main", Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	for _, seed := range []byte{1, 2} { // of one size
		data := bytes.Repeat([]byte{seed}, 20_000)
		w.upload("same", []int{1}, [][]byte{data})
		st, _, err := s.Head(t.Context(), GetRequest{Bucket: w.bucket, Key: "same", Checksums: true})
		if err != nil {
			t.Fatal(err)
		}
		want := sumOf(CRC64NVME, data)
		if len(st.Checksums) != 1 || !bytes.Equal(st.Checksums[0].Value, want) {
			t.Errorf("object %d: got checksums %v, want %x", seed, st.Checksums, want)
		}
		reader, err := s.Get(t.Context(), GetRequest{Bucket: w.bucket, Key: "same", Range: &ByteRange{First: 100, Last: 17_000}})
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		_, err = reader.WriteTo(&out)
		if err != nil || !bytes.Equal(out.Bytes(), data[100:17_001]) {
			t.Errorf("object %d: got %d bytes and %v, want those that are there", seed, out.Len(), err)
		}
		_ = reader.Close()
	}
}
