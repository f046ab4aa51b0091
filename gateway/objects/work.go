package objects

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"go.uber.org/zap"

	"chatelaine/backends"
	"chatelaine/gateway/keys"
)

const (
	// workEvery is how often the KMS is asked for work. Nothing of S3 waits for it, but
	// administrators do.
	workEvery = 3 * time.Second
	// adoptEvery is as often while there are adoptions: who is at them may be killed.
	adoptEvery = time.Second
	// workTimeout bounds one piece of it.
	workTimeout = 30 * time.Second
)

// Run does what the KMS asks of gateways until ctx ends, whose error it returns: it
// writes the records of bucket keys that were wrapped anew, makes buckets, deletes
// the records of the keys of shredded ones, adopts plaintext ones, and takes the objects of
// those into their ledgers that got the rollback guard. Several
// gateways may do the same at once.
func (s *Service) Run(ctx context.Context) error {
	var adopting adoptions
	defer adopting.running.Wait()
	for {
		n, adoptions, err := s.work(ctx, &adopting)
		if err != nil && ctx.Err() == nil {
			s.log.Warn("the KMS's work is not done", zap.Error(err))
		}
		if n > 0 && err == nil {
			continue // there may be more
		}
		every := workEvery
		if adoptions > 0 {
			every = adoptEvery
		}
		select {
		case <-time.After(every*3/4 + rand.N(every/2)): //nolint:gosec // jitter is no secret
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// work does what there is, and says how much of it was done, and how many adoptions
// run. What fails, as a backend is away, keeps nothing else from being done.
func (s *Service) work(ctx context.Context, adopting *adoptions) (done, running int, err error) {
	todo, err := s.keys.Work(ctx)
	if err != nil {
		return 0, 0, fmt.Errorf("objects: looking for work: %w", err)
	}
	for _, a := range todo.Adoptions {
		adopting.start(ctx, s, a)
	}
	for _, b := range todo.Learning {
		adopting.startLearning(ctx, s, b)
	}
	var errs []error
	do := func(f func(context.Context) error) {
		bounded, cancel := context.WithTimeout(ctx, workTimeout)
		defer cancel()
		if err := f(bounded); err != nil {
			errs = append(errs, err)
			return
		}
		done++
	}
	for _, u := range todo.Unmirrored {
		do(func(ctx context.Context) error { return s.mirrorOne(ctx, u) })
	}
	for _, b := range todo.Unmade {
		do(func(ctx context.Context) error { return s.finishBucket(ctx, b) })
	}
	for _, b := range todo.Unswept {
		do(func(ctx context.Context) error { return s.sweepBucket(ctx, b) })
	}
	return done, len(todo.Adoptions), errors.Join(errs...)
}

func (s *Service) mirrorOne(ctx context.Context, u keys.Unmirrored) error {
	store, err := s.storeOf(u.Bucket)
	if err != nil {
		return err
	}
	return s.mirrorAndConfirm(ctx, u.Bucket, store, u.ID, u.Record)
}

// finishBucket makes a bucket that was registered. One that is there already is taken
// if it is empty, and refused otherwise. Another gateway may be making it too, and it
// may be in use by now: then it is neither.
func (s *Service) finishBucket(ctx context.Context, b keys.Bucket) error {
	store, err := s.storeOf(b)
	if err != nil {
		return err
	}
	err = store.CreateBucket(ctx, b.StoreName)
	if err == nil || errors.Is(err, backends.ErrBucketExists) {
		if guardErr := s.mayGuard(ctx, b, store); guardErr != nil {
			return errors.Join(fmt.Errorf("objects: making bucket %q: %w", b.Name, guardErr), s.keys.RefuseBucket(ctx, b.Name))
		}
	}
	if errors.Is(err, backends.ErrBucketExists) {
		empty, emptyErr := s.empty(ctx, b, store)
		if emptyErr == nil && !empty {
			return errors.Join(fmt.Errorf("objects: making bucket %q: %w, and is not empty", b.Name, err), s.keys.RefuseBucket(ctx, b.Name))
		}
		err = emptyErr
	}
	if err != nil {
		return fmt.Errorf("objects: making bucket %q: %w", b.Name, err)
	}
	return s.activate(ctx, b, store)
}
