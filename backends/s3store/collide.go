package s3store

import (
	"context"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/service/s3"

	"chatelaine/backends"
)

// collision is how versitygw over a folder refuses a write to a key that is the folder of
// others; and a write whose folders a delete took away while it made them, which
// another attempt mends. Both leave nothing behind.
const collision = "ExistingObjectIsDirectory"

// collided tells the two apart, by one listing: err is ErrUnavailable where no key is below
// this one. The bodies of attempts before were small, or there were none.
func (s *Store) collided(ctx context.Context, id backends.ObjectID, err error) error {
	if !s.cfg.dialect.FoldersCollide || !hasCode(err, collision) {
		return err
	}
	below, one := id.Key+"/", int32(1)
	out, listing := s.client.ListObjectsV2(ctx, &s3.ListObjectsV2Input{Bucket: &id.Bucket, Prefix: &below, MaxKeys: &one})
	if listing != nil || len(out.Contents) > 0 {
		return err
	}
	return fmt.Errorf("%w: a delete beside it took its folder: %v", backends.ErrUnavailable, err) //nolint:errorlint // its code says something else
}
