package backends

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"unicode/utf8"
)

// Limits of S3 that a store which has none of its own keeps to, so that what works
// on one backend works on all.
const (
	MaxKey      = 1024    // bytes of a key
	MaxMetadata = 2048    // bytes of metadata, names and values together
	MinPart     = 5 << 20 // bytes of a part other than the last
	MaxPart     = 5 << 30 // bytes of a part
	MaxParts    = 10000   // number of parts, and the highest part number
	MaxPage     = 1000    // rows of a page of any listing
	MaxTags     = 10      // tags of an object
)

// CheckBucket says with ErrInvalidName what S3 has against a bucket name (user
// guide, "General purpose bucket naming rules"): 3 to 63 of a-z, 0-9, '-' and '.',
// no '.' or '-' at either end, no "..", and not an IPv4 address. Such a name is a
// safe file name and host name.
func CheckBucket(name string) error {
	if len(name) < 3 || len(name) > 63 || strings.Contains(name, "..") ||
		strings.ContainsFunc(name, func(r rune) bool { return !isAlnum(r) && r != '-' && r != '.' }) ||
		!isAlnum(rune(name[0])) || !isAlnum(rune(name[len(name)-1])) {
		return fmt.Errorf("%w: bucket %q", ErrInvalidName, name)
	}
	if ip, err := netip.ParseAddr(name); err == nil && ip.Is4() {
		return fmt.Errorf("%w: bucket %q is an address", ErrInvalidName, name)
	}
	return nil
}

func isAlnum(r rune) bool { return 'a' <= r && r <= 'z' || '0' <= r && r <= '9' }

// CheckKey says with ErrInvalidName what keeps key from being one.
func CheckKey(key string) error {
	if key == "" || len(key) > MaxKey || !utf8.ValidString(key) {
		return fmt.Errorf("%w: a key is 1 to %d bytes of UTF-8, not these %d: %.80q", ErrInvalidName, MaxKey, len(key), key)
	}
	return nil
}

// Check says what keeps a from being stored: ErrTooLarge where the metadata is
// above MaxMetadata, ErrInvalidName where a name or value could not be a header.
func (a Attributes) Check() error {
	size := 0
	for name, value := range a.Metadata {
		size += len(name) + len(value)
		if name == "" || strings.ContainsFunc(name, notInName) || strings.ContainsFunc(value, notPrintable) {
			return fmt.Errorf("%w: metadata %q", ErrInvalidName, name)
		}
	}
	if size > MaxMetadata {
		return fmt.Errorf("%w: %d bytes of metadata, at most %d", ErrTooLarge, size, MaxMetadata)
	}
	return errors.Join(a.Tags.Check(), a.Lock.Check())
}

// Check says what S3 has against tags (user guide, "Categorizing your objects using
// tags"): ErrTooLarge for more than MaxTags, a name above 128 or a value above 256
// characters, ErrInvalidName for an empty name or what is not UTF-8.
func (t Tags) Check() error {
	if len(t) > MaxTags {
		return fmt.Errorf("%w: %d tags, at most %d", ErrTooLarge, len(t), MaxTags)
	}
	for name, value := range t {
		switch {
		case name == "", !utf8.ValidString(name), !utf8.ValidString(value):
			return fmt.Errorf("%w: tag %q", ErrInvalidName, name)
		case utf8.RuneCountInString(name) > 128, utf8.RuneCountInString(value) > 256:
			return fmt.Errorf("%w: tag %.20q", ErrTooLarge, name)
		}
	}
	return nil
}

func notInName(r rune) bool    { return !isAlnum(r) && !strings.ContainsRune("!#$&'*+-.^_`|~", r) }
func notPrintable(r rune) bool { return r < ' ' || r > '~' }
