// Package soak runs the whole product for a long time: clients that remember what was
// acknowledged, and meanwhile everything that goes wrong in a data centre. What was
// acknowledged has to be there, and nothing may grow.
//
// It knows command lines, the S3 protocol and processes, and refuses to know how
// anything is done inside.
package soak

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"chatelaine/test/e2e/harness"
)

var (
	long = flag.Duration("soak", 0, "how long the load lasts, but each trouble is made once; 0: a few seconds and fewer kinds of trouble")
	seed = flag.Uint64("soak-seed", 0, "of keys, operations and troubles; 0: another one each time")
)

// TestWhatWasAcknowledgedIsThereAndNothingGrows runs rounds of load and trouble. After
// each everything is read back, and the elders are measured with nothing to do.
func TestWhatWasAcknowledgedIsThereAndNothingGrows(t *testing.T) {
	if testing.Short() {
		t.Skip("takes long, and wants a MinIO and a SoftHSM")
	}
	product, err := harness.Build(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if *seed == 0 {
		*seed = rand.Uint64()
	}
	t.Logf("-soak %v -soak-seed %d", *long, *seed)
	s := newSoak(t, product)
	s.run()
	s.report()
}

// soak is one run.
type soak struct {
	*plant
	troubles *troubles
	tally    *tally
	workers  []*worker
	began    time.Time
	samples  map[string][]gauges // of the elders
	rounds   int
	settling time.Duration // the longest that it took until all worked again
}

func newSoak(t *testing.T, product string) *soak {
	t.Helper()
	p := newPlant(t, product, *seed)
	deck := fullDeck()
	if *long == 0 {
		deck = smallDeck()
	}
	s := &soak{plant: p, troubles: newTroubles(p, *seed, deck), tally: newTally(), samples: map[string][]gauges{}}
	p.makeBuckets()
	for i := range clients {
		s.workers = append(s.workers, newWorker(p, s.tally, *seed, i))
	}
	return s
}

// run has three rounds at the least, of half a minute at the most, after a short one to
// warm up. At the end of
// a long one everything is killed at once.
func (s *soak) run() {
	round := max(min(*long/3, 30*time.Second), 3*time.Second)
	s.load(func() { time.Sleep(round / 3) })
	s.began = time.Now()
	for !s.t.Failed() && (time.Since(s.began) < *long || s.troubles.decks == 0 || s.rounds < 3) {
		s.load(func() {
			for end := time.Now().Add(round); time.Now().Before(end) && !s.t.Failed(); {
				s.troubles.next()
			}
		})
		s.rounds++
		s.measure()
	}
	if s.t.Failed() {
		return
	}
	for name, samples := range s.samples {
		if err := assertFlat(samples); err != nil {
			s.t.Errorf("%s: %v", name, err)
		}
	}
	if *long > 0 {
		s.load(s.troubles.killEverybody)
	}
}

// load has the clients work until the trouble is over, waits until all works again, and
// reads everything back.
func (s *soak) load(trouble func()) {
	ctx, cancel := context.WithCancel(s.t.Context())
	var wait sync.WaitGroup
	for _, w := range s.workers {
		wait.Go(func() {
			for ctx.Err() == nil && !s.t.Failed() {
				w.step()
			}
		})
	}
	trouble()
	cancel()
	wait.Wait()
	if s.t.Failed() {
		return
	}
	s.settle()
	for _, w := range s.workers {
		wait.Go(w.verify)
	}
	wait.Wait()
}

// settle waits until both gateways serve.
func (s *soak) settle() {
	began := time.Now()
	w := s.workers[0]
	for i := range replicas {
		for _, bucket := range buckets() {
			w.insist(i, harness.Request{Method: http.MethodGet, Path: "/" + bucket})
		}
	}
	s.settling = max(s.settling, time.Since(began))
}

// measure samples the elders.
func (s *soak) measure() {
	elders := map[string]*member{"gateway": s.gateways[0], "KMS": s.kms[0]}
	var mu sync.Mutex
	var wait sync.WaitGroup
	for name, m := range elders {
		wait.Go(func() {
			g, err := readGauges(s.t.Context(), m.admin, m.debug)
			if err != nil {
				s.t.Errorf("measuring the %s: %v", name, err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			s.samples[name] = append(s.samples[name], g)
		})
	}
	wait.Wait()
}

// report prints what was done and what came of it.
func (s *soak) report() {
	out := &strings.Builder{}
	fmt.Fprintf(out, "seed %d, %d rounds in %v, %d decks of troubles\n", *seed, s.rounds, time.Since(s.began).Round(time.Second), s.troubles.decks)
	fmt.Fprintf(out, "answered: %s\n", counts(s.tally.done))
	fmt.Fprintf(out, "instead: %s; repeated in fine weather: %d\n", counts(s.tally.other), s.tally.again.Load())
	for _, name := range slices.Sorted(maps.Keys(s.troubles.played)) {
		fmt.Fprintf(out, "%4d %s", s.troubles.played[name], name)
		if d := s.troubles.longest[name]; d > 0 {
			fmt.Fprintf(out, " (ready again within %v)", d.Round(time.Millisecond))
		}
		out.WriteByte('\n')
	}
	made := map[string]int{}
	for f := fine + 1; f < faultKinds; f++ {
		made[f.String()] = int(s.weather.made[f].Load())
	}
	fmt.Fprintf(out, "requests to the cloud that met: %s\n", counts(made))
	fmt.Fprintf(out, "served by both gateways after a round within %v\n", s.settling.Round(time.Millisecond))
	for _, name := range slices.Sorted(maps.Keys(s.samples)) {
		fmt.Fprintf(out, "%s: %s\n", name, describe(s.samples[name]))
	}
	s.t.Log(out.String())
}

// counts are in order of names, after their sum.
func counts(m map[string]int) string {
	sum, parts := 0, []string(nil)
	for _, name := range slices.Sorted(maps.Keys(m)) {
		sum += m[name]
		parts = append(parts, fmt.Sprintf("%d %s", m[name], name))
	}
	return fmt.Sprintf("%d (%s)", sum, strings.Join(parts, ", "))
}
