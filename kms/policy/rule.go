package policy

import (
	"fmt"
	"iter"
	"slices"

	cedar "github.com/cedar-policy/cedar-go"
	publicast "github.com/cedar-policy/cedar-go/ast"
	"github.com/cedar-policy/cedar-go/x/exp/ast"
)

// Entity types of the schema.
const (
	userType    cedar.EntityType = "User"
	groupType   cedar.EntityType = "Group"
	actionType  cedar.EntityType = "Action"
	serviceType cedar.EntityType = "Service"
	bucketType  cedar.EntityType = "Bucket"
	objectType  cedar.EntityType = "Object"
)

// rule is one policy. Its scope is looked at here, exactly as Cedar would, and its
// conditions are Cedar's: most policies of a large set then cost nothing, and none
// walks the groups again.
type rule struct {
	id         string
	line       int
	policy     *cedar.Policy
	tree       *ast.Policy
	conditions *cedar.Policy // the policy with the widest scope
}

// newRule takes the id from the annotation @id, or else from the place among the
// policies.
func newRule(p *cedar.Policy, index int) *rule {
	r := &rule{
		id: fmt.Sprintf("policy%d", index+1), line: p.Position().Line, policy: p, tree: (*ast.Policy)(p.AST()),
	}
	if id := p.Annotations()["id"]; id != "" {
		r.id = string(id)
	}
	bare := *r.tree
	bare.Principal, bare.Action, bare.Resource = ast.ScopeTypeAll{}, ast.ScopeTypeAll{}, ast.ScopeTypeAll{}
	r.conditions = cedar.NewPolicyFromAST((*publicast.Policy)(&bare))
	return r
}

// concerns says whether the policy's scope takes in an action.
func (r *rule) concerns(a *action) bool {
	switch scope := r.tree.Action.(type) {
	case ast.ScopeTypeEq:
		return scope.Entity == a.uid
	case ast.ScopeTypeIn:
		return a.within(scope.Entity)
	case ast.ScopeTypeInSet:
		for _, uid := range scope.Entities {
			if a.within(uid) {
				return true
			}
		}
		return false
	default:
		return true
	}
}

func (a *action) within(uid cedar.EntityUID) bool {
	if uid == a.uid {
		return true
	}
	for _, g := range a.Groups {
		if uid.Type == actionType && string(uid.ID) == g {
			return true
		}
	}
	return false
}

// covers says whether the policy's scope takes in the principal and the resource.
func (r *rule) covers(w *world) bool {
	return w.isPrincipal(r.tree.Principal) && w.isResource(r.tree.Resource)
}

func (w *world) isPrincipal(scope ast.IsPrincipalScopeNode) bool {
	switch scope := scope.(type) {
	case ast.ScopeTypeAll:
		return true
	case ast.ScopeTypeEq:
		return scope.Entity == w.principal
	case ast.ScopeTypeIn:
		return w.memberOf(scope.Entity)
	case ast.ScopeTypeIs:
		return scope.Type == userType
	case ast.ScopeTypeIsIn:
		return scope.Type == userType && w.memberOf(scope.Entity)
	default:
		return false
	}
}

func (w *world) memberOf(uid cedar.EntityUID) bool {
	return uid == w.principal || w.set.groups[w.principal][uid]
}

func (w *world) isResource(scope ast.IsResourceScopeNode) bool {
	switch scope := scope.(type) {
	case ast.ScopeTypeAll:
		return true
	case ast.ScopeTypeEq:
		return scope.Entity == w.resource.UID
	case ast.ScopeTypeIn:
		return w.resourceIn(scope.Entity)
	case ast.ScopeTypeIs:
		return scope.Type == w.resource.UID.Type
	case ast.ScopeTypeIsIn:
		return scope.Type == w.resource.UID.Type && w.resourceIn(scope.Entity)
	default:
		return false
	}
}

func (w *world) resourceIn(uid cedar.EntityUID) bool {
	return uid == w.resource.UID || uid == w.bucket
}

// candidates are the policies of an action, of which All shows those that cover a
// request.
type candidates struct {
	rules []*rule
	world *world
}

// All implements cedar.PolicyIterator, in the order of the text.
func (c candidates) All() iter.Seq2[cedar.PolicyID, *cedar.Policy] {
	return func(yield func(cedar.PolicyID, *cedar.Policy) bool) {
		for _, r := range c.rules {
			if r.covers(c.world) && !yield(cedar.PolicyID(r.id), r.conditions) {
				return
			}
		}
	}
}

func (c candidates) any() bool {
	return slices.ContainsFunc(c.rules, func(r *rule) bool { return r.covers(c.world) })
}
