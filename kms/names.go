package kms

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/google/uuid"
)

// checkName refuses what could not be a label in a token, or a part of a path in
// the registry.
func checkName(what, name string) error {
	if len(name) < 1 || len(name) > 63 || !startsAlnum(name) || !onlyOf(name, isNameByte) {
		return fmt.Errorf("%w: %s %q: want 1 to 63 of a-z, A-Z, 0-9, '-', '_', '.', the first a letter or digit", ErrInvalid, what, name)
	}
	return nil
}

// checkStoreName takes any bucket name a provider may have, older ones included:
// 1 to 255 of the bytes of checkName.
func checkStoreName(name string) error {
	if len(name) < 1 || len(name) > 255 || !onlyOf(name, isNameByte) {
		return fmt.Errorf("%w: name in the store %q", ErrInvalid, name)
	}
	return nil
}

// checkPrincipal takes 1 to 128 visible ASCII bytes without a slash.
func checkPrincipal(name string) error {
	visible := func(c byte) bool { return c > ' ' && c < 0x7f && c != '/' }
	if len(name) < 1 || len(name) > 128 || !onlyOf(name, visible) {
		return fmt.Errorf("%w: principal %q: want 1 to 128 visible ASCII characters, no '/'", ErrInvalid, name)
	}
	return nil
}

// checkAccessKeyID takes 3 to 128 of the bytes of checkName.
func checkAccessKeyID(id string) error {
	if len(id) < 3 || len(id) > 128 || !onlyOf(id, isNameByte) {
		return fmt.Errorf("%w: access key id %q: want 3 to 128 of A-Z, a-z, 0-9, '-', '_', '.'", ErrInvalid, id)
	}
	return nil
}

// checkSecret takes 8 to MaxSecret bytes. The text says nothing of them.
func checkSecret(s Secret) error {
	if s.Len() < 8 || s.Len() > MaxSecret {
		return fmt.Errorf("%w: secret of %d bytes: want 8 to %d", ErrInvalid, s.Len(), MaxSecret)
	}
	return nil
}

// checkSpace takes a UUID in its one canonical form.
func checkSpace(space string) error {
	parsed, err := uuid.Parse(space)
	if err != nil || parsed.String() != space {
		return fmt.Errorf("%w: space %q is no UUID", ErrInvalid, space)
	}
	return nil
}

// checkScope takes the parts of a SigV4 credential scope but the date.
func checkScope(what, value string) error {
	if len(value) < 1 || len(value) > 64 || !onlyOf(value, isNameByte) {
		return fmt.Errorf("%w: %s %q of a credential scope", ErrDenied, what, value)
	}
	return nil
}

func isNameByte(c byte) bool { return isAlnum(c) || c == '-' || c == '_' || c == '.' }

func isAlnum(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}

func startsAlnum(s string) bool { return s != "" && isAlnum(s[0]) }

func onlyOf(s string, ok func(byte) bool) bool {
	for i := range len(s) {
		if !ok(s[i]) {
			return false
		}
	}
	return true
}

// checkNewKEK refuses, beside what checkName does, names that look like a version of
// another KEK: people would mistake one for the other.
func checkNewKEK(name string) error {
	if err := checkName("KEK", name); err != nil {
		return err
	}
	if i := strings.LastIndex(name, ".v"); i >= 0 && i+2 < len(name) && onlyOf(name[i+2:], isDigit) {
		return fmt.Errorf("%w: KEK %q: it would look like a version of %q", ErrInvalid, name, name[:i])
	}
	return nil
}

// ParseKeyRef reads what a KeyRef's String writes, "main.v3"; "main" is its version 1.
// ErrInvalid when no KEK could be called so.
func ParseKeyRef(text string) (KeyRef, error) {
	ref := KeyRef{Name: text, Version: 1}
	if i := strings.LastIndex(text, ".v"); i >= 0 && i+2 < len(text) && onlyOf(text[i+2:], isDigit) {
		n, err := strconv.ParseUint(text[i+2:], 10, 32)
		ref = KeyRef{Name: text[:i], Version: uint32(n)}
		if err != nil || n == 0 || ref.String() != text {
			return KeyRef{}, fmt.Errorf("kms: reading a KEK's version: %w: %q: want NAME or NAME.vN, with N from 1", ErrInvalid, text)
		}
	}
	if err := checkNewKEK(ref.Name); err != nil {
		return KeyRef{}, fmt.Errorf("kms: reading a KEK's version: %w", err)
	}
	return ref, nil
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }
