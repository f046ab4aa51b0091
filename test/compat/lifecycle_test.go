package compat

import (
	"errors"
	"fmt"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"
)

// TestLifecycleRulesReachTheCloud: those that keep away from the gateway's own objects
// arrive, with the size of what is stored; others are refused and change nothing.
func TestLifecycleRulesReachTheCloud(t *testing.T) {
	large(t)
	cloud := minio.MinIO(t)
	w := newWorld(t, cloud)
	bucket, direct := w.bucket(t), accountOf(cloud)
	there := behind(t, direct, bucket)
	put := func(filter *types.LifecycleRuleFilter) error {
		_, err := w.sdk().PutBucketLifecycleConfiguration(t.Context(), &s3.PutBucketLifecycleConfigurationInput{
			Bucket: &bucket, LifecycleConfiguration: &types.BucketLifecycleConfiguration{Rules: []types.LifecycleRule{{
				ID: aws.String("old logs"), Status: types.ExpirationStatusEnabled, Filter: filter, Expiration: &types.LifecycleExpiration{Days: aws.Int32(30)},
			}}},
		})
		return err
	}
	read := func(a account, bucket string) string {
		out, err := a.sdk().GetBucketLifecycleConfiguration(t.Context(), &s3.GetBucketLifecycleConfigurationInput{Bucket: &bucket})
		if err != nil || len(out.Rules) != 1 || out.Rules[0].Filter == nil || out.Rules[0].Filter.And == nil {
			return codeOf(err)
		}
		r := out.Rules[0]
		return fmt.Sprint(*r.ID, " ", aws.ToString(r.Filter.And.Prefix), " ", aws.ToInt64(r.Filter.And.ObjectSizeGreaterThan), " ", *r.Expiration.Days)
	}
	if err := put(&types.LifecycleRuleFilter{And: &types.LifecycleRuleAndOperator{Prefix: aws.String("logs/"), ObjectSizeGreaterThan: aws.Int64(0)}}); err != nil {
		t.Fatal(err)
	}
	for _, prefix := range []string{"", ".", ".chatelaine/keys/"} {
		if got := codeOf(put(&types.LifecycleRuleFilter{Prefix: &prefix})); got != "NotImplemented" {
			t.Errorf("a rule for %q: got %q, want it refused", prefix, got)
		}
	}
	if got, want := read(w.account, bucket), "old logs logs/ 0 30"; got != want {
		t.Errorf("given back: got %q, want %q", got, want)
	}
	if got, want := read(direct, there), "old logs logs/ 288 30"; got != want { // an empty object is stored in 288 bytes
		t.Errorf("on the cloud: got %q, want %q", got, want)
	}
	if _, err := w.sdk().DeleteBucketLifecycle(t.Context(), &s3.DeleteBucketLifecycleInput{Bucket: &bucket}); err != nil {
		t.Fatal(err)
	}
	for who, got := range map[string]string{"the gateway": read(w.account, bucket), "the cloud": read(direct, there)} {
		if got != "NoSuchLifecycleConfiguration" {
			t.Errorf("after DELETE %s has %q", who, got)
		}
	}
}

func codeOf(err error) string {
	var api smithy.APIError
	if errors.As(err, &api) {
		return api.ErrorCode()
	}
	return fmt.Sprint(err)
}
