package objects

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"go.uber.org/zap"

	"chatelaine/backends"
	"chatelaine/gateway/keys"
)

// afterReserved is greater than every name of the gateway's own, and no client
// may use it: listings that go on after it skip them all.
const afterReserved = ReservedPrefix + "\U0010FFFF"

// Bucket finds a bucket that can be used. keys.ErrBucketNotFound.
func (s *Service) Bucket(ctx context.Context, name string) (keys.Bucket, error) {
	b, err := s.keys.Bucket(ctx, name)
	if err == nil && !b.Active {
		err = keys.ErrBucketNotFound
	}
	if err != nil {
		return keys.Bucket{}, fmt.Errorf("objects: looking up bucket %q: %w", name, err)
	}
	return b, nil
}

// Buckets lists the buckets of all owners by name.
func (s *Service) Buckets(ctx context.Context) ([]keys.Bucket, error) {
	all, err := s.keys.Buckets(ctx)
	if err != nil {
		return nil, fmt.Errorf("objects: listing buckets: %w", err)
	}
	usable := all[:0]
	for _, b := range all {
		if b.Active {
			usable = append(usable, b)
		}
	}
	return usable, nil
}

// HeadBucket asks the backend whether it has the bucket too.
func (s *Service) HeadBucket(ctx context.Context, b keys.Bucket) error {
	store, err := s.storeOf(b)
	if err != nil {
		return err
	}
	if err := store.HeadBucket(ctx, b.StoreName); err != nil {
		return fmt.Errorf("objects: looking for bucket %q: %w", b.Name, err)
	}
	return nil
}

// CreateBucket is CreateBucketOn the default backend.
func (s *Service) CreateBucket(ctx context.Context, principal, name string) error {
	return s.CreateBucketOn(ctx, principal, name, "")
}

// CreateBucketOn registers a bucket, makes it on a backend and stores its first key's
// record there; only then can it be used. An empty store means the default backend.
// What a crash leaves half done, the next call finishes; one that names another backend
// is keys.ErrBucketOwned. ErrNoStore, keys.ErrBucketExists.
func (s *Service) CreateBucketOn(ctx context.Context, principal, name, store string) error {
	return s.createBucket(ctx, principal, name, store, backends.Store.CreateBucket)
}

// CreateLockedBucketOn is CreateBucketOn with Object Lock enabled. ErrUnsupported.
func (s *Service) CreateLockedBucketOn(ctx context.Context, principal, name, store string) error {
	if err := s.checkStore(store); err != nil {
		return err
	}
	locker, err := capability[backends.Locker](s, keys.Bucket{Store: cmp.Or(store, s.store)})
	if err != nil {
		return err
	}
	return s.createBucket(ctx, principal, name, store, func(_ backends.Store, ctx context.Context, bucket string) error {
		err := locker.CreateLockedBucket(ctx, bucket)
		if !errors.Is(err, backends.ErrBucketExists) {
			return err
		}
		// An earlier attempt may have made it; without the lock it is another bucket.
		if c, lockErr := locker.LockConfig(ctx, bucket); lockErr != nil || !c.Enabled {
			return fmt.Errorf("%w: without a lock", errForeign)
		}
		return err
	})
}

// errForeign: there is a bucket on the backend that cannot be the one to be made.
var errForeign = errors.New("bucket of another kind exists")

// making makes a bucket on a store.
type making func(store backends.Store, ctx context.Context, bucket string) error

// checkStore refuses to make buckets on a backend that is not offered.
func (s *Service) checkStore(name string) error {
	if name != "" && name != s.store && !slices.Contains(s.offered, name) {
		return fmt.Errorf("objects: making a bucket on %q: %w", name, ErrNoStore)
	}
	return nil
}

func (s *Service) createBucket(ctx context.Context, principal, name, on string, create making) error {
	if err := s.checkStore(on); err != nil {
		return err
	}
	b, err := s.keys.RegisterBucket(ctx, keys.NewBucket{Name: name, Store: cmp.Or(on, s.store), StoreName: s.prefix + name, Owner: principal, MD5: s.wantsMD5(name)})
	begun := errors.Is(err, keys.ErrBucketOwned) && !b.Active && (on == "" || on == b.Store)
	if err != nil && !begun {
		return fmt.Errorf("objects: registering bucket %q: %w", name, err)
	}
	store, err := s.storeOf(b)
	if err != nil {
		return err
	}
	if err := s.makeBucket(ctx, b, store, begun, create); err != nil {
		return err
	}
	return s.activate(ctx, b, store)
}

// activate lets a bucket be used that its store has: its first key comes first.
func (s *Service) activate(ctx context.Context, b keys.Bucket, store backends.Store) error {
	if _, err := s.sealingKey(ctx, b, store); err != nil {
		return err
	}
	if err := s.keys.ActivateBucket(ctx, b.Name); err != nil {
		return fmt.Errorf("objects: activating bucket %q: %w", b.Name, err)
	}
	return nil
}

// makeBucket makes the bucket on its backend. One that is there already is
// somebody else's, unless an earlier attempt of ours was cut off and it is empty.
func (s *Service) makeBucket(ctx context.Context, b keys.Bucket, store backends.Store, begun bool, create making) error {
	err := create(store, ctx, b.StoreName)
	if err == nil {
		return nil
	}
	if begun && errors.Is(err, backends.ErrBucketExists) {
		if empty, emptyErr := s.empty(ctx, b, store); emptyErr == nil && empty {
			return nil
		}
	}
	if !errors.Is(err, backends.ErrBucketExists) && !errors.Is(err, errForeign) { // it may have been made all the same: the next attempt finds out
		return fmt.Errorf("objects: making bucket %q: %w", b.Name, err)
	}
	return s.refuse(context.WithoutCancel(ctx), b, err)
}

// refuse takes a record away whose bucket the backend had already, and returns the
// error for it. Another request may have made that bucket for the same record, and have
// activated it: then it stays, and is its owner's.
func (s *Service) refuse(ctx context.Context, b keys.Bucket, cause error) error {
	err := s.keys.RefuseBucket(ctx, b.Name)
	if now, lookErr := s.keys.Bucket(ctx, b.Name); lookErr == nil && now.Active && now.Space == b.Space {
		return fmt.Errorf("objects: making bucket %q: %w: another request made it: %w", b.Name, keys.ErrBucketOwned, cause)
	}
	return errors.Join(fmt.Errorf("objects: making bucket %q: %w: %w", b.Name, keys.ErrBucketExists, cause), err)
}

// empty says whether a bucket holds nothing but the gateway's own objects.
func (s *Service) empty(ctx context.Context, b keys.Bucket, store backends.Store) (bool, error) {
	if v, ok, err := versionedStore(ctx, b, store); err != nil {
		return false, err
	} else if ok {
		return emptyOfVersions(ctx, b, v)
	}
	for _, after := range []string{"", afterReserved} {
		page, err := store.List(ctx, b.StoreName, &backends.ListOptions{After: after, Limit: 1})
		if err != nil {
			return false, fmt.Errorf("objects: listing bucket %q: %w", b.Name, err)
		}
		if len(page.Entries) > 0 && !Reserved(page.Entries[0].Key) {
			return false, nil
		}
	}
	return true, nil
}

// DeleteBucket deletes a bucket that holds nothing but the gateway's own objects,
// and its keys. backends.ErrBucketNotEmpty.
func (s *Service) DeleteBucket(ctx context.Context, b keys.Bucket) error {
	store, err := s.storeOf(b)
	if err != nil {
		return err
	}
	empty, err := s.empty(ctx, b, store)
	gone := errors.Is(err, backends.ErrBucketNotFound) // by an earlier attempt that was cut off
	switch {
	case err != nil && !gone:
		return err
	case err == nil && !empty:
		return fmt.Errorf("objects: deleting bucket %q: %w", b.Name, backends.ErrBucketNotEmpty)
	case err == nil:
		if err := s.clearAndDelete(ctx, b, store); err != nil {
			return err
		}
	}
	if err := s.keys.RemoveBucket(ctx, b.Name); err != nil {
		return fmt.Errorf("objects: unregistering bucket %q: %w", b.Name, err)
	}
	return nil
}

// clearAndDelete deletes the gateway's own objects and then the bucket. When the
// bucket is not empty after all, the records of its keys are put back.
func (s *Service) clearAndDelete(ctx context.Context, b keys.Bucket, store backends.Store) error {
	records, err := s.clearReserved(ctx, b, store)
	if err == nil {
		err = store.DeleteBucket(ctx, b.StoreName)
	}
	if err == nil || errors.Is(err, backends.ErrBucketNotFound) {
		return nil
	}
	err = fmt.Errorf("objects: deleting bucket %q: %w", b.Name, err)
	for key, record := range records {
		if putErr := s.putReserved(context.WithoutCancel(ctx), b, store, key, record); putErr != nil {
			s.log.Error("a bucket key's mirror is missing", zap.String("bucket", b.Name), zap.Error(putErr))
			err = errors.Join(err, putErr)
		}
	}
	return err
}

// clearReserved deletes the gateway's own objects and returns those that matter:
// the records of bucket keys, also when it fails.
func (s *Service) clearReserved(ctx context.Context, b keys.Bucket, store backends.Store) (map[string][]byte, error) {
	records := map[string][]byte{}
	opts := backends.ListOptions{Prefix: MirrorPrefix}
	for more := true; more; {
		page, err := store.List(ctx, b.StoreName, &opts)
		if err != nil {
			return nil, fmt.Errorf("listing records of keys: %w", err)
		}
		for _, e := range page.Entries {
			if records[e.Key], err = s.getReserved(ctx, b, store, e.Key, nil); err != nil {
				return nil, err
			}
		}
		more, opts.Token = page.Truncated, page.Token
	}
	if err := s.clearObjects(ctx, b, store, ReservedPrefix); err != nil {
		return records, err
	}
	return records, s.clearVersions(ctx, b, store, ReservedPrefix)
}

// maxReserved bounds what is read of the gateway's own small objects, in bytes.
const maxReserved = 64 << 10

// getReserved reads one of the gateway's own small objects.
func (s *Service) getReserved(ctx context.Context, b keys.Bucket, store backends.Store, key string, opts *backends.GetOptions) ([]byte, error) {
	o, err := store.Get(ctx, idOf(b, key, ""), opts)
	if err != nil {
		return nil, fmt.Errorf("objects: reading %q: %w", key, err)
	}
	defer func() { _ = o.Body.Close() }()
	data, err := io.ReadAll(io.LimitReader(o.Body, maxReserved))
	if err != nil {
		return nil, fmt.Errorf("objects: reading %q: %w", key, err)
	}
	return data, nil
}
