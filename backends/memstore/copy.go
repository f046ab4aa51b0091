package memstore

import (
	"context"
	"errors"

	"chatelaine/backends"
)

// MaxCopy is 5 GiB, as on S3.
func (*Store) MaxCopy() int64 { return backends.MaxPart }

// Copy shares the bytes with the source: they never change.
func (s *Store) Copy(ctx context.Context, src, dst backends.ObjectID, opts *backends.CopyOptions) (backends.Written, error) {
	if opts == nil {
		opts = &backends.CopyOptions{}
	}
	w, err := s.copy(ctx, src, dst, opts)
	return w, wrap(err, "copying to", dst.Bucket, dst.Key)
}

func (s *Store) copy(ctx context.Context, src, dst backends.ObjectID, opts *backends.CopyOptions) (backends.Written, error) {
	if err := errors.Join(backends.CheckKey(dst.Key), opts.Attributes.Check()); err != nil {
		return backends.Written{}, err
	}
	data, err := s.source(ctx, src, nil, opts.SourceIfMatch)
	if err != nil {
		return backends.Written{}, err
	}
	return s.store(ctx, dst.Bucket, newObject(dst.Key, newETag(), opts.Attributes, data), opts.Conditions)
}

func (s *Store) CopyPart(ctx context.Context, id backends.UploadID, number int, src backends.ObjectID, r *backends.Range, sourceIfMatch string) (backends.Part, error) {
	p, err := s.copyPart(ctx, id, number, src, r, sourceIfMatch)
	return p, wrap(err, "copying to a part of", id.Bucket, id.Key)
}

func (s *Store) copyPart(ctx context.Context, id backends.UploadID, number int, src backends.ObjectID, r *backends.Range, sourceIfMatch string) (backends.Part, error) {
	if err := backends.CheckPartNumber(number); err != nil {
		return backends.Part{}, err
	}
	data, err := s.source(ctx, src, r, sourceIfMatch)
	if err != nil {
		return backends.Part{}, err
	}
	return s.storePart(ctx, id, number, data)
}

// source returns the bytes to copy.
func (s *Store) source(ctx context.Context, src backends.ObjectID, r *backends.Range, ifMatch string) (pieces, error) {
	info, data, err := s.find(ctx, src)
	if err != nil {
		return nil, err
	}
	if ifMatch != "" && ifMatch != info.ETag {
		return nil, backends.ErrPrecondition
	}
	within, err := r.Within(info.Size)
	if err != nil {
		return nil, err
	}
	if within.Length > backends.MaxPart {
		return nil, backends.ErrTooLarge
	}
	return data.cut(within), nil
}
