package backends

import (
	"fmt"
	"time"
)

// The rules of Object Lock (S3 user guide, "Locking objects with Object Lock") as
// arithmetic, for stores that keep locks themselves.

// Check says with ErrInvalidName that l has a mode without a time, a time without a
// mode, or a mode that there is not.
func (l Lock) Check() error {
	if l.Mode != "" && l.Mode != Governance && l.Mode != Compliance || (l.Mode == "") != l.Until.IsZero() {
		return fmt.Errorf("%w: a retention of mode %q until %v", ErrInvalidName, l.Mode, l.Until)
	}
	return nil
}

// IsZero says that nothing is locked, and no hold ever was.
func (l Lock) IsZero() bool { return l.Mode == "" && l.Until.IsZero() && !l.Hold && !l.Lifted }

// WithHold returns l with a legal hold, or without one.
func (l Lock) WithHold(hold bool) Lock {
	l.Hold, l.Lifted = hold, !hold
	return l
}

// retains says that the retention has not ended.
func (l Lock) retains(now time.Time) bool { return l.Mode != "" && now.Before(l.Until) }

// CheckDelete says with ErrLocked that a version must stay. Bypass lifts a
// Governance retention and nothing else.
func (l Lock) CheckDelete(now time.Time, bypass bool) error {
	switch {
	case l.Hold:
		return fmt.Errorf("%w: legal hold", ErrLocked)
	case l.retains(now) && (l.Mode != Governance || !bypass):
		return fmt.Errorf("%w: %s until %s", ErrLocked, l.Mode, l.Until.UTC().Format(time.RFC3339))
	}
	return nil
}

// Retain returns l with another retention. An empty mode with a zero time is none.
// ErrLocked: a retention that has not ended would become shorter or of another mode,
// unless it is a Governance one and bypass is given.
func (l Lock) Retain(mode LockMode, until, now time.Time, bypass bool) (Lock, error) {
	next := Lock{Mode: mode, Until: until, Hold: l.Hold, Lifted: l.Lifted}
	if err := next.Check(); err != nil {
		return l, err
	}
	free := !l.retains(now) || l.Mode == Governance && bypass
	if !free && (mode != l.Mode || until.Before(l.Until)) {
		return l, fmt.Errorf("%w: %s until %s", ErrLocked, l.Mode, l.Until.UTC().Format(time.RFC3339))
	}
	return next, nil
}

// Check says with ErrInvalidName what keeps c from being a lock's configuration.
func (c LockConfig) Check() error {
	period := c.Days != 0 || c.Years != 0
	bad := c.Days < 0 || c.Years < 0 || c.Days != 0 && c.Years != 0 || period != (c.Mode != "")
	if bad || c.Mode != "" && c.Mode != Governance && c.Mode != Compliance || !c.Enabled && period {
		return fmt.Errorf("%w: a lock of mode %q, %d days, %d years", ErrInvalidName, c.Mode, c.Days, c.Years)
	}
	return nil
}

// Apply returns the lock of a version that is made now and was given l: the default
// retention is added where l has none. ErrNoLock where l asks for what the bucket
// does not have.
func (c LockConfig) Apply(l Lock, now time.Time) (Lock, error) {
	if !c.Enabled {
		if !l.IsZero() {
			return l, ErrNoLock
		}
		return l, nil
	}
	if l.Mode == "" && c.Mode != "" {
		// Whole seconds: who writes back what was read must not seem to shorten it.
		l.Mode, l.Until = c.Mode, now.UTC().Truncate(time.Second).AddDate(c.Years, 0, c.Days)
	}
	return l, nil
}

// CheckSet says with ErrBucketState that c cannot be the lock of a bucket whose
// versions are v: a lock is never lost, and needs versions.
func (c LockConfig) CheckSet(v Versioning) error {
	if err := c.Check(); err != nil {
		return err
	}
	if !c.Enabled || v != VersioningEnabled {
		return fmt.Errorf("%w: a lock that is enabled: %v, with versioning %q", ErrBucketState, c.Enabled, v)
	}
	return nil
}

// CheckVersioning says with ErrBucketState that a bucket with this lock cannot have
// the versioning v. No bucket can go back to VersioningOff.
func (c LockConfig) CheckVersioning(v Versioning) error {
	if v == VersioningEnabled || v == VersioningSuspended && !c.Enabled {
		return nil
	}
	return fmt.Errorf("%w: versioning cannot become %q", ErrBucketState, v)
}
