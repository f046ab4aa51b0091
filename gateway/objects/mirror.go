package objects

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"go.uber.org/zap"

	"chatelaine/backends"
	"chatelaine/gateway/keys"
	"chatelaine/gateway/sealed"
)

// MirrorPrefix begins the names of the wrapped bucket keys beside the objects
// that they open, from which a lost registry is rebuilt.
const MirrorPrefix = ReservedPrefix + "keys/"

// sealingKey is the bucket key to seal with now. Before it is used for the first
// time its wrapped record is stored beside the objects: what is sealed can be
// opened again even when the registry is lost.
func (s *Service) sealingKey(ctx context.Context, b keys.Bucket, store backends.Store) (keys.BucketKey, error) {
	bk, err := s.keys.Current(ctx, b)
	if err != nil {
		return bk, fmt.Errorf("objects: getting the key of bucket %q: %w", b.Name, err)
	}
	if bk.Mirrored {
		return bk, nil
	}
	return bk, s.mirrorAndConfirm(ctx, b, store, bk.ID, bk.Record)
}

// mirrorEvery is how often the KMS is asked for records to be written: bucket keys that
// were wrapped anew. Nothing waits for them but the destruction of a KEK.
const mirrorEvery = 3 * time.Second

// Run writes the records of bucket keys that were wrapped anew, until ctx ends, whose
// error it returns. Several gateways may run it.
func (s *Service) Run(ctx context.Context) error {
	for {
		n, err := s.mirrorAll(ctx)
		if err != nil && ctx.Err() == nil {
			s.log.Warn("records of bucket keys not mirrored", zap.Error(err))
		}
		if n > 0 && err == nil {
			continue // there may be more
		}
		select {
		case <-time.After(mirrorEvery*3/4 + rand.N(mirrorEvery/2)): //nolint:gosec // jitter is no secret
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// mirrorAll writes and confirms the records that the KMS names, and says how many it
// did. One that fails, as its backend is away, keeps no other from being written.
func (s *Service) mirrorAll(ctx context.Context) (int, error) {
	todo, err := s.keys.Unmirrored(ctx)
	if err != nil {
		return 0, fmt.Errorf("objects: looking for records to be mirrored: %w", err)
	}
	done := 0
	var errs []error
	for _, u := range todo {
		if err := s.mirrorOne(ctx, u); err != nil {
			errs = append(errs, err)
			continue
		}
		done++
	}
	return done, errors.Join(errs...)
}

func (s *Service) mirrorOne(ctx context.Context, u keys.Unmirrored) error {
	ctx, cancel := context.WithTimeout(ctx, mirrorTimeout)
	defer cancel()
	store, err := s.storeOf(u.Bucket)
	if err != nil {
		return err
	}
	return s.mirrorAndConfirm(ctx, u.Bucket, store, u.ID, u.Record)
}

// mirrorTimeout bounds the writing of one record.
const mirrorTimeout = 30 * time.Second

// mirrorAndConfirm tells the KMS exactly what was written: the key may have been wrapped
// anew meanwhile.
func (s *Service) mirrorAndConfirm(ctx context.Context, b keys.Bucket, store backends.Store, id [16]byte, record []byte) error {
	if err := s.mirror(ctx, b, store, hex.EncodeToString(id[:]), record); err != nil {
		return err
	}
	if err := s.keys.ConfirmMirror(ctx, b, id, record); err != nil {
		return fmt.Errorf("objects: confirming a mirrored key of bucket %q: %w", b.Name, err)
	}
	return nil
}

func (s *Service) mirror(ctx context.Context, b keys.Bucket, store backends.Store, id string, record []byte) error {
	return s.putReserved(ctx, b, store, MirrorPrefix+id, record)
}

// putReserved stores one of the gateway's own small objects.
func (s *Service) putReserved(ctx context.Context, b keys.Bucket, store backends.Store, key string, data []byte) error {
	body := backends.Body{Reader: bytes.NewReader(data), Size: int64(len(data))}
	opts := &backends.PutOptions{Attributes: backends.Attributes{ContentType: octetStream}}
	if _, err := store.Put(ctx, idOf(b, key, ""), body, opts); err != nil {
		return fmt.Errorf("objects: storing %q: %w", key, err)
	}
	return nil
}

// finder finds keys to open objects of a bucket with.
func (s *Service) finder(ctx context.Context, b keys.Bucket) keyFinder {
	return func(id sealed.KeyID) (keys.BucketKey, error) { return s.keys.ByID(ctx, b, id) }
}
