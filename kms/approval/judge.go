package approval

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"chatelaine/kms"
)

// State says how far a request has come.
type State string

// The states. Texts are in the registry.
const (
	StatePending  State = "pending"  // the quorum is not there
	StateWaiting  State = "waiting"  // the quorum is there, the time lock runs
	StateApproved State = "approved" // it can be used now
	StateUsed     State = "used"
	StateRejected State = "rejected"
	StateExpired  State = "expired"
	StateStale    State = "stale"   // it was made under rules that have changed
	StateInvalid  State = "invalid" // its record cannot be true
)

// Standing is what a request is worth at some moment.
type Standing struct {
	Request   Request
	Rule      Rule
	State     State
	Approvers []string // whose approvals count, by name
	// Ready and Until are when the approval can be used; zero before the quorum.
	Ready, Until time.Time
	// Why explains the state to people.
	Why string
}

// lawbook is the rules that hold: one parsed version, at one installation.
type lawbook struct {
	*Rules
	version  string
	number   uint64
	instance string
	is       kms.Condition // that these rules still hold
}

// judge decides what a record is worth. It believes signatures, and of the rest of the
// record only what makes it worth less, but for the time of the quorum.
func (l *lawbook) judge(r Record, now instant) Standing {
	q, verdict, err := ParseStatement([]byte(r.Statement))
	if err != nil || verdict != Ask {
		return Standing{State: StateInvalid, Why: "its statement cannot be read"}
	}
	s := Standing{Request: q, Rule: l.For(q.Operation.Action, q.Operation.Resource)}
	if r.Closed != "" {
		return s.as(r.Closed, closedWhy(r))
	}
	if q.Instance != l.instance {
		return s.as(StateInvalid, "it was made for another installation")
	}
	// An approved use of a key goes on under new rules if its approvals suffice there, or
	// else every change of the rules would stop all data.
	if q.Rules != l.version && q.Operation.Action != kms.ActionUse {
		return s.as(StateStale, "the rules were changed since; ask again")
	}
	if err := l.checkAsked(s.Rule, q, r.Asked); err != nil {
		return s.as(StateInvalid, err.Error())
	}
	if now.late.Add(tolerance).Before(q.Created) {
		return s.as(StateInvalid, fmt.Sprintf("it was made at %s, which is in the future: the clock was set back; ask again", stamp(q.Created)))
	}
	rejectedBy := ""
	s.Approvers, rejectedBy = l.count(s.Rule, q, r.Votes)
	if rejectedBy != "" {
		return s.as(StateRejected, rejectedBy+" rejected it")
	}
	return l.timed(s, r, now)
}

// timed decides by the quorum and the clock.
func (l *lawbook) timed(s Standing, r Record, now instant) Standing {
	if !s.Rule.Quorum.met(l.groups, s.Approvers) || r.Quorum == nil {
		if now.passed(s.Request.Expires) {
			return s.as(StateExpired, "it found no quorum until "+stamp(s.Request.Expires))
		}
		return s.as(StatePending, "it needs "+s.Rule.String()+"; "+approvedBy(s.Approvers))
	}
	s.Ready = r.Quorum.Add(s.Rule.Wait)
	s.Until = s.Ready.Add(s.Rule.Valid)
	switch {
	case now.passed(s.Until):
		return s.as(StateExpired, "it could be used until "+stamp(s.Until))
	case s.Rule.Wait > 0 && !now.reached(s.Ready): // without a wait, clocks that differ are no reason to wait
		return s.as(StateWaiting, "its waiting period lasts until "+stamp(s.Ready))
	default:
		return s.as(StateApproved, "it can be used until "+stamp(s.Until))
	}
}

func (s Standing) as(state State, why string) Standing {
	s.State, s.Why = state, why
	return s
}

func closedWhy(r Record) string {
	at := ""
	if r.ClosedAt != nil {
		at = " at " + stamp(*r.ClosedAt)
	}
	for _, v := range r.Votes {
		if v.Verdict == Reject {
			return v.Person + " rejected it" + at
		}
	}
	if r.Closed == StateUsed {
		return "it was used" + at + ", and an approval is good for once"
	}
	return "it is " + string(r.Closed) + at
}

func approvedBy(people []string) string {
	if len(people) == 0 {
		return "nobody has approved yet"
	}
	return "approved by " + strings.Join(people, ", ")
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }

// checkAsked checks that the requester is a person who may ask, and did: the service
// knew the actor as that person, or there is a signature.
func (l *lawbook) checkAsked(rule Rule, q Request, signature string) error {
	if !l.mayAsk(rule, q.Requester) {
		return fmt.Errorf("%w: %q may not ask for this", kms.ErrDenied, q.Requester)
	}
	known := l.actor(q.Operation.Actor)
	if known != nil && known.Name != q.Requester {
		return fmt.Errorf("%w: caller %q is %q and not %q", kms.ErrDenied, q.Operation.Actor, known.Name, q.Requester)
	}
	if signature == "" && known != nil {
		return nil
	}
	if signature == "" {
		return fmt.Errorf("%w: caller %q is no person in the rules, so %q has to sign the request", kms.ErrDenied, q.Operation.Actor, q.Requester)
	}
	p, err := l.signer(q.Statement(Ask), signature)
	if err == nil && p.Name != q.Requester {
		err = fmt.Errorf("%w: %q signed the request and not %q", kms.ErrDenied, p.Name, q.Requester)
	}
	return err
}

// count verifies the votes. Approvals of people who ask, or whose groups are not asked,
// do not count, and nobody counts twice.
func (l *lawbook) count(rule Rule, q Request, votes []Vote) (approvers []string, rejectedBy string) {
	for _, v := range votes {
		p, err := l.signer(q.Statement(v.Verdict), v.Signature)
		switch {
		case err != nil:
			continue
		case v.Verdict == Reject && l.mayReject(rule, q, p.Name):
			return nil, p.Name
		case v.Verdict == Approve && p.Name != q.Requester && l.mayVote(rule, p.Name) && !slices.Contains(approvers, p.Name):
			approvers = append(approvers, p.Name)
		}
	}
	slices.Sort(approvers)
	return approvers, ""
}

// mayReject: whoever is asked, and who takes back what he asked for.
func (l *lawbook) mayReject(rule Rule, q Request, person string) bool {
	return person == q.Requester || l.mayVote(rule, person)
}
