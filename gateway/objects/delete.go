package objects

import (
	"context"
	"fmt"

	"chatelaine/backends"
)

// Delete deletes an object. One that is not there is deleted already.
func (s *Service) Delete(ctx context.Context, r DeleteRequest) (backends.Deleted, error) {
	if err := checkKey(r.Key); err != nil {
		return backends.Deleted{}, err
	}
	store, err := s.storeOf(r.Bucket)
	if err != nil {
		return backends.Deleted{}, err
	}
	opts := &backends.DeleteOptions{BypassGovernance: r.BypassGovernance}
	if opts.Conditions, err = s.writeConditions(ctx, r.Bucket, r.Key, r.Version, r.IfMatch, nil); err != nil {
		return backends.Deleted{}, fmt.Errorf("objects: deleting %q: %w", r.Key, err)
	}
	deleted, err := store.Delete(ctx, idOf(r.Bucket, r.Key, r.Version), opts)
	if err != nil {
		return deleted, fmt.Errorf("objects: deleting %q: %w", r.Key, err)
	}
	return deleted, nil
}
