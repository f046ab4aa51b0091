package objects

import (
	"context"
	"fmt"
	"slices"
	"time"

	"chatelaine/backends"
	"chatelaine/gateway/keys"
	"chatelaine/gateway/sealed"
)

// StoreAttributes are what the backend itself acts on, so that they are readable
// there: tags, and what keeps a version from being deleted.
type StoreAttributes struct {
	Tags backends.Tags
	Lock backends.Lock
}

// capability finds what a bucket's backend can do beyond the contract. This is the
// one place that answers for what it cannot: with ErrUnsupported.
func capability[T any](s *Service, b keys.Bucket) (T, error) {
	var zero T
	store, err := s.storeOf(b)
	if err != nil {
		return zero, err
	}
	can, ok := backends.As[T](store)
	if !ok {
		return zero, fmt.Errorf("objects: %w", ErrUnsupported)
	}
	return can, nil
}

// Versioning says whether a bucket keeps versions.
func (s *Service) Versioning(ctx context.Context, b keys.Bucket) (backends.Versioning, error) {
	v, err := capability[backends.Versioner](s, b)
	if err != nil {
		return "", err
	}
	state, err := v.Versioning(ctx, b.StoreName)
	return state, wrap(err, "reading the versioning of", b)
}

// SetVersioning makes a bucket keep versions, or stop.
func (s *Service) SetVersioning(ctx context.Context, b keys.Bucket, state backends.Versioning) error {
	if b.Guarded {
		return wrap(ErrGuarded, "setting the versioning of", b)
	}
	v, err := capability[backends.Versioner](s, b)
	if err != nil {
		return err
	}
	return wrap(v.SetVersioning(ctx, b.StoreName, state), "setting the versioning of", b)
}

// Tags reads an object's tags and its version.
func (s *Service) Tags(ctx context.Context, b keys.Bucket, key, version string) (backends.Tags, string, error) {
	t, err := keyed[backends.Tagger](s, b, key)
	if err != nil {
		return nil, "", err
	}
	tags, version, err := t.Tags(ctx, idOf(b, key, version))
	return tags, version, wrap(err, "reading tags in", b)
}

// SetTags replaces an object's tags; none removes them.
func (s *Service) SetTags(ctx context.Context, b keys.Bucket, key, version string, tags backends.Tags) (string, error) {
	t, err := keyed[backends.Tagger](s, b, key)
	if err != nil {
		return "", err
	}
	version, err = t.SetTags(ctx, idOf(b, key, version), tags)
	return version, wrap(err, "setting tags in", b)
}

// LockConfig reads a bucket's Object Lock.
func (s *Service) LockConfig(ctx context.Context, b keys.Bucket) (backends.LockConfig, error) {
	l, err := capability[backends.Locker](s, b)
	if err != nil {
		return backends.LockConfig{}, err
	}
	c, err := l.LockConfig(ctx, b.StoreName)
	return c, wrap(err, "reading the lock of", b)
}

// SetLockConfig changes a bucket's Object Lock.
func (s *Service) SetLockConfig(ctx context.Context, b keys.Bucket, c backends.LockConfig) error {
	l, err := capability[backends.Locker](s, b)
	if err != nil {
		return err
	}
	return wrap(l.SetLockConfig(ctx, b.StoreName, c), "setting the lock of", b)
}

// Lock reads what keeps a version from being deleted.
func (s *Service) Lock(ctx context.Context, b keys.Bucket, key, version string) (backends.Lock, error) {
	l, err := keyed[backends.Locker](s, b, key)
	if err != nil {
		return backends.Lock{}, err
	}
	lock, err := l.Lock(ctx, idOf(b, key, version))
	return lock, wrap(err, "reading a lock in", b)
}

// SetRetention changes a version's retention.
func (s *Service) SetRetention(ctx context.Context, b keys.Bucket, key, version string, mode backends.LockMode, until time.Time, bypass bool) error {
	l, err := keyed[backends.Locker](s, b, key)
	if err != nil {
		return err
	}
	return wrap(l.SetRetention(ctx, idOf(b, key, version), mode, until, bypass), "setting a retention in", b)
}

// SetHold changes a version's legal hold.
func (s *Service) SetHold(ctx context.Context, b keys.Bucket, key, version string, hold bool) error {
	l, err := keyed[backends.Locker](s, b, key)
	if err != nil {
		return err
	}
	return wrap(l.SetHold(ctx, idOf(b, key, version), hold), "setting a legal hold in", b)
}

// keyed is capability for operations on an object.
func keyed[T any](s *Service, b keys.Bucket, key string) (T, error) {
	if err := checkKey(key); err != nil {
		var zero T
		return zero, err
	}
	return capability[T](s, b)
}

func wrap(err error, doing string, b keys.Bucket) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("objects: %s bucket %q: %w", doing, b.Name, err)
}

// VersionEntry is a row of ListVersions. A delete marker has no size and no ETag.
type VersionEntry struct {
	Entry
	Version        string
	Latest, Marker bool
}

// VersionsRequest asks for a page of a bucket's versions. Markers are as in
// backends.ListVersionsOptions.
type VersionsRequest struct {
	Bucket                   keys.Bucket
	Prefix, Delimiter        string
	KeyMarker, VersionMarker string
	Limit                    int
}

// VersionsResult is a page of ListVersions.
type VersionsResult struct {
	Versions                   []VersionEntry
	Prefixes                   []string
	Truncated                  bool
	NextKey, NextVersionMarker string
}

// ListVersions lists versions and delete markers, by key, the newest first.
func (s *Service) ListVersions(ctx context.Context, r VersionsRequest) (*VersionsResult, error) {
	v, err := capability[backends.Versioner](s, r.Bucket)
	if err != nil {
		return nil, err
	}
	l := versionLister{ctx: ctx, store: v, bucket: r.Bucket, out: &VersionsResult{}, rows: s.rows(ctx, r.Bucket), opts: backends.ListVersionsOptions{
		Prefix: r.Prefix, Delimiter: r.Delimiter, KeyMarker: r.KeyMarker, VersionMarker: r.VersionMarker, Limit: r.Limit,
	}}
	if l.opts.Limit <= 0 || l.opts.Limit > maxList {
		l.opts.Limit = maxList
	}
	return l.out, wrap(l.fill(), "listing versions of", r.Bucket)
}

// versionLister fills one page.
type versionLister struct {
	ctx    context.Context //nolint:containedctx // lives as long as one call
	store  backends.Versioner
	bucket keys.Bucket
	opts   backends.ListVersionsOptions
	out    *VersionsResult
	rows   *rows
}

func (l *versionLister) fill() error {
	for {
		page, err := l.store.ListVersions(l.ctx, l.bucket.StoreName, &l.opts)
		if err != nil {
			return err
		}
		added, err := l.add(page)
		if err != nil {
			return err
		}
		l.out.Truncated, l.out.NextKey, l.out.NextVersionMarker = page.Truncated, page.NextKey, page.NextVersionMark
		l.opts.Limit -= added
		if !page.Truncated || l.opts.Limit <= 0 || added == len(page.Versions)+len(page.Prefixes) {
			return nil
		}
		l.opts.KeyMarker, l.opts.VersionMarker = page.NextKey, page.NextVersionMark
		if Reserved(page.NextKey) {
			l.opts.KeyMarker, l.opts.VersionMarker = afterReserved, ""
		}
	}
}

// add takes over what clients may see.
func (l *versionLister) add(page *backends.VersionsPage) (added int, err error) {
	visible := slices.DeleteFunc(slices.Clone(page.Versions), func(v backends.VersionInfo) bool { return Reserved(v.Key) })
	infos := make([]backends.Info, len(visible))
	for i, v := range visible {
		infos[i] = v.Info
	}
	entries := l.rows.entries(infos)
	if err := l.rows.showMD5s(l.ctx, infos, entries); err != nil {
		return 0, err
	}
	for i, e := range entries {
		v := visible[i]
		l.out.Versions = append(l.out.Versions, VersionEntry{Entry: e, Version: v.Version, Latest: v.Latest, Marker: v.Marker})
	}
	added = len(visible)
	for _, p := range page.Prefixes {
		if !Reserved(p) {
			l.out.Prefixes = append(l.out.Prefixes, p)
			added++
		}
	}
	return added, nil
}

// PartsOf lists the parts of an object, for GetObjectAttributes: plaintext
// lengths by part number. An object of a single PUT has none.
func (s *Service) PartsOf(ctx context.Context, r GetRequest) (Stat, []PartInfo, error) {
	r.Range, r.Part, r.Checksums = nil, 0, true
	q, err := s.newQuery(ctx, r)
	if err != nil {
		return Stat{}, nil, err
	}
	f, st, err := q.source()
	if err != nil {
		return Stat{}, nil, fmt.Errorf("objects: asking for %q: %w", r.Key, err)
	}
	if f.env.Kind == sealed.Single {
		return st, nil, nil
	}
	parts := make([]PartInfo, 0, f.table.Len())
	for i := range f.table.Len() {
		e := f.table.Entry(i)
		parts = append(parts, PartInfo{Number: e.Number, Size: e.Length})
	}
	return st, parts, nil
}
