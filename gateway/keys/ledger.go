package keys

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"chatelaine/kms"
	"chatelaine/kms/service/kmsv1"
)

// ErrLedgerLost: the registry has no ledger of a bucket that has the rollback guard, as
// it was restored. An administrator must have it learn anew.
var ErrLedgerLost = errors.New("the rollback guard has lost its ledger")

// ErrLedgerChanged: the entry was changed since it was looked at, or another gateway
// learns.
var ErrLedgerChanged = errors.New("the ledger has changed meanwhile")

// ErrLedgerBusy: too many writes of one object are under way.
var ErrLedgerBusy = errors.New("too many writes of one object are under way")

// ErrLedgerFull: the KMS's registry has no room for records of more writes, until its
// quota is raised or records are deleted.
var ErrLedgerFull = errors.New("the registry is too full for more writes in buckets with the rollback guard")

// Mark is a keyed digest of an object's name or of what was written under it (a tag),
// or names an attempt to write. As a tag, the zero one is that of nothing.
type Mark [16]byte

// LedgerView is what the ledger has of an object, and when it was looked at.
type LedgerView struct {
	// Guarded is false where the guard is off by now: then the rest means nothing.
	Guarded  bool
	revision int64
	entry    kms.LedgerEntry
	now      time.Time
}

// Verdict is what a ledger says of something that a store has.
type Verdict struct {
	// Known: it is one of the writes that the store may have.
	Known bool
	// Open names the write where its end was not told yet; zero where it was.
	Open Mark
	// Doubtful: others may be what the store has as well, though all have ended.
	Doubtful bool
}

// Judge says whether what the store has, by one of its tags, may be the newest.
func (v LedgerView) Judge(tags ...Mark) Verdict {
	as := make([]kms.LedgerMark, len(tags))
	for i, tag := range tags {
		as[i] = kms.LedgerMark(tag)
	}
	w, ok := v.entry.Match(as...)
	out := Verdict{Known: ok, Doubtful: v.entry.Doubtful(v.now)}
	if ok && w.Alive(v.now) {
		out.Open = Mark(w.ID)
	}
	return out
}

// Tag is the one of some tags that the ledger has.
func (v LedgerView) Tag(tags ...Mark) (Mark, bool) {
	for _, w := range v.entry.Writes {
		if slices.Contains(tags, Mark(w.Tag)) {
			return Mark(w.Tag), true
		}
	}
	return Mark{}, false
}

// Same says whether nothing was written between two looks.
func (v LedgerView) Same(other LedgerView) bool { return v.revision == other.revision }

// NewLedgerView is a view of an entry, for keyrings that are no Client.
func NewLedgerView(entry kms.LedgerEntry, revision int64, now time.Time) LedgerView {
	return LedgerView{Guarded: true, revision: revision, entry: entry, now: now}
}

// LedgerAttempt names a write of an object in a guarded bucket.
type LedgerAttempt struct {
	Bucket Bucket
	Name   Mark
	ID     Mark // random
	Tag    Mark // of what is written; zero: it is a deletion
}

// LookLedger reads what the ledger has of an object. It sees all that was acknowledged
// before. It needs a lease. Errors: ErrLedgerLost, ErrBucketNotFound, ErrUnavailable.
func (c *Client) LookLedger(ctx context.Context, b Bucket, name Mark) (LedgerView, error) {
	answer, _, err := leased(ctx, c, "LookLedger", func(ctx context.Context, lease string) (*kmsv1.LookLedgerResponse, error) {
		bounded, cancel := context.WithTimeout(ctx, c.timeout)
		defer cancel()
		return c.ledgers.LookLedger(bounded, &kmsv1.LookLedgerRequest{LeaseId: lease, Space: b.Space.String(), Name: name[:]})
	})
	if err == nil && answer.GetStage() == string(kms.LedgerLost) {
		err = ErrLedgerLost
	}
	view := LedgerView{Guarded: answer.GetStage() != "", revision: answer.GetRevision(), now: answer.GetNow().AsTime()}
	for _, m := range answer.GetWrites() {
		w := kms.LedgerWrite{Begin: m.GetBegin(), End: m.GetEnd(), At: m.GetAt().AsTime()}
		if err == nil && (len(m.GetId()) != len(w.ID) || len(m.GetTag()) != len(w.Tag)) {
			err = fmt.Errorf("%w: marks of %d and %d bytes", kms.ErrInvalid, len(m.GetId()), len(m.GetTag()))
		}
		copy(w.ID[:], m.GetId())
		copy(w.Tag[:], m.GetTag())
		view.entry.Writes = append(view.entry.Writes, w)
	}
	if err != nil {
		return LedgerView{}, fmt.Errorf("keys: looking into the ledger of bucket %q: %w", b.Name, ledgerError(err))
	}
	return view, nil
}

// BeginWrite notes that a write is about to be sent to the store. Said again, it is a
// sign that the writer lives; it must come every LedgerSignEvery. It needs a lease.
// Errors: ErrLedgerBusy, ErrLedgerFull, ErrLedgerLost, ErrBucketNotFound, ErrUnavailable.
func (c *Client) BeginWrite(ctx context.Context, a LedgerAttempt) error {
	_, _, err := leased(ctx, c, "BeginWrite", func(ctx context.Context, lease string) (*kmsv1.BeginWriteResponse, error) {
		bounded, cancel := context.WithTimeout(ctx, c.timeout)
		defer cancel()
		return c.ledgers.BeginWrite(bounded, &kmsv1.BeginWriteRequest{
			LeaseId: lease, Space: a.Bucket.Space.String(), Name: a.Name[:], Id: a.ID[:], Tag: a.Tag[:],
		})
	})
	if err != nil {
		return fmt.Errorf("keys: beginning a write in bucket %q: %w", a.Bucket.Name, ledgerError(err))
	}
	return nil
}

// LedgerSignEvery is how often a writer says that it lives.
const LedgerSignEvery = kms.LedgerSilence / 3

// EndWrite notes what the store has answered: that it has carried the write out, or has
// not. Errors as of BeginWrite, less ErrLedgerFull.
func (c *Client) EndWrite(ctx context.Context, a LedgerAttempt, applied bool) error {
	_, _, err := leased(ctx, c, "EndWrite", func(ctx context.Context, lease string) (*kmsv1.EndWriteResponse, error) {
		bounded, cancel := context.WithTimeout(ctx, c.timeout)
		defer cancel()
		return c.ledgers.EndWrite(bounded, &kmsv1.EndWriteRequest{
			LeaseId: lease, Space: a.Bucket.Space.String(), Name: a.Name[:], Id: a.ID[:], Tag: a.Tag[:], Applied: applied,
		})
	})
	if err != nil {
		return fmt.Errorf("keys: ending a write in bucket %q: %w", a.Bucket.Name, ledgerError(err))
	}
	return nil
}

// Sighting is what a reader has found in the store, and View what it had looked at
// before. Open is of a Verdict, or zero.
type Sighting struct {
	Bucket Bucket
	Name   Mark
	Tag    Mark // zero: there was nothing
	Open   Mark
	View   LedgerView
}

// Revision is that of the entry that was looked at.
func (s Sighting) Revision() int64 { return s.View.revision }

// SettleLedger tells what a reader has found: that an open write was carried out, or
// which of several that had ended before View was the last. ErrLedgerChanged where the
// entry is not that of View any more; others as of LookLedger.
func (c *Client) SettleLedger(ctx context.Context, s Sighting) error {
	r := &kmsv1.SettleLedgerRequest{Space: s.Bucket.Space.String(), Name: s.Name[:], Tag: s.Tag[:], Revision: s.Revision()}
	if s.Open != (Mark{}) {
		r.Id = s.Open[:]
	}
	_, _, err := leased(ctx, c, "SettleLedger", func(ctx context.Context, lease string) (*kmsv1.SettleLedgerResponse, error) {
		bounded, cancel := context.WithTimeout(ctx, c.timeout)
		defer cancel()
		r.LeaseId = lease
		return c.ledgers.SettleLedger(bounded, r)
	})
	if errors.Is(err, kms.ErrConflict) {
		err = fmt.Errorf("%w: %w", ErrLedgerChanged, err)
	}
	if err != nil {
		return fmt.Errorf("keys: settling an entry of bucket %q: %w", s.Bucket.Name, ledgerError(err))
	}
	return nil
}

// LedgerLine is an object that was found.
type LedgerLine struct{ Name, Tag Mark }

// LedgerLesson is what a gateway tells of the objects that it has found. Runner is a
// name that nobody else has, and holds the work for 10 s; with nothing else, it takes
// the work over.
type LedgerLesson struct {
	Bucket Bucket
	Runner string
	Lines  []LedgerLine // at most MaxLedgerLines
	// Cursor is where the next gateway goes on. The KMS has it as it is: seal it.
	Cursor []byte
	Ended  bool // all were found
	// Refused is why the bucket cannot have the guard; Trouble why the work does not go on
	// for now. At most 300 bytes.
	Refused, Trouble string
}

// MaxLedgerLines is how many objects a lesson has.
const MaxLedgerLines = kms.MaxLedgerLines

// Learn tells the ledger of objects that it may not know, and returns the cursor. It
// needs a lease. Errors: ErrLedgerChanged, ErrLedgerFull, ErrBucketNotFound,
// ErrUnavailable.
func (c *Client) Learn(ctx context.Context, l LedgerLesson) (cursor []byte, err error) {
	r := &kmsv1.LearnRequest{
		Space: l.Bucket.Space.String(), Runner: l.Runner, Cursor: l.Cursor, Ended: l.Ended, Refused: l.Refused, Trouble: l.Trouble,
	}
	for _, line := range l.Lines {
		r.Lines = append(r.Lines, &kmsv1.LedgerLine{Name: line.Name[:], Tag: line.Tag[:]})
	}
	answer, _, err := leased(ctx, c, "Learn", func(ctx context.Context, lease string) (*kmsv1.LearnResponse, error) {
		bounded, cancel := context.WithTimeout(ctx, c.timeout)
		defer cancel()
		r.LeaseId = lease
		return c.ledgers.Learn(bounded, r)
	})
	if l.Ended || l.Refused != "" {
		c.edits.next()
	}
	if errors.Is(err, kms.ErrConflict) {
		err = fmt.Errorf("%w: %w", ErrLedgerChanged, err)
	}
	if err != nil {
		return nil, fmt.Errorf("keys: learning the objects of bucket %q: %w", l.Bucket.Name, ledgerError(err))
	}
	return answer.GetCursor(), nil
}

// ledgerError makes this package's errors of the KMS's.
func ledgerError(err error) error {
	switch {
	case errors.Is(err, ErrLedgerLost), errors.Is(err, ErrLedgerChanged):
		return err
	case errors.Is(err, kms.ErrFull):
		return fmt.Errorf("%w: %w", ErrLedgerFull, err)
	case errors.Is(err, kms.ErrBusy):
		return fmt.Errorf("%w: %w", ErrLedgerBusy, err)
	case errors.Is(err, kms.ErrConflict):
		return fmt.Errorf("%w: %w", ErrLedgerLost, err)
	}
	return translate(err, ErrBucketNotFound)
}
