package service

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"chatelaine/kms"
)

// newRemovalsWorld is what a process knows, without its RPC.
func newRemovalsWorld(t *testing.T) (*world, *removals) {
	t.Helper()
	w := newWorld(t, nil)
	return w, newRemovals(w.manager, newLeases(15*time.Second, 8, NewMetrics()), 300*time.Second, w.log)
}

func (w *world) removeOne(t *testing.T) {
	t.Helper()
	_, err := w.manager.RegisterBucket(t.Context(), kms.NewBucket{Name: "b", Store: "files", StoreName: "b", Owner: "alice"})
	if err == nil {
		err = w.manager.RemoveBucket(t.Context(), "b")
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestRemovalsAreForgottenWhenNoKeyCanBeLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, r := newRemovalsWorld(t)
		other := newRemovals(w.manager, r.leases, 300*time.Second, w.log) // another process
		w.removeOne(t)
		for _, p := range []*removals{r, other} {
			if n, spaces, err := p.look(t.Context(), 0); err != nil || n != 1 || len(spaces) != 1 {
				t.Errorf("got %d, %v, %v", n, spaces, err)
			}
		}
		for _, step := range []struct {
			sleep time.Duration
			want  int
		}{{302 * time.Second, 1}, {1, 0}} {
			time.Sleep(step.sleep)
			if _, _, err := r.look(t.Context(), 0); err != nil {
				t.Fatal(err)
			}
			if all, err := w.manager.Removals(t.Context()); err != nil || len(all) != step.want {
				t.Errorf("%d removals are left, want %d, %v", len(all), step.want, err)
			}
		}
		if _, _, err := other.look(t.Context(), 0); err != nil || len(r.seen) != 0 || len(other.seen) != 0 {
			t.Errorf("remembered in memory: %d and %d, %v", len(r.seen), len(other.seen), err)
		}
	})
}

func TestALateReadDoesNotHideARemoval(t *testing.T) {
	_, r := newRemovalsWorld(t)
	a, b := kms.Removal{Bucket: "a", Space: "a"}, kms.Removal{Bucket: "b", Space: "b"}
	r.note([]kms.Removal{a, b}, 0)
	_, n, spaces := r.note([]kms.Removal{a}, 0) // read before the second removal
	slices.Sort(spaces)
	if n != 2 || !slices.Equal(spaces, []string{"a", "b"}) {
		t.Errorf("%d removals stand for %v", n, spaces)
	}
	if _, n, spaces := r.note([]kms.Removal{a, b}, 2); n != 2 || len(spaces) != 0 {
		t.Errorf("told again: %d, %v", n, spaces)
	}
}

func TestAnAcknowledgementCountsUnderItsOwnLeaseOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLeases(15*time.Second, 8, NewMetrics())
		heard := func() bool { all, _, _ := l.unheard(1); return all }
		if !heard() {
			t.Error("nobody has a lease, and somebody has not heard")
		}
		id, _ := l.renew(asking{holder: "a", id: "", heard: 7})
		if heard() {
			t.Error("what was heard before the lease counts")
		}
		if _, err := l.renew(asking{holder: "b", id: id, heard: 7}); err != nil || heard() {
			t.Errorf("another holder's word counts, %v", err)
		}
		time.Sleep(15*time.Second + margin - 1)
		if heard() {
			t.Error("leases are over before the margin is")
		}
		time.Sleep(1)
		if !heard() {
			t.Error("leases that ran out count")
		}
		id, _ = l.renew(asking{holder: "a", id: "", heard: 0})
		_, _, changed := l.unheard(1)
		_, _ = l.renew(asking{holder: "a", id: id, heard: 1})
		select {
		case <-changed:
		default:
			t.Error("who waits was not told")
		}
		if !heard() {
			t.Error("the acknowledgement does not count")
		}
	})
}
