package objects

import (
	"encoding/hex"
	"errors"
	"io"
	"testing"

	"chatelaine/backends"
	"chatelaine/gateway/keys"
)

func TestRecordsThatWereWrappedAnewAreMirrored(t *testing.T) {
	w := newWorld(t)
	key, err := w.ring.Current(t.Context(), w.bucket)
	if err != nil {
		t.Fatal(err)
	}
	gone := w.bucket
	gone.Store = "none"
	w.ring.Ask(keys.Work{Unmirrored: []keys.Unmirrored{
		{Bucket: gone, ID: key.ID, Record: []byte("of a store that this gateway has not")},
		{Bucket: w.bucket, ID: key.ID, Record: []byte("new record")},
	}})
	if n, _, err := w.work(t.Context(), &adoptions{}); n != 1 || err == nil {
		t.Errorf("got %d done, %v", n, err)
	}
	if got := w.stored(t, "there-bucket", MirrorPrefix+hex.EncodeToString(key.ID[:])); got != "new record" {
		t.Errorf("got %q", got)
	}
	if n, _, err := w.work(t.Context(), &adoptions{}); n != 0 || err != nil {
		t.Errorf("with nothing to do: got %d, %v", n, err)
	}
	w.ring.Fail(keys.ErrUnavailable)
	if _, _, err := w.work(t.Context(), &adoptions{}); !errors.Is(err, keys.ErrUnavailable) {
		t.Errorf("got %v", err)
	}
}

// stored reads an object as the backend has it.
func (w *world) stored(t *testing.T, bucket, key string) string {
	t.Helper()
	object, err := w.store.Get(t.Context(), backends.ObjectID{Bucket: bucket, Key: key}, &backends.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer object.Body.Close()
	data, err := io.ReadAll(object.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestBucketsOfAdministratorsAreMadeByAnyGateway(t *testing.T) {
	tests := map[string]struct {
		there, full, active bool
		wantActive, wantErr bool
	}{
		"new":                     {wantActive: true},
		"there and empty":         {there: true, wantActive: true},
		"there and full":          {there: true, full: true, wantErr: true},
		"made and used meanwhile": {there: true, full: true, active: true, wantActive: true, wantErr: true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			b, err := w.ring.RegisterBucket(t.Context(), keys.NewBucket{Name: "new", Store: "main", StoreName: "new", Owner: "ann"})
			if err != nil {
				t.Fatal(err)
			}
			if test.there {
				if err := w.store.CreateBucket(t.Context(), "new"); err != nil {
					t.Fatal(err)
				}
			}
			if test.active {
				if err := w.ring.ActivateBucket(t.Context(), "new"); err != nil {
					t.Fatal(err)
				}
			}
			if test.full {
				if err := w.putReserved(t.Context(), b, w.store, "object", []byte("x")); err != nil {
					t.Fatal(err)
				}
			}
			w.ring.Ask(keys.Work{Unmade: []keys.Bucket{b}})
			if _, _, err := w.work(t.Context(), &adoptions{}); (err != nil) != test.wantErr {
				t.Errorf("got %v", err)
			}
			got, err := w.ring.Bucket(t.Context(), "new")
			if got.Active != test.wantActive || (err == nil) != test.wantActive {
				t.Errorf("got %+v, %v", got, err)
			}
		})
	}
}
