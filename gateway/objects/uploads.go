package objects

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"chatelaine/backends"
	"chatelaine/gateway/sealed"
)

// ListParts lists the parts of an upload by number, staged ones included. The
// ETags lack the token that PutPart gave, which only the client has.
func (s *Service) ListParts(ctx context.Context, r PartsRequest) (*PartsResult, error) {
	u, err := s.openUpload(ctx, r.UploadRef, true)
	if err != nil {
		return nil, err
	}
	parts, err := u.list(ctx)
	if err != nil {
		return nil, fmt.Errorf("objects: listing parts of %q: %w", r.Key, err)
	}
	limit := r.Limit
	if limit <= 0 || limit > maxList {
		limit = maxList
	}
	out := &PartsResult{Algorithm: fromSealedAlgorithm(u.stash.Algorithm), Composite: u.stash.Scope == sealed.Composite}
	for _, p := range parts {
		if p.Number <= r.After {
			continue
		}
		if len(out.Parts) == limit {
			out.Next = out.Parts[len(out.Parts)-1].Number
			break
		}
		n, ok := messagePlain(p.Size)
		if !ok {
			return nil, fmt.Errorf("objects: part %d of %q: %w", p.Number, r.Key, sealed.ErrCorrupt)
		}
		out.Parts = append(out.Parts, PartInfo{Number: p.Number, Size: n, ETag: visibleETag(p.ETag), Modified: p.Modified})
	}
	return out, nil
}

// list reads all parts that the backend and the stash's folder hold. Of two
// attempts at one number the later counts.
func (u *upload) list(ctx context.Context) ([]backends.Part, error) {
	byNumber := map[int]backends.Part{}
	keep := func(p backends.Part) {
		if old, ok := byNumber[p.Number]; !ok || old.Modified.Before(p.Modified) {
			byNumber[p.Number] = p
		}
	}
	if err := u.eachStored(ctx, keep); err != nil {
		return nil, err
	}
	if err := u.eachStaged(ctx, keep); err != nil {
		return nil, err
	}
	parts := make([]backends.Part, 0, len(byNumber))
	for _, p := range byNumber {
		parts = append(parts, p)
	}
	slices.SortFunc(parts, func(a, b backends.Part) int { return cmp.Compare(a.Number, b.Number) })
	return parts, nil
}

func (u *upload) eachStored(ctx context.Context, keep func(backends.Part)) error {
	for after := 0; ; {
		page, err := u.mp.ListParts(ctx, u.backendID(), after, 0)
		if err != nil {
			return err
		}
		for _, p := range page.Parts {
			keep(p)
		}
		if after = page.Next; after == 0 {
			return nil
		}
	}
}

func (u *upload) eachStaged(ctx context.Context, keep func(backends.Part)) error {
	dir := sealed.StashDir(u.ID)
	opts := backends.ListOptions{Prefix: dir}
	for {
		page, err := u.store.List(ctx, u.Bucket.StoreName, &opts)
		if err != nil {
			return err
		}
		for _, e := range page.Entries {
			if number, err := strconv.Atoi(strings.TrimPrefix(e.Key, dir)); err == nil {
				keep(backends.Part{Number: number, ETag: e.ETag, Size: e.Size, Modified: e.Modified})
			}
		}
		if !page.Truncated {
			return nil
		}
		opts.Token = page.Token
	}
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
