// Package doctor examines a token as the KMS would use it, and says of each finding
// how it is mended. It changes nothing, unless it is told to make a key and destroy
// it again.
//
// It refuses to know where its configuration comes from and how a report is shown.
package doctor

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"chatelaine/hsm"
)

// Config says what is examined.
type Config struct {
	// HSM is the token, as the KMS is configured for it. Without a PIN only that is
	// examined which a module tells everybody. The PIN is tried once.
	HSM hsm.Config
	// Failover is further tokens, which should have copies of the same keys. They are
	// examined like the first, each with its PIN, and their keys are compared with those
	// of the tokens before. One that is away is a failure here, though the KMS would start.
	Failover []hsm.Config
	// Prefix begins the labels of our keys.
	Prefix string
	// KEK is the name of a KEK of which there should be a version; "" for none. All
	// keys of the prefix that have the form of a KEK's label are examined anyway.
	KEK string
	// Mechanisms has exceptions from HSM.Mechanism, by the KEK's name. Of each there
	// should be a version, too.
	Mechanisms map[string]hsm.Mechanism
	// MakeKey has a key of each mechanism that is configured made in the first token,
	// tested and destroyed again.
	MakeKey bool
	// Measure is how long each of the four speeds is measured. Zero: none is.
	Measure time.Duration
}

// Level is how bad a finding is.
type Level string

// The levels, from good to bad. With a Failure the KMS would not serve, or not safely.
const (
	Good    Level = "ok"
	Note    Level = "note"
	Warning Level = "warning"
	Failure Level = "failure"
)

// Finding is one thing that was found, and what to do.
type Finding struct {
	Level Level  `json:"level"`
	About string `json:"about"` // "module", "token", "key main.v1", ...
	Text  string `json:"text"`
	Mend  string `json:"mend,omitempty"` // "" where nothing is to be done
}

// Key is a key that was examined.
type Key struct {
	Label     string            `json:"label"`
	Mechanism hsm.Mechanism     `json:"mechanism,omitempty"` // "": none could be used with it
	URI       string            `json:"uri,omitempty"`
	Dialect   string            `json:"iv_dialect,omitempty"`
	Tested    bool              `json:"self_test"` // it passed
	Objects   []hsm.ObjectFacts `json:"objects"`
}

// Report is all that was found of a token, and of those that stand in for it.
type Report struct {
	Selected string           `json:"selected"` // the token, as it is configured
	Library  hsm.LibraryFacts `json:"library"`
	Slots    []hsm.SlotFacts  `json:"slots"`
	Token    *hsm.SlotFacts   `json:"token,omitempty"` // the one that is configured
	Keys     []Key            `json:"keys"`
	Rates    []Rate           `json:"rates"`
	Findings []Finding        `json:"findings"`
	// Failover is a Report of each further token, in their order.
	Failover []*Report `json:"failover,omitempty"`
	// Err is the first error that is a failure, of any token, or nil.
	Err error `json:"-"`
}

// Worst is the worst level of all findings, also of further tokens.
func (r *Report) Worst() Level {
	worst := Good
	order := []Level{Good, Note, Warning, Failure}
	levels := []Level{}
	for _, f := range r.Findings {
		levels = append(levels, f.Level)
	}
	for _, further := range r.Failover {
		levels = append(levels, further.Worst())
	}
	for _, level := range levels {
		if slices.Index(order, level) > slices.Index(order, worst) {
			worst = level
		}
	}
	return worst
}

func (r *Report) add(findings ...Finding) { r.Findings = append(r.Findings, findings...) }

// fail adds the finding that an error is.
func (r *Report) fail(about string, err error) {
	r.add(Finding{Failure, about, err.Error(), mendError(err)})
	if r.Err == nil {
		r.Err = err
	}
}

// Examine examines the token, and those that stand in for it. What goes wrong is in the
// report. When ctx ends or a module does not answer within the deadline, the report of
// that token ends there; a call that hangs goes on, so the process should end soon.
func Examine(ctx context.Context, c Config) *Report {
	known := map[string]witness{}
	r := examine(ctx, task{Config: c, known: known})
	for _, cfg := range c.Failover {
		further := task{Config: c, further: true, known: known}
		further.HSM, further.MakeKey = cfg, false
		one := examine(ctx, further)
		r.Failover = append(r.Failover, one)
		if r.Err == nil {
			r.Err = one.Err
		}
	}
	return r
}

// task is the examination of one token.
type task struct {
	Config
	further bool               // it stands in for others
	known   map[string]witness // keys of the tokens before, by label
}

func examine(ctx context.Context, c task) *Report {
	r := &Report{Selected: c.HSM.Token.String(), Keys: []Key{}, Rates: []Rate{}, Findings: []Finding{}}
	lib, err := loadWithin(ctx, c.HSM.Module, c.HSM.Parameters, c.deadline())
	if err != nil {
		r.fail("module", err)
		return r
	}
	if r.survey(ctx, c.Config, lib) {
		r.logIn(ctx, c, lib)
	}
	if err := lib.Close(); err != nil {
		r.fail("module", err)
	}
	return r
}

// deadline is generous: loading may log in to an appliance.
func (c Config) deadline() time.Duration { return 3 * max(c.HSM.Deadline, 10*time.Second) }

// surveyed is what Library.Survey answers.
type surveyed struct {
	about hsm.LibraryFacts
	slots []hsm.SlotFacts
}

// survey says whether it is worth while to log in.
func (r *Report) survey(ctx context.Context, c Config, lib *hsm.Library) bool {
	s, err := within(ctx, c.deadline(), "telling of its slots", func() (s surveyed, err error) {
		s.about, s.slots, err = lib.Survey()
		return s, err
	})
	if err != nil {
		r.fail("module", err)
		return false
	}
	r.Library, r.Slots = s.about, s.slots
	r.add(Finding{Good, "module", fmt.Sprintf("%s loads: %s %s, PKCS#11 %s", s.about.Path, s.about.Description, s.about.Version, s.about.Cryptoki), ""})
	r.add(judgeSlots(s.slots)...)
	r.Token = r.find(c.HSM.Token)
	if r.Token == nil {
		return false
	}
	r.add(judgeToken(*r.Token.Token, c.HSM)...)
	for _, m := range c.mechanisms()[1:] {
		r.add(judgeMechanisms(*r.Token.Token, m)...)
	}
	return !c.HSM.PIN.IsZero()
}

// find finds the configured token, or adds the failure to.
func (r *Report) find(want hsm.Selector) *hsm.SlotFacts {
	var found []hsm.SlotFacts
	for _, s := range r.Slots {
		if s.Token != nil && want.Matches(s.ID, *s.Token) {
			found = append(found, s)
		}
	}
	switch len(found) {
	case 1:
		return &found[0]
	case 0:
		r.fail("token", fmt.Errorf("%w: %q", hsm.ErrNoToken, want))
	default:
		r.fail("token", fmt.Errorf("%w: %q is the name of %d tokens", hsm.ErrAmbiguous, want, len(found)))
	}
	return nil
}

// logIn is all that needs the PIN.
func (r *Report) logIn(ctx context.Context, c task, lib *hsm.Library) {
	cfg := c.HSM
	cfg.Library = lib
	token, err := hsm.Open(ctx, cfg)
	if err != nil {
		r.fail("login", err)
		return
	}
	r.add(Finding{Good, "login", "the PIN is right; the token passed the self-test of the configured mechanism, if it makes keys of a session", ""})
	r.random(ctx, token)
	r.examineKeys(ctx, c, token)
	if err := token.Close(); err != nil {
		r.fail("token", err)
	}
}

func (r *Report) random(ctx context.Context, token *hsm.Token) {
	a, err := token.Random(ctx, 32)
	b, err2 := token.Random(ctx, 32)
	switch {
	case errors.Join(err, err2) != nil:
		r.fail("random", errors.Join(err, err2))
	case slices.Equal(a, b) || slices.Equal(a, make([]byte, len(a))):
		r.fail("random", fmt.Errorf("%w: its generator repeats itself", hsm.ErrUnsafe))
	default:
		r.add(Finding{Good, "random", "the token's generator answers", ""})
	}
}

// examineKeys examines the keys that there are, and those that it makes, if any.
func (r *Report) examineKeys(ctx context.Context, c task, token *hsm.Token) {
	labels, err := labelsOf(ctx, c.Config, token)
	if err != nil {
		r.fail("keys", err)
		return
	}
	for _, label := range labels {
		r.examineKey(ctx, c.Config, token, label)
	}
	r.compareKeys(ctx, c, token)
	if !c.further {
		r.add(judgeKEKs(c.Config, labels)...)
	}
	if !c.MakeKey {
		r.measure(ctx, c, token)
		return
	}
	for i, m := range c.mechanisms() {
		r.tryKey(ctx, c, token, m, i == 0)
	}
}

// mechanisms are all that are configured, each once, the one for most keys first.
func (c Config) mechanisms() []hsm.Mechanism {
	out := []hsm.Mechanism{c.mechanism("")}
	for _, name := range slices.Sorted(maps.Keys(c.Mechanisms)) {
		if m := c.mechanism(name); !slices.Contains(out, m) {
			out = append(out, m)
		}
	}
	return out
}

// mechanism is the one that is configured for a KEK.
func (c Config) mechanism(name string) hsm.Mechanism {
	if m := c.Mechanisms[name]; m != "" {
		return m
	}
	if c.HSM.Mechanism != "" {
		return c.HSM.Mechanism
	}
	return hsm.AESGCM
}

// nameOf is the KEK's name of a label that is one of ours.
func (c Config) nameOf(label string) string {
	return label[len(c.Prefix):strings.LastIndex(label, ".v")]
}

// isKEK tells labels of the form in which package kms/pkcs11 labels a version of a KEK:
// a name, ".v" and a number from 1.
func isKEK(label string) bool {
	i := strings.LastIndex(label, ".v")
	if i < 1 {
		return false
	}
	n, err := strconv.ParseUint(label[i+2:], 10, 32)
	return err == nil && n > 0
}

// labelsOf lists the labels that KEKs of ours have, each once.
func labelsOf(ctx context.Context, c Config, token *hsm.Token) ([]string, error) {
	all, err := token.Labels(ctx, c.Prefix)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, label := range all {
		if base := cutPart(label); len(base) > len(c.Prefix) && isKEK(base[len(c.Prefix):]) {
			out = append(out, base)
		}
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

func (r *Report) examineKey(ctx context.Context, c Config, token *hsm.Token, label string) {
	about := "key " + label
	k := Key{Label: label, Objects: []hsm.ObjectFacts{}}
	for _, part := range parts() {
		objects, err := token.Describe(ctx, label+part)
		if err != nil {
			r.fail(about, err)
			return
		}
		k.Objects = append(k.Objects, objects...)
	}
	r.add(judgeObjects(about, k.Objects)...)
	configured := c.mechanism(c.nameOf(label))
	found, err := findKey(ctx, token, label, configured)
	if err == nil {
		k.Mechanism, k.URI, k.Tested = found.Mechanism, found.URI, true
		k.Dialect, err = token.Dialect(ctx, found.Key)
	}
	r.Keys = append(r.Keys, k)
	if err != nil {
		r.fail(about, err)
		return
	}
	text := fmt.Sprintf("attributes are as they must be; self-test passed with %s", k.Mechanism)
	if k.Dialect != "" {
		text += "; the token " + k.Dialect
	}
	r.add(Finding{Good, about, text, ""})
	if k.Mechanism != configured {
		r.add(Finding{
			Note, about, fmt.Sprintf("it is of %s, and %s is configured", k.Mechanism, configured),
			"nothing, if that is meant: the key keeps its mechanism, and the next version has the configured one",
		})
	}
}

// findKey finds a key of whatever mechanism, the preferred one first, as package
// kms/pkcs11 does.
func findKey(ctx context.Context, token *hsm.Token, label string, preferred hsm.Mechanism) (hsm.KeyInfo, error) {
	var first error
	for _, m := range append([]hsm.Mechanism{preferred}, hsm.Mechanisms()...) {
		info, err := token.Find(ctx, hsm.Key{Label: label, Mechanism: m})
		if err == nil {
			return info, nil
		}
		if first == nil {
			first = err
		}
		if !errors.Is(err, hsm.ErrKind) && !errors.Is(err, hsm.ErrNotFound) && !errors.Is(err, hsm.ErrUnsupported) {
			return info, err
		}
	}
	return hsm.KeyInfo{}, first
}

// tryKey makes a key, examines it, measures with it if it is told to, and destroys it.
func (r *Report) tryKey(ctx context.Context, c task, token *hsm.Token, m hsm.Mechanism, measure bool) {
	var id [6]byte
	_, _ = rand.Read(id[:]) // never fails
	name := "doctor-" + hex.EncodeToString(id[:])
	key := hsm.Key{Label: c.Prefix + name + ".v1", Mechanism: m}
	if _, err := token.Generate(ctx, key); err != nil {
		r.fail("making a key", fmt.Errorf("for %s: %w", m, err))
		return
	}
	r.add(Finding{Good, "making a key", fmt.Sprintf("%s was made for %s, and is destroyed again", key.Label, m), ""})
	c.Mechanisms = map[string]hsm.Mechanism{name: m}
	r.examineKey(ctx, c.Config, token, key.Label)
	if measure {
		r.measure(ctx, c, token)
	}
	if err := token.Destroy(context.WithoutCancel(ctx), key); err != nil {
		r.fail("destroying "+key.Label, err)
	}
}
