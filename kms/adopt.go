package kms

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.uber.org/zap"
)

// AdoptKEK has the registry know all versions of a KEK that the provider holds, as
// after the loss of the registry, or of its newest part. Each is tested. Nothing is
// made, and what the registry says of versions that it knows stays. Of a KEK that is
// new to it, the highest version wraps; so does a version above the primary. The
// others unwrap only. Versions of a blocked KEK are blocked.
//
// Numbers from 1 are tried until a hundred in a row are missing, and those in also.
// ErrNotFound when there is no such key in the registry nor the provider: the token is
// the wrong one, or the name. ErrConflict while a first version is being made.
func (m *Manager) AdoptKEK(ctx context.Context, name string, o KEKOptions, also ...uint32) (KEK, error) {
	kek, err := m.adoptKEK(ctx, name, o, also)
	if err != nil {
		return KEK{}, fmt.Errorf("kms: adopting KEK %q: %w", name, err)
	}
	return kek, nil
}

// adoptGap is how many version numbers may be missing in a row, as destroyed.
const adoptGap = 100

func (m *Manager) adoptKEK(ctx context.Context, name string, o KEKOptions, also []uint32) (KEK, error) {
	if err := errors.Join(checkNewKEK(name), o.Change.validate()); err != nil {
		return KEK{}, err
	}
	if _, busy := m.making.LoadOrStore(name, true); busy {
		return KEK{}, conflict("a version of it is being made")
	}
	defer m.making.Delete(name)
	s, err := readMaybe[KEK](ctx, m.registry, kekPath(name))
	if err != nil {
		return KEK{}, err
	}
	if s.exists() && s.record.Primary == 0 {
		return KEK{}, conflict("its first version is not finished")
	}
	if !s.exists() {
		s.record = KEK{Name: name, Provider: m.providerName(o), Created: time.Now().UTC()}
	}
	found, err := m.findVersions(ctx, &s.record, also)
	if err != nil {
		return KEK{}, err
	}
	if len(found) == 0 {
		if !s.exists() {
			return KEK{}, fmt.Errorf("%w: provider %q holds no version of it: is it the right token?", ErrNotFound, s.record.Provider)
		}
		return s.record, nil
	}
	return m.recordAdopted(ctx, s, found, o.Change)
}

// findVersions lists the versions that the provider holds and the record does not
// name, by number, each tested.
func (m *Manager) findVersions(ctx context.Context, kek *KEK, also []uint32) ([]KeyInfo, error) {
	p, err := m.providerOf(kek, 0)
	if err != nil {
		return nil, err
	}
	var found []KeyInfo
	look := func(number uint32) (there bool, err error) {
		if kek.Version(number) != nil {
			return true, nil
		}
		info, err := p.Inspect(ctx, kek.Ref(number))
		if errors.Is(err, ErrNotFound) {
			return false, nil
		}
		if err == nil {
			err = selfTest(ctx, p, kek.Ref(number))
		}
		if err != nil {
			return false, fmt.Errorf("looking at %s: %w", kek.Ref(number), err)
		}
		found = append(found, info)
		return true, nil
	}
	number := uint32(1)
	for missing := 0; missing < adoptGap; number++ {
		there, err := look(number)
		if err != nil {
			return nil, err
		}
		if missing++; there {
			missing = 0
		}
	}
	slices.Sort(also)
	for _, n := range slices.Compact(also) {
		if n < number {
			continue
		}
		if _, err := look(n); err != nil {
			return nil, err
		}
	}
	return found, nil
}

// recordAdopted writes what was found, or returns ErrConflict when the KEK's record
// was changed since it was read.
func (m *Manager) recordAdopted(ctx context.Context, s stored[KEK], found []KeyInfo, by Change) (KEK, error) {
	clock, err := m.clock(ctx)
	if err != nil {
		return KEK{}, err
	}
	e := &kekEdit{kek: s.record, by: by, at: time.Now().UTC()}
	before := e.kek.unusable()
	if err := e.adopt(found, clock); err != nil {
		return KEK{}, err
	}
	last := e.kek.Versions[len(e.kek.Versions)-1].Number
	if err := m.raiseHighest(ctx, e, last); err != nil {
		return KEK{}, err
	}
	if !slices.Equal(before, e.kek.unusable()) {
		if err := m.revokeNarrow(ctx, &e.t); err != nil {
			return KEK{}, err
		}
	}
	if err := m.commitKEK(ctx, s.is, e); err != nil {
		return KEK{}, err
	}
	for _, info := range found {
		m.log.Warn("KEK version adopted", zap.Stringer("key", info.Ref), zap.String("provider", e.kek.Provider),
			zap.String("actor", by.actor()), zap.Uint32("primary", e.kek.Primary))
	}
	return e.kek, nil
}

// adopt adds versions to the record. The highest becomes the primary where a rotation
// would make it so.
func (e *kekEdit) adopt(found []KeyInfo, clock time.Duration) error {
	if len(e.kek.Versions)+len(found) > maxVersions {
		return fmt.Errorf("%w: %d versions are over %d", ErrInvalid, len(e.kek.Versions)+len(found), maxVersions)
	}
	newest := found[len(found)-1].Ref.Version
	leads := newest > e.kek.Primary && e.kek.mayBeSuperseded()
	if leads {
		if err := e.supersede(); err != nil {
			return err
		}
		e.kek.Primary, e.kek.Rotated, e.kek.RotatedClock = newest, e.at, clock
	}
	for _, info := range found {
		v := KEKVersion{
			Number: info.Ref.Version, State: Deactivated, Created: cmp.Or(info.Created, e.at),
			Mechanism: info.Mechanism, URI: info.URI,
		}
		switch {
		case e.kek.Blocked:
			v.State, v.Suspension = Suspended, &Suspension{Before: Deactivated, Whole: true}
		case leads && v.Number == newest:
			v.State = Active
		}
		v.note(e.event("adopted", ""))
		e.kek.Versions = append(e.kek.Versions, v)
	}
	slices.SortFunc(e.kek.Versions, func(a, b KEKVersion) int { return cmp.Compare(a.Number, b.Number) })
	return nil
}

// mayBeSuperseded says whether a version that was found above the primary takes its place: it
// does where the primary wraps, or would but for being blocked alone.
func (k *KEK) mayBeSuperseded() bool {
	v := k.Version(k.Primary)
	switch {
	case v == nil:
		return true
	case k.Blocked || v.Destruction != nil:
		return false
	case v.Suspension != nil:
		return v.Suspension.Before == Active
	}
	return v.State == Active
}

// raiseHighest remembers that numbers up to one were used.
func (m *Manager) raiseHighest(ctx context.Context, e *kekEdit, number uint32) error {
	s, err := readMaybe[highest](ctx, m.registry, highestPath(e.kek.Name))
	if err != nil {
		return err
	}
	item, err := put(s.is.Key, highest{Version: max(s.record.Version, number)})
	e.t.If = append(e.t.If, s.is)
	e.t.Put = append(e.t.Put, item)
	return err
}
