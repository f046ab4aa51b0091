package keyceremony

import (
	"fmt"
	"slices"
	"strings"

	"chatelaine/kms"
	"chatelaine/kms/approval"
)

// Witness is somebody who was there, and signs.
type Witness struct {
	// Name is also that of the file with the signature: 1 to 63 of a-z, A-Z, 0-9, '-',
	// '_', '.', '@', the first a letter or digit.
	Name string `json:"name"`
	// Key is the public key, as approval.Key's String writes it.
	Key string `json:"key"`
}

// NewWitness takes a public key in any form that approval.ParseKey reads. ErrInvalid.
func NewWitness(name, key string) (Witness, error) {
	k, err := approval.ParseKey(key)
	if err == nil {
		err = checkWitnessName(name)
	}
	if err != nil {
		return Witness{}, fmt.Errorf("keyceremony: witness %q: %w", name, err)
	}
	return Witness{Name: name, Key: k.String()}, nil
}

// Fingerprint is SHA256:... as ssh-keygen -l prints it, or "" when Key is none.
func (w Witness) Fingerprint() string {
	k, err := approval.ParseKey(w.Key)
	if err != nil {
		return ""
	}
	return k.Fingerprint()
}

func checkWitnessName(name string) error {
	const alnum = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
	if name == "" || len(name) > 63 || strings.Trim(name, alnum+"-_.@") != "" || !strings.Contains(alnum, name[:1]) {
		return fmt.Errorf("%w: a name has 1 to 63 of a-z, A-Z, 0-9, '-', '_', '.', '@', the first a letter or digit", kms.ErrInvalid)
	}
	return nil
}

// checkWitnesses wants at least one, and nobody twice: neither by name, in whatever
// case, since names become files, nor by key, since who has two names is one witness.
func checkWitnesses(all []Witness) error {
	if len(all) == 0 || len(all) > maxWitnesses {
		return fmt.Errorf("%w: %d witnesses: want 1 to %d", kms.ErrInvalid, len(all), maxWitnesses)
	}
	for i, w := range all {
		same, err := NewWitness(w.Name, w.Key)
		if err != nil {
			return err
		}
		if same != w {
			return fmt.Errorf("%w: the key of witness %q has another form than it must have", kms.ErrInvalid, w.Name)
		}
		for _, other := range all[:i] {
			if strings.EqualFold(other.Name, w.Name) {
				return fmt.Errorf("%w: the witness %q is named twice", kms.ErrInvalid, w.Name)
			}
			if sameKey(other, w) {
				return fmt.Errorf("%w: %q and %q have one key, so they are one witness", kms.ErrInvalid, other.Name, w.Name)
			}
		}
	}
	return nil
}

func sameKey(a, b Witness) bool { return a.Fingerprint() != "" && a.Fingerprint() == b.Fingerprint() }

// verify checks a signature of the witness.
func (w Witness) verify(message []byte, signature string) error {
	k, err := approval.ParseKey(w.Key)
	if err != nil {
		return err
	}
	return k.Verify(message, signature)
}

// Signer finds the witness who made a signature over the statement. ErrDenied when it
// is no witness's, or over another statement; ErrInvalid when it is no signature.
func (r *Record) Signer(signature string) (Witness, error) {
	statement := r.Statement()
	var first error
	for _, w := range r.Witnesses {
		err := w.verify(statement, signature)
		if err == nil {
			return w, nil
		}
		if first == nil {
			first = err
		}
	}
	return Witness{}, fmt.Errorf("keyceremony: finding whose signature it is: none of %s: %w", strings.Join(names(r.Witnesses), ", "), first)
}

func names(all []Witness) []string {
	var out []string
	for _, w := range all {
		out = append(out, w.Name)
	}
	return slices.Clip(out)
}
