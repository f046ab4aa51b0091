package s3store_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"

	"chatelaine/backends"
	"chatelaine/backends/s3store"
)

// middleman is a MinIO behind a proxy that counts requests and may change them.
type middleman struct {
	*s3store.Store
	requests atomic.Int64
	change   func(*http.Request)
	refuse   func(http.ResponseWriter) bool // answers in place of MinIO
}

func behindMiddleman(t *testing.T, cfg s3store.Config) *middleman {
	t.Helper()
	m := &middleman{}
	target, err := url.Parse(cfg.Endpoint)
	if err != nil {
		t.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(target)
		r.Out.Host = r.In.Host // it is signed
		if m.change != nil {
			m.change(r.Out)
		}
	}}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		m.requests.Add(1)
		if m.refuse == nil || !m.refuse(w) {
			proxy.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(server.Close)
	cfg.Endpoint = server.URL
	m.Store = open(t, cfg)
	return m
}

// sizes of bodies that go out with a header, in one chunk, in several.
func sizes() []int { return []int{1000, 1 << 20, 9 << 20} }

func TestMinIORefusesABodyThatWasChangedOnTheWay(t *testing.T) {
	for _, sum := range []s3store.Checksum{s3store.CRC64NVME, s3store.CRC32C} {
		cfg := configOf(minio.MinIO(t))
		cfg.Checksum = sum
		direct := onMinIO(t, cfg)
		m := behindMiddleman(t, cfg)
		for _, size := range sizes() {
			id := backends.ObjectID{Bucket: object.Bucket, Key: t.Name()}
			m.change = flip
			_, err := m.Put(t.Context(), id, backends.Body{Reader: &zeros{left: size}, Size: int64(size)}, nil)
			if !errors.Is(err, backends.ErrUnavailable) {
				t.Errorf("%s, %d bytes: got %v, want ErrUnavailable", sum, size, err)
			}
			if _, err := direct.Head(t.Context(), id, nil); !errors.Is(err, backends.ErrNotFound) {
				t.Errorf("%s, %d bytes: Head says %v, want ErrNotFound", sum, size, err)
			}
			m.change = nil
			if _, err := m.Put(t.Context(), id, backends.Body{Reader: &zeros{left: size}, Size: int64(size)}, nil); err != nil {
				t.Errorf("%s, %d bytes, unchanged: %v", sum, size, err)
			}
			if _, err := direct.Delete(t.Context(), id, nil); err != nil {
				t.Error(err)
			}
		}
	}
}

func TestWithoutAChecksumNobodyNotices(t *testing.T) { // or else the tests above and below prove nothing
	cfg := configOf(minio.MinIO(t))
	cfg.Checksum = s3store.NoChecksum
	onMinIO(t, cfg)
	m := behindMiddleman(t, cfg)
	m.change = flip
	for _, size := range sizes() {
		id := backends.ObjectID{Bucket: object.Bucket, Key: t.Name()}
		if _, err := m.Put(t.Context(), id, backends.Body{Reader: &zeros{left: size}, Size: int64(size)}, nil); err != nil {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
}

func TestMinIORefusesAPartThatWasChangedOnTheWay(t *testing.T) {
	m := behindMiddleman(t, configOf(minio.MinIO(t)))
	onMinIO(t, configOf(minio.MinIO(t)))
	up, err := m.CreateUpload(t.Context(), object.Bucket, t.Name(), backends.Attributes{})
	if err != nil {
		t.Fatal(err)
	}
	m.change = flip
	_, err = m.PutPart(t.Context(), up, 1, backends.Body{Reader: &zeros{left: 1 << 20}, Size: 1 << 20})
	if !errors.Is(err, backends.ErrUnavailable) {
		t.Errorf("got %v, want ErrUnavailable", err)
	}
	page, err := m.ListParts(t.Context(), up, 0, 0)
	if err != nil || len(page.Parts) != 0 {
		t.Errorf("got %+v and %v, want no parts", page, err)
	}
}

// flip changes a byte in the middle of a body of zeros. It is behind the framing and
// before the trailer, whatever the size.
func flip(r *http.Request) {
	if r.Method == http.MethodPut {
		r.Body = &flipper{ReadCloser: r.Body, at: 500}
	}
}

type flipper struct {
	io.ReadCloser
	at int
}

func (f *flipper) Read(p []byte) (int, error) {
	n, err := f.ReadCloser.Read(p)
	if f.at >= 0 && f.at < n {
		p[f.at] ^= 1
	}
	f.at -= n
	return n, err
}

func TestEveryCallIsOneRequestToMinIO(t *testing.T) {
	m := behindMiddleman(t, configOf(minio.MinIO(t)))
	onMinIO(t, configOf(minio.MinIO(t)))
	for _, size := range sizes() {
		id := backends.ObjectID{Bucket: object.Bucket, Key: t.Name()}
		for _, call := range []struct {
			name string
			do   func(context.Context) error
		}{
			{"Put", func(ctx context.Context) error {
				_, err := m.Put(ctx, id, backends.Body{Reader: &zeros{left: size}, Size: int64(size)}, nil)
				return err
			}},
			{"Get", func(ctx context.Context) error {
				obj, err := m.Get(ctx, id, nil)
				if err != nil {
					return err
				}
				_, err = io.Copy(io.Discard, obj.Body)
				return errors.Join(err, obj.Body.Close())
			}},
			{"Head", func(ctx context.Context) error { _, err := m.Head(ctx, id, nil); return err }},
			{"List", func(ctx context.Context) error { _, err := m.List(ctx, object.Bucket, nil); return err }},
			{"Delete", func(ctx context.Context) error { _, err := m.Delete(ctx, id, nil); return err }},
		} {
			before := m.requests.Load()
			if err := call.do(t.Context()); err != nil {
				t.Errorf("%s of %d bytes: %v", call.name, size, err)
			}
			if got := m.requests.Load() - before; got != 1 {
				t.Errorf("%s of %d bytes: got %d requests, want 1", call.name, size, got)
			}
		}
	}
}

func TestMinIOStoresNothingOfABodyThatFails(t *testing.T) {
	s := onMinIO(t, configOf(minio.MinIO(t)))
	broken := errors.New("broken")
	for _, sum := range []s3store.Checksum{s3store.CRC64NVME, s3store.NoChecksum} {
		cfg := configOf(minio.MinIO(t))
		cfg.Checksum = sum
		failing := open(t, cfg)
		for _, size := range sizes() {
			id := backends.ObjectID{Bucket: object.Bucket, Key: t.Name()}
			for _, sent := range []int{0, size / 2, size - 1, size} {
				body := io.MultiReader(&zeros{left: sent}, iotest.ErrReader(broken))
				_, err := failing.Put(t.Context(), id, backends.Body{Reader: body, Size: int64(size)}, nil)
				if !errors.Is(err, broken) {
					t.Errorf("%s, %d of %d bytes: got %v, want the body's error", sum, sent, size, err)
				}
			}
			if _, err := s.Head(t.Context(), id, nil); !errors.Is(err, backends.ErrNotFound) {
				t.Errorf("%s, %d bytes: Head says %v, want ErrNotFound", sum, size, err)
			}
		}
	}
}

func TestMinIORefusesTheWrongSecret(t *testing.T) {
	cfg := configOf(minio.MinIO(t))
	// MinIO tells anybody that the object is missing of which tags are to be deleted.
	if _, err := onMinIO(t, cfg).Put(t.Context(), object, text("x"), nil); err != nil {
		t.Fatal(err)
	}
	cfg.SecretAccessKey = s3store.NewSecret("wrong")
	s := open(t, cfg)
	for name, call := range calls(s) {
		if err := call(t.Context()); !errors.Is(err, backends.ErrDenied) {
			t.Errorf("%s: got %v, want ErrDenied", name, err)
		}
	}
	if err := s.Check(t.Context()); !errors.Is(err, backends.ErrDenied) {
		t.Errorf("Check: got %v, want ErrDenied", err)
	}
}

func TestOtherChecksumsWorkOnMinIO(t *testing.T) {
	for _, sum := range []s3store.Checksum{s3store.CRC32C, s3store.NoChecksum} {
		cfg := configOf(minio.MinIO(t))
		cfg.Checksum = sum
		s := onMinIO(t, cfg)
		up, err := s.CreateUpload(t.Context(), object.Bucket, t.Name(), backends.Attributes{})
		if err != nil {
			t.Fatal(err)
		}
		want := bytes.Repeat([]byte("part"), 2<<20)
		var parts []backends.Part
		for number, data := range [][]byte{want[:6<<20], want[6<<20:]} {
			p, err := s.PutPart(t.Context(), up, number+1, backends.Body{Reader: bytes.NewReader(data), Size: int64(len(data))})
			if err != nil {
				t.Fatal(err)
			}
			parts = append(parts, p)
		}
		if _, err := s.Complete(t.Context(), up, parts, backends.Conditions{}); err != nil {
			t.Fatal(err)
		}
		obj, err := s.Get(t.Context(), backends.ObjectID{Bucket: object.Bucket, Key: t.Name()}, nil)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(obj.Body)
		obj.Body.Close()
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: got %d bytes and %v, want the %d that were put", sum, len(got), err, len(want))
		}
	}
}

func TestMinIOIgnoresIfMatchOnDelete(t *testing.T) {
	// The reason for Config.ConditionalDelete. When this fails, MinIO has learnt it.
	cfg := configOf(minio.MinIO(t))
	cfg.ConditionalDelete = true
	s := onMinIO(t, cfg)
	id := backends.ObjectID{Bucket: object.Bucket, Key: t.Name()}
	if _, err := s.Put(t.Context(), id, text("x"), nil); err != nil {
		t.Fatal(err)
	}
	cond := backends.Conditions{IfMatch: []string{strings.Repeat("0", 32)}}
	if _, err := s.Delete(t.Context(), id, &backends.DeleteOptions{Conditions: cond}); err != nil {
		t.Errorf("got %v: MinIO checks If-Match now", err)
	}
}

func TestGigabyteTakesLittleMemory(t *testing.T) {
	for _, scheme := range []string{"http", "https"} {
		s := open(t, sink(t, scheme))
		for name, move := range map[string]func(testing.TB, backends.Store){"put": putGiB, "get": getGiB} {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			move(t, s)
			runtime.ReadMemStats(&after)
			const limit = 8 << 20 // all that was ever allocated, not what is live
			if got := after.TotalAlloc - before.TotalAlloc; got > limit {
				t.Errorf("%s %s: got %d bytes of allocations, want at most %d", scheme, name, got, limit)
			}
		}
	}
}
