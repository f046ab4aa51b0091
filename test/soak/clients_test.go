package soak

import (
	"bytes"
	"context"
	"encoding/xml"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"chatelaine/test/e2e/harness"
)

const (
	clients = 6
	slots   = 40 // keys of a client
	part    = 5 << 20
	page    = 17 // keys in a page of a listing
	timeout = 30 * time.Second
)

// client sends requests to whichever gateway.
type client struct {
	plant *plant
	http  *http.Client
}

func newClient(p *plant) *client { return &client{p, harness.NewHTTP()} }

// answer is an answer that has come whole.
type answer struct {
	status int
	header http.Header
	body   []byte
}

func (a *answer) etag() string { return a.header.Get("ETag") }

func (c *client) send(gateway int, r harness.Request) (*answer, error) {
	ctx, cancel := context.WithTimeout(c.plant.t.Context(), timeout)
	defer cancel()
	h := &harness.Client{Endpoint: c.plant.gateways[gateway].endpoint(), User: c.plant.user, HTTP: c.http}
	resp, err := h.Do(ctx, r)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return &answer{resp.StatusCode, resp.Header, body}, err
}

// tally counts what came of requests.
type tally struct {
	mu    sync.Mutex
	done  map[string]int // by operation
	other map[string]int // what came instead: a status or "broken"
	again atomic.Int64   // reads in fine weather that were repeated
}

func newTally() *tally { return &tally{done: map[string]int{}, other: map[string]int{}} }

func (c *tally) count(in map[string]int, name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	in[name]++
}

// worker is a client with keys that nobody else writes, so it knows what they may hold.
type worker struct {
	*client
	t      *testing.T
	tally  *tally
	rand   *rand.Rand
	bucket string
	prefix string
	keys   map[string]*belief
	names  []string // of keys
}

func newWorker(p *plant, c *tally, seed uint64, number int) *worker {
	w := &worker{
		client: newClient(p), t: p.t, tally: c, rand: rand.New(rand.NewPCG(seed, uint64(number))),
		bucket: buckets()[number%len(buckets())], prefix: fmt.Sprintf("w%d/", number), keys: map[string]*belief{},
	}
	for i := range slots {
		name := fmt.Sprintf("%sk-%03d", w.prefix, i)
		w.keys[name], w.names = &belief{}, append(w.names, name)
	}
	return w
}

func (w *worker) path(key string) string { return "/" + w.bucket + "/" + key }

func (w *worker) gateway() int { return w.rand.IntN(replicas) }

// pick picks a key that is settled and, if there is to be an object, has one.
func (w *worker) pick(there bool) (string, *belief) {
	for range 2 * slots {
		name := w.names[w.rand.IntN(slots)]
		if b := w.keys[name]; b.settled() && (b.is.there() || !there) {
			return name, b
		}
	}
	return "", nil
}

func (w *worker) newVersion(size int) version { return version{w.rand.Uint64() | 1, size} }

// step does one thing.
func (w *worker) step() {
	n := w.rand.IntN(100)
	key, b := w.pick(n >= 30)
	if b == nil { // nothing is settled, or nothing is there
		w.read(w.names[w.rand.IntN(slots)])
		return
	}
	switch {
	case n < 20:
		w.put(key, b, w.rand.IntN(40_000))
	case n < 25:
		w.put(key, b, w.rand.IntN(2<<20))
	case n < 27:
		w.upload(key, b)
	case n < 30:
		w.create(key, b)
	case n < 36:
		w.replace(key, b)
	case n < 44:
		w.copy(key, b)
	case n < 52:
		w.delete(key, b)
	case n < 55:
		w.assertListing(false)
	case n < 70:
		w.readRange(key, b)
	case n < 75:
		w.head(key, b)
	default:
		w.read(key)
	}
}

// try sends a request. It returns nil where nobody can say whether it was done: then
// clients have to ask again.
func (w *worker) try(op string, r harness.Request) *answer {
	a, err := w.send(w.gateway(), r)
	switch {
	case err != nil:
		w.tally.count(w.tally.other, "broken")
	case a.status == http.StatusServiceUnavailable && a.header.Get("Retry-After") != "":
		w.tally.count(w.tally.other, "503")
	case a.status >= 500:
		w.t.Errorf("%s %s: got status %d, want 503 and Retry-After: %v %.300s", op, r.Path, a.status, a.header, a.body)
	case bytes.Contains(a.body[:min(len(a.body), 200)], []byte("<Error>")) && a.status == http.StatusOK:
		w.tally.count(w.tally.other, "200 with an error")
	default:
		if w.bucket == guardedBucket {
			op = "guarded " + op
		}
		w.tally.count(w.tally.done, op)
		return a
	}
	time.Sleep(20 * time.Millisecond)
	return nil
}

// write is try for what makes key v. Other statuses that are given may be answered, too.
func (w *worker) write(op, key string, b *belief, v version, r harness.Request, also ...int) {
	b.try(v)
	r.Path = w.path(key)
	a := w.try(op, r)
	if a == nil {
		return
	}
	switch a.status {
	case http.StatusOK, http.StatusNoContent:
		b.settle(v, a.etag())
		return
	}
	for _, status := range also {
		if a.status == status {
			return // a try before may have been done: it is not settled
		}
	}
	w.t.Errorf("%s %s: got status %d: %.300s", op, key, a.status, a.body)
}

func putting(v version) harness.Request {
	return harness.Request{Method: http.MethodPut, Body: bytes.NewReader(v.bytes()), Size: int64(v.size), Header: http.Header{}}
}

func (w *worker) put(key string, b *belief, size int) {
	v := w.newVersion(size)
	w.write("put", key, b, v, putting(v))
}

func (w *worker) delete(key string, b *belief) {
	w.write("delete", key, b, version{}, harness.Request{Method: http.MethodDelete})
}

// create is a PUT where nothing may be.
func (w *worker) create(key string, b *belief) {
	v := w.newVersion(w.rand.IntN(40_000))
	r := putting(v)
	r.Header.Set("If-None-Match", "*")
	if b.is.there() {
		w.refused("create", key, r)
		return
	}
	w.write("create", key, b, v, r, http.StatusPreconditionFailed, http.StatusConflict)
}

// replace is a PUT where something certain has to be.
func (w *worker) replace(key string, b *belief) {
	v := w.newVersion(w.rand.IntN(40_000))
	r := putting(v)
	if b.etag == "" || w.rand.IntN(3) == 0 {
		r.Header.Set("If-Match", `"00000000000000000000000000000000"`)
		w.refused("replace", key, r)
		return
	}
	r.Header.Set("If-Match", b.etag)
	w.write("replace", key, b, v, r, http.StatusPreconditionFailed, http.StatusConflict)
}

// refused sends what must not be done, and changes nothing.
func (w *worker) refused(op, key string, r harness.Request) {
	r.Path = w.path(key)
	a := w.try(op+" refused", r)
	if a != nil && a.status != http.StatusPreconditionFailed && a.status != http.StatusConflict {
		w.t.Errorf("%s %s: got status %d where the condition does not hold: %.300s", op, key, a.status, a.body)
	}
}

// copy copies an object over another.
func (w *worker) copy(from string, source *belief) {
	to, b := w.pick(false)
	if b == nil || to == from {
		return
	}
	w.write("copy", to, b, source.is, harness.Request{
		Method: http.MethodPut, Header: http.Header{"X-Amz-Copy-Source": {w.path(from)}},
	})
	b.etag = "" // it is not in a header
}

// upload is a multipart upload of two parts.
func (w *worker) upload(key string, b *belief) {
	v := w.newVersion(part + 1 + w.rand.IntN(300_000))
	started := w.try("upload", harness.Request{Method: http.MethodPost, Path: w.path(key), Query: url.Values{"uploads": {""}}})
	var upload struct {
		UploadID string `xml:"UploadId"`
	}
	if started == nil || !w.decode("upload", started, &upload) {
		return
	}
	whole := v.bytes()
	var list strings.Builder
	list.WriteString("<CompleteMultipartUpload>")
	for i, piece := range [][]byte{whole[:part], whole[part:]} {
		a := w.try("part", harness.Request{
			Method: http.MethodPut, Path: w.path(key), Body: bytes.NewReader(piece), Size: int64(len(piece)),
			Query: url.Values{"partNumber": {fmt.Sprint(i + 1)}, "uploadId": {upload.UploadID}},
		})
		if a == nil {
			return
		}
		if a.status != http.StatusOK {
			w.t.Errorf("part %s: got status %d: %.300s", key, a.status, a.body)
			return
		}
		fmt.Fprintf(&list, "<Part><PartNumber>%d</PartNumber><ETag>%s</ETag></Part>", i+1, a.etag())
	}
	list.WriteString("</CompleteMultipartUpload>")
	// A try before may have completed it: then there is no such upload.
	w.write("complete", key, b, v, harness.Request{
		Method: http.MethodPost, Body: strings.NewReader(list.String()), Size: int64(list.Len()), Query: url.Values{"uploadId": {upload.UploadID}},
	}, http.StatusNotFound)
	b.etag = "" // it is not in a header
}

func (w *worker) decode(op string, a *answer, to any) bool {
	if a.status == http.StatusOK && xml.Unmarshal(a.body, to) == nil {
		return true
	}
	w.t.Errorf("%s: got status %d: %.300s", op, a.status, a.body)
	return false
}

func (w *worker) read(key string) {
	a := w.try("get", harness.Request{Method: http.MethodGet, Path: w.path(key)})
	if a == nil {
		return
	}
	if _, err := w.keys[key].judge(a); err != nil {
		w.t.Errorf("get %s: %v", key, err)
	}
}

func (w *worker) head(key string, b *belief) {
	a := w.try("head", harness.Request{Method: http.MethodHead, Path: w.path(key)})
	if a != nil && (a.status != http.StatusOK || a.header.Get("Content-Length") != fmt.Sprint(b.is.size) || b.etag != "" && a.etag() != b.etag) {
		w.t.Errorf("head %s: got status %d and %v, want %+v", key, a.status, a.header, *b)
	}
}

func (w *worker) readRange(key string, b *belief) {
	if b.is.size == 0 {
		return
	}
	first := w.rand.IntN(b.is.size)
	last := first + w.rand.IntN(b.is.size-first)
	a := w.try("range", harness.Request{
		Method: http.MethodGet, Path: w.path(key), Header: http.Header{"Range": {fmt.Sprintf("bytes=%d-%d", first, last)}},
	})
	if a != nil && (a.status != http.StatusPartialContent || !bytes.Equal(a.body, b.is.bytes()[first:last+1])) {
		w.t.Errorf("range %d-%d of %s: got status %d and %d bytes that are not those of %+v", first, last, key, a.status, len(a.body), *b)
	}
}

// listing is a page.
type listing struct {
	Contents []struct {
		Key  string
		Size int64
	}
	IsTruncated           bool
	NextContinuationToken string
}

// assertListing lists all keys of this client. Where it cannot be listed there is
// nothing to say, unless it must.
func (w *worker) assertListing(must bool) {
	sizes := map[string]int64{}
	query := url.Values{"list-type": {"2"}, "prefix": {w.prefix}, "max-keys": {fmt.Sprint(page)}}
	for {
		r := harness.Request{Method: http.MethodGet, Path: "/" + w.bucket, Query: query}
		a := w.try("list", r)
		if must && a == nil {
			a = w.insist(w.gateway(), r)
		}
		var l listing
		if a == nil || !w.decode("list", a, &l) {
			return
		}
		for _, c := range l.Contents {
			sizes[c.Key] = c.Size
		}
		if !l.IsTruncated {
			break
		}
		query.Set("continuation-token", l.NextContinuationToken)
	}
	for key, b := range w.keys {
		size, listed := sizes[key]
		if err := b.judgeSize(size, listed); err != nil {
			w.t.Errorf("%s: %v", key, err)
		}
		delete(sizes, key)
	}
	for key := range sizes {
		w.t.Errorf("%s is listed and was never written", key)
	}
}

// insist sends a request until it is answered: all is well now.
func (w *worker) insist(gateway int, r harness.Request) *answer {
	var last string
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		a, err := w.send(gateway, r)
		if err == nil && a.status < 500 {
			return a
		}
		if last = fmt.Sprint(err); err == nil {
			last = fmt.Sprintf("%d: %.300s", a.status, a.body)
		}
		w.tally.again.Add(1)
	}
	w.t.Errorf("%s %s: no answer in %v, with all well: %s", r.Method, r.Path, patience, last)
	return nil
}

// verify reads everything back through both gateways, which have to agree, and lists
// it. What was open is settled then.
func (w *worker) verify() {
	for key, b := range w.keys {
		for i := range replicas {
			a := w.insist(i, harness.Request{Method: http.MethodGet, Path: w.path(key)})
			if a == nil {
				return
			}
			v, err := b.judge(a)
			if err != nil {
				w.t.Errorf("reading %s back through gateway %d: %v", key, i, err)
				return
			}
			etag := ""
			if v.there() {
				etag = a.etag()
			}
			b.settle(v, etag)
		}
	}
	w.assertListing(true)
	w.http.CloseIdleConnections()
}
