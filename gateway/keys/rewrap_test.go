package keys

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"chatelaine/kms"
)

// TestNoRequestFailsWhileAKEKIsRotatedAndRewrapped is under load, on a bucket whose keys
// are cached and on one whose keys are not, for as long as a rotation, a rewrapping and
// the writing of all mirrors take, three times over.
func TestNoRequestFailsWhileAKEKIsRotatedAndRewrapped(t *testing.T) {
	w := newWorld(t, Config{})
	cached := w.bucket(t, "cached")
	strict := w.bucketOf(t, kms.NewBucket{Name: "strict", Store: "s", StoreName: "strict", Owner: "alice", Profile: kms.Strict})
	running, stop := context.WithCancel(t.Context())
	var group sync.WaitGroup
	group.Go(func() { w.kms.Run(running) })
	var asked, failed atomic.Int64
	for _, b := range []Bucket{cached, strict} {
		first := w.current(t, b)
		for range 2 {
			group.Go(func() {
				for running.Err() == nil {
					asked.Add(1)
					if err := w.uses(t.Context(), b, first); err != nil {
						failed.Add(1)
						t.Logf("bucket %q: %v", b.Name, err)
					}
				}
			})
		}
	}
	for range 3 {
		w.rewrap(t)
	}
	stop()
	group.Wait()
	t.Logf("%d uses of keys, %d failed", asked.Load(), failed.Load())
	if failed.Load() != 0 || asked.Load() < 100 {
		t.Errorf("%d of %d uses failed", failed.Load(), asked.Load())
	}
}

// uses is what a request does with keys: it seals under the current one, opens under an
// old one, and proves who asks.
func (w *world) uses(ctx context.Context, b Bucket, first BucketKey) error {
	now, err := w.Current(ctx, b)
	if err != nil {
		return err
	}
	if _, err := w.ByID(ctx, b, first.ID); err != nil {
		return err
	}
	if err := w.Live(now.ID); err != nil {
		return err
	}
	_, err = w.SigningKey(ctx, accessKeyID, today(), "eu", "s3")
	return err
}

// rewrap rotates, rewraps and mirrors, and checks that nothing needs an old version then.
func (w *world) rewrap(t *testing.T) {
	t.Helper()
	if _, err := w.kms.RotateKEK(t.Context(), "main", kms.Change{}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.kms.StartRewrap(t.Context(), "main", 0, kms.Change{}); err != nil {
		t.Fatal(err)
	}
	for job := (kms.Job{}); job.State != kms.JobDone; time.Sleep(5 * time.Millisecond) {
		var err error
		if job, err = w.kms.RewrapJob(t.Context(), "main"); err != nil || job.State == kms.JobFailed {
			t.Fatalf("got %+v, %v", job, err)
		}
	}
	todo, err := w.Work(t.Context())
	if err != nil || len(todo.Unmirrored) != 2 {
		t.Fatalf("got %d mirrors to be written, want 2: %v", len(todo.Unmirrored), err)
	}
	for _, u := range todo.Unmirrored {
		if err := w.ConfirmMirror(t.Context(), u.Bucket, u.ID, u.Record); err != nil {
			t.Fatal(err)
		}
	}
	if report, _, err := w.kms.Report(t.Context(), "main"); err != nil || report.Needed() != 0 {
		t.Errorf("got %+v, %v", report, err)
	}
}

func TestABucketThatWasMadeIsNotRefused(t *testing.T) {
	w := newWorld(t, Config{})
	w.bucket(t, "made")
	if err := w.RefuseBucket(t.Context(), "made"); err != nil {
		t.Error(err)
	}
	if _, err := w.Bucket(t.Context(), "made"); err != nil {
		t.Errorf("it was removed: %v", err)
	}
	if _, err := w.kms.RegisterBucket(t.Context(), kms.NewBucket{Name: "asked", Store: "s", StoreName: "asked", Owner: "alice", Make: true}); err != nil {
		t.Fatal(err)
	}
	if todo, err := w.Work(t.Context()); err != nil || len(todo.Unmade) != 1 || todo.Unmade[0].Name != "asked" || todo.Unmade[0].Active {
		t.Errorf("got %+v, %v", todo, err)
	}
	if err := w.RefuseBucket(t.Context(), "asked"); err != nil {
		t.Error(err)
	}
	_, err := w.Bucket(t.Context(), "asked")
	wantErr(t, err, ErrBucketNotFound)
}
