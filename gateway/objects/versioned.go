package objects

import (
	"context"
	"errors"
	"fmt"

	"chatelaine/backends"
	"chatelaine/gateway/keys"
)

// versionedStore finds out whether a bucket has, or had, versions.
func versionedStore(ctx context.Context, b keys.Bucket, store backends.Store) (backends.Versioner, bool, error) {
	v, ok := backends.As[backends.Versioner](store)
	if !ok {
		return nil, false, nil
	}
	state, err := v.Versioning(ctx, b.StoreName)
	if errors.Is(err, backends.ErrUnsupported) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, fmt.Errorf("objects: reading the versioning of bucket %q: %w", b.Name, err)
	}
	return v, state != backends.VersioningOff, nil
}

// emptyOfVersions says whether a bucket has no version and no delete marker but
// those of the gateway's own objects.
func emptyOfVersions(ctx context.Context, b keys.Bucket, v backends.Versioner) (bool, error) {
	for _, after := range []string{"", afterReserved} {
		page, err := v.ListVersions(ctx, b.StoreName, &backends.ListVersionsOptions{KeyMarker: after, Limit: 1})
		if err != nil {
			return false, fmt.Errorf("objects: listing versions of bucket %q: %w", b.Name, err)
		}
		if len(page.Versions) > 0 && !Reserved(page.Versions[0].Key) {
			return false, nil
		}
	}
	return true, nil
}

// clearVersions deletes what deleting the gateway's own objects under a prefix has
// left in a bucket with versions: older versions and markers.
func (s *Service) clearVersions(ctx context.Context, b keys.Bucket, store backends.Store, prefix string) error {
	v, ok, err := versionedStore(ctx, b, store)
	if err != nil || !ok {
		return err
	}
	for {
		page, err := v.ListVersions(ctx, b.StoreName, &backends.ListVersionsOptions{Prefix: prefix})
		if err != nil {
			return fmt.Errorf("listing versions of reserved objects: %w", err)
		}
		for _, e := range page.Versions {
			id := idOf(b, e.Key, e.Version)
			if _, err := store.Delete(ctx, id, &backends.DeleteOptions{BypassGovernance: true}); err != nil {
				return fmt.Errorf("deleting a version of %q: %w", e.Key, err)
			}
		}
		if !page.Truncated {
			return nil
		}
	}
}
