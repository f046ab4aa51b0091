package azurestore

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/bloberror"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"
	"golang.org/x/sync/errgroup"

	"chatelaine/backends"
	"chatelaine/backends/cloud"
)

// An upload is a blob of no bytes, with the attributes and tags of the object to be and
// its key in the metadata; each of its parts is a blob of its own. DECISIONS.md says why they
// are not blocks.
const (
	uploadsDir = reserved + "uploads/"
	partsDir   = reserved + "parts/"
	removals   = 16 // parts that are removed at the same time
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
			return s.remove(ctx, partPlace(id, number))
		},
	}
}

// upload is one that is there.
type upload struct {
	backends.UploadID
	attrs  backends.Attributes
	tagged bool // the record has the object's tags
}

func (s *Store) record(id backends.UploadID) place { return place{id.Bucket, uploadsDir + id.ID} }

func partPlace(id backends.UploadID, number int) place {
	return place{id.Bucket, fmt.Sprintf("%s%s/%05d", partsDir, id.ID, number)}
}

// CreateUpload implements backends.Multiparter.
func (s *Store) CreateUpload(ctx context.Context, bucket, key string, attrs backends.Attributes) (backends.UploadID, error) {
	doing := fmt.Sprintf("creating an upload to %q", key)
	_, err := checkID(backends.ObjectID{Bucket: bucket, Key: key})
	props, attrErr := newProperties(attrs, map[string]string{keyName: cloud.EncodeKey(key)})
	if err := firstError(err, attrErr); err != nil {
		return backends.UploadID{}, fmt.Errorf("azurestore: %s: %w", doing, err)
	}
	id := backends.UploadID{Bucket: bucket, Key: key, ID: cloud.NewUploadID(time.Now())}
	_, err = s.upload(ctx, s.record(id), backends.Body{}, props, write{})
	return id, wrap(ctx, doing, err)
}

// find reads an upload's record; ErrUploadNotFound also for another key's.
func (s *Store) find(ctx context.Context, id backends.UploadID) (upload, error) {
	if _, err := checkID(backends.ObjectID{Bucket: id.Bucket, Key: id.Key}); err != nil {
		return upload{}, err
	}
	if err := cloud.CheckUploadID(id.ID); err != nil {
		return upload{}, err
	}
	at := s.record(id)
	out, err := s.blob(at.bucket, at.name).GetProperties(ctx, nil)
	if bloberror.HasCode(err, bloberror.BlobNotFound) || err == nil && uploadKey(out.Metadata) != id.Key {
		return upload{}, fmt.Errorf("%w: ID %q", backends.ErrUploadNotFound, id.ID)
	}
	attrs := backends.Attributes{ContentType: deref(out.ContentType), Metadata: metadataOf(out.Metadata)}
	return upload{id, attrs, deref(out.TagCount) > 0}, err
}

func uploadKey(metadata map[string]*string) string { return cloud.DecodeKey(own(metadata, keyName)) }

// PutPart implements backends.Multiparter.
func (s *Store) PutPart(ctx context.Context, id backends.UploadID, number int, body backends.Body) (backends.Part, error) {
	doing := fmt.Sprintf("putting part %d of %q", number, id.Key)
	part, err := s.uploads().NewPart(ctx, id, number, func() (backends.Part, error) {
		if err := checkSize(body.Size); err != nil {
			return backends.Part{}, err
		}
		w, err := s.upload(ctx, partPlace(id, number), body, properties{}, write{})
		return backends.Part{ETag: w.ETag, Size: body.Size, Modified: w.Modified}, err
	})
	return part, wrap(ctx, doing, err)
}

// Complete implements backends.Multiparter. It may be repeated until it has succeeded:
// the parts are there until then.
func (s *Store) Complete(ctx context.Context, id backends.UploadID, parts []backends.Part, cond backends.Conditions) (backends.Written, error) {
	doing := fmt.Sprintf("completing %q", id.Key)
	up, err := s.find(ctx, id)
	if err != nil {
		return backends.Written{}, wrap(ctx, doing, err)
	}
	written, err := s.complete(ctx, up, parts, cond)
	if err != nil {
		return backends.Written{}, wrap(ctx, doing, err)
	}
	// The object is there: what is left of its upload may be removed another time.
	_ = s.discard(ctx, id)
	return written, nil
}

func (s *Store) complete(ctx context.Context, up upload, parts []backends.Part, cond backends.Conditions) (backends.Written, error) {
	w, err := newWrite(cond)
	if err != nil {
		return backends.Written{}, err
	}
	props, err := newProperties(up.attrs, w.own())
	if err == nil && up.tagged {
		props.tags, err = s.readTags(ctx, s.record(up.UploadID))
	}
	if err != nil {
		return backends.Written{}, err
	}
	pieces, err := s.pieces(ctx, up.UploadID, parts)
	if err != nil {
		return backends.Written{}, err
	}
	to := place{up.Bucket, encodeName(up.Key)}
	if err := s.checkWrite(ctx, to, cond); err != nil {
		return backends.Written{}, err
	}
	written, err := s.assemble(ctx, to, pieces, props, w)
	return written, s.uploads().Blame(ctx, up.UploadID, parts, err)
}

// pieces are the parts that a Complete names, as sources.
func (s *Store) pieces(ctx context.Context, id backends.UploadID, parts []backends.Part) ([]piece, error) {
	named, err := s.uploads().Named(ctx, id, parts)
	if err != nil {
		return nil, err
	}
	pieces := make([]piece, len(named))
	for i, p := range named {
		pieces[i] = piece{partPlace(id, p.Number), quote(p.ETag), 0, p.Size}
	}
	return pieces, nil
}

// Abort implements backends.Multiparter.
func (s *Store) Abort(ctx context.Context, id backends.UploadID) error {
	doing := fmt.Sprintf("aborting an upload to %q", id.Key)
	if _, err := s.find(ctx, id); err != nil {
		return wrap(ctx, doing, err)
	}
	return wrap(ctx, doing, s.discard(ctx, id))
}

// discard removes an upload: its record, and then its parts.
func (s *Store) discard(ctx context.Context, id backends.UploadID) error {
	if err := s.remove(ctx, s.record(id)); err != nil {
		return err
	}
	parts, err := s.parts(ctx, id)
	if err != nil {
		return err
	}
	group, under := errgroup.WithContext(ctx)
	group.SetLimit(removals)
	for _, p := range parts {
		group.Go(func() error { return s.remove(under, partPlace(id, p.Number)) })
	}
	return group.Wait()
}

// remove deletes a blob that may be gone.
func (s *Store) remove(ctx context.Context, at place) error {
	_, err := s.blob(at.bucket, at.name).Delete(ctx, &blob.DeleteOptions{})
	if isMissing(err) {
		return nil
	}
	return err
}

func isMissing(err error) bool {
	return bloberror.HasCode(err, bloberror.BlobNotFound, bloberror.ResourceNotFound)
}

// ListParts implements backends.Multiparter.
func (s *Store) ListParts(ctx context.Context, id backends.UploadID, after, limit int) (*backends.PartsPage, error) {
	doing := fmt.Sprintf("listing the parts of %q", id.Key)
	if _, err := s.find(ctx, id); err != nil {
		return nil, wrap(ctx, doing, err)
	}
	parts, err := s.parts(ctx, id)
	if err != nil {
		return nil, wrap(ctx, doing, err)
	}
	return backends.PageParts(parts, after, limit), nil
}

// parts are all parts of an upload, by number.
func (s *Store) parts(ctx context.Context, id backends.UploadID) (parts []backends.Part, err error) {
	dir := partsDir + id.ID + "/"
	err = s.each(ctx, id.Bucket, dir, func(item *container.BlobItem) error {
		number, err := strconv.Atoi(strings.TrimPrefix(deref(item.Name), dir))
		if err != nil {
			return fmt.Errorf("%w: %w: part %q", backends.ErrUnavailable, cloud.ErrMalformed, deref(item.Name))
		}
		info := infoOf(item)
		parts = append(parts, backends.Part{Number: number, ETag: info.ETag, Size: info.Size, Modified: info.Modified})
		return nil
	})
	return parts, err
}

// each calls do with all blobs below a prefix, in order.
func (s *Store) each(ctx context.Context, bucket, prefix string, do func(*container.BlobItem) error) error {
	pager := s.container(bucket).NewListBlobsFlatPager(&container.ListBlobsFlatOptions{
		Prefix: &prefix, Include: container.ListBlobsInclude{Metadata: true},
	})
	for pager.More() {
		page, err := pager.NextPage(ctx)
		if err != nil {
			return err
		}
		for _, item := range page.Segment.BlobItems {
			if item.Properties == nil {
				return fmt.Errorf("%w: %w: a blob without properties", backends.ErrUnavailable, cloud.ErrMalformed)
			}
			if err := do(item); err != nil {
				return err
			}
		}
	}
	return nil
}

// ListUploads implements backends.Multiparter. It reads the records of all uploads in
// the bucket, 5000 in a request.
func (s *Store) ListUploads(ctx context.Context, bucket string, opts *backends.ListUploadsOptions) (*backends.UploadsPage, error) {
	doing := fmt.Sprintf("listing the uploads of bucket %q", bucket)
	if err := checkContainer(bucket); err != nil {
		return nil, fmt.Errorf("azurestore: %s: %w", doing, err)
	}
	var uploads []backends.Upload
	err := s.each(ctx, bucket, uploadsDir, func(item *container.BlobItem) error {
		if key := uploadKey(item.Metadata); key != "" {
			id := backends.UploadID{Bucket: bucket, Key: key, ID: strings.TrimPrefix(deref(item.Name), uploadsDir)}
			uploads = append(uploads, backends.Upload{UploadID: id, Started: deref(item.Properties.LastModified)})
		}
		return nil
	})
	if err != nil {
		return nil, wrap(ctx, doing, err)
	}
	return backends.PageUploads(uploads, opts), nil
}
