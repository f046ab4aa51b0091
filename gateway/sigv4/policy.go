package sigv4

import (
	"context"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Errors of VerifyForm and of policies. They come in an *Error.
var (
	// ErrField: a field of the signature is missing. Got is its name.
	ErrField = errors.New("sigv4: form lacks a field")
	// ErrPolicy: the policy cannot be read. Got says why, as S3 words it.
	ErrPolicy = errors.New("sigv4: malformed policy")
	// ErrPolicyExpired: the policy, or the signature's date, is too old.
	ErrPolicyExpired = errors.New("sigv4: policy has expired")
	// ErrCondition: a condition does not hold. Got is the condition.
	ErrCondition = errors.New("sigv4: policy condition does not hold")
	// ErrExtraField: no condition speaks of a field. Got is its name.
	ErrExtraField = errors.New("sigv4: policy does not cover a field")
)

// maxFormAge is how long after its date a form's signature holds.
const maxFormAge = 7 * 24 * time.Hour

// Form are the fields of a form before its file, by name in lower case.
type Form map[string]string

// VerifyForm checks the signature of a POST form over its policy, and reads the
// policy. It does not evaluate it: see Policy.Check. The error is an *Error around
// one of this package's errors, or what Lookup returned. A form without any field
// of a signature is ErrAnonymous.
//
// Source: S3 API Reference, "Authenticating Requests in Browser-Based Uploads
// Using POST (AWS Signature Version 4)".
func (v *Verifier) VerifyForm(ctx context.Context, f Form) (*Signed, *Policy, error) {
	c, err := parseForm(f)
	if err != nil {
		return nil, nil, err
	}
	if err := v.checkScope(c); err != nil {
		return nil, nil, err
	}
	if age := v.Now().Sub(c.time); age > maxFormAge || age < -MaxSkew {
		return nil, nil, &Error{Err: ErrPolicyExpired}
	}
	s := &Signed{Scope: c.scope, Time: c.time, Size: -1}
	if s.Key, err = v.Lookup(ctx, c.scope); err != nil {
		if errors.Is(err, ErrUnknownKey) {
			return nil, nil, &Error{Err: ErrUnknownKey, Got: c.scope.AccessKey}
		}
		return nil, nil, err
	}
	s.Key = first(s.Key, func(key Key) bool {
		want := sign(key, []byte(f["policy"]))
		return subtle.ConstantTimeCompare(want[:], []byte(c.signature)) == 1
	})
	if s.Key == nil {
		return nil, nil, &Error{Err: ErrSignature, Form: true, Got: c.scope.AccessKey, Signature: c.signature, StringToSign: f["policy"]}
	}
	p, err := ParsePolicy(f["policy"])
	return s, p, err
}

// parseForm finds the signature among the fields.
func parseForm(f Form) (*claim, error) {
	fields := []string{"policy", "x-amz-signature", "x-amz-credential", "x-amz-date", "x-amz-algorithm"}
	if _, ok := f["x-amz-security-token"]; ok {
		return nil, &Error{Err: ErrToken}
	}
	has := func(name string) bool { _, ok := f[name]; return ok }
	if _, ok := f["awsaccesskeyid"]; ok && !has("x-amz-signature") {
		return nil, &Error{Err: ErrVersion2}
	}
	if !slices.ContainsFunc(fields, has) {
		return nil, &Error{Err: ErrAnonymous}
	}
	for _, name := range fields {
		if !has(name) {
			return nil, &Error{Err: ErrField, Got: name}
		}
	}
	if a := f["x-amz-algorithm"]; a != algorithm {
		return nil, &Error{Err: ErrAsymmetric, Got: a}
	}
	c := &claim{form: true, signature: f["x-amz-signature"]}
	t, err := time.Parse(timeFormat, f["x-amz-date"])
	if err != nil {
		return nil, &Error{Err: ErrNoDate, Form: true, Got: f["x-amz-date"]}
	}
	c.time, c.timestamp = t, f["x-amz-date"]
	return c, c.parseCredential(f["x-amz-credential"])
}

// Policy says what a form may hold.
type Policy struct {
	Expiration time.Time
	conditions []condition
	// Min and Max bound the file's length in bytes; Max is -1 where nothing does.
	Min, Max int64
}

// condition is "eq" or "starts-with" on a field.
type condition struct {
	prefix      bool
	name, value string
	text        string // as it is quoted to the client
}

// malformedPolicy is worded as S3 words it.
func malformedPolicy(why string) error { return &Error{Err: ErrPolicy, Got: why} }

// ParsePolicy reads a policy as it stands in its field, in base64.
func ParsePolicy(encoded string) (*Policy, error) {
	encoded = strings.TrimSpace(encoded)
	if encoded == "" {
		return nil, malformedPolicy("Expecting '{' but found End-of-Input")
	}
	raw, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		return nil, malformedPolicy("invalid Base64 encoding.")
	}
	var document map[string]json.RawMessage
	if json.Unmarshal(raw, &document) != nil {
		return nil, malformedPolicy("Invalid JSON.")
	}
	p := &Policy{Max: -1}
	if err := p.readExpiration(document); err != nil {
		return nil, err
	}
	return p, p.readConditions(document["conditions"])
}

func (p *Policy) readExpiration(document map[string]json.RawMessage) error {
	var text string
	switch expiration, ok := document["expiration"]; {
	case !ok:
		return malformedPolicy("Policy missing expiration.")
	case document["conditions"] == nil:
		return malformedPolicy("Policy missing conditions.")
	case json.Unmarshal(expiration, &text) != nil:
		return malformedPolicy("Invalid JSON.")
	}
	for name := range document {
		if name != "expiration" && name != "conditions" {
			return malformedPolicy("Unexpected: " + strconv.Quote(name))
		}
	}
	var err error
	if p.Expiration, err = time.Parse(time.RFC3339, text); err != nil {
		return malformedPolicy("Invalid 'expiration' value: '" + text + "'")
	}
	return nil
}

func (p *Policy) readConditions(raw json.RawMessage) error {
	var list []json.RawMessage
	if json.Unmarshal(raw, &list) != nil || list == nil {
		return malformedPolicy("Invalid 'conditions' value: must be a List.")
	}
	for _, item := range list {
		if err := p.readCondition(item); err != nil {
			return err
		}
	}
	return nil
}

func (p *Policy) readCondition(raw json.RawMessage) error {
	var object map[string]json.RawMessage
	var list []json.RawMessage
	switch {
	case json.Unmarshal(raw, &list) == nil && list != nil:
		return p.readTest(list, string(raw))
	case json.Unmarshal(raw, &object) != nil || object == nil:
		return malformedPolicy("Invalid condition test: must be a List or Object.")
	case len(object) != 1:
		return malformedPolicy("Invalid Simple-Condition: Simple-Conditions must have exactly one property specified.")
	}
	for name, raw := range object {
		var value string
		if json.Unmarshal(raw, &value) != nil {
			return malformedPolicy("Invalid Simple-Condition: value must be a string.")
		}
		text := `["eq", "$` + name + `", "` + value + `"]`
		p.conditions = append(p.conditions, condition{name: strings.ToLower(name), value: value, text: text})
	}
	return nil
}

// readTest reads ["eq", "$name", "value"] and its like.
func (p *Policy) readTest(list []json.RawMessage, text string) error {
	var op string
	if len(list) == 0 || json.Unmarshal(list[0], &op) != nil {
		return malformedPolicy("Invalid Condition: missing operation identifier.")
	}
	op = strings.ToLower(op)
	if op != "eq" && op != "starts-with" && op != "content-length-range" {
		return malformedPolicy("Invalid Condition: unknown operation '" + op + "'.")
	}
	if len(list) != 3 {
		return malformedPolicy("Invalid " + op + ": wrong number of arguments.")
	}
	if op == "content-length-range" {
		return p.readLengths(list[1], list[2])
	}
	var name, value string
	if json.Unmarshal(list[1], &name) != nil || json.Unmarshal(list[2], &value) != nil {
		return malformedPolicy("Invalid JSON.")
	}
	field, ok := strings.CutPrefix(name, "$")
	if !ok || field == "" {
		return &Error{Err: ErrCondition, Got: text}
	}
	p.conditions = append(p.conditions, condition{prefix: op == "starts-with", name: strings.ToLower(field), value: value, text: text})
	return nil
}

// readLengths takes numbers, also where they are quoted. Several ranges must all
// hold.
func (p *Policy) readLengths(first, last json.RawMessage) error {
	lo, okLo := policyNumber(first)
	hi, okHi := policyNumber(last)
	if !okLo || !okHi {
		return malformedPolicy("Invalid JSON.")
	}
	p.Min = max(p.Min, lo)
	if p.Max < 0 || hi < p.Max {
		p.Max = max(hi, 0)
	}
	return nil
}

func policyNumber(raw json.RawMessage) (int64, bool) {
	n, err := strconv.ParseInt(strings.Trim(string(raw), `"`), 10, 64)
	return n, err == nil
}

// Check evaluates the policy: it has not expired, every field is covered and every
// condition holds. The form's "bucket" must be the one that the request names, and
// its "key" the one that will be written. Lengths are the caller's to check.
func (p *Policy) Check(f Form, now time.Time) error {
	if now.After(p.Expiration) {
		return &Error{Err: ErrPolicyExpired}
	}
	for _, name := range f.sorted() {
		if !exempt(name) && !p.covers(name) {
			return &Error{Err: ErrExtraField, Got: name}
		}
	}
	for _, c := range p.conditions {
		if value, ok := f[c.name]; !ok || !c.holds(value) {
			return &Error{Err: ErrCondition, Got: c.text}
		}
	}
	return nil
}

func (f Form) sorted() []string {
	names := make([]string, 0, len(f))
	for name := range f {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// exempt fields need no condition.
func exempt(name string) bool {
	return name == "policy" || name == "x-amz-signature" || name == "file" || strings.HasPrefix(name, "x-ignore-")
}

func (p *Policy) covers(name string) bool {
	return slices.ContainsFunc(p.conditions, func(c condition) bool { return c.name == name })
}

// holds: of a list of types each must have the prefix.
func (c condition) holds(value string) bool {
	if !c.prefix {
		return value == c.value
	}
	if c.name != "content-type" {
		return strings.HasPrefix(value, c.value)
	}
	for _, part := range strings.Split(value, ",") {
		if !strings.HasPrefix(strings.TrimSpace(part), c.value) {
			return false
		}
	}
	return true
}
