package compat

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"chatelaine/test/e2e/harness"
)

const (
	racers = 64
	// raceTime is the most that one cloud's races may take together.
	raceTime = 10 * time.Minute
)

// TestRacesThroughTwoReplicasHaveOneWinner has 64 clients create one key at a time
// through two gateways, 250 times over on each cloud, and a thousand times in `make long`.
func TestRacesThroughTwoReplicasHaveOneWinner(t *testing.T) {
	rounds := 250
	switch {
	case testing.Short():
		rounds = 25
	case os.Getenv("CHATELAINE_TEST_LONG") != "":
		rounds = 1000
	}
	for name, cloud := range clouds() {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, cloud(t))
			r := &race{bucket: w.bucket(t), gateways: []*harness.Client{w.raw(), w.replica(t, w.cloudURL()).raw()}}
			ctx, cancel := context.WithTimeout(t.Context(), raceTime)
			defer cancel()
			begun := time.Now()
			for i := range rounds {
				if err := r.run(ctx, i); err != nil {
					t.Fatalf("round %d of %d, after %v: %v", i, rounds, time.Since(begun).Round(time.Second), err)
				}
			}
			t.Logf("%d races of %d in %v; wins of the gateways: %d and %d", rounds, racers,
				time.Since(begun).Round(time.Second), r.wins[0].Load(), r.wins[1].Load())
			for i := range r.wins {
				if rounds >= 100 && r.wins[i].Load() == 0 {
					t.Errorf("gateway %d has won no race: they did not run at once", i)
				}
			}
		})
	}
}

// race is many clients that want to make one object.
type race struct {
	bucket   string
	gateways []*harness.Client
	wins     [2]atomic.Int64
}

// run is one race. All clients send their requests at once, half of them to each
// gateway, and each with a body of its own.
func (r *race) run(ctx context.Context, round int) error {
	path := fmt.Sprintf("/%s/key-%d", r.bucket, round)
	statuses, errs := make([]int, racers), make([]error, racers)
	gate := make(chan struct{})
	var wg sync.WaitGroup
	for i := range racers {
		wg.Go(func() {
			<-gate
			statuses[i], errs[i] = r.put(ctx, path, i)
		})
	}
	close(gate)
	wg.Wait()
	winner := -1
	for i, status := range statuses {
		switch {
		case errs[i] != nil:
			return fmt.Errorf("client %d: %w", i, errs[i])
		case status == http.StatusOK && winner >= 0:
			return fmt.Errorf("clients %d and %d have both won", winner, i)
		case status == http.StatusOK:
			winner = i
		// S3 answers 409 to those that run into a write that has not ended.
		case status != http.StatusPreconditionFailed && status != http.StatusConflict:
			return fmt.Errorf("client %d: status %d", i, status)
		}
	}
	if winner < 0 {
		return fmt.Errorf("nobody has won: %v", statuses)
	}
	r.wins[winner%2].Add(1)
	return r.check(ctx, path, winner)
}

func body(client int) string { return fmt.Sprintf("written by client %d", client) }

func (r *race) put(ctx context.Context, path string, client int) (int, error) {
	text := body(client)
	resp, err := r.gateways[client%2].Do(ctx, harness.Request{
		Method: http.MethodPut, Path: path, Body: strings.NewReader(text), Size: int64(len(text)),
		Header: http.Header{"If-None-Match": {"*"}},
	})
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, err
}

// check reads what the winner has written, through the other gateway.
func (r *race) check(ctx context.Context, path string, winner int) error {
	resp, err := r.gateways[(winner+1)%2].Do(ctx, harness.Request{Method: http.MethodGet, Path: path})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err == nil && !bytes.Equal(got, []byte(body(winner))) {
		err = fmt.Errorf("client %d has won, and %q is there", winner, got)
	}
	return err
}
