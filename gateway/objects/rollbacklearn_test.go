package objects

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"chatelaine/backends"
	"chatelaine/gateway/keys"
	"chatelaine/gateway/keys/keystest"
)

// learned has a gateway take the bucket's objects in.
func (w *world) learned() {
	w.t.Helper()
	if err := w.learn(w.t.Context(), w.bucket); err != nil {
		w.t.Fatal(err)
	}
}

func TestObjectsThatWereThereAreTakenIn(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for i := range 3*learnPage + 5 {
		w.put(fmt.Sprintf("key%04d", i), noise(int64(i)))
	}
	w.upload("upload", []int{1, 3}, [][]byte{noise(5 * mib), noise(9)})
	w.put("older", noise(5))
	old := w.keep("older")
	w.put("older", noise(6))
	w.bucket = w.ring.Guard("bucket", keystest.LedgerLearning)
	w.mustGet(GetRequest{Key: "key0007"}) // what is not known yet is believed
	w.learned()
	if got, want := w.ring.LedgerEntries(w.bucket), 3*learnPage+7; got != want {
		t.Errorf("got %d objects, want %d", got, want)
	}
	if l := w.ring.Lesson(w.bucket); !l.Ended || l.Refused != "" || l.Trouble != "" {
		t.Errorf("got %+v, want the end", l)
	}
	w.mustGet(GetRequest{Key: "key0007"})
	w.mustGet(GetRequest{Key: "upload"})
	w.serve("older", old)
	w.wantReads("older", ErrRolledBack)
	w.hide("key0007")
	w.wantReads("key0007", ErrRolledBack)
}

func TestWhatClientsDoWhileALedgerLearnsCounts(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.put("written", noise(1))
	w.put("deleted", noise(1))
	w.put("both", noise(1))
	written, deleted := w.keep("written"), w.keep("deleted")
	w.bucket = w.ring.Guard("bucket", keystest.LedgerLearning)
	l := &learner{Service: w.Service, bucket: w.bucket, store: w.store, runner: "runner"}
	var lines []keys.LedgerLine
	for _, key := range []string{"written", "deleted", "both"} {
		line, err := l.lineOf(t.Context(), key) // it has looked, and is slow to tell
		if err != nil || line == (keys.LedgerLine{}) {
			t.Fatal(line, err)
		}
		lines = append(lines, line)
	}
	w.put("written", noise(2))
	w.delete("deleted")
	w.delete("both")
	w.put("both", noise(3))
	if _, err := w.ring.Learn(t.Context(), keys.LedgerLesson{Bucket: w.bucket, Lines: lines, Ended: true}); err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]int64{"written": 2, "both": 3} {
		if got := w.mustGet(GetRequest{Key: key}); !bytes.Equal(got, noise(want)) {
			t.Errorf("%s: got other bytes", key)
		}
	}
	if _, _, err := w.get(GetRequest{Key: "deleted"}); !errors.Is(err, backends.ErrNotFound) {
		t.Errorf("deleted: got %v", err)
	}
	w.serve("written", written)
	w.serve("deleted", deleted)
	w.wantReads("written", ErrRolledBack)
	w.wantReads("deleted", ErrRolledBack)
}

func TestAWriteThatBeganBeforeTheGuardIsTakenInAtItsEnd(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.put("key", noise(1))
	old, unguarded := w.keep("key"), w.bucket
	w.bucket = w.ring.Guard("bucket", keystest.LedgerLearning)
	w.learned()
	// It has looked its bucket up before, and ends now.
	_, err := w.Put(t.Context(), PutRequest{Bucket: unguarded, Key: "key", Body: bytes.NewReader(noise(2)), Size: 2})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Put(t.Context(), PutRequest{Bucket: unguarded, Key: "new", Body: bytes.NewReader(noise(2)), Size: 2}); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"key", "new"} {
		if got := w.mustGet(GetRequest{Key: key}); !bytes.Equal(got, noise(2)) {
			t.Errorf("%s: got other bytes", key)
		}
	}
	w.serve("key", old)
	w.wantReads("key", ErrRolledBack)
}

func TestAnotherGatewayGoesOnLearning(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for i := range 3 * learnPage {
		w.put(fmt.Sprintf("key%04d", i), noise(1))
	}
	w.bucket = w.ring.Guard("bucket", keystest.LedgerLearning)
	ctx, kill := context.WithCancel(t.Context())
	lessons := 0
	w.ring.BeforeLedger(func(op string) error {
		if op == "learn" {
			if lessons++; lessons >= 3 { // the claim, a page, and no more
				kill()
				return errKilled
			}
		}
		return nil
	})
	if err := w.learn(ctx, w.bucket); !errors.Is(err, errKilled) {
		t.Fatal(err)
	}
	w.ring.BeforeLedger(nil)
	if cursor := w.ring.Lesson(w.bucket).Cursor; len(cursor) == 0 || bytes.Contains(cursor, []byte("key")) {
		t.Errorf("the KMS has the cursor %q", cursor)
	}
	w.store.reset()
	w.Service = w.replica()
	w.learned()
	if got, want := w.store.calls["head"], 2*learnPage+1; got != want { // the first page has a reserved one
		t.Errorf("it looked at %d objects, want %d", got, want)
	}
	if got := w.ring.LedgerEntries(w.bucket); got != 3*learnPage {
		t.Errorf("got %d objects, want %d", got, 3*learnPage)
	}
}

func TestTheGuardIsRefusedWhereItWouldCryWolf(t *testing.T) {
	t.Parallel()
	for name, prepare := range map[string]func(w *world) error{
		"versions": func(w *world) error {
			return w.SetVersioning(t.Context(), w.bucket, backends.VersioningEnabled)
		},
		"lifecycle rules": func(w *world) error {
			return w.SetBucketConfig(t.Context(), w.bucket, lifecycleConfig, []byte("<rules/>"))
		},
	} {
		w := newWorld(t)
		if err := prepare(w); err != nil {
			t.Fatal(err)
		}
		w.bucket = w.ring.Guard("bucket", keystest.LedgerLearning)
		w.learned()
		if l := w.ring.Lesson(w.bucket); !strings.Contains(l.Refused, name) {
			t.Errorf("%s: got %q, want a refusal", name, l.Refused)
		}
	}
}

func TestABucketWithVersionsIsNotMadeWithTheGuard(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	if _, err := w.ring.RegisterBucket(t.Context(), keys.NewBucket{Name: "new", Store: "main", StoreName: "new", Owner: "ann"}); err != nil {
		t.Fatal(err)
	}
	b := w.ring.Guard("new", keystest.LedgerOn)
	if err := w.store.CreateBucket(t.Context(), "new"); err != nil {
		t.Fatal(err)
	}
	versions, err := capability[backends.Versioner](w.Service, b)
	if err == nil {
		err = versions.SetVersioning(t.Context(), "new", backends.VersioningEnabled)
	}
	if err != nil {
		t.Fatal(err)
	}
	w.ring.Ask(keys.Work{Unmade: []keys.Bucket{b}})
	if _, _, err := w.work(t.Context(), &adoptions{}); !errors.Is(err, errUnguardable) {
		t.Errorf("got %v", err)
	}
	if got, err := w.ring.Bucket(t.Context(), "new"); err == nil {
		t.Errorf("it is there: %+v", got)
	}
}

func TestACursorThatNoGatewayHasSealedSkipsNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.put("key", noise(1))
	w.bucket = w.ring.Guard("bucket", keystest.LedgerLearning)
	forged := bytes.Repeat([]byte("x"), 64)
	if _, err := w.ring.Learn(t.Context(), keys.LedgerLesson{Bucket: w.bucket, Runner: "another", Cursor: forged}); err != nil {
		t.Fatal(err)
	}
	w.learned()
	if got := w.ring.LedgerEntries(w.bucket); got != 1 {
		t.Errorf("got %d objects, want 1", got)
	}
}

func TestLearningThatCannotBeginHasNotEnded(t *testing.T) {
	t.Parallel()
	for name, prepare := range map[string]func(w *world){
		"a backend that this gateway has not": func(w *world) { w.bucket.Store = "none" },
		"a key that cannot be had":            func(w *world) { w.bucket.LedgerKey = [16]byte{1} },
	} {
		w := newWorld(t)
		w.put("key", noise(1))
		w.bucket = w.ring.Guard("bucket", keystest.LedgerLearning)
		prepare(w)
		err := w.learn(t.Context(), w.bucket)
		if l := w.ring.Lesson(w.bucket); err == nil || l.Ended || l.Trouble == "" {
			t.Errorf("%s: got %v and %+v, want trouble and no end", name, err, l)
		}
	}
}

func TestTheLedgerLearnsNoNames(t *testing.T) {
	t.Parallel()
	w := newGuardedWorld(t, keystest.LedgerOn)
	m, err := w.marker(t.Context(), w.bucket, "name")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[keys.Mark]string{}
	note := func(what string, mark keys.Mark, err error) {
		if err != nil || seen[mark] != "" {
			t.Errorf("%s has the mark of %q, error %v", what, seen[mark], err)
		}
		seen[mark] = what
	}
	name, err := m.object()
	note("name", name, err)
	tag, err := m.written("name")
	note("header", tag, err)
	again, err := m.object()
	if again != name || err != nil {
		t.Errorf("a name has two marks, error %v", err)
	}
	w.ring.NewEpoch(w.bucket) // the marks' key stays
	if m, err = w.marker(t.Context(), w.bucket, "name"); err != nil {
		t.Fatal(err)
	}
	if again, _ = m.object(); again != name {
		t.Error("a new epoch changes the marks")
	}
	w.ring.NewEpoch(w.bucket)
	bk, err := w.ring.Current(t.Context(), w.bucket)
	if err != nil {
		t.Fatal(err)
	}
	b := w.bucket
	b.LedgerKey = bk.ID
	if m, err = w.marker(t.Context(), b, "name"); err != nil {
		t.Fatal(err)
	}
	name, err = m.object()
	note("name under another key", name, err)
}
