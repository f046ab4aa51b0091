// Package moving copies the sealed objects of a bucket to another place as they are:
// the same bytes and the same header, on whatever backend. It verifies what it has
// copied by reading it back.
//
// It refuses to know keys: it opens nothing, so whoever runs it learns nothing. What it
// can tell of an object is whether it looks sealed and whether both ends hold the same.
package moving

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"chatelaine/backends"
	"chatelaine/gateway/objects"
	"chatelaine/gateway/sealed"
)

// Errors that callers tell apart, beside those of backends.
var (
	// ErrOccupied: the destination has objects that no earlier copy of this bucket has
	// put there.
	ErrOccupied = errors.New("destination has objects of something else")
	// ErrSame: source and destination are one place.
	ErrSame = errors.New("source and destination are the same")
)

// Place is a bucket of a store. Name is for people, and tells places apart.
type Place struct {
	Store        backends.Store
	Bucket, Name string
}

// Config says what is copied where.
type Config struct {
	From, To Place
	// Space is the bucket's: a destination is one bucket's copy and no other's.
	Space string
	// Workers is how many objects are copied at once; 0 means 8.
	Workers int
	// WithoutTags and WithoutLocks leave behind what the destination cannot keep. Else an
	// object that has them is a problem.
	WithoutTags, WithoutLocks bool
	// Progress is told after each batch; it may be nil.
	Progress func(Report)
}

// Report is what a run did, and what it left. Numbers are of objects, unless said.
type Report struct {
	Copied      uint64 `json:"copied"`
	CopiedBytes uint64 `json:"copied_bytes"` // sealed
	Already     uint64 `json:"already"`      // the same at both ends, and verified by an earlier run
	Verified    uint64 `json:"verified"`     // the same at both ends, and read at both by this run
	Records     uint64 `json:"records"`      // of bucket keys; in none of the others
	Deleted     uint64 `json:"deleted"`      // copied earlier, and deleted at the source since
	// What is not copied.
	Uploads     uint64    `json:"uploads"` // unfinished
	OldVersions uint64    `json:"old_versions"`
	Problems    uint64    `json:"problems"`
	First       []Problem `json:"first_problems,omitempty"` // MaxProblems of them
}

// Clean says whether the destination has all that the source has, but for what Report
// says is never copied.
func (r Report) Clean() bool { return r.Problems == 0 }

// Problem is an object that was not copied.
type Problem struct {
	Key  string `json:"key"`
	Text string `json:"text"`
}

// MaxProblems is how many problems a Report names; it counts all.
const MaxProblems = 100

const (
	// batch is how many objects are done before the mark is moved: as many, and no more,
	// are read at both ends again after an interruption.
	batch = 256
	// markKey is the mark: an object of ours in the destination.
	markKey = objects.ReservedPrefix + "copy"
	// uploadsPrefix begins what belongs to unfinished uploads: ids of the source's own.
	uploadsPrefix = objects.ReservedPrefix + "uploads/"
	maxSmall      = 64 << 10
)

// mark says what the destination is, and up to which key all is there and was read back.
type mark struct {
	Space    string `json:"space"`
	From     string `json:"from"`
	Verified string `json:"verified"`
}

// Copy makes the destination the same as the source. It may be said again: then it does
// what is left, or has changed. An error ends it; what concerns one object is a problem
// of the Report. The source must not be written to in the last run.
func Copy(ctx context.Context, c Config) (Report, error) {
	m := &mover{Config: c}
	if m.Workers <= 0 {
		m.Workers = 8
	}
	err := m.begin(ctx)
	if err == nil {
		err = m.run(ctx)
	}
	if err == nil {
		err = m.count(ctx)
	}
	if err != nil {
		return m.report, fmt.Errorf("moving: copying %s to %s: %w", c.From.Name, c.To.Name, err)
	}
	return m.report, nil
}

// mover is one Copy.
type mover struct {
	Config
	mark   mark
	old    string // the mark as it was found
	lower  sync.Once
	mu     sync.Mutex
	report Report
}

// begin makes the destination, or makes sure that it is this bucket's copy.
func (m *mover) begin(ctx context.Context) error {
	if m.From.Name == m.To.Name {
		return ErrSame
	}
	err := m.To.Store.HeadBucket(ctx, m.To.Bucket)
	if errors.Is(err, backends.ErrBucketNotFound) {
		err = m.To.Store.CreateBucket(ctx, m.To.Bucket)
	}
	if err != nil {
		return err
	}
	data, err := readSmall(ctx, m.To, markKey)
	if errors.Is(err, backends.ErrNotFound) {
		return m.claim(ctx)
	}
	if err == nil {
		err = json.Unmarshal(data, &m.mark)
	}
	if err == nil && (m.mark.Space != m.Space || m.mark.From != m.From.Name) {
		err = fmt.Errorf("%w: it is a copy of %s", ErrOccupied, m.mark.From)
	}
	m.old = m.mark.Verified
	return err
}

// claim takes an empty destination.
func (m *mover) claim(ctx context.Context) error {
	page, err := m.To.Store.List(ctx, m.To.Bucket, &backends.ListOptions{Limit: 1})
	if err == nil && len(page.Entries) > 0 {
		err = fmt.Errorf("%w, as %q", ErrOccupied, page.Entries[0].Key)
	}
	if err != nil {
		return err
	}
	m.mark = mark{Space: m.Space, From: m.From.Name}
	return m.writeMark(ctx)
}

func (m *mover) writeMark(ctx context.Context) error {
	data, err := json.Marshal(m.mark)
	if err != nil {
		return err
	}
	return putSmall(ctx, m.To, markKey, data)
}

// run goes over both ends in the order of keys.
func (m *mover) run(ctx context.Context) error {
	from, to := newWalk(m.From), newWalk(m.To)
	for {
		pairs, err := next(ctx, from, to)
		if err != nil || len(pairs) == 0 {
			return err
		}
		before := m.report.Problems
		if err := m.pass(ctx, pairs); err != nil {
			return err
		}
		if last := pairs[len(pairs)-1].key; m.report.Problems == 0 && before == 0 && last > m.mark.Verified {
			m.mark.Verified = last
			if err := m.writeMark(ctx); err != nil {
				return err
			}
		}
		if m.Progress != nil {
			m.Progress(m.report)
		}
	}
}

// pass does a batch, several at once.
func (m *mover) pass(ctx context.Context, pairs []pair) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(m.Workers)
	for _, p := range pairs {
		group.Go(func() error {
			err := m.do(ctx, p)
			if err == nil || !isProblem(err) {
				return err
			}
			m.note(func(r *Report) {
				r.Problems++
				if len(r.First) < MaxProblems {
					r.First = append(r.First, Problem{Key: p.key, Text: err.Error()})
				}
			})
			return nil
		})
	}
	return group.Wait()
}

func (m *mover) note(f func(*Report)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f(&m.report)
}

var (
	errNotSealed = errors.New("it is not sealed")
	errDiffers   = errors.New("what was read back is not what was written")
	errTags      = errors.New("the destination keeps no tags")
	errLock      = errors.New("the destination keeps no retention or legal hold")
)

// isProblem says whether an error is about one object, and would be there again.
func isProblem(err error) bool {
	return slices.ContainsFunc([]error{
		errNotSealed, errDiffers, errTags, errLock,
		backends.ErrTooLarge, backends.ErrInvalidName, backends.ErrDenied, backends.ErrLocked, backends.ErrNoLock, backends.ErrUnsupported,
	}, func(known error) bool { return errors.Is(err, known) })
}

// do makes one key the same at both ends.
func (m *mover) do(ctx context.Context, p pair) error {
	switch {
	case p.key == markKey:
		return nil
	case p.from == nil:
		return m.remove(ctx, p)
	case within(p.key, uploadsPrefix):
		return nil
	case objects.Reserved(p.key):
		return m.record(ctx, p.key)
	}
	return m.object(ctx, p)
}

// remove deletes what an earlier run has copied and the source has no more.
func (m *mover) remove(ctx context.Context, p pair) error {
	if objects.Reserved(p.key) {
		return nil
	}
	info, err := m.To.Store.Head(ctx, m.to(p.key), nil)
	if errors.Is(err, backends.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if !looksSealed(info) {
		return fmt.Errorf("%w, and only at the destination", errNotSealed)
	}
	if _, err := m.To.Store.Delete(ctx, m.to(p.key), nil); err != nil {
		return err
	}
	m.note(func(r *Report) { r.Deleted++ })
	return nil
}

// record copies the small record of a bucket key.
func (m *mover) record(ctx context.Context, key string) error {
	data, err := readSmall(ctx, m.From, key)
	if errors.Is(err, backends.ErrNotFound) {
		return nil
	}
	if err == nil {
		err = putSmall(ctx, m.To, key, data)
	}
	var back []byte
	if err == nil {
		back, err = readSmall(ctx, m.To, key)
	}
	if err == nil && string(back) != string(data) {
		err = errDiffers
	}
	if err == nil {
		m.note(func(r *Report) { r.Records++ })
	}
	return err
}

// count finds out what is not copied.
func (m *mover) count(ctx context.Context) error {
	if mp, ok := backends.As[backends.Multiparter](m.From.Store); ok {
		var o backends.ListUploadsOptions
		for more := true; more; {
			page, err := mp.ListUploads(ctx, m.From.Bucket, &o)
			if err != nil {
				return err
			}
			m.report.Uploads += uint64(len(page.Uploads))
			more, o.KeyMarker, o.IDMarker = page.Truncated, page.NextKey, page.NextIDMarker
		}
	}
	v, ok := backends.As[backends.Versioner](m.From.Store)
	if !ok {
		return nil
	}
	state, err := v.Versioning(ctx, m.From.Bucket)
	if errors.Is(err, backends.ErrUnsupported) || err == nil && state == backends.VersioningOff {
		return nil
	}
	if err != nil {
		return err
	}
	return m.countVersions(ctx, v)
}

func (m *mover) countVersions(ctx context.Context, v backends.Versioner) error {
	var o backends.ListVersionsOptions
	for more := true; more; {
		page, err := v.ListVersions(ctx, m.From.Bucket, &o)
		if err != nil {
			return err
		}
		for _, e := range page.Versions {
			if !e.Latest && !e.Marker && !objects.Reserved(e.Key) {
				m.report.OldVersions++
			}
		}
		more, o.KeyMarker, o.VersionMarker = page.Truncated, page.NextKey, page.NextVersionMark
	}
	return nil
}

func (m *mover) from(key string) backends.ObjectID {
	return backends.ObjectID{Bucket: m.From.Bucket, Key: key}
}

func (m *mover) to(key string) backends.ObjectID {
	return backends.ObjectID{Bucket: m.To.Bucket, Key: key}
}

// looksSealed says whether an object has an envelope and a size that the format has.
func looksSealed(i backends.Info) bool {
	_, err := sealed.EnvelopeKeyID(i.Attributes.Metadata[sealed.MetadataName])
	_, fits := sealed.PlainSize(i.Size)
	return err == nil && fits
}

func readSmall(ctx context.Context, p Place, key string) ([]byte, error) {
	o, err := p.Store.Get(ctx, backends.ObjectID{Bucket: p.Bucket, Key: key}, nil)
	if err != nil {
		return nil, err
	}
	defer func() { _ = o.Body.Close() }()
	return io.ReadAll(io.LimitReader(o.Body, maxSmall))
}
