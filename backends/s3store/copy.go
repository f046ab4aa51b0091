package s3store

import (
	"context"
	"fmt"
	"net/url"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"chatelaine/backends"
)

// Copy implements backends.Copier. With conditions on the destination it is
// ErrUnsupported where the server would ignore them (Config.ConditionalCopy). It is
// repeated unless there are any, or source and destination are one object: then what
// was copied already would look like somebody else's change.
func (s *Store) Copy(ctx context.Context, src, dst backends.ObjectID, opts *backends.CopyOptions) (backends.Written, error) {
	doing := fmt.Sprintf("copying %q to %q", src.Key, dst.Key)
	if opts == nil {
		opts = &backends.CopyOptions{}
	}
	in, err := s.copyInput(ctx, src, dst, opts)
	if err != nil {
		return backends.Written{}, fmt.Errorf("s3store: %s: %w", doing, err)
	}
	options := []func(*s3.Options){s.patiently}
	if !opts.Conditions.IsZero() || src.Bucket == dst.Bucket && src.Key == dst.Key {
		options = append(options, once)
	}
	out, err := s.client.CopyObject(ctx, in, options...)
	if err != nil {
		return backends.Written{}, wrapVersion(ctx, doing, src, err)
	}
	if out.CopyObjectResult == nil || deref(out.CopyObjectResult.ETag) == "" {
		return backends.Written{}, fmt.Errorf("s3store: %s: %w: %w: no ETag", doing, backends.ErrUnavailable, errMalformed)
	}
	return backends.Written{
		ETag:     unquote(*out.CopyObjectResult.ETag),
		Version:  deref(out.VersionId),
		Modified: deref(out.CopyObjectResult.LastModified),
	}, nil
}

func (s *Store) copyInput(ctx context.Context, src, dst backends.ObjectID, opts *backends.CopyOptions) (*s3.CopyObjectInput, error) {
	match, noneMatch, err := writeConditions(opts.Conditions)
	if !opts.Conditions.IsZero() && !s.cfg.ConditionalCopy {
		err = backends.ErrUnsupported
	}
	attrs := opts.Attributes
	err = firstError(s.checkName(src.Bucket, src.Key), s.checkName(dst.Bucket, dst.Key), err, attrs.Check())
	if err == nil {
		attrs, err = s.settled(ctx, dst.Bucket, attrs)
	}
	if err != nil {
		return nil, err
	}
	return &s3.CopyObjectInput{
		Bucket: &dst.Bucket, Key: &dst.Key,
		IfMatch: match, IfNoneMatch: noneMatch,
		CopySource:        copySource(src),
		CopySourceIfMatch: etagOf(opts.SourceIfMatch),
		MetadataDirective: types.MetadataDirectiveReplace,
		ContentType:       optional(attrs.ContentType),
		Metadata:          attrs.Metadata,
		TaggingDirective:  types.TaggingDirectiveReplace,
		Tagging:           tagging(attrs.Tags),
		// What annotations say is plaintext to the provider.
		AnnotationDirective:       types.AnnotationDirectiveExclude,
		ObjectLockMode:            types.ObjectLockMode(attrs.Lock.Mode),
		ObjectLockRetainUntilDate: optional(attrs.Lock.Until),
		ObjectLockLegalHoldStatus: holdHeader(attrs.Lock),
	}, nil
}

// CopyPart implements backends.Copier. S3 takes a first and a last byte alone: for
// any other range the source is looked at first, and then pinned to its ETag.
func (s *Store) CopyPart(ctx context.Context, id backends.UploadID, number int, src backends.ObjectID, r *backends.Range, sourceIfMatch string) (backends.Part, error) {
	doing := fmt.Sprintf("copying %q to part %d of %q", src.Key, number, id.Key)
	if err := firstError(s.checkUpload(id), backends.CheckPartNumber(number), s.checkName(src.Bucket, src.Key)); err != nil {
		return backends.Part{}, fmt.Errorf("s3store: %s: %w", doing, err)
	}
	x, err := s.extract(ctx, src, r, sourceIfMatch)
	if err == nil {
		err = checkSize(x.size)
	}
	if err != nil {
		return backends.Part{}, fmt.Errorf("s3store: %s: %w", doing, err)
	}
	out, err := s.client.UploadPartCopy(ctx, &s3.UploadPartCopyInput{
		Bucket: &id.Bucket, Key: &id.Key, UploadId: &id.ID, PartNumber: part32(number),
		CopySource: copySource(src), CopySourceRange: x.header, CopySourceIfMatch: etagOf(x.etag),
	}, s.patiently)
	if err != nil {
		return backends.Part{}, wrap(ctx, doing, backends.ErrUploadNotFound, err)
	}
	if out.CopyPartResult == nil || deref(out.CopyPartResult.ETag) == "" {
		return backends.Part{}, fmt.Errorf("s3store: %s: %w: %w: no ETag", doing, backends.ErrUnavailable, errMalformed)
	}
	return backends.Part{
		Number:   number,
		ETag:     unquote(*out.CopyPartResult.ETag),
		Size:     x.size,
		Modified: deref(out.CopyPartResult.LastModified),
	}, nil
}

// extract is what a CopyPart takes of its source.
type extract struct {
	header *string // nil for all of it
	size   int64   // in bytes
	etag   string  // of the source; empty for any
}

func (s *Store) extract(ctx context.Context, src backends.ObjectID, r *backends.Range, etag string) (extract, error) {
	if r != nil && r.Offset >= 0 && r.Length > 0 {
		header, err := rangeHeader(r)
		return extract{header, r.Length, etag}, err
	}
	var cond backends.Conditions
	if etag != "" {
		cond.IfMatch = []string{etag}
	}
	info, err := s.Head(ctx, src, &backends.GetOptions{Conditions: cond})
	if err != nil {
		return extract{}, err
	}
	abs, err := r.Within(info.Size)
	if err != nil || r == nil {
		return extract{nil, abs.Length, info.ETag}, err
	}
	header, err := rangeHeader(&abs)
	return extract{header, abs.Length, info.ETag}, err
}

// MaxCopy is 5 GiB.
func (*Store) MaxCopy() int64 { return maxPut }

// patiently is for calls in which the store moves gigabytes before it answers.
func (s *Store) patiently(o *s3.Options) { o.HTTPClient = s.complete }

// copySource is the header that names a source. S3 decodes it as a query, where a
// plus is a space.
func copySource(id backends.ObjectID) *string {
	source := id.Bucket + "/" + strings.NewReplacer("+", "%20", "%2F", "/").Replace(url.QueryEscape(id.Key))
	if id.Version != "" {
		source += "?versionId=" + url.QueryEscape(id.Version)
	}
	return &source
}

// etagOf is a header of one ETag; none for an empty one.
func etagOf(etag string) *string {
	if etag == "" {
		return nil
	}
	return etagHeader([]string{etag})
}
