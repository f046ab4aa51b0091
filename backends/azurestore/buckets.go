package azurestore

import (
	"context"
	"fmt"

	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/bloberror"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"

	"chatelaine/backends"
)

// CreateBucket implements backends.Store. A container that is still being deleted,
// which takes Azure half a minute and more, is ErrConflict.
func (s *Store) CreateBucket(ctx context.Context, bucket string) error {
	doing := fmt.Sprintf("creating bucket %q", bucket)
	if err := checkContainer(bucket); err != nil {
		return fmt.Errorf("azurestore: %s: %w", doing, err)
	}
	_, err := s.container(bucket).Create(once(ctx), nil)
	if bloberror.HasCode(err, bloberror.ContainerBeingDeleted) {
		return fmt.Errorf("azurestore: %s: %w: the container of that name is still being deleted", doing, backends.ErrConflict)
	}
	return wrap(ctx, doing, err)
}

// DeleteBucket implements backends.Store. Azure deletes containers with all that is in
// them: whether there is anything is asked before, and an object that comes in between
// goes with the container (DECISIONS.md).
func (s *Store) DeleteBucket(ctx context.Context, bucket string) error {
	doing := fmt.Sprintf("deleting bucket %q", bucket)
	if err := checkContainer(bucket); err != nil {
		return fmt.Errorf("azurestore: %s: %w", doing, err)
	}
	if err := s.checkEmpty(ctx, bucket); err != nil {
		return wrap(ctx, doing, err)
	}
	_, err := s.container(bucket).Delete(once(ctx), nil)
	return wrap(ctx, doing, err)
}

// checkEmpty is ErrBucketNotEmpty where there is a blob that is not the driver's own,
// foreign ones and snapshots included. The driver's own come last.
func (s *Store) checkEmpty(ctx context.Context, bucket string) error {
	one := int32(1)
	pager := s.container(bucket).NewListBlobsFlatPager(&container.ListBlobsFlatOptions{
		MaxResults: &one, Include: container.ListBlobsInclude{Snapshots: true},
	})
	for pager.More() {
		page, err := pager.NextPage(ctx)
		if err != nil {
			return err
		}
		for _, item := range page.Segment.BlobItems {
			if deref(item.Name) < reserved {
				return errNotEmpty
			}
			return nil
		}
	}
	return nil
}

// HeadBucket implements backends.Store.
func (s *Store) HeadBucket(ctx context.Context, bucket string) error {
	doing := fmt.Sprintf("looking at bucket %q", bucket)
	if err := checkContainer(bucket); err != nil {
		return fmt.Errorf("azurestore: %s: %w", doing, err)
	}
	_, err := s.container(bucket).GetProperties(ctx, nil)
	return wrap(ctx, doing, err)
}

// ListBuckets implements backends.Store. Containers that S3 has no name for ($root,
// $web) are left out. Azure does not say when a container was made: Created is when it
// was last changed, which the gateway never does.
func (s *Store) ListBuckets(ctx context.Context) ([]backends.BucketInfo, error) {
	var buckets []backends.BucketInfo
	pager := s.service.NewListContainersPager(nil)
	for pager.More() {
		page, err := pager.NextPage(ctx)
		if err != nil {
			return nil, wrap(ctx, "listing the buckets", err)
		}
		for _, item := range page.ContainerItems {
			if checkContainer(deref(item.Name)) == nil && item.Properties != nil {
				buckets = append(buckets, backends.BucketInfo{Name: *item.Name, Created: deref(item.Properties.LastModified)})
			}
		}
	}
	return buckets, nil
}
