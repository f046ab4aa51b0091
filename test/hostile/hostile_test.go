// Package hostile plays the provider: it changes what lies in the cloud and how it is
// answered, in every way that it can state, and looks at what leaves the gateway. That
// must be an error, a cut connection or the true bytes, with the true length, metadata
// and checksums. What FORMAT.md says that no reader can tell is counted by itself.
//
// It refuses to know how objects are opened: it knows FORMAT.md, where a byte lies and
// what it says.
package hostile

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var (
	attacks = flag.Int("attacks", 2500, "how many random attacks on objects and answers")
	seed    = flag.Uint64("seed", 0, "of the random attacks; 0 means another one each time")
	only    = flag.Int("only", -1, "the number of the one attack to try")
	named   = flag.String("kinds", "", "what the names of the attacks to try contain; empty: all")
)

func kinds() []kind {
	all := slices.Concat(things(), answers(), uploads(), mirrors(), adoptions(), keptMirrors(), replays())
	return slices.DeleteFunc(all, func(k kind) bool { return !strings.Contains(k.name, *named) })
}

// tally counts outcomes by kind and by path.
type tally struct {
	mu    sync.Mutex
	kinds map[string]*[wrong + 1]int
	paths map[string]*[wrong + 1]int
}

func newTally() *tally {
	return &tally{kinds: map[string]*[wrong + 1]int{}, paths: map[string]*[wrong + 1]int{}}
}

func (l *tally) add(kind, path string, o outcome) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for m, name := range map[*map[string]*[wrong + 1]int]string{&l.kinds: kind, &l.paths: path} {
		if (*m)[name] == nil {
			(*m)[name] = &[wrong + 1]int{}
		}
		(*m)[name][o]++
	}
}

// String is a table.
func (l *tally) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var b strings.Builder
	var sum [wrong + 1]int
	for _, half := range []struct {
		title string
		rows  map[string]*[wrong + 1]int
	}{{"attack", l.kinds}, {"path", l.paths}} {
		fmt.Fprintf(&b, "\n%-40s %7s %7s %7s %7s %7s %7s\n", half.title, "tried", truthful, refused, cut, known, wrong)
		sum = [wrong + 1]int{}
		for _, name := range slices.Sorted(maps.Keys(half.rows)) {
			row(&b, name, *half.rows[name])
			for i, n := range half.rows[name] {
				sum[i] += n
			}
		}
	}
	row(&b, "all", sum)
	return b.String()
}

func row(b *strings.Builder, name string, counts [wrong + 1]int) {
	tried := 0
	for _, n := range counts {
		tried += n
	}
	fmt.Fprintf(b, "%-40s %7d %7d %7d %7d %7d %7d\n", name, tried, counts[truthful], counts[refused], counts[cut], counts[known], counts[wrong])
}

// least is the smallest number of tries of a kind.
func (l *tally) least() (name string, n int) {
	for kind, counts := range l.kinds {
		tried := 0
		for _, c := range counts {
			tried += c
		}
		if name == "" || tried < n {
			name, n = kind, tried
		}
	}
	return name, n
}

// campaign is a number of random attacks.
type campaign struct {
	t     *testing.T
	w     *world
	vault *vault
	seed  uint64
	tally *tally
	next  atomic.Int64
	tried atomic.Int64 // attacks that met a request
	fails atomic.Int64
}

// worker tries attacks, one after the other, until there are enough.
func (c *campaign) worker(ctx context.Context, total int) error {
	v := &view{cloud: c.w.cloud, attack: &attack{}}
	web, err := newWeb(c.w, v)
	if err != nil {
		return err
	}
	defer web.server.Close()
	all, ways := kinds(), paths()
	for {
		i := int(c.next.Add(1)) - 1
		if *only >= 0 {
			i = *only
		}
		if int(c.tried.Load()) >= total || c.fails.Load() > 0 || (*only >= 0 && c.next.Load() > 1) {
			return nil
		}
		g := &gen{Rand: rand.New(rand.NewPCG(c.seed, uint64(i))), w: c.w}
		if err := c.try(ctx, i, g, all[i%len(all)], ways[g.IntN(len(ways))], &trial{view: v, web: web, vault: c.vault}); err != nil {
			return err
		}
	}
}

func (c *campaign) try(ctx context.Context, i int, g *gen, k kind, p path, t *trial) (err error) {
	from := c.w.subjects
	if k.large {
		from = c.w.large
	}
	g.s = from[g.IntN(len(from))]
	t.gen, t.kind, t.ctx = g, k, ctx
	if t.service, err = c.w.service(t.view); err != nil {
		return err
	}
	name, v := t.run(p)
	if t.view.struck.Load() == 0 && v.outcome != wrong {
		return nil // no request has met it
	}
	c.tried.Add(1)
	c.tally.add(k.name, name, v.outcome)
	if v.outcome == wrong {
		c.fails.Add(1)
		c.t.Errorf("-seed %d -only %d: %s over %s: %s", c.seed, i, g.s.name, name, v.why)
	}
	return nil
}

// TestRandomAttacks tries the kinds in turn, each on a random object over a random path.
func TestRandomAttacks(t *testing.T) {
	vault, err := newVault(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer vault.provider.Close()
	w, err := newWorld(t.Context(), vault)
	if err != nil {
		t.Fatal(err)
	}
	c := &campaign{t: t, w: w, vault: vault, seed: cmp.Or(*seed, uint64(time.Now().UnixNano())), tally: newTally()}
	var running sync.WaitGroup
	for range 2 {
		running.Go(func() {
			if err := c.worker(t.Context(), *attacks); err != nil {
				t.Error(err)
			}
		})
	}
	running.Wait()
	t.Logf("seed %d%s", c.seed, c.tally)
	if *attacks < min(100_000, 800*len(kinds())) {
		return
	}
	if name, n := c.tally.least(); n < 500 {
		t.Errorf("%q was tried %d times, want 500", name, n)
	}
	c.tally.assertReplaysStrike(t)
}
