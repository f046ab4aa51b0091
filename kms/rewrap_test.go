package kms_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"chatelaine/kms"
)

// running runs a Manager until the test ends or stop is called.
func running(t *testing.T, m *kms.Manager) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); m.Run(ctx) }()
	stop = func() { cancel(); <-done }
	t.Cleanup(stop)
	return stop
}

// ended waits until a job does not run any more.
func ended(t *testing.T, m *kms.Manager, kek string) kms.Job {
	t.Helper()
	for {
		job, err := m.RewrapJob(t.Context(), kek)
		if err != nil {
			t.Fatal(err)
		}
		if job.State != kms.JobRunning {
			return job
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func rewrapped(t *testing.T, m *kms.Manager, kek string) kms.Job {
	t.Helper()
	if _, err := m.StartRewrap(t.Context(), kek, 0, kms.Change{Actor: "root"}); err != nil {
		t.Fatal(err)
	}
	return ended(t, m, kek)
}

// rotated makes a bucket with keys of some epochs, and then a new version of its KEK.
func (f *fixture) rotated(t *testing.T, keys int) (b kms.Bucket, before map[kms.KeyID]kms.OpenKey) {
	t.Helper()
	b, before = f.bucket(t, "b"), map[kms.KeyID]kms.OpenKey{}
	for range keys {
		f.nextEpoch(t, b.Space)
		key := current(t, f.Manager, b.Space)
		before[key.ID] = key
	}
	if _, err := f.RotateKEK(t.Context(), "main", kms.Change{}); err != nil {
		t.Fatal(err)
	}
	return b, before
}

// nextEpoch makes a space's current key an old one.
func (f *fixture) nextEpoch(t *testing.T, space string) {
	t.Helper()
	item, err := f.registry.Get(t.Context(), "current/"+space)
	if errors.Is(err, kms.ErrNotFound) {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Schema int            `json:"schema"`
		Record map[string]any `json:"record"`
	}
	if err := json.Unmarshal(item.Value, &doc); err != nil {
		t.Fatal(err)
	}
	doc.Record["created"] = "1990-01-01T00:00:00Z"
	if item.Value, err = json.Marshal(doc); err != nil {
		t.Fatal(err)
	}
	if err := f.registry.Commit(t.Context(), kms.Transaction{Put: []kms.Item{item}}); err != nil {
		t.Fatal(err)
	}
}

// mirrorAll does what gateways do.
func mirrorAll(t *testing.T, m *kms.Manager) int {
	t.Helper()
	done := 0
	for {
		todo, err := m.UnmirroredKeys(t.Context(), 64)
		if err != nil {
			t.Fatal(err)
		}
		if len(todo) == 0 {
			return done
		}
		for _, u := range todo {
			if err := m.ConfirmMirror(t.Context(), u.Bucket.Space, u.ID, u.Record); err != nil {
				t.Fatal(err)
			}
			done++
		}
	}
}

func TestRewrapMovesAllThatIsUnderOldVersions(t *testing.T) {
	f := newFixture(t)
	b, before := f.rotated(t, 5)
	user, _, err := f.CreateUser(t.Context(), "alice", false, kms.Change{})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := f.RotateSecret(t.Context(), user.ID, time.Hour, kms.Change{}); err != nil {
		t.Fatal(err)
	}
	if _, err := f.InstanceKey(t.Context()); err != nil {
		t.Fatal(err)
	}
	signs := f.signs(t, user.ID)
	if _, err := f.RotateKEK(t.Context(), "main", kms.Change{}); err != nil {
		t.Fatal(err)
	}
	running(t, f.Manager)
	if job := rewrapped(t, f.Manager, "main"); job.State != kms.JobDone || job.Done != 7 || job.Total != 7 || job.Problem != "" {
		t.Errorf("got %+v", job)
	}
	for id, key := range before {
		got, err := f.BucketKey(t.Context(), b.Space, id)
		if err != nil || !got.Key.Equal(key.Key) || got.KEK.Version != 3 {
			t.Errorf("key %s is under %s or another key: %v", id, got.KEK, err)
		}
	}
	if now := f.signs(t, user.ID); !now.Key.Equal(signs.Key) || !now.Old.Equal(signs.Old) || now.KEK.Version != 3 {
		t.Errorf("the access key is under %s, or has other secrets", now.KEK)
	}
	report, _, err := f.Report(t.Context(), "main")
	if err != nil || report.Needed() != 5 || report.Versions[0].Counts[kms.NeedMirror] != 5 {
		t.Errorf("mirrors are needed still: got %+v, %v", report, err)
	}
	if n := mirrorAll(t, f.Manager); n != 5 {
		t.Errorf("%d mirrors were to be written, want 5", n)
	}
	if report, _, err = f.Report(t.Context(), "main"); err != nil || report.Needed() != 0 {
		t.Errorf("got %+v, %v", report, err)
	}
	if job := rewrapped(t, f.Manager, "main"); job.State != kms.JobDone || job.Total != 0 {
		t.Errorf("there was something left: %+v", job)
	}
}

func TestAMirrorWrittenLateIsWrittenAgain(t *testing.T) {
	f := newFixture(t)
	_, before := f.rotated(t, 1)
	running(t, f.Manager)
	rewrapped(t, f.Manager, "main")
	mirrorAll(t, f.Manager)
	for id, key := range before { // a gateway that was slow overwrites the new mirror
		b, err := f.Bucket(t.Context(), "b")
		if err != nil {
			t.Fatal(err)
		}
		if err := f.ConfirmMirror(t.Context(), b.Space, id, key.Record); err != nil {
			t.Fatal(err)
		}
	}
	if report, _, err := f.Report(t.Context(), "main"); err != nil || report.Needed() != 1 {
		t.Errorf("got %+v, %v", report, err)
	}
	if n := mirrorAll(t, f.Manager); n != 1 {
		t.Errorf("%d mirrors were to be written, want 1", n)
	}
	if report, _, err := f.Report(t.Context(), "main"); err != nil || report.Needed() != 0 {
		t.Errorf("got %+v, %v", report, err)
	}
}

// limitedRegistry fails after a number of commits, as if its process was killed.
type limitedRegistry struct {
	kms.Registry
	left atomic.Int64
}

func (r *limitedRegistry) Commit(ctx context.Context, t kms.Transaction) error {
	if r.left.Add(-1) < 0 {
		return errCrash
	}
	return r.Registry.Commit(ctx, t)
}

func TestAKilledRewrapIsResumedByAnother(t *testing.T) {
	for _, commits := range []int64{2, 3, 7, 10} {
		t.Run(fmt.Sprint(commits), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				b, before := f.rotated(t, 9)
				limited := &limitedRegistry{Registry: f.registry}
				limited.left.Store(1 << 40)
				c := f.config()
				c.Registry = limited
				victim := f.manager(t, c)
				if _, err := victim.StartRewrap(t.Context(), "main", 0, kms.Change{}); err != nil {
					t.Fatal(err)
				}
				limited.left.Store(commits)
				stop := running(t, victim)
				time.Sleep(2 * time.Second)
				stop()
				if job, err := f.RewrapJob(t.Context(), "main"); err != nil || job.State != kms.JobRunning {
					t.Fatalf("the killed job is %+v, %v", job, err)
				}
				running(t, f.manager(t, f.config()))
				running(t, f.manager(t, f.config()))
				time.Sleep(time.Minute)
				job, err := f.RewrapJob(t.Context(), "main")
				if err != nil || job.State != kms.JobDone {
					t.Fatalf("got %+v, %v", job, err)
				}
				for id, key := range before {
					got, err := f.BucketKey(t.Context(), b.Space, id)
					if err != nil || !got.Key.Equal(key.Key) || got.KEK.Version != 2 {
						t.Errorf("key %s is under %s: %v", id, got.KEK, err)
					}
				}
			})
		})
	}
}

func TestARewrapIsRateLimitedAndCanBeStopped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.rotated(t, 40)
		running(t, f.Manager)
		if _, err := f.StartRewrap(t.Context(), "main", 2, kms.Change{}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10*time.Second + 100*time.Millisecond)
		job, err := f.RewrapJob(t.Context(), "main")
		if err != nil || job.Done < 18 || job.Done > 20 || job.Total != 40 {
			t.Errorf("after 10 s at 2 a second: %+v, %v", job, err)
		}
		if job, err := f.StopRewrap(t.Context(), "main", kms.Change{Actor: "root"}); err != nil || job.State != kms.JobStopped {
			t.Errorf("got %+v, %v", job, err)
		}
		time.Sleep(10 * time.Second)
		report, _, err := f.Report(t.Context(), "main")
		if left := report.Versions[0].Counts[kms.NeedBucketKey]; err != nil || left < 18 || left > 22 {
			t.Errorf("%d are left, %v", left, err)
		}
		if job, _ := f.RewrapJob(t.Context(), "main"); job.State != kms.JobStopped {
			t.Errorf("it went on: %+v", job)
		}
		if _, err := f.StartRewrap(t.Context(), "main", 0, kms.Change{}); err != nil {
			t.Fatal(err)
		}
		if job := ended(t, f.Manager, "main"); job.State != kms.JobDone {
			t.Errorf("got %+v", job)
		}
	})
}

func TestARewrapOfWhatCannotBeOpenedFailsAndSaysWhy(t *testing.T) {
	f := newFixture(t)
	f.rotated(t, 3)
	running(t, f.Manager)
	if _, err := f.BlockKEK(t.Context(), "main", 1, kms.Change{}); err != nil {
		t.Fatal(err)
	}
	if job := rewrapped(t, f.Manager, "main"); job.State != kms.JobFailed || job.Problem == "" || job.Done != 0 {
		t.Errorf("got %+v", job)
	}
	_, err := f.StartRewrap(t.Context(), "none", 0, kms.Change{})
	wantErr(t, err, kms.ErrNotFound)
	_, err = f.StartRewrap(t.Context(), "main", 1_000_001, kms.Change{})
	wantErr(t, err, kms.ErrInvalid)
	_, err = f.RewrapJob(t.Context(), "none")
	wantErr(t, err, kms.ErrNotFound)
}

func TestASignedReportIsVerifiedOffline(t *testing.T) {
	f := newFixture(t)
	f.rotated(t, 3)
	report, signed, err := f.Report(t.Context(), "main")
	if err != nil {
		t.Fatal(err)
	}
	file, err := json.Marshal(signed)
	if err != nil {
		t.Fatal(err)
	}
	got, _, err := kms.VerifyReport(file)
	if err != nil || got.Needed() != 3 || got.KEK != "main" || got.Versions[0].Counts[kms.NeedBucketKey] != report.Versions[0].Counts[kms.NeedBucketKey] {
		t.Errorf("got %+v, %v", got, err)
	}
	key, err := f.InstanceKey(t.Context())
	if err != nil || !bytes.Equal(key, signed.Key) {
		t.Errorf("it is signed with another key: %v", err)
	}
	for name, spoil := range map[string]func(*kms.SignedReport){
		"statement": func(s *kms.SignedReport) { s.Statement = bytes.Replace(s.Statement, []byte(`:3`), []byte(`:0`), 1) },
		"signature": func(s *kms.SignedReport) { s.Signature[5] ^= 1 },
		"key":       func(s *kms.SignedReport) { s.Key = bytes.Repeat([]byte{7}, 32) },
		"no key":    func(s *kms.SignedReport) { s.Key = nil },
	} {
		var spoiled kms.SignedReport
		if err := json.Unmarshal(file, &spoiled); err != nil {
			t.Fatal(err)
		}
		spoil(&spoiled)
		data, err := json.Marshal(spoiled)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := kms.VerifyReport(data); !errors.Is(err, kms.ErrCorrupt) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	for _, text := range []string{"", "{}x", `{"unknown":1}`, string(file) + "{}"} {
		if _, _, err := kms.VerifyReport([]byte(text)); err == nil {
			t.Errorf("%.20q was accepted", text)
		}
	}
}

func FuzzVerifyReport(f *testing.F) {
	f.Add([]byte(`{"statement":"e30=","key":"","signature":""}`))
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if r, _, err := kms.VerifyReport(data); err == nil && r.KEK == "" {
			t.Error("a report that nobody can have signed was accepted")
		}
	})
}
