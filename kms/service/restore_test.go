package service

import (
	"errors"
	"testing"

	"google.golang.org/protobuf/proto"

	"chatelaine/kms"
	"chatelaine/kms/service/kmsv1"
)

func TestASnapshotMustArriveWhole(t *testing.T) {
	items := []kms.Item{{Key: "a", Value: []byte("1")}, {Key: "b", Value: make([]byte, snapshotChunk)}, {Key: "c", Value: []byte("3")}}
	whole := kms.Snapshot{Items: items}
	chunks := SnapshotChunks(items)
	if len(chunks) != 2 {
		t.Fatalf("got %d messages, want 2", len(chunks))
	}
	tail := &kmsv1.SnapshotTail{Records: 3, Digest: whole.Digest()}
	read := func(chunks []*kmsv1.SnapshotRecords, tail *kmsv1.SnapshotTail) error {
		var r SnapshotReader
		if err := r.Head(&kmsv1.SnapshotHead{}); err != nil {
			t.Fatal(err)
		}
		for _, c := range chunks {
			if err := r.Records(c); err != nil {
				t.Fatal(err)
			}
		}
		_, err := r.Tail(tail)
		return err
	}
	changed := proto.CloneOf(chunks[0])
	changed.Records[0].Value = []byte("2")
	for name, test := range map[string]struct {
		chunks []*kmsv1.SnapshotRecords
		tail   *kmsv1.SnapshotTail
		want   error
	}{
		"whole":         {chunks, tail, nil},
		"without one":   {chunks[:1], tail, kms.ErrCorrupt},
		"changed":       {[]*kmsv1.SnapshotRecords{changed, chunks[1]}, tail, kms.ErrCorrupt},
		"another count": {chunks, &kmsv1.SnapshotTail{Records: 2, Digest: tail.GetDigest()}, kms.ErrCorrupt},
	} {
		if err := read(test.chunks, test.tail); !errors.Is(err, test.want) {
			t.Errorf("%s: got %v, want %v", name, err, test.want)
		}
	}
}

func TestRestoreAndRecoverWantTheirOptionsFirst(t *testing.T) {
	a := &recoveryAPI{manager: newWorld(t, nil).manager}
	bucket := &kmsv1.RecoverRequest{What: &kmsv1.RecoverRequest_Bucket{Bucket: &kmsv1.RecoverBucket{}}}
	options := &kmsv1.RecoverRequest{What: &kmsv1.RecoverRequest_Options{Options: &kmsv1.RecoverOptions{}}}
	if _, err := a.recoverNext(t.Context(), nil, bucket); !errors.Is(err, kms.ErrInvalid) {
		t.Errorf("a bucket first: got %v, want ErrInvalid", err)
	}
	r, err := a.recoverNext(t.Context(), nil, options)
	if err != nil {
		t.Fatal(err)
	}
	for name, message := range map[string]*kmsv1.RecoverRequest{"options again": options, "a bucket without a name": bucket, "nothing": {}} {
		if _, err := a.recoverNext(t.Context(), r, message); !errors.Is(err, kms.ErrInvalid) {
			t.Errorf("%s: got %v, want ErrInvalid", name, err)
		}
	}
}
