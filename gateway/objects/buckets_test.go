package objects

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"go.uber.org/zap"

	"chatelaine/backends"
	"chatelaine/backends/memstore"
	"chatelaine/gateway/keys"
	"chatelaine/gateway/keys/keystest"
)

func TestBucketsAreMadeListedAndDeleted(t *testing.T) {
	w := newWorld(t)
	if err := w.CreateBucket(t.Context(), "ann", "bucket"); !errors.Is(err, keys.ErrBucketOwned) {
		t.Errorf("making it again: got %v, want ErrBucketOwned", err)
	}
	if err := w.CreateBucket(t.Context(), "bob", "bucket"); !errors.Is(err, keys.ErrBucketExists) {
		t.Errorf("another making it: got %v, want ErrBucketExists", err)
	}
	if got, _ := w.Buckets(t.Context()); len(got) != 1 || got[0].Name != "bucket" {
		t.Errorf("got %v", got)
	}
	w.put("key", nil)
	if err := w.DeleteBucket(t.Context(), w.bucket); !errors.Is(err, backends.ErrBucketNotEmpty) {
		t.Errorf("deleting a full bucket: got %v, want ErrBucketNotEmpty", err)
	}
	w.put("after", nil)
	for _, key := range []string{"key", "after"} {
		if _, err := w.Delete(t.Context(), DeleteRequest{Bucket: w.bucket, Key: key}); err != nil {
			t.Fatal(err)
		}
	}
	u, _ := w.uploadParts("unfinished", []int{1}, [][]byte{[]byte("x")})
	if err := w.DeleteBucket(t.Context(), w.bucket); err != nil {
		t.Fatalf("deleting a bucket with upload %q: %v", u.ID, err)
	}
	if _, err := w.Bucket(t.Context(), "bucket"); !errors.Is(err, keys.ErrBucketNotFound) {
		t.Errorf("after deleting: got %v, want ErrBucketNotFound", err)
	}
	if err := w.store.HeadBucket(t.Context(), "there-bucket"); !errors.Is(err, backends.ErrBucketNotFound) {
		t.Errorf("on the backend: got %v, want ErrBucketNotFound", err)
	}
	if err := w.CreateBucket(t.Context(), "bob", "bucket"); err != nil {
		t.Errorf("the name is not free: %v", err)
	}
}

func TestABucketThatIsOnTheBackendAlreadyIsNotTaken(t *testing.T) {
	w := newWorld(t)
	if err := w.store.CreateBucket(t.Context(), "there-foreign"); err != nil {
		t.Fatal(err)
	}
	if err := w.CreateBucket(t.Context(), "ann", "foreign"); !errors.Is(err, keys.ErrBucketExists) {
		t.Errorf("got %v, want ErrBucketExists", err)
	}
	if _, err := w.ring.Bucket(t.Context(), "foreign"); !errors.Is(err, keys.ErrBucketNotFound) {
		t.Errorf("it stays registered: %v", err)
	}
}

func TestCreateBucketFinishesWhatWasCutOff(t *testing.T) {
	w := newWorld(t)
	half := keys.NewBucket{Name: "half", Store: "main", StoreName: "there-half", Owner: "ann"}
	if _, err := w.ring.RegisterBucket(t.Context(), half); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Bucket(t.Context(), "half"); !errors.Is(err, keys.ErrBucketNotFound) {
		t.Errorf("a half-made bucket can be used: %v", err)
	}
	if err := w.store.CreateBucket(t.Context(), "there-half"); err != nil {
		t.Fatal(err)
	}
	if err := w.CreateBucket(t.Context(), "ann", "half"); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Bucket(t.Context(), "half"); err != nil {
		t.Errorf("it cannot be used: %v", err)
	}
}

func TestBucketsAreMadeOnTheDefaultBackendOrOnOneThatIsOffered(t *testing.T) {
	ring, stores := keystest.New(), map[string]backends.Store{"main": memstore.New(), "offered": memstore.New(), "hidden": memstore.New()}
	c := Config{Keys: ring, Stores: stores, DefaultStore: "main", Offered: []string{"offered"}, Logger: zap.NewNop()}
	s, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	for i, on := range []string{"", "main", "offered"} {
		name := fmt.Sprintf("bucket-%d", i)
		if err := s.CreateBucketOn(t.Context(), "ann", name, on); err != nil {
			t.Fatal(err)
		}
		if err := stores[cmp.Or(on, "main")].HeadBucket(t.Context(), name); err != nil {
			t.Errorf("on %q: %v", on, err)
		}
	}
	for _, on := range []string{"hidden", "none"} {
		for what, create := range map[string]func(context.Context, string, string, string) error{"plain": s.CreateBucketOn, "locked": s.CreateLockedBucketOn} {
			if err := create(t.Context(), "ann", "bucket-on", on); !errors.Is(err, ErrNoStore) {
				t.Errorf("%s on %q: %v, want ErrNoStore", what, on, err)
			}
		}
	}
	if _, err := ring.Bucket(t.Context(), "bucket-on"); !errors.Is(err, keys.ErrBucketNotFound) {
		t.Errorf("a bucket that was refused is registered: %v", err)
	}
	c.Offered = append(c.Offered, "none")
	if _, err := New(c); err == nil {
		t.Error("a backend that is not there is offered")
	}
}

func TestABucketThatWasBegunOnOneBackendIsNotFinishedOnAnother(t *testing.T) {
	ring, stores := keystest.New(), map[string]backends.Store{"main": memstore.New(), "far": memstore.New()}
	s, err := New(Config{Keys: ring, Stores: stores, DefaultStore: "main", Offered: []string{"far"}, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ring.RegisterBucket(t.Context(), keys.NewBucket{Name: "half", Store: "far", StoreName: "half", Owner: "ann"}); err != nil {
		t.Fatal(err)
	}
	if err := s.CreateBucketOn(t.Context(), "ann", "half", "main"); !errors.Is(err, keys.ErrBucketOwned) {
		t.Errorf("on another: %v, want ErrBucketOwned", err)
	}
	if err := s.CreateBucketOn(t.Context(), "ann", "half", ""); err != nil {
		t.Fatal(err)
	}
	if err := stores["far"].HeadBucket(t.Context(), "half"); err != nil {
		t.Errorf("it is not where it was begun: %v", err)
	}
}

// overtaken is a store in which another request has just made the same bucket.
type overtaken struct {
	backends.Store
	meanwhile func()
}

// CreateBucket implements backends.Store.
func (o overtaken) CreateBucket(ctx context.Context, name string) error {
	o.meanwhile()
	return o.Store.CreateBucket(ctx, name)
}

func TestABucketThatAnotherRequestMakesAtTheSameTimeStays(t *testing.T) {
	w := newWorld(t)
	other := w.replica()
	w.stores["main"] = overtaken{w.store, func() {
		if err := other.CreateBucket(t.Context(), "ann", "twice"); err != nil {
			t.Error(err)
		}
	}}
	if err := w.CreateBucket(t.Context(), "ann", "twice"); !errors.Is(err, keys.ErrBucketOwned) || errors.Is(err, keys.ErrBucketExists) {
		t.Errorf("got %v, want ErrBucketOwned", err)
	}
	if b, err := other.Bucket(t.Context(), "twice"); err != nil || !b.Active {
		t.Errorf("the other's bucket is gone: %+v, %v", b, err)
	}
}

func TestDeleteBucketFinishesWhatWasCutOff(t *testing.T) {
	w := newWorld(t)
	if _, err := w.store.Delete(t.Context(), idOf(w.bucket, w.mirrors()[0], ""), nil); err != nil {
		t.Fatal(err)
	}
	if err := w.store.DeleteBucket(t.Context(), w.bucket.StoreName); err != nil {
		t.Fatal(err)
	}
	if err := w.DeleteBucket(t.Context(), w.bucket); err != nil {
		t.Errorf("got %v", err)
	}
}

func (w *world) mirrors() (names []string) {
	w.t.Helper()
	page, err := w.store.Store.List(w.t.Context(), w.bucket.StoreName, &backends.ListOptions{Prefix: MirrorPrefix})
	if err != nil {
		w.t.Fatal(err)
	}
	for _, e := range page.Entries {
		names = append(names, e.Key)
	}
	return names
}

func TestListingsHideTheGatewaysOwnObjectsAndStayFull(t *testing.T) {
	w := newWorld(t)
	all := []string{"!first", ".c", ".chatelain", ".chatelaine", ".chatelaine0", ".config/x", "a", "a-b", "a/1", "a/2", "b/", "b/x", "ü", "z"}
	for _, key := range all {
		w.put(key, []byte(key))
	}
	w.uploadParts("unfinished", []int{1}, [][]byte{[]byte("staged")})
	slices.Sort(all)
	for _, prefix := range []string{"", ".", ".c", ".chatelaine", ".chatelaine/", "a", "nothing"} {
		for _, delimiter := range []string{"", "/", "c", "-"} {
			for limit := 1; limit <= len(all)+2; limit++ {
				checkListing(t, w, all, prefix, delimiter, limit)
			}
		}
	}
}

func checkListing(t *testing.T, w *world, all []string, prefix, delimiter string, limit int) {
	t.Helper()
	want := rollUp(all, prefix, delimiter)
	for _, byToken := range []bool{true, false} {
		var got []string
		r := ListRequest{Bucket: w.bucket, Prefix: prefix, Delimiter: delimiter, Limit: limit}
		for pages := 0; pages <= len(all); pages++ {
			page, err := w.List(t.Context(), r)
			if err != nil {
				t.Fatal(err)
			}
			names := append([]string{}, page.Prefixes...)
			for _, e := range page.Entries {
				names = append(names, e.Key)
				if e.Size != int64(len(e.Key)) {
					t.Errorf("%q is listed with %d bytes, want %d", e.Key, e.Size, len(e.Key))
				}
			}
			slices.Sort(names)
			got = append(got, names...)
			if page.Truncated && len(names) != limit {
				t.Errorf("prefix %q, delimiter %q, limit %d: a page of %d", prefix, delimiter, limit, len(names))
			}
			if !page.Truncated {
				break
			}
			if len(names) > 0 && page.Last != names[len(names)-1] {
				t.Errorf("got last %q, want %q", page.Last, names[len(names)-1])
			}
			if r.Token = page.Token; !byToken {
				r.Token, r.After = "", page.Last
			}
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Fatalf("prefix %q, delimiter %q, limit %d, by token %v:\ngot  %q\nwant %q", prefix, delimiter, limit, byToken, got, want)
		}
	}
}

// rollUp is a listing in one page, done the slow way.
func rollUp(all []string, prefix, delimiter string) (out []string) {
	for _, key := range all {
		rest, ok := strings.CutPrefix(key, prefix)
		if !ok {
			continue
		}
		if i := strings.Index(rest, delimiter); delimiter != "" && i >= 0 {
			key = prefix + rest[:i+len(delimiter)]
		}
		if !slices.Contains(out, key) {
			out = append(out, key)
		}
	}
	slices.Sort(out)
	return out
}

func TestListingsAskTheBackendOncePerPage(t *testing.T) {
	w := newWorld(t)
	for i := range 25 {
		w.put(fmt.Sprintf("key-%02d", i), nil)
	}
	stored := 25 + len(w.mirrors())
	w.store.reset()
	r := ListRequest{Bucket: w.bucket, Limit: 10}
	for {
		page, err := w.List(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		if r.Token = page.Token; !page.Truncated {
			break
		}
	}
	if got, want := w.store.calls["list"], (stored+9)/10+1; got > want {
		t.Errorf("listing %d stored objects took %d requests, want %d at most", stored, got, want)
	}
}
