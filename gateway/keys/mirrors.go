package keys

import (
	"context"
	"fmt"

	"chatelaine/kms/service/kmsv1"
)

// Unmirrored is a bucket key that was wrapped anew, and whose record is to be written
// into the backend and confirmed.
type Unmirrored struct {
	Bucket Bucket
	ID     [16]byte
	Record []byte
}

// Unmirrored lists some of the keys whose records are to be written. It needs a lease.
// Errors: ErrUnavailable.
func (c *Client) Unmirrored(ctx context.Context) ([]Unmirrored, error) {
	answer, _, err := leased(ctx, c, "Unmirrored", func(ctx context.Context, lease string) (*kmsv1.UnmirroredResponse, error) {
		return c.mirrors.Unmirrored(ctx, &kmsv1.UnmirroredRequest{LeaseId: lease})
	})
	if err != nil {
		return nil, fmt.Errorf("keys: listing records to be mirrored: %w", translate(err, ErrUnavailable))
	}
	var out []Unmirrored
	for _, k := range answer.GetKeys() {
		b, err := bucketOf(k.GetBucket())
		if err != nil || len(k.GetKeyId()) != len(Unmirrored{}.ID) {
			return nil, fmt.Errorf("keys: listing records to be mirrored: a key of bucket %q is malformed: %w", b.Name, err)
		}
		out = append(out, Unmirrored{Bucket: b, ID: [16]byte(k.GetKeyId()), Record: k.GetRecord()})
	}
	return out, nil
}
