package s3store

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"chatelaine/backends"
)

// CreateBucket implements backends.Store.
func (s *Store) CreateBucket(ctx context.Context, bucket string) error {
	return s.createBucket(ctx, &s3.CreateBucketInput{Bucket: &bucket})
}

// createBucket looks first where the server reports success for a bucket that the
// account has already: AWS does in us-east-1 alone, others everywhere.
func (s *Store) createBucket(ctx context.Context, in *s3.CreateBucketInput) error {
	bucket := *in.Bucket
	doing := fmt.Sprintf("creating bucket %q", bucket)
	if err := backends.CheckBucket(bucket); err != nil {
		return fmt.Errorf("s3store: %s: %w", doing, err)
	}
	if s.cfg.Region != defaultRegion {
		in.CreateBucketConfiguration = &types.CreateBucketConfiguration{
			LocationConstraint: types.BucketLocationConstraint(s.cfg.Region),
		}
	}
	if s.cfg.dialect.CreatesAgain || s.cfg.isAWS() && s.cfg.Region == defaultRegion {
		if err := s.HeadBucket(ctx, bucket); err == nil {
			return fmt.Errorf("s3store: %s: %w", doing, backends.ErrBucketExists)
		} else if !errors.Is(err, backends.ErrBucketNotFound) && !errors.Is(err, backends.ErrDenied) {
			return err
		}
	}
	_, err := s.client.CreateBucket(ctx, in, once)
	return wrap(ctx, doing, backends.ErrBucketNotFound, err)
}

// HeadBucket implements backends.Store.
func (s *Store) HeadBucket(ctx context.Context, bucket string) error {
	doing := fmt.Sprintf("looking at bucket %q", bucket)
	if err := backends.CheckBucket(bucket); err != nil {
		return fmt.Errorf("s3store: %s: %w", doing, err)
	}
	_, err := s.client.HeadBucket(ctx, &s3.HeadBucketInput{Bucket: &bucket})
	return wrap(ctx, doing, backends.ErrBucketNotFound, err)
}

// mustExist is for calls that servers other than AWS do not refuse for a bucket that
// is not there.
func (s *Store) mustExist(ctx context.Context, bucket string) error {
	if s.cfg.isAWS() {
		return nil
	}
	return s.HeadBucket(ctx, bucket)
}

// noBucket is err, or what HeadBucket says if the bucket is not there: MinIO then says
// that it has no lock.
func (s *Store) noBucket(ctx context.Context, bucket string, err error) error {
	if errors.Is(err, backends.ErrNoLock) {
		return cmp.Or(s.HeadBucket(ctx, bucket), err)
	}
	return err
}

// DeleteBucket implements backends.Store. Servers do not agree on what becomes of
// unfinished uploads (some refuse, MinIO keeps them for the next bucket of that
// name), so they are aborted first, but not in a bucket that holds something.
func (s *Store) DeleteBucket(ctx context.Context, bucket string) error {
	doing := fmt.Sprintf("deleting bucket %q", bucket)
	if err := backends.CheckBucket(bucket); err != nil {
		return fmt.Errorf("s3store: %s: %w", doing, err)
	}
	empty, err := s.holdsNoVersion(ctx, bucket)
	switch {
	case err != nil:
		return wrap(ctx, doing, backends.ErrBucketNotFound, err)
	case !empty:
		return fmt.Errorf("s3store: %s: %w", doing, backends.ErrBucketNotEmpty)
	}
	if err := s.abortAll(ctx, bucket); err != nil && !errors.Is(err, backends.ErrUnsupported) {
		return err
	}
	_, err = s.client.DeleteBucket(ctx, &s3.DeleteBucketInput{Bucket: &bucket}, once)
	return wrap(ctx, doing, backends.ErrBucketNotFound, err)
}

func (s *Store) holdsNoVersion(ctx context.Context, bucket string) (bool, error) {
	one := int32(1)
	out, err := s.client.ListObjectVersions(ctx, &s3.ListObjectVersionsInput{Bucket: &bucket, MaxKeys: &one})
	if err != nil {
		return false, err
	}
	if out.Name == nil {
		return false, errMalformed
	}
	return len(out.Versions) == 0 && len(out.DeleteMarkers) == 0, nil
}

// abortAll aborts the uploads of a bucket.
func (s *Store) abortAll(ctx context.Context, bucket string) error {
	opts := backends.ListUploadsOptions{}
	for {
		page, err := s.ListUploads(ctx, bucket, &opts)
		if err != nil {
			return err
		}
		for _, u := range page.Uploads {
			if err := s.Abort(ctx, u.UploadID); err != nil && !errors.Is(err, backends.ErrUploadNotFound) {
				return err
			}
		}
		if !page.Truncated {
			return nil
		}
		opts.KeyMarker, opts.IDMarker = page.NextKey, page.NextIDMarker
	}
}

// ListBuckets implements backends.Store.
func (s *Store) ListBuckets(ctx context.Context) ([]backends.BucketInfo, error) {
	var buckets []backends.BucketInfo
	in := &s3.ListBucketsInput{}
	for {
		out, err := s.client.ListBuckets(ctx, in)
		if err != nil {
			return nil, wrap(ctx, "listing buckets", backends.ErrUnavailable, err)
		}
		if out.Buckets == nil {
			return nil, fmt.Errorf("s3store: listing buckets: %w: %w: no listing", backends.ErrUnavailable, errMalformed)
		}
		for _, b := range out.Buckets {
			buckets = append(buckets, backends.BucketInfo{Name: deref(b.Name), Created: deref(b.CreationDate)})
		}
		if deref(out.ContinuationToken) == "" || deref(out.ContinuationToken) == deref(in.ContinuationToken) {
			return buckets, nil
		}
		in.ContinuationToken = out.ContinuationToken
	}
}
