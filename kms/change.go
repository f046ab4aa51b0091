package kms

import (
	"cmp"
	"fmt"
	"unicode"
	"unicode/utf8"
)

// Change says who wants something changed, and why. It is kept in the history of
// what was changed.
type Change struct {
	// Actor is who asks, as the service knows the caller. Empty means the KMS itself.
	Actor string
	// Reason is for people: at most 512 bytes of printable UTF-8.
	Reason string
	// Approval is the id of an approved request, where the rules of dual control
	// want one.
	Approval string
}

// maxReason is the longest reason, in bytes.
const maxReason = 512

func (c Change) validate() error {
	if len(c.Reason) > maxReason {
		return fmt.Errorf("%w: reason of %d bytes: want at most %d", ErrInvalid, len(c.Reason), maxReason)
	}
	if !utf8.ValidString(c.Reason) {
		return fmt.Errorf("%w: the reason is no UTF-8", ErrInvalid)
	}
	for _, r := range c.Reason {
		if !unicode.IsPrint(r) {
			return fmt.Errorf("%w: the reason has the unprintable character %U", ErrInvalid, r)
		}
	}
	return nil
}

// actor is who is written into histories.
func (c Change) actor() string { return cmp.Or(c.Actor, "kms") }

// operation is what the rules of dual control are asked about.
func (c Change) operation(action Action, resource string, params map[string]string) Operation {
	return Operation{
		Action: action, Resource: resource, Params: params,
		Actor: c.actor(), Reason: c.Reason, Approval: c.Approval,
	}
}
