package azurestore

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blockblob"

	"chatelaine/backends"
	"chatelaine/backends/cloud"
)

// Put implements backends.Store. A body of up to 256 KiB is held in memory and sent
// again if need be; any other goes out once.
func (s *Store) Put(ctx context.Context, id backends.ObjectID, body backends.Body, opts *backends.PutOptions) (backends.Written, error) {
	doing := fmt.Sprintf("putting %q", id.Key)
	if opts == nil {
		opts = &backends.PutOptions{}
	}
	name, err := checkID(id)
	w, condErr := newWrite(opts.Conditions)
	props, attrErr := newProperties(opts.Attributes, w.own())
	if err := firstError(err, condErr, attrErr, checkSize(body.Size)); err != nil {
		return backends.Written{}, fmt.Errorf("azurestore: %s: %w", doing, err)
	}
	at := place{id.Bucket, name}
	written, err := w.settle(ctx, s, at, func() (backends.Written, error) { return s.upload(ctx, at, body, props, w) })
	return written, wrap(ctx, doing, err)
}

// place is a blob.
type place struct{ bucket, name string }

// upload writes a blob in one request. One that arrived damaged is removed again.
func (s *Store) upload(ctx context.Context, at place, body backends.Body, props properties, w write) (backends.Written, error) {
	p, err := s.newPayload(body)
	if err != nil {
		return backends.Written{}, &cloud.BodyError{Err: err}
	}
	reader, validation := p.body()
	out, err := s.blob(at.bucket, at.name).Upload(p.context(ctx), reader, &blockblob.UploadOptions{
		Metadata: props.metadata, HTTPHeaders: props.headers, Tags: props.tags, AccessConditions: w.conditions(), TransactionalValidation: validation,
	})
	err = p.finish(out.ContentCRC64, err)
	if errors.Is(err, cloud.ErrDamaged) {
		err = cloud.Join(err, s.removeIf(ctx, at, out.ETag))
	}
	if err != nil {
		return backends.Written{}, err
	}
	return backends.Written{ETag: etagOf(out.ETag), Modified: deref(out.LastModified)}, nil
}

func (s *Store) removeIf(ctx context.Context, at place, etag *azcore.ETag) error {
	_, err := s.blob(at.bucket, at.name).Delete(ctx, &blob.DeleteOptions{AccessConditions: ifMatch(deref(etag))})
	return err
}

// write is a write with conditions or without. One with conditions leaves a mark in the
// metadata, by which it is recognised where its answer was lost.
type write struct {
	match *azcore.ETag
	fresh bool // If-None-Match: *
	mark  string
}

// newWrite takes what Azure can check: one ETag, or that there is nothing.
func newWrite(c backends.Conditions) (write, error) {
	if err := cloud.CheckConditions(c); err != nil {
		return write{}, err
	}
	w := write{fresh: len(c.IfNoneMatch) == 1}
	if len(c.IfMatch) == 1 {
		etag := quote(c.IfMatch[0])
		w.match = &etag
	}
	if w.conditional() {
		w.mark = rand.Text()
	}
	return w, nil
}

func (w write) conditional() bool { return w.fresh || w.match != nil }

func (w write) own() map[string]string {
	if w.mark == "" {
		return nil
	}
	return map[string]string{markName: w.mark}
}

func (w write) conditions() *blob.AccessConditions {
	switch {
	case w.fresh:
		any := azcore.ETagAny
		return &blob.AccessConditions{ModifiedAccessConditions: &blob.ModifiedAccessConditions{IfNoneMatch: &any}}
	case w.match != nil:
		return ifMatch(*w.match)
	}
	return nil
}

// settle runs a write. Where it fails and has a mark, the blob is looked at: an attempt
// that was applied before, and whose answer was lost, looks like somebody else's change.
func (w write) settle(ctx context.Context, s *Store, at place, do func() (backends.Written, error)) (backends.Written, error) {
	written, err := do()
	var body *cloud.BodyError
	if err == nil || w.mark == "" || errors.As(err, &body) || errors.Is(err, cloud.ErrDamaged) || ctx.Err() != nil {
		return written, err
	}
	out, headErr := s.blob(at.bucket, at.name).GetProperties(ctx, nil)
	if headErr != nil || own(out.Metadata, markName) != w.mark {
		return backends.Written{}, err
	}
	return backends.Written{ETag: etagOf(out.ETag), Modified: deref(out.LastModified)}, nil
}

// Get implements backends.Store. Azure knows no ranges that count from the end: for one
// the blob is looked at first, and pinned to its ETag.
func (s *Store) Get(ctx context.Context, id backends.ObjectID, opts *backends.GetOptions) (*backends.Object, error) {
	doing := fmt.Sprintf("getting %q", id.Key)
	if opts == nil {
		opts = &backends.GetOptions{}
	}
	name, err := checkID(id)
	if err != nil {
		return nil, fmt.Errorf("azurestore: %s: %w", doing, err)
	}
	r, pin, err := s.absolute(ctx, id, opts.Range)
	if err != nil {
		return nil, wrap(ctx, doing, err)
	}
	out, err := s.blob(id.Bucket, name).DownloadStream(ctx, &blob.DownloadStreamOptions{Range: r, AccessConditions: pin})
	if err != nil {
		return nil, wrap(ctx, doing, err)
	}
	obj, err := object(ctx, id.Key, out)
	if err == nil {
		err = opts.Conditions.CheckRead(obj.ETag, obj.Modified)
	}
	if err != nil {
		_ = out.Body.Close()
		return nil, fmt.Errorf("azurestore: %s: %w", doing, err)
	}
	return obj, nil
}

// absolute is r as Azure takes it. A Count of 0 means up to the end.
func (s *Store) absolute(ctx context.Context, id backends.ObjectID, r *backends.Range) (blob.HTTPRange, *blob.AccessConditions, error) {
	switch {
	case r == nil:
		return blob.HTTPRange{}, nil, nil
	case r.Offset >= 0 && r.Length == 0:
		return blob.HTTPRange{}, nil, &backends.RangeError{Size: -1}
	case r.Offset > 0 && (r.Length < 0 || r.Offset+r.Length < 0):
		return blob.HTTPRange{Offset: r.Offset}, nil, nil
	case r.Offset >= 0 && r.Length > 0:
		return blob.HTTPRange{Offset: r.Offset, Count: r.Length}, nil, nil
	}
	info, err := s.Head(ctx, id, nil)
	if err != nil {
		return blob.HTTPRange{}, nil, err
	}
	abs, err := r.Clip(info.Size)
	return blob.HTTPRange{Offset: abs.Offset, Count: abs.Length}, ifMatch(quote(info.ETag)), err
}

func object(ctx context.Context, key string, out blob.DownloadStreamResponse) (*backends.Object, error) {
	if out.ContentLength == nil || out.ETag == nil {
		return nil, fmt.Errorf("%w: %w: no length or ETag", backends.ErrUnavailable, cloud.ErrMalformed)
	}
	rng, size, err := extent(deref(out.ContentRange), *out.ContentLength)
	if err != nil {
		return nil, err
	}
	return &backends.Object{
		Info: backends.Info{
			Key: key, Size: size, ETag: etagOf(out.ETag), Modified: deref(out.LastModified), TagCount: int(deref(out.TagCount)),
			Attributes: backends.Attributes{ContentType: deref(out.ContentType), Metadata: metadataOf(out.Metadata)},
		},
		Range: rng,
		Body:  &cloud.Answer{Body: out.Body, Left: rng.Length, Wrap: func(err error) error { return wrap(ctx, "reading an object", err) }},
	}, nil
}

// extent is what an answer's body covers, and the size of the blob. Azurite answers a
// range that begins at the end with "bytes 5-4/5".
func extent(contentRange string, length int64) (backends.Range, int64, error) {
	if contentRange == "" {
		return backends.Range{Length: length}, length, nil
	}
	span, total, _ := strings.Cut(strings.TrimPrefix(contentRange, "bytes "), "/")
	from, to, _ := strings.Cut(span, "-")
	first, err1 := strconv.ParseInt(from, 10, 64)
	last, err2 := strconv.ParseInt(to, 10, 64)
	size, err3 := strconv.ParseInt(total, 10, 64)
	switch {
	case firstError(err1, err2, err3) == nil && first == size && last == size-1:
		return backends.Range{}, 0, &backends.RangeError{Size: size}
	case firstError(err1, err2, err3) != nil, first < 0, last >= size, last-first+1 != length:
		return backends.Range{}, 0, fmt.Errorf("%w: %w: %d bytes for range %.80q", backends.ErrUnavailable, cloud.ErrMalformed, length, contentRange)
	}
	return backends.Range{Offset: first, Length: length}, size, nil
}

// Head implements backends.Store.
func (s *Store) Head(ctx context.Context, id backends.ObjectID, opts *backends.GetOptions) (backends.Info, error) {
	doing := fmt.Sprintf("looking at %q", id.Key)
	if opts == nil {
		opts = &backends.GetOptions{}
	}
	name, err := checkID(id)
	if err != nil {
		return backends.Info{}, fmt.Errorf("azurestore: %s: %w", doing, err)
	}
	out, err := s.blob(id.Bucket, name).GetProperties(ctx, nil)
	if err != nil {
		return backends.Info{}, wrap(ctx, doing, err)
	}
	info := backends.Info{
		Key: id.Key, Size: deref(out.ContentLength), ETag: etagOf(out.ETag), Modified: deref(out.LastModified), TagCount: int(deref(out.TagCount)),
		Attributes: backends.Attributes{ContentType: deref(out.ContentType), Metadata: metadataOf(out.Metadata)},
	}
	if out.ContentLength == nil || out.ETag == nil {
		return backends.Info{}, fmt.Errorf("azurestore: %s: %w: %w: no length or ETag", doing, backends.ErrUnavailable, cloud.ErrMalformed)
	}
	if err := opts.Conditions.CheckRead(info.ETag, info.Modified); err != nil {
		return backends.Info{}, fmt.Errorf("azurestore: %s: %w", doing, err)
	}
	return info, nil
}

// Delete implements backends.Store. With a condition it goes out once.
func (s *Store) Delete(ctx context.Context, id backends.ObjectID, opts *backends.DeleteOptions) (backends.Deleted, error) {
	doing := fmt.Sprintf("deleting %q", id.Key)
	if opts == nil {
		opts = &backends.DeleteOptions{}
	}
	name, err := checkID(id)
	if errors.Is(err, backends.ErrVersionNotFound) {
		return backends.Deleted{Version: id.Version}, nil
	}
	w, condErr := newWrite(opts.Conditions)
	if w.fresh {
		condErr = backends.ErrUnsupported
	}
	if err := firstError(err, condErr); err != nil {
		return backends.Deleted{}, fmt.Errorf("azurestore: %s: %w", doing, err)
	}
	under := ctx
	if w.conditional() {
		under = once(ctx)
	}
	_, err = s.blob(id.Bucket, name).Delete(under, &blob.DeleteOptions{AccessConditions: w.conditions()})
	if err = wrap(ctx, doing, err); errors.Is(err, backends.ErrNotFound) && !w.conditional() {
		err = nil
	}
	return backends.Deleted{}, err
}

func checkSize(size int64) error {
	if size > maxPut {
		return fmt.Errorf("%w: %d bytes, at most %d", backends.ErrTooLarge, size, int64(maxPut))
	}
	return nil
}

// etagOf is an ETag as the contract has it: Azure quotes it in headers and not in lists.
func etagOf(etag *azcore.ETag) string { return strings.Trim(string(deref(etag)), `"`) }

func quote(etag string) azcore.ETag {
	if etag == "*" {
		return azcore.ETagAny
	}
	return azcore.ETag(`"` + etag + `"`)
}

func ifMatch(etag azcore.ETag) *blob.AccessConditions {
	return &blob.AccessConditions{ModifiedAccessConditions: &blob.ModifiedAccessConditions{IfMatch: &etag}}
}
