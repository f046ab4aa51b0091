package compat

import (
	"bytes"
	"context"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"chatelaine/test/e2e/harness"
	"chatelaine/test/servers"
)

const (
	listed = 10_000
	// dearest is how many times MinIO's own time a list may take.
	dearest = 1.3
	// turns is how often each is timed, one after the other, so that a busy moment of
	// the machine meets both.
	turns = 15
	// patience is how often at most, where the gateway has not been fast enough yet.
	patience = 60
)

// TestListsCostWhatMinIOsCost lists 10,000 objects through the gateway and on the MinIO
// behind it, where the same sealed objects lie. Medians are compared and the
// fastest logged: a few of MinIO's own lists take less than half of its usual time.
func TestListsCostWhatMinIOsCost(t *testing.T) {
	large(t)
	cloud := minio.MinIO(t)
	w, bucket, direct := newWorld(t, cloud), newName(), accountOf(cloud)
	fill(t, w.account, bucket)
	mine, theirs := pager{w.raw(), bucket}, pager{direct.raw(), behind(t, direct, bucket)}
	var times [2][]time.Duration
	var pages [2]int
	ratio := 0.0
	for turn := 0; turn < turns || turn < patience && ratio > dearest; turn++ {
		for i, p := range []pager{theirs, mine} {
			begun := time.Now()
			pages[i] = p.walk(t)
			times[i] = append(times[i], time.Since(begun))
		}
		ratio = float64(median(times[1])) / float64(median(times[0]))
	}
	t.Logf("a list of %d objects: MinIO %v, gateway %v (medians of %d; the fastest %v and %v): %.2f times", listed,
		median(times[0]), median(times[1]), len(times[0]), slices.Min(times[0]), slices.Min(times[1]), ratio)
	if ratio > dearest {
		t.Errorf("got %.2f times MinIO's own time, want %.1f at most", ratio, dearest)
	}
	url, count := countRequests(t, cloud, theirs.bucket)
	counted := pager{w.replica(t, url).raw(), bucket}
	counted.walk(t) // learns of the bucket
	before := count()
	counted.walk(t)
	if got, want := count()-before, int64(pages[0]); got > want || pages[1] > pages[0] {
		t.Errorf("a list has %d pages and sent %d requests to the cloud; MinIO's own has %d pages", pages[1], got, want)
	}
}

func median(d []time.Duration) time.Duration {
	return slices.Sorted(slices.Values(d))[len(d)/2]
}

// countRequests puts a proxy before a cloud. It returns the URL of a backend there, and
// how many requests for a bucket have passed.
func countRequests(t *testing.T, cloud *servers.S3, bucket string) (backend string, count func() int64) {
	t.Helper()
	target, err := url.Parse(cloud.Endpoint)
	if err != nil {
		t.Fatal(err)
	}
	var n atomic.Int64
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(target)
		r.Out.Host = r.In.Host // the host is signed
	}}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/"+bucket) {
			n.Add(1)
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	return "s3+" + server.URL, n.Load
}

func fill(t *testing.T, a account, bucket string) {
	t.Helper()
	client := a.raw()
	send(t, client, harness.Request{Method: http.MethodPut, Path: "/" + bucket})
	group, ctx := errgroup.WithContext(t.Context())
	group.SetLimit(16)
	for i := range listed {
		group.Go(func() error { return put(ctx, client, fmt.Sprintf("/%s/folder-%03d/object-%05d", bucket, i/100, i)) })
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
}

func put(ctx context.Context, client *harness.Client, path string) error {
	resp, err := client.Do(ctx, harness.Request{Method: http.MethodPut, Path: path, Body: strings.NewReader("x"), Size: 1})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("putting %s: %s", path, resp.Status)
	}
	return nil
}

func send(t *testing.T, client *harness.Client, r harness.Request) []byte {
	t.Helper()
	resp, err := client.Do(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s %s: %s, %v: %.500s", r.Method, r.Path, resp.Status, err, body)
	}
	return body
}

// behind is the name on the cloud of a bucket of the gateway's.
func behind(t *testing.T, cloud account, bucket string) string {
	t.Helper()
	var list struct {
		Names []string `xml:"Buckets>Bucket>Name"`
	}
	if err := xml.Unmarshal(send(t, cloud.raw(), harness.Request{Method: http.MethodGet, Path: "/"}), &list); err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(list.Names, func(name string) bool { return strings.Contains(name, bucket) })
	if i < 0 {
		t.Fatalf("the cloud has no bucket for %s: %q", bucket, list.Names)
	}
	return list.Names[i]
}

// pager lists all objects below the folders of a bucket.
type pager struct {
	client *harness.Client
	bucket string
}

// walk returns how many pages there are.
func (p pager) walk(t *testing.T) (pages int) {
	t.Helper()
	objects := 0
	for query := (url.Values{"list-type": {"2"}, "prefix": {"folder-"}}); ; pages++ {
		page := send(t, p.client, harness.Request{Method: http.MethodGet, Path: "/" + p.bucket, Query: query})
		objects += bytes.Count(page, []byte("<Contents>"))
		_, rest, more := bytes.Cut(page, []byte("<NextContinuationToken>"))
		if !more {
			break
		}
		token, _, _ := bytes.Cut(rest, []byte("</"))
		query.Set("continuation-token", string(token))
	}
	if objects != listed {
		t.Fatalf("got %d objects, want %d", objects, listed)
	}
	return pages + 1
}
