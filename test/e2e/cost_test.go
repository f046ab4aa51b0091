package e2e

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"fmt"
	"net/http"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"chatelaine/test/e2e/harness"
)

const (
	gib = int64(1) << 30
	mib = int64(1) << 20
)

// transfer puts or gets one object of that size and throws away what it gets.
func transfer(ctx context.Context, c *harness.Client, method, path string, pattern *harness.Pattern, size int64) error {
	r := harness.Request{Method: method, Path: path}
	if method == http.MethodPut {
		r.Body, r.Size = pattern.Reader(size), size
	}
	resp, err := c.Do(ctx, r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	n, err := harness.Drain(resp.Body)
	switch {
	case err != nil:
		return err
	case resp.StatusCode != http.StatusOK:
		return fmt.Errorf("%s %s: status %d", method, path, resp.StatusCode)
	case method == http.MethodGet && n != size:
		return fmt.Errorf("%s %s: got %d bytes, want %d", method, path, n, size)
	}
	return nil
}

// TestMemoryIsBoundedByTheNumberOfTransfers runs 32 transfers of 256 MiB at once, and of
// 1 GiB in `make long`: either is far more than the memory that is allowed.
func TestMemoryIsBoundedByTheNumberOfTransfers(t *testing.T) {
	large(t)
	const transfers = 32
	limit, size := 64*mib+transfers*2*mib, 256*mib
	if long() {
		size = gib
	}
	pattern := harness.NewPattern(1)
	for _, tt := range []struct {
		method string
		cloud  func(t *testing.T) cloud
	}{
		{http.MethodPut, newSink},
		{http.MethodGet, func(*testing.T) cloud { return cloud{} }},
	} {
		t.Run(tt.method, func(t *testing.T) {
			w := newWorld(t, tt.cloud(t))
			path := "/" + w.bucket() + "/object"
			if tt.method == http.MethodGet {
				if err := transfer(t.Context(), w.client(), http.MethodPut, path, pattern, size); err != nil {
					t.Fatal(err)
				}
			}
			if err := harness.ResetPeak(w.PID); err != nil {
				t.Fatal(err)
			}
			begun := time.Now()
			atOnce(t, transfers, func() error { return transfer(t.Context(), w.client(), tt.method, path, pattern, size) })
			memory, err := harness.MemoryOf(w.PID)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%d transfers of %d MiB in %v: peak of memory %d MiB, allowed are %d MiB",
				transfers, size/mib, time.Since(begun).Round(time.Second), memory.Peak/mib, limit/mib)
			if memory.Peak > limit {
				t.Errorf("got a peak of %d bytes, want at most %d", memory.Peak, limit)
			}
		})
	}
}

// TestMemoryIsBoundedForManySmallTransfers puts small objects from 32 clients at
// once, for which buffers of a large object's size would be too much.
func TestMemoryIsBoundedForManySmallTransfers(t *testing.T) {
	large(t)
	const transfers, rounds = 32, 60
	limit := 64*mib + transfers*2*mib
	pattern := harness.NewPattern(2)
	for _, size := range []int64{4 << 10, mib} {
		t.Run(fmt.Sprintf("%d KiB", size>>10), func(t *testing.T) {
			w := newWorld(t, newSink(t))
			path := "/" + w.bucket() + "/object"
			atOnce(t, transfers, func() error { return putMany(t.Context(), w.client(), path, pattern, size, rounds) })
			memory, err := harness.MemoryOf(w.PID)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%d objects of %d KiB, %d at once: peak of memory %d MiB, allowed are %d MiB",
				transfers*rounds, size>>10, transfers, memory.Peak/mib, limit/mib)
			if memory.Peak > limit {
				t.Errorf("got a peak of %d bytes, want at most %d", memory.Peak, limit)
			}
		})
	}
}

func putMany(ctx context.Context, c *harness.Client, path string, pattern *harness.Pattern, size int64, rounds int) error {
	for range rounds {
		resp, err := c.Do(ctx, harness.Request{Method: http.MethodPut, Path: path, Body: pattern.Reader(size), Size: size})
		if err != nil {
			return err
		}
		_, err = harness.Drain(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusOK {
			return fmt.Errorf("PUT %s: status %d, error %w", path, resp.StatusCode, err)
		}
	}
	return nil
}

// atOnce calls f many times at once and waits for all.
func atOnce(t *testing.T, n int, f func() error) {
	t.Helper()
	var wait sync.WaitGroup
	for range n {
		wait.Go(func() {
			if err := f(); err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	if t.Failed() {
		t.FailNow()
	}
}

// TestAGigabyteCostsLittleProcessorTime measures the gateway's process alone, between
// a client and a MinIO. What it finds is divided by how much slower than usual the
// processor is at that moment, as the neighbours of a virtual machine make it. A
// median of five runs in a row counts; while it is above the bound there are more.
func TestAGigabyteCostsLittleProcessorTime(t *testing.T) {
	large(t)
	const limit, runs, most = 1.1, 5, 40 // seconds per 10^9 bytes; runs of a median, and of all
	w := newWorld(t, onMinIO(t))
	path := "/" + w.bucket() + "/object"
	pattern := harness.NewPattern(1)
	if err := transfer(t.Context(), w.client(), http.MethodPut, path, pattern, gib); err != nil {
		t.Fatal(err)
	}
	for _, method := range []string{http.MethodPut, http.MethodGet} {
		t.Run(method, func(t *testing.T) {
			var raw, costs []float64
			for len(costs) < runs || median(costs[len(costs)-runs:]) > limit && len(costs) < most {
				slow, before := slowness(t), cpu(t, w)
				if err := transfer(t.Context(), w.client(), method, path, pattern, gib); err != nil {
					t.Fatal(err)
				}
				used := (cpu(t, w) - before).Seconds() / (float64(gib) / 1e9)
				raw = append(raw, used)
				costs = append(costs, used/((slow+slowness(t))/2))
			}
			got := median(costs[len(costs)-runs:])
			t.Logf("%.2f s/GB, a median of %.2f in the last %d; as measured, on a processor that others slow down, %.2f; allowed are %.1f",
				costs, got, runs, raw, limit)
			if got > limit {
				t.Errorf("got %.2f s/GB, want at most %.1f", got, limit)
			}
		})
	}
	w.do(harness.Request{Method: http.MethodDelete, Path: path}).want(http.StatusNoContent)
}

// median is the middle of an odd number of values.
func median(values []float64) float64 {
	return slices.Sorted(slices.Values(values))[len(values)/2]
}

// slowness is how many times longer than usual the processor takes for AES-256-GCM;
// 1 where it takes as long, or less: a faster machine gets no harder limit.
func slowness(t *testing.T) float64 {
	t.Helper()
	const usual = 0.25 // seconds per 10^9 bytes, on an idle machine of the class that the limit is for
	block, err := aes.NewCipher(make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	const chunk, batch, batches = 16384, 64, 128
	from, to, nonce := make([]byte, batch*chunk), make([]byte, batch*(chunk+16)), make([]byte, 12)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before := threadTime(t)
	for range batches {
		copy(from, to)
		for i := range batch {
			gcm.Seal(to[i*(chunk+16):i*(chunk+16)], nonce, from[i*chunk:(i+1)*chunk], nil)
		}
	}
	took := (threadTime(t) - before).Seconds() / (batches * batch * chunk / 1e9)
	return max(1, took/usual)
}

// threadTime is the processor time of this thread. Source: getrusage(2).
func threadTime(t *testing.T) time.Duration {
	t.Helper()
	var r unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_THREAD, &r); err != nil {
		t.Fatal(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

func cpu(t *testing.T, w *world) time.Duration {
	t.Helper()
	used, err := harness.CPU(w.PID)
	if err != nil {
		t.Fatal(err)
	}
	return used
}
