package filestore

import (
	"strings"
)

// A key becomes a path by its segments, which "/" divides. A segment before a "/"
// is a folder, the last one is a file, and a segment that is too long for one name
// is cut into pieces, all but the last of them folders. So a folder "x" of a key
// x/y and an object x have different names, and the order of the keys is the order
// of the decoded texts at each level (text holds the "/" of a folder).
//
//	file     report.pdf     key …report.pdf       %_ where the segment is empty
//	folder   photos%        key …photos/…
//	piece    aaa…aaa%+      key …aaa…aaa…         238 to 240 bytes before %+
//
// In a name, control characters, "%" and a leading "." are written %XX. No other
// "%" stands before two hex digits, so names and keys match one to one. Names with
// a leading "." are not ours.
type kind byte

const (
	file kind = iota
	folder
	piece
)

const (
	cutAt  = 238 // a segment is cut behind the byte that makes its escaped form this long
	hexes  = "0123456789ABCDEF"
	noText = "%_"
)

// entry is one name of a folder. Text is its part of the key: with a "/" at the
// end for a folder.
type entry struct {
	text string
	kind kind
}

func (e entry) name() string {
	switch e.kind {
	case folder:
		return escape(strings.TrimSuffix(e.text, "/")) + "%"
	case piece:
		return escape(e.text) + "%+"
	}
	if e.text == "" {
		return noText
	}
	return escape(e.text)
}

// keyPath is the path of a key below a bucket's objects folder.
func keyPath(key string) string {
	var b strings.Builder
	b.Grow(len(key) + 16)
	for {
		e, rest, more := nextEntry(key)
		b.WriteString(e.name())
		if !more {
			return b.String()
		}
		b.WriteByte('/')
		key = rest
	}
}

// nextEntry splits the entry off that stands for the beginning of key.
func nextEntry(key string) (e entry, rest string, more bool) {
	length := 0
	for i := range len(key) {
		if key[i] == '/' {
			return entry{key[:i+1], folder}, key[i+1:], true
		}
		if length++; escapes(key, i) {
			length += 2
		}
		if length >= cutAt {
			return entry{key[:i+1], piece}, key[i+1:], true
		}
	}
	return entry{key, file}, "", false
}

func escapes(text string, i int) bool {
	c := text[i]
	return c < ' ' || c == 0x7f || c == '%' || c == '.' && i == 0
}

func escape(text string) string {
	i := 0
	for i < len(text) && !escapes(text, i) {
		i++
	}
	if i == len(text) {
		return text
	}
	b := make([]byte, 0, len(text)+16)
	for i := range len(text) {
		if escapes(text, i) {
			b = append(b, '%', hexes[text[i]>>4], hexes[text[i]&15])
		} else {
			b = append(b, text[i])
		}
	}
	return string(b)
}

// parseName is the reverse of entry.name; false means that name is not ours.
func parseName(name string) (entry, bool) {
	if !strings.Contains(name, "%") {
		return entry{name, file}, name != "" && name[0] != '.'
	}
	e := entry{}
	switch {
	case name == noText:
		return e, true
	case strings.HasSuffix(name, "%+"):
		e.kind, name = piece, name[:len(name)-2]
	case strings.HasSuffix(name, "%"):
		e.kind, name = folder, name[:len(name)-1]
	}
	text, ok := unescape(name)
	if e.text = text; e.kind == folder {
		e.text += "/"
	}
	return e, ok && (name != "" || e.kind == folder)
}

// unescape takes exactly what escape makes.
func unescape(name string) (string, bool) {
	b := make([]byte, 0, len(name))
	for i := 0; i < len(name); i++ {
		if name[i] != '%' {
			b = append(b, name[i])
			continue
		}
		if i+2 >= len(name) {
			return "", false
		}
		hi, lo := strings.IndexByte(hexes, name[i+1]), strings.IndexByte(hexes, name[i+2])
		if hi < 0 || lo < 0 {
			return "", false
		}
		b, i = append(b, byte(hi<<4|lo)), i+2
	}
	text := string(b)
	return text, escape(text) == name
}
