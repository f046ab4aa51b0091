package approval

import (
	"context"
	"errors"
	"fmt"

	"chatelaine/kms"
)

// Permit implements kms.Gate. An operation that needs an approval and names none gets
// a *NeededError.
func (c *Control) Permit(ctx context.Context, op kms.Operation) (kms.Grant, error) {
	l, is, err := c.law(ctx)
	if err != nil {
		return kms.Grant{}, fmt.Errorf("approval: permitting %s of %q: %w", op.Action, op.Resource, err)
	}
	if l == nil || l.free(op) {
		return kms.Grant{If: []kms.Condition{is}}, nil
	}
	if op.Approval == "" {
		return kms.Grant{}, l.needed(op)
	}
	grant, err := c.redeem(ctx, l, op)
	if err != nil {
		return kms.Grant{}, fmt.Errorf("approval: permitting %s of %q with request %q: %w", op.Action, op.Resource, op.Approval, err)
	}
	return grant, nil
}

// free says whether the caller may do it without any request.
func (l *lawbook) free(op kms.Operation) bool {
	rule := l.For(op.Action, op.Resource)
	if len(rule.Quorum) > 0 || rule.Wait > 0 {
		return false
	}
	p := l.actor(op.Actor)
	return len(rule.Requesters) == 0 || p != nil && l.mayAsk(rule, p.Name)
}

func (l *lawbook) needed(op kms.Operation) error {
	rule := l.For(op.Action, op.Resource)
	text := fmt.Sprintf("approval: %s of %q: %v: it needs %s", op.Action, op.Resource, kms.ErrApproval, rule)
	if len(rule.Requesters) > 0 {
		text += fmt.Sprintf("; only %s may ask", joinedText(rule.Requesters))
	}
	return &NeededError{Operation: op, Text: text}
}

// redeem makes the grant of an approved request. Everything that is wrong with it is
// ErrApproval.
func (c *Control) redeem(ctx context.Context, l *lawbook, op kms.Operation) (kms.Grant, error) {
	if !isID(op.Approval) {
		return kms.Grant{}, fmt.Errorf("%w: an approval is named by its whole id of 32 hex digits", kms.ErrApproval)
	}
	r, is, err := c.find(ctx, op.Approval)
	if errors.Is(err, kms.ErrNotFound) {
		return kms.Grant{}, fmt.Errorf("%w: there is no such request", kms.ErrApproval)
	}
	if err != nil {
		return kms.Grant{}, err
	}
	now := c.clock.now()
	s := l.judge(r, now)
	if s.State != StateApproved {
		return kms.Grant{}, fmt.Errorf("%w: the request is %s: %s", kms.ErrApproval, s.State, s.Why)
	}
	if s.Request.ID != op.Approval {
		return kms.Grant{}, fmt.Errorf("%w: the record is that of another request", kms.ErrApproval)
	}
	if field := Differs(s.Request.Operation, op); field != "" {
		return kms.Grant{}, fmt.Errorf("%w: another %s was approved: %s", kms.ErrApproval, field, describe(s.Request.Operation))
	}
	r.close(StateUsed, now.late)
	item, err := put(is.Key, r)
	return kms.Grant{If: []kms.Condition{l.is, is}, Put: []kms.Item{item}}, err
}

func describe(op kms.Operation) string {
	return fmt.Sprintf("%s of %q by %q with params %q and reason %q", op.Action, op.Resource, op.Actor, op.Params, op.Reason)
}
