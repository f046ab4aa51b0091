package e2e

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"

	"chatelaine/test/e2e/harness"
)

// counter is a proxy before a cloud that keeps what was asked.
type counter struct {
	mu   sync.Mutex
	seen []string
}

// newCounter starts a proxy and returns its host and port.
func newCounter(t *testing.T, endpoint string) (*counter, string) {
	t.Helper()
	target, err := url.Parse(endpoint)
	if err != nil {
		t.Fatal(err)
	}
	c := &counter{}
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(target)
		r.Out.Host = r.In.Host // the host is signed
	}}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.mu.Lock()
		c.seen = append(c.seen, r.Method+" "+r.URL.RequestURI()+" "+r.Header.Get("Range"))
		c.mu.Unlock()
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	return c, strings.TrimPrefix(server.URL, "http://")
}

// take returns what was asked since the last time.
func (c *counter) take() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	seen := c.seen
	c.seen = nil
	return seen
}

// TestOneRequestToTheCloudForEach counts what an operation costs at the cloud, where
// requests are paid for.
func TestOneRequestToTheCloudForEach(t *testing.T) {
	server := minio.MinIO(t)
	count, host := newCounter(t, server.Endpoint)
	w := newWorld(t, cloudOf(server, host))
	bucket := w.bucket()
	w.put("/"+bucket+"/warm", []byte("the bucket has its key now")).want(200)
	w.get("/" + bucket + "/warm").want(200)
	object := harness.Request{Path: "/" + bucket + "/object"}
	with := func(method string, header http.Header, size int64) harness.Request {
		r := object
		r.Method, r.Header = method, header
		if method == http.MethodPut {
			r.Body, r.Size = content(8, size), size
		}
		return r
	}
	for _, tt := range []struct {
		name   string
		r      harness.Request
		status int
	}{
		{"PUT of 0 bytes", with(http.MethodPut, nil, 0), 200},
		{"PUT of 5 bytes", with(http.MethodPut, nil, 5), 200},
		{"PUT of 20 MB", with(http.MethodPut, nil, 20_000_000), 200},
		{"GET", with(http.MethodGet, nil, 0), 200},
		{"GET of a range", with(http.MethodGet, http.Header{"Range": {"bytes=1000000-3000000"}}, 0), 206},
		{"GET of the last bytes", with(http.MethodGet, http.Header{"Range": {"bytes=-100"}}, 0), 206},
		{"GET from an offset on", with(http.MethodGet, http.Header{"Range": {"bytes=19000000-"}}, 0), 206},
		{"GET if it has changed", with(http.MethodGet, http.Header{"If-Modified-Since": {"Mon, 01 Jan 2001 00:00:00 GMT"}}, 0), 200},
		{"HEAD", with(http.MethodHead, nil, 0), 200},
		{"list", harness.Request{Method: http.MethodGet, Path: "/" + bucket, Query: url.Values{"list-type": {"2"}}}, 200},
		{"DELETE", with(http.MethodDelete, nil, 0), 204},
		{"GET of what is not there", with(http.MethodGet, nil, 0), 404},
	} {
		t.Run(tt.name, func(t *testing.T) {
			count.take()
			w.do(tt.r).want(tt.status)
			if seen := keep(count.take(), bucket); len(seen) != 1 {
				t.Errorf("got %d requests, want 1: %s", len(seen), fmt.Sprintf("%q", seen))
			}
		})
	}
}

// keep drops the requests of health checks, which name no bucket.
func keep(seen []string, bucket string) (kept []string) {
	for _, s := range seen {
		if strings.Contains(s, bucket) {
			kept = append(kept, s)
		}
	}
	return kept
}
