package approval

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"chatelaine/kms"
	"chatelaine/kms/config/settings"
)

// rulesResource is the resource of kms.ActionRules.
const rulesResource = "rules"

func (r *Rules) readPeople(file rulesFile, problems *settings.Problems) {
	if len(file.People) == 0 || len(file.People) > maxPeople {
		problems.Add("people", "has %d, want 1 to %d", len(file.People), maxPeople)
	}
	for _, name := range slices.Sorted(maps.Keys(file.People)) {
		path, from := settings.Join("people", name), file.People[name]
		p := &Person{Name: name, Actors: from.Actors}
		r.checkName(path, name, problems)
		for i, text := range from.Keys {
			r.addKey(fmt.Sprintf("%s.keys[%d]", path, i), p, text, problems)
		}
		for i, actor := range from.Actors {
			if other := r.actor(actor); actor == "" || other != nil {
				problems.Add(fmt.Sprintf("%s.actors[%d]", path, i), "%q is empty or somebody else's", actor)
			}
		}
		if len(from.Keys) == 0 && len(from.Actors) == 0 {
			problems.Add(path, "has neither keys nor actors, so nothing tells who it is")
		}
		r.people[name] = p
	}
}

// addKey refuses a key that somebody has already: two people with one key are one.
func (r *Rules) addKey(path string, p *Person, text string, problems *settings.Problems) {
	key, err := ParseKey(text)
	if err != nil {
		problems.Add(path, "%v", err)
		return
	}
	for _, other := range append(slices.Collect(maps.Values(r.people)), p) {
		if slices.ContainsFunc(other.Keys, func(k Key) bool { return k.same(key.public) }) {
			problems.Add(path, "is a key of %s already", other.Name)
			return
		}
	}
	p.Keys = append(p.Keys, key)
}

func (r *Rules) checkName(path, name string, problems *settings.Problems) {
	const allowed = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.@"
	if name == "" || len(name) > 63 || strings.Trim(name, allowed) != "" {
		problems.Add(path, "is no name: want 1 to 63 of a-z, A-Z, 0-9, '-', '_', '.', '@'")
	}
}

func (r *Rules) checkGroups(problems *settings.Problems) {
	for _, group := range slices.Sorted(maps.Keys(r.groups)) {
		path := settings.Join("groups", group)
		r.checkName(path, group, problems)
		for i, person := range r.groups[group] {
			if r.people[person] == nil {
				problems.Add(path, "has %q, who is not among the people", person)
			}
			if slices.Index(r.groups[group], person) < i {
				problems.Add(path, "has %q twice", person)
			}
		}
	}
}

func (r *Rules) readRule(path string, from ruleText, problems *settings.Problems) {
	rule := Rule{
		Resources: from.Resources, Requesters: from.Requesters, Quorum: from.Quorum,
		Wait: from.Wait, Valid: orDefault(from.Valid, defaultValid), Expires: orDefault(from.Expires, defaultExpires),
	}
	rule.Actions = readActions(path, from.Actions, problems)
	for _, group := range from.Requesters {
		r.checkKnown(settings.Join(path, "requesters"), group, problems)
	}
	if from.Quorum == nil {
		problems.Add(settings.Join(path, "quorum"), "is missing; {} says that nobody need agree")
	}
	before := problems.Err("") == nil
	for _, group := range slices.Sorted(maps.Keys(from.Quorum)) {
		r.checkCount(settings.Join(settings.Join(path, "quorum"), group), group, from.Quorum[group], problems)
	}
	for name, d := range map[string]time.Duration{"wait": rule.Wait, "valid": rule.Valid, "expires": rule.Expires} {
		if d > maxPeriod || name != "wait" && d < time.Minute {
			problems.Add(settings.Join(path, name), "is %v, want at least 1m (but for wait) and at most %v", d, maxPeriod)
		}
	}
	if slices.Contains(rule.Actions, kms.ActionUse) && len(rule.Quorum) == 0 && len(rule.Requesters)+int(rule.Wait) > 0 {
		problems.Add(path, "has requesters or a wait, which mean nothing for %s without a quorum", kms.ActionUse)
	}
	if before && problems.Err("") == nil && !r.possible(rule) {
		problems.Add(settings.Join(path, "quorum"),
			"can never be met: %s, all with keys, are not to be had beside one who asks, as whoever asks does not count", rule.Quorum)
	}
	r.rules = append(r.rules, rule)
}

func orDefault(d, otherwise time.Duration) time.Duration {
	if d == 0 {
		return otherwise
	}
	return d
}

func readActions(path string, from []string, problems *settings.Problems) []kms.Action {
	var out []kms.Action
	if len(from) == 0 {
		problems.Add(settings.Join(path, "actions"), "is missing")
	}
	for _, text := range from {
		if !slices.Contains(Actions(), kms.Action(text)) {
			problems.Add(settings.Join(path, "actions"), "has %q; there are %s", text, joined(Actions()))
		}
		out = append(out, kms.Action(text))
	}
	return out
}

func joined(actions []kms.Action) string {
	var out []string
	for _, a := range actions {
		out = append(out, string(a))
	}
	return strings.Join(out, ", ")
}

func (r *Rules) checkKnown(path, group string, problems *settings.Problems) {
	if _, ok := r.groups[group]; !ok {
		problems.Add(path, "has %q, which is no group; there are %s", group, strings.Join(slices.Sorted(maps.Keys(r.groups)), ", "))
	}
}

func (r *Rules) checkCount(path, group string, count int, problems *settings.Problems) {
	r.checkKnown(path, group, problems)
	if _, ok := r.groups[group]; ok && (count < 1 || count > len(r.groups[group])) {
		problems.Add(path, "is %d of a group of %d", count, len(r.groups[group]))
	}
}

// possible says whether somebody can ask whose request others can approve.
func (r *Rules) possible(rule Rule) bool {
	var able []string
	for name, p := range r.people {
		if len(p.Keys) > 0 {
			able = append(able, name)
		}
	}
	for name := range r.people {
		others := slices.DeleteFunc(slices.Clone(able), func(p string) bool { return p == name })
		if r.mayAsk(rule, name) && rule.Quorum.met(r.groups, others) {
			return true
		}
	}
	return false
}

// checkChange refuses rules that could be changed by one person, or by nobody.
func (r *Rules) checkChange(problems *settings.Problems) {
	rule := r.For(kms.ActionRules, rulesResource)
	if len(rule.Quorum) == 0 {
		problems.Add("rules", "has no rule with a quorum for %s on %q: anybody, or nobody, could change the rules", kms.ActionRules, rulesResource)
	}
}
