package approval

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"chatelaine/kms"
)

// exported is the bundle of an approved request under rules that were changed once.
func exported(t testing.TB) (Bundle, Law) {
	t.Helper()
	w := founded(t, changeable)
	op := rulesOperation(2, rulesWith(usual))
	op.Actor, op.Reason = "unix:root", "more"
	change := w.ask(t, "eve", op)
	w.approve(t, change, "alice", "bob")
	if _, err := w.PutRules(t.Context(), rulesWith(usual), "unix:root", "more", change.ID); err != nil {
		t.Fatal(err)
	}
	q := w.ask(t, "eve", destroy())
	w.approve(t, q, "alice", "bob", "dave")
	w.hands.pass(time.Hour)
	if err := func() error {
		op := destroy()
		op.Approval = q.ID
		return do(t.Context(), w.Control, w.memory, op)
	}(); err != nil {
		t.Fatal(err)
	}
	b, err := w.Export(t.Context(), q.ID)
	if err != nil {
		t.Fatal(err)
	}
	law, err := w.Law(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return b, law
}

func TestAnExportedApprovalIsVerifiedWithoutAKMS(t *testing.T) {
	b, law := exported(t)
	text, err := b.Encode()
	if err != nil {
		t.Fatal(err)
	}
	read, err := ParseBundle(text)
	if err != nil {
		t.Fatal(err)
	}
	p, err := read.Verify(law.Ceremony)
	if err != nil || !p.Approved || strings.Join(p.Approvers, " ") != "alice bob dave" ||
		p.Number != 2 || p.Request.Operation.Resource != "key/main.v1" {
		t.Errorf("got %+v, %v", p, err)
	}
	_, err = read.Verify(strings.Repeat("0", 64))
	wantErr(t, err, kms.ErrInvalid, "and not from 0000")
}

func TestWhatLacksItsQuorumIsNotApproved(t *testing.T) {
	w := founded(t, usual)
	q := w.ask(t, "eve", destroy())
	w.approve(t, q, "alice", "bob")
	b, err := w.Export(t.Context(), q.ID)
	if err != nil {
		t.Fatal(err)
	}
	if p, err := b.Verify(""); err != nil || p.Approved || len(p.Approvers) != 2 {
		t.Errorf("got %+v, %v", p, err)
	}
	w.approve(t, q, "dave")
	if _, err := w.cast(t.Context(), "carol", Reject, q); err != nil {
		t.Fatal(err)
	}
	if b, err = w.Export(t.Context(), q.ID); err != nil {
		t.Fatal(err)
	}
	if p, err := b.Verify(""); err != nil || p.Approved || p.Rejected != "carol" {
		t.Errorf("got %+v, %v", p, err)
	}
}

func TestAlteredBundlesAreRefused(t *testing.T) {
	whole, _ := exported(t)
	text, err := whole.Encode()
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]func(*Bundle){
		"no rules":          func(b *Bundle) { b.Rulesets = nil },
		"no ceremony":       func(b *Bundle) { b.Rulesets = b.Rulesets[1:] },
		"no change":         func(b *Bundle) { b.Rulesets[1].Change = nil },
		"a vote less":       func(b *Bundle) { b.Rulesets[1].Change.Votes = b.Rulesets[1].Change.Votes[1:] },
		"other rules":       func(b *Bundle) { b.Rulesets[1].Text = append(b.Rulesets[1].Text, '#') },
		"other first rules": func(b *Bundle) { b.Rulesets[0].Text = append(b.Rulesets[0].Text, '#') },
		"older rules":       func(b *Bundle) { b.Rulesets = b.Rulesets[:1] },
		"other number":      func(b *Bundle) { b.Rulesets[1].Number = 3 },
		"no founder":        func(b *Bundle) { b.Rulesets[0].Ceremony.Signatures = b.Rulesets[0].Ceremony.Signatures[1:] },
		"other operation":   func(b *Bundle) { b.Request.Statement = strings.Replace(b.Request.Statement, ".v1", ".v2", 1) },
		"other name":        func(b *Bundle) { b.Request.Votes[0].Person = "carol" },
		"other signature":   func(b *Bundle) { b.Request.Votes[0].Signature = b.Request.Votes[1].Signature },
		"other verdict":     func(b *Bundle) { b.Request.Votes[0].Verdict = Reject },
		"nobody asked":      func(b *Bundle) { b.Request.Asked = "" },
	}
	for name, alter := range tests {
		b, err := ParseBundle(text)
		if err != nil {
			t.Fatal(err)
		}
		alter(&b)
		if _, err := b.Verify(""); err == nil {
			t.Errorf("%s: it was verified", name)
		}
	}
}

func TestOnlyBundlesAreRead(t *testing.T) {
	whole, _ := exported(t)
	text, err := whole.Encode()
	if err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string][]byte{
		"empty": nil, "cut": text[:len(text)/2], "more": append(bytes.Clone(text), '{', '}'),
		"unknown field": bytes.Replace(text, []byte(`"version"`), []byte(`"x": 1, "version"`), 1),
		"newer":         bytes.Replace(text, []byte(`"version": 1`), []byte(`"version": 2`), 1),
	} {
		if _, err := ParseBundle(bad); err == nil {
			t.Errorf("%s: it was read", name)
		}
	}
}

func FuzzBundle(f *testing.F) {
	whole, law := exported(f)
	text, err := whole.Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte(`{"version":1,"rulesets":[{"number":1,"text":"","ceremony":{"statement":"","signatures":[]}}]}`))
	statement := whole.Request.Statement
	f.Fuzz(func(t *testing.T, text []byte) {
		b, err := ParseBundle(text)
		if err != nil {
			return
		}
		// Nobody has the keys: what is verified says what was signed.
		if p, err := b.Verify(law.Ceremony); err == nil && p.Approved && string(p.Request.Statement(Ask)) != statement {
			t.Error("another statement was verified")
		}
	})
}
