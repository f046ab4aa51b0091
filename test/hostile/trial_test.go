package hostile

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime/debug"
	"slices"
	"time"

	"chatelaine/backends"
	"chatelaine/gateway/objects"
)

// outcome is what came of an attack.
type outcome int

const (
	truthful outcome = iota // the true bytes, and all that was said of them
	refused                 // an error before the first byte
	cut                     // an error behind some of the true bytes
	known                   // what FORMAT.md says that no reader can tell
	wrong                   // must not be
)

func (o outcome) String() string {
	return [...]string{"true", "error", "cut", "known", "WRONG"}[o]
}

// verdict is an outcome, and why where it is wrong.
type verdict struct {
	outcome
	why string
}

func lie(format string, args ...any) verdict { return verdict{wrong, fmt.Sprintf(format, args...)} }

// patience is how long one attack may take on the busiest of machines.
const patience = 2 * time.Minute

// trial is one attack on one subject over one path.
type trial struct {
	*gen
	ctx     context.Context //nolint:containedctx // lives as long as the trial
	kind    kind
	view    *view
	service *objects.Service
	web     *web
	vault   *vault
	// adoptee is the bucket that is being adopted; nil where it is none.
	adoptee *adoptee
	// memory is what is true of an object with a past; nil where it has none.
	memory *memory
}

// path is a way to read.
type path struct {
	name string
	run  func(t *trial) verdict
}

// run makes the attack and goes a path. A crash is wrong, and so is what does not end.
func (t *trial) run(p path) (name string, v verdict) {
	ctx, cancel := context.WithTimeout(t.ctx, patience)
	defer cancel()
	t.ctx = ctx
	defer func() {
		if r := recover(); r != nil {
			v = lie("crash: %v\n%s", r, debug.Stack())
		}
		if ctx.Err() != nil {
			v = lie("it does not end")
		}
	}()
	if t.kind.over != nil {
		return t.kind.over(t)
	}
	return p.name, t.attack(p)
}

// attack arms the attack and goes the path.
func (t *trial) attack(p path) verdict {
	a := t.kind.make(t.gen)
	if a.first = 1; t.IntN(4) == 0 {
		a.first += t.IntN(3)
	}
	if t.IntN(4) == 0 {
		a.last = a.first
	}
	a.honest = t.IntN(4) == 0
	t.view.target = backends.ObjectID{Bucket: t.s.bucket.StoreName, Key: t.s.key}
	t.warm()
	t.view.arm(a)
	defer t.view.armed.Store(false)
	v := p.run(t)
	if v.outcome == wrong {
		v.why = fmt.Sprintf("%s (%s, calls %d to %d, honest %t): %s", t.kind.name, a.detail, a.first, a.last, a.honest, v.why)
	}
	return v
}

func (v *view) arm(a *attack) {
	v.attack = a
	v.calls.Store(0)
	v.told = nil
	v.struck.Store(0)
	v.armed.Store(true)
}

// warm fills the gateway's caches with what was there before, with what is there, or
// not at all.
func (t *trial) warm() {
	switch t.IntN(3) {
	case 0:
		return
	case 1:
		t.view.arm(&attack{first: 1, thing: replaced(t.s.old, t.IntN(2) == 0)})
	}
	_, _, _ = t.service.Head(t.ctx, objects.GetRequest{Bucket: t.s.bucket, Key: t.s.key, Checksums: true}) // to be remembered
	t.view.armed.Store(false)
}

// allowed are the versions that an answer may be of.
func (t *trial) allowed() []*version {
	if t.adoptee != nil && t.adoptee.state.forbidden() {
		return nil
	}
	if t.memory != nil {
		return t.memory.allowed(t.s)
	}
	if t.kind.older {
		return []*version{t.s.now, t.s.old}
	}
	return []*version{t.s.now}
}

// want is what a request should yield of a version.
type want func(v *version) (offset, length int64)

func all(v *version) (int64, int64) { return 0, int64(len(v.plain)) }

// judge compares what was read with each version that it may be of.
func (t *trial) judge(w want, st objects.Stat, span objects.Span, body []byte, err error) verdict {
	var why []error
	for _, v := range t.allowed() {
		mismatch := v.compare(w, st, span, body, err)
		switch {
		case mismatch != nil:
			why = append(why, mismatch)
		case err != nil && (v == t.s.now || !errors.Is(err, errUnread)):
			return verdict{outcome: cut}
		case v != t.s.now:
			return verdict{outcome: known}
		default:
			return verdict{outcome: truthful}
		}
	}
	if t.kind.name == "part of an earlier attempt" && t.s.now.swapped != nil {
		twin := *t.s.now
		twin.plain, twin.swapped = twin.swapped, nil
		if twin.compare(w, st, span, body, err) == nil {
			return verdict{outcome: known}
		}
	}
	if t.adoptee != nil && t.adoptee.mayBe(st, body, err) {
		return verdict{outcome: known}
	}
	return lie("%v (ended with %v)", errors.Join(why...), err)
}

// compare says how an answer differs from what it should be of this version.
func (v *version) compare(w want, st objects.Stat, span objects.Span, body []byte, err error) error {
	offset, length := w(v)
	if span.Offset != offset || span.Length != length {
		return fmt.Errorf("the span is %d bytes from %d, want %d from %d", span.Length, span.Offset, length, offset)
	}
	if e := v.compareStat(st); e != nil {
		return e
	}
	should := v.plain[offset : offset+length]
	if !bytes.HasPrefix(should, body) {
		return fmt.Errorf("%d bytes are not those of the object", len(body))
	}
	if err == nil && len(body) != len(should) {
		return fmt.Errorf("%d bytes ended well, want %d", len(body), len(should))
	}
	return nil
}

// compareStat compares what is said of an object beside its bytes.
func (v *version) compareStat(st objects.Stat) error {
	if st.Size != int64(len(v.plain)) {
		return fmt.Errorf("the size is %d, want %d", st.Size, len(v.plain))
	}
	if st.Parts != 0 && st.Parts != len(v.parts) {
		return fmt.Errorf("%d parts, want %d", st.Parts, len(v.parts))
	}
	return errors.Join(v.compareAttributes(st.Attributes), v.compareSums(st.Checksums))
}

func (v *version) compareAttributes(a objects.Attributes) error {
	if a.ContentType != v.attrs.ContentType || a.CacheControl != v.attrs.CacheControl || !maps.Equal(a.Metadata, v.attrs.Metadata) {
		return fmt.Errorf("the attributes are %v, want %v", a, v.attrs)
	}
	return nil
}

// compareSums takes fewer checksums than there are, but no others.
func (v *version) compareSums(sums []objects.Checksum) error {
	for _, c := range sums {
		if !slices.ContainsFunc(v.sums, func(s objects.Checksum) bool { return s.Algorithm == c.Algorithm && bytes.Equal(s.Value, c.Value) }) {
			return fmt.Errorf("the %s is %x, want %v", c.Algorithm, c.Value, v.sums)
		}
	}
	return nil
}
