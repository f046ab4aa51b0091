package soak

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"
)

// fault is what befalls a request on its way to the cloud.
type fault int

// The faults. Those with "after" are done by the cloud, which nobody is told.
const (
	fine fault = iota
	busyBefore
	failBefore
	cutBefore
	failAfter
	cutAfter
	halfAnswer
	halfOpen
	delay
	faultKinds
)

func (f fault) String() string {
	return [...]string{
		"fine", "503", "500", "cut before", "500 after it was done", "cut after it was done", "half an answer", "no answer", "delay",
	}[f]
}

// weather is the network before the cloud: a proxy that makes faults while it is told
// to.
type weather struct {
	server *httptest.Server

	mu     sync.Mutex
	rand   *rand.Rand
	target *url.URL
	kinds  []fault       // one of which befalls some requests; none: fine weather
	clear  chan struct{} // closed when fine weather comes

	made [faultKinds]atomic.Int64
}

// someOf is the share of requests that a fault befalls, one in so many.
const someOf = 4

func newWeather(t *testing.T, seed uint64, target string) *weather {
	t.Helper()
	w := &weather{rand: rand.New(rand.NewPCG(seed, 'w')), clear: make(chan struct{})}
	w.lead(t, target)
	w.server = httptest.NewServer(w)
	t.Cleanup(func() {
		w.set()
		w.server.CloseClientConnections()
		w.server.Close()
	})
	return w
}

// host is the address to reach the cloud at.
func (w *weather) host() string { return strings.TrimPrefix(w.server.URL, "http://") }

// lead leads to a cloud at another address.
func (w *weather) lead(t *testing.T, target string) {
	t.Helper()
	u, err := url.Parse(target)
	if err != nil {
		t.Fatal(err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.target = u
}

// set sets the kinds of faults to come; none is fine weather.
func (w *weather) set(kinds ...fault) {
	w.mu.Lock()
	defer w.mu.Unlock()
	close(w.clear)
	w.clear = make(chan struct{})
	w.kinds = kinds
}

// pick decides on a request.
func (w *weather) pick() (f fault, random int, target *url.URL, clear chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	random = w.rand.IntN(1 << 20)
	if len(w.kinds) > 0 && w.rand.IntN(someOf) == 0 {
		f = w.kinds[w.rand.IntN(len(w.kinds))]
	}
	return f, random, w.target, w.clear
}

// ServeHTTP implements http.Handler.
func (w *weather) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	f, random, target, clear := w.pick()
	w.made[f].Add(1)
	forward := (&httputil.ReverseProxy{
		Rewrite: func(p *httputil.ProxyRequest) {
			p.SetURL(target)
			p.Out.Host = p.In.Host // the host is signed
		},
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
		ErrorLog:     zap.NewStdLog(zap.NewNop()),
	}).ServeHTTP
	switch f {
	case busyBefore:
		fail(rw, http.StatusServiceUnavailable, "SlowDown")
	case failBefore:
		fail(rw, http.StatusInternalServerError, "InternalError")
	case cutBefore:
		panic(http.ErrAbortHandler)
	case failAfter:
		forward(&nowhere{header: http.Header{}}, r)
		fail(rw, http.StatusInternalServerError, "InternalError")
	case cutAfter:
		forward(&nowhere{header: http.Header{}}, r)
		panic(http.ErrAbortHandler)
	case halfAnswer:
		forward(&half{ResponseWriter: rw, left: random % 40_000}, r)
	case halfOpen:
		wait(r, clear, time.Minute)
		panic(http.ErrAbortHandler)
	case delay:
		if wait(r, nil, time.Duration(random%1500)*time.Millisecond) {
			forward(rw, r)
		}
	default:
		forward(rw, r)
	}
}

// wait waits; false when the client has gone meanwhile. What nobody waits for any more
// is not passed on: it would be done after what its sender has done since.
func wait(r *http.Request, until chan struct{}, long time.Duration) bool {
	select {
	case <-r.Context().Done():
		return false
	case <-until:
	case <-time.After(long):
	}
	return true
}

func fail(rw http.ResponseWriter, status int, code string) {
	rw.Header().Set("Content-Type", "application/xml")
	rw.WriteHeader(status)
	fmt.Fprintf(rw, "<Error><Code>%s</Code><Message>the weather</Message></Error>", code)
}

// nowhere takes an answer that nobody gets.
type nowhere struct{ header http.Header }

func (n *nowhere) Header() http.Header         { return n.header }
func (n *nowhere) Write(b []byte) (int, error) { return len(b), nil }
func (n *nowhere) WriteHeader(int)             {}

// half cuts the connection after some bytes of the body.
type half struct {
	http.ResponseWriter
	left int
}

func (h *half) Write(b []byte) (int, error) {
	n := min(len(b), h.left)
	_, _ = h.ResponseWriter.Write(b[:n])
	h.left -= n
	if n < len(b) {
		_ = http.NewResponseController(h.ResponseWriter).Flush()
		panic(http.ErrAbortHandler)
	}
	return n, nil
}

// TestWeather shows what each fault does to a request, and that fine weather ends it.
func TestWeather(t *testing.T) {
	var done atomic.Int64
	body := strings.Repeat("x", 1<<20)
	cloud := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		done.Add(1)
		_, _ = io.WriteString(w, body)
	}))
	defer cloud.Close()
	w := newWeather(t, 1, cloud.URL)
	for f, want := range map[fault]struct{ status, done int }{
		busyBefore: {503, 0}, failBefore: {500, 0}, cutBefore: {0, 0}, failAfter: {500, 1}, cutAfter: {0, 1}, halfAnswer: {0, 1},
	} {
		t.Run(f.String(), func(t *testing.T) {
			w.set(f)
			for {
				before, made := done.Load(), w.made[f].Load()
				status := statusOf(t, w.server.URL, len(body))
				if w.made[f].Load() == made {
					continue // it has not befallen this one
				}
				if got := int(done.Load() - before); status != want.status || got != want.done {
					t.Errorf("got status %d, done %d times; want %+v", status, got, want)
				}
				return
			}
		})
	}
	w.set(halfOpen)
	time.AfterFunc(100*time.Millisecond, func() { w.set() })
	for w.made[halfOpen].Load() == 0 && !w.fair() {
		statusOf(t, w.server.URL, len(body))
	}
	if got := statusOf(t, w.server.URL, len(body)); got != http.StatusOK {
		t.Errorf("in fine weather: got status %d", got)
	}
}

func (w *weather) fair() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.kinds) == 0
}

// statusOf is 0 where no whole answer came. POST is not sent twice by net/http.
func statusOf(t *testing.T, url string, size int) int {
	t.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 30 * time.Second}
	resp, err := client.Post(url, "text/plain", strings.NewReader("body"))
	if err != nil {
		return 0
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode == http.StatusOK && len(got) != size {
		return 0
	}
	return resp.StatusCode
}
