package s3store

import (
	"cmp"
	"context"
	"fmt"
	"net/url"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"chatelaine/backends"
)

// Tags implements backends.Tagger. MinIO says the version only where it was asked for.
func (s *Store) Tags(ctx context.Context, id backends.ObjectID) (backends.Tags, string, error) {
	doing := fmt.Sprintf("reading the tags of %q", id.Key)
	if err := s.checkName(id.Bucket, id.Key); err != nil {
		return nil, "", fmt.Errorf("s3store: %s: %w", doing, err)
	}
	out, err := s.client.GetObjectTagging(ctx, &s3.GetObjectTaggingInput{Bucket: &id.Bucket, Key: &id.Key, VersionId: optional(id.Version)})
	if err != nil {
		return nil, "", wrapVersion(ctx, doing, id, err)
	}
	if out.TagSet == nil {
		return nil, "", fmt.Errorf("s3store: %s: %w: %w: no tag set", doing, backends.ErrUnavailable, errMalformed)
	}
	var tags backends.Tags
	for _, t := range out.TagSet {
		if tags == nil {
			tags = make(backends.Tags, len(out.TagSet))
		}
		tags[deref(t.Key)] = deref(t.Value)
	}
	return tags, cmp.Or(deref(out.VersionId), id.Version), nil
}

// SetTags implements backends.Tagger.
func (s *Store) SetTags(ctx context.Context, id backends.ObjectID, tags backends.Tags) (string, error) {
	doing := fmt.Sprintf("setting the tags of %q", id.Key)
	if err := firstError(s.checkName(id.Bucket, id.Key), tags.Check()); err != nil {
		return "", fmt.Errorf("s3store: %s: %w", doing, err)
	}
	version, err := s.setTags(ctx, id, tags)
	return cmp.Or(deref(version), id.Version), wrapVersion(ctx, doing, id, err)
}

func (s *Store) setTags(ctx context.Context, id backends.ObjectID, tags backends.Tags) (*string, error) {
	if len(tags) == 0 {
		out, err := s.client.DeleteObjectTagging(ctx, &s3.DeleteObjectTaggingInput{Bucket: &id.Bucket, Key: &id.Key, VersionId: optional(id.Version)})
		if err != nil {
			return nil, err
		}
		return out.VersionId, nil
	}
	set := &types.Tagging{}
	for key, value := range tags {
		set.TagSet = append(set.TagSet, types.Tag{Key: &key, Value: &value})
	}
	out, err := s.client.PutObjectTagging(ctx, &s3.PutObjectTaggingInput{
		Bucket: &id.Bucket, Key: &id.Key, VersionId: optional(id.Version), Tagging: set,
	})
	if err != nil {
		return nil, err
	}
	return out.VersionId, nil
}

// tagging is the header of tags that come with an object. Servers do not agree on
// what a plus is.
func tagging(tags backends.Tags) *string {
	values := make(url.Values, len(tags))
	for key, value := range tags {
		values.Set(key, value)
	}
	return optional(strings.ReplaceAll(values.Encode(), "+", "%20"))
}
