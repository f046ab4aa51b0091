package objects

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"chatelaine/backends"
	"chatelaine/gateway/keys"
)

// Adoption seals the plaintext objects of a bucket in place. It goes over the bucket in
// the order of its keys and keeps no list of what is done: an object tells by itself
// whether it is sealed. What it tells the KMS, which is how far it has come, is only
// where the next gateway goes on if this one is killed. DECISIONS.md has the reasons.

// adoptLimits are constants but in tests.
type adoptLimits struct {
	// grain is the resolution of backends' times: what is written within it is of the
	// same time. settle is more than that.
	grain, settle time.Duration
	// report is the time between two reports to the KMS.
	report time.Duration
	// workers is how many objects are sealed at once, page how many are listed at once.
	workers, page int
	// whole is the largest object that is sealed as one, in bytes; above, it is in parts
	// of at least part bytes.
	whole, part int64
}

func defaultAdoptLimits() adoptLimits {
	return adoptLimits{
		grain: time.Second, settle: 2 * time.Second, report: 400 * time.Millisecond,
		workers: 8, page: maxList, whole: MaxPut, part: 1 << 30,
	}
}

// adoptions are those that this gateway is at, and the buckets whose ledgers it fills:
// none is both.
type adoptions struct {
	running sync.WaitGroup
	mu      sync.Mutex
	spaces  map[keys.Space]bool
}

// start runs an adoption until it ends or ctx does, unless it runs already.
func (r *adoptions) start(ctx context.Context, s *Service, a keys.Adoption) {
	r.run(a.Bucket.Space, func() {
		err := s.adopt(ctx, a.Bucket)
		if err != nil && ctx.Err() == nil && !errors.Is(err, keys.ErrAdoptionTaken) {
			s.log.Warn("an adoption does not go on; it is tried again", zap.String("bucket", a.Bucket.Name), zap.Error(err))
		}
	})
}

// run does the work on a bucket, unless some of it runs already.
func (r *adoptions) run(space keys.Space, work func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.spaces[space] {
		return
	}
	if r.spaces == nil {
		r.spaces = map[keys.Space]bool{}
	}
	r.spaces[space] = true
	r.running.Go(func() {
		work()
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.spaces, space)
	})
}

// adopt takes an adoption over, and works at it until all objects were visited.
// keys.ErrAdoptionTaken where another gateway is at it.
func (s *Service) adopt(ctx context.Context, b keys.Bucket) error {
	runner := rand.Text()
	claimed, err := s.keys.Adopt(ctx, keys.AdoptionProgress{Bucket: b, Runner: runner})
	if err != nil {
		return fmt.Errorf("objects: taking over the adoption of bucket %q: %w", b.Name, err)
	}
	store, err := s.storeOf(claimed.Bucket)
	if err != nil {
		return err
	}
	a := &adoption{Service: s, bucket: claimed.Bucket, store: store, runner: runner, told: claimed.AdoptionState}
	a.pace = newPacer(claimed.Rate, claimed.Bytes)
	if a.bucket.Adopting.CutOff.IsZero() {
		return a.begin(ctx)
	}
	if err := a.run(ctx); err != nil {
		return fmt.Errorf("objects: adopting bucket %q: %w", b.Name, err)
	}
	return nil
}

// adoption is one at work.
type adoption struct {
	*Service
	bucket keys.Bucket
	store  backends.Store
	runner string
	pace   *pacer

	mu   sync.Mutex
	told keys.AdoptionState
	page *pageMarks
}

// run visits all objects above the position, and tells the KMS of it.
func (a *adoption) run(ctx context.Context) error {
	working, stop := context.WithCancelCause(ctx)
	var reporting sync.WaitGroup
	reporting.Go(func() { a.keepTelling(working, stop) })
	err := a.visitAll(working)
	stop(context.Canceled)
	reporting.Wait()
	if cause := context.Cause(working); !errors.Is(cause, context.Canceled) {
		return cause
	}
	if err == nil {
		err = a.countVersions(ctx)
	}
	end := keys.AdoptionProgress{Ended: err == nil}
	if err != nil {
		end.Trouble = clip(err.Error(), maxProblem)
	}
	return errors.Join(err, a.tell(context.WithoutCancel(ctx), end))
}

// keepTelling tells the KMS how far it is, and ends the work when that says that it is
// somebody else's.
func (a *adoption) keepTelling(ctx context.Context, stop context.CancelCauseFunc) {
	ticker := time.NewTicker(a.limits.report)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		err := a.tell(ctx, keys.AdoptionProgress{})
		if errors.Is(err, keys.ErrAdoptionTaken) {
			stop(err)
			return
		}
		if err != nil && ctx.Err() == nil {
			a.log.Warn("the progress of an adoption is not told", zap.String("bucket", a.bucket.Name), zap.Error(err))
		}
	}
}

// tell tells the KMS what is known now.
func (a *adoption) tell(ctx context.Context, p keys.AdoptionProgress) error {
	p.Bucket, p.Runner, p.State = a.bucket, a.runner, a.state()
	ctx, cancel := context.WithTimeout(ctx, workTimeout)
	defer cancel()
	_, err := a.keys.Adopt(ctx, p)
	return err
}

// state is a copy of what there is to tell.
func (a *adoption) state() *keys.AdoptionState {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.told.Position, a.told.SealedTo = a.page.marks(a.told.Position, a.told.SealedTo)
	out := a.told
	out.Problems = append([]keys.AdoptionProblem(nil), out.Problems...)
	return &out
}

// visitAll visits page by page. An error ends it: what is of one object alone is none.
func (a *adoption) visitAll(ctx context.Context) error {
	opts := backends.ListOptions{After: a.state().Position, Limit: a.limits.page}
	for {
		page, err := a.store.List(ctx, a.bucket.StoreName, &opts)
		if err != nil {
			return fmt.Errorf("listing it: %w", err)
		}
		if err := a.visitPage(ctx, page.Entries); err != nil {
			return err
		}
		if !page.Truncated {
			return nil
		}
		opts.Token = page.Token
	}
}

// visitPage visits objects, several at once.
func (a *adoption) visitPage(ctx context.Context, entries []backends.Info) error {
	marks := &pageMarks{entries: entries, done: make([]bool, len(entries)), sealed: make([]bool, len(entries))}
	a.mu.Lock()
	marks.unbroken = a.told.Counts.Problems == 0
	a.page = marks
	a.mu.Unlock()
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(a.limits.workers)
	for i, e := range entries {
		if Reserved(e.Key) {
			a.visited(marks, i, visit{})
			continue
		}
		if err := a.pace.wait(ctx, e.Size); err != nil {
			break
		}
		group.Go(func() error {
			v, err := a.visit(ctx, e)
			if err == nil {
				a.visited(marks, i, v)
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil && !marks.all() {
		return err
	}
	a.state() // takes the page's marks over before the next page is there
	return nil
}

// visited notes what became of an object.
func (a *adoption) visited(marks *pageMarks, i int, v visit) {
	a.mu.Lock()
	defer a.mu.Unlock()
	marks.done[i], marks.sealed[i] = true, v.problem == ""
	counts := &a.told.Counts
	v.count(counts)
	if v.problem != "" && len(a.told.Problems) < keys.MaxProblems {
		a.told.Problems = append(a.told.Problems, keys.AdoptionProblem{Key: marks.entries[i].Key, Text: v.problem})
	}
	if v.outcome != "" {
		a.metrics.adopted.WithLabelValues(a.bucket.Store, string(v.outcome)).Inc()
	}
}

// pageMarks say which objects of a page were visited. The adoption's lock guards them.
type pageMarks struct {
	entries      []backends.Info
	done, sealed []bool
	unbroken     bool // no object before the page is left as it was
}

func (p *pageMarks) all() bool {
	for _, done := range p.done {
		if !done {
			return false
		}
	}
	return true
}

// marks are the keys up to which all were visited, and sealed.
func (p *pageMarks) marks(position, sealedTo string) (string, string) {
	if p == nil {
		return position, sealedTo
	}
	unbroken := p.unbroken
	for i, e := range p.entries {
		if !p.done[i] {
			break
		}
		position = e.Key
		if unbroken = unbroken && p.sealed[i]; unbroken {
			sealedTo = e.Key
		}
	}
	return position, sealedTo
}

// countVersions counts the older versions that are plaintext and stay so.
func (a *adoption) countVersions(ctx context.Context) error {
	v, ok, err := versionedStore(ctx, a.bucket, a.store)
	if err != nil || !ok {
		return err
	}
	var n uint64
	var opts backends.ListVersionsOptions
	for {
		page, err := v.ListVersions(ctx, a.bucket.StoreName, &opts)
		if err != nil {
			return fmt.Errorf("counting older versions: %w", err)
		}
		for _, e := range page.Versions {
			if !e.Marker && !e.Latest && !Reserved(e.Key) && !e.Modified.After(a.bucket.Adopting.CutOff) {
				n++
			}
		}
		if !page.Truncated {
			break
		}
		opts.KeyMarker, opts.VersionMarker = page.NextKey, page.NextVersionMark
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.told.Counts.OldVersions = n
	return nil
}

// pacer spreads work over time. It may be used concurrently.
type pacer struct {
	object time.Duration // an object's share of a second
	bytes  float64       // a second; 0: no limit
	mu     sync.Mutex
	due    time.Time
}

func newPacer(rate uint32, bytes uint64) *pacer {
	p := &pacer{bytes: float64(bytes)}
	if rate > 0 {
		p.object = time.Second / time.Duration(rate)
	}
	return p
}

// wait returns when it is the turn of an object of a size.
func (p *pacer) wait(ctx context.Context, size int64) error {
	cost := p.object
	if p.bytes > 0 {
		cost = max(cost, time.Duration(float64(size)/p.bytes*float64(time.Second)))
	}
	p.mu.Lock()
	now := time.Now()
	due := p.due
	if due.Before(now) {
		due = now
	}
	p.due = due.Add(cost)
	p.mu.Unlock()
	if cost == 0 || due.Equal(now) {
		return ctx.Err()
	}
	select {
	case <-time.After(due.Sub(now)):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// clip bounds a text that the KMS is told, in bytes.
func clip(text string, most int) string { return strings.ToValidUTF8(text[:min(len(text), most)], "") }
