package kms

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"sync"
	"time"
)

// LedgerStage says what a bucket's ledger is good for. The empty one is that of a bucket
// without the rollback guard.
type LedgerStage string

// The stages.
const (
	// LedgerLearning: objects that were there before are being taken in. What the ledger
	// does not know is believed.
	LedgerLearning LedgerStage = "learning"
	// LedgerOn: what the ledger does not know is not there.
	LedgerOn LedgerStage = "on"
	// LedgerLost: the registry was restored from a snapshot, which has no ledgers. Nothing
	// is believed until the ledger learns anew.
	LedgerLost LedgerStage = "lost"
)

// Ledger is a bucket's rollback guard.
type Ledger struct {
	Stage LedgerStage `json:"stage"`
	// Key is the bucket key that gateways derive the key of their digests from: one that
	// stays for as long as the bucket. Zero until the bucket is active.
	Key KeyID `json:"key,omitzero"`
	// Since is when it began to learn, or the bucket was registered with it.
	Since time.Time `json:"since"`
}

// ledgerState is what a transaction on an entry holds on: it is changed when the guard
// is set, when learning ends, and gone when the bucket is.
type ledgerState struct {
	Stage LedgerStage `json:"stage"`
	Since time.Time   `json:"since"`
}

// ledgerScan is how far learning has come.
type ledgerScan struct {
	Runner string    `json:"runner,omitempty"`
	Beat   time.Time `json:"beat,omitzero"`
	// Cursor is where the next gateway goes on: sealed by gateways, as it is a name.
	Cursor  []byte `json:"cursor,omitempty"`
	Learned uint64 `json:"learned"`
	Trouble string `json:"trouble,omitempty"`
}

const (
	ledgerRoot      = "ledger/"
	ledgerStateRoot = "ledgers/"
	ledgerScanRoot  = "ledgerscans/"
)

func ledgerPath(space string) string      { return ledgerRoot + space + "/" }
func ledgerStatePath(space string) string { return ledgerStateRoot + space }
func ledgerScanPath(space string) string  { return ledgerScanRoot + space }

func ledgerEntryPath(space string, name LedgerMark) string { return ledgerPath(space) + name.String() }

// ledgers is what a Manager keeps in memory of ledgers.
type ledgers struct {
	seed   maphash.Seed
	locks  [256]sync.Mutex // by object: transactions of this process on one entry take turns
	states sync.Map        // stored[ledgerState] by space; a transaction finds out when one is old
	seen   sync.Map        // time.Time by ledgerState: when this process saw it first
}

func newLedgers() *ledgers { return &ledgers{seed: maphash.MakeSeed()} }

// lock has the transactions of this process on an entry take turns: others than those
// of other processes never conflict.
func (l *ledgers) lock(path string) (unlock func()) {
	mu := &l.locks[maphash.String(l.seed, path)%uint64(len(l.locks))]
	mu.Lock()
	return mu.Unlock
}

// LedgerView is an entry as it was at a revision. A revision of 0 means that there is
// none: the entry is then empty, which says that nothing is there, and means so where
// Stage is LedgerOn.
type LedgerView struct {
	Stage    LedgerStage // empty: the guard is off, and the rest means nothing
	Revision int64
	Entry    LedgerEntry
	Now      time.Time // by the clock that the entry's times are of
}

// LookLedger reads what the ledger has of an object. It sees all that was acknowledged
// before it began. ErrNotFound for a space of no bucket.
func (m *Manager) LookLedger(ctx context.Context, space string, name LedgerMark) (LedgerView, error) {
	view, err := m.lookLedger(ctx, space, name)
	if err != nil {
		return LedgerView{}, fmt.Errorf("kms: looking into the ledger of space %q: %w", space, err)
	}
	return view, nil
}

func (m *Manager) lookLedger(ctx context.Context, space string, name LedgerMark) (LedgerView, error) {
	if err := errors.Join(checkSpace(space), name.validate()); err != nil {
		return LedgerView{}, err
	}
	var state stored[ledgerState]
	var stateErr error
	done := make(chan struct{})
	go func() { // both reads need a quorum: at the same time they take as long as one
		defer close(done)
		state, stateErr = m.readLedgerState(ctx, space)
	}()
	entry, err := readMaybe[LedgerEntry](ctx, m.registry, ledgerEntryPath(space, name))
	<-done
	if err := errors.Join(err, stateErr); err != nil {
		return LedgerView{}, err
	}
	if !entry.exists() {
		entry.record = NewLedgerEntry(state.record.Stage)
	}
	return LedgerView{Stage: state.record.Stage, Revision: entry.is.Revision, Entry: entry.record, Now: time.Now().UTC()}, nil
}

// readLedgerState reads the state of a ledger: that of none is the zero one, and that
// of one which the bucket has and the registry does not is LedgerLost.
func (m *Manager) readLedgerState(ctx context.Context, space string) (stored[ledgerState], error) {
	state, err := readMaybe[ledgerState](ctx, m.registry, ledgerStatePath(space))
	if err != nil || state.exists() {
		return state, err
	}
	b, err := m.bucketOf(ctx, space)
	if err == nil && b.record.Ledger != nil {
		state.record.Stage = LedgerLost
	}
	return state, err
}

func (m LedgerMark) validate() error {
	if m.IsZero() {
		return fmt.Errorf("%w: no name", ErrInvalid)
	}
	return nil
}

// LedgerAttempt names a write of an object.
type LedgerAttempt struct {
	Space string
	Name  LedgerMark
	ID    LedgerMark // random; zero is refused
	Tag   LedgerMark // of what is written; zero: it is a deletion
}

func (a LedgerAttempt) validate() error {
	if a.ID.IsZero() || a.Tag == UnknownLedgerMark() {
		return fmt.Errorf("%w: an attempt without id, or with a tag that stands for any", ErrInvalid)
	}
	return errors.Join(checkSpace(a.Space), a.Name.validate())
}

// BeginWrite notes that a write is about to be sent to the store; until its end is told,
// it may be what the store has. Said again, it is a sign that the writer lives. Where
// the guard is off nothing is noted. ErrBusy, ErrFull, ErrConflict where the ledger is
// lost.
func (m *Manager) BeginWrite(ctx context.Context, a LedgerAttempt) error {
	return m.editEntry(ctx, "beginning a write", a, func(e *LedgerEntry) error {
		if err := m.mayBegin(e, a); err != nil {
			return err
		}
		return e.Begin(a.ID, a.Tag, time.Now().UTC())
	})
}

// EndWrite notes what the store has answered to a write: that it has carried it out, or
// that it has not. Errors as of BeginWrite, less ErrFull: what was begun may end.
func (m *Manager) EndWrite(ctx context.Context, a LedgerAttempt, applied bool) error {
	return m.editEntry(ctx, "ending a write", a, func(e *LedgerEntry) error {
		if applied {
			e.Applied(a.ID, a.Tag)
		} else {
			e.Refused(a.ID)
		}
		return nil
	})
}

// editEntry has f change an entry while the guard is on.
func (m *Manager) editEntry(ctx context.Context, doing string, a LedgerAttempt, f func(*LedgerEntry) error) error {
	err := a.validate()
	if err == nil {
		err = m.inEntry(ctx, a.Space, a.Name, func(e *LedgerEntry, _ int64) error { return f(e) })
	}
	if err != nil {
		return fmt.Errorf("kms: %s in space %q: %w", doing, a.Space, err)
	}
	return nil
}

// inEntry has f change an entry, which has a revision, and writes it on the condition
// that it and the ledger's state are as they were. Where the guard is off, f is not
// called. An error of f changes nothing.
func (m *Manager) inEntry(ctx context.Context, space string, name LedgerMark, f func(e *LedgerEntry, revision int64) error) error {
	path := ledgerEntryPath(space, name)
	defer m.ledgers.lock(path)()
	return retry(ctx, func() error {
		state, err := m.heldLedgerState(ctx, space)
		if err != nil || state.record.Stage == "" {
			return err
		}
		if state.record.Stage == LedgerLost {
			return conflict("the ledger of the bucket is lost, and must learn anew")
		}
		entry, err := readMaybe[LedgerEntry](ctx, m.registry, path)
		if err != nil {
			return err
		}
		if !entry.exists() {
			entry.record = NewLedgerEntry(state.record.Stage)
		}
		if err := f(&entry.record, entry.is.Revision); err != nil {
			return err
		}
		return m.putEntry(ctx, space, state, entry)
	})
}

// putEntry writes an entry. One that says no more than that nothing is there is left
// out; but not while the ledger learns, or what was deleted meanwhile would be taken in.
func (m *Manager) putEntry(ctx context.Context, space string, state stored[ledgerState], entry stored[LedgerEntry]) error {
	t := Transaction{If: []Condition{state.is, entry.is}}
	if entry.record.compact(); entry.record.Absent() && state.record.Stage == LedgerOn {
		t.Delete = []string{entry.is.Key}
	} else {
		item, err := put(entry.is.Key, entry.record)
		if err != nil {
			return err
		}
		t.Put = []Item{item}
	}
	err := m.registry.Commit(ctx, t)
	if errors.Is(err, ErrConflict) {
		m.ledgers.states.Delete(space)
	}
	return err
}

// heldLedgerState is readLedgerState from memory: what is written holds on it.
func (m *Manager) heldLedgerState(ctx context.Context, space string) (stored[ledgerState], error) {
	if held, ok := m.ledgers.states.Load(space); ok {
		if state, ok := held.(stored[ledgerState]); ok {
			return state, nil
		}
	}
	state, err := m.readLedgerState(ctx, space)
	if err == nil && state.exists() {
		m.ledgers.states.Store(space, state)
	}
	return state, err
}

// Sighting is what a reader has found in the store.
type Sighting struct {
	Space string
	Name  LedgerMark
	Tag   LedgerMark // zero: there was nothing
	// ID is of an open write, whose tag it was; zero: of one that has ended, and Revision
	// is then that of the entry, which was read before the store was.
	ID       LedgerMark
	Revision int64
}

// SettleLedger takes in what a reader has found: of an open write that the store has
// carried it out, and of several that have ended which was the last. ErrConflict where
// the entry has changed since.
func (m *Manager) SettleLedger(ctx context.Context, s Sighting) error {
	err := errors.Join(checkSpace(s.Space), s.Name.validate())
	if err == nil {
		err = m.inEntry(ctx, s.Space, s.Name, func(e *LedgerEntry, revision int64) error {
			return s.TakeIn(e, revision, time.Now().UTC())
		})
	}
	if err != nil {
		return fmt.Errorf("kms: settling an entry of space %q: %w", s.Space, err)
	}
	return nil
}

// TakeIn changes an entry, which has a revision, by what was seen.
func (s Sighting) TakeIn(e *LedgerEntry, revision int64, now time.Time) error {
	switch {
	case s.ID.IsZero() && revision != s.Revision:
		return conflict("the entry has changed")
	case s.ID.IsZero():
		return e.Settle(s.Tag, now)
	case e.find(s.ID) >= 0: // else its writer was first
		e.Applied(s.ID, s.Tag)
	}
	return nil
}
