package objects

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"chatelaine/backends"
	"chatelaine/gateway/keys"
	"chatelaine/gateway/sealed"
)

// deleters is how many deletes of one clearing run at once.
const deleters = 16

// AbortIf is Abort of an upload that began at a time, which is as ListUploads tells it
// and compared as in DeleteRequest: backends.ErrPrecondition if it began at another.
// When an upload began never changes. It asks the backend for a list of uploads.
func (s *Service) AbortIf(ctx context.Context, r UploadRef, began time.Time) error {
	if err := checkKey(r.Key); err != nil {
		return err
	}
	is, err := s.began(ctx, r)
	if err == nil && !sameMoment(began, is) {
		err = fmt.Errorf("%w: the upload began at another time", backends.ErrPrecondition)
	}
	if err != nil {
		return fmt.Errorf("objects: aborting an upload of %q: %w", r.Key, err)
	}
	return s.Abort(ctx, r)
}

// began looks an upload up among those of its key.
func (s *Service) began(ctx context.Context, r UploadRef) (time.Time, error) {
	list := UploadsRequest{Bucket: r.Bucket, Prefix: r.Key}
	for {
		page, err := s.ListUploads(ctx, list)
		if err != nil {
			return time.Time{}, err
		}
		for _, u := range page.Uploads {
			if u.ID == r.ID && u.Key == r.Key {
				return u.Started, nil
			}
		}
		if !page.Truncated {
			return time.Time{}, backends.ErrUploadNotFound
		}
		list.KeyMarker, list.IDMarker = page.NextKey, page.NextIDMarker
	}
}

// Abort ends an upload and deletes its parts. What a retention of the bucket's keeps
// of its folder stays, unseen.
func (s *Service) Abort(ctx context.Context, r UploadRef) error {
	if err := checkKey(r.Key); err != nil {
		return err
	}
	store, mp, err := s.multiparter(r.Bucket)
	if err != nil {
		return err
	}
	if err := mp.Abort(ctx, r.backendID()); err != nil {
		return fmt.Errorf("objects: aborting an upload of %q: %w", r.Key, err)
	}
	err = s.clearUpload(ctx, store, r)
	if errors.Is(err, backends.ErrLocked) {
		s.log.Warn("a retention keeps an upload's folder", zap.String("bucket", r.Bucket.Name), zap.Error(err))
		err = nil
	}
	if err != nil {
		return fmt.Errorf("objects: clearing an upload of %q: %w", r.Key, err)
	}
	return nil
}

// clearUpload deletes the folder of an upload: first the stash, without which no
// gateway goes on with it, then staged parts and tokens, with the versions that a
// bucket may keep of them.
func (s *Service) clearUpload(ctx context.Context, store backends.Store, r UploadRef) error {
	s.stashes.Remove(r.cacheKey())
	deleted, err := store.Delete(ctx, idOf(r.Bucket, r.stashName(), ""), nil)
	if err != nil {
		return fmt.Errorf("deleting a stash: %w", err)
	}
	dir := sealed.StashDir(r.ID)
	if deleted.Marker { // of no use are more markers
		return s.clearVersions(ctx, r.Bucket, store, dir)
	}
	return s.clearObjects(ctx, r.Bucket, store, dir)
}

// clearObjects deletes the gateway's own objects under a prefix: all that can be, and
// backends.ErrLocked for what a retention or a hold keeps.
func (s *Service) clearObjects(ctx context.Context, b keys.Bucket, store backends.Store, prefix string) error {
	opts := backends.ListOptions{Prefix: prefix}
	var locked error
	for {
		page, err := store.List(ctx, b.StoreName, &opts)
		if err != nil {
			return fmt.Errorf("listing reserved objects: %w", err)
		}
		ids := make([]backends.ObjectID, 0, len(page.Entries))
		for _, e := range page.Entries {
			ids = append(ids, idOf(b, e.Key, ""))
		}
		if err := deleteAll(ctx, store, ids); errors.Is(err, backends.ErrLocked) {
			locked = err
		} else if err != nil {
			return err
		}
		if !page.Truncated {
			return locked
		}
		opts.Token = page.Token
	}
}

// clearVersions deletes all versions and markers of the gateway's own objects under
// a prefix, where the bucket has, or had, versions. Errors are those of clearObjects.
func (s *Service) clearVersions(ctx context.Context, b keys.Bucket, store backends.Store, prefix string) error {
	v, ok, err := versionedStore(ctx, b, store)
	if err != nil || !ok {
		return err
	}
	opts := backends.ListVersionsOptions{Prefix: prefix}
	var locked error
	for {
		page, err := v.ListVersions(ctx, b.StoreName, &opts)
		if err != nil {
			return fmt.Errorf("listing versions of reserved objects: %w", err)
		}
		ids := make([]backends.ObjectID, 0, len(page.Versions))
		for _, e := range page.Versions {
			ids = append(ids, idOf(b, e.Key, e.Version))
		}
		if err := deleteAll(ctx, store, ids); errors.Is(err, backends.ErrLocked) {
			locked = err
		} else if err != nil {
			return err
		}
		if !page.Truncated {
			return locked
		}
		opts.KeyMarker, opts.VersionMarker = page.NextKey, page.NextVersionMark
	}
}

// deleteAll deletes objects or versions, some at once. It tries all of them, and
// fails if any cannot be deleted.
func deleteAll(ctx context.Context, store backends.Store, ids []backends.ObjectID) error {
	var group errgroup.Group // without a context: one locked object must not keep the others
	group.SetLimit(deleters)
	for _, id := range ids {
		group.Go(func() error {
			if _, err := store.Delete(ctx, id, &backends.DeleteOptions{BypassGovernance: id.Version != ""}); err != nil {
				return fmt.Errorf("deleting %q: %w", id.Key, err)
			}
			return nil
		})
	}
	return group.Wait()
}
