// Package mutation switches the verifications of the object format off, one at a time,
// and sees the tests fail. What it switches is in a copy that go build -overlay puts in the
// place of the source: the product has no hooks.
//
// testdata/verifications.txt lists all of them. One that is listed and not in the source
// any more, or in the source and not listed, fails a test, so the list is kept up.
package mutation

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
)

var (
	every  = flag.Bool("every", false, "switch off all verifications, one after the other, and not just a few")
	relist = flag.Bool("list", false, "print what the list should be, with the test that fails")
)

// listed is a line of the list: the tests that fail when the verification is off, or
// none, and why.
type listed struct{ suite, id, why string }

// suites are the tests, by their names in the list, in the order of their cost.
func suites() map[string][]string {
	return map[string][]string{
		"sealed":  {"-test.short", "-test.failfast"},
		"hostile": {"-test.failfast", "-test.run", "Attacks", "-seed", "1", "-attacks", "4500"},
	}
}

func folderOf(suite string) string {
	if suite == "hostile" {
		return "test/hostile"
	}
	return "gateway/" + suite
}

const root = "../.."

func readList() ([]listed, error) {
	f, err := os.Open("testdata/verifications.txt")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var out []listed
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if lines.Text() == "" || strings.HasPrefix(lines.Text(), "#") {
			continue
		}
		fields := append(strings.Split(lines.Text(), "\t"), "")
		if len(fields) < 3 {
			return nil, fmt.Errorf("the list has %q", lines.Text())
		}
		out = append(out, listed{fields[0], fields[1], fields[2]})
	}
	return out, nil
}

func allSources() ([]*source, error) {
	var out []*source
	for _, folder := range folders() {
		s, err := sources(root, folder)
		if err != nil {
			return nil, err
		}
		out = append(out, s...)
	}
	return out, nil
}

func ids(all []*source) (out []string) {
	for _, s := range all {
		for _, site := range s.sites {
			out = append(out, site.id)
		}
	}
	return out
}

func TestEveryVerificationIsListed(t *testing.T) {
	all, err := allSources()
	if err != nil {
		t.Fatal(err)
	}
	list, err := readList()
	if err != nil {
		t.Fatal(err)
	}
	found := ids(all)
	for _, l := range list {
		if !slices.Contains(found, l.id) {
			t.Errorf("listed, but not in the source: %s", l.id)
		}
		if (l.suite == "none") != (l.why != "") || (l.suite != "none" && suites()[l.suite] == nil) {
			t.Errorf("listed with %q and the reason %q: %s", l.suite, l.why, l.id)
		}
	}
	for _, id := range found {
		if !slices.ContainsFunc(list, func(l listed) bool { return l.id == id }) {
			t.Errorf("in the source, but not listed: %s", id)
		}
	}
	if len(found) < 80 {
		t.Errorf("got %d verifications, want many more: the search has lost them", len(found))
	}
}

// bench is where the tests lie that can have verifications switched off.
type bench struct {
	dir string
	cwd string
}

// switches is the file that each folder gets beside its own.
const switches = `package %s

import (
	"os"
	"slices"
	"strings"
)

var mutants = strings.Split(os.Getenv("MUTANTS"), "\n")

func mutantOff(id string) bool { return slices.Contains(mutants, id) }

func mutantElse[T any](id string, as, off T) T {
	if mutantOff(id) {
		return off
	}
	return as
}
`

// newBench builds the tests of the suites.
func newBench(ctx context.Context, dir string, names []string) (*bench, error) {
	all, err := allSources()
	if err != nil {
		return nil, err
	}
	base, err := filepath.Abs(root)
	if err != nil {
		return nil, err
	}
	replaced := map[string]string{}
	put := func(path string, text []byte) error {
		file := filepath.Join(dir, strings.ReplaceAll(path, "/", "_"))
		replaced[filepath.Join(base, path)] = file
		return os.WriteFile(file, text, 0o600)
	}
	for _, s := range all {
		err = errors.Join(err, put(s.path, s.mutable()))
	}
	for _, folder := range folders() {
		err = errors.Join(err, put(folder+"/mutants.go", fmt.Appendf(nil, switches, filepath.Base(folder))))
	}
	overlay, marshalling := json.Marshal(map[string]any{"Replace": replaced})
	err = errors.Join(err, marshalling, os.WriteFile(filepath.Join(dir, "overlay.json"), overlay, 0o600))
	if err != nil {
		return nil, err
	}
	b := &bench{dir: dir, cwd: base}
	for _, name := range names {
		if err := b.build(ctx, name); err != nil {
			return nil, err
		}
	}
	return b, nil
}

func (b *bench) build(ctx context.Context, suite string) error {
	cmd := exec.CommandContext(ctx, "go", "test", "-c", "-vet=off", "-overlay", filepath.Join(b.dir, "overlay.json"),
		"-o", filepath.Join(b.dir, suite), "./"+folderOf(suite))
	cmd.Dir = b.cwd
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building %s: %w: %s", suite, err, out)
	}
	return nil
}

// patience is how long a suite may run. What does not end has failed.
const patience = 4 * time.Minute

// fails says whether a suite fails with these switched off, and how it ended.
func (b *bench) fails(ctx context.Context, suite string, off ...string) (bool, string) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(b.dir, suite), suites()[suite]...)
	cmd.Dir = filepath.Join(b.cwd, folderOf(suite))
	cmd.Env = append(os.Environ(), "MUTANTS="+strings.Join(off, "\n"))
	out, err := cmd.CombinedOutput()
	return err != nil, string(out[max(0, len(out)-2000):])
}

// few are what is tried where all would take too long: one of each kind.
func few() []string {
	return []string{
		"message.go openMessage: !m.committed(msg[:HeaderSize])", "message.go nonce: index of the chunk", "message.go name: key",
		"opener.go openBatch: err != nil", "opener.go begin: e.Bound() && salt != e.Salt",
	}
}

// TestVerificationsThatAreSwitchedOffAreMissed switches off a few of what is listed, or
// all, and expects the suite that the list names to fail.
func TestVerificationsThatAreSwitchedOffAreMissed(t *testing.T) {
	if testing.Short() {
		t.Skip("builds tests anew")
	}
	list, err := readList()
	if err != nil {
		t.Fatal(err)
	}
	list = slices.DeleteFunc(list, func(l listed) bool { return l.suite == "none" || (!*every && !slices.Contains(few(), l.id)) })
	if len(list) < len(few()) {
		t.Fatalf("got %d verifications to switch off, want %d", len(list), len(few()))
	}
	b, err := newBench(t.Context(), t.TempDir(), names(list))
	if err != nil {
		t.Fatal(err)
	}
	b.mustPass(t, names(list))
	for _, l := range list {
		if failed, out := b.fails(t.Context(), l.suite, l.id); !failed {
			t.Errorf("%s passes without %q: %s", l.suite, l.id, out)
		}
	}
}

// names are the suites that a list needs.
func names(list []listed) (out []string) {
	for name := range suites() {
		if slices.ContainsFunc(list, func(l listed) bool { return l.suite == name }) {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// TestPrintTheList finds out for each verification which suite misses it.
func TestPrintTheList(t *testing.T) {
	if !*relist {
		t.Skip("prints a new list; run it with -list")
	}
	all, err := allSources()
	if err != nil {
		t.Fatal(err)
	}
	order := []string{"sealed", "hostile"}
	b, err := newBench(t.Context(), t.TempDir(), order)
	if err != nil {
		t.Fatal(err)
	}
	b.mustPass(t, order)
	var group errgroup.Group
	group.SetLimit(3)
	for _, source := range all {
		for _, site := range source.sites {
			group.Go(func() error {
				fmt.Fprintf(os.Stderr, "%s\t%s\n", b.missed(t.Context(), order, site.id), site.id)
				return nil
			})
		}
	}
	_ = group.Wait() // none fails
	b.mustPass(t, order)
}

// missed is the first suite that fails with this switched off, or none.
func (b *bench) missed(ctx context.Context, suites []string, id string) string {
	for _, name := range suites {
		if failed, _ := b.fails(ctx, name, id); failed {
			return name
		}
	}
	return "none"
}

// mustPass runs suites with nothing switched off.
func (b *bench) mustPass(t *testing.T, names []string) {
	t.Helper()
	for _, name := range names {
		if failed, out := b.fails(t.Context(), name); failed {
			t.Fatalf("%s fails with nothing switched off: %s", name, out)
		}
	}
}
