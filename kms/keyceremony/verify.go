package keyceremony

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"chatelaine/hsm"
	"chatelaine/kms"
	"chatelaine/kms/approval"
)

// Report is what a verification found.
type Report struct {
	Record *Record `json:"record"`
	// Digest is the SHA-256 of the statement, in hex.
	Digest string   `json:"statement_sha256"`
	Signed []string `json:"signed"` // the witnesses whose signatures hold
	// Problems are what does not hold. Empty: all holds.
	Problems []string `json:"problems"`
	// Notes are changes that say nothing against the keys, such as a newer firmware.
	Notes []string `json:"notes"`
}

func (r *Report) problem(format string, args ...any) {
	r.Problems = append(r.Problems, fmt.Sprintf(format, args...))
}

func (r *Report) note(format string, args ...any) {
	r.Notes = append(r.Notes, fmt.Sprintf(format, args...))
}

// Verify checks a folder without an HSM: that the statement is the record's, and that
// every witness signed it. known are the witnesses as they are known from elsewhere;
// none: the record is believed who its witnesses are, and proves no more than that the
// holders of those keys signed it. ErrInvalid when record.json is no record.
func (f Files) Verify(known []Witness) (*Report, error) {
	record, err := ParseRecord(f.Record)
	if err != nil {
		return nil, err
	}
	r := &Report{Record: record, Digest: approval.Digest(f.Statement), Signed: []string{}, Problems: []string{}, Notes: []string{}}
	ours := record.Statement()
	if !bytes.Equal(ours, f.Statement) {
		r.problem("%s and %s differ: %s", RecordFile, StatementFile, difference(StatementFile, f.Statement, RecordFile, ours))
	}
	for _, w := range record.Witnesses {
		r.signature(f, w, ours)
	}
	for _, name := range f.signatureNames() {
		if !slices.Contains(names(record.Witnesses), name) {
			r.problem("%s%s belongs to no witness of the record", name, signatureEnd)
		}
	}
	r.compareWitnesses(known)
	return r, nil
}

// Parse reads the record for somebody who is to sign: ErrCorrupt when the statement is
// not the record's.
func (f Files) Parse() (*Record, error) {
	r, err := ParseRecord(f.Record)
	if err != nil {
		return nil, err
	}
	if ours := r.Statement(); !bytes.Equal(ours, f.Statement) {
		return nil, fmt.Errorf("keyceremony: reading the statement: %w: %s", kms.ErrCorrupt, difference(StatementFile, f.Statement, RecordFile, ours))
	}
	return r, nil
}

// signature checks the one of a witness, and says of one that does not hold why.
func (r *Report) signature(f Files, w Witness, ours []byte) {
	text, ok := f.Signatures[w.Name]
	if !ok {
		r.problem("%s has not signed: there is no %s%s", w.Name, w.Name, signatureEnd)
		return
	}
	err := w.verify(f.Statement, text)
	if err == nil {
		r.Signed = append(r.Signed, w.Name)
		return
	}
	if w.verify(ours, text) == nil {
		r.problem("%s signed the statement of %s: %s was changed afterwards", w.Name, RecordFile, StatementFile)
		return
	}
	for _, other := range r.Record.Witnesses {
		if other.verify(f.Statement, text) == nil {
			r.problem("%s%s is a signature of %s, and not of %s", w.Name, signatureEnd, other.Name, w.Name)
			return
		}
	}
	r.problem("%s%s does not hold: %v", w.Name, signatureEnd, err)
}

func (r *Report) compareWitnesses(known []Witness) {
	if len(known) == 0 {
		return
	}
	for _, w := range r.Record.Witnesses {
		i := slices.IndexFunc(known, func(k Witness) bool { return k.Name == w.Name })
		switch {
		case i < 0:
			r.problem("the record's witness %s is not among those that are expected", w.Name)
		case !sameKey(known[i], w):
			r.problem("the record has the key %s of %s, and %s is expected", w.Fingerprint(), w.Name, known[i].Fingerprint())
		}
	}
	for _, k := range known {
		if !slices.Contains(names(r.Record.Witnesses), k.Name) {
			r.problem("the expected witness %s is not in the record", k.Name)
		}
	}
}

// Compare adds what is in the token now and is not as it was recorded. The PIN is tried
// once. An error is one of reaching the token: then nothing is known of the keys.
func (r *Report) Compare(ctx context.Context, cfg hsm.Config) error {
	r.compareModule(cfg.Module)
	return withToken(ctx, cfg, hsm.Mechanism(r.Record.Keys[0].Mechanism), func(s seen) error {
		now := &Record{}
		now.take(s)
		r.compareToken(now)
		return nil
	}, func(token *hsm.Token) error {
		for _, k := range r.Record.Keys {
			if err := r.compareKey(ctx, token, k); err != nil {
				return err
			}
		}
		return nil
	})
}

func (r *Report) compareModule(path string) {
	_, sum, err := hashModule(path)
	switch {
	case err != nil:
		r.note("%v", err)
	case sum != r.Record.Module.SHA256:
		r.note("the module is another file than at the ceremony: SHA-256 %s, and %s then", sum, r.Record.Module.SHA256)
	}
}

// compareToken takes another token for a problem, and another version of the same for
// none: firmware is upgraded, and slots move.
func (r *Report) compareToken(now *Record) {
	then := r.Record.Token
	for _, f := range []struct{ name, then, now string }{
		{"label", then.Label, now.Token.Label},
		{"serial number", then.Serial, now.Token.Serial},
		{"manufacturer", then.Manufacturer, now.Token.Manufacturer},
		{"model", then.Model, now.Token.Model},
	} {
		if f.then != f.now {
			r.problem("the token's %s is %q, and was %q", f.name, f.now, f.then)
		}
	}
	if then.Firmware != now.Token.Firmware {
		r.note("the token's firmware is %s, and was %s", now.Token.Firmware, then.Firmware)
	}
}

func (r *Report) compareKey(ctx context.Context, token *hsm.Token, then Key) error {
	now, err := inspect(ctx, token, then.KEK, hsm.Key{Label: then.Label, Mechanism: hsm.Mechanism(then.Mechanism)})
	switch {
	case errors.Is(err, hsm.ErrUnavailable) || ctx.Err() != nil:
		return fmt.Errorf("keyceremony: comparing %s: %w", then.KEK, err)
	case errors.Is(err, hsm.ErrNotFound):
		r.problem("key %s: the token has none of the label %q", then.KEK, then.Label)
		return nil
	case err != nil:
		r.problem("key %s: %v", then.KEK, err)
		return nil
	}
	r.compareObjects(then, now)
	if then.Dialect != now.Dialect {
		r.note("key %s: of IVs, the token %s, and %s then", then.KEK, now.Dialect, then.Dialect)
	}
	return nil
}

func (r *Report) compareObjects(then, now Key) {
	left := slices.Clone(now.Objects)
	for _, o := range then.Objects {
		i := slices.IndexFunc(left, func(n Object) bool { return n.Label == o.Label && n.Class == o.Class })
		if i < 0 {
			r.problem("key %s: the %s %q is gone", then.KEK, o.Class, o.Label)
			continue
		}
		was, is := o.facts(), left[i].facts()
		left = slices.Delete(left, i, i+1)
		for _, f := range was {
			if value := valueOf(is, f.name); value != f.value {
				r.problem("key %s: %s of the %s %q is %s, and was %s", then.KEK, f.name, o.Class, o.Label, value, f.value)
			}
		}
	}
	for _, o := range left {
		r.problem("key %s: there is a %s %q more than at the ceremony", then.KEK, o.Class, o.Label)
	}
}

// fact is one thing that an object can be compared by.
type fact struct{ name, value string }

func (o Object) facts() []fact {
	out := []fact{{"type", o.Type}, {"size", fmt.Sprint(o.Bits, " bits")}}
	for _, a := range o.Attributes {
		out = append(out, fact{a.Name, a.Value})
	}
	for _, v := range o.CheckValues {
		out = append(out, fact{"check value " + v.Method, v.Value})
	}
	if o.PublicKey != "" {
		out = append(out, fact{"public half's SHA-256", o.PublicKey})
	}
	return out
}

func valueOf(facts []fact, name string) string {
	for _, f := range facts {
		if f.name == name {
			return f.value
		}
	}
	return "not told"
}

// Err is nil when all holds.
func (r *Report) Err() error {
	if len(r.Problems) == 0 {
		return nil
	}
	return fmt.Errorf("keyceremony: verifying: %w: %d problem(s)", kms.ErrCorrupt, len(r.Problems))
}
