package s3store

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"chatelaine/backends"
)

// CreateLockedBucket implements backends.Locker.
func (s *Store) CreateLockedBucket(ctx context.Context, bucket string) error {
	return s.createBucket(ctx, &s3.CreateBucketInput{Bucket: &bucket, ObjectLockEnabledForBucket: optional(true)})
}

// LockConfig implements backends.Locker.
func (s *Store) LockConfig(ctx context.Context, bucket string) (backends.LockConfig, error) {
	doing := fmt.Sprintf("reading the lock of bucket %q", bucket)
	if err := backends.CheckBucket(bucket); err != nil {
		return backends.LockConfig{}, fmt.Errorf("s3store: %s: %w", doing, err)
	}
	out, err := s.client.GetObjectLockConfiguration(ctx, &s3.GetObjectLockConfigurationInput{Bucket: &bucket})
	switch {
	case hasCode(err, "ObjectLockConfigurationNotFoundError"):
		return backends.LockConfig{}, s.HeadBucket(ctx, bucket) // MinIO says so of one that is not there
	case err != nil:
		return backends.LockConfig{}, wrap(ctx, doing, backends.ErrBucketNotFound, err)
	case out.ObjectLockConfiguration == nil || out.ObjectLockConfiguration.ObjectLockEnabled == "":
		return backends.LockConfig{}, fmt.Errorf("s3store: %s: %w: %w: no configuration", doing, backends.ErrUnavailable, errMalformed)
	}
	return lockConfig(out.ObjectLockConfiguration), nil
}

func lockConfig(in *types.ObjectLockConfiguration) backends.LockConfig {
	c := backends.LockConfig{Enabled: in.ObjectLockEnabled == types.ObjectLockEnabledEnabled}
	if in.Rule != nil && in.Rule.DefaultRetention != nil {
		r := in.Rule.DefaultRetention
		c.Mode, c.Days, c.Years = backends.LockMode(r.Mode), int(deref(r.Days)), int(deref(r.Years))
	}
	return c
}

// SetLockConfig implements backends.Locker. MinIO never enables the lock of a bucket
// that is there: ErrBucketState.
func (s *Store) SetLockConfig(ctx context.Context, bucket string, c backends.LockConfig) error {
	doing := fmt.Sprintf("setting the lock of bucket %q", bucket)
	err := firstError(backends.CheckBucket(bucket), c.Check())
	if err == nil && !c.Enabled {
		err = fmt.Errorf("%w: a lock is never lost", backends.ErrBucketState)
	}
	if err == nil {
		err = s.mustExist(ctx, bucket)
	}
	if err != nil {
		return fmt.Errorf("s3store: %s: %w", doing, err)
	}
	out := &types.ObjectLockConfiguration{ObjectLockEnabled: types.ObjectLockEnabledEnabled}
	if c.Days > 0 || c.Years > 0 {
		out.Rule = &types.ObjectLockRule{DefaultRetention: &types.DefaultRetention{
			Mode:  types.ObjectLockRetentionMode(c.Mode),
			Days:  optional(int32(min(c.Days, math.MaxInt32))), // S3 refuses that as well
			Years: optional(int32(min(c.Years, math.MaxInt32))),
		}}
	}
	_, err = s.client.PutObjectLockConfiguration(ctx, &s3.PutObjectLockConfigurationInput{Bucket: &bucket, ObjectLockConfiguration: out})
	return wrap(ctx, doing, backends.ErrBucketNotFound, err)
}

// Lock implements backends.Locker. It is two requests: the one that has both, a
// HEAD, leaves out silently what the gateway's account may not read.
func (s *Store) Lock(ctx context.Context, id backends.ObjectID) (backends.Lock, error) {
	doing := fmt.Sprintf("reading the lock of %q", id.Key)
	if err := s.checkName(id.Bucket, id.Key); err != nil {
		return backends.Lock{}, fmt.Errorf("s3store: %s: %w", doing, err)
	}
	var lock backends.Lock
	retention, err := s.client.GetObjectRetention(ctx, &s3.GetObjectRetentionInput{Bucket: &id.Bucket, Key: &id.Key, VersionId: optional(id.Version)})
	switch {
	case err == nil && retention.Retention != nil && retention.Retention.Mode != "":
		lock.Mode = backends.LockMode(retention.Retention.Mode)
		lock.Until = deref(retention.Retention.RetainUntilDate)
	case !hasCode(err, noLock):
		return backends.Lock{}, s.noBucket(ctx, id.Bucket, wrapVersion(ctx, doing, id, orMalformed(err)))
	}
	hold, err := s.client.GetObjectLegalHold(ctx, &s3.GetObjectLegalHoldInput{Bucket: &id.Bucket, Key: &id.Key, VersionId: optional(id.Version)})
	switch {
	case err == nil && hold.LegalHold != nil && hold.LegalHold.Status != "":
		lock = lock.WithHold(hold.LegalHold.Status == types.ObjectLockLegalHoldStatusOn)
	case !hasCode(err, noLock):
		return backends.Lock{}, wrapVersion(ctx, doing, id, orMalformed(err))
	}
	return lock, nil
}

// noLock is S3's code for an object that has no retention, or never had a hold.
const noLock = "NoSuchObjectLockConfiguration"

// SetRetention implements backends.Locker.
func (s *Store) SetRetention(ctx context.Context, id backends.ObjectID, mode backends.LockMode, until time.Time, bypass bool) error {
	doing := fmt.Sprintf("setting the retention of %q", id.Key)
	if err := firstError(s.checkName(id.Bucket, id.Key), backends.Lock{Mode: mode, Until: until}.Check()); err != nil {
		return fmt.Errorf("s3store: %s: %w", doing, err)
	}
	_, err := s.client.PutObjectRetention(ctx, &s3.PutObjectRetentionInput{
		Bucket: &id.Bucket, Key: &id.Key, VersionId: optional(id.Version),
		BypassGovernanceRetention: optional(bypass),
		Retention:                 &types.ObjectLockRetention{Mode: types.ObjectLockRetentionMode(mode), RetainUntilDate: optional(until)},
	})
	return wrapVersion(ctx, doing, id, err)
}

// SetHold implements backends.Locker.
func (s *Store) SetHold(ctx context.Context, id backends.ObjectID, hold bool) error {
	doing := fmt.Sprintf("setting the legal hold of %q", id.Key)
	if err := s.checkName(id.Bucket, id.Key); err != nil {
		return fmt.Errorf("s3store: %s: %w", doing, err)
	}
	status := types.ObjectLockLegalHoldStatusOff
	if hold {
		status = types.ObjectLockLegalHoldStatusOn
	}
	_, err := s.client.PutObjectLegalHold(ctx, &s3.PutObjectLegalHoldInput{
		Bucket: &id.Bucket, Key: &id.Key, VersionId: optional(id.Version),
		LegalHold: &types.ObjectLockLegalHold{Status: status},
	})
	return wrapVersion(ctx, doing, id, err)
}

// settled is what a write sends of an object's attributes. What the dialect does not
// offer is refused: the server may take it, and nobody could read or change it later.
func (s *Store) settled(ctx context.Context, bucket string, attrs backends.Attributes) (backends.Attributes, error) {
	if s.cfg.dialect.Versions == No {
		if len(attrs.Tags) > 0 {
			return attrs, fmt.Errorf("%w: tags", backends.ErrUnsupported)
		}
		if !attrs.Lock.IsZero() {
			return attrs, backends.ErrNoLock
		}
	}
	var err error
	attrs.Lock, err = s.withDefault(ctx, bucket, attrs.Lock)
	return attrs, err
}

// withDefault adds the bucket's default retention to a hold that comes without one.
// S3 does so itself; MinIO would store an object that can be deleted once the hold is
// lifted.
func (s *Store) withDefault(ctx context.Context, bucket string, l backends.Lock) (backends.Lock, error) {
	if !l.Hold || l.Mode != "" || s.cfg.isAWS() {
		return l, nil
	}
	c, err := s.LockConfig(ctx, bucket)
	if err != nil {
		return l, err
	}
	return c.Apply(l, time.Now())
}

// holdHeader is the header of a hold that comes with an object.
func holdHeader(l backends.Lock) types.ObjectLockLegalHoldStatus {
	if l.Hold {
		return types.ObjectLockLegalHoldStatusOn
	}
	return ""
}

// lockOf is what the headers of an answer say.
func lockOf(mode types.ObjectLockMode, until *time.Time, hold types.ObjectLockLegalHoldStatus) backends.Lock {
	l := backends.Lock{Mode: backends.LockMode(mode), Until: deref(until)}
	if hold == "" {
		return l
	}
	return l.WithHold(hold == types.ObjectLockLegalHoldStatusOn)
}
