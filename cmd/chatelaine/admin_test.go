package main

import (
	"bytes"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"chatelaine/kms"
)

func TestErrorsOfAdministratorsSayWhatToDo(t *testing.T) {
	tests := map[string]struct{ err, want error }{
		"approval":    {fmt.Errorf("x: %w", kms.ErrApproval), kms.ErrApproval},
		"denied":      {fmt.Errorf("x: %w", kms.ErrDenied), kms.ErrDenied},
		"unavailable": {fmt.Errorf("x: %w", kms.ErrUnavailable), kms.ErrUnavailable},
		"needed":      {fmt.Errorf("x: %w", kms.ErrNeeded), kms.ErrNeeded},
		"conflict":    {fmt.Errorf("x: %w", kms.ErrConflict), kms.ErrConflict},
	}
	said := map[string]bool{}
	for name, test := range tests {
		text := explain(test.err, "unix:///s").Error()
		lines := strings.Split(text, "\n")
		if len(lines) != 2 || lines[0] != test.err.Error() || said[lines[1]] {
			t.Errorf("%s: got %q", name, text)
		}
		said[lines[1]] = true
	}
	once := advise(kms.ErrDenied, "do this")
	if got := explain(once, ""); got.Error() != once.Error() {
		t.Errorf("advice was added to advice: %q", got)
	}
	if explain(nil, "") != nil || advise(nil, "x") != nil {
		t.Error("advice for nothing")
	}
}

func TestSimilarNames(t *testing.T) {
	names := []string{"main", "mail", "payments", "payroll", "x"}
	for name, want := range map[string]string{
		"mian": "[main]", "mani": "[main mail]", "maim": "[main mail]", "main2": "[main mail]", "pay": "[payments payroll]", "payment": "[payments]", "zzz": "", "": "[main mail payments]",
	} {
		got := similar(name, names)
		if len(got) == 0 && want == "" {
			continue
		}
		if fmt.Sprint(got) != want {
			t.Errorf("%q: got %v, want %s", name, got, want)
		}
	}
}

func TestDistance(t *testing.T) {
	for _, test := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"", "abc", 3}, {"abc", "", 3}, {"kitten", "sitting", 3}, {"flaw", "lawn", 2}, {"same", "same", 0}} {
		if got := distance(test.a, test.b); got != test.want {
			t.Errorf("%q to %q: got %d, want %d", test.a, test.b, got, test.want)
		}
	}
}

func TestTablesAreAlignedAndJSONIsStable(t *testing.T) {
	var out bytes.Buffer
	a := &admin{out: &out}
	some := table{header: []string{"NAME", "STATE"}, rows: [][]string{{"a", "active"}, {"longer", "blocked"}}}
	if err := a.show(nil, some); err != nil || out.String() != "NAME    STATE\na       active\nlonger  blocked\n" {
		t.Errorf("got %q, %v", out.String(), err)
	}
	out.Reset()
	if err := a.show(nil, table{empty: "Nothing."}); err != nil || out.String() != "Nothing.\n" {
		t.Errorf("got %q, %v", out.String(), err)
	}
	out.Reset()
	a.json = true
	if err := a.show(map[string]int{"x": 1}, some); err != nil || out.String() != "{\n  \"x\": 1\n}\n" {
		t.Errorf("got %q, %v", out.String(), err)
	}
}

func TestProgressIsLinesWhereThereIsNoTerminal(t *testing.T) {
	var out bytes.Buffer
	p := newProgress(&out, "rewrapping")
	for i := range uint64(1001) {
		p.set(i, 1000)
	}
	p.end()
	if got := strings.Split(strings.TrimSpace(out.String()), "\n"); got[0] != "rewrapping: 0 of 1000" || got[len(got)-1] != "rewrapping: 1000 of 1000" || len(got) > 10 {
		t.Errorf("got %q", got)
	}
	out.Reset()
	p = &progress{out: &out, label: "x", terminal: true}
	p.set(5, 5)
	p.end()
	if want := "\rx [" + strings.Repeat("#", barWidth) + "] 5 of 5 \n"; out.String() != want {
		t.Errorf("got %q, want %q", out.String(), want)
	}
}

func TestKeyCommandsFindTheKMS(t *testing.T) {
	dir := t.TempDir()
	p := startUp(t, nil, "--data", filepath.Join(dir, ".run"), "--kek", "softkey")
	run := func(want int, args ...string) *program {
		t.Helper()
		c := startIn(t, dir, nil, args...)
		if code := c.end(t); code != want {
			t.Errorf("%v: ended with %d, want %d: %s", args, code, want, c.err.String())
		}
		return c
	}
	if got := run(0, "key", "list").out.String(); !strings.Contains(got, "main (default)") || !strings.HasPrefix(got, "NAME ") {
		t.Errorf("got %q", got)
	}
	if got := run(0, "key", "list", "--json").out.String(); !strings.Contains(got, `"default_kek": "main"`) {
		t.Errorf("got %q", got)
	}
	if got := run(0, "key", "show", "main").out.String(); !strings.Contains(got, "active") || !strings.Contains(got, "kms") {
		t.Errorf("got %q", got)
	}
	got := run(exitFailure, "key", "show", "mains")
	if text := got.err.String(); !strings.Contains(text, "did you mean main?") || !strings.Contains(text, "chatelaine key list") {
		t.Errorf("got %q", text)
	}
	_ = p.Process.Kill()
	<-p.exited
	if text := run(exitFailure, "key", "list").err.String(); !strings.Contains(text, "does the KMS run at unix://") {
		t.Errorf("got %q", text)
	}
	if text := run(exitUsage, "key", "list", "--kms", "http://x").err.String(); !strings.Contains(text, "--kms wants") {
		t.Errorf("got %q", text)
	}
	empty := startIn(t, t.TempDir(), nil, "key", "list")
	if code := empty.end(t); code != exitUsage || !strings.Contains(empty.err.String(), "which KMS?") {
		t.Errorf("got %d and %q", code, empty.err.String())
	}
}
