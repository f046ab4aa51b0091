package kms

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

// Rewrapping moves what is wrapped under older versions of a KEK to where it belongs:
// bucket keys to the primary version of their bucket's KEK, secrets of access keys and
// the instance's own key to that of the default KEK. Bucket keys get the recovery copy
// that is configured, where they have another or none. What a record wraps does not
// change, nor does a bucket key's id, so no object is touched.
//
// A job has no list of what is done: whatever is still wrapped elsewhere is what is
// left, so a job that was killed is resumed by looking. Its record is for progress, and
// keeps a second runner away.

// JobState says how far a job has come.
type JobState string

// The states of a job.
const (
	JobRunning JobState = "running"
	JobDone    JobState = "done"
	JobFailed  JobState = "failed" // something is left; Problem says why
	JobStopped JobState = "stopped"
)

// Job is a rewrapping of all that is under one KEK.
type Job struct {
	KEK     string    `json:"kek"`
	State   JobState  `json:"state"`
	Rate    uint32    `json:"rate"` // records a second; 0: as fast as it goes
	Started time.Time `json:"started"`
	Ended   time.Time `json:"ended,omitzero"`
	Actor   string    `json:"actor"`
	Reason  string    `json:"reason,omitempty"`
	// Total is what was found to do so far, of which Done is done.
	Total   uint64 `json:"total"`
	Done    uint64 `json:"done"`
	Problem string `json:"problem,omitempty"`
	// Runner is the Manager at work, and Beat grows while it lives.
	Runner string `json:"runner"`
	Beat   uint64 `json:"beat"`
}

const (
	// maxRate is over what any HSM does.
	maxRate = 1_000_000
	// jobBeat is the time between two beats of a runner, and jobTakeover how long one
	// is silent, by the watch of whoever waits, before another takes its place.
	jobBeat     = 500 * time.Millisecond
	jobTakeover = 15 * time.Second
	jobLook     = time.Second
	// rewrappers is how many records are worked on at once. A provider bounds its
	// sessions by itself; more would wait there.
	rewrappers = 16
	// rewrapRetry is the pause before what was unavailable is tried again.
	rewrapRetry = 2 * time.Second
)

func jobPath(kek string) string { return "jobs/rewrap/" + kek }

// StartRewrap begins to rewrap what is under a KEK; Run does the work, of this Manager
// or another on the same registry. While a job for the KEK runs, that one is returned.
// ErrNotFound, ErrInvalid.
func (m *Manager) StartRewrap(ctx context.Context, kek string, rate uint32, by Change) (Job, error) {
	var job Job
	err := errors.Join(checkName("KEK", kek), by.validate())
	if rate > maxRate {
		err = errors.Join(err, fmt.Errorf("%w: rate %d: want at most %d", ErrInvalid, rate, maxRate))
	}
	if err == nil {
		err = retry(ctx, func() (err error) {
			job, err = m.startRewrap(ctx, kek, rate, by)
			return err
		})
	}
	if err != nil {
		return Job{}, fmt.Errorf("kms: starting to rewrap what is under KEK %q: %w", kek, err)
	}
	select {
	case m.jobs <- struct{}{}:
	default: // Run is about to look anyway
	}
	return job, nil
}

func (m *Manager) startRewrap(ctx context.Context, kek string, rate uint32, by Change) (Job, error) {
	if _, err := m.findKEK(ctx, kek); err != nil {
		return Job{}, err
	}
	s, err := readMaybe[Job](ctx, m.registry, jobPath(kek))
	if err != nil || s.record.State == JobRunning {
		return s.record, err
	}
	job := Job{KEK: kek, State: JobRunning, Rate: rate, Started: time.Now().UTC(), Actor: by.actor(), Reason: by.Reason}
	return job, m.commitJob(ctx, s.is, job)
}

func (m *Manager) commitJob(ctx context.Context, is Condition, job Job) error {
	item, err := put(is.Key, job)
	if err != nil {
		return err
	}
	return m.registry.Commit(ctx, Transaction{If: []Condition{is}, Put: []Item{item}})
}

// StopRewrap ends a job. What is done stays done, and StartRewrap goes on with the rest.
func (m *Manager) StopRewrap(ctx context.Context, kek string, by Change) (Job, error) {
	var job Job
	err := retry(ctx, func() error {
		s, err := m.findJob(ctx, kek)
		if job = s.record; err != nil || job.State != JobRunning {
			return err
		}
		job.State, job.Ended, job.Problem = JobStopped, time.Now().UTC(), "stopped by "+by.actor()
		return m.commitJob(ctx, s.is, job)
	})
	if err != nil {
		return Job{}, fmt.Errorf("kms: stopping the rewrapping of what is under KEK %q: %w", kek, err)
	}
	return job, nil
}

// RewrapJob is the last job of a KEK, or ErrNotFound.
func (m *Manager) RewrapJob(ctx context.Context, kek string) (Job, error) {
	s, err := m.findJob(ctx, kek)
	if err != nil {
		return Job{}, fmt.Errorf("kms: finding a job for KEK %q: %w", kek, err)
	}
	return s.record, nil
}

func (m *Manager) findJob(ctx context.Context, kek string) (stored[Job], error) {
	if err := checkName("KEK", kek); err != nil {
		return stored[Job]{}, err
	}
	return read[Job](ctx, m.registry, jobPath(kek))
}

// jobWatch is what a Manager remembers of jobs that others run.
type jobWatch struct {
	revision int64
	since    time.Time // on the monotonic clock
}

// runJobs runs jobs that nobody runs, one after the other, until ctx ends.
func (m *Manager) runJobs(ctx context.Context) {
	seen := map[string]jobWatch{}
	for {
		if err := m.lookForJobs(ctx, seen); err != nil && ctx.Err() == nil {
			m.log.Warn("looking for jobs failed", zap.Error(err))
		}
		select {
		case <-ctx.Done():
			return
		case <-m.jobs:
		case <-time.After(jobLook):
		}
	}
}

func (m *Manager) lookForJobs(ctx context.Context, seen map[string]jobWatch) error {
	all, err := list[Job](ctx, m.registry, jobPath(""))
	if err != nil {
		return err
	}
	for _, s := range all {
		if s.record.State != JobRunning || !abandoned(s, seen) {
			continue
		}
		if err := m.runJob(ctx, s); err != nil && !errors.Is(err, ErrConflict) {
			return fmt.Errorf("rewrapping what is under KEK %q: %w", s.record.KEK, err)
		}
	}
	return nil
}

// abandoned says whether a running job has no runner that lives.
func abandoned(s stored[Job], seen map[string]jobWatch) bool {
	if s.record.Runner == "" {
		return true
	}
	last := seen[s.is.Key]
	if last.revision != s.is.Revision {
		seen[s.is.Key] = jobWatch{s.is.Revision, time.Now()}
		return false
	}
	return time.Since(last.since) >= jobTakeover
}

// runner is a job at work.
type runner struct {
	*Manager
	job         Job // but for the counters
	is          Condition
	total, done atomic.Uint64
	before      uint64 // done by earlier runners
	tick        <-chan time.Time
}

// runJob takes a job over, works until nothing is left or ctx ends, and says how it
// ended. ErrConflict when another Manager took it, or somebody stopped it.
func (m *Manager) runJob(ctx context.Context, s stored[Job]) error {
	r := &runner{Manager: m, job: s.record, is: s.is, before: s.record.Done}
	r.job.Runner = m.id
	if err := r.beat(ctx); err != nil {
		return err
	}
	if r.job.Rate > 0 {
		ticker := time.NewTicker(time.Second / time.Duration(r.job.Rate))
		defer ticker.Stop()
		r.tick = ticker.C
	}
	working, stop := context.WithCancelCause(ctx)
	var beating sync.WaitGroup
	beating.Go(func() { r.keepBeating(working, stop) })
	err := r.work(working)
	stop(context.Canceled)
	beating.Wait()
	if cause := context.Cause(working); !errors.Is(cause, context.Canceled) {
		return cause
	}
	if ctx.Err() != nil {
		return r.letGo(context.WithoutCancel(ctx))
	}
	return r.end(ctx, err)
}

// keepBeating shows that the runner lives, and ends its work when the job is not its
// own any more.
func (r *runner) keepBeating(ctx context.Context, stop context.CancelCauseFunc) {
	ticker := time.NewTicker(jobBeat)
	defer ticker.Stop()
	silent := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		err := r.beat(ctx)
		switch {
		case err == nil:
			silent = time.Now()
		case ctx.Err() == nil && (errors.Is(err, ErrConflict) || time.Since(silent) > jobTakeover/2):
			stop(err)
			return
		}
	}
}

// beat writes the progress. It is called by one goroutine at a time.
func (r *runner) beat(ctx context.Context) error {
	r.job.Beat++
	r.job.Done = r.before + r.done.Load()
	r.job.Total = max(r.before+r.total.Load(), r.job.Done)
	if err := r.commitJob(ctx, r.is, r.job); err != nil {
		return err
	}
	s, err := read[Job](ctx, r.registry, r.is.Key)
	if err == nil && (s.record.Runner != r.id || s.record.Beat != r.job.Beat || s.record.State != r.job.State) {
		err = ErrConflict
	}
	if err == nil {
		r.is = s.is
	}
	return err
}

// letGo lets another Manager have the job at once: this one is about to end.
func (r *runner) letGo(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	r.job.Runner = ""
	return r.commitJob(ctx, r.is, r.job)
}

func (r *runner) end(ctx context.Context, err error) error {
	r.job.State, r.job.Ended, r.job.Problem = JobDone, time.Now().UTC(), ""
	if err != nil {
		r.job.State, r.job.Problem = JobFailed, err.Error()
	}
	if err := r.beat(ctx); err != nil {
		return err
	}
	r.log.Info("rewrapping ended", zap.String("kek", r.job.KEK), zap.Uint64("records", r.job.Done), zap.Error(err))
	return nil
}

// work goes over what is left until nothing is, or nothing more can be done.
func (r *runner) work(ctx context.Context) error {
	for {
		left, err := r.left(ctx)
		if err == nil && len(left) == 0 {
			return nil
		}
		if err == nil {
			r.total.Store(r.done.Load() + uint64(len(left)))
			before := r.done.Load()
			err = r.pass(ctx, left)
			if err == nil || r.done.Load() > before && ctx.Err() == nil {
				continue
			}
		}
		if ctx.Err() != nil || !errors.Is(err, ErrUnavailable) {
			return err
		}
		select { // an HSM or registry that is away comes back
		case <-time.After(rewrapRetry):
		case <-ctx.Done():
		}
	}
}

// item is one record that is to be wrapped anew.
type item func(ctx context.Context) error

// pass works on all items, several at once, and returns the first error.
func (r *runner) pass(ctx context.Context, items []item) error {
	feed := make(chan item)
	var failed atomic.Pointer[error]
	var group sync.WaitGroup
	for range rewrappers {
		group.Go(func() {
			for do := range feed {
				if err := do(ctx); err != nil {
					failed.CompareAndSwap(nil, &err)
					continue
				}
				r.done.Add(1)
			}
		})
	}
	for _, do := range items {
		if !r.pace(ctx) {
			break
		}
		feed <- do
	}
	close(feed)
	group.Wait()
	if err := failed.Load(); err != nil {
		return *err
	}
	return ctx.Err()
}

// pace waits for the turn of the next record.
func (r *runner) pace(ctx context.Context) bool {
	if r.tick == nil {
		return ctx.Err() == nil
	}
	select {
	case <-r.tick:
		return true
	case <-ctx.Done():
		return false
	}
}

// left lists the records under the job's KEK that belong elsewhere.
func (r *runner) left(ctx context.Context) ([]item, error) {
	keks, err := r.KEKs(ctx)
	if err != nil {
		return nil, err
	}
	primary := map[string]uint32{}
	for _, k := range keks {
		primary[k.Name] = k.Primary
	}
	home := func(kek string) KeyRef { return KeyRef{Name: kek, Version: primary[kek]} }
	out, err := r.leftBucketKeys(ctx, home)
	if err != nil {
		return nil, err
	}
	access, err := r.AccessKeys(ctx)
	if err != nil {
		return nil, err
	}
	for _, k := range access {
		if k.KEK == r.job.KEK && k.ref() != home(r.kek) {
			out = append(out, func(ctx context.Context) error { return r.rewrapAccessKey(ctx, k.ID) })
		}
	}
	own, err := readMaybe[instance](ctx, r.registry, instancePath)
	if err == nil && own.exists() && own.record.KEK == r.job.KEK && own.record.ref() != home(r.kek) {
		out = append(out, r.rewrapInstance)
	}
	return out, err
}

func (r *runner) leftBucketKeys(ctx context.Context, home func(kek string) KeyRef) ([]item, error) {
	buckets, err := list[Bucket](ctx, r.registry, bucketPath(""))
	if err != nil {
		return nil, err
	}
	kekOf := map[string]string{}
	for _, b := range buckets {
		kekOf[b.record.Space] = b.record.KEK
	}
	keys, err := list[BucketKey](ctx, r.registry, bucketKeysRoot)
	if err != nil {
		return nil, err
	}
	recovery, err := r.RecoveryHome(ctx)
	if err != nil {
		return nil, err
	}
	var out []item
	for _, s := range keys {
		kek, ok := kekOf[s.record.Space] // or else it was removed just now
		moves := s.record.KEK == r.job.KEK && s.record.ref() != home(kek)
		copies := (s.record.KEK == r.job.KEK || s.record.Recovery.ref().Name == r.job.KEK) && recovery.wanting(s.record)
		if ok && (moves || copies) {
			out = append(out, func(ctx context.Context) error { return r.rewrapBucketKey(ctx, s.record.Space, s.record.ID) })
		}
	}
	return out, nil
}

// rewrapBucketKey wraps a bucket key under the primary version of its bucket's KEK, and
// for a recovery where that is configured. Old versions are needed until a gateway has
// written the mirror anew.
func (m *Manager) rewrapBucketKey(ctx context.Context, space string, id KeyID) error {
	err := retry(ctx, func() error {
		b, err := m.bucketOf(ctx, space)
		if err != nil {
			return err
		}
		s, err := read[BucketKey](ctx, m.registry, keyPath(space, id))
		if err != nil {
			return err
		}
		ref, wrapped, kekIs, err := m.rewrap(ctx, s.record.ref(), b.record.KEK, s.record.binding(), s.record.Wrapped)
		if err != nil {
			return err
		}
		key, copyIs, err := m.renewCopy(ctx, s.record)
		if err != nil || wrapped == nil && key.Recovery.equal(s.record.Recovery) {
			return err
		}
		if wrapped != nil {
			key.KEK, key.KEKVersion, key.Wrapped = ref.Name, ref.Version, wrapped
		}
		t := Transaction{If: append(copyIs, s.is, b.is, kekIs)}
		if err := t.putRewrapped(s.record, key); err != nil {
			return err
		}
		return m.registry.Commit(ctx, t)
	})
	if errors.Is(err, ErrNotFound) {
		return nil // the bucket was removed
	}
	if err != nil {
		return fmt.Errorf("rewrapping bucket key %s: %w", id, err)
	}
	return nil
}

// renewCopy gives a key the recovery copy that is configured, where it has another or
// none, with the conditions that the record is written on.
func (m *Manager) renewCopy(ctx context.Context, k BucketKey) (BucketKey, []Condition, error) {
	home, err := m.RecoveryHome(ctx)
	if err != nil || !home.wanting(k) {
		return k, nil, err
	}
	secret, _, err := m.unwrap(ctx, k.ref(), k.binding(), k.Wrapped)
	if err != nil {
		return k, nil, err
	}
	copied, is, err := m.copyFor(ctx, k, secret)
	if err == nil {
		k.Recovery = copied
	}
	return k, is, err
}

// putRewrapped adds a key that was wrapped anew, and the task to mirror it. The copy in
// the backend is as the key was before.
func (t *Transaction) putRewrapped(before, k BucketKey) error {
	k.Stale = slices.Clone(k.Stale)
	k.addStale(before.ref())
	if ref := before.Recovery.ref(); ref != k.Recovery.ref() {
		k.addStale(ref)
	}
	k.Mirrored = false
	record, err := put(keyPath(k.Space, k.ID), k)
	work, err2 := put(mirrorTaskPath(k.Space, k.ID), mirrorTask{Space: k.Space, ID: k.ID})
	t.Put = append(t.Put, record, work)
	return errors.Join(err, err2)
}

// rewrap unwraps and wraps again; nil bytes where it is already so.
func (m *Manager) rewrap(ctx context.Context, from KeyRef, to string, b Binding, wrapped []byte) (KeyRef, []byte, Condition, error) {
	kek, err := m.kekRecord(ctx, to)
	if err != nil || kek.record.Ref(kek.record.Primary) == from {
		return from, nil, kek.is, err
	}
	secret, _, err := m.unwrap(ctx, from, b, wrapped)
	if err != nil {
		return from, nil, kek.is, err
	}
	return m.wrap(ctx, to, b, secret)
}

// rewrapAccessKey wraps both secrets of an access key under the default KEK.
func (m *Manager) rewrapAccessKey(ctx context.Context, id string) error {
	err := retry(ctx, func() error {
		s, err := m.accessKey(ctx, id)
		if err != nil {
			return err
		}
		key := s.record
		ref, wrapped, kekIs, err := m.rewrap(ctx, key.ref(), m.kek, key.binding(), key.Wrapped)
		if err != nil || wrapped == nil {
			return err
		}
		if key.Old != nil {
			old, oldWrapped, _, err := m.rewrap(ctx, key.ref(), m.kek, key.binding(), key.Old.Wrapped)
			if err != nil {
				return err
			}
			if old != ref {
				return fmt.Errorf("%w: the KEK was rotated", ErrConflict)
			}
			key.Old.Wrapped = oldWrapped
		}
		key.KEK, key.KEKVersion, key.Wrapped = ref.Name, ref.Version, wrapped
		item, err := put(s.is.Key, key)
		if err != nil {
			return err
		}
		return m.registry.Commit(ctx, Transaction{If: []Condition{s.is, kekIs}, Put: []Item{item}})
	})
	if err != nil {
		return fmt.Errorf("rewrapping access key %q: %w", id, err)
	}
	return nil
}
