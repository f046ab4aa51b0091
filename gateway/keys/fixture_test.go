package keys

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"chatelaine/kms"
	"chatelaine/kms/registry"
	"chatelaine/kms/service"
	"chatelaine/kms/softkey"
)

// world is a gateway's client and a whole KMS behind it in one process, on a
// registry in memory and software keys: all of it the real code but the network.
type world struct {
	*Client
	kms      *kms.Manager
	registry *registry.Memory
	provider *countingProvider
	network  *network
	logs     *lockedBuffer
	stopKMS  func()
}

// network carries requests to a handler, as mutual TLS would.
type network struct {
	handler atomic.Pointer[service.Service]
	down    atomic.Bool
	deaf    atomic.Bool  // there are no streams
	delay   atomic.Int64 // of each answer, in nanoseconds
	calls   sync.Map     // path to *atomic.Int64
	lies    sync.Map     // path to func(*http.Response): what becomes of an answer on its way
}

// RoundTrip implements http.RoundTripper.
func (n *network) RoundTrip(r *http.Request) (*http.Response, error) {
	counter, _ := n.calls.LoadOrStore(filepath.Base(r.URL.Path), new(atomic.Int64))
	counter.(*atomic.Int64).Add(1)
	if n.down.Load() || n.deaf.Load() && filepath.Base(r.URL.Path) == "Watch" {
		return nil, errors.New("connection refused")
	}
	request := r.Clone(r.Context())
	cert := &x509.Certificate{Subject: pkix.Name{CommonName: "gw"}}
	request.TLS = &tls.ConnectionState{VerifiedChains: [][]*x509.Certificate{{cert}}}
	if filepath.Base(r.URL.Path) == "Watch" {
		return n.stream(request)
	}
	recorder := httptest.NewRecorder()
	lie, lies := n.lies.Load(filepath.Base(r.URL.Path))
	if lies {
		request.Header.Del("Accept-Encoding") // what is compressed cannot be changed
	}
	n.handler.Load().ServeHTTP(recorder, request)
	time.Sleep(time.Duration(n.delay.Load()))
	answer := recorder.Result()
	if lies && answer.StatusCode == http.StatusOK {
		lie.(func(*http.Response))(answer)
	}
	return answer, r.Context().Err()
}

// stream answers before the handler has ended.
func (n *network) stream(request *http.Request) (*http.Response, error) {
	body, writer := io.Pipe()
	s := &streamed{header: http.Header{}, pipe: writer, network: n, begun: make(chan int, 1)}
	go func() {
		n.handler.Load().ServeHTTP(s, request)
		s.WriteHeader(http.StatusOK)
		_ = writer.Close()
	}()
	context.AfterFunc(request.Context(), func() { _ = body.CloseWithError(request.Context().Err()) })
	return &http.Response{StatusCode: <-s.begun, Header: s.header, Body: body, Request: request, ProtoMajor: 2}, nil
}

// streamed is the server's end of a stream. A network that is down swallows it.
type streamed struct {
	header  http.Header
	pipe    *io.PipeWriter
	network *network
	once    sync.Once
	begun   chan int
}

// Header implements http.ResponseWriter.
func (s *streamed) Header() http.Header { return s.header }

// WriteHeader implements http.ResponseWriter.
func (s *streamed) WriteHeader(code int) { s.once.Do(func() { s.begun <- code }) }

// Flush implements http.Flusher.
func (s *streamed) Flush() {}

// Write implements io.Writer.
func (s *streamed) Write(p []byte) (int, error) {
	s.WriteHeader(http.StatusOK)
	if s.network.down.Load() || s.network.deaf.Load() {
		return len(p), nil
	}
	return s.pipe.Write(p)
}

func (n *network) count(op string) int64 {
	counter, ok := n.calls.Load(op)
	if !ok {
		return 0
	}
	return counter.(*atomic.Int64).Load()
}

// countingProvider counts unwrappings, and fails when it is told to.
type countingProvider struct {
	kms.Provider
	unwraps atomic.Int64
	fail    atomic.Bool
}

// Unwrap implements kms.Provider.
func (p *countingProvider) Unwrap(ctx context.Context, ref kms.KeyRef, b kms.Binding, wrapped []byte) ([]byte, error) {
	if p.fail.Load() {
		return nil, kms.ErrUnavailable
	}
	p.unwraps.Add(1)
	return p.Provider.Unwrap(ctx, ref, b, wrapped)
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write implements io.Writer.
func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

const (
	accessKeyID   = "AKIDEXAMPLE"
	plantedSecret = "planted/Secret+Of40Characters0123456789AB"
)

// newWorld starts everything; Run runs until the test ends.
func newWorld(t *testing.T, c Config) *world {
	t.Helper()
	w := newStillWorld(t, c)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = w.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return w
}

// newStillWorld is newWorld without Run.
func newStillWorld(t *testing.T, c Config) *world {
	t.Helper()
	w := &world{registry: registry.NewMemory(), network: &network{}, logs: &lockedBuffer{}}
	logger := zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()), zapcore.AddSync(w.logs), zap.DebugLevel))
	soft, err := softkey.New(softkey.Config{Name: softkey.Name, Dir: filepath.Join(t.TempDir(), "keys"), Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	w.provider = &countingProvider{Provider: soft}
	w.kms, err = kms.NewManager(t.Context(), kms.Config{
		Registry: w.registry, Providers: map[string]kms.Provider{"soft": w.provider}, Logger: logger,
		CheckPolicy: func(kms.PolicyDocument) error { return nil },
	})
	if err == nil {
		_, err = w.kms.EnsureKEK(t.Context(), "main")
	}
	if err == nil {
		err = w.kms.EnsureAccessKey(t.Context(), kms.NewAccessKey{
			ID: accessKeyID, Secret: kms.NewSecret([]byte(plantedSecret)), Principal: "alice",
		})
	}
	if err != nil {
		t.Fatal(err)
	}
	w.restartKMS(t, logger)
	c.GatewayID, c.Logger = "gw", logger
	if w.Client, err = newClient(c, service.NewClients(&http.Client{Transport: w.network}, "http://kms")); err != nil {
		t.Fatal(err)
	}
	return w
}

// restartKMS puts a new service in the place of the old: it knows no lease.
func (w *world) restartKMS(t *testing.T, logger *zap.Logger) {
	t.Helper()
	s, err := service.New(service.Config{Manager: w.kms, Access: service.Access{Gateways: []string{"gw"}}, Logger: logger})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	if old := w.stopKMS; old != nil {
		old()
	}
	w.stopKMS = cancel
	w.network.handler.Store(s)
}

func (w *world) bucket(t *testing.T, name string) Bucket {
	t.Helper()
	return w.bucketOf(t, kms.NewBucket{Name: name, Store: "files", StoreName: name, Owner: "alice"})
}

func (w *world) bucketOf(t *testing.T, n kms.NewBucket) Bucket {
	t.Helper()
	if _, err := w.kms.RegisterBucket(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	if err := w.kms.ActivateBucket(t.Context(), n.Name); err != nil {
		t.Fatal(err)
	}
	b, err := w.Bucket(t.Context(), n.Name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (w *world) current(t *testing.T, b Bucket) BucketKey {
	t.Helper()
	key, err := w.Current(t.Context(), b)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// edit changes a record as a later command of the KMS will.
func (w *world) edit(t *testing.T, key, old, new string) {
	t.Helper()
	item, err := w.registry.Get(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(item.Value, []byte(old)) {
		t.Fatalf("%q is not in %s", old, item.Value)
	}
	item.Value = bytes.Replace(item.Value, []byte(old), []byte(new), 1)
	w.put(t, key, string(item.Value))
}

func (w *world) put(t *testing.T, key, value string) {
	t.Helper()
	if err := w.registry.Commit(t.Context(), kms.Transaction{Put: []kms.Item{{Key: key, Value: []byte(value)}}}); err != nil {
		t.Fatal(err)
	}
}

func (w *world) block(t *testing.T) {
	t.Helper()
	w.edit(t, "keks/main", `"state":"active"`, `"state":"suspended"`)
}

func (w *world) revoke(t *testing.T, epoch string) {
	t.Helper()
	w.put(t, "revocation", `{"schema":1,"record":{"epoch":`+epoch+`}}`)
}

func wantErr(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("got %v, want %v", err, want)
	}
}

func today() string { return time.Now().UTC().Format("20060102") }
