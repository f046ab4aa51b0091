package policy

import (
	"fmt"

	cedar "github.com/cedar-policy/cedar-go"

	"chatelaine/kms"
)

// Decision is the answer to a Request.
type Decision struct {
	Allow bool
	// Policies are the ids of the policies that determined it, in the order of the
	// text: all permits that apply, or all forbids. None means that nothing permits it.
	Policies []string
	// Errors says which policies could not be evaluated.
	Errors []string
}

// Decide is allowed by a permit that applies where no forbid does. A forbid that
// cannot be evaluated applies: Cedar would pass over it, and let through what it was
// written to stop. What is no known action, or has no principal or no address that
// can be judged, is denied.
func (s *Set) Decide(q Request) Decision {
	a, err := s.judge(&q)
	if err != nil {
		return Decision{Errors: []string{err.Error()}}
	}
	w := s.world(&q, a)
	rules := candidates{s.byAction[a.Name], w}
	if !rules.any() {
		return Decision{}
	}
	w.fill(&q)
	allow, diagnostic := cedar.Authorize(rules, w, w.request(&q))
	d := Decision{Allow: bool(allow)}
	for _, reason := range diagnostic.Reasons {
		d.Policies = append(d.Policies, string(reason.PolicyID))
	}
	if len(diagnostic.Errors) > 0 {
		s.failed(&d, diagnostic.Errors)
	}
	return d
}

// judge finds the action, or says why the request cannot be decided.
func (s *Set) judge(q *Request) (*action, error) {
	a := s.actions[q.Action]
	if a == nil {
		return nil, fmt.Errorf("%w: unknown action %q", kms.ErrInvalid, q.Action)
	}
	if err := q.check(a.Action); err != nil {
		return nil, err
	}
	q.Source = q.Source.Unmap().WithZone("")
	return a, nil
}

// failed notes what could not be evaluated.
func (s *Set) failed(d *Decision, errs []cedar.DiagnosticError) {
	for _, e := range errs {
		d.Errors = append(d.Errors, fmt.Sprintf("%s: %s", e.PolicyID, e.Message))
		if r := s.rule(string(e.PolicyID)); r == nil || r.policy.Effect() == cedar.Permit {
			continue
		}
		if d.Allow {
			d.Allow, d.Policies = false, nil
		}
		d.Policies = append(d.Policies, string(e.PolicyID))
	}
}

func (s *Set) rule(id string) *rule {
	for _, r := range s.rules {
		if r.id == id {
			return r
		}
	}
	return nil
}

// Sees says whether a principal is shown a bucket in a list: when it may list it, or
// do anything else to the bucket itself. The request's Action, Key and Prefix are not
// looked at.
func (s *Set) Sees(q Request) bool {
	q.Key, q.Prefix = "", ""
	for _, name := range s.seeing {
		q.Action = name
		if s.Decide(q).Allow {
			return true
		}
	}
	return false
}
