// Package probe finds out what a store really does, by trying it in a place of its own,
// and cleans up behind itself.
//
// It needs the contract alone and refuses to know of drivers, clouds and dialects: who
// calls it says what the gateway would rely on.
package probe

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"chatelaine/backends"
)

// Result is how a trial ended.
type Result string

// Results. Ignored is the worst: the store reports success and has not done what it was
// asked for.
const (
	Yes     Result = "yes"
	No      Result = "no"
	Ignored Result = "ignored"
	Untried Result = "untried"
)

// Finding is one trial.
type Finding struct {
	Name   string `json:"name"`
	Result Result `json:"result"`
	// Detail is what was seen, where there is more to say than the result.
	Detail string `json:"detail,omitempty"`
	// Refuses is what the gateway will refuse because of it, or do otherwise.
	Refuses string `json:"refuses,omitempty"`
	// Unsafe says that the gateway must not serve from the store as it is configured.
	Unsafe bool `json:"unsafe,omitempty"`
}

// Report is all that was found.
type Report struct {
	Bucket   string    `json:"bucket"`
	Prefix   string    `json:"prefix"`
	Findings []Finding `json:"findings"`
	// Left names what could not be removed again.
	Left []string `json:"left,omitempty"`
	// Err is why the trials ended early: the context's error, or there was no bucket.
	Err error `json:"-"`
}

// Find is the finding of that name; one that is Untried where there is none.
func (r *Report) Find(name string) Finding {
	for _, f := range r.Findings {
		if f.Name == name {
			return f
		}
	}
	return Finding{Name: name, Result: Untried}
}

// Safe says that all was tried that the gateway needs, and nothing found that would make
// it lose or overwrite objects.
func (r *Report) Safe() bool {
	for _, f := range r.Findings {
		if f.Unsafe {
			return false
		}
	}
	return r.Err == nil
}

// Config says what is tried, and where.
type Config struct {
	// Store is the store as it is when nothing is refused ahead: a driver that knows
	// its cloud hides what the probe is to find. The caller closes it.
	Store backends.Store
	// Bucket is an existing bucket, in which everything is below .chatelaine/check/. Empty
	// means that buckets are made for it, and deleted: only then versions and locks are
	// tried.
	Bucket string
	// Relies names the conditions and keys that the gateway would rely on as it is
	// configured: a store that ignores one of these is unsafe. nil means all.
	Relies map[string]bool
	// Variants are the same store with other checksums of bodies, by their names.
	Variants map[string]backends.Store
	// Only names the trials to make. nil means all.
	Only []string
	// Tell is told what is tried next. nil means nobody.
	Tell func(name string)
}

// cleaningTakes bounds cleaning up, which goes on after the context has ended.
const cleaningTakes = time.Minute

// lingers is how long to wait before a bucket that is not empty yet is deleted again.
const lingers = 250 * time.Millisecond

// Run tries everything and cleans up, also when ctx ends in the middle; then Report.Err
// is its error. It moves about 30 MiB.
func Run(ctx context.Context, c Config) *Report {
	p := newProber(ctx, c)
	defer p.clean()
	if p.report.Err = p.enter(); p.report.Err != nil {
		return p.report
	}
	for _, t := range p.trials() {
		if ctx.Err() != nil {
			break
		}
		if p.Only == nil || slices.Contains(p.Only, t.name) {
			p.run(t)
		}
	}
	p.report.Err = ctx.Err()
	return p.report
}

// prober is one run.
type prober struct {
	Config
	ctx      context.Context //nolint:containedctx // a run is one call
	report   *Report
	bucket   string
	prefix   string
	own      bool     // the bucket is ours
	buckets  []string // that we have made
	uploads  []backends.UploadID
	parts    backends.Multiparter
	copier   backends.Copier
	versions backends.Versioner
	tagger   backends.Tagger
	locker   backends.Locker
}

func newProber(ctx context.Context, c Config) *prober {
	p := &prober{Config: c, ctx: ctx, bucket: c.Bucket, own: c.Bucket == ""}
	name := strings.ToLower(rand.Text()[:16])
	p.prefix = ".chatelaine/check/" + name + "/"
	if p.own {
		p.bucket = "chatelaine-check-" + name
	}
	if p.Tell == nil {
		p.Tell = func(string) {}
	}
	p.report = &Report{Bucket: p.bucket, Prefix: p.prefix}
	p.parts, _ = backends.As[backends.Multiparter](c.Store)
	p.copier, _ = backends.As[backends.Copier](c.Store)
	p.versions, _ = backends.As[backends.Versioner](c.Store)
	p.tagger, _ = backends.As[backends.Tagger](c.Store)
	p.locker, _ = backends.As[backends.Locker](c.Store)
	return p
}

// enter makes the bucket, or looks whether it is there.
func (p *prober) enter() error {
	if !p.own {
		return p.Store.HeadBucket(p.ctx, p.bucket)
	}
	return p.makeBucket(p.bucket, p.Store.CreateBucket)
}

// makeBucket remembers the bucket even where making it fails, since an error is no proof
// that nothing happened.
func (p *prober) makeBucket(name string, create func(context.Context, string) error) error {
	p.buckets = append(p.buckets, name)
	if err := create(p.ctx, name); err != nil {
		return fmt.Errorf("probe: making bucket %q to try things in (give an existing one with --bucket otherwise): %w", name, err)
	}
	return nil
}

// trial is a question. Must: any answer but Yes is unsafe. Relied: Ignored is unsafe
// where the gateway relies on it.
type trial struct {
	name         string
	must, relied bool
	refuses      string // what follows from anything but Yes
	try          func() (Result, string)
}

func (p *prober) trials() []trial {
	all := append(p.objectTrials(), p.conditionTrials()...)
	all = append(all, p.keyTrials()...)
	all = append(all, p.listTrials()...)
	all = append(all, p.multipartTrials()...)
	all = append(all, p.copyTrials()...)
	all = append(all, p.checksumTrials()...)
	return append(all, p.historyTrials()...)
}

func (p *prober) run(t trial) {
	p.Tell(t.name)
	result, detail := t.try()
	if p.ctx.Err() != nil {
		return // it failed because we were to end
	}
	f := Finding{Name: t.name, Result: result, Detail: detail}
	if result != Yes {
		f.Refuses = t.refuses
		f.Unsafe = t.must || t.relied && result == Ignored && (p.Relies == nil || p.Relies[t.name])
	}
	p.report.Findings = append(p.report.Findings, f)
}

// id is an object of ours.
func (p *prober) id(key string) backends.ObjectID {
	return backends.ObjectID{Bucket: p.bucket, Key: p.prefix + key}
}

// failed is the result of a call that should have worked.
func failed(doing string, err error) (Result, string) {
	if errors.Is(err, backends.ErrUnsupported) {
		return No, ""
	}
	return No, doing + ": " + err.Error()
}

// clean removes all that was made. The context may have ended; it has a minute of its own.
func (p *prober) clean() {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(p.ctx), cleaningTakes)
	defer cancel()
	for _, up := range p.uploads {
		if err := p.parts.Abort(ctx, up); err != nil && !gone(err) {
			p.leave("upload "+up.ID, err)
		}
	}
	if !p.own {
		p.empty(ctx, p.bucket, p.prefix)
	}
	for _, bucket := range p.buckets {
		if err := p.removeBucket(ctx, bucket); err != nil && !gone(err) {
			p.leave("bucket "+bucket, err)
		}
	}
}

// removeBucket tries again for a while: what was cut off in the middle may linger.
func (p *prober) removeBucket(ctx context.Context, bucket string) (err error) {
	for range 20 {
		emptied := p.empty(ctx, bucket, "")
		err = p.Store.DeleteBucket(ctx, bucket)
		if !emptied || !errors.Is(err, backends.ErrBucketNotEmpty) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(lingers):
		}
	}
	return err
}

func gone(err error) bool {
	return errors.Is(err, backends.ErrUploadNotFound) || errors.Is(err, backends.ErrBucketNotFound) || errors.Is(err, backends.ErrNotFound)
}

func (p *prober) leave(what string, err error) {
	p.report.Left = append(p.report.Left, what+": "+err.Error())
}

// empty deletes what begins with prefix, with all versions in buckets of ours, and says
// whether it could.
func (p *prober) empty(ctx context.Context, bucket, prefix string) bool {
	for before := (backends.ObjectID{}); ; {
		ids, err := p.rest(ctx, bucket, prefix)
		if err == nil && len(ids) > 0 && ids[0] == before {
			err = fmt.Errorf("probe: deleting %q: it is still there", before.Key)
		}
		if err != nil && !gone(err) {
			p.leave("bucket "+bucket, err)
			return false
		}
		if len(ids) == 0 {
			return true
		}
		before = ids[0]
		for _, id := range ids {
			if err := p.remove(ctx, id); err != nil && !gone(err) && !errors.Is(err, backends.ErrVersionNotFound) {
				p.leave("object "+id.Key, err)
				return false
			}
		}
	}
}

func (p *prober) remove(ctx context.Context, id backends.ObjectID) error {
	_, err := p.Store.Delete(ctx, id, nil)
	if errors.Is(err, backends.ErrLocked) && p.locker != nil {
		if err := p.locker.SetHold(ctx, id, false); err != nil {
			return err
		}
		_, err = p.Store.Delete(ctx, id, nil)
	}
	return err
}

// rest is a page of what is still there.
func (p *prober) rest(ctx context.Context, bucket, prefix string) (ids []backends.ObjectID, err error) {
	if p.own && p.versions != nil {
		page, err := p.versions.ListVersions(ctx, bucket, &backends.ListVersionsOptions{Prefix: prefix})
		if err == nil {
			for _, v := range page.Versions {
				ids = append(ids, backends.ObjectID{Bucket: bucket, Key: v.Key, Version: v.Version})
			}
			return ids, nil
		}
	}
	page, err := p.Store.List(ctx, bucket, &backends.ListOptions{Prefix: prefix})
	if err != nil {
		return nil, err
	}
	for _, e := range page.Entries {
		ids = append(ids, backends.ObjectID{Bucket: bucket, Key: e.Key})
	}
	return ids, nil
}
