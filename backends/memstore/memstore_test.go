package memstore_test

import (
	"bytes"
	"io"
	"testing"

	"chatelaine/backends"
	"chatelaine/backends/backendtest"
	"chatelaine/backends/memstore"
)

func TestMemstorePassesTheSuite(t *testing.T) {
	backendtest.Run(t, func(*testing.T) backends.Store { return memstore.New() })
}

func TestObjectsMayBeLargerThanOnePiece(t *testing.T) {
	s, id := memstore.New(), backends.ObjectID{Bucket: "bucket", Key: "key"}
	if err := s.CreateBucket(t.Context(), id.Bucket); err != nil {
		t.Fatal(err)
	}
	data := bytes.Repeat([]byte("0123456789abcdef"), 70<<20/16)
	if _, err := s.Put(t.Context(), id, backends.Body{Reader: bytes.NewReader(data), Size: int64(len(data))}, nil); err != nil {
		t.Fatal(err)
	}
	for _, r := range []*backends.Range{nil, {Offset: 32<<20 - 1, Length: 2}, {Offset: 1, Length: 65 << 20}} {
		o, err := s.Get(t.Context(), id, &backends.GetOptions{Range: r})
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(o.Body)
		if err != nil || !bytes.Equal(got, data[o.Range.Offset:o.Range.Offset+o.Range.Length]) {
			t.Errorf("range %+v: %d bytes, %v; want %d", r, len(got), err, o.Range.Length)
		}
	}
}
