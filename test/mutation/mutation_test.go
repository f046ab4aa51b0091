// Package mutation switches verifications off, one at a time, and sees the tests fail: those
// of the object format, of the service on objects and of the gateway's side of the KMS. What
// it switches is in a copy that go build -overlay puts in the place of the source: the
// product has no hooks.
//
// The files in testdata list all of them. One that is listed and not in the source any more,
// or in the source and not listed, fails a test, so the lists are kept up: that of the format
// always, and all with -every.
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
	"regexp"
	"slices"
	"strings"
	"testing"
)

var (
	every  = flag.Bool("every", false, "switch off all verifications, one after the other, and not just a few")
	relist = flag.Bool("list", false, "print what the lists should be, with the first test that fails")
	attack = flag.Bool("hostile", false, "with -list: try the attacks of test/hostile where no other test fails, which takes long")
	only   = flag.String("only", "", "with -every and -list: the verifications whose name matches this alone")
)

// listed is a line of a list: a test that fails when the verification is off, or
// none, and why.
type listed struct{ suite, test, id, why string }

const root = "../.."

// readLists reads lines of a suite and its test, or none, the name of the verification and the
// reason where there is no test. They are parted by tabs.
func readLists() ([]listed, error) {
	var out []listed
	for _, f := range folders() {
		list, err := readList("testdata/" + filepath.Base(f.path) + ".txt")
		if err != nil {
			return nil, err
		}
		out = append(out, list...)
	}
	return out, nil
}

func readList(name string) ([]listed, error) {
	f, err := os.Open(name)
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
			return nil, fmt.Errorf("%s has %q", name, lines.Text())
		}
		suite, test, _ := strings.Cut(fields[0], " ")
		out = append(out, listed{suite, test, fields[1], fields[2]})
	}
	return out, nil
}

func allSources() (out []*source, problems error) {
	for _, f := range folders() {
		s, err := f.sources()
		out, problems = append(out, s...), errors.Join(problems, err)
	}
	return out, problems
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
	list, err := readLists()
	if err != nil {
		t.Fatal(err)
	}
	found := ids(all)
	for i, l := range list {
		if (*every || strings.HasPrefix(l.id, "sealed/")) && !slices.Contains(found, l.id) {
			t.Errorf("listed, but not in the source: %s", l.id)
		}
		if _, ok := suiteNamed(l.suite); (l.suite == "none") != (l.why != "") || (l.suite != "none" && (!ok || l.test == "")) {
			t.Errorf("listed with %q, the test %q and the reason %q: %s", l.suite, l.test, l.why, l.id)
		}
		if slices.ContainsFunc(list[:i], func(o listed) bool { return o.id == l.id }) {
			t.Errorf("listed twice: %s", l.id)
		}
	}
	for _, id := range found {
		if !*every && !strings.HasPrefix(id, "sealed/") {
			continue
		}
		if !slices.ContainsFunc(list, func(l listed) bool { return l.id == id }) {
			t.Errorf("in the source, but not listed: %s", id)
		}
	}
	for _, f := range folders() {
		name := filepath.Base(f.path) + "/"
		if n := len(slices.DeleteFunc(slices.Clone(found), func(id string) bool { return !strings.HasPrefix(id, name) })); n < f.least {
			t.Errorf("got %d verifications in %s, want %d or more: the search has lost them", n, f.path, f.least)
		}
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
	"sync"
)

var (
	mutants    = strings.Split(os.Getenv("MUTANTS"), "\n")
	mutantsMet = os.Getenv("MUTANTS_MET") // a file for the names of those that are come by
	mutantSeen sync.Map
)

func mutantOff(id string) bool {
	if mutantsMet != "" {
		mutantMeet(id)
	}
	return slices.Contains(mutants, id)
}

func mutantMeet(id string) {
	if _, seen := mutantSeen.LoadOrStore(id, true); seen {
		return
	}
	f, err := os.OpenFile(mutantsMet, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err == nil {
		_, err = f.WriteString(id + "\n")
	}
	if err != nil {
		panic(err)
	}
	_ = f.Close()
}

func mutantElse[T any](id string, as, off T) T {
	if mutantOff(id) {
		return off
	}
	return as
}
`

// newBench builds the tests of the suites.
func newBench(ctx context.Context, dir string, suites []suite) (*bench, error) {
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
	for _, f := range folders() {
		err = errors.Join(err, put(f.path+"/mutants.go", fmt.Appendf(nil, switches, filepath.Base(f.path))))
	}
	overlay, marshalling := json.Marshal(map[string]any{"Replace": replaced})
	err = errors.Join(err, marshalling, os.WriteFile(filepath.Join(dir, "overlay.json"), overlay, 0o600))
	if err != nil {
		return nil, err
	}
	b := &bench{dir: dir, cwd: base}
	for _, s := range suites {
		if err := b.build(ctx, s); err != nil {
			return nil, err
		}
	}
	return b, nil
}

func (b *bench) build(ctx context.Context, s suite) error {
	cmd := exec.CommandContext(ctx, "go", "test", "-c", "-vet=off", "-overlay", filepath.Join(b.dir, "overlay.json"),
		"-o", filepath.Join(b.dir, s.name), "./"+s.folder)
	cmd.Dir = b.cwd
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building %s: %w: %s", s.name, err, out)
	}
	return nil
}

// run runs tests of a suite with these switched off. It says whether they pass, and if not,
// which failed first and how. That they do not end in time is an error: a busy machine must
// not pass for a failing test.
func (b *bench) run(ctx context.Context, s suite, args []string, off ...string) (failed string, out string, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(b.dir, s.name), slices.Concat([]string{"-test.v", "-test.failfast"}, args, s.args)...)
	cmd.Dir = filepath.Join(b.cwd, s.folder)
	cmd.Env = slices.Concat(os.Environ(), s.env, []string{"MUTANTS=" + strings.Join(off, "\n")})
	text, err := cmd.CombinedOutput()
	reported := regexp.MustCompile(`(?m)^ +\w+_test\.go:\d+: `)
	out = string(text[max(0, len(text)-20000):])
	switch {
	case ctx.Err() != nil && reported.Match(text): // it had failed, and then it did not end
		return firstFailed(text), out, nil
	case ctx.Err() != nil:
		return "", out, fmt.Errorf("running %s without %q: %w: %s", s.name, off, ctx.Err(), out)
	case err == nil:
		return "", out, nil
	}
	return firstFailed(text), out, nil
}

// firstFailed is the test that failed first, or that ran when another goroutine's panic ended
// all; ? where the text does not tell.
func firstFailed(text []byte) string {
	if m := regexp.MustCompile(`(?m)^--- FAIL: (\w+)`).FindSubmatch(text); m != nil {
		return string(m[1])
	}
	if all := regexp.MustCompile(`(?m)^=== RUN\s+(\w+)`).FindAllSubmatch(text, -1); len(all) > 0 {
		return string(all[len(all)-1][1])
	}
	return "?"
}

// few are what is tried where all would take too long: one of each kind.
func few() []string {
	return []string{
		"sealed/message.go openMessage: !m.committed(msg[:HeaderSize])", "sealed/message.go nonce: index of the chunk", "sealed/message.go name: key",
		"sealed/opener.go openBatch: err != nil", "sealed/opener.go begin: e.Bound() && salt != e.Salt",
	}
}

// chosen are the verifications to switch off.
func chosen(id string) bool {
	return regexp.MustCompile(*only).MatchString(id) && (*every || *relist || slices.Contains(few(), id))
}

// TestVerificationsThatAreSwitchedOffAreMissed switches off a few of what is listed, or
// all, and expects the test that the list names to fail, which passes with all switched on.
func TestVerificationsThatAreSwitchedOffAreMissed(t *testing.T) {
	if testing.Short() {
		t.Skip("builds tests anew")
	}
	list, err := readLists()
	if err != nil {
		t.Fatal(err)
	}
	list = slices.DeleteFunc(list, func(l listed) bool { return l.suite == "none" || !chosen(l.id) })
	if len(list) == 0 || *only == "" && len(list) < len(few()) {
		t.Fatalf("got %d verifications to switch off, want %d", len(list), len(few()))
	}
	used := slices.DeleteFunc(suites(), func(s suite) bool {
		return !slices.ContainsFunc(list, func(l listed) bool { return l.suite == s.name })
	})
	b, err := newBench(t.Context(), t.TempDir(), used)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range used {
		b.mustPass(t, s, list)
	}
	for _, l := range list {
		s, _ := suiteNamed(l.suite)
		failed, out, err := b.run(t.Context(), s, []string{"-test.run", "^" + l.test + "$"}, l.id)
		if err != nil {
			t.Fatal(err)
		}
		if failed != l.test {
			t.Errorf("%s of %s passes without %q: %s", l.test, l.suite, l.id, out)
		}
	}
}

// mustPass runs the tests of a suite that are listed, with nothing switched off.
func (b *bench) mustPass(t *testing.T, s suite, list []listed) {
	t.Helper()
	var tests []string
	for _, l := range list {
		if l.suite == s.name && !slices.Contains(tests, l.test) {
			tests = append(tests, l.test)
		}
	}
	failed, out, err := b.run(t.Context(), s, []string{"-test.run", "^(" + strings.Join(tests, "|") + ")$"})
	if err != nil {
		t.Fatal(err)
	}
	ran := regexp.MustCompile(`(?m)^--- PASS: `).FindAllString(out, -1)
	if failed != "" || len(ran) == 0 {
		t.Fatalf("%s of %s fails with nothing switched off: %s", failed, s.name, out)
	}
}
