package s3store

import (
	"context"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"chatelaine/backends"
)

// exchange is what a server was asked.
type exchange struct {
	mu   sync.Mutex
	seen []*http.Request
}

func (e *exchange) last() *http.Request {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.seen[len(e.seen)-1]
}

// rerouted is a store all of whose connections, whatever the host, go to handler.
func rerouted(t *testing.T, cfg Config, handler http.HandlerFunc) (*Store, *exchange) {
	t.Helper()
	e := &exchange{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		e.mu.Lock()
		e.seen = append(e.seen, r)
		e.mu.Unlock()
		handler(w, r)
	}))
	t.Cleanup(server.Close)
	cfg.AccessKeyID, cfg.SecretAccessKey = "id", NewSecret("secret")
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	reroute := func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, server.Listener.Addr().String())
	}
	s.transport.DialContext, s.transport.DialTLSContext = reroute, reroute
	s.patient.DialContext, s.patient.DialTLSContext = reroute, reroute
	return s, e
}

func created(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("ETag", `"e"`)
	if r.Method == http.MethodPost {
		_, _ = io.WriteString(w, "<R><UploadId>u</UploadId></R>")
	}
}

func TestHostsAndPathsOfBuckets(t *testing.T) {
	for _, tt := range []struct{ url, key, host, path string }{
		{"s3://?region=eu-central-1", "k", "bucket.s3.eu-central-1.amazonaws.com", "/k"},
		{"s3://?region=eu-central-1", "/k//", "bucket.s3.eu-central-1.amazonaws.com", "//k//"},
		{"s3://?region=eu-central-1", "../a b", "bucket.s3.eu-central-1.amazonaws.com", "/../a%20b"},
		{"s3://?path-style=true", "k", "s3.us-east-1.amazonaws.com", "/bucket/k"},
		{"s3://s3.example.com:9000", "k", "s3.example.com:9000", "/bucket/k"},
		{"s3+http://s3.example.com?path-style=false", "k", "bucket.s3.example.com", "/k"},
	} {
		cfg, err := ParseURL(tt.url)
		if err != nil {
			t.Fatal(err)
		}
		s, e := rerouted(t, cfg, created)
		if _, err := s.Put(t.Context(), backends.ObjectID{Bucket: "bucket", Key: tt.key}, backends.Body{}, nil); err != nil {
			t.Errorf("%s: %v", tt.url, err)
			continue
		}
		path, _, _ := strings.Cut(e.last().RequestURI, "?")
		if e.last().Host != tt.host || path != tt.path {
			t.Errorf("%s, key %q: got %s and %s, want %s and %s", tt.url, tt.key, e.last().Host, path, tt.host, tt.path)
		}
	}
}

func TestUploadsToAWSNameTheirChecksum(t *testing.T) {
	for _, tt := range []struct {
		cfg             Config
		algorithm, kind string
	}{
		{Config{}, "CRC64NVME", "FULL_OBJECT"},
		{Config{Checksum: CRC32C}, "CRC32C", "FULL_OBJECT"},
		{Config{Checksum: NoChecksum}, "", ""},
		{Config{Endpoint: "https://vpce-1.s3.eu-west-1.vpce.amazonaws.com"}, "CRC64NVME", "FULL_OBJECT"},
		{Config{Endpoint: "https://s3.example.com"}, "", ""},
		{Config{Endpoint: "https://amazonaws.com.example.com"}, "", ""},
	} {
		s, e := rerouted(t, tt.cfg, created)
		if _, err := s.CreateUpload(t.Context(), "bucket", "key", backends.Attributes{}); err != nil {
			t.Fatal(err)
		}
		h := e.last().Header
		if got, kind := h.Get("X-Amz-Checksum-Algorithm"), h.Get("X-Amz-Checksum-Type"); got != tt.algorithm || kind != tt.kind {
			t.Errorf("%q, checksum %q: got %q and %q, want %q and %q", tt.cfg.Endpoint, tt.cfg.Checksum, got, kind, tt.algorithm, tt.kind)
		}
	}
}

func TestAWSIsNotAskedForWhatItDoesItself(t *testing.T) {
	configuration := func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			_, _ = io.WriteString(w, "<R><ObjectLockEnabled>Enabled</ObjectLockEnabled></R>")
		}
	}
	for _, tt := range []struct {
		cfg  Config
		want int
	}{{Config{}, 3}, {Config{Endpoint: "https://s3.example.com"}, 6}} {
		s, e := rerouted(t, tt.cfg, configuration)
		held := &backends.PutOptions{Attributes: backends.Attributes{Lock: backends.Lock{Hold: true}}}
		_, err := s.Put(t.Context(), backends.ObjectID{Bucket: "bucket", Key: "key"}, backends.Body{}, held)
		err = errors.Join(err, s.SetVersioning(t.Context(), "bucket", backends.VersioningEnabled),
			s.SetLockConfig(t.Context(), "bucket", backends.LockConfig{Enabled: true}))
		if got := len(e.seen); err != nil || got != tt.want {
			t.Errorf("%q: got %d requests and %v, want %d", tt.cfg.Endpoint, got, err, tt.want)
		}
	}
}

func TestCreateBucketNoticesWhatAWSDoesNotTell(t *testing.T) {
	there := func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) }
	missing := func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodHead {
			w.WriteHeader(http.StatusNotFound)
		}
	}
	s, _ := rerouted(t, Config{}, there)
	if err := s.CreateBucket(t.Context(), "bucket"); !errors.Is(err, backends.ErrBucketExists) {
		t.Errorf("a bucket that is there: got %v, want ErrBucketExists", err)
	}
	s, e := rerouted(t, Config{}, missing)
	if err := s.CreateBucket(t.Context(), "bucket"); err != nil || e.last().Method != http.MethodPut {
		t.Errorf("a bucket that is not there: got %v and a %s, want a PUT", err, e.last().Method)
	}
}

func TestCreateBucketNamesTheRegion(t *testing.T) {
	for region, want := range map[string]bool{"us-east-1": false, "eu-central-1": true} {
		var body string
		s, _ := rerouted(t, Config{Endpoint: "http://h", PathStyle: true, Region: region}, func(_ http.ResponseWriter, r *http.Request) {
			b, _ := io.ReadAll(r.Body)
			body = string(b)
		})
		if err := s.CreateBucket(t.Context(), "bucket"); err != nil {
			t.Fatal(err)
		}
		if got := strings.Contains(body, "<LocationConstraint>"+region+"<"); got != want {
			t.Errorf("%s: got the body %q", region, body)
		}
	}
}

func TestOnlyTheAuthoritiesOfCAFileAreTrusted(t *testing.T) {
	server := httptest.NewTLSServer(http.HandlerFunc(created))
	defer server.Close()
	server.Config.ErrorLog = nil
	file := filepath.Join(t.TempDir(), "ca.pem")
	block := pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}
	if err := os.WriteFile(file, pem.EncodeToMemory(&block), 0o600); err != nil {
		t.Fatal(err)
	}
	for caFile, want := range map[string]error{file: nil, "": backends.ErrUnavailable} {
		s, err := New(Config{Endpoint: server.URL, PathStyle: true, CAFile: caFile, AccessKeyID: "id", SecretAccessKey: NewSecret("s")})
		if err != nil {
			t.Fatal(err)
		}
		_, err = s.Put(t.Context(), backends.ObjectID{Bucket: "bucket", Key: "key"}, backends.Body{}, nil)
		if !errors.Is(err, want) {
			t.Errorf("CA file %q: got %v, want %v", caFile, err, want)
		}
	}
}

func TestCheckIsContentWithAnAccountThatMayNotListBuckets(t *testing.T) {
	for code, want := range map[string]error{"AccessDenied": nil, "InvalidAccessKeyId": backends.ErrDenied} {
		s, _ := rerouted(t, Config{}, func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusForbidden)
			_, _ = io.WriteString(w, "<Error><Code>"+code+"</Code></Error>")
		})
		if err := s.Check(t.Context()); !errors.Is(err, want) {
			t.Errorf("%s: got %v, want %v", code, err, want)
		}
	}
}

func FuzzExtentOfAnyAnswer(f *testing.F) {
	f.Add("bytes 0-4/5", int64(5))
	f.Add("bytes 0--1/0", int64(0))
	f.Add("bytes 9223372036854775806-9223372036854775806/9223372036854775807", int64(1))
	f.Add("", int64(-1))
	f.Fuzz(func(t *testing.T, header string, length int64) {
		rng, size, err := extent(header, &length)
		if err != nil {
			return
		}
		if rng.Offset < 0 || rng.Length != length || rng.Length < 0 || size-rng.Offset < rng.Length {
			t.Errorf("%q with length %d: got %+v of %d", header, length, rng, size)
		}
	})
}

func FuzzBelowIsBelow(f *testing.F) {
	f.Add("b")
	f.Add("")
	f.Add("\x00x")
	f.Add("é")
	f.Fuzz(func(t *testing.T, prefix string) {
		if got := below(prefix); got != "" && (got >= prefix || strings.HasPrefix(prefix, got)) {
			t.Errorf("below(%q): got %q", prefix, got)
		}
	})
}
