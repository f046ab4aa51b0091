// Package frontdoor attacks the gateway from where its clients stand: with bytes on a
// connection. The gateway is the product's, its HTTP server too, with the limits that
// the product has or, where a test waits for one to pass, shorter ones; only keys and
// objects are kept in memory.
package frontdoor

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"chatelaine/backends"
	"chatelaine/backends/memstore"
	"chatelaine/gateway"
	"chatelaine/gateway/access"
	"chatelaine/gateway/keys/keystest"
	"chatelaine/gateway/server"
)

const (
	keyID  = "AKIAFRONTDOOR"
	secret = "a-secret-of-nobody"
	region = "us-east-1"
	bucket = "halls"
	kept   = "what was there before"
)

// options are what a test may change before a world starts.
type options struct {
	server  server.Config
	gateway gateway.Config
}

// world is a gateway on a port, with a bucket and one object in it.
type world struct {
	t       *testing.T
	addr    string
	log     *record // decisions
	objects backends.Store
}

// record is a writer that may be read meanwhile.
type record struct {
	mu   sync.Mutex
	text bytes.Buffer
}

// Write implements io.Writer.
func (r *record) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.Write(b)
}

func (r *record) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.String()
}

func newWorld(t *testing.T, change ...func(*options)) *world {
	t.Helper()
	w := &world{t: t, log: &record{}}
	o := plan(w.log)
	for _, f := range change {
		f(&o)
	}
	w.objects = o.gateway.Stores["main"]
	s, err := listen(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	w.addr = s.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx) }()
	t.Cleanup(func() {
		_ = s.Close()
		cancel()
		<-done
	})
	w.wants(shot{method: "PUT", path: "/" + bucket}, 200, "")
	w.wants(shot{method: "PUT", path: "/" + bucket + "/kept", body: kept}, 200, "")
	return w
}

// plan is the product's configuration, but for what is kept in memory.
func plan(log io.Writer) options {
	ring := keystest.New()
	ring.AddUser(keyID, secret, "mallory")
	return options{
		server: server.Config{Name: "s3", Address: "127.0.0.1:0", Logger: zap.NewNop()},
		gateway: gateway.Config{
			Keys: ready{ring}, Stores: map[string]backends.Store{"main": memstore.New()}, DefaultStore: "main",
			Authorizer: access.New(access.Default(), access.NewLog(log)), Region: region,
			Metrics: prometheus.NewRegistry(), Logger: zap.NewNop(),
		},
	}
}

func listen(ctx context.Context, o options) (*server.Server, error) {
	g, err := gateway.New(o.gateway)
	if err != nil {
		return nil, err
	}
	o.server.Handler = g.S3()
	return server.New(ctx, o.server)
}

// ready is a ring that always serves.
type ready struct{ *keystest.Ring }

// Ready implements gateway.Keys.
func (ready) Ready(context.Context) error { return nil }

// answer is one answer that has been read.
type answer struct {
	status int
	body   string
}

// send sends one request on a connection of its own.
func (w *world) send(s shot) answer {
	w.t.Helper()
	answers := w.exchange(s.text())
	if len(answers) == 0 {
		return answer{}
	}
	return answers[0]
}

// wants checks the status and the code of S3's of an answer.
func (w *world) wants(s shot, status int, code string) answer {
	w.t.Helper()
	got := w.send(s)
	if got.status != status || !bytes.Contains([]byte(got.body), []byte(codeElement(code))) {
		w.t.Errorf("%s %s: got %d %.400s, want %d %s", s.method, s.path, got.status, got.body, status, code)
	}
	return got
}

func codeElement(code string) string {
	if code == "" {
		return ""
	}
	return "<Code>" + code + "</Code>"
}

// unchanged finds the one object that was there, as it was, and nothing beside it.
func (w *world) unchanged() {
	w.t.Helper()
	if got := w.wants(shot{method: "GET", path: "/" + bucket + "/kept"}, 200, ""); got.body != kept {
		w.t.Errorf("the object that was there has changed: %.100q", got.body)
	}
	list := w.wants(shot{method: "GET", path: "/" + bucket, query: url.Values{"list-type": {"2"}}.Encode()}, 200, "")
	if n := bytes.Count([]byte(list.body), []byte("<Key>")); n != 1 {
		w.t.Errorf("got %d objects, want the one that was there: %s", n, list.body)
	}
}

func (w *world) dial() net.Conn {
	w.t.Helper()
	conn, err := net.Dial("tcp", w.addr)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
	return conn
}

// exchange writes bytes and reads answers until the gateway closes the connection.
// Bytes that nobody takes any more are no failure.
func (w *world) exchange(raw string) (answers []answer) {
	w.t.Helper()
	conn := w.dial()
	defer conn.Close()
	written := make(chan struct{})
	go func() {
		defer close(written)
		_, _ = io.WriteString(conn, raw)
	}()
	answers = readAnswers(conn)
	_ = conn.Close()
	<-written
	return answers
}

func readAnswers(conn net.Conn) (answers []answer) {
	in := newReader(conn)
	for {
		res, err := http.ReadResponse(in, nil)
		if err != nil {
			return answers
		}
		body, err := io.ReadAll(res.Body)
		_ = res.Body.Close()
		answers = append(answers, answer{res.StatusCode, string(body)})
		if err != nil || res.Close {
			return answers
		}
	}
}
