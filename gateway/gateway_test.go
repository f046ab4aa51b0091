package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"chatelaine/backends"
	"chatelaine/backends/memstore"
	"chatelaine/gateway/access"
	"chatelaine/gateway/keys/keystest"
)

// ring is a key service in memory that can be made unready.
type ring struct {
	*keystest.Ring
	calls atomic.Int64
	ready atomic.Pointer[error]
}

func (r *ring) Ready(context.Context) error {
	r.calls.Add(1)
	if err := r.ready.Load(); err != nil {
		return *err
	}
	return nil
}

// store can be made unready too.
type store struct {
	backends.Store
	broken atomic.Bool
}

var errBroken = errors.New("cloud is away")

func (s *store) Check(ctx context.Context) error {
	if s.broken.Load() {
		return errBroken
	}
	return s.Store.Check(ctx)
}

func (s *store) Unwrap() backends.Store { return s.Store }

func newGateway(t *testing.T, change func(*Config)) (*Gateway, *ring, map[string]*store) {
	t.Helper()
	keys := &ring{Ring: keystest.New()}
	keys.AddUser("AKIATEST", "secret-of-the-test", "tester")
	stores := map[string]*store{"main": {Store: memstore.New()}, "second": {Store: memstore.New()}}
	config := Config{
		Keys: keys, Stores: map[string]backends.Store{"main": stores["main"], "second": stores["second"]}, DefaultStore: "main",
		Authorizer: access.New(access.Default(), access.NewLog(io.Discard)), Region: "us-east-1",
		Metrics: prometheus.NewRegistry(), Logger: zap.NewNop(),
	}
	if change != nil {
		change(&config)
	}
	g, err := New(config)
	if err != nil {
		t.Fatal(err)
	}
	return g, keys, stores
}

func admin(g *Gateway, path string) (int, string) {
	w := httptest.NewRecorder()
	g.Admin().ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	return w.Code, w.Body.String()
}

func TestPlaintextGoesInAndSealedBytesComeOut(t *testing.T) {
	g, _, stores := newGateway(t, func(c *Config) { c.BucketPrefix = "org-" })
	server := httptest.NewServer(g.S3())
	defer server.Close()
	client := s3.New(s3.Options{
		BaseEndpoint: aws.String(server.URL), Region: "us-east-1", UsePathStyle: true,
		Credentials: credentials.NewStaticCredentialsProvider("AKIATEST", "secret-of-the-test", ""),
	})
	if _, err := client.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: aws.String("photos")}); err != nil {
		t.Fatal(err)
	}
	plain := bytes.Repeat([]byte("plaintext "), 1000)
	_, err := client.PutObject(t.Context(), &s3.PutObjectInput{Bucket: aws.String("photos"), Key: aws.String("a//b"), Body: bytes.NewReader(plain)})
	if err != nil {
		t.Fatal(err)
	}
	got, err := client.GetObject(t.Context(), &s3.GetObjectInput{Bucket: aws.String("photos"), Key: aws.String("a//b")})
	if err != nil {
		t.Fatal(err)
	}
	if body, err := io.ReadAll(got.Body); err != nil || !bytes.Equal(body, plain) {
		t.Errorf("got %d bytes back, %v", len(body), err)
	}
	stored, err := stores["main"].Get(t.Context(), backends.ObjectID{Bucket: "org-photos", Key: "a//b"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if body, err := io.ReadAll(stored.Body); err != nil || bytes.Contains(body, []byte("plaintext")) || len(body) <= len(plain) {
		t.Errorf("the store has %d bytes, with plaintext or too few; %v", len(body), err)
	}
	if _, text := admin(g, "/metrics"); !strings.Contains(text, "chatelaine_s3_requests_total") {
		t.Error("/metrics does not count S3 requests")
	}
}

func TestReadinessFollowsWhatS3Needs(t *testing.T) {
	tests := map[string]struct {
		change func(g *Gateway, k *ring, stores map[string]*store)
		status int
		part   string // which part says more than ok
		want   string
	}{
		"all well":        {func(*Gateway, *ring, map[string]*store) {}, 200, "kms", "ok"},
		"no KMS":          {func(_ *Gateway, k *ring, _ map[string]*store) { k.ready.Store(&errBroken) }, 503, "kms", errBroken.Error()},
		"default backend": {func(_ *Gateway, _ *ring, s map[string]*store) { s["main"].broken.Store(true) }, 503, "backend/main", errBroken.Error()},
		"another backend": {func(_ *Gateway, _ *ring, s map[string]*store) { s["second"].broken.Store(true) }, 200, "backend/second", errBroken.Error()},
		"draining":        {func(g *Gateway, _ *ring, _ map[string]*store) { g.Drain() }, 503, "gateway", "draining"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			g, keys, stores := newGateway(t, nil)
			tc.change(g, keys, stores)
			status, text := admin(g, "/readyz")
			var answer struct {
				Ready bool
				Parts map[string]string
			}
			if err := json.Unmarshal([]byte(text), &answer); err != nil {
				t.Fatal(err)
			}
			if status != tc.status || answer.Ready != (tc.status == 200) || answer.Parts[tc.part] != tc.want {
				t.Errorf("got %d, %s", status, text)
			}
			if err := g.Ready(t.Context()); (err == nil) != (tc.status == 200) {
				t.Errorf("Ready: got %v", err)
			}
			if status, _ := admin(g, "/healthz"); status != 200 {
				t.Errorf("/healthz: got %d", status)
			}
		})
	}
}

func TestProbesDoNotBecomeLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, keys, _ := newGateway(t, nil)
		for range 100 {
			admin(g, "/readyz")
		}
		if got := keys.calls.Load(); got != 1 {
			t.Errorf("100 probes at once made %d calls, want 1", got)
		}
		keys.ready.Store(&errBroken)
		time.Sleep(checkKept + time.Millisecond)
		if status, _ := admin(g, "/readyz"); status != 503 {
			t.Errorf("got %d after what was kept had run out", status)
		}
	})
}

func TestACheckThatHangsIsUnready(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, _, _ := newGateway(t, func(c *Config) {
			c.Stores["main"] = hanging{c.Stores["main"]}
		})
		if status, _ := admin(g, "/readyz"); status != 503 {
			t.Errorf("got %d", status)
		}
	})
}

type hanging struct{ backends.Store }

func (hanging) Check(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

func TestIncompleteConfigurationIsAnError(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"no keys":       func(c *Config) { c.Keys = nil },
		"no metrics":    func(c *Config) { c.Metrics = nil },
		"no logger":     func(c *Config) { c.Logger = nil },
		"no region":     func(c *Config) { c.Region = "" },
		"no authorizer": func(c *Config) { c.Authorizer = nil },
		"unknown store": func(c *Config) { c.DefaultStore = "other" },
	} {
		config := Config{
			Keys: &ring{Ring: keystest.New()}, Stores: map[string]backends.Store{"main": memstore.New()}, DefaultStore: "main",
			Authorizer: access.New(access.Default(), access.NewLog(io.Discard)), Region: "r", Metrics: prometheus.NewRegistry(), Logger: zap.NewNop(),
		}
		change(&config)
		if _, err := New(config); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
