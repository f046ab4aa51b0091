package sealed

import (
	"crypto/subtle"
	"fmt"
	"io"
)

// KeySize is the length of every key of the format, in bytes.
const KeySize = 32

const keyText = "sealed.Key(secret)"

// Key is a bucket key or a DEK: 32 bytes that do not print. The zero Key is no key, and every operation refuses it.
// Copies share the bytes, which never change, so a Key may be used concurrently.
type Key struct {
	// A closure, as fmt reads pointers in fields that are not exported: %s of a struct around a *[32]byte prints the bytes.
	// It also keeps == from compiling.
	secret func() *[KeySize]byte
}

// NewKey copies b, which must hold 32 bytes that are not all zero, or fails with ErrKey.
// The caller may then clear b.
func NewKey(b []byte) (Key, error) {
	if len(b) != KeySize {
		return Key{}, fmt.Errorf("%w: %d bytes", ErrKey, len(b))
	}
	p := [KeySize]byte(b)
	if p == [KeySize]byte{} {
		return Key{}, fmt.Errorf("%w: all zero", ErrKey)
	}
	return Key{secret: func() *[KeySize]byte { return &p }}, nil
}

// Use calls f with the bytes of k and returns its error. f must neither change nor keep them.
func (k Key) Use(f func(b []byte) error) error {
	b, err := k.bytes()
	if err != nil {
		return err
	}
	return f(b)
}

// IsZero tells whether k is no key.
func (k Key) IsZero() bool { return k.secret == nil }

// bytes fails with ErrKey if k is no key. They are not to be changed.
func (k Key) bytes() ([]byte, error) {
	if k.secret == nil {
		return nil, fmt.Errorf("%w: absent", ErrKey)
	}
	return k.secret()[:], nil
}

// Equal tells in constant time whether k and other are the same key. No key equals nothing.
func (k Key) Equal(other Key) bool {
	a, errA := k.bytes()
	b, errB := other.bytes()
	return errA == nil && errB == nil && subtle.ConstantTimeCompare(a, b) == 1
}

// String, Format, GoString and MarshalText name the type and never the key.
func (k Key) String() string { return keyText }

// Format implements fmt.Formatter for every verb.
func (k Key) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, keyText) }

// MarshalText implements encoding.TextMarshaler.
func (k Key) MarshalText() ([]byte, error) { return []byte(keyText), nil }
