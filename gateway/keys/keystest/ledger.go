package keystest

import (
	"context"
	"time"

	"chatelaine/gateway/keys"
	"chatelaine/kms"
)

// LedgerStage is what a ledger is good for; an empty one is that of no guard.
type LedgerStage = kms.LedgerStage

// The stages.
const (
	LedgerLearning = kms.LedgerLearning
	LedgerOn       = kms.LedgerOn
	LedgerLost     = kms.LedgerLost
)

// LedgerSilence is after how long without a sign a write counts as ended.
const LedgerSilence = kms.LedgerSilence

// ledgers are the rollback guards of buckets, by the rules of the KMS.
type ledgers struct {
	stages   map[keys.Space]kms.LedgerStage
	entries  map[ledgerKey]ledgerEntry
	cursors  map[keys.Space][]byte
	lessons  map[keys.Space]keys.LedgerLesson // the last
	revision int64
	now      time.Duration // how far the clock was set forward
	calls    int
	before   func(op string) error
}

type ledgerKey struct {
	space keys.Space
	name  keys.Mark
}

type ledgerEntry struct {
	kms.LedgerEntry
	revision int64
}

// Guard gives a bucket the rollback guard in a stage, with an empty ledger; an empty
// stage takes it away.
func (r *Ring) Guard(name string, stage LedgerStage) keys.Bucket {
	r.mu.Lock()
	defer r.mu.Unlock()
	b := r.buckets[name]
	if b.Guarded = stage != ""; len(r.keys[b.Space]) == 0 {
		r.newKey(b.Space)
	}
	b.LedgerKey = r.keys[b.Space][0].ID
	r.buckets[name] = b
	l := &r.ledgers
	if l.stages == nil {
		l.stages, l.cursors = map[keys.Space]kms.LedgerStage{}, map[keys.Space][]byte{}
		l.lessons, l.entries = map[keys.Space]keys.LedgerLesson{}, map[ledgerKey]ledgerEntry{}
	}
	l.stages[b.Space] = stage
	for key := range l.entries {
		if key.space == b.Space {
			delete(l.entries, key)
		}
	}
	return b
}

// LedgerCalls is how often a ledger was asked or told.
func (r *Ring) LedgerCalls() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ledgers.calls
}

// LedgerEntries is how many objects a bucket's ledger knows.
func (r *Ring) LedgerEntries(b keys.Bucket) (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for key := range r.ledgers.entries {
		if key.space == b.Space {
			n++
		}
	}
	return n
}

// LedgerLater sets the ledgers' clock forward.
func (r *Ring) LedgerLater(by time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ledgers.now += by
}

// BeforeLedger has f called before each call of a ledger, by the name of the method;
// what it returns is the answer, unless that is nil. f is called without a lock.
func (r *Ring) BeforeLedger(f func(op string) error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ledgers.before = f
}

// ledger begins a call: the caller unlocks.
func (r *Ring) ledger(b keys.Bucket, op string) (kms.LedgerStage, time.Time, error) {
	r.mu.Lock()
	before := r.ledgers.before
	r.mu.Unlock()
	var err error
	if before != nil {
		err = before(op)
	}
	r.mu.Lock()
	r.ledgers.calls++
	stage := r.ledgers.stages[b.Space]
	switch {
	case err != nil:
	case r.fail != nil:
		err = r.fail
	case stage == kms.LedgerLost:
		err = keys.ErrLedgerLost
	}
	return stage, time.Now().Add(r.ledgers.now), err
}

func (r *Ring) entry(b keys.Bucket, name keys.Mark) ledgerEntry {
	e, ok := r.ledgers.entries[ledgerKey{b.Space, name}]
	if !ok {
		return ledgerEntry{LedgerEntry: kms.NewLedgerEntry(r.ledgers.stages[b.Space])}
	}
	e.Writes = append([]kms.LedgerWrite(nil), e.Writes...)
	return e
}

func (r *Ring) keep(b keys.Bucket, name keys.Mark, e ledgerEntry) {
	key := ledgerKey{b.Space, name}
	if e.Absent() && r.ledgers.stages[b.Space] == kms.LedgerOn {
		delete(r.ledgers.entries, key)
		return
	}
	r.ledgers.revision++
	e.revision = r.ledgers.revision
	r.ledgers.entries[key] = e
}

// LookLedger is keys.Client's.
func (r *Ring) LookLedger(_ context.Context, b keys.Bucket, name keys.Mark) (keys.LedgerView, error) {
	stage, now, err := r.ledger(b, "look")
	defer r.mu.Unlock()
	if err != nil || stage == "" {
		return keys.LedgerView{}, err
	}
	e := r.entry(b, name)
	return keys.NewLedgerView(e.LedgerEntry, e.revision, now), nil
}

// BeginWrite is keys.Client's.
func (r *Ring) BeginWrite(_ context.Context, a keys.LedgerAttempt) error {
	stage, now, err := r.ledger(a.Bucket, "begin")
	defer r.mu.Unlock()
	if err != nil || stage == "" {
		return err
	}
	e := r.entry(a.Bucket, a.Name)
	if e.Begin(kms.LedgerMark(a.ID), kms.LedgerMark(a.Tag), now) != nil {
		return keys.ErrLedgerBusy
	}
	r.keep(a.Bucket, a.Name, e)
	return nil
}

// EndWrite is keys.Client's.
func (r *Ring) EndWrite(_ context.Context, a keys.LedgerAttempt, applied bool) error {
	stage, _, err := r.ledger(a.Bucket, "end")
	defer r.mu.Unlock()
	if err != nil || stage == "" {
		return err
	}
	e := r.entry(a.Bucket, a.Name)
	if applied {
		e.Applied(kms.LedgerMark(a.ID), kms.LedgerMark(a.Tag))
	} else {
		e.Refused(kms.LedgerMark(a.ID))
	}
	r.keep(a.Bucket, a.Name, e)
	return nil
}

// SettleLedger is keys.Client's.
func (r *Ring) SettleLedger(_ context.Context, s keys.Sighting) error {
	stage, now, err := r.ledger(s.Bucket, "settle")
	defer r.mu.Unlock()
	if err != nil || stage == "" {
		return err
	}
	e := r.entry(s.Bucket, s.Name)
	took := kms.Sighting{Tag: kms.LedgerMark(s.Tag), ID: kms.LedgerMark(s.Open), Revision: s.Revision()}
	if took.TakeIn(&e.LedgerEntry, e.revision, now) != nil {
		return keys.ErrLedgerChanged
	}
	r.keep(s.Bucket, s.Name, e)
	return nil
}

// Learn is keys.Client's, but that whoever asks is at it.
func (r *Ring) Learn(_ context.Context, l keys.LedgerLesson) ([]byte, error) {
	stage, _, err := r.ledger(l.Bucket, "learn")
	defer r.mu.Unlock()
	if err == nil && stage != kms.LedgerLearning {
		err = keys.ErrLedgerChanged
	}
	if err != nil {
		return nil, err
	}
	space := l.Bucket.Space
	for _, line := range l.Lines {
		if _, known := r.ledgers.entries[ledgerKey{space, line.Name}]; !known {
			write := kms.LedgerWrite{Tag: kms.LedgerMark(line.Tag), Begin: 1, End: 2}
			r.keep(l.Bucket, line.Name, ledgerEntry{LedgerEntry: kms.LedgerEntry{Events: 2, Writes: []kms.LedgerWrite{write}}})
		}
	}
	if len(l.Cursor) > 0 {
		r.ledgers.cursors[space] = l.Cursor
	}
	if r.ledgers.lessons[space] = l; l.Ended {
		r.ledgers.stages[space] = kms.LedgerOn
	}
	return r.ledgers.cursors[space], nil
}

// Lesson is what a ledger was told last.
func (r *Ring) Lesson(b keys.Bucket) keys.LedgerLesson {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ledgers.lessons[b.Space]
}
