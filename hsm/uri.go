package hsm

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"
)

// URI is a pkcs11: URI of RFC 7512, as far as it names a module, a token and an
// object. A PIN in the URI itself (pin-value) is refused: URIs are shown and logged.
type URI struct {
	Token      Selector
	Object     string // CKA_LABEL
	ID         string // CKA_ID, as bytes
	Type       string // "secret-key", "private", "public", ...
	ModulePath string // query attribute module-path
	PINSource  string // query attribute pin-source: a file
}

// field is one attribute of a URI: where it is kept, and whether it is of the query.
type field struct {
	name  string
	value *string
}

func (u *URI) path() []field {
	return []field{
		{"token", &u.Token.Label},
		{"manufacturer", &u.Token.Manufacturer},
		{"model", &u.Token.Model},
		{"serial", &u.Token.Serial},
		{"object", &u.Object},
		{"id", &u.ID},
		{"type", &u.Type},
	}
}

func (u *URI) query() []field {
	return []field{{"module-path", &u.ModulePath}, {"pin-source", &u.PINSource}}
}

const scheme = "pkcs11:"

// ParseURI reads a pkcs11: URI. Attributes that it does not know, and attributes
// that are given twice, are ErrInvalid: leaving one out could select another key.
func ParseURI(s string) (URI, error) {
	rest, ok := strings.CutPrefix(s, scheme)
	if !ok {
		return URI{}, fmt.Errorf("hsm: parsing PKCS#11 URI: %w: it does not begin with %q", ErrInvalid, scheme)
	}
	path, query, _ := strings.Cut(rest, "?")
	var u URI
	var slot string
	if err := assign(path, ";", append(u.path(), field{"slot-id", &slot})); err != nil {
		return URI{}, fmt.Errorf("hsm: parsing PKCS#11 URI: %w: %w", ErrInvalid, err)
	}
	if err := assign(query, "&", u.query()); err != nil {
		return URI{}, fmt.Errorf("hsm: parsing PKCS#11 URI: %w: %w", ErrInvalid, err)
	}
	if slot == "" {
		return u, nil
	}
	n, err := strconv.ParseUint(slot, 10, 32)
	if err != nil {
		return URI{}, fmt.Errorf("hsm: parsing PKCS#11 URI: %w: slot-id is no number", ErrInvalid)
	}
	number := uint(n)
	u.Token.Slot = &number
	return u, nil
}

// assign puts the attributes of a list into their fields.
func assign(list, separator string, fields []field) error {
	if list == "" {
		return nil
	}
	seen := map[string]bool{}
	for attribute := range strings.SplitSeq(list, separator) {
		name, encoded, ok := strings.Cut(attribute, "=")
		if !ok || seen[name] {
			return fmt.Errorf("attribute %q is given twice or without a value", name)
		}
		seen[name] = true
		target, err := pick(fields, name)
		if err != nil {
			return err
		}
		if *target, err = url.PathUnescape(encoded); err != nil {
			return fmt.Errorf("the value of attribute %q is not percent-encoded", name)
		}
	}
	return nil
}

func pick(fields []field, name string) (*string, error) {
	for _, f := range fields {
		if f.name == name {
			return f.value, nil
		}
	}
	if name == "pin-value" {
		return nil, fmt.Errorf("a PIN does not belong into a URI: use pin-source")
	}
	return nil, fmt.Errorf("attribute %q is not known here", name)
}

// String is the URI with its attributes in RFC 7512's order of examples.
func (u URI) String() string {
	path := collect(u.path())
	if u.Token.Slot != nil {
		path = append(path, "slot-id="+strconv.FormatUint(uint64(*u.Token.Slot), 10))
	}
	out := scheme + strings.Join(path, ";")
	if query := collect(u.query()); len(query) > 0 {
		out += "?" + strings.Join(query, "&")
	}
	return out
}

func collect(fields []field) []string {
	var out []string
	for _, f := range fields {
		if *f.value != "" {
			out = append(out, f.name+"="+percentEncode(*f.value))
		}
	}
	return out
}

// percentEncode leaves the unreserved characters of RFC 3986 as they are.
func percentEncode(s string) string {
	var b strings.Builder
	for i := range len(s) {
		c := s[i]
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("-._~", c) >= 0 {
			b.WriteByte(c)
			continue
		}
		fmt.Fprintf(&b, "%%%02X", c)
	}
	return b.String()
}
