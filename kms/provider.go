// Package kms is the key plane: it owns KEKs and their versions, bucket keys,
// buckets and access keys, and decides who gets which of them for how long.
//
// It knows secrets of 32 bytes and records about them. It refuses to know S3
// requests, object bytes, and how an HSM is spoken to: that is a Provider's.
package kms

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// Errors of the contract. Providers, the registry and the service wrap them and
// keep the cause: fmt.Errorf("%w: %w", ErrUnavailable, err).
var (
	// ErrNotFound: no KEK version, bucket key, bucket or access key of that name.
	ErrNotFound = errors.New("not found")
	// ErrExists: the name is taken.
	ErrExists = errors.New("already exists")
	// ErrAmbiguous: a name matches more than one key in the token.
	ErrAmbiguous = errors.New("more than one key has this name")
	// ErrCorrupt: what was to be unwrapped is not what was wrapped, by this key,
	// under this context. Trying again does not help.
	ErrCorrupt = errors.New("wrapped key does not open")
	// ErrDisabled: the key's state forbids this use (suspended, deactivated, destroyed).
	ErrDisabled = errors.New("key is disabled")
	// ErrDenied: the caller may not do this.
	ErrDenied = errors.New("not permitted")
	// ErrApproval: the rules of dual control want an approval that there is not. The
	// text says which, and how it is got.
	ErrApproval = errors.New("approval is needed")
	// ErrLease: the caller's lease is unknown or has run out; it must get another.
	ErrLease = errors.New("no valid lease")
	// ErrUnavailable: the HSM, Vault or the state's store does not answer. It may later.
	ErrUnavailable = errors.New("key service is unavailable")
	// ErrBusy: a bucket of this name was removed just now, and gateways may still use
	// its keys. It works later.
	ErrBusy = errors.New("a removal is not through yet")
	// ErrFull: the registry is so full that clients may add nothing to it. What is there
	// can be changed.
	ErrFull = errors.New("the registry is too full")
	// ErrPIN: the token refused the PIN. It is never tried again: tokens lock.
	ErrPIN = errors.New("the token refused the PIN")
	// ErrUnsafe: a key in the token lacks an attribute that it must have.
	ErrUnsafe = errors.New("key has unsafe attributes")
	// ErrClosed: the provider was closed.
	ErrClosed = errors.New("closed")
	// ErrNeeded: something would be lost with the key. The text counts what.
	ErrNeeded = errors.New("key is still needed")
	// ErrInvalid: the request itself is wrong (a bad name, an illegal transition).
	ErrInvalid = errors.New("invalid request")
)

// MaxSecret is the longest secret that Wrap takes, in bytes. RSA-OAEP with a
// 2048-bit key and SHA-256 carries 190, of which Bind takes 32.
const MaxSecret = 128

// KeyRef names one version of one KEK. Versions begin at 1 and only grow.
type KeyRef struct {
	Name    string `json:"name"`
	Version uint32 `json:"version"`
}

// String is the name under which people and tokens know the version: "main.v3".
func (r KeyRef) String() string { return fmt.Sprintf("%s.v%d", r.Name, r.Version) }

// KeyInfo is what a provider can say of a KEK version.
type KeyInfo struct {
	Ref       KeyRef
	Mechanism string    // profile that wraps under it: "aes-gcm", ...
	URI       string    // where it is: an RFC 7512 pkcs11: URI, or the provider's own form
	Created   time.Time // zero when the provider cannot say
}

// Binding says what a wrapped secret is for. It is authenticated, not secret:
// unwrapping under any other Binding fails.
type Binding struct {
	Purpose string // "bucket-key" or "access-key"
	Space   string // the bucket's space UUID; empty for an access key
	ID      string // bucket key id in hex, or access key id
}

// Bytes is the canonical form of the binding to one KEK version:
// "cho1/wrap" 00, then each field as a u32 big-endian length and its bytes.
func (b Binding) Bytes(ref KeyRef) []byte {
	out := append([]byte("cho1/wrap"), 0)
	for _, field := range []string{b.Purpose, ref.Name, fmt.Sprint(ref.Version), b.Space, b.ID} {
		out = binary.BigEndian.AppendUint32(out, uint32(len(field)))
		out = append(out, field...)
	}
	return out
}

// Bind prefixes a secret with the SHA-256 of its binding, so that also a
// mechanism without associated data (RSA-OAEP) notices a wrong one.
func Bind(ref KeyRef, b Binding, secret []byte) []byte {
	sum := sha256.Sum256(b.Bytes(ref))
	return append(sum[:], secret...)
}

// Unbind takes the prefix of Bind off again, or returns ErrCorrupt when it is
// another binding's. The comparison takes constant time.
func Unbind(ref KeyRef, b Binding, bound []byte) ([]byte, error) {
	sum := sha256.Sum256(b.Bytes(ref))
	if len(bound) < len(sum) || subtle.ConstantTimeCompare(bound[:len(sum)], sum[:]) != 1 {
		return nil, fmt.Errorf("%w: it is bound to another context", ErrCorrupt)
	}
	return bound[len(sum):], nil
}

// Provider wraps and unwraps small secrets under KEK versions that it holds and
// never gives away. Every provider passes kmstest, and kmstest is the contract.
//
// All methods may run concurrently. A cancelled or expired context ends the wait
// with the context's error, though a call already in a device may run on. After
// Close every method returns ErrClosed. A device that cannot be reached is
// ErrUnavailable; the provider mends itself, callers just try later.
type Provider interface {
	// Create makes a KEK version inside the provider, non-extractable, and reads
	// its attributes back. ErrExists when there is one already.
	Create(ctx context.Context, ref KeyRef) (KeyInfo, error)
	// Inspect finds a KEK version: ErrNotFound, ErrAmbiguous, ErrUnsafe.
	Inspect(ctx context.Context, ref KeyRef) (KeyInfo, error)
	// Destroy ends a KEK version for good, whatever its attributes: after nil it is
	// ErrNotFound here, also when the machine loses its power. ErrNotFound when there
	// is none, ErrAmbiguous when there are several, which all stay. After any other
	// error it may be there or not. Backups of the provider are not its business.
	Destroy(ctx context.Context, ref KeyRef) error
	// Wrap encrypts a secret of 1 to MaxSecret bytes. Wrapping the same secret
	// twice gives different bytes. The result names its mechanism by itself.
	Wrap(ctx context.Context, ref KeyRef, b Binding, secret []byte) ([]byte, error)
	// Unwrap decrypts what Wrap returned for the same ref and binding; anything
	// else is ErrCorrupt.
	Unwrap(ctx context.Context, ref KeyRef, b Binding, wrapped []byte) ([]byte, error)
	// Random returns n bytes (1 to 1024) of the provider's own random generator.
	Random(ctx context.Context, n int) ([]byte, error)
	// Check makes the smallest call that shows that the provider serves.
	Check(ctx context.Context) error
	// Close logs out and lets go. It waits for running calls to end.
	Close() error
}
