package hsm

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"go.uber.org/zap"
)

// attach logs in: module, slot, session, PIN, probe.
func (t *Token) attach() (*attachment, error) {
	generation, err := t.lib.ready(t.cfg.Deadline)
	if err != nil {
		return nil, unreachable(t.cfg.Token, err)
	}
	if err := t.lib.enter(generation); err != nil {
		return nil, err
	}
	defer t.lib.leave()
	a, err := t.logIn(generation)
	if curable(err) || errors.Is(err, ErrNoToken) {
		// Tokens that come back show themselves only to a module that starts anew.
		t.lib.lose(generation)
	}
	return a, err
}

// unreachable says of a module that does not start which token is missed by that.
func unreachable(token Selector, err error) error {
	if errors.Is(err, ErrUnavailable) {
		return fmt.Errorf("%w: %q is not there: %w", ErrNoToken, token, err)
	}
	return err
}

func (t *Token) logIn(generation uint64) (*attachment, error) {
	slot, info, err := findToken(t.lib, t.cfg.Token)
	if err != nil {
		return nil, err
	}
	anchor, err := t.lib.c.openSession(slot, t.cfg.ReadOnly)
	if err != nil {
		return nil, err
	}
	a := &attachment{
		lib: t.lib, generation: generation, slot: slot, info: info, anchor: anchor,
		pool: newPool(t.cfg.poolSize(info)), keys: map[Key]*knownKey{},
		public: &t.public, profiles: profiles{t.cfg.RSABits}, readOnly: t.cfg.ReadOnly,
	}
	err = t.authenticate(a)
	if err == nil {
		err = t.probe(a)
	}
	if err != nil {
		return nil, errors.Join(err, t.lib.c.closeSession(anchor))
	}
	t.log.Info("logged in", zap.String("module", t.lib.path), zap.String("token", info.label),
		zap.String("serial", info.serial), zap.Uint64("generation", generation), zap.Int("sessions", cap(a.pool.permits)))
	return a, nil
}

// authenticate gives the PIN to the token, once in the life of a Token unless the
// token accepted it.
func (t *Token) authenticate(a *attachment) error {
	state, err := t.lib.c.sessionState(a.anchor)
	if err != nil {
		return err
	}
	if state == cksRWUserFunctions || state == cksROUserFunctions {
		return t.loggedInAlready(a)
	}
	if err := triable(a.info); err != nil {
		return err
	}
	start := time.Now()
	err = t.cfg.PIN.Use(func(pin string) error { return t.lib.c.login(a.anchor, t.cfg.UserType, pin) })
	t.observe("login", err, time.Since(start))
	switch {
	case err == nil:
		t.proven.Store(true)
		return nil
	case hasCode(err, ckrUserAlreadyLoggedIn):
		return t.loggedInAlready(a)
	case pinRefused(err):
		return fmt.Errorf("%w of %q; it was tried once and is not tried again, because tokens lock: correct the PIN and restart: %w",
			ErrPIN, a.info.label, err)
	}
	return err
}

// pinRefused tells whether the token was given a PIN and did not take it.
func pinRefused(err error) bool {
	return hasCode(err, ckrPINIncorrect, ckrPINInvalid, ckrPINLenRange, ckrPINExpired, ckrPINLocked)
}

// loggedInAlready accepts a login that is there only when this Token's own PIN made
// one before: the token would say the same to a wrong PIN.
func (t *Token) loggedInAlready(a *attachment) error {
	if t.proven.Load() {
		return nil
	}
	return fmt.Errorf("%w: somebody is logged in to token %q, so the PIN cannot be checked: share one Token", ErrInUse, a.info.label)
}

// triable refuses to try a PIN where a wrong one would lock the token, as a service
// that is restarted again and again would.
func triable(info tokenInfo) error {
	switch {
	case info.flags&ckfUserPINLocked != 0:
		return fmt.Errorf("%w: the PIN of %q is locked; the security officer must set a new one", ErrPIN, info.label)
	case info.flags&ckfUserPINFinalTry != 0:
		return fmt.Errorf("%w: one more wrong PIN would lock %q, so it was not tried; log in once with the vendor's tool", ErrPIN, info.label)
	case info.flags&ckfUserPINInitialized == 0:
		return fmt.Errorf("%w: the token %q has no user PIN yet; the security officer must set one", ErrPIN, info.label)
	}
	return nil
}

// findToken finds the one slot whose token is selected.
func findToken(lib *Library, want Selector) (uint, tokenInfo, error) {
	slots, err := lib.c.slots()
	if err != nil {
		return 0, tokenInfo{}, err
	}
	var there, serials []string
	var slot uint
	var info tokenInfo
	for _, s := range slots {
		i, err := lib.c.tokenInfo(s)
		if err != nil || i.flags&ckfTokenInitialized == 0 {
			continue // a reader that is empty or broken does not hide the others
		}
		there = append(there, fmt.Sprintf("%q", i.label))
		if want.matches(s, i) {
			slot, info, serials = s, i, append(serials, i.serial)
		}
	}
	switch len(serials) {
	case 1:
		return slot, info, nil
	case 0:
		return 0, tokenInfo{}, fmt.Errorf("%w: %w: %q is not there; module %q%s has %s; check the label and the module's configuration",
			ErrUnavailable, ErrNoToken, want, lib.path, settings(), enumerate(there))
	}
	return 0, tokenInfo{}, fmt.Errorf("%w: %q: give one of the serial numbers %s", ErrAmbiguous, want, strings.Join(serials, ", "))
}

func enumerate(labels []string) string {
	if len(labels) == 0 {
		return "no token"
	}
	return "the tokens " + strings.Join(labels, ", ")
}
