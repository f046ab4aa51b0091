package kms

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// planKEK decides about one KEK, and makes sure that the provider has it.
func (r *restoration) planKEK(ctx context.Context, item Item) error {
	theirs, err := decode[KEK](item)
	if err != nil {
		return err
	}
	kek := theirs.record
	for _, v := range kek.Versions {
		r.keks[kek.Name] = append(r.keks[kek.Name], v.Number)
	}
	if kek.Primary == 0 {
		delete(r.keks, kek.Name)
		r.left[item.Key] = true // its first version was being made
		return nil
	}
	e := &kekEdit{kek: kek, by: r.o.Change, at: time.Now().UTC()}
	if own, ok := r.present[item.Key]; ok {
		ours, err := decode[KEK](own)
		if err != nil {
			return err
		}
		if !ours.record.adopted() {
			return r.proveKEK(ctx, &ours.record)
		}
		if err := e.mergeAdopted(ours.record); err != nil {
			return err
		}
	}
	if err := errors.Join(r.missing(ctx, e), r.proveKEK(ctx, &e.kek)); err != nil {
		return err
	}
	merged, err := put(item.Key, e.kek)
	r.puts = append(r.puts, merged)
	return err
}

// adopted says whether the registry knows no more of a KEK than what its token tells.
func (k *KEK) adopted() bool {
	return len(k.Versions) > 0 && !slices.ContainsFunc(k.Versions, func(v KEKVersion) bool {
		return len(v.History) == 0 || v.History[0].Event != "adopted"
	})
}

// mergeAdopted adds to the snapshot's record what was adopted since, and what was done
// to that: only restrictions.
func (e *kekEdit) mergeAdopted(ours KEK) error {
	if ours.Primary > e.kek.Primary && e.kek.mayBeSuperseded() {
		if err := e.supersede(); err != nil {
			return err
		}
		e.kek.Primary, e.kek.Rotated = ours.Primary, ours.Rotated
	}
	for _, v := range ours.Versions {
		have := e.kek.Version(v.Number)
		switch {
		case have == nil:
			if v.State == Active && v.Number != e.kek.Primary {
				v.State = Deactivated
				v.note(e.event("superseded", ""))
			}
			e.kek.Versions = append(e.kek.Versions, v)
		case have.State != Destroyed && (v.State == Suspended || v.State == Compromised || v.State == Destroyed || v.Destruction != nil):
			*have = v
		}
	}
	slices.SortFunc(e.kek.Versions, func(a, b KEKVersion) int { return int(a.Number) - int(b.Number) })
	if e.kek.Blocked || !ours.Blocked {
		return nil
	}
	e.kek.Blocked = true
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

// missing records versions that the provider does not have as destroyed. The primary
// must be there: without it, the token is the wrong one.
func (r *restoration) missing(ctx context.Context, e *kekEdit) error {
	for i := range e.kek.Versions {
		v := &e.kek.Versions[i]
		if !v.needed() {
			continue
		}
		ref := e.kek.Ref(v.Number)
		p, err := r.providerOf(&e.kek, v.Number)
		if err != nil {
			return err
		}
		_, err = p.Inspect(ctx, ref)
		if err == nil {
			continue
		}
		if !errors.Is(err, ErrNotFound) {
			return fmt.Errorf("looking for %s: %w", ref, err)
		}
		if v.Number == e.kek.Primary {
			return fmt.Errorf("%w: provider %q does not hold %s: is it the right token?", ErrNotFound, e.kek.Holder(v.Number), ref)
		}
		if count := r.under(ref); count > 0 && !r.o.AllowMissing {
			return fmt.Errorf("%w: provider %q does not hold %s, and %d records of the snapshot are under it; they stay closed", ErrNeeded, e.kek.Holder(v.Number), ref, count)
		}
		v.State, v.Suspension, v.Destruction = Destroyed, nil, nil
		v.note(e.event("not in the token at a restore", ""))
		r.notes = append(r.notes, fmt.Sprintf("KEK version %s is not in the token: it is recorded as destroyed", ref))
	}
	return nil
}

// wrapped is what every record with a wrapped secret says.
type wrapped struct {
	KEK        string `json:"kek"`
	KEKVersion uint32 `json:"kek_version"`
}

// under counts the snapshot's records under a KEK version.
func (r *restoration) under(ref KeyRef) (count int) {
	for key, item := range r.items {
		if !strings.HasPrefix(key, bucketKeysRoot) && !strings.HasPrefix(key, accessKeyPath("")) && key != instancePath {
			continue
		}
		if s, err := decode[wrapped](item); err == nil && s.record == (wrapped{ref.Name, ref.Version}) && !r.left[key] {
			count++
		}
	}
	return count
}

// proveKEK opens one bucket key of the snapshot under each version that may unwrap, and
// so finds a token with other keys of the same names.
func (r *restoration) proveKEK(ctx context.Context, kek *KEK) error {
	proved := map[uint32]bool{}
	for key, item := range r.items {
		if !strings.HasPrefix(key, bucketKeysRoot) && !strings.HasPrefix(key, accessKeyPath("")) {
			continue
		}
		ref, b, secret, err := sealedRecord(item)
		if err != nil {
			return err
		}
		if ref.Name != kek.Name || proved[ref.Version] || kek.mayUnwrap(ref.Version) != nil {
			continue
		}
		p, err := r.providerOf(kek, ref.Version)
		if err != nil {
			return err
		}
		if _, err := p.Unwrap(ctx, ref, b, secret); err != nil {
			return fmt.Errorf("opening %q of the snapshot with %s, is it the right token? %w", key, ref, err)
		}
		proved[ref.Version] = true
	}
	return nil
}

// sealedRecord is what is wrapped in a bucket key's or an access key's record.
func sealedRecord(item Item) (KeyRef, Binding, []byte, error) {
	if strings.HasPrefix(item.Key, bucketKeysRoot) {
		s, err := decode[BucketKey](item)
		return s.record.ref(), s.record.binding(), s.record.Wrapped, err
	}
	s, err := decode[AccessKey](item)
	return s.record.ref(), s.record.binding(), s.record.Wrapped, err
}
