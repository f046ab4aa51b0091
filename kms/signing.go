package kms

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"
)

// Signature dates a signing key is derived for, relative to today (UTC): presigned
// requests live for 7 days (S3 API, "Authenticating Requests: Using Query
// Parameters"), and clocks differ by some minutes. Without bounds a gateway could
// stock keys for years to come, which would be as good as the secret.
const (
	oldestScope = -8 * 24 * time.Hour
	newestScope = 24 * time.Hour
)

// SigningKey is a SigV4 key derived for one day, region and service.
type SigningKey struct {
	Key       Secret // 32 bytes
	Principal string
	KEK       KeyRef    // what its secrets are wrapped under
	Unwrapped time.Time // as in OpenKey
	// Old is the key of the secret before, and OldTTL how long that is live still; of
	// no length, and 0, where there is none.
	Old    Secret
	OldTTL time.Duration
}

// SigningKey derives the SigV4 signing key of an access key. The date is YYYYMMDD.
// ErrNotFound when the access key is unknown, disabled or cannot exist; ErrDenied
// when the date is over 8 days ago or over a day ahead, or the scope is malformed.
func (m *Manager) SigningKey(ctx context.Context, id, date, region, service string) (SigningKey, error) {
	key, err := m.signingKey(ctx, id, date, region, service)
	if err != nil {
		return SigningKey{}, fmt.Errorf("kms: deriving a signing key of %q: %w", id, err)
	}
	return key, nil
}

func (m *Manager) signingKey(ctx context.Context, id, date, region, service string) (SigningKey, error) {
	if checkAccessKeyID(id) != nil {
		return SigningKey{}, ErrNotFound
	}
	err := errors.Join(checkDate(date, time.Now()), checkScope("region", region), checkScope("service", service))
	if err != nil {
		return SigningKey{}, err
	}
	key, err := m.accessKey(ctx, id)
	if err != nil {
		return SigningKey{}, err
	}
	if key.record.Status != KeyEnabled {
		return SigningKey{}, fmt.Errorf("%w: it was disabled", ErrNotFound)
	}
	secret, at, err := m.unwrap(ctx, key.record.ref(), key.record.binding(), key.record.Wrapped)
	if err != nil {
		return SigningKey{}, err
	}
	out := SigningKey{
		Key: deriveSigningKey(secret, date, region, service), Principal: key.record.Principal, KEK: key.record.ref(), Unwrapped: at,
	}
	old, ttl, err := m.oldSecret(ctx, key.record)
	if err == nil && ttl > 0 {
		out.Old, out.OldTTL = deriveSigningKey(old, date, region, service), ttl
	}
	return out, err
}

func checkDate(date string, now time.Time) error {
	day, err := time.Parse("20060102", date)
	if err != nil {
		return fmt.Errorf("%w: date %q is not of the form YYYYMMDD", ErrDenied, date)
	}
	if off := day.Sub(now.UTC().Truncate(24 * time.Hour)); off < oldestScope || off > newestScope {
		return fmt.Errorf("%w: date %q is too far from today", ErrDenied, date)
	}
	return nil
}

// deriveSigningKey is the key derivation of AWS Signature Version 4 (S3 API,
// "Signature Calculations for the Authorization Header").
func deriveSigningKey(secret Secret, date, region, service string) Secret {
	var key []byte
	secret.Use(func(b []byte) { key = append([]byte("AWS4"), b...) })
	for _, text := range []string{date, region, service, "aws4_request"} {
		mac := hmac.New(sha256.New, key)
		_, _ = mac.Write([]byte(text)) // never fails
		key = mac.Sum(nil)
	}
	return NewSecret(key)
}
