package keys

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"chatelaine/kms"
	"chatelaine/kms/service/kmsv1"
)

// openSigning is a signing key as it is kept.
type openSigning struct {
	SigningKey
	kek kms.KeyRef // what its access key is wrapped under
}

// scope is what a signing key is for.
type scope struct{ accessKey, date, region, service string }

// unknownTTL is how long it is remembered that there is no such access key, so that
// guessing does not load the KMS.
const unknownTTL = 5 * time.Second

// SigningKey returns the SigV4 key of an access key for a day (YYYYMMDD), region and
// service. Errors: ErrAccessKeyNotFound, ErrUnavailable, and ErrBlocked for a day
// that is over 8 days ago or over one day ahead.
//
// Ask only for regions and services that the gateway serves: each new scope of an
// access key costs a call to the HSM, before anybody has proved anything.
func (c *Client) SigningKey(ctx context.Context, accessKeyID, date, region, service string) (SigningKey, error) {
	key, err := c.findSigning(ctx, scope{accessKeyID, date, region, service})
	if err != nil {
		return SigningKey{}, fmt.Errorf("keys: signing key of %q: %w", accessKeyID, translate(err, ErrAccessKeyNotFound))
	}
	return key, nil
}

func (c *Client) findSigning(ctx context.Context, s scope) (SigningKey, error) {
	if err := c.lease.ensure(ctx); err != nil {
		return SigningKey{}, err
	}
	now, generation := c.clock.now(), c.generation.load()
	if e, ok := c.signing.get(s, now, generation); ok {
		refresh(c, e, now, func(ctx context.Context) error {
			_, err := c.fetchSigning(ctx, s)
			return err
		})
		return e.value.SigningKey, nil
	}
	if _, ok := c.unknown.get(s.accessKey, now, generation); ok {
		return SigningKey{}, ErrAccessKeyNotFound
	}
	flight := fmt.Sprintf("signing %q ", s) + strconv.FormatUint(generation, 16)
	return shared(ctx, c, flight, func(ctx context.Context) (SigningKey, error) { return c.fetchSigning(ctx, s) })
}

// fetchSigning asks the KMS for a signing key, and keeps the answer unless something
// was revoked meanwhile.
func (c *Client) fetchSigning(ctx context.Context, s scope) (SigningKey, error) {
	generation := c.generation.load()
	answer, sent, err := leased(ctx, c, "SigningKey", func(ctx context.Context, lease string) (*kmsv1.SigningKeyResponse, error) {
		return c.rpc.SigningKey(ctx, &kmsv1.SigningKeyRequest{
			LeaseId: lease, AccessKeyId: s.accessKey, Date: s.date, Region: s.region, Service: s.service,
		})
	})
	if err != nil {
		c.refusedSigning(s, translate(err, ErrAccessKeyNotFound))
		return SigningKey{}, err
	}
	key, ttl, err := signingKeyOf(answer)
	if err != nil {
		return SigningKey{}, err
	}
	kept := openSigning{key, refOf(answer.GetKek())}
	_, err = c.keepUnless(kept.kek, generation, func() {
		c.signing.put(s, kept, generation, sent, ttl)
	})
	if err != nil {
		return SigningKey{}, err
	}
	return key, nil
}

// signingKeyOf takes the keys out of an answer, and clears them there. Where there are
// two, both are kept no longer than the older is good.
func signingKeyOf(answer *kmsv1.SigningKeyResponse) (SigningKey, time.Duration, error) {
	defer clear(answer.GetKey())
	defer clear(answer.GetOldKey())
	if len(answer.GetKey()) != 32 {
		return SigningKey{}, 0, fmt.Errorf("signing key of %d bytes", len(answer.GetKey()))
	}
	key, ttl := NewSigningKey([32]byte(answer.GetKey()), answer.GetPrincipal()), answer.GetTtl().AsDuration()
	switch len(answer.GetOldKey()) {
	case 0:
		return key, ttl, nil
	case 32:
		return key.WithOld([32]byte(answer.GetOldKey())), min(ttl, answer.GetOldTtl().AsDuration()), nil
	default:
		return SigningKey{}, 0, fmt.Errorf("old signing key of %d bytes", len(answer.GetOldKey()))
	}
}

func (c *Client) refusedSigning(s scope, err error) {
	switch {
	case errors.Is(err, ErrAccessKeyNotFound):
		c.unknown.put(s.accessKey, struct{}{}, c.generation.load(), c.clock.now(), unknownTTL)
		c.signing.entries.Remove(s)
	case errors.Is(err, ErrBlocked):
		c.signing.entries.Remove(s)
	}
}
