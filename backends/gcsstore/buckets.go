package gcsstore

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"cloud.google.com/go/storage"
	"google.golang.org/api/iterator"

	"chatelaine/backends"
)

// CreateBucket implements backends.Store. The bucket lies in the configured location, has
// no access lists of single objects, and can never be made public.
func (s *Store) CreateBucket(ctx context.Context, bucket string) error {
	ctx, doing := withBudget(ctx), fmt.Sprintf("creating bucket %q", bucket)
	if err := backends.CheckBucket(bucket); err != nil {
		return wrap(ctx, doing, err)
	}
	s.leases.drop(bucket)
	err := s.client.Bucket(bucket).Retryer(once()).Create(ctx, s.cfg.Project, &storage.BucketAttrs{
		Location:                 s.cfg.Location,
		UniformBucketLevelAccess: storage.UniformBucketLevelAccess{Enabled: true},
		PublicAccessPrevention:   storage.PublicAccessPreventionEnforced,
	})
	switch statusOf(err) {
	case http.StatusConflict:
		err = fmt.Errorf("%w: %w", backends.ErrBucketExists, answerOf(err))
	case http.StatusBadRequest: // names with "google" in them, and such
		err = fmt.Errorf("%w: %w", backends.ErrInvalidName, answerOf(err))
	}
	return wrap(ctx, doing, err)
}

// DeleteBucket implements backends.Store. Uploads are removed first; the service then
// refuses to delete a bucket that has anything in it.
func (s *Store) DeleteBucket(ctx context.Context, bucket string) error {
	ctx, doing := withBudget(ctx), fmt.Sprintf("deleting bucket %q", bucket)
	if err := backends.CheckBucket(bucket); err != nil {
		return wrap(ctx, doing, err)
	}
	st, err := s.state(ctx, bucket, 0)
	if err == nil {
		err = s.checkEmpty(ctx, bucket, st)
	}
	if err == nil {
		err = s.removeAll(ctx, bucket, reserved)
	}
	if err == nil && st.on() {
		err = s.purge(ctx, bucket, st)
	}
	if err != nil {
		return wrap(ctx, doing, err)
	}
	s.leases.drop(bucket)
	err = s.client.Bucket(bucket).Retryer(once()).Delete(ctx)
	if statusOf(err) == http.StatusConflict {
		err = fmt.Errorf("%w: %w", errNotEmpty, answerOf(err))
	}
	return wrap(ctx, doing, err)
}

// checkEmpty is ErrBucketNotEmpty where there is an object, a version or a marker that is
// not the driver's own.
func (s *Store) checkEmpty(ctx context.Context, bucket string, st state) error {
	if st.on() {
		_, some, err := (&walk{ctx: ctx, store: s, bucket: bucket, st: st, marked: true}).Ceil("")
		if err == nil && some {
			err = errNotEmpty
		}
		return err
	}
	for _, q := range []storage.Query{{EndOffset: reserved}, {StartOffset: reservedEnd}} {
		names, _, err := s.page(ctx, bucket, q, 1, "")
		if err != nil {
			return err
		}
		if len(names) > 0 {
			return errNotEmpty
		}
	}
	return nil
}

// probe is nil where there is the bucket. It lists one object, which the gateway's
// account needs the right to do anyway; to see the bucket itself takes another.
func (s *Store) probe(ctx context.Context, bucket string) error {
	_, _, err := s.page(ctx, bucket, storage.Query{}, 1, "")
	if statusOf(err) == http.StatusNotFound {
		return fmt.Errorf("%w: %q", backends.ErrBucketNotFound, bucket)
	}
	return err
}

// page lists objects, at most limit. Prefixes are among them.
func (s *Store) page(ctx context.Context, bucket string, q storage.Query, limit int, token string) (rows []*storage.ObjectAttrs, next string, err error) {
	if err := q.SetAttrSelection([]string{"Name", "Size", "Generation", "Created", "Deleted", "ContentType", "Metadata"}); err != nil {
		return nil, "", err
	}
	q.Projection = storage.ProjectionNoACL
	next, err = iterator.NewPager(s.client.Bucket(bucket).Objects(ctx, &q), limit, token).NextPage(&rows)
	if statusOf(err) == http.StatusNotFound {
		err = fmt.Errorf("%w: %w", backends.ErrBucketNotFound, err)
	}
	return rows, next, err
}

// HeadBucket implements backends.Store.
func (s *Store) HeadBucket(ctx context.Context, bucket string) error {
	ctx, doing := withBudget(ctx), fmt.Sprintf("looking at bucket %q", bucket)
	if err := backends.CheckBucket(bucket); err != nil {
		return wrap(ctx, doing, err)
	}
	return wrap(ctx, doing, s.probe(ctx, bucket))
}

// ListBuckets implements backends.Store. Buckets that S3 has no name for (with
// underscores, or longer) are left out.
func (s *Store) ListBuckets(ctx context.Context) ([]backends.BucketInfo, error) {
	ctx = withBudget(ctx)
	var buckets []backends.BucketInfo
	for it := s.client.Buckets(ctx, s.cfg.Project); ; {
		b, err := it.Next()
		if errors.Is(err, iterator.Done) {
			return buckets, nil
		}
		if err != nil {
			return nil, wrap(ctx, "listing the buckets", err)
		}
		if backends.CheckBucket(b.Name) == nil {
			buckets = append(buckets, backends.BucketInfo{Name: b.Name, Created: b.Created})
		}
	}
}
