package e2e

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"chatelaine/test/e2e/harness"
)

// TestNothingAcknowledgedIsLost kills the KMS and then the gateway while clients
// write, read, replace and delete, and reads back what was acknowledged: during the
// load, after each crash and after an orderly restart.
func TestNothingAcknowledgedIsLost(t *testing.T) {
	for name, make := range clouds() {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, make(t))
			l := newLoad(w)
			l.phase("undisturbed", time.Second, 0)
			l.phase("the KMS is killed", 3*time.Second, 0, func() {
				for range 2 {
					l.killKMS()
				}
			})
			l.phase("the gateway is killed", 4*time.Second, mayBreak, func() {
				w.Kill()
				w.up()
			})
			l.verify()
			w.stop()
			w.up()
			l.verify()
			w.assertDiscreet()
			t.Logf("%d writes acknowledged, %d reads verified, %d answers of 503, %d broken connections",
				l.writes.Load(), l.reads.Load(), l.busy.Load(), l.broken.Load())
		})
	}
}

// mayBreak allows connections to break.
const mayBreak = 1

// load is what clients do at once, and what they know to be stored.
type load struct {
	*world
	bucket  string
	allowed int // mayBreak or 0

	seeds                       atomic.Uint64
	writes, reads, busy, broken atomic.Int64
	workers                     []*worker
}

// worker is one client. Its keys are its own, so it knows what they may hold.
type worker struct {
	*load
	client *harness.Client
	rand   *rand.Rand
	keys   map[string]*belief
	list   []string
}

// belief is what an object may be: what was acknowledged last, or what was tried
// since and not acknowledged.
type belief struct {
	is    version
	maybe []version
}

// version is content by its seed and size; no seed means that there is no object.
type version struct {
	seed uint64
	size int
}

func newLoad(w *world) *load {
	l := &load{world: w, bucket: w.bucket()}
	for i := range 5 {
		l.workers = append(l.workers, &worker{
			load: l, client: w.client(), keys: map[string]*belief{},
			rand: rand.New(rand.NewPCG(uint64(i), 42)),
		})
	}
	return l
}

// phase runs the workers for a while, and what disturbs them meanwhile.
func (l *load) phase(name string, long time.Duration, allowed int, disturb ...func()) {
	l.t.Helper()
	l.allowed = allowed
	ctx, cancel := context.WithCancel(l.t.Context())
	before := l.writes.Load()
	var wait sync.WaitGroup
	for _, w := range l.workers {
		wait.Go(func() {
			for ctx.Err() == nil && !l.t.Failed() {
				w.step()
			}
		})
	}
	end := time.After(long)
	for _, f := range disturb {
		time.Sleep(long / 4)
		f()
		time.Sleep(long / 4)
	}
	<-end
	cancel()
	wait.Wait()
	if l.writes.Load() == before {
		l.t.Errorf("%s: nothing was written meanwhile", name)
	}
	if l.t.Failed() {
		l.t.Fatalf("while %s", name)
	}
}

// killKMS kills the KMS and waits until there is another.
func (l *load) killKMS() {
	old := l.kms()
	if err := syscall.Kill(old, syscall.SIGKILL); err != nil {
		l.t.Error(err)
		return
	}
	for deadline := time.Now().Add(stopPatience); ; time.Sleep(20 * time.Millisecond) {
		children, err := harness.Children(l.PID)
		if err == nil && len(children) == 1 && children[0] != old && l.Ready(l.t.Context()) == nil {
			return
		}
		if time.Now().After(deadline) {
			l.t.Errorf("the KMS did not come back: %v, %v", children, err)
			return
		}
	}
}

func (w *worker) step() {
	switch n := w.rand.IntN(10); {
	case n < 4 || len(w.list) == 0:
		w.put(fmt.Sprintf("w%d/%d", w.rand.Uint64(), w.seeds.Add(1)), w.rand.IntN(40_000))
	case n < 5:
		w.put(w.any(), w.rand.IntN(40_000))
	case n < 6:
		w.put(w.any(), 1<<20+w.rand.IntN(1<<20))
	case n < 7:
		w.upload(w.any())
	case n < 8:
		w.delete(w.any())
	default:
		key := w.any()
		w.check(key, w.keys[key])
	}
}

func (w *worker) any() string { return w.list[w.rand.IntN(len(w.list))] }

// believe notes that a key is about to change, and returns what to call when it is
// known that it has.
func (w *worker) believe(key string, v version) (acknowledged func()) {
	b := w.keys[key]
	if b == nil {
		b = &belief{}
		w.keys[key] = b
		w.list = append(w.list, key)
	}
	b.maybe = append(b.maybe, v)
	return func() {
		*b = belief{is: v}
		w.writes.Add(1)
	}
}

func (w *worker) newVersion(size int) version { return version{w.seeds.Add(1), size} }

func (w *worker) put(key string, size int) {
	v := w.newVersion(size)
	acknowledged := w.believe(key, v)
	if w.try(harness.Request{Method: http.MethodPut, Path: w.path(key), Body: content(v.seed, int64(size)), Size: int64(size)}) != nil {
		acknowledged()
	}
}

func (w *worker) delete(key string) {
	acknowledged := w.believe(key, version{})
	if w.try(harness.Request{Method: http.MethodDelete, Path: w.path(key)}) != nil {
		acknowledged()
	}
}

// upload is a multipart upload of three parts.
func (w *worker) upload(key string) {
	const part = 5 << 20
	v := w.newVersion(2*part + 300_000)
	created := w.try(harness.Request{Method: http.MethodPost, Path: w.path(key), Query: url.Values{"uploads": {""}}})
	if created == nil {
		return
	}
	id := between(string(created.body), "<UploadId>", "</UploadId>")
	whole := contentBytes(v.seed, v.size)
	var done strings.Builder
	for i := range 3 {
		piece := whole[i*part : min((i+1)*part, len(whole))]
		a := w.try(harness.Request{
			Method: http.MethodPut, Path: w.path(key), Body: bytes.NewReader(piece), Size: int64(len(piece)),
			Query: url.Values{"partNumber": {fmt.Sprint(i + 1)}, "uploadId": {id}},
		})
		if a == nil {
			return
		}
		fmt.Fprintf(&done, "<Part><PartNumber>%d</PartNumber><ETag>%s</ETag></Part>", i+1, a.header.Get("ETag"))
	}
	acknowledged := w.believe(key, v)
	list := "<CompleteMultipartUpload>" + done.String() + "</CompleteMultipartUpload>"
	a := w.try(harness.Request{
		Method: http.MethodPost, Path: w.path(key), Body: strings.NewReader(list), Size: int64(len(list)), Query: url.Values{"uploadId": {id}},
	})
	if a != nil && !bytes.Contains(a.body, []byte("<Error>")) {
		acknowledged()
	}
}

func between(s, before, after string) string {
	_, s, _ = strings.Cut(s, before)
	s, _, _ = strings.Cut(s, after)
	return s
}

func (w *worker) path(key string) string { return "/" + w.bucket + "/" + key }

// try sends a request and returns the answer if it was done, nil if it was not, or if
// nobody knows. What must not happen fails the test.
func (w *worker) try(r harness.Request) *answer {
	a, err := trySend(w.t, w.client, r)
	switch {
	case err != nil && w.allowed&mayBreak != 0:
		w.broken.Add(1)
		time.Sleep(10 * time.Millisecond)
	case err != nil:
		w.t.Errorf("%s %s: %v", r.Method, r.Path, err)
	case a.status == http.StatusServiceUnavailable && a.header.Get("Retry-After") != "":
		w.busy.Add(1)
		time.Sleep(10 * time.Millisecond)
	case a.status >= 300 && a.status != http.StatusNotFound:
		w.t.Errorf("%s %s: got status %d: %.300s", r.Method, r.Path, a.status, a.body)
	default:
		return a
	}
	return nil
}

// check reads an object and compares it with what it may be.
func (w *worker) check(key string, b *belief) {
	a := w.try(harness.Request{Method: http.MethodGet, Path: w.path(key)})
	if a == nil {
		return
	}
	w.reads.Add(1)
	for _, v := range append([]version{b.is}, b.maybe...) {
		if v.matches(a) {
			return
		}
	}
	w.t.Errorf("%s: got status %d and %d bytes, which is none of the versions %+v", key, a.status, len(a.body), *b)
}

func (v version) matches(a *answer) bool {
	if v.seed == 0 || a.status == http.StatusNotFound {
		return v.seed == 0 && a.status == http.StatusNotFound
	}
	return len(a.body) == v.size && sameBytes(bytes.NewReader(a.body), content(v.seed, int64(v.size))) == nil
}

// verify reads everything back, when all is well.
func (l *load) verify() {
	l.t.Helper()
	l.allowed = 0
	busy := l.busy.Load()
	var wait sync.WaitGroup
	for _, w := range l.workers {
		w.client = l.client()
		wait.Go(func() {
			for key, b := range w.keys {
				w.check(key, b)
			}
		})
	}
	wait.Wait()
	if l.busy.Load() != busy {
		l.t.Error("not everything could be read back: 503")
	}
}

func TestBeliefsTellWhatIsWrong(t *testing.T) {
	v := version{3, 100}
	right := &answer{status: 200, body: contentBytes(3, 100)}
	for name, a := range map[string]*answer{
		"other content": {status: 200, body: contentBytes(4, 100)},
		"short":         {status: 200, body: contentBytes(3, 99)},
		"gone":          {status: 404},
	} {
		if v.matches(a) {
			t.Errorf("%s: taken for right", name)
		}
	}
	if !v.matches(right) || (version{}).matches(right) {
		t.Error("what is there is not recognised")
	}
}
