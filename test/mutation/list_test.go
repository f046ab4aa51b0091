package mutation

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
)

// tried is a test, and what it comes by.
type tried struct {
	name string
	took time.Duration
	met  []string
}

// quick is how long a test may take to be among those that are run first.
const quick = 300 * time.Millisecond

// TestPrintTheList finds out for each verification which test misses it: of those that come
// by it, the first that fails.
func TestPrintTheList(t *testing.T) {
	if !*relist {
		t.Skip("prints new lists; run it with -list")
	}
	used := slices.DeleteFunc(suites(), func(s suite) bool { return s.name == "hostile" && !*attack })
	b, err := newBench(t.Context(), t.TempDir(), used)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range folders() {
		if err := b.printAll(t.Context(), f); err != nil {
			t.Fatal(err)
		}
	}
}

// printAll writes the list of a folder.
func (b *bench) printAll(ctx context.Context, f folder) error {
	all, err := f.sources()
	if err != nil {
		return err
	}
	ids := slices.DeleteFunc(ids(all), func(id string) bool { return !chosen(id) })
	if len(ids) == 0 {
		return nil
	}
	own, _ := suiteNamed(filepath.Base(f.path))
	tests, err := b.try(ctx, own)
	if err != nil {
		return err
	}
	var group errgroup.Group
	group.SetLimit(4)
	for _, id := range ids {
		group.Go(func() error {
			line, err := b.missedBy(ctx, own, tests, id)
			fmt.Fprintf(os.Stderr, "%s\t%s\n", line, id)
			return err
		})
	}
	return group.Wait()
}

// try runs each test of a suite by itself.
func (b *bench) try(ctx context.Context, s suite) ([]tried, error) {
	names, out, err := b.run(ctx, s, []string{"-test.list", "^(Test|Fuzz)"})
	if err != nil || names != "" {
		return nil, fmt.Errorf("listing the tests of %s: %s: %w", s.name, out, err)
	}
	var mu sync.Mutex
	var tests []tried
	var group errgroup.Group
	group.SetLimit(4)
	for _, name := range strings.Fields(out) {
		if !regexp.MustCompile(`^(Test|Fuzz)\w*$`).MatchString(name) {
			continue
		}
		group.Go(func() error {
			began := time.Now()
			met, err := b.comesBy(ctx, s, name)
			mu.Lock()
			defer mu.Unlock()
			tests = append(tests, tried{name, time.Since(began), met})
			return err
		})
	}
	err = group.Wait()
	slices.SortFunc(tests, func(a, b tried) int { return cmp.Compare(a.took, b.took) })
	return tests, err
}

// comesBy are the verifications that a test comes by.
func (b *bench) comesBy(ctx context.Context, s suite, test string) ([]string, error) {
	file := filepath.Join(b.dir, "met-"+test)
	s.env = append(s.env, "MUTANTS_MET="+file)
	failed, _, err := b.run(ctx, s, []string{"-test.run", "^" + test + "$"})
	if err != nil || failed != "" { // as what notes it disturbs what counts allocations
		return nil, err
	}
	text, err := os.ReadFile(file)
	if os.IsNotExist(err) {
		return nil, nil
	}
	return strings.Split(string(text), "\n"), err
}

// missedBy is the suite and the test that fails, or none.
func (b *bench) missedBy(ctx context.Context, own suite, tests []tried, id string) (string, error) {
	var soon, late []string
	for _, t := range tests {
		switch {
		case !slices.Contains(t.met, id):
		case t.took < quick:
			soon = append(soon, t.name)
		default:
			late = append(late, t.name)
		}
	}
	for _, names := range [][]string{soon, late} {
		if len(names) == 0 {
			continue
		}
		failed, _, err := b.run(ctx, own, []string{"-test.run", "^(" + strings.Join(names, "|") + ")$"}, id)
		if err != nil || failed != "" {
			return own.name + " " + failed, err
		}
	}
	if hostile, ok := suiteNamed("hostile"); ok && *attack {
		failed, _, err := b.run(ctx, hostile, []string{"-test.run", "^TestRandomAttacks$"}, id)
		if err != nil || failed != "" {
			return hostile.name + " " + failed, err
		}
	}
	return fmt.Sprintf("none, of %d tests that come by", len(soon)+len(late)), nil
}
