package doctor

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"chatelaine/hsm"
)

// Rate is how fast the token is at something.
type Rate struct {
	Operation string        `json:"operation"` // "wrap" or "unwrap"
	Key       string        `json:"key"`
	Callers   int           `json:"callers"` // at once
	PerSecond float64       `json:"per_second"`
	Median    time.Duration `json:"median_ns"`
	P99       time.Duration `json:"p99_ns"`
}

// bucketKey is how many bytes are measured with: a wrapped bucket key's.
const bucketKey = 64

// measure measures under the last key that can be used, with one caller and with as
// many as there are sessions.
func (r *Report) measure(ctx context.Context, c task, token *hsm.Token) {
	key, ok := r.usable()
	if c.Measure == 0 {
		return
	}
	if !ok {
		mend := "say --make-key to have one made, and destroyed again"
		if c.further {
			mend = "copy the keys of the first token to this one with the vendor's tool"
		}
		r.add(Finding{Note, "speed", "there is no key to measure with", mend})
		return
	}
	for _, callers := range []int{1, r.callers(c.Config)} {
		if err := r.measureWith(ctx, token, key, callers, c.Measure); err != nil {
			r.fail("speed", err)
			return
		}
	}
	r.add(judgeRates(r.Rates, c.HSM.Deadline)...)
}

func (r *Report) usable() (hsm.Key, bool) {
	for _, k := range slices.Backward(r.Keys) {
		if k.Tested {
			return hsm.Key{Label: k.Label, Mechanism: k.Mechanism}, true
		}
	}
	return hsm.Key{}, false
}

// callers is the size of the pool that the KMS would have.
func (r *Report) callers(c Config) int {
	if c.HSM.MaxSessions > 0 {
		return c.HSM.MaxSessions
	}
	if most := r.Token.Token.MaxSessions; most != nil {
		return min(hsm.DefaultSessions, max(1, int(min(*most, hsm.DefaultSessions+3))-3))
	}
	return hsm.DefaultSessions
}

func (r *Report) measureWith(ctx context.Context, token *hsm.Token, key hsm.Key, callers int, length time.Duration) error {
	secret, aad := make([]byte, bucketKey), []byte("doctor")
	wrapped, err := token.Encrypt(ctx, key, secret, aad)
	if err != nil {
		return err
	}
	for _, op := range []struct {
		name string
		do   func() error
	}{
		{"wrap", func() error { _, err := token.Encrypt(ctx, key, secret, aad); return err }},
		{"unwrap", func() error { _, err := token.Decrypt(ctx, key, wrapped, aad); return err }},
	} {
		rate, err := measured(ctx, callers, length, op.do)
		if err != nil {
			return fmt.Errorf("measuring %s with %d callers: %w", op.name, callers, err)
		}
		rate.Operation, rate.Key = op.name, key.Label
		r.Rates = append(r.Rates, rate)
	}
	return nil
}

// measured has callers do something again and again, until the time is over or one of
// them fails.
func measured(ctx context.Context, callers int, length time.Duration, do func() error) (Rate, error) {
	ctx, cancel := context.WithTimeout(ctx, length)
	defer cancel()
	var (
		wait   sync.WaitGroup
		mu     sync.Mutex
		times  []time.Duration
		failed error
	)
	start := time.Now()
	for range callers {
		wait.Go(func() {
			took, err := repeat(ctx, do)
			mu.Lock()
			defer mu.Unlock()
			times = append(times, took...)
			if err != nil && failed == nil {
				failed = err
				cancel()
			}
		})
	}
	wait.Wait()
	elapsed := time.Since(start)
	if failed != nil {
		return Rate{}, failed
	}
	slices.Sort(times)
	return Rate{
		Callers: callers, PerSecond: float64(len(times)) / elapsed.Seconds(),
		Median: times[len(times)/2], P99: times[len(times)*99/100],
	}, nil
}

// repeat does something at least once, and until ctx ends.
func repeat(ctx context.Context, do func() error) (took []time.Duration, err error) {
	for len(took) == 0 || ctx.Err() == nil {
		start := time.Now()
		if err := do(); err != nil {
			return took, err
		}
		took = append(took, time.Since(start))
	}
	return took, nil
}
