package keys

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"chatelaine/kms"
)

// guarded makes a bucket with the rollback guard.
func (w *world) guarded(t *testing.T, name string) Bucket {
	t.Helper()
	made, err := w.kms.RegisterBucket(t.Context(), kms.NewBucket{Name: name, Store: "files", StoreName: name, Owner: "alice", Ledger: true})
	if err == nil {
		_, err = w.kms.CurrentKey(t.Context(), made.Space)
	}
	if err == nil {
		err = w.kms.ActivateBucket(t.Context(), name)
	}
	if err != nil {
		t.Fatal(err)
	}
	b, err := w.Bucket(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (w *world) judge(t *testing.T, b Bucket, name Mark, tags ...Mark) (LedgerView, Verdict) {
	t.Helper()
	v, err := w.LookLedger(t.Context(), b, name)
	if err != nil {
		t.Fatal(err)
	}
	return v, v.Judge(tags...)
}

func TestALedgerIsToldOverTheWire(t *testing.T) {
	w := newStillWorld(t, Config{})
	b := w.guarded(t, "b")
	if !b.Guarded || b.LedgerKey == [16]byte{} || w.bucket(t, "other").Guarded {
		t.Fatalf("got %+v", b)
	}
	if _, err := w.ByID(t.Context(), b, b.LedgerKey); err != nil {
		t.Errorf("the key of the ledger: %v", err)
	}
	first, second := Mark{1}, Mark{2}
	a := LedgerAttempt{Bucket: b, Name: Mark{9}, ID: Mark{7}, Tag: first}
	if err := w.BeginWrite(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	view, verdict := w.judge(t, b, a.Name, Mark{5}, first)
	if verdict != (Verdict{Known: true, Open: a.ID}) {
		t.Errorf("of an open write got %+v", verdict)
	}
	if err := w.EndWrite(t.Context(), a, true); err != nil {
		t.Fatal(err)
	}
	after, verdict := w.judge(t, b, a.Name, first)
	if verdict != (Verdict{Known: true}) || after.Same(view) {
		t.Errorf("of a write that has ended got %+v", verdict)
	}
	if _, verdict = w.judge(t, b, a.Name, Mark{}); verdict.Known {
		t.Error("nothing is there, says the ledger of an object")
	}
	refused := LedgerAttempt{Bucket: b, Name: a.Name, ID: Mark{8}, Tag: second}
	if err := w.BeginWrite(t.Context(), refused); err != nil {
		t.Fatal(err)
	}
	if err := w.EndWrite(t.Context(), refused, false); err != nil {
		t.Fatal(err)
	}
	doubtful, verdict := w.judge(t, b, a.Name, first)
	if !verdict.Known || !verdict.Doubtful {
		t.Errorf("after a refused write got %+v", verdict)
	}
	sighting := Sighting{Bucket: b, Name: a.Name, Tag: first, View: view}
	wantErr(t, w.SettleLedger(t.Context(), sighting), ErrLedgerChanged)
	if sighting.View = doubtful; w.SettleLedger(t.Context(), sighting) != nil {
		t.Error("it is not settled")
	}
	if _, verdict = w.judge(t, b, a.Name, second); verdict.Known {
		t.Error("what was refused, and not found, is vouched for")
	}
}

func TestALedgerLearnsOverTheWire(t *testing.T) {
	w := newStillWorld(t, Config{})
	b := w.bucket(t, "b")
	w.current(t, b)
	on := kms.LedgerSetOn
	if _, err := w.kms.SetBucket(t.Context(), "b", kms.BucketSettings{Ledger: &on}, kms.Change{}); err != nil {
		t.Fatal(err)
	}
	runner := strings.Repeat("r", 20)
	cursor, err := w.Learn(t.Context(), LedgerLesson{Bucket: b, Runner: runner, Cursor: []byte("c"), Lines: []LedgerLine{{Mark{9}, Mark{1}}}})
	if err != nil || !bytes.Equal(cursor, []byte("c")) {
		t.Fatalf("got %q, %v", cursor, err)
	}
	_, err = w.Learn(t.Context(), LedgerLesson{Bucket: b, Runner: strings.Repeat("s", 20)})
	wantErr(t, err, ErrLedgerChanged)
	if _, err := w.Learn(t.Context(), LedgerLesson{Bucket: b, Runner: runner, Ended: true}); err != nil {
		t.Fatal(err)
	}
	if _, verdict := w.judge(t, b, Mark{9}, Mark{2}); verdict.Known {
		t.Error("another object is vouched for")
	}
	if _, verdict := w.judge(t, b, Mark{9}, Mark{1}); !verdict.Known {
		t.Error("what was learned is not vouched for")
	}
	w.network.down.Store(true)
	_, err = w.LookLedger(t.Context(), b, Mark{9})
	wantErr(t, err, ErrUnavailable)
}

func TestErrorsOfALedgerSayWhatIsWrong(t *testing.T) {
	for of, want := range map[error]error{
		kms.ErrFull: ErrLedgerFull, kms.ErrBusy: ErrLedgerBusy, kms.ErrConflict: ErrLedgerLost,
		kms.ErrNotFound: ErrBucketNotFound, kms.ErrUnavailable: ErrUnavailable,
	} {
		wantErr(t, ledgerError(fmt.Errorf("kms: beginning a write: %w", of)), want)
	}
}

func TestAViewTellsOfWritesThatMayTakeEffect(t *testing.T) {
	tag, other, began := Mark{1}, Mark{2}, time.Now()
	open := kms.LedgerEntry{Events: 2, Writes: []kms.LedgerWrite{
		{ID: kms.LedgerMark{7}, Tag: kms.LedgerMark(tag), Begin: 2, At: began},
	}}
	soon, late := NewLedgerView(open, 1, began.Add(time.Second)), NewLedgerView(open, 1, began.Add(kms.LedgerSilence))
	if got := soon.Judge(tag); got != (Verdict{Known: true, Open: Mark{7}}) {
		t.Errorf("of a write that is under way: got %+v", got)
	}
	if got := late.Judge(tag); got != (Verdict{Known: true}) {
		t.Errorf("of one whose gateway is gone: got %+v", got)
	}
	if got := soon.Judge(other); got.Known {
		t.Errorf("of one that is not there: got %+v", got)
	}
	if got, ok := soon.Tag(other, tag); !ok || got != tag {
		t.Errorf("got tag %x, %t", got, ok)
	}
	if got, ok := soon.Tag(other); ok {
		t.Errorf("got tag %x, which is not asked for", got)
	}
	if !soon.Same(late) || soon.Same(NewLedgerView(open, 2, began)) {
		t.Error("views of two revisions are one, or of one are two")
	}
}
