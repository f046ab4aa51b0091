package kms

import "context"

// Action is what a rule of dual control is made for. Texts are in signatures and
// in the registry: they never change.
type Action string

// The actions.
const (
	ActionUse     Action = "key.use"     // any unwrapping or wrapping under the KEK
	ActionBlock   Action = "key.block"   // the kill switch
	ActionUnblock Action = "key.unblock" // taking the kill switch back
	ActionDestroy Action = "key.destroy" // of a KEK version
	ActionSet     Action = "key.set"     // of a KEK's settings
	ActionShred   Action = "bucket.shred"
	ActionPolicy  Action = "policy.put" // of the access policies
	ActionRules   Action = "rules.put"  // of dual control itself
	ActionRestore Action = "registry.restore"
)

// RegistryResource names the whole registry to rules of dual control.
const RegistryResource = "registry"

// Operation is what somebody wants done. All of it is what approvers sign, so an
// approval of one operation permits no other.
type Operation struct {
	Action   Action
	Resource string // "key/<name>", "key/<name>.v<n>", "bucket/<name>", "policy", "rules", "registry"
	// Params are all further inputs that change the effect, such as the digest of a
	// new policy. Names and values are UTF-8.
	Params map[string]string
	Actor  string // who asks, as the service knows the caller
	Reason string
	// Approval is the id of an approved request, empty where there is none.
	Approval string
}

// Grant is a permission. It belongs into the transaction that does the operation:
// its conditions make sure that the approval still stands, and its changes mark it
// used, so that it cannot be used twice.
type Grant struct {
	If  []Condition
	Put []Item
}

// Gate decides whether an operation may happen. Its methods may run concurrently.
type Gate interface {
	// Permit returns a Grant, or ErrApproval with a text that says what is missing
	// and what to do. It changes nothing.
	Permit(ctx context.Context, op Operation) (Grant, error)
	// Usable returns nil when the KEK may be used now; ErrApproval when its rules
	// demand an approved use and there is none. It is asked for each use, and so
	// answers from memory where it can.
	Usable(ctx context.Context, kek string) error
}

// ungated permits everything: a KMS without rules of dual control.
type ungated struct{}

func (ungated) Permit(context.Context, Operation) (Grant, error) { return Grant{}, nil }
func (ungated) Usable(context.Context, string) error             { return nil }

var _ Gate = ungated{}
