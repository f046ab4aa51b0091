package kms_test

import (
	"context"
	"encoding/binary"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"chatelaine/kms"
	"chatelaine/kms/registry"
)

// gauged is a registry that is as full as it says.
type gauged struct {
	kms.Registry
	usage atomic.Pointer[kms.Usage] // nil: it does not answer
}

func (g *gauged) Usage(context.Context) (kms.Usage, error) {
	if u := g.usage.Load(); u != nil {
		return *u, nil
	}
	return kms.Usage{}, kms.ErrUnavailable
}

func (g *gauged) set(inUse, file int64) {
	g.usage.Store(&kms.Usage{InUse: inUse, File: file, Quota: 1000})
}

// newGauged is a fixture whose registry is empty so far.
func newGauged(t *testing.T) (*fixture, *gauged) {
	t.Helper()
	f := newFixture(t)
	g := &gauged{Registry: f.registry}
	g.set(0, 0)
	f.registry = g
	f.Manager = f.manager(t, f.config())
	return f, g
}

const learner = "a gateway that learns"

// learning makes a bucket whose ledger learns.
func (f *fixture) learning(t *testing.T, name string) kms.Bucket {
	t.Helper()
	f.keyed(t, f.bucket(t, name))
	b, err := f.set(t, name, kms.LedgerSetOn)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestClientsAddNothingToARegistryThatIsNearlyFull(t *testing.T) {
	f, g := newGauged(t)
	b, l := f.guarded(t, "b"), f.learning(t, "l")
	open := kms.LedgerAttempt{Space: b.Space, Name: mark(1), ID: mark(1), Tag: mark(1)}
	if err := f.BeginWrite(t.Context(), open); err != nil {
		t.Fatal(err)
	}
	for i, test := range []struct {
		inUse, file   int64
		write, remove error
	}{
		{500, 500, nil, nil},
		{501, 501, kms.ErrFull, nil},
		{600, 600, kms.ErrFull, nil},
		{601, 601, kms.ErrFull, kms.ErrFull},
		{999, 999, kms.ErrFull, kms.ErrFull},
		{10, 950, nil, nil},
		{10, 951, kms.ErrFull, kms.ErrFull},
		{500, 900, nil, nil},
	} {
		g.set(test.inUse, test.file)
		f.LookAtUsage(t.Context())
		a := kms.LedgerAttempt{Space: b.Space, Name: mark(10 + i), ID: mark(10 + i), Tag: mark(10 + i)}
		wantErr(t, f.BeginWrite(t.Context(), a), test.write)
		_, err := f.Learn(t.Context(), kms.LedgerLesson{Space: l.Space, Runner: learner, Lines: []kms.LedgerLine{{Name: a.Name, Tag: a.Tag}}})
		wantErr(t, err, test.write)
		a.ID, a.Tag = mark(100+i), kms.LedgerMark{}
		wantErr(t, f.BeginWrite(t.Context(), a), test.remove)
		wantErr(t, f.BeginWrite(t.Context(), open), nil) // a sign
		_, err = f.Learn(t.Context(), kms.LedgerLesson{Space: l.Space, Runner: learner, Trouble: "no room"})
		wantErr(t, err, nil)
		f.switchTwice(t)
	}
	g.set(999, 999)
	f.LookAtUsage(t.Context())
	wantErr(t, f.EndWrite(t.Context(), open, true), nil)
}

// switchTwice throws the kill switch, and takes it back.
func (f *fixture) switchTwice(t *testing.T) {
	t.Helper()
	_, err := f.BlockKEK(t.Context(), "main", 0, kms.Change{Reason: "a test"})
	wantErr(t, err, nil)
	_, err = f.UnblockKEK(t.Context(), "main", 0, kms.Change{Reason: "a test"})
	wantErr(t, err, nil)
}

func TestWithoutAQuotaNothingIsRefused(t *testing.T) {
	f, g := newGauged(t)
	g.usage.Store(&kms.Usage{InUse: 1 << 40, File: 1 << 40})
	f.LookAtUsage(t.Context())
	f.write(t, f.guarded(t, "b"), mark(1), mark(2))
}

func TestWhereNobodyKnowsHowFullTheRegistryIsClientsAddNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, g := newGauged(t)
		b := f.guarded(t, "b")
		a := kms.LedgerAttempt{Space: b.Space, Name: mark(1), ID: mark(1), Tag: mark(1)}
		g.usage.Store(nil)
		time.Sleep(30 * time.Second)
		f.LookAtUsage(t.Context())
		wantErr(t, f.BeginWrite(t.Context(), a), nil) // it is as it was just now
		time.Sleep(31 * time.Second)
		f.LookAtUsage(t.Context())
		a.ID = mark(2)
		wantErr(t, f.BeginWrite(t.Context(), a), kms.ErrUnavailable)
		f.switchTwice(t)
		f.Manager = f.manager(t, f.config()) // it has never known
		wantErr(t, f.BeginWrite(t.Context(), a), kms.ErrUnavailable)
		g.set(0, 0)
		f.LookAtUsage(t.Context())
		wantErr(t, f.BeginWrite(t.Context(), a), nil)
	})
}

func TestTheLogSaysOnceWhatToDoWhenTheRegistryIsFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, g := newGauged(t)
		counts := func() (full, room int) {
			return strings.Count(f.logs.String(), "quota_mib"), strings.Count(f.logs.String(), "has room again")
		}
		for i, test := range []struct {
			inUse      int64
			after      time.Duration
			full, room int
		}{
			{500, 0, 0, 0},
			{501, 0, 1, 0},
			{540, time.Minute, 1, 0},
			{490, time.Minute, 1, 0}, // it may be over again in a moment
			{540, 10 * time.Minute, 2, 0},
			{440, time.Minute, 2, 1},
			{440, time.Minute, 2, 1},
			{540, time.Minute, 3, 1},
		} {
			time.Sleep(test.after)
			g.set(test.inUse, test.inUse)
			f.LookAtUsage(t.Context())
			if full, room := counts(); full != test.full || room != test.room {
				t.Errorf("step %d: the log has %d and %d lines, want %d and %d", i, full, room, test.full, test.room)
			}
		}
	})
}

// onEtcd is a fixture on an etcd with a small quota, which a Manager sees or not.
func onEtcd(t *testing.T, see bool) *fixture {
	t.Helper()
	state, err := registry.Embed(t.Context(), registry.EmbedConfig{
		Dir: t.TempDir(), Quota: 4 << 20, Retention: 300 * time.Millisecond, Timeout: time.Minute,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = state.Close() })
	f := newEmptyFixture(t)
	if f.registry = state; !see {
		blind := &gauged{Registry: state}
		blind.set(0, 0)
		f.registry = blind
	}
	f.Manager = f.manager(t, f.config())
	if _, err := f.EnsureKEK(t.Context(), "main"); err != nil {
		t.Fatal(err)
	}
	return f
}

// flood has a client fill the registry until it is refused, and looks every now and then.
func (f *fixture) flood(t *testing.T, b kms.Bucket, look func()) error {
	t.Helper()
	lines := make([]kms.LedgerLine, kms.MaxLedgerLines)
	for n := range uint32(10_000) {
		for i := range lines {
			binary.BigEndian.PutUint32(lines[i].Name[:], n+1)
			lines[i].Name[15], lines[i].Tag = byte(i), mark(1)
		}
		if _, err := f.Learn(t.Context(), kms.LedgerLesson{Space: b.Space, Runner: learner, Lines: lines}); err != nil {
			return err
		}
		if n%4 == 3 {
			look()
		}
	}
	t.Fatal("a million records were taken")
	return nil
}

// lookAgain looks once etcd has counted, which it does every 100 ms, so that a test
// which is quicker than a client sees in time what a client does.
func (f *fixture) lookAgain(t *testing.T) func() {
	var last kms.Usage
	return func() {
		t.Helper()
		for end := time.Now().Add(2 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
			u, err := f.registry.Usage(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if u != last {
				last = u
				break
			}
		}
		f.LookAtUsage(t.Context())
	}
}

func TestClientsCannotFillTheRegistry(t *testing.T) {
	f := onEtcd(t, true)
	l, b := f.learning(t, "l"), f.guarded(t, "b")
	wantErr(t, f.flood(t, l, f.lookAgain(t)), kms.ErrFull)
	a := kms.LedgerAttempt{Space: b.Space, Name: mark(1), ID: mark(1), Tag: mark(1)}
	wantErr(t, f.BeginWrite(t.Context(), a), kms.ErrFull)
	f.switchTwice(t)
	if _, err := f.RotateKEK(t.Context(), "main", kms.Change{Reason: "a test"}); err != nil {
		t.Error(err)
	}
	if _, err := f.set(t, "l", kms.LedgerSetOff); err != nil {
		t.Fatal(err)
	}
	var err error
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		// What a change has freed counts as free after the next one. Of a KMS that runs there
		// is always a next one.
		if err := f.registry.Commit(t.Context(), kms.Transaction{Put: []kms.Item{{Key: "beat"}}}); err != nil {
			t.Fatal(err)
		}
		f.LookAtUsage(t.Context())
		if err = f.BeginWrite(t.Context(), a); !errors.Is(err, kms.ErrFull) {
			break
		}
	}
	wantErr(t, err, nil) // what was deleted is compacted
	f.switchTwice(t)
}

func TestAFullRegistryHasNoKillSwitch(t *testing.T) {
	f := onEtcd(t, false)
	wantErr(t, f.flood(t, f.learning(t, "l"), func() { f.LookAtUsage(t.Context()) }), kms.ErrUnavailable)
	if _, err := f.BlockKEK(t.Context(), "main", 0, kms.Change{Reason: "a test"}); err == nil {
		t.Error("a full registry takes a block: then clients need not be kept from filling it")
	}
}
