// Package policy is the language of access policies: Cedar over the users, buckets,
// objects and actions of S3. It checks what is put, decides what is asked, and
// explains. The KMS checks and explains with it, gateways decide with it.
//
// It refuses to know where policies are kept, who may change them, and how a caller
// was authenticated.
//
// Source: the Cedar policy language, https://docs.cedarpolicy.com.
package policy

import (
	_ "embed"
	"fmt"
	"strings"

	cedar "github.com/cedar-policy/cedar-go"

	"chatelaine/kms"
)

// Document is a policy set as people write it: Policies in Cedar, and Entities as a
// JSON array of groups, and of users with their groups and tags, in Cedar's format.
type Document = kms.PolicyDocument

//go:embed default.cedar
var defaultPolicies string

// Default is the policy set where none was put.
func Default() Document { return Document{Policies: []byte(defaultPolicies)} }

// Set is a policy set that is ready to decide. It does not change, and may be used
// concurrently.
type Set struct {
	rules    []*rule // in the order of the text
	byAction map[string][]*rule
	actions  map[string]*action
	entities cedar.EntityMap
	groups   map[cedar.EntityUID]map[cedar.EntityUID]bool // of each user, through groups too
	seeing   []string                                     // actions of which one shows a bucket in lists, the usual first
	text     []byte
}

// action is what is known of an action beforehand.
type action struct {
	Action
	uid cedar.EntityUID
}

// Compile reads a document that Check has accepted, be it a Check of another
// version: what it names and this version does not know is no error. Errors wrap
// kms.ErrInvalid.
func Compile(d Document) (*Set, error) {
	s, err := read(d)
	if err != nil {
		return nil, fmt.Errorf("policy: reading the policies: %w", err)
	}
	return s, nil
}

func read(d Document) (*Set, error) {
	if len(d.Policies) > kms.MaxPolicy || len(d.Entities) > kms.MaxPolicy {
		return nil, fmt.Errorf("%w: policies of %d bytes and entities of %d, at most %d each may be",
			kms.ErrInvalid, len(d.Policies), len(d.Entities), kms.MaxPolicy)
	}
	s := &Set{text: d.Policies, byAction: make(map[string][]*rule), actions: make(map[string]*action)}
	var err error
	if s.entities, err = readEntities(d.Entities); err != nil {
		return nil, err
	}
	s.groups = memberships(s.entities)
	for _, a := range Actions() {
		known := &action{Action: a, uid: cedar.NewEntityUID(actionType, cedar.String(a.Name))}
		s.actions[a.Name] = known
		if a.On == OnBucket && a.Name != "s3:CreateBucket" { // which is not done to a bucket that is there
			s.seeing = append(s.seeing, a.Name)
		}
		s.entities[known.uid] = cedar.Entity{UID: known.uid, Parents: groupsOf(a)}
	}
	return s, s.readPolicies()
}

func groupsOf(a Action) cedar.EntityUIDSet {
	uids := make([]cedar.EntityUID, 0, len(a.Groups))
	for _, g := range a.Groups {
		uids = append(uids, cedar.NewEntityUID(actionType, cedar.String(g)))
	}
	return cedar.NewEntityUIDSet(uids...)
}

func (s *Set) readPolicies() error {
	if err := checkDepth(s.text); err != nil {
		return err
	}
	list, err := cedar.NewPolicyListFromBytes("", s.text)
	if err != nil {
		return syntaxError(s.text, err)
	}
	seen := make(map[string]int, len(list))
	for i, p := range list {
		r := newRule(p, i)
		if line, ok := seen[r.id]; ok {
			return fmt.Errorf("%w: line %d: id %q is that of the policy in line %d too", kms.ErrInvalid, r.line, r.id, line)
		}
		seen[r.id] = r.line
		s.rules = append(s.rules, r)
	}
	for name, a := range s.actions {
		for _, r := range s.rules {
			if r.concerns(a) {
				s.byAction[name] = append(s.byAction[name], r)
			}
		}
	}
	return nil
}

// maxDepth is how deep brackets may be nested: whoever reads them recurses.
const maxDepth = 64

// checkDepth counts brackets outside of strings and comments.
func checkDepth(text []byte) error {
	depth, line := 0, 1
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '\n':
			line++
		case c == '"':
			i = endOfString(text, i)
		case c == '/' && strings.HasPrefix(string(text[i:min(i+2, len(text))]), "//"):
			for i+1 < len(text) && text[i+1] != '\n' {
				i++
			}
		case c == '(' || c == '[' || c == '{':
			depth++
		case c == ')' || c == ']' || c == '}':
			depth--
		}
		if depth > maxDepth {
			return fmt.Errorf("%w: line %d: brackets are nested over %d deep", kms.ErrInvalid, line, maxDepth)
		}
	}
	return nil
}

// endOfString is where the string that begins at i ends, or the last byte.
func endOfString(text []byte, i int) int {
	for i++; i < len(text); i++ {
		switch text[i] {
		case '\\':
			i++
		case '"':
			return i
		}
	}
	return len(text) - 1
}
