package approval

import (
	"context"
	"crypto/ed25519"
	"crypto/sha512"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"chatelaine/kms"
	"chatelaine/kms/registry"
)

// signatory is a person with a key.
type signatory struct {
	name    string
	private ed25519.PrivateKey
	public  ssh.PublicKey
}

// person makes a person whose key depends on the name alone.
func person(name string) signatory {
	seed := sha512.Sum512([]byte(name))
	private := ed25519.NewKeyFromSeed(seed[:ed25519.SeedSize])
	public, err := ssh.NewPublicKey(private.Public())
	if err != nil {
		panic(err)
	}
	return signatory{name: name, private: private, public: public}
}

func (s signatory) line() string {
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(s.public)))
}

// sign is `ssh-keygen -Y sign -n chatelaine`.
func (s signatory) sign(message []byte) string { return s.signAs(message, Namespace) }

func (s signatory) signAs(message []byte, namespace string) string {
	digest := sha512.Sum512(message)
	signed := ssh.Marshal(struct {
		Namespace, Reserved, Hash string
		Digest                    []byte
	}{namespace, "", "sha512", digest[:]})
	signature := ed25519.Sign(s.private, append([]byte("SSHSIG"), signed...))
	return armor(sshsig{
		Version: 1, PublicKey: s.public.Marshal(), Namespace: namespace, Hash: "sha512",
		Signature: ssh.Marshal(ssh.Signature{Format: ssh.KeyAlgoED25519, Blob: signature}),
	})
}

func armor(s sshsig) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: sshsigArmor, Bytes: append([]byte(sshsigMagic), ssh.Marshal(s)...)}))
}

// staff is who there is in the tests' rules.
func staff() []string { return []string{"alice", "bob", "carol", "dave", "eve"} }

// rulesWith has three of security, two of legal (carol is in both), and the rules given.
func rulesWith(rules string) []byte {
	var b strings.Builder
	b.WriteString("people:\n")
	for _, name := range staff() {
		fmt.Fprintf(&b, "  %s:\n    keys: [%q]\n", name, person(name).line())
	}
	b.WriteString("    actors: [cn-eve]\n") // of the last: eve
	b.WriteString("groups:\n  security: [alice, bob, carol]\n  legal: [carol, dave]\n")
	b.WriteString("rules:\n" + strings.TrimPrefix(rules, "\n"))
	return []byte(b.String())
}

const usual = `
  - actions: [rules.put]
    quorum: {security: 2}
  - actions: [key.destroy]
    resources: ["key/*"]
    quorum: {security: 2, legal: 1}
    wait: 1h
    valid: 2h
    expires: 10h
  - actions: [key.unblock]
    quorum: {security: 2}
  - actions: [key.use]
    resources: [key/secret]
    quorum: {security: 1}
    valid: 8h
  - actions: [key.set]
    quorum: {}
`

// hands are a clock that a test moves.
type hands struct {
	wall   time.Time
	steady time.Duration
}

func (h *hands) pass(d time.Duration) { h.wall, h.steady = h.wall.Add(d), h.steady+d }
func (h *hands) jump(d time.Duration) { h.wall = h.wall.Add(d) }

// world is a Control on a registry in memory, with a clock of its own.
type world struct {
	*Control
	memory kms.Registry
	hands  *hands
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{memory: registry.NewMemory(), hands: &hands{wall: time.Date(2026, 8, 3, 10, 0, 0, 0, time.UTC)}}
	w.Control = w.control(t, Config{})
	return w
}

// control is another process on the same registry.
func (w *world) control(t testing.TB, c Config) *Control {
	t.Helper()
	if c.Registry == nil {
		c.Registry = w.memory
	}
	out, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	h, from := w.hands, w.hands.steady
	out.clock = clock{
		wall: func() time.Time { return h.wall }, began: h.wall,
		steady: func() time.Duration { return h.steady - from },
	}
	return out
}

// founded is a world after its ceremony.
func founded(t testing.TB, rules string) *world {
	t.Helper()
	w := newWorld(t)
	w.found(t, rulesWith(rules))
	return w
}

func (w *world) found(t testing.TB, text []byte) Bundle {
	t.Helper()
	statement, err := w.BeginCeremony(t.Context(), text)
	if err != nil {
		t.Fatal(err)
	}
	b, err := w.ApplyCeremony(t.Context(), statement, text, everybody(statement))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func everybody(statement []byte) (signatures []string) {
	for _, name := range staff() {
		signatures = append(signatures, person(name).sign(statement))
	}
	return signatures
}

func destroy() kms.Operation {
	return kms.Operation{
		Action: kms.ActionDestroy, Resource: "key/main.v1", Params: map[string]string{"report": "r1"},
		Actor: "unix:root", Reason: "old",
	}
}

// ask makes a request as a person.
func (w *world) ask(t testing.TB, as string, op kms.Operation) Request {
	t.Helper()
	q, _, found, err := w.Prepare(t.Context(), op, as)
	if err != nil || found {
		t.Fatalf("found %t, %v", found, err)
	}
	statement := q.Statement(Ask)
	if _, err := w.Submit(t.Context(), op.Actor, statement, person(as).sign(statement), nil); err != nil {
		t.Fatal(err)
	}
	return q
}

func (w *world) cast(ctx context.Context, name string, v Verdict, q Request) (Standing, error) {
	return w.Vote(ctx, q.ID, v, person(name).sign(q.Statement(v)))
}

func (w *world) approve(t testing.TB, q Request, names ...string) {
	t.Helper()
	for _, name := range names {
		if _, err := w.cast(t.Context(), name, Approve, q); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
}

// do is what a Manager does: the operation in one transaction with its grant.
func do(ctx context.Context, c *Control, r kms.Registry, op kms.Operation) error {
	grant, err := c.Permit(ctx, op)
	if err != nil {
		return err
	}
	t := kms.Transaction{If: grant.If, Put: append(grant.Put, kms.Item{Key: "done/" + op.Resource, Value: []byte(op.Reason)})}
	return r.Commit(ctx, t)
}

func (w *world) do(t testing.TB, op kms.Operation, q Request) error {
	t.Helper()
	op.Approval = q.ID
	return do(t.Context(), w.Control, w.memory, op)
}

func wantErr(t testing.TB, err, want error, texts ...string) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("got %v, want %v", err, want)
		return
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("%q does not say %q", err, text)
		}
	}
}
