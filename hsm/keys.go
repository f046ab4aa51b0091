package hsm

import (
	"errors"
	"fmt"
)

// Key names a key in the token by its CKA_LABEL. One label stands for one key, of
// whatever kind; a second one of that label makes both unusable.
type Key struct {
	Label     string
	Mechanism Mechanism
}

// KeyInfo is what the token says of a key.
type KeyInfo struct {
	Key
	URI string // RFC 7512, with the token's and the key's names
}

// maxLabel is the longest label in bytes.
const maxLabel = 255

func (k Key) validate() error {
	if k.Label == "" || len(k.Label) > maxLabel {
		return fmt.Errorf("%w: a label has 1 to %d bytes", ErrInvalid, maxLabel)
	}
	_, err := profileOf(k.Mechanism)
	return err
}

// knownKey is a key that was found, whose attributes were read and which passed
// the self-test, in this login.
type knownKey struct {
	handle  objectHandle
	profile profile
	canary  canary
}

// sing tells whether the device still works with the key.
func (k *knownKey) sing(w *worker) error {
	return k.canary.sing(k.profile, w.c, w.session, k.handle)
}

// key returns a key that was tested in this login, and finds and tests it first if need be.
func (w *worker) key(key Key) (*knownKey, error) {
	if k, _ := w.known(key); k != nil {
		return k, nil
	}
	w.test.Lock() // the others wait for one self-test instead of making their own
	defer w.test.Unlock()
	if k, _ := w.known(key); k != nil {
		return k, nil
	}
	return w.admit(key)
}

// admit finds a key, reads its attributes, tests it and remembers it.
func (w *worker) admit(key Key) (*knownKey, error) {
	p, err := profileOf(key.Mechanism)
	if err != nil {
		return nil, err
	}
	handle, err := w.lookUp(key)
	if errors.Is(err, ErrNotFound) {
		return nil, w.missing(key, err)
	}
	if err != nil {
		return nil, err
	}
	return w.approve(key, p, handle)
}

// missing tells a key that is not there from a token that is not: SoftHSM without
// its folder goes on answering, with no objects. Another key shows it, or else only
// a module that starts anew.
func (w *worker) missing(key Key, notFound error) error {
	_, seen := w.known(key)
	if seen {
		w.remember(key, nil)
	}
	other := w.anyKey()
	if other != nil {
		seen = other.sing(w) != nil
	}
	if seen {
		return deviceFault(fmt.Errorf("%w: keys have vanished", ErrUnavailable))
	}
	return notFound
}

func (w *worker) approve(key Key, p profile, handle objectHandle) (*knownKey, error) {
	if err := w.verify(p, handle); err != nil {
		return nil, err
	}
	c, err := selfTest(p, w.c, w.session, handle)
	if err != nil {
		return nil, err
	}
	k := &knownKey{handle: handle, profile: p, canary: c}
	w.remember(key, k)
	return k, nil
}

// lookUp finds the one object of a label.
func (w *worker) lookUp(key Key) (objectHandle, error) {
	found, err := w.c.find(w.session, []attribute{{ckaLabel, key.Label}})
	if err != nil {
		return 0, err
	}
	switch len(found) {
	case 0:
		return 0, ErrNotFound
	case 1:
		return found[0], nil
	}
	return 0, fmt.Errorf("%w: the token has %d objects of this label; rename or delete all but one", ErrAmbiguous, len(found))
}

// verify reads a key's attributes back, whoever made it and whatever it was asked to be.
func (w *worker) verify(p profile, handle objectHandle) error {
	for _, want := range p.template() {
		if err := w.verifyNumber(handle, want); err != nil {
			return err
		}
	}
	for _, want := range mustHave() {
		value, err := w.c.attribute(w.session, handle, want.kind)
		if err != nil {
			return unreadable(want.name, err)
		}
		if isTrue(value) != want.value || len(value) != 1 {
			return fmt.Errorf("%w: %s is not %t", ErrUnsafe, want.name, want.value)
		}
	}
	return p.verify(w.c, w.session, handle)
}

func (w *worker) verifyNumber(handle objectHandle, want attribute) error {
	value, err := w.c.attribute(w.session, handle, want.kind)
	if err != nil {
		return err
	}
	if got, ok := ulong(value); !ok || got != want.value {
		return fmt.Errorf("%w: it is not a key of this mechanism (attribute 0x%X is %d)", ErrUnsafe, want.kind, got)
	}
	return nil
}

// unreadable judges an attribute that was not told: the device may be lost, or it
// keeps the attribute to itself, and then nobody can say that the key is safe.
func unreadable(name string, err error) error {
	if curable(err) {
		return err
	}
	return fmt.Errorf("%w: %s cannot be read: %w", ErrUnsafe, name, err)
}

// flag is an attribute that is true or false, with its name for people.
type flag struct {
	kind  uint
	name  string
	value bool
}

// template is what every key is made with, beside its label.
func template() []flag {
	return []flag{
		{ckaToken, "CKA_TOKEN", true},
		{ckaPrivate, "CKA_PRIVATE", true},
		{ckaSensitive, "CKA_SENSITIVE", true},
		{ckaExtractable, "CKA_EXTRACTABLE", false},
		{ckaModifiable, "CKA_MODIFIABLE", false},
	}
}

// mustHave is what is read back of every key: the template, and what only the token
// itself can set.
func mustHave() []flag {
	return append(template(),
		flag{ckaAlwaysSensitive, "CKA_ALWAYS_SENSITIVE", true},
		flag{ckaNeverExtractable, "CKA_NEVER_EXTRACTABLE", true},
		flag{ckaLocal, "CKA_LOCAL", true})
}

// create makes a key, and takes it back when it is not as it must be.
func (w *worker) create(key Key) (*knownKey, error) {
	w.test.Lock() // one at a time, so that of two callers here one succeeds
	defer w.test.Unlock()
	switch _, err := w.lookUp(key); {
	case err == nil || errors.Is(err, ErrAmbiguous):
		return nil, ErrExists
	case !errors.Is(err, ErrNotFound):
		return nil, err
	}
	p, err := profileOf(key.Mechanism)
	if err != nil {
		return nil, err
	}
	// The id is the label, for tools that show nothing else.
	attributes := []attribute{{ckaLabel, key.Label}, {ckaID, []byte(key.Label)}}
	for _, f := range template() {
		attributes = append(attributes, attribute{f.kind, f.value})
	}
	handle, err := p.generate(w.c, w.session, attributes)
	if err != nil {
		return nil, err
	}
	k, err := w.finish(key, p, handle)
	if err != nil {
		return nil, errors.Join(err, w.c.destroy(w.session, handle))
	}
	return k, nil
}

// finish checks a key just made. Another process may have made one of the same
// label at the same time: then neither stays, and nothing was wrapped under either.
func (w *worker) finish(key Key, p profile, handle objectHandle) (*knownKey, error) {
	_, err := w.lookUp(key)
	if errors.Is(err, ErrAmbiguous) {
		return nil, fmt.Errorf("%w: somebody else made one at the same time", ErrExists)
	}
	if err != nil {
		return nil, err
	}
	return w.approve(key, p, handle)
}

// destroy destroys the one key of a label and looks whether it is gone.
func (w *worker) destroy(key Key) error {
	w.test.Lock() // nobody finds it anew meanwhile
	defer w.test.Unlock()
	handle, err := w.lookUp(key)
	if errors.Is(err, ErrNotFound) {
		return w.missing(key, err)
	}
	if err != nil {
		return err
	}
	if err := w.c.destroy(w.session, handle); err != nil {
		return err
	}
	w.forget(key)
	if _, err := w.lookUp(key); !errors.Is(err, ErrNotFound) {
		return errors.Join(fmt.Errorf("%w: the token destroyed the key and still has it", ErrUnavailable), err)
	}
	return nil
}
