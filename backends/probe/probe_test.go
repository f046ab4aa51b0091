package probe_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"sync/atomic"
	"testing"

	"chatelaine/backends"
	"chatelaine/backends/memstore"
	"chatelaine/backends/probe"
)

func TestAStoreThatKeepsTheContractIsSafe(t *testing.T) {
	store := memstore.New()
	r := probe.Run(t.Context(), probe.Config{Store: store, Variants: map[string]backends.Store{"crc32c": store}})
	if !r.Safe() || r.Err != nil || len(r.Left) != 0 {
		t.Fatalf("got %+v", r)
	}
	for _, f := range r.Findings {
		if f.Result != probe.Yes && f.Name != "etag-md5" {
			t.Errorf("%s: %s: %s", f.Name, f.Result, f.Detail)
		}
	}
	if f := r.Find("checksum-crc32c"); f.Result != probe.Yes {
		t.Errorf("the variant: %+v", f)
	}
	if f := r.Find("no such trial"); f.Result != probe.Untried {
		t.Errorf("a trial that there is not: %+v", f)
	}
	if buckets, err := store.ListBuckets(t.Context()); err != nil || len(buckets) != 0 {
		t.Errorf("left behind: %v, %v", buckets, err)
	}
}

// liar is a store that does not what it says. Each change is a lie.
type liar struct {
	*memstore.Store
	put      func(id *backends.ObjectID, b *backends.Body, o *backends.PutOptions)
	get      func(id *backends.ObjectID, o *backends.GetOptions)
	got      func(o *backends.Object)
	head     func(i *backends.Info, err error) error
	remove   func(o *backends.DeleteOptions) (skip bool)
	list     func(p *backends.Page)
	complete func(c *backends.Conditions, parts []backends.Part) error
	putPart  func(id *backends.UploadID) error
	copy     func(o *backends.CopyOptions)
	putAgain bool
}

func (l *liar) Put(ctx context.Context, id backends.ObjectID, b backends.Body, o *backends.PutOptions) (backends.Written, error) {
	opts := backends.PutOptions{}
	if o != nil {
		opts = *o
	}
	if l.put != nil {
		l.put(&id, &b, &opts)
	}
	return l.Store.Put(ctx, id, b, &opts)
}

func (l *liar) Get(ctx context.Context, id backends.ObjectID, o *backends.GetOptions) (*backends.Object, error) {
	opts := backends.GetOptions{}
	if o != nil {
		opts = *o
	}
	if l.get != nil {
		l.get(&id, &opts)
	}
	object, err := l.Store.Get(ctx, id, &opts)
	if err == nil && l.got != nil {
		l.got(object)
	}
	return object, err
}

func (l *liar) Head(ctx context.Context, id backends.ObjectID, o *backends.GetOptions) (backends.Info, error) {
	opts := backends.GetOptions{}
	if o != nil {
		opts = *o
	}
	if l.get != nil {
		l.get(&id, &opts)
	}
	info, err := l.Store.Head(ctx, id, &opts)
	if l.head != nil {
		err = l.head(&info, err)
	}
	return info, err
}

func (l *liar) Delete(ctx context.Context, id backends.ObjectID, o *backends.DeleteOptions) (backends.Deleted, error) {
	opts := backends.DeleteOptions{}
	if o != nil {
		opts = *o
	}
	if l.remove != nil && l.remove(&opts) {
		return backends.Deleted{}, nil
	}
	return l.Store.Delete(ctx, id, &opts)
}

func (l *liar) List(ctx context.Context, bucket string, o *backends.ListOptions) (*backends.Page, error) {
	page, err := l.Store.List(ctx, bucket, o)
	if err == nil && l.list != nil {
		l.list(page)
	}
	return page, err
}

func (l *liar) PutPart(ctx context.Context, id backends.UploadID, n int, b backends.Body) (backends.Part, error) {
	if l.putPart != nil {
		if err := l.putPart(&id); err != nil {
			return backends.Part{}, err
		}
	}
	part, err := l.Store.PutPart(ctx, id, n, b)
	if l.putAgain && errors.Is(err, backends.ErrUploadNotFound) {
		return backends.Part{Number: n}, nil
	}
	return part, err
}

func (l *liar) Complete(ctx context.Context, id backends.UploadID, parts []backends.Part, c backends.Conditions) (backends.Written, error) {
	if l.complete != nil {
		if err := l.complete(&c, parts); err != nil {
			return backends.Written{}, err
		}
	}
	return l.Store.Complete(ctx, id, parts, c)
}

func (l *liar) Copy(ctx context.Context, src, dst backends.ObjectID, o *backends.CopyOptions) (backends.Written, error) {
	opts := backends.CopyOptions{}
	if o != nil {
		opts = *o
	}
	if l.copy != nil {
		l.copy(&opts)
	}
	return l.Store.Copy(ctx, src, dst, &opts)
}

func merged(id *backends.ObjectID) { id.Key = strings.ReplaceAll(id.Key, "//", "/") }

// TestEachLieIsFound has what a store must do to be found out at each trial.
func TestEachLieIsFound(t *testing.T) {
	refusal := errors.New("no")
	var round atomic.Int64
	for name, tc := range map[string]struct {
		lie    func(l *liar)
		want   probe.Result
		unsafe bool
	}{
		"objects": {func(l *liar) {
			l.got = func(o *backends.Object) { o.Body = io.NopCloser(strings.NewReader("other")) }
		}, probe.No, true},
		"read-after-write": {func(l *liar) {
			l.head = func(i *backends.Info, err error) error { i.ETag += "old"; return err }
		}, probe.No, true},
		"whole-or-nothing": {func(l *liar) {
			l.put = func(_ *backends.ObjectID, b *backends.Body, _ *backends.PutOptions) {
				data, _ := io.ReadAll(b.Reader)
				b.Reader, b.Size = bytes.NewReader(data), int64(len(data))
			}
		}, probe.Ignored, true},
		"ranges": {func(l *liar) {
			l.get = func(_ *backends.ObjectID, o *backends.GetOptions) { o.Range = nil }
		}, probe.Ignored, true},
		"metadata": {func(l *liar) {
			l.put = func(_ *backends.ObjectID, _ *backends.Body, o *backends.PutOptions) {
				for name, value := range o.Attributes.Metadata {
					o.Attributes.Metadata = map[string]string{name: strings.ToLower(value)}
				}
			}
		}, probe.Ignored, true},
		"if-none-match": {func(l *liar) {
			l.put = func(_ *backends.ObjectID, _ *backends.Body, o *backends.PutOptions) { o.Conditions.IfNoneMatch = nil }
		}, probe.Ignored, true},
		"if-none-match-atomic": {func(l *liar) {
			l.put = func(_ *backends.ObjectID, b *backends.Body, o *backends.PutOptions) {
				if b.Size == 100_000 && round.Add(1) > 3 { // most of those who race
					o.Conditions.IfNoneMatch = nil
				}
			}
		}, probe.Ignored, true},
		"if-match": {func(l *liar) {
			l.put = func(_ *backends.ObjectID, _ *backends.Body, o *backends.PutOptions) { o.Conditions.IfMatch = nil }
		}, probe.Ignored, true},
		"if-match-delete": {func(l *liar) {
			l.remove = func(o *backends.DeleteOptions) bool { o.Conditions = backends.Conditions{}; return false }
		}, probe.Ignored, true},
		"conditional-reads": {func(l *liar) {
			l.get = func(_ *backends.ObjectID, o *backends.GetOptions) { o.Conditions = backends.Conditions{} }
		}, probe.No, false},
		"keys-unicode": {func(l *liar) {
			l.put = func(id *backends.ObjectID, _ *backends.Body, _ *backends.PutOptions) {
				id.Key = strings.ReplaceAll(id.Key, "e\u0301", "é")
			}
			l.get = func(id *backends.ObjectID, _ *backends.GetOptions) {
				id.Key = strings.ReplaceAll(id.Key, "e\u0301", "é")
			}
		}, probe.Ignored, true},
		"keys-long": {func(l *liar) {
			l.put = func(id *backends.ObjectID, _ *backends.Body, _ *backends.PutOptions) {
				if len(id.Key) > 1000 {
					id.Key += strings.Repeat("x", 100)
				}
			}
		}, probe.No, false},
		"keys-slashes": {func(l *liar) {
			l.put = func(id *backends.ObjectID, _ *backends.Body, _ *backends.PutOptions) { merged(id) }
			l.get = func(id *backends.ObjectID, _ *backends.GetOptions) { merged(id) }
		}, probe.Ignored, true},
		"keys-leading-slash": {func(l *liar) {
			l.put = func(id *backends.ObjectID, _ *backends.Body, _ *backends.PutOptions) {
				id.Key = strings.TrimPrefix(id.Key, "/")
			}
			l.get = func(id *backends.ObjectID, _ *backends.GetOptions) { id.Key = strings.TrimPrefix(id.Key, "/") }
		}, probe.Ignored, true},
		"keys-folders": {func(l *liar) {
			l.put = func(id *backends.ObjectID, _ *backends.Body, _ *backends.PutOptions) {
				if strings.HasSuffix(id.Key, "/f/x/y") {
					id.Key = ""
				}
			}
		}, probe.No, false},
		"keys-markers": {func(l *liar) {
			l.put = func(id *backends.ObjectID, _ *backends.Body, _ *backends.PutOptions) {
				if strings.HasSuffix(id.Key, "/") {
					id.Key = ""
				}
			}
		}, probe.No, false},
		"list": {func(l *liar) {
			l.list = func(p *backends.Page) {
				if n := len(p.Entries); n > 1 {
					p.Entries[0], p.Entries[n-1] = p.Entries[n-1], p.Entries[0]
				}
			}
		}, probe.No, true},
		"list-after-write": {func(l *liar) {
			l.list = func(p *backends.Page) { p.Entries = p.Entries[:len(p.Entries)/2] }
		}, probe.No, true},
		"multipart":        {func(l *liar) { l.putPart = func(*backends.UploadID) error { return refusal } }, probe.No, false},
		"multipart-uneven": {func(l *liar) { l.complete = refuse(3, refusal) }, probe.No, false},
		"multipart-unnamed": {func(l *liar) {
			l.complete = refuse(1, refusal)
		}, probe.No, false},
		"multipart-conditions": {func(l *liar) {
			l.complete = func(c *backends.Conditions, _ []backends.Part) error { *c = backends.Conditions{}; return nil }
		}, probe.Ignored, true},
		"multipart-abort": {func(l *liar) { l.putAgain = true }, probe.Ignored, false},
		"copy": {func(l *liar) {
			l.copy = func(o *backends.CopyOptions) { o.Attributes = backends.Attributes{} }
		}, probe.Ignored, false},
		"copy-source-conditions": {func(l *liar) { l.copy = func(o *backends.CopyOptions) { o.SourceIfMatch = "" } }, probe.Ignored, true},
		"copy-conditions": {func(l *liar) {
			l.copy = func(o *backends.CopyOptions) { o.Conditions = backends.Conditions{} }
		}, probe.Ignored, true},
		"tags": {func(l *liar) {
			l.put = func(_ *backends.ObjectID, _ *backends.Body, o *backends.PutOptions) { o.Attributes.Tags = nil }
		}, probe.Ignored, false},
		"versions": {func(l *liar) {
			l.get = func(id *backends.ObjectID, _ *backends.GetOptions) { id.Version = "" }
		}, probe.Ignored, false},
		"locks": {func(l *liar) {
			l.put = func(_ *backends.ObjectID, _ *backends.Body, o *backends.PutOptions) {
				o.Attributes.Lock = backends.Lock{}
			}
		}, probe.Ignored, false},
	} {
		t.Run(name, func(t *testing.T) {
			l := &liar{Store: memstore.New()}
			tc.lie(l)
			r := probe.Run(t.Context(), probe.Config{Store: l, Only: []string{name}})
			f := r.Find(name)
			if f.Result != tc.want || f.Unsafe != tc.unsafe || f.Refuses == "" {
				t.Errorf("got %+v, want %s, unsafe: %v", f, tc.want, tc.unsafe)
			}
			if tc.unsafe && r.Safe() {
				t.Error("the report says that the store is safe")
			}
		})
	}
}

// refuse refuses to complete an upload of that many parts.
func refuse(parts int, err error) func(*backends.Conditions, []backends.Part) error {
	return func(_ *backends.Conditions, named []backends.Part) error {
		if len(named) == parts {
			return err
		}
		return nil
	}
}

func TestWhatIsNotReliedOnMayBeIgnored(t *testing.T) {
	l := &liar{Store: memstore.New()}
	l.remove = func(o *backends.DeleteOptions) bool { o.Conditions = backends.Conditions{}; return false }
	r := probe.Run(t.Context(), probe.Config{Store: l, Only: []string{"if-match-delete"}, Relies: map[string]bool{"if-match": true}})
	if f := r.Find("if-match-delete"); f.Result != probe.Ignored || f.Unsafe || !r.Safe() {
		t.Errorf("got %+v, safe: %v", f, r.Safe())
	}
}

// bare has no capability at all.
type bare struct{ backends.Store }

func TestWhatAStoreDoesNotHaveIsNoDanger(t *testing.T) {
	r := probe.Run(t.Context(), probe.Config{Store: bare{memstore.New()}})
	if !r.Safe() {
		t.Errorf("got %+v", r.Findings)
	}
	for _, name := range []string{"multipart", "multipart-conditions", "copy", "copy-conditions", "tags", "versions", "locks"} {
		if f := r.Find(name); f.Result != probe.No {
			t.Errorf("%s: got %+v, want no", name, f)
		}
	}
}

// TestNothingIsLeftWhereverItIsCutOff ends the context at every fourth trial in turn.
func TestNothingIsLeftWhereverItIsCutOff(t *testing.T) {
	for n := 1; ; n += 4 {
		store := memstore.New()
		ctx, cancel := context.WithCancel(t.Context())
		seen := 0
		r := probe.Run(ctx, probe.Config{Store: store, Tell: func(string) {
			if seen++; seen == n {
				cancel()
			}
		}})
		cancel()
		if buckets, err := store.ListBuckets(t.Context()); err != nil || len(buckets) != 0 || len(r.Left) != 0 {
			t.Fatalf("cut off at trial %d: %v are left, %v, %v", n, buckets, r.Left, err)
		}
		if seen < n {
			return
		}
		if !errors.Is(r.Err, context.Canceled) || r.Safe() || len(r.Findings) != n-1 {
			t.Fatalf("cut off at trial %d: %v, safe: %v, %d findings", n, r.Err, r.Safe(), len(r.Findings))
		}
	}
}

func TestABucketOfSomebodyElseKeepsWhatItHas(t *testing.T) {
	store := memstore.New()
	id := backends.ObjectID{Bucket: "theirs", Key: "theirs"}
	if err := store.CreateBucket(t.Context(), id.Bucket); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Put(t.Context(), id, backends.Body{}, nil); err != nil {
		t.Fatal(err)
	}
	r := probe.Run(t.Context(), probe.Config{Store: store, Bucket: id.Bucket})
	if !r.Safe() || len(r.Left) != 0 {
		t.Errorf("got %+v", r)
	}
	for _, name := range []string{"versions", "locks", "keys-leading-slash"} {
		if f := r.Find(name); f.Result != probe.Untried {
			t.Errorf("%s: got %s, want untried", name, f.Result)
		}
	}
	page, err := store.List(t.Context(), id.Bucket, nil)
	if err != nil || len(page.Entries) != 1 || page.Entries[0].Key != id.Key {
		t.Errorf("the bucket has %+v, %v", page, err)
	}
	if v, err := store.Versioning(t.Context(), id.Bucket); err != nil || v != backends.VersioningOff {
		t.Errorf("its versioning is %q, %v", v, err)
	}
}

func TestWithoutABucketThereIsNoReport(t *testing.T) {
	r := probe.Run(t.Context(), probe.Config{Store: memstore.New(), Bucket: "none"})
	if !errors.Is(r.Err, backends.ErrBucketNotFound) || r.Safe() || len(r.Findings) != 0 {
		t.Errorf("got %+v", r)
	}
}

func TestWhatCannotBeRemovedIsNamed(t *testing.T) {
	l := &liar{Store: memstore.New()}
	l.remove = func(*backends.DeleteOptions) bool { return true }
	ctx, cancel := context.WithCancel(t.Context())
	r := probe.Run(ctx, probe.Config{Store: l, Tell: func(name string) {
		if name == "ranges" {
			cancel()
		}
	}})
	cancel()
	if len(r.Left) == 0 || !strings.Contains(r.Left[0], "chatelaine-check-") {
		t.Errorf("left: %q", r.Left)
	}
}

// short is a store that takes keys up to a length.
type short struct {
	*memstore.Store
	most int
}

func (s *short) Put(ctx context.Context, id backends.ObjectID, b backends.Body, o *backends.PutOptions) (backends.Written, error) {
	if len(id.Key) > s.most {
		return backends.Written{}, backends.ErrInvalidName
	}
	return s.Store.Put(ctx, id, b, o)
}

func TestTheLongestKeyIsFound(t *testing.T) {
	for most, want := range map[int]string{
		backends.MaxKey: "", backends.MaxKey - 1: "one segment: at most 1023 bytes", 700: "one segment: at most 700 bytes",
	} {
		f := probe.Run(t.Context(), probe.Config{Store: &short{memstore.New(), most}, Only: []string{"keys-long"}}).Find("keys-long")
		if !strings.HasPrefix(f.Detail, want) || (want == "") != (f.Result == probe.Yes) {
			t.Errorf("at most %d: got %+v, want %q", most, f, want)
		}
	}
}
