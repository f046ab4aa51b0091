package doctor

import (
	"errors"
	"testing"

	"chatelaine/hsm"
	"chatelaine/hsm/hsmtest"
)

func gcm(label string) hsm.Key { return hsm.Key{Label: label, Mechanism: hsm.AESGCM} }

func TestTokensOfAFailoverListAreExaminedAndTheirKeysCompared(t *testing.T) {
	f := hsmtest.New(t)
	one := f.Token("one")
	makeKeys(t, one, gcm("p-main.v1"), hsm.Key{Label: "p-pair.v1", Mechanism: hsm.AESCBCHMAC})
	two := f.Clone("one", "two")
	makeKeys(t, one, gcm("p-main.v2"))
	makeKeys(t, two, gcm("p-late.v1"))
	other := f.Token("other")
	makeKeys(t, other, gcm("p-main.v1"), hsm.Key{Label: "p-pair.v1", Mechanism: hsm.RSAOAEPSHA1})

	r := Examine(t.Context(), Config{HSM: one, Prefix: "p-", KEK: "main", Failover: []hsm.Config{two, other}})
	if len(r.Failover) != 2 || len(r.Keys) != 3 || !errors.Is(r.Err, hsm.ErrUnsafe) || r.Worst() != Failure {
		t.Fatalf("got %v, %s, %+v", r.Err, r.Worst(), r)
	}
	clone, stranger := r.Failover[0], r.Failover[1]
	for _, tc := range []struct {
		r           *Report
		level       Level
		about, text string
	}{
		{clone, Good, "login", "PIN is right"},
		{clone, Good, "key p-main.v1", `the same key as in "one"`},
		{clone, Good, "key p-pair.v1", `the same key as in "one"`},
		{clone, Warning, "key p-main.v2", "not here"},
		{clone, Warning, "key p-late.v1", "no token before"},
		{stranger, Failure, "key p-main.v1", `another key than the one of this name in "one"`},
		{stranger, Failure, "key p-pair.v1", `another key than the one of this name in "one"`},
		{stranger, Warning, "key p-late.v1", `it is in "two", and not here`},
	} {
		if !says(tc.r, tc.level, tc.about, tc.text) {
			t.Errorf("%s does not say %s %s %q: %+v", tc.r.Selected, tc.level, tc.about, tc.text, tc.r.Findings)
		}
	}
	if clone.Err != nil || says(clone, Failure, "", "") || says(r, Failure, "", "") {
		t.Errorf("a clone is at fault, or the first token: %v, %+v", clone.Err, clone.Findings)
	}
}

func TestAFailoverTokenThatIsAwayIsAFailureOfTheWhole(t *testing.T) {
	f := hsmtest.New(t)
	one := f.Token("one")
	makeKeys(t, one, gcm("main.v1"))
	away := one
	away.Token = hsm.Selector{Label: "two"}
	r := Examine(t.Context(), Config{HSM: one, Failover: []hsm.Config{away}})
	if !errors.Is(r.Err, hsm.ErrNoToken) || r.Worst() != Failure || says(r, Failure, "", "") || !says(r.Failover[0], Failure, "token", "two") {
		t.Errorf("got %v, %+v", r.Err, r.Failover[0].Findings)
	}
}

func TestEachConfiguredMechanismIsExamined(t *testing.T) {
	cfg := hsmtest.Token(t)
	cfg.RSABits = 2048
	makeKeys(t, cfg, gcm("main.v1"), hsm.Key{Label: "rsa.v1", Mechanism: hsm.RSAOAEPSHA1}, gcm("old.v1"))
	c := Config{HSM: cfg, KEK: "main", MakeKey: true, Mechanisms: map[string]hsm.Mechanism{
		"rsa": hsm.RSAOAEPSHA1, "old": hsm.AESCBCHMAC, "none": hsm.AESCBCHMAC,
	}}
	r := Examine(t.Context(), c)
	if r.Err != nil {
		t.Fatalf("got %v, %+v", r.Err, r.Findings)
	}
	for _, want := range []struct {
		level       Level
		about, text string
	}{
		{Good, "mechanisms", "what aes-gcm needs"},
		{Good, "mechanisms", "what rsa-oaep-sha1 needs"},
		{Good, "mechanisms", "what aes-cbc-hmac needs"},
		{Good, "key rsa.v1", "passed with rsa-oaep-sha1"},
		{Note, "key old.v1", "it is of aes-gcm, and aes-cbc-hmac is configured"},
		{Note, "key none", "no version"},
		{Good, "making a key", "for aes-gcm"},
		{Good, "making a key", "for rsa-oaep-sha1"},
		{Good, "making a key", "for aes-cbc-hmac"},
	} {
		if !says(r, want.level, want.about, want.text) {
			t.Errorf("it does not say %s %s %q: %+v", want.level, want.about, want.text, r.Findings)
		}
	}
	if says(r, Note, "key rsa.v1", "") || says(r, Note, "key main", "") {
		t.Errorf("got %+v", r.Findings)
	}
	c.Mechanisms = map[string]hsm.Mechanism{"rsa": hsm.RSAOAEPSHA256} // SoftHSM has SHA-1 alone
	if r := Examine(t.Context(), c); !errors.Is(r.Err, hsm.ErrUnsupported) || !says(r, Failure, "making a key", "rsa-oaep-sha256") {
		t.Errorf("got %v, %+v", r.Err, r.Findings)
	}
}
