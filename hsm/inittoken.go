package hsm

import (
	"errors"
	"fmt"
)

// InitToken makes a token with the given label in the first slot without one, and
// sets its two PINs: for development, on a module that offers free slots, such as
// SoftHSM. It loads and finalises the module, so no Library of it may be open.
// Errors: ErrExists when a token of the label is there, ErrNoToken when no slot is
// free, ErrInvalid, ErrModule, ErrInUse.
func InitToken(module, label string, soPIN, pin PIN) (err error) {
	if label == "" || len(label) > 32 || soPIN.IsZero() || pin.IsZero() {
		return fmt.Errorf("hsm: initialising token %q: %w: it needs a label of 1 to 32 bytes and two PINs", label, ErrInvalid)
	}
	lib, err := Load(module)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lib.Close()) }()
	if err := initToken(lib.c, label, soPIN, pin); err != nil {
		return fmt.Errorf("hsm: initialising token %q of module %q%s: %w", label, module, settings(), err)
	}
	return nil
}

func initToken(c cryptoki, label string, soPIN, pin PIN) error {
	slot, err := freeSlot(c, label)
	if err != nil {
		return err
	}
	return soPIN.Use(func(so string) error {
		if err := c.initToken(slot, so, label); err != nil {
			return err
		}
		s, err := c.openSession(slot, false)
		if err != nil {
			return err
		}
		if err = c.login(s, ckuSO, so); err == nil {
			err = pin.Use(func(user string) error { return c.initPIN(s, user) })
		}
		return errors.Join(err, c.closeSession(s)) // which logs out
	})
}

// freeSlot finds the first slot whose token is blank, and refuses a taken label.
func freeSlot(c cryptoki, label string) (uint, error) {
	slots, err := c.slots()
	if err != nil {
		return 0, err
	}
	var free []uint
	for _, slot := range slots {
		info, err := c.tokenInfo(slot)
		switch {
		case err != nil:
			return 0, err
		case info.flags&ckfTokenInitialized == 0:
			free = append(free, slot)
		case info.label == label:
			return 0, fmt.Errorf("%w: a token of this label is in slot %d", ErrExists, slot)
		}
	}
	if len(free) == 0 {
		return 0, fmt.Errorf("%w: no slot has a blank token", ErrNoToken)
	}
	return free[0], nil
}
