package s3store

import (
	"cmp"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"chatelaine/backends"
)

// Versioning implements backends.Versioner.
func (s *Store) Versioning(ctx context.Context, bucket string) (backends.Versioning, error) {
	doing := fmt.Sprintf("reading the versioning of bucket %q", bucket)
	if err := backends.CheckBucket(bucket); err != nil {
		return "", fmt.Errorf("s3store: %s: %w", doing, err)
	}
	out, err := s.client.GetBucketVersioning(ctx, &s3.GetBucketVersioningInput{Bucket: &bucket})
	if err != nil {
		return "", wrap(ctx, doing, backends.ErrBucketNotFound, err)
	}
	if out.Status == "" {
		return backends.VersioningOff, s.HeadBucket(ctx, bucket) // MinIO says so of one that is not there
	}
	return backends.Versioning(out.Status), nil
}

// SetVersioning implements backends.Versioner. MinIO takes it of a bucket that is not
// there.
func (s *Store) SetVersioning(ctx context.Context, bucket string, v backends.Versioning) error {
	doing := fmt.Sprintf("setting the versioning of bucket %q", bucket)
	if err := backends.CheckBucket(bucket); err != nil {
		return fmt.Errorf("s3store: %s: %w", doing, err)
	}
	err := backends.LockConfig{}.CheckVersioning(v)
	if err == nil {
		err = s.mustExist(ctx, bucket)
	}
	if err != nil {
		return fmt.Errorf("s3store: %s: %w", doing, err)
	}
	_, err = s.client.PutBucketVersioning(ctx, &s3.PutBucketVersioningInput{
		Bucket:                  &bucket,
		VersioningConfiguration: &types.VersioningConfiguration{Status: types.BucketVersioningStatus(v)},
	})
	return wrap(ctx, doing, backends.ErrBucketNotFound, err)
}

// ListVersions implements backends.Versioner. A page may be short of its limit where
// KeyMarker is within a common prefix.
func (s *Store) ListVersions(ctx context.Context, bucket string, opts *backends.ListVersionsOptions) (*backends.VersionsPage, error) {
	doing := fmt.Sprintf("listing the versions of bucket %q", bucket)
	if opts == nil {
		opts = &backends.ListVersionsOptions{}
	}
	if err := backends.CheckBucket(bucket); err != nil {
		return nil, fmt.Errorf("s3store: %s: %w", doing, err)
	}
	doc := &versionsDocument{}
	_, err := s.client.ListObjectVersions(ctx, &s3.ListObjectVersionsInput{
		Bucket:          &bucket,
		Prefix:          optional(opts.Prefix),
		Delimiter:       optional(opts.Delimiter),
		KeyMarker:       optional(opts.KeyMarker),
		VersionIdMarker: optional(opts.VersionMarker),
		MaxKeys:         pageLimit(opts.Limit),
		EncodingType:    types.EncodingTypeUrl,
	}, doc.options)
	if err != nil {
		return nil, wrap(ctx, doing, backends.ErrBucketNotFound, err)
	}
	page, err := doc.page(opts.KeyMarker)
	if err != nil {
		return nil, fmt.Errorf("s3store: %s: %w: %w", doing, backends.ErrUnavailable, err)
	}
	return page, nil
}

// versionsDocument is a ListVersionsResult (API reference, ListObjectVersions). The
// SDK keeps versions and delete markers apart, and so loses which of two that are of
// the same second is the newer. As a middleware this takes the document instead.
type versionsDocument struct {
	Name                *string
	EncodingType        types.EncodingType
	IsTruncated         bool
	NextKeyMarker       string
	NextVersionIDMarker string `xml:"NextVersionIdMarker"`
	CommonPrefixes      []struct{ Prefix string }
	Rows                []versionRow `xml:",any"`
}

// versionRow is one of the document's other elements. Those that are no rows have
// another name.
type versionRow struct {
	XMLName      xml.Name
	Key          string
	Version      string `xml:"VersionId"`
	IsLatest     bool
	LastModified time.Time
	ETag         string
	Size         int64
	StorageClass string
}

const (
	versionElement = "Version"
	markerElement  = "DeleteMarker"
)

func (d *versionsDocument) options(o *s3.Options) {
	o.APIOptions = append(o.APIOptions, func(stack *middleware.Stack) error {
		return stack.Deserialize.Insert(d, "OperationDeserializer", middleware.After)
	})
}

// ID implements middleware.DeserializeMiddleware.
func (*versionsDocument) ID() string { return "chatelaine:versions" }

// HandleDeserialize implements middleware.DeserializeMiddleware.
func (d *versionsDocument) HandleDeserialize(ctx context.Context, in middleware.DeserializeInput, next middleware.DeserializeHandler) (
	middleware.DeserializeOutput, middleware.Metadata, error,
) {
	out, metadata, err := next.HandleDeserialize(ctx, in)
	resp, ok := out.RawResponse.(*smithyhttp.Response)
	if err != nil || !ok || resp.StatusCode != http.StatusOK {
		return out, metadata, err
	}
	*d = versionsDocument{} // of an earlier attempt
	err = xml.NewDecoder(resp.Body).Decode(d)
	_, _ = io.Copy(io.Discard, resp.Body) // what is left would cost the connection
	err = errors.Join(err, resp.Body.Close())
	if err != nil {
		err = &smithy.DeserializationError{Err: err}
	}
	resp.Body = io.NopCloser(strings.NewReader("<ListVersionsResult/>"))
	return out, metadata, err
}

// page trusts the document only if it names its bucket, and drops the common prefix
// that the marker is within, as objectsPage does.
func (d *versionsDocument) page(after string) (*backends.VersionsPage, error) {
	page := &backends.VersionsPage{Truncated: d.IsTruncated}
	names := decoder{encoded: d.EncodingType == types.EncodingTypeUrl}
	for _, r := range d.Rows {
		if r.XMLName.Local == versionElement || r.XMLName.Local == markerElement {
			page.Versions = append(page.Versions, r.info(names.decode(&r.Key)))
		}
	}
	last := ""
	for _, p := range d.CommonPrefixes {
		last = names.decode(&p.Prefix)
		if last > after {
			page.Prefixes = append(page.Prefixes, last)
		}
	}
	if d.IsTruncated {
		page.NextKey, page.NextVersionMark = d.next(page.Versions, last, names.decode(&d.NextKeyMarker))
	}
	if d.Name == nil || d.IsTruncated && page.NextKey == "" {
		names.err = errors.Join(names.err, fmt.Errorf("%w: a listing without bucket or without its next marker", errMalformed))
	}
	return page, names.err
}

// next is the last row of the page. The server's own marker counts only where there
// is none: MinIO's carries notes to itself, which would reach clients as a key.
func (d *versionsDocument) next(rows []backends.VersionInfo, prefix, marker string) (key, version string) {
	if len(rows) > 0 && rows[len(rows)-1].Key > prefix {
		return rows[len(rows)-1].Key, rows[len(rows)-1].Version
	}
	return cmp.Or(prefix, marker), ""
}

func (r *versionRow) info(key string) backends.VersionInfo {
	v := backends.VersionInfo{Latest: r.IsLatest, Marker: r.XMLName.Local == markerElement}
	v.Key, v.Version, v.Modified = key, r.Version, r.LastModified
	if !v.Marker {
		v.Size, v.ETag, v.Class = r.Size, unquote(r.ETag), r.StorageClass
	}
	return v
}
