package backendtest_test

import (
	"bytes"
	"context"
	"io"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"chatelaine/backends"
	"chatelaine/backends/backendtest"
	"chatelaine/backends/memstore"
)

const brokenEnv = "BACKENDTEST_BROKEN"

type brokenStore struct {
	test  string
	store func(*memstore.Store) backends.Store
}

// brokenStores do one thing wrong each. The value of test is in the name of a test
// that must fail.
func brokenStores() map[string]brokenStore {
	return map[string]brokenStore{
		"ignores conditions":      {"Conditions/OfPut", func(m *memstore.Store) backends.Store { return unconditional{m} }},
		"cleans keys":             {"Keys/AreUsedAsTheyAre", func(m *memstore.Store) backends.Store { return cleaning{m} }},
		"stores short bodies":     {"Bodies/", func(m *memstore.Store) backends.Store { return patient{m} }},
		"checks and then puts":    {"Concurrency/OneOf32", func(m *memstore.Store) backends.Store { return racing{m} }},
		"forgets the last row":    {"Listing/IsTheSame", func(m *memstore.Store) backends.Store { return forgetful{m} }},
		"lists half the metadata": {"Listing/HasTheMetadata", func(m *memstore.Store) backends.Store { return halving{m} }},
		"is deaf to its context":  {"Contexts/", func(m *memstore.Store) backends.Store { return deaf{m} }},
		"drops metadata":          {"Objects/KeepTheirAttributes", func(m *memstore.Store) backends.Store { return bare{m} }},
		"reads one byte too many": {"Ranges/", func(m *memstore.Store) backends.Store { return generous{m} }},
		"orders parts as they are": {"Multipart/RefusesPartsThatAreNotThere", func(m *memstore.Store) backends.Store {
			return sorting{m}
		}},
	}
}

type (
	unconditional struct{ *memstore.Store }
	cleaning      struct{ *memstore.Store }
	patient       struct{ *memstore.Store }
	racing        struct{ *memstore.Store }
	forgetful     struct{ *memstore.Store }
	halving       struct{ *memstore.Store }
	deaf          struct{ *memstore.Store }
	bare          struct{ *memstore.Store }
	generous      struct{ *memstore.Store }
	sorting       struct{ *memstore.Store }
)

func (s unconditional) Put(ctx context.Context, id backends.ObjectID, b backends.Body, _ *backends.PutOptions) (backends.Written, error) {
	return s.Store.Put(ctx, id, b, nil)
}

func (s cleaning) Put(ctx context.Context, id backends.ObjectID, b backends.Body, o *backends.PutOptions) (backends.Written, error) {
	id.Key = strings.ReplaceAll(id.Key, "//", "/")
	return s.Store.Put(ctx, id, b, o)
}

func (s patient) Put(ctx context.Context, id backends.ObjectID, b backends.Body, o *backends.PutOptions) (backends.Written, error) {
	data, _ := io.ReadAll(b.Reader)
	return s.Store.Put(ctx, id, backends.Body{Reader: bytes.NewReader(data), Size: int64(len(data))}, o)
}

func (s racing) Put(ctx context.Context, id backends.ObjectID, b backends.Body, o *backends.PutOptions) (backends.Written, error) {
	info, err := s.Head(ctx, id, nil)
	if o != nil {
		if err := o.Conditions.CheckWrite(info.ETag, info.Modified, err == nil); err != nil {
			return backends.Written{}, err
		}
	}
	time.Sleep(time.Millisecond)
	return s.Store.Put(ctx, id, b, nil)
}

func (s forgetful) List(ctx context.Context, bucket string, o *backends.ListOptions) (*backends.Page, error) {
	page, err := s.Store.List(ctx, bucket, o)
	if err == nil && page.Truncated && len(page.Prefixes) > 1 {
		page.Prefixes = page.Prefixes[:len(page.Prefixes)-1]
	}
	return page, err
}

func (s halving) List(ctx context.Context, bucket string, o *backends.ListOptions) (*backends.Page, error) {
	page, err := s.Store.List(ctx, bucket, o)
	if err == nil {
		for i := range page.Entries {
			page.Entries[i].Attributes.Metadata = map[string]string{"two": "2"}
		}
	}
	return page, err
}

func (s deaf) Get(_ context.Context, id backends.ObjectID, o *backends.GetOptions) (*backends.Object, error) {
	return s.Store.Get(context.Background(), id, o)
}

func (s bare) Head(ctx context.Context, id backends.ObjectID, o *backends.GetOptions) (backends.Info, error) {
	info, err := s.Store.Head(ctx, id, o)
	info.Attributes.Metadata = nil
	return info, err
}

func (s generous) Get(ctx context.Context, id backends.ObjectID, o *backends.GetOptions) (*backends.Object, error) {
	if o != nil && o.Range != nil && o.Range.Length > 0 {
		o.Range.Length++
	}
	return s.Store.Get(ctx, id, o)
}

func (s sorting) Complete(ctx context.Context, id backends.UploadID, parts []backends.Part, c backends.Conditions) (backends.Written, error) {
	parts = slices.SortedFunc(slices.Values(parts), func(a, b backends.Part) int { return a.Number - b.Number })
	return s.Store.Complete(ctx, id, parts, c)
}

func allBroken() map[string]brokenStore {
	all := brokenStores()
	maps.Copy(all, brokenCapabilities())
	return all
}

// TestBrokenStore is run by TestTheSuiteNoticesBrokenStores, in another process.
func TestBrokenStore(t *testing.T) {
	broken, ok := allBroken()[os.Getenv(brokenEnv)]
	if !ok {
		return
	}
	backendtest.Run(t, func(*testing.T) backends.Store { return broken.store(memstore.New()) })
}

func TestTheSuiteNoticesBrokenStores(t *testing.T) {
	for name, broken := range allBroken() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestBrokenStore$/^Suite$/^"+broken.test)
			cmd.Env = append(os.Environ(), brokenEnv+"="+name)
			out, err := cmd.CombinedOutput()
			if err == nil || !strings.Contains(string(out), "--- FAIL: TestBrokenStore/Suite/"+broken.test) {
				t.Errorf("a store that %s passes %s: %v\n%.2000s", name, broken.test, err, out)
			}
		})
	}
}
