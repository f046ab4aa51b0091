package filestore

import (
	"cmp"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"time"

	"chatelaine/backends"
)

// errOtherState: the bucket's settings are no longer those that a change was
// prepared for.
var errOtherState = errors.New("the bucket's settings have changed")

// commit makes t the newest version of a key where allow agrees to what is newest
// before. It removes the parts of what t replaces.
func (k slot) commit(ctx context.Context, t *staged, allow func(old record) error) (backends.Written, error) {
	var seen []record
	err := errOtherState
	for range attempts {
		err = k.change(func(c settings) error {
			closeAll(seen)
			seen = nil
			return k.add(c, t, allow, &seen)
		})
		if !errors.Is(err, errOtherState) {
			break
		}
		if err := k.restage(ctx, t); err != nil {
			return backends.Written{}, err
		}
	}
	if err == nil {
		err = k.settleAdded(t)
	}
	if err != nil {
		closeAll(seen)
		return backends.Written{}, err
	}
	k.disposeAll(k.bucketName, seen)
	return backends.Written{ETag: t.ETag, Version: t.made(), Modified: t.modified}, nil
}

// restage writes t anew, with a header for the settings that the bucket has now.
func (k slot) restage(ctx context.Context, t *staged) error {
	head, err := t.encode()
	if err != nil {
		return err
	}
	h := t.header
	if err := k.prepareVersion(k.bucketName, &h); err != nil {
		return err
	}
	size := t.follows()
	body := io.NewSectionReader(t.file, int64(len(head)), size)
	fresh, err := k.stage(ctx, h, backends.Body{Reader: body, Size: size})
	if err != nil {
		return err
	}
	t.discard()
	*t = *fresh
	return nil
}

// add is the part of commit under the key's lock. It opens what t may replace.
func (k slot) add(c settings, t *staged, allow func(old record) error, seen *[]record) error {
	if !c.fits(t.header) {
		return errOtherState
	}
	old, err := k.newest(c)
	*seen = append(*seen, old)
	if err == nil {
		err = allow(old.live())
	}
	if err == nil {
		err = k.restamp(t, old.Stamp)
	}
	if err == nil {
		err = k.makeRoom(t, old, seen)
	}
	if err != nil {
		return err
	}
	return k.place(t, old.inPlace)
}

// restamp puts t above what it follows, which another writer may have made while t
// was written. The length of the header stays.
func (k slot) restamp(t *staged, after backends.Stamp) error {
	if t.Stamp == "" || t.Stamp > after {
		return nil
	}
	t.Stamp = backends.NewStamp(after)
	head, err := t.encode()
	if err != nil {
		return err
	}
	if _, err := t.file.WriteAt(head, 0); err != nil {
		return err
	}
	return k.finish(t)
}

// makeRoom keeps old, unless it is the null version and t the next one.
func (k slot) makeRoom(t *staged, old record, seen *[]record) error {
	null := t.version() == backends.NullVersion
	if null && t.Stamp != "" {
		rec, err := k.openOlder(backends.NullVersion)
		*seen = append(*seen, rec)
		if err != nil && !errors.Is(err, errDamaged) {
			return err
		}
	}
	if !old.inPlace {
		return nil
	}
	if !old.damaged && (!null || old.version() != backends.NullVersion) {
		if err := k.keep(old.version()); err != nil {
			return err
		}
	}
	return k.forgetUpload(k.bucketName, old.Upload)
}

// keep gives the newest version a second name below versions and makes it durable:
// the first is about to be another's. That takes longer than other changes do under
// a lock, and only where versions are kept.
func (k slot) keep(version string) error {
	to := k.olderPath(version)
	err := k.link(k.path(), to)
	switch {
	case absent(err):
		return &noFolder{k.older(), k.versions(k.bucketName)}
	case errors.Is(err, os.ErrExist):
		temp := k.Store.path("tmp", randomName())
		if err := k.link(k.path(), temp); err != nil {
			return err
		}
		err = k.rename(temp, to)
		os.Remove(temp)
	}
	if err != nil {
		return err
	}
	return k.settle(k.older(), k.bucket(k.bucketName))
}

// place renames t into place. A marker goes where the older versions are: by way of
// the place of an object that it hides, so that there is one moment at which it does.
func (k slot) place(t *staged, inPlace bool) error {
	older, top := k.olderPath(t.version()), k.versions(k.bucketName)
	to, toTop := k.path(), k.objects(k.bucketName)
	if t.Marker {
		if _, err := os.Lstat(k.older()); absent(err) {
			return &noFolder{k.older(), top}
		}
		if !inPlace {
			to, toTop = older, top
		}
	}
	if err := k.move(t.file.Name(), to, toTop); err != nil {
		return err
	}
	t.placed = true
	return k.placed(t, to, older)
}

// placed does what is left to do when t has a name. Were it not done, nobody could
// tell.
func (k slot) placed(t *staged, at, older string) (err error) {
	null := t.version() == backends.NullVersion
	if t.Marker && at != older {
		err = k.rename(at, older)
	} else if null && t.Stamp != "" && at != older {
		err = present(k.unlink(older))
	}
	if null {
		err = errors.Join(err, present(k.unlink(k.notePath(backends.NullVersion))))
	}
	return err
}

// settleAdded makes the place of t durable.
func (k slot) settleAdded(t *staged) error {
	if !t.Marker {
		return k.settle(filepath.Dir(k.path()), k.objects(k.bucketName))
	}
	return k.settleRemoved(true)
}

// settleRemoved makes it durable that something has gone.
func (k slot) settleRemoved(versioned bool) error {
	if versioned {
		if err := k.settle(k.older(), k.bucket(k.bucketName)); err != nil {
			return err
		}
	}
	top := k.objects(k.bucketName)
	return k.settle(prune(filepath.Dir(k.path()), top), top)
}

// Delete removes the object or version and the folders that it leaves empty, and
// syncs the folder above them. Where versions are kept it adds a marker instead.
func (s *Store) Delete(ctx context.Context, id backends.ObjectID, opts *backends.DeleteOptions) (backends.Deleted, error) {
	if opts == nil {
		opts = &backends.DeleteOptions{}
	}
	err := s.admit(ctx, id.Bucket, id.Key, backends.Attributes{})
	var d backends.Deleted
	if err == nil {
		d, err = s.slot(id.Bucket, id.Key).delete(ctx, id.Version, opts)
	}
	return d, wrap(err, "deleting", id.Bucket, id.Key)
}

func (k slot) delete(ctx context.Context, version string, opts *backends.DeleteOptions) (d backends.Deleted, err error) {
	for range attempts {
		c, err := k.settings(k.bucketName)
		if err != nil {
			return d, err
		}
		if version == "" && c.versioned() {
			return k.mark(ctx, c, opts.Conditions)
		}
		if d, err = k.drop(version, opts); !errors.Is(err, errOtherState) {
			return d, err
		}
	}
	return d, err
}

// mark adds a delete marker.
func (k slot) mark(ctx context.Context, c settings, cond backends.Conditions) (backends.Deleted, error) {
	h := header{Key: k.key, Marker: true}
	if err := c.fill(&h); err != nil {
		return backends.Deleted{}, err
	}
	t, err := k.stage(ctx, h, backends.Body{})
	if err != nil {
		return backends.Deleted{}, err
	}
	defer t.discard()
	w, err := k.commit(ctx, t, func(old record) error { return old.check(cond) })
	return backends.Deleted{Version: w.Version, Marker: err == nil}, err
}

// drop removes a version for good; the only one where version is empty.
func (k slot) drop(version string, opts *backends.DeleteOptions) (backends.Deleted, error) {
	var r removal
	err := k.change(func(c settings) error {
		if version == "" && c.versioned() {
			return errOtherState
		}
		r.rec.close()
		r = removal{slot: k, settings: c, version: cmp.Or(version, backends.NullVersion), opts: opts}
		return r.run()
	})
	found := r.rec.exists()
	if err == nil && found {
		err = k.settleRemoved(r.versioned())
	}
	if err != nil || !found {
		r.rec.close()
		return backends.Deleted{Version: version}, err
	}
	k.dispose(k.bucketName, r.rec)
	return backends.Deleted{Version: version, Marker: r.rec.Marker}, nil
}

// removal takes one version away, under the key's lock, and leaves it open in rec.
type removal struct {
	slot
	settings
	version string
	opts    *backends.DeleteOptions
	rec     record
}

func (r *removal) run() error {
	newest, err := r.current(r.path())
	if err != nil {
		return err
	}
	if newest.exists() && newest.version() == r.version {
		r.rec = newest
		err = r.newestGoes()
	} else {
		newest.close()
		err = r.olderGoes(newest.exists())
	}
	if err != nil || !r.rec.exists() {
		return err
	}
	prune(r.older(), r.versions(r.bucketName))
	return r.removeNote(r.version)
}

// allowed checks conditions and locks.
func (r *removal) allowed() error {
	if err := r.rec.check(r.opts.Conditions); err != nil || !r.rec.exists() {
		return err
	}
	if !r.rec.damaged {
		if err := r.annotate(&r.rec); err != nil {
			return err
		}
	}
	return r.rec.Lock.CheckDelete(time.Now(), r.opts.BypassGovernance)
}

// newestGoes puts the next version into the place of the newest, or nothing where
// that is a marker or none is left.
func (r *removal) newestGoes() error {
	if err := r.allowed(); err != nil {
		return err
	}
	next := ""
	if r.versioned() {
		if err := present(r.unlink(r.olderPath(r.version))); err != nil {
			return err
		}
		refs, err := r.history("")
		if err != nil {
			return err
		}
		if next, err = r.nextLive(refs); err != nil {
			return err
		}
	}
	if err := r.forgetUpload(r.bucketName, r.rec.Upload); err != nil {
		return err
	}
	if next == "" {
		return r.unlink(r.path())
	}
	return r.rename(r.olderPath(next), r.path())
}

// nextLive is the first of these versions, unless it is a marker.
func (r *removal) nextLive(refs []backends.VersionRef) (string, error) {
	if len(refs) == 0 {
		return "", nil
	}
	rec, err := r.openOlder(refs[0].Version)
	rec.close()
	if rec.Marker {
		return "", err
	}
	return refs[0].Version, err
}

// olderGoes removes a version that is not in the place of the newest. Where nothing
// is, and it is the newest all the same, the next one comes there: the marker first,
// so that the one can replace the other.
func (r *removal) olderGoes(covered bool) (err error) {
	if r.rec, err = r.openOlder(r.version); err != nil {
		return err
	}
	if err := r.allowed(); err != nil || !r.rec.exists() {
		return err
	}
	next := ""
	if !covered {
		refs, err := r.history("")
		if err != nil {
			return err
		}
		if len(refs) > 0 && refs[0].Version == r.version {
			if next, err = r.nextLive(refs[1:]); err != nil {
				return err
			}
		}
	}
	if next == "" {
		return r.unlink(r.olderPath(r.version))
	}
	if err := r.move(r.olderPath(r.version), r.path(), r.objects(r.bucketName)); err != nil {
		return err
	}
	return r.rename(r.olderPath(next), r.path())
}
