package service

import (
	"cmp"
	"context"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"
	"google.golang.org/protobuf/types/known/durationpb"

	"chatelaine/kms"
	"chatelaine/kms/service/kmsv1"
	"chatelaine/kms/service/kmsv1/kmsv1connect"
)

// blocks is the BlockService: it knows how far each revocation has come.
type blocks struct {
	manager  *kms.Manager
	leases   *leases
	board    *board
	replicas *replicas
	every    time.Duration // between two canaries; 0: none
	metrics  *Metrics
	log      *zap.Logger
}

var _ kmsv1connect.BlockServiceHandler = (*blocks)(nil)

func newBlocks(c Config, l *leases, b *board, log *zap.Logger) *blocks {
	return &blocks{
		manager: c.Manager, leases: l, board: b, replicas: newReplicas(c.Manager, l, b, log),
		every: c.Canary, metrics: c.Metrics, log: log,
	}
}

func (b *blocks) run(ctx context.Context) {
	var group sync.WaitGroup
	group.Go(func() { b.replicas.follow(ctx) })
	group.Go(func() { b.replicas.report(ctx) })
	group.Go(func() { b.schedule(ctx) })
	group.Wait()
	b.replicas.retire(ctx)
}

// progress is how far a revocation has come.
type progress struct {
	epoch    uint64
	gateways []hearing
	silent   []silent
}

type hearing struct {
	kms.Hearing
	replica string
}

// silent is a replica that has not told of its gateways.
type silent struct {
	name string
	left time.Duration
}

// complete: no gateway can act against it any more.
func (p progress) complete() bool { return len(p.silent) == 0 && p.left() == 0 }

// left is the longest that it can take until it is complete.
func (p progress) left() (most time.Duration) {
	for _, h := range p.gateways {
		if !h.Heard {
			most = max(most, h.Left)
		}
	}
	for _, s := range p.silent {
		most = max(most, s.left)
	}
	return most
}

// progress looks at this process's leases and at what others have told. Times are
// from began, for others until this process was told. The channels are closed when
// there is more to be seen.
func (b *blocks) progress(epoch uint64, began time.Time) (p progress, changed [2]<-chan struct{}) {
	p.epoch = epoch
	own, more := b.leases.hearings(epoch, began)
	for _, h := range own {
		p.gateways = append(p.gateways, hearing{h, b.replicas.name})
	}
	others, told := b.replicas.known()
	for _, o := range others {
		p.add(o, began)
	}
	return p, [2]<-chan struct{}{more, told}
}

// add takes in another replica. What it told before the revocation does not count.
func (p *progress) add(o other, began time.Time) {
	if o.Told < p.epoch {
		p.silent = append(p.silent, silent{o.Name, max(1, life(o.Lease)-time.Since(o.seen))})
		return
	}
	for _, h := range o.Gateways {
		if h.Heard {
			h.Took = max(0, o.told.Sub(began))
		} else if h.Left -= time.Since(o.seen); h.Left <= 0 {
			continue
		}
		p.gateways = append(p.gateways, hearing{h, o.Name})
	}
}

// await waits until a revocation is complete, or ctx ends or is about to.
func (b *blocks) await(ctx context.Context, epoch uint64, began time.Time) (progress, error) {
	if err := b.replicas.read(ctx); err != nil { // one whose first lease came later knows of the revocation
		return progress{}, err
	}
	if deadline, ok := ctx.Deadline(); ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, deadline.Add(-answering))
		defer cancel()
	}
	for {
		p, changed := b.progress(epoch, began)
		if p.complete() || ctx.Err() != nil {
			return p, nil
		}
		timer := time.NewTimer(p.left())
		select {
		case <-changed[0]:
		case <-changed[1]:
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// Await implements BlockService.
func (b *blocks) Await(ctx context.Context, r *kmsv1.AwaitRequest) (*kmsv1.AwaitResponse, error) {
	news, err := b.board.newest(ctx)
	if err != nil {
		return nil, fmt.Errorf("service: awaiting a revocation: %w", err)
	}
	epoch := cmp.Or(r.GetEpoch(), news.Epoch)
	bounded, cancel := context.WithTimeout(ctx, r.GetWait().AsDuration()+answering)
	defer cancel()
	p, err := b.await(bounded, epoch, news.since)
	if err != nil {
		return nil, fmt.Errorf("service: awaiting a revocation: %w", err)
	}
	return p.message(), nil
}

// soon is how long a block waits for gateways to act on it before it is answered.
const soon = time.Second

// taken waits for a block to take effect, and says how far it is. It is done whatever
// is unknown of its effect, so there is no error.
func (b *blocks) taken(ctx context.Context, began time.Time) *kmsv1.AwaitResponse {
	news, err := b.board.newest(ctx)
	var p progress
	if err == nil {
		bounded, cancel := context.WithTimeout(ctx, soon+answering)
		defer cancel()
		p, err = b.await(bounded, news.Epoch, began)
	}
	if err != nil {
		b.log.Warn("the effect of a block is not known", zap.Error(err))
		return &kmsv1.AwaitResponse{Epoch: news.Epoch, Left: durationpb.New(life(b.leases.ttl))}
	}
	b.measured("block", p)
	return p.message()
}

func (p progress) message() *kmsv1.AwaitResponse {
	return &kmsv1.AwaitResponse{
		Complete: p.complete(), Epoch: p.epoch, Left: durationpb.New(p.left()),
		Gateways: p.hearingMessages(), Silent: p.silentMessages(),
	}
}

func (p progress) hearingMessages() (out []*kmsv1.Hearing) {
	for _, h := range p.gateways {
		out = append(out, &kmsv1.Hearing{
			Gateway: h.Gateway, Peer: h.Peer, Replica: h.replica, Heard: h.Heard,
			Took: durationpb.New(h.Took), Left: durationpb.New(h.Left), Canary: string(h.Canary),
		})
	}
	return out
}

func (p progress) silentMessages() (out []*kmsv1.SilentReplica) {
	for _, s := range p.silent {
		out = append(out, &kmsv1.SilentReplica{Name: s.name, Left: durationpb.New(s.left)})
	}
	return out
}
