package azurestore

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"chatelaine/backends"
)

const (
	// maxName is the most characters of a blob's name, and maxSegments the most parts of
	// it between slashes (Azure, "Naming and referencing containers, blobs, and metadata").
	maxName     = 1024
	maxSegments = 254
	// reserved begins the names of the driver's own blobs. No key's name begins with it,
	// and it sorts behind all of them.
	reserved = "~~"
	// digits are in the order of their bytes, as names must be.
	digits = "-0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz"
)

var errForeignName = errors.New("a name that no key has")

// gap is a run of ASCII characters that are not themselves in a name, between two that
// are. Each is written as lead, which sorts at the run's place, and one digit.
type gap struct {
	first, last rune
	lead        byte
}

// gaps are all runs but that at the end, whose lead is '~'. A '-', a digit, a letter and
// a '/' stand for themselves.
func gaps() []gap {
	return []gap{{0, ',', '!'}, {'.', '.', '.'}, {':', '@', '='}, {'[', '`', '^'}}
}

// tail is a run of code points behind a lead: a first digit that says which run it is,
// and further digits. In names the lead is '~', and they go from '{' up.
type tail struct {
	first, last rune
	digit       int // the first digit of the run's first code point
	more        int // digits that follow
}

func tails() []tail {
	return []tail{{'{', 0x7f, 0, 0}, {0x80, 0x7ff, 5, 1}, {0x800, 0xffff, 35, 2}, {0x10000, utf8.MaxRune, 51, 3}}
}

// encodeName is the blob's name of a key. It keeps order and prefixes: names sort as
// the bytes of their keys do, and a key's name begins with the names of its prefixes.
func encodeName(key string) string {
	var b strings.Builder
	for _, r := range key {
		encodeRune(&b, r)
	}
	return b.String()
}

func encodeRune(b *strings.Builder, r rune) {
	for _, g := range gaps() {
		if g.first <= r && r <= g.last {
			b.WriteByte(g.lead)
			b.WriteByte(digits[r-g.first])
			return
		}
	}
	if r < '{' {
		b.WriteRune(r)
		return
	}
	b.WriteByte('~')
	writeDigits(b, tails(), r)
}

// writeDigits writes the code of a character of one of runs.
func writeDigits(b *strings.Builder, runs []tail, r rune) {
	for _, t := range runs {
		if r < t.first || r > t.last {
			continue
		}
		n := int(r-t.first) + t.digit<<(6*t.more)
		for i := t.more; i >= 0; i-- {
			b.WriteByte(digits[n>>(6*i)&63])
		}
		return
	}
}

// decodeName is the key that a blob's name stands for, or errForeignName.
func decodeName(name string) (string, error) {
	var b strings.Builder
	for rest := name; rest != ""; {
		r, n := decodeRune(rest)
		if n == 0 {
			return "", fmt.Errorf("%w: %.80q", errForeignName, name)
		}
		b.WriteRune(r)
		rest = rest[n:]
	}
	key := b.String()
	if encodeName(key) != name { // there is one name for a key, and no other
		return "", fmt.Errorf("%w: %.80q", errForeignName, name)
	}
	return key, nil
}

// decodeRune reads the first character of name, of n bytes; none where n is 0.
func decodeRune(name string) (r rune, n int) {
	lead := name[0]
	if lead == '~' {
		if r, n = readDigits(name[1:], tails()); n > 0 {
			n++
		}
		return r, n
	}
	for _, g := range gaps() {
		if lead == g.lead {
			if len(name) < 2 {
				return 0, 0
			}
			return g.first + rune(strings.IndexByte(digits, name[1])), 2
		}
	}
	return rune(lead), 1
}

// readDigits reads the code of a character of one of runs, of n bytes; none where n is 0.
func readDigits(text string, runs []tail) (r rune, n int) {
	for _, t := range runs {
		code, ok := readNumber(text, 1+t.more)
		if r := t.first + rune(code-t.digit<<(6*t.more)); ok && t.first <= r && r <= t.last {
			return r, 1 + t.more
		}
	}
	return 0, 0
}

// readNumber reads n digits.
func readNumber(text string, n int) (number int, ok bool) {
	if len(text) < n {
		return 0, false
	}
	for i := range n {
		d := strings.IndexByte(digits, text[i])
		if d < 0 {
			return 0, false
		}
		number = number<<6 | d
	}
	return number, true
}

// encodePrefix is the longest prefix of names that all keys with this prefix share. Those
// that have it too and are not meant must be left out: the prefix may end within a
// character.
func encodePrefix(prefix string) string {
	valid := prefix
	for i, r := range prefix {
		if r == utf8.RuneError && !strings.HasPrefix(prefix[i:], string(utf8.RuneError)) {
			valid = prefix[:i]
			break
		}
	}
	return encodeName(valid)
}

// blobName is the name of a key's blob, or ErrInvalidName.
func blobName(key string) (string, error) {
	if err := backends.CheckKey(key); err != nil {
		return "", err
	}
	name := encodeName(key)
	if len(name) > maxName || strings.Count(name, "/") >= maxSegments {
		return "", fmt.Errorf("%w: %.80q is %d characters and %d segments on Azure, at most %d and %d",
			backends.ErrInvalidName, key, len(name), strings.Count(name, "/")+1, maxName, maxSegments)
	}
	return name, nil
}

// checkContainer is CheckBucket with Azure's rules, which leave less: no dots, and no
// two hyphens in a row.
func checkContainer(bucket string) error {
	if err := backends.CheckBucket(bucket); err != nil {
		return err
	}
	if strings.Contains(bucket, ".") || strings.Contains(bucket, "--") {
		return fmt.Errorf("%w: bucket %q: Azure takes neither dots nor two hyphens in a row", backends.ErrInvalidName, bucket)
	}
	return nil
}

// checkID is for calls about an object. There are no versions.
func checkID(id backends.ObjectID) (string, error) {
	if err := checkContainer(id.Bucket); err != nil {
		return "", err
	}
	if id.Version != "" && id.Version != backends.NullVersion {
		return "", backends.ErrVersionNotFound
	}
	return blobName(id.Key)
}
