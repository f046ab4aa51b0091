package gcsstore_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"chatelaine/backends"
	"chatelaine/backends/gcsstore"
	"chatelaine/test/servers"
)

type meddler func(w http.ResponseWriter, r *http.Request, pass http.Handler) bool

// between stands between the store and fake-gcs-server. Meddle says that it has
// answered.
type between struct {
	http.Handler
	url string

	mu     sync.Mutex
	seen   []string // kinds of requests
	meddle meddler
}

func newBetween(t *testing.T, s *servers.GCS) *between {
	t.Helper()
	target, err := url.Parse(s.Endpoint)
	if err != nil {
		t.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) }}
	proxy.ErrorHandler = func(w http.ResponseWriter, _ *http.Request, _ error) { panic(http.ErrAbortHandler) }
	b := &between{Handler: proxy}
	// A session's URL would lead around the proxy.
	proxy.ModifyResponse = func(r *http.Response) error {
		if location := r.Header.Get("Location"); location != "" {
			r.Header.Set("Location", strings.Replace(location, s.Endpoint, b.url, 1))
		}
		return nil
	}
	server := httptest.NewServer(http.HandlerFunc(b.serve))
	t.Cleanup(server.Close)
	b.url = server.URL
	return b
}

// kind is what a request is for.
func kind(r *http.Request) string {
	q, p := r.URL.Query(), r.URL.Path
	switch {
	case q.Get("upload_id") != "":
		return "chunk"
	case q.Get("uploadType") != "":
		return q.Get("uploadType")
	case strings.HasSuffix(p, "/compose"):
		return "compose"
	case strings.Contains(p, "/rewriteTo/"):
		return "rewrite"
	case strings.Count(p, "/") == 4 && strings.HasPrefix(p, "/storage/v1/b/"):
		return "bucket " + r.Method
	case r.Method == http.MethodGet && !strings.HasPrefix(p, "/storage/v1/"):
		return "read"
	}
	return r.Method
}

func (b *between) serve(w http.ResponseWriter, r *http.Request) {
	b.mu.Lock()
	b.seen = append(b.seen, kind(r))
	meddle := b.meddle
	b.mu.Unlock()
	if meddle == nil || !meddle(w, r, b.Handler) {
		b.ServeHTTP(w, r)
	}
}

// with meddles with what follows, and forgets what it has seen.
func (b *between) with(meddle meddler) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.meddle, b.seen = meddle, nil
}

func (b *between) count(what string) (n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, s := range b.seen {
		if s == what {
			n++
		}
	}
	return n
}

// hits meddles with n requests of a kind, behind the first skip.
func hits(what string, skip, n int, do func(w http.ResponseWriter, r *http.Request, pass http.Handler)) meddler {
	var mu sync.Mutex
	return func(w http.ResponseWriter, r *http.Request, pass http.Handler) bool {
		mu.Lock()
		hit := false
		if kind(r) == what {
			hit = skip <= 0 && skip > -n
			skip--
		}
		mu.Unlock()
		if hit {
			do(w, r, pass)
		}
		return hit
	}
}

func status(code int) func(http.ResponseWriter, *http.Request, http.Handler) {
	return func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.WriteHeader(code)
	}
}

// lose has the request done and hangs up in place of the answer.
func lose(_ http.ResponseWriter, r *http.Request, pass http.Handler) {
	pass.ServeHTTP(httptest.NewRecorder(), r)
	panic(http.ErrAbortHandler)
}

// cutRequest hangs up within a body.
func cutRequest(_ http.ResponseWriter, r *http.Request, _ http.Handler) {
	_, _ = io.CopyN(io.Discard, r.Body, 1000)
	panic(http.ErrAbortHandler)
}

// cutAnswer hangs up after so many bytes of an answer.
func cutAnswer(after int) func(w http.ResponseWriter, r *http.Request, pass http.Handler) {
	return func(w http.ResponseWriter, r *http.Request, pass http.Handler) {
		answer := httptest.NewRecorder()
		pass.ServeHTTP(answer, r)
		for name, v := range answer.Header() {
			w.Header()[name] = v
		}
		w.WriteHeader(answer.Code)
		_, _ = w.Write(answer.Body.Bytes()[:after])
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}
}

func faulty(t *testing.T) (*gcsstore.Store, *between, backends.ObjectID) {
	t.Helper()
	s := servers.FakeGCS(t)
	b := newBetween(t, s)
	cfg := configOf(s)
	cfg.Endpoint = b.url
	store := open(t, cfg)
	store.Hasten()
	if err := store.CreateBucket(t.Context(), "bucket"); err != nil {
		t.Fatal(err)
	}
	return store, b, backends.ObjectID{Bucket: "bucket", Key: "key"}
}

func text(s string) backends.Body {
	return backends.Body{Reader: strings.NewReader(s), Size: int64(len(s))}
}

func read(t *testing.T, s *gcsstore.Store, id backends.ObjectID) (string, error) {
	t.Helper()
	o, err := s.Get(t.Context(), id, nil)
	if err != nil {
		return "", err
	}
	defer o.Body.Close()
	got, err := io.ReadAll(o.Body)
	return string(got), err
}

func holds(t *testing.T, s *gcsstore.Store, id backends.ObjectID, want string) {
	t.Helper()
	if got, err := read(t, s, id); err != nil || got != want {
		t.Errorf("got %d bytes, %v; want %d", len(got), err, len(want))
	}
}

func lacks(t *testing.T, s *gcsstore.Store, id backends.ObjectID) {
	t.Helper()
	if _, err := s.Head(t.Context(), id, nil); !errors.Is(err, backends.ErrNotFound) {
		t.Errorf("there is an object: %v", err)
	}
}

// threeChunks is a body of two small chunks and a half.
func threeChunks() string { return strings.Repeat("0123456789abcdef", gcsstore.SmallChunk*5/2/16) }

func TestFaultsAreRepeatedAndHaveOneEffect(t *testing.T) {
	t.Parallel()
	large := threeChunks()
	s, b, id := faulty(t)
	for name, c := range map[string]struct {
		body   string
		meddle meddler
		kind   string
		want   int // requests of that kind
	}{
		"busy":                  {"small", hits("multipart", 0, 2, status(http.StatusServiceUnavailable)), "multipart", 3},
		"throttled":             {"small", hits("multipart", 0, 1, status(http.StatusTooManyRequests)), "multipart", 2},
		"broken":                {"small", hits("multipart", 0, 1, status(http.StatusInternalServerError)), "multipart", 2},
		"cut":                   {strings.Repeat("x", 1<<20), hits("multipart", 0, 1, cutRequest), "multipart", 2},
		"answer lost":           {"small", hits("multipart", 0, 1, lose), "multipart", 2},
		"no session at first":   {large, hits("resumable", 0, 1, status(http.StatusServiceUnavailable)), "resumable", 2},
		"first chunk refused":   {large, hits("chunk", 0, 1, status(http.StatusServiceUnavailable)), "chunk", 4},
		"second chunk cut":      {large, hits("chunk", 1, 1, cutRequest), "chunk", 4},
		"second chunk's answer": {large, hits("chunk", 1, 1, lose), "chunk", 4},
		"last chunk's answer":   {large, hits("chunk", 2, 1, lose), "chunk", 4},
		"slow": {large, func(http.ResponseWriter, *http.Request, http.Handler) bool {
			time.Sleep(20 * time.Millisecond)
			return false
		}, "chunk", 3},
		"last chunk refused thrice": {large, hits("chunk", 2, 3, status(http.StatusTooManyRequests)), "chunk", 6},
	} {
		b.with(c.meddle)
		_, err := s.Put(t.Context(), id, text(c.body), nil)
		if err != nil || b.count(c.kind) != c.want {
			t.Errorf("%s: %v after %d requests, want success after %d", name, err, b.count(c.kind), c.want)
		}
		b.with(nil)
		holds(t, s, id, c.body)
	}
}

// All other tests of faults have small chunks and short pauses.
func TestChunksAreOf8MiBAndAreRepeated(t *testing.T) {
	t.Parallel()
	server := servers.FakeGCS(t)
	b := newBetween(t, server)
	cfg := configOf(server)
	cfg.Endpoint = b.url
	s, id := open(t, cfg), backends.ObjectID{Bucket: "bucket", Key: "key"}
	if err := s.CreateBucket(t.Context(), "bucket"); err != nil {
		t.Fatal(err)
	}
	for size, chunks := range map[int]int{8<<20 - 1: 0, 8<<20 + 1: 2} {
		b.with(hits("chunk", 1, 1, status(http.StatusServiceUnavailable)))
		body := strings.Repeat("x", size)
		want := chunks
		if chunks > 0 {
			want++ // the last one is repeated
		}
		if _, err := s.Put(t.Context(), id, text(body), nil); err != nil || b.count("chunk") != want {
			t.Errorf("%d bytes: %v, in %d chunks, want %d", size, err, b.count("chunk"), want)
		}
		b.with(nil)
		holds(t, s, id, body)
	}
}

func TestTheBudgetOfACallIsSixFailures(t *testing.T) {
	t.Parallel()
	large := threeChunks()
	s, b, id := faulty(t)
	calls := map[string]func() error{
		"multipart": func() error { _, err := s.Put(t.Context(), id, text("small"), nil); return err },
		"chunk":     func() error { _, err := s.Put(t.Context(), id, text(large), nil); return err },
		"GET":       func() error { _, err := s.Head(t.Context(), id, nil); return err },
	}
	for what, call := range calls {
		b.with(hits(what, 0, 100, status(http.StatusServiceUnavailable)))
		if err := call(); !errors.Is(err, backends.ErrUnavailable) || b.count(what) != 6 {
			t.Errorf("%s: %v after %d requests, want ErrUnavailable after 6", what, err, b.count(what))
		}
		b.with(nil)
		lacks(t, s, id)
	}
}

// With a condition, an attempt that was applied makes the next one fail.
func TestOnesOwnWriteIsKnownAfterItsAnswerWasLost(t *testing.T) {
	t.Parallel()
	large := threeChunks()
	s, b, id := faulty(t)
	fresh := backends.Conditions{IfNoneMatch: []string{"*"}}
	source := backends.ObjectID{Bucket: "bucket", Key: "source"}
	if _, err := s.Put(t.Context(), source, text("copied"), nil); err != nil {
		t.Fatal(err)
	}
	put := func(body string) error {
		_, err := s.Put(t.Context(), id, text(body), &backends.PutOptions{Conditions: fresh})
		return err
	}
	complete := func() error {
		up, err := s.CreateUpload(t.Context(), "bucket", "key", backends.Attributes{})
		if err != nil {
			return err
		}
		p, err := s.PutPart(t.Context(), up, 1, text("part"))
		if err == nil {
			_, err = s.Complete(t.Context(), up, []backends.Part{p}, fresh)
		}
		return err
	}
	duplicate := func() error {
		_, err := s.Copy(t.Context(), source, id, &backends.CopyOptions{Conditions: fresh})
		return err
	}
	for name, c := range map[string]struct {
		kind, want string
		do         func() error
	}{
		"small":    {"multipart", "x", func() error { return put("x") }},
		"large":    {"chunk", large, func() error { return put(large) }},
		"complete": {"compose", "part", complete},
		"copy":     {"rewrite", "copied", duplicate},
	} {
		skip := 0
		if c.kind == "chunk" {
			skip = 2
		}
		b.with(hits(c.kind, skip, 1, lose))
		if err := c.do(); err != nil {
			t.Errorf("%s, its answer lost: %v, want success, since it is ours", name, err)
		}
		b.with(nil)
		holds(t, s, id, c.want)
		if err := c.do(); !errors.Is(err, backends.ErrPrecondition) {
			t.Errorf("%s over what is there: %v, want ErrPrecondition", name, err)
		}
		if _, err := s.Delete(t.Context(), id, nil); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAConditionalDeleteGoesOutOnce(t *testing.T) {
	t.Parallel()
	s, b, id := faulty(t)
	w, err := s.Put(t.Context(), id, text("x"), nil)
	if err != nil {
		t.Fatal(err)
	}
	b.with(hits("DELETE", 0, 1, status(http.StatusServiceUnavailable)))
	_, err = s.Delete(t.Context(), id, &backends.DeleteOptions{Conditions: backends.Conditions{IfMatch: []string{w.ETag}}})
	if !errors.Is(err, backends.ErrUnavailable) || b.count("DELETE") != 1 {
		t.Errorf("%v after %d requests, want ErrUnavailable after 1", err, b.count("DELETE"))
	}
}

func TestAReadThatIsCutGoesOnWhereItEnded(t *testing.T) {
	t.Parallel()
	large := threeChunks()
	s, b, id := faulty(t)
	if _, err := s.Put(t.Context(), id, text(large), nil); err != nil {
		t.Fatal(err)
	}
	b.with(hits("read", 0, 2, cutAnswer(1<<20)))
	if got, err := read(t, s, id); err != nil || got != large || b.count("read") != 3 {
		t.Errorf("%d bytes, %v, in %d requests; want %d in 3", len(got), err, b.count("read"), len(large))
	}
	b.with(hits("read", 0, 1000, cutAnswer(10)))
	if got, err := read(t, s, id); !errors.Is(err, backends.ErrUnavailable) || b.count("read") != 6 {
		t.Errorf("always cut: %d bytes and %v in %d requests, want ErrUnavailable after 6", len(got), err, b.count("read"))
	}
	first := true
	b.with(func(w http.ResponseWriter, r *http.Request, pass http.Handler) bool {
		if kind(r) != "read" || !first {
			return false
		}
		first = false
		replaced := httptest.NewRequest(http.MethodDelete, "/storage/v1/b/bucket/o/key", nil)
		defer pass.ServeHTTP(httptest.NewRecorder(), replaced)
		cutAnswer(1<<20)(w, r, pass)
		return true
	})
	if got, err := read(t, s, id); err == nil {
		t.Errorf("deleted and cut: %d bytes and no error", len(got))
	}
}

func TestBytesThatAreDamagedOnTheirWayAreNotKept(t *testing.T) {
	t.Parallel()
	large := threeChunks()
	s, b, id := faulty(t)
	damage := func(mend func(*http.Request)) func(http.ResponseWriter, *http.Request, http.Handler) {
		return func(w http.ResponseWriter, r *http.Request, pass http.Handler) {
			body, err := io.ReadAll(r.Body)
			if err != nil {
				t.Error(err)
			}
			r.Body = io.NopCloser(bytes.NewReader(bytes.Replace(body, []byte("abc"), []byte("abd"), 1)))
			mend(r)
			pass.ServeHTTP(w, r)
		}
	}
	for name, mend := range map[string]func(*http.Request){
		"the service refuses them":          func(*http.Request) {},
		"the service does not compare them": func(r *http.Request) { r.Header.Del("X-Goog-Hash") },
	} {
		for what, body := range map[string]string{"multipart": "123abc", "chunk": large} {
			b.with(hits(what, 0, 100, damage(mend)))
			if _, err := s.Put(t.Context(), id, text(body), nil); !errors.Is(err, backends.ErrUnavailable) {
				t.Errorf("%s, %s: %v, want ErrUnavailable", name, what, err)
			}
			b.with(nil)
			lacks(t, s, id)
		}
	}
	if _, err := s.Put(t.Context(), id, text("123abc"), nil); err != nil {
		t.Fatal(err)
	}
	b.with(hits("read", 0, 1, func(w http.ResponseWriter, r *http.Request, pass http.Handler) {
		answer := httptest.NewRecorder()
		pass.ServeHTTP(answer, r)
		for name, v := range answer.Header() {
			w.Header()[name] = v
		}
		_, _ = w.Write(bytes.Replace(answer.Body.Bytes(), []byte("abc"), []byte("abd"), 1))
	}))
	if got, err := read(t, s, id); err == nil {
		t.Errorf("read %q and no error", got)
	}
}

func TestASilentServiceIsGivenUp(t *testing.T) {
	t.Parallel()
	hang := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-hang }))
	defer server.Close()
	defer close(hang)
	s := open(t, gcsstore.Config{Endpoint: server.URL, Project: "p", Location: "EU", Stall: 20 * time.Millisecond})
	if err := s.Check(t.Context()); !errors.Is(err, backends.ErrUnavailable) || t.Context().Err() != nil {
		t.Errorf("%v, want ErrUnavailable", err)
	}
}

func TestASuccessThatComesTooEarlyIsAnError(t *testing.T) {
	t.Parallel()
	large := threeChunks()
	s, b, id := faulty(t)
	b.with(hits("chunk", 0, 100, func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(w, `{"generation":"1","crc32c":"AAAAAA=="}`)
	}))
	if _, err := s.Put(t.Context(), id, text(large), nil); !errors.Is(err, backends.ErrUnavailable) {
		t.Errorf("%v, want ErrUnavailable", err)
	}
}

func TestErrorsDoNotShowTheSession(t *testing.T) {
	t.Parallel()
	large := threeChunks()
	s, b, id := faulty(t)
	b.with(hits("chunk", 0, 100, cutRequest))
	_, err := s.Put(t.Context(), id, text(large), nil)
	if !errors.Is(err, backends.ErrUnavailable) || strings.Contains(err.Error(), "upload_id") {
		t.Errorf("got %v", err)
	}
}

func TestPiecesAreComposedInATree(t *testing.T) {
	t.Parallel()
	s, b, id := faulty(t)
	contents := make([]string, 1057)
	for i := range contents {
		contents[i] = fmt.Sprintf("%d,", i)
	}
	up := backends.UploadID{Bucket: "bucket", Key: "key", ID: "0"}
	b.with(hits("compose", 36, 1, lose)) // the last
	if _, err := s.AssembleOf(t.Context(), up, contents, backends.Conditions{IfNoneMatch: []string{"*"}}); err != nil {
		t.Fatal(err)
	}
	// 34 of 1057, 2 of 34, 1 of 2, and that again.
	if n := b.count("compose"); n != 38 {
		t.Errorf("%d requests, want 38", n)
	}
	b.with(nil)
	holds(t, s, id, strings.Join(contents, ""))
	page, err := s.List(t.Context(), "bucket", nil)
	if err != nil || len(page.Entries) != 1 || page.Entries[0].Attributes.Metadata["cho1"] != "z" {
		t.Errorf("listed %+v, %v; want the object alone", page, err)
	}
}

func TestAPageOfPartsIsReadFromItsBegin(t *testing.T) {
	t.Parallel()
	s, b, id := faulty(t)
	up, err := s.CreateUpload(t.Context(), id.Bucket, id.Key, backends.Attributes{})
	for n := 1; n <= 3 && err == nil; n++ {
		_, err = s.PutPart(t.Context(), up, n, text("part"))
	}
	if err != nil {
		t.Fatal(err)
	}
	var from []string
	b.with(func(_ http.ResponseWriter, r *http.Request, _ http.Handler) bool {
		if r.URL.Query().Has("prefix") {
			from = append(from, r.URL.Query().Get("startOffset"))
		}
		return false
	})
	page, err := s.ListParts(t.Context(), up, 2, 0)
	if err != nil || len(page.Parts) != 1 || page.Parts[0].Number != 3 || page.Next != 0 {
		t.Errorf("got %+v, error %v, want part 3 alone", page, err)
	}
	if len(from) != 1 || !strings.HasSuffix(from[0], "/00003") {
		t.Errorf("listed from %q, want one request that begins at part 3", from)
	}
}
