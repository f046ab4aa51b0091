package azurestore_test

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"hash/crc64"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/streaming"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blockblob"

	"chatelaine/backends"
	"chatelaine/backends/azurestore"
	"chatelaine/test/servers"
)

// between stands between the store and Azurite. Meddle says that it has answered.
type between struct {
	http.Handler
	url string

	mu     sync.Mutex
	seen   []string // methods and queries
	meddle func(w http.ResponseWriter, r *http.Request, pass http.Handler) bool
}

func newBetween(t *testing.T, s *servers.Azure) *between {
	t.Helper()
	target, err := url.Parse(s.Endpoint)
	if err != nil {
		t.Fatal(err)
	}
	target.Path = ""
	proxy := httputil.NewSingleHostReverseProxy(target)
	proxy.ErrorHandler = func(w http.ResponseWriter, _ *http.Request, _ error) { panic(http.ErrAbortHandler) }
	b := &between{Handler: proxy}
	server := httptest.NewServer(http.HandlerFunc(b.serve))
	t.Cleanup(server.Close)
	b.url = server.URL + "/" + s.Account
	return b
}

func (b *between) serve(w http.ResponseWriter, r *http.Request) {
	b.mu.Lock()
	b.seen = append(b.seen, r.Method+" "+r.URL.Query().Get("comp"))
	meddle := b.meddle
	b.mu.Unlock()
	if meddle == nil || !meddle(w, r, b.Handler) {
		b.ServeHTTP(w, r)
	}
}

// with meddles with what follows, and forgets what it has seen.
func (b *between) with(meddle func(w http.ResponseWriter, r *http.Request, pass http.Handler) bool) {
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

// first meddles with the first n requests of a kind.
func first(n int, method string, do func(w http.ResponseWriter, r *http.Request, pass http.Handler)) func(http.ResponseWriter, *http.Request, http.Handler) bool {
	var mu sync.Mutex
	return func(w http.ResponseWriter, r *http.Request, pass http.Handler) bool {
		mu.Lock()
		hit := n > 0 && r.Method == method
		if hit {
			n--
		}
		mu.Unlock()
		if hit {
			do(w, r, pass)
		}
		return hit
	}
}

func busy(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
	w.Header().Set("X-Ms-Error-Code", "ServerBusy")
	w.WriteHeader(http.StatusServiceUnavailable)
}

// lose has the request done and hangs up in place of the answer.
func lose(_ http.ResponseWriter, r *http.Request, pass http.Handler) {
	pass.ServeHTTP(httptest.NewRecorder(), r)
	panic(http.ErrAbortHandler)
}

func faulty(t *testing.T) (*azurestore.Store, *between, backends.ObjectID) {
	t.Helper()
	s := servers.Azurite(t)
	b := newBetween(t, s)
	cfg := configOf(s)
	cfg.Endpoint = b.url
	store := open(t, cfg)
	if err := store.CreateBucket(t.Context(), "bucket"); err != nil {
		t.Fatal(err)
	}
	return store, b, backends.ObjectID{Bucket: "bucket", Key: "key"}
}

func text(s string) backends.Body {
	return backends.Body{Reader: strings.NewReader(s), Size: int64(len(s))}
}

func holds(t *testing.T, s *azurestore.Store, id backends.ObjectID, want string) {
	t.Helper()
	o, err := s.Get(t.Context(), id, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer o.Body.Close()
	if got, err := io.ReadAll(o.Body); err != nil || string(got) != want {
		t.Errorf("got %d bytes, %v; want %d", len(got), err, len(want))
	}
}

func TestFaultsAreRepeatedWithinABudgetAndLeaveNoHalfObject(t *testing.T) {
	s, b, id := faulty(t)
	large := strings.Repeat("0123456789abcdef", 1<<16)
	fresh := &backends.PutOptions{Conditions: backends.Conditions{IfNoneMatch: []string{"*"}}}
	put := func(body string, opts *backends.PutOptions) error {
		_, err := s.Put(t.Context(), id, text(body), opts)
		return err
	}
	gone := func() {
		b.with(nil)
		if _, err := s.Head(t.Context(), id, nil); !errors.Is(err, backends.ErrNotFound) {
			t.Fatalf("there is an object: %v", err)
		}
	}
	b.with(first(2, http.MethodPut, busy))
	if err := put("small", nil); err != nil || b.count("PUT ") != 3 {
		t.Errorf("busy twice: %v after %d requests, want success after 3", err, b.count("PUT "))
	}
	b.with(first(2, http.MethodGet, busy))
	holds(t, s, id, "small")
	if _, err := s.Delete(t.Context(), id, nil); err != nil {
		t.Fatal(err)
	}
	b.with(first(100, http.MethodPut, busy))
	if err := put("small", nil); !errors.Is(err, backends.ErrUnavailable) || b.count("PUT ") != 4 {
		t.Errorf("always busy: %v after %d requests, want ErrUnavailable after 4", err, b.count("PUT "))
	}
	gone()
	b.with(first(1, http.MethodPut, busy))
	if err := put(large, nil); !errors.Is(err, backends.ErrUnavailable) || b.count("PUT ") != 1 {
		t.Errorf("busy for a stream: %v after %d requests, want ErrUnavailable after 1", err, b.count("PUT "))
	}
	gone()
	b.with(first(1, http.MethodPut, func(_ http.ResponseWriter, r *http.Request, _ http.Handler) {
		_, _ = io.CopyN(io.Discard, r.Body, 1000)
		panic(http.ErrAbortHandler)
	}))
	if err := put(large, nil); !errors.Is(err, backends.ErrUnavailable) {
		t.Errorf("cut: %v, want ErrUnavailable", err)
	}
	gone()
	for name, body := range map[string]string{"small": "x", "streamed": large} {
		b.with(first(1, http.MethodPut, lose))
		if err := put(body, fresh); err != nil {
			t.Errorf("%s, its answer lost: %v, want success, since it is ours", name, err)
		}
		holds(t, s, id, body)
		if err := put("other", fresh); !errors.Is(err, backends.ErrPrecondition) {
			t.Errorf("%s: somebody else's put: %v, want ErrPrecondition", name, err)
		}
		if _, err := s.Delete(t.Context(), id, nil); err != nil {
			t.Fatal(err)
		}
	}
}

func TestACutAnswerIsAnErrorAndNoShortObject(t *testing.T) {
	s, b, id := faulty(t)
	if _, err := s.Put(t.Context(), id, text(strings.Repeat("x", 1<<20)), nil); err != nil {
		t.Fatal(err)
	}
	b.with(first(1, http.MethodGet, func(w http.ResponseWriter, r *http.Request, pass http.Handler) {
		answer := httptest.NewRecorder()
		pass.ServeHTTP(answer, r)
		for name, v := range answer.Header() {
			w.Header()[name] = v
		}
		w.WriteHeader(answer.Code)
		_, _ = w.Write(answer.Body.Bytes()[:1<<19])
		panic(http.ErrAbortHandler)
	}))
	o, err := s.Get(t.Context(), id, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer o.Body.Close()
	if got, err := io.ReadAll(o.Body); err == nil {
		t.Errorf("%d bytes of 1 MiB and no error", len(got))
	}
}

func TestASilentServiceIsGivenUp(t *testing.T) {
	hang := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-hang }))
	defer server.Close()
	defer close(hang)
	s := open(t, azurestore.Config{Endpoint: server.URL + "/acc", Secret: azurestore.NewSecret("a2V5"), Stall: 20 * time.Millisecond})
	begin := time.Now()
	if err := s.Check(t.Context()); !errors.Is(err, backends.ErrUnavailable) || time.Since(begin) > 20*time.Second {
		t.Errorf("%v after %v, want ErrUnavailable soon", err, time.Since(begin))
	}
}

func TestErrorsDoNotShowTheSignature(t *testing.T) {
	server := httptest.NewServer(nil)
	server.Close()
	s := open(t, azurestore.Config{Endpoint: server.URL + "/acc", Secret: azurestore.NewSecret("sv=2024-01-01&sig=hunter2")})
	if err := s.Check(t.Context()); !errors.Is(err, backends.ErrUnavailable) || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("got %v", err)
	}
}

// What accounts with a hierarchical namespace answer, Azurite has not.
func TestAnAccountWithoutTagsSaysSo(t *testing.T) {
	s, b, id := faulty(t)
	if _, err := s.Put(t.Context(), id, text("x"), nil); err != nil {
		t.Fatal(err)
	}
	b.with(func(w http.ResponseWriter, r *http.Request, _ http.Handler) bool {
		code := ""
		switch {
		case r.URL.Query().Get("comp") == "tags":
			code = "InvalidQueryParameterValue"
		case r.Header.Get("X-Ms-Tags") != "":
			code = "FeatureNotYetSupportedForHierarchicalNamespaceAccounts"
		default:
			return false
		}
		w.Header().Set("X-Ms-Error-Code", code)
		w.WriteHeader(http.StatusBadRequest)
		return true
	})
	_, _, read := s.Tags(t.Context(), id)
	_, set := s.SetTags(t.Context(), id, backends.Tags{"a": "1"})
	attrs := backends.Attributes{Tags: backends.Tags{"a": "1"}}
	_, put := s.Put(t.Context(), id, text("tagged"), &backends.PutOptions{Attributes: attrs})
	_, copied := s.Copy(t.Context(), id, backends.ObjectID{Bucket: id.Bucket, Key: "copy"}, &backends.CopyOptions{Attributes: attrs})
	_, begun := s.CreateUpload(t.Context(), id.Bucket, id.Key, attrs)
	for what, err := range map[string]error{"read": read, "set": set, "put": put, "copied": copied, "begun": begun} {
		if !errors.Is(err, backends.ErrUnsupported) {
			t.Errorf("tags that are %s: %v, want ErrUnsupported", what, err)
		}
	}
	holds(t, s, id, "x")
}

// Azurite knows no checksums: a server of this test's own does.
func TestChecksumsAreSentAndCompared(t *testing.T) {
	var mu sync.Mutex
	var sent, removed string
	wrong := false
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		body, _ := io.ReadAll(r.Body)
		if r.Method == http.MethodDelete {
			removed = r.Header.Get("If-Match")
			w.WriteHeader(http.StatusAccepted)
			return
		}
		sent = r.Header.Get("X-Ms-Content-Crc64")
		if wrong {
			body = append(body, 0)
		}
		w.Header().Set("ETag", `"0x1"`)
		w.Header().Set("X-Ms-Content-Crc64", sum(body))
		w.WriteHeader(http.StatusCreated)
	}))
	defer server.Close()
	s := open(t, azurestore.Config{Endpoint: server.URL + "/acc", Secret: azurestore.NewSecret("a2V5")})
	id := backends.ObjectID{Bucket: "bucket", Key: "key"}
	if _, err := s.Put(t.Context(), id, text("123456789"), nil); err != nil || sent != sum([]byte("123456789")) {
		t.Errorf("small: sent %q, %v; want %q", sent, err, sum([]byte("123456789")))
	}
	large := bytes.Repeat([]byte("x"), 1<<20)
	put := func() error {
		_, err := s.Put(t.Context(), id, backends.Body{Reader: bytes.NewReader(large), Size: int64(len(large))}, nil)
		return err
	}
	if err := put(); err != nil || removed != "" {
		t.Errorf("large: %v, removed %q", err, removed)
	}
	wrong = true
	if err := put(); !errors.Is(err, backends.ErrUnavailable) || removed != `"0x1"` {
		t.Errorf("damaged: %v, removed %q; want ErrUnavailable, and what was stored gone", err, removed)
	}
}

// sum is the header as the SDK's polynomial gives it.
func sum(b []byte) string {
	raw := binary.LittleEndian.AppendUint64(nil, crc64.Checksum(b, crc64.MakeTable(0x9A6C9329AC4BC9B5)))
	return base64.StdEncoding.EncodeToString(raw)
}

// Azurite cannot copy from a URL. The test reads the source as Azure would, under the
// URL that it is given, with range and ETag, and leaves the copying to the gateway.
func TestSourcesOfCopiesCanBeReadUnderTheirURL(t *testing.T) {
	s, b, id := faulty(t)
	copied := 0
	var mu sync.Mutex
	b.with(func(w http.ResponseWriter, r *http.Request, pass http.Handler) bool {
		source := r.Header.Get("X-Ms-Copy-Source")
		if source == "" {
			return false
		}
		if _, status := readSource(t, r, source); status != http.StatusPartialContent {
			t.Errorf("reading the source: status %d", status)
		}
		mu.Lock()
		copied++
		mu.Unlock()
		w.Header().Set("X-Ms-Error-Code", "ServerBusy") // it has been read; that is what counts here
		w.WriteHeader(http.StatusNotImplemented)
		return true
	})
	if _, err := s.Put(t.Context(), id, text("source"), nil); err != nil {
		t.Fatal(err)
	}
	to := backends.ObjectID{Bucket: "bucket", Key: "copy"}
	if _, err := s.Copy(t.Context(), id, to, nil); err != nil || copied != 1 {
		t.Fatalf("%v, read %d times, want once", err, copied)
	}
	holds(t, s, to, "source")
	if _, err := s.Copy(t.Context(), id, to, nil); err != nil || copied != 1 {
		t.Errorf("again: %v, asked %d times, want not again after 501", err, copied)
	}
}

// stageFromURL is Put Block From URL as Azure has it: with the source's range and ETag.
func stageFromURL(t *testing.T, s *servers.Azure, asked *atomic.Int64) func(http.ResponseWriter, *http.Request, http.Handler) bool {
	t.Helper()
	key, err := blob.NewSharedKeyCredential(s.Account, s.Key)
	if err != nil {
		t.Fatal(err)
	}
	return func(w http.ResponseWriter, r *http.Request, _ http.Handler) bool {
		source := r.Header.Get("X-Ms-Copy-Source")
		if source == "" {
			return false
		}
		asked.Add(1)
		body, status := readSource(t, r, source)
		if status != http.StatusPartialContent {
			w.Header().Set("X-Ms-Error-Code", "SourceConditionNotMet")
			w.WriteHeader(http.StatusPreconditionFailed)
			return true
		}
		client, err := blockblob.NewClientWithSharedKeyCredential(strings.TrimSuffix(s.Endpoint, "/"+s.Account)+r.URL.EscapedPath(), key, nil)
		if err == nil {
			_, err = client.StageBlock(r.Context(), r.URL.Query().Get("blockid"), streaming.NopCloser(bytes.NewReader(body)), nil)
		}
		if err != nil {
			t.Error(err)
		}
		w.WriteHeader(http.StatusCreated)
		return true
	}
}

func readSource(t *testing.T, r *http.Request, source string) ([]byte, int) {
	t.Helper()
	req, err := http.NewRequestWithContext(r.Context(), http.MethodGet, source, nil)
	if err != nil {
		t.Error(err)
		return nil, 0
	}
	req.Header.Set("Range", r.Header.Get("X-Ms-Source-Range"))
	req.Header.Set("If-Match", r.Header.Get("X-Ms-Source-If-Match"))
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Error(err)
		return nil, 0
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Error(err)
	}
	return body, resp.StatusCode
}

func TestPartsBecomeAnObjectWithinTheService(t *testing.T) {
	server := servers.Azurite(t)
	b := newBetween(t, server)
	cfg := configOf(server)
	cfg.Endpoint = b.url
	s := open(t, cfg)
	if err := s.CreateBucket(t.Context(), "bucket"); err != nil {
		t.Fatal(err)
	}
	up, err := s.CreateUpload(t.Context(), "bucket", "key", backends.Attributes{Metadata: map[string]string{"cho1": "x"}})
	if err != nil {
		t.Fatal(err)
	}
	var parts []backends.Part
	var whole strings.Builder
	for n, size := range []int{70 << 20, 5 << 20, 3} { // the first is more than a block
		data := strings.Repeat(string(rune('a'+n)), size)
		p, err := s.PutPart(t.Context(), up, n+1, text(data))
		if err != nil {
			t.Fatal(err)
		}
		parts = append(parts, p)
		whole.WriteString(data)
	}
	var asked atomic.Int64
	b.with(stageFromURL(t, server, &asked))
	if _, err := s.Complete(t.Context(), up, parts, backends.Conditions{IfNoneMatch: []string{"*"}}); err != nil || asked.Load() != 4 {
		t.Fatalf("%v with %d blocks, want 4", err, asked.Load())
	}
	holds(t, s, backends.ObjectID{Bucket: "bucket", Key: "key"}, whole.String())
}
