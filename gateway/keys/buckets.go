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
	if c.gone.Contains(b.Space) {
		c.forget(map[Space]bool{b.Space: true})
		return Bucket{}, fmt.Errorf("%w: %w", kms.ErrNotFound, errRemoved)
	}
	return b, err
}

// Buckets lists the buckets of all owners by name. Errors: ErrUnavailable.
func (c *Client) Buckets(ctx context.Context) ([]Bucket, error) {
	var answer *kmsv1.ListBucketsResponse
	err := c.again(ctx, "ListBuckets", func(ctx context.Context) (err error) {
		answer, err = c.rpc.ListBuckets(ctx, &kmsv1.ListBucketsRequest{})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("keys: listing the buckets: %w", translate(err, ErrUnavailable))
	}
	out := make([]Bucket, 0, len(answer.GetBuckets()))
	for _, message := range answer.GetBuckets() {
		b, err := bucketOf(message)
		if err != nil {
			return nil, fmt.Errorf("keys: listing the buckets: %w", err)
		}
		out = append(out, b)
	}
	slices.SortFunc(out, func(a, b Bucket) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

// RegisterBucket makes the record of a bucket, which is not active. ErrBucketOwned
// comes with the bucket that the owner has already; ErrBucketExists when somebody
// else has the name, or another bucket is kept under that name in the store.
//
// It waits while another gateway may still use the keys of a removed bucket of this
// name, some seconds usually and 17 s at most with a lease of 15 s. Where ctx or the
// KMS's own limit ends that, it is ErrBucketBusy, and nothing was registered.
func (c *Client) RegisterBucket(ctx context.Context, n NewBucket) (Bucket, error) {
	b, err := c.registerBucket(ctx, n)
	if err != nil {
		err = fmt.Errorf("keys: registering bucket %q: %w", n.Name, err)
	}
	return b, err
}

func (c *Client) registerBucket(ctx context.Context, n NewBucket) (Bucket, error) {
	etag := kms.ETagBackend
	if n.MD5 {
		etag = kms.ETagMD5
	}
	var answer *kmsv1.RegisterBucketResponse
	err := c.edit(ctx, "RegisterBucket", c.timeout+c.lease.ttl()+settling, func(ctx context.Context) (err error) {
		answer, err = c.rpc.RegisterBucket(ctx, &kmsv1.RegisterBucketRequest{
			Name: n.Name, Store: n.Store, StoreName: n.StoreName, Owner: n.Owner, Kek: n.KEK, Etag: string(etag),
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
	err := c.edit(ctx, "ActivateBucket", c.timeout, func(ctx context.Context) error {
		_, err := c.rpc.ActivateBucket(ctx, &kmsv1.ActivateBucketRequest{Name: name})
		return err
	})
	if err != nil {
		return fmt.Errorf("keys: activating bucket %q: %w", name, translate(err, ErrBucketNotFound))
	}
	return nil
}

// RemoveBucket removes the record of a bucket and its bucket keys. When it returns,
// this client uses none of them any more; other gateways may see the bucket until
// they renew their leases. Errors: ErrBucketNotFound, ErrUnavailable.
func (c *Client) RemoveBucket(ctx context.Context, name string) error {
	old, cached := c.buckets.entries.Peek(name)
	err := c.edit(ctx, "RemoveBucket", c.timeout, func(ctx context.Context) error {
		_, err := c.rpc.RemoveBucket(ctx, &kmsv1.RemoveBucketRequest{Name: name})
		return err
	})
	if err != nil {
		return fmt.Errorf("keys: removing bucket %q: %w", name, translate(err, ErrBucketNotFound))
	}
	if cached { // also when the KMS is not there for learn
		c.removed([]string{old.value.Space.String()})
	}
	c.learn(ctx)
	return nil
}

// settling is how long the KMS may wait beyond a lease before it registers a bucket.
const settling = 3 * time.Second

// edit changes buckets. Whatever the error says, the change may have been made, so
// the records kept are not used again.
func (c *Client) edit(ctx context.Context, op string, timeout time.Duration, call func(context.Context) error) error {
	err := c.onceWithin(ctx, timeout, op, call)
	c.edits.next()
	return err
}

func bucketOf(m *kmsv1.Bucket) (Bucket, error) {
	space, err := uuid.Parse(m.GetSpace())
	if err != nil {
		return Bucket{}, fmt.Errorf("space of bucket %q: %w", m.GetName(), err)
	}
	b := Bucket{
		Name: m.GetName(), Space: Space(space), Store: m.GetStore(), StoreName: m.GetStoreName(), KEK: m.GetKek(),
		Owner: m.GetOwner(), Strict: m.GetProfile() == string(kms.Strict), MD5: m.GetEtag() == string(kms.ETagMD5),
		Created: m.GetCreated().AsTime(), Active: m.GetState() != string(kms.BucketCreating), Shredded: m.GetState() == string(kms.BucketShredded),
	}
	if m.GetState() == string(kms.BucketAdopting) && m.GetCutOff() != nil {
		b.Adopting = Adopting{CutOff: m.GetCutOff().AsTime(), SealedTo: m.GetSealedTo()}
	}
	if b.Guarded = m.GetLedger() != ""; b.Guarded {
		if len(m.GetLedgerKey()) != len(b.LedgerKey) {
			return Bucket{}, fmt.Errorf("key of the ledger of bucket %q of %d bytes", m.GetName(), len(m.GetLedgerKey()))
		}
		b.LedgerKey = [16]byte(m.GetLedgerKey())
	}
	return b, nil
}
