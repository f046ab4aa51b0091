package gcsstore

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"

	"cloud.google.com/go/storage"

	"chatelaine/backends"
	"chatelaine/backends/cloud"
)

// Put implements backends.Store. Up to 8 MiB of the body are held in memory.
func (s *Store) Put(ctx context.Context, id backends.ObjectID, body backends.Body, opts *backends.PutOptions) (backends.Written, error) {
	ctx, doing := withBudget(ctx), fmt.Sprintf("putting %q", id.Key)
	if opts == nil {
		opts = &backends.PutOptions{}
	}
	at, err := checkID(id)
	props, attrErr := newProperties(opts.Attributes)
	if err := firstError(err, attrErr); err != nil {
		return backends.Written{}, wrap(ctx, doing, err)
	}
	w, err := s.newWrite(ctx, at, opts.Conditions)
	if err != nil {
		return backends.Written{}, wrap(ctx, doing, err)
	}
	props = props.with(markName, w.mark)
	written, err := w.settle(ctx, s, at, func() (backends.Written, error) { return s.upload(ctx, at, body, props, w) })
	return written, wrap(ctx, doing, s.lost(ctx, at.bucket, err))
}

// lost is what a 404 means to who uploads: there is no such bucket, or no such session
// any more.
func (s *Store) lost(ctx context.Context, bucket string, err error) error {
	if statusOf(err) != http.StatusNotFound || cloud.Known(err) {
		return err
	}
	if probed := s.probe(ctx, bucket); probed != nil {
		return probed
	}
	return fmt.Errorf("%w: %w", backends.ErrUnavailable, errSession)
}

// Get implements backends.Store. Conditions are checked on the answer: it carries the
// generation and time of exactly the bytes that come with it.
func (s *Store) Get(ctx context.Context, id backends.ObjectID, opts *backends.GetOptions) (*backends.Object, error) {
	ctx, doing := withBudget(ctx), fmt.Sprintf("getting %q", id.Key)
	if opts == nil {
		opts = &backends.GetOptions{}
	}
	at, err := checkID(id)
	if err != nil {
		return nil, wrap(ctx, doing, err)
	}
	obj, err := s.read(ctx, s.object(at), opts.Range)
	if err != nil {
		return nil, wrap(ctx, doing, s.missing(ctx, err, id.Bucket))
	}
	obj.Key = id.Key
	if err := opts.Conditions.CheckRead(obj.ETag, obj.Modified); err != nil {
		_ = obj.Body.Close()
		return nil, wrap(ctx, doing, err)
	}
	return obj, nil
}

// read opens a range of an object, which comes with the object's attributes. The SDK
// compares the CRC32C of what comes whole. Bytes come as they are stored: the service
// would unpack what others have put there with gzip, all of it whatever the range.
func (s *Store) read(ctx context.Context, o *storage.ObjectHandle, r *backends.Range) (*backends.Object, error) {
	offset, length, err := absolute(r)
	if err != nil {
		return nil, err
	}
	in, err := o.ReadCompressed(true).NewRangeReader(ctx, offset, length)
	if err != nil {
		return nil, err
	}
	rng := backends.Range{Offset: in.Attrs.StartOffset, Length: in.Remain()}
	switch {
	case in.Attrs.Generation <= 0 || rng.Length < 0 || rng.Offset+rng.Length > in.Attrs.Size:
		err = fmt.Errorf("%w: %w: generation %d, range %+v of %d bytes", backends.ErrUnavailable, cloud.ErrMalformed, in.Attrs.Generation, rng, in.Attrs.Size)
	case r != nil && in.Attrs.Size == 0:
		err = &backends.RangeError{}
	}
	if err != nil {
		_ = in.Close()
		return nil, err
	}
	return &backends.Object{
		Info: backends.Info{
			Size: in.Attrs.Size, ETag: etagOf(in.Attrs.Generation), Modified: in.Attrs.LastModified,
			Attributes: backends.Attributes{ContentType: in.Attrs.ContentType, Metadata: metadataOf(in.Metadata())},
			Headers:    answerHeaders(answered(ctx)),
		},
		Range: rng,
		// The SDK asks again for the rest of an answer that is cut, of the same generation.
		Body: &cloud.Answer{Body: in, Left: rng.Length, Wrap: func(err error) error { return wrap(ctx, "reading an object", err) }},
	}, nil
}

// absolute is r as the SDK takes it: a length below 0 means up to the end, an offset
// below 0 one that counts from there.
func absolute(r *backends.Range) (offset, length int64, err error) {
	switch {
	case r == nil:
		return 0, -1, nil
	case r.Offset >= 0 && r.Length == 0:
		return 0, 0, &backends.RangeError{Size: -1}
	case r.Offset < 0, r.Length < 0, r.Length > math.MaxInt64-r.Offset:
		return r.Offset, -1, nil
	}
	return r.Offset, r.Length, nil
}

// Head implements backends.Store. It does not tell an object that is missing from a
// bucket that is.
func (s *Store) Head(ctx context.Context, id backends.ObjectID, opts *backends.GetOptions) (backends.Info, error) {
	ctx, doing := withBudget(ctx), fmt.Sprintf("looking at %q", id.Key)
	if opts == nil {
		opts = &backends.GetOptions{}
	}
	at, err := checkID(id)
	if err != nil {
		return backends.Info{}, wrap(ctx, doing, err)
	}
	attrs, err := s.object(at).Attrs(ctx)
	if err != nil {
		return backends.Info{}, wrap(ctx, doing, err)
	}
	info := infoOf(attrs)
	info.Attributes.ContentType, info.Headers = attrs.ContentType, headersOf(attrs)
	if err := opts.Conditions.CheckRead(info.ETag, info.Modified); err != nil {
		return backends.Info{}, wrap(ctx, doing, err)
	}
	return info, nil
}

func infoOf(attrs *storage.ObjectAttrs) backends.Info {
	return backends.Info{
		Key: attrs.Name, Size: attrs.Size, ETag: etagOf(attrs.Generation), Modified: attrs.Updated,
		Attributes: backends.Attributes{Metadata: metadataOf(attrs.Metadata)},
	}
}

// Delete implements backends.Store. With a condition it goes out once.
func (s *Store) Delete(ctx context.Context, id backends.ObjectID, opts *backends.DeleteOptions) (backends.Deleted, error) {
	ctx, doing := withBudget(ctx), fmt.Sprintf("deleting %q", id.Key)
	if opts == nil {
		opts = &backends.DeleteOptions{}
	}
	at, err := checkID(id)
	if errors.Is(err, backends.ErrVersionNotFound) {
		return backends.Deleted{Version: id.Version}, nil
	}
	if len(opts.Conditions.IfNoneMatch) > 0 {
		err = firstError(err, backends.ErrUnsupported)
	}
	if err != nil {
		return backends.Deleted{}, wrap(ctx, doing, err)
	}
	w, err := s.newWrite(ctx, at, opts.Conditions)
	if err != nil {
		return backends.Deleted{}, wrap(ctx, doing, err)
	}
	return backends.Deleted{}, wrap(ctx, doing, s.delete(ctx, at, w, opts.Conditions))
}

func (s *Store) delete(ctx context.Context, at place, w write, c backends.Conditions) error {
	o := s.object(at)
	if w.conditional() {
		o = w.guard(o).Retryer(once())
	}
	err := o.Delete(ctx)
	switch statusOf(err) {
	case http.StatusPreconditionFailed:
		if _, checked := s.checkWrite(ctx, at, c); checked != nil {
			return checked
		}
	case http.StatusNotFound:
		if probed := s.probe(ctx, at.bucket); probed != nil {
			return probed
		}
		if !w.conditional() {
			return nil
		}
	}
	return err
}
