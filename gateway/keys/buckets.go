package keys

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"chatelaine/kms"
	"chatelaine/kms/service/kmsv1"
)

// bucketTTL is how old a bucket's record may be. That there is none, or that it is
// not active yet, is not remembered.
const bucketTTL = 10 * time.Second

// Bucket returns the bucket of this name. Errors: ErrBucketNotFound, ErrUnavailable.
func (c *Client) Bucket(ctx context.Context, name string) (Bucket, error) {
	now := c.clock.now()
	if e, ok := c.buckets.get(name, now, c.bucketGeneration()); ok {
		refresh(c, e, now, func(ctx context.Context) error {
			_, err := c.fetchBucket(ctx, name)
			return err
		})
		return e.value, nil
	}
	flight := "bucket " + name + " " + strconv.FormatUint(c.bucketGeneration(), 16)
	b, err := shared(ctx, c, flight, func(ctx context.Context) (Bucket, error) { return c.fetchBucket(ctx, name) })
	if err != nil {
		return Bucket{}, fmt.Errorf("keys: finding bucket %q: %w", name, translate(err, ErrBucketNotFound))
	}
	return b, nil
}

// bucketGeneration grows with revocations and with this client's own changes.
func (c *Client) bucketGeneration() uint64 { return c.generation.load() + c.edits.load() }

func (c *Client) fetchBucket(ctx context.Context, name string) (Bucket, error) {
	generation, sent := c.bucketGeneration(), c.clock.now()
	var answer *kmsv1.BucketResponse
	err := c.again(ctx, "Bucket", func(ctx context.Context) (err error) {
		answer, err = c.rpc.Bucket(ctx, &kmsv1.BucketRequest{Name: name})
		return err
	})
	if err != nil {
		if errors.Is(err, kms.ErrNotFound) {
			c.buckets.entries.Remove(name)
		}
		return Bucket{}, err
	}
	b, err := bucketOf(answer.GetBucket())
	if err == nil && b.Active && generation == c.bucketGeneration() {
		c.buckets.put(name, b, generation, sent, bucketTTL)
	}
	return b, err
}

// Buckets lists the buckets of a principal by name. Errors: ErrUnavailable.
func (c *Client) Buckets(ctx context.Context, owner string) ([]Bucket, error) {
	var answer *kmsv1.ListBucketsResponse
	err := c.again(ctx, "ListBuckets", func(ctx context.Context) (err error) {
		answer, err = c.rpc.ListBuckets(ctx, &kmsv1.ListBucketsRequest{Owner: owner})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("keys: listing the buckets of %q: %w", owner, translate(err, ErrUnavailable))
	}
	out := make([]Bucket, 0, len(answer.GetBuckets()))
	for _, message := range answer.GetBuckets() {
		b, err := bucketOf(message)
		if err != nil {
			return nil, fmt.Errorf("keys: listing the buckets of %q: %w", owner, err)
		}
		out = append(out, b)
	}
	slices.SortFunc(out, func(a, b Bucket) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

// RegisterBucket makes the record of a bucket, which is not active. ErrBucketOwned
// comes with the bucket that the owner has already; ErrBucketExists when somebody
// else has the name, or another bucket is kept under that name in the store.
func (c *Client) RegisterBucket(ctx context.Context, n NewBucket) (Bucket, error) {
	b, err := c.registerBucket(ctx, n)
	if err != nil {
		err = fmt.Errorf("keys: registering bucket %q: %w", n.Name, err)
	}
	return b, err
}

func (c *Client) registerBucket(ctx context.Context, n NewBucket) (Bucket, error) {
	var answer *kmsv1.RegisterBucketResponse
	err := c.edit(ctx, "RegisterBucket", func(ctx context.Context) (err error) {
		answer, err = c.rpc.RegisterBucket(ctx, &kmsv1.RegisterBucketRequest{
			Name: n.Name, Store: n.Store, StoreName: n.StoreName, Owner: n.Owner, Kek: n.KEK,
		})
		return err
	})
	if err != nil {
		return Bucket{}, translate(err, ErrUnavailable)
	}
	if answer.GetOutcome() == kmsv1.RegisterBucketResponse_OUTCOME_TAKEN {
		return Bucket{}, ErrBucketExists
	}
	b, err := bucketOf(answer.GetBucket())
	if err == nil && answer.GetOutcome() == kmsv1.RegisterBucketResponse_OUTCOME_OWNED {
		err = ErrBucketOwned
	}
	return b, err
}

// ActivateBucket says that the store has the bucket too. Errors: ErrBucketNotFound,
// ErrUnavailable.
func (c *Client) ActivateBucket(ctx context.Context, name string) error {
	err := c.edit(ctx, "ActivateBucket", func(ctx context.Context) error {
		_, err := c.rpc.ActivateBucket(ctx, &kmsv1.ActivateBucketRequest{Name: name})
		return err
	})
	if err != nil {
		return fmt.Errorf("keys: activating bucket %q: %w", name, translate(err, ErrBucketNotFound))
	}
	return nil
}

// RemoveBucket removes the record of a bucket and its bucket keys. Other gateways
// may see the bucket for up to 10 s more. Errors: ErrBucketNotFound, ErrUnavailable.
func (c *Client) RemoveBucket(ctx context.Context, name string) error {
	err := c.edit(ctx, "RemoveBucket", func(ctx context.Context) error {
		_, err := c.rpc.RemoveBucket(ctx, &kmsv1.RemoveBucketRequest{Name: name})
		return err
	})
	if err != nil {
		return fmt.Errorf("keys: removing bucket %q: %w", name, translate(err, ErrBucketNotFound))
	}
	return nil
}

// edit changes buckets. Whatever the error says, the change may have been made, so
// the records kept are not used again.
func (c *Client) edit(ctx context.Context, op string, call func(context.Context) error) error {
	err := c.once(ctx, op, call)
	c.edits.next()
	return err
}

func bucketOf(m *kmsv1.Bucket) (Bucket, error) {
	space, err := uuid.Parse(m.GetSpace())
	if err != nil {
		return Bucket{}, fmt.Errorf("space of bucket %q: %w", m.GetName(), err)
	}
	return Bucket{
		Name: m.GetName(), Space: Space(space), Store: m.GetStore(), StoreName: m.GetStoreName(), KEK: m.GetKek(),
		Owner: m.GetOwner(), Strict: m.GetProfile() == string(kms.Strict), MD5: m.GetEtag() == string(kms.ETagMD5),
		Created: m.GetCreated().AsTime(), Active: m.GetState() == string(kms.BucketActive),
	}, nil
}
