package filestore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"chatelaine/backends"
)

// A key's newest version is at its path below objects, where it would be without
// versions; the others are in a folder of the key below versions. Where the newest
// is a marker it is there too, and nothing is at the path. Two more states come from
// processes that died, and count as if they had been left on purpose:
//
//   - the newest version has a second name below versions, or a null version has a
//     namesake there that it was to replace: what is at the path counts;
//   - a marker is at the path.
//
// Every change is one rename or unlink from a state to another.

// slot is the place of a key. Who holds the key's lock may change it.
type slot struct {
	*Store
	bucketName, key string
	rel             string // the key's path below objects, versions and notes
}

func (s *Store) slot(bucket, key string) slot { return slot{s, bucket, key, keyPath(key)} }

func (s *Store) versions(name string) string { return s.path("buckets", name, "versions") }
func (s *Store) notes(name string) string    { return s.path("buckets", name, "notes") }

// path is the file of the newest version.
func (k slot) path() string { return k.objects(k.bucketName) + "/" + k.rel }

// older is the folder of the versions that are not the newest.
func (k slot) older() string { return k.versions(k.bucketName) + "/" + k.rel }

func (k slot) olderPath(version string) string { return k.older() + "/" + version }

// noFolder is the error of a change that needs a folder.
type noFolder struct{ dir, top string }

func (e *noFolder) Error() string { return fmt.Sprintf("folder %q is not there", e.dir) }

// move renames into a folder below top that may be missing.
func (s *Store) move(from, to, top string) error {
	err := s.rename(from, to)
	if absent(err) {
		return &noFolder{filepath.Dir(to), top}
	}
	return err
}

// change runs do under the key's lock with the bucket's settings, and again where it
// wants a folder.
func (k slot) change(do func(settings) error) (err error) {
	for range attempts {
		err = k.locks.with(k.bucketName, k.key, func() error {
			c, err := k.settings(k.bucketName)
			if err != nil {
				return err
			}
			return do(c)
		})
		var missing *noFolder
		if !errors.As(err, &missing) {
			return err
		}
		if err := k.makeFolders(missing); err != nil {
			return err
		}
	}
	return err
}

func (k slot) makeFolders(missing *noFolder) error {
	if err := os.Mkdir(missing.top, 0o700); absent(err) {
		return backends.ErrBucketNotFound
	} else if err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	return makeFolders(missing.dir, missing.top)
}

// look opens a version, or the newest one where version is empty; the zero record
// where there is none. Without the key's lock, one that moves may be missed.
func (k slot) look(version string) (record, error) {
	rec, err := openObject(k.path(), k.key)
	if err == nil && (version == "" || rec.version() == version) {
		rec.inPlace = true
		return rec, nil
	}
	rec.close()
	damaged := err
	switch {
	case errors.Is(err, backends.ErrNotFound):
		damaged = nil
	case err != nil && (version == "" || !errors.Is(err, errDamaged)):
		return record{}, err
	}
	if version == "" {
		refs, err := k.history("")
		if err != nil || len(refs) == 0 {
			return record{}, err
		}
		version = refs[0].Version
	}
	if rec, err = k.openOlder(version); err != nil || rec.exists() {
		return rec, err
	}
	return record{}, damaged
}

// openOlder opens a version that is not the newest; the zero record where it is not
// there.
func (k slot) openOlder(version string) (record, error) {
	if version != backends.NullVersion && !backends.IsStamp(version) {
		return record{}, nil
	}
	rec, err := openObject(k.olderPath(version), k.key)
	switch {
	case errors.Is(err, backends.ErrNotFound):
		return record{}, nil
	case err == nil && rec.version() != version:
		rec.close()
		return record{}, fmt.Errorf("reading %q: %w: it holds version %q", k.olderPath(version), errDamaged, rec.version())
	}
	return rec, err
}

// history returns the versions that are not the newest, the latest first. Newest is
// the newest one's name, which may be among them.
func (k slot) history(newest string) ([]backends.VersionRef, error) {
	names, err := readNames(k.older())
	if err != nil {
		return nil, present(err)
	}
	refs := make([]backends.VersionRef, 0, len(names))
	for _, name := range names {
		ref := backends.VersionRef{Version: name, Stamp: backends.Stamp(name)}
		if name == backends.NullVersion {
			rec, err := k.openOlder(name)
			rec.close()
			if err != nil && !errors.Is(err, errDamaged) {
				return nil, err
			}
			ref.Stamp = rec.Stamp
		} else if !backends.IsStamp(name) {
			continue
		}
		if name != newest {
			refs = append(refs, ref)
		}
	}
	slices.SortFunc(refs, func(a, b backends.VersionRef) int { return strings.Compare(string(b.Stamp), string(a.Stamp)) })
	return refs, nil
}

// find is look, certain: what was missed is looked for again under the key's lock.
func (k slot) find(version string) (record, error) {
	rec, err := k.look(version)
	if err != nil || rec.exists() {
		return rec, err
	}
	c, err := k.settings(k.bucketName)
	if err != nil || !c.versioned() {
		return record{}, err
	}
	err = k.locks.with(k.bucketName, k.key, func() error {
		rec, err = k.look(version)
		return err
	})
	return rec, err
}

// open opens a version, or the newest one, with its note. The caller closes it.
func (k slot) open(version string) (record, error) {
	rec, err := k.find(version)
	if err == nil {
		err = rec.present(version)
	}
	if err == nil {
		err = k.annotate(&rec)
	}
	if err == nil {
		rec.called, err = k.called(rec)
	}
	if err != nil {
		rec.close()
		return record{}, err
	}
	return rec, nil
}

// present says what keeps a record that was looked for from being an object.
func (r record) present(version string) error {
	switch {
	case r.Marker:
		return &backends.MarkerError{Version: r.version(), Modified: r.modified, Asked: version != ""}
	case !r.exists() && version != "":
		return fmt.Errorf("%w: %.80q", backends.ErrVersionNotFound, version)
	case !r.exists():
		return backends.ErrNotFound
	}
	return nil
}

// called is the version of a record in answers: what was written without versions is
// called null once the bucket has them.
func (k slot) called(rec record) (string, error) {
	if rec.Stamp != "" {
		return rec.version(), nil
	}
	c, err := k.settings(k.bucketName)
	if err != nil || !c.versioned() {
		return "", err
	}
	return backends.NullVersion, nil
}

// newest opens what is newest, also a marker. The caller holds the key's lock.
func (k slot) newest(c settings) (record, error) {
	rec, err := k.current(k.path())
	if rec.inPlace = rec.exists(); rec.inPlace || err != nil || !c.versioned() {
		return rec, err
	}
	refs, err := k.history("")
	if err != nil || len(refs) == 0 {
		return record{}, err
	}
	return k.current(k.olderPath(refs[0].Version))
}

// uses says whether a version is made of the parts of an upload. The caller holds
// the key's lock.
func (k slot) uses(upload string) (bool, error) {
	newest, err := readRecord(k.path())
	if err == nil && newest.Upload == upload || err != nil && !absent(err) {
		return err == nil, err
	}
	refs, err := k.history("")
	if err != nil {
		return false, err
	}
	for _, ref := range refs {
		rec, err := readRecord(k.olderPath(ref.Version))
		if err != nil || rec.Upload == upload {
			return err == nil, present(err)
		}
	}
	return false, nil
}

// ListVersions walks the folders of the newest versions and of the others together.
func (s *Store) ListVersions(ctx context.Context, bucket string, opts *backends.ListVersionsOptions) (*backends.VersionsPage, error) {
	if opts == nil {
		opts = &backends.ListVersionsOptions{}
	}
	if err := s.HeadBucket(ctx, bucket); err != nil {
		return nil, err
	}
	c := &versionCursor{
		store: s, bucket: bucket,
		newest: s.cursor(s.objects(bucket), opts.Prefix, opts.Delimiter),
		older:  s.cursor(s.versions(bucket), opts.Prefix, opts.Delimiter),
	}
	c.older.counts = holdsNames
	page, err := backends.PageVersions(ctx, c, opts)
	return page, wrap(err, "listing versions of", bucket, "")
}

// versionCursor is the backends.VersionKeys of one page.
type versionCursor struct {
	store         *Store
	bucket        string
	newest, older *cursor
}

func (c *versionCursor) Ceil(from string) (string, bool, error) {
	a, inNewest, err := c.newest.Ceil(from)
	if err != nil {
		return "", false, err
	}
	b, inOlder, err := c.older.Ceil(from)
	if inOlder && (!inNewest || b < a) {
		return b, true, err
	}
	return a, inNewest, err
}

// Versions takes the key's lock, so that nothing moves meanwhile.
func (c *versionCursor) Versions(key string) (refs []backends.VersionRef, err error) {
	k := c.store.slot(c.bucket, key)
	err = c.store.locks.with(c.bucket, key, func() error {
		rec, err := openObject(k.path(), key)
		if errors.Is(err, backends.ErrNotFound) {
			refs, err = k.history("")
			return err
		}
		if err != nil {
			return err
		}
		rec.close()
		refs, err = k.history(rec.version())
		refs = append([]backends.VersionRef{{Version: rec.version(), Stamp: rec.Stamp}}, refs...)
		return err
	})
	return refs, err
}

func (c *versionCursor) Version(key string, ref backends.VersionRef) (backends.VersionInfo, error) {
	rec, err := c.store.slot(c.bucket, key).find(ref.Version)
	rec.close()
	if err == nil && !rec.exists() {
		err = backends.ErrVersionNotFound
	}
	rec.called = ref.Version
	return backends.VersionInfo{Info: rec.info(), Marker: rec.Marker}, err
}
