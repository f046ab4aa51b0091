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
	_ [0]func() // not comparable: == would compare addresses
	p *[KeySize]byte
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
	return Key{p: &p}, nil
}

// Use calls f with the bytes of k and returns its error. f must neither change nor keep them.
func (k Key) Use(f func(b []byte) error) error {
	if k.p == nil {
		return fmt.Errorf("%w: absent", ErrKey)
	}
	return f(k.p[:])
}

// IsZero tells whether k is no key.
func (k Key) IsZero() bool { return k.p == nil }

// Equal tells in constant time whether k and other are the same key. No key equals nothing.
func (k Key) Equal(other Key) bool {
	return k.p != nil && other.p != nil && subtle.ConstantTimeCompare(k.p[:], other.p[:]) == 1
}

// String, Format, GoString and MarshalText name the type and never the key.
func (k Key) String() string { return keyText }

// Format implements fmt.Formatter for every verb.
func (k Key) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, keyText) }

// MarshalText implements encoding.TextMarshaler.
func (k Key) MarshalText() ([]byte, error) { return []byte(keyText), nil }
