package kms

import (
	"context"
	"fmt"

	"go.uber.org/zap"
)

// BlockKEK is the kill switch: all use of a KEK, or of one version of it (0: the
// whole), ends until it is unblocked. It remembers what each version was. The
// revocation epoch grows, so gateways forget the keys that were wrapped under it.
// Blocking what is blocked does nothing. ErrApproval, ErrNotFound, ErrInvalid.
//
// Where only the primary version is blocked, the KEK can still be rotated, and then
// wraps again. Where the whole KEK is, it cannot.
func (m *Manager) BlockKEK(ctx context.Context, name string, version uint32, by Change) (KEK, error) {
	kek, err := m.editKEK(ctx, name, by, func(e *kekEdit) error {
		if err := e.block(version); err != nil || e.same {
			return err
		}
		return m.permit(ctx, e, ActionBlock, version, nil)
	})
	return m.changed(kek, err, "blocking", name, version, by)
}

func (e *kekEdit) block(version uint32) error {
	if version != 0 {
		v, err := e.version(version)
		if err != nil {
			return err
		}
		e.same = v.State == Suspended
		if e.same {
			return nil
		}
		return e.suspend(v, false)
	}
	if status := e.kek.Status(); status == "making" || status == string(Destroyed) {
		return fmt.Errorf("%w: there is nothing to block: it is %s", ErrInvalid, status)
	}
	if e.same = e.kek.Blocked; e.same {
		return nil
	}
	e.kek.Blocked = true
	e.kek.History = remember(e.kek.History, e.event("blocked", ""))
	for i := range e.kek.Versions {
		v := &e.kek.Versions[i]
		if !v.State.CanUnwrap() {
			continue
		}
		if err := e.suspend(v, true); err != nil {
			return err
		}
	}
	return nil
}

func (e *kekEdit) suspend(v *KEKVersion, whole bool) error {
	before := v.State
	if err := v.change(e.event("blocked", Suspended)); err != nil {
		return err
	}
	v.Suspension = &Suspension{Before: before, Whole: whole}
	return nil
}

// UnblockKEK makes a blocked KEK, or a version (0: the whole), what it was before.
// Versions that were blocked by themselves stay so when the whole is unblocked.
// ErrApproval, ErrNotFound, ErrInvalid when it is not blocked.
func (m *Manager) UnblockKEK(ctx context.Context, name string, version uint32, by Change) (KEK, error) {
	kek, err := m.editKEK(ctx, name, by, func(e *kekEdit) error {
		if err := e.unblock(version); err != nil {
			return err
		}
		return m.permit(ctx, e, ActionUnblock, version, nil)
	})
	return m.changed(kek, err, "unblocking", name, version, by)
}

func (e *kekEdit) unblock(version uint32) error {
	if version != 0 {
		v, err := e.version(version)
		if err != nil {
			return err
		}
		if v.Suspension == nil {
			return fmt.Errorf("%w: version %d is not blocked: it is %s", ErrInvalid, version, v.State)
		}
		if e.kek.Blocked {
			return fmt.Errorf("%w: the whole KEK is blocked: unblock that first", ErrInvalid)
		}
		return e.resume(v)
	}
	if !e.kek.Blocked {
		return fmt.Errorf("%w: the KEK as a whole is not blocked; versions by themselves: %v", ErrInvalid, e.kek.suspended())
	}
	e.kek.Blocked = false
	e.kek.History = remember(e.kek.History, e.event("unblocked", ""))
	for i := range e.kek.Versions {
		v := &e.kek.Versions[i]
		if v.Suspension == nil || !v.Suspension.Whole {
			continue
		}
		if err := e.resume(v); err != nil {
			return err
		}
	}
	return nil
}

func (e *kekEdit) resume(v *KEKVersion) error {
	before := v.Suspension.Before
	v.Suspension = nil
	return v.change(e.event("unblocked", before))
}

// suspended lists the blocked versions.
func (k *KEK) suspended() []uint32 {
	var out []uint32
	for _, v := range k.Versions {
		if v.State == Suspended {
			out = append(out, v.Number)
		}
	}
	return out
}

// DeactivateKEK retires a KEK: it unwraps, and wraps nothing more until somebody
// rotates it. It is what comes before destroying a whole KEK. ErrNeeded while a
// bucket is attached to it, or while it is the default. ErrApproval, ErrNotFound,
// ErrInvalid.
func (m *Manager) DeactivateKEK(ctx context.Context, name string, by Change) (KEK, error) {
	kek, err := m.editKEK(ctx, name, by, func(e *kekEdit) error {
		if v := e.kek.Version(e.kek.Primary); v != nil && v.State == Deactivated {
			e.same = true
			return nil
		}
		if status := e.kek.Status(); status != string(Active) {
			return fmt.Errorf("%w: it is %s, not active", ErrInvalid, status)
		}
		if last := e.kek.Versions[len(e.kek.Versions)-1]; last.making() {
			return conflict("version %d is being made; rotate it again to finish that", last.Number)
		}
		if err := m.namesUnused(ctx, name); err != nil {
			return err
		}
		e.kek.History = remember(e.kek.History, e.event("deactivated", ""))
		if err := e.kek.Version(e.kek.Primary).change(e.event("deactivated", Deactivated)); err != nil {
			return err
		}
		return m.permit(ctx, e, ActionSet, 0, map[string]string{"state": string(Deactivated)})
	})
	return m.changed(kek, err, "deactivating", name, 0, by)
}

// CompromiseKEK marks a version as compromised: it unwraps still, what it wrapped
// should be wrapped anew and re-encrypted, and it can be destroyed. A blocked version
// stays blocked. That cannot be taken back. ErrInvalid for the primary: rotate first.
func (m *Manager) CompromiseKEK(ctx context.Context, name string, version uint32, by Change) (KEK, error) {
	kek, err := m.editKEK(ctx, name, by, func(e *kekEdit) error {
		v, err := e.version(version)
		if err != nil {
			return err
		}
		state := v.State
		if v.Suspension != nil {
			state = v.Suspension.Before
		}
		switch state { //nolint:exhaustive // the others are refused
		case Active:
			return fmt.Errorf("%w: version %d is the primary: rotate first", ErrInvalid, version)
		case PreActive:
			return fmt.Errorf("%w: version %d is not finished", ErrInvalid, version)
		case Compromised:
			e.same = true
			return nil
		}
		if v.Suspension != nil {
			v.Suspension.Before = Compromised
			v.note(e.event("compromised", ""))
			return nil
		}
		return v.change(e.event("compromised", Compromised))
	})
	return m.changed(kek, err, "marking", name, version, by)
}

// changed logs a change of a KEK, or says which one failed.
func (m *Manager) changed(kek KEK, err error, doing, name string, version uint32, by Change) (KEK, error) {
	if err != nil {
		return KEK{}, fmt.Errorf("kms: %s KEK %s: %w", doing, keyName(name, version), err)
	}
	m.log.Info("KEK changed", zap.String("change", doing), zap.String("key", keyName(name, version)),
		zap.String("status", kek.Status()), zap.String("actor", by.actor()), zap.String("reason", by.Reason))
	return kek, nil
}

func keyName(name string, version uint32) string {
	if version == 0 {
		return fmt.Sprintf("%q", name)
	}
	return KeyRef{Name: name, Version: version}.String()
}
