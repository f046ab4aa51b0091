package kms

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"
)

// RotateKEK makes a new version of a KEK, tests it and makes it the primary; the one
// before unwraps from then on and no more. Nothing else is touched: what is wrapped
// under older versions stays so until it is wrapped anew. ErrConflict while somebody
// else is rotating it; what another Manager has not finished within 15 s, as it
// crashed, is taken over. ErrDisabled when the whole KEK is blocked.
func (m *Manager) RotateKEK(ctx context.Context, name string, by Change) (KEK, error) {
	kek, err := m.rotate(ctx, name, by, func(*KEK) error { return nil })
	if err != nil {
		return KEK{}, fmt.Errorf("kms: rotating KEK %q: %w", name, err)
	}
	return kek, nil
}

// rotate is RotateKEK where due, too, agrees at the moment in which it begins.
func (m *Manager) rotate(ctx context.Context, name string, by Change, due func(*KEK) error) (KEK, error) {
	return m.makeVersion(ctx, name, KEKOptions{Change: by}, func(v *making) error {
		_, err := m.editKEK(ctx, name, by, func(e *kekEdit) error {
			if e.kek.Primary == 0 {
				return conflict("its first version is not finished")
			}
			if err := errors.Join(e.kek.mayRotate(), due(&e.kek)); err != nil {
				return err
			}
			return m.claimVersion(ctx, e, v)
		})
		return err
	})
}

// MigrateKEK is RotateKEK into another provider: the new version is made there, and so
// are all after it. Older ones stay where they are, and open what they wrapped, until
// what is under them has been rewrapped (StartRewrap) and they are destroyed. The rules
// for ActionSet govern it. ErrInvalid when the provider is not configured, or is the one
// that makes versions already.
func (m *Manager) MigrateKEK(ctx context.Context, name, provider string, by Change) (KEK, error) {
	kek, err := m.migrate(ctx, name, provider, by)
	if err != nil {
		return KEK{}, fmt.Errorf("kms: migrating KEK %q to provider %q: %w", name, provider, err)
	}
	return kek, nil
}

func (m *Manager) migrate(ctx context.Context, name, provider string, by Change) (KEK, error) {
	p := m.providers[provider]
	if p == nil {
		return KEK{}, fmt.Errorf("%w: it is not configured; there are %s", ErrInvalid,
			strings.Join(slices.Sorted(maps.Keys(m.providers)), ", "))
	}
	if err := p.Check(ctx); err != nil {
		return KEK{}, err
	}
	return m.makeVersion(ctx, name, KEKOptions{Change: by}, func(v *making) error {
		_, err := m.editKEK(ctx, name, by, func(e *kekEdit) error {
			if e.kek.Primary == 0 {
				return conflict("its first version is not finished")
			}
			if e.kek.Provider == provider {
				return fmt.Errorf("%w: it is there", ErrInvalid)
			}
			if err := e.kek.mayRotate(); err != nil {
				return err
			}
			if err := m.permit(ctx, e, ActionSet, 0, map[string]string{"provider": provider}); err != nil {
				return err
			}
			if err := m.claimVersion(ctx, e, v); err != nil {
				return err
			}
			last := &e.kek.Versions[len(e.kek.Versions)-1]
			if v.resumed && e.kek.Holder(v.number) != provider {
				return conflict("version %d is being made in provider %q: rotate the key first, which finishes it", v.number, e.kek.Holder(v.number))
			}
			last.Provider = provider
			return nil
		})
		return err
	})
}

func (k *KEK) mayRotate() error {
	if k.Blocked {
		return fmt.Errorf("%w: it is blocked", ErrDisabled)
	}
	if v := k.Version(k.Primary); v.State == Destroyed || v.Destruction != nil {
		return fmt.Errorf("%w: it is %s", ErrInvalid, k.Status())
	}
	if len(k.Versions) >= maxVersions {
		return fmt.Errorf("%w: it has %d versions, and may have no more: make another KEK", ErrInvalid, maxVersions)
	}
	return nil
}

func (m *Manager) createKEK(ctx context.Context, name string, o KEKOptions) (KEK, error) {
	if err := errors.Join(checkNewKEK(name), o.Change.validate()); err != nil {
		return KEK{}, err
	}
	return m.makeVersion(ctx, name, o, func(v *making) error {
		s, err := readMaybe[KEK](ctx, m.registry, kekPath(name))
		if err != nil {
			return err
		}
		e := &kekEdit{kek: s.record, by: o.Change, at: time.Now().UTC()}
		if !s.exists() {
			e.kek = KEK{Name: name, Provider: m.providerName(o), Created: e.at}
		} else if s.record.Primary != 0 {
			return fmt.Errorf("%w: the registry has it", ErrExists)
		}
		if err := m.claimVersion(ctx, e, v); err != nil {
			return err
		}
		if !v.resumed {
			if err := m.checkUnclaimed(ctx, &e.kek, v.number, o); err != nil {
				return err
			}
		}
		return m.commitKEK(ctx, s.is, e)
	})
}

// making is a version of which nothing but the registry's record is sure to exist.
// Recording it first is what tells a key that this KMS made before it crashed
// from one that somebody else made.
type making struct {
	number  uint32
	resumed bool // an earlier attempt may have made the key
}

// makeVersion has intend record that a version is to be made, makes it, tests it and
// makes it the primary.
func (m *Manager) makeVersion(ctx context.Context, name string, o KEKOptions, intend func(*making) error) (KEK, error) {
	if _, busy := m.making.LoadOrStore(name, true); busy {
		return KEK{}, conflict("a version of it is being made")
	}
	defer m.making.Delete(name)
	var v making
	if err := intend(&v); err != nil {
		return KEK{}, err
	}
	s, err := read[KEK](ctx, m.registry, kekPath(name))
	if err != nil {
		return KEK{}, err
	}
	p, err := m.providerOf(&s.record, v.number)
	if err != nil {
		return KEK{}, err
	}
	ref := KeyRef{Name: name, Version: v.number}
	info, err := m.makeKey(ctx, p, ref, v, o)
	if err != nil {
		return KEK{}, err
	}
	if err := selfTest(ctx, p, ref); err != nil {
		return KEK{}, errors.Join(fmt.Errorf("testing %s: %w", ref, err), m.abandon(ctx, ref, err))
	}
	return m.activate(ctx, info, o)
}

// patience is how long another Manager is given to finish a version. Two that make
// the same key in a token at once could make two keys of one name.
const patience = 15 * time.Second

// claimVersion takes over the version that somebody left unfinished, or appends one
// of a number that was never used.
func (m *Manager) claimVersion(ctx context.Context, e *kekEdit, v *making) error {
	*v = making{}
	if n := len(e.kek.Versions); n > 0 && e.kek.Versions[n-1].making() {
		last := &e.kek.Versions[n-1]
		// A version from the future is from a clock that was set back since.
		age := e.at.Sub(last.Created)
		if e.kek.Maker != m.id && age < patience && age > -patience {
			return conflict("another KMS is making version %d, or failed to; it can be taken over %v after it began", last.Number, patience)
		}
		last.Created, e.kek.Maker = e.at, m.id
		*v = making{number: last.Number, resumed: true}
		return nil
	}
	number, err := m.nextNumber(ctx, e)
	if err != nil {
		return err
	}
	e.kek.Maker = m.id
	e.kek.Versions = append(e.kek.Versions, KEKVersion{
		Number: number, State: PreActive, Created: e.at, History: []StateChange{e.event("created", PreActive)},
	})
	v.number = number
	return nil
}

// highest is the highest version that a KEK of a name ever had. It outlives the
// record of the KEK, so that no number comes twice.
type highest struct {
	Version uint32 `json:"version"`
}

func (m *Manager) nextNumber(ctx context.Context, e *kekEdit) (uint32, error) {
	s, err := readMaybe[highest](ctx, m.registry, highestPath(e.kek.Name))
	if err != nil {
		return 0, err
	}
	next := s.record.Version + 1
	for _, v := range e.kek.Versions {
		next = max(next, v.Number+1)
	}
	item, err := put(s.is.Key, highest{Version: next})
	if err != nil {
		return 0, err
	}
	e.t.If = append(e.t.If, s.is)
	e.t.Put = append(e.t.Put, item)
	return next, nil
}

// checkUnclaimed refuses a key that the provider holds and the registry does not
// know, unless it is to be adopted.
func (m *Manager) checkUnclaimed(ctx context.Context, kek *KEK, number uint32, o KEKOptions) error {
	if o.Adopt {
		return nil
	}
	p, err := m.providerOf(kek, number)
	if err != nil {
		return err
	}
	ref := kek.Ref(number)
	_, err = p.Inspect(ctx, ref)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	return fmt.Errorf("%w: provider %q holds %s but the registry does not know it; "+
		"if it was made in a ceremony, or the registry was lost, start the KMS with --recover", ErrExists, kek.Holder(number), ref)
}

func (m *Manager) providerName(o KEKOptions) string {
	if o.Provider != "" {
		return o.Provider
	}
	return m.provider
}

func (m *Manager) makeKey(ctx context.Context, p Provider, ref KeyRef, v making, o KEKOptions) (KeyInfo, error) {
	if o.Adopt {
		return p.Inspect(ctx, ref)
	}
	info, err := p.Create(ctx, ref)
	if v.resumed && errors.Is(err, ErrExists) {
		return p.Inspect(ctx, ref)
	}
	return info, err
}

// activate makes a tested version the primary.
func (m *Manager) activate(ctx context.Context, info KeyInfo, o KEKOptions) (KEK, error) {
	clock, err := m.clock(ctx)
	if err != nil {
		return KEK{}, err
	}
	kek, err := m.editKEK(ctx, info.Ref.Name, o.Change, func(e *kekEdit) error {
		v := e.kek.Version(info.Ref.Version)
		if v == nil || !v.making() || e.kek.Maker != m.id {
			return conflict("another KMS took it over")
		}
		if e.kek.Blocked {
			return fmt.Errorf("%w: it was blocked meanwhile", ErrDisabled)
		}
		if err := e.supersede(); err != nil {
			return err
		}
		v.Mechanism, v.URI = info.Mechanism, info.URI
		e.kek.move(e.kek.Holder(v.Number))
		e.kek.Primary, e.kek.Maker, e.kek.Rotated, e.kek.RotatedClock = v.Number, "", e.at, clock
		return v.change(e.event("activated", Active))
	})
	if err != nil {
		return KEK{}, err
	}
	m.log.Info("KEK version is primary", zap.Stringer("key", info.Ref), zap.String("provider", kek.Provider),
		zap.String("mechanism", info.Mechanism), zap.Bool("adopted", o.Adopt), zap.String("actor", o.Change.actor()))
	return kek, nil
}

// supersede ends the wrapping of the present primary, if there is one. One that is
// blocked stays blocked, and unwraps only when it is unblocked.
func (e *kekEdit) supersede() error {
	v := e.kek.Version(e.kek.Primary)
	switch {
	case v == nil:
		return nil
	case v.State == Active:
		return v.change(e.event("superseded", Deactivated))
	case v.Suspension != nil && v.Suspension.Before == Active:
		v.Suspension.Before = Deactivated
		v.note(e.event("superseded", ""))
	}
	return nil
}

// abandon gives a version up that failed its test: nothing was wrapped under it. The
// next attempt makes one of another number.
func (m *Manager) abandon(ctx context.Context, ref KeyRef, why error) error {
	if !errors.Is(why, ErrUnsafe) && !errors.Is(why, ErrCorrupt) {
		return nil // the device may be ill; the same key is tested again
	}
	_, err := m.editKEK(ctx, ref.Name, Change{Reason: "it failed its test"}, func(e *kekEdit) error {
		v := e.kek.Version(ref.Version)
		if v == nil || !v.making() || e.kek.Maker != m.id {
			e.same = true
			return nil
		}
		e.kek.Maker = ""
		v.Destruction = &Destruction{Scheduled: e.at, Due: e.at, Started: true}
		v.note(e.event("destroying", ""))
		return nil
	})
	if err != nil {
		return err
	}
	return m.finishDestruction(ctx, ref)
}
