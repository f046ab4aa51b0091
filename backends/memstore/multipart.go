package memstore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"chatelaine/backends"
)

type upload struct {
	backends.Upload
	attrs backends.Attributes
	parts map[int]backends.Part
	data  map[int]pieces
}

// MaxPut is 5 GiB, as on S3.
func (*Store) MaxPut() int64 { return backends.MaxPart }

func (s *Store) CreateUpload(ctx context.Context, bucketName, key string, attrs backends.Attributes) (backends.UploadID, error) {
	u := newUpload(bucketName, key, attrs)
	err := errors.Join(backends.CheckKey(key), attrs.Check())
	if err == nil {
		err = s.with(ctx, bucketName, func(b *bucket) error {
			if _, err := b.lock.Apply(attrs.Lock, u.Started); err != nil {
				return err
			}
			b.uploads[u.ID] = u
			return nil
		})
	}
	if err != nil {
		return backends.UploadID{}, wrap(err, "creating an upload of", bucketName, key)
	}
	return u.UploadID, nil
}

// newUpload makes an upload whose ID grows with time, as backends.PageUploads wants it.
func newUpload(bucketName, key string, attrs backends.Attributes) *upload {
	now := time.Now()
	attrs = cloned(attrs)
	id := fmt.Sprintf("%016x%s", now.UnixNano(), newETag()[:16])
	return &upload{
		Upload: backends.Upload{UploadID: backends.UploadID{Bucket: bucketName, Key: key, ID: id}, Started: now},
		attrs:  attrs, parts: map[int]backends.Part{}, data: map[int]pieces{},
	}
}

// withUpload runs do with the upload, locked.
func (s *Store) withUpload(ctx context.Context, id backends.UploadID, do func(*bucket, *upload) error) error {
	return s.with(ctx, id.Bucket, func(b *bucket) error {
		u, ok := b.uploads[id.ID]
		if !ok || u.Key != id.Key {
			return backends.ErrUploadNotFound
		}
		return do(b, u)
	})
}

func (s *Store) PutPart(ctx context.Context, id backends.UploadID, number int, body backends.Body) (backends.Part, error) {
	p, err := s.putPart(ctx, id, number, body)
	return p, wrap(err, "putting a part of", id.Bucket, id.Key)
}

func (s *Store) putPart(ctx context.Context, id backends.UploadID, number int, body backends.Body) (backends.Part, error) {
	exists := func(*bucket, *upload) error { return nil }
	if err := errors.Join(backends.CheckPartNumber(number), s.withUpload(ctx, id, exists)); err != nil {
		return backends.Part{}, err
	}
	data, err := readBody(ctx, body)
	if err != nil {
		return backends.Part{}, err
	}
	return s.storePart(ctx, id, number, data)
}

func (s *Store) storePart(ctx context.Context, id backends.UploadID, number int, data pieces) (backends.Part, error) {
	p := backends.Part{Number: number, ETag: newETag(), Size: data.size(), Modified: time.Now()}
	err := s.withUpload(ctx, id, func(_ *bucket, u *upload) error {
		u.parts[number], u.data[number] = p, data
		return nil
	})
	return p, err
}

func (s *Store) Complete(ctx context.Context, id backends.UploadID, parts []backends.Part, cond backends.Conditions) (w backends.Written, err error) {
	err = s.withUpload(ctx, id, func(b *bucket, u *upload) error {
		o, err := u.assemble(parts)
		if err != nil {
			return err
		}
		if w, err = b.store(o, cond); err != nil {
			return err
		}
		delete(b.uploads, id.ID)
		return nil
	})
	return w, wrap(err, "completing an upload of", id.Bucket, id.Key)
}

// assemble makes an object of the parts without copying them.
func (u *upload) assemble(want []backends.Part) (*object, error) {
	parts, err := backends.CheckParts(want, u.parts)
	if err != nil {
		return nil, err
	}
	var data pieces
	for _, p := range parts {
		data = append(data, u.data[p.Number]...)
	}
	return newObject(u.Key, fmt.Sprintf("%s-%d", newETag(), len(parts)), u.attrs, data), nil
}

func (s *Store) Abort(ctx context.Context, id backends.UploadID) error {
	err := s.withUpload(ctx, id, func(b *bucket, _ *upload) error {
		delete(b.uploads, id.ID)
		return nil
	})
	return wrap(err, "aborting an upload of", id.Bucket, id.Key)
}

func (s *Store) ListParts(ctx context.Context, id backends.UploadID, after, limit int) (page *backends.PartsPage, err error) {
	err = s.withUpload(ctx, id, func(_ *bucket, u *upload) error {
		parts := slices.SortedFunc(maps.Values(u.parts), func(a, b backends.Part) int { return cmp.Compare(a.Number, b.Number) })
		page = backends.PageParts(parts, after, limit)
		return nil
	})
	return page, wrap(err, "listing the parts of an upload of", id.Bucket, id.Key)
}

func (s *Store) ListUploads(ctx context.Context, bucketName string, opts *backends.ListUploadsOptions) (page *backends.UploadsPage, err error) {
	err = s.with(ctx, bucketName, func(b *bucket) error {
		uploads := make([]backends.Upload, 0, len(b.uploads))
		for _, u := range b.uploads {
			uploads = append(uploads, u.Upload)
		}
		page = backends.PageUploads(uploads, opts)
		return nil
	})
	return page, wrap(err, "listing the uploads of", bucketName, "")
}
