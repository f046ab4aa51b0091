package s3store

import (
	"context"
	"crypto/md5" //nolint:gosec // G501: see etagOfParts
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"chatelaine/backends"
)

// CreateUpload implements backends.Multiparter. AWS wants to know the checksum of the
// parts from the start, and full-object checksums are those for which Complete need
// not name each part's. Of other servers MinIO wants them named nevertheless, but
// verifies the parts' checksums without having been told.
func (s *Store) CreateUpload(ctx context.Context, bucket, key string, attrs backends.Attributes) (backends.UploadID, error) {
	doing := fmt.Sprintf("creating an upload to %q", key)
	err := firstError(s.checkName(bucket, key), attrs.Check())
	if err == nil {
		attrs, err = s.settled(ctx, bucket, attrs)
	}
	if err != nil {
		return backends.UploadID{}, fmt.Errorf("s3store: %s: %w", doing, err)
	}
	in := &s3.CreateMultipartUploadInput{
		Bucket:      &bucket,
		Key:         &key,
		ContentType: optional(attrs.ContentType),
		Metadata:    attrs.Metadata,
		Tagging:     tagging(attrs.Tags),

		ObjectLockMode:            types.ObjectLockMode(attrs.Lock.Mode),
		ObjectLockRetainUntilDate: optional(attrs.Lock.Until),
		ObjectLockLegalHoldStatus: holdHeader(attrs.Lock),
	}
	if s.cfg.isAWS() && s.cfg.Checksum != NoChecksum {
		in.ChecksumAlgorithm = types.ChecksumAlgorithm(strings.ToUpper(string(s.cfg.Checksum)))
		in.ChecksumType = types.ChecksumTypeFullObject
	}
	out, err := s.client.CreateMultipartUpload(ctx, in, once)
	if err != nil {
		return backends.UploadID{}, wrap(ctx, doing, backends.ErrBucketNotFound, err)
	}
	if deref(out.UploadId) == "" {
		return backends.UploadID{}, fmt.Errorf("s3store: %s: %w: %w: no upload ID", doing, backends.ErrUnavailable, errMalformed)
	}
	return backends.UploadID{Bucket: bucket, Key: key, ID: *out.UploadId}, nil
}

// PutPart implements backends.Multiparter.
func (s *Store) PutPart(ctx context.Context, id backends.UploadID, number int, body backends.Body) (backends.Part, error) {
	doing := fmt.Sprintf("putting part %d of %q", number, id.Key)
	if err := firstError(s.checkUpload(id), backends.CheckPartNumber(number), checkSize(body.Size)); err != nil {
		return backends.Part{}, fmt.Errorf("s3store: %s: %w", doing, err)
	}
	in := &s3.UploadPartInput{Bucket: &id.Bucket, Key: &id.Key, UploadId: &id.ID, PartNumber: part32(number)}
	var out *s3.UploadPartOutput
	err := s.send(ctx, doing, backends.ErrUploadNotFound, body, func(o ...func(*s3.Options)) (err error) {
		out, err = s.client.UploadPart(ctx, in, o...)
		return err
	})
	if err != nil {
		return backends.Part{}, err
	}
	return backends.Part{Number: number, ETag: unquote(deref(out.ETag)), Size: body.Size}, nil
}

// Complete implements backends.Multiparter.
func (s *Store) Complete(ctx context.Context, id backends.UploadID, parts []backends.Part, cond backends.Conditions) (backends.Written, error) {
	doing := fmt.Sprintf("completing %q", id.Key)
	match, noneMatch, err := writeConditions(cond)
	known := s.cfg.dialect.IfOnComplete
	if err := firstError(s.checkUpload(id), err, refused(match, known), refused(noneMatch, known), checkOrder(parts)); err != nil {
		return backends.Written{}, fmt.Errorf("s3store: %s: %w", doing, err)
	}
	completed := make([]types.CompletedPart, len(parts))
	for i, p := range parts {
		etag := quote(p.ETag)
		completed[i] = types.CompletedPart{PartNumber: part32(p.Number), ETag: &etag}
	}
	out, err := s.client.CompleteMultipartUpload(ctx, &s3.CompleteMultipartUploadInput{
		Bucket: &id.Bucket, Key: &id.Key, UploadId: &id.ID,
		IfMatch: match, IfNoneMatch: noneMatch,
		MultipartUpload: &types.CompletedMultipartUpload{Parts: completed},
	}, once, s.patiently)
	if err != nil {
		err = s.collided(ctx, backends.ObjectID{Bucket: id.Bucket, Key: id.Key}, err)
		return backends.Written{}, wrap(ctx, doing, backends.ErrUploadNotFound, err)
	}
	etag := unquote(deref(out.ETag))
	if etag == "" && s.cfg.dialect.ETag == "md5" {
		etag = etagOfParts(parts)
	}
	return backends.Written{ETag: etag, Version: deref(out.VersionId)}, nil
}

// etagOfParts is the ETag of an object of parts whose ETags are MD5s: the MD5 of those,
// and their number. Ceph 16 does not say it. Empty where the parts' are something else.
func etagOfParts(parts []backends.Part) string {
	all := md5.New() //nolint:gosec // G401: it is S3's
	for _, p := range parts {
		sum, err := hex.DecodeString(p.ETag)
		if err != nil || len(sum) != md5.Size {
			return ""
		}
		_, _ = all.Write(sum)
	}
	return fmt.Sprintf("%x-%d", all.Sum(nil), len(parts))
}

// Abort implements backends.Multiparter.
func (s *Store) Abort(ctx context.Context, id backends.UploadID) error {
	doing := fmt.Sprintf("aborting an upload to %q", id.Key)
	if err := s.checkUpload(id); err != nil {
		return fmt.Errorf("s3store: %s: %w", doing, err)
	}
	_, err := s.client.AbortMultipartUpload(ctx, &s3.AbortMultipartUploadInput{
		Bucket: &id.Bucket, Key: &id.Key, UploadId: &id.ID,
	}, once)
	return wrap(ctx, doing, backends.ErrUploadNotFound, err)
}

// ListParts implements backends.Multiparter.
func (s *Store) ListParts(ctx context.Context, id backends.UploadID, after, limit int) (*backends.PartsPage, error) {
	doing := fmt.Sprintf("listing the parts of %q", id.Key)
	if err := s.checkUpload(id); err != nil {
		return nil, fmt.Errorf("s3store: %s: %w", doing, err)
	}
	in := &s3.ListPartsInput{Bucket: &id.Bucket, Key: &id.Key, UploadId: &id.ID, MaxParts: pageLimit(limit)}
	if after > 0 {
		in.PartNumberMarker = optional(strconv.Itoa(after))
	}
	out, err := s.client.ListParts(ctx, in)
	if hasCode(err, "NoSuchKey") { // Ceph, of an upload
		return nil, fmt.Errorf("s3store: %s: %w: %w", doing, backends.ErrUploadNotFound, err)
	}
	if err != nil {
		return nil, wrap(ctx, doing, backends.ErrUploadNotFound, err)
	}
	if out.UploadId == nil {
		return nil, fmt.Errorf("s3store: %s: %w: %w: no listing", doing, backends.ErrUnavailable, errMalformed)
	}
	page := &backends.PartsPage{}
	for _, p := range out.Parts {
		page.Parts = append(page.Parts, backends.Part{
			Number: int(deref(p.PartNumber)), ETag: unquote(deref(p.ETag)),
			Size: deref(p.Size), Modified: deref(p.LastModified),
		})
	}
	if deref(out.IsTruncated) && len(page.Parts) > 0 {
		page.Next = page.Parts[len(page.Parts)-1].Number
	}
	return page, nil
}

// ListUploads implements backends.Multiparter.
func (s *Store) ListUploads(ctx context.Context, bucket string, opts *backends.ListUploadsOptions) (*backends.UploadsPage, error) {
	doing := fmt.Sprintf("listing the uploads of bucket %q", bucket)
	if opts == nil {
		opts = &backends.ListUploadsOptions{}
	}
	if err := backends.CheckBucket(bucket); err != nil {
		return nil, fmt.Errorf("s3store: %s: %w", doing, err)
	}
	in := &s3.ListMultipartUploadsInput{
		Bucket:         &bucket,
		Prefix:         optional(opts.Prefix),
		Delimiter:      optional(opts.Delimiter),
		KeyMarker:      optional(opts.KeyMarker),
		UploadIdMarker: optional(opts.IDMarker),
		MaxUploads:     pageLimit(opts.Limit),
		EncodingType:   types.EncodingTypeUrl,
	}
	out, err := s.client.ListMultipartUploads(ctx, in)
	if err != nil {
		return nil, wrap(ctx, doing, backends.ErrBucketNotFound, err)
	}
	if s.cfg.dialect.EncodesUnasked {
		out.EncodingType = types.EncodingTypeUrl
	}
	page, err := uploadsPage(bucket, out)
	if err != nil {
		return nil, fmt.Errorf("s3store: %s: %w: %w", doing, backends.ErrUnavailable, err)
	}
	return page, nil
}

func uploadsPage(bucket string, out *s3.ListMultipartUploadsOutput) (*backends.UploadsPage, error) {
	page := &backends.UploadsPage{Truncated: deref(out.IsTruncated)}
	names := decoder{encoded: out.EncodingType == types.EncodingTypeUrl}
	for _, u := range out.Uploads {
		page.Uploads = append(page.Uploads, backends.Upload{
			UploadID: backends.UploadID{Bucket: bucket, Key: names.decode(u.Key), ID: deref(u.UploadId)},
			Started:  deref(u.Initiated),
		})
	}
	for _, p := range out.CommonPrefixes {
		page.Prefixes = append(page.Prefixes, names.decode(p.Prefix))
	}
	if page.Truncated {
		page.NextKey, page.NextIDMarker = names.decode(out.NextKeyMarker), deref(out.NextUploadIdMarker)
	}
	if out.Bucket == nil {
		names.err = errors.Join(names.err, fmt.Errorf("%w: no listing", errMalformed))
	}
	return page, names.err
}

func (s *Store) checkUpload(id backends.UploadID) error {
	// As a path, the ID is one that MinIO looks for among its files.
	if slices.ContainsFunc(strings.Split(id.ID, "/"), func(s string) bool { return s == "" || s == "." || s == ".." }) {
		return fmt.Errorf("%w: ID %.80q", backends.ErrUploadNotFound, id.ID)
	}
	return s.checkName(id.Bucket, id.Key)
}

// checkOrder is for servers that take a part twice (MinIO).
func checkOrder(parts []backends.Part) error {
	if len(parts) == 0 {
		return fmt.Errorf("%w: there are none", backends.ErrInvalidPart)
	}
	for i, p := range parts {
		if err := backends.CheckPartNumber(p.Number); err != nil {
			return err
		}
		if i > 0 && p.Number <= parts[i-1].Number {
			return fmt.Errorf("%w: %d follows %d", backends.ErrInvalidPart, p.Number, parts[i-1].Number)
		}
	}
	return nil
}

func part32(number int) *int32 {
	n := int32(number)
	return &n
}
