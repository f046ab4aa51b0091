package kms_test

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.uber.org/zap"

	"chatelaine/kms"
	"chatelaine/kms/registry"
	"chatelaine/kms/softkey"
)

// lost is a KMS with two buckets, of keys under two versions of two KEKs, before it
// loses its registry.
type lost struct {
	*fixture
	mirrors map[string]map[string][]byte // of each bucket, by name
	secrets map[kms.KeyID]kms.Secret
	spaces  map[string]string
}

func newLost(t *testing.T) *lost {
	t.Helper()
	return losing(t, newFixture(t))
}

// losing fills a KMS whose default KEK is there.
func losing(t *testing.T, f *fixture) *lost {
	t.Helper()
	l := &lost{fixture: f, mirrors: map[string]map[string][]byte{}, secrets: map[kms.KeyID]kms.Secret{}, spaces: map[string]string{}}
	if _, err := l.CreateKEK(t.Context(), "other", kms.KEKOptions{}); err != nil {
		t.Fatal(err)
	}
	for name, kek := range map[string]string{"photos": "main", "films": "other"} {
		b, err := l.RegisterBucket(t.Context(), kms.NewBucket{Name: name, Store: "files", StoreName: "p-" + name, Owner: "alice", KEK: kek})
		if err != nil {
			t.Fatal(err)
		}
		l.spaces[name], l.mirrors[name] = b.Space, map[string][]byte{}
	}
	l.epoch(t)
	for _, kek := range []string{"main", "other"} {
		if _, err := l.RotateKEK(t.Context(), kek, kms.Change{}); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		l.epoch(t)
	}
	return l
}

// epoch begins a new epoch in each bucket, by making the current one old.
func (l *lost) epoch(t *testing.T) {
	t.Helper()
	for name, space := range l.spaces {
		l.age(t, space)
		key, err := l.CurrentKey(t.Context(), space)
		if err != nil {
			t.Fatal(err)
		}
		l.mirrors[name][key.ID.String()] = key.Record
		l.secrets[key.ID] = key.Key
	}
}

func (l *lost) age(t *testing.T, space string) {
	t.Helper()
	item, err := l.registry.Get(t.Context(), "current/"+space)
	if errors.Is(err, kms.ErrNotFound) {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	item.Value = []byte(strings.Replace(string(item.Value), `"created":"20`, `"created":"10`, 1))
	if err := l.registry.Commit(t.Context(), kms.Transaction{Put: []kms.Item{item}}); err != nil {
		t.Fatal(err)
	}
}

// after is the KMS with an empty registry, which has adopted its default KEK.
func (l *lost) after(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{registry: registry.NewMemory(), provider: l.provider, dir: l.dir, logs: &bytes.Buffer{}}
	f.Manager = f.manager(t, f.config())
	if _, err := f.AdoptKEK(t.Context(), "main", kms.KEKOptions{}); err != nil {
		t.Fatal(err)
	}
	return f
}

func recoverBuckets(t *testing.T, m *kms.Manager, apply bool, mirrors map[string]map[string][]byte, change ...func(*kms.RecoveredBucket)) kms.RecoveryReport {
	t.Helper()
	report, err := tryRecover(t.Context(), m, apply, mirrors, change...)
	if err != nil {
		t.Fatal(err)
	}
	return report
}

func tryRecover(ctx context.Context, m *kms.Manager, apply bool, mirrors map[string]map[string][]byte, change ...func(*kms.RecoveredBucket)) (kms.RecoveryReport, error) {
	r, err := m.NewRecovery(kms.RecoveryOptions{Apply: apply, Change: kms.Change{Actor: "op", Reason: "drill"}})
	if err != nil {
		return kms.RecoveryReport{}, err
	}
	for _, bucket := range slices.Sorted(maps.Keys(mirrors)) {
		b := kms.RecoveredBucket{Name: bucket, Store: "files", StoreName: "p-" + bucket, Owner: "alice"}
		for _, f := range change {
			f(&b)
		}
		if err := r.NewBucket(b); err != nil {
			return kms.RecoveryReport{}, err
		}
		for _, name := range slices.Sorted(maps.Keys(mirrors[bucket])) {
			if err := r.AddMirror(ctx, name, mirrors[bucket][name]); err != nil {
				return kms.RecoveryReport{}, err
			}
		}
	}
	return r.Finish(ctx)
}

func (l *lost) allOpen(t *testing.T, m *kms.Manager) {
	t.Helper()
	for name, space := range l.spaces {
		for text := range l.mirrors[name] {
			var id kms.KeyID
			if err := id.UnmarshalText([]byte(text)); err != nil {
				t.Fatal(err)
			}
			got, err := m.BucketKey(t.Context(), space, id)
			if err != nil || !got.Key.Equal(l.secrets[id]) {
				t.Errorf("key %s of %s: %v, and its bytes are the same: %t", id, name, err, got.Key.Equal(l.secrets[id]))
			}
		}
	}
}

func TestRecoveryBringsAllKeysBackAndBeginsAFreshEpoch(t *testing.T) {
	l := newLost(t)
	f := l.after(t)

	dry := recoverBuckets(t, f.Manager, false, l.mirrors)
	if b, err := f.Buckets(t.Context(), ""); err != nil || len(b) != 0 {
		t.Fatalf("a dry run made %v, %v", b, err)
	}
	if _, err := f.KEK(t.Context(), "other"); !errors.Is(err, kms.ErrNotFound) {
		t.Fatalf("a dry run adopted a KEK: %v", err)
	}
	report := recoverBuckets(t, f.Manager, true, l.mirrors)
	for i, b := range report.Buckets {
		if b.Outcome != kms.RecoveryMade || b.New != 3 || b.Newest != 3 || b.MissingCount != 0 || dry.Buckets[i].Outcome != b.Outcome || dry.Buckets[i].New != 3 {
			t.Errorf("got %+v, before that %+v", b, dry.Buckets[i])
		}
	}
	if !report.Clean() || report.Users {
		t.Errorf("report: %+v", report)
	}
	if want := []kms.KeyRef{{Name: "other", Version: 1}, {Name: "other", Version: 2}}; !slices.Equal(report.Adopted, want) {
		t.Errorf("adopted %v, want %v", report.Adopted, want)
	}
	l.allOpen(t, f.Manager)
	for _, space := range l.spaces {
		key, err := f.CurrentKey(t.Context(), space)
		if err != nil || l.secrets[key.ID].Len() != 0 || key.KEK.Version != 2 || !strings.Contains(string(key.Record), `"epoch":4`) {
			t.Errorf("current key: %s under %s, %v", key.Record, key.KEK, err)
		}
	}
	again := recoverBuckets(t, f.Manager, true, l.mirrors)
	for _, b := range again.Buckets {
		if b.Outcome != kms.RecoveryNothing || b.Known != 3 || b.New != 0 {
			t.Errorf("the second time: %+v", b)
		}
	}
	l.allOpen(t, f.Manager)
}

func TestRecoveryGrowsTheRevocationEpochAboveAnyBefore(t *testing.T) {
	l := newLost(t)
	f := l.after(t)
	recoverBuckets(t, f.Manager, true, l.mirrors)
	before, _ := l.Revocations(t.Context())
	got, err := f.Revocations(t.Context())
	if err != nil || got <= before+1000 {
		t.Errorf("epoch %d after %d, %v", got, before, err)
	}
}

func TestRecoveryRefusesBadMirrorsOneByOne(t *testing.T) {
	l := newLost(t)
	names := slices.Sorted(maps.Keys(l.mirrors["photos"]))
	foreign := slices.Sorted(maps.Keys(l.mirrors["films"]))[0]
	edit := func(old, new string) func(map[string][]byte) {
		return func(m map[string][]byte) {
			text := string(m[names[0]])
			if !strings.Contains(text, old) {
				t.Fatalf("%q is not in %s", old, text)
			}
			m[names[0]] = []byte(strings.Replace(text, old, new, 1))
		}
	}
	var version string
	if strings.Contains(string(l.mirrors["photos"][names[0]]), `"kek_version":1`) {
		version = "1"
	} else {
		version = "2"
	}
	tests := map[string]struct {
		change func(map[string][]byte)
		want   string
	}{
		"truncated":       {func(m map[string][]byte) { m[names[0]] = m[names[0]][:100] }, "damaged"},
		"empty":           {func(m map[string][]byte) { m[names[0]] = nil }, "damaged"},
		"flipped":         {edit(`"wrapped":"`, `"wrapped":"AAAA`), "does not open it"},
		"another space":   {edit(l.spaces["photos"][:8], "6ba7b810"), "does not open it"},
		"renamed":         {func(m map[string][]byte) { m[strings.Repeat("ab", 16)] = m[names[0]]; delete(m, names[0]) }, "swapped or renamed"},
		"two swapped":     {func(m map[string][]byte) { m[names[0]], m[names[1]] = m[names[1]], m[names[0]] }, "swapped or renamed"},
		"of another":      {func(m map[string][]byte) { m[foreign] = l.mirrors["films"][foreign] }, "swapped"},
		"another version": {edit(`"kek_version":`+version, `"kek_version":3`), "has no key main.v3"},
		"another KEK":     {edit(`"kek":"main"`, `"kek":"other"`), "does not open it"},
		"no such epoch":   {edit(`"epoch":`, `"epoch":99999999999999`), "epoch"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			photos := maps.Clone(l.mirrors["photos"])
			test.change(photos)
			f := l.after(t)
			own := func(b *kms.RecoveredBucket) { b.Space = l.spaces["photos"] }
			report := recoverBuckets(t, f.Manager, true, map[string]map[string][]byte{"photos": photos}, own)
			b := report.Buckets[0]
			if len(b.Refused) == 0 || !strings.Contains(b.Refused[0].Problem, test.want) || report.Clean() {
				t.Errorf("got %+v, want a refusal with %q", b, test.want)
			}
			if b.Outcome != kms.RecoveryMade || b.New < 1 {
				t.Errorf("the rest did not go on: %+v", b)
			}
		})
	}
}

func TestRecoveryTellsOfMissingEpochs(t *testing.T) {
	l := newLost(t)
	for name, record := range l.mirrors["photos"] {
		if strings.Contains(string(record), `"epoch":2`) {
			delete(l.mirrors["photos"], name)
		}
	}
	report := recoverBuckets(t, l.after(t).Manager, true, l.mirrors)
	b := report.Buckets[1]
	if b.MissingCount != 1 || !slices.Equal(b.Missing, []uint64{2}) || report.Clean() {
		t.Errorf("got %+v", b)
	}
}

func TestRecoveryLeavesConflictsAlone(t *testing.T) {
	l := newLost(t)
	photos := map[string]map[string][]byte{"photos": l.mirrors["photos"]}
	tests := map[string]struct {
		before  func(*testing.T, *fixture)
		mirrors map[string]map[string][]byte
		change  func(*kms.RecoveredBucket)
		want    string
	}{
		"name taken": {before: func(t *testing.T, f *fixture) { f.bucket(t, "photos") }, want: "another space"},
		"place taken": {before: func(t *testing.T, f *fixture) { f.bucket(t, "photos") }, change: func(b *kms.RecoveredBucket) {
			b.Name = "images"
		}, want: `bucket "photos" is kept there`},
		"space taken": {before: func(t *testing.T, f *fixture) { recoverBuckets(t, f.Manager, true, photos) }, change: func(b *kms.RecoveredBucket) {
			b.Name, b.StoreName = "copy", "p-copy"
		}, want: `that of bucket "photos"`},
		"another owner": {before: func(t *testing.T, f *fixture) { recoverBuckets(t, f.Manager, true, photos) }, change: func(b *kms.RecoveredBucket) {
			b.Owner = "mallory"
		}, want: `as "alice"'s`},
		"removed": {before: func(t *testing.T, f *fixture) {
			recoverBuckets(t, f.Manager, true, photos)
			if err := f.RemoveBucket(t.Context(), "photos"); err != nil {
				t.Fatal(err)
			}
		}, want: "was removed"},
		"two copies":      {mirrors: map[string]map[string][]byte{"photos": photos["photos"], "copy": photos["photos"]}, want: "in 2 buckets"},
		"two spaces":      {mirrors: map[string]map[string][]byte{"photos": union(l.mirrors["photos"], l.mirrors["films"])}, want: "2 spaces"},
		"nothing opens":   {mirrors: map[string]map[string][]byte{"photos": {"x": []byte("{}")}}, want: "none of its keys"},
		"blocked by name": {before: blockMain, want: "none of its keys"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			f := l.after(t)
			if test.before != nil {
				test.before(t, f)
			}
			before, _ := f.registry.List(t.Context(), "")
			mirrors := test.mirrors
			if mirrors == nil {
				mirrors = photos
			}
			change := test.change
			if change == nil {
				change = func(*kms.RecoveredBucket) {}
			}
			report := recoverBuckets(t, f.Manager, true, mirrors, change)
			for _, b := range report.Buckets {
				if b.Outcome != kms.RecoveryConflict || !strings.Contains(b.Problem, test.want) {
					t.Errorf("got %+v, want a conflict with %q", b, test.want)
				}
			}
			after, _ := f.registry.List(t.Context(), "")
			if !slices.EqualFunc(before, after, func(a, b kms.Item) bool { return a.Key == b.Key && a.Revision == b.Revision }) {
				t.Error("the registry was changed")
			}
		})
	}
}

func union(a, b map[string][]byte) map[string][]byte {
	out := maps.Clone(a)
	maps.Copy(out, b)
	return out
}

func blockMain(t *testing.T, f *fixture) {
	t.Helper()
	if _, err := f.BlockKEK(t.Context(), "main", 0, kms.Change{}); err != nil {
		t.Fatal(err)
	}
}

func TestRecoveryAddsWhatAnOldRegistryLacks(t *testing.T) {
	l := newLost(t)
	f := l.after(t)
	old := map[string]map[string][]byte{"photos": {}}
	for name, record := range l.mirrors["photos"] {
		if !strings.Contains(string(record), `"epoch":3`) {
			old["photos"][name] = record
		}
	}
	recoverBuckets(t, f.Manager, true, old)
	report := recoverBuckets(t, f.Manager, true, l.mirrors)
	if b := report.Buckets[1]; b.Outcome != kms.RecoveryMerged || b.New != 1 || b.Known != 2 || b.Newest != 3 {
		t.Errorf("got %+v", b)
	}
	l.allOpen(t, f.Manager)
}

func TestNothingIsRecoveredWithAnotherToken(t *testing.T) {
	l := newLost(t)
	other, err := softkey.New(softkey.Config{Name: softkey.Name, Dir: filepath.Join(t.TempDir(), "keys"), Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	f := &fixture{registry: registry.NewMemory(), provider: other, logs: &bytes.Buffer{}}
	f.Manager = f.manager(t, f.config())
	if _, err := f.AdoptKEK(t.Context(), "main", kms.KEKOptions{}); !errors.Is(err, kms.ErrNotFound) || !strings.Contains(err.Error(), "right token") {
		t.Errorf("adopting from an empty token: %v", err)
	}
	if _, err := f.EnsureKEK(t.Context(), "main"); err != nil { // of the same name, another key
		t.Fatal(err)
	}
	report := recoverBuckets(t, f.Manager, true, l.mirrors)
	for _, b := range report.Buckets {
		if b.Outcome != kms.RecoveryConflict || len(b.Refused) != 3 {
			t.Errorf("got %+v", b)
		}
	}
}

// dying is a registry that takes so many transactions and no more.
type dying struct {
	kms.Registry
	left int
}

func (d *dying) Commit(ctx context.Context, t kms.Transaction) error {
	if d.left--; d.left < 0 {
		return kms.ErrUnavailable
	}
	return d.Registry.Commit(ctx, t)
}

func TestRecoveryGoesOnAfterACrashBetweenAnyTwoSteps(t *testing.T) {
	l := newLost(t)
	done := false
	for steps := 0; !done; steps++ {
		f := l.after(t)
		c := f.config()
		c.Registry = &dying{f.registry, steps}
		_, err := tryRecover(t.Context(), f.manager(t, c), true, l.mirrors)
		if done = err == nil; !done && !errors.Is(err, kms.ErrUnavailable) {
			t.Fatal(err)
		}
		if report := recoverBuckets(t, f.Manager, true, l.mirrors); !report.Clean() {
			t.Errorf("after %d steps: %+v", steps, report)
		}
		l.allOpen(t, f.Manager)
	}
}

func TestAdoptKEKKeepsWhatTheRegistryKnows(t *testing.T) {
	f := newFixture(t)
	for _, n := range []uint32{2, 4} {
		if _, err := f.provider.Create(t.Context(), kms.KeyRef{Name: "main", Version: n}); err != nil {
			t.Fatal(err)
		}
	}
	kek, err := f.AdoptKEK(t.Context(), "main", kms.KEKOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, v := range kek.Versions {
		got = append(got, kek.Ref(v.Number).String()+" "+string(v.State))
	}
	if want := []string{"main.v1 deactivated", "main.v2 deactivated", "main.v4 active"}; kek.Primary != 4 || !slices.Equal(got, want) {
		t.Errorf("got %v, primary %d, want %v", got, kek.Primary, want)
	}
	kek, err = f.RotateKEK(t.Context(), "main", kms.Change{})
	if err != nil || kek.Primary != 5 {
		t.Errorf("rotating: primary %d, %v, want 5", kek.Primary, err)
	}
}

func TestAdoptKEKBlocksVersionsOfABlockedKEK(t *testing.T) {
	f := newFixture(t)
	blockMain(t, f)
	if _, err := f.provider.Create(t.Context(), kms.KeyRef{Name: "main", Version: 2}); err != nil {
		t.Fatal(err)
	}
	kek, err := f.AdoptKEK(t.Context(), "main", kms.KEKOptions{})
	if err != nil || kek.Primary != 1 || kek.Version(2).State != kms.Suspended {
		t.Fatalf("got %+v, %v", kek, err)
	}
	kek, err = f.UnblockKEK(t.Context(), "main", 0, kms.Change{})
	if err != nil || kek.Version(2).State != kms.Deactivated || kek.Version(1).State != kms.Active {
		t.Errorf("unblocked: %+v, %v", kek, err)
	}
}
