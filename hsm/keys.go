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

// Labels are those that objects of a key of this label may have, whatever its mechanism.
func (k Key) Labels() []string {
	var out []string
	for _, suffix := range suffixes() {
		out = append(out, k.Label+suffix)
	}
	return out
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
	_, err := profiles{}.of(k.Mechanism)
	return err
}

// knownKey is a key that was found, whose attributes were read and which passed
// the self-test, in this login.
type knownKey struct {
	material material
	profile  profile // in the token's dialect
	canary   canary
}

// sing tells whether the device still works with the key.
func (k *knownKey) sing(w *worker) error {
	return k.canary.sing(k.profile, w.c, w.session, k.material)
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
	p, err := w.profiles.of(key.Mechanism)
	if err != nil {
		return nil, err
	}
	m, err := w.lookUp(p, key)
	if errors.Is(err, ErrNotFound) {
		return nil, w.missing(key, err)
	}
	if err != nil {
		return nil, err
	}
	return w.approve(key, p, m)
}

// missing tells a key that is not there from a token that is not: SoftHSM without
// its folder goes on answering, with no objects. Another key shows it, or else only
// a module that starts anew.
func (w *worker) missing(key Key, notFound error) error {
	if err := w.loggedIn(); err != nil {
		return err // private objects are invisible after a logout
	}
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

// loggedIn is nil while the token shows its private objects to this session.
func (w *worker) loggedIn() error {
	state, err := w.c.sessionState(w.session)
	if err == nil && state != cksRWUserFunctions && state != cksROUserFunctions {
		err = &CallError{Call: "C_GetSessionInfo", Code: ckrUserNotLoggedIn}
	}
	return err
}

func (w *worker) approve(key Key, p profile, m material) (*knownKey, error) {
	for i, handle := range m.parts {
		if err := w.verify(p.parts()[i], handle); err != nil {
			return nil, err
		}
	}
	if err := p.complete(w.c, w.session, &m); err != nil {
		return nil, err
	}
	p, c, err := selfTest(p, w.c, w.session, m)
	if paramRefused(err) {
		return nil, &faulty{fmt.Errorf("%w: the token does not do %s with this key: %w", ErrUnsupported, key.Mechanism, err), faultOther}
	}
	if err != nil {
		return nil, err
	}
	k := &knownKey{material: m, profile: p, canary: c}
	w.remember(key, k)
	w.public.remember(key, m.rsa)
	return k, nil
}

// lookUp finds the objects of a key.
func (w *worker) lookUp(p profile, key Key) (material, error) {
	var m material
	for _, part := range p.parts() {
		found, err := w.c.find(w.session, []attribute{{ckaLabel, key.Label + part.suffix}})
		if err != nil {
			return material{}, err
		}
		private, public, err := w.unambiguous(found)
		if err != nil {
			return material{}, err
		}
		m.parts, m.public = append(m.parts, private), public
	}
	return m, nil
}

// unambiguous takes the objects of a label apart. There is one, or a private key with
// its public half beside it.
func (w *worker) unambiguous(found []objectHandle) (secret, public objectHandle, err error) {
	switch len(found) {
	case 0:
		return 0, 0, ErrNotFound
	case 1:
		return found[0], 0, nil
	case 2:
		a, b := w.class(found[0]), w.class(found[1])
		switch {
		case a == ckoPrivateKey && b == ckoPublicKey:
			return found[0], found[1], nil
		case a == ckoPublicKey && b == ckoPrivateKey:
			return found[1], found[0], nil
		}
	}
	return 0, 0, fmt.Errorf("%w: the token has %d objects of this label; rename or delete all but one", ErrAmbiguous, len(found))
}

// class is an object's class, or none that there is.
func (w *worker) class(handle objectHandle) uint {
	value, err := w.c.attribute(w.session, handle, ckaClass)
	if class, ok := ulong(value); err == nil && ok {
		return class
	}
	return ^uint(0)
}

// verify reads a key's attributes back, whoever made it and whatever it was asked to be.
func (w *worker) verify(p part, handle objectHandle) error {
	for _, want := range []attribute{{ckaClass, p.class}, {ckaKeyType, p.kind}} {
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
	return nil
}

func (w *worker) verifyNumber(handle objectHandle, want attribute) error {
	value, err := w.c.attribute(w.session, handle, want.kind)
	if err != nil {
		return err
	}
	if got, ok := ulong(value); !ok || got != want.value {
		return fmt.Errorf("%w: %w (attribute 0x%X is %d)", ErrUnsafe, ErrKind, want.kind, got)
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
	p, err := w.profiles.of(key.Mechanism)
	if err != nil {
		return nil, err
	}
	switch there, err := w.objects(key); {
	case err != nil && !errors.Is(err, ErrAmbiguous):
		return nil, err
	case err != nil || len(there) > 0:
		return nil, ErrExists
	}
	var attributes []attribute
	for _, f := range template() {
		attributes = append(attributes, attribute{f.kind, f.value})
	}
	m, err := p.generate(w.c, w.session, key.Label, attributes)
	if err != nil {
		return nil, w.forbidden(err)
	}
	k, err := w.finish(key, p, m)
	if err != nil {
		return nil, errors.Join(err, destroyAll(w.c, w.session, m.handles()))
	}
	return k, nil
}

// finish checks a key just made. Another process may have made one of the same
// label at the same time: then neither stays, and nothing was wrapped under either.
func (w *worker) finish(key Key, p profile, made material) (*knownKey, error) {
	m, err := w.lookUp(p, key)
	if errors.Is(err, ErrAmbiguous) {
		return nil, fmt.Errorf("%w: somebody else made one at the same time", ErrExists)
	}
	if err != nil {
		return nil, err
	}
	m.parts = made.parts // a token may give a second handle for the same object
	return w.approve(key, p, m)
}

// objects are all objects of a key, of whatever mechanism.
func (w *worker) objects(key Key) ([]objectHandle, error) {
	var all []objectHandle
	for _, suffix := range suffixes() {
		found, err := w.c.find(w.session, []attribute{{ckaLabel, key.Label + suffix}})
		if err != nil {
			return nil, err
		}
		if _, _, err := w.unambiguous(found); err != nil && !errors.Is(err, ErrNotFound) {
			return nil, err
		}
		all = append(all, found...)
	}
	return all, nil
}

// destroy destroys the one key of a label and looks whether it is gone.
func (w *worker) destroy(key Key) error {
	w.test.Lock() // nobody finds it anew meanwhile
	defer w.test.Unlock()
	there, err := w.objects(key)
	if err != nil {
		return err
	}
	if len(there) == 0 {
		return w.missing(key, ErrNotFound)
	}
	for _, handle := range there {
		if err := w.c.destroy(w.session, handle); err != nil {
			return w.forbidden(err)
		}
	}
	w.forget(key)
	if left, err := w.objects(key); err != nil || len(left) > 0 {
		return errors.Join(fmt.Errorf("%w: the token destroyed the key and still has it", ErrUnavailable), err)
	}
	return nil
}

// forbidden tells a role that may not from a login that is lost: a NetHSM answers
// both that the user is not logged in.
func (w *worker) forbidden(err error) error {
	if hasCode(err, ckrUserNotLoggedIn) && w.loggedIn() == nil ||
		hasCode(err, ckrActionProhibited, ckrTokenWriteProtected, ckrSessionReadOnly, ckrUserTypeInvalid) {
		return &faulty{fmt.Errorf("%w: %w", ErrRole, err), faultOther}
	}
	return err
}
