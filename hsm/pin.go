package hsm

import (
	"fmt"
	"io"
)

// PIN holds a PIN and does not print it: not by %v, not by %#v, not from inside
// another struct, not as JSON or YAML. The zero PIN is unset.
type PIN struct {
	// A function, because fmt prints the fields of nested structs by reflection
	// without asking their Format method, and of a function it prints an address.
	reveal func() string
}

// NewPIN hides a PIN. An empty string gives the zero PIN.
func NewPIN(digits string) PIN {
	if digits == "" {
		return PIN{}
	}
	return PIN{reveal: func() string { return digits }}
}

// Use calls f with the PIN, or with "" for the zero PIN. f must not keep it.
func (p PIN) Use(f func(digits string) error) error {
	if p.reveal == nil {
		return f("")
	}
	return f(p.reveal())
}

// IsZero tells whether no PIN was set.
func (p PIN) IsZero() bool { return p.reveal == nil }

// String names the type only.
func (p PIN) String() string { return "hsm.PIN(hidden)" }

// Format prints the type's name for every verb.
func (p PIN) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, p.String()) }

// MarshalText prints the type's name, for encoders that would look inside.
func (p PIN) MarshalText() ([]byte, error) { return []byte(p.String()), nil }
