package kms

import (
	"crypto/subtle"
	"fmt"
)

// Secret holds bytes that must not be printed: no verb of fmt shows them, also
// when the Secret is a field of something else, and it refuses to be marshalled.
// The zero Secret is empty. It may be used concurrently.
//
// The bytes lie in a closure, because fmt prints an unexported field without asking
// its Format method, and for some verbs follows pointers in it.
type Secret struct{ bytes func() []byte }

// NewSecret takes the bytes over; the caller must not use them any more.
func NewSecret(b []byte) Secret { return Secret{bytes: func() []byte { return b }} }

// Use calls f with the bytes, which f must neither keep nor change.
func (s Secret) Use(f func(b []byte)) {
	if s.bytes == nil {
		f(nil)
		return
	}
	f(s.bytes())
}

// Len is the number of bytes.
func (s Secret) Len() int {
	n := 0
	s.Use(func(b []byte) { n = len(b) })
	return n
}

// Equal compares in time that depends on the lengths alone.
func (s Secret) Equal(other Secret) bool {
	equal := false
	s.Use(func(a []byte) {
		other.Use(func(b []byte) { equal = subtle.ConstantTimeCompare(a, b) == 1 })
	})
	return equal
}

// Format prints the type's name whatever the verb.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte("kms.Secret(hidden)")) }

// MarshalText refuses.
func (s Secret) MarshalText() ([]byte, error) {
	return nil, fmt.Errorf("kms: marshalling a secret: %w", ErrDenied)
}
