package backendtest

import (
	"context"
	"time"

	"chatelaine/backends"
)

// layer is one capability of a faulty store. Each is a store of its own, so that
// backends.As passes from one to the next and finds those that inner has, and no
// others.
type layer struct {
	backends.Store
	faults *Faults
	next   backends.Store
}

func (l *layer) Unwrap() backends.Store { return l.next }

// capabilities is the chain of the layers that inner has the capabilities for. It
// ends with inner.
func capabilities(inner backends.Store, faults *Faults) backends.Store {
	top := inner
	l := func() *layer { return &layer{inner, faults, top} }
	if c, ok := backends.As[backends.Locker](inner); ok {
		top = &faultyLocker{l(), c}
	}
	if c, ok := backends.As[backends.Tagger](inner); ok {
		top = &faultyTagger{l(), c}
	}
	if c, ok := backends.As[backends.Versioner](inner); ok {
		top = &faultyVersioner{l(), c}
	}
	if c, ok := backends.As[backends.Copier](inner); ok {
		top = &faultyCopier{l(), c}
	}
	if c, ok := backends.As[backends.Multiparter](inner); ok {
		top = &faultyMultiparter{l(), c}
	}
	return top
}

// fail is run for operations that return an error alone.
func (l *layer) fail(ctx context.Context, op Op, key string, do func() error) error {
	_, err := run(ctx, l.faults, op, key, nil, none(do))
	return err
}

type faultyMultiparter struct {
	*layer
	parts backends.Multiparter
}

func (s *faultyMultiparter) MaxPut() int64 { return s.parts.MaxPut() }

func (s *faultyMultiparter) CreateUpload(ctx context.Context, bucket, key string, attrs backends.Attributes) (backends.UploadID, error) {
	return run(ctx, s.faults, CreateUpload, key, nil, func() (backends.UploadID, error) { return s.parts.CreateUpload(ctx, bucket, key, attrs) })
}

func (s *faultyMultiparter) PutPart(ctx context.Context, id backends.UploadID, number int, body backends.Body) (backends.Part, error) {
	return run(ctx, s.faults, PutPart, id.Key, body.Reader, func() (backends.Part, error) { return s.parts.PutPart(ctx, id, number, body) })
}

func (s *faultyMultiparter) Complete(ctx context.Context, id backends.UploadID, parts []backends.Part, cond backends.Conditions) (backends.Written, error) {
	return run(ctx, s.faults, Complete, id.Key, nil, func() (backends.Written, error) { return s.parts.Complete(ctx, id, parts, cond) })
}

func (s *faultyMultiparter) Abort(ctx context.Context, id backends.UploadID) error {
	return s.fail(ctx, Abort, id.Key, func() error { return s.parts.Abort(ctx, id) })
}

func (s *faultyMultiparter) ListParts(ctx context.Context, id backends.UploadID, after, limit int) (*backends.PartsPage, error) {
	return run(ctx, s.faults, ListParts, id.Key, nil, func() (*backends.PartsPage, error) { return s.parts.ListParts(ctx, id, after, limit) })
}

func (s *faultyMultiparter) ListUploads(ctx context.Context, bucket string, opts *backends.ListUploadsOptions) (*backends.UploadsPage, error) {
	return run(ctx, s.faults, ListUploads, "", nil, func() (*backends.UploadsPage, error) { return s.parts.ListUploads(ctx, bucket, opts) })
}

type faultyCopier struct {
	*layer
	copier backends.Copier
}

func (s *faultyCopier) MaxCopy() int64 { return s.copier.MaxCopy() }

func (s *faultyCopier) Copy(ctx context.Context, src, dst backends.ObjectID, opts *backends.CopyOptions) (backends.Written, error) {
	return run(ctx, s.faults, Copy, dst.Key, nil, func() (backends.Written, error) { return s.copier.Copy(ctx, src, dst, opts) })
}

func (s *faultyCopier) CopyPart(ctx context.Context, id backends.UploadID, number int, src backends.ObjectID, r *backends.Range, sourceIfMatch string) (backends.Part, error) {
	return run(ctx, s.faults, CopyPart, id.Key, nil, func() (backends.Part, error) {
		return s.copier.CopyPart(ctx, id, number, src, r, sourceIfMatch)
	})
}

type faultyVersioner struct {
	*layer
	versions backends.Versioner
}

func (s *faultyVersioner) Versioning(ctx context.Context, bucket string) (backends.Versioning, error) {
	return run(ctx, s.faults, Versioning, "", nil, func() (backends.Versioning, error) { return s.versions.Versioning(ctx, bucket) })
}

func (s *faultyVersioner) SetVersioning(ctx context.Context, bucket string, v backends.Versioning) error {
	return s.fail(ctx, SetVersioning, "", func() error { return s.versions.SetVersioning(ctx, bucket, v) })
}

func (s *faultyVersioner) ListVersions(ctx context.Context, bucket string, opts *backends.ListVersionsOptions) (*backends.VersionsPage, error) {
	return run(ctx, s.faults, ListVersions, "", nil, func() (*backends.VersionsPage, error) { return s.versions.ListVersions(ctx, bucket, opts) })
}

type faultyTagger struct {
	*layer
	tagger backends.Tagger
}

func (s *faultyTagger) Tags(ctx context.Context, id backends.ObjectID) (backends.Tags, string, error) {
	var version string
	tags, err := run(ctx, s.faults, Tags, id.Key, nil, func() (tags backends.Tags, err error) {
		tags, version, err = s.tagger.Tags(ctx, id)
		return tags, err
	})
	return tags, version, err
}

func (s *faultyTagger) SetTags(ctx context.Context, id backends.ObjectID, tags backends.Tags) (string, error) {
	return run(ctx, s.faults, SetTags, id.Key, nil, func() (string, error) { return s.tagger.SetTags(ctx, id, tags) })
}

type faultyLocker struct {
	*layer
	locker backends.Locker
}

func (s *faultyLocker) CreateLockedBucket(ctx context.Context, bucket string) error {
	return s.fail(ctx, CreateLockedBucket, "", func() error { return s.locker.CreateLockedBucket(ctx, bucket) })
}

func (s *faultyLocker) LockConfig(ctx context.Context, bucket string) (backends.LockConfig, error) {
	return run(ctx, s.faults, LockConfig, "", nil, func() (backends.LockConfig, error) { return s.locker.LockConfig(ctx, bucket) })
}

func (s *faultyLocker) SetLockConfig(ctx context.Context, bucket string, c backends.LockConfig) error {
	return s.fail(ctx, SetLockConfig, "", func() error { return s.locker.SetLockConfig(ctx, bucket, c) })
}

func (s *faultyLocker) Lock(ctx context.Context, id backends.ObjectID) (backends.Lock, error) {
	return run(ctx, s.faults, Lock, id.Key, nil, func() (backends.Lock, error) { return s.locker.Lock(ctx, id) })
}

func (s *faultyLocker) SetRetention(ctx context.Context, id backends.ObjectID, mode backends.LockMode, until time.Time, bypass bool) error {
	return s.fail(ctx, SetRetention, id.Key, func() error { return s.locker.SetRetention(ctx, id, mode, until, bypass) })
}

func (s *faultyLocker) SetHold(ctx context.Context, id backends.ObjectID, hold bool) error {
	return s.fail(ctx, SetHold, id.Key, func() error { return s.locker.SetHold(ctx, id, hold) })
}
