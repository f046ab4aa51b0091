package kms_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"chatelaine/kms"
)

// by is who changes keys in these tests.
var by = kms.Change{Actor: "carol", Reason: "a test"}

func on[T any](v T) *T { return &v }

// must fails the test when a step that sets the scene fails.
func must(t *testing.T, what string, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

func (f *fixture) rotate(t *testing.T, name string) kms.KEK {
	t.Helper()
	kek, err := f.RotateKEK(t.Context(), name, by)
	must(t, "rotating", err)
	return kek
}

func (f *fixture) kek(t *testing.T, name string) *kms.KEK {
	t.Helper()
	kek, err := f.KEK(t.Context(), name)
	must(t, "reading", err)
	return &kek
}

// everything is the whole registry, to show that nothing was changed.
func (f *fixture) everything(t *testing.T) map[string]string {
	t.Helper()
	items, err := f.registry.List(t.Context(), "")
	must(t, "listing", err)
	out := map[string]string{}
	for _, item := range items {
		out[item.Key] = string(item.Value)
	}
	return out
}

func TestRotationMakesANewPrimaryAndLeavesDataReadable(t *testing.T) {
	f := newFixture(t)
	b := f.bucket(t, "data")
	old := current(t, f.Manager, b.Space)
	kek := f.rotate(t, "main")
	if kek.Primary != 2 || kek.Version(1).State != kms.Deactivated || kek.Version(2).State != kms.Active {
		t.Errorf("got %+v", kek)
	}
	for _, v := range kek.Versions {
		last := v.History[len(v.History)-1]
		if last.Actor != "carol" || last.Reason != "a test" || last.Event == "" || last.At.IsZero() {
			t.Errorf("version %d: history %+v", v.Number, v.History)
		}
	}
	if got, err := f.BucketKey(t.Context(), b.Space, old.ID); err != nil || !got.Key.Equal(old.Key) {
		t.Errorf("the old key: %v", err)
	}
	if got := current(t, f.Manager, f.bucket(t, "new").Space); got.KEK.Version != 2 {
		t.Errorf("a new key is under version %d", got.KEK.Version)
	}
}

func TestOfTwoRotationsAtOnceOneWins(t *testing.T) {
	for _, managers := range []int{1, 2} {
		bubble(t, fmt.Sprintf("%d managers", managers), func(t *testing.T) {
			f := newFixture(t)
			c := f.config()
			c.Providers = map[string]kms.Provider{"soft": slow{f.provider, nil}}
			all := []*kms.Manager{f.manager(t, c), f.manager(t, c)}[:managers]
			errs := make(chan error, 2)
			for i := range 2 {
				go func() {
					_, err := all[i%managers].RotateKEK(t.Context(), "main", by)
					errs <- err
				}()
			}
			lost := errors.Join(<-errs, <-errs)
			if !errors.Is(lost, kms.ErrConflict) || errors.Is(lost, kms.ErrUnavailable) || !strings.Contains(lost.Error(), "being made") && !strings.Contains(lost.Error(), "another KMS is making version 2") {
				t.Errorf("got %v", lost)
			}
			if kek := f.kek(t, "main"); kek.Primary != 2 || len(kek.Versions) != 2 {
				t.Errorf("got %+v", kek)
			}
		})
	}
}

func TestNoRequestFailsWhileKeysAreRotated(t *testing.T) {
	f := newFixture(t)
	b := f.bucket(t, "data")
	old := current(t, f.Manager, b.Space)
	ctx, stop := context.WithCancel(t.Context())
	var group sync.WaitGroup
	for i := range 4 {
		group.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				name := fmt.Sprintf("b-%d-%d", i, n)
				fresh, err := f.RegisterBucket(t.Context(), kms.NewBucket{Name: name, Store: "files", StoreName: name, Owner: "alice"})
				if err == nil {
					_, err = f.CurrentKey(t.Context(), fresh.Space)
				}
				if err == nil {
					_, err = f.BucketKey(t.Context(), b.Space, old.ID)
				}
				if err != nil {
					t.Errorf("while it was rotated: %v", err)
				}
			}
		})
	}
	for range 20 {
		f.rotate(t, "main")
	}
	stop()
	group.Wait()
}

func TestVersionNumbersAreNeverUsedTwice(t *testing.T) {
	f := newFixture(t)
	f.rotate(t, "main")
	must(t, "deleting the record", f.registry.Commit(t.Context(), kms.Transaction{Delete: []string{"keks/main"}}))
	kek, err := f.CreateKEK(t.Context(), "main", kms.KEKOptions{})
	if err != nil || kek.Primary != 3 {
		t.Errorf("got %+v, %v, want version 3", kek, err)
	}
}

func TestAVersionThatFailsItsTestIsGivenUpAndItsNumberToo(t *testing.T) {
	f := newFixture(t)
	c := f.config()
	c.Providers = map[string]kms.Provider{"soft": badProvider{Provider: f.provider, unwrap: func(kms.Binding, []byte) ([]byte, error) {
		return nil, kms.ErrCorrupt
	}}}
	_, err := f.manager(t, c).RotateKEK(t.Context(), "main", by)
	wantErr(t, err, kms.ErrCorrupt)
	kek := f.kek(t, "main")
	if kek.Primary != 1 || kek.Version(1).State != kms.Active || kek.Version(2).State != kms.Destroyed {
		t.Errorf("got %+v", kek)
	}
	_, err = f.provider.Inspect(t.Context(), kek.Ref(2))
	wantErr(t, err, kms.ErrNotFound)
	if kek := f.rotate(t, "main"); kek.Primary != 3 {
		t.Errorf("the next version is %d, want 3", kek.Primary)
	}
}

func TestABlockedKeyDoesNothingUntilItIsUnblocked(t *testing.T) {
	f := newFixture(t)
	b := f.bucket(t, "data")
	old := current(t, f.Manager, b.Space)
	f.rotate(t, "main")
	use := func() (wrap, unwrap error) {
		_, _, wrap = f.CreateAccessKey(t.Context(), "alice", false, by)
		_, unwrap = f.BucketKey(t.Context(), b.Space, old.ID)
		return wrap, unwrap
	}
	epoch := func() uint64 {
		n, err := f.Revocations(t.Context())
		must(t, "epoch", err)
		return n
	}
	steps := []struct {
		name         string
		do           func(context.Context, string, uint32, kms.Change) (kms.KEK, error)
		version      uint32
		wrap, unwrap error
		grows        bool
		status       string
	}{
		{"block version 1", f.BlockKEK, 1, nil, kms.ErrDisabled, true, "active"},
		{"block it again", f.BlockKEK, 1, nil, kms.ErrDisabled, false, "active"},
		{"block the whole", f.BlockKEK, 0, kms.ErrDisabled, kms.ErrDisabled, true, "blocked"},
		{"block it again", f.BlockKEK, 0, kms.ErrDisabled, kms.ErrDisabled, false, "blocked"},
		{"block version 2 too", f.BlockKEK, 2, kms.ErrDisabled, kms.ErrDisabled, false, "blocked"},
		{"unblock the whole, which version 1 was not blocked with", f.UnblockKEK, 0, nil, kms.ErrDisabled, true, "active"},
		{"unblock version 1", f.UnblockKEK, 1, nil, nil, true, "active"},
		{"block the primary", f.BlockKEK, 2, kms.ErrDisabled, nil, true, "blocked"},
	}
	for _, s := range steps {
		before := epoch()
		kek, err := s.do(t.Context(), "main", s.version, by)
		must(t, s.name, err)
		wrap, unwrap := use()
		if !errors.Is(wrap, s.wrap) || !errors.Is(unwrap, s.unwrap) || kek.Status() != s.status {
			t.Errorf("%s: wrap %v, unwrap %v, status %s", s.name, wrap, unwrap, kek.Status())
		}
		if grew := epoch() > before; grew != s.grows {
			t.Errorf("%s: the epoch grew: %t", s.name, grew)
		}
	}
	// A blocked primary can be replaced, and stays blocked.
	kek := f.rotate(t, "main")
	if kek.Version(2).State != kms.Suspended || kek.Version(2).Suspension.Before != kms.Deactivated || kek.Status() != "active" {
		t.Errorf("got %+v", kek)
	}
	if wrap, unwrap := use(); wrap != nil || unwrap != nil {
		t.Errorf("after the rotation: %v, %v", wrap, unwrap)
	}
}

func TestIllegalChangesAreRefusedAndChangeNothing(t *testing.T) {
	f := newFixture(t)
	ctx := t.Context()
	for _, name := range []string{"two", "blocked", "retired", "doomed", "gone"} {
		_, err := f.CreateKEK(ctx, name, kms.KEKOptions{})
		must(t, name, err)
		_, err = f.SetKEK(ctx, name, kms.KEKSettings{DeletionAllowed: on(true), WaitingPeriod: on(time.Second)}, by)
		must(t, name, err)
	}
	f.rotate(t, "two")
	_, err := f.BlockKEK(ctx, "blocked", 0, by)
	must(t, "blocking", err)
	for _, name := range []string{"retired", "doomed", "gone"} {
		_, err := f.DeactivateKEK(ctx, name, by)
		must(t, "deactivating", err)
	}
	for _, name := range []string{"doomed", "gone"} {
		_, err := f.ScheduleDestroy(ctx, name, 0, by)
		must(t, "scheduling", err)
	}
	f.edit(t, "keks/gone", `"state":"deactivated","created"`, `"state":"destroyed","created"`)
	f.edit(t, "keks/gone", `"destruction":`, `"was":`)
	f.bucket(t, "data")

	version := func(do func(context.Context, string, uint32, kms.Change) (kms.KEK, error), name string, number uint32) func() error {
		return func() error { _, err := do(ctx, name, number, by); return err }
	}
	whole := func(do func(context.Context, string, kms.Change) (kms.KEK, error), name string) func() error {
		return func() error { _, err := do(ctx, name, by); return err }
	}
	set := func(s kms.KEKSettings) func() error {
		return func() error { _, err := f.SetKEK(ctx, "two", s, by); return err }
	}
	tests := []struct {
		name string
		do   func() error
		want error
		text string
	}{
		{"unknown key", whole(f.RotateKEK, "nobody"), kms.ErrNotFound, `"nobody": not found`},
		{"no name", whole(f.RotateKEK, "a/b"), kms.ErrInvalid, "a/b"},
		{"unknown version", version(f.BlockKEK, "two", 9), kms.ErrNotFound, "version 9"},
		{"rotate a blocked key", whole(f.RotateKEK, "blocked"), kms.ErrDisabled, "it is blocked"},
		{"rotate a key to be destroyed", whole(f.RotateKEK, "doomed"), kms.ErrInvalid, "scheduled"},
		{"rotate a destroyed key", whole(f.RotateKEK, "gone"), kms.ErrInvalid, "destroyed"},
		{"block a destroyed key", version(f.BlockKEK, "gone", 0), kms.ErrInvalid, "nothing to block"},
		{"block a destroyed version", version(f.BlockKEK, "gone", 1), kms.ErrInvalid, "destroyed"},
		{"unblock what is not blocked", version(f.UnblockKEK, "two", 0), kms.ErrInvalid, "not blocked"},
		{"unblock a version that is not", version(f.UnblockKEK, "two", 1), kms.ErrInvalid, "deactivated"},
		{"unblock a version of a blocked key", version(f.UnblockKEK, "blocked", 1), kms.ErrInvalid, "whole KEK"},
		{"deactivate a blocked key", whole(f.DeactivateKEK, "blocked"), kms.ErrInvalid, "blocked"},
		{"deactivate the default", whole(f.DeactivateKEK, "main"), kms.ErrNeeded, "1 of kind bucket, 1 of kind default"},
		{"compromise the primary", version(f.CompromiseKEK, "two", 2), kms.ErrInvalid, "rotate first"},
		{"compromise a blocked primary", version(f.CompromiseKEK, "blocked", 1), kms.ErrInvalid, "rotate first"},
		{"compromise a destroyed version", version(f.CompromiseKEK, "gone", 1), kms.ErrInvalid, "cannot become compromised"},
		{"destroy where that is not allowed", version(f.ScheduleDestroy, "main", 1), kms.ErrInvalid, "deletion_allowed"},
		{"destroy the primary", version(f.ScheduleDestroy, "two", 2), kms.ErrInvalid, "rotate first"},
		{"destroy a key in use", version(f.ScheduleDestroy, "two", 0), kms.ErrInvalid, "deactivate it first"},
		{"destroy a blocked key", version(f.ScheduleDestroy, "blocked", 0), kms.ErrInvalid, "deactivate it first"},
		{"destroy a blocked version", version(f.ScheduleDestroy, "blocked", 1), kms.ErrInvalid, "unblock it first"},
		{"destroy what is destroyed", version(f.ScheduleDestroy, "gone", 1), kms.ErrInvalid, "is destroyed"},
		{"restore what is not planned", version(f.RestoreKEK, "two", 1), kms.ErrInvalid, "no destruction of version 1"},
		{"restore nothing", version(f.RestoreKEK, "two", 0), kms.ErrInvalid, "no destruction is planned"},
		{"restore what is destroyed", version(f.RestoreKEK, "gone", 1), kms.ErrInvalid, "too late"},
		{"create what is destroyed", func() error { _, err := f.CreateKEK(ctx, "gone", kms.KEKOptions{}); return err }, kms.ErrExists, "registry has it"},
		{"a bucket under a retired key", func() error {
			_, err := f.RegisterBucket(ctx, kms.NewBucket{Name: "x", Store: "s", StoreName: "x", Owner: "alice", KEK: "retired"})
			return err
		}, kms.ErrInvalid, `"retired" is deactivated`},
		{"a name like a version", func() error { _, err := f.CreateKEK(ctx, "main.v2", kms.KEKOptions{}); return err }, kms.ErrInvalid, "look like a version"},
		{"too short a period", set(kms.KEKSettings{AutoRotate: on(time.Second)}), kms.ErrInvalid, "auto_rotate_period 1s"},
		{"a negative period", set(kms.KEKSettings{AutoRotate: on(-time.Hour)}), kms.ErrInvalid, "auto_rotate_period"},
		{"too long a wait", set(kms.KEKSettings{WaitingPeriod: on(9000 * time.Hour)}), kms.ErrInvalid, "waiting_period"},
		{"all versions stopped", set(kms.KEKSettings{MinDecryption: on(uint32(3))}), kms.ErrInvalid, "over the primary"},
		{"a reason too long", func() error {
			_, err := f.RotateKEK(ctx, "two", kms.Change{Reason: strings.Repeat("x", 513)})
			return err
		}, kms.ErrInvalid, "513 bytes"},
		{"a reason of two lines", func() error { _, err := f.BlockKEK(ctx, "two", 0, kms.Change{Reason: "a\nb"}); return err }, kms.ErrInvalid, "unprintable"},
		{"a reason that is no text", func() error { _, err := f.BlockKEK(ctx, "two", 0, kms.Change{Reason: "\xff"}); return err }, kms.ErrInvalid, "no UTF-8"},
	}
	for _, test := range tests {
		before := f.everything(t)
		err := test.do()
		if !errors.Is(err, test.want) || !strings.Contains(fmt.Sprint(err), test.text) {
			t.Errorf("%s: got %v, want %v with %q", test.name, err, test.want, test.text)
		}
		if after := f.everything(t); !maps.Equal(before, after) {
			t.Errorf("%s: something was changed", test.name)
		}
	}
}

func TestSettingsForProductionAreNotShort(t *testing.T) {
	f := newFixture(t)
	c := f.config()
	c.Development = false
	m := f.manager(t, c)
	for _, s := range []kms.KEKSettings{{AutoRotate: on(23 * time.Hour)}, {WaitingPeriod: on(23 * time.Hour)}} {
		_, err := m.SetKEK(t.Context(), "main", s, by)
		wantErr(t, err, kms.ErrInvalid)
	}
	kek, err := m.SetKEK(t.Context(), "main", kms.KEKSettings{AutoRotate: on(24 * time.Hour), WaitingPeriod: on(24 * time.Hour)}, by)
	if err != nil || len(kek.History) != 2 || kek.Wait() != 24*time.Hour {
		t.Errorf("got %+v, %v", kek, err)
	}
	if same, err := m.SetKEK(t.Context(), "main", kms.KEKSettings{AutoRotate: on(24 * time.Hour)}, by); err != nil || len(same.History) != 2 {
		t.Errorf("setting what is set: %+v, %v", same.History, err)
	}
}

func TestVersionsBeforeTheLeastDoNotUnwrap(t *testing.T) {
	f := newFixture(t)
	b := f.bucket(t, "data")
	old := current(t, f.Manager, b.Space)
	f.rotate(t, "main")
	for least, want := range map[uint32]error{2: kms.ErrDisabled, 1: nil} {
		_, err := f.SetKEK(t.Context(), "main", kms.KEKSettings{MinDecryption: on(least)}, by)
		must(t, "setting", err)
		_, err = f.BucketKey(t.Context(), b.Space, old.ID)
		wantErr(t, err, want)
		r, err := f.Revocation(t.Context())
		must(t, "revocation", err)
		if r.Forbids(kms.KeyRef{Name: "main", Version: 1}) != (want != nil) {
			t.Errorf("min_decryption_version %d: gateways are told %v", least, r.Unusable)
		}
	}
}

func TestCompromisedVersionsUnwrapAndBlockedOnesStayBlocked(t *testing.T) {
	f := newFixture(t)
	b := f.bucket(t, "data")
	old := current(t, f.Manager, b.Space)
	f.rotate(t, "main")
	_, err := f.BlockKEK(t.Context(), "main", 1, by)
	must(t, "blocking", err)
	kek, err := f.CompromiseKEK(t.Context(), "main", 1, by)
	if err != nil || kek.Version(1).State != kms.Suspended {
		t.Errorf("marking lifted a block: %+v, %v", kek.Version(1), err)
	}
	kek, err = f.UnblockKEK(t.Context(), "main", 1, by)
	if err != nil || kek.Version(1).State != kms.Compromised {
		t.Errorf("got %+v, %v", kek.Version(1), err)
	}
	_, err = f.BucketKey(t.Context(), b.Space, old.ID)
	wantErr(t, err, nil)
}

// recorder is a Gate that remembers what it was asked, and grants with a record of
// its own, or refuses.
type recorder struct {
	shut
	asked  []kms.Operation
	refuse bool
	grant  kms.Grant
}

func (r *recorder) Permit(_ context.Context, op kms.Operation) (kms.Grant, error) {
	r.asked = append(r.asked, op)
	if r.refuse {
		return kms.Grant{}, kms.ErrApproval
	}
	return r.grant, nil
}

func TestDualControlIsAskedAndItsGrantIsPartOfTheChange(t *testing.T) {
	f := newFixture(t)
	gate := &recorder{}
	c := f.config()
	c.Gate = gate
	m := f.manager(t, c)
	f.rotate(t, "main")
	signed := kms.Change{Actor: "carol", Reason: "why", Approval: "id-1"}
	steps := []struct {
		name string
		do   func() error
		want kms.Operation
	}{
		{"set", func() error {
			_, err := m.SetKEK(t.Context(), "main", kms.KEKSettings{DeletionAllowed: on(true)}, signed)
			return err
		}, kms.Operation{Action: kms.ActionSet, Resource: "key/main", Params: map[string]string{"deletion_allowed": "true"}}},
		{
			"block", func() error { _, err := m.BlockKEK(t.Context(), "main", 0, signed); return err },
			kms.Operation{Action: kms.ActionBlock, Resource: "key/main"},
		},
		{
			"unblock", func() error { _, err := m.UnblockKEK(t.Context(), "main", 0, signed); return err },
			kms.Operation{Action: kms.ActionUnblock, Resource: "key/main"},
		},
		{
			"block one", func() error { _, err := m.BlockKEK(t.Context(), "main", 1, signed); return err },
			kms.Operation{Action: kms.ActionBlock, Resource: "key/main.v1", Params: map[string]string{"version": "1"}},
		},
		{
			"unblock one", func() error { _, err := m.UnblockKEK(t.Context(), "main", 1, signed); return err },
			kms.Operation{Action: kms.ActionUnblock, Resource: "key/main.v1", Params: map[string]string{"version": "1"}},
		},
		{
			"destroy", func() error { _, err := m.ScheduleDestroy(t.Context(), "main", 1, signed); return err },
			kms.Operation{Action: kms.ActionDestroy, Resource: "key/main.v1", Params: map[string]string{"version": "1", "waiting_period": "168h0m0s"}},
		},
	}
	for i, s := range steps {
		gate.refuse, gate.asked = true, nil
		before := f.everything(t)
		wantErr(t, s.do(), kms.ErrApproval)
		if !maps.Equal(before, f.everything(t)) {
			t.Errorf("%s: something was changed without an approval", s.name)
		}
		// A grant that was used meanwhile does not count.
		used := kms.Condition{Key: "grants/x", Revision: 99999}
		gate.refuse, gate.grant = false, kms.Grant{If: []kms.Condition{used}}
		wantErr(t, s.do(), kms.ErrConflict)
		if !maps.Equal(before, f.everything(t)) {
			t.Errorf("%s: something was changed under a grant that does not hold", s.name)
		}
		mark := fmt.Sprintf("grants/%d", i)
		gate.asked, gate.grant = nil, kms.Grant{If: []kms.Condition{{Key: mark}}, Put: []kms.Item{{Key: mark, Value: []byte("used")}}}
		must(t, s.name, s.do())
		if f.everything(t)[mark] != "used" {
			t.Errorf("%s: the grant is not marked used", s.name)
		}
		s.want.Actor, s.want.Reason, s.want.Approval = "carol", "why", "id-1"
		if len(gate.asked) != 1 || fmt.Sprint(gate.asked[0]) != fmt.Sprint(s.want) {
			t.Errorf("%s: asked %+v, want %+v", s.name, gate.asked, s.want)
		}
	}
}

func TestHistoriesAreBoundedAndKeepTheirFirstLine(t *testing.T) {
	f := newFixture(t)
	for range 150 {
		_, err := f.BlockKEK(t.Context(), "main", 0, by)
		must(t, "blocking", err)
		_, err = f.UnblockKEK(t.Context(), "main", 0, by)
		must(t, "unblocking", err)
	}
	h := f.kek(t, "main").Version(1).History
	if len(h) != 200 || h[0].Event != "created" || h[199].Event != "unblocked" {
		t.Errorf("%d lines, from %+v to %+v", len(h), h[0], h[len(h)-1])
	}
}

func TestAnUnfinishedVersionFromTheFutureIsTakenOver(t *testing.T) {
	f := newFixture(t)
	f.edit(t, "keks/main", `"versions":[`, `"maker":"somebody","versions":[`)
	var doc struct {
		Schema int     `json:"schema"`
		Record kms.KEK `json:"record"`
	}
	item, err := f.registry.Get(t.Context(), "keks/main")
	must(t, "reading", err)
	must(t, "decoding", json.Unmarshal(item.Value, &doc))
	for name, test := range map[string]struct {
		age  time.Duration
		want error
	}{
		"another is at it":           {time.Second, kms.ErrConflict},
		"its clock is a bit ahead":   {-time.Second, kms.ErrConflict},
		"it has crashed":             {time.Minute, nil},
		"its clock was a year ahead": {-365 * 24 * time.Hour, nil},
	} {
		d := doc
		d.Record.Versions = append(slices.Clone(doc.Record.Versions), kms.KEKVersion{
			Number: 2, State: kms.PreActive, Created: time.Now().Add(-test.age),
			History: []kms.StateChange{{Event: "created", State: kms.PreActive, Actor: "x"}},
		})
		value, err := json.Marshal(d)
		must(t, "encoding", err)
		must(t, "writing", f.registry.Commit(t.Context(), kms.Transaction{Put: []kms.Item{{Key: "keks/main", Value: value}}}))
		_ = f.provider.Destroy(t.Context(), kms.KeyRef{Name: "main", Version: 2})
		_, err = f.RotateKEK(t.Context(), "main", by)
		if !errors.Is(err, test.want) {
			t.Errorf("%s: got %v, want %v", name, err, test.want)
		}
	}
}
