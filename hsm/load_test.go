package hsm_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"chatelaine/hsm"
	"chatelaine/hsm/hsmtest"
)

// TestManyRequestsOnFourSessionsDoNotStarve sends 500 requests a second to a token
// with four sessions, one of them taken by the login: every one is answered, none
// waits much longer than the others, and those whose context ends stop waiting.
func TestManyRequestsOnFourSessionsDoNotStarve(t *testing.T) {
	cfg := hsmtest.Token(t)
	cfg.MaxSessions = 3
	token, err := hsm.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer closing(t, token)
	key := newKey(t, token, "main.v1")
	const requests = 1000
	took := make([]time.Duration, requests)
	var cancelled int
	var mu sync.Mutex
	var group sync.WaitGroup
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for i := range requests {
		<-tick.C
		group.Go(func() {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if i%10 == 0 {
				cancel() // a caller that has left
			}
			began := time.Now()
			_, err := token.Encrypt(ctx, key, benchSecret, benchAAD)
			took[i] = time.Since(began)
			switch {
			case i%10 == 0 && errors.Is(err, context.Canceled):
				mu.Lock()
				cancelled++
				mu.Unlock()
			case i%10 == 0 || err != nil:
				t.Errorf("request %d: %v", i, err)
			}
		})
	}
	group.Wait()
	slices.Sort(took)
	t.Logf("%d requests: median %v, 99 %% within %v, the slowest %v; %d left",
		requests, took[requests/2], took[requests*99/100], took[requests-1], cancelled)
	if cancelled != requests/10 || took[requests-1] > 5*time.Second {
		t.Errorf("%d callers left, want %d; the slowest waited %v, want at most 5s", cancelled, requests/10, took[requests-1])
	}
	if s := token.States()[0]; s.Busy != 0 || s.Sessions != 3 || s.Open {
		t.Errorf("afterwards: %+v, want three sessions, none in use", s)
	}
}
