package kms_test

import (
	"context"
	"errors"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.uber.org/zap"

	"chatelaine/kms"
	"chatelaine/kms/softkey"
)

func (l *lost) snapshot(t *testing.T) kms.Snapshot {
	t.Helper()
	secret := kms.NewSecret([]byte("a secret of alice"))
	if err := l.EnsureAccessKey(t.Context(), kms.NewAccessKey{ID: "ALICE", Secret: secret, Principal: "alice"}); err != nil {
		t.Fatal(err)
	}
	s, err := l.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func restored(t *testing.T, m *kms.Manager, s kms.Snapshot, change func(*kms.RestoreOptions)) kms.RestoreReport {
	t.Helper()
	o := kms.RestoreOptions{Apply: true, Change: kms.Change{Actor: "op"}}
	if change != nil {
		change(&o)
	}
	report, err := m.Restore(t.Context(), s, o)
	if err != nil {
		t.Fatal(err)
	}
	return report
}

func TestRestoreBringsAllBackIntoAnEmptyRegistry(t *testing.T) {
	l := newLost(t)
	s := l.snapshot(t)
	f := l.after(t)
	before, _ := f.registry.List(t.Context(), "")
	restored(t, f.Manager, s, func(o *kms.RestoreOptions) { o.Apply = false })
	if after, _ := f.registry.List(t.Context(), ""); len(after) != len(before) {
		t.Fatalf("a dry run wrote %d records", len(after)-len(before))
	}
	restored(t, f.Manager, s, nil)
	l.allOpen(t, f.Manager)
	if keys, err := f.AccessKeys(t.Context()); err != nil || len(keys) != 1 || keys[0].ID != "ALICE" {
		t.Errorf("access keys: %v, %v", keys, err)
	}
	old, _ := l.Revocations(t.Context())
	if now, err := f.Revocations(t.Context()); err != nil || now <= old+1000 {
		t.Errorf("revocation epoch %d after %d, %v", now, old, err)
	}
	for _, space := range l.spaces { // a fresh epoch
		if key, err := f.CurrentKey(t.Context(), space); err != nil || l.secrets[key.ID].Len() != 0 {
			t.Errorf("current key: %v, %v", key.ID, err)
		}
	}
	if kek, err := f.RotateKEK(t.Context(), "main", kms.Change{}); err != nil || kek.Primary != 3 {
		t.Errorf("rotating: %d, %v", kek.Primary, err)
	}
}

func TestRestoreGoesOnAfterACrashBetweenAnyTwoSteps(t *testing.T) {
	l := newLost(t)
	s := l.snapshot(t)
	for steps, done := 0, false; !done; steps++ {
		f := l.after(t)
		c := f.config()
		c.Registry = &dying{f.registry, steps}
		_, err := f.manager(t, c).Restore(t.Context(), s, kms.RestoreOptions{Apply: true})
		if done = err == nil; !done && !errors.Is(err, kms.ErrUnavailable) {
			t.Fatal(err)
		}
		restored(t, f.Manager, s, func(o *kms.RestoreOptions) { o.Merge = true })
		l.allOpen(t, f.Manager)
	}
}

func TestRestoreIsRefusedWhereTheRegistryIsInUse(t *testing.T) {
	l := newLost(t)
	s := l.snapshot(t)
	f := l.after(t)
	f.bucket(t, "mine")
	if _, err := f.Restore(t.Context(), s, kms.RestoreOptions{Apply: true}); !errors.Is(err, kms.ErrExists) {
		t.Errorf("got %v, want ErrExists", err)
	}
	restored(t, f.Manager, s, func(o *kms.RestoreOptions) { o.Merge = true })
	l.allOpen(t, f.Manager)
	if _, err := f.Bucket(t.Context(), "mine"); err != nil {
		t.Error(err)
	}
}

func TestRestoreIntoARegistryInUseNeedsThePermissionOfItsRules(t *testing.T) {
	l := newLost(t)
	s := l.snapshot(t)
	c := l.config()
	gate := &refusing{}
	c.Gate = gate
	_, err := l.manager(t, c).Restore(t.Context(), s, kms.RestoreOptions{Apply: true, Merge: true})
	if !errors.Is(err, kms.ErrApproval) || gate.asked.Action != kms.ActionRestore || gate.asked.Params["digest"] != s.Digest() {
		t.Errorf("got %v after %+v", err, gate.asked)
	}
}

func TestAnOldBackupTakesNothingBackThatIsKnown(t *testing.T) {
	l := newLost(t)
	s := l.snapshot(t)
	ctx := t.Context()
	if err := l.DisableAccessKey(ctx, "ALICE", kms.Change{}); err != nil {
		t.Fatal(err)
	}
	if err := l.RemoveBucket(ctx, "photos"); err != nil {
		t.Fatal(err)
	}
	blockMain(t, l.fixture)
	report := restored(t, l.Manager, s, func(o *kms.RestoreOptions) { o.Merge = true })
	if keys, _ := l.AccessKeys(ctx); len(keys) != 1 || keys[0].Status != kms.KeyDisabled {
		t.Errorf("the disabled access key: %+v", keys)
	}
	if _, err := l.Bucket(ctx, "photos"); !errors.Is(err, kms.ErrNotFound) {
		t.Errorf("the removed bucket: %v", err)
	}
	if kek, _ := l.KEK(ctx, "main"); !kek.Blocked {
		t.Error("the blocked KEK is not blocked any more")
	}
	if !slices.ContainsFunc(report.Notes, func(n string) bool { return strings.Contains(n, `"photos" is not restored`) }) {
		t.Errorf("notes: %q", report.Notes)
	}
}

func TestRestoreKnowsAgainWhatWasBlockedBefore(t *testing.T) {
	l := newLost(t)
	blockMain(t, l.fixture)
	s, err := l.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	f := l.after(t) // has adopted main, not blocked
	restored(t, f.Manager, s, nil)
	if kek, err := f.KEK(t.Context(), "main"); err != nil || !kek.Blocked || kek.Version(2).State != kms.Suspended {
		t.Errorf("got %+v, %v", kek, err)
	}
}

func TestRestoreOfABackupFromBeforeARotationHasTheNewVersionToo(t *testing.T) {
	l := newLost(t)
	s := l.snapshot(t)
	if _, err := l.RotateKEK(t.Context(), "other", kms.Change{}); err != nil {
		t.Fatal(err)
	}
	l.epoch(t) // after the backup
	f := l.after(t)
	restored(t, f.Manager, s, nil)
	if kek, err := f.KEK(t.Context(), "other"); err != nil || kek.Primary != 3 || kek.Version(2).State != kms.Deactivated {
		t.Errorf("got %+v, %v", kek, err)
	}
	if report := recoverBuckets(t, f.Manager, true, l.mirrors); !report.Clean() {
		t.Errorf("recovering what is newer: %+v", report)
	}
	l.allOpen(t, f.Manager)
}

func TestRestoreIsRefusedWithAnotherToken(t *testing.T) {
	l := newLost(t)
	s := l.snapshot(t)
	other, err := softkey.New(softkey.Config{Name: softkey.Name, Dir: filepath.Join(t.TempDir(), "keys"), Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	f := l.after(t)
	f.registry, f.provider = newFixture(t).registry, other
	c := f.config()
	c.Registry = newEmptyFixture(t).registry
	m := f.manager(t, c)
	if _, err := m.Restore(t.Context(), s, kms.RestoreOptions{Apply: true}); !errors.Is(err, kms.ErrNotFound) || !strings.Contains(err.Error(), "right token") {
		t.Errorf("an empty token: %v", err)
	}
	if _, err := m.EnsureKEK(t.Context(), "main"); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Restore(t.Context(), s, kms.RestoreOptions{Apply: true}); !errors.Is(err, kms.ErrCorrupt) || !strings.Contains(err.Error(), "right token") {
		t.Errorf("a token with another main: %v", err)
	}
}

func TestRestoreWithoutAnOldVersionMustBeAllowed(t *testing.T) {
	l := newLost(t)
	s := l.snapshot(t)
	if err := l.provider.Destroy(t.Context(), kms.KeyRef{Name: "other", Version: 1}); err != nil {
		t.Fatal(err)
	}
	f := l.after(t)
	if _, err := f.Restore(t.Context(), s, kms.RestoreOptions{Apply: true}); !errors.Is(err, kms.ErrNeeded) {
		t.Errorf("got %v, want ErrNeeded", err)
	}
	restored(t, f.Manager, s, func(o *kms.RestoreOptions) { o.AllowMissing = true })
	if kek, err := f.KEK(t.Context(), "other"); err != nil || kek.Version(1).State != kms.Destroyed {
		t.Errorf("got %+v, %v", kek, err)
	}
	f.manager(t, f.config()) // starts again
}

func TestRestoreRefusesWhatIsNoSnapshot(t *testing.T) {
	l := newLost(t)
	good := l.snapshot(t)
	for name, items := range map[string][]kms.Item{
		"order":  append(slices.Clone(good.Items[1:]), good.Items[0]),
		"twice":  append([]kms.Item{good.Items[0]}, good.Items...),
		"text":   {{Key: "buckets/x", Value: []byte("x")}},
		"schema": {{Key: "buckets/x", Value: []byte(`{"schema":3,"record":{}}`)}},
		"no key": {{Value: good.Items[0].Value}},
	} {
		if _, err := l.after(t).Restore(t.Context(), kms.Snapshot{Items: items}, kms.RestoreOptions{Apply: true}); !errors.Is(err, kms.ErrInvalid) {
			t.Errorf("%s: got %v, want ErrInvalid", name, err)
		}
	}
}

func TestSnapshotsHaveNothingOfProcessesThatRun(t *testing.T) {
	l := newLost(t)
	if err := l.WriteReplica(t.Context(), kms.Replica{ID: "r"}); err != nil {
		t.Fatal(err)
	}
	kinds := map[string]bool{}
	for _, item := range l.snapshot(t).Items {
		kind, _, _ := strings.Cut(item.Key, "/")
		kinds[kind] = true
	}
	if kinds["replicas"] || !kinds["buckets"] || !kinds["bucketkeys"] || !kinds["keks"] {
		t.Errorf("got %v", slices.Sorted(maps.Keys(kinds)))
	}
}

// refusing permits nothing.
type refusing struct{ asked kms.Operation }

func (r *refusing) Permit(_ context.Context, op kms.Operation) (kms.Grant, error) {
	r.asked = op
	return kms.Grant{}, kms.ErrApproval
}

func (*refusing) Usable(context.Context, string) error { return nil }
