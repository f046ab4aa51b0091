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
	Unswept    []Bucket     // shredded: the records of their keys are to be deleted, and Swept told
	Adoptions  []Adoption   // that run: to be taken over with Adopt where nobody is at them
	Learning   []Bucket     // with the rollback guard: their objects are to be found, and Learn told
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
	for _, message := range answer.GetUnswept() {
		b, err := bucketOf(message)
		if err != nil {
			return Work{}, fmt.Errorf("keys: asking for work: %w", err)
		}
		out.Unswept = append(out.Unswept, b)
	}
	for _, message := range answer.GetAdoptions() {
		a, err := adoptionOf(message)
		if err != nil {
			return Work{}, fmt.Errorf("keys: asking for work: %w", err)
		}
		out.Adoptions = append(out.Adoptions, a)
	}
	for _, message := range answer.GetLearning() {
		b, err := bucketOf(message)
		if err != nil {
			return Work{}, fmt.Errorf("keys: asking for work: %w", err)
		}
		out.Learning = append(out.Learning, b)
	}
	return out, nil
}

// Sweep is what was found in the backend of a shredded bucket.
type Sweep struct {
	Bucket  Bucket
	Mirrors uint64 // records of keys that were deleted
	Left    uint64 // that are there still
	Seen    uint64 // objects that the samples were drawn from
	Samples []Sample
	Problem string // why it failed; empty: it did not
}

// Sample is an object that was looked at.
type Sample struct {
	Object string
	KeyID  []byte // the bucket key that its envelope names; nil: it has no envelope
}

// Swept tells the KMS of a sweep. It needs a lease. Errors: ErrBucketNotFound,
// ErrUnavailable.
func (c *Client) Swept(ctx context.Context, s Sweep) error {
	r := &kmsv1.SweptRequest{Space: s.Bucket.Space.String(), Mirrors: s.Mirrors, Left: s.Left, Seen: s.Seen, Problem: s.Problem}
	for _, sample := range s.Samples {
		r.Samples = append(r.Samples, &kmsv1.Sample{Object: sample.Object, KeyId: sample.KeyID})
	}
	_, _, err := leased(ctx, c, "Swept", func(ctx context.Context, lease string) (*kmsv1.SweptResponse, error) {
		r.LeaseId = lease
		return c.mirrors.Swept(ctx, r)
	})
	if err != nil {
		return fmt.Errorf("keys: telling of the sweep of bucket %q: %w", s.Bucket.Name, translate(err, ErrBucketNotFound))
	}
	return nil
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
