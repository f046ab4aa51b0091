package s3store_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"chatelaine/backends"
	"chatelaine/backends/s3store"
	"chatelaine/test/servers"
)

// disturbed is a MinIO behind a toxiproxy, which may be silent for as long as stall, and
// the same without it.
func disturbed(t *testing.T, stall time.Duration) (proxy *servers.Proxy, store, direct *s3store.Store) {
	t.Helper()
	cfg := configOf(minio.MinIO(t))
	direct = onMinIO(t, cfg)
	proxy = servers.Toxiproxy(t, strings.TrimPrefix(cfg.Endpoint, "http://"))
	cfg.Endpoint, cfg.Stall = "http://"+proxy.Address, stall
	return proxy, open(t, cfg), direct
}

// fresh names an object that nobody has.
func fresh(t *testing.T) backends.ObjectID {
	return backends.ObjectID{Bucket: object.Bucket, Key: t.Name() + "-" + rand.Text()}
}

func zerosOf(n int) backends.Body { return backends.Body{Reader: &zeros{left: n}, Size: int64(n)} }

// whole wants the object to be there, all of it.
func whole(t *testing.T, s *s3store.Store, id backends.ObjectID, size int) {
	t.Helper()
	o, err := s.Get(t.Context(), id, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer o.Body.Close()
	if n, err := io.Copy(io.Discard, o.Body); n != int64(size) || err != nil {
		t.Errorf("%s: got %d bytes and %v, want %d", id.Key, n, err, size)
	}
}

// absent wants nothing of the object to be visible.
func absent(t *testing.T, s *s3store.Store, id backends.ObjectID) {
	t.Helper()
	if _, err := s.Head(t.Context(), id, nil); !errors.Is(err, backends.ErrNotFound) {
		t.Errorf("%s: Head says %v, want ErrNotFound", id.Key, err)
	}
	page, err := s.List(t.Context(), id.Bucket, &backends.ListOptions{Prefix: id.Key})
	if err != nil || len(page.Entries) != 0 {
		t.Errorf("%s: it is listed: %+v, %v", id.Key, page, err)
	}
}

func TestLatencyOnlyCostsTime(t *testing.T) {
	proxy, s, direct := disturbed(t, time.Minute)
	id := fresh(t)
	for _, stream := range []string{"upstream", "downstream"} {
		proxy.Disturb(t, servers.Toxic{Type: "latency", Stream: stream, Attributes: map[string]int64{"latency": 30, "jitter": 20}})
	}
	for _, size := range sizes() {
		if _, err := s.Put(t.Context(), id, zerosOf(size), nil); err != nil {
			t.Fatalf("%d bytes: %v", size, err)
		}
		whole(t, s, id, size)
		whole(t, direct, id, size)
	}
}

func TestACutUploadLeavesNothing(t *testing.T) {
	proxy, s, direct := disturbed(t, time.Minute)
	id := fresh(t)
	calm := proxy.Disturb(t, servers.Toxic{Type: "limit_data", Stream: "upstream", Attributes: map[string]int64{"bytes": 500_000}})
	const size = 3 << 20
	if _, err := s.Put(t.Context(), id, zerosOf(size), nil); !errors.Is(err, backends.ErrUnavailable) {
		t.Errorf("got %v, want ErrUnavailable", err)
	}
	absent(t, direct, id)
	calm()
	if _, err := s.Put(t.Context(), id, zerosOf(size), nil); err != nil {
		t.Fatal(err)
	}
	whole(t, direct, id, size)
}

// The write is applied and its answer lost: who asked with a condition must not be told
// that somebody else has won, which repeating the request would do.
func TestALostAnswerIsNotTakenForSomebodyElsesDeed(t *testing.T) {
	proxy, s, direct := disturbed(t, time.Minute)
	id := fresh(t)
	never := &backends.PutOptions{Conditions: backends.Conditions{IfNoneMatch: []string{"*"}}}
	calm := proxy.Disturb(t, servers.Toxic{Type: "limit_data", Stream: "downstream", Attributes: map[string]int64{"bytes": 20}})
	_, err := s.Put(t.Context(), id, zerosOf(1000), never)
	if !errors.Is(err, backends.ErrUnavailable) || errors.Is(err, backends.ErrPrecondition) {
		t.Errorf("got %v, want ErrUnavailable alone", err)
	}
	whole(t, direct, id, 1000)
	calm()
	if _, err := s.Put(t.Context(), id, zerosOf(1000), never); !errors.Is(err, backends.ErrPrecondition) {
		t.Errorf("again: got %v, want ErrPrecondition", err)
	}
}

func TestACutDownloadIsNeverTakenForWhole(t *testing.T) {
	proxy, s, direct := disturbed(t, time.Minute)
	id := fresh(t)
	const size = 5 << 20
	if _, err := direct.Put(t.Context(), id, zerosOf(size), nil); err != nil {
		t.Fatal(err)
	}
	proxy.Disturb(t, servers.Toxic{Type: "limit_data", Stream: "downstream", Attributes: map[string]int64{"bytes": 1_000_000}})
	o, err := s.Get(t.Context(), id, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer o.Body.Close()
	if n, err := io.Copy(io.Discard, o.Body); err == nil || n >= size {
		t.Errorf("got %d bytes and no error, want an error", n)
	}
}

// slowly reads to the end, some 3 MB a second, and says how it ended: toxiproxy takes no
// disturbance for a connection that nobody reads from.
func slowly(body io.Reader) <-chan error {
	ended := make(chan error, 1)
	go func() {
		for {
			if _, err := io.ReadFull(body, make([]byte, 16<<10)); err != nil {
				ended <- err
				return
			}
			time.Sleep(5 * time.Millisecond)
		}
	}()
	return ended
}

// A half-open connection takes and gives nothing, and does not end.
func TestAHalfOpenConnectionEndsByItself(t *testing.T) {
	t.Parallel() // it waits
	proxy, s, direct := disturbed(t, 2*time.Second)
	id, broken := fresh(t), fresh(t)
	const size = 64 << 20 // more than the sockets hold
	if _, err := direct.Put(t.Context(), id, zerosOf(size), nil); err != nil {
		t.Fatal(err)
	}
	o, err := s.Get(t.Context(), id, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer o.Body.Close()
	if _, err := io.ReadFull(o.Body, make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	read := slowly(o.Body)
	for _, stream := range []string{"upstream", "downstream"} {
		proxy.Disturb(t, servers.Toxic{Type: "timeout", Stream: stream, Attributes: map[string]int64{"timeout": 0}})
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for name, call := range map[string]func() error{
		"reading on": func() error { return <-read },
		"a Head":     func() error { _, err := s.Head(ctx, id, nil); return err },
		"a large Put": func() error {
			_, err := s.Put(ctx, broken, zerosOf(size), nil)
			return err
		},
	} {
		if err := call(); !errors.Is(err, backends.ErrUnavailable) || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: got %v, want ErrUnavailable, and not the caller's deadline", name, err)
		}
	}
	absent(t, direct, broken)
}

// Parts are sent again by who asked for them; the object is made once, of the last ones.
func TestAnUploadSurvivesCutParts(t *testing.T) {
	proxy, s, direct := disturbed(t, time.Minute)
	id := fresh(t)
	up, err := s.CreateUpload(t.Context(), object.Bucket, id.Key, backends.Attributes{})
	if err != nil {
		t.Fatal(err)
	}
	const part = 5 << 20
	var parts []backends.Part
	for n := 1; n <= 2; n++ {
		calm := proxy.Disturb(t, servers.Toxic{Type: "limit_data", Stream: "upstream", Attributes: map[string]int64{"bytes": 1_000_000}})
		if _, err := s.PutPart(t.Context(), up, n, zerosOf(part)); !errors.Is(err, backends.ErrUnavailable) {
			t.Errorf("part %d: got %v, want ErrUnavailable", n, err)
		}
		calm()
		p, err := s.PutPart(t.Context(), up, n, zerosOf(part))
		if err != nil {
			t.Fatal(err)
		}
		parts = append(parts, p)
	}
	absent(t, direct, id)
	proxy.Disturb(t, servers.Toxic{Type: "limit_data", Stream: "downstream", Attributes: map[string]int64{"bytes": 20}})
	if _, err := s.Complete(t.Context(), up, parts, backends.Conditions{}); !errors.Is(err, backends.ErrUnavailable) {
		t.Errorf("Complete whose answer is lost: got %v, want ErrUnavailable", err)
	}
	whole(t, direct, id, 2*part)
	if _, err := direct.Complete(t.Context(), up, parts, backends.Conditions{}); err != nil && !errors.Is(err, backends.ErrUploadNotFound) {
		t.Errorf("Complete again: got %v, want success or ErrUploadNotFound", err)
	}
	whole(t, direct, id, 2*part)
}

// moody answers the first requests with an error, and passes the others to MinIO.
func moody(t *testing.T, status int, code string, first int64) *middleman {
	t.Helper()
	m := behindMiddleman(t, configOf(minio.MinIO(t)))
	m.refuse = func(w http.ResponseWriter) bool {
		if m.requests.Load() > first {
			return false
		}
		w.Header().Set("Retry-After", "0")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, "<Error><Code>"+code+"</Code></Error>")
		return true
	}
	return m
}

func TestRefusalsOfABusyStoreAreOvercome(t *testing.T) {
	direct := onMinIO(t, configOf(minio.MinIO(t)))
	for _, c := range []struct {
		status int
		code   string
	}{{500, "InternalError"}, {503, "SlowDown"}, {503, "ServiceUnavailable"}, {429, "TooManyRequests"}, {502, ""}} {
		id := fresh(t)
		m := moody(t, c.status, c.code, 2)
		if _, err := m.Put(t.Context(), id, zerosOf(1000), nil); err != nil || m.requests.Load() != 3 {
			t.Errorf("%d %s: a small Put: %v after %d requests, want success after 3", c.status, c.code, err, m.requests.Load())
		}
		whole(t, direct, id, 1000)
		m = moody(t, c.status, c.code, 2)
		if _, err := m.Head(t.Context(), id, nil); err != nil || m.requests.Load() != 3 {
			t.Errorf("%d %s: a Head: %v after %d requests, want success after 3", c.status, c.code, err, m.requests.Load())
		}
		m = moody(t, c.status, c.code, 1)
		large := fresh(t)
		if _, err := m.Put(t.Context(), large, zerosOf(1<<20), nil); !errors.Is(err, backends.ErrUnavailable) || m.requests.Load() != 1 {
			t.Errorf("%d %s: a large Put: %v after %d requests, want ErrUnavailable after one", c.status, c.code, err, m.requests.Load())
		}
		absent(t, direct, large)
	}
}

// All of a gateway's repetitions come out of one budget: a cloud that is down does not
// get three times the load.
func TestRepetitionsHaveABudget(t *testing.T) {
	var requests atomic.Int64
	s := scripted(t, func(w http.ResponseWriter, _ *http.Request) {
		requests.Add(1)
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = io.Copy(w, bytes.NewReader([]byte("<Error><Code>SlowDown</Code></Error>")))
	})
	const calls, budget = 300, 100 // the SDK's bucket has 500 tokens, and a repetition costs 5
	var wg sync.WaitGroup
	slots := make(chan struct{}, 64)
	for range calls {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			if _, err := s.Head(t.Context(), object, nil); !errors.Is(err, backends.ErrUnavailable) {
				t.Errorf("got %v, want ErrUnavailable", err)
			}
		})
	}
	wg.Wait()
	// Of a HEAD that fails the store asks nothing more, so a request is an attempt.
	if n := requests.Load(); n < calls || n > calls+budget {
		t.Errorf("%d calls made %d requests, want at most %d more", calls, n, budget)
	}
}
