package kms_test

import (
	"errors"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"chatelaine/kms"
)

func mark(n int) kms.LedgerMark { return kms.LedgerMark{byte(n >> 8), byte(n), 1} }

// history is what truly happens to one object, by an honest store, and what the ledger
// is told of it.
type history struct {
	t      *testing.T
	r      *rand.Rand
	entry  kms.LedgerEntry
	now    time.Time
	store  kms.LedgerMark // what it has
	writes []*attempt
	clock  int
}

// attempt is a write: when it began, and when its end was told or seen. dead ones do
// nothing more.
type attempt struct {
	id, tag      kms.LedgerMark
	begun, ended int // ended 0: not yet
	sent, dead   bool
}

func (h *history) tick() int { h.clock++; return h.clock }

func (h *history) begin() {
	n := len(h.writes) + 1
	a := &attempt{id: mark(n), tag: mark(n), begun: h.tick()}
	if h.r.IntN(4) == 0 {
		a.tag = kms.LedgerMark{}
	}
	if err := h.entry.Begin(a.id, a.tag, h.now); err == nil {
		h.writes = append(h.writes, a)
	} else if !errors.Is(err, kms.ErrBusy) {
		h.t.Fatal(err)
	}
}

// open picks a write that is alive and has not ended.
func (h *history) open() *attempt {
	open := slices.DeleteFunc(slices.Clone(h.writes), func(a *attempt) bool { return a.dead || a.ended > 0 && a.sent })
	if len(open) == 0 {
		return nil
	}
	return open[h.r.IntN(len(open))]
}

func (h *history) step() {
	a := h.open()
	switch n := h.r.IntN(10); {
	case a == nil || n < 3:
		h.begin()
	case n < 6 && !a.sent:
		a.sent = true
		h.store = a.tag
	case n < 8 && a.sent:
		h.entry.Applied(a.id, a.tag)
		if a.ended == 0 {
			a.ended = h.tick()
		}
	case n == 8:
		a.dead = true // a gateway is killed, before or after the store has it
		if h.r.IntN(2) == 0 {
			h.entry.Refused(a.id)
		}
	default:
		h.read()
	}
	if h.r.IntN(50) == 0 && !slices.ContainsFunc(h.writes, func(a *attempt) bool { return !a.dead && a.ended == 0 }) {
		h.now = h.now.Add(2 * kms.LedgerSilence)
	}
}

// read does what a reader does, with all of it at one moment.
func (h *history) read() {
	w, ok := h.entry.Match(h.store)
	if !ok {
		h.t.Fatalf("the store has %v, and the ledger knows %+v", h.store, h.entry)
	}
	switch {
	case w.Alive(h.now):
		h.entry.Applied(w.ID, w.Tag)
		for _, a := range h.writes {
			if a.id == w.ID && a.ended == 0 {
				a.ended = h.tick()
			}
		}
	case h.entry.Doubtful(h.now):
		if err := h.entry.Settle(h.store, h.now); err != nil {
			h.t.Fatalf("settling %v: %v in %+v", h.store, err, h.entry)
		}
	}
}

// check holds the ledger against what happened: it vouches for what the store has, and
// for no write that ended before another began that has ended too.
func (h *history) check() {
	if _, ok := h.entry.Match(h.store); !ok {
		h.t.Fatalf("the store has %v, and the ledger knows %+v", h.store, h.entry)
	}
	for _, old := range h.writes {
		for _, newer := range h.writes {
			if old.tag.IsZero() || old.ended == 0 || newer.ended == 0 || old.ended >= newer.begun {
				continue
			}
			if w, ok := h.entry.Match(old.tag); ok {
				h.t.Fatalf("the ledger vouches for %+v, which %+v has replaced: %+v in %+v", old, newer, w, h.entry)
			}
		}
	}
}

func TestALedgerVouchesForTheNewestWriteAloneWhateverHappens(t *testing.T) {
	t.Parallel()
	for seed := range uint64(300) {
		h := &history{
			t: t, r: rand.New(rand.NewPCG(seed, 7)),
			entry: kms.NewLedgerEntry(kms.LedgerOn), now: time.Now(),
		}
		for range 60 {
			h.step()
			h.check()
		}
		for _, a := range h.writes {
			a.dead = true
		}
		h.now = h.now.Add(2 * kms.LedgerSilence)
		h.read()
		if h.check(); h.entry.Doubtful(h.now) {
			t.Fatalf("seed %d: in doubt after a read in peace: %+v", seed, h.entry)
		}
	}
}

func TestAnOpenWriteEndsWithItsSilence(t *testing.T) {
	t.Parallel()
	e, now := kms.NewLedgerEntry(kms.LedgerOn), time.Now()
	if err := e.Begin(mark(1), mark(1), now); err != nil {
		t.Fatal(err)
	}
	if err := e.Begin(mark(1), mark(1), now.Add(kms.LedgerSilence-time.Second)); err != nil { // a sign
		t.Fatal(err)
	}
	if later := now.Add(kms.LedgerSilence + time.Minute); e.Doubtful(later) || len(e.Writes) != 2 {
		t.Errorf("a write that gave a sign has ended: %+v", e)
	}
	if later := now.Add(3 * kms.LedgerSilence); !e.Doubtful(later) {
		t.Error("a write that gave no sign goes on")
	}
	wantErr(t, e.Settle(mark(2), now), kms.ErrConflict)
}

func TestTheWritesOfOneObjectAreBounded(t *testing.T) {
	t.Parallel()
	e, now := kms.NewLedgerEntry(kms.LedgerOn), time.Now()
	var err error
	n := 0
	for ; err == nil && n < 1000; n++ {
		err = e.Begin(mark(n+1), mark(n+1), now)
	}
	wantErr(t, err, kms.ErrBusy)
	if n < 100 {
		t.Errorf("%d writes at once are too many", n)
	}
	wantErr(t, e.Begin(mark(5000), mark(5000), now.Add(time.Hour)), kms.ErrBusy) // until a reader has looked
	if err := e.Settle(kms.LedgerMark{}, now.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if err := e.Begin(mark(5000), mark(5000), now.Add(time.Hour)); err != nil {
		t.Error(err)
	}
}
