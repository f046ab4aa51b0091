package approval

import (
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"chatelaine/kms"
)

// Verdict is what a signature says about a request.
type Verdict string

// The verdicts.
const (
	Ask     Verdict = "ask" // "it is I who asks for this"
	Approve Verdict = "approve"
	Reject  Verdict = "reject"
)

// Request is what somebody asks for. All of it is signed.
type Request struct {
	Instance string // of the registry: a signature is worth nothing at another installation
	ID       string // 16 random bytes in hex
	Rules    string // version of the rules under which it is made: "<number>:<SHA-256>"
	// Operation has no Approval here.
	Operation kms.Operation
	Requester string // the person who asks
	// Created and Expires are UTC, in whole seconds. The quorum must be there before
	// Expires.
	Created, Expires time.Time
}

const (
	requestDomain = "chatelaine dual control, version 1"
	maxStatement  = 16 << 10 // bytes
	maxParams     = 32
	maxField      = 1 << 10 // bytes
)

// Statement is what is signed: text, so that people can read it, with exactly one
// form for each request and verdict. Values are quoted as Go quotes them, in ASCII, so
// that none can pass for another line, nor look like what it is not.
func (r Request) Statement(v Verdict) []byte {
	var b strings.Builder
	line := func(words ...string) {
		b.WriteString(words[0])
		for _, word := range words[1:] {
			b.WriteByte(' ')
			b.WriteString(strconv.QuoteToASCII(word))
		}
		b.WriteByte('\n')
	}
	line(requestDomain)
	line("verdict", string(v))
	line("instance", r.Instance)
	line("request", r.ID)
	line("rules", r.Rules)
	line("action", string(r.Operation.Action))
	line("resource", r.Operation.Resource)
	for _, name := range slices.Sorted(maps.Keys(r.Operation.Params)) {
		line("param", name, r.Operation.Params[name])
	}
	line("actor", r.Operation.Actor)
	line("requester", r.Requester)
	line("reason", r.Operation.Reason)
	line("created", r.Created.UTC().Format(time.RFC3339))
	line("expires", r.Expires.UTC().Format(time.RFC3339))
	return []byte(b.String())
}

// ParseStatement reads what Statement writes, and nothing else: what it returns would
// be written to the same bytes again.
func ParseStatement(text []byte) (Request, Verdict, error) {
	r, v, err := parseStatement(text)
	if err == nil && string(r.Statement(v)) != string(text) {
		err = fmt.Errorf("%w: it is not in the one form that it has", kms.ErrInvalid)
	}
	if err != nil {
		return Request{}, "", fmt.Errorf("approval: reading a statement: %w", err)
	}
	return r, v, nil
}

func parseStatement(text []byte) (Request, Verdict, error) {
	var r Request
	if len(text) > maxStatement {
		return r, "", fmt.Errorf("%w: %d bytes", kms.ErrInvalid, len(text))
	}
	domain, rest, _ := strings.Cut(string(text), "\n")
	if domain != requestDomain {
		return r, "", fmt.Errorf("%w: it does not begin with %q", kms.ErrInvalid, requestDomain)
	}
	var verdict, action, created, expires string
	fields := map[string]*string{
		"verdict": &verdict, "instance": &r.Instance, "request": &r.ID, "rules": &r.Rules, "action": &action,
		"resource": &r.Operation.Resource, "actor": &r.Operation.Actor, "requester": &r.Requester,
		"reason": &r.Operation.Reason, "created": &created, "expires": &expires,
	}
	for line := range strings.Lines(rest) {
		if err := r.readLine(line, fields); err != nil {
			return r, "", err
		}
	}
	r.Operation.Action = kms.Action(action)
	var err, err2 error
	r.Created, err = time.Parse(time.RFC3339, created)
	r.Expires, err2 = time.Parse(time.RFC3339, expires)
	if err != nil || err2 != nil {
		return r, "", fmt.Errorf("%w: times %q and %q", kms.ErrInvalid, created, expires)
	}
	return r, Verdict(verdict), r.validate(Verdict(verdict))
}

func (r *Request) readLine(line string, fields map[string]*string) error {
	words, err := unquote(line)
	if err != nil {
		return err
	}
	field := fields[words[0]]
	switch {
	case field != nil && len(words) == 2:
		*field = words[1]
	case words[0] == "param" && len(words) == 3:
		if r.Operation.Params == nil {
			r.Operation.Params = make(map[string]string)
		}
		r.Operation.Params[words[1]] = words[2]
	default:
		return fmt.Errorf("%w: line %q", kms.ErrInvalid, abbreviated(line))
	}
	return nil
}

// unquote splits a line into its word and its quoted values.
func unquote(line string) ([]string, error) {
	word, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
	words := []string{word}
	for rest != "" {
		quoted, err := strconv.QuotedPrefix(rest)
		if err != nil {
			return nil, fmt.Errorf("%w: line %q", kms.ErrInvalid, abbreviated(line))
		}
		value, err := strconv.Unquote(quoted)
		if err != nil {
			return nil, fmt.Errorf("%w: line %q", kms.ErrInvalid, abbreviated(line))
		}
		words = append(words, value)
		rest = strings.TrimPrefix(rest[len(quoted):], " ")
	}
	return words, nil
}

// validate refuses what could not be asked for.
func (r Request) validate(v Verdict) error {
	switch {
	case v != Ask && v != Approve && v != Reject:
		return fmt.Errorf("%w: verdict %q", kms.ErrInvalid, v)
	case !isID(r.ID) || !isID(r.Instance):
		return fmt.Errorf("%w: ids %q and %q: want 32 hex digits each", kms.ErrInvalid, r.ID, r.Instance)
	case !slices.Contains(Actions(), r.Operation.Action):
		return fmt.Errorf("%w: action %q", kms.ErrInvalid, r.Operation.Action)
	case r.Operation.Approval != "" || len(r.Operation.Params) > maxParams:
		return fmt.Errorf("%w: the operation has an approval, or too many params", kms.ErrInvalid)
	case !r.Created.Before(r.Expires):
		return fmt.Errorf("%w: it ends before it begins", kms.ErrInvalid)
	}
	o := r.Operation
	texts := []string{r.Rules, r.Requester, o.Resource, o.Actor, o.Reason}
	for name, value := range o.Params {
		texts = append(texts, name, value)
	}
	if i := slices.IndexFunc(texts, func(s string) bool { return len(s) > maxField || !utf8.ValidString(s) }); i >= 0 {
		return fmt.Errorf("%w: a text of over %d bytes, or not in UTF-8: %q", kms.ErrInvalid, maxField, abbreviated(texts[i]))
	}
	return nil
}

func isID(s string) bool {
	_, err := hex.DecodeString(s)
	return err == nil && len(s) == 32 && strings.ToLower(s) == s
}

// Differs names the first part in which two operations are not the same, or "".
func Differs(a, b kms.Operation) string {
	switch {
	case a.Action != b.Action:
		return "action"
	case a.Resource != b.Resource:
		return "resource"
	case a.Actor != b.Actor:
		return "actor"
	case a.Reason != b.Reason:
		return "reason"
	}
	names := maps.Clone(a.Params)
	if names == nil {
		names = make(map[string]string)
	}
	maps.Copy(names, b.Params)
	for _, name := range slices.Sorted(maps.Keys(names)) {
		one, has := a.Params[name]
		other, had := b.Params[name]
		if has != had || one != other {
			return "param " + strconv.Quote(name)
		}
	}
	return ""
}
