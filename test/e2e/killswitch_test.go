package e2e

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"
	"google.golang.org/protobuf/types/known/durationpb"

	"chatelaine/hsm"
	"chatelaine/kms"
	"chatelaine/kms/pkcs11"
	"chatelaine/kms/service"
	"chatelaine/kms/service/kmsv1"
	"chatelaine/test/e2e/harness"
)

// bound is from when the block command has returned to when the last request may
// succeed.
const bound = time.Second

// TestABlockEndsEverythingWithinASecond blocks the KEK under load on three gateways,
// with transfers that have begun long before and would go on long after.
func TestABlockEndsEverythingWithinASecond(t *testing.T) {
	s := newSite(t, 15*time.Second)
	o := newOnslaught(s)
	s.canary(0)
	for by := range s.planes { // one of them is not that of most gateways
		o.run()
		time.Sleep(1500 * time.Millisecond)
		before := o.underWay(30)
		began := time.Now()
		effect, returned := s.block(by)
		if !effect.GetComplete() || len(effect.GetGateways()) != 3 {
			t.Errorf("the command returned before it was in effect: %v", effect)
		}
		time.Sleep(bound + 2*time.Second)
		o.awaitCuts() // slow readers have some megabytes in the buffers of their sockets
		o.stop()
		for _, h := range effect.GetGateways() {
			t.Logf("%s acted %v after the command came", h.GetGateway(), h.GetTook().AsDuration().Round(time.Millisecond))
		}
		t.Logf("%d requests had succeeded; the command took %v; the last success came %v after it returned; the last upload was cut %v after, and the last reader noticed %v after",
			before, returned.Sub(began).Round(time.Millisecond), o.last().Sub(returned).Round(time.Millisecond),
			o.cut[http.MethodPut].Sub(returned).Round(time.Millisecond), o.cut[http.MethodGet].Sub(returned).Round(time.Millisecond))
		o.check(returned, before)
		for i := range s.replicas {
			s.send(i, o.get()).want(http.StatusForbidden)
		}
		s.unblock(1 - by)
		for i := range s.replicas {
			awaitServing(t, s, i, o.get(), 3*time.Second)
		}
	}
	s.survive(o)
}

// canary runs one, and prints what it measured.
func (s *site) canary(i int) {
	s.t.Helper()
	var answer *kmsv1.CanaryResponse
	err := s.ask(i, func(c *service.Clients) (err error) {
		answer, err = c.Blocks.Canary(s.t.Context(), &kmsv1.CanaryRequest{})
		return err
	})
	if err != nil || !answer.GetComplete() || len(answer.GetGateways()) != 3 || answer.GetWorst().AsDuration() > bound {
		s.t.Errorf("a canary: got %v, %v", answer, err)
	}
	s.t.Logf("a canary was in effect at three gateways after %v", answer.GetWorst().AsDuration().Round(time.Millisecond))
}

// survive takes one part after the other away. The others serve.
func (s *site) survive(o *onslaught) {
	s.t.Helper()
	for member := range s.etcd.Endpoints {
		began := time.Now()
		stopped := make(chan struct{})
		go func() { defer close(stopped); s.etcd.Stop(member) }() // it serves nobody from the first moment, and takes a while to end
		for i := range s.replicas {
			s.serves(i, fmt.Sprintf("etcd member %d is gone", member), began)
		}
		<-stopped
		if err := s.etcd.Start(member); err != nil {
			s.t.Fatal(err)
		}
	}
	began := time.Now()
	s.planes[0].Kill()
	for i := range s.replicas {
		s.serves(i, "a KMS is gone", began)
	}
	began = time.Now()
	s.replicas[0].Kill()
	for i := 1; i < len(s.replicas); i++ {
		s.serves(i, "a gateway is gone", began)
	}
}

// serves waits until a gateway can make a bucket, which needs all the parts, and put
// something there.
func (s *site) serves(i int, without string, since time.Time) {
	s.t.Helper()
	name := newName()
	awaitServing(s.t, s, i, harness.Request{Method: http.MethodPut, Path: "/" + name}, 20*time.Second)
	awaitServing(s.t, s, i, harness.Request{Method: http.MethodPut, Path: "/" + name + "/new", Body: bytes.NewReader([]byte("new")), Size: 3}, 20*time.Second)
	s.t.Logf("%s: gateway %d serves after %v", without, i, time.Since(since).Round(time.Millisecond))
}

func awaitServing(t *testing.T, s *site, i int, r harness.Request, patience time.Duration) {
	t.Helper()
	for began := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		if seeker, ok := r.Body.(io.Seeker); ok {
			_, _ = seeker.Seek(0, io.SeekStart)
		}
		a, err := trySend(t, s.replicas[i].client, r)
		if err == nil && (a.status == http.StatusOK || a.code() == "BucketAlreadyOwnedByYou") {
			return
		}
		if time.Since(began) > patience {
			t.Fatalf("gateway %d: %s %s does not succeed: %v, %+v", i, r.Method, r.Path, err, a)
		}
	}
}

// TestAPartitionedGatewayUsesNoKeyAfterItsLease cuts the lines of one gateway before
// the block.
func TestAPartitionedGatewayUsesNoKeyAfterItsLease(t *testing.T) {
	leases := []time.Duration{lease, 15 * time.Second}
	if testing.Short() {
		leases = leases[:1]
	}
	for _, lease := range leases {
		t.Run(lease.String(), func(t *testing.T) {
			t.Parallel()
			s := newSite(t, lease)
			o := newOnslaught(s)
			o.run()
			time.Sleep(time.Second)
			o.underWay(1)
			cut := time.Now()
			for _, line := range s.lines {
				line.Sever()
			}
			effect, returned := s.block(0)
			if effect.GetComplete() {
				t.Error("the command says that it is in effect at a gateway that cannot be reached")
			}
			left := effect.GetLeft().AsDuration()
			var after *kmsv1.AwaitResponse
			for deadline := time.Now().Add(left + 5*time.Second); !after.GetComplete() && time.Now().Before(deadline); {
				if err := s.ask(0, func(c *service.Clients) (err error) {
					after, err = c.Blocks.Await(t.Context(), awaitOf(effect.GetEpoch(), 10*time.Second))
					return err
				}); err != nil {
					t.Fatal(err)
				}
			}
			complete := time.Now()
			time.Sleep(bound)
			o.stop()
			t.Logf("with a lease of %v: the last success elsewhere came %v after the command returned, at the gateway that was cut off %v after it was; the command said up to %v, and its completion came after %v",
				lease, o.lastAt(0, 1).Sub(returned).Round(time.Millisecond), o.lastAt(2).Sub(cut).Round(time.Millisecond), left.Round(time.Millisecond), complete.Sub(returned).Round(time.Millisecond))
			// An answer may be on its way when the lease ends, however short the way is.
			sent, answered := o.lastSent(2), o.lastAt(2)
			if !after.GetComplete() || sent.After(complete) || answered.Sub(complete) > bound {
				t.Errorf("complete %t, and the last success was asked for %v and came %v after that", after.GetComplete(), sent.Sub(complete), answered.Sub(complete))
			}
			if sent.Sub(cut) > lease || answered.Sub(cut) > lease+bound || answered.Sub(cut) < lease/10 {
				t.Errorf("keys are used for what is asked for %v and answered %v after the line was cut, the lease is %v", sent.Sub(cut), answered.Sub(cut), lease)
			}
			if late := o.lastAt(0, 1).Sub(returned); late > bound {
				t.Errorf("a success %v after the command returned", late)
			}
		})
	}
}

// TestAKeyThatIsGoneFromTheTokenAloneIsUsedForItsTTL destroys the KEK inside the
// token, behind the back of the KMS, while requests go on.
func TestAKeyThatIsGoneFromTheTokenAloneIsUsedForItsTTL(t *testing.T) {
	const ttl = 10 * time.Second // the shortest that the KMS takes
	t.Parallel()
	k := planCluster(t, cloud{})
	k.ttl = ttl
	k.start(1)
	path := "/" + k.bucket() + "/object"
	body := contentBytes(1, 100_000)
	k.send(0, harness.Request{Method: http.MethodPut, Path: path, Body: bytes.NewReader(body), Size: int64(len(body))}).want(200)
	get := harness.Request{Method: http.MethodGet, Path: path}
	k.send(0, get).want(200)
	k.destroyInToken()
	gone := time.Now()
	var last time.Time
	for time.Since(gone) < ttl+2*time.Second {
		if k.send(0, get).status == http.StatusOK {
			last = time.Now()
		}
		time.Sleep(5 * time.Millisecond)
	}
	took := last.Sub(gone)
	t.Logf("the last success came %v after the key was gone; the TTL is %v", took.Round(time.Millisecond), ttl)
	if took > ttl || took < ttl/4 {
		t.Errorf("the key was used for %v, the TTL is %v", took, ttl)
	}
	k.send(0, get).want(http.StatusServiceUnavailable)
}

func (k *cluster) destroyInToken() {
	k.t.Helper()
	if err := os.Setenv("SOFTHSM2_CONF", k.path("softhsm2.conf")); err != nil { // t.Setenv and t.Parallel exclude each other
		k.t.Fatal(err)
	}
	p, err := pkcs11.New(k.t.Context(), pkcs11.Config{HSM: hsm.Config{
		Module: softHSM(k.t), Token: hsm.Selector{Label: "cluster"}, PIN: hsm.NewPIN("48152637"), Logger: zap.NewNop(),
	}})
	if err != nil {
		k.t.Fatal(err)
	}
	defer p.Close()
	if err := p.Destroy(k.t.Context(), kms.KeyRef{Name: "main", Version: 1}); err != nil {
		k.t.Fatal(err)
	}
}

// onslaught is load on all gateways: small requests, and transfers that take longer
// than the test.
type onslaught struct {
	*site
	path     string
	small    atomic.Int64 // small requests that have succeeded
	moving   atomic.Int64 // transfers of which some bytes have passed
	cancel   context.CancelFunc
	wait     sync.WaitGroup
	mu       sync.Mutex
	success  map[int]time.Time    // the last, by gateway
	sent     map[int]time.Time    // the last request that has succeeded, by gateway
	cut      map[string]time.Time // the last transfer, by method
	cuts     int
	finished int // long transfers that have succeeded
}

const (
	longSize  = 96 << 20
	longSpeed = 12 << 20 // bytes a second
	longEach  = 4        // transfers a gateway: half of them reads
)

func newOnslaught(s *site) *onslaught {
	s.t.Helper()
	o := &onslaught{site: s, path: "/" + s.bucket()}
	put := func(key string, size int64) {
		s.send(0, harness.Request{Method: http.MethodPut, Path: o.path + key, Body: content(1, size), Size: size}).want(200)
	}
	put("/small", 10_000)
	put("/long", longSize)
	return o
}

func (o *onslaught) get() harness.Request {
	return harness.Request{Method: http.MethodGet, Path: o.path + "/small"}
}

func (o *onslaught) run() {
	ctx, cancel := context.WithCancel(o.t.Context())
	o.cancel, o.success, o.sent = cancel, map[int]time.Time{}, map[int]time.Time{}
	o.cut, o.cuts, o.finished = map[string]time.Time{}, 0, 0
	o.small.Store(0)
	o.moving.Store(0)
	for i, r := range o.replicas {
		for n := range 4 {
			o.wait.Go(func() { o.hammer(ctx, i, r.client, n) })
		}
		for n := range longEach {
			o.wait.Go(func() { o.transfer(ctx, i, r.client, n) })
		}
	}
}

// loadPatience is how long a busy machine may take to bring load about, or to notice
// that it has ended.
const loadPatience = 20 * time.Second

// underWay waits until all transfers have begun and as many small requests as least have
// succeeded, one at each gateway among them. It returns how many.
func (o *onslaught) underWay(least int64) int64 {
	o.t.Helper()
	for deadline := time.Now().Add(loadPatience); !o.isUnderWay(least); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			o.t.Fatalf("%d requests have succeeded and %d transfers have begun in %v", o.small.Load(), o.moving.Load(), loadPatience)
		}
	}
	return o.small.Load()
}

func (o *onslaught) isUnderWay(least int64) bool {
	for i := range o.replicas {
		if o.lastAt(i).IsZero() {
			return false
		}
	}
	return o.small.Load() >= least && o.moving.Load() >= o.transfers()
}

func (o *onslaught) transfers() int64 { return int64(longEach * len(o.replicas)) }

// awaitCuts waits until each transfer has ended, or for as long as one may take. That
// they were cut is for check to say.
func (o *onslaught) awaitCuts() {
	for deadline := time.Now().Add(loadPatience); o.ended() < o.transfers() && time.Now().Before(deadline); {
		time.Sleep(10 * time.Millisecond)
	}
}

func (o *onslaught) ended() int64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return int64(o.cuts + o.finished)
}

func (o *onslaught) stop() {
	o.cancel()
	o.wait.Wait()
}

// hammer sends small requests: reads, writes and heads in turn.
func (o *onslaught) hammer(ctx context.Context, gateway int, c *harness.Client, n int) {
	for turn := 0; ctx.Err() == nil; turn++ {
		r := o.get()
		switch turn % 3 {
		case 1:
			r.Method = http.MethodHead
		case 2:
			r = harness.Request{Method: http.MethodPut, Path: fmt.Sprintf("%s/small-%d-%d", o.path, gateway, n), Body: content(2, 5000), Size: 5000}
		}
		if sent := time.Now(); succeeds(ctx, c, r) {
			o.small.Add(1)
			o.succeeded(gateway, sent)
		} else {
			time.Sleep(5 * time.Millisecond)
		}
	}
}

func succeeds(ctx context.Context, c *harness.Client, r harness.Request) bool {
	resp, err := c.Do(ctx, r)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return err == nil && resp.StatusCode == http.StatusOK
}

// transfer is a long one, at the speed of a slow client.
func (o *onslaught) transfer(ctx context.Context, gateway int, c *harness.Client, n int) {
	r, moving := harness.Request{Method: http.MethodGet, Path: o.path + "/long"}, &o.moving
	if n%2 == 1 {
		body := &slow{r: content(3, longSize), ctx: ctx, moving: moving}
		moving = nil // its answer does not count
		r = harness.Request{Method: http.MethodPut, Path: fmt.Sprintf("%s/long-%d-%d", o.path, gateway, n), Body: body, Size: longSize}
	}
	sent := time.Now()
	resp, err := c.Do(ctx, r)
	if err == nil {
		_, err = io.Copy(io.Discard, &slow{r: resp.Body, ctx: ctx, moving: moving})
		_ = resp.Body.Close()
	}
	if ctx.Err() != nil {
		return // it outlived the test
	}
	if err == nil && resp.StatusCode == http.StatusOK {
		o.mu.Lock()
		o.finished++
		o.mu.Unlock()
		o.succeeded(gateway, sent)
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.cut[r.Method] = time.Now()
	o.cuts++
}

func (o *onslaught) succeeded(gateway int, sent time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.success[gateway] = time.Now()
	if sent.After(o.sent[gateway]) {
		o.sent[gateway] = sent
	}
}

// lastSent is when the last request that has succeeded at a gateway was sent.
func (o *onslaught) lastSent(gateway int) time.Time {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.sent[gateway]
}

// lastAt is when the last request succeeded at some gateways.
func (o *onslaught) lastAt(gateways ...int) (last time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, g := range gateways {
		if at := o.success[g]; at.After(last) {
			last = at
		}
	}
	return last
}

func (o *onslaught) last() time.Time { return o.lastAt(0, 1, 2) }

// check holds what happened against the bound.
func (o *onslaught) check(returned time.Time, before int64) {
	o.t.Helper()
	if late := o.last().Sub(returned); late > bound {
		o.t.Errorf("a request succeeded %v after the command returned", late)
	}
	if before < 30 {
		o.t.Errorf("%d requests are no load", before)
	}
	if want := o.transfers(); int64(o.cuts) != want || o.finished != 0 {
		o.t.Errorf("%d of %d transfers were cut, %d have succeeded", o.cuts, want, o.finished)
	}
	if late := o.cut[http.MethodPut].Sub(returned); late > bound {
		o.t.Errorf("an upload was cut %v after the command returned", late)
	}
}

// slow passes bytes on at longSpeed. It counts itself once some have passed.
type slow struct {
	r      io.Reader
	ctx    context.Context //nolint:containedctx // that of the one request
	moving *atomic.Int64
}

// Read implements io.Reader.
func (s *slow) Read(p []byte) (int, error) {
	if err := s.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := s.r.Read(p[:min(len(p), 64<<10)])
	if s.moving != nil && n > 0 {
		s.moving.Add(1)
		s.moving = nil
	}
	time.Sleep(time.Duration(n) * time.Second / longSpeed)
	return n, err
}

func awaitOf(epoch uint64, wait time.Duration) *kmsv1.AwaitRequest {
	return &kmsv1.AwaitRequest{Epoch: epoch, Wait: durationpb.New(wait)}
}
