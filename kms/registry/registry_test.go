package registry_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"

	"chatelaine/kms"
	"chatelaine/kms/registry"
)

// each runs a test on every implementation.
func each(t *testing.T, test func(t *testing.T, r kms.Registry)) {
	t.Helper()
	t.Run("memory", func(t *testing.T) { test(t, registry.NewMemory()) })
	t.Run("embedded", func(t *testing.T) { test(t, embedded(t, t.TempDir())) })
	t.Run("external", func(t *testing.T) { test(t, dialled(t, external(t))) })
}

func embedded(t *testing.T, dir string) *registry.Store {
	t.Helper()
	s, err := registry.Embed(t.Context(), registry.EmbedConfig{Dir: dir, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// external starts an etcd that listens, as a cluster of one.
func external(t *testing.T) string {
	t.Helper()
	cfg := embed.NewConfig()
	cfg.Dir, cfg.Name = t.TempDir(), "external"
	endpoint := url.URL{Scheme: "http", Host: freeAddress(t)}
	peer := url.URL{Scheme: "http", Host: freeAddress(t)}
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = []url.URL{endpoint}, []url.URL{endpoint}
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
	cfg.InitialCluster = "external=" + peer.String()
	cfg.TickMs, cfg.ElectionMs = 20, 200
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop())
	e, err := embed.StartEtcd(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	<-e.Server.ReadyNotify()
	return endpoint.String()
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

func dialled(t *testing.T, endpoint string) *registry.Store {
	t.Helper()
	s, err := registry.Dial(t.Context(), registry.DialConfig{Endpoints: []string{endpoint}})
	if err != nil {
		t.Fatal(err)
	}
	if s.Exclusive() {
		t.Error("an external registry counts as one process's own")
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func commit(t *testing.T, r kms.Registry, tx kms.Transaction) {
	t.Helper()
	if err := r.Commit(t.Context(), tx); err != nil {
		t.Fatal(err)
	}
}

func put(pairs ...string) kms.Transaction {
	var tx kms.Transaction
	for i := 0; i < len(pairs); i += 2 {
		tx.Put = append(tx.Put, kms.Item{Key: pairs[i], Value: []byte(pairs[i+1])})
	}
	return tx
}

func get(t *testing.T, r kms.Registry, key string) kms.Item {
	t.Helper()
	item, err := r.Get(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	return item
}

func TestWhatIsCommittedIsRead(t *testing.T) {
	each(t, func(t *testing.T, r kms.Registry) {
		if _, err := r.Get(t.Context(), "a"); !errors.Is(err, kms.ErrNotFound) {
			t.Errorf("got %v, want ErrNotFound", err)
		}
		commit(t, r, put("a", "1", "b", "2"))
		a, b := get(t, r, "a"), get(t, r, "b")
		if string(a.Value) != "1" || string(b.Value) != "2" || a.Revision == 0 || a.Revision != b.Revision {
			t.Errorf("got %+v, %+v", a, b)
		}
		a.Value[0] = 'x'
		if again := get(t, r, "a"); string(again.Value) != "1" {
			t.Error("the registry keeps bytes that it gave away")
		}
		commit(t, r, put("a", "3"))
		if again := get(t, r, "a"); again.Revision <= a.Revision || get(t, r, "b").Revision != b.Revision {
			t.Errorf("revision %d after %d", again.Revision, a.Revision)
		}
		if err := r.Check(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestConditionsDecide(t *testing.T) {
	each(t, func(t *testing.T, r kms.Registry) {
		commit(t, r, put("a", "1"))
		now := get(t, r, "a").Revision
		tests := []struct {
			condition kms.Condition
			want      error
		}{
			{kms.Condition{Key: "a"}, kms.ErrConflict},
			{kms.Condition{Key: "a", Revision: now + 1}, kms.ErrConflict},
			{kms.Condition{Key: "none", Revision: now}, kms.ErrConflict},
			{kms.Condition{Key: "none"}, nil},
			{kms.Condition{Key: "a", Revision: now}, nil},
		}
		for i, test := range tests {
			tx := put(fmt.Sprint("written", i), "x")
			tx.If = []kms.Condition{test.condition}
			if err := r.Commit(t.Context(), tx); !errors.Is(err, test.want) {
				t.Errorf("%+v: got %v, want %v", test.condition, err, test.want)
			}
			_, err := r.Get(t.Context(), fmt.Sprint("written", i))
			if written := err == nil; written != (test.want == nil) {
				t.Errorf("%+v: written is %t", test.condition, written)
			}
		}
	})
}

func TestDeletesKeysAndPrefixes(t *testing.T) {
	each(t, func(t *testing.T, r kms.Registry) {
		commit(t, r, put("a", "1", "b/1", "1", "b/2", "1", "bc", "1", "c", "1"))
		commit(t, r, kms.Transaction{Delete: []string{"a", "none"}, DeletePrefix: []string{"b/"}, Put: put("d", "1").Put})
		if got := keys(t, r, ""); !slices.Equal(got, []string{"bc", "c", "d"}) {
			t.Errorf("left are %v", got)
		}
		again := put("a", "2")
		again.If = []kms.Condition{{Key: "a"}}
		commit(t, r, again)
	})
}

func keys(t *testing.T, r kms.Registry, prefix string) (out []string) {
	t.Helper()
	items, err := r.List(t.Context(), prefix)
	if err != nil {
		t.Fatal(err)
	}
	for _, item := range items {
		out = append(out, item.Key)
	}
	return out
}

func TestListIsSortedAndCompleteBeyondOnePage(t *testing.T) {
	each(t, func(t *testing.T, r kms.Registry) {
		const n = 2500
		var want []string
		for i := 0; i < n; i += 100 {
			var tx kms.Transaction
			for j := i; j < i+100; j++ {
				key := fmt.Sprintf("x/%05d", j)
				want = append(want, key)
				tx.Put = append(tx.Put, kms.Item{Key: key, Value: []byte("v")})
			}
			commit(t, r, tx)
		}
		commit(t, r, put("w", "1", "x", "1", "x0", "1", "y", "1"))
		if got := keys(t, r, "x/"); !slices.Equal(got, want) {
			t.Errorf("got %d keys, want %d", len(got), n)
		}
	})
}

func TestCommitRefusesWhatIsTooMuch(t *testing.T) {
	each(t, func(t *testing.T, r kms.Registry) {
		if err := r.Commit(t.Context(), put("a", "1", "a", "2")); !errors.Is(err, kms.ErrInvalid) {
			t.Errorf("got %v, want ErrInvalid", err)
		}
		var full kms.Transaction
		for i := range kms.MaxTransaction {
			key := fmt.Sprint(i)
			full.If = append(full.If, kms.Condition{Key: key})
			full.Put = append(full.Put, kms.Item{Key: key})
		}
		commit(t, r, full)
		full.Put = append(full.Put, kms.Item{Key: "more"})
		if err := r.Commit(t.Context(), full); !errors.Is(err, kms.ErrInvalid) {
			t.Errorf("got %v, want ErrInvalid", err)
		}
	})
}

func TestOneOfManyConcurrentCommitsWins(t *testing.T) {
	each(t, func(t *testing.T, r kms.Registry) {
		var wg sync.WaitGroup
		results := make([]error, 20)
		for i := range results {
			wg.Go(func() {
				tx := put("prize", fmt.Sprint(i))
				tx.If = []kms.Condition{{Key: "prize"}}
				results[i] = r.Commit(t.Context(), tx)
			})
		}
		wg.Wait()
		won := 0
		for i, err := range results {
			switch {
			case err == nil:
				won++
				if got := get(t, r, "prize"); string(got.Value) != fmt.Sprint(i) {
					t.Errorf("%d won, but there is %s", i, got.Value)
				}
			case !errors.Is(err, kms.ErrConflict):
				t.Error(err)
			}
		}
		if won != 1 {
			t.Errorf("%d won", won)
		}
	})
}

func TestWatchSeesEachChangeAfterARevision(t *testing.T) {
	each(t, func(t *testing.T, r kms.Registry) {
		commit(t, r, put("w/before", "1"))
		after := get(t, r, "w/before").Revision
		commit(t, r, put("w/a", "1"))
		var got []string
		stop := errors.New("enough")
		seen := make(chan struct{})
		done := make(chan error)
		go func() {
			done <- r.Watch(t.Context(), "w/", after, func(e kms.Event) error {
				got = append(got, fmt.Sprintf("%s %s %t", e.Key, e.Value, e.Deleted))
				if len(got) == 1 {
					close(seen)
				}
				if len(got) == 3 {
					return stop
				}
				return nil
			})
		}()
		<-seen
		commit(t, r, put("elsewhere", "1"))
		commit(t, r, put("w/a", "2"))
		commit(t, r, kms.Transaction{Delete: []string{"w/before"}})
		if err := <-done; !errors.Is(err, stop) {
			t.Errorf("got %v, want the callback's error", err)
		}
		if want := []string{"w/a 1 false", "w/a 2 false", "w/before  true"}; !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

func TestWatchSaysWhenItsHistoryIsGone(t *testing.T) {
	endpoint := external(t)
	r := dialled(t, endpoint)
	commit(t, r, put("w/a", "1"))
	commit(t, r, put("w/a", "2"))
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{endpoint}, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Close() }()
	if _, err := client.Compact(t.Context(), get(t, r, "w/a").Revision); err != nil {
		t.Fatal(err)
	}
	err = r.Watch(t.Context(), "w/", 0, func(kms.Event) error { return nil })
	if !errors.Is(err, kms.ErrCompacted) {
		t.Errorf("got %v, want ErrCompacted", err)
	}
}

func TestWatchEndsWithItsContext(t *testing.T) {
	each(t, func(t *testing.T, r kms.Registry) {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- r.Watch(ctx, "w/", 0, func(kms.Event) error { return nil }) }()
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want Canceled", err)
		}
	})
}

func TestACancelledContextEndsCalls(t *testing.T) {
	each(t, func(t *testing.T, r kms.Registry) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, getErr := r.Get(ctx, "a")
		_, listErr := r.List(ctx, "a")
		for _, err := range []error{getErr, listErr, r.Commit(ctx, put("a", "1")), r.Check(ctx)} {
			if !errors.Is(err, context.Canceled) || errors.Is(err, kms.ErrUnavailable) {
				t.Errorf("got %v, want Canceled", err)
			}
		}
	})
}

func TestDialRefusesPlainTextOverANetwork(t *testing.T) {
	for _, endpoint := range []string{"http://10.0.0.1:2379", "https://10.0.0.1:2379", "10.0.0.1:2379", "ftp://x", ""} {
		_, err := registry.Dial(t.Context(), registry.DialConfig{Endpoints: []string{endpoint}})
		if !errors.Is(err, kms.ErrInvalid) {
			t.Errorf("%q: got %v, want ErrInvalid", endpoint, err)
		}
	}
	if _, err := registry.Dial(t.Context(), registry.DialConfig{}); !errors.Is(err, kms.ErrInvalid) {
		t.Errorf("no endpoints: got %v", err)
	}
}

func TestDialFailsInTimeWhenNobodyAnswers(t *testing.T) {
	_, err := registry.Dial(t.Context(), registry.DialConfig{
		Endpoints: []string{"http://" + freeAddress(t)}, Timeout: 200e6,
	})
	if !errors.Is(err, kms.ErrUnavailable) || strings.Contains(err.Error(), "%!") {
		t.Errorf("got %v, want ErrUnavailable", err)
	}
}

func TestTwoStoresShareACluster(t *testing.T) {
	endpoint := external(t)
	a, b := dialled(t, endpoint), dialled(t, endpoint)
	for i := range 50 {
		key := fmt.Sprint("k", i)
		commit(t, a, put(key, "1"))
		if got := get(t, b, key); string(got.Value) != "1" {
			t.Fatalf("the other store does not see %q", key)
		}
	}
}

func TestRevisionIsThatOfTheNewestChange(t *testing.T) {
	each(t, func(t *testing.T, r kms.Registry) {
		commit(t, r, put("a", "1"))
		commit(t, r, put("b", "1"))
		got, err := r.Revision(t.Context())
		if want := get(t, r, "b").Revision; err != nil || got != want {
			t.Errorf("got %d and %v, want %d", got, err, want)
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		commit(t, r, put("a", "2"))
		err = r.Watch(ctx, "", got, func(e kms.Event) error {
			if e.Key != "a" || string(e.Value) != "2" {
				t.Errorf("a watch after it sees %q", e.Key)
			}
			cancel()
			return nil
		})
		if !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

func TestAReadSeesWhatAnybodyWasToldIsCommitted(t *testing.T) {
	each(t, func(t *testing.T, r kms.Registry) {
		var group sync.WaitGroup
		for writer := range 4 {
			key, told := fmt.Sprintf("w/%d", writer), make(chan string)
			group.Go(func() {
				defer close(told)
				for i := range 50 {
					if err := r.Commit(t.Context(), put(key, strconv.Itoa(i))); err != nil {
						t.Error(err)
						return
					}
					told <- strconv.Itoa(i)
				}
			})
			group.Go(func() {
				for want := range told {
					item, err := r.Get(t.Context(), key)
					got, _ := strconv.Atoi(string(item.Value))
					if least, _ := strconv.Atoi(want); err != nil || got < least {
						t.Errorf("%s: got %q, %v, and %s was committed before", key, item.Value, err, want)
					}
				}
			})
		}
		group.Wait()
	})
}
