package approval

import (
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"chatelaine/kms"
	"chatelaine/kms/registry"
)

func TestTheCeremonyTurnsDualControlOnOnce(t *testing.T) {
	w := newWorld(t)
	if law, err := w.Law(t.Context()); err != nil || law.Active {
		t.Fatalf("active %t, %v", law.Active, err)
	}
	b := w.found(t, rulesWith(usual))
	law, err := w.Law(t.Context())
	if err != nil || !law.Active || law.Number != 1 || law.Rules.Digest() != Digest(rulesWith(usual)) {
		t.Fatalf("got %+v, %v", law, err)
	}
	p, err := b.Verify(law.Ceremony)
	if err != nil || p.Ceremony != law.Ceremony || p.Number != 1 {
		t.Errorf("got %+v, %v", p, err)
	}
	_, err = w.BeginCeremony(t.Context(), rulesWith(usual))
	wantErr(t, err, kms.ErrExists, "rules put")
	statement := p.Statement
	_, err = w.ApplyCeremony(t.Context(), statement, rulesWith(usual), everybody(statement))
	wantErr(t, err, kms.ErrExists, "a ceremony was held")
}

func TestOneOfTwoConcurrentCeremoniesWins(t *testing.T) {
	w := newWorld(t)
	texts := [][]byte{rulesWith(usual), rulesWith(changeable)}
	results := make([]error, len(texts))
	var wg sync.WaitGroup
	statements := make([][]byte, len(texts))
	for i, text := range texts {
		var err error
		if statements[i], err = w.BeginCeremony(t.Context(), text); err != nil {
			t.Fatal(err)
		}
	}
	for i, text := range texts {
		wg.Go(func() {
			_, results[i] = w.ApplyCeremony(t.Context(), statements[i], text, everybody(statements[i]))
		})
	}
	wg.Wait()
	winner := slices.Index(results, nil)
	if winner < 0 {
		t.Fatal(results)
	}
	wantErr(t, results[1-winner], kms.ErrExists)
	if law, err := w.Law(t.Context()); err != nil || law.Rules.Digest() != Digest(texts[winner]) {
		t.Errorf("got %v", err)
	}
}

func TestACeremonyNeedsEverybodysSignatureOfThisStatement(t *testing.T) {
	text := rulesWith(usual)
	begin := func(t *testing.T) (*world, []byte) {
		w := newWorld(t)
		statement, err := w.BeginCeremony(t.Context(), text)
		if err != nil {
			t.Fatal(err)
		}
		return w, statement
	}
	tests := map[string]struct {
		alter func(w *world, statement *[]byte, rules *[]byte, signatures *[]string)
		want  string
	}{
		"somebody missing": {func(_ *world, _, _ *[]byte, s *[]string) { *s = (*s)[1:] }, "not signed by alice"},
		"nobody":           {func(_ *world, _, _ *[]byte, s *[]string) { *s = nil }, "not signed by alice, bob"},
		"one twice":        {func(_ *world, _, _ *[]byte, s *[]string) { (*s)[0] = (*s)[1] }, "not signed by alice"},
		"a stranger": {func(_ *world, st, _ *[]byte, s *[]string) {
			*s = append(*s, person("mallory").sign(*st))
		}, "signature 6"},
		"other rules":     {func(_ *world, _, r *[]byte, _ *[]string) { *r = rulesWith(changeable) }, "not the one for these rules"},
		"other statement": {func(_ *world, st, _ *[]byte, _ *[]string) { *st = append(*st, '\n') }, "not the one for these rules"},
		"other signatures": {func(_ *world, st, _ *[]byte, s *[]string) {
			*s = everybody(append([]byte("x"), *st...))
		}, "signature 1"},
		"elsewhere": {func(w *world, _, _ *[]byte, _ *[]string) { w.registry = registry.NewMemory() }, "another installation"},
		"late":      {func(w *world, _, _ *[]byte, _ *[]string) { w.hands.pass(ceremonyLife) }, "begin the ceremony again"},
		"early":     {func(w *world, _, _ *[]byte, _ *[]string) { w.hands.pass(-time.Hour) }, "begin the ceremony again"},
		"not pinned": {func(w *world, _, _ *[]byte, _ *[]string) {
			w.pin = strings.Repeat("0", 64)
		}, "the configuration names the ceremony"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			w, statement := begin(t)
			rules, signatures := slices.Clone(text), everybody(statement)
			test.alter(w, &statement, &rules, &signatures)
			_, err := w.ApplyCeremony(t.Context(), statement, rules, signatures)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
			if _, is, err := readMaybe[head](t.Context(), w.registry, headKey); err != nil || is.Revision != 0 {
				t.Errorf("rules were written: %v", err)
			}
		})
	}
}

func TestRulesAreChangedByTheirOwnQuorum(t *testing.T) {
	w := founded(t, usual)
	text := rulesWith(changeable)
	_, err := w.PutRules(t.Context(), []byte("people: {}"), "unix:root", "", "")
	wantErr(t, err, kms.ErrInvalid)
	if number := w.change(t, text); number != 2 {
		t.Errorf("number %d", number)
	}
	law, err := w.Law(t.Context())
	if err != nil || law.Number != 2 || law.Rules.Digest() != Digest(text) {
		t.Fatalf("got %+v, %v", law, err)
	}
	// Another process verifies the whole chain for itself.
	if law, err = w.control(t, Config{Ceremony: law.Ceremony}).Law(t.Context()); err != nil || law.Number != 2 {
		t.Errorf("got %+v, %v", law, err)
	}
}

func TestAnApprovalOfRulesIsForThatTextAndPlace(t *testing.T) {
	w := founded(t, usual)
	op := rulesOperation(2, rulesWith(changeable))
	op.Actor, op.Reason = "unix:root", "because"
	q := w.ask(t, "eve", op)
	w.approve(t, q, "alice", "bob")
	_, err := w.PutRules(t.Context(), rulesWith(usual+"#"), "unix:root", "because", q.ID)
	wantErr(t, err, kms.ErrApproval, `another param "digest"`)
	w.change(t, rulesWith(usual+"# more\n"))
	_, err = w.PutRules(t.Context(), rulesWith(changeable), "unix:root", "because", q.ID)
	wantErr(t, err, kms.ErrApproval, "stale")
}

func TestARemovedPersonsSignatureIsWorthNothing(t *testing.T) {
	w := founded(t, usual)
	without := strings.Replace(string(rulesWith(usual)), person("bob").line(), person("zoe").line(), 1)
	w.change(t, []byte(without))
	q := w.ask(t, "eve", destroy())
	_, err := w.cast(t.Context(), "bob", Approve, q)
	wantErr(t, err, kms.ErrDenied, "belongs to nobody")
}

// Whoever can write to the registry cannot make rules, nor, with a pin, do without them.
func TestTamperedRulesPermitNothing(t *testing.T) {
	mallory := strings.Replace(string(rulesWith(usual)), person("bob").line(), person("mallory").line(), 1)
	put := func(t *testing.T, w *world, items ...kms.Item) {
		t.Helper()
		if err := w.memory.Commit(t.Context(), kms.Transaction{Put: items}); err != nil {
			t.Fatal(err)
		}
	}
	item := func(t *testing.T, key string, record any) kms.Item {
		t.Helper()
		i, err := anyItem(key, record)
		if err != nil {
			t.Fatal(err)
		}
		return i
	}
	tests := map[string]func(t *testing.T, w *world, first Ruleset){
		"another text": func(t *testing.T, w *world, first Ruleset) {
			first.Text = []byte(mallory)
			put(t, w, item(t, rulesetKey(1), first), item(t, headKey, head{Version: first.version(), Number: 1}))
		},
		"another text, old head": func(t *testing.T, w *world, first Ruleset) {
			first.Text = []byte(mallory)
			put(t, w, item(t, rulesetKey(1), first))
		},
		"a second without approval": func(t *testing.T, w *world, _ Ruleset) {
			second := Ruleset{Number: 2, Text: []byte(mallory)}
			put(t, w, item(t, rulesetKey(2), second), item(t, headKey, head{Version: second.version(), Number: 2}))
		},
		"no history": func(t *testing.T, w *world, _ Ruleset) {
			if err := w.memory.Commit(t.Context(), kms.Transaction{Delete: []string{rulesetKey(1)}}); err != nil {
				t.Fatal(err)
			}
		},
		"garbage": func(t *testing.T, w *world, _ Ruleset) { put(t, w, kms.Item{Key: rulesetKey(1), Value: []byte("{")}) },
	}
	for name, tamper := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			first := w.found(t, rulesWith(usual)).Rulesets[0]
			tamper(t, w, first)
			c := w.control(t, Config{})
			if _, err := c.Permit(t.Context(), kms.Operation{Action: kms.ActionBlock, Resource: "key/main"}); err == nil {
				t.Error("it was permitted")
			}
			if err := c.Usable(t.Context(), "main"); err == nil {
				t.Error("the KEK can be used")
			}
		})
	}
}

func TestAPinnedCeremonyIsTheOnlyOne(t *testing.T) {
	w := newWorld(t)
	pin := Digest([]byte(w.found(t, rulesWith(usual)).Rulesets[0].Ceremony.Statement))
	op := kms.Operation{Action: kms.ActionBlock, Resource: "key/main"}
	if _, err := w.control(t, Config{Ceremony: pin}).Permit(t.Context(), op); err != nil {
		t.Error(err)
	}
	_, err := w.control(t, Config{Ceremony: strings.Repeat("1", 64)}).Permit(t.Context(), op)
	wantErr(t, err, kms.ErrApproval, "not from 1111")
	if err := w.memory.Commit(t.Context(), kms.Transaction{DeletePrefix: []string{prefix}}); err != nil {
		t.Fatal(err)
	}
	c := w.control(t, Config{Ceremony: pin})
	_, err = c.Permit(t.Context(), op)
	wantErr(t, err, kms.ErrApproval, "the registry has no rules")
	wantErr(t, c.Usable(t.Context(), "main"), kms.ErrApproval)
}

func anyItem(key string, record any) (kms.Item, error) { return put(key, record) }

func TestNewChecksItsConfiguration(t *testing.T) {
	_, err := New(Config{})
	wantErr(t, err, kms.ErrInvalid, "no registry")
	_, err = New(Config{Registry: registry.NewMemory(), Ceremony: "abc"})
	wantErr(t, err, kms.ErrInvalid, "64 hex digits")
}
