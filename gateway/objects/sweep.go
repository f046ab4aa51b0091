package objects

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"

	"chatelaine/backends"
	"chatelaine/gateway/keys"
	"chatelaine/gateway/sealed"
)

const (
	// sweepPages is how many pages of a shredded bucket are listed for samples: 10,000
	// objects, whatever the bucket holds.
	sweepPages = 10
	// sweepSamples is how many of those are looked at.
	sweepSamples = 20
	// maxProblem is the longest text of a failure that the KMS is told, in bytes.
	maxProblem = 1000
)

// sweepBucket deletes the records of a shredded bucket's keys from the backend, looks
// at some of its objects, and tells the KMS. A bucket that is not there any more has
// nothing left.
func (s *Service) sweepBucket(ctx context.Context, b keys.Bucket) error {
	sweep := keys.Sweep{Bucket: b}
	err := s.sweep(ctx, b, &sweep)
	if errors.Is(err, backends.ErrBucketNotFound) {
		err = nil
	}
	if err == nil && sweep.Left > 0 {
		err = fmt.Errorf("objects: %d records of keys are left in bucket %q", sweep.Left, b.Name)
	}
	if err != nil {
		text := err.Error()
		sweep.Problem = text[:min(len(text), maxProblem)]
	}
	return errors.Join(err, s.keys.Swept(context.WithoutCancel(ctx), sweep))
}

func (s *Service) sweep(ctx context.Context, b keys.Bucket, out *keys.Sweep) error {
	store, err := s.storeOf(b)
	if err != nil {
		return err
	}
	if out.Mirrors, out.Left, err = s.clearMirrors(ctx, b, store, MirrorPrefix); err != nil {
		return fmt.Errorf("objects: deleting the records of the keys of bucket %q: %w", b.Name, err)
	}
	drawn, err := draw(ctx, b, store, out)
	if err != nil {
		return fmt.Errorf("objects: sampling bucket %q: %w", b.Name, err)
	}
	for _, key := range drawn {
		info, err := store.Head(ctx, idOf(b, key, ""), nil)
		if errors.Is(err, backends.ErrNotFound) || errors.Is(err, backends.ErrDeleteMarker) {
			continue // it was deleted since
		}
		if err != nil {
			return fmt.Errorf("objects: sampling %q: %w", key, err)
		}
		out.Samples = append(out.Samples, sampleOf(key, info))
	}
	return nil
}

// clearMirrors deletes records of keys, all versions of them, and counts those that
// were there and those that are there still.
func (s *Service) clearMirrors(ctx context.Context, b keys.Bucket, store backends.Store, prefix string) (deleted, left uint64, err error) {
	before, err := countUnder(ctx, b, store, prefix)
	if err != nil {
		return 0, 0, err
	}
	locked := errors.Join(s.clearObjects(ctx, b, store, prefix), s.clearVersions(ctx, b, store, prefix))
	if locked != nil && !errors.Is(locked, backends.ErrLocked) {
		return 0, 0, locked
	}
	after, err := countUnder(ctx, b, store, prefix)
	return before - min(before, after), after, err
}

// countUnder counts the objects under a prefix; where the bucket has versions, those.
func countUnder(ctx context.Context, b keys.Bucket, store backends.Store, prefix string) (n uint64, err error) {
	v, ok, err := versionedStore(ctx, b, store)
	if err != nil {
		return 0, err
	}
	if ok {
		return countVersions(ctx, b, v, prefix)
	}
	opts := backends.ListOptions{Prefix: prefix}
	for {
		page, err := store.List(ctx, b.StoreName, &opts)
		if err != nil {
			return n, fmt.Errorf("listing records of keys: %w", err)
		}
		n += uint64(len(page.Entries))
		if !page.Truncated {
			return n, nil
		}
		opts.Token = page.Token
	}
}

// countVersions counts what has bytes: a delete marker has none.
func countVersions(ctx context.Context, b keys.Bucket, v backends.Versioner, prefix string) (n uint64, err error) {
	opts := backends.ListVersionsOptions{Prefix: prefix}
	for {
		page, err := v.ListVersions(ctx, b.StoreName, &opts)
		if err != nil {
			return n, fmt.Errorf("listing versions of records of keys: %w", err)
		}
		for _, e := range page.Versions {
			if !e.Marker {
				n++
			}
		}
		if !page.Truncated {
			return n, nil
		}
		opts.KeyMarker, opts.VersionMarker = page.NextKey, page.NextVersionMark
	}
}

// draw chooses objects at random, each of those listed as likely as another (reservoir
// sampling), and notes how many there were.
func draw(ctx context.Context, b keys.Bucket, store backends.Store, out *keys.Sweep) ([]string, error) {
	var drawn []string
	var opts backends.ListOptions
	for range sweepPages {
		page, err := store.List(ctx, b.StoreName, &opts)
		if err != nil {
			return nil, err
		}
		for _, e := range page.Entries {
			if Reserved(e.Key) {
				continue
			}
			out.Seen++
			if len(drawn) < sweepSamples {
				drawn = append(drawn, e.Key)
			} else if i := rand.Uint64N(out.Seen); i < sweepSamples { //nolint:gosec // G404: nobody gains by guessing it
				drawn[i] = e.Key
			}
		}
		if !page.Truncated {
			break
		}
		opts.Token = page.Token
	}
	return drawn, nil
}

// sampleOf is which key an object's envelope names. It cannot be opened, so what is
// said of it is what the provider says.
func sampleOf(key string, info backends.Info) keys.Sample {
	id, err := sealed.EnvelopeKeyID(info.Attributes.Metadata[sealed.MetadataName])
	if err != nil {
		return keys.Sample{Object: key}
	}
	return keys.Sample{Object: key, KeyID: id[:]}
}
