package kms

// KeyState is the state of a KEK version by NIST SP 800-57 part 1 rev. 5,
// section 7. There, "suspended" is what the kill switch makes of a key.
type KeyState string

// The states. Their texts are in the registry: they never change.
const (
	// PreActive: it is being made; it wraps and unwraps nothing.
	PreActive KeyState = "pre-active"
	// Active: it wraps and unwraps.
	Active KeyState = "active"
	// Suspended: blocked for now; it does nothing.
	Suspended KeyState = "suspended"
	// Deactivated: it unwraps only, as a newer version wraps.
	Deactivated KeyState = "deactivated"
	// Compromised: it unwraps only, and what it wrapped should be re-encrypted.
	Compromised KeyState = "compromised"
	// Destroyed: it is gone for good; the record says that it was.
	Destroyed KeyState = "destroyed"
)

// successors lists the legal changes. A blocked key goes back to what it was.
func (s KeyState) successors() []KeyState {
	switch s {
	case PreActive:
		return []KeyState{Active, Compromised, Destroyed}
	case Active:
		return []KeyState{Suspended, Deactivated, Compromised}
	case Suspended:
		return []KeyState{Active, Deactivated, Compromised}
	case Deactivated:
		return []KeyState{Suspended, Compromised, Destroyed}
	case Compromised:
		return []KeyState{Suspended, Destroyed}
	default:
		return nil
	}
}

// CanWrap says whether new secrets may be wrapped under a key of this state.
func (s KeyState) CanWrap() bool { return s == Active }

// CanUnwrap says whether wrapped secrets may be unwrapped.
func (s KeyState) CanUnwrap() bool { return s == Active || s == Deactivated || s == Compromised }

// needed says whether the provider must hold the key, or else data is lost.
func (s KeyState) needed() bool { return s != PreActive && s != Destroyed }
