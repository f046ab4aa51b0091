package service

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"go.uber.org/zap"
	"google.golang.org/protobuf/types/known/durationpb"

	"chatelaine/kms"
	"chatelaine/kms/service/kmsv1"
)

// canaryLimit bounds each half of a canary: it measures, and need not wait for those
// that are not there.
const canaryLimit = 5 * time.Second

// Canary implements BlockService.
func (b *blocks) Canary(ctx context.Context, _ *kmsv1.CanaryRequest) (*kmsv1.CanaryResponse, error) {
	p, err := b.canary(ctx)
	if err != nil {
		return nil, fmt.Errorf("service: running a canary: %w", err)
	}
	out := &kmsv1.CanaryResponse{Complete: p.sung(), Gateways: p.hearingMessages()}
	var worst time.Duration
	for _, h := range p.gateways {
		worst = max(worst, h.Took)
	}
	out.Worst = durationpb.New(worst)
	return out, nil
}

// sung: each gateway held the canary's key, and could not use it any more.
func (p progress) sung() bool {
	for _, h := range p.gateways {
		if !h.Heard || h.Canary != kms.CanaryEnded {
			return false
		}
	}
	return p.complete()
}

// canary has gateways hold a key, blocks it, and measures until they have said that
// they cannot use it any more.
func (b *blocks) canary(ctx context.Context) (progress, error) {
	if err := b.manager.BeginCanary(ctx); err != nil {
		return progress{}, err
	}
	defer b.endCanary(ctx)
	if _, err := b.effective(ctx, time.Now()); err != nil {
		return progress{}, err
	}
	began := time.Now()
	if err := b.manager.BlockCanary(ctx); err != nil {
		return progress{}, err
	}
	p, err := b.effective(ctx, began)
	if err != nil {
		return progress{}, err
	}
	b.measured("canary", p)
	return p, nil
}

// effective waits for a while until the newest revocation is complete.
func (b *blocks) effective(ctx context.Context, began time.Time) (progress, error) {
	news, err := b.board.newest(ctx)
	if err != nil {
		return progress{}, err
	}
	bounded, cancel := context.WithTimeout(ctx, canaryLimit)
	defer cancel()
	return b.await(bounded, news.Epoch, began)
}

func (b *blocks) endCanary(ctx context.Context) {
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), canaryLimit)
	defer cancel()
	if err := b.manager.EndCanary(bounded); err != nil {
		b.log.Warn("canary not ended", zap.Error(err)) // the next one begins with that
	}
}

// measured puts latencies into the metrics and the log.
func (b *blocks) measured(of string, p progress) {
	for _, h := range p.gateways {
		if h.Heard {
			b.metrics.blocked(of, h.Took)
		}
	}
	if of == "canary" && !p.sung() {
		b.metrics.canaryFailures.Inc()
		b.log.Warn("a canary did not reach every gateway", zap.Int("gateways", len(p.gateways)), zap.Int("silent_replicas", len(p.silent)))
	}
}

// schedule runs a canary every so often, whichever replica comes first. A clock that
// jumps makes one come early or late by one period at most.
func (b *blocks) schedule(ctx context.Context) {
	if b.every == 0 {
		return
	}
	for ctx.Err() == nil {
		last, err := b.manager.LastCanary(ctx)
		age := time.Since(last)
		if err == nil && (age >= b.every || age < 0) {
			if _, err := b.canary(ctx); err != nil && !errors.Is(err, kms.ErrConflict) {
				b.log.Warn("canary", zap.Error(err))
			}
			age = 0
		}
		wait := min(max(b.every-age, time.Second), b.every)
		wait += rand.N(wait/10 + 1) //nolint:gosec // jitter is no secret
		select {
		case <-time.After(wait):
		case <-ctx.Done():
		}
	}
}
