package objects

import (
	"context"
	"fmt"

	"golang.org/x/sync/errgroup"

	"chatelaine/backends"
	"chatelaine/gateway/keys"
)

// stashReaders is how many stashes are read at once for a list of uploads.
const stashReaders = 16

// ListParts lists a page of the parts of an upload by number, staged ones included,
// with the ETags that PutPart gave. It asks the backend for its parts, for the names
// in the upload's folder, and for the stash.
func (s *Service) ListParts(ctx context.Context, r PartsRequest) (*PartsResult, error) {
	u, err := s.openUpload(ctx, r.UploadRef, true)
	if err != nil {
		return nil, err
	}
	limit := r.Limit
	if limit <= 0 || limit > maxList {
		limit = maxList
	}
	parts, err := u.list(ctx, r.After, limit)
	if err != nil {
		return nil, fmt.Errorf("objects: listing parts of %q: %w", r.Key, err)
	}
	out := &PartsResult{UploadChecksum: u.asked()}
	for _, p := range parts {
		if len(out.Parts) == limit {
			out.Next = out.Parts[len(out.Parts)-1].Number
			break
		}
		out.Parts = append(out.Parts, u.partInfo(p))
	}
	return out, nil
}

func (u *upload) partInfo(p storedPart) PartInfo {
	info := PartInfo{Number: p.Number, Size: p.Sealed.Length, ETag: p.ETag, Modified: p.Modified}
	if p.Bound && u.asked().Algorithm != "" {
		info.Checksum = u.checksumOf(p.Sealed)
	}
	return info
}

// ListUploads lists a bucket's unfinished uploads.
func (s *Service) ListUploads(ctx context.Context, r UploadsRequest) (*backends.UploadsPage, error) {
	_, mp, err := s.multiparter(r.Bucket)
	if err != nil {
		return nil, err
	}
	page, err := mp.ListUploads(ctx, r.Bucket.StoreName, &backends.ListUploadsOptions{
		Prefix: r.Prefix, Delimiter: r.Delimiter, KeyMarker: r.KeyMarker, IDMarker: r.IDMarker, Limit: r.Limit,
	})
	if err != nil {
		return nil, fmt.Errorf("objects: listing uploads of bucket %q: %w", r.Bucket.Name, err)
	}
	return page, nil
}

// UploadChecksums says what each upload of a list was asked for. It lies in their
// stashes: one small request to the backend for each that is not cached. An upload
// whose stash does not open has none, as it must be seen to be aborted.
func (s *Service) UploadChecksums(ctx context.Context, b keys.Bucket, uploads []backends.Upload) []UploadChecksum {
	out := make([]UploadChecksum, len(uploads))
	var readers errgroup.Group
	readers.SetLimit(stashReaders)
	for i, listed := range uploads {
		readers.Go(func() error {
			if u, err := s.openUpload(ctx, UploadRef{Bucket: b, Key: listed.Key, ID: listed.ID}, false); err == nil {
				out[i] = u.asked()
			}
			return nil
		})
	}
	_ = readers.Wait() // none fails
	return out
}
