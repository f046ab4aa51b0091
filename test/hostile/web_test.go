package hostile

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"chatelaine/backends"
	"chatelaine/gateway"
	"chatelaine/gateway/access"
	"chatelaine/gateway/keys/keystest"
	"chatelaine/gateway/objects"
	"chatelaine/test/e2e/harness"
)

// web is a gateway over HTTP on a view, and a client for it.
type web struct {
	server *httptest.Server
	client *harness.Client
	log    *loud
}

// ready is a keyring that is always ready.
type ready struct{ *keystest.Ring }

func (ready) Ready(context.Context) error { return nil }

// loud is a log that is searched for crashes.
type loud struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *loud) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *loud) Sync() error { return nil }

// crash is what the log says of one, since it was last asked.
func (l *loud) crash() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.text.Reset()
	if text := l.text.String(); strings.Contains(text, "panic") {
		return text
	}
	return ""
}

// newWeb starts one; close its server.
func newWeb(w *world, store backends.Store) (*web, error) {
	user := harness.NewCredentials()
	w.ring.AddUser(user.AccessKeyID, user.SecretAccessKey, "ann")
	out := &loud{}
	core := zapcore.NewCore(zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()), out, zapcore.WarnLevel)
	g, err := gateway.New(gateway.Config{
		Keys: ready{w.ring}, Stores: map[string]backends.Store{"main": store}, DefaultStore: "main", BucketPrefix: "there-",
		Authorizer: access.New(access.Default(), access.NewLog(io.Discard)), Region: "us-east-1",
		Metrics: prometheus.NewRegistry(), Logger: zap.New(core),
	})
	if err != nil {
		return nil, err
	}
	server := httptest.NewUnstartedServer(g.S3())
	server.Config.ErrorLog = zap.NewStdLog(zap.New(core))
	server.Start()
	return &web{server, &harness.Client{Endpoint: server.URL, User: user, HTTP: harness.NewHTTP()}, out}, nil
}

func (w *web) do(t *trial, method, ranges string) (*http.Response, error) {
	h := http.Header{"X-Amz-Checksum-Mode": {"ENABLED"}}
	if ranges != "" {
		h.Set("Range", ranges)
	}
	path := "/" + t.s.bucket.Name + "/" + url.PathEscape(t.s.key)
	return w.client.Do(t.ctx, harness.Request{Method: method, Path: path, Header: h})
}

// get reads over HTTP: an answer that begins well must end well, or be cut.
func (w *web) get(t *trial, ranges string, want want) verdict {
	resp, err := w.do(t, http.MethodGet, ranges)
	if err != nil {
		return w.crashed(verdict{outcome: refused})
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if resp.StatusCode >= 300 {
		return w.crashed(t.refusal(resp.StatusCode == http.StatusNotFound))
	}
	if err == nil && resp.ContentLength != int64(len(body)) {
		return lie("%d bytes ended well, Content-Length said %d", len(body), resp.ContentLength)
	}
	st, span := statOf(resp)
	return w.crashed(t.judge(want, st, span, body, err))
}

// crashed makes a verdict wrong if the gateway's log has a crash.
func (w *web) crashed(v verdict) verdict {
	if text := w.log.crash(); text != "" {
		return lie("crash: %s", text)
	}
	return v
}

// statOf reads an answer's headers.
func statOf(resp *http.Response) (objects.Stat, objects.Span) {
	st := objects.Stat{Size: resp.ContentLength, Attributes: objects.Attributes{
		ContentType: resp.Header.Get("Content-Type"), CacheControl: resp.Header.Get("Cache-Control"),
		Metadata: map[string]string{"note": resp.Header.Get("X-Amz-Meta-Note")},
	}}
	span := objects.Span{Length: resp.ContentLength}
	var last int64
	if _, err := fmt.Sscanf(resp.Header.Get("Content-Range"), "bytes %d-%d/%d", &span.Offset, &last, &st.Size); err == nil {
		span.Length = last - span.Offset + 1
	}
	return st, span
}

func (t *trial) httpHead() verdict {
	resp, err := t.web.do(t, http.MethodHead, "")
	if err != nil {
		return t.web.crashed(verdict{outcome: refused})
	}
	resp.Body.Close()
	if resp.StatusCode >= 300 {
		return t.web.crashed(t.refusal(resp.StatusCode == http.StatusNotFound))
	}
	length, err := strconv.ParseInt(resp.Header.Get("Content-Length"), 10, 64)
	if err != nil {
		return lie("HEAD has no length: %v", err)
	}
	st, span := statOf(resp)
	st.Size, span.Length = length, length
	v := t.web.crashed(t.judge(all, st, span, nil, errUnread))
	if v.outcome == cut {
		v.outcome = truthful
	}
	return v
}
