package kms_test

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"chatelaine/kms"
)

// unneeded is a fixture whose version 1 nothing needs, scheduled for destruction in
// an hour.
func unneeded(t *testing.T) *fixture {
	t.Helper()
	f := newFixture(t)
	f.rotate(t, "main")
	_, err := f.SetKEK(t.Context(), "main", kms.KEKSettings{DeletionAllowed: on(true), WaitingPeriod: on(time.Hour)}, by)
	must(t, "setting", err)
	_, err = f.ScheduleDestroy(t.Context(), "main", 1, by)
	must(t, "scheduling", err)
	return f
}

// keep runs the keeper for a while.
func keep(t *testing.T, m *kms.Manager, d time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	m.Run(ctx)
}

func TestAVersionIsDestroyedAfterTheWaitingPeriod(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := unneeded(t)
		ref := kms.KeyRef{Name: "main", Version: 1}
		keep(t, f.Manager, 59*time.Minute)
		if kek := f.kek(t, "main"); kek.Version(1).State != kms.Deactivated || kek.Version(1).Destruction == nil {
			t.Fatalf("too early: %+v", kek.Version(1))
		}
		_, err := f.provider.Inspect(t.Context(), ref)
		wantErr(t, err, nil)
		keep(t, f.Manager, 5*time.Minute)
		v := f.kek(t, "main").Version(1)
		if v.State != kms.Destroyed || v.Destruction != nil || v.History[len(v.History)-1].Event != "destroyed" {
			t.Errorf("got %+v", v)
		}
		_, err = f.provider.Inspect(t.Context(), ref)
		wantErr(t, err, kms.ErrNotFound)
		f.manager(t, f.config()) // it starts without it
	})
}

func TestADestructionCanBeTakenBackUntilItBegins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := unneeded(t)
		keep(t, f.Manager, 59*time.Minute)
		kek, err := f.RestoreKEK(t.Context(), "main", 1, by)
		must(t, "restoring", err)
		if v := kek.Version(1); v.State != kms.Deactivated || v.Destruction != nil {
			t.Errorf("got %+v", v)
		}
		keep(t, f.Manager, 3*time.Hour)
		if state := f.kek(t, "main").Version(1).State; state != kms.Deactivated {
			t.Errorf("it is %s", state)
		}
	})
}

func TestNoJumpOfAClockShortensTheWait(t *testing.T) {
	// A record's time that has moved is what a clock that was set looks like.
	move := func(by time.Duration) func(*testing.T, *fixture) {
		return func(t *testing.T, f *fixture) {
			due := f.kek(t, "main").Version(1).Destruction.Due
			f.edit(t, "keks/main", due.Format(time.RFC3339Nano), due.Add(by).Format(time.RFC3339Nano))
		}
	}
	for name, test := range map[string]struct {
		jump  func(t *testing.T, f *fixture)
		still time.Duration // it is there after
	}{
		"wall clock set forward": {move(-1000 * time.Hour), 58 * time.Minute},
		"wall clock set back":    {move(3 * time.Hour), 238 * time.Minute},
		"no KMS ran":             {func(*testing.T, *fixture) { time.Sleep(100 * time.Hour) }, 58 * time.Minute},
	} {
		bubble(t, name, func(t *testing.T) {
			f := unneeded(t)
			keep(t, f.Manager, time.Minute)
			test.jump(t, f)
			keep(t, f.Manager, test.still)
			if v := f.kek(t, "main").Version(1); v.State != kms.Deactivated || v.Destruction.Started {
				t.Errorf("got %+v", v)
			}
			keep(t, f.Manager, 15*time.Minute)
			if v := f.kek(t, "main").Version(1); v.State != kms.Destroyed {
				t.Errorf("at last: %+v", v)
			}
		})
	}
}

// hooked is a provider that does something just after it has made or destroyed a key.
type hooked struct {
	kms.Provider
	created, destroyed func() error
}

func (h hooked) Create(ctx context.Context, ref kms.KeyRef) (kms.KeyInfo, error) {
	info, err := h.Provider.Create(ctx, ref)
	if err == nil && h.created != nil {
		err = h.created()
	}
	return info, err
}

func (h hooked) Destroy(ctx context.Context, ref kms.KeyRef) error {
	err := h.Provider.Destroy(ctx, ref)
	if err == nil && h.destroyed != nil {
		err = h.destroyed()
	}
	return err
}

func (f *fixture) hooked(t *testing.T, h hooked) *kms.Manager {
	t.Helper()
	h.Provider = f.provider
	c := f.config()
	c.Providers = map[string]kms.Provider{"soft": h}
	c.ProviderTimeout = time.Hour
	return f.manager(t, c)
}

func TestABlockWinsOverARotationThatIsUnderWay(t *testing.T) {
	f := newFixture(t)
	m := f.hooked(t, hooked{created: func() error {
		_, err := f.BlockKEK(t.Context(), "main", 0, by)
		return err
	}})
	_, err := m.RotateKEK(t.Context(), "main", by)
	wantErr(t, err, kms.ErrDisabled)
	if kek := f.kek(t, "main"); kek.Primary != 1 || kek.Status() != "blocked" {
		t.Errorf("got %+v", kek)
	}
	_, err = m.UnblockKEK(t.Context(), "main", 0, by)
	must(t, "unblocking", err)
	if kek, err := m.RotateKEK(t.Context(), "main", by); err != nil || kek.Primary != 2 {
		t.Errorf("the version that was made is not taken up: %+v, %v", kek, err)
	}
}

func TestAManagerThatWasTooSlowDoesNotFinishWhatAnotherTookOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		m := f.hooked(t, hooked{created: func() error {
			time.Sleep(16 * time.Second)
			kek, err := f.RotateKEK(t.Context(), "main", kms.Change{Actor: "another"})
			if err != nil || kek.Primary != 2 {
				t.Errorf("taking over: %+v, %v", kek, err)
			}
			return nil
		}})
		_, err := m.RotateKEK(t.Context(), "main", by)
		wantErr(t, err, kms.ErrConflict)
		if v := f.kek(t, "main").Version(2); v.State != kms.Active || v.History[1].Actor != "another" {
			t.Errorf("got %+v", v)
		}
	})
}

func TestADestructionOfWhichTheAnswerWasLostIsFinished(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := unneeded(t)
		keep(t, f.hooked(t, hooked{destroyed: func() error { return kms.ErrUnavailable }}), 61*time.Minute+7*time.Minute)
		if v := f.kek(t, "main").Version(1); v.State != kms.Destroyed {
			t.Errorf("got %+v", v)
		}
	})
}

func TestAVersionThatIsToBeDestroyedOpensNothing(t *testing.T) {
	f := newFixture(t)
	b := f.bucket(t, "data")
	old := current(t, f.Manager, b.Space)
	f.rotate(t, "main")
	f.edit(t, "keks/main", `"number":1,`, `"number":1,"destruction":{"due":"2099-01-01T00:00:00Z"},`)
	_, err := f.BucketKey(t.Context(), b.Space, old.ID)
	wantErr(t, err, kms.ErrDisabled)
	_, err = f.RestoreKEK(t.Context(), "main", 1, by)
	must(t, "restoring", err)
	_, err = f.BucketKey(t.Context(), b.Space, old.ID)
	wantErr(t, err, nil)
}

func TestWhatIsNeededIsNotDestroyed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		b := f.bucket(t, "data")
		key := current(t, f.Manager, b.Space)
		_, _, err := f.CreateAccessKey(t.Context(), "alice", false, by)
		must(t, "access key", err)
		f.rotate(t, "main")
		_, err = f.SetKEK(t.Context(), "main", kms.KEKSettings{DeletionAllowed: on(true), WaitingPeriod: on(time.Hour)}, by)
		must(t, "setting", err)
		_, err = f.ScheduleDestroy(t.Context(), "main", 1, by)
		wantErr(t, err, kms.ErrNeeded)
		if !strings.Contains(fmt.Sprint(err), "1 of kind access-key, 1 of kind bucket-key") {
			t.Errorf("got %v", err)
		}
		needs, err := f.Needs(t.Context(), kms.KeyRef{Name: "main"})
		must(t, "needs", err)
		var kinds []string
		for _, n := range needs {
			kinds = append(kinds, fmt.Sprintf("%s %s %d", n.Kind, n.Bucket, n.Version))
		}
		if want := []string{"default  0", "bucket data 0", "bucket-key data 1", "access-key  1"}; !slices.Equal(kinds, want) {
			t.Errorf("got %q, want %q", kinds, want)
		}

		// What comes to need it after it was scheduled, which nothing does, saves it.
		f = unneeded(t)
		b = f.bucket(t, "data")
		key = current(t, f.Manager, b.Space)
		path := "bucketkeys/" + b.Space + "/" + key.ID.String()
		f.edit(t, path, `"kek_version":2`, `"stale":[{"name":"main","version":1}],"kek_version":2`)
		keep(t, f.Manager, 2*time.Hour)
		v := f.kek(t, "main").Version(1)
		if v.State != kms.Deactivated || v.Destruction == nil || v.Destruction.Started {
			t.Errorf("got %+v", v)
		}
		must(t, "confirming", f.ConfirmMirror(t.Context(), b.Space, key.ID, key.Record))
		keep(t, f.Manager, 5*time.Minute)
		if state := f.kek(t, "main").Version(1).State; state != kms.Destroyed {
			t.Errorf("when nothing needed it any more: %s", state)
		}
	})
}

// late is a registry in which something comes to need a version at the moment in
// which its destruction is recorded as begun.
type late struct {
	kms.Registry
	once sync.Once
	f    func()
}

func (l *late) Commit(ctx context.Context, t kms.Transaction) error {
	err := l.Registry.Commit(ctx, t)
	for _, item := range t.Put {
		if bytes.Contains(item.Value, []byte(`"started":true`)) {
			l.once.Do(l.f)
		}
	}
	return err
}

func TestADestructionIsInterruptedWhenSomethingNeedsTheKeyAtTheLastMoment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := unneeded(t)
		b := f.bucket(t, "data")
		key := current(t, f.Manager, b.Space)
		c := f.config()
		c.Registry = &late{Registry: f.registry, f: func() {
			f.edit(t, "bucketkeys/"+b.Space+"/"+key.ID.String(), `"kek_version":2`, `"kek_version":1`)
		}}
		keep(t, f.manager(t, c), 2*time.Hour)
		v := f.kek(t, "main").Version(1)
		if v.State != kms.Deactivated || v.Destruction == nil || v.Destruction.Started || v.History[len(v.History)-1].Event != "destruction interrupted" {
			t.Errorf("got %+v", v)
		}
		_, err := f.provider.Inspect(t.Context(), kms.KeyRef{Name: "main", Version: 1})
		wantErr(t, err, nil)
	})
}

func TestAWholeKeyIsDestroyed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		_, err := f.CreateKEK(t.Context(), "own", kms.KEKOptions{})
		must(t, "creating", err)
		f.rotate(t, "own")
		_, err = f.SetKEK(t.Context(), "own", kms.KEKSettings{DeletionAllowed: on(true), WaitingPeriod: on(time.Hour)}, by)
		must(t, "setting", err)
		_, err = f.DeactivateKEK(t.Context(), "own", by)
		must(t, "deactivating", err)
		kek, err := f.ScheduleDestroy(t.Context(), "own", 0, by)
		if err != nil || kek.Status() != "scheduled" {
			t.Fatalf("got %s, %v", kek.Status(), err)
		}
		keep(t, f.Manager, 2*time.Hour)
		if kek := f.kek(t, "own"); kek.Status() != "destroyed" || kek.Version(1).State != kms.Destroyed {
			t.Errorf("got %+v", kek)
		}
	})
}

func TestKeysAreRotatedOnceAPeriodByOneOfSeveralManagers(t *testing.T) {
	const period = 6 * time.Hour
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		_, err := f.SetKEK(t.Context(), "main", kms.KEKSettings{AutoRotate: on(period)}, by)
		must(t, "setting", err)
		began := time.Now()
		ctx, stop := context.WithCancel(t.Context())
		var group sync.WaitGroup
		for range 3 {
			m := f.manager(t, f.config())
			group.Go(func() { m.Run(ctx) })
		}
		time.Sleep(3*period + time.Hour)
		stop()
		group.Wait()
		kek := f.kek(t, "main")
		// A period and its slack, spread and ticks are at most 6 h 7 min.
		if n := len(kek.Versions) - 1; n != 3 {
			t.Errorf("rotated %d times in three periods", n)
		}
		last := began
		for _, v := range kek.Versions[1:] {
			if since := v.History[1].At.Sub(last); since < period || since > period+8*time.Minute {
				t.Errorf("version %d came after %v", v.Number, since)
			}
			if v.History[1].Actor != "kms" {
				t.Errorf("version %d was made by %q", v.Number, v.History[1].Actor)
			}
			last = v.History[1].At
		}
	})
}

func TestAKeyThatIsNotActiveIsNotRotatedByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		_, err := f.SetKEK(t.Context(), "main", kms.KEKSettings{AutoRotate: on(time.Hour)}, by)
		must(t, "setting", err)
		_, err = f.BlockKEK(t.Context(), "main", 1, by)
		must(t, "blocking", err)
		keep(t, f.Manager, 5*time.Hour)
		if kek := f.kek(t, "main"); len(kek.Versions) != 1 {
			t.Errorf("a blocked key was rotated: %+v", kek)
		}
	})
}
