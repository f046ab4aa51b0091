package registry_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"chatelaine/kms"
	"chatelaine/kms/registry"
)

func TestUsageGrowsWithWhatIsKept(t *testing.T) {
	const mib = 1 << 20
	endpoint := external(t)
	lowered, err := registry.Dial(t.Context(), registry.DialConfig{Endpoints: []string{endpoint, endpoint}, Quota: 64 * mib})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = lowered.Close() })
	for name, test := range map[string]struct {
		of   *registry.Store
		want int64
	}{
		"embedded, etcd's own": {embedded(t, t.TempDir()), 2048 * mib},
		"embedded, configured": {quoted(t, t.TempDir(), 16*mib), 16 * mib},
		"external, its own":    {dialled(t, endpoint), 2048 * mib},
		"external, configured": {lowered, 64 * mib},
	} {
		before := usage(t, test.of)
		if before.InUse <= 0 || before.File < before.InUse || before.Quota != test.want {
			t.Errorf("%s: got %+v, want a quota of %d", name, before, test.want)
		}
		commit(t, test.of, put("big", string(make([]byte, mib))))
		for end := time.Now().Add(20 * time.Second); usage(t, test.of).InUse < before.InUse+mib/2; time.Sleep(10 * time.Millisecond) {
			if time.Now().After(end) { // etcd counts every 100 ms, and what is free by then is taken first
				t.Fatalf("%s: it has %+v, and had %+v", name, usage(t, test.of), before)
			}
		}
	}
	if u, err := registry.NewMemory().Usage(t.Context()); err != nil || u != (kms.Usage{}) {
		t.Errorf("memory: got %+v, %v", u, err)
	}
}

func TestUsageOfAnEtcdThatIsAwayIsNotKnown(t *testing.T) {
	s := dialled(t, external(t))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if u, err := s.Usage(ctx); err == nil {
		t.Errorf("got %+v", u)
	}
}

func usage(t *testing.T, s *registry.Store) kms.Usage {
	t.Helper()
	u, err := s.Usage(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func quoted(t *testing.T, dir string, quota int64) *registry.Store {
	t.Helper()
	s, err := registry.Embed(t.Context(), registry.EmbedConfig{Dir: dir, Quota: quota, Timeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// fill commits records until etcd takes no more, and says how many it took.
func fill(t *testing.T, s *registry.Store, key func(i int) string) int {
	t.Helper()
	value := string(make([]byte, 100<<10))
	for i := range 10000 {
		err := s.Commit(t.Context(), put(key(i), value))
		if err == nil {
			continue
		}
		if !errors.Is(err, kms.ErrUnavailable) {
			t.Fatal(err)
		}
		if err := s.Commit(t.Context(), put("small", "")); err == nil {
			t.Fatal("a full etcd takes small records: then nothing needs to be kept free")
		}
		return i
	}
	t.Fatal("it is never full")
	return 0
}

func TestAFullEtcdTakesChangesAgainWhenItIsRestarted(t *testing.T) {
	dir := t.TempDir()
	config := registry.EmbedConfig{Dir: dir, Quota: 4 << 20, Timeout: time.Minute}
	s, err := registry.Embed(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	n := fill(t, s, func(int) string { return "one" })
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = quoted(t, dir, config.Quota) // what it is full of is history
	if u := usage(t, s); u.File > config.Quota/2 {
		t.Errorf("after %d changes of one record its file has %d bytes", n, u.File)
	}
	commit(t, s, put("small", "1"))
	if got := get(t, s, "one"); len(got.Value) != 100<<10 {
		t.Errorf("its record has %d bytes", len(got.Value))
	}
}

func TestAnEtcdWhoseRecordsDoNotFitSaysSoUntilItsQuotaIsRaised(t *testing.T) {
	config := registry.EmbedConfig{Dir: t.TempDir(), Quota: 4 << 20, Timeout: time.Minute}
	s, err := registry.Embed(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	n := fill(t, s, func(i int) string { return fmt.Sprint("record", i) })
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	config.Quota /= 2 // what fills a file may just fit when the file is written anew
	if s, err := registry.Embed(t.Context(), config); !errors.Is(err, kms.ErrFull) {
		t.Errorf("got %v, %v, want ErrFull", s, err)
	}
	raised := quoted(t, config.Dir, 256<<20)
	commit(t, raised, put("small", "1"))
	if got := len(keys(t, raised, "record")); got < n { // what was not acknowledged may be there
		t.Errorf("got %d records, want %d or more", got, n)
	}
}
