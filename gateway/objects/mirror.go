package objects

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"

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

// mirrorAndConfirm tells the KMS exactly what was written: the key may have been wrapped
// anew meanwhile. Where the key is gone, as the bucket was shredded, what was written
// goes too: nobody else would look for it again.
func (s *Service) mirrorAndConfirm(ctx context.Context, b keys.Bucket, store backends.Store, id [16]byte, record []byte) error {
	if err := s.mirror(ctx, b, store, hex.EncodeToString(id[:]), record); err != nil {
		return err
	}
	err := s.keys.ConfirmMirror(ctx, b, id, record)
	if err == nil {
		return nil
	}
	if errors.Is(err, keys.ErrKeyNotFound) {
		_, _, clearErr := s.clearMirrors(context.WithoutCancel(ctx), b, store, MirrorPrefix+hex.EncodeToString(id[:]))
		err = errors.Join(err, clearErr)
	}
	return fmt.Errorf("objects: confirming a mirrored key of bucket %q: %w", b.Name, err)
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
