package objects

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"chatelaine/backends"
	"chatelaine/gateway/keys"
)

// ErrGuarded: the bucket has the rollback guard, which knows of one version of each
// object, and of no deletion but the gateway's.
var ErrGuarded = errors.New("the bucket has the rollback guard")

// endTimeout bounds telling the ledger what came of a write.
const endTimeout = 30 * time.Second

// writing is a write of an object.
type writing struct {
	bucket keys.Bucket
	key    string
	// tag is that of what is written; nil: it is a deletion.
	tag func(marker) (keys.Mark, error)
	// do sends it to the store.
	do func() error
}

// unsent is the error of a write whose body has not reached the store as a whole, so
// that it was not carried out.
type unsent struct{ error }

func (u unsent) Unwrap() error { return u.error }

// recorded does a write. In a guarded bucket the ledger knows of it before the store
// does, and what came of it before the client does: whatever is killed in between, what
// was acknowledged is in the ledger, and what the store has is readable.
func (s *Service) recorded(ctx context.Context, w writing) error {
	if Reserved(w.key) {
		return w.do()
	}
	if !w.bucket.Guarded {
		if err := w.do(); err != nil {
			return err
		}
		return s.recordLate(ctx, w)
	}
	attempt, err := s.attempt(ctx, w)
	if err != nil {
		return err
	}
	if err := s.keys.BeginWrite(ctx, attempt); err != nil {
		return fmt.Errorf("recording the write: %w", err)
	}
	stop := s.keepSigning(ctx, attempt)
	err = w.do()
	stop()
	return s.ended(ctx, attempt, w, err)
}

func (s *Service) attempt(ctx context.Context, w writing) (keys.LedgerAttempt, error) {
	a := keys.LedgerAttempt{Bucket: w.bucket, ID: newAttempt()}
	m, err := s.marker(ctx, w.bucket, w.key)
	if err != nil {
		return a, err
	}
	if a.Name, err = m.object(); err == nil && w.tag != nil {
		a.Tag, err = w.tag(m)
	}
	return a, err
}

// ended tells the ledger what the store has answered. Where it has not, the write may
// take effect yet: it stays open until a reader sees it or its time is over.
func (s *Service) ended(ctx context.Context, a keys.LedgerAttempt, w writing, err error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTimeout)
	defer cancel()
	if err == nil {
		if err := s.keys.EndWrite(ctx, a, true); err != nil {
			return fmt.Errorf("recording what was written: %w", err)
		}
		return nil
	}
	if !answered(err) {
		return err
	}
	if endErr := s.keys.EndWrite(ctx, a, false); endErr != nil {
		s.log.Warn("a write that was refused stays open in the ledger", zap.String("bucket", a.Bucket.Name), zap.Error(endErr))
		return err
	}
	if errors.Is(err, backends.ErrPrecondition) { // clients that wait for a condition write often and read seldom
		if _, _, lookErr := s.Head(ctx, GetRequest{Bucket: a.Bucket, Key: w.key}); lookErr != nil && !isMissing(lookErr) {
			s.log.Warn("a write that was refused is not settled in the ledger", zap.String("bucket", a.Bucket.Name), zap.Error(lookErr))
		}
	}
	return err
}

// answered says whether the store has decided about a write, or never had all of it.
func answered(err error) bool {
	var cut unsent
	return errors.As(err, &cut) || slices.ContainsFunc([]error{
		backends.ErrPrecondition, backends.ErrConflict, backends.ErrNotFound, backends.ErrBucketNotFound, backends.ErrUploadNotFound,
		backends.ErrInvalidPart, backends.ErrTooSmall, backends.ErrTooLarge, backends.ErrInvalidName, backends.ErrDenied, backends.ErrFull,
		backends.ErrLocked, backends.ErrBucketState, backends.ErrUnsupported, backends.ErrVersionNotFound,
	}, func(known error) bool { return errors.Is(err, known) })
}

// recordLate takes a write in that began before its bucket had the guard. Objects that
// were there before are taken in when no gateway has an older record of the bucket any
// more (DECISIONS.md), so that what is not told here is found then.
func (s *Service) recordLate(ctx context.Context, w writing) error {
	now, err := s.keys.Bucket(ctx, w.bucket.Name)
	if err != nil || !now.Guarded || now.Space != w.bucket.Space {
		return nil //nolint:nilerr // then nobody has set the guard within the life of a lease
	}
	w.bucket = now
	a, err := s.attempt(ctx, w)
	if err != nil {
		return err
	}
	return s.ended(ctx, a, w, nil)
}

// keepSigning tells the ledger that a long write is alive, until stop is called.
func (s *Service) keepSigning(ctx context.Context, a keys.LedgerAttempt) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var mu sync.Mutex
	var timer *time.Timer
	mu.Lock()
	defer mu.Unlock()
	timer = time.AfterFunc(keys.LedgerSignEvery, func() {
		mu.Lock() // a sign that came after the end would be another beginning
		defer mu.Unlock()
		if ctx.Err() != nil {
			return
		}
		if err := s.keys.BeginWrite(ctx, a); err != nil && ctx.Err() == nil {
			s.log.Warn("a long write gives the ledger no sign", zap.String("bucket", a.Bucket.Name), zap.Error(err))
		}
		timer.Reset(keys.LedgerSignEvery)
	})
	return func() {
		cancel()
		mu.Lock()
		defer mu.Unlock()
		timer.Stop()
	}
}
