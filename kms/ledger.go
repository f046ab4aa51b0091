package kms

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"slices"
	"time"
)

// The ledger of a bucket with the rollback guard says which write of each object is
// its newest, so that an older one in its place is found (DECISIONS.md). It knows
// objects by keyed digests that gateways make: no names, no content.

// LedgerMark is a keyed digest of an object's name, or of what was written under it
// (a tag). As a tag, the zero one says that nothing is there: it was deleted.
type LedgerMark [16]byte

// String is the mark in hex.
func (m LedgerMark) String() string { return hex.EncodeToString(m[:]) }

// IsZero tells whether it is the tag of nothing.
func (m LedgerMark) IsZero() bool { return m == LedgerMark{} }

// MarshalText writes hex, and nothing for the zero mark.
func (m LedgerMark) MarshalText() ([]byte, error) {
	if m.IsZero() {
		return nil, nil
	}
	return []byte(m.String()), nil
}

// UnmarshalText reads 32 hex digits, or nothing.
func (m *LedgerMark) UnmarshalText(text []byte) error {
	*m = LedgerMark{}
	if len(text) == 0 {
		return nil
	}
	if len(text) != hex.EncodedLen(len(m)) {
		return fmt.Errorf("%w: mark of %d characters", ErrInvalid, len(text))
	}
	if _, err := hex.Decode(m[:], text); err != nil {
		return fmt.Errorf("%w: mark: %w", ErrInvalid, err)
	}
	return nil
}

// LedgerWrite is a write of an object that may be what its store has. Begin and End
// count the entry's events, so that they say which writes overlapped.
type LedgerWrite struct {
	ID    LedgerMark `json:"i,omitzero"` // random, of this attempt
	Tag   LedgerMark `json:"t,omitzero"`
	Begin uint64     `json:"b,omitempty"`
	End   uint64     `json:"e,omitempty"` // 0: it is open, nobody knows what came of it
	// At is when its writer last gave a sign, by a KMS's clock. Of open ones only.
	At time.Time `json:"a,omitzero"`
}

// LedgerEntry is what is known of one object: the writes that may be what its store
// has. One that is settled has one write, which has ended.
type LedgerEntry struct {
	Events uint64        `json:"n"`
	Writes []LedgerWrite `json:"w"`
}

const (
	// LedgerSilence is how long an open write may give no sign before it counts as ended:
	// its gateway was killed. Gateways give one every third of that.
	LedgerSilence = 15 * time.Minute
	// maxLedgerWrites bounds the writes of one object at once.
	maxLedgerWrites = 256
)

// UnknownLedgerMark is the tag of what was there before the ledger learned of it: it
// stands for whatever the store has.
func UnknownLedgerMark() LedgerMark { return LedgerMark(bytes.Repeat([]byte{0xff}, len(LedgerMark{}))) }

// NewLedgerEntry is the entry of an object that a ledger in a stage has none of: nothing
// is there, but while it learns there may be anything.
func NewLedgerEntry(stage LedgerStage) LedgerEntry {
	base := LedgerWrite{End: 1}
	if stage == LedgerLearning {
		base.Tag = UnknownLedgerMark()
	}
	return LedgerEntry{Events: 1, Writes: []LedgerWrite{base}}
}

func (w LedgerWrite) unknown() bool { return w.Tag == UnknownLedgerMark() }

// Alive says whether a write may still take effect.
func (w LedgerWrite) Alive(now time.Time) bool {
	silent := now.Sub(w.At)
	return w.End == 0 && silent < LedgerSilence && silent > -LedgerSilence
}

// Settled says whether one write alone can be what the store has.
func (e LedgerEntry) Settled() bool { return len(e.Writes) == 1 && e.Writes[0].End != 0 }

// Absent says whether it is settled that nothing is there.
func (e LedgerEntry) Absent() bool { return e.Settled() && e.Writes[0].Tag.IsZero() }

func (e LedgerEntry) find(id LedgerMark) int {
	return slices.IndexFunc(e.Writes, func(w LedgerWrite) bool { return w.ID == id })
}

// Begin adds a write that is about to be sent to the store, or takes a sign of it.
// ErrBusy when there are too many.
func (e *LedgerEntry) Begin(id, tag LedgerMark, now time.Time) error {
	if i := e.find(id); i >= 0 {
		if e.Writes[i].End == 0 {
			e.Writes[i].At = now
		}
		return nil
	}
	e.bury(now)
	if len(e.Writes) >= maxLedgerWrites {
		return fmt.Errorf("%w: %d writes of one object are under way", ErrBusy, len(e.Writes))
	}
	e.Events++
	e.Writes = append(e.Writes, LedgerWrite{ID: id, Tag: tag, Begin: e.Events, At: now})
	return nil
}

// bury ends writes whose gateways are gone. What became of them is not known, so what
// was there before stays possible too.
func (e *LedgerEntry) bury(now time.Time) {
	for i, w := range e.Writes {
		if w.End == 0 && !w.Alive(now) {
			e.end(i)
		}
	}
}

func (e *LedgerEntry) end(i int) {
	e.Events++
	e.Writes[i].End, e.Writes[i].At = e.Events, time.Time{}
}

// Applied says that the store has carried a write out: its writer was told so, or a
// reader has seen it. All that ended before it began is over. A write that is not known
// began before the guard was on, or was given up on: it counts as one that overlaps
// with all, so that what was acknowledged can be read.
func (e *LedgerEntry) Applied(id, tag LedgerMark) {
	i := e.find(id)
	if i < 0 {
		if slices.ContainsFunc(e.Writes, func(w LedgerWrite) bool { return w.End != 0 && w.Tag == tag }) {
			return // its end was told already, and its id is not kept
		}
		e.Writes = slices.DeleteFunc(e.Writes, LedgerWrite.unknown)
		i = len(e.Writes)
		e.Writes = append(e.Writes, LedgerWrite{ID: id, Tag: tag})
	} else if e.Writes[i].End != 0 {
		return // a reader was first
	}
	e.end(i)
	begin := e.Writes[i].Begin
	e.Writes = slices.DeleteFunc(e.Writes, func(w LedgerWrite) bool { return w.End != 0 && w.End < begin })
}

// Refused says that the store has answered, and not taken a write. As answers can be
// to a second attempt, and a hostile store can lie, it stays possible until a reader
// has looked.
func (e *LedgerEntry) Refused(id LedgerMark) {
	if i := e.find(id); i >= 0 && e.Writes[i].End == 0 {
		e.end(i)
	}
}

// Settle says what the store had after all writes that have ended had: of those the one
// with tag was the last. What is under way stays possible. ErrConflict where none of
// them has that tag.
func (e *LedgerEntry) Settle(tag LedgerMark, now time.Time) error {
	e.bury(now)
	kept, ok := LedgerEntry{Writes: slices.DeleteFunc(slices.Clone(e.Writes), func(w LedgerWrite) bool { return w.End == 0 })}.Match(tag)
	if !ok {
		return conflict("the ledger has another write")
	}
	kept.Tag = tag
	e.Writes = append(slices.DeleteFunc(e.Writes, func(w LedgerWrite) bool { return w.End != 0 }), kept)
	return nil
}

// Doubtful says whether more than one write may be what the store has, of those that
// have ended or whose gateways are gone.
func (e LedgerEntry) Doubtful(now time.Time) bool {
	over := slices.DeleteFunc(slices.Clone(e.Writes), func(w LedgerWrite) bool { return w.Alive(now) })
	return len(over) > 1
}

// Match finds the write that has one of some tags: one that has ended before one that
// is open, and either before what is not known. False where there is none.
func (e LedgerEntry) Match(tags ...LedgerMark) (LedgerWrite, bool) {
	var found LedgerWrite
	rank := 0
	for _, w := range e.Writes {
		r := 0
		switch fits := slices.Contains(tags, w.Tag); {
		case fits && w.End != 0:
			r = 3
		case fits:
			r = 2
		case w.unknown():
			r = 1
		}
		if r > rank {
			found, rank = w, r
		}
	}
	return found, rank > 0
}

// compact leaves out what a settled entry does not need.
func (e *LedgerEntry) compact() {
	if e.Settled() {
		e.Writes[0].ID = LedgerMark{}
	}
}
