package objects

import (
	"context"
	"errors"
	"testing"

	"chatelaine/backends"
	"chatelaine/gateway/keys"
)

func TestAShreddedBucketIsSweptAndOpensNoMore(t *testing.T) {
	w := newWorld(t)
	w.put("a", []byte("one"))
	w.put("b", []byte("two"))
	key, err := w.ring.Current(t.Context(), w.bucket)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.store.Put(t.Context(), backends.ObjectID{Bucket: "there-bucket", Key: "plain"}, backends.Body{}, nil); err != nil {
		t.Fatal(err)
	}
	if n, err := countUnder(t.Context(), w.bucket, w.store, MirrorPrefix); n != 1 || err != nil {
		t.Fatalf("%d records of keys before, %v", n, err)
	}
	b := w.ring.Shred(w.bucket.Name)
	w.ring.Ask(keys.Work{Unswept: []keys.Bucket{b}})
	if n, _, err := w.work(t.Context(), &adoptions{}); n != 1 || err != nil {
		t.Fatalf("got %d done, %v", n, err)
	}
	told := w.ring.Sweeps()
	if len(told) != 1 || told[0].Mirrors != 1 || told[0].Left != 0 || told[0].Seen != 3 || len(told[0].Samples) != 3 || told[0].Problem != "" {
		t.Fatalf("got %+v", told)
	}
	for _, s := range told[0].Samples {
		if want := map[string]string{"a": string(key.ID[:]), "b": string(key.ID[:]), "plain": ""}[s.Object]; string(s.KeyID) != want {
			t.Errorf("of %q: key %x, want %x", s.Object, s.KeyID, want)
		}
	}
	if n, err := countUnder(t.Context(), b, w.store, MirrorPrefix); n != 0 || err != nil {
		t.Errorf("%d records of keys are left, %v", n, err)
	}
	_, _, err = w.get(GetRequest{Bucket: b, Key: "a"})
	if !errors.Is(err, keys.ErrBlocked) {
		t.Errorf("reading: got %v", err)
	}
	if _, err := w.Put(t.Context(), PutRequest{Bucket: b, Key: "c"}); !errors.Is(err, keys.ErrBlocked) {
		t.Errorf("writing: got %v", err)
	}
}

func TestAShreddedBucketCanBeListedEmptiedAndDeleted(t *testing.T) {
	w := newWorld(t)
	w.put("a", []byte("one"))
	b := w.ring.Shred(w.bucket.Name)
	if found, err := w.Bucket(t.Context(), b.Name); err != nil || !found.Shredded {
		t.Fatalf("got %+v, %v", found, err)
	}
	list, err := w.List(t.Context(), ListRequest{Bucket: b})
	if err != nil || len(list.Entries) != 1 || list.Entries[0].Size != 3 {
		t.Errorf("got %+v, %v", list, err)
	}
	if err := w.DeleteBucket(t.Context(), b); !errors.Is(err, backends.ErrBucketNotEmpty) {
		t.Errorf("got %v", err)
	}
	if _, err := w.Delete(t.Context(), DeleteRequest{Bucket: b, Key: "a"}); err != nil {
		t.Error(err)
	}
	if err := w.DeleteBucket(t.Context(), b); err != nil {
		t.Error(err)
	}
}

func TestASweepThatFailsSaysWhyAndIsDoneAgain(t *testing.T) {
	w := newWorld(t)
	away := w.ring.Shred(w.bucket.Name)
	away.Store = "none"
	w.ring.Ask(keys.Work{Unswept: []keys.Bucket{away}})
	if n, _, err := w.work(t.Context(), &adoptions{}); n != 0 || !errors.Is(err, backends.ErrUnavailable) {
		t.Errorf("got %d done, %v", n, err)
	}
	if told := w.ring.Sweeps(); len(told) != 1 || told[0].Problem == "" {
		t.Errorf("got %+v", told)
	}
	gone := w.bucket
	gone.StoreName = "gone"
	w.ring.Ask(keys.Work{Unswept: []keys.Bucket{gone}})
	if n, _, err := w.work(t.Context(), &adoptions{}); n != 1 || err != nil {
		t.Errorf("of a bucket that is gone: got %d done, %v", n, err)
	}
}

func TestARecordWrittenAfterTheShreddingIsTakenBack(t *testing.T) {
	w := newWorld(t)
	store, err := w.storeOf(w.bucket)
	if err != nil {
		t.Fatal(err)
	}
	w.keys = lateRing{w.keys}
	if err := w.mirrorAndConfirm(t.Context(), w.bucket, store, [16]byte{1}, []byte("record")); !errors.Is(err, keys.ErrKeyNotFound) {
		t.Errorf("got %v", err)
	}
	_, err = w.store.Head(t.Context(), backends.ObjectID{Bucket: "there-bucket", Key: MirrorPrefix + "01000000000000000000000000000000"}, nil)
	if !errors.Is(err, backends.ErrNotFound) {
		t.Errorf("it lies there: %v", err)
	}
}

// lateRing knows no key any more when its mirror is confirmed.
type lateRing struct{ Keyring }

func (lateRing) ConfirmMirror(context.Context, keys.Bucket, [16]byte, []byte) error {
	return keys.ErrKeyNotFound
}
