package approval

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.uber.org/zap"

	"chatelaine/kms"
)

// maxPending bounds the requests that wait, so that nobody hides one among thousands.
const maxPending = 200

// MaxAttachment is the longest attachment of a request, in bytes.
const MaxAttachment = 600 << 10

// digestParam is the param that an attachment must have the digest of.
const digestParam = "digest"

// Prepare makes the request for an operation, with nothing recorded yet. as names the
// person who asks; empty means the one whom the rules know by the actor's name. Where
// the same person has asked for the same already, it returns that request, and found
// is true. signed says that the person has to sign it before Submit.
// ErrNotFound when there are no rules, so that nothing needs a request.
func (c *Control) Prepare(ctx context.Context, op kms.Operation, as string) (q Request, signed, found bool, err error) {
	l, err := c.mustLaw(ctx)
	if err != nil {
		return Request{}, false, false, fmt.Errorf("approval: preparing a request: %w", err)
	}
	op.Approval = ""
	rule := l.For(op.Action, op.Resource)
	person, signed, err := l.requester(op.Actor, as)
	if err != nil {
		return Request{}, false, false, fmt.Errorf("approval: preparing a request: %w", err)
	}
	now := c.clock.wall().Truncate(time.Second)
	q = Request{
		Instance: l.instance, ID: newID(), Rules: l.version, Operation: op, Requester: person,
		Created: now, Expires: now.Add(rule.Expires).Truncate(time.Second),
	}
	if err := q.validate(Ask); err != nil {
		return Request{}, false, false, fmt.Errorf("approval: preparing a request: %w", err)
	}
	all, err := c.list(ctx, l)
	if err != nil {
		return Request{}, false, false, fmt.Errorf("approval: preparing a request: %w", err)
	}
	for _, s := range all {
		if s.open() && s.Request.Requester == person && Differs(s.Request.Operation, op) == "" {
			return s.Request, false, true, nil
		}
	}
	return q, signed, false, nil
}

func (s Standing) open() bool {
	return s.State == StatePending || s.State == StateWaiting || s.State == StateApproved
}

// requester finds out who asks, and whether a signature must prove it.
func (l *lawbook) requester(actor, as string) (name string, signed bool, err error) {
	known := l.actor(actor)
	switch {
	case known != nil && (as == "" || as == known.Name):
		return known.Name, false, nil
	case known != nil:
		return "", false, fmt.Errorf("%w: caller %q is %q and cannot ask as %q", kms.ErrDenied, actor, known.Name, as)
	case as == "":
		return "", false, fmt.Errorf("%w: caller %q is no person in the rules, so nobody knows whose approval would not count; "+
			"say who asks with --as NAME, and sign with --sign-key FILE", kms.ErrDenied, actor)
	case l.people[as] == nil:
		return "", false, fmt.Errorf("%w: nobody in the rules is called %q", kms.ErrDenied, as)
	}
	return as, true, nil
}

// Submit records a request that Prepare made. caller is the actor as the service knows
// it now, who must be the one in the request. signature is the requester's, where one
// is needed. attachment is the document that approvers should see, whose Digest the
// operation has as a param; it may be empty.
func (c *Control) Submit(ctx context.Context, caller string, statement []byte, signature string, attachment []byte) (Standing, error) {
	q, verdict, err := ParseStatement(statement)
	if err == nil && verdict != Ask {
		err = fmt.Errorf("%w: verdict %q", kms.ErrInvalid, verdict)
	}
	if err == nil && len(attachment) > MaxAttachment {
		err = fmt.Errorf("%w: a document of %d bytes, want at most %d", kms.ErrInvalid, len(attachment), MaxAttachment)
	}
	if err == nil && len(attachment) > 0 && q.Operation.Params[digestParam] != digestOf(attachment) {
		err = fmt.Errorf("%w: the document is not the one that the request is about", kms.ErrInvalid)
	}
	if err != nil {
		return Standing{}, fmt.Errorf("approval: submitting a request: %w", err)
	}
	record := Record{Statement: string(statement), Asked: signature, Attachment: attachment}
	s, err := c.submit(ctx, caller, q, record)
	if err != nil {
		return Standing{}, fmt.Errorf("approval: submitting a request: %w", err)
	}
	c.log.Info("request made", zap.String("request", q.ID), zap.String("action", string(q.Operation.Action)),
		zap.String("resource", q.Operation.Resource), zap.String("requester", q.Requester))
	return s, nil
}

func (c *Control) submit(ctx context.Context, caller string, q Request, r Record) (Standing, error) {
	l, err := c.mustLaw(ctx)
	if err != nil {
		return Standing{}, err
	}
	now := c.clock.now()
	if err := c.checkNew(ctx, l, caller, q, r, now); err != nil {
		return Standing{}, err
	}
	puts, err := c.settle(ctx, l, &r, now)
	if err != nil {
		return Standing{}, err
	}
	is := []kms.Condition{l.is, {Key: requestKey(q.ID)}}
	if err := c.store(ctx, q.ID, r, is, puts); err != nil {
		return Standing{}, err
	}
	return l.judge(r, now), nil
}

// checkNew refuses what Prepare would not have made just now.
func (c *Control) checkNew(ctx context.Context, l *lawbook, caller string, q Request, r Record, now instant) error {
	rule := l.For(q.Operation.Action, q.Operation.Resource)
	if q.Operation.Actor != caller {
		return fmt.Errorf("%w: the request is that of caller %q, and you are %q", kms.ErrDenied, q.Operation.Actor, caller)
	}
	if q.Created.Before(now.early.Add(-tolerance)) || q.Created.After(now.late.Add(tolerance)) {
		return fmt.Errorf("%w: the request is of %s, which is not now; prepare it again", kms.ErrInvalid, stamp(q.Created))
	}
	if !q.Expires.Equal(q.Created.Add(rule.Expires).Truncate(time.Second)) {
		return fmt.Errorf("%w: the request expires at another time than the rules say", kms.ErrInvalid)
	}
	if s := l.judge(r, now); s.State != StatePending {
		return fmt.Errorf("%w: the request is %s: %s", kms.ErrDenied, s.State, s.Why)
	}
	all, err := c.list(ctx, l)
	if err != nil {
		return err
	}
	if n := len(slices.DeleteFunc(all, func(s Standing) bool { return !s.open() })); n >= maxPending {
		return fmt.Errorf("%w: %d requests wait already; reject some", kms.ErrDenied, n)
	}
	return nil
}

// settle notes the quorum the moment that it is there, and what else changes then.
func (c *Control) settle(ctx context.Context, l *lawbook, r *Record, now instant) ([]change, error) {
	q, _, err := ParseStatement([]byte(r.Statement))
	if err != nil || r.Quorum != nil {
		return nil, err
	}
	rule := l.For(q.Operation.Action, q.Operation.Resource)
	approvers, rejectedBy := l.count(rule, q, r.Votes)
	if rejectedBy != "" || !rule.Quorum.met(l.groups, approvers) {
		return nil, nil
	}
	at := now.late
	r.Quorum = &at
	if q.Operation.Action != kms.ActionUse {
		return nil, nil
	}
	return c.indexUse(ctx, q.ID, at.Add(rule.Wait).Add(rule.Valid), now)
}

// change is one more line of a transaction.
type change struct {
	is   kms.Condition
	item kms.Item
}

func (c *Control) store(ctx context.Context, id string, r Record, is []kms.Condition, more []change) error {
	item, err := put(requestKey(id), r)
	if err != nil {
		return err
	}
	t := kms.Transaction{If: is, Put: []kms.Item{item}}
	for _, m := range more {
		t.If, t.Put = append(t.If, m.is), append(t.Put, m.item)
	}
	return c.registry.Commit(ctx, t)
}

// mustLaw is law where rules are needed.
func (c *Control) mustLaw(ctx context.Context) (*lawbook, error) {
	l, _, err := c.law(ctx)
	if err == nil && l == nil {
		err = fmt.Errorf("%w: dual control is off, as no ceremony was held", kms.ErrNotFound)
	}
	return l, err
}

// Requests lists what was asked for, the newest first; all includes what is over.
func (c *Control) Requests(ctx context.Context, all bool) ([]Standing, error) {
	l, err := c.mustLaw(ctx)
	if errors.Is(err, kms.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("approval: listing requests: %w", err)
	}
	out, err := c.list(ctx, l)
	if err != nil {
		return nil, fmt.Errorf("approval: listing requests: %w", err)
	}
	if !all {
		out = slices.DeleteFunc(out, func(s Standing) bool { return !s.open() })
	}
	slices.SortStableFunc(out, func(a, b Standing) int { return b.Request.Created.Compare(a.Request.Created) })
	return out, nil
}

func (c *Control) list(ctx context.Context, l *lawbook) ([]Standing, error) {
	items, err := c.registry.List(ctx, requestsKey)
	if err != nil {
		return nil, err
	}
	now := c.clock.now()
	out := make([]Standing, 0, len(items))
	for _, item := range items {
		r, err := decode[Record](item)
		if err != nil {
			return nil, err
		}
		out = append(out, l.judge(r, now))
	}
	return out, nil
}

// Request finds one request by its id, or by the beginning of it (4 digits or more) if
// no other begins so. ErrNotFound; ErrInvalid where several do.
func (c *Control) Request(ctx context.Context, id string) (Record, Standing, error) {
	l, err := c.mustLaw(ctx)
	if err != nil {
		return Record{}, Standing{}, fmt.Errorf("approval: finding request %q: %w", id, err)
	}
	r, _, err := c.find(ctx, id)
	if err != nil {
		return Record{}, Standing{}, fmt.Errorf("approval: finding request %q: %w", id, err)
	}
	return r, l.judge(r, c.clock.now()), nil
}

func (c *Control) find(ctx context.Context, id string) (Record, kms.Condition, error) {
	if len(id) < 4 || len(id) > 32 || !isID((id + "00000000000000000000000000000000")[:32]) {
		return Record{}, kms.Condition{}, fmt.Errorf("%w: want 4 to 32 hex digits", kms.ErrInvalid)
	}
	items, err := c.registry.List(ctx, requestKey(id))
	switch {
	case err != nil:
		return Record{}, kms.Condition{}, err
	case len(items) == 0:
		return Record{}, kms.Condition{}, fmt.Errorf("%w; `chatelaine pending` lists what waits", kms.ErrNotFound)
	case len(items) > 1:
		return Record{}, kms.Condition{}, fmt.Errorf("%w: several begin so; give more of it", kms.ErrInvalid)
	}
	r, err := decode[Record](items[0])
	return r, kms.Condition{Key: items[0].Key, Revision: items[0].Revision}, err
}

// Vote records what somebody signed about a request: who it was, the signature tells.
// An approval counts once for a person; the requester's own is refused. A rejection is
// final, also of what was approved and not used yet.
func (c *Control) Vote(ctx context.Context, id string, v Verdict, signature string) (Standing, error) {
	var s Standing
	err := retry(ctx, func() (err error) {
		s, err = c.vote(ctx, id, v, signature)
		return err
	})
	if err != nil {
		return Standing{}, fmt.Errorf("approval: voting on request %q: %w", id, err)
	}
	c.log.Info("vote", zap.String("request", s.Request.ID), zap.String("verdict", string(v)), zap.String("state", string(s.State)))
	return s, nil
}

func (c *Control) vote(ctx context.Context, id string, v Verdict, signature string) (Standing, error) {
	l, err := c.mustLaw(ctx)
	if err != nil {
		return Standing{}, err
	}
	r, is, err := c.find(ctx, id)
	if err != nil {
		return Standing{}, err
	}
	now := c.clock.now()
	before := l.judge(r, now)
	person, err := l.mayCast(before, v, signature)
	if err != nil {
		return Standing{}, err
	}
	r.Votes = append(r.Votes, Vote{Person: person, Verdict: v, Signature: signature, At: now.late})
	if before.State == StatePending {
		r.Quorum = nil // the time lock counts from this vote, also where new rules ask for more people
	}
	if v == Reject {
		r.close(StateRejected, now.late)
	}
	puts, err := c.settle(ctx, l, &r, now)
	if err != nil {
		return Standing{}, err
	}
	if err := c.store(ctx, before.Request.ID, r, []kms.Condition{l.is, is}, puts); err != nil {
		return Standing{}, err
	}
	return l.judge(r, now), nil
}

// mayCast finds who votes and refuses votes that could not count.
func (l *lawbook) mayCast(s Standing, v Verdict, signature string) (string, error) {
	if !s.open() || v == Approve && s.State != StatePending {
		return "", fmt.Errorf("%w: it is %s: %s", kms.ErrInvalid, s.State, s.Why)
	}
	if v != Approve && v != Reject {
		return "", fmt.Errorf("%w: verdict %q", kms.ErrInvalid, v)
	}
	p, err := l.signer(s.Request.Statement(v), signature)
	switch {
	case err != nil:
		return "", err
	case v == Reject && l.mayReject(s.Rule, s.Request, p.Name):
		return p.Name, nil
	case p.Name == s.Request.Requester:
		return "", fmt.Errorf("%w: %s asked for it, and whoever asks cannot approve", kms.ErrDenied, p.Name)
	case !l.mayVote(s.Rule, p.Name):
		return "", fmt.Errorf("%w: it needs %s, and %s is in no such group", kms.ErrDenied, s.Rule.Quorum, p.Name)
	case slices.Contains(s.Approvers, p.Name):
		return "", fmt.Errorf("%w: %s has approved it already", kms.ErrExists, p.Name)
	}
	return p.Name, nil
}
