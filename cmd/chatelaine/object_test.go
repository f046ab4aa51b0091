package main

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"chatelaine/gateway/breakglass"
)

// yields writes its text, and then fails with err.
type yields struct {
	text string
	err  error
}

func (y yields) WriteTo(w io.Writer) (int64, error) {
	n, err := io.WriteString(w, y.text)
	return int64(n), errors.Join(err, y.err)
}

func TestPlaintextBecomesAFileWholeOrNotAtAll(t *testing.T) {
	dir, failure := t.TempDir(), errors.New("a wrong tag")
	name := filepath.Join(dir, "plain")
	if _, err := writeWhole(name, yields{"some", failure}); !errors.Is(err, failure) {
		t.Errorf("got %v, want the failure", err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("it left %v, %v", left, err)
	}
	if n, err := writeWhole(name, yields{text: "all"}); err != nil || n != 3 {
		t.Fatalf("got %d, %v", n, err)
	}
	if _, err := writeWhole(name, yields{text: "other"}); exitCode(err) != exitUsage {
		t.Errorf("over a file: got %v", err)
	}
	got, err := os.ReadFile(name)
	left, _ := os.ReadDir(dir)
	info, _ := os.Stat(name)
	if err != nil || string(got) != "all" || len(left) != 1 || info.Mode().Perm() != 0o600 {
		t.Errorf("got %q, %v; %d files; mode %v", got, err, len(left), info.Mode())
	}
}

func TestAReportComesBackFromItsFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "report")
	if r, err := loadReport(file); err != nil || !reflect.DeepEqual(r, breakglass.Report{}) {
		t.Errorf("where there is none: got %+v, %v", r, err)
	}
	want := breakglass.Report{
		Chatelaine: breakglass.ReportKind, Bucket: "b", Started: time.Unix(5, 0).UTC(), After: breakglass.Place{Key: "k\x00\xc3\xa4"}, Good: 7,
		Bad: []breakglass.Problem{{Place: breakglass.Place{Key: "x", Version: "v"}, Kind: breakglass.Corrupt, Problem: "p"}},
	}
	for range 2 { // over itself too
		if err := saveReport(file, want); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := loadReport(file); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	good, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"cut": string(good[:len(good)/2]), "more": string(good) + "{}", "another kind": strings.Replace(string(good), "verify/1", "verify/2", 1),
		"an unknown field": strings.Replace(string(good), `"good"`, `"great"`, 1), "nothing": "",
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if r, err := loadReport(file); exitCode(err) != exitUsage {
			t.Errorf("%s: got %+v, %v, want a usage error", name, r, err)
		}
	}
}

func TestObjectCommandsSayWhatIsMissing(t *testing.T) {
	dir := t.TempDir()
	at := "file://" + filepath.Join(dir, "cloud")
	header := filepath.Join(dir, "header")
	if err := os.WriteFile(header, []byte("1.x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		args []string
		want string
	}{
		"no command":          {nil, "which command"},
		"no place":            {[]string{"open", "b", "k"}, "where do the buckets lie?"},
		"no key":              {[]string{"open", "b", "--backend", at}, "which object?"},
		"nothing to open":     {[]string{"open", "b", "k", "--backend", at}, "what opens the keys?"},
		"file, no envelope":   {[]string{"inspect", "k", "--file", header}, "--envelope"},
		"file and backend":    {[]string{"inspect", "k", "--file", header, "--envelope", header, "--backend", at}, "neither"},
		"no such mirror":      {[]string{"inspect", "k", "--file", header, "--envelope", header, "--mirror", header + "x"}, "no such file"},
		"no mirror":           {[]string{"inspect", "k", "--file", header, "--envelope", header, "--mirror", header}, "mirror record"},
		"recovery, no signer": {[]string{"verify", "b", "--backend", at, "--recovery-key", header}, "--signer"},
		"signer alone":        {[]string{"verify", "b", "--backend", at, "--signer", "x"}, "--recovery-key"},
		"no report":           {[]string{"verify", "b", "--backend", at, "--kms-config", header, "--report", header}, header},
	} {
		p := start(t, nil, append([]string{"object"}, tc.args...)...)
		if code := p.end(t); code != exitUsage || !strings.Contains(p.err.String(), tc.want) {
			t.Errorf("%s: got %d and %q, want 2 and %q", name, code, p.err.String(), tc.want)
		}
	}
}
