package kms

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"
)

// ScheduleDestroy plans the destruction of a version that wraps no more, or of a
// whole KEK that was deactivated (version 0). From then on it does nothing; after the
// waiting period the provider destroys it, and until then RestoreKEK takes it back.
// ErrNeeded while anything needs it, ErrInvalid while the KEK's DeletionAllowed is
// off or its state forbids it, ErrApproval, ErrNotFound. Saying it again changes
// nothing.
func (m *Manager) ScheduleDestroy(ctx context.Context, name string, version uint32, by Change) (KEK, error) {
	kek, err := m.editKEK(ctx, name, by, func(e *kekEdit) error {
		targets, err := e.doomed(version)
		if err != nil {
			return err
		}
		if e.same = len(targets) == 0; e.same {
			return nil
		}
		if err := m.unneeded(ctx, KeyRef{Name: name, Version: version}); err != nil {
			return err
		}
		params := map[string]string{"waiting_period": e.kek.Wait().String()}
		if err := m.permit(ctx, e, ActionDestroy, version, params); err != nil {
			return err
		}
		return m.schedule(ctx, e, targets)
	})
	return m.changed(kek, err, "scheduling the destruction of", name, version, by)
}

// doomed finds the versions that are to be destroyed and are not yet.
func (e *kekEdit) doomed(version uint32) ([]*KEKVersion, error) {
	if !e.kek.DeletionAllowed {
		return nil, fmt.Errorf("%w: deletion_allowed is off", ErrInvalid)
	}
	if version != 0 {
		v, err := e.version(version)
		if err != nil {
			return nil, err
		}
		if v.Destruction != nil {
			return nil, nil
		}
		return []*KEKVersion{v}, e.kek.mayDestroy(v)
	}
	if !e.kek.retired() {
		return nil, fmt.Errorf("%w: the KEK is %s: deactivate it first, or name a version", ErrInvalid, e.kek.Status())
	}
	var targets []*KEKVersion
	for i := range e.kek.Versions {
		v := &e.kek.Versions[i]
		if v.State == Destroyed || v.Destruction != nil {
			continue
		}
		if err := e.kek.mayDestroy(v); err != nil && v.State != PreActive {
			return nil, err
		}
		targets = append(targets, v)
	}
	return targets, nil
}

// mayDestroy returns nil when a version's state allows its destruction.
func (k *KEK) mayDestroy(v *KEKVersion) error {
	switch v.State { //nolint:exhaustive // the others allow it
	case Active:
		return fmt.Errorf("%w: version %d is the primary: rotate first", ErrInvalid, v.Number)
	case Suspended:
		return fmt.Errorf("%w: version %d is blocked: unblock it first", ErrInvalid, v.Number)
	case PreActive:
		return fmt.Errorf("%w: version %d is not finished", ErrInvalid, v.Number)
	case Destroyed:
		return fmt.Errorf("%w: version %d is destroyed", ErrInvalid, v.Number)
	}
	return nil
}

func (m *Manager) schedule(ctx context.Context, e *kekEdit, targets []*KEKVersion) error {
	clock, err := m.clock(ctx)
	if err != nil {
		return err
	}
	wait := e.kek.Wait()
	for _, v := range targets {
		v.Destruction = &Destruction{Scheduled: e.at, Due: e.at.Add(wait), DueClock: clock + wait + slack(wait)}
		v.note(e.event("destruction scheduled", ""))
	}
	return nil
}

// RestoreKEK takes the planned destruction of a version, or of all of a KEK's
// (version 0), back. ErrInvalid when none is planned, or when it has begun.
func (m *Manager) RestoreKEK(ctx context.Context, name string, version uint32, by Change) (KEK, error) {
	kek, err := m.editKEK(ctx, name, by, func(e *kekEdit) error {
		return e.restoreVersion(version)
	})
	return m.changed(kek, err, "restoring", name, version, by)
}

func (e *kekEdit) restoreVersion(version uint32) error {
	if version == 0 {
		return e.restoreAll()
	}
	v, err := e.version(version)
	if err != nil {
		return err
	}
	return e.restore(v)
}

func (e *kekEdit) restoreAll() error {
	restored := 0
	for i := range e.kek.Versions {
		v := &e.kek.Versions[i]
		if v.Destruction == nil || v.Destruction.Started {
			continue
		}
		if err := e.restore(v); err != nil {
			return err
		}
		restored++
	}
	if restored == 0 {
		return fmt.Errorf("%w: no destruction is planned that could be taken back", ErrInvalid)
	}
	return nil
}

func (e *kekEdit) restore(v *KEKVersion) error {
	switch {
	case v.State == Destroyed || v.Destruction != nil && v.Destruction.Started:
		return fmt.Errorf("%w: version %d is destroyed, or about to be: it is too late", ErrInvalid, v.Number)
	case v.Destruction == nil:
		return fmt.Errorf("%w: no destruction of version %d is planned", ErrInvalid, v.Number)
	}
	v.Destruction = nil
	v.note(e.event("destruction taken back", ""))
	return nil
}

// due says whether a planned destruction may begin, by the wall's clock and the
// keeper's.
func (d *Destruction) due(now time.Time, clock time.Duration) bool {
	return d.Started || !now.Before(d.Due) && clock >= d.DueClock
}

// destroyVersion begins the destruction of a version whose time has come, and ends
// it. It may be called for a version whose destruction was begun and not ended.
//
// The order makes it safe: first the record says that it has begun, from when on
// nothing can be wrapped, unwrapped or imported under the version; then it is looked
// once more who needs it; then the provider destroys it; then the record says so.
func (m *Manager) destroyVersion(ctx context.Context, ref KeyRef) error {
	clock, err := m.clock(ctx)
	if err != nil {
		return err
	}
	if err := m.unneeded(ctx, ref); err != nil {
		return err
	}
	_, err = m.editKEK(ctx, ref.Name, Change{Reason: "the waiting period is over"}, func(e *kekEdit) error {
		v, err := e.version(ref.Version)
		if err != nil {
			return err
		}
		if v.Destruction == nil || v.State == Suspended || !v.Destruction.due(e.at, clock) {
			return conflict("it was taken back")
		}
		if e.same = v.Destruction.Started; !e.same {
			v.Destruction.Started = true
			v.note(e.event("destroying", ""))
		}
		return nil
	})
	if err != nil {
		return err
	}
	return m.finishDestruction(ctx, ref)
}

// finishDestruction destroys a version whose destruction is recorded as begun.
func (m *Manager) finishDestruction(ctx context.Context, ref KeyRef) error {
	if err := m.unneeded(ctx, ref); err != nil {
		return errors.Join(err, m.interrupt(ctx, ref, err))
	}
	s, err := m.kekRecord(ctx, ref.Name)
	if err != nil {
		return err
	}
	if v := s.record.Version(ref.Version); v == nil || v.Destruction == nil || !v.Destruction.Started {
		return conflict("its destruction was interrupted, or is done")
	}
	p, err := m.providerOf(&s.record, ref.Version)
	if err != nil {
		return err
	}
	if err := p.Destroy(ctx, ref); err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	if _, err := p.Inspect(ctx, ref); !errors.Is(err, ErrNotFound) {
		return errors.Join(fmt.Errorf("%w: the provider destroyed %s and still has it", ErrUnsafe, ref), err)
	}
	_, err = m.editKEK(ctx, ref.Name, Change{}, func(e *kekEdit) error {
		v, err := e.version(ref.Version)
		if err != nil {
			return err
		}
		if e.same = v.State == Destroyed; e.same {
			return nil
		}
		v.Destruction = nil
		return v.change(e.event("destroyed", Destroyed))
	})
	if err != nil {
		return err
	}
	m.log.Warn("KEK version destroyed", zap.Stringer("key", ref), zap.String("provider", s.record.Holder(ref.Version)))
	return nil
}

// interrupt takes the beginning of a destruction back when something turned out to
// need the version. It stays scheduled.
func (m *Manager) interrupt(ctx context.Context, ref KeyRef, why error) error {
	if !errors.Is(why, ErrNeeded) {
		return nil
	}
	_, err := m.editKEK(ctx, ref.Name, Change{Reason: why.Error()}, func(e *kekEdit) error {
		v, err := e.version(ref.Version)
		if err != nil {
			return err
		}
		if e.same = v.Destruction == nil || !v.Destruction.Started; !e.same {
			v.Destruction.Started = false
			v.note(e.event("destruction interrupted", ""))
		}
		return nil
	})
	return err
}
