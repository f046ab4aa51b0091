package main

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"chatelaine/test/e2e/harness"
)

// objects is how many different objects a cell puts or gets: enough that they are not
// one, few enough that they fit into memory.
func (c cell) objects() int64 { return min(256, max(c.concurrency, (256<<20)/c.size)) }

func (t *target) request(c cell, n int64, pattern *harness.Pattern) harness.Request {
	r := harness.Request{Method: c.operation, Path: fmt.Sprintf("/%s/%d/%d", t.bucket, c.size, n%c.objects())}
	if c.operation == http.MethodPut {
		r.Body, r.Size = pattern.Reader(c.size), c.size
	}
	return r
}

// prepare stores what a cell is to read.
func (t *target) prepare(ctx context.Context, c cell) error {
	if c.operation != http.MethodGet {
		return nil
	}
	pattern, put := harness.NewPattern(1), c
	put.operation = http.MethodPut
	for n := t.stored[c.size]; n < c.objects(); n++ {
		if _, err := t.send(ctx, t.request(put, n, pattern)); err != nil {
			return err
		}
		t.stored[c.size] = n + 1
	}
	return nil
}

// result is what a cell has shown on a target.
type result struct {
	requests int
	bytes    int64
	took     time.Duration
	p50, p99 time.Duration
	cpu      time.Duration // of the process measured
	peak     int64         // of its memory, in bytes
}

func (r result) megabytes() float64 { return float64(r.bytes) / 1e6 / r.took.Seconds() }

// run warms up and then measures a cell. What moves much at once is warm at its
// beginning, and would take long.
func (t *target) run(ctx context.Context, c cell, o *options) (result, error) {
	if c.size*c.concurrency < 256<<20 {
		if _, err := t.load(ctx, c, o.warmup); err != nil {
			return result{}, err
		}
	}
	before, err := t.cost()
	if err != nil {
		return result{}, err
	}
	r, err := t.load(ctx, c, o.duration)
	if err != nil {
		return result{}, err
	}
	after, err := t.cost()
	r.cpu, r.peak = after.cpu-before.cpu, after.peak
	return r, err
}

// cost is what the process has used: processor time in all, and the peak of memory
// since the last call.
func (t *target) cost() (r result, err error) {
	if t.pid == 0 {
		return result{}, nil
	}
	if r.cpu, err = harness.CPU(t.pid); err != nil {
		return r, err
	}
	memory, err := harness.MemoryOf(t.pid)
	if err != nil {
		return r, err
	}
	r.peak = memory.Peak
	return r, harness.ResetPeak(t.pid)
}

// load runs a cell for a while. A request that has begun is finished and counts, and
// so does its time.
func (t *target) load(ctx context.Context, c cell, long time.Duration) (result, error) {
	pattern := harness.NewPattern(2)
	var next, moved atomic.Int64
	latencies := make([][]time.Duration, c.concurrency)
	failures := make([]error, c.concurrency)
	begun := time.Now()
	var wait sync.WaitGroup
	for i := range latencies {
		wait.Go(func() {
			for time.Since(begun) < long && failures[i] == nil {
				sent := time.Now()
				var n int64
				n, failures[i] = t.send(ctx, t.request(c, next.Add(1), pattern))
				latencies[i] = append(latencies[i], time.Since(sent))
				moved.Add(max(n, c.size))
			}
		})
	}
	wait.Wait()
	r := result{took: time.Since(begun), bytes: moved.Load()}
	for _, err := range failures {
		if err != nil {
			return r, err
		}
	}
	all := slices.Concat(latencies...)
	slices.Sort(all)
	r.requests, r.p50, r.p99 = len(all), quantile(all, 50), quantile(all, 99)
	return r, nil
}

// quantile is the value that percent of a sorted list do not exceed; 0 of none.
func quantile(sorted []time.Duration, percent int) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[(len(sorted)*percent+99)/100-1]
}
