package gcsstore

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"time"

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
	w, err := s.begin(ctx, at, opts.Conditions)
	if err != nil {
		return backends.Written{}, wrap(ctx, doing, err)
	}
	props = props.of(w)
	written, err := w.settle(ctx, s, at, func() (backends.Written, error) { return s.upload(ctx, at, body, props, w) })
	if err != nil {
		return backends.Written{}, wrap(ctx, doing, s.lost(ctx, at.bucket, err))
	}
	return s.made(ctx, at, w.st, written), nil
}

// begin is newWrite with what the bucket's versions are.
func (s *Store) begin(ctx context.Context, at place, c backends.Conditions) (write, error) {
	st, err := s.writable(ctx, at.bucket)
	if err != nil {
		return write{}, err
	}
	return s.newWrite(ctx, at, st, c)
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
	obj, err := s.open(ctx, at, id.Version, opts.Range)
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

// open opens a version; empty means the newest, which is live but where a newer one was
// deleted by its name.
func (s *Store) open(ctx context.Context, at place, version string, r *backends.Range) (*backends.Object, error) {
	if version == "" {
		obj, err := s.openLive(ctx, at, r)
		if err == nil || statusOf(err) != http.StatusNotFound || cloud.Known(err) {
			return obj, err
		}
		if st, stateErr := s.state(ctx, at.bucket, s.lease); stateErr != nil || !st.on() {
			return nil, firstError(stateErr, err)
		}
	}
	for range attempts {
		attrs, st, err := s.look(ctx, at, version)
		if err != nil {
			return nil, err
		}
		obj, err := s.read(ctx, s.object(at).Generation(attrs.Generation), r)
		if statusOf(err) == http.StatusNotFound && !cloud.Known(err) {
			continue // deleted since
		}
		if err != nil {
			return nil, err
		}
		obj.Version = st.name(attrs.Generation, kindOf(attrs))
		return &obj.Object, nil
	}
	return nil, fmt.Errorf("%w: others write to it", backends.ErrConflict)
}

// openLive opens the live generation. It may be a marker, of which no range can be read.
func (s *Store) openLive(ctx context.Context, at place, r *backends.Range) (*backends.Object, error) {
	obj, err := s.read(ctx, s.object(at), r)
	if statusOf(err) == http.StatusRequestedRangeNotSatisfiable || errors.Is(err, backends.ErrRange) {
		if _, _, met := s.look(ctx, at, ""); errors.Is(met, backends.ErrNotFound) && cloud.Known(met) {
			return nil, met
		}
	}
	if err != nil {
		return nil, err
	}
	generation, _ := generationOf(obj.ETag)
	if obj.kind.marker() {
		_ = obj.Body.Close()
		marker := &storage.ObjectAttrs{Generation: generation, Created: obj.Modified, Metadata: map[string]string{kindName: string(obj.kind)}}
		return nil, markerError(marker, false)
	}
	var st state
	if obj.kind.null() {
		if st, err = s.state(ctx, at.bucket, glance); err != nil {
			_ = obj.Body.Close()
			return nil, err
		}
	}
	obj.Version = st.name(generation, obj.kind)
	return &obj.Object, nil
}

// opened is an object with what its generation is.
type opened struct {
	backends.Object
	kind kind
}

// read opens a range of an object, which comes with the object's attributes. The SDK
// compares the CRC32C of what comes whole. Bytes come as they are stored: the service
// would unpack what others have put there with gzip, all of it whatever the range.
func (s *Store) read(ctx context.Context, o *storage.ObjectHandle, r *backends.Range) (*opened, error) {
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
	metadata := lower(in.Metadata())
	obj := backends.Object{
		Info: backends.Info{
			Size: in.Attrs.Size, ETag: etagOf(in.Attrs.Generation), Modified: modified(metadata, in.Attrs.LastModified), TagCount: countTags(metadata),
			Attributes: backends.Attributes{ContentType: in.Attrs.ContentType, Metadata: metadataOf(metadata)},
			Headers:    answerHeaders(answered(ctx)),
		},
		Range: rng,
		// The SDK asks again for the rest of an answer that is cut, of the same generation.
		Body: &cloud.Answer{Body: in, Left: rng.Length, Wrap: func(err error) error { return wrap(ctx, "reading an object", err) }},
	}
	return &opened{obj, kind(metadata[kindName])}, nil
}

// modified is when an object was written, also where its tags were changed since.
func modified(metadata map[string]string, last time.Time) time.Time {
	if at, err := time.Parse(time.RFC3339Nano, metadata[modifiedName]); err == nil {
		return at
	}
	return last
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
	attrs, st, err := s.look(ctx, at, id.Version)
	if err != nil {
		return backends.Info{}, wrap(ctx, doing, err)
	}
	info := infoOf(attrs)
	info.Version, info.TagCount = st.name(attrs.Generation, kindOf(attrs)), countTags(attrs.Metadata)
	info.Attributes.ContentType, info.Headers = attrs.ContentType, headersOf(attrs)
	if err := opts.Conditions.CheckRead(info.ETag, info.Modified); err != nil {
		return backends.Info{}, wrap(ctx, doing, err)
	}
	return info, nil
}

func infoOf(attrs *storage.ObjectAttrs) backends.Info {
	return backends.Info{
		Key: attrs.Name, Size: attrs.Size, ETag: etagOf(attrs.Generation), Modified: attrs.Created,
		Attributes: backends.Attributes{Metadata: metadataOf(attrs.Metadata)},
	}
}

// Delete implements backends.Store. With a condition it goes out once, where there are no
// versions.
func (s *Store) Delete(ctx context.Context, id backends.ObjectID, opts *backends.DeleteOptions) (backends.Deleted, error) {
	ctx, doing := withBudget(ctx), fmt.Sprintf("deleting %q", id.Key)
	if opts == nil {
		opts = &backends.DeleteOptions{}
	}
	at, err := checkID(id)
	if len(opts.Conditions.IfNoneMatch) > 0 {
		err = firstError(err, backends.ErrUnsupported)
	}
	if err != nil {
		return backends.Deleted{}, wrap(ctx, doing, err)
	}
	st, err := s.writable(ctx, at.bucket)
	if err != nil {
		return backends.Deleted{}, wrap(ctx, doing, err)
	}
	deleted, err := s.deleteAs(ctx, at, st, id.Version, opts.Conditions)
	return deleted, wrap(ctx, doing, err)
}

// deleteAs deletes what the version is in a bucket of this state.
func (s *Store) deleteAs(ctx context.Context, at place, st state, version string, c backends.Conditions) (backends.Deleted, error) {
	switch {
	case version != "" && version != backends.NullVersion && !st.on():
		return backends.Deleted{Version: version}, nil
	case version != "" && version != backends.NullVersion:
		return s.deleteVersion(ctx, at, version, c)
	case st.on() && version == "":
		return s.mark(ctx, at, st, c)
	case st.on() || st.preparing:
		return s.deleteNull(ctx, at, st, c)
	}
	w, err := s.newWrite(ctx, at, st, c)
	if err != nil {
		return backends.Deleted{}, err
	}
	return backends.Deleted{}, s.delete(ctx, at, w, c)
}

func (s *Store) delete(ctx context.Context, at place, w write, c backends.Conditions) error {
	o := s.object(at)
	if w.conditional() {
		o = w.guard(o).Retryer(once())
	}
	err := o.Delete(ctx)
	switch statusOf(err) {
	case http.StatusPreconditionFailed:
		if _, checked := s.checkWrite(ctx, at, w.st, c); checked != nil {
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
