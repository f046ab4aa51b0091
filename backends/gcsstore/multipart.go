package gcsstore

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"cloud.google.com/go/storage"
	"golang.org/x/sync/errgroup"

	"chatelaine/backends"
	"chatelaine/backends/cloud"
)

// An upload is an object of no bytes, with the attributes of the object to be and its key
// in the metadata; each of its parts is an object, and so is what they are put together
// to on the way.
const (
	uploadsDir = reserved + "uploads/"
	partsDir   = reserved + "parts/"
	partDigits = 5
	removals   = 32 // objects that are removed at the same time
)

// uploads are what is the same for all drivers.
func (s *Store) uploads() cloud.Uploads {
	return cloud.Uploads{
		Find: func(ctx context.Context, id backends.UploadID) error {
			_, err := s.find(ctx, id)
			return err
		},
		Parts: s.parts,
		Remove: func(ctx context.Context, id backends.UploadID, number int) error {
			return s.removeAll(ctx, id.Bucket, partPlace(id, number).name)
		},
	}
}

// upload is one that is there.
type upload struct {
	backends.UploadID
	attrs      backends.Attributes
	generation int64 // of its record
}

func record(id backends.UploadID) place { return place{id.Bucket, uploadsDir + id.ID} }

func folder(id backends.UploadID) string { return partsDir + id.ID + "/" }

func partPlace(id backends.UploadID, number int) place {
	return place{id.Bucket, fmt.Sprintf("%s%0*d", folder(id), partDigits, number)}
}

// CreateUpload implements backends.Multiparter.
func (s *Store) CreateUpload(ctx context.Context, bucket, key string, attrs backends.Attributes) (backends.UploadID, error) {
	ctx, doing := withBudget(ctx), fmt.Sprintf("creating an upload to %q", key)
	_, err := checkID(backends.ObjectID{Bucket: bucket, Key: key})
	props, attrErr := newProperties(attrs)
	if err := firstError(err, attrErr); err != nil {
		return backends.UploadID{}, wrap(ctx, doing, err)
	}
	id := backends.UploadID{Bucket: bucket, Key: key, ID: cloud.NewUploadID(time.Now())}
	props = props.with(keyName, cloud.EncodeKey(key))
	_, err = s.upload(ctx, record(id), backends.Body{}, props, write{})
	return id, wrap(ctx, doing, s.lost(ctx, bucket, err))
}

// find reads an upload's record; ErrUploadNotFound also for another key's.
func (s *Store) find(ctx context.Context, id backends.UploadID) (upload, error) {
	if _, err := checkID(backends.ObjectID{Bucket: id.Bucket, Key: id.Key}); err != nil {
		return upload{}, err
	}
	if err := cloud.CheckUploadID(id.ID); err != nil {
		return upload{}, err
	}
	attrs, err := s.object(record(id)).Attrs(ctx)
	if statusOf(err) == http.StatusNotFound || err == nil && uploadKey(attrs) != id.Key {
		return upload{}, fmt.Errorf("%w: ID %q", backends.ErrUploadNotFound, id.ID)
	}
	if err != nil {
		return upload{}, err
	}
	tags, err := decodeTags(attrs.Metadata)
	return upload{
		id, backends.Attributes{ContentType: attrs.ContentType, Metadata: metadataOf(attrs.Metadata), Tags: tags}, attrs.Generation,
	}, err
}

func uploadKey(attrs *storage.ObjectAttrs) string { return cloud.DecodeKey(attrs.Metadata[keyName]) }

// PutPart implements backends.Multiparter. Up to 8 MiB of the body are held in memory.
func (s *Store) PutPart(ctx context.Context, id backends.UploadID, number int, body backends.Body) (backends.Part, error) {
	ctx, doing := withBudget(ctx), fmt.Sprintf("putting part %d of %q", number, id.Key)
	part, err := s.uploads().NewPart(ctx, id, number, func() (backends.Part, error) {
		w, err := s.upload(ctx, partPlace(id, number), body, properties{contentType: anyType}, write{})
		return backends.Part{ETag: w.ETag, Size: body.Size, Modified: w.Modified}, err
	})
	return part, wrap(ctx, doing, s.lost(ctx, id.Bucket, err))
}

// Complete implements backends.Multiparter. It may be repeated until it has succeeded:
// the parts are there until then.
func (s *Store) Complete(ctx context.Context, id backends.UploadID, parts []backends.Part, cond backends.Conditions) (backends.Written, error) {
	ctx, doing := withBudget(ctx), fmt.Sprintf("completing %q", id.Key)
	up, err := s.find(ctx, id)
	if err != nil {
		return backends.Written{}, wrap(ctx, doing, err)
	}
	written, err := s.complete(ctx, up, parts, cond)
	if err != nil {
		return backends.Written{}, wrap(ctx, doing, err)
	}
	// The object is there: what is left of its upload may be removed another time.
	_ = s.discard(ctx, up)
	return written, nil
}

func (s *Store) complete(ctx context.Context, up upload, parts []backends.Part, cond backends.Conditions) (backends.Written, error) {
	to := place{up.Bucket, up.Key}
	w, err := s.begin(ctx, to, cond)
	if err != nil {
		return backends.Written{}, err
	}
	props, err := newProperties(up.attrs)
	if err != nil {
		return backends.Written{}, err
	}
	pieces, err := s.pieces(ctx, up.UploadID, parts)
	if err != nil {
		return backends.Written{}, err
	}
	// What would be refused in the end is better refused before anything is composed.
	if _, err := s.checkWrite(ctx, to, w.st, cond); err != nil {
		return backends.Written{}, err
	}
	written, err := s.assemble(ctx, up.UploadID, pieces, props.of(w), w)
	if err == nil {
		return s.made(ctx, to, w.st, written), nil
	}
	err = s.uploads().Blame(ctx, up.UploadID, parts, err)
	if statusOf(err) == http.StatusNotFound && !cloud.Known(err) {
		err = fmt.Errorf("%w: %w", backends.ErrConflict, err) // another Complete has ended the upload
	}
	return backends.Written{}, err
}

// pieces are the parts that a Complete names.
func (s *Store) pieces(ctx context.Context, id backends.UploadID, parts []backends.Part) ([]piece, error) {
	named, err := s.uploads().Named(ctx, id, parts)
	if err != nil {
		return nil, err
	}
	pieces, size := make([]piece, len(named)), int64(0)
	for i, p := range named {
		generation, _ := generationOf(p.ETag)
		pieces[i] = piece{partPlace(id, p.Number).name, generation}
		size += p.Size
	}
	if size > maxObject {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", backends.ErrTooLarge, size, int64(maxObject))
	}
	return pieces, nil
}

// Abort implements backends.Multiparter.
func (s *Store) Abort(ctx context.Context, id backends.UploadID) error {
	ctx, doing := withBudget(ctx), fmt.Sprintf("aborting an upload to %q", id.Key)
	up, err := s.find(ctx, id)
	if err != nil {
		return wrap(ctx, doing, err)
	}
	return wrap(ctx, doing, s.discard(ctx, up))
}

// discard removes an upload: its record, and then its parts.
func (s *Store) discard(ctx context.Context, up upload) error {
	if err := s.remove(ctx, record(up.UploadID), up.generation); err != nil {
		return err
	}
	return s.removeAll(ctx, up.Bucket, folder(up.UploadID))
}

// remove deletes a generation that may be gone, for good: without a number it would only
// become noncurrent in a bucket with versions.
func (s *Store) remove(ctx context.Context, at place, generation int64) error {
	err := s.object(at).Generation(generation).Delete(ctx)
	if statusOf(err) == http.StatusNotFound {
		return nil
	}
	return err
}

// removeAll removes all generations of what is below a prefix.
func (s *Store) removeAll(ctx context.Context, bucket, prefix string) error {
	group, under := errgroup.WithContext(ctx)
	group.SetLimit(removals)
	err := s.each(under, bucket, storage.Query{Prefix: prefix, Versions: true}, func(attrs *storage.ObjectAttrs) error {
		group.Go(func() error { return s.remove(under, place{bucket, attrs.Name}, attrs.Generation) })
		return nil
	})
	return firstError(group.Wait(), err)
}

// ListParts implements backends.Multiparter.
func (s *Store) ListParts(ctx context.Context, id backends.UploadID, after, limit int) (*backends.PartsPage, error) {
	ctx, doing := withBudget(ctx), fmt.Sprintf("listing the parts of %q", id.Key)
	if _, err := s.find(ctx, id); err != nil {
		return nil, wrap(ctx, doing, err)
	}
	parts, err := s.partsAfter(ctx, id, after, backends.MaxPage)
	if err != nil {
		return nil, wrap(ctx, doing, err)
	}
	return backends.PageParts(parts, after, limit), nil
}

// parts are all parts of an upload, by number.
func (s *Store) parts(ctx context.Context, id backends.UploadID) ([]backends.Part, error) {
	return s.partsAfter(ctx, id, 0, backends.MaxParts)
}

// errEnough ends a listing.
var errEnough = errors.New("that is enough")

// partsAfter are the parts above a number, by number, without what is being composed of
// them: at most one more than most, so that a long upload is not listed whole for a page.
func (s *Store) partsAfter(ctx context.Context, id backends.UploadID, after, most int) (parts []backends.Part, err error) {
	from := storage.Query{Prefix: folder(id), StartOffset: partPlace(id, after+1).name}
	err = s.each(ctx, id.Bucket, from, func(attrs *storage.ObjectAttrs) error {
		if len(parts) > most {
			return errEnough
		}
		name := strings.TrimPrefix(attrs.Name, folder(id))
		if number, err := strconv.Atoi(name); err == nil && len(name) == partDigits {
			parts = append(parts, backends.Part{Number: number, ETag: etagOf(attrs.Generation), Size: attrs.Size, Modified: attrs.Created})
		}
		return nil
	})
	if errors.Is(err, errEnough) {
		err = nil
	}
	return parts, err
}

// each calls do with all objects of a listing, in order.
func (s *Store) each(ctx context.Context, bucket string, query storage.Query, do func(*storage.ObjectAttrs) error) error {
	for token := ""; ; {
		page, next, err := s.page(ctx, bucket, query, backends.MaxPage, token)
		if err != nil {
			return err
		}
		for _, attrs := range page {
			if err := do(attrs); err != nil {
				return err
			}
		}
		if token = next; token == "" {
			return nil
		}
	}
}

// ListUploads implements backends.Multiparter. It reads the records of all uploads in
// the bucket, 1000 in a request.
func (s *Store) ListUploads(ctx context.Context, bucket string, opts *backends.ListUploadsOptions) (*backends.UploadsPage, error) {
	ctx, doing := withBudget(ctx), fmt.Sprintf("listing the uploads of bucket %q", bucket)
	if err := backends.CheckBucket(bucket); err != nil {
		return nil, wrap(ctx, doing, err)
	}
	var uploads []backends.Upload
	err := s.each(ctx, bucket, storage.Query{Prefix: uploadsDir}, func(attrs *storage.ObjectAttrs) error {
		if key := uploadKey(attrs); key != "" {
			id := backends.UploadID{Bucket: bucket, Key: key, ID: strings.TrimPrefix(attrs.Name, uploadsDir)}
			uploads = append(uploads, backends.Upload{UploadID: id, Started: attrs.Created})
		}
		return nil
	})
	if err != nil {
		return nil, wrap(ctx, doing, err)
	}
	return backends.PageUploads(uploads, opts), nil
}
