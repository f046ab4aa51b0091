package probe

import (
	"errors"
	"fmt"
	"maps"
	"sync"

	"chatelaine/backends"
)

// historyTrials change the bucket, so they come last and need buckets of their own.
func (p *prober) historyTrials() []trial {
	return []trial{
		{name: "tags", refuses: "tags of objects: NotImplemented", try: p.tags},
		{name: "versions", refuses: "versioning of buckets: NotImplemented", try: p.history},
		{name: "locks", refuses: "Object Lock: NotImplemented", try: p.locks},
	}
}

func (p *prober) tags() (Result, string) {
	if p.tagger == nil {
		return No, ""
	}
	want := backends.Tags{"name": "a value", "n2": ""}
	if _, err := p.Store.Put(p.ctx, p.id("tags"), body(nil), &backends.PutOptions{Attributes: backends.Attributes{Tags: want}}); err != nil {
		return failed("putting with tags", err)
	}
	got, _, err := p.tagger.Tags(p.ctx, p.id("tags"))
	if err != nil {
		return failed("reading tags", err)
	}
	if !maps.Equal(got, want) {
		return Ignored, fmt.Sprintf("%d tags come back, of %d", len(got), len(want))
	}
	return Yes, ""
}

func (p *prober) history() (Result, string) {
	if p.versions == nil {
		return No, ""
	}
	if !p.own {
		return Untried, "not in a bucket that somebody else has"
	}
	if err := p.versions.SetVersioning(p.ctx, p.bucket, backends.VersioningEnabled); err != nil {
		return failed("enabling versions", err)
	}
	first, err := p.put("versions", []byte("first"))
	if err != nil {
		return failed("putting", err)
	}
	if _, err := p.put("versions", []byte("second")); err != nil {
		return failed("putting", err)
	}
	old := p.id("versions")
	old.Version = first.Version
	if _, data, err := p.read(old, nil); err != nil || string(data) != "first" {
		return Ignored, fmt.Sprintf("a replaced version cannot be read: %v", err)
	}
	if _, err := p.Store.Delete(p.ctx, p.id("versions"), nil); err != nil {
		return failed("deleting", err)
	}
	var marker *backends.MarkerError
	if _, err := p.Store.Head(p.ctx, p.id("versions"), nil); !errors.As(err, &marker) {
		return No, fmt.Sprintf("the delete marker is not named: %v", err)
	}
	return p.allKept()
}

// allKept has many write one key at once: each must leave a version.
func (p *prober) allKept() (Result, string) {
	const writers = 30
	var wg sync.WaitGroup
	made, errs := make([]string, writers), make([]error, writers)
	for i := range writers {
		wg.Go(func() {
			w, err := p.put("kept", pattern(small, byte(i)))
			made[i], errs[i] = w.Version, err
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return failed("many writers of one key", err)
	}
	for _, version := range made {
		id := p.id("kept")
		id.Version = version
		if _, err := p.Store.Head(p.ctx, id, nil); err != nil {
			return Ignored, fmt.Sprintf("of %d versions that were written at once, one is lost: %v", writers, err)
		}
	}
	return Yes, fmt.Sprintf("with delete markers, and %d writers at once", writers)
}

func (p *prober) locks() (Result, string) {
	if p.locker == nil {
		return No, ""
	}
	if !p.own {
		return Untried, "not in a bucket that somebody else has"
	}
	bucket := p.bucket + "-lock"
	if err := p.makeBucket(bucket, p.locker.CreateLockedBucket); err != nil {
		return failed("making a bucket with a lock", errors.Unwrap(err))
	}
	id := backends.ObjectID{Bucket: bucket, Key: "held"}
	w, err := p.Store.Put(p.ctx, id, body(nil), &backends.PutOptions{Attributes: backends.Attributes{Lock: backends.Lock{Hold: true}}})
	if err != nil {
		return failed("putting with a legal hold", err)
	}
	id.Version = w.Version
	if _, err := p.Store.Delete(p.ctx, id, nil); !errors.Is(err, backends.ErrLocked) {
		return Ignored, fmt.Sprintf("deleting a version under a legal hold: %v", err)
	}
	info, err := p.Store.Head(p.ctx, id, nil)
	if err != nil || !info.Attributes.Lock.Hold {
		return No, fmt.Sprintf("HEAD does not tell of the hold: %v", err)
	}
	if err := p.locker.SetHold(p.ctx, id, false); err != nil {
		return failed("lifting the hold", err)
	}
	return Yes, "by a legal hold; retention was not tried, as it cannot be undone"
}
