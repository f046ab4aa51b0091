package s3store

import (
	"context"
	"errors"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"chatelaine/backends"
)

// CreateBucket implements backends.Store. AWS in us-east-1 is asked first: there,
// and only there, it reports success for a bucket that the account has already.
func (s *Store) CreateBucket(ctx context.Context, bucket string) error {
	doing := fmt.Sprintf("creating bucket %q", bucket)
	if err := backends.CheckBucket(bucket); err != nil {
		return fmt.Errorf("s3store: %s: %w", doing, err)
	}
	in := &s3.CreateBucketInput{Bucket: &bucket}
	if s.cfg.Region != defaultRegion {
		in.CreateBucketConfiguration = &types.CreateBucketConfiguration{
			LocationConstraint: types.BucketLocationConstraint(s.cfg.Region),
		}
	} else if s.cfg.Endpoint == "" {
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

// DeleteBucket implements backends.Store. Where the store refuses because of
// unfinished uploads alone, they are aborted.
func (s *Store) DeleteBucket(ctx context.Context, bucket string) error {
	if err := backends.CheckBucket(bucket); err != nil {
		return fmt.Errorf("s3store: deleting bucket %q: %w", bucket, err)
	}
	refusal := s.deleteBucket(ctx, bucket)
	if !errors.Is(refusal, backends.ErrBucketNotEmpty) {
		return refusal
	}
	if empty, err := s.holdsNoVersion(ctx, bucket); err != nil || !empty {
		return refusal
	}
	if aborted, err := s.abortAll(ctx, bucket); err != nil || aborted == 0 {
		return refusal
	}
	return s.deleteBucket(ctx, bucket)
}

func (s *Store) deleteBucket(ctx context.Context, bucket string) error {
	_, err := s.client.DeleteBucket(ctx, &s3.DeleteBucketInput{Bucket: &bucket}, once)
	return wrap(ctx, fmt.Sprintf("deleting bucket %q", bucket), backends.ErrBucketNotFound, err)
}

func (s *Store) holdsNoVersion(ctx context.Context, bucket string) (bool, error) {
	one := int32(1)
	out, err := s.client.ListObjectVersions(ctx, &s3.ListObjectVersionsInput{Bucket: &bucket, MaxKeys: &one})
	if err != nil {
		return false, err
	}
	return len(out.Versions) == 0 && len(out.DeleteMarkers) == 0, nil
}

// abortAll returns how many uploads it has aborted.
func (s *Store) abortAll(ctx context.Context, bucket string) (aborted int, err error) {
	opts := backends.ListUploadsOptions{}
	for {
		page, err := s.ListUploads(ctx, bucket, &opts)
		if err != nil {
			return aborted, err
		}
		for _, u := range page.Uploads {
			if err := s.Abort(ctx, u.UploadID); err != nil && !errors.Is(err, backends.ErrUploadNotFound) {
				return aborted, err
			}
			aborted++
		}
		if !page.Truncated {
			return aborted, nil
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
		for _, b := range out.Buckets {
			buckets = append(buckets, backends.BucketInfo{Name: deref(b.Name), Created: deref(b.CreationDate)})
		}
		if deref(out.ContinuationToken) == "" || deref(out.ContinuationToken) == deref(in.ContinuationToken) {
			return buckets, nil
		}
		in.ContinuationToken = out.ContinuationToken
	}
}
