package policy

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	cedar "github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/x/exp/schema/validate"

	"chatelaine/kms"
)

// Check reads a document and holds it against the schema, strictly: types, actions and
// attributes that there are not, comparisons that can never hold, optional attributes
// that are not asked for with "has", groups that the entities do not have. The error
// lists all of it, a line each with place and, where there is one, a hint; it wraps
// kms.ErrInvalid.
func Check(d Document) (*Set, error) {
	s, err := read(d)
	if err != nil {
		return nil, fmt.Errorf("policy: checking the policies: %w", err)
	}
	v, err := newValidator()
	if err != nil {
		return nil, err
	}
	problems := s.checkEntities(v)
	for _, r := range s.rules {
		problems = append(problems, s.checkRule(v, r)...)
	}
	if len(problems) > 0 {
		return nil, fmt.Errorf("policy: checking the policies: %w:\n%s", kms.ErrInvalid, strings.Join(problems, "\n"))
	}
	return s, nil
}

// Validate is Check for a kms.Config.
func Validate(d Document) error {
	_, err := Check(d)
	return err
}

func (s *Set) checkEntities(v *validate.Validator) (problems []string) {
	for _, uid := range sortedUIDs(s.entities) {
		if uid.Type == actionType {
			continue
		}
		if err := v.Entity(s.entities[uid]); err != nil {
			problems = append(problems, fmt.Sprintf("entities: %s::%q: %v", uid.Type, uid.ID, err))
		}
	}
	return problems
}

// checkRule says what is wrong with a policy, each thing once: the validator finds it
// again for each action.
func (s *Set) checkRule(v *validate.Validator, r *rule) (problems []string) {
	for _, problem := range flatten(v.Policy("", r.tree)) {
		line := s.locate(r, problem)
		if !slices.Contains(problems, line) {
			problems = append(problems, line)
		}
	}
	for _, name := range r.groups() {
		if _, ok := s.entities[cedar.NewEntityUID(groupType, cedar.String(name))]; !ok {
			problems = append(problems, fmt.Sprintf("%s: policy %q: there is no Group::%q in the entities%s",
				s.place(r, fmt.Sprintf("%q", name)), r.id, name, guess(name, groupNames(s.entities))))
		}
	}
	return problems
}

func flatten(err error) (out []string) {
	if err == nil {
		return nil
	}
	var joined interface{ Unwrap() []error }
	if !errors.As(err, &joined) {
		return []string{err.Error()}
	}
	for _, e := range joined.Unwrap() {
		out = append(out, flatten(e)...)
	}
	return out
}

// locate puts a validator's text in place and adds what can be done.
func (s *Set) locate(r *rule, problem string) string {
	problem, _, _ = strings.Cut(problem, " in context for Action::") // it is the same for every action
	word := quotedWord(problem)
	return fmt.Sprintf("%s: policy %q: %s%s", s.place(r, word), r.id, problem, hint(problem, word))
}

// quotedWord is what a validator's text quotes first.
func quotedWord(problem string) string {
	_, rest, _ := strings.Cut(problem, "`")
	word, _, ok := strings.Cut(rest, "`")
	if !ok {
		return ""
	}
	return word
}

// place is LINE:COLUMN of a word of a policy, or else of the policy.
func (s *Set) place(r *rule, word string) string {
	begin := min(r.policy.Position().Offset, len(s.text))
	end := len(s.text)
	for _, other := range s.rules {
		if at := other.policy.Position().Offset; at > begin && at < end {
			end = at
		}
	}
	at := begin
	if i := indexWord(string(s.text[begin:end]), word); i >= 0 {
		at = begin + i
	}
	before := string(s.text[:at])
	return fmt.Sprintf("%d:%d", strings.Count(before, "\n")+1, len([]rune(before[strings.LastIndex(before, "\n")+1:]))+1)
}

func indexWord(text, word string) int {
	if word == "" {
		return -1
	}
	found := regexp.MustCompile(`(^|\W)(` + regexp.QuoteMeta(word) + `)(\W|$)`).FindStringSubmatchIndex(text)
	if found == nil {
		return strings.Index(text, word)
	}
	return found[4]
}

// hint says what to do about a validator's text.
func hint(problem, word string) string {
	switch {
	case strings.HasPrefix(problem, "unrecognized action"):
		name := strings.Trim(strings.TrimPrefix(word, "Action::"), `"`)
		return cmp.Or(guess(name, append(actionNames(), Groups()...)), "; `policy show --schema` lists the actions")
	case strings.HasPrefix(problem, "unrecognized entity type"):
		return cmp.Or(guess(word, []string{"User", "Group", "Service", "Bucket", "Object"}), "; there are User, Group, Service, Bucket and Object")
	case strings.HasPrefix(problem, "attribute "):
		return cmp.Or(guess(word, attributes()), "; there are "+strings.Join(attributes(), ", "))
	case strings.HasPrefix(problem, "unable to guarantee safety of access to optional attribute"):
		return fmt.Sprintf("; ask for it first: `... has %s && ...`", word)
	case strings.HasPrefix(problem, "unable to find an applicable action"):
		return "; these actions are never done by this principal to this resource: is it a Bucket where it should be an Object in it?"
	}
	return ""
}

func actionNames() (names []string) {
	for _, a := range Actions() {
		names = append(names, a.Name)
	}
	return names
}

func attributes() []string {
	return []string{"source", "tls", "time", "hour", "weekday", "accessKey", "presigned", "reason", "prefix", "bucket", "key", "owner"}
}

// guess is a hint at the nearest of some names, or empty where none is near.
func guess(name string, names []string) string {
	best, least := "", 1+len(name)/3
	for _, n := range names {
		if d := distance(strings.ToLower(name), strings.ToLower(n)); d <= least && (best == "" || d < least) {
			best, least = n, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf("; did you mean %q?", best)
}

// distance is how many bytes are to be changed, added or taken away (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}

// groups are the names of the groups that a policy speaks of.
func (r *rule) groups() []string {
	text, err := r.policy.MarshalJSON()
	if err != nil {
		return nil
	}
	var tree any
	if json.Unmarshal(text, &tree) != nil {
		return nil
	}
	names := groupsIn(tree, nil)
	slices.Sort(names)
	return slices.Compact(names)
}

// groupsIn walks Cedar's JSON format, in which an entity is an object with its type
// and its id.
func groupsIn(tree any, names []string) []string {
	switch node := tree.(type) {
	case map[string]any:
		if id, ok := node["id"].(string); ok && node["type"] == string(groupType) {
			return append(names, id)
		}
		for _, child := range node {
			names = groupsIn(child, names)
		}
	case []any:
		for _, child := range node {
			names = groupsIn(child, names)
		}
	}
	return names
}

// syntaxError is the parser's error, which has line and column, once.
func syntaxError(text []byte, err error) error {
	if len(strings.TrimSpace(string(text))) == 0 {
		return nil
	}
	return fmt.Errorf("%w: %s", kms.ErrInvalid, strings.TrimPrefix(err.Error(), "parser error: "))
}
