package objects

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"chatelaine/backends"
	"chatelaine/gateway/keys"
	"chatelaine/gateway/sealed"
)

func TestWhatIsTooLargeOrHasNoSizeIsRefusedAtOnce(t *testing.T) {
	w := newWorld(t)
	u, _ := w.uploadParts("key", nil, nil)
	put := func(size int64) error {
		_, err := w.Put(t.Context(), PutRequest{Bucket: w.bucket, Key: "key", Body: strings.NewReader(""), Size: size})
		return err
	}
	part := func(number int, size int64) error {
		_, err := w.PutPart(t.Context(), PutPartRequest{UploadRef: u, Number: number, Body: strings.NewReader(""), Size: size})
		return err
	}
	wantErr(t, "an object beyond MaxPut", put(MaxPut+1), ErrBodyTooLarge)
	wantErr(t, "an object of no size", put(-1), sealed.ErrRange)
	wantErr(t, "a part beyond MaxPut", part(1, MaxPut+1), ErrBodyTooLarge)
	wantErr(t, "a part of no size", part(1, -1), sealed.ErrRange)
	for _, number := range []int{-1, 0, MaxPartNumber + 1, 1<<16 + 1} {
		wantErr(t, "a part of no number", part(number, 0), ErrPartNumber)
	}
}

func TestAConfigurationThatIsTooLongIsNotRead(t *testing.T) {
	w := newWorld(t)
	bk, err := w.keys.Current(t.Context(), w.bucket)
	if err != nil {
		t.Fatal(err)
	}
	put := PutRequest{Bucket: w.bucket, Key: configPrefix + "x", Body: bytes.NewReader(make([]byte, MaxConfig+1)), Size: MaxConfig + 1}
	if _, err := w.sealAndStore(t.Context(), w.store, bk, put); err != nil {
		t.Fatal(err)
	}
	_, err = w.BucketConfig(t.Context(), w.bucket, "x")
	wantErr(t, "one byte too long", err, sealed.ErrCorrupt)
}

func TestAnUploadIsAbortedIfItBeganThen(t *testing.T) {
	w := newWorld(t)
	u, _ := w.uploadParts("key", []int{1}, [][]byte{noise(9)})
	began, err := w.began(t.Context(), u)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	wantErr(t, "a reserved name", w.AbortIf(ctx, UploadRef{w.bucket, ReservedPrefix + "x", u.ID}, began), ErrReserved)
	wantErr(t, "another upload", w.AbortIf(ctx, UploadRef{w.bucket, "key", "nonsense"}, began), backends.ErrUploadNotFound)
	wantErr(t, "another time", w.AbortIf(ctx, u, began.Add(time.Hour)), backends.ErrPrecondition)
	if got := len(w.listParts(w.Service, u, 9)); got != 1 {
		t.Errorf("after that it has %d parts, want 1", got)
	}
	wantErr(t, "its time", w.AbortIf(ctx, u, began), nil)
	_, err = w.ListParts(ctx, PartsRequest{UploadRef: u})
	wantErr(t, "afterwards", err, backends.ErrUploadNotFound)
}

func TestAnObjectIsDeletedIfItIsTheOneDescribed(t *testing.T) {
	for name, w := range map[string]*world{"backend's ETags": newWorld(t), "MD5s": newMD5World(t)} {
		w.put("key", []byte("abc"))
		st, _, err := w.Head(t.Context(), GetRequest{Bucket: w.bucket, Key: "key"})
		if err != nil {
			t.Fatal(err)
		}
		same, other := int64(3), int64(4)
		for what, r := range map[string]DeleteRequest{
			"another ETag": {IfMatch: []string{"x"}, IfSize: &same},
			"another size": {IfMatch: []string{st.ETag}, IfSize: &other},
			"another time": {IfSize: &same, IfModified: st.Modified.Add(time.Hour)},
		} {
			r.Bucket, r.Key = w.bucket, "key"
			_, err := w.Delete(t.Context(), r)
			wantErr(t, name+": "+what, err, backends.ErrPrecondition)
		}
		r := DeleteRequest{Bucket: w.bucket, Key: "key", IfMatch: []string{st.ETag}, IfSize: &same, IfModified: st.Modified}
		_, err = w.Delete(t.Context(), r)
		wantErr(t, name+": the same", err, nil)
		_, _, err = w.get(GetRequest{Key: "key"})
		wantErr(t, name+": afterwards", err, backends.ErrNotFound)
	}
}

func TestVersionsAndTagsOfTheGatewaysOwnObjectsAreHidden(t *testing.T) {
	w := newWorld(t)
	w.put("a/b", nil)
	got, err := w.ListVersions(t.Context(), VersionsRequest{Bucket: w.bucket, Delimiter: "/"})
	if err != nil || len(got.Versions) != 0 || len(got.Prefixes) != 1 || got.Prefixes[0] != "a/" {
		t.Errorf("listed %+v, %v, want the prefix a/", got, err)
	}
	name := w.mirrors()[0]
	_, _, err = w.Tags(t.Context(), w.bucket, name, "")
	wantErr(t, "tags", err, ErrReserved)
	_, err = w.SetTags(t.Context(), w.bucket, name, "", backends.Tags{"a": "b"})
	wantErr(t, "setting tags", err, ErrReserved)
	wantErr(t, "a legal hold", w.SetHold(t.Context(), w.bucket, name, "", true), ErrReserved)
}

func TestABucketThatIsNotEmptyKeepsItsUploads(t *testing.T) {
	w := newWorld(t)
	w.put("key", nil)
	u, listed := w.uploadParts("big", []int{1}, [][]byte{noise(9)})
	wantErr(t, "deleting it", w.DeleteBucket(t.Context(), w.bucket), backends.ErrBucketNotEmpty)
	_, err := w.Complete(t.Context(), CompleteRequest{UploadRef: u, Parts: listed, Size: -1})
	wantErr(t, "completing an upload", err, nil)
}

func TestABucketWithoutALockIsNotTakenForOneWithALock(t *testing.T) {
	w := newWorld(t)
	b, err := w.ring.RegisterBucket(t.Context(), keys.NewBucket{Name: "new", Store: "main", StoreName: "there-new", Owner: "ann"})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.store.CreateBucket(t.Context(), b.StoreName); err != nil {
		t.Fatal(err)
	}
	wantErr(t, "making it with a lock", w.CreateLockedBucketOn(t.Context(), "ann", "new", ""), keys.ErrBucketExists)
}

// simple is a store that can do no more than the contract, but copy.
type simple struct {
	backends.Store
	copier
}

type copier struct{ backends.Copier }

func (copier) MaxCopy() int64 { return 10 }

func TestAStoreWithoutPartsSaysSo(t *testing.T) {
	w := newWorld(t)
	w.put("key", noise(100))
	w.Service = w.replica()
	w.stores = map[string]backends.Store{"main": simple{bare{w.store}, copier{w.store}}}
	_, err := w.CreateUpload(t.Context(), CreateUploadRequest{Bucket: w.bucket, Key: "big"})
	wantErr(t, "an upload", err, ErrUnsupported)
	_, err = w.Copy(t.Context(), CopyRequest{Source: GetRequest{Bucket: w.bucket, Key: "key"}, Bucket: w.bucket, Key: "copy"})
	wantErr(t, "a copy in pieces", err, ErrUnsupported)
}

func TestAServiceWantsItsDefaultStore(t *testing.T) {
	w := newWorld(t)
	c := Config{Keys: w.ring, Stores: map[string]backends.Store{"main": w.store}, DefaultStore: "main", Logger: zap.NewNop()}
	_, err := New(c)
	wantErr(t, "with it", err, nil)
	c.DefaultStore = "other"
	if _, err := New(c); err == nil {
		t.Error("without it: got no error")
	}
}

func TestAForeignObjectHasNoMD5ToCompareWith(t *testing.T) {
	w := newMD5World(t)
	if _, err := w.store.Store.Put(t.Context(), idOf(w.bucket, "key", ""), backends.Body{Reader: strings.NewReader("x"), Size: 1}, nil); err != nil {
		t.Fatal(err)
	}
	_, _, err := w.Head(t.Context(), GetRequest{Bucket: w.bucket, Key: "key"})
	wantErr(t, "HEAD", err, ErrNotSealed)
	_, err = w.Put(t.Context(), PutRequest{Bucket: w.bucket, Key: "key", Body: strings.NewReader("y"), Size: 1, IfMatch: []string{"x"}})
	wantErr(t, "a write with If-Match", err, ErrNotSealed)
}

// guarding is a store that neither takes nor gives up records of keys.
type guarding struct {
	*counting
	err error
}

func (g *guarding) Put(ctx context.Context, id backends.ObjectID, body backends.Body, opts *backends.PutOptions) (backends.Written, error) {
	if strings.HasPrefix(id.Key, MirrorPrefix) {
		return backends.Written{}, g.err
	}
	return g.counting.Put(ctx, id, body, opts)
}

func (g *guarding) Delete(ctx context.Context, id backends.ObjectID, opts *backends.DeleteOptions) (backends.Deleted, error) {
	if strings.HasPrefix(id.Key, MirrorPrefix) {
		return backends.Deleted{}, g.err
	}
	return g.counting.Delete(ctx, id, opts)
}

func TestRecordsOfKeysThatStayAreATrouble(t *testing.T) {
	w := newWorld(t)
	w.stores["main"] = &guarding{w.store, backends.ErrLocked}
	if err := w.sweepBucket(t.Context(), w.ring.Shred("bucket")); err == nil {
		t.Error("a sweep that leaves a record has no error")
	}
	sweeps := w.ring.Sweeps()
	if n := len(sweeps); n != 1 || sweeps[0].Left != 1 || sweeps[0].Problem == "" {
		t.Errorf("told %+v, want one record left, and a problem", sweeps)
	}
}

func TestAnAdoptionBeginsWithTheRecordOfItsKey(t *testing.T) {
	w := adopting(t, false, nil)
	w.stores["main"] = &guarding{w.store, errLost}
	if err := w.adopt(t.Context(), w.bucket); !errors.Is(err, errLost) {
		t.Errorf("got %v, want the store's error", err)
	}
	if b, err := w.keys.Bucket(t.Context(), w.bucket.Name); err != nil || !b.Adopting.CutOff.IsZero() {
		t.Errorf("it has begun: %+v, %v", b.Adopting, err)
	}
}
