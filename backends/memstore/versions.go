package memstore

import (
	"context"
	"fmt"
	"slices"
	"time"

	"chatelaine/backends"
)

// history is the versions and markers of a key, the oldest first.
type history []*object

// live is the newest version, or nil where there is none or it is a marker.
func (h history) live() *object {
	if len(h) == 0 || h[len(h)-1].marker {
		return nil
	}
	return h[len(h)-1]
}

func (h history) index(version string) int {
	return slices.IndexFunc(h, func(o *object) bool { return o.version() == version })
}

func (o *object) version() string {
	if o.null {
		return backends.NullVersion
	}
	return string(o.stamp)
}

// name is the version as answers have it: none where the bucket has no versions.
func (b *bucket) name(o *object) string {
	if b.versioning == backends.VersioningOff {
		return ""
	}
	return o.version()
}

// find returns the newest version, or the one that id names.
func (b *bucket) find(id backends.ObjectID) (*object, error) {
	h := b.objects[id.Key]
	i := len(h) - 1
	if id.Version != "" {
		i = h.index(id.Version)
	}
	switch {
	case i < 0 && id.Version != "":
		return nil, fmt.Errorf("%w: %.80q", backends.ErrVersionNotFound, id.Version)
	case i < 0:
		return nil, backends.ErrNotFound
	case h[i].marker:
		return nil, &backends.MarkerError{Version: h[i].version(), Modified: h[i].info.Modified, Asked: id.Version != ""}
	}
	return h[i], nil
}

// set replaces the history of a key.
func (b *bucket) set(key string, h history) {
	before := b.objects[key]
	if len(h) == 0 {
		delete(b.objects, key)
	} else {
		b.objects[key] = h
	}
	b.all.change(key, len(before) > 0, len(h) > 0)
	b.keys.change(key, before.live() != nil, h.live() != nil)
}

// change tells the set that a key belongs to it or no longer does.
func (k *keySet) change(key string, before, now bool) {
	if now && !before {
		k.add(key)
	} else if before && !now {
		k.remove()
	}
}

// store adds a version.
func (b *bucket) store(o *object, cond backends.Conditions) (backends.Written, error) {
	if err := checkWrite(b.objects[o.info.Key].live(), cond); err != nil {
		return backends.Written{}, err
	}
	lock, err := b.lock.Apply(o.info.Attributes.Lock, time.Now())
	if err != nil {
		return backends.Written{}, err
	}
	o.info.Attributes.Lock = lock
	b.push(o)
	return backends.Written{ETag: o.info.ETag, Version: b.name(o), Modified: o.info.Modified}, nil
}

func checkWrite(o *object, cond backends.Conditions) error {
	if o == nil {
		return cond.CheckWrite("", time.Time{}, false)
	}
	return cond.CheckWrite(o.info.ETag, o.info.Modified, true)
}

// push makes o the newest of its key. A null version takes the place of the one
// before; none of them is locked, since a lock wants versions that are enabled.
func (b *bucket) push(o *object) {
	h := slices.Clone(b.objects[o.info.Key])
	var last backends.Stamp
	if len(h) > 0 {
		last = h[len(h)-1].stamp
	}
	o.stamp, o.null = backends.NewStamp(last), b.versioning != backends.VersioningEnabled
	if o.null {
		h = slices.DeleteFunc(h, func(o *object) bool { return o.null })
	}
	b.set(o.info.Key, append(h, o))
}

// mark is a Delete that names no version.
func (b *bucket) mark(key string, cond backends.Conditions) (backends.Deleted, error) {
	if err := checkWrite(b.objects[key].live(), cond); err != nil {
		return backends.Deleted{}, err
	}
	o := &object{info: backends.Info{Key: key, Modified: time.Now()}, marker: true}
	b.push(o)
	return backends.Deleted{Version: o.version(), Marker: true}, nil
}

// remove takes a version away for good: the one that id names, or the only one.
func (b *bucket) remove(id backends.ObjectID, opts *backends.DeleteOptions) (backends.Deleted, error) {
	h := b.objects[id.Key]
	i, d := len(h)-1, backends.Deleted{Version: id.Version}
	if id.Version != "" {
		i = h.index(id.Version)
	}
	if i < 0 {
		return d, checkWrite(nil, opts.Conditions)
	}
	if err := checkWrite(h[i], opts.Conditions); err != nil {
		return backends.Deleted{}, err
	}
	if err := h[i].info.Attributes.Lock.CheckDelete(time.Now(), opts.BypassGovernance); err != nil {
		return backends.Deleted{}, err
	}
	d.Marker = h[i].marker
	b.set(id.Key, slices.Delete(slices.Clone(h), i, i+1))
	return d, nil
}

func (s *Store) Versioning(ctx context.Context, name string) (v backends.Versioning, err error) {
	err = s.with(ctx, name, func(b *bucket) error {
		v = b.versioning
		return nil
	})
	return v, wrap(err, "reading the versioning of", name, "")
}

func (s *Store) SetVersioning(ctx context.Context, name string, v backends.Versioning) error {
	err := s.with(ctx, name, func(b *bucket) error {
		if err := b.lock.CheckVersioning(v); err != nil {
			return err
		}
		b.versioning = v
		return nil
	})
	return wrap(err, "setting the versioning of", name, "")
}

func (s *Store) ListVersions(ctx context.Context, name string, opts *backends.ListVersionsOptions) (page *backends.VersionsPage, err error) {
	err = s.with(ctx, name, func(b *bucket) (err error) {
		b.all.settle(func(key string) bool { return b.objects[key] != nil })
		page, err = backends.PageVersions(ctx, versions{b}, opts)
		return err
	})
	return page, wrap(err, "listing versions of", name, "")
}

// versions makes a settled bucket a backends.VersionKeys.
type versions struct{ *bucket }

func (v versions) Ceil(from string) (string, bool, error) {
	key, ok := v.all.ceil(from)
	return key, ok, nil
}

func (v versions) Versions(key string) ([]backends.VersionRef, error) {
	h := v.objects[key]
	refs := make([]backends.VersionRef, 0, len(h))
	for _, o := range slices.Backward(h) {
		refs = append(refs, backends.VersionRef{Version: o.version(), Stamp: o.stamp})
	}
	return refs, nil
}

// Version also serves a bucket that has no versions, whose objects S3 lists as null.
func (v versions) Version(key string, ref backends.VersionRef) (backends.VersionInfo, error) {
	h := v.objects[key]
	o := h[h.index(ref.Version)]
	info := o.info
	info.Version = o.version()
	return backends.VersionInfo{Info: info, Marker: o.marker}, nil
}
