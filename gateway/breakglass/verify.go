package breakglass

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"chatelaine/backends"
	"chatelaine/gateway/objects"
	"chatelaine/gateway/sealed"
	"chatelaine/kms"
)

// Report says how far a verification has come, and what it found. It is also what a
// verification that was stopped goes on from.
type Report struct {
	Chatelaine string    `json:"chatelaine"` // ReportKind
	Bucket     string    `json:"bucket"`     // as it lies in the cloud
	Prefix     string    `json:"prefix"`
	Versions   bool      `json:"versions"` // older versions too
	Started    time.Time `json:"started"`
	Updated    time.Time `json:"updated"`
	Done       bool      `json:"done"`
	After      Place     `json:"after"` // the last that was looked at: all before it were too

	Space    string    `json:"space"`    // of the first key that was used; others are refused
	Good     uint64    `json:"good"`     // objects of which every byte is authentic
	Bytes    int64     `json:"bytes"`    // of plaintext in them
	Mirrors  uint64    `json:"mirrors"`  // mirrors of keys that opened
	Reserved uint64    `json:"reserved"` // the gateway's other objects, which were not opened
	Gone     uint64    `json:"gone"`     // deleted between the list and the reading
	Bad      []Problem `json:"bad"`
}

// ErrOtherReport says that a Report to go on from is about something else.
var ErrOtherReport = errors.New("the report is about something else")

// ReportKind begins a Report.
const ReportKind = "verify/1"

// Place is where in a list of a bucket something stands.
type Place struct {
	Key     string `json:"key"`
	Version string `json:"version,omitempty"`
}

// Problem is an object that cannot be relied on.
type Problem struct {
	Place
	Kind    ProblemKind `json:"kind"`
	Problem string      `json:"problem"`
}

// ProblemKind tells problems apart, for programs.
type ProblemKind string

// The kinds of problems.
const (
	BadSize     ProblemKind = "size"        // stored in a number of bytes that no object of ours has, or that the list denies
	NotSealed   ProblemKind = "not sealed"  // no envelope: somebody else's, or a stripped one
	NoKey       ProblemKind = "key"         // its bucket key cannot be had
	OtherSpace  ProblemKind = "space"       // its bucket key is another bucket's
	Corrupt     ProblemKind = "corrupt"     // a tag, commitment, length or sum is wrong
	Unsupported ProblemKind = "unsupported" // of a version of the format that this program does not know
	Unreadable  ProblemKind = "unreadable"  // the cloud does not give it
)

// Verification is what is to be verified.
type Verification struct {
	Reader
	Store    backends.Store // what Source reads from
	Bucket   string
	Prefix   string
	Versions bool // older versions too
	// Workers is how many objects are read at once; 0 means 4. Each takes about 2 MiB.
	Workers int
	// Observe hears of each object that was counted, one at a time. It must not keep the
	// Report's slices.
	Observe func(Report)
}

// Verify reads all of a bucket that comes after from.After, and adds what it finds to
// from, which is the zero Report at first. Where it fails, the Report that it returns
// is what to go on from: the keys or the cloud do not serve, or ctx has ended.
func (v Verification) Verify(ctx context.Context, from Report) (Report, error) {
	if from.Chatelaine == "" {
		from = Report{Chatelaine: ReportKind, Bucket: v.Bucket, Prefix: v.Prefix, Versions: v.Versions, Started: time.Now().UTC(), Bad: []Problem{}}
	}
	if from.Chatelaine != ReportKind || from.Bucket != v.Bucket || from.Prefix != v.Prefix || from.Versions != v.Versions {
		return from, fmt.Errorf("breakglass: verifying %q: %w: bucket %q, prefix %q, versions %t", v.Bucket, ErrOtherReport, from.Bucket, from.Prefix, from.Versions)
	}
	if from.Done {
		return from, nil
	}
	w := walk{Verification: v, report: from}
	if err := w.run(ctx); err != nil {
		return w.report, fmt.Errorf("breakglass: verifying %q, stopped after %q: %w", v.Bucket, w.report.After.Key, err)
	}
	w.report.Done = true
	return w.report, nil
}

// walk is one Verify.
type walk struct {
	Verification
	report Report
}

// entry is a row of the bucket's list.
type entry struct {
	Place
	size int64
	etag string
}

// verdict is what came of an entry.
type verdict struct {
	entry
	reserved, mirror bool
	bytes            int64
	space            string
	err              error
}

// run keeps some entries in work, and counts them in the order of the list: so After
// says exactly what was done.
func (w *walk) run(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	var working sync.WaitGroup
	defer working.Wait()
	defer stop()
	queue := make(chan chan verdict, max(1, w.workers()-1))
	var listed error
	working.Go(func() {
		defer close(queue)
		listed = w.list(ctx, func(e entry) error {
			result := make(chan verdict, 1)
			select {
			case queue <- result:
			case <-ctx.Done():
				return ctx.Err()
			}
			working.Go(func() { result <- w.check(ctx, e) })
			return nil
		})
	})
	for result := range queue {
		if err := w.count(<-result); err != nil {
			return err
		}
	}
	return listed
}

func (w *walk) workers() int {
	if w.Workers > 0 {
		return w.Workers
	}
	return 4
}

// list names all that comes after the report's place.
func (w *walk) list(ctx context.Context, yield func(entry) error) error {
	if w.Versions {
		return w.listVersions(ctx, yield)
	}
	o := backends.ListOptions{Prefix: w.Prefix, After: w.report.After.Key}
	for {
		page, err := w.Store.List(ctx, w.Bucket, &o)
		if err != nil {
			return fmt.Errorf("listing: %w", err)
		}
		for _, e := range page.Entries {
			if err := yield(entry{Place{Key: e.Key}, e.Size, e.ETag}); err != nil {
				return err
			}
		}
		if !page.Truncated {
			return nil
		}
		o.Token = page.Token
	}
}

func (w *walk) listVersions(ctx context.Context, yield func(entry) error) error {
	store, ok := backends.As[backends.Versioner](w.Store)
	if !ok {
		return fmt.Errorf("listing versions: %w", backends.ErrUnsupported)
	}
	o := backends.ListVersionsOptions{Prefix: w.Prefix, KeyMarker: w.report.After.Key, VersionMarker: w.report.After.Version}
	for {
		page, err := store.ListVersions(ctx, w.Bucket, &o)
		if err != nil {
			return fmt.Errorf("listing versions: %w", err)
		}
		for _, e := range page.Versions {
			if e.Marker {
				continue
			}
			if err := yield(entry{Place{e.Key, e.Version}, e.Size, e.ETag}); err != nil {
				return err
			}
		}
		if !page.Truncated {
			return nil
		}
		o.KeyMarker, o.VersionMarker = page.NextKey, page.NextVersionMark
	}
}

// check looks at one entry. What another reading may mend is tried again.
func (w *walk) check(ctx context.Context, e entry) verdict {
	if objects.Reserved(e.Key) {
		return w.checkReserved(ctx, e)
	}
	out := verdict{entry: e}
	for range attempts {
		out.bytes, out.space, out.err = w.read(ctx, e)
		if out.err == nil || ctx.Err() != nil || kindOf(out.err) != Unreadable {
			break
		}
	}
	return out
}

// read reads an object to its end.
func (w *walk) read(ctx context.Context, e entry) (n int64, space string, err error) {
	o, err := w.Open(ctx, backends.ObjectID{Bucket: w.Bucket, Key: e.Key, Version: e.Version})
	if _, ours := sealed.PlainSize(e.size); !ours && errors.Is(err, sealed.ErrCorrupt) {
		return 0, "", &sizeError{err.Error()}
	}
	if err != nil {
		return 0, "", err
	}
	defer func() { err = errors.Join(err, o.Close()) }()
	if o.Info.ETag == e.etag && o.Info.Size != e.size {
		return 0, "", &sizeError{fmt.Sprintf("the list says that it is stored in %d bytes, and it is in %d", e.size, o.Info.Size)}
	}
	n, err = o.WriteTo(io.Discard)
	return n, o.Mirror.Space, err
}

// checkReserved proves mirrors. What else lies there is not an object of anybody's.
func (w *walk) checkReserved(ctx context.Context, e entry) verdict {
	out := verdict{entry: e, reserved: true}
	name, mirror := strings.CutPrefix(e.Key, objects.MirrorPrefix)
	if !mirror {
		return out
	}
	out.mirror = true
	id, err := hex.DecodeString(name)
	if err != nil || len(id) != len(sealed.KeyID{}) {
		out.err = fmt.Errorf("%w: its name is no id of a key", ErrNoKey)
		return out
	}
	data, err := readMirror(ctx, w.Store, backends.ObjectID{Bucket: w.Bucket, Key: e.Key, Version: e.Version})
	if err != nil {
		out.err = err
		return out
	}
	b, err := w.Keys.prove(ctx, sealed.KeyID(id), data)
	out.space, out.err = b.mirror.Space, err
	return out
}

// sizeError is a BadSize.
type sizeError struct{ text string }

func (e *sizeError) Error() string { return e.text }

// count adds a verdict to the report, or returns an error that is not about the entry.
func (w *walk) count(v verdict) error {
	if v.err != nil && stops(v.err) {
		return v.err
	}
	r := &w.report
	switch {
	case errors.Is(v.err, backends.ErrNotFound), errors.Is(v.err, backends.ErrVersionNotFound):
		r.Gone++
	case v.err != nil:
		r.Bad = append(r.Bad, Problem{v.Place, kindOf(v.err), v.err.Error()})
	case v.space != "" && r.Space != "" && v.space != r.Space:
		r.Bad = append(r.Bad, Problem{v.Place, OtherSpace, fmt.Sprintf("it is of space %s, and what came before of %s: say which is the bucket's", v.space, r.Space)})
	case v.mirror:
		r.Mirrors++
		r.Space = v.space
	case v.reserved:
		r.Reserved++
	default:
		r.Good++
		r.Bytes += v.bytes
		r.Space = v.space
	}
	r.After, r.Updated = v.Place, time.Now().UTC()
	if w.Observe != nil {
		w.Observe(*r)
	}
	return nil
}

// stops tells errors that would be those of all other objects too.
func stops(err error) bool {
	for _, cause := range []error{context.Canceled, context.DeadlineExceeded, backends.ErrUnavailable, kms.ErrUnavailable, kms.ErrClosed, kms.ErrPIN} {
		if errors.Is(err, cause) {
			return true
		}
	}
	return false
}

// kindOf is the kind of problem that an error is. What is authentic and not ours comes
// before what is not authentic.
func kindOf(err error) ProblemKind {
	var size *sizeError
	switch {
	case errors.As(err, &size):
		return BadSize
	case errors.Is(err, objects.ErrNotSealed):
		return NotSealed
	case errors.Is(err, ErrNoKey):
		return NoKey
	case errors.Is(err, sealed.ErrUnsupported):
		return Unsupported
	case errors.Is(err, sealed.ErrCorrupt):
		return Corrupt
	}
	return Unreadable
}
