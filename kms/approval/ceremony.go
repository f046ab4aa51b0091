package approval

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"

	"chatelaine/kms"
)

const (
	ceremonyDomain = "chatelaine ceremony, version 1"
	// ceremonyLife is how long signatures can be collected.
	ceremonyLife = 30 * 24 * time.Hour
)

// founding is what everybody signs at the ceremony.
type founding struct {
	instance string
	rules    string // version
	created  time.Time
	people   []Person
}

// statement is the text that is signed, with one form for each founding. People and
// fingerprints are in it so that who signs can read them; the digest in rules is what
// binds them.
func (f founding) statement() []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\ninstance %q\nrules %q\ncreated %q\n", ceremonyDomain, f.instance, f.rules, f.created.UTC().Format(time.RFC3339))
	for _, p := range f.people {
		fmt.Fprintf(&b, "person %q", p.Name)
		for _, k := range p.Keys {
			fmt.Fprintf(&b, " %q", k.Fingerprint())
		}
		b.WriteByte('\n')
	}
	return []byte(b.String())
}

// parseFounding reads the statement that belongs to rules.
func parseFounding(text []byte, rules *Rules) (founding, error) {
	f := founding{people: rules.People()}
	lines := strings.SplitN(string(text), "\n", 5)
	if len(text) > maxStatement || len(lines) < 5 || lines[0] != ceremonyDomain {
		return f, fmt.Errorf("%w: it is no ceremony's statement", kms.ErrInvalid)
	}
	var created string
	for i, to := range []*string{&f.instance, &f.rules, &created} {
		_, quoted, _ := strings.Cut(lines[i+1], " ")
		value, err := strconv.Unquote(quoted)
		if err != nil {
			return f, fmt.Errorf("%w: line %q", kms.ErrInvalid, abbreviated(lines[i+1]))
		}
		*to = value
	}
	at, err := time.Parse(time.RFC3339, created)
	f.created = at
	if err != nil || !isID(f.instance) || f.rules != versionOf(1, rules.text) || string(f.statement()) != string(text) {
		return f, fmt.Errorf("%w: the statement is not the one for these rules; begin the ceremony again", kms.ErrInvalid)
	}
	return f, nil
}

// CheckCeremony says whether a statement is that of a ceremony for these rules, so that
// somebody can know what to sign without a KMS. It returns the rules.
func CheckCeremony(statement, rules []byte) (*Rules, error) {
	parsed, err := ParseRules(rules)
	if err != nil {
		return nil, err
	}
	if _, err := parseFounding(statement, parsed); err != nil {
		return nil, fmt.Errorf("approval: checking the ceremony: %w", err)
	}
	return parsed, nil
}

// signedByAll checks that each person who has keys signed.
func signedByAll(statement []byte, rules *Rules, signatures []string) error {
	signed := make(map[string]bool)
	for i, s := range signatures {
		p, err := rules.signer(statement, s)
		if err != nil {
			return fmt.Errorf("signature %d: %w", i+1, err)
		}
		signed[p.Name] = true
	}
	var missing []string
	for _, p := range rules.People() {
		if len(p.Keys) > 0 && !signed[p.Name] {
			missing = append(missing, p.Name)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("%w: not signed by %s; everybody has to", kms.ErrInvalid, strings.Join(missing, ", "))
	}
	return nil
}

// BeginCeremony checks the first rules and returns the statement that everybody in
// them signs. It changes nothing but that the registry gets an id if it has none.
// ErrExists after a ceremony was held.
func (c *Control) BeginCeremony(ctx context.Context, rules []byte) ([]byte, error) {
	parsed, err := ParseRules(rules)
	if err != nil {
		return nil, err
	}
	if err := c.unfounded(ctx); err != nil {
		return nil, err
	}
	id, err := c.identity(ctx)
	if err != nil {
		return nil, fmt.Errorf("approval: beginning the ceremony: %w", err)
	}
	f := founding{instance: id, rules: versionOf(1, rules), created: c.clock.wall().Truncate(time.Second), people: parsed.People()}
	return f.statement(), nil
}

// unfounded returns ErrExists when there are rules.
func (c *Control) unfounded(ctx context.Context) error {
	_, is, err := readMaybe[head](ctx, c.registry, headKey)
	if err == nil && is.Revision != 0 {
		err = fmt.Errorf("%w: a ceremony was held; the rules are changed with `chatelaine rules put`, which needs their own quorum", kms.ErrExists)
	}
	if err != nil {
		return fmt.Errorf("approval: looking for rules: %w", err)
	}
	return nil
}

// ApplyCeremony makes the rules hold, when everybody in them signed the statement of
// BeginCeremony, at most 30 days ago. From then on dual control is on. ErrExists when
// it is on already; whoever comes second has changed nothing.
func (c *Control) ApplyCeremony(ctx context.Context, statement, rules []byte, signatures []string) (Bundle, error) {
	first, err := c.found(ctx, statement, rules, signatures)
	if err != nil {
		return Bundle{}, fmt.Errorf("approval: applying the ceremony: %w", err)
	}
	c.log.Info("dual control is on", zap.String("rules", first.version()), zap.String("ceremony", digestOf(statement)))
	return Bundle{Version: bundleVersion, Rulesets: []Ruleset{first}}, nil
}

func (c *Control) found(ctx context.Context, statement, text []byte, signatures []string) (Ruleset, error) {
	now := c.clock.now()
	first := Ruleset{Number: 1, Text: text, At: now.late, Ceremony: &Ceremony{Statement: string(statement), Signatures: signatures}}
	l, err := descend([]Ruleset{first}, "")
	if err != nil {
		return first, err
	}
	id, err := c.identity(ctx)
	if err != nil {
		return first, err
	}
	f, err := parseFounding(statement, l.Rules)
	switch {
	case err != nil:
		return first, err
	case l.instance != id:
		return first, fmt.Errorf("%w: the statement is for another installation", kms.ErrInvalid)
	case now.passed(f.created.Add(ceremonyLife)) || now.late.Add(tolerance).Before(f.created):
		return first, fmt.Errorf("%w: the statement is of %s; begin the ceremony again", kms.ErrInvalid, stamp(f.created))
	case c.pin != "" && c.pin != digestOf(statement):
		return first, fmt.Errorf("%w: the configuration names the ceremony %s, this is %s", kms.ErrInvalid, c.pin, digestOf(statement))
	}
	err = c.commitRules(ctx, first, kms.Transaction{If: []kms.Condition{{Key: headKey}, {Key: rulesetKey(1)}}})
	if errors.Is(err, kms.ErrConflict) {
		err = errors.Join(c.unfounded(ctx), err)
	}
	return first, err
}

// commitRules adds a version of the rules to a transaction and applies it.
func (c *Control) commitRules(ctx context.Context, s Ruleset, t kms.Transaction) error {
	top, err := put(headKey, head{Version: s.version(), Number: s.Number})
	body, err2 := put(rulesetKey(s.Number), s)
	if err := errors.Join(err, err2); err != nil {
		return err
	}
	t.Put = append(t.Put, top, body)
	return c.registry.Commit(ctx, t)
}

// descend verifies versions of the rules, from the ceremony on, and returns the last.
// pin is the digest of the ceremony's statement, or empty.
func descend(history []Ruleset, pin string) (*lawbook, error) {
	if len(history) == 0 || history[0].Ceremony == nil {
		return nil, fmt.Errorf("%w: the rules do not begin with a ceremony", kms.ErrInvalid)
	}
	l, err := foundedBy(history[0], pin)
	for _, next := range history[1:] {
		if err != nil {
			return nil, err
		}
		l, err = l.succeededBy(next)
	}
	return l, err
}

func foundedBy(s Ruleset, pin string) (*lawbook, error) {
	rules, err := ParseRules(s.Text)
	if err != nil {
		return nil, err
	}
	statement := []byte(s.Ceremony.Statement)
	f, err := parseFounding(statement, rules)
	if err == nil {
		err = signedByAll(statement, rules, s.Ceremony.Signatures)
	}
	if err == nil && s.Number != 1 {
		err = fmt.Errorf("%w: the first rules have number %d", kms.ErrInvalid, s.Number)
	}
	if err == nil && pin != "" && digestOf(statement) != pin {
		err = fmt.Errorf("%w: the rules come from the ceremony %s, and not from %s", kms.ErrInvalid, digestOf(statement), pin)
	}
	if err != nil {
		return nil, err
	}
	return &lawbook{Rules: rules, version: s.version(), number: 1, instance: f.instance}, nil
}

// succeededBy verifies that the next rules were approved under these.
func (l *lawbook) succeededBy(next Ruleset) (*lawbook, error) {
	if next.Number != l.number+1 || next.Change == nil {
		return nil, fmt.Errorf("%w: rules %d are followed by %d, without an approval between them", kms.ErrInvalid, l.number, next.Number)
	}
	q, _, err := ParseStatement([]byte(next.Change.Statement))
	if err != nil {
		return nil, err
	}
	wanted := rulesOperation(next.Number, next.Text)
	wanted.Actor, wanted.Reason = q.Operation.Actor, q.Operation.Reason
	if field := Differs(q.Operation, wanted); field != "" {
		return nil, fmt.Errorf("%w: rules %d were approved with another %s", kms.ErrInvalid, next.Number, field)
	}
	if err := l.signedFor(*next.Change, q); err != nil {
		return nil, fmt.Errorf("rules %d: %w", next.Number, err)
	}
	rules, err := ParseRules(next.Text)
	if err != nil {
		return nil, err
	}
	return &lawbook{Rules: rules, version: next.version(), number: next.Number, instance: l.instance}, nil
}

// signedFor checks of a request all that does not depend on a clock: that it was made
// here and under these rules, by who may ask, and has its quorum.
func (l *lawbook) signedFor(r Record, q Request) error {
	rule := l.For(q.Operation.Action, q.Operation.Resource)
	if q.Instance != l.instance || q.Rules != l.version {
		return fmt.Errorf("%w: the request was made elsewhere or under other rules", kms.ErrInvalid)
	}
	if err := l.checkAsked(rule, q, r.Asked); err != nil {
		return err
	}
	approvers, rejectedBy := l.count(rule, q, r.Votes)
	if rejectedBy != "" || !rule.Quorum.met(l.groups, approvers) {
		return fmt.Errorf("%w: the request needs %s; %s %s", kms.ErrApproval, rule.Quorum, approvedBy(approvers), rejectedBy)
	}
	return nil
}
