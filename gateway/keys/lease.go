package keys

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"chatelaine/kms/service/kmsv1"
)

// lease is this gateway's right to use keys.
type lease struct {
	client  *Client
	gateway string
	held    atomic.Pointer[held]
	failure atomic.Pointer[failure] // nil: the last renewal succeeded
}

// held is a lease that was given. It never changes.
type held struct {
	id    string
	sent  instant // when it was asked for
	until instant
	ttl   time.Duration
	heard uint64 // removals that were acted on, as the KMS counts them under this lease
}

type failure struct {
	at  instant
	err error
}

// quiet is how long after a failed renewal requests do not try another: that is
// keep's to do.
const quiet = time.Second

func newLease(c *Client, gateway string) *lease { return &lease{client: c, gateway: gateway} }

// valid says whether keys may be used now.
func (l *lease) valid() bool {
	h := l.held.Load()
	return h != nil && l.client.clock.now() < h.until
}

// id is what the KMS knows the lease by; empty when there is none.
func (l *lease) id() string {
	if h := l.held.Load(); h != nil {
		return h.id
	}
	return ""
}

// ttl is how long the last lease was given for; 0 when there was none.
func (l *lease) ttl() time.Duration {
	if h := l.held.Load(); h != nil {
		return h.ttl
	}
	return 0
}

// ensure returns nil when there is a lease, after asking for one if need be, or
// ErrUnavailable.
func (l *lease) ensure(ctx context.Context) error {
	if l.valid() {
		return nil
	}
	if f := l.failure.Load(); f != nil && l.client.clock.now()-f.at < instant(quiet) {
		return fmt.Errorf("keys: without a lease: %w", f.err)
	}
	if err := l.renew(ctx); err != nil && !l.valid() {
		return fmt.Errorf("keys: getting a lease: %w", err)
	}
	if !l.valid() {
		return fmt.Errorf("keys: getting a lease: %w: the answer took too long", ErrUnavailable)
	}
	return nil
}

// replace asks for another lease in the place of one that the KMS does not know,
// unless there is another already. Until the answer comes the old one counts for
// running transfers: a KMS that was restarted is no reason to cut them.
func (l *lease) replace(ctx context.Context, id string) error {
	if l.id() != id {
		return nil
	}
	return l.renew(ctx)
}

// trouble is why the last renewal failed, or nil.
func (l *lease) trouble() error {
	if f := l.failure.Load(); f != nil {
		return f.err
	}
	return nil
}

// renew asks the KMS, once for all who want it at the same time.
func (l *lease) renew(ctx context.Context) error {
	_, err := shared(ctx, l.client, "lease", func(ctx context.Context) (struct{}, error) {
		return struct{}{}, l.ask(ctx)
	})
	if err != nil && ctx.Err() == nil {
		return translate(err, ErrUnavailable)
	}
	return err
}

// rounds bounds how often the KMS is asked at once while it has news each time.
const rounds = 8

// ask renews the lease. While the KMS tells of removals it is asked again, which says
// that they were heard: somebody may be waiting for that.
func (l *lease) ask(ctx context.Context) error {
	for range rounds {
		if news, err := l.askOnce(ctx); err != nil || !news {
			return err
		}
	}
	return nil
}

func (l *lease) askOnce(ctx context.Context) (news bool, err error) {
	sent, old := l.client.clock.now(), l.held.Load()
	if old == nil {
		old = &held{}
	}
	answer, err := l.request(ctx, old)
	if err != nil {
		l.failed(err)
		return false, err
	}
	ttl := answer.GetTtl().AsDuration()
	if ttl < time.Second {
		err := fmt.Errorf("%w: the KMS gave a lease of %v", ErrUnavailable, ttl)
		l.failed(err)
		return false, err
	}
	l.client.removed(answer.GetRemovedSpaces())
	l.client.replaced(answer.GetFull())
	l.client.heed(answer.GetRevocation(), sent)
	next := &held{id: answer.GetLeaseId(), sent: sent, until: sent + instant(ttl), ttl: ttl, heard: answer.GetRemovals()}
	l.hold(next)
	l.client.tell()
	return next.heard > 0 && (next.id != old.id || next.heard != old.heard), nil
}

// request asks one replica of the KMS. Where there are others, it is given a third of
// the lease, and one that answers and cannot give a lease is not asked again.
func (l *lease) request(ctx context.Context, old *held) (*kmsv1.RenewResponse, error) {
	roams := l.client.elsewhere != nil
	if roams && old.ttl > 0 {
		bounded, cancel := context.WithTimeout(ctx, old.ttl/3)
		defer cancel()
		ctx = bounded
	}
	counts := l.client.seals.take()
	answer, err := l.client.rpc.Renew(ctx, &kmsv1.RenewRequest{GatewayId: l.gateway, LeaseId: old.id, Heard: old.heard, Sealed: counts.messages()})
	if err != nil {
		l.client.seals.putBack(counts)
	}
	l.client.metrics.call("Renew", err)
	if err != nil && roams && wire(err) {
		l.client.elsewhere()
	}
	return answer, err
}

func (l *lease) hold(next *held) {
	old := l.held.Swap(next)
	first := old == nil
	if !first && old.id != next.id {
		l.client.hangUp() // the stream is of another lease, perhaps of another replica
	}
	if l.failure.Swap(nil) != nil || first {
		l.client.log.Info("lease held", zap.Duration("ttl", next.ttl))
	}
}

func (l *lease) failed(err error) {
	f := &failure{at: l.client.clock.now(), err: translate(err, ErrUnavailable)}
	if !errors.Is(f.err, ErrUnavailable) {
		f.err = fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	if l.failure.Swap(f) == nil {
		l.client.log.Warn("lease not renewed", zap.Error(err))
	}
}

// keep renews the lease at a third of its time, and more often while that fails.
func (l *lease) keep(ctx context.Context) {
	for ctx.Err() == nil {
		err := l.renew(ctx)
		wait := quiet / 2
		if h := l.held.Load(); err == nil && h != nil {
			wait = h.ttl / 3
		}
		wait = wait*9/10 + rand.N(wait/5) //nolint:gosec // jitter is no secret
		select {
		case <-time.After(wait):
		case <-ctx.Done():
		}
	}
}
