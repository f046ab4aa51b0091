// Package backendtest is the contract of package backends as a suite of tests, and
// a Store that fails on command.
//
// It refuses to know of any driver: what a cloud is known to do otherwise is said
// in Options by the driver's own tests.
package backendtest

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"sync"
	"testing"
	"time"

	"chatelaine/backends"
)

// Options say what a store is known to do otherwise than the contract. The zero
// value is the whole contract.
type Options struct {
	// Refuses says that the store cannot hold a key (MinIO: "//", "..", segments
	// above 255 bytes). It must then refuse to put it, with ErrInvalidName.
	Refuses func(key string) bool
	// Merges says that, in the presence of a key "a", the store cannot hold "a/b".
	Merges bool
	// NoConditionalDelete: If-Match on Delete is answered with ErrUnsupported.
	NoConditionalDelete bool
	// UploadsByKeyOnly: ListUploads finds an upload only where Prefix is its whole
	// key, and has no pages (MinIO).
	UploadsByKeyOnly bool
	// AbortsUnknown: Abort of an unknown upload succeeds (MinIO).
	AbortsUnknown bool
	// ReadersBlockWriters: a Get whose body is not being read holds up writes to its
	// key for as long as half a minute (MinIO).
	ReadersBlockWriters bool
	// LooseAfter: a common prefix is listed where some of its keys are above After,
	// though it is not.
	LooseAfter bool
	// LocksAtCreation: only CreateLockedBucket makes a bucket with a lock (MinIO).
	LocksAtCreation bool
	// MarksObjectsOnly: a Delete of a key whose newest version is a delete marker, or
	// that has none, makes no marker (MinIO).
	MarksObjectsOnly bool
	// NamelessNull: Get and Head of what is newest say no version where it is the null
	// version, and Delete does not say that it made a marker that is (MinIO).
	NamelessNull bool
	// NamelessTags: Tags says the version only where it was asked for (MinIO).
	NamelessTags bool
	// PlainTags: tags are of letters, digits, spaces and + - = . _ : / @ alone (S3), and
	// of ASCII (MinIO).
	PlainTags bool
	// ShortTags: only tags of ASCII may be as long as S3 has them (Azure).
	ShortTags bool
	// MarkersInPrefixes: a common prefix is listed where it has delete markers alone
	// (MinIO).
	MarkersInPrefixes bool
	// UploadsInOnePage: ListUploads orders those of one key as it likes, and has no pages
	// (versitygw).
	UploadsInOnePage bool
	// DeletesCollide: a Put during a Delete of the same key may fail with ErrUnavailable,
	// as the folder of the key comes and goes (versitygw).
	DeletesCollide bool
	// CutsLinger: a body that was cut off keeps its bucket from being deleted for a
	// moment, and now and then for good, though nothing is listed (versitygw).
	CutsLinger bool
	// NoIfMatch: IfMatch on Put is answered with ErrUnsupported (Ceph 16).
	NoIfMatch bool
	// NoConditionalComplete: conditions on Complete are answered with ErrUnsupported
	// (Ceph 16).
	NoConditionalComplete bool
	// NamesAllParts: Complete has to name every part that was put (Ceph 16).
	NamesAllParts bool
	// FailsOnUnknown: Complete of an unknown upload is ErrUnavailable (Ceph 16).
	FailsOnUnknown bool
	// PromisesMore: a page that the last key fills says that it is truncated, and is
	// followed by an empty one (versitygw).
	PromisesMore bool
	// TakesAnyToken: a listing's token is a key, and any will do (versitygw).
	TakesAnyToken bool
}

// Run tests the store that open returns against the whole contract. Open is called
// once, and the suite closes the store. Subtests use buckets of random names and
// run at the same time.
func Run(t *testing.T, open func(t *testing.T) backends.Store) {
	Options{}.Run(t, open)
}

// Run is Run but for the known deviations.
func (o Options) Run(t *testing.T, open func(t *testing.T) backends.Store) {
	store := open(t)
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Errorf("closing the store: %v", err)
		}
	})
	groups := map[string]map[string]func(*fixture){
		"Buckets":     bucketTests(),
		"Objects":     objectTests(),
		"Bodies":      bodyTests(),
		"Ranges":      rangeTests(),
		"Conditions":  conditionTests(),
		"Keys":        keyTests(),
		"Listing":     listingTests(),
		"Contexts":    contextTests(),
		"Concurrency": concurrencyTests(),
	}
	caps := capabilitiesOf(store)
	caps.addTests(groups)
	t.Run("Suite", func(t *testing.T) { // so that Close waits for the parallel ones
		for group, tests := range groups {
			for name, test := range tests {
				t.Run(group+"/"+name, func(t *testing.T) {
					t.Parallel()
					test(newFixture(t, store, caps, o))
				})
			}
		}
	})
}

// capabilitySet is what the store can do beyond the contract; nil where it cannot.
type capabilitySet struct {
	parts    backends.Multiparter
	copier   backends.Copier
	versions backends.Versioner
	tagger   backends.Tagger
	locker   backends.Locker
}

func capabilitiesOf(s backends.Store) (c capabilitySet) {
	c.parts, _ = backends.As[backends.Multiparter](s)
	c.copier, _ = backends.As[backends.Copier](s)
	c.versions, _ = backends.As[backends.Versioner](s)
	c.tagger, _ = backends.As[backends.Tagger](s)
	c.locker, _ = backends.As[backends.Locker](s)
	return c
}

func (c capabilitySet) addTests(groups map[string]map[string]func(*fixture)) {
	if c.parts != nil {
		groups["Multipart"] = multipartTests()
	}
	if c.copier != nil {
		groups["Copies"] = copyTests()
	}
	if c.versions != nil {
		groups["Versions"] = versionTests()
	}
	groups["Tags"] = map[string]func(*fixture){"AreRefusedWhereThereAreNone": tagsRefused}
	if c.tagger != nil {
		groups["Tags"] = tagTests()
	}
	if c.locker != nil {
		groups["Locks"] = lockTests()
	}
}

// fixture is a store with a bucket that is the test's own.
type fixture struct {
	*testing.T
	capabilitySet
	store  backends.Store
	bucket string
	opts   Options
	keep   bool // the bucket holds what cannot be deleted yet
}

func newFixture(t *testing.T, s backends.Store, c capabilitySet, o Options) *fixture {
	f := &fixture{T: t, capabilitySet: c, store: s, bucket: bucketName(), opts: o}
	f.ok(s.CreateBucket(t.Context(), f.bucket))
	t.Cleanup(func() {
		if !t.Failed() && !f.keep {
			f.empty()
			f.is(f.removeBucket(), nil, backends.ErrBucketNotFound)
		}
	})
	return f
}

// removeBucket runs after the test's context has ended.
func (f *fixture) removeBucket() error {
	err := f.store.DeleteBucket(context.Background(), f.bucket)
	for until := time.Now().Add(5 * time.Second); f.opts.CutsLinger && errors.Is(err, backends.ErrBucketNotEmpty) && time.Now().Before(until); {
		time.Sleep(50 * time.Millisecond)
		f.empty()
		err = f.store.DeleteBucket(context.Background(), f.bucket)
	}
	if f.opts.CutsLinger && errors.Is(err, backends.ErrBucketNotEmpty) {
		page, listErr := f.store.List(context.Background(), f.bucket, nil)
		if listErr == nil && len(page.Entries) == 0 {
			f.Logf("bucket %s cannot be deleted, and lists nothing: %v", f.bucket, err)
			return nil
		}
	}
	return err
}

func bucketName() string {
	b := make([]byte, 10)
	rand.Read(b)
	return "backendtest-" + hex.EncodeToString(b)
}

// empty deletes all objects and versions. It runs after the test's context has ended.
func (f *fixture) empty() {
	ctx := context.Background()
	for {
		ids, more, err := f.page(ctx)
		if errors.Is(err, backends.ErrBucketNotFound) {
			return
		}
		f.ok(err)
		f.each(len(ids), func(i int) error {
			_, err := f.store.Delete(ctx, ids[i], &backends.DeleteOptions{BypassGovernance: f.locker != nil})
			return err
		})
		if !more {
			return
		}
	}
}

// page lists some of what is left in the bucket.
func (f *fixture) page(ctx context.Context) (ids []backends.ObjectID, more bool, err error) {
	if f.versions == nil {
		page, err := f.store.List(ctx, f.bucket, nil)
		if err != nil {
			return nil, false, err
		}
		for _, e := range page.Entries {
			ids = append(ids, f.id(e.Key))
		}
		return ids, page.Truncated, nil
	}
	page, err := f.versions.ListVersions(ctx, f.bucket, nil)
	if err != nil {
		return nil, false, err
	}
	for _, v := range page.Versions {
		ids = append(ids, f.version(v.Key, v.Version))
	}
	return ids, page.Truncated, nil
}

func (f *fixture) id(key string) backends.ObjectID {
	return backends.ObjectID{Bucket: f.bucket, Key: key}
}

func (f *fixture) version(key, version string) backends.ObjectID {
	return backends.ObjectID{Bucket: f.bucket, Key: key, Version: version}
}

func (f *fixture) ok(err error) {
	f.Helper()
	if err != nil {
		f.Fatal(err)
	}
}

// is wants err to be one of the errors; nil is one, too.
func (f *fixture) is(err error, want ...error) {
	f.Helper()
	for _, w := range want {
		if w == nil && err == nil || w != nil && errors.Is(err, w) {
			return
		}
	}
	f.Fatalf("got error %v, want one of %v", err, want)
}

// each runs do(0) … do(n-1) at the same time, 32 at most.
func (f *fixture) each(n int, do func(i int) error) {
	f.Helper()
	var wg sync.WaitGroup
	slots := make(chan struct{}, 32)
	errs := make([]error, n)
	for i := range n {
		slots <- struct{}{}
		wg.Go(func() {
			errs[i] = do(i)
			<-slots
		})
	}
	wg.Wait()
	f.ok(errors.Join(errs...))
}

func (f *fixture) put(key string, data []byte) backends.Written {
	f.Helper()
	w, err := f.putIf(key, data, backends.Conditions{})
	f.ok(err)
	return w
}

func (f *fixture) putIf(key string, data []byte, c backends.Conditions) (backends.Written, error) {
	return f.store.Put(f.Context(), f.id(key), bodyOf(data), &backends.PutOptions{Conditions: c})
}

func bodyOf(data []byte) backends.Body {
	return backends.Body{Reader: bytes.NewReader(data), Size: int64(len(data))}
}

// read gets an object and checks what Get says of it against what it yields.
func (f *fixture) read(key string, opts *backends.GetOptions) (*backends.Object, []byte) {
	f.Helper()
	o, data, err := f.tryRead(key, opts)
	f.ok(err)
	return o, data
}

func (f *fixture) tryRead(key string, opts *backends.GetOptions) (*backends.Object, []byte, error) {
	o, err := f.store.Get(f.Context(), f.id(key), opts)
	if err != nil {
		return nil, nil, err
	}
	data, err := io.ReadAll(o.Body)
	err = errors.Join(err, o.Body.Close())
	if err == nil && int64(len(data)) != o.Range.Length {
		err = fmt.Errorf("the body of %q has %d bytes, Range says %d", key, len(data), o.Range.Length)
	}
	if o.Key != key {
		err = errors.Join(err, fmt.Errorf("Get says that the key is %q, not %q", o.Key, key))
	}
	return o, data, err
}

// holds wants the object to have these bytes.
func (f *fixture) holds(key string, want []byte) {
	f.Helper()
	o, got := f.read(key, nil)
	if !bytes.Equal(got, want) {
		f.Fatalf("%q holds %d bytes (%.32q…), want %d (%.32q…)", key, len(got), got, len(want), want)
	}
	if o.Size != int64(len(want)) || o.Range.Offset != 0 {
		f.Fatalf("%q: Size %d and Offset %d, want %d and 0", key, o.Size, o.Range.Offset, len(want))
	}
}

// lacks wants the object not to be there, by any way of looking.
func (f *fixture) lacks(key string) {
	f.Helper()
	_, err := f.store.Get(f.Context(), f.id(key), nil)
	f.is(err, backends.ErrNotFound)
	_, err = f.store.Head(f.Context(), f.id(key), nil)
	f.is(err, backends.ErrNotFound)
	page, err := f.store.List(f.Context(), f.bucket, &backends.ListOptions{Prefix: key})
	f.ok(err)
	for _, e := range page.Entries {
		if e.Key == key {
			f.Fatalf("%q is listed and cannot be read", key)
		}
	}
}

// random returns n bytes that are the same for the same seed.
func random(n int, seed byte) []byte {
	b := make([]byte, n)
	mathrand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}
