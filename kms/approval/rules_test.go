package approval

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"chatelaine/kms"
	"chatelaine/kms/config/settings"
)

func parsed(t testing.TB, rules string) *Rules {
	t.Helper()
	r, err := ParseRules(rulesWith(rules))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

const changeable = `
  - {actions: [rules.put], quorum: {security: 2}}
`

func TestMistakesInRulesAreNamed(t *testing.T) {
	alice := person("alice").line()
	tests := map[string]struct{ text, want string }{
		"empty":              {"", "people: has 0, want 1 to 64"},
		"no YAML":            {"people: [", "reading YAML"},
		"unknown setting":    {string(rulesWith(changeable + "\nrulez: []")), "rulez: is not a setting"},
		"unknown action":     {string(rulesWith(changeable + "  - {actions: [key.eat], quorum: {}}")), `has "key.eat"; there are key.use, key.block`},
		"no action":          {string(rulesWith(changeable + "  - {quorum: {}}")), "rules[1].actions: is missing"},
		"no quorum":          {string(rulesWith(changeable + "  - {actions: [key.block]}")), "rules[1].quorum: is missing; {} says"},
		"unknown group":      {string(rulesWith(changeable + "  - {actions: [key.block], quorum: {sec: 1}}")), `has "sec", which is no group; there are legal, security`},
		"unknown requesters": {string(rulesWith(changeable + "  - {actions: [key.block], quorum: {}, requesters: [sec]}")), `rules[1].requesters: has "sec"`},
		"larger than group":  {string(rulesWith(changeable + "  - {actions: [key.block], quorum: {legal: 3}}")), "rules[1].quorum.legal: is 3 of a group of 2"},
		"of nobody":          {string(rulesWith(changeable + "  - {actions: [key.block], quorum: {legal: 0}}")), "is 0 of a group of 2"},
		"one person twice":   {string(rulesWith(changeable + "  - {actions: [key.block], quorum: {legal: 2, security: 3}}")), "rules[1].quorum: can never be met"},
		"askers are needed":  {string(rulesWith(changeable + "  - {actions: [key.block], quorum: {legal: 2}, requesters: [legal]}")), "whoever asks does not count"},
		"lockout by asking":  {string(rulesWith("  - {actions: [rules.put], quorum: {security: 3}, requesters: [security]}")), "can never be met"},
		"no change":          {string(rulesWith("  - {actions: [key.block], quorum: {}}")), "has no rule with a quorum for rules.put"},
		"free change":        {string(rulesWith("  - {actions: [rules.put], quorum: {}}")), "has no rule with a quorum for rules.put"},
		"change shadowed":    {string(rulesWith("  - {actions: [rules.put], resources: [other], quorum: {legal: 1}}")), "has no rule with a quorum for rules.put"},
		"short validity":     {string(rulesWith(changeable + "  - {actions: [key.block], quorum: {}, valid: 1s}")), "rules[1].valid: is 1s"},
		"endless wait":       {string(rulesWith(changeable + "  - {actions: [key.block], quorum: {}, wait: 9000h}")), "rules[1].wait: is 9000h"},
		"open use":           {string(rulesWith(changeable + "  - {actions: [key.use], quorum: {}, wait: 1h}")), "mean nothing for key.use"},
		"unknown member":     {"people: {a: {actors: [x]}}\ngroups: {g: [b]}\nrules: []", `groups.g: has "b", who is not among the people`},
		"member twice":       {"people: {a: {actors: [x]}}\ngroups: {g: [a, a]}\nrules: []", `groups.g: has "a" twice`},
		"nameless":           {"people: {'a b': {actors: [x]}}\nrules: []", "people.a b: is no name"},
		"faceless":           {"people: {a: {}}\nrules: []", "neither keys nor actors"},
		"actor of two":       {"people: {a: {actors: [x]}, b: {actors: [x]}}\nrules: []", `people.b.actors[0]: "x" is empty or somebody else's`},
		"key of two":         {"people: {a: {keys: ['" + alice + "']}, b: {keys: ['" + alice + "']}}\nrules: []", "people.b.keys[0]: is a key of a already"},
		"key twice":          {"people: {a: {keys: ['" + alice + "', '" + alice + " x']}}\nrules: []", "people.a.keys[1]: is a key of a already"},
		"no key":             {"people: {a: {keys: [hello]}}\nrules: []", "is no public key"},
		"too long":           {strings.Repeat("#", maxRules+1), "want at most"},
	}
	for name, test := range tests {
		_, err := ParseRules([]byte(test.text))
		wantErr(t, err, kms.ErrInvalid, test.want)
		if t.Failed() {
			t.Fatal(name)
		}
	}
}

func TestQuorumNeedsPeopleWhoHaveKeys(t *testing.T) {
	text := "people: {a: {actors: [x]}, b: {actors: [y]}, c: {keys: ['" + person("alice").line() + "']}}\n" +
		"groups: {g: [a, b, c]}\nrules: [{actions: [rules.put], quorum: {g: 2}}]"
	_, err := ParseRules([]byte(text))
	wantErr(t, err, kms.ErrInvalid, "can never be met")
}

func TestKeysOfOtherKindsAreRefused(t *testing.T) {
	rsa, err := os.ReadFile(filepath.Join("testdata", "rsa.pub"))
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{
		string(rsa), "", "ssh-ed25519", "ed25519:", "ed25519:AAAA", `no-pty ` + person("alice").line(),
		person("alice").line() + "\n" + person("bob").line(),
	} {
		_, err := ParseKey(text)
		wantErr(t, err, kms.ErrInvalid)
	}
}

func TestTheFirstRuleThatFitsDecides(t *testing.T) {
	r := parsed(t, changeable+`
  - {actions: [key.destroy, key.block], resources: [key/main, key/eu-*], quorum: {legal: 1}, wait: 1h}
  - {actions: [key.destroy], resources: ["*-x.v2"], quorum: {}}
  - {actions: [key.destroy], quorum: {security: 1}}
`)
	tests := []struct {
		action   kms.Action
		resource string
		want     string
	}{
		{kms.ActionDestroy, "key/main", "1 of legal, then 1h0m0s of waiting"},
		{kms.ActionDestroy, "key/main.v12", "1 of legal, then 1h0m0s of waiting"},
		{kms.ActionDestroy, "key/eu-x.v2", "1 of legal, then 1h0m0s of waiting"},
		{kms.ActionDestroy, "key/us-x.v2", "nobody"},
		{kms.ActionDestroy, "key/us-x.v3", "1 of security"},
		{kms.ActionDestroy, "key/mainly", "1 of security"},
		{kms.ActionDestroy, "key/main.vx", "1 of security"},
		{kms.ActionBlock, "key/main", "1 of legal, then 1h0m0s of waiting"},
		{kms.ActionBlock, "key/other", "nobody"},
		{kms.ActionUse, "key/main", "nobody"},
		{kms.ActionShred, "bucket/x", "2 of security"},
		{kms.ActionRules, "rules", "2 of security"},
	}
	for _, test := range tests {
		if got := r.For(test.action, test.resource).String(); got != test.want {
			t.Errorf("%s of %s: got %q, want %q", test.action, test.resource, got, test.want)
		}
	}
	rule := r.For(kms.ActionBlock, "key/other")
	if rule.Expires != 72*time.Hour || rule.Valid != 24*time.Hour {
		t.Errorf("defaults %v, %v", rule.Expires, rule.Valid)
	}
}

func TestPatterns(t *testing.T) {
	tests := []struct {
		pattern, text string
		want          bool
	}{
		{"a", "a", true},
		{"a", "ab", false},
		{"*", "", true},
		{"*", "a/b", true},
		{"a*", "a", true},
		{"a*b", "a", false},
		{"a*a", "a", false},
		{"a*b*c", "axbyc", true},
		{"a*b*c", "acb", false},
		{"*b*", "abc", true},
		{"", "", true},
		{"", "a", false},
		{"a*bc*c", "abc", false},
	}
	for _, test := range tests {
		if got := matches(test.pattern, test.text); got != test.want {
			t.Errorf("%q, %q: got %t", test.pattern, test.text, got)
		}
	}
}

func TestAPersonFillsOnePlace(t *testing.T) {
	groups := map[string][]string{"a": {"1", "2", "3"}, "b": {"3", "4"}, "c": {"3"}}
	tests := []struct {
		quorum Quorum
		people []string
		want   bool
	}{
		{Quorum{}, nil, true},
		{Quorum{"a": 1}, nil, false},
		{Quorum{"a": 1, "b": 1}, []string{"3"}, false},
		{Quorum{"a": 1, "b": 1}, []string{"3", "1"}, true},
		{Quorum{"a": 1, "b": 1}, []string{"3", "4"}, true},
		{Quorum{"a": 2, "b": 1}, []string{"1", "3", "4"}, true},
		{Quorum{"a": 2, "b": 1, "c": 1}, []string{"1", "3", "4"}, false},
		{Quorum{"a": 2, "b": 1, "c": 1}, []string{"1", "2", "3", "4"}, true},
		{Quorum{"a": 2}, []string{"1", "4", "5"}, false},
		{Quorum{"a": 2, "b": 2}, []string{"1", "2", "3", "4"}, true},
		{Quorum{"a": 3, "b": 2}, []string{"1", "2", "3", "4"}, false},
	}
	for _, test := range tests {
		people := slices.Clone(test.people)
		for range len(people) + 1 {
			if got := test.quorum.met(groups, people); got != test.want {
				t.Errorf("%s by %v: got %t", test.quorum, people, got)
			}
			slices.Reverse(people)
			if len(people) > 1 {
				people = append(people[1:], people[0])
			}
		}
	}
}

func TestTheExampleRulesAreGood(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "deploy", "examples", "rules.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	r, err := ParseRules(text)
	if err != nil {
		t.Fatal(err)
	}
	if rule := r.For(kms.ActionDestroy, "key/main.v1"); rule.Quorum.size() < 2 || rule.Wait == 0 {
		t.Errorf("destroying needs %s", rule)
	}
}

func FuzzParseRules(f *testing.F) {
	f.Add(rulesWith(usual))
	f.Add([]byte("people: {a: {actors: [x]}}\ngroups: {g: [a]}\nrules: [{actions: [key.use], quorum: {g: 1}}]"))
	f.Add([]byte("a: &a [*a]"))
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := ParseRules(text)
		if err != nil {
			return
		}
		rule := r.For(kms.ActionRules, rulesResource)
		if len(rule.Quorum) == 0 || !r.possible(rule) {
			t.Error("rules that cannot be changed by a quorum were taken")
		}
		var file rulesFile
		var problems settings.Problems
		if settings.Decode(text, &file, &problems) != nil || problems.Err("") != nil {
			t.Error("rules that cannot be read were taken")
		}
	})
}
