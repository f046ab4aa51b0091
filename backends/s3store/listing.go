package s3store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/url"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"chatelaine/backends"
)

// List implements backends.Store. Keys are asked for url-encoded, as XML cannot
// carry all that a key may hold. A page may be one row short of its limit where
// After is within a common prefix.
func (s *Store) List(ctx context.Context, bucket string, opts *backends.ListOptions) (*backends.Page, error) {
	doing := fmt.Sprintf("listing bucket %q", bucket)
	if opts == nil {
		opts = &backends.ListOptions{}
	}
	if err := backends.CheckBucket(bucket); err != nil {
		return nil, fmt.Errorf("s3store: %s: %w", doing, err)
	}
	in := &s3.ListObjectsV2Input{
		Bucket:       &bucket,
		Prefix:       optional(opts.Prefix),
		Delimiter:    optional(opts.Delimiter),
		MaxKeys:      pageLimit(opts.Limit),
		EncodingType: types.EncodingTypeUrl,
	}
	switch {
	case opts.Token != "":
		in.ContinuationToken = &opts.Token
	case opts.After == "" && opts.Limit == 1:
		in.StartAfter = optional(below(opts.Prefix))
	default:
		in.StartAfter = optional(opts.After)
	}
	quick := &scanned{}
	out, err := s.client.ListObjectsV2(ctx, in, quick.options)
	if err != nil {
		return nil, wrap(ctx, doing, backends.ErrBucketNotFound, err)
	}
	page, err := objectsPage(cmp.Or(quick.out, out), deref(in.StartAfter))
	if err != nil {
		return nil, fmt.Errorf("s3store: %s: %w: %w", doing, backends.ErrUnavailable, err)
	}
	return page, nil
}

// objectsPage trusts an answer only if it names its bucket: to the SDK any document,
// and none, is a listing of nothing. It drops the common prefix that after is within: S3 lists it, as keys
// above after are rolled up in it.
func objectsPage(out *s3.ListObjectsV2Output, after string) (*backends.Page, error) {
	page := &backends.Page{Truncated: deref(out.IsTruncated), Token: deref(out.NextContinuationToken)}
	names := decoder{encoded: out.EncodingType == types.EncodingTypeUrl}
	page.Entries = make([]backends.Info, 0, len(out.Contents))
	for _, o := range out.Contents {
		page.Entries = append(page.Entries, backends.Info{
			Key:      names.decode(o.Key),
			Size:     deref(o.Size),
			ETag:     unquote(deref(o.ETag)),
			Modified: deref(o.LastModified),
			Class:    string(o.StorageClass),
		})
	}
	for _, p := range out.CommonPrefixes {
		if prefix := names.decode(p.Prefix); prefix > after {
			page.Prefixes = append(page.Prefixes, prefix)
		}
	}
	if out.Name == nil || page.Truncated && page.Token == "" {
		names.err = errors.Join(names.err, fmt.Errorf("%w: a listing without bucket or without its next token", errMalformed))
	}
	if !page.Truncated {
		page.Token = ""
	}
	return page, names.err
}

// below is a string that is less than prefix and all that begins with it, or empty.
// MinIO answers a listing of one key without a start with the object whose key is
// the prefix, if there is one, and says that there are no more.
func below(prefix string) string {
	if prefix == "" || prefix[0] <= ' ' || prefix[0] > '~' {
		return ""
	}
	return string(prefix[0] - 1)
}

// decoder decodes names of a listing and keeps the first error. A space comes as %20
// or, from AWS and MinIO, as +; a plus always comes as %2B.
type decoder struct {
	encoded bool // the answer says so
	err     error
}

func (d *decoder) decode(name *string) string {
	if !d.encoded {
		return deref(name)
	}
	plain, err := url.QueryUnescape(deref(name))
	if err != nil && d.err == nil {
		d.err = fmt.Errorf("%w: %w", errMalformed, err)
	}
	return plain
}

// pageLimit is nil, the server's own 1000, where there is none.
func pageLimit(limit int) *int32 {
	if limit < 1 || limit > backends.MaxPage {
		return nil
	}
	n := int32(limit)
	return &n
}
