package approval

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"chatelaine/kms"
)

const bundleVersion = 1

// maxBundle is the longest bundle in bytes that Verify reads.
const maxBundle = 16 << 20

// Bundle is what proves an approval to somebody who has no KMS: the rules from the
// ceremony on, and the request with its signatures. Without a request it is the
// transcript of a ceremony.
type Bundle struct {
	Version  int       `json:"version"`
	Rulesets []Ruleset `json:"rulesets"` // up to the one under which the request was made
	Request  *Record   `json:"request,omitempty"`
}

// Export makes the bundle of a request.
func (c *Control) Export(ctx context.Context, id string) (Bundle, error) {
	r, _, err := c.find(ctx, id)
	if err != nil {
		return Bundle{}, fmt.Errorf("approval: exporting request %q: %w", id, err)
	}
	history, err := c.history(ctx, ^uint64(0))
	if err != nil {
		return Bundle{}, fmt.Errorf("approval: exporting request %q: %w", id, err)
	}
	q, _, err := ParseStatement([]byte(r.Statement))
	if err != nil {
		return Bundle{}, fmt.Errorf("approval: exporting request %q: %w", id, err)
	}
	for i, s := range history {
		if s.version() == q.Rules {
			return Bundle{Version: bundleVersion, Rulesets: history[:i+1], Request: &r}, nil
		}
	}
	return Bundle{}, fmt.Errorf("approval: exporting request %q: its rules %q are not in the registry", id, q.Rules)
}

// Encode writes the bundle as JSON.
func (b Bundle) Encode() ([]byte, error) {
	text, err := json.MarshalIndent(b, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("approval: encoding a bundle: %w", err)
	}
	return append(text, '\n'), nil
}

// Transcript writes the ceremony for people: what was signed, by whom, the rules, and
// how each part is checked with common tools.
func (b Bundle) Transcript() ([]byte, error) {
	p, err := b.Verify("")
	if err != nil {
		return nil, err
	}
	first := b.Rulesets[0]
	rules, err := ParseRules(first.Text)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	fmt.Fprintf(&out, "Transcript of the ceremony that turned dual control on, %s\n\n", stamp(first.At))
	fmt.Fprintf(&out, "SHA-256 of the statement: %s\nSHA-256 of the rules:     %s\n\n", p.Ceremony, rules.Digest())
	fmt.Fprintf(&out, "The statement, which everybody signed:\n\n%s\n", p.Statement)
	for _, signature := range first.Ceremony.Signatures {
		person, err := rules.Signer(p.Statement, signature)
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(&out, "The signature of %s:\n\n%s\n\n", person.Name, strings.TrimSpace(signature))
	}
	fmt.Fprintf(&out, "The rules:\n\n%s\n", bytes.TrimRight(first.Text, "\n"))
	fmt.Fprintf(&out, "\nTo check a signature: ssh-keygen -Y verify -n %s -I NAME -f FILE -s SIGNATURE < STATEMENT,\n"+
		"where FILE has the line `NAME KEY` with a key from the rules.\n", Namespace)
	return out.Bytes(), nil
}

// ParseBundle reads what Encode writes. Nothing of it is to be believed before Verify.
func ParseBundle(text []byte) (Bundle, error) {
	var b Bundle
	if len(text) > maxBundle {
		return b, fmt.Errorf("approval: reading a bundle: %w: %d bytes", kms.ErrInvalid, len(text))
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	err := d.Decode(&b)
	if err == nil && b.Version != bundleVersion {
		err = fmt.Errorf("version %d, this program knows %d", b.Version, bundleVersion)
	}
	if _, more := d.Token(); err == nil && !errors.Is(more, io.EOF) {
		err = errors.New("something follows it")
	}
	if err != nil {
		return Bundle{}, fmt.Errorf("approval: reading a bundle: %w: %w", kms.ErrInvalid, err)
	}
	return b, nil
}

// Proof is what a bundle proves. Times of votes and of use are not signed and so are
// not in it.
type Proof struct {
	Ceremony  string // digest of its statement: compare it with the transcript
	Rules     *Rules // of the last ruleset
	Number    uint64
	Statement []byte // of the ceremony
	// The rest is of the request, where there is one.
	Request   *Request
	Rule      Rule
	Approvers []string
	Rejected  string // who rejected it
	Approved  bool   // the quorum of its rules signed, and nobody rejected it
}

// Verify checks every signature in a bundle, from the ceremony on. ceremony is the
// digest that the verifier knows from elsewhere; where it is empty, the bundle proves
// only that it agrees with itself. A request without its quorum is no error but not
// Approved.
func (b Bundle) Verify(ceremony string) (Proof, error) {
	p, err := b.verify(ceremony)
	if err != nil {
		return Proof{}, fmt.Errorf("approval: verifying a bundle: %w", err)
	}
	return p, nil
}

func (b Bundle) verify(ceremony string) (Proof, error) {
	l, err := descend(b.Rulesets, strings.ToLower(ceremony))
	if err != nil {
		return Proof{}, err
	}
	statement := []byte(b.Rulesets[0].Ceremony.Statement)
	p := Proof{Ceremony: digestOf(statement), Rules: l.Rules, Number: l.number, Statement: statement}
	if b.Request == nil {
		return p, nil
	}
	q, verdict, err := ParseStatement([]byte(b.Request.Statement))
	if err != nil {
		return p, err
	}
	if verdict != Ask || q.Instance != l.instance || q.Rules != l.version {
		return p, fmt.Errorf("%w: the request was made elsewhere or under other rules", kms.ErrInvalid)
	}
	p.Request, p.Rule = &q, l.For(q.Operation.Action, q.Operation.Resource)
	if err := l.checkAsked(p.Rule, q, b.Request.Asked); err != nil {
		return p, err
	}
	for i, v := range b.Request.Votes {
		if signer, err := l.signer(q.Statement(v.Verdict), v.Signature); err != nil || signer.Name != v.Person {
			return p, fmt.Errorf("%w: vote %d is not %s's", kms.ErrInvalid, i+1, v.Person)
		}
	}
	p.Approvers, p.Rejected = l.count(p.Rule, q, b.Request.Votes)
	p.Approved = p.Rejected == "" && p.Rule.Quorum.met(l.groups, p.Approvers)
	return p, nil
}
