package approval

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"chatelaine/kms"
	"chatelaine/kms/config/settings"
)

// Limits of a rules file.
const (
	maxRules  = 32 << 10 // bytes of its text
	maxPeople = 64
	maxPeriod = 366 * 24 * time.Hour
)

// Defaults of a rule.
const (
	defaultExpires = 72 * time.Hour
	defaultValid   = 24 * time.Hour
)

// Actions lists what rules can be made for.
func Actions() []kms.Action {
	return []kms.Action{
		kms.ActionUse, kms.ActionBlock, kms.ActionUnblock, kms.ActionDestroy,
		kms.ActionSet, kms.ActionShred, kms.ActionPolicy, kms.ActionRules, kms.ActionRestore,
	}
}

// rulesFile is the YAML document.
type rulesFile struct {
	People map[string]personText `yaml:"people"`
	Groups map[string][]string   `yaml:"groups"`
	Rules  []ruleText            `yaml:"rules"`
}

type personText struct {
	Keys   []string `yaml:"keys"`   // public keys: see ParseKey
	Actors []string `yaml:"actors"` // names by which the service knows the person as a caller
}

type ruleText struct {
	Actions    []string       `yaml:"actions"`
	Resources  []string       `yaml:"resources"`  // patterns, "*" stands for any text; none: all
	Requesters []string       `yaml:"requesters"` // groups that may ask; none: every person
	Quorum     map[string]int `yaml:"quorum"`     // group: how many; {} means that nobody need agree
	Wait       time.Duration  `yaml:"wait"`       // time lock after the quorum
	Expires    time.Duration  `yaml:"expires"`    // how long a request waits for its quorum; 72h
	Valid      time.Duration  `yaml:"valid"`      // how long an approval may be used after the wait; 24h
}

// Person is somebody who can ask and approve.
type Person struct {
	Name   string
	Keys   []Key
	Actors []string
}

// Rule is what an operation needs.
type Rule struct {
	Actions    []kms.Action
	Resources  []string // patterns; empty: all
	Requesters []string // groups; empty: every person
	Quorum     Quorum
	// Wait is how long after the quorum the operation becomes possible, Valid for how
	// long it then stays so, Expires how long a request waits for its quorum.
	Wait, Valid, Expires time.Duration
}

// String says what the rule asks for.
func (r Rule) String() string {
	text := r.Quorum.String()
	if r.Wait > 0 {
		text += ", then " + r.Wait.String() + " of waiting"
	}
	return text
}

// Rules is a rules file that makes sense.
type Rules struct {
	text   []byte
	people map[string]*Person
	groups map[string][]string
	rules  []Rule
}

// ParseRules reads a rules file and checks it: the *settings.Error that it returns
// names all that is wrong. Rules under which nobody could change the rules are wrong.
func ParseRules(text []byte) (*Rules, error) {
	var problems settings.Problems
	if len(text) > maxRules {
		return nil, fmt.Errorf("approval: reading rules: %w: %d bytes, want at most %d", kms.ErrInvalid, len(text), maxRules)
	}
	var file rulesFile
	if err := settings.Decode(text, &file, &problems); err != nil {
		return nil, fmt.Errorf("approval: reading rules: %w: %w", kms.ErrInvalid, err)
	}
	r := &Rules{text: slices.Clone(text), groups: file.Groups, people: make(map[string]*Person)}
	r.readPeople(file, &problems)
	r.checkGroups(&problems)
	for i, rule := range file.Rules {
		r.readRule(fmt.Sprintf("rules[%d]", i), rule, &problems)
	}
	r.checkChange(&problems)
	if err := problems.Err("rules"); err != nil {
		return nil, fmt.Errorf("approval: reading rules: %w: %w", kms.ErrInvalid, err)
	}
	return r, nil
}

// Text is the file as it was read.
func (r *Rules) Text() []byte { return slices.Clone(r.text) }

// Digest is the SHA-256 of the file, in hex: what sha256sum prints.
func (r *Rules) Digest() string { return digestOf(r.text) }

// Digest is how a document stands in the params of an operation: the SHA-256 in hex.
// A request that carries the document must have it as the param "digest".
func Digest(document []byte) string { return digestOf(document) }

func digestOf(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// People lists everybody by name.
func (r *Rules) People() []Person {
	var out []Person
	for _, name := range slices.Sorted(maps.Keys(r.people)) {
		out = append(out, *r.people[name])
	}
	return out
}

// For finds the rule of an operation: the first in the file whose action and pattern
// fit. Where none fits, blocking and using a key need nobody's approval, and everything
// else needs what a change of the rules needs.
func (r *Rules) For(action kms.Action, resource string) Rule {
	for _, rule := range r.rules {
		if rule.concerns(action, resource) {
			return rule
		}
	}
	if action == kms.ActionBlock || action == kms.ActionUse || action == kms.ActionRules {
		return Rule{Expires: defaultExpires, Valid: defaultValid} // rules.put always has one: checkChange
	}
	return r.For(kms.ActionRules, rulesResource)
}

// actor finds the person whom the service knows by this name, or nil.
func (r *Rules) actor(name string) *Person {
	for _, p := range r.people {
		if slices.Contains(p.Actors, name) {
			return p
		}
	}
	return nil
}

// inAny says whether a person is in one of the groups.
func (r *Rules) inAny(groups []string, person string) bool {
	return slices.ContainsFunc(groups, func(g string) bool { return slices.Contains(r.groups[g], person) })
}

// mayAsk says whether a person may request what the rule is for.
func (r *Rules) mayAsk(rule Rule, person string) bool {
	return r.people[person] != nil && (len(rule.Requesters) == 0 || r.inAny(rule.Requesters, person))
}

// mayVote says whether a person's approval counts for anything under the rule.
func (r *Rules) mayVote(rule Rule, person string) bool {
	return r.inAny(slices.Collect(maps.Keys(rule.Quorum)), person)
}

func (r Rule) concerns(action kms.Action, resource string) bool {
	if !slices.Contains(r.Actions, action) {
		return false
	}
	whole := withoutVersion(resource)
	fits := func(pattern string) bool { return matches(pattern, resource) || matches(pattern, whole) }
	return len(r.Resources) == 0 || slices.ContainsFunc(r.Resources, fits)
}

// withoutVersion makes "key/main" of "key/main.v3": a rule for a key is one for its
// versions.
func withoutVersion(resource string) string {
	i := strings.LastIndex(resource, ".v")
	if i < 0 || len(resource) == i+2 || strings.Trim(resource[i+2:], "0123456789") != "" {
		return resource
	}
	return resource[:i]
}

// matches compares with a pattern in which "*" stands for any text, also none.
func matches(pattern, text string) bool {
	parts := strings.Split(pattern, "*")
	if len(parts) == 1 {
		return pattern == text
	}
	first, last := parts[0], parts[len(parts)-1]
	text, ok := strings.CutPrefix(text, first)
	if !ok {
		return false
	}
	for _, part := range parts[1 : len(parts)-1] {
		if _, text, ok = strings.Cut(text, part); !ok {
			return false
		}
	}
	return strings.HasSuffix(text, last)
}
