package policy

import (
	"slices"
	"strings"

	cedar "github.com/cedar-policy/cedar-go"
	publicast "github.com/cedar-policy/cedar-go/ast"
	"github.com/cedar-policy/cedar-go/x/exp/ast"
	"github.com/cedar-policy/cedar-go/x/exp/eval"
)

// Explanation is a Decision with what every policy had to do with it.
type Explanation struct {
	Decision
	// Outcomes has each policy once: those that apply, then the others, the nearest
	// first.
	Outcomes []Outcome
}

// Outcome is what became of one policy.
type Outcome struct {
	ID      string
	Line    int    // where it begins, from 1
	Effect  string // "permit" or "forbid"
	Applies bool
	// Misses are the parts of the policy that did not hold, in the order of the text;
	// of a condition, the first of the terms between "&&".
	Misses []Miss
}

// Miss is a part of a policy that did not hold.
type Miss struct {
	Part  string // "principal", "action", "resource", "when" or "unless"
	Text  string // what it says
	Error string // why it could not be evaluated; empty where it was just not so
}

// Explain decides as Decide does, and says why.
func (s *Set) Explain(q Request) Explanation {
	out := Explanation{Decision: s.Decide(q)}
	a, err := s.judge(&q)
	if err != nil {
		return out
	}
	w := s.world(&q, a)
	w.fill(&q)
	r := w.request(&q)
	env := eval.Env{Entities: w, Principal: r.Principal, Action: r.Action, Resource: r.Resource, Context: r.Context}
	for _, r := range s.rules {
		out.Outcomes = append(out.Outcomes, r.explain(env))
	}
	slices.SortStableFunc(out.Outcomes, func(a, b Outcome) int { return a.distance() - b.distance() })
	return out
}

// distance orders outcomes: a scope that misses is further away than a condition.
func (o Outcome) distance() (n int) {
	for _, m := range o.Misses {
		n++
		if m.Part == "principal" || m.Part == "action" || m.Part == "resource" {
			n += 10
		}
	}
	return n
}

func (r *rule) explain(env eval.Env) Outcome {
	out := Outcome{ID: r.id, Line: r.line, Effect: "permit"}
	if r.policy.Effect() == cedar.Forbid {
		out.Effect = "forbid"
	}
	for _, part := range r.scope() {
		if miss, ok := holds(part.name, eval.PolicyToNode(part.only).AsIsNode(), true, env); !ok {
			out.Misses = append(out.Misses, miss)
		}
	}
	if len(out.Misses) > 0 { // conditions may rely on the scope
		return out
	}
	for _, c := range r.tree.Conditions {
		if miss, ok := conditionHolds(c, env); !ok {
			out.Misses = append(out.Misses, miss)
			break // and later conditions on earlier ones
		}
	}
	out.Applies = len(out.Misses) == 0
	return out
}

type scopePart struct {
	name string
	only *ast.Policy // a policy with this part alone
}

func (r *rule) scope() []scopePart {
	principal, action, resource := ast.Permit(), ast.Permit(), ast.Permit()
	principal.Principal, action.Action, resource.Resource = r.tree.Principal, r.tree.Action, r.tree.Resource
	return []scopePart{{"principal", principal}, {"action", action}, {"resource", resource}}
}

func conditionHolds(c ast.ConditionType, env eval.Env) (Miss, bool) {
	if c.Condition == ast.ConditionUnless {
		return holds("unless", c.Body, false, env)
	}
	for _, term := range conjuncts(c.Body) {
		if miss, ok := holds("when", term, true, env); !ok {
			return miss, false
		}
	}
	return Miss{}, true
}

// conjuncts are the terms between the "&&" of a condition.
func conjuncts(n ast.IsNode) []ast.IsNode {
	and, ok := n.(ast.NodeTypeAnd)
	if !ok {
		return []ast.IsNode{n}
	}
	return append(conjuncts(and.Left), conjuncts(and.Right)...)
}

func holds(part string, n ast.IsNode, want bool, env eval.Env) (Miss, bool) {
	value, err := eval.Eval(n, env)
	if err == nil && value == cedar.Boolean(want) {
		return Miss{}, true
	}
	miss := Miss{Part: part, Text: nodeText(n)}
	if err != nil {
		miss.Error = err.Error()
	}
	return miss, false
}

// nodeText writes an expression as Cedar.
func nodeText(n ast.IsNode) string {
	p := ast.Permit().When(ast.NewNode(n))
	text := string(cedar.NewPolicyFromAST((*publicast.Policy)(p)).MarshalCedar())
	_, condition, _ := strings.Cut(text, "when {")
	return strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(condition), "};"))
}
