package azurestore

import (
	"context"
	"fmt"

	"chatelaine/backends"
)

// Copy implements backends.Copier.
func (s *Store) Copy(ctx context.Context, src, dst backends.ObjectID, opts *backends.CopyOptions) (backends.Written, error) {
	doing := fmt.Sprintf("copying %q to %q", src.Key, dst.Key)
	if opts == nil {
		opts = &backends.CopyOptions{}
	}
	name, err := checkID(dst)
	w, condErr := newWrite(opts.Conditions)
	props, attrErr := newProperties(opts.Attributes, w.own())
	if err := firstError(err, condErr, attrErr); err != nil {
		return backends.Written{}, fmt.Errorf("azurestore: %s: %w", doing, err)
	}
	to := place{dst.Bucket, name}
	written, err := s.copy(ctx, to, src, nil, opts.SourceIfMatch, func(piece) error { return s.checkWrite(ctx, to, opts.Conditions) }, props, w)
	return written, wrap(ctx, doing, err)
}

// copy copies a range of an object to a blob. Where the source is replaced under its
// eyes and nobody has pinned it, it begins again with the new one.
func (s *Store) copy(ctx context.Context, to place, src backends.ObjectID, r *backends.Range, pin string, check func(piece) error, props properties, w write) (backends.Written, error) {
	for attempt := 1; ; attempt++ {
		from, err := s.source(ctx, src, r, pin)
		if err == nil {
			err = check(from)
		}
		if err != nil {
			return backends.Written{}, err
		}
		written, err := s.assemble(ctx, to, []piece{from}, props, w)
		if err == nil || pin != "" || attempt == assemblies || !s.changed(ctx, src, from) {
			return written, err
		}
	}
}

// source is the range of an object that is there, of the ETag that is wanted if any.
func (s *Store) source(ctx context.Context, id backends.ObjectID, r *backends.Range, pin string) (piece, error) {
	name, err := checkID(id)
	if err != nil {
		return piece{}, err
	}
	var opts backends.GetOptions
	if pin != "" {
		opts.Conditions.IfMatch = []string{pin}
	}
	info, err := s.Head(ctx, id, &opts)
	if err != nil {
		return piece{}, err
	}
	abs, err := r.Within(info.Size)
	if err == nil {
		err = checkSize(abs.Length)
	}
	return piece{place{id.Bucket, name}, quote(info.ETag), abs.Offset, abs.Length}, err
}

// changed says that the source of a copy is there and another than it was.
func (s *Store) changed(ctx context.Context, id backends.ObjectID, was piece) bool {
	info, err := s.Head(ctx, id, nil)
	return err == nil && quote(info.ETag) != was.etag
}

// checkWrite tells ahead of the copying what the commit would refuse. The commit checks
// it again, atomically.
func (s *Store) checkWrite(ctx context.Context, at place, c backends.Conditions) error {
	if c.IsZero() {
		return nil
	}
	out, err := s.blob(at.bucket, at.name).GetProperties(ctx, nil)
	if err != nil && !isMissing(err) {
		return err
	}
	return c.CheckWrite(etagOf(out.ETag), deref(out.LastModified), err == nil)
}

// CopyPart implements backends.Copier.
func (s *Store) CopyPart(ctx context.Context, id backends.UploadID, number int, src backends.ObjectID, r *backends.Range, sourceIfMatch string) (backends.Part, error) {
	doing := fmt.Sprintf("copying %q to part %d of %q", src.Key, number, id.Key)
	part, err := s.uploads().NewPart(ctx, id, number, func() (part backends.Part, err error) {
		var w backends.Written
		w, err = s.copy(ctx, partPlace(id, number), src, r, sourceIfMatch, func(p piece) error { part.Size = p.size; return nil }, properties{}, write{})
		part.ETag, part.Modified = w.ETag, w.Modified
		return part, err
	})
	return part, wrap(ctx, doing, err)
}
