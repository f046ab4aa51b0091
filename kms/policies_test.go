package kms_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"

	"chatelaine/kms"
)

// anyText takes every document but those that begin with "bad".
func anyText(d kms.PolicyDocument) error {
	if strings.HasPrefix(string(d.Policies), "bad") {
		return fmt.Errorf("%w: it begins with bad", kms.ErrInvalid)
	}
	return nil
}

func policyFixture(t *testing.T, gate kms.Gate) (*fixture, *kms.Manager) {
	t.Helper()
	f := newFixture(t)
	c := f.config()
	c.CheckPolicy, c.Gate = anyText, gate
	return f, f.manager(t, c)
}

func text(policies string) kms.PolicyDocument { return kms.PolicyDocument{Policies: []byte(policies)} }

func putPolicies(t *testing.T, m *kms.Manager, policies string) kms.PolicySet {
	t.Helper()
	s, err := m.PutPolicies(t.Context(), text(policies), kms.Change{Actor: "ann", Reason: "because"})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestPoliciesAreKeptWithTheirHistoryAndGatewaysAreTold(t *testing.T) {
	_, m := policyFixture(t, nil)
	if s, d, err := m.CurrentPolicies(t.Context()); err != nil || s.Version != 0 || len(d.Policies) != 0 {
		t.Fatalf("at first: got %+v, %q, %v", s, d, err)
	}
	for i, policies := range []string{"one", "two", "one"} {
		before, _ := m.Revocations(t.Context())
		s := putPolicies(t, m, policies)
		after, err := m.Revocations(t.Context())
		if s.Version != uint64(i+1) || s.Actor != "ann" || s.Reason != "because" || s.Digest != text(policies).Digest() || s.Created.IsZero() {
			t.Errorf("got %+v", s)
		}
		if err != nil || after != before+1 {
			t.Errorf("the revocation epoch went from %d to %d, %v", before, after, err)
		}
		if again := putPolicies(t, m, policies); again.Version != s.Version {
			t.Errorf("the same text became version %d again", again.Version)
		}
		if same, _ := m.Revocations(t.Context()); same != after {
			t.Error("gateways were told of no change")
		}
	}
	history, err := m.PolicyHistory(t.Context())
	if err != nil || len(history) != 3 || history[0].Version != 1 || history[2].Version != 3 {
		t.Fatalf("got %+v, %v", history, err)
	}
	for _, s := range history {
		if _, d, err := m.Policies(t.Context(), s.Version); err != nil || d.Digest() != s.Digest {
			t.Errorf("version %d: got %q, %v", s.Version, d, err)
		}
	}
	_, _, err = m.Policies(t.Context(), 4)
	wantErr(t, err, kms.ErrNotFound)
}

func TestPoliciesThatAreRefusedChangeNothing(t *testing.T) {
	f, m := policyFixture(t, nil)
	good := putPolicies(t, m, "good")
	unchecked := f.manager(t, f.config())
	tests := map[string]struct {
		m    *kms.Manager
		d    kms.PolicyDocument
		c    kms.Change
		want error
	}{
		"invalid text":         {m, text("bad"), kms.Change{}, kms.ErrInvalid},
		"long text":            {m, text(strings.Repeat("x", kms.MaxPolicy+1)), kms.Change{}, kms.ErrInvalid},
		"long entities":        {m, kms.PolicyDocument{Entities: make([]byte, kms.MaxPolicy+1)}, kms.Change{}, kms.ErrInvalid},
		"long reason":          {m, text("new"), kms.Change{Reason: strings.Repeat("x", 600)}, kms.ErrInvalid},
		"nobody to check them": {unchecked, text("new"), kms.Change{}, kms.ErrDenied},
	}
	for name, tt := range tests {
		before, _ := tt.m.Revocations(t.Context())
		_, err := tt.m.PutPolicies(t.Context(), tt.d, tt.c)
		if !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %v", name, err, tt.want)
		}
		s, _, err := tt.m.CurrentPolicies(t.Context())
		if after, _ := tt.m.Revocations(t.Context()); err != nil || s.Version != good.Version || before != after {
			t.Errorf("%s: now version %d holds, %v", name, s.Version, err)
		}
	}
}

// quorum permits one operation, once.
type quorum struct {
	digest, replaces string
}

func (q quorum) Usable(context.Context, string) error { return nil }

func (q quorum) Permit(_ context.Context, op kms.Operation) (kms.Grant, error) {
	if op.Action != kms.ActionPolicy || op.Resource != "policy" || op.Params["digest"] != q.digest || op.Params["replaces"] != q.replaces {
		return kms.Grant{}, fmt.Errorf("%w: of %v", kms.ErrApproval, op)
	}
	used := kms.Item{Key: "approvals/x", Value: []byte("used")}
	return kms.Grant{If: []kms.Condition{{Key: used.Key}}, Put: []kms.Item{used}}, nil
}

func TestAnApprovalOfPoliciesIsForOneTextInThePlaceOfOneVersion(t *testing.T) {
	f, m := policyFixture(t, quorum{text("new").Digest(), "0"})
	_, err := m.PutPolicies(t.Context(), text("other"), kms.Change{})
	wantErr(t, err, kms.ErrApproval)
	putPolicies(t, m, "new")
	if item, err := f.registry.Get(t.Context(), "approvals/x"); err != nil || string(item.Value) != "used" {
		t.Errorf("the approval was not used with the change: %v", err)
	}
	c := f.config()
	c.CheckPolicy = anyText
	ungated := f.manager(t, c)
	putPolicies(t, ungated, "newer")
	_, err = m.PutPolicies(t.Context(), text("new"), kms.Change{})
	wantErr(t, err, kms.ErrApproval) // it would replace version 2
}

func TestPoliciesWithAnotherTextThanTheirDigestSaysAreCorrupt(t *testing.T) {
	f, m := policyFixture(t, nil)
	putPolicies(t, m, "one")
	const textOne = "policytexts/00000000000000000001"
	f.edit(t, textOne, "b25l", "dHdv") // base64 of one and two
	_, _, err := m.CurrentPolicies(t.Context())
	wantErr(t, err, kms.ErrCorrupt)
	if err := f.registry.Commit(t.Context(), kms.Transaction{Delete: []string{textOne}}); err != nil {
		t.Fatal(err)
	}
	_, _, err = m.CurrentPolicies(t.Context())
	wantErr(t, err, kms.ErrCorrupt)
}

func TestTwoPutsAtOnceBothCountAndOneHolds(t *testing.T) {
	_, m := policyFixture(t, nil)
	done := make(chan error, 4)
	for i := range cap(done) {
		go func() {
			_, err := m.PutPolicies(t.Context(), text(fmt.Sprint("text ", i)), kms.Change{})
			done <- err
		}()
	}
	for range cap(done) {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	history, err := m.PolicyHistory(t.Context())
	current, _, err2 := m.CurrentPolicies(t.Context())
	if err != nil || err2 != nil || len(history) != cap(done) || current.Version != uint64(cap(done)) {
		t.Errorf("got %d versions, of which %d holds; %v %v", len(history), current.Version, err, err2)
	}
}

func TestADigestIsOfBothParts(t *testing.T) {
	d := kms.PolicyDocument{Policies: []byte("permit\n"), Entities: []byte("[]")}
	const asText = "chatelaine access policies: 7 bytes of policies, then 2 bytes of entities\npermit\n[]"
	if sum := sha256.Sum256([]byte(asText)); string(d.Text()) != asText || d.Digest() != hex.EncodeToString(sum[:]) {
		t.Errorf("got %q with digest %s", d.Text(), d.Digest())
	}
	seen := map[string]kms.PolicyDocument{}
	for _, d := range []kms.PolicyDocument{
		{}, {Policies: []byte("ab")}, {Entities: []byte("ab")}, {Policies: []byte("a"), Entities: []byte("b")},
	} {
		if other, ok := seen[d.Digest()]; ok {
			t.Errorf("%q and %q have one digest", d, other)
		}
		seen[d.Digest()] = d
	}
}
