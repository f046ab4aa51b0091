package service

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"chatelaine/kms"
	"chatelaine/kms/approval"
	"chatelaine/kms/policy"
	"chatelaine/kms/registry"
	"chatelaine/kms/service/kmsv1"
	"chatelaine/kms/softkey"
)

// lockedBuffer collects logs.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

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

func testLogger(out *lockedBuffer) *zap.Logger {
	return zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()), zapcore.AddSync(out), zap.DebugLevel))
}

// world is a service with its manager, on a registry in memory and software keys.
type world struct {
	*Service
	manager  *kms.Manager
	control  *approval.Control
	registry *switchable
	logs     *lockedBuffer

	providers map[string]kms.Provider
}

// switchable is a registry that can be made to fail.
type switchable struct {
	kms.Registry
	mu  sync.Mutex
	err error
}

func (s *switchable) set(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
}

func (s *switchable) Get(ctx context.Context, key string) (kms.Item, error) {
	s.mu.Lock()
	err := s.err
	s.mu.Unlock()
	if err != nil {
		return kms.Item{}, err
	}
	return s.Registry.Get(ctx, key)
}

func newWorld(t *testing.T, change func(*Config)) *world {
	t.Helper()
	w := &world{logs: &lockedBuffer{}, registry: &switchable{Registry: registry.NewMemory()}}
	provider, err := softkey.New(softkey.Config{Name: softkey.Name, Dir: filepath.Join(t.TempDir(), "keys"), Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	if w.control, err = approval.New(approval.Config{Registry: w.registry}); err != nil {
		t.Fatal(err)
	}
	metrics := NewMetrics()
	w.providers = map[string]kms.Provider{"soft": provider}
	w.manager, err = kms.NewManager(t.Context(), kms.Config{
		Registry: w.registry, Providers: w.providers,
		CheckPolicy: policy.Validate, Gate: w.control, Development: true, Observer: metrics, Logger: testLogger(w.logs),
	})
	if err == nil {
		_, err = w.manager.EnsureKEK(t.Context(), "main")
	}
	if err != nil {
		t.Fatal(err)
	}
	c := Config{Manager: w.manager, Approvals: w.control, Metrics: metrics, Version: "test", Logger: testLogger(w.logs)}
	if change != nil {
		change(&c)
	}
	if w.Service, err = New(c); err != nil {
		t.Fatal(err)
	}
	return w
}

// serve runs the service on an address until the test ends or stop is called.
func (w *world) serve(t *testing.T, c ListenConfig) (address string, stop func()) {
	t.Helper()
	c.Logger = testLogger(w.logs)
	l, err := Listen(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, l, w, c.Logger) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	if network, _, _ := parseAddress(c.Address); network == "tcp" {
		return "https://" + l.Addr().String(), stop
	}
	return c.Address, stop
}

// socket is an address with a short path.
func socket(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "kms")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return "unix://" + filepath.Join(dir, "s")
}

func connected(t *testing.T, c DialConfig) *Clients {
	t.Helper()
	clients, err := Dial(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(clients.Close)
	return clients
}

// local is a served service and its clients over a Unix socket.
func local(t *testing.T, change func(*Config)) (*world, *Clients) {
	t.Helper()
	w := newWorld(t, change)
	address, _ := w.serve(t, ListenConfig{Address: socket(t)})
	return w, connected(t, DialConfig{Address: address})
}

func leaseOf(t *testing.T, c *Clients) string {
	t.Helper()
	answer, err := c.Gateway.Renew(t.Context(), &kmsv1.RenewRequest{GatewayId: "gw"})
	if err != nil {
		t.Fatal(err)
	}
	return answer.GetLeaseId()
}

func wantErr(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("got %v, want %v", err, want)
	}
}

func today() string { return time.Now().UTC().Format("20060102") }
