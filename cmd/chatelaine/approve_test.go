package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// people have SSH keys in a folder, made by ssh-keygen.
func people(t *testing.T, folder string, names ...string) {
	t.Helper()
	if _, err := exec.LookPath("ssh-keygen"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip("ssh-keygen is not installed")
	}
	for _, name := range names {
		out, err := exec.CommandContext(t.Context(), "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", filepath.Join(folder, name)).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
}

func rulesOf(t *testing.T, folder, rules string, names ...string) string {
	t.Helper()
	var b strings.Builder
	b.WriteString("people:\n")
	for _, name := range names {
		key, err := os.ReadFile(filepath.Join(folder, name+".pub"))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "  %s: {keys: [%q]}\n", name, strings.TrimSpace(string(key)))
	}
	fmt.Fprintf(&b, "groups: {security: [%s]}\nrules:\n%s", strings.Join(names, ", "), rules)
	return b.String()
}

func TestDualControlFromTheCeremonyToAnExportedProof(t *testing.T) {
	dir := t.TempDir()
	names := []string{"alice", "bob", "carol"}
	people(t, dir, names...)
	write := func(name, text string) string {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
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
	first := write("first.yaml", rulesOf(t, dir, "  - {actions: [rules.put], quorum: {security: 2}}\n", names...))
	second := write("second.yaml", rulesOf(t, dir, "  - {actions: [rules.put], quorum: {security: 1}}\n", names...))

	run(0, "Dual control is off", "rules", "show")
	run(0, "There are no requests", "pending")
	run(exitFailure, "chatelaine ceremony", "rules", "put", second)
	run(exitUsage, "is 4 of a group of 3", "rules", "check", write("bad.yaml", rulesOf(t, dir, "  - {actions: [rules.put], quorum: {security: 4}}\n", names...)))
	run(0, "The rules are good", "rules", "check", first)

	run(0, "Everybody in it signs", "ceremony", "begin", first, "c")
	run(exitFailure, "name a new folder", "ceremony", "begin", first, "c")
	run(exitUsage, "say --yes", "ceremony", "sign", "c", "--sign-key", "alice")
	run(exitUsage, "name your SSH key", "ceremony", "sign", "c", "--yes")
	for _, name := range []string{"alice", "bob"} {
		run(0, "Signed as "+name, "ceremony", "sign", "c", "--sign-key", name, "--yes")
	}
	run(exitUsage, "not signed by carol", "ceremony", "apply", "c")
	run(exitFailure, "alice has signed already", "ceremony", "sign", "c", "--sign-key", "alice", "--yes")
	run(0, "Signed as carol", "ceremony", "sign", "c", "--sign-key", "carol", "--yes")
	applied := run(0, "Dual control is on", "ceremony", "apply", "c")
	ceremony := regexp.MustCompile(`ceremony: ([0-9a-f]{64})`).FindStringSubmatch(applied)[1]
	run(exitFailure, "a ceremony was held", "ceremony", "apply", "c")
	run(0, "Rules 1 hold", "rules", "show")
	run(0, ceremony, "approvals", "verify", "c/transcript.json", "--ceremony", ceremony)
	transcript, err := os.ReadFile(filepath.Join(dir, "c", "transcript.txt"))
	if err != nil || !bytes.Contains(transcript, []byte("The signature of carol")) || !bytes.Contains(transcript, []byte(ceremony)) {
		t.Errorf("transcript %s, %v", transcript, err)
	}

	// Root on the socket is nobody in particular: carol asks, and signs that she does.
	put := []string{"rules", "put", second, "--reason", "fewer people"}
	run(exitFailure, "say who asks with --as NAME", put...)
	run(exitFailure, "without --no-request", append(put, "--no-request")...)
	run(exitFailure, "name your SSH key", append(put, "--as", "carol")...)
	asked := run(exitFailure, "is recorded, and pending", append(put, "--as", "carol", "--sign-key", "carol")...)
	id := regexp.MustCompile(`request ([0-9a-f]{32}) is recorded`).FindStringSubmatch(asked)[1]
	run(exitFailure, id, append(put, "--as", "carol", "--sign-key", "carol")...) // the same request again
	run(0, id[:8], "pending")
	run(exitFailure, "nobody has approved yet", append(put, "--approval", id)...)

	run(exitFailure, "whoever asks cannot approve", "approve", id[:6], "--sign-key", "carol", "--yes")
	run(exitFailure, "chatelaine pending", "approve", "00000000", "--sign-key", "carol", "--yes")
	run(0, "is pending", "approve", id[:6], "--sign-key", "alice", "--yes")
	run(0, "ssh-keygen -Y sign", "approve", id, "--statement", "to-sign")
	if out, err := exec.CommandContext(t.Context(), "ssh-keygen", "-q", "-Y", "sign", "-n", "chatelaine",
		"-f", filepath.Join(dir, "bob"), filepath.Join(dir, "to-sign")).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	run(exitFailure, "not over this statement", "reject", id, "--signature", "to-sign.sig")
	shown := run(0, "is approved", "approve", id, "--signature", "to-sign.sig")
	for _, want := range []string{`rules.put of "rules"`, `"fewer people"`, "The document that it is about", "quorum: {security: 1}"} {
		if !strings.Contains(shown, want) {
			t.Errorf("approvers are not shown %q: %s", want, shown)
		}
	}
	run(exitFailure, "another reason was approved", "rules", "put", second, "--reason", "no reason", "--approval", id)
	run(0, "Rules 2 hold", append(put, "--approval", id)...)
	run(exitFailure, "good for once", append(put[:2:2], first, "--reason", "fewer people", "--approval", id)...)

	exported := startIn(t, dir, nil, "approvals", "export", id[:8])
	if exported.end(t) != 0 {
		t.Fatal(exported.err.String())
	}
	proof := write("proof.json", exported.out.String())
	run(0, "approved: signed by alice, bob", "approvals", "verify", proof, "--ceremony", ceremony)
	run(exitFailure, "it proves nothing", "approvals", "verify", proof, "--ceremony", strings.Repeat("0", 64))
	run(exitFailure, "it proves nothing", "approvals", "verify", write("forged.json", strings.Replace(exported.out.String(), "fewer", "f3wer", 1)))
	run(0, `"approved": true`, "approvals", "verify", proof, "--json")

	use := run(0, "Request", "approvals", "request", "key.use", "key/main", "--as", "carol", "--sign-key", "carol", "--reason", "x")
	taken := regexp.MustCompile(`[0-9a-f]{32}`).FindString(use)
	run(0, "rejected", "reject", taken, "--sign-key", "carol", "--yes") // one's own request can be taken back
	run(0, "carol rejected it", "approvals", "show", taken)
}
