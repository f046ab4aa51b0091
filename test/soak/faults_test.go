package soak

import (
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// trouble is what is done to the plant meanwhile. It returns when all runs again.
type trouble struct {
	name string
	make func(*troubles)
}

// troubles makes trouble, one after the other, from a deck that is shuffled when it has
// been played.
type troubles struct {
	*plant
	rand    *rand.Rand
	full    []trouble // the deck
	deck    []trouble // what is left of it
	played  map[string]int
	longest map[string]time.Duration // until all was ready again
	last    time.Duration
	decks   int // that have been played to the end
}

func newTroubles(p *plant, seed uint64, deck []trouble) *troubles {
	return &troubles{plant: p, full: deck, rand: rand.New(rand.NewPCG(seed, 't')), played: map[string]int{}, longest: map[string]time.Duration{}}
}

// smallDeck is for a run that everybody waits for.
func smallDeck() []trouble {
	return []trouble{
		{"gateway, KMS and backend killed", func(t *troubles) { t.killed(t.killGateway, t.killKMS, t.killCloud) }},
		{"a gateway cut off from all KMS", func(t *troubles) { t.cut(t.rand.IntN(replicas), 0, 1) }},
		{"KMS killed while it rewraps", func(t *troubles) {
			t.order("key", "rotate", "main")
			t.order("key", "rewrap", "main", "--background")
			t.killed(t.killKMS)
		}},
		{"bucket key rotated", func(t *troubles) { t.order("bucket", "rotate", buckets()[t.rand.IntN(len(buckets()))]) }},
		{"all weather, and the backend killed", func(t *troubles) {
			t.weather.set(busyBefore, failBefore, cutBefore, failAfter, cutAfter, halfAnswer, delay)
			t.killed(t.killCloud)
			t.weather.set()
		}},
	}
}

// fullDeck is for a run of its own.
func fullDeck() []trouble {
	deck := append(smallDeck(), []trouble{
		{"gateway killed", func(t *troubles) { t.killed(t.killGateway) }},
		{"KMS killed", func(t *troubles) { t.killed(t.killKMS) }},
		{"backend killed", func(t *troubles) { t.killed(t.killCloud) }},
		{"a line to a KMS cut", func(t *troubles) { t.cut(t.rand.IntN(replicas), t.rand.IntN(replicas)) }},
		{"KEK rotated", func(t *troubles) { t.order("key", "rotate", "main") }},
		{"KEK rewrapped", func(t *troubles) { t.order("key", "rewrap", "main") }},
	}...)
	for f := fine + 1; f < faultKinds; f++ {
		deck = append(deck, trouble{"weather: " + f.String(), func(t *troubles) {
			t.weather.set(f)
			t.pause(time.Second)
			t.weather.set()
		}})
	}
	return deck
}

// next makes the next trouble.
func (t *troubles) next() {
	if len(t.deck) == 0 {
		t.deck = slices.Clone(t.full)
		t.rand.Shuffle(len(t.deck), func(i, j int) { t.deck[i], t.deck[j] = t.deck[j], t.deck[i] })
	}
	trouble := t.deck[0]
	t.deck = t.deck[1:]
	t.last = 0
	trouble.make(t)
	t.played[trouble.name]++
	t.longest[trouble.name] = max(t.longest[trouble.name], t.last)
	if len(t.deck) == 0 {
		t.decks++
	}
	t.pause(200 * time.Millisecond)
}

// pause lasts up to twice as long.
func (t *troubles) pause(long time.Duration) {
	time.Sleep(long/2 + time.Duration(t.rand.Int64N(int64(long*3/2))))
}

// killed kills what is given, at once, and starts it again after a while.
func (t *troubles) killed(kill ...func() (start func())) {
	var starts []func()
	for _, f := range kill {
		starts = append(starts, f())
	}
	t.pause(600 * time.Millisecond)
	began := time.Now()
	var wait sync.WaitGroup
	for _, f := range starts {
		wait.Go(f)
	}
	wait.Wait()
	t.last = max(t.last, time.Since(began))
}

func (t *troubles) killGateway() func() {
	t.gateways[1].Kill()
	return func() { t.startGateway(1) }
}

func (t *troubles) killKMS() func() {
	t.kms[1].Kill()
	return func() { t.startKMS(1) }
}

func (t *troubles) killCloud() func() {
	t.cloud.Kill()
	return func() {
		if err := t.cloud.Start(t.t.Context()); err != nil {
			t.t.Error(err)
		}
		t.weather.lead(t.t, t.cloud.Endpoint)
	}
}

// killEverybody kills all, the elders too.
func (t *troubles) killEverybody() {
	for _, m := range slices.Concat(t.gateways[:], t.kms[:]) {
		m.Kill()
	}
	start := t.killCloud()
	t.pause(600 * time.Millisecond)
	began := time.Now()
	start()
	for i := range replicas {
		t.startKMS(i)
	}
	for i := range replicas {
		t.startGateway(i)
	}
	t.played["all killed at once"]++
	t.longest["all killed at once"] = time.Since(began)
}

// cut cuts lines for longer than a lease, now and then.
func (t *troubles) cut(gateway int, kms ...int) {
	for _, i := range kms {
		t.lines[gateway][i].Sever()
	}
	t.pause(lease / 2)
	for _, i := range kms {
		t.lines[gateway][i].Mend()
	}
}

// order runs a command for administrators at one of the KMS.
func (t *troubles) order(args ...string) {
	t.administer(t.rand.IntN(replicas), append(args, "--yes", "--reason", "a soak")...)
}
