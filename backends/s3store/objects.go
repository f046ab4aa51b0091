package s3store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"chatelaine/backends"
)

// Put implements backends.Store. A body of up to 64 KiB is held in memory and sent
// again if need be, unless there are conditions; any other goes out once.
func (s *Store) Put(ctx context.Context, id backends.ObjectID, body backends.Body, opts *backends.PutOptions) (backends.Written, error) {
	doing := fmt.Sprintf("putting %q", id.Key)
	if opts == nil {
		opts = &backends.PutOptions{}
	}
	attrs := opts.Attributes
	match, noneMatch, err := writeConditions(opts.Conditions)
	err = firstError(s.checkName(id.Bucket, id.Key), err, refused(match, s.cfg.dialect.IfMatch), refused(noneMatch, s.cfg.dialect.IfNoneMatch),
		attrs.Check(), checkSize(body.Size))
	if err == nil {
		attrs, err = s.settled(ctx, id.Bucket, attrs)
	}
	if err != nil {
		return backends.Written{}, fmt.Errorf("s3store: %s: %w", doing, err)
	}
	in := putInput(id, attrs)
	in.IfMatch, in.IfNoneMatch = match, noneMatch
	var out *s3.PutObjectOutput
	err = s.send(ctx, doing, backends.ErrBucketNotFound, body, func(o ...func(*s3.Options)) (err error) {
		if !opts.Conditions.IsZero() {
			o = append(o, once)
		}
		out, err = s.client.PutObject(ctx, in, o...)
		return s.collided(ctx, id, err)
	})
	if err != nil {
		return backends.Written{}, err
	}
	return backends.Written{ETag: unquote(deref(out.ETag)), Version: deref(out.VersionId)}, nil
}

func putInput(id backends.ObjectID, attrs backends.Attributes) *s3.PutObjectInput {
	return &s3.PutObjectInput{
		Bucket:      &id.Bucket,
		Key:         &id.Key,
		ContentType: optional(attrs.ContentType),
		Metadata:    attrs.Metadata,
		Tagging:     tagging(attrs.Tags),

		ObjectLockMode:            types.ObjectLockMode(attrs.Lock.Mode),
		ObjectLockRetainUntilDate: optional(attrs.Lock.Until),
		ObjectLockLegalHoldStatus: holdHeader(attrs.Lock),
	}
}

// send runs a call that carries a body. The body's own error wins over what became
// of the connection because of it.
func (s *Store) send(ctx context.Context, doing string, missing error, body backends.Body, call func(...func(*s3.Options)) error) error {
	p, err := newPayload(body, s.cfg.Checksum, &s.small)
	defer p.release(&s.small)
	if err != nil {
		return fmt.Errorf("s3store: %s: reading the body: %w", doing, err)
	}
	options := []func(*s3.Options){p.options}
	if p.small == nil {
		options = append(options, once)
	}
	err = call(options...)
	switch {
	case p.source.err != nil:
		return fmt.Errorf("s3store: %s: reading the body: %w", doing, p.source.err)
	case err == nil && !p.source.done:
		return fmt.Errorf("s3store: %s: %w: %w", doing, backends.ErrUnavailable, errUnread)
	}
	return wrap(ctx, doing, missing, err)
}

// Get implements backends.Store.
func (s *Store) Get(ctx context.Context, id backends.ObjectID, opts *backends.GetOptions) (*backends.Object, error) {
	doing := fmt.Sprintf("getting %q", id.Key)
	if opts == nil {
		opts = &backends.GetOptions{}
	}
	rng, err := rangeHeader(opts.Range)
	if err := firstError(s.checkName(id.Bucket, id.Key), err); err != nil {
		return nil, fmt.Errorf("s3store: %s: %w", doing, err)
	}
	cond, local := s.readConditions(opts.Conditions)
	out, err := s.client.GetObject(ctx, &s3.GetObjectInput{
		Bucket: &id.Bucket, Key: &id.Key, VersionId: optional(id.Version), Range: rng,
		IfMatch: cond.match, IfNoneMatch: cond.noneMatch,
		IfModifiedSince: cond.modifiedSince, IfUnmodifiedSince: cond.unmodifiedSince,
	}, func(o *s3.Options) { o.HTTPClient = s.streaming })
	if err != nil {
		return nil, wrap(ctx, doing, missing(id), err)
	}
	obj, err := object(ctx, id, out)
	if err == nil {
		err = local.CheckRead(obj.ETag, obj.Modified)
	}
	if err != nil {
		out.Body.Close()
		return nil, fmt.Errorf("s3store: %s: %w", doing, err)
	}
	return obj, nil
}

// object is an answer to Get. MinIO does not repeat the version null.
func object(ctx context.Context, id backends.ObjectID, out *s3.GetObjectOutput) (*backends.Object, error) {
	rng, size, err := extent(deref(out.ContentRange), out.ContentLength)
	if err != nil {
		return nil, err
	}
	return &backends.Object{
		Info: backends.Info{
			Key:      id.Key,
			Version:  cmp.Or(deref(out.VersionId), id.Version),
			Size:     size,
			ETag:     unquote(deref(out.ETag)),
			Modified: deref(out.LastModified),
			Class:    string(out.StorageClass),
			TagCount: int(deref(out.TagCount)),
			Attributes: backends.Attributes{
				ContentType: deref(out.ContentType),
				Metadata:    out.Metadata,
				Lock:        lockOf(out.ObjectLockMode, out.ObjectLockRetainUntilDate, out.ObjectLockLegalHoldStatus),
			},
			Headers: backends.Headers{
				ContentEncoding: deref(out.ContentEncoding), ContentDisposition: deref(out.ContentDisposition), ContentLanguage: deref(out.ContentLanguage),
				CacheControl: deref(out.CacheControl), Expires: deref(out.ExpiresString), Redirect: deref(out.WebsiteRedirectLocation),
			},
		},
		Range: rng,
		Body:  &body{ctx: ctx, rc: out.Body, left: rng.Length},
	}, nil
}

// body yields exactly what the answer's header promised, or an error.
type body struct {
	ctx  context.Context //nolint:containedctx // the one that the request runs under, to tell why a Read failed
	rc   io.ReadCloser
	left int64
}

func (b *body) Read(p []byte) (int, error) {
	if b.left == 0 {
		return 0, io.EOF
	}
	n, err := b.rc.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	switch {
	case b.left == 0:
		return n, io.EOF
	case err == nil:
		return n, nil
	case err == io.EOF, err == io.ErrUnexpectedEOF: //nolint:errorlint // both come bare
		return n, fmt.Errorf("s3store: reading an object: %d bytes are missing: %w: %w", b.left, backends.ErrUnavailable, io.ErrUnexpectedEOF)
	}
	return n, fmt.Errorf("s3store: reading an object: %w", classify(b.ctx, backends.ErrNotFound, err))
}

func (b *body) Close() error { return b.rc.Close() }

// Head implements backends.Store.
func (s *Store) Head(ctx context.Context, id backends.ObjectID, opts *backends.GetOptions) (backends.Info, error) {
	doing := fmt.Sprintf("looking at %q", id.Key)
	if opts == nil {
		opts = &backends.GetOptions{}
	}
	if err := s.checkName(id.Bucket, id.Key); err != nil {
		return backends.Info{}, fmt.Errorf("s3store: %s: %w", doing, err)
	}
	cond, local := s.readConditions(opts.Conditions)
	out, err := s.client.HeadObject(ctx, &s3.HeadObjectInput{
		Bucket: &id.Bucket, Key: &id.Key, VersionId: optional(id.Version),
		IfMatch: cond.match, IfNoneMatch: cond.noneMatch,
		IfModifiedSince: cond.modifiedSince, IfUnmodifiedSince: cond.unmodifiedSince,
	})
	if err != nil {
		return backends.Info{}, wrap(ctx, doing, missing(id), s.reasonOfHead(ctx, id, err))
	}
	if out.ContentLength == nil {
		return backends.Info{}, fmt.Errorf("s3store: %s: %w: %w: no length", doing, backends.ErrUnavailable, errMalformed)
	}
	info := backends.Info{
		Key:      id.Key,
		Version:  cmp.Or(deref(out.VersionId), id.Version),
		Size:     *out.ContentLength,
		ETag:     unquote(deref(out.ETag)),
		Modified: deref(out.LastModified),
		Class:    string(out.StorageClass),
		TagCount: int(deref(out.TagCount)),
		Attributes: backends.Attributes{
			ContentType: deref(out.ContentType),
			Metadata:    out.Metadata,
			Lock:        lockOf(out.ObjectLockMode, out.ObjectLockRetainUntilDate, out.ObjectLockLegalHoldStatus),
		},
		Headers: backends.Headers{
			ContentEncoding: deref(out.ContentEncoding), ContentDisposition: deref(out.ContentDisposition), ContentLanguage: deref(out.ContentLanguage),
			CacheControl: deref(out.CacheControl), Expires: deref(out.ExpiresString), Redirect: deref(out.WebsiteRedirectLocation),
		},
	}
	if err := local.CheckRead(info.ETag, info.Modified); err != nil {
		return backends.Info{}, fmt.Errorf("s3store: %s: %w", doing, err)
	}
	return info, nil
}

// Foreign implements backends.Foreigner: keys and attributes are S3's own.
func (s *Store) Foreign(ctx context.Context, bucket string) error { return s.HeadBucket(ctx, bucket) }

// reasonOfHead finds out why a server refused a HEAD as malformed, by a GET, whose
// answer has a body to say so: a name that this server cannot hold and a wrong region
// look alike otherwise.
func (s *Store) reasonOfHead(ctx context.Context, id backends.ObjectID, err error) error {
	resp := answered(err)
	if resp == nil || resp.StatusCode != http.StatusBadRequest || resp.Header.Get("X-Minio-Error-Code") != "" {
		return err
	}
	first := "bytes=0-0"
	out, getErr := s.client.GetObject(ctx, &s3.GetObjectInput{Bucket: &id.Bucket, Key: &id.Key, VersionId: optional(id.Version), Range: &first})
	if getErr != nil {
		return getErr
	}
	_ = out.Body.Close()
	return err
}

// Delete implements backends.Store. With a condition it is ErrUnsupported where the
// server would ignore it (Config.ConditionalDelete), and goes out once.
func (s *Store) Delete(ctx context.Context, id backends.ObjectID, opts *backends.DeleteOptions) (backends.Deleted, error) {
	doing := fmt.Sprintf("deleting %q", id.Key)
	if opts == nil {
		opts = &backends.DeleteOptions{}
	}
	match, noneMatch, err := writeConditions(opts.Conditions)
	if noneMatch != nil || match != nil && !s.cfg.ConditionalDelete {
		err = backends.ErrUnsupported
	}
	if err := firstError(s.checkName(id.Bucket, id.Key), err); err != nil {
		return backends.Deleted{}, fmt.Errorf("s3store: %s: %w", doing, err)
	}
	var options []func(*s3.Options)
	if match != nil {
		options = append(options, once)
	}
	out, err := s.client.DeleteObject(ctx, &s3.DeleteObjectInput{
		Bucket: &id.Bucket, Key: &id.Key, VersionId: optional(id.Version), IfMatch: match,
		BypassGovernanceRetention: optional(opts.BypassGovernance),
	}, options...)
	gone := hasCode(err, "NoSuchKey") // versitygw, when others delete it as well
	err = wrap(ctx, doing, backends.ErrNotFound, err)
	if match == nil && (gone || errors.Is(err, backends.ErrVersionNotFound)) {
		return backends.Deleted{Version: id.Version}, nil
	}
	if err != nil {
		return backends.Deleted{}, err
	}
	return backends.Deleted{Version: deref(out.VersionId), Marker: deref(out.DeleteMarker)}, nil
}

func (s *Store) checkName(bucket, key string) error {
	if strings.HasPrefix(key, "/") && !s.cfg.LeadingSlash {
		return fmt.Errorf("%w: %.80q: the server may take it for the key without the slash", backends.ErrInvalidName, key)
	}
	if s.cfg.dialect.PathKeys == Yes && !isPath(key) {
		return fmt.Errorf("%w: %.80q: the server's keys are paths, and it may take it for another", backends.ErrInvalidName, key)
	}
	return firstError(backends.CheckBucket(bucket), backends.CheckKey(key))
}

// isPath says whether a key is a relative path that no file system changes; it may end
// with a slash. An empty one is for CheckKey to refuse.
func isPath(key string) bool {
	return !slices.ContainsFunc(strings.Split(strings.TrimSuffix(key, "/"), "/"), func(segment string) bool {
		return segment == "" && key != "" || segment == "." || segment == ".." || len(segment) > maxSegment
	})
}

// maxSegment is what file systems take of a name, in bytes.
const maxSegment = 255

// refused is ErrUnsupported for a condition that the server does not honour.
func refused(condition *string, honoured Fact) error {
	if condition != nil && honoured == No {
		return fmt.Errorf("%w: the server does not honour this condition", backends.ErrUnsupported)
	}
	return nil
}

func checkSize(size int64) error {
	if size > maxPut {
		return fmt.Errorf("%w: %d bytes, at most %d", backends.ErrTooLarge, size, int64(maxPut))
	}
	return nil
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// writeConditions are the headers of a conditional write. S3 takes one ETag.
func writeConditions(c backends.Conditions) (match, noneMatch *string, err error) {
	if len(c.IfMatch)+len(c.IfNoneMatch) > 1 || !c.IfModifiedSince.IsZero() || !c.IfUnmodifiedSince.IsZero() {
		return nil, nil, fmt.Errorf("%w: %w", backends.ErrUnsupported, errConditions)
	}
	return etagHeader(c.IfMatch), etagHeader(c.IfNoneMatch), nil
}

type readHeaders struct {
	match, noneMatch               *string
	modifiedSince, unmodifiedSince *time.Time
}

// readConditions are the headers of a conditional read. Servers do not agree on lists
// of ETags, nor on what counts of several conditions (RFC 9110 section 13.2.2): only
// one that stands alone is sent. Any others are checked on the answer, which is as
// atomic. Then local has them; otherwise it is empty.
// So are all on a server whose answers about them are not enough (OwnConditions).
func (s *Store) readConditions(c backends.Conditions) (headers readHeaders, local backends.Conditions) {
	if len(c.IfMatch) > 0 {
		c.IfUnmodifiedSince = time.Time{}
	}
	if len(c.IfNoneMatch) > 0 {
		c.IfModifiedSince = time.Time{}
	}
	h := readHeaders{
		match: etagHeader(c.IfMatch), noneMatch: etagHeader(c.IfNoneMatch),
		modifiedSince: optional(c.IfModifiedSince), unmodifiedSince: optional(c.IfUnmodifiedSince),
	}
	guarded := h.match != nil || h.unmodifiedSince != nil
	fresh := h.noneMatch != nil || h.modifiedSince != nil
	if s.cfg.dialect.OwnConditions || guarded && fresh || len(c.IfMatch) > 1 || len(c.IfNoneMatch) > 1 {
		return readHeaders{}, c
	}
	return h, backends.Conditions{}
}

func etagHeader(etags []string) *string {
	if len(etags) == 0 {
		return nil
	}
	return optional(quote(etags[0]))
}

// rangeHeader is the header for r (RFC 9110 section 14.1.2).
func rangeHeader(r *backends.Range) (*string, error) {
	var h string
	switch {
	case r == nil:
		return nil, nil
	case r.Offset < 0:
		h = fmt.Sprintf("bytes=%d", r.Offset)
	case r.Length == 0:
		return nil, &backends.RangeError{Size: -1}
	case r.Length < 0 || r.Offset+r.Length < 0:
		h = fmt.Sprintf("bytes=%d-", r.Offset)
	default:
		h = fmt.Sprintf("bytes=%d-%d", r.Offset, r.Offset+r.Length-1)
	}
	return &h, nil
}

// extent is what an answer's body covers, and the size of the object.
func extent(contentRange string, length *int64) (backends.Range, int64, error) {
	if length == nil || *length < 0 {
		return backends.Range{}, 0, fmt.Errorf("%w: %w: no length", backends.ErrUnavailable, errMalformed)
	}
	if contentRange == "" {
		return backends.Range{Length: *length}, *length, nil
	}
	if *length == 0 && sizeOf(contentRange) == 0 {
		// MinIO, for a suffix of an empty object: 206 and "bytes 0--1/0".
		return backends.Range{}, 0, &backends.RangeError{Size: 0}
	}
	first, last, size, ok := parseContentRange(contentRange)
	if !ok || last-first+1 != *length {
		return backends.Range{}, 0, fmt.Errorf("%w: %w: %d bytes for range %.80q", backends.ErrUnavailable, errMalformed, *length, contentRange)
	}
	return backends.Range{Offset: first, Length: *length}, size, nil
}

// parseContentRange reads "bytes first-last/size" (RFC 9110 section 14.4). An
// unknown size is no good: S3 always knows.
func parseContentRange(s string) (first, last, size int64, ok bool) {
	s, ok = strings.CutPrefix(s, "bytes ")
	span, total, found := strings.Cut(s, "/")
	from, to, dash := strings.Cut(span, "-")
	if !ok || !found || !dash {
		return 0, 0, 0, false
	}
	first, err1 := parseDigits(from)
	last, err2 := parseDigits(to)
	size, err3 := parseDigits(total)
	ok = firstError(err1, err2, err3) == nil && first <= last && last < size
	return first, last, size, ok
}

// parseDigits takes digits alone, no sign.
func parseDigits(s string) (int64, error) {
	n, err := strconv.ParseUint(s, 10, 63)
	return int64(n), err
}
