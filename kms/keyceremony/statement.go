package keyceremony

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// statementDomain begins what is signed, so that no signature over anything else of
// ours passes for one over a ceremony, nor the other way.
const statementDomain = "chatelaine key ceremony, version 1\n" +
	"Who signs this says: I was there, and these keys were made in this token as it is written here.\n"

// Statement is what witnesses sign: a text with exactly one form for each record, for
// people to read. Values are quoted as Go quotes them, in ASCII, so that none can pass
// for another line, nor look like what it is not.
func (r *Record) Statement() []byte {
	s := &statement{}
	s.text.WriteString(statementDomain)
	s.line("ceremony", r.ID)
	s.line("tool", r.Tool)
	s.line("reason", r.Reason)
	s.line("started", r.Started.UTC().Format(time.RFC3339))
	s.line("ended", r.Ended.UTC().Format(time.RFC3339))
	s.module(r.Module)
	s.token(r.Token)
	for _, k := range r.Keys {
		s.key(k)
	}
	for _, w := range r.Witnesses {
		s.line("witness", w.Name, w.Fingerprint(), w.Key)
	}
	return s.text.Bytes()
}

type statement struct{ text bytes.Buffer }

// line writes a word and its values.
func (s *statement) line(word string, values ...string) {
	s.text.WriteString(word)
	for _, v := range values {
		s.text.WriteByte(' ')
		s.text.WriteString(strconv.QuoteToASCII(v))
	}
	s.text.WriteByte('\n')
}

func (s *statement) module(m Module) {
	s.line("module", m.Path)
	s.line("  file", m.File)
	s.line("  sha256", m.SHA256)
	s.line("  manufacturer", m.Manufacturer)
	s.line("  description", m.Description)
	s.line("  version", m.Version)
	s.line("  cryptoki", m.Cryptoki)
}

func (s *statement) token(t Token) {
	s.line("token", t.Label)
	s.line("  serial", t.Serial)
	s.line("  manufacturer", t.Manufacturer)
	s.line("  model", t.Model)
	s.line("  firmware", t.Firmware)
	s.line("  slot", strconv.FormatUint(uint64(t.Slot), 10))
}

func (s *statement) key(k Key) {
	s.line("key", k.KEK)
	s.line("  label", k.Label)
	s.line("  mechanism", k.Mechanism)
	s.line("  uri", k.URI)
	s.line("  iv", k.Dialect)
	for _, o := range k.Objects {
		s.line("  object", o.Label)
		s.line("    is", o.Class, o.Type, strconv.FormatUint(uint64(o.Bits), 10))
		for _, a := range o.Attributes {
			s.line("    attribute", a.Name, a.Value)
		}
		for _, v := range o.CheckValues {
			s.line("    check-value", v.Method, v.Value)
		}
		s.line("    public-key-sha256", o.PublicKey)
	}
	for _, t := range k.Tests {
		s.line("  test", t)
	}
}

// difference names the first line in which two texts differ.
func difference(nameA string, a []byte, nameB string, b []byte) string {
	linesA, linesB := strings.SplitAfter(string(a), "\n"), strings.SplitAfter(string(b), "\n")
	for i := range max(len(linesA), len(linesB)) {
		lineA, lineB := at(linesA, i), at(linesB, i)
		switch {
		case lineA == lineB:
		case strings.TrimSpace(lineA) == strings.TrimSpace(lineB):
			return fmt.Sprintf("line %d of %s and of %s differs in spaces or in its end alone", i+1, nameA, nameB)
		default:
			return fmt.Sprintf("in line %d %s says %s, and %s says %s", i+1, nameA, brief(lineA), nameB, brief(lineB))
		}
	}
	return "they are the same"
}

func at(lines []string, i int) string {
	if i < len(lines) {
		return lines[i]
	}
	return ""
}

// brief shows a line of a text that anybody may have written.
func brief(line string) string {
	const most = 200
	line = strings.TrimSpace(line)
	if line == "" {
		return "nothing"
	}
	return "`" + strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, line[:min(len(line), most)]) + "`"
}
