package approval

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"go.uber.org/zap"

	"chatelaine/kms"
)

// Law is the rules that hold, for people.
type Law struct {
	Active   bool
	Rules    *Rules // nil where they are not active
	Number   uint64
	Instance string
	Ceremony string // digest of its statement: what Config.Ceremony pins
}

// Law returns the rules that hold.
func (c *Control) Law(ctx context.Context) (Law, error) {
	l, _, err := c.law(ctx)
	if err != nil {
		return Law{}, fmt.Errorf("approval: reading the rules: %w", err)
	}
	if l == nil {
		return Law{}, nil
	}
	history, err := c.history(ctx, 1)
	if err != nil {
		return Law{}, fmt.Errorf("approval: reading the rules: %w", err)
	}
	if len(history) == 0 || history[0].Ceremony == nil {
		return Law{}, errors.New("approval: reading the rules: the ceremony is missing")
	}
	return Law{
		Active: true, Rules: l.Rules, Number: l.number, Instance: l.instance,
		Ceremony: digestOf([]byte(history[0].Ceremony.Statement)),
	}, nil
}

// rulesOperation is what approvers of new rules sign, but for actor and reason.
func rulesOperation(number uint64, text []byte) kms.Operation {
	return kms.Operation{
		Action: kms.ActionRules, Resource: rulesResource,
		Params: map[string]string{digestParam: digestOf(text), "number": strconv.FormatUint(number, 10)},
	}
}

// PutRules replaces the rules. It needs what the present ones say about kms.ActionRules:
// a *NeededError where approval is empty. Requests made under the old rules are stale
// from then on. Returns the new number. ErrNotFound before the ceremony.
func (c *Control) PutRules(ctx context.Context, text []byte, actor, reason, approval string) (uint64, error) {
	if _, err := ParseRules(text); err != nil {
		return 0, err
	}
	number, err := c.putRules(ctx, text, actor, reason, approval)
	if err != nil {
		var needed *NeededError
		if errors.As(err, &needed) {
			return 0, needed
		}
		return 0, fmt.Errorf("approval: changing the rules: %w", err)
	}
	c.log.Info("rules changed", zap.Uint64("number", number), zap.String("actor", actor), zap.String("request", approval))
	return number, nil
}

func (c *Control) putRules(ctx context.Context, text []byte, actor, reason, approval string) (uint64, error) {
	l, err := c.mustLaw(ctx)
	if err != nil {
		return 0, err
	}
	next := Ruleset{Number: l.number + 1, Text: text, At: c.clock.now().late}
	op := rulesOperation(next.Number, text)
	op.Actor, op.Reason, op.Approval = actor, reason, approval
	grant, err := c.Permit(ctx, op)
	if err != nil {
		return 0, err
	}
	if len(grant.Put) != 1 {
		return 0, fmt.Errorf("%w: the rules changed meanwhile", kms.ErrConflict)
	}
	used, err := decode[Record](grant.Put[0])
	if err != nil {
		return 0, err
	}
	next.Change = &used
	// The chain that every later reader verifies is verified before it is written.
	if _, err := l.succeededBy(next); err != nil {
		return 0, err
	}
	grant.If = append(grant.If, kms.Condition{Key: rulesetKey(next.Number)})
	return next.Number, c.commitRules(ctx, next, kms.Transaction{If: grant.If, Put: grant.Put})
}

func joinedText(s []string) string { return strings.Join(s, ", ") }
