package service

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"google.golang.org/protobuf/types/known/durationpb"

	"chatelaine/kms"
	"chatelaine/kms/service/kmsv1"
)

// cluster is replicas of the KMS on one registry, on a fake clock.
type cluster struct {
	replicas []*Service
	stops    []func()
}

func newCluster(t *testing.T, n int) *cluster {
	t.Helper()
	first := newWorld(t, nil) // its service serves nobody
	c := &cluster{}
	for i := range n {
		manager, err := kms.NewManager(t.Context(), kms.Config{Registry: first.registry, Providers: first.providers})
		if err != nil {
			t.Fatal(err)
		}
		s, err := New(Config{Manager: manager, Logger: zap.NewNop()})
		if err != nil {
			t.Fatal(err)
		}
		s.blocks.replicas.name = string(rune('A' + i))
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() { defer close(done); _ = s.Run(ctx) }()
		stop := func() { cancel(); <-done }
		t.Cleanup(stop)
		c.replicas, c.stops = append(c.replicas, s), append(c.stops, stop)
	}
	return c
}

// lease gives a gateway a lease of a replica, as Renew does.
func (c *cluster) lease(t *testing.T, replica int, gateway, id string) string {
	t.Helper()
	s := c.replicas[replica]
	g := &gatewayAPI{
		manager: s.manager, leases: s.blocks.leases, board: s.board, replicas: s.blocks.replicas,
		removals: newRemovals(s.manager, s.blocks.leases, time.Minute, zap.NewNop()),
	}
	answer, err := g.Renew(withPeer(t.Context(), peer{name: "gw"}), &kmsv1.RenewRequest{GatewayId: gateway, LeaseId: id})
	if err != nil {
		t.Fatal(err)
	}
	return answer.GetLeaseId()
}

func (c *cluster) hear(t *testing.T, replica int, id string, canary kms.CanaryState) {
	t.Helper()
	s := c.replicas[replica]
	wantErr(t, s.blocks.leases.hear("gw", id, said{epoch: s.board.look().Epoch, at: time.Now(), canary: canary}), nil)
}

// block blocks a KEK through a replica, and says how far that was after a second.
func (c *cluster) block(t *testing.T, replica int) *kmsv1.AwaitResponse {
	t.Helper()
	began := time.Now()
	if _, err := c.replicas[replica].manager.BlockKEK(t.Context(), "main", 0, kms.Change{}); err != nil {
		t.Fatal(err)
	}
	return c.replicas[replica].blocks.taken(t.Context(), began)
}

func (c *cluster) await(t *testing.T, replica int, wait time.Duration) (*kmsv1.AwaitResponse, time.Duration) {
	t.Helper()
	began := time.Now()
	answer, err := c.replicas[replica].blocks.Await(t.Context(), waitOf(wait))
	if err != nil {
		t.Fatal(err)
	}
	return answer, time.Since(began)
}

func TestABlockIsCompleteWhenAllGatewaysOfAllReplicasHaveActed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 2)
		ids := []string{c.lease(t, 0, "gw-0", ""), c.lease(t, 1, "gw-1", ""), c.lease(t, 1, "gw-2", "")}
		time.Sleep(time.Second)
		time.AfterFunc(100*time.Millisecond, func() {
			for i, id := range ids {
				c.hear(t, min(i, 1), id, "")
			}
		})
		began := time.Now()
		effect := c.block(t, 0)
		if took := time.Since(began); !effect.GetComplete() || took > 150*time.Millisecond || len(effect.GetGateways()) != 3 {
			t.Errorf("after %v: %v", took, effect)
		}
		for _, h := range effect.GetGateways() {
			if took := h.GetTook().AsDuration(); !h.GetHeard() || took < 100*time.Millisecond || took > 150*time.Millisecond {
				t.Errorf("%s: heard %t after %v", h.GetGateway(), h.GetHeard(), took)
			}
		}
	})
}

func TestABlockSaysWhoHasNotActedAndUntilWhen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 2)
		heard, deaf := c.lease(t, 0, "gw-0", ""), c.lease(t, 1, "gw-1", "")
		time.Sleep(5 * time.Second)
		time.AfterFunc(100*time.Millisecond, func() { c.hear(t, 0, heard, "") })
		effect := c.block(t, 0)
		var waits []string
		for _, h := range effect.GetGateways() {
			if !h.GetHeard() {
				waits = append(waits, h.GetGateway())
			}
		}
		if effect.GetComplete() || strings.Join(waits, ",") != "gw-1" {
			t.Fatalf("%v", effect)
		}
		left := effect.GetLeft().AsDuration()
		if left < 8*time.Second || left > 12*time.Second {
			t.Errorf("a lease of 15 s that was given 6 s ago has %v left with the margin", left)
		}
		answer, took := c.await(t, 0, 20*time.Second)
		if !answer.GetComplete() || took > left+time.Second || took < left-time.Second {
			t.Errorf("complete %t after %v, the lease had %v left", answer.GetComplete(), took, left)
		}
		_ = deaf
	})
}

func TestAReplicaThatIsGoneIsWaitedForUntilItsLeasesAreOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 2)
		c.lease(t, 1, "gw-1", "")
		time.Sleep(time.Second)
		c.replicas[1].blocks.leases.end("gw", "no such lease")
		c.stops[1]() // it has a lease out, and says nothing any more
		effect := c.block(t, 0)
		if effect.GetComplete() || len(effect.GetSilent()) != 1 || effect.GetSilent()[0].GetName() != "B" {
			t.Fatalf("%v", effect)
		}
		answer, took := c.await(t, 0, 25*time.Second)
		if !answer.GetComplete() || took < 17*time.Second || took > life(15*time.Second) {
			t.Errorf("complete %t after %v", answer.GetComplete(), took)
		}
		time.Sleep(time.Minute)
		if _, err := c.replicas[0].blocks.Await(t.Context(), waitOf(time.Second)); err != nil {
			t.Fatal(err)
		}
		all, err := c.replicas[0].manager.Replicas(t.Context())
		if err != nil || len(all) != 0 {
			t.Errorf("the replica is remembered: %v, %v", all, err)
		}
	})
}

func TestAReplicaThatEndsInOrderIsNotWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 2)
		id := c.lease(t, 1, "gw-1", "")
		c.replicas[1].blocks.leases.end("gw", id)
		c.stops[1]()
		if effect := c.block(t, 0); !effect.GetComplete() {
			t.Errorf("%v", effect)
		}
	})
}

// TestWhoeverComesAfterABlockKnowsOfIt gives leases while a block is committed.
func TestALeaseThatIsGivenDuringABlockCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 2)
		b := c.replicas[1].blocks
		if err := b.replicas.mayLease(t.Context()); err != nil {
			t.Fatal(err)
		}
		id, err := b.leases.renew(asking{holder: "gw", gateway: "slow"}) // its answer is still to be made
		if err != nil {
			t.Fatal(err)
		}
		if effect := c.block(t, 0); effect.GetComplete() {
			t.Errorf("%v", effect)
		}
		c.hear(t, 1, id, "")
		time.Sleep(time.Second)
		if answer, _ := c.await(t, 0, time.Second); !answer.GetComplete() {
			t.Errorf("%v", answer)
		}
	})
}

func TestNoLeaseIsGivenThatOthersCannotKnowOf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 1)
		r := c.replicas[0].blocks.replicas
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		if err := r.mayLease(gone); err == nil {
			t.Error("a lease may be given without a record")
		}
		wantErr(t, r.mayLease(t.Context()), nil)
		wantErr(t, r.mayLease(gone), nil)
		time.Sleep(6 * time.Second)
		if err := r.mayLease(gone); err == nil {
			t.Error("a lease may be given under an old beat")
		}
	})
}

func TestACanaryMeasuresEachGatewayAndTouchesNothingElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 2)
		ids := []string{c.lease(t, 0, "gw-0", ""), c.lease(t, 1, "gw-1", "")}
		before := c.replicas[0].board.look()
		stop := c.sing(t, ids)
		answer, err := c.replicas[0].blocks.Canary(t.Context(), nil)
		stop()
		if err != nil || !answer.GetComplete() || len(answer.GetGateways()) != 2 {
			t.Fatalf("%v, %v", answer, err)
		}
		if worst := answer.GetWorst().AsDuration(); worst < 30*time.Millisecond || worst > 100*time.Millisecond {
			t.Errorf("worst %v, want the 30 ms that they take and a bit", worst)
		}
		after, err := c.replicas[0].board.newest(t.Context())
		if err != nil || after.General != before.General || len(after.Unusable) != 0 || after.Canary != "" {
			t.Errorf("left behind: %+v, %v", after.Revocation, err)
		}
		if n := count(t, c.replicas[0], "chatelaine_block_latency_seconds"); n != 2 {
			t.Errorf("%d latencies in the metric", n)
		}
	})
}

func TestACanaryThatSomebodyDoesNotHearFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 1)
		c.lease(t, 0, "deaf", "")
		answer, err := c.replicas[0].blocks.Canary(t.Context(), nil)
		if err != nil || answer.GetComplete() {
			t.Errorf("%v, %v", answer, err)
		}
		if after, err := c.replicas[0].board.newest(t.Context()); err != nil || len(after.Unusable) != 0 || after.Canary != "" {
			t.Errorf("left behind: %+v, %v", after.Revocation, err)
		}
	})
}

func TestOneCanaryRunsAtATimeAndACrashedOneIsTakenOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 2)
		a, b := c.replicas[0].manager, c.replicas[1].manager
		wantErr(t, a.BeginCanary(t.Context()), nil)
		wantErr(t, a.BlockCanary(t.Context()), nil)
		wantErr(t, b.BeginCanary(t.Context()), kms.ErrConflict)
		wantErr(t, b.EndCanary(t.Context()), kms.ErrConflict)
		time.Sleep(3 * time.Minute) // the first has crashed
		wantErr(t, b.BeginCanary(t.Context()), nil)
		wantErr(t, a.BlockCanary(t.Context()), kms.ErrConflict)
		wantErr(t, b.EndCanary(t.Context()), nil)
		_, err := a.RegisterBucket(t.Context(), kms.NewBucket{Name: "b", Store: "s", StoreName: "b", Owner: "o", KEK: kms.CanaryKEK})
		wantErr(t, err, kms.ErrInvalid)
	})
}

func TestCanariesRunOnASchedule(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 1)
		b := *c.replicas[0].blocks
		b.every = time.Minute
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); b.schedule(ctx) }()
		time.Sleep(10*time.Minute + 30*time.Second)
		cancel()
		<-done
		epoch := c.replicas[0].board.look().Epoch
		if runs := epoch / 3; runs < 9 || runs > 11 {
			t.Errorf("%d canaries in ten minutes", runs)
		}
	})
}

// sing has leases answer as gateways do, 30 ms after each change.
func (c *cluster) sing(t *testing.T, ids []string) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			p := c.replicas[0].board.look()
			select {
			case <-p.changed:
			case <-ctx.Done():
				return
			}
			time.Sleep(30 * time.Millisecond)
			state := kms.CanaryHeld
			if len(c.replicas[0].board.look().Unusable) > 0 {
				state = kms.CanaryEnded
			}
			for i, id := range ids {
				c.hear(t, i, id, state)
			}
		}
	}()
	return func() { cancel(); <-done }
}

// count is the number of observations of a histogram.
func count(t *testing.T, s *Service, name string) (n uint64) {
	t.Helper()
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(s.Metrics())
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			for _, m := range f.GetMetric() {
				n += m.GetHistogram().GetSampleCount()
			}
		}
	}
	return n
}

func waitOf(wait time.Duration) *kmsv1.AwaitRequest {
	return &kmsv1.AwaitRequest{Wait: durationpb.New(wait)}
}
