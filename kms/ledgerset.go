package kms

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.uber.org/zap"
)

// LedgerSetting is what an administrator wants of a bucket's rollback guard.
type LedgerSetting string

// The settings.
const (
	// LedgerSetOn switches it on: a gateway takes the bucket's objects in. It changes
	// nothing where it is on.
	LedgerSetOn LedgerSetting = "on"
	// LedgerSetOff forgets the ledger.
	LedgerSetOff LedgerSetting = "off"
	// LedgerSetRelearn forgets the ledger and takes in what the store has now, whatever
	// that is: after the registry was restored, or where an alarm was found to be false.
	LedgerSetRelearn LedgerSetting = "relearn"
)

const (
	// ledgerSettle is how long after the guard was set learning begins: by then no
	// gateway has an older record of the bucket (its life is 10 s, a lease's 15 s).
	ledgerSettle = 30 * time.Second
	// ledgerScanSilence is how long a gateway that learns may say nothing before another
	// takes over.
	ledgerScanSilence = 10 * time.Second
	// MaxLedgerLines is how many objects are learned at once: as many as fit into one
	// transaction, with what it holds on.
	MaxLedgerLines = MaxTransaction - 1
	maxCursor      = 2048
)

// setLedger adds a change of the guard to a transaction, and says whether there is one.
func (m *Manager) setLedger(ctx context.Context, b *Bucket, want LedgerSetting, t *Transaction, by Change) (bool, error) {
	on := b.Ledger != nil
	switch {
	case want == LedgerSetOff && on:
		b.note("rollback guard is off", by)
		b.Ledger = nil
		t.dropLedger(b.Space)
		return true, nil
	case want == LedgerSetOff, want == LedgerSetOn && on:
		return false, nil
	case want != LedgerSetOn && want != LedgerSetRelearn:
		return false, fmt.Errorf("%w: rollback guard %q: want on, off or relearn", ErrInvalid, want)
	case want == LedgerSetRelearn && !on:
		return false, fmt.Errorf("%w: the rollback guard is off", ErrInvalid)
	case b.State != BucketActive:
		return false, conflict("it is %s", b.State)
	}
	if err := m.newLedger(ctx, b, t); err != nil {
		return false, err
	}
	b.note("rollback guard learns what the backend has", by)
	return true, nil
}

// keyOfLedger chooses the key of a new bucket's ledger: its first.
func (m *Manager) keyOfLedger(ctx context.Context, b *Bucket) error {
	if b.Ledger == nil || b.Ledger.Key != (KeyID{}) {
		return nil
	}
	cur, err := read[current](ctx, m.registry, currentPath(b.Space))
	if err != nil {
		return fmt.Errorf("finding its first key: %w", invalidIfNotFound(err))
	}
	b.Ledger.Key = cur.record.ID
	return nil
}

// newLedger has a bucket's ledger begin anew, with nothing in it.
func (m *Manager) newLedger(ctx context.Context, b *Bucket, t *Transaction) error {
	cur, err := read[current](ctx, m.registry, currentPath(b.Space))
	if errors.Is(err, ErrNotFound) {
		return fmt.Errorf("%w: the bucket has no key yet", ErrInvalid)
	}
	if err != nil {
		return err
	}
	b.Ledger = &Ledger{Stage: LedgerLearning, Key: cur.record.ID, Since: time.Now().UTC()}
	t.dropLedger(b.Space)
	t.Delete = slices.DeleteFunc(t.Delete, func(key string) bool { return key == ledgerStatePath(b.Space) })
	item, err := ledgerStateItem(*b)
	t.Put = append(t.Put, item)
	return err
}

func ledgerStateItem(b Bucket) (Item, error) {
	return put(ledgerStatePath(b.Space), ledgerState{Stage: b.Ledger.Stage, Since: b.Ledger.Since})
}

// dropLedger removes all of a ledger.
func (t *Transaction) dropLedger(space string) {
	t.Delete = append(t.Delete, ledgerStatePath(space), ledgerScanPath(space))
	t.DeletePrefix = append(t.DeletePrefix, ledgerPath(space))
}

// LearningBuckets lists buckets whose ledgers have objects to take in, at which nobody
// is. A bucket is listed once this process has known of it for long enough.
func (m *Manager) LearningBuckets(ctx context.Context) ([]Bucket, error) {
	all, err := m.registry.List(ctx, ledgerStateRoot)
	if err != nil {
		return nil, fmt.Errorf("kms: listing ledgers that learn: %w", err)
	}
	var out []Bucket
	for _, item := range all {
		b, ok, err := m.learning(ctx, item)
		if err != nil {
			return nil, fmt.Errorf("kms: listing ledgers that learn: %w", err)
		}
		if ok {
			out = append(out, b)
		}
	}
	return out, nil
}

func (m *Manager) learning(ctx context.Context, item Item) (Bucket, bool, error) {
	state, err := decode[ledgerState](item)
	if err != nil || state.record.Stage != LedgerLearning {
		return Bucket{}, false, err
	}
	space := item.Key[len(ledgerStateRoot):]
	if !m.ledgerSettled(space, state.record) {
		return Bucket{}, false, nil
	}
	scan, err := readMaybe[ledgerScan](ctx, m.registry, ledgerScanPath(space))
	if err != nil || !scan.record.idle() {
		return Bucket{}, false, err
	}
	b, err := m.bucketOf(ctx, space)
	if errors.Is(err, ErrNotFound) {
		return Bucket{}, false, nil // it was removed
	}
	return b.record, err == nil, err
}

// ledgerSettled says whether this process has known for long enough that a ledger
// learns. Only a duration on its own clock counts.
func (m *Manager) ledgerSettled(space string, state ledgerState) bool {
	since, _ := m.ledgers.seen.LoadOrStore(space+state.Since.String(), time.Now())
	first, ok := since.(time.Time)
	return ok && time.Since(first) >= m.ledgerSettle
}

// idle says whether nobody takes objects in, or has not been heard of.
func (s ledgerScan) idle() bool {
	silent := time.Since(s.Beat)
	return s.Runner == "" || silent > ledgerScanSilence || silent < -ledgerScanSilence
}

// LedgerLine is an object that was found.
type LedgerLine struct{ Name, Tag LedgerMark }

// LedgerLesson is what a gateway tells of the objects that it has found. With nothing
// but Space and Runner it takes the work over.
type LedgerLesson struct {
	Space  string
	Runner string // a name that nobody else has
	Lines  []LedgerLine
	Cursor []byte // where the next gateway goes on; of no meaning to the KMS
	Ended  bool   // all were found
	// Refused is why the bucket cannot have the guard: it is off then. Trouble is why the
	// work does not go on for now.
	Refused, Trouble string
}

func (l LedgerLesson) validate() error {
	if len(l.Runner) < 16 || len(l.Runner) > 64 || len(l.Refused) > maxAdoptionText || len(l.Trouble) > maxAdoptionText {
		return fmt.Errorf("%w: a text of a lesson has the wrong length", ErrInvalid)
	}
	if len(l.Lines) > MaxLedgerLines || len(l.Cursor) > maxCursor {
		return fmt.Errorf("%w: a lesson of %d lines and a cursor of %d bytes", ErrInvalid, len(l.Lines), len(l.Cursor))
	}
	return checkSpace(l.Space)
}

// Learn takes objects in that the ledger does not know; what was written or deleted
// since it began it knows better. It returns the cursor. ErrConflict where another
// gateway is at it, or the ledger does not learn. ErrFull for a lesson with lines.
func (m *Manager) Learn(ctx context.Context, l LedgerLesson) ([]byte, error) {
	err := l.validate()
	if err == nil && len(l.Lines) > 0 {
		err = m.mayAdd(writeShare)
	}
	var cursor []byte
	if err == nil {
		cursor, err = m.learn(ctx, l)
	}
	if err != nil {
		return nil, fmt.Errorf("kms: learning the objects of space %q: %w", l.Space, err)
	}
	return cursor, nil
}

func (m *Manager) learn(ctx context.Context, l LedgerLesson) ([]byte, error) {
	state, err := m.readLedgerState(ctx, l.Space)
	if err != nil {
		return nil, err
	}
	if state.record.Stage != LedgerLearning {
		return nil, conflict("the ledger does not learn")
	}
	scan, err := m.claimScan(ctx, l)
	if err != nil {
		return nil, err
	}
	learned, err := m.learnLines(ctx, state, l)
	if err != nil {
		return nil, err
	}
	if l.Ended || l.Refused != "" {
		return nil, m.endLearning(ctx, l, scan.Learned+learned)
	}
	return m.noteScan(ctx, l, learned)
}

// claimScan makes sure that the work is the runner's.
func (m *Manager) claimScan(ctx context.Context, l LedgerLesson) (ledgerScan, error) {
	var out ledgerScan
	err := retry(ctx, func() error {
		scan, err := readMaybe[ledgerScan](ctx, m.registry, ledgerScanPath(l.Space))
		if err != nil {
			return err
		}
		if out = scan.record; out.Runner == l.Runner {
			return nil
		}
		if !out.idle() {
			return conflict("another gateway is at it")
		}
		out.Runner, out.Beat = l.Runner, time.Now().UTC()
		return m.commitScan(ctx, scan.is, out)
	})
	return out, err
}

func (m *Manager) commitScan(ctx context.Context, is Condition, scan ledgerScan) error {
	item, err := put(is.Key, scan)
	if err != nil {
		return err
	}
	return m.registry.Commit(ctx, Transaction{If: []Condition{is}, Put: []Item{item}})
}

// noteScan writes down how far the runner has come.
func (m *Manager) noteScan(ctx context.Context, l LedgerLesson, learned uint64) (cursor []byte, err error) {
	err = retry(ctx, func() error {
		scan, err := read[ledgerScan](ctx, m.registry, ledgerScanPath(l.Space))
		if err != nil {
			return err
		}
		next := scan.record
		if next.Runner != l.Runner {
			return conflict("another gateway is at it")
		}
		next.Beat, next.Trouble = time.Now().UTC(), l.Trouble
		if l.Trouble != "" {
			next.Runner = ""
		}
		if next.Learned += learned; len(l.Cursor) > 0 {
			next.Cursor = l.Cursor
		}
		cursor = next.Cursor
		return m.commitScan(ctx, scan.is, next)
	})
	return cursor, err
}

// learnLines takes in what is not known: all at once, or one by one where some are.
func (m *Manager) learnLines(ctx context.Context, state stored[ledgerState], l LedgerLesson) (uint64, error) {
	err := m.learnAll(ctx, state, l.Space, l.Lines)
	if err == nil || !errors.Is(err, ErrConflict) {
		return uint64(len(l.Lines)), err
	}
	n := uint64(0)
	for _, line := range l.Lines {
		known, err := readMaybe[LedgerEntry](ctx, m.registry, ledgerEntryPath(l.Space, line.Name))
		if err == nil && !known.exists() {
			err = m.learnAll(ctx, state, l.Space, []LedgerLine{line})
			n++
		}
		if err != nil && !errors.Is(err, ErrConflict) { // a conflict: a client was first
			return n, err
		}
	}
	return n, nil
}

func (m *Manager) learnAll(ctx context.Context, state stored[ledgerState], space string, lines []LedgerLine) error {
	if len(lines) == 0 {
		return nil
	}
	t := Transaction{If: []Condition{state.is}}
	for _, line := range lines {
		if line.Name.IsZero() || line.Tag.IsZero() {
			return fmt.Errorf("%w: a line without name or tag", ErrInvalid)
		}
		item, err := put(ledgerEntryPath(space, line.Name), LedgerEntry{Events: 2, Writes: []LedgerWrite{{Tag: line.Tag, Begin: 1, End: 2}}})
		if err != nil {
			return err
		}
		t.If, t.Put = append(t.If, absent(item.Key)), append(t.Put, item)
	}
	return m.registry.Commit(ctx, t)
}

// endLearning puts the guard on, or off where the bucket cannot have it.
func (m *Manager) endLearning(ctx context.Context, l LedgerLesson, learned uint64) error {
	s, err := m.bucketOf(ctx, l.Space)
	if err != nil {
		return err
	}
	b, err := m.editBucket(ctx, s.record.Name, Change{}, func(b *Bucket, t *Transaction) (bool, error) {
		if b.Space != l.Space || b.Ledger == nil || b.Ledger.Stage != LedgerLearning {
			return false, conflict("the ledger does not learn")
		}
		if l.Refused != "" {
			b.Ledger = nil
			b.note("rollback guard was refused: "+l.Refused, Change{})
			t.dropLedger(b.Space)
			return true, nil
		}
		b.Ledger = &Ledger{Stage: LedgerOn, Key: b.Ledger.Key, Since: b.Ledger.Since}
		b.note(fmt.Sprintf("rollback guard is on: %d objects were taken in", learned), Change{})
		item, err := ledgerStateItem(*b)
		t.Put, t.Delete = append(t.Put, item), append(t.Delete, ledgerScanPath(b.Space))
		return true, err
	})
	if err == nil {
		m.log.Info("a ledger has learned", zap.String("bucket", b.Name), zap.Uint64("objects", learned), zap.String("refused", l.Refused))
	}
	return err
}

// LedgerProgress says how many objects a ledger has taken in, and why it does not go on.
func (m *Manager) LedgerProgress(ctx context.Context, space string) (learned uint64, trouble string, err error) {
	scan, err := readMaybe[ledgerScan](ctx, m.registry, ledgerScanPath(space))
	if err != nil {
		return 0, "", fmt.Errorf("kms: finding the progress of a ledger: %w", err)
	}
	return scan.record.Learned, scan.record.Trouble, nil
}
