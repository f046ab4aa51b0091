package objects

import (
	"context"
	"fmt"

	"chatelaine/backends"
	"chatelaine/gateway/sealed"
)

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
	out := &PartsResult{Algorithm: fromSealedAlgorithm(u.stash.Algorithm), Composite: u.stash.Scope == sealed.Composite}
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
	if p.Bound {
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
