package kms

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// KEK is a key encryption key: a name, its versions, and what may be done with them.
type KEK struct {
	Name     string       `json:"name"`
	Provider string       `json:"provider"` // name of the provider that makes its versions
	Primary  uint32       `json:"primary"`  // version that wraps; 0 while the first is being made
	Versions []KEKVersion `json:"versions"` // by number; numbers only grow
	Created  time.Time    `json:"created"`
	// Maker is the Manager that is making the last version, until it is active.
	Maker string `json:"maker,omitempty"`
	// Blocked: the whole KEK is blocked, also versions that are still to be made.
	Blocked bool `json:"blocked,omitempty"`
	// Rotated is when the primary version became it, for people, and RotatedClock
	// the same on the clock of the keeper (keeper.go), for the next rotation.
	Rotated      time.Time     `json:"rotated,omitzero"`
	RotatedClock time.Duration `json:"rotated_clock,omitempty"`
	// AutoRotate is the age at which the primary is replaced. 0: never by itself.
	AutoRotate time.Duration `json:"auto_rotate_period,omitempty"`
	// MinDecryption: versions before it do not unwrap. 0: all do.
	MinDecryption uint32 `json:"min_decryption_version,omitempty"`
	// DeletionAllowed: versions may be scheduled for destruction.
	DeletionAllowed bool `json:"deletion_allowed,omitempty"`
	// WaitingPeriod lies between the scheduling of a destruction and the
	// destruction. 0 means DefaultWaitingPeriod.
	WaitingPeriod time.Duration `json:"waiting_period,omitempty"`
	// History is of the settings and of the KEK as a whole.
	History []StateChange `json:"history,omitempty"`
}

// DefaultWaitingPeriod is how long a destruction can be taken back where nothing
// else was set.
const DefaultWaitingPeriod = 7 * 24 * time.Hour

// maxVersions keeps the record under what a registry takes (etcd: 1.5 MB).
const maxVersions = 1000

// KEKVersion is one key in a provider.
type KEKVersion struct {
	Number uint32   `json:"number"`
	State  KeyState `json:"state"`
	// Provider holds the version. Empty: that of the KEK.
	Provider  string    `json:"provider,omitempty"`
	Created   time.Time `json:"created"`
	Mechanism string    `json:"mechanism,omitempty"`
	URI       string    `json:"uri,omitempty"`
	// Suspension is set while the state is Suspended.
	Suspension *Suspension `json:"suspension,omitempty"`
	// Destruction is set while the version waits for its end.
	Destruction *Destruction  `json:"destruction,omitempty"`
	History     []StateChange `json:"history"`
}

// Suspension remembers what a blocked version was.
type Suspension struct {
	Before KeyState `json:"before"`
	Whole  bool     `json:"whole"` // blocked with the whole KEK, and unblocked with it
}

// Destruction is planned for a version. Until it has started it can be taken back.
// While it is there, the version does nothing: whoever still needs it finds out
// while there is time.
type Destruction struct {
	Scheduled time.Time `json:"scheduled"`
	// Due is the earliest time by the clock on the wall, and DueClock by that of the
	// keeper. Both must have come, so that no jump of a clock shortens the wait.
	Due      time.Time     `json:"due"`
	DueClock time.Duration `json:"due_clock"`
	// Started: the provider may have destroyed the key already.
	Started bool `json:"started,omitempty"`
}

// StateChange is one line of a history.
type StateChange struct {
	Event string `json:"event,omitempty"` // "created", "blocked", ...
	// State after it, of a version; empty in the history of the KEK.
	State  KeyState  `json:"state,omitempty"`
	At     time.Time `json:"at"`
	Actor  string    `json:"actor"`
	Reason string    `json:"reason,omitempty"`
}

// maxHistory bounds each history. The first line always stays.
const maxHistory = 200

func remember(history []StateChange, c StateChange) []StateChange {
	if len(history) >= maxHistory {
		history = slices.Delete(history, 1, 2)
	}
	return append(history, c)
}

// change moves the version to another state and writes its history, or refuses.
func (v *KEKVersion) change(c StateChange) error {
	if !slices.Contains(v.State.successors(), c.State) {
		return fmt.Errorf("%w: a key that is %s cannot become %s", ErrInvalid, v.State, c.State)
	}
	v.State = c.State
	v.History = remember(v.History, c)
	return nil
}

// note writes a line of history that leaves the state as it is.
func (v *KEKVersion) note(c StateChange) {
	c.State = v.State
	v.History = remember(v.History, c)
}

// needed says whether the provider must hold the version.
func (v *KEKVersion) needed() bool {
	return v.State.needed() && (v.Destruction == nil || !v.Destruction.Started)
}

// making says whether the version is not finished and may still become active.
func (v *KEKVersion) making() bool { return v.State == PreActive && v.Destruction == nil }

// Version finds a version by its number, or returns nil.
func (k *KEK) Version(number uint32) *KEKVersion {
	for i := range k.Versions {
		if k.Versions[i].Number == number {
			return &k.Versions[i]
		}
	}
	return nil
}

// Holder is the name of the provider that holds a version, or would make it.
func (k *KEK) Holder(number uint32) string {
	if v := k.Version(number); v != nil && v.Provider != "" {
		return v.Provider
	}
	return k.Provider
}

// move makes a provider the one that makes versions. Those that are there stay where
// they are.
func (k *KEK) move(provider string) {
	if provider == k.Provider {
		return
	}
	for i := range k.Versions {
		if k.Versions[i].Provider == "" {
			k.Versions[i].Provider = k.Provider
		}
	}
	k.Provider = provider
}

// Ref names a version of the KEK.
func (k *KEK) Ref(number uint32) KeyRef { return KeyRef{Name: k.Name, Version: number} }

// Wait is how long a destruction can be taken back.
func (k *KEK) Wait() time.Duration {
	if k.WaitingPeriod == 0 {
		return DefaultWaitingPeriod
	}
	return k.WaitingPeriod
}

// Status is the state of the whole: "making", "active", "blocked", "deactivated" (it
// wraps nothing), "scheduled" (to be destroyed) or "destroyed".
func (k *KEK) Status() string {
	v := k.Version(k.Primary)
	switch {
	case v == nil:
		return "making"
	case k.Blocked:
		return "blocked"
	case v.State == Suspended:
		return "blocked"
	case v.State == Destroyed:
		return string(Destroyed)
	case v.Destruction != nil:
		return "scheduled"
	}
	return string(v.State)
}

// retired says whether the KEK wraps nothing any more, and not only for now.
func (k *KEK) retired() bool {
	v := k.Version(k.Primary)
	if v == nil {
		return false
	}
	if v.Suspension != nil {
		return v.Suspension.Before != Active
	}
	return v.State != Active && v.State != Suspended
}

// mayWrap returns nil when the primary version may wrap, or else ErrDisabled.
func (k *KEK) mayWrap() error {
	v := k.Version(k.Primary)
	if v == nil || !v.State.CanWrap() || v.Destruction != nil {
		return fmt.Errorf("KEK %q has no active version (it is %s): %w", k.Name, k.Status(), ErrDisabled)
	}
	return nil
}

// mayUnwrap returns nil when a version may unwrap, ErrDisabled when it may not, and
// ErrUnavailable when the registry does not know it.
func (k *KEK) mayUnwrap(number uint32) error {
	v := k.Version(number)
	switch {
	case v == nil:
		return fmt.Errorf("%w: KEK version %s is not in the registry", ErrUnavailable, k.Ref(number))
	case !v.State.CanUnwrap():
		return fmt.Errorf("KEK version %s is %s: %w", k.Ref(number), v.State, ErrDisabled)
	case v.Destruction != nil:
		return fmt.Errorf("KEK version %s is to be destroyed: %w", k.Ref(number), ErrDisabled)
	case number < k.MinDecryption:
		return fmt.Errorf("KEK version %s is older than min_decryption_version %d: %w", k.Ref(number), k.MinDecryption, ErrDisabled)
	}
	return nil
}

// kekEdit is a change of one KEK on its way into the registry.
type kekEdit struct {
	kek  KEK
	by   Change
	at   time.Time
	t    Transaction // what goes along with the record
	same bool        // nothing is to be done
}

// event is a line of history.
func (e *kekEdit) event(name string, state KeyState) StateChange {
	return StateChange{Event: name, State: state, At: e.at, Actor: e.by.actor(), Reason: e.by.Reason}
}

// version finds a version that somebody named.
func (e *kekEdit) version(number uint32) (*KEKVersion, error) {
	v := e.kek.Version(number)
	if v == nil {
		return nil, fmt.Errorf("version %d: %w", number, ErrNotFound)
	}
	return v, nil
}

// errSettled ends the tries of editKEK with an ErrConflict of f's own.
type errSettled struct{ error }

func (e errSettled) Unwrap() error { return e.error }

// conflict is an ErrConflict that trying again at once does not mend.
func conflict(format string, args ...any) error {
	return errSettled{fmt.Errorf("%w: %s", ErrConflict, fmt.Sprintf(format, args...))}
}

// editKEK reads a KEK, has f change it, and records it in one transaction; again
// when somebody else changed it meanwhile. An error of f changes nothing.
func (m *Manager) editKEK(ctx context.Context, name string, by Change, f func(*kekEdit) error) (KEK, error) {
	if err := errors.Join(checkName("KEK", name), by.validate()); err != nil {
		return KEK{}, err
	}
	var kek KEK
	err := retry(ctx, func() error {
		s, err := m.findKEK(ctx, name)
		if err != nil {
			return err
		}
		e := &kekEdit{kek: s.record, by: by, at: time.Now().UTC()}
		before := e.kek.unusable()
		if err := f(e); err != nil {
			return err
		}
		kek = e.kek
		if e.same {
			return nil
		}
		if !slices.Equal(before, kek.unusable()) { // gateways are told at once
			if err := m.revokeNarrow(ctx, &e.t); err != nil {
				return err
			}
		}
		return m.commitKEK(ctx, s.is, e)
	})
	if err != nil {
		return KEK{}, err
	}
	return kek, nil
}

// findKEK reads a KEK that somebody named.
func (m *Manager) findKEK(ctx context.Context, name string) (stored[KEK], error) {
	s, err := read[KEK](ctx, m.registry, kekPath(name))
	if errors.Is(err, ErrNotFound) {
		err = ErrNotFound // where it was looked for helps nobody
	}
	return s, err
}

func (m *Manager) commitKEK(ctx context.Context, is Condition, e *kekEdit) error {
	item, err := put(is.Key, e.kek)
	if err != nil {
		return err
	}
	e.t.If = append(e.t.If, is)
	e.t.Put = append(e.t.Put, item)
	return m.registry.Commit(ctx, e.t)
}

// permit asks the rules of dual control about an operation on a KEK, or on a version
// of it (0: the whole), and puts the Grant into the transaction.
func (m *Manager) permit(ctx context.Context, e *kekEdit, action Action, version uint32, params map[string]string) error {
	resource := "key/" + e.kek.Name
	if version != 0 {
		resource = "key/" + e.kek.Ref(version).String()
		if params == nil {
			params = map[string]string{}
		}
		// A KEK may be named like a version of another.
		params["version"] = fmt.Sprint(version)
	}
	grant, err := m.gate.Permit(ctx, e.by.operation(action, resource, params))
	if err != nil {
		return err
	}
	e.t.If = append(e.t.If, grant.If...)
	e.t.Put = append(e.t.Put, grant.Put...)
	return nil
}
