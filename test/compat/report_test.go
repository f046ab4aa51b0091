package compat

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
)

// report is what RESULTS.md says. It says the same for the same outcomes.
type report struct {
	suite              *suite
	explained          explanations
	bare, minio, files outcomes
}

func (r *report) write(t *testing.T, name string) {
	t.Helper()
	var b strings.Builder
	b.WriteString("# versitygw's S3 suite through the gateway\n\n" +
		"Written by `go test ./test/compat -run TestVersitygwSuite`. \"MinIO\" is MinIO itself, \"over MinIO\" the gateway\n" +
		"with sealed objects in that MinIO, \"over files\" what `make up` starts. The gateway's user is called by its access\n" +
		"key's id (`chatelaine up --user`), as the suite knows accounts by nothing else.\n\n" + r.summary())
	r.groups(&b)
	r.delta(&b)
	r.failures(&b)
	r.outside(&b)
	if err := os.WriteFile(name, []byte(b.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}

func (r *report) summary() string {
	bare, over, files := r.passes(r.bare, r.suite.names), r.passes(r.minio, r.suite.names), r.passes(r.files, r.suite.names)
	all, out := len(r.suite.names), r.suite.scope.tests()
	return fmt.Sprintf("Of %d tests, %d pass on MinIO, %d over MinIO, %d over files (%.1f %%). %d pass on MinIO and fail over it.\n"+
		"%d more are about IAM, access control and websites and are not run; with all of those as failures it were %.1f %%.\n",
		all, bare, over, files, percent(files, all), len(r.lost()), out, percent(files, all+out))
}

// judge holds the run to what the project promises, beside each test having passed or
// been explained.
func (r *report) judge(t *testing.T) {
	t.Helper()
	const least, most = 90.0, 10
	if got := percent(r.passes(r.files, r.suite.names), len(r.suite.names)); got < least {
		t.Errorf("%.1f %% pass over files, want %.1f at least", got, least)
	}
	if n := len(r.lost()); n > most {
		t.Errorf("%d tests pass on MinIO and fail over it, want %d at most", n, most)
	}
}

func percent(n, all int) float64 { return 100 * float64(n) / float64(all) }

func (r *report) passes(o outcomes, names []string) (n int) {
	for _, name := range names {
		if o.passed(name) {
			n++
		}
	}
	return n
}

// lost are the tests that pass on MinIO itself alone.
func (r *report) lost() []string {
	return r.pick(func(name string) bool { return r.bare.passed(name) && !r.minio.passed(name) })
}

func (r *report) pick(keep func(string) bool) []string {
	return slices.DeleteFunc(slices.Clone(r.suite.names), func(name string) bool { return !keep(name) })
}

func (r *report) groups(b *strings.Builder) {
	groups := map[string][]string{}
	for _, name := range r.suite.names {
		group, _, _ := strings.Cut(name, "_")
		groups[group] = append(groups[group], name)
	}
	b.WriteString("\n## By group\n\n| group | tests | MinIO | over MinIO | over files |\n|---|--:|--:|--:|--:|\n")
	for _, group := range slices.Sorted(maps.Keys(groups)) {
		names := groups[group]
		fmt.Fprintf(b, "| %s | %d | %d | %d | %d |\n", group, len(names),
			r.passes(r.bare, names), r.passes(r.minio, names), r.passes(r.files, names))
	}
}

func (r *report) delta(b *strings.Builder) {
	b.WriteString("\n## Pass on MinIO and fail over it\n\n")
	byReason(b, r.lost(), r.explained["minio"])
}

func (r *report) failures(b *strings.Builder) {
	b.WriteString("\n## Fail over files\n\n")
	byReason(b, r.pick(func(name string) bool { return !r.files.passed(name) }), r.explained["filestore"])
}

// byReason lists names behind their reasons.
func byReason(b *strings.Builder, names []string, reasons map[string]string) {
	if len(names) == 0 {
		b.WriteString("None.\n")
	}
	below := map[string][]string{}
	for _, name := range names {
		why := reasons[name]
		if why == "" {
			why = "not explained"
		}
		below[why] = append(below[why], "`"+name+"`")
	}
	for _, why := range slices.Sorted(maps.Keys(below)) {
		fmt.Fprintf(b, "- %s (%d): %s\n", why, len(below[why]), strings.Join(below[why], ", "))
	}
}

func (r *report) outside(b *strings.Builder) {
	tests, patterns := map[string]int{}, map[string][]string{}
	for _, rule := range r.suite.scope {
		tests[rule.why] += rule.tests
		patterns[rule.why] = append(patterns[rule.why], fmt.Sprintf("`%s`", rule.pattern))
	}
	b.WriteString("\n## Not run\n\n")
	for _, why := range slices.Sorted(maps.Keys(tests)) {
		fmt.Fprintf(b, "- %s (%d): %s\n", why, tests[why], strings.Join(patterns[why], ", "))
	}
}
