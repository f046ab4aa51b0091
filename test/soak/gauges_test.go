package soak

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// gauges are what a process uses while it has nothing to do.
type gauges struct {
	goroutines, files, heap, rss float64 // heap and rss in bytes; heap: what lived after the last collection
}

// readGauges asks a process, a few times, as what has just ended takes a moment to go:
// the least counts.
func readGauges(ctx context.Context, admin, debug string) (least gauges, err error) {
	for i := range 5 {
		if debug != "" { // collects
			if _, err := fetch(ctx, debug+"/debug/pprof/heap?gc=1"); err != nil {
				return gauges{}, err
			}
		}
		text, err := fetch(ctx, admin+"/metrics")
		if err != nil {
			return gauges{}, err
		}
		g, err := parseGauges(text)
		if err != nil {
			return gauges{}, err
		}
		if i == 0 {
			least = g
		}
		least = gauges{
			min(g.goroutines, least.goroutines), min(g.files, least.files), min(g.heap, least.heap), min(g.rss, least.rss),
		}
		time.Sleep(100 * time.Millisecond)
	}
	return least, nil
}

func fetch(ctx context.Context, url string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	client := http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("soak: asking %q: status %d", url, resp.StatusCode)
	}
	return string(body), err
}

func parseGauges(text string) (g gauges, err error) {
	var errs []error
	for name, to := range map[string]*float64{
		"go_goroutines": &g.goroutines, "process_open_fds": &g.files,
		"go_memstats_next_gc_bytes": &g.heap, "process_resident_memory_bytes": &g.rss,
	} {
		_, rest, _ := strings.Cut(text, "\n"+name+" ")
		number, _, _ := strings.Cut(rest, "\n")
		if *to, err = strconv.ParseFloat(number, 64); err != nil {
			errs = append(errs, fmt.Errorf("soak: reading %q: %w", name, err))
		}
	}
	g.heap /= 2 // the next collection is due at twice what lived after the last (GOGC=100)
	return g, errors.Join(errs...)
}

// bound is how much the middle of the last third may be above that of the first.
type bound struct {
	name        string
	of          func(gauges) float64
	share, more float64
}

func bounds() []bound {
	return []bound{
		{"goroutines", func(g gauges) float64 { return g.goroutines }, 1.2, 40},
		{"open files", func(g gauges) float64 { return g.files }, 1.2, 40},
		{"live heap", func(g gauges) float64 { return g.heap }, 1.25, 16 << 20},
		{"resident memory", func(g gauges) float64 { return g.rss }, 1.25, 96 << 20},
	}
}

// assertFlat compares the last third of the samples with the first.
func assertFlat(samples []gauges) error {
	third := len(samples) / 3
	if third == 0 {
		return fmt.Errorf("soak: comparing thirds of %d samples: want three at the least", len(samples))
	}
	var errs []error
	for _, b := range bounds() {
		first, last := middle(samples[:third], b.of), middle(samples[len(samples)-third:], b.of)
		if last > first*b.share+b.more {
			errs = append(errs, fmt.Errorf("%s grew from %.0f to %.0f: a leak", b.name, first, last))
		}
	}
	return errors.Join(errs...)
}

func middle(samples []gauges, of func(gauges) float64) float64 {
	var values []float64
	for _, g := range samples {
		values = append(values, of(g))
	}
	slices.Sort(values)
	return values[len(values)/2]
}

// describe gives the middles of the first and the last third, and the most.
func describe(samples []gauges) string {
	var out []string
	third := max(1, len(samples)/3)
	for _, b := range bounds() {
		unit, scale := "", 1.0
		if b.more > 1<<20 {
			unit, scale = " MiB", 1<<20
		}
		most := b.of(slices.MaxFunc(samples, func(x, y gauges) int { return int(b.of(x) - b.of(y)) }))
		out = append(out, fmt.Sprintf("%s %.0f -> %.0f (at most %.0f)%s", b.name,
			middle(samples[:third], b.of)/scale, middle(samples[len(samples)-third:], b.of)/scale, most/scale, unit))
	}
	return strings.Join(out, ", ")
}

func TestLeaksAreSeen(t *testing.T) {
	flat := gauges{100, 50, 20 << 20, 100 << 20}
	series := func(grow func(g *gauges, i int)) []gauges {
		var out []gauges
		for i := range 30 {
			g := flat
			g.goroutines += float64(i % 7) // as they are
			grow(&g, i)
			out = append(out, g)
		}
		return out
	}
	for name, c := range map[string]struct {
		grow func(g *gauges, i int)
		want bool
	}{
		"flat":       {func(*gauges, int) {}, true},
		"one peak":   {func(g *gauges, i int) { g.goroutines += float64(i / 29 * 500) }, true},
		"goroutines": {func(g *gauges, i int) { g.goroutines += float64(5 * i) }, false},
		"files":      {func(g *gauges, i int) { g.files += float64(5 * i) }, false},
		"heap":       {func(g *gauges, i int) { g.heap += float64(i << 21) }, false},
		"memory":     {func(g *gauges, i int) { g.rss += float64(i << 23) }, false},
	} {
		if err := assertFlat(series(c.grow)); (err == nil) != c.want {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if assertFlat(series(func(*gauges, int) {})[:2]) == nil {
		t.Error("two samples are taken for a proof")
	}
}

func TestGaugesThatAreNotThereAreErrors(t *testing.T) {
	text := "# \ngo_goroutines 7\nprocess_open_fds 9\ngo_memstats_next_gc_bytes 4e+06\nprocess_resident_memory_bytes 5e+07\n"
	if g, err := parseGauges(text); err != nil || g != (gauges{7, 9, 2e6, 5e7}) {
		t.Errorf("got %+v, %v", g, err)
	}
	if _, err := parseGauges(strings.Replace(text, "process_open_fds", "other", 1)); err == nil {
		t.Error("a missing gauge is no error")
	}
}
