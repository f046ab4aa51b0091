package objects

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"chatelaine/backends"
)

// Delete deletes an object. One that is not there is deleted already. Conditions that
// do not hold are backends.ErrPrecondition; a backend that cannot check an ETag and
// delete in one step is backends.ErrUnsupported for all of them.
func (s *Service) Delete(ctx context.Context, r DeleteRequest) (backends.Deleted, error) {
	if err := checkKey(r.Key); err != nil {
		return backends.Deleted{}, err
	}
	store, err := s.storeOf(r.Bucket)
	if err != nil {
		return backends.Deleted{}, err
	}
	deleted, err := s.deleteIf(ctx, store, r)
	if errors.Is(err, backends.ErrNotFound) && r.describes() && len(r.IfMatch) == 0 {
		return backends.Deleted{}, nil
	}
	if err != nil {
		return deleted, fmt.Errorf("objects: deleting %q: %w", r.Key, err)
	}
	return deleted, nil
}

// describes says whether there are conditions that the backend cannot check itself.
func (r DeleteRequest) describes() bool { return r.IfSize != nil || !r.IfModified.IsZero() }

func (s *Service) deleteIf(ctx context.Context, store backends.Store, r DeleteRequest) (_ backends.Deleted, err error) {
	opts := &backends.DeleteOptions{BypassGovernance: r.BypassGovernance}
	if r.describes() {
		opts.Conditions, err = s.described(ctx, r)
	} else {
		opts.Conditions, err = s.writeConditions(ctx, r.Bucket, r.Key, r.Version, r.IfMatch, nil)
	}
	if err != nil {
		return backends.Deleted{}, err
	}
	var deleted backends.Deleted
	err = s.recorded(ctx, writing{bucket: r.Bucket, key: r.Key, do: func() (err error) {
		deleted, err = store.Delete(ctx, idOf(r.Bucket, r.Key, r.Version), opts)
		return err
	}})
	return deleted, err
}

// described looks at the object once, and pins the delete to what it has seen: what
// comes in between has another ETag at the backend, as each object is sealed anew.
func (s *Service) described(ctx context.Context, r DeleteRequest) (backends.Conditions, error) {
	q, err := s.newQuery(ctx, GetRequest{Bucket: r.Bucket, Key: r.Key, Version: r.Version})
	if err != nil {
		return backends.Conditions{}, err
	}
	h, err := q.head()
	if err != nil {
		return backends.Conditions{}, err
	}
	if !r.fits(h.st, h.span.Length) {
		return backends.Conditions{}, fmt.Errorf("%w: the object is another", backends.ErrPrecondition)
	}
	return backends.Conditions{IfMatch: []string{h.found.info.ETag}}, nil
}

func (r DeleteRequest) fits(st Stat, size int64) bool {
	tagged := len(r.IfMatch) == 0 || slices.Contains(r.IfMatch, "*") || slices.Contains(r.IfMatch, st.ETag)
	sized := r.IfSize == nil || *r.IfSize == size
	return tagged && sized && (r.IfModified.IsZero() || sameMoment(r.IfModified, st.Modified))
}

// sameMoment compares times as finely as the stated one is, and no finer than S3 tells
// them: in milliseconds, or in the seconds of HTTP's headers.
func sameMoment(stated, is time.Time) bool {
	unit := time.Second
	if stated.Nanosecond() != 0 {
		unit = time.Millisecond
	}
	return is.Truncate(unit).Equal(stated.Truncate(unit))
}
