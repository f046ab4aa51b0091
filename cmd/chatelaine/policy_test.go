package main

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"chatelaine/kms"
)

func TestPolicyCommands(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	startUp(t, nil, "--data", filepath.Join(dir, ".run"), "--kek", "softkey")
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	run := func(want int, args ...string) (out, err string) {
		t.Helper()
		c := startIn(t, dir, nil, append([]string{"policy"}, args...)...)
		if code := c.end(t); code != want {
			t.Errorf("%v: ended with %d, want %d: %s%s", args, code, want, c.out.String(), c.err.String())
		}
		return c.out.String(), c.err.String()
	}
	says := func(text string, wants ...string) {
		t.Helper()
		for _, want := range wants {
			if !strings.Contains(text, want) {
				t.Errorf("got %q, want %q in it", text, want)
			}
		}
	}

	out, text := run(0, "show")
	says(out, "owners-may-do-everything")
	says(text, "version 0, the default")
	out, _ = run(0, "show", "--schema")
	says(out, `action "s3:GetObject"`)
	out, _ = run(0, "history")
	says(out, "None were put")

	write("good.cedar", `@id("team") permit (principal in Group::"team", action in Action::"read", resource in Bucket::"b") when { context.tls };`)
	write("bad.cedar", "permit (\n  principal, action == Action::\"s3:GetObjct\", resource);")
	write("team.json", `[{"uid":{"type":"Group","id":"team"},"attrs":{},"parents":[]},{"uid":{"type":"User","id":"bob"},"attrs":{},"parents":[{"type":"Group","id":"team"}]}]`)
	_, text = run(exitUsage, "put", "good.cedar")
	says(text, `no Group::"team"`, "nothing was changed")
	_, text = run(exitUsage, "put", "bad.cedar")
	says(text, "2:24", `did you mean "s3:GetObject"`)
	_, text = run(exitUsage, "put", "missing.cedar")
	says(text, "missing.cedar")
	out, _ = run(0, "put", "good.cedar", "--entities", "team.json", "--check")
	says(out, "Nothing is wrong", "version 1")
	out, _ = run(0, "history")
	says(out, "None were put")
	out, _ = run(0, "put", "good.cedar", "--entities", "team.json", "--reason", "the team reads")
	says(out, "Version 1 holds, in the place of version 0")
	out, _ = run(0, "put", "good.cedar") // with the entities that hold
	says(out, "holds already")
	out, _ = run(0, "history")
	says(out, "the team reads", "unix:")
	out, text = run(0, "show")
	says(out, `@id("team")`)
	says(text, "version 1, put ", "the team reads")
	out, _ = run(0, "show", "--entities")
	says(out, `"bob"`)
	_, text = run(exitFailure, "show", "--version", "7")
	says(text, "chatelaine policy history")

	ask := func(want int, args ...string) (string, string) {
		t.Helper()
		return run(want, append([]string{"test", "--principal", "bob", "--action", "s3:GetObject", "--bucket", "b", "--object", "k"}, args...)...)
	}
	out, _ = ask(0)
	says(out, "ALLOWED: s3:GetObject b/k by bob: permitted by team")
	out, text = ask(exitDenied, "--tls=false")
	says(out, "DENIED", "no policy permits it", "when context.tls")
	if text != "" {
		t.Errorf("a denial says %q", text)
	}
	out, _ = ask(exitDenied, "--principal", "eve")
	says(out, `principal in Group::"team"`)
	write("hold.cedar", `@id("hold") forbid (principal, action, resource) when { context.time >= datetime("2027-01-01") };`)
	out, _ = ask(exitDenied, "--file", "hold.cedar", "--time", "2027-02-01T00:00:00Z")
	says(out, "forbidden by hold")
	out, _ = ask(exitDenied, "--json", "--file", "hold.cedar")
	says(out, `"allow": false`, `"part": "when"`)
	_, text = ask(exitUsage, "--time", "tomorrow")
	says(text, "want a time like")
	_, text = ask(exitUsage, "--action", "s3:GetObjct")
	says(text, `did you mean "s3:GetObject"`)
	_, text = ask(exitUndecided, "--kms", "unix:///no/such/socket")
	says(text, "does the KMS run")
}

func TestOnlyADenialHasTheExitCodeOfOne(t *testing.T) {
	cmd := &cobra.Command{}
	cmd.SetErr(&strings.Builder{})
	for name, test := range map[string]struct {
		err  error
		want int
	}{
		"allowed":        {nil, 0},
		"denied":         {&exitError{exitDenied, errors.New("denied")}, exitDenied},
		"invalid":        {kms.ErrInvalid, exitUsage},
		"usage":          {usageError{errors.New("x")}, exitUsage},
		"no KMS":         {kms.ErrUnavailable, exitUndecided},
		"not an admin":   {kms.ErrDenied, exitUndecided},
		"something else": {errors.New("x"), exitUndecided},
	} {
		if got := exitCode(undecided(cmd, test.err)); got != test.want {
			t.Errorf("%s: got %d, want %d", name, got, test.want)
		}
	}
}

func TestApproversOfPoliciesReadWhatTheySign(t *testing.T) {
	dir := t.TempDir()
	people(t, dir, "alice", "bob")
	rules := rulesOf(t, dir, "  - {actions: [policy.put, rules.put], quorum: {security: 1}}\n", "alice", "bob")
	for name, text := range map[string]string{
		"rules.yaml":   rules,
		"first.cedar":  `@id("first") permit (principal, action, resource);`,
		"second.cedar": `@id("second") permit (principal == User::"bob", action, resource);`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	startUp(t, nil, "--data", filepath.Join(dir, ".run"), "--kek", "softkey")
	run := func(want int, says string, args ...string) string {
		t.Helper()
		c := startIn(t, dir, nil, args...)
		code := c.end(t)
		text := c.out.String() + c.err.String()
		if code != want || !strings.Contains(text, says) {
			t.Fatalf("%v: ended with %d, want %d and %q: %s", args, code, want, says, text)
		}
		return text
	}
	run(0, "", "ceremony", "begin", "rules.yaml", "c")
	for _, name := range []string{"alice", "bob"} {
		run(0, "Signed", "ceremony", "sign", "c", "--sign-key", name, "--yes")
	}
	run(0, "Dual control is on", "ceremony", "apply", "c")

	// Both ask at the same time; bob approves what he is shown.
	request := func(file string) string {
		t.Helper()
		asked := run(exitFailure, "is recorded", "policy", "put", file, "--as", "alice", "--sign-key", "alice", "--reason", "needed")
		return regexp.MustCompile(`request ([0-9a-f]{32}) is recorded`).FindStringSubmatch(asked)[1]
	}
	first, second := request("first.cedar"), request("second.cedar")
	shown := run(0, "is approved", "approve", first, "--sign-key", "bob", "--yes")
	for _, want := range []string{`@id("first") permit (principal, action, resource);`, "policy.put", "replaces"} {
		if !strings.Contains(shown, want) {
			t.Errorf("bob is not shown %q: %s", want, shown)
		}
	}
	run(0, "is approved", "approve", second, "--sign-key", "bob", "--yes")
	run(exitFailure, `another param "digest" was approved`, "policy", "put", "second.cedar", "--reason", "needed", "--approval", first)
	run(0, "Version 1 holds", "policy", "put", "first.cedar", "--reason", "needed", "--approval", first)
	// The second was approved in the place of version 0, which holds no more.
	run(exitFailure, `another param "replaces" was approved`, "policy", "put", "second.cedar", "--reason", "needed", "--approval", second)
	run(0, first, "policy", "history")
}
