package kms

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// KEKSettings are what SetKEK changes; nil leaves a setting as it is.
type KEKSettings struct {
	// AutoRotate is the age at which the KEK is rotated by itself: 24 h to 10 years
	// (a minute is enough with Development), 0 for never. Only time during which a
	// KMS runs counts.
	AutoRotate *time.Duration
	// MinDecryption stops versions before it from unwrapping, as if blocked; it is at
	// most the primary. 0 and 1 stop none. Gateways forget what those had wrapped.
	MinDecryption *uint32
	// DeletionAllowed lets versions be scheduled for destruction. Taking it away does
	// not take scheduled ones back.
	DeletionAllowed *bool
	// WaitingPeriod is between the scheduling of a destruction and the destruction:
	// 24 h to a year (a second is enough with Development), 0 for DefaultWaitingPeriod.
	// It does not change those scheduled already.
	WaitingPeriod *time.Duration
}

// Bounds of settings.
const (
	minPeriod     = 24 * time.Hour
	maxAutoRotate = 10 * 365 * 24 * time.Hour
	maxWaiting    = 365 * 24 * time.Hour
)

// SetKEK changes settings of a KEK. ErrApproval, ErrNotFound, ErrInvalid.
func (m *Manager) SetKEK(ctx context.Context, name string, s KEKSettings, by Change) (KEK, error) {
	kek, err := m.editKEK(ctx, name, by, func(e *kekEdit) error {
		params, err := m.set(e, s)
		if err != nil {
			return err
		}
		if e.same = len(params) == 0; e.same {
			return nil
		}
		return m.permit(ctx, e, ActionSet, 0, params)
	})
	return m.changed(kek, err, "setting", name, 0, by)
}

// set changes the record and returns what approvers sign: the new values of those
// settings that really change. Each is a line of history.
func (m *Manager) set(e *kekEdit, s KEKSettings) (map[string]string, error) {
	params := map[string]string{}
	note := func(name string, value any) {
		params[name] = fmt.Sprint(value)
		e.kek.History = remember(e.kek.History, e.event(fmt.Sprintf("%s is %v", name, value), ""))
	}
	if s.AutoRotate != nil && *s.AutoRotate != e.kek.AutoRotate {
		e.kek.AutoRotate = *s.AutoRotate
		note("auto_rotate_period", *s.AutoRotate)
	}
	if s.WaitingPeriod != nil && *s.WaitingPeriod != e.kek.WaitingPeriod {
		e.kek.WaitingPeriod = *s.WaitingPeriod
		note("waiting_period", *s.WaitingPeriod)
	}
	if s.DeletionAllowed != nil && *s.DeletionAllowed != e.kek.DeletionAllowed {
		e.kek.DeletionAllowed = *s.DeletionAllowed
		note("deletion_allowed", *s.DeletionAllowed)
	}
	if s.MinDecryption != nil && *s.MinDecryption != e.kek.MinDecryption {
		e.kek.MinDecryption = *s.MinDecryption
		note("min_decryption_version", *s.MinDecryption)
	}
	return params, m.checkSettings(&e.kek, s)
}

func (m *Manager) checkSettings(k *KEK, s KEKSettings) error {
	rotate, wait := minPeriod, minPeriod
	if m.development {
		rotate, wait = time.Minute, time.Second
	}
	var errs []error
	if d := s.AutoRotate; d != nil && *d != 0 && (*d < rotate || *d > maxAutoRotate) {
		errs = append(errs, fmt.Errorf("%w: auto_rotate_period %v: want %v to %v, or 0 for never", ErrInvalid, *d, rotate, maxAutoRotate))
	}
	if d := s.WaitingPeriod; d != nil && *d != 0 && (*d < wait || *d > maxWaiting) {
		errs = append(errs, fmt.Errorf("%w: waiting_period %v: want %v to %v, or 0 for %v", ErrInvalid, *d, wait, maxWaiting, DefaultWaitingPeriod))
	}
	if n := s.MinDecryption; n != nil && *n > k.Primary {
		errs = append(errs, fmt.Errorf("%w: min_decryption_version %d is over the primary version, %d", ErrInvalid, *n, k.Primary))
	}
	return errors.Join(errs...)
}
