package objects

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"

	"chatelaine/backends"
	"chatelaine/gateway/keys"
	"chatelaine/gateway/keys/keystest"
	"chatelaine/gateway/sealed"
)

// newGuardedWorld is a world whose bucket has the rollback guard in a stage.
func newGuardedWorld(t *testing.T, stage keystest.LedgerStage) *world {
	t.Helper()
	w := newWorld(t)
	w.bucket = w.ring.Guard("bucket", stage)
	return w
}

// kept is an object as the backend has it.
type kept struct {
	data  []byte
	attrs backends.Attributes
}

// keep takes a copy of what the backend has.
func (w *world) keep(key string) kept {
	w.t.Helper()
	o, err := w.store.Store.Get(w.t.Context(), idOf(w.bucket, key, ""), nil)
	if err != nil {
		w.t.Fatal(err)
	}
	data, err := io.ReadAll(o.Body)
	if err := errors.Join(err, o.Body.Close()); err != nil {
		w.t.Fatal(err)
	}
	return kept{data, o.Attributes}
}

// serve has the backend show a copy from before.
func (w *world) serve(key string, k kept) {
	w.t.Helper()
	body := backends.Body{Reader: bytes.NewReader(k.data), Size: int64(len(k.data))}
	if _, err := w.store.Store.Put(w.t.Context(), idOf(w.bucket, key, ""), body, &backends.PutOptions{Attributes: k.attrs}); err != nil {
		w.t.Fatal(err)
	}
}

// hide has the backend know nothing of an object.
func (w *world) hide(key string) {
	w.t.Helper()
	if _, err := w.store.Store.Delete(w.t.Context(), idOf(w.bucket, key, ""), nil); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) delete(key string) {
	w.t.Helper()
	if _, err := w.Delete(w.t.Context(), DeleteRequest{Bucket: w.bucket, Key: key}); err != nil {
		w.t.Fatalf("deleting %q: %v", key, err)
	}
}

// reads are all ways to read an object.
func (w *world) reads(key string) map[string]func() error {
	get := func(r GetRequest) func() error {
		return func() error {
			r.Key = key
			_, _, err := w.get(r)
			return err
		}
	}
	source := GetRequest{Bucket: w.bucket, Key: key}
	size := int64(1)
	return map[string]func() error{
		"get":               get(GetRequest{}),
		"get of a range":    get(GetRequest{Range: &ByteRange{First: 3, Last: 5}}),
		"get of a part":     get(GetRequest{Part: 1}),
		"get of checksums":  get(GetRequest{Checksums: true}),
		"get if none match": get(GetRequest{Conditions: backends.Conditions{IfNoneMatch: []string{"other"}}}),
		"get of version":    get(GetRequest{Version: "null"}),
		"head": func() error {
			_, _, err := w.Head(w.t.Context(), source)
			return err
		},
		"attributes": func() error {
			_, _, err := w.PartsOf(w.t.Context(), source)
			return err
		},
		"copy": func() error {
			_, err := w.Copy(w.t.Context(), CopyRequest{Source: source, Bucket: w.bucket, Key: "copy"})
			return err
		},
		"copy of a part": func() error {
			u, err := w.CreateUpload(w.t.Context(), CreateUploadRequest{Bucket: w.bucket, Key: "parts"})
			if err == nil {
				_, err = w.CopyPart(w.t.Context(), CopyPartRequest{UploadRef: u, Number: 1, Source: source})
			}
			return err
		},
		"delete of a size": func() error {
			_, err := w.Delete(w.t.Context(), DeleteRequest{Bucket: w.bucket, Key: key, IfSize: &size})
			return err
		},
	}
}

// wantReads wants one outcome of all reads.
func (w *world) wantReads(key string, want error, except ...string) {
	w.t.Helper()
	for name, read := range w.reads(key) {
		if err := read(); !errors.Is(err, want) && !slices.Contains(except, name) {
			w.t.Errorf("%s of %q: got %v, want %v", name, key, err, want)
		}
	}
}

// attacks are what a provider can do with whole objects, each on a key of its own.
func attacks(w *world) map[string]func(key string) {
	return map[string]func(key string){
		"older": func(key string) {
			w.put(key, noise(40000))
			old := w.keep(key)
			w.put(key, noise(40001))
			w.serve(key, old)
		},
		"older upload": func(key string) {
			w.upload(key, []int{1, 2}, [][]byte{noise(5 * mib), noise(9)})
			old := w.keep(key)
			w.upload(key, []int{1, 2}, [][]byte{noise(5 * mib), noise(8)})
			w.serve(key, old)
		},
		"older attributes": func(key string) {
			w.put(key, noise(100))
			old := w.keep(key)
			r := CopyRequest{Source: GetRequest{Bucket: w.bucket, Key: key}, Bucket: w.bucket, Key: key, Replace: true, Attributes: Attributes{ContentType: "text/plain"}}
			if _, err := w.Copy(w.t.Context(), r); err != nil {
				w.t.Fatal(err)
			}
			w.serve(key, old)
		},
		"deleted": func(key string) {
			w.put(key, noise(40000))
			old := w.keep(key)
			w.delete(key)
			w.serve(key, old)
		},
	}
}

func TestAnOlderVersionIsRefusedByEachRead(t *testing.T) {
	t.Parallel()
	w := newGuardedWorld(t, keystest.LedgerOn)
	for name, attack := range attacks(w) {
		attack(name)
		w.wantReads(name, ErrRolledBack)
	}
}

func TestAnOlderVersionIsServedWithoutTheGuard(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for name, attack := range attacks(w) {
		attack(name)
		if _, _, err := w.get(GetRequest{Key: name}); err != nil {
			t.Errorf("%s: got %v: the attack is none that the guard must find", name, err)
		}
	}
}

func TestAHiddenObjectIsRefusedByEachRead(t *testing.T) {
	t.Parallel()
	w := newGuardedWorld(t, keystest.LedgerOn)
	w.put("key", noise(100))
	w.hide("key")
	w.wantReads("key", ErrRolledBack)
	w.delete("key")
	w.wantReads("key", backends.ErrNotFound, "delete of a size", "get of version") // one succeeds, one says "no such version"
	w.bucket = w.ring.Guard("bucket", "")
	w.put("key", noise(100))
	w.hide("key")
	w.wantReads("key", backends.ErrNotFound, "delete of a size", "get of version")
}

// gone is a store that knows nothing of an object when it is to copy it.
type gone struct {
	*counting
	before func()
}

func (g *gone) Copy(context.Context, backends.ObjectID, backends.ObjectID, *backends.CopyOptions) (backends.Written, error) {
	g.before()
	return backends.Written{}, backends.ErrNotFound
}

func TestASourceThatVanishesIsMissingOnlyWhereTheLedgerSaysSo(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		stage   keystest.LedgerStage
		deleted bool
		want    error
	}{
		"hidden":                     {keystest.LedgerOn, false, backends.ErrUnavailable},
		"deleted meanwhile":          {keystest.LedgerOn, true, backends.ErrNotFound},
		"hidden, without the guard":  {"", false, backends.ErrNotFound},
		"deleted, without the guard": {"", true, backends.ErrNotFound},
	} {
		w := newGuardedWorld(t, tt.stage)
		w.put("key", noise(100))
		s := w.onStore(&gone{w.store, func() {
			if tt.deleted {
				w.delete("key")
			}
		}})
		_, err := s.Copy(t.Context(), CopyRequest{Source: GetRequest{Bucket: w.bucket, Key: "key"}, Bucket: w.bucket, Key: "copy"})
		if !errors.Is(err, tt.want) || isMissing(err) != isMissing(tt.want) {
			t.Errorf("%s: got %v, want %v", name, err, tt.want)
		}
		if _, _, err := w.get(GetRequest{Key: "copy"}); !isMissing(err) {
			t.Errorf("%s: got %v of the copy, want that there is none", name, err)
		}
	}
}

// turning is a store that answers the requests of a read in turns: honestly, or not.
type turning struct {
	*counting
	turns []string // the last one stays
	older backends.ObjectID
}

func (s *turning) turn(id *backends.ObjectID) error {
	turn := s.turns[0]
	if len(s.turns) > 1 {
		s.turns = s.turns[1:]
	}
	switch turn {
	case "missing":
		return backends.ErrNotFound
	case "changed":
		return backends.ErrPrecondition
	case "older":
		*id = s.older
	}
	return nil
}

func (s *turning) Head(ctx context.Context, id backends.ObjectID, _ *backends.GetOptions) (backends.Info, error) {
	if err := s.turn(&id); err != nil {
		return backends.Info{}, err
	}
	return s.counting.Head(ctx, id, nil)
}

func (s *turning) Get(ctx context.Context, id backends.ObjectID, opts *backends.GetOptions) (*backends.Object, error) {
	if err := s.turn(&id); err != nil {
		return nil, err
	}
	return s.counting.Get(ctx, id, &backends.GetOptions{Range: opts.Range})
}

func TestEachRequestOfAReadIsHeldAgainstTheLedger(t *testing.T) {
	t.Parallel()
	w := newGuardedWorld(t, keystest.LedgerOn)
	w.upload("key", []int{1}, [][]byte{noise(40000)})
	old := w.keep("key")
	w.upload("key", []int{1}, [][]byte{noise(40001)})
	w.serve("older", old)
	conditional := GetRequest{Bucket: w.bucket, Key: "key", Conditions: backends.Conditions{IfNoneMatch: []string{"other"}}}
	ranged := GetRequest{Bucket: w.bucket, Key: "key", Range: &ByteRange{First: 3, Last: 5}}
	for name, tt := range map[string]struct {
		request GetRequest
		turns   []string
	}{
		"missing after the first answer":      {ranged, []string{"honest", "missing"}},
		"missing after the trailer":           {ranged, []string{"honest", "honest", "missing"}},
		"older after it is said to be new":    {conditional, []string{"honest", "honest", "changed", "older"}},
		"older after the first answer":        {conditional, []string{"honest", "changed", "older"}},
		"missing after it is said to be new":  {conditional, []string{"honest", "honest", "changed", "missing"}},
		"older where the first says the same": {ranged, []string{"older"}},
	} {
		s := w.onStore(&turning{w.store, tt.turns, idOf(w.bucket, "older", "")})
		reader, err := s.Get(t.Context(), tt.request)
		if !errors.Is(err, ErrRolledBack) {
			t.Errorf("%s: got %v, want ErrRolledBack", name, err)
		}
		if err == nil {
			_ = reader.Close()
		}
	}
}

func TestWhatIsNewestIsReadAndCostsOneLook(t *testing.T) {
	t.Parallel()
	w := newGuardedWorld(t, keystest.LedgerOn)
	for range 3 {
		w.put("key", noise(40000))
		w.upload("upload", []int{1, 2}, [][]byte{noise(5 * mib), noise(9)})
	}
	for name, read := range w.reads("key") {
		if err := read(); err != nil && !errors.Is(err, backends.ErrPrecondition) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	before, _ := w.ring.LedgerCalls(), w.mustGet(GetRequest{Key: "upload"})
	if got := w.ring.LedgerCalls() - before; got != 1 {
		t.Errorf("a read asked the ledger %d times, want once", got)
	}
	before = w.ring.LedgerCalls()
	w.put("key", noise(1))
	if got := w.ring.LedgerCalls() - before; got != 2 {
		t.Errorf("a write told the ledger %d times, want twice", got)
	}
	if _, _, err := w.get(GetRequest{Key: "key", Version: "another"}); errors.Is(err, ErrRolledBack) {
		t.Errorf("a version that never was: got %v", err)
	}
	w.delete("key")
	w.delete("never there")
	if got := w.ring.LedgerEntries(w.bucket); got != 2 { // the upload and the copy
		t.Errorf("the ledger knows %d objects, want 2: what was deleted costs nothing", got)
	}
}

func TestConditionsAreCheckedOnWhatTheLedgerVouchesFor(t *testing.T) {
	t.Parallel()
	w := newGuardedWorld(t, keystest.LedgerOn)
	etag := w.put("key", noise(10)).ETag
	_, _, err := w.get(GetRequest{Key: "key", Conditions: backends.Conditions{IfNoneMatch: []string{etag}}})
	var unmodified *backends.NotModified
	if !errors.As(err, &unmodified) || unmodified.ETag != etag {
		t.Errorf("got %v, want not modified with the visible ETag", err)
	}
	if _, _, err := w.get(GetRequest{Key: "key", Conditions: backends.Conditions{IfMatch: []string{etag}}}); err != nil {
		t.Error(err)
	}
	old := w.keep("key")
	w.put("key", noise(10))
	w.serve("key", old)
	if _, _, err = w.get(GetRequest{Key: "key", Conditions: backends.Conditions{IfNoneMatch: []string{etag}}}); !errors.Is(err, ErrRolledBack) {
		t.Errorf("got %v, want the rollback in place of not modified", err)
	}
}

// errKilled stands for a gateway that does nothing more.
var errKilled = errors.New("killed")

func TestAGatewayThatIsKilledBetweenStoreAndLedgerLosesNothing(t *testing.T) {
	t.Parallel()
	w := newGuardedWorld(t, keystest.LedgerOn)
	old, data := noise(100), noise(101)
	w.put("key", old)
	first := w.keep("key")
	w.ring.BeforeLedger(func(op string) error {
		if op == "end" {
			return errKilled
		}
		return nil
	})
	_, err := w.Put(t.Context(), PutRequest{Bucket: w.bucket, Key: "key", Body: bytes.NewReader(data), Size: int64(len(data))})
	if !errors.Is(err, errKilled) {
		t.Fatalf("got %v: a write whose end is not in the ledger must not be acknowledged", err)
	}
	w.ring.BeforeLedger(nil)
	second := w.keep("key")
	w.serve("key", first) // it may as well have been killed before
	if got := w.mustGet(GetRequest{Key: "key"}); !bytes.Equal(got, old) {
		t.Error("the old version is not readable while the write is open")
	}
	w.serve("key", second)
	if got := w.mustGet(GetRequest{Key: "key"}); !bytes.Equal(got, data) {
		t.Error("the new version is not readable")
	}
	w.serve("key", first) // but what was seen once stays
	w.wantReads("key", ErrRolledBack)
}

func TestAGatewayThatIsKilledBeforeTheStoreChangesNothing(t *testing.T) {
	t.Parallel()
	w := newGuardedWorld(t, keystest.LedgerOn)
	data := noise(100)
	w.put("key", data)
	s := w.Service
	w.Service = w.onStore(&flaky{counting: w.store, op: "put"})
	var lost kept
	_, err := w.Put(t.Context(), PutRequest{Bucket: w.bucket, Key: "key", Body: bytes.NewReader(noise(9)), Size: 9})
	if !errors.Is(err, errLost) {
		t.Fatal(err)
	}
	w.Service = s
	if got := w.mustGet(GetRequest{Key: "key"}); !bytes.Equal(got, data) {
		t.Error("the object is not readable while a write is open")
	}
	w.ring.LedgerLater(keystest.LedgerSilence + time.Minute)
	if got := w.mustGet(GetRequest{Key: "key"}); !bytes.Equal(got, data) {
		t.Error("the object is not readable after the write's time")
	}
	w.put("other", noise(9))
	lost = w.keep("other")
	w.serve("key", lost)
	if _, _, err := w.get(GetRequest{Key: "key"}); err == nil {
		t.Error("something else is readable")
	}
}

// onStore is the world's Service on another store.
func (w *world) onStore(store backends.Store) *Service {
	w.t.Helper()
	s, err := New(Config{Keys: w.ring, Stores: map[string]backends.Store{"main": store}, DefaultStore: "main", Prefix: "there-", Logger: zap.NewNop()})
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

func TestAWriteWhoseAnswerIsLostIsReadableWhateverCameOfIt(t *testing.T) {
	t.Parallel()
	for _, applied := range []bool{false, true} {
		w := newGuardedWorld(t, keystest.LedgerOn)
		old, data := noise(100), noise(101)
		w.put("key", old)
		broken := w.onStore(&flaky{counting: w.store, op: "put", applied: applied})
		if _, err := broken.Put(t.Context(), PutRequest{Bucket: w.bucket, Key: "key", Body: bytes.NewReader(data), Size: 101}); !errors.Is(err, errLost) {
			t.Fatal(err)
		}
		w.ring.LedgerLater(keystest.LedgerSilence + time.Minute) // nobody looked for long
		want := old
		if applied {
			want = data
		}
		for range 2 {
			if got := w.mustGet(GetRequest{Key: "key"}); !bytes.Equal(got, want) {
				t.Errorf("applied %t: got other bytes", applied)
			}
		}
		w.put("key", data) // and it can be written
		w.mustGet(GetRequest{Key: "key"})
	}
}

func TestACompleteIsTakenUpAgainAfterACrash(t *testing.T) {
	t.Parallel()
	w := newGuardedWorld(t, keystest.LedgerOn)
	w.put("key", noise(100))
	first := w.keep("key")
	u, parts := w.uploadParts("key", []int{1}, [][]byte{noise(50)})
	w.ring.BeforeLedger(func(op string) error {
		if op == "end" {
			return errKilled
		}
		return nil
	})
	request := CompleteRequest{UploadRef: u, Parts: parts, Size: -1}
	if _, err := w.Complete(t.Context(), request); !errors.Is(err, errKilled) {
		t.Fatal(err)
	}
	w.ring.BeforeLedger(nil)
	if _, err := w.Complete(t.Context(), request); err != nil {
		t.Fatalf("completing again: %v", err)
	}
	if got := w.mustGet(GetRequest{Key: "key"}); !bytes.Equal(got, noise(50)) {
		t.Error("got other bytes")
	}
	w.serve("key", first)
	w.wantReads("key", ErrRolledBack)
}

func TestWithoutTheKMSNothingIsReadOrWritten(t *testing.T) {
	t.Parallel()
	w := newGuardedWorld(t, keystest.LedgerOn)
	w.put("key", noise(100))
	w.ring.BeforeLedger(func(string) error { return keys.ErrUnavailable })
	w.wantReads("key", keys.ErrUnavailable)
	if _, err := w.Put(t.Context(), PutRequest{Bucket: w.bucket, Key: "key", Body: bytes.NewReader(noise(9)), Size: 9}); !errors.Is(err, keys.ErrUnavailable) {
		t.Errorf("putting: got %v", err)
	}
	if _, err := w.Delete(t.Context(), DeleteRequest{Bucket: w.bucket, Key: "key"}); !errors.Is(err, keys.ErrUnavailable) {
		t.Errorf("deleting: got %v", err)
	}
	w.ring.BeforeLedger(nil)
	if got := w.mustGet(GetRequest{Key: "key"}); !bytes.Equal(got, noise(100)) {
		t.Error("got other bytes")
	}
	w.ring.Guard("bucket", keystest.LedgerLost)
	w.wantReads("key", keys.ErrLedgerLost)
}

func TestALedgerWithoutRoomRefusesWritesBeforeTheStoreHearsOfThem(t *testing.T) {
	t.Parallel()
	w := newGuardedWorld(t, keystest.LedgerOn)
	w.put("key", noise(100))
	w.ring.BeforeLedger(func(op string) error {
		if op == "begin" {
			return keys.ErrLedgerFull
		}
		return nil
	})
	w.store.reset()
	if _, err := w.Put(t.Context(), PutRequest{Bucket: w.bucket, Key: "key", Body: bytes.NewReader(noise(9)), Size: 9}); !errors.Is(err, keys.ErrLedgerFull) {
		t.Errorf("putting: got %v", err)
	}
	if _, err := w.Delete(t.Context(), DeleteRequest{Bucket: w.bucket, Key: "key"}); !errors.Is(err, keys.ErrLedgerFull) {
		t.Errorf("deleting: got %v", err)
	}
	if n := w.store.calls["put"] + w.store.calls["delete"]; n != 0 {
		t.Errorf("the store was written to %d times", n)
	}
	if got := w.mustGet(GetRequest{Key: "key"}); !bytes.Equal(got, noise(100)) {
		t.Error("got other bytes")
	}
	w.ring.BeforeLedger(nil)
	w.put("key", noise(9))
}

func TestTwoGatewaysRaceOnOneObject(t *testing.T) {
	t.Parallel()
	w := newGuardedWorld(t, keystest.LedgerOn)
	w.put("key", noise(1000))
	gateways := []*Service{w.Service, w.replica()}
	var copies sync.Map
	writing, stop := context.WithCancel(t.Context())
	var writers, readers sync.WaitGroup
	for i := range 32 {
		s := gateways[i%2]
		writers.Go(func() {
			for n := range 8 {
				size := int64(1000 + i*8 + n)
				_, err := s.Put(t.Context(), PutRequest{Bucket: w.bucket, Key: "key", Body: bytes.NewReader(noise(size)), Size: size})
				if err != nil {
					t.Errorf("writer %d: %v", i, err)
				}
				copies.Store(i, w.keep("key"))
			}
		})
	}
	for i := range 4 {
		readers.Go(func() {
			for writing.Err() == nil {
				reader, err := gateways[i%2].Get(t.Context(), GetRequest{Bucket: w.bucket, Key: "key"})
				if errors.Is(err, ErrRolledBack) {
					t.Errorf("a reader accuses: %v", err)
				}
				if err == nil {
					_ = reader.Close()
				}
			}
		})
	}
	writers.Wait()
	stop()
	readers.Wait()
	last := w.keep("key")
	w.mustGet(GetRequest{Key: "key"}) // of writes that overlapped, the first reader has the word
	found := 0
	copies.Range(func(_, value any) bool {
		if copied, ok := value.(kept); ok && copied.attrs.Metadata[sealed.MetadataName] != last.attrs.Metadata[sealed.MetadataName] {
			w.serve("key", copied)
			if _, _, err := w.get(GetRequest{Key: "key"}); !errors.Is(err, ErrRolledBack) {
				t.Errorf("a copy from the race: got %v", err)
			}
			found++
		}
		return found < 8
	})
	w.serve("key", last)
	w.mustGet(GetRequest{Key: "key"})
}

func TestConditionalWritesThatFailDoNotFillTheLedger(t *testing.T) {
	t.Parallel()
	w := newGuardedWorld(t, keystest.LedgerOn)
	w.put("lock", noise(1))
	for range 300 {
		r := PutRequest{Bucket: w.bucket, Key: "lock", Body: bytes.NewReader(nil), IfNoneMatch: []string{"*"}}
		if _, err := w.Put(t.Context(), r); !errors.Is(err, backends.ErrPrecondition) {
			t.Fatalf("got %v, want a failed precondition", err)
		}
	}
	if got := w.mustGet(GetRequest{Key: "lock"}); !bytes.Equal(got, noise(1)) {
		t.Error("got other bytes")
	}
}

func TestABadBodyLeavesTheObjectAsItWas(t *testing.T) {
	t.Parallel()
	w := newGuardedWorld(t, keystest.LedgerOn)
	w.put("key", noise(1))
	bad := errors.New("wrong checksum")
	for range 300 {
		_, err := w.Put(t.Context(), PutRequest{Bucket: w.bucket, Key: "key", Body: &failing{bytes.NewReader(noise(9)), bad}, Size: 9})
		if !errors.Is(err, bad) {
			t.Fatalf("got %v, want the body's error", err)
		}
		if got := w.mustGet(GetRequest{Key: "key"}); !bytes.Equal(got, noise(1)) {
			t.Fatal("got other bytes")
		}
	}
}

func TestAGuardedBucketKeepsNoVersionsAndExpiresNothing(t *testing.T) {
	t.Parallel()
	w := newGuardedWorld(t, keystest.LedgerOn)
	if err := w.SetVersioning(t.Context(), w.bucket, backends.VersioningEnabled); !errors.Is(err, ErrGuarded) {
		t.Errorf("versioning: got %v", err)
	}
	backend := w.ruled()
	for name, rule := range map[string]backends.LifecycleRule{
		"days": {ID: "r", Prefix: "logs/", ExpireDays: 3},
		"date": {ID: "r", Prefix: "logs/", ExpireDate: time.Date(2030, 1, 2, 0, 0, 0, 0, time.UTC)},
	} {
		if err := w.SetLifecycle(t.Context(), w.bucket, []backends.LifecycleRule{rule}); !errors.Is(err, ErrGuarded) || backend.rules != nil {
			t.Errorf("%s: got %v, and the backend has %v", name, err, backend.rules)
		}
	}
	uploads := []backends.LifecycleRule{{ID: "r", Prefix: "logs/", AbortDays: 3}}
	if err := w.SetLifecycle(t.Context(), w.bucket, uploads); err != nil || len(backend.rules) != 1 {
		t.Errorf("of uploads: got %v, and the backend has %v", err, backend.rules)
	}
}

func TestWhatIsInDoubtIsSettledByALookThatCameBefore(t *testing.T) {
	t.Parallel()
	w := newGuardedWorld(t, keystest.LedgerOn)
	witness, err := w.newWitness("key")
	writes := []keys.Mark{{1}, {2}} // they overlap, so either may be the newest
	for _, m := range writes {
		err = errors.Join(err, w.ring.BeginWrite(t.Context(), keys.LedgerAttempt{Bucket: w.bucket, Name: witness.name, ID: m, Tag: m}))
	}
	for _, m := range writes {
		err = errors.Join(err, w.ring.EndWrite(t.Context(), keys.LedgerAttempt{Bucket: w.bucket, Name: witness.name, ID: m, Tag: m}, true))
	}
	if err != nil {
		t.Fatal(err)
	}
	for i, step := range []struct {
		shown keys.Mark
		want  error
	}{
		{writes[0], errUnvouched}, // the other may have come between the backend's answer and the ledger's
		{writes[0], nil},
		{writes[1], errUnvouched}, // settled
	} {
		witness.look(t.Context())
		if err := witness.vouch(t.Context(), step.shown); !errors.Is(err, step.want) {
			t.Errorf("step %d: got %v, want %v", i, err, step.want)
		}
	}
}

// newWitness is a witness of a read of key.
func (w *world) newWitness(key string) (*witness, error) {
	q, err := w.newQuery(w.t.Context(), GetRequest{Bucket: w.bucket, Key: key})
	if err != nil {
		w.t.Fatal(err)
	}
	return q.newWitness()
}

func TestAReadThatHasMetTheNewerOfTwoDoesNotGoBack(t *testing.T) {
	t.Parallel()
	w := newGuardedWorld(t, keystest.LedgerOn)
	witness, err := w.newWitness("key")
	before := keys.LedgerAttempt{Bucket: w.bucket, Name: witness.name, ID: keys.Mark{1}, Tag: keys.Mark{1}}
	open := keys.LedgerAttempt{Bucket: w.bucket, Name: witness.name, ID: keys.Mark{2}, Tag: keys.Mark{2}}
	err = errors.Join(err, w.ring.BeginWrite(t.Context(), before), w.ring.EndWrite(t.Context(), before, true), w.ring.BeginWrite(t.Context(), open))
	if err != nil {
		t.Fatal(err)
	}
	witness.look(t.Context())
	for i, step := range []struct {
		shown keys.Mark
		want  error
	}{{open.Tag, nil}, {open.Tag, nil}, {before.Tag, errUnvouched}} {
		if err := witness.vouch(t.Context(), step.shown); !errors.Is(err, step.want) {
			t.Errorf("step %d: got %v, want %v", i, err, step.want)
		}
	}
}
