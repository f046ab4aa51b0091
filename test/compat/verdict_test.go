package compat

import (
	"bufio"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// verdict is what a run says beside what was known.
type verdict struct {
	unexplained []string // must pass, do not, and nobody says why
	stale       []string // are explained, and pass
}

// judge compares outcomes with the explanations of one target.
func judge(got outcomes, must func(name string) bool, explained map[string]string) verdict {
	var v verdict
	for _, name := range slices.Sorted(maps.Keys(got)) {
		_, known := explained[name]
		switch {
		case got.passed(name) && known:
			v.stale = append(v.stale, name)
		case !got.passed(name) && must(name) && !known:
			v.unexplained = append(v.unexplained, name)
		}
	}
	return v
}

// rule says why tests whose names begin in a way, or are all of a name, are not run.
type rule struct {
	pattern string // a name; a trailing * stands for the rest of it
	why     string
	tests   int
}

func (r rule) matches(name string) bool {
	prefix, open := strings.CutSuffix(r.pattern, "*")
	return name == r.pattern || open && strings.HasPrefix(name, prefix)
}

// scope lists what is none of the gateway's business.
type scope []*rule

// why is empty for a test that is run.
func (s scope) why(name string) string {
	if i := slices.IndexFunc(s, func(r *rule) bool { return r.matches(name) }); i >= 0 {
		return s[i].why
	}
	return ""
}

func (s scope) count(name string) {
	s[slices.IndexFunc(s, func(r *rule) bool { return r.matches(name) })].tests++
}

// tests is how many are not run.
func (s scope) tests() (n int) {
	for _, r := range s {
		n += r.tests
	}
	return n
}

// explanations are reasons by test, by target.
type explanations map[string]map[string]string

func readScope(t *testing.T) scope {
	t.Helper()
	var s scope
	sections(t, "scope.txt", func(why, pattern string) { s = append(s, &rule{pattern: pattern, why: why}) })
	return s
}

func readExplanations(t *testing.T) explanations {
	t.Helper()
	all := explanations{"minio": {}, "filestore": {}}
	sections(t, "explained.txt", func(heading, name string) {
		if err := all.add(heading, name); err != nil {
			t.Fatal(err)
		}
	})
	return all
}

// add takes in a test below a heading "TARGET[, TARGET]: REASON".
func (e explanations) add(heading, name string) error {
	targets, why, ok := strings.Cut(heading, ": ")
	if !ok {
		return fmt.Errorf("compat: the heading %q has no reason", heading)
	}
	for target := range strings.SplitSeq(targets, ", ") {
		if e[target] == nil {
			return fmt.Errorf("compat: the heading %q names the target %q", heading, target)
		}
		if _, twice := e[target][name]; twice {
			return fmt.Errorf("compat: %s is explained twice for %s", name, target)
		}
		e[target][name] = why
	}
	return nil
}

// sections reads a file of headings, in brackets, with names below them.
func sections(t *testing.T, file string, visit func(heading, name string)) {
	t.Helper()
	f, err := os.Open(filepath.Join("testdata", file))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	heading := ""
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		switch {
		case line == "" || strings.HasPrefix(line, "#"):
		case strings.HasPrefix(line, "["):
			heading = strings.Trim(line, "[]")
		case heading == "":
			t.Fatalf("%s: %q has no heading above it", file, line)
		default:
			visit(heading, line)
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
}

func TestJudgeFindsWhatIsNewAndWhatIsOver(t *testing.T) {
	got := outcomes{"fine": "", "new": "broke", "known": "broke", "mended": "", "hopeless": "broke"}
	v := judge(got, func(name string) bool { return name != "hopeless" }, map[string]string{"known": "why", "mended": "why"})
	if want := []string{"new"}; !slices.Equal(v.unexplained, want) {
		t.Errorf("unexplained: got %q, want %q", v.unexplained, want)
	}
	if want := []string{"mended"}; !slices.Equal(v.stale, want) {
		t.Errorf("stale: got %q, want %q", v.stale, want)
	}
}

func TestScopeMatchesNamesAndBeginnings(t *testing.T) {
	s := scope{{pattern: "IAM*", why: "users"}, {pattern: "One", why: "one"}}
	for name, want := range map[string]string{"IAMGetUser_x": "users", "One": "one", "OneMore": "", "xIAM": ""} {
		if got := s.why(name); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
}

func TestExplanationsAreRefused(t *testing.T) {
	for name, add := range map[string]func(explanations) error{
		"no reason":      func(e explanations) error { return e.add("minio", "A") },
		"unknown target": func(e explanations) error { return e.add("tape: slow", "A") },
		"twice": func(e explanations) error {
			if err := e.add("minio: once", "A"); err != nil {
				return nil
			}
			return e.add("filestore, minio: again", "A")
		},
	} {
		if err := add(explanations{"minio": {}, "filestore": {}}); err == nil {
			t.Errorf("%s: got no error", name)
		}
	}
}

func TestRunnerThatDiesLeavesWhatItWasAt(t *testing.T) {
	running, got := map[string]bool{}, outcomes{}
	out := "{\"start\":\"A\"}\n{\"start\":\"B\"}\n{\"end\":\"A\",\"error\":\"no\"}\n{\"start\":\"C\"}\n{\"end\":\"C\"}\n"
	if err := read([]byte(out), running, got); err != nil {
		t.Fatal(err)
	}
	if !running["B"] || len(running) != 1 {
		t.Errorf("running: got %v, want B alone", running)
	}
	if got["A"] != "no" || !got.passed("C") || got.passed("B") {
		t.Errorf("got %v", got)
	}
}
