package gcsstore

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"cloud.google.com/go/storage"

	"chatelaine/backends"
	"chatelaine/backends/cloud"
)

// attempts is how often a source is tried that others replace in between.
const attempts = 5

// Copy implements backends.Copier. The service rewrites the object: it moves no bytes
// where source and destination lie in one location, and as many requests as it takes
// otherwise.
func (s *Store) Copy(ctx context.Context, src, dst backends.ObjectID, opts *backends.CopyOptions) (backends.Written, error) {
	ctx, doing := withBudget(ctx), fmt.Sprintf("copying %q to %q", src.Key, dst.Key)
	if opts == nil {
		opts = &backends.CopyOptions{}
	}
	from, srcErr := checkID(src)
	to, dstErr := checkID(dst)
	props, attrErr := newProperties(opts.Attributes)
	if err := firstError(srcErr, dstErr, attrErr); err != nil {
		return backends.Written{}, wrap(ctx, doing, err)
	}
	w, err := s.begin(ctx, to, opts.Conditions)
	if err != nil {
		return backends.Written{}, wrap(ctx, doing, err)
	}
	props = props.of(w)
	for range attempts {
		written, err := s.copy(ctx, from, src.Version, to, opts.SourceIfMatch, props, w)
		if err == nil {
			return s.made(ctx, to, w.st, written), nil
		}
		if statusOf(err) != http.StatusNotFound || cloud.Known(err) {
			return backends.Written{}, wrap(ctx, doing, err)
		}
	}
	return backends.Written{}, wrap(ctx, doing, fmt.Errorf("%w: others write to the source", backends.ErrConflict))
}

// copy is one attempt. A 404 that is not one of the contract's errors means that the
// source was replaced in between.
func (s *Store) copy(ctx context.Context, from place, version string, to place, pin string, props properties, w write) (backends.Written, error) {
	source := s.object(from)
	st, err := s.state(ctx, from.bucket, s.lease)
	if err != nil {
		return backends.Written{}, err
	}
	if pin != "" || version != "" || st.on() {
		attrs, err := s.source(ctx, from, version, pin)
		if err != nil {
			return backends.Written{}, err
		}
		source = source.Generation(attrs.Generation)
	}
	written, err := w.settle(ctx, s, to, func() (backends.Written, error) { return s.rewrite(ctx, source, to, props, w) })
	if statusOf(err) != http.StatusNotFound || cloud.Known(err) {
		return written, err
	}
	if _, missing := s.source(ctx, from, version, pin); missing != nil {
		return backends.Written{}, missing
	}
	return backends.Written{}, firstError(s.probe(ctx, to.bucket), err)
}

// rewrite has the service copy an object. The attributes are never empty: if they were,
// the source's would be kept.
func (s *Store) rewrite(ctx context.Context, source *storage.ObjectHandle, to place, props properties, w write) (backends.Written, error) {
	c := w.guard(s.object(to)).CopierFrom(source)
	c.ContentType, c.Metadata = props.contentType, props.metadata
	attrs, err := c.Run(ctx)
	if err != nil {
		return backends.Written{}, err
	}
	return writtenOf(attrs), nil
}

// CopyPart implements backends.Copier. A range of an object goes through the gateway: the
// service copies whole objects alone.
func (s *Store) CopyPart(ctx context.Context, id backends.UploadID, number int, src backends.ObjectID, r *backends.Range, sourceIfMatch string) (backends.Part, error) {
	ctx, doing := withBudget(ctx), fmt.Sprintf("copying %q to part %d of %q", src.Key, number, id.Key)
	from, err := checkID(src)
	if err != nil {
		return backends.Part{}, wrap(ctx, doing, err)
	}
	part, err := s.uploads().NewPart(ctx, id, number, func() (backends.Part, error) {
		for range attempts {
			part, err := s.copyRange(ctx, from, src.Version, partPlace(id, number), r, sourceIfMatch, properties{contentType: anyType})
			if statusOf(err) != http.StatusNotFound || cloud.Known(err) {
				return part, err
			}
		}
		return backends.Part{}, fmt.Errorf("%w: others write to the source", backends.ErrConflict)
	})
	return part, wrap(ctx, doing, err)
}

// copyRange is one attempt, as copy.
func (s *Store) copyRange(ctx context.Context, from place, version string, to place, r *backends.Range, pin string, props properties) (backends.Part, error) {
	info, err := s.source(ctx, from, version, pin)
	if err != nil {
		return backends.Part{}, err
	}
	abs, err := r.Within(info.Size)
	if err != nil {
		return backends.Part{}, err
	}
	source := s.object(from).Generation(info.Generation)
	var w backends.Written
	if abs.Length == info.Size {
		w, err = s.rewrite(ctx, source, to, props, write{})
	} else {
		w, err = s.stream(ctx, source, abs, to, props)
	}
	return backends.Part{ETag: w.ETag, Size: abs.Length, Modified: w.Modified}, err
}

// source is a version that must be there, with the ETag that is wanted if any.
func (s *Store) source(ctx context.Context, from place, version, pin string) (*storage.ObjectAttrs, error) {
	attrs, _, err := s.look(ctx, from, version)
	if statusOf(err) == http.StatusNotFound && !cloud.Known(err) {
		err = firstError(s.probe(ctx, from.bucket), backends.ErrNotFound)
	}
	if err != nil {
		return nil, err
	}
	if pin == "" {
		pin = "*"
	}
	return attrs, backends.Conditions{IfMatch: []string{pin}}.CheckWrite(etagOf(attrs.Generation), attrs.Created, true)
}

func (s *Store) stream(ctx context.Context, source *storage.ObjectHandle, r backends.Range, to place, props properties) (backends.Written, error) {
	obj, err := s.read(ctx, source, &r)
	if err != nil {
		return backends.Written{}, err
	}
	defer obj.Body.Close()
	w, err := s.upload(ctx, to, backends.Body{Reader: obj.Body, Size: r.Length}, props, write{})
	var body *cloud.BodyError
	if errors.As(err, &body) { // it is not the caller's
		err = body.Err
	}
	return w, err
}
