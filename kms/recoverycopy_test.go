package kms_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"go.uber.org/zap"

	"chatelaine/kms"
	"chatelaine/kms/offline"
	"chatelaine/kms/registry"
	"chatelaine/kms/softkey"
)

// offlineKey is one of the keys that package offline has for tests.
func offlineKey(t *testing.T, name string) *offline.PrivateKey {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("offline", "testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	key, err := offline.ParsePrivateKey(text)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// underRSA is the recovery of a KMS that knows the public part of a key.
func underRSA(key *offline.PrivateKey) kms.RecoveryConfig {
	return kms.RecoveryConfig{Key: key.Public()}
}

func softKeys(t *testing.T) *softkey.Provider {
	t.Helper()
	p, err := softkey.New(softkey.Config{Name: softkey.Name, Dir: filepath.Join(t.TempDir(), "keys"), Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return p
}

// newSite is a KMS with a recovery, on a new registry and new keys. Where there is a
// second provider, it holds the recovery KEK.
func newSite(t *testing.T, recovery kms.RecoveryConfig, second kms.Provider) *fixture {
	t.Helper()
	f := &fixture{registry: registry.NewMemory(), provider: softKeys(t), logs: &bytes.Buffer{}}
	f.restart(t, recovery, second)
	if _, err := f.EnsureKEK(t.Context(), "main"); err != nil {
		t.Fatal(err)
	}
	if second != nil {
		if _, err := f.EnsureRecoveryKEK(t.Context(), "second"); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

// restart is the KMS with another configuration.
func (f *fixture) restart(t *testing.T, recovery kms.RecoveryConfig, second kms.Provider) {
	t.Helper()
	c := f.config()
	c.Recovery = recovery
	if second != nil {
		c.Providers["second"], c.DefaultProvider = second, "soft"
	}
	f.Manager = f.manager(t, c)
}

func (f *fixture) signer(t *testing.T) string {
	t.Helper()
	key, err := f.InstanceKey(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return kms.Fingerprint(key)
}

// recoverOpened does what `chatelaine recover --recovery-key` does; refused mirrors are
// left out, by name.
func recoverOpened(t *testing.T, m *kms.Manager, apply bool, mirrors map[string]map[string][]byte, key *offline.PrivateKey, signer string) (kms.RecoveryReport, map[string]error) {
	t.Helper()
	r, err := m.NewRecovery(kms.RecoveryOptions{Apply: apply, Change: kms.Change{Actor: "op", Reason: "drill"}})
	if err != nil {
		t.Fatal(err)
	}
	refused := map[string]error{}
	for _, bucket := range slices.Sorted(maps.Keys(mirrors)) {
		if err := r.NewBucket(kms.RecoveredBucket{Name: bucket, Store: "files", StoreName: "p-" + bucket, Owner: "alice"}); err != nil {
			t.Fatal(err)
		}
		for _, name := range slices.Sorted(maps.Keys(mirrors[bucket])) {
			data := mirrors[bucket][name]
			mirror, err := kms.ParseMirror(data)
			var secret kms.Secret
			if err == nil {
				secret, err = mirror.OpenRecovery(key, []string{"SHA256:another", signer})
			}
			if err != nil {
				refused[name] = err
				continue
			}
			if err := r.AddOpened(name, data, secret); err != nil {
				t.Fatal(err)
			}
		}
	}
	report, err := r.Finish(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return report, refused
}

// states counts the bucket keys of a bucket by the state of their copies.
func states(t *testing.T, m *kms.Manager, bucket string) map[kms.RecoveryState]int {
	t.Helper()
	home, err := m.RecoveryHome(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	keys, err := m.BucketKeys(t.Context(), bucket)
	if err != nil {
		t.Fatal(err)
	}
	out := map[kms.RecoveryState]int{}
	for _, k := range keys {
		out[home.State(k)]++
	}
	return out
}

func wantStates(t *testing.T, m *kms.Manager, bucket string, want map[kms.RecoveryState]int) {
	t.Helper()
	if got := states(t, m, bucket); !maps.Equal(got, want) {
		t.Errorf("bucket %s: got %v, want %v", bucket, got, want)
	}
}

func TestWithoutARecoveryKeyRecordsAndMirrorsAreAsBefore(t *testing.T) {
	f := newFixture(t)
	b := f.bucket(t, "b")
	key := current(t, f.Manager, b.Space)
	if !bytes.HasPrefix(key.Record, []byte(`{"chatelaine":"bucket-key/1","id":`)) || bytes.Contains(key.Record, []byte("recovery")) {
		t.Errorf("the mirror is %s", key.Record)
	}
	item, err := f.registry.Get(t.Context(), "bucketkeys/"+b.Space+"/"+key.ID.String())
	if err != nil || !bytes.HasPrefix(item.Value, []byte(`{"schema":1,`)) || bytes.Contains(item.Value, []byte("recovery")) {
		t.Errorf("the record is %s, %v", item.Value, err)
	}
	wantStates(t, f.Manager, "b", map[kms.RecoveryState]int{kms.RecoveryUnset: 1})
	if job := rewrappedBy(t, f.Manager); job.Done != 0 {
		t.Errorf("there was something to rewrap: %+v", job)
	}
}

// rewrappedBy runs a rewrapping of what is under the default KEK.
func rewrappedBy(t *testing.T, m *kms.Manager) kms.Job {
	t.Helper()
	stop := running(t, m)
	defer stop()
	return rewrapped(t, m, "main")
}

func TestARecordWithACopyIsRefusedByReadersThatDoNotKnowCopies(t *testing.T) {
	f := newSite(t, underRSA(offlineKey(t, "private.pem")), nil)
	b := f.bucket(t, "b")
	key := current(t, f.Manager, b.Space)
	if !bytes.HasPrefix(key.Record, []byte(`{"chatelaine":"bucket-key/2",`)) || len(key.Record) > kms.MaxMirror/2 {
		t.Errorf("the mirror of %d bytes is %s", len(key.Record), key.Record)
	}
	item, err := f.registry.Get(t.Context(), "bucketkeys/"+b.Space+"/"+key.ID.String())
	if err != nil || !bytes.HasPrefix(item.Value, []byte(`{"schema":2,`)) {
		t.Errorf("the record is %s, %v", item.Value, err)
	}
	older := bytes.Replace(key.Record, []byte("bucket-key/2"), []byte("bucket-key/1"), 1)
	if _, err := kms.ParseMirror(older); !errors.Is(err, kms.ErrInvalid) {
		t.Errorf("under the kind that has no copies: got %v, want ErrInvalid", err)
	}
}

func TestACopyThatIsNotWholeMakesNoMirror(t *testing.T) {
	f := newSite(t, underRSA(offlineKey(t, "private.pem")), nil)
	record := current(t, f.Manager, f.bucket(t, "b").Space).Record
	for name, change := range map[string]func(c *kms.RecoveryCopy){
		"nothing in it":      func(c *kms.RecoveryCopy) { c.Wrapped = nil },
		"under nothing":      func(c *kms.RecoveryCopy) { c.RSA = "" },
		"under two keys":     func(c *kms.RecoveryCopy) { c.KEK, c.KEKVersion = "main", 1 },
		"no fingerprint":     func(c *kms.RecoveryCopy) { c.RSA = "MD5:" + c.RSA[7:] },
		"a version of RSA":   func(c *kms.RecoveryCopy) { c.KEKVersion = 1 },
		"no signer":          func(c *kms.RecoveryCopy) { c.Signer = nil },
		"half a signature":   func(c *kms.RecoveryCopy) { c.Signature = c.Signature[:32] },
		"a KEK and a signer": func(c *kms.RecoveryCopy) { c.RSA, c.KEK, c.KEKVersion = "", "main", 1 },
		"a KEK, no version":  func(c *kms.RecoveryCopy) { *c = kms.RecoveryCopy{KEK: "main", Wrapped: c.Wrapped} },
		"no name for a KEK":  func(c *kms.RecoveryCopy) { *c = kms.RecoveryCopy{KEK: "../m", KEKVersion: 1, Wrapped: c.Wrapped} },
		"more than has room": func(c *kms.RecoveryCopy) { c.Wrapped = make([]byte, kms.MaxMirror) },
	} {
		m, err := kms.ParseMirror(record)
		if err != nil {
			t.Fatal(err)
		}
		change(m.Recovery)
		if got, err := kms.ParseMirror(encodeMirror(t, m)); !errors.Is(err, kms.ErrInvalid) {
			t.Errorf("%s: got %+v, %v, want ErrInvalid", name, got, err)
		}
	}
}

func TestTheRecoveryKeyBringsAllBackWithoutTheHSM(t *testing.T) {
	key := offlineKey(t, "private.pem")
	l := losing(t, newSite(t, underRSA(key), nil))
	signer := l.signer(t)

	f := newSite(t, underRSA(key), nil) // its keys are others of the same names
	dry, refused := recoverOpened(t, f.Manager, false, l.mirrors, key, signer)
	if len(refused) > 0 || !dry.Clean() || len(dry.Adopted) > 0 {
		t.Errorf("got %+v, refused %v", dry, refused)
	}
	if buckets, _ := f.Buckets(t.Context(), ""); len(buckets) != 0 {
		t.Errorf("a dry run made %+v", buckets)
	}
	report, _ := recoverOpened(t, f.Manager, true, l.mirrors, key, signer)
	for _, b := range report.Buckets {
		if b.Outcome != kms.RecoveryMade || b.New != 3 || b.KEK != "main" {
			t.Errorf("got %+v", b)
		}
		wantStates(t, f.Manager, b.Name, map[kms.RecoveryState]int{kms.RecoveryKept: 3})
	}
	if films := report.Buckets[0]; len(films.Warnings) == 0 || !strings.Contains(films.Warnings[0], `name KEK "other", which this KMS has not`) {
		t.Errorf("got %+v", films)
	}
	l.allOpen(t, f.Manager)
	b, err := f.Bucket(t.Context(), "photos")
	if err != nil || len(b.History) != 1 || b.History[0].Actor != "op" || b.History[0].Reason != "drill" {
		t.Errorf("the bucket's history is %+v, %v", b.History, err)
	}
	if log := f.logs.String(); strings.Count(log, "bucket key had from its recovery copy") != 6 {
		t.Errorf("the log is %s", log)
	}
	wantNeed(t, f.Manager, "main", kms.NeedMirror, "")
	if n := mirrorAll(t, f.Manager); n != 6 {
		t.Errorf("%d mirrors were to be written anew, want 6", n)
	}
	again, _ := recoverOpened(t, f.Manager, true, l.mirrors, key, signer)
	if b := again.Buckets[0]; b.Outcome != kms.RecoveryNothing || b.Known != 3 {
		t.Errorf("said again: %+v", b)
	}
	fresh := current(t, f.Manager, l.spaces["photos"])
	if _, old := l.secrets[fresh.ID]; old {
		t.Error("it seals on under a key of before")
	}
}

func TestARecoveryWithTheHSMMakesNewCopies(t *testing.T) {
	key := offlineKey(t, "private.pem")
	l := losing(t, newSite(t, underRSA(key), nil))
	f := &fixture{registry: registry.NewMemory(), provider: l.provider, logs: &bytes.Buffer{}}
	f.restart(t, underRSA(key), nil)
	if _, err := f.AdoptKEK(t.Context(), "main", kms.KEKOptions{}); err != nil {
		t.Fatal(err)
	}
	if report := recoverBuckets(t, f.Manager, true, l.mirrors); !report.Clean() {
		t.Errorf("got %+v", report)
	}
	wantStates(t, f.Manager, "photos", map[kms.RecoveryState]int{kms.RecoveryKept: 3})
	todo, err := f.UnmirroredKeys(t.Context(), 64)
	if err != nil || len(todo) != 6 {
		t.Fatalf("got %d mirrors to write, %v, want 6", len(todo), err)
	}
	for _, u := range todo {
		mirror, err := kms.ParseMirror(u.Record)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := mirror.OpenRecovery(key, []string{f.signer(t)}); err != nil {
			t.Errorf("the new KMS has not signed it: %v", err)
		}
	}
	l.allOpen(t, f.Manager)
}

func TestARecoveryNamesTheKEK(t *testing.T) {
	key := offlineKey(t, "private.pem")
	l := losing(t, newSite(t, underRSA(key), nil))
	f := newSite(t, underRSA(key), nil)
	recoverUnder := func(kek string) kms.BucketReport {
		r, err := f.NewRecovery(kms.RecoveryOptions{Apply: true})
		if err != nil {
			t.Fatal(err)
		}
		if err := r.NewBucket(kms.RecoveredBucket{Name: "photos", Store: "files", StoreName: "p", Owner: "alice", KEK: kek}); err != nil {
			t.Fatal(err)
		}
		for name, data := range l.mirrors["photos"] {
			mirror, err := kms.ParseMirror(data)
			if err != nil {
				t.Fatal(err)
			}
			if err := r.AddOpened(name, data, l.secrets[mirror.ID]); err != nil {
				t.Fatal(err)
			}
		}
		report, err := r.Finish(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return report.Buckets[0]
	}
	if b := recoverUnder("nowhere"); b.Outcome != kms.RecoveryConflict || !strings.Contains(b.Problem, `KEK "nowhere"`) {
		t.Errorf("got %+v", b)
	}
	if _, err := f.CreateKEK(t.Context(), "vault", kms.KEKOptions{}); err != nil {
		t.Fatal(err)
	}
	if b := recoverUnder("vault"); b.Outcome != kms.RecoveryMade || b.KEK != "vault" {
		t.Errorf("got %+v", b)
	}
}

func TestCopiesThatAreNotRightAreRefused(t *testing.T) {
	key := offlineKey(t, "private.pem")
	l := losing(t, newSite(t, underRSA(key), nil))
	signer := l.signer(t)
	edit := func(bucket string, epoch uint64, f func(*kms.Mirror)) (string, []byte) {
		for name, data := range l.mirrors[bucket] {
			m, err := kms.ParseMirror(data)
			if err != nil {
				t.Fatal(err)
			}
			if m.Epoch != epoch {
				continue
			}
			f(&m)
			return name, encodeMirror(t, m)
		}
		t.Fatalf("bucket %s has no epoch %d", bucket, epoch)
		return "", nil
	}
	copyOf := func(bucket string, epoch uint64) (c *kms.RecoveryCopy) {
		edit(bucket, epoch, func(m *kms.Mirror) { c = m.Recovery })
		return c
	}
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		change func(*kms.Mirror)
		key    string
		want   error
		text   string
	}{
		"another key":           {key: "other.pem", want: kms.ErrCorrupt, text: "and this one is"},
		"of another bucket":     {change: func(m *kms.Mirror) { m.Recovery = copyOf("films", 2) }, want: kms.ErrCorrupt, text: "signature is wrong"},
		"of another epoch":      {change: func(m *kms.Mirror) { m.Recovery = copyOf("photos", 1) }, want: kms.ErrCorrupt, text: "signature is wrong"},
		"another epoch's name":  {change: func(m *kms.Mirror) { m.Epoch = 9 }, want: kms.ErrCorrupt, text: "signature is wrong"},
		"another bucket's name": {change: func(m *kms.Mirror) { m.Space = l.spaces["films"] }, want: kms.ErrCorrupt, text: "signature is wrong"},
		"a flipped bit":         {change: func(m *kms.Mirror) { m.Recovery.Wrapped[9] ^= 1 }, want: kms.ErrCorrupt, text: "signature is wrong"},
		"none":                  {change: func(m *kms.Mirror) { m.Recovery = nil }, want: kms.ErrNotFound, text: "it has none"},
		"under a KEK": {change: func(m *kms.Mirror) {
			m.Recovery = &kms.RecoveryCopy{KEK: "other", KEKVersion: 1, Wrapped: m.Recovery.Wrapped}
		}, want: kms.ErrNotFound, text: "under KEK other.v1"},
		// A cloud that knows the public key wraps a key of its own.
		"forged": {change: func(m *kms.Mirror) {
			label := kms.RecoveryLabel(*m, key.Public().Fingerprint())
			wrapped, err := key.Public().Wrap(label, make([]byte, 32))
			if err != nil {
				t.Fatal(err)
			}
			m.Recovery.Wrapped, m.Recovery.Signer, m.Recovery.Signature = wrapped, public, ed25519.Sign(private, kms.RecoveryMessage(label, wrapped))
		}, want: kms.ErrDenied, text: "it is signed by " + kms.Fingerprint(public)},
		"signed for another": {change: func(m *kms.Mirror) {
			other := copyOf("films", 2)
			m.Recovery = &kms.RecoveryCopy{
				RSA: other.RSA, Wrapped: other.Wrapped, Signer: public,
				Signature: ed25519.Sign(private, kms.RecoveryMessage(kms.RecoveryLabel(*m, other.RSA), other.Wrapped)),
			}
		}, want: kms.ErrCorrupt, text: "offline: unwrapping"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			with, signers := key, signer
			if test.key != "" {
				with = offlineKey(t, test.key)
			}
			if name == "signed for another" {
				signers = kms.Fingerprint(public)
			}
			_, data := edit("photos", 2, func(m *kms.Mirror) {
				if test.change != nil {
					test.change(m)
				}
			})
			mirror, err := kms.ParseMirror(data)
			if err != nil {
				t.Fatal(err)
			}
			if secret, err := mirror.OpenRecovery(with, []string{signers}); !errors.Is(err, test.want) || !strings.Contains(err.Error(), test.text) {
				t.Errorf("got %v, %v, want %v with %q", secret, err, test.want, test.text)
			}
		})
	}
}

// encodeMirror is the mirror as it would lie in the backend.
func encodeMirror(t *testing.T, m kms.Mirror) []byte {
	t.Helper()
	kind := "bucket-key/2"
	if m.Recovery == nil {
		kind = "bucket-key/1"
	}
	data, err := json.Marshal(struct {
		Chatelaine string `json:"chatelaine"`
		kms.Mirror
	}{kind, m})
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestWhatWasOpenedMustBeABucketKey(t *testing.T) {
	key := offlineKey(t, "private.pem")
	l := losing(t, newSite(t, underRSA(key), nil))
	for _, secret := range []kms.Secret{{}, kms.NewSecret(make([]byte, 31)), kms.NewSecret(make([]byte, 64))} {
		r, err := newSite(t, underRSA(key), nil).NewRecovery(kms.RecoveryOptions{Apply: true})
		if err != nil {
			t.Fatal(err)
		}
		if err := r.NewBucket(kms.RecoveredBucket{Name: "photos", Store: "files", StoreName: "p", Owner: "alice"}); err != nil {
			t.Fatal(err)
		}
		for name, data := range l.mirrors["photos"] {
			if err := r.AddOpened(name, data, secret); err != nil {
				t.Fatal(err)
			}
		}
		report, err := r.Finish(t.Context())
		if err != nil || report.Buckets[0].Outcome != kms.RecoveryConflict || len(report.Buckets[0].Refused) != 3 {
			t.Errorf("%d bytes: got %+v, %v", secret.Len(), report, err)
		}
	}
}

func TestOpenedKeysNeedThePermissionOfARegistryThatIsInUse(t *testing.T) {
	key := offlineKey(t, "private.pem")
	l := losing(t, newSite(t, underRSA(key), nil))
	f := newSite(t, underRSA(key), nil)
	c, gate := f.config(), &refusing{}
	c.Recovery, c.Gate = underRSA(key), gate
	m := f.manager(t, c)
	films := map[string]map[string][]byte{"films": l.mirrors["films"]}
	if report, _ := recoverOpened(t, m, true, films, key, l.signer(t)); report.Buckets[0].Outcome != kms.RecoveryMade {
		t.Errorf("into an empty registry: %+v", report)
	}
	r, err := m.NewRecovery(kms.RecoveryOptions{Apply: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.NewBucket(kms.RecoveredBucket{Name: "photos", Store: "files", StoreName: "p", Owner: "alice"}); err != nil {
		t.Fatal(err)
	}
	for name, data := range l.mirrors["photos"] {
		mirror, err := kms.ParseMirror(data)
		if err != nil {
			t.Fatal(err)
		}
		if err := r.AddOpened(name, data, l.secrets[mirror.ID]); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := r.Finish(t.Context()); !errors.Is(err, kms.ErrApproval) || gate.asked.Action != kms.ActionRestore || len(gate.asked.Params["digest"]) != 64 {
		t.Errorf("got %v after %+v", err, gate.asked)
	}
	if _, err := f.Bucket(t.Context(), "photos"); !errors.Is(err, kms.ErrNotFound) {
		t.Errorf("the bucket: got %v, want ErrNotFound", err)
	}
}

func TestRewrappingMakesCopiesOfKeysFromBefore(t *testing.T) {
	f := newSite(t, kms.RecoveryConfig{}, nil)
	b := f.bucket(t, "b")
	f.nextEpoch(t, b.Space)
	plain := current(t, f.Manager, b.Space)
	if err := f.ConfirmMirror(t.Context(), b.Space, plain.ID, plain.Record); err != nil {
		t.Fatal(err)
	}
	key := offlineKey(t, "private.pem")
	f.restart(t, underRSA(key), nil)
	wantStates(t, f.Manager, "b", map[kms.RecoveryState]int{kms.RecoveryLacks: 1})
	wantNeed(t, f.Manager, "main", kms.NeedBucketKey, kms.RecoveryLacks)

	if job := rewrappedBy(t, f.Manager); job.State != kms.JobDone || job.Done != 1 {
		t.Errorf("got %+v", job)
	}
	wantStates(t, f.Manager, "b", map[kms.RecoveryState]int{kms.RecoveryKept: 1})
	wantNeed(t, f.Manager, "main", kms.NeedMirror, "")
	after := current(t, f.Manager, b.Space)
	if after.ID != plain.ID || after.KEK != plain.KEK || after.Mirrored || !after.Key.Equal(plain.Key) {
		t.Errorf("got %+v, want the same key", after)
	}
	// A gateway that is slow writes what it had before.
	if err := f.ConfirmMirror(t.Context(), b.Space, plain.ID, plain.Record); err != nil {
		t.Fatal(err)
	}
	if n := mirrorAll(t, f.Manager); n != 1 || !current(t, f.Manager, b.Space).Mirrored {
		t.Errorf("%d mirrors were written, want 1", n)
	}
	if err := f.ConfirmMirror(t.Context(), b.Space, plain.ID, plain.Record); err != nil {
		t.Fatal(err)
	}
	if n := mirrorAll(t, f.Manager); n != 1 {
		t.Errorf("over the new one: %d mirrors were written, want 1", n)
	}
	if job := rewrappedBy(t, f.Manager); job.Done != 0 {
		t.Errorf("again: got %+v, want nothing to do", job)
	}

	// The copy outlives a rotation, also where none is configured any more, and is
	// replaced with the key.
	mirror, err := kms.ParseMirror(after.Record)
	if err != nil {
		t.Fatal(err)
	}
	f.restart(t, kms.RecoveryConfig{}, nil)
	if _, err := f.RotateKEK(t.Context(), "main", kms.Change{}); err != nil {
		t.Fatal(err)
	}
	rewrappedBy(t, f.Manager)
	wantStates(t, f.Manager, "b", map[kms.RecoveryState]int{kms.RecoveryOld: 1})
	moved, err := kms.ParseMirror(current(t, f.Manager, b.Space).Record)
	if err != nil || moved.KEKVersion != 2 || !reflect.DeepEqual(moved.Recovery, mirror.Recovery) {
		t.Errorf("got %+v, %v, want the copy of before", moved, err)
	}
	f.restart(t, underRSA(offlineKey(t, "other.pem")), nil)
	wantStates(t, f.Manager, "b", map[kms.RecoveryState]int{kms.RecoveryOld: 1})
	rewrappedBy(t, f.Manager)
	wantStates(t, f.Manager, "b", map[kms.RecoveryState]int{kms.RecoveryKept: 1})
}

func wantNeed(t *testing.T, m *kms.Manager, kek string, kind kms.NeedKind, state kms.RecoveryState) {
	t.Helper()
	needs, err := m.Needs(t.Context(), kms.KeyRef{Name: kek})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(needs, func(n kms.Need) bool { return n.Kind == kind && n.Recovery == state }) {
		t.Errorf("got %+v, want one of kind %s and state %q", needs, kind, state)
	}
}

func TestTheRecoveryKEKBringsAllBackWithoutTheHSM(t *testing.T) {
	second, recovery := softKeys(t), kms.RecoveryConfig{KEK: "safe"}
	l := losing(t, newSite(t, recovery, second))
	f := newSite(t, recovery, second) // which adopts it
	recoverAll := func(m *kms.Manager, mirrors map[string]map[string][]byte) kms.RecoveryReport {
		r, err := m.NewRecovery(kms.RecoveryOptions{Apply: true, RecoveryKEK: true})
		if err != nil {
			t.Fatal(err)
		}
		for _, bucket := range slices.Sorted(maps.Keys(mirrors)) {
			if err := r.NewBucket(kms.RecoveredBucket{Name: bucket, Store: "files", StoreName: "p-" + bucket, Owner: "alice"}); err != nil {
				t.Fatal(err)
			}
			for name, data := range mirrors[bucket] {
				if err := r.AddMirror(t.Context(), name, data); err != nil {
					t.Fatal(err)
				}
			}
		}
		report, err := r.Finish(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return report
	}
	if report := recoverBuckets(t, f.Manager, true, l.mirrors); report.Clean() {
		t.Errorf("with the lost keys' names: %+v", report)
	}
	swapped := map[string]map[string][]byte{"photos": swapCopies(t, l.mirrors["photos"], l.mirrors["films"])}
	if report := recoverAll(f.Manager, swapped); len(report.Buckets[0].Refused) != 3 || !strings.Contains(report.Buckets[0].Refused[0].Problem, "does not open it") {
		t.Errorf("with copies of another bucket: %+v", report)
	}
	report := recoverAll(f.Manager, l.mirrors)
	if !report.Clean() || len(report.Adopted) != 0 {
		t.Errorf("got %+v", report)
	}
	l.allOpen(t, f.Manager)
	wantStates(t, f.Manager, "photos", map[kms.RecoveryState]int{kms.RecoveryKept: 3})
	wantNeed(t, f.Manager, "safe", kms.NeedRecoveryCopy, "")
	wantNeed(t, f.Manager, "safe", kms.NeedRecovery, "")

	blank := newSite(t, kms.RecoveryConfig{}, nil)
	if _, err := blank.NewRecovery(kms.RecoveryOptions{RecoveryKEK: true}); !errors.Is(err, kms.ErrInvalid) {
		t.Errorf("where none is configured: got %v, want ErrInvalid", err)
	}
	stranger := newSite(t, recovery, softKeys(t))
	if report := recoverAll(stranger.Manager, l.mirrors); report.Clean() || report.Buckets[0].Outcome != kms.RecoveryConflict {
		t.Errorf("with another recovery KEK: %+v", report)
	}
}

// swapCopies gives mirrors the recovery copies of others, in order of epochs.
func swapCopies(t *testing.T, to, from map[string][]byte) map[string][]byte {
	t.Helper()
	copies := map[uint64]*kms.RecoveryCopy{}
	for _, data := range from {
		m, err := kms.ParseMirror(data)
		if err != nil {
			t.Fatal(err)
		}
		copies[m.Epoch] = m.Recovery
	}
	out := map[string][]byte{}
	for name, data := range to {
		m, err := kms.ParseMirror(data)
		if err != nil {
			t.Fatal(err)
		}
		m.Recovery = copies[m.Epoch]
		out[name] = encodeMirror(t, m)
	}
	return out
}

func TestARotatedRecoveryKEKIsNeededUntilItsCopiesHaveMoved(t *testing.T) {
	f := newSite(t, kms.RecoveryConfig{KEK: "safe"}, softKeys(t))
	b := f.bucket(t, "b")
	key := current(t, f.Manager, b.Space)
	if err := f.ConfirmMirror(t.Context(), b.Space, key.ID, key.Record); err != nil {
		t.Fatal(err)
	}
	if _, err := f.RotateKEK(t.Context(), "safe", kms.Change{}); err != nil {
		t.Fatal(err)
	}
	allow := true
	if _, err := f.SetKEK(t.Context(), "safe", kms.KEKSettings{DeletionAllowed: &allow}, kms.Change{}); err != nil {
		t.Fatal(err)
	}
	_, err := f.ScheduleDestroy(t.Context(), "safe", 1, kms.Change{})
	wantErr(t, err, kms.ErrNeeded)
	stop := running(t, f.Manager)
	if job := rewrapped(t, f.Manager, "safe"); job.State != kms.JobDone || job.Done != 1 {
		t.Errorf("got %+v", job)
	}
	stop()
	wantStates(t, f.Manager, "b", map[kms.RecoveryState]int{kms.RecoveryKept: 1})
	_, err = f.ScheduleDestroy(t.Context(), "safe", 1, kms.Change{}) // the mirror is under it
	wantErr(t, err, kms.ErrNeeded)
	mirrorAll(t, f.Manager)
	if _, err := f.ScheduleDestroy(t.Context(), "safe", 1, kms.Change{}); err != nil {
		t.Error(err)
	}
}

// away is a provider that does not answer.
type away struct{ kms.Provider }

func (away) Wrap(context.Context, kms.KeyRef, kms.Binding, []byte) ([]byte, error) {
	return nil, kms.ErrUnavailable
}

func TestNoKeyIsMadeWithoutItsCopy(t *testing.T) {
	second, recovery := softKeys(t), kms.RecoveryConfig{KEK: "safe"}
	f := newSite(t, recovery, second)
	b := f.bucket(t, "b")
	before := current(t, f.Manager, b.Space)
	f.restart(t, recovery, away{second})
	if key, err := f.CurrentKey(t.Context(), b.Space); err != nil || key.ID != before.ID {
		t.Errorf("a key that there is: got %v", err)
	}
	f.nextEpoch(t, b.Space)
	_, err := f.CurrentKey(t.Context(), b.Space)
	wantErr(t, err, kms.ErrUnavailable)
	f.restart(t, recovery, second)
	if key := current(t, f.Manager, b.Space); key.ID == before.ID {
		t.Error("no new key was made when it was back")
	}
}

func TestTheRecoveryKEKIsForNothingElse(t *testing.T) {
	second, recovery := softKeys(t), kms.RecoveryConfig{KEK: "safe"}
	f := newSite(t, recovery, second)
	_, err := f.RegisterBucket(t.Context(), kms.NewBucket{Name: "b", Store: "files", StoreName: "b", Owner: "alice", KEK: "safe"})
	wantErr(t, err, kms.ErrInvalid)
	if _, err := f.EnsureRecoveryKEK(t.Context(), "soft"); !errors.Is(err, kms.ErrInvalid) || !strings.Contains(err.Error(), `provider "second" holds it`) {
		t.Errorf("with another provider: got %v", err)
	}
	if again, err := f.EnsureRecoveryKEK(t.Context(), "second"); err != nil || again.Primary != 1 {
		t.Errorf("said again: got %+v, %v", again, err)
	}
	for name, recovery := range map[string]kms.RecoveryConfig{
		"two":            {KEK: "safe", Key: offlineKey(t, "private.pem").Public()},
		"the default":    {KEK: "main"},
		"the canaries'":  {KEK: kms.CanaryKEK},
		"a version":      {KEK: "safe.v2"},
		"not a name":     {KEK: "sa/fe"},
		"not a name too": {KEK: strings.Repeat("x", 300)},
	} {
		c := f.config()
		c.Recovery = recovery
		if _, err := kms.NewManager(t.Context(), c); !errors.Is(err, kms.ErrInvalid) {
			t.Errorf("%s: got %v, want ErrInvalid", name, err)
		}
	}
}

// TestFrozenRecoveryCopiesOpenAsBefore reads test/vectors/recovery.json, which another
// program made.
func TestFrozenRecoveryCopiesOpenAsBefore(t *testing.T) {
	var vectors []struct{ Name, Trusted, Mirror, Label, Secret, Want string }
	folder := filepath.Join("..", "test", "vectors")
	text, err := os.ReadFile(filepath.Join(folder, "recovery.json"))
	if err == nil {
		err = json.Unmarshal(text, &vectors)
	}
	if err != nil || len(vectors) == 0 {
		t.Fatalf("got %d vectors, %v", len(vectors), err)
	}
	pem, err := os.ReadFile(filepath.Join(folder, "recovery-key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	key, err := offline.ParsePrivateKey(pem)
	if err != nil {
		t.Fatal(err)
	}
	wants := map[string]error{"corrupt": kms.ErrCorrupt, "denied": kms.ErrDenied, "invalid": kms.ErrInvalid}
	for _, v := range vectors {
		mirror, err := kms.ParseMirror([]byte(v.Mirror))
		if got := hex.EncodeToString(kms.RecoveryLabel(mirror, key.Public().Fingerprint())); err == nil && got != v.Label {
			t.Errorf("%s: got label %s, want %s", v.Name, got, v.Label)
		}
		var secret kms.Secret
		if err == nil {
			secret, err = mirror.OpenRecovery(key, []string{v.Trusted})
		}
		if got := hex.EncodeToString(bytesOf(secret)); got != v.Secret || !errors.Is(err, wants[v.Want]) || (err == nil) != (v.Want == "") {
			t.Errorf("%s: got %q, %v, want %q, %q", v.Name, got, err, v.Secret, v.Want)
		}
	}
}
