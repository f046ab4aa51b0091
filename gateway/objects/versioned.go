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
