package kms_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"chatelaine/kms"
	"chatelaine/kms/registry"
)

func current(t *testing.T, m *kms.Manager, space string) kms.OpenKey {
	t.Helper()
	key, err := m.CurrentKey(t.Context(), space)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestBucketsAreRegisteredOnce(t *testing.T) {
	f := newFixture(t)
	b := f.bucket(t, "photos")
	if b.State != kms.BucketCreating || b.KEK != "main" || b.Profile != kms.Standard || uuid.Validate(b.Space) != nil {
		t.Errorf("got %+v", b)
	}
	has, err := f.RegisterBucket(t.Context(), kms.NewBucket{Name: "photos", Store: "files", StoreName: "other", Owner: "bob"})
	wantErr(t, err, kms.ErrExists)
	if has.Owner != "alice" {
		t.Errorf("got %+v, want the bucket that has the name", has)
	}
	has, err = f.RegisterBucket(t.Context(), kms.NewBucket{Name: "other", Store: "files", StoreName: "p-photos", Owner: "bob"})
	wantErr(t, err, kms.ErrExists)
	if has.Name != "" {
		t.Errorf("got %+v, want no bucket", has)
	}
	for range 2 {
		if err := f.ActivateBucket(t.Context(), "photos"); err != nil {
			t.Fatal(err)
		}
	}
	if b, err := f.Bucket(t.Context(), "photos"); err != nil || b.State != kms.BucketActive {
		t.Errorf("got %+v, %v", b, err)
	}
	wantErr(t, f.ActivateBucket(t.Context(), "none"), kms.ErrNotFound)
	_, err = f.Bucket(t.Context(), "../x")
	wantErr(t, err, kms.ErrNotFound)
}

func TestRegisterBucketRefusesWhatIsWrong(t *testing.T) {
	f := newFixture(t)
	good := kms.NewBucket{Name: "b", Store: "files", StoreName: "b", Owner: "alice"}
	tests := map[string]func(*kms.NewBucket){
		"name":       func(n *kms.NewBucket) { n.Name = "a/b" },
		"store":      func(n *kms.NewBucket) { n.Store = "" },
		"store name": func(n *kms.NewBucket) { n.StoreName = "" },
		"owner":      func(n *kms.NewBucket) { n.Owner = "" },
		"KEK":        func(n *kms.NewBucket) { n.KEK = "none" },
		"profile":    func(n *kms.NewBucket) { n.Profile = "lax" },
		"etag":       func(n *kms.NewBucket) { n.ETag = "sha" },
	}
	for name, spoil := range tests {
		n := good
		spoil(&n)
		if _, err := f.RegisterBucket(t.Context(), n); err == nil {
			t.Errorf("%s: no error", name)
		} else {
			wantErr(t, err, kms.ErrInvalid)
		}
	}
}

func TestBucketsAreListedByOwnerAndName(t *testing.T) {
	f := newFixture(t)
	for _, name := range []string{"c", "a", "b"} {
		f.bucket(t, name)
	}
	if _, err := f.RegisterBucket(t.Context(), kms.NewBucket{Name: "d", Store: "files", StoreName: "d", Owner: "bob"}); err != nil {
		t.Fatal(err)
	}
	for owner, want := range map[string][]string{"alice": {"a", "b", "c"}, "bob": {"d"}, "carol": nil, "": {"a", "b", "c", "d"}} {
		var got []string
		buckets, err := f.Buckets(t.Context(), owner)
		for _, b := range buckets {
			got = append(got, b.Name)
		}
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("owner %q: got %v, %v, want %v", owner, got, err, want)
		}
	}
}

func TestRemoveBucketTakesItsKeysAndNames(t *testing.T) {
	f := newFixture(t)
	b, other := f.bucket(t, "b"), f.bucket(t, "other")
	key, kept := current(t, f.Manager, b.Space), current(t, f.Manager, other.Space)
	if err := f.RemoveBucket(t.Context(), "b"); err != nil {
		t.Fatal(err)
	}
	for _, prefix := range []string{"buckets/b", "spaces/" + b.Space, "stores/files/p-b", "current/" + b.Space, "bucketkeys/" + b.Space} {
		if items, err := f.registry.List(t.Context(), prefix); err != nil || len(items) != 0 {
			t.Errorf("%s: %d records are left, %v", prefix, len(items), err)
		}
	}
	_, err := f.BucketKey(t.Context(), b.Space, key.ID)
	wantErr(t, err, kms.ErrNotFound)
	wantErr(t, f.RemoveBucket(t.Context(), "b"), kms.ErrNotFound)
	if _, err := f.BucketKey(t.Context(), other.Space, kept.ID); err != nil {
		t.Errorf("another bucket lost its key: %v", err)
	}
	if again := f.bucket(t, "b"); again.Space == b.Space {
		t.Error("a space was used twice")
	}
}

func TestCurrentKeyStaysForItsEpoch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		b := f.bucket(t, "b")
		first := current(t, f.Manager, b.Space)
		time.Sleep(24*time.Hour - time.Second)
		if same := current(t, f.Manager, b.Space); same.ID != first.ID || !same.Key.Equal(first.Key) {
			t.Errorf("key %s within the epoch of %s", same.ID, first.ID)
		}
		time.Sleep(time.Second)
		second := current(t, f.Manager, b.Space)
		if second.ID == first.ID || second.Key.Equal(first.Key) {
			t.Error("no new key after 24 h")
		}
		old, err := f.BucketKey(t.Context(), b.Space, first.ID)
		if err != nil || !old.Key.Equal(first.Key) {
			t.Errorf("the old epoch's key: %v", err)
		}
		m, err := kms.ParseMirror(second.Record)
		if err != nil || m.Epoch != 2 || m.ID != second.ID || m.Space != b.Space {
			t.Errorf("mirror %+v, %v", m, err)
		}
	})
}

// The mirror and the provider are all that recovery needs.
func TestMirrorRecordOpensWithTheProviderAlone(t *testing.T) {
	f := newFixture(t)
	b := f.bucket(t, "b")
	key := current(t, f.Manager, b.Space)
	m, err := kms.ParseMirror(key.Record)
	if err != nil {
		t.Fatal(err)
	}
	binding := kms.Binding{Purpose: "bucket-key", Space: m.Space, ID: m.ID.String()}
	got, err := f.provider.Unwrap(t.Context(), kms.KeyRef{Name: m.KEK, Version: m.KEKVersion}, binding, m.Wrapped)
	if err != nil || !bytes.Equal(got, bytesOf(key.Key)) {
		t.Errorf("the mirror does not open to the key: %v", err)
	}
	if bytes.Contains(key.Record, bytesOf(key.Key)) || bytes.Contains(key.Record, []byte("alice")) {
		t.Error("the mirror tells the key, or the owner")
	}
}

func TestConcurrentManagersMakeOneKeyAnEpoch(t *testing.T) {
	t.Run("memory", func(t *testing.T) { testConcurrentManagers(t, newFixture(t)) })
	t.Run("etcd", func(t *testing.T) {
		state, err := registry.Embed(t.Context(), registry.EmbedConfig{Dir: t.TempDir()})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = state.Close() })
		f := newEmptyFixture(t)
		f.registry = state
		f.Manager = f.manager(t, f.config())
		if _, err := f.EnsureKEK(t.Context(), "main"); err != nil {
			t.Fatal(err)
		}
		testConcurrentManagers(t, f)
	})
}

func testConcurrentManagers(t *testing.T, f *fixture) {
	b := f.bucket(t, "b")
	other := f.manager(t, f.config())
	var wg sync.WaitGroup
	ids := make([]kms.KeyID, 16)
	for i := range ids {
		wg.Go(func() {
			m := f.Manager
			if i%2 == 1 {
				m = other
			}
			key, err := m.CurrentKey(t.Context(), b.Space)
			if err != nil {
				t.Error(err)
			}
			ids[i] = key.ID
		})
	}
	wg.Wait()
	if distinct := slices.Compact(ids); len(distinct) != 1 {
		t.Errorf("keys %v, want one", distinct)
	}
	if items, _ := f.registry.List(t.Context(), "bucketkeys/"); len(items) != 1 {
		t.Errorf("%d records, want 1", len(items))
	}
}

func TestAnEpochWhoseCommitFailedIsNotMadeTwice(t *testing.T) {
	for _, applied := range []bool{false, true} {
		f := newFixture(t)
		b := f.bucket(t, "b")
		c := f.config()
		broken := &faults{Registry: f.registry, applied: applied}
		broken.failOn("bucketkeys/", 0)
		c.Registry = broken
		m := f.manager(t, c)
		_, err := m.CurrentKey(t.Context(), b.Space)
		wantErr(t, err, kms.ErrUnavailable)
		key := current(t, m, b.Space)
		items, _ := f.registry.List(t.Context(), "bucketkeys/")
		if len(items) != 1 || items[0].Key != "bucketkeys/"+b.Space+"/"+key.ID.String() {
			t.Errorf("applied %t: records %v, key %s", applied, items, key.ID)
		}
	}
}

func TestKeyStateDecidesWhatIsOpened(t *testing.T) {
	tests := []struct {
		state       kms.KeyState
		open, fresh error
	}{
		{kms.Active, nil, nil},
		{kms.Suspended, kms.ErrDisabled, kms.ErrDisabled},
		{kms.Deactivated, nil, kms.ErrDisabled},
		{kms.Compromised, nil, kms.ErrDisabled},
		{kms.Destroyed, kms.ErrDisabled, kms.ErrDisabled},
		{kms.PreActive, kms.ErrDisabled, kms.ErrDisabled},
	}
	for _, test := range tests {
		f := newFixture(t)
		old, young := f.bucket(t, "old"), f.bucket(t, "young")
		key := current(t, f.Manager, old.Space)
		f.setState(t, kms.Active, test.state)
		_, err := f.BucketKey(t.Context(), old.Space, key.ID)
		wantErr(t, err, test.open)
		_, err = f.CurrentKey(t.Context(), young.Space)
		wantErr(t, err, test.fresh)
	}
}

func TestAKeyOfAnotherBucketDoesNotOpen(t *testing.T) {
	f := newFixture(t)
	a, b := f.bucket(t, "a"), f.bucket(t, "b")
	key := current(t, f.Manager, a.Space)
	_, err := f.BucketKey(t.Context(), b.Space, key.ID)
	wantErr(t, err, kms.ErrNotFound)

	item, err := f.registry.Get(t.Context(), "bucketkeys/"+a.Space+"/"+key.ID.String())
	if err != nil {
		t.Fatal(err)
	}
	moved := kms.Item{
		Key:   "bucketkeys/" + b.Space + "/" + key.ID.String(),
		Value: bytes.ReplaceAll(item.Value, []byte(a.Space), []byte(b.Space)),
	}
	if err := f.registry.Commit(t.Context(), kms.Transaction{Put: []kms.Item{moved}}); err != nil {
		t.Fatal(err)
	}
	_, err = f.BucketKey(t.Context(), b.Space, key.ID)
	wantErr(t, err, kms.ErrCorrupt)
}

func TestATokenThatLostAKeyIsUnavailableAndNotNotFound(t *testing.T) {
	f := newFixture(t)
	b := f.bucket(t, "b")
	current(t, f.Manager, b.Space)
	if err := f.EnsureAccessKey(t.Context(), accessKey()); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(f.dir, "*.key"))
	if err != nil || len(files) != 1 {
		t.Fatalf("key files %v, %v", files, err)
	}
	if err := os.Remove(files[0]); err != nil {
		t.Fatal(err)
	}
	_, keyErr := f.CurrentKey(t.Context(), b.Space)
	_, signErr := f.SigningKey(t.Context(), "AKIDEXAMPLE", time.Now().UTC().Format("20060102"), "eu", "s3")
	for _, err := range []error{keyErr, signErr} {
		wantErr(t, err, kms.ErrUnavailable)
		if err == nil || errorsIsNotFound(err) {
			t.Errorf("%v passes for proof that there is no such key", err)
		}
	}
}

func TestMirrorsAreConfirmedAndUnconfirmed(t *testing.T) {
	f := newFixture(t)
	b := f.bucket(t, "b")
	key := current(t, f.Manager, b.Space)
	mirrored := func() bool { return current(t, f.Manager, b.Space).Mirrored }
	if mirrored() {
		t.Error("a new key counts as mirrored")
	}
	for range 2 {
		if err := f.ConfirmMirror(t.Context(), b.Space, key.ID, key.Record); err != nil {
			t.Fatal(err)
		}
	}
	if !mirrored() {
		t.Error("the confirmation is forgotten")
	}
	if err := f.UnconfirmMirrors(t.Context(), b.Space); err != nil {
		t.Fatal(err)
	}
	if mirrored() {
		t.Error("the confirmation is still there")
	}
	wantErr(t, f.ConfirmMirror(t.Context(), b.Space, kms.KeyID{1}, key.Record), kms.ErrInvalid)
	wantErr(t, f.ConfirmMirror(t.Context(), b.Space, key.ID, nil), kms.ErrInvalid)
	wantErr(t, f.UnconfirmMirrors(t.Context(), uuid.NewString()), kms.ErrNotFound)
}

func TestRandomOfOneGeneratorIsEnough(t *testing.T) {
	f := newFixture(t)
	b := f.bucket(t, "b")
	c := f.config()
	zeros := badProvider{Provider: f.provider, random: func(n int) []byte { return make([]byte, n) }}
	c.Providers = map[string]kms.Provider{"soft": zeros}
	if key := bytesOf(current(t, f.manager(t, c), b.Space).Key); len(key) != 32 || bytes.Equal(key, make([]byte, 32)) {
		t.Errorf("key of %d bytes from a provider whose random is zero", len(key))
	}
	short := badProvider{Provider: f.provider, random: func(int) []byte { return []byte{1} }}
	c.Providers = map[string]kms.Provider{"soft": short}
	_, err := f.manager(t, c).CurrentKey(t.Context(), f.bucket(t, "c").Space)
	wantErr(t, err, kms.ErrUnsafe)
}

// meddling does something once, just before a secret is wrapped.
type meddling struct {
	kms.Provider
	do *sync.Once
	f  func()
}

func (p meddling) Wrap(ctx context.Context, ref kms.KeyRef, b kms.Binding, secret []byte) ([]byte, error) {
	p.do.Do(p.f)
	return p.Provider.Wrap(ctx, ref, b, secret)
}

func TestWhatChangesDuringTheWrappingIsNoticed(t *testing.T) {
	for name, want := range map[string]error{"the KEK is blocked": kms.ErrDisabled, "the bucket is removed": kms.ErrNotFound} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			b := f.bucket(t, "b")
			c := f.config()
			c.Providers = map[string]kms.Provider{"soft": meddling{f.provider, new(sync.Once), func() {
				if errors.Is(want, kms.ErrNotFound) {
					_ = f.RemoveBucket(t.Context(), "b")
					return
				}
				f.setState(t, kms.Active, kms.Suspended)
			}}}
			_, err := f.manager(t, c).CurrentKey(t.Context(), b.Space)
			wantErr(t, err, want)
			if items, _ := f.registry.List(t.Context(), "bucketkeys/"); len(items) != 0 {
				t.Errorf("%d keys were recorded", len(items))
			}
		})
	}
	t.Run("an access key", func(t *testing.T) {
		f := newFixture(t)
		c := f.config()
		c.Providers = map[string]kms.Provider{"soft": meddling{f.provider, new(sync.Once), func() {
			f.setState(t, kms.Active, kms.Suspended)
		}}}
		wantErr(t, f.manager(t, c).EnsureAccessKey(t.Context(), accessKey()), kms.ErrDisabled)
	})
}
