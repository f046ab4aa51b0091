package s3store

import (
	"context"
	"fmt"
	"net/http"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"chatelaine/backends"
)

// SetLifecycle implements backends.Lifecycler.
func (s *Store) SetLifecycle(ctx context.Context, bucket string, rules []backends.LifecycleRule) error {
	doing := fmt.Sprintf("setting the lifecycle rules of bucket %q", bucket)
	err := backends.CheckBucket(bucket)
	if err == nil {
		err = s.mustExist(ctx, bucket)
	}
	if err != nil {
		return fmt.Errorf("s3store: %s: %w", doing, err)
	}
	if len(rules) == 0 {
		_, err = s.client.DeleteBucketLifecycle(ctx, &s3.DeleteBucketLifecycleInput{Bucket: &bucket})
	} else {
		in := &types.BucketLifecycleConfiguration{}
		for i, r := range rules {
			in.Rules = append(in.Rules, lifecycleRules(i, r)...)
		}
		_, err = s.client.PutBucketLifecycleConfiguration(ctx, &s3.PutBucketLifecycleConfigurationInput{Bucket: &bucket, LifecycleConfiguration: in})
	}
	if resp := answered(err); resp != nil && (resp.StatusCode == http.StatusBadRequest || resp.StatusCode == http.StatusNotImplemented) {
		return fmt.Errorf("s3store: %s: %w: %w", doing, backends.ErrUnsupported, err)
	}
	return wrap(ctx, doing, backends.ErrBucketNotFound, err)
}

// lifecycleRules makes two rules of one that also aborts uploads. MinIO has no such
// action: it refuses a rule of it alone, and forgets it where there is another.
func lifecycleRules(i int, r backends.LifecycleRule) []types.LifecycleRule {
	abort := backends.LifecycleRule{ID: r.ID, Prefix: r.Prefix, AbortDays: r.AbortDays}
	r.AbortDays = 0
	rest := lifecycleRule(r)
	switch acts := rest.Expiration != nil || rest.NoncurrentVersionExpiration != nil; {
	case abort.AbortDays == 0:
		return []types.LifecycleRule{rest}
	case acts:
		abort.ID = fmt.Sprintf("chatelaine-abort-%d", i)
		return []types.LifecycleRule{rest, lifecycleRule(abort)}
	}
	return []types.LifecycleRule{lifecycleRule(abort)}
}

func lifecycleRule(r backends.LifecycleRule) types.LifecycleRule {
	out := types.LifecycleRule{ID: &r.ID, Status: types.ExpirationStatusEnabled, Filter: lifecycleFilter(r)}
	if r.ExpireDays > 0 || !r.ExpireDate.IsZero() || r.ExpireMarkers {
		out.Expiration = &types.LifecycleExpiration{
			Days: optional(int32(r.ExpireDays)), Date: optional(r.ExpireDate.UTC()), ExpiredObjectDeleteMarker: optional(r.ExpireMarkers),
		}
		if r.ExpireDate.IsZero() {
			out.Expiration.Date = nil
		}
	}
	if r.NoncurrentDays > 0 {
		out.NoncurrentVersionExpiration = &types.NoncurrentVersionExpiration{
			NoncurrentDays: optional(int32(r.NoncurrentDays)), NewerNoncurrentVersions: optional(int32(r.NoncurrentKeep)),
		}
	}
	if r.AbortDays > 0 {
		out.AbortIncompleteMultipartUpload = &types.AbortIncompleteMultipartUpload{DaysAfterInitiation: optional(int32(r.AbortDays))}
	}
	return out
}

// lifecycleFilter puts several conditions into an And, where S3 wants them, and one
// on its own.
func lifecycleFilter(r backends.LifecycleRule) *types.LifecycleRuleFilter {
	and := &types.LifecycleRuleAndOperator{
		Prefix: optional(r.Prefix), ObjectSizeGreaterThan: above(r.AtLeast), ObjectSizeLessThan: optional(r.Below),
	}
	for key, value := range r.Tags {
		and.Tags = append(and.Tags, types.Tag{Key: &key, Value: &value})
	}
	conditions := len(and.Tags)
	for _, given := range []bool{r.Prefix != "", r.AtLeast != 0, r.Below != 0} {
		if given {
			conditions++
		}
	}
	switch {
	case conditions > 1:
		return &types.LifecycleRuleFilter{And: and}
	case len(and.Tags) == 1:
		return &types.LifecycleRuleFilter{Tag: &and.Tags[0]}
	case r.AtLeast != 0 || r.Below != 0:
		return &types.LifecycleRuleFilter{ObjectSizeGreaterThan: and.ObjectSizeGreaterThan, ObjectSizeLessThan: and.ObjectSizeLessThan}
	}
	return &types.LifecycleRuleFilter{Prefix: &r.Prefix}
}

// above is a least size as S3 writes it.
func above(least int64) *int64 {
	if least == 0 {
		return nil
	}
	least--
	return &least
}
