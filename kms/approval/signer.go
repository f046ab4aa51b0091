package approval

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"chatelaine/kms"
)

// Signer finds the person who made a signature over a message, as `ssh-keygen -Y sign
// -n chatelaine` makes it. ErrDenied when it is nobody's, or over another message;
// ErrInvalid when it is no signature.
func (r *Rules) Signer(message []byte, signature string) (Person, error) {
	p, err := r.signer(message, signature)
	if err != nil {
		return Person{}, fmt.Errorf("approval: checking a signature: %w", err)
	}
	return *p, nil
}

// signer finds the person who made a signature over a message: an armored SSH
// signature, or "ed25519:" and Base64. ErrDenied when it is nobody's, or over another
// message; ErrInvalid when it is no signature.
func (r *Rules) signer(message []byte, signature string) (*Person, error) {
	if encoded, ok := strings.CutPrefix(strings.TrimSpace(signature), rawPrefix); ok {
		for _, name := range slices.Sorted(maps.Keys(r.people)) {
			if slices.ContainsFunc(r.people[name].Keys, func(k Key) bool { return k.verifyRaw(message, encoded) }) {
				return r.people[name], nil
			}
		}
		return nil, fmt.Errorf("%w: the signature is not over this statement, or by nobody in the rules", kms.ErrDenied)
	}
	parsed, public, err := parseSSHSig([]byte(signature))
	if err != nil {
		return nil, err
	}
	if err := parsed.verify(public, message); err != nil {
		return nil, err
	}
	for _, p := range r.people {
		if slices.ContainsFunc(p.Keys, func(k Key) bool { return k.same(public) }) {
			return p, nil
		}
	}
	return nil, fmt.Errorf("%w: the key %s belongs to nobody in the rules", kms.ErrDenied, Key{public: public}.Fingerprint())
}
