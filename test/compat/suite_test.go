package compat

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"chatelaine/test/servers"
)

const (
	// testLimit is how long one test of the suite may take.
	testLimit = time.Minute
	// workers is how many run at once: they wait more than they work.
	workers = 8
	// first are the tests that want an account without buckets: they run before all.
	first = "ListBuckets_"
)

var (
	bareAnew = flag.Bool("bare", false, "run versitygw's suite on MinIO itself again, and write testdata/minio.txt")
	failures = flag.String("failures", "", "append each test of the suite that fails, and what it says, to this file")
)

// outcomes are how tests ended, by name: the failure, or empty for a pass.
type outcomes map[string]string

func (o outcomes) passed(name string) bool {
	failure, ran := o[name]
	return ran && failure == ""
}

// suite is versitygw's, as far as it is about us.
type suite struct {
	binary string
	names  []string
	scope  scope
}

func newSuite(t *testing.T) *suite {
	t.Helper()
	s := &suite{binary: tool(t, "versitygw"), scope: readScope(t)}
	out := command(t, nil, s.binary, "list")
	for name := range strings.FieldsSeq(out) {
		if s.scope.why(name) == "" {
			s.names = append(s.names, name)
		} else {
			s.scope.count(name)
		}
	}
	return s
}

// TestVersitygwSuite runs each test of the suite on the gateway over MinIO and over
// files. What passes on MinIO itself has to pass over MinIO; over files everything has
// to pass; but for what is explained.
func TestVersitygwSuite(t *testing.T) {
	large(t)
	s, explained := newSuite(t), readExplanations(t)
	r := &report{suite: s, explained: explained, bare: s.onMinIO(t)}
	for _, target := range []struct {
		name  string
		cloud func() *servers.S3
		must  func(name string) bool
		into  *outcomes
	}{
		{"minio", func() *servers.S3 { return servers.MinIO(t) }, r.bare.passed, &r.minio},
		{"filestore", func() *servers.S3 { return nil }, func(string) bool { return true }, &r.files},
	} {
		t.Run(target.name, func(t *testing.T) {
			got := s.run(t, newNamesakeWorld(t, target.cloud()).account, s.names)
			v := judge(got, target.must, explained[target.name])
			if len(v.unexplained) > 0 { // once more, alone, on servers that nobody has used
				maps.Copy(got, s.run(t, newNamesakeWorld(t, target.cloud()).account, v.unexplained))
				v = judge(got, target.must, explained[target.name])
			}
			for _, name := range v.unexplained {
				t.Errorf("%s fails and is not explained: %s", name, got[name])
			}
			for _, name := range v.stale {
				t.Logf("%s is explained and passes: testdata/explained.txt can lose it", name)
			}
			*target.into = got
			noteFailures(t, target.name, got)
		})
	}
	if r.minio != nil && r.files != nil {
		r.write(t, "RESULTS.md")
		t.Log(r.summary())
		r.judge(t)
	}
}

// noteFailures is for those who mend the gateway.
func noteFailures(t *testing.T, target string, got outcomes) {
	t.Helper()
	if *failures == "" {
		return
	}
	f, err := os.OpenFile(*failures, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, name := range slices.Sorted(maps.Keys(got)) {
		if !got.passed(name) {
			fmt.Fprintf(f, "%s %s: %s\n", target, name, strings.ReplaceAll(got[name], "\n", " "))
		}
	}
}

// run runs tests on a server. A test that ends the process counts as failed; the rest
// runs in another.
func (s *suite) run(t *testing.T, a account, names []string) outcomes {
	t.Helper()
	got, begun := outcomes{}, time.Now()
	for left := names; len(left) > 0; {
		started, err := s.process(t, a, left, got)
		for _, name := range started {
			got[name] = fmt.Sprintf("ended the process: %v", err)
		}
		before := len(left)
		left = slices.DeleteFunc(slices.Clone(left), func(name string) bool { _, ran := got[name]; return ran })
		if len(left) == before {
			t.Fatalf("running the suite: %v", err)
		}
	}
	t.Logf("%d tests in %v", len(names), time.Since(begun).Round(time.Second))
	return got
}

// process runs tests in one process, notes how they ended, and returns those that
// started and did not end.
func (s *suite) process(t *testing.T, a account, names []string, got outcomes) ([]string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), s.binary, "run", "--endpoint", a.endpoint, "--versioning",
		"--alone", first, "--workers", fmt.Sprint(workers), "--limit", testLimit.String())
	cmd.Env = append([]string{"HOME=" + t.TempDir()}, a.env()...)
	cmd.Dir = t.TempDir()
	cmd.Stdin = strings.NewReader(strings.Join(names, "\n"))
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	running := map[string]bool{}
	if parseErr := read(out, running, got); parseErr != nil {
		t.Fatalf("running the suite: %v: %.2000s", parseErr, errs.String())
	}
	if err != nil {
		err = fmt.Errorf("%w: %.500s", err, errs.String())
	}
	return slices.Sorted(maps.Keys(running)), err
}

// read takes in what the runner has printed. running gets what has not ended.
func read(out []byte, running map[string]bool, got outcomes) error {
	lines := json.NewDecoder(bytes.NewReader(out))
	for {
		var event struct{ Start, End, Error string }
		err := lines.Decode(&event)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if event.Start != "" {
			running[event.Start] = true
			continue
		}
		delete(running, event.End)
		got[event.End] = event.Error
	}
}

// onMinIO is how the tests end on MinIO itself: as testdata/minio.txt has it, or as a
// run says where MinIO or the suite has changed since.
func (s *suite) onMinIO(t *testing.T) outcomes {
	t.Helper()
	file, key := filepath.Join("testdata", "minio.txt"), versions(t)
	text, err := os.ReadFile(file)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	head, list, _ := strings.Cut(string(text), "\n")
	got := outcomes{}
	if head == key && !*bareAnew {
		for name := range strings.FieldsSeq(list) {
			got[name] = ""
		}
		return got
	}
	all := command(t, nil, s.binary, "list")
	got = s.run(t, accountOf(servers.MinIO(t)), strings.Fields(all))
	passed := slices.DeleteFunc(slices.Sorted(maps.Keys(got)), func(name string) bool { return !got.passed(name) })
	text = []byte(key + "\n" + strings.Join(passed, "\n") + "\n")
	if err := os.WriteFile(file, text, 0o644); err != nil {
		t.Fatal(err)
	}
	return got
}

// versions names the versions of MinIO and of the suite.
func versions(t *testing.T) string {
	t.Helper()
	h := sha256.New()
	for _, name := range []string{"minio/go.mod", "versitygw/go.mod"} {
		text, err := os.ReadFile(filepath.Join("..", "tools", filepath.FromSlash(name)))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = h.Write(text)
	}
	return "# passed on MinIO itself; modules " + hex.EncodeToString(h.Sum(nil))[:16]
}
