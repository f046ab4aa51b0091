package hostile

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime/debug"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"

	"chatelaine/backends/s3store"
	"chatelaine/gateway/keys"
	"chatelaine/gateway/keys/keystest"
	"chatelaine/gateway/objects"
	"chatelaine/test/servers"
)

var wireAttacks = flag.Int("wire-attacks", 200, "how many random attacks on HTTP answers")

// sent is an answer of the store's on its way to the gateway. What is not said in
// header is not sent.
type sent struct {
	request *http.Request
	status  int
	header  http.Header
	body    []byte
	declare int64 // Content-Length; below 0, none is said
	slow    bool
	chunked bool
	after   []byte // follows the body, beyond what was declared
	raw     []byte // goes out in place of all that
}

// write puts the answer on a connection and closes it.
func (s *sent) write(c net.Conn) {
	defer c.Close()
	if s.raw != nil {
		_, _ = c.Write(s.raw) // whether it was read is the gateway's affair
		return
	}
	var head bytes.Buffer
	fmt.Fprintf(&head, "HTTP/1.1 %d %s\r\n", s.status, http.StatusText(s.status))
	s.header.Del("Content-Length")
	s.header.Del("Transfer-Encoding")
	switch {
	case s.chunked:
		s.header.Set("Transfer-Encoding", "chunked")
	case s.declare >= 0:
		s.header.Set("Content-Length", strconv.FormatInt(s.declare, 10))
	}
	_ = s.header.Write(&head)
	head.WriteString("\r\n")
	body := s.body
	if s.chunked {
		body = fmt.Appendf(nil, "%x\r\n%s\r\n0\r\n\r\n", len(body), body)
	}
	if s.request.Method == http.MethodHead {
		body = nil
	}
	out := append(append(head.Bytes(), body...), s.after...)
	for step := 1; s.slow && len(out) > 0; step = step*3 + 1 {
		n := min(step, len(out))
		if _, err := c.Write(out[:n]); err != nil {
			return
		}
		out = out[n:]
		time.Sleep(time.Millisecond) // it is the provider that is slow
	}
	_, _ = c.Write(out)
}

// wire is a proxy before a store that changes answers about one object.
type wire struct {
	server *httptest.Server
	target string // address of the store
	client *http.Client
	attack atomic.Pointer[wireAttack]
}

type wireAttack struct {
	path   string
	change func(*sent)
	struck atomic.Int64
}

func newWire(target string) *wire {
	w := &wire{target: target, client: &http.Client{
		Transport:     &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 16},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	w.server = httptest.NewServer(w)
	return w
}

func (w *wire) close() {
	w.server.CloseClientConnections()
	w.server.Close()
	w.client.CloseIdleConnections()
}

// ServeHTTP passes a request on and its answer back. The signature is over the host that
// the gateway knows, so that is kept.
func (w *wire) ServeHTTP(out http.ResponseWriter, r *http.Request) {
	passed := r.Clone(r.Context())
	passed.URL.Scheme, passed.URL.Host, passed.RequestURI = "http", w.target, ""
	resp, err := w.client.Do(passed)
	if err != nil {
		http.Error(out, err.Error(), http.StatusBadGateway)
		return
	}
	defer resp.Body.Close()
	a := w.attack.Load()
	if a == nil || r.URL.Path != a.path || (r.Method != http.MethodGet && r.Method != http.MethodHead) {
		for name, values := range resp.Header {
			out.Header()[name] = values
		}
		out.WriteHeader(resp.StatusCode)
		_, _ = io.Copy(out, resp.Body) // whoever asked has gone
		return
	}
	a.struck.Add(1)
	w.alter(out, resp, a)
}

func (w *wire) alter(out http.ResponseWriter, resp *http.Response, a *wireAttack) {
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return
	}
	s := &sent{request: resp.Request, status: resp.StatusCode, header: resp.Header.Clone(), body: body, declare: resp.ContentLength}
	a.change(s)
	conn, _, err := out.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	s.write(conn)
}

// wireKind is a way to attack an answer.
type wireKind struct {
	name  string
	older bool
	make  func(g *gen) func(*sent)
}

func wireKinds(elsewhere string) []wireKind {
	return append(wireHeads(elsewhere), wireBodies()...)
}

// heads are attacks on status and headers.
func wireHeads(elsewhere string) []wireKind {
	set := func(name, header string, values ...string) wireKind {
		return wireKind{name: name, make: func(g *gen) func(*sent) {
			value := values[g.IntN(len(values))]
			return func(s *sent) {
				if s.header.Del(header); value != "" {
					s.header.Set(header, value)
				}
			}
		}}
	}
	return []wireKind{
		{name: "another status", make: func(g *gen) func(*sent) {
			status := []int{200, 201, 204, 206, 300, 304, 400, 403, 404, 412, 416, 500, 503}[g.IntN(13)]
			return func(s *sent) { s.status = status }
		}},
		set("range lied about", "Content-Range", "", "bytes 0-0/1", "bytes 0-99/100", "bytes 5-4/100", "bytes */100", "bytes 0-16383/300288", "garbage",
			"bytes 16-100015/100704", "bytes 0-99999/*", "bytes -5-7/100", "bytes 0-9223372036854775807/9223372036854775808"),
		{name: "range moved", make: func(g *gen) func(*sent) {
			by := g.either(100_000)
			return func(s *sent) {
				var first, last, size int64
				if _, err := fmt.Sscanf(s.header.Get("Content-Range"), "bytes %d-%d/%d", &first, &last, &size); err == nil {
					s.header.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", first+by, last+by, size+max(by, 0)))
				} else {
					s.header.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", by, by+int64(len(s.body))-1, max(by, 0)+int64(len(s.body))))
				}
			}
		}},
		{name: "length lied about", make: func(g *gen) func(*sent) {
			by := g.either(50_000)
			return func(s *sent) { s.declare = max(0, s.declare+by) }
		}},
		{name: "no length", make: func(g *gen) func(*sent) {
			chunked, cut := g.IntN(2) == 0, g.near(50_000)
			return func(s *sent) {
				s.declare, s.chunked = -1, chunked
				s.body = s.body[:max(0, len(s.body)-int(cut))]
			}
		}},
		set("metadata", "X-Amz-Meta-Cho1", "", "1.", "text", "2.AAAA", "1.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"),
		{name: "metadata doubled", make: func(g *gen) func(*sent) {
			other, first := g.other().now.stored.envelope(), g.IntN(2) == 0
			return func(s *sent) {
				both := []string{s.header.Get("X-Amz-Meta-Cho1"), other}
				if first {
					both[0], both[1] = both[1], both[0]
				}
				s.header["X-Amz-Meta-Cho1"] = both
			}
		}},
		{name: "metadata of another object", make: func(g *gen) func(*sent) {
			other := g.other().now.stored.envelope()
			return func(s *sent) { s.header.Set("X-Amz-Meta-Cho1", other) }
		}},
		set("ETag", "Etag", "", `""`, `"x"`, `"00000000000000000000000000000000"`, `W/"weak"`),
		set("encoding", "Content-Encoding", "gzip", "deflate", "aws-chunked", "identity", "br"),
		set("checksum", "X-Amz-Checksum-Crc32c", "AAAAAA==", "x"),
		set("redirect", "Location", elsewhere),
		{name: "redirected elsewhere", make: func(g *gen) func(*sent) {
			status := []int{301, 302, 303, 307, 308}[g.IntN(5)]
			return func(s *sent) {
				s.status = status
				s.header.Set("Location", elsewhere+s.request.URL.Path)
			}
		}},
		{name: "no HTTP", make: func(g *gen) func(*sent) {
			all := []string{"", "\r\n\r\n", "HTTP/1.1", "HTTP/1.1 200 OK\r\n", "SSH-2.0-x\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef", "HTTP/1.1 99999 x\r\n\r\n"}
			raw := []byte(all[g.IntN(len(all))])
			return func(s *sent) { s.raw = append([]byte{}, raw...) }
		}},
	}
}

// bodies are attacks on what follows the headers.
func wireBodies() []wireKind {
	return []wireKind{
		{name: "half an answer", make: func(g *gen) func(*sent) {
			part := g.Float64()
			return func(s *sent) { s.body = s.body[:int(float64(len(s.body))*part)] }
		}},
		{name: "slowly", make: func(*gen) func(*sent) { return func(s *sent) { s.slow = true } }},
		{name: "an error for a body", make: func(g *gen) func(*sent) {
			text := []byte("<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>InternalError</Code><Message>We encountered an internal error.</Message></Error>")
			stripped := g.IntN(2) == 0
			return func(s *sent) {
				s.body, s.declare = text, int64(len(text))
				if s.header.Del("Content-Range"); stripped {
					s.header.Del("X-Amz-Meta-Cho1")
				}
				s.status = http.StatusOK
			}
		}},
		{name: "body flipped", make: func(g *gen) func(*sent) {
			part, mask := g.Float64(), g.mask()
			return func(s *sent) {
				if n := len(s.body); n > 0 {
					s.body[int(float64(n)*part)] ^= mask
				}
			}
		}},
		{name: "another answer behind", make: func(g *gen) func(*sent) {
			o := g.other().now.stored
			return func(s *sent) {
				s.after = fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nX-Amz-Meta-Cho1: %s\r\nContent-Length: %d\r\n\r\n%s", o.envelope(), o.bytes.size(), o.bytes.bytes())
			}
		}},
		{name: "another range", make: func(g *gen) func(*sent) {
			by, whole := g.either(100_000), g.s.now.stored.bytes
			return func(s *sent) {
				body := whole.cut(max(0, by), int64(len(s.body))).bytes()
				s.body = append(body, make([]byte, len(s.body)-len(body))...)
			}
		}},
		{name: "all for a range", make: func(g *gen) func(*sent) {
			whole, status := g.s.now.stored.bytes.bytes(), []int{200, 206}[g.IntN(2)]
			return func(s *sent) {
				s.body, s.declare, s.status = whole, int64(len(whole)), status
				s.header.Del("Content-Range")
			}
		}},
		{name: "another object", make: func(g *gen) func(*sent) { return impostor(g.other().now) }},
		{name: "version before", older: true, make: func(g *gen) func(*sent) { return impostor(g.s.old) }},
	}
}

// impostor answers about another object, with the range that was asked for.
func impostor(v *version) func(*sent) {
	return func(s *sent) {
		s.header.Set("X-Amz-Meta-Cho1", v.stored.envelope())
		size := v.stored.bytes.size()
		var first, last, total int64
		if _, err := fmt.Sscanf(s.header.Get("Content-Range"), "bytes %d-%d/%d", &first, &last, &total); err != nil {
			s.body, s.declare = v.stored.bytes.bytes(), size
			return
		}
		s.body = v.stored.bytes.cut(first, last-first+1).bytes()
		s.declare = int64(len(s.body))
		s.header.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", first, first+s.declare-1, size))
	}
}

// wirePaths are those that read from a store alone.
func wirePaths() []path {
	return []path{
		{"GET", func(t *trial) verdict { return t.get(objects.GetRequest{Checksums: t.IntN(2) == 0}, all) }},
		{"GET range", (*trial).getRange},
		{"GET part", (*trial).getPart},
		{"HEAD", (*trial).head},
		{"HEAD checksums", func(t *trial) verdict { return t.stat(objects.GetRequest{Checksums: true}, all) }},
		{"attributes", (*trial).attributes},
	}
}

// newWireWorld is a world with fewer objects in a real store.
func newWireWorld(ctx context.Context, store *s3store.Store) (*world, error) {
	w := &world{cloud: newCloud(), ring: keystest.New(), buckets: map[string]keys.Bucket{}}
	s, err := w.service(store)
	if err != nil {
		return nil, err
	}
	if err := s.CreateBucket(ctx, "ann", plainBucket); err != nil {
		return nil, err
	}
	if w.buckets[plainBucket], err = s.Bucket(ctx, plainBucket); err != nil {
		return nil, err
	}
	m := &maker{world: w, ctx: ctx, s: s, from: store}
	for i, size := range []int64{0, 1, 16384, 100_000, 300_000} {
		sub := &subject{name: fmt.Sprint("single of ", size), bucket: w.buckets[plainBucket], key: fmt.Sprint("single-", size)}
		sub.old = m.put(sub, size, i%2 == 0)
		sub.now = m.put(sub, size, i%2 == 0)
		w.subjects = append(w.subjects, sub)
	}
	for key, lengths := range map[string][]int64{"part": {20_000}, "parts": {large, 40_000}} {
		sub := &subject{name: key, bucket: w.buckets[plainBucket], key: key}
		sub.old = m.upload(sub, []int{1, 2}, lengths, false)
		sub.now = m.upload(sub, []int{1, 2}, lengths, false)
		w.subjects = append(w.subjects, sub)
	}
	return w, m.err
}

// siege is a number of attacks on a wire.
type siege struct {
	t         *testing.T
	w         *world
	s3        *servers.S3
	elsewhere string
	seed      uint64
	tally     *tally
	next      atomic.Int64
	tried     atomic.Int64
	fails     atomic.Int64
}

func storeAt(s *servers.S3, endpoint string) (*s3store.Store, error) {
	return s3store.New(s3store.Config{
		Endpoint: endpoint, Region: s.Region, PathStyle: true, AccessKeyID: s.AccessKeyID, SecretAccessKey: s3store.NewSecret(s.SecretAccessKey),
		Stall: 5 * time.Second,
	})
}

// worker has a wire of its own.
func (c *siege) worker(ctx context.Context) error {
	w := newWire(c.s3.Endpoint[len("http://"):])
	defer w.close()
	store, err := storeAt(c.s3, w.server.URL)
	if err != nil {
		return err
	}
	defer store.Close()
	for c.fails.Load() == 0 && int(c.tried.Load()) < *wireAttacks {
		i := int(c.next.Add(1)) - 1
		if err := c.try(ctx, w, store, i); err != nil {
			return err
		}
	}
	return nil
}

func (c *siege) try(ctx context.Context, w *wire, store *s3store.Store, i int) error {
	g := &gen{Rand: rand.New(rand.NewPCG(c.seed, uint64(i))), w: c.w}
	all, ways := wireKinds(c.elsewhere), wirePaths()
	k, p := all[i%len(all)], ways[g.IntN(len(ways))]
	g.s = c.w.subjects[g.IntN(len(c.w.subjects))]
	service, err := c.w.service(store)
	if err != nil {
		return err
	}
	t := &trial{gen: g, ctx: ctx, kind: kind{name: k.name, older: k.older}, service: service}
	if g.IntN(2) == 0 {
		_, _, _ = service.Head(ctx, objects.GetRequest{Bucket: g.s.bucket, Key: g.s.key, Checksums: true}) // to be remembered
	}
	a := &wireAttack{path: "/" + g.s.bucket.StoreName + "/" + g.s.key, change: k.make(g)}
	w.attack.Store(a)
	v := t.over(p)
	w.attack.Store(nil)
	if a.struck.Load() == 0 && v.outcome != wrong {
		return nil
	}
	c.tried.Add(1)
	c.tally.add("wire: "+k.name, p.name, v.outcome)
	if v.outcome == wrong {
		c.fails.Add(1)
		c.t.Errorf("seed %d, attack %d: %s to %s over %s: %s", c.seed, i, k.name, g.s.name, p.name, v.why)
	}
	return nil
}

// over goes a path. A crash is wrong, and so is what does not end.
func (t *trial) over(p path) (v verdict) {
	ctx, cancel := context.WithTimeout(t.ctx, patience)
	defer cancel()
	t.ctx = ctx
	defer func() {
		if r := recover(); r != nil {
			v = lie("crash: %v\n%s", r, debug.Stack())
		}
		if ctx.Err() != nil {
			v = lie("it does not end")
		}
	}()
	return p.run(t)
}

// TestAttacksOnTheWire attacks between the gateway and a MinIO.
func TestAttacksOnTheWire(t *testing.T) {
	if testing.Short() {
		t.Skip("needs a MinIO")
	}
	defer zap.RedirectStdLog(zap.NewNop())() // net/http prints what a provider says unasked
	minio := servers.MinIO(t)
	honest, err := storeAt(minio, minio.Endpoint)
	if err != nil {
		t.Fatal(err)
	}
	defer honest.Close()
	w, err := newWireWorld(t.Context(), honest)
	if err != nil {
		t.Fatal(err)
	}
	var visitors atomic.Int64
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { visitors.Add(1) }))
	defer elsewhere.Close()
	c := &siege{t: t, w: w, s3: minio, elsewhere: elsewhere.URL, seed: cmp.Or(*seed, uint64(time.Now().UnixNano())), tally: newTally()}
	var running sync.WaitGroup
	for range 8 { // most wait for tries to be repeated
		running.Go(func() {
			if err := c.worker(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	running.Wait()
	t.Logf("seed %d%s", c.seed, c.tally)
	if n := visitors.Load(); n > 0 {
		t.Errorf("%d requests went where the provider sent them", n)
	}
	if name, n := c.tally.least(); *wireAttacks >= 12_000 && n < 500 {
		t.Errorf("%q was tried %d times, want 500", name, n)
	}
}

// TestAnAnswerThatIsNotAttackedArrivesAsItIs sends one as it came.
func TestAnAnswerThatIsNotAttackedArrivesAsItIs(t *testing.T) {
	s := &sent{request: &http.Request{Method: http.MethodGet}, status: 200, header: http.Header{"X": {"y"}}, body: []byte("body"), declare: 4}
	near, far := net.Pipe()
	go s.write(far)
	resp, err := http.ReadResponse(bufio.NewReader(near), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if string(body) != "body" || (err != nil && !errors.Is(err, io.EOF)) || resp.Header.Get("X") != "y" {
		t.Errorf("got %q, %v and %v", body, resp.Header, err)
	}
}
