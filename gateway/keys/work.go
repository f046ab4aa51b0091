package keys

import (
	"context"
	"errors"
	"fmt"

	"chatelaine/kms"
	"chatelaine/kms/service/kmsv1"
)

// Unmirrored is a bucket key that was wrapped anew, and whose record is to be written
// into the backend and confirmed.
type Unmirrored struct {
	Bucket Bucket
	ID     [16]byte
	Record []byte
}

// Work is what the KMS asks of gateways beside requests.
type Work struct {
	Unmirrored []Unmirrored // some; there may be more
	Unmade     []Bucket     // to be made in their stores and activated
}

// Work asks what there is to do. It needs a lease. Errors: ErrUnavailable.
func (c *Client) Work(ctx context.Context) (Work, error) {
	answer, _, err := leased(ctx, c, "Unmirrored", func(ctx context.Context, lease string) (*kmsv1.UnmirroredResponse, error) {
		return c.mirrors.Unmirrored(ctx, &kmsv1.UnmirroredRequest{LeaseId: lease})
	})
	if err != nil {
		return Work{}, fmt.Errorf("keys: asking for work: %w", translate(err, ErrUnavailable))
	}
	var out Work
	for _, k := range answer.GetKeys() {
		b, err := bucketOf(k.GetBucket())
		if err != nil {
			return Work{}, fmt.Errorf("keys: asking for work: %w", err)
		}
		if len(k.GetKeyId()) != len(Unmirrored{}.ID) {
			return Work{}, fmt.Errorf("keys: asking for work: key id of %d bytes", len(k.GetKeyId()))
		}
		out.Unmirrored = append(out.Unmirrored, Unmirrored{Bucket: b, ID: [16]byte(k.GetKeyId()), Record: k.GetRecord()})
	}
	for _, message := range answer.GetUnmade() {
		b, err := bucketOf(message)
		if err != nil {
			return Work{}, fmt.Errorf("keys: asking for work: %w", err)
		}
		out.Unmade = append(out.Unmade, b)
	}
	return out, nil
}

// RefuseBucket removes the record of a bucket that cannot be made in its store. One that
// was made meanwhile stays. Errors: ErrBucketNotFound, ErrUnavailable.
func (c *Client) RefuseBucket(ctx context.Context, name string) error {
	err := c.edit(ctx, "RemoveBucket", c.timeout, func(ctx context.Context) error {
		_, err := c.rpc.RemoveBucket(ctx, &kmsv1.RemoveBucketRequest{Name: name, Unmade: true})
		return err
	})
	if err != nil && !errors.Is(err, kms.ErrConflict) {
		return fmt.Errorf("keys: refusing bucket %q: %w", name, translate(err, ErrBucketNotFound))
	}
	return nil
}
