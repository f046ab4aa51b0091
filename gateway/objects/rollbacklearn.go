package objects

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"chatelaine/backends"
	"chatelaine/gateway/keys"
	"chatelaine/gateway/sealed"
)

const (
	// learnWorkers is how many objects are looked at at once, learnPage how many are told
	// at once: few enough that the KMS hears of a slow backend's every 10 s.
	learnWorkers = 8
	learnPage    = 64
	// lifecycleConfig is where a bucket's lifecycle rules are.
	lifecycleConfig = "lifecycle"
)

// errUnguardable is why a bucket cannot have the rollback guard.
var errUnguardable = errors.New("the bucket cannot have the rollback guard")

// startLearning takes the objects of a bucket into its ledger, unless it is done already.
func (r *adoptions) startLearning(ctx context.Context, s *Service, b keys.Bucket) {
	r.run(b.Space, func() {
		err := s.learn(ctx, b)
		if err != nil && ctx.Err() == nil && !errors.Is(err, keys.ErrLedgerChanged) {
			s.log.Warn("a rollback guard does not learn; it is tried again", zap.String("bucket", b.Name), zap.Error(err))
		}
	})
}

// mayGuard refuses the rollback guard for a bucket where it would cry wolf.
func (s *Service) mayGuard(ctx context.Context, b keys.Bucket, store backends.Store) error {
	if !b.Guarded {
		return nil
	}
	if _, versioned, err := versionedStore(ctx, b, store); err != nil {
		return err
	} else if versioned {
		return fmt.Errorf("%w: it has, or had, versions", errUnguardable)
	}
	if !b.Active {
		return nil
	}
	_, err := s.BucketConfig(ctx, b, lifecycleConfig)
	switch {
	case errors.Is(err, ErrNoConfig):
		return nil
	case err == nil:
		return fmt.Errorf("%w: it has lifecycle rules; remove them, and set those that delete no object when the guard is on", errUnguardable)
	}
	return err
}

// learn finds all objects of a bucket, and tells the ledger of those that it may not
// know. It goes over the bucket in the order of its keys, from where the gateway before
// has come to. What clients write and delete meanwhile the ledger knows better.
func (s *Service) learn(ctx context.Context, b keys.Bucket) error {
	l := &learner{Service: s, bucket: b, runner: rand.Text()}
	sealedCursor, err := s.keys.Learn(ctx, keys.LedgerLesson{Bucket: b, Runner: l.runner})
	if err != nil {
		return fmt.Errorf("objects: learning the objects of bucket %q: %w", b.Name, err)
	}
	end := keys.LedgerLesson{Bucket: b, Runner: l.runner, Ended: true}
	if err = l.run(ctx, sealedCursor); errors.Is(err, errUnguardable) {
		end.Refused, err = clip(err.Error(), maxProblem), nil
	} else if err != nil {
		end.Ended, end.Trouble = false, clip(err.Error(), maxProblem)
	}
	_, tellErr := s.keys.Learn(context.WithoutCancel(ctx), end)
	if err := errors.Join(err, tellErr); err != nil {
		return fmt.Errorf("objects: learning the objects of bucket %q: %w", b.Name, err)
	}
	return nil
}

// learner is one learning at work.
type learner struct {
	*Service
	bucket keys.Bucket
	store  backends.Store
	runner string
}

func (l *learner) run(ctx context.Context, sealedCursor []byte) (err error) {
	if l.store, err = l.storeOf(l.bucket); err != nil {
		return err
	}
	if err := l.mayGuard(ctx, l.bucket, l.store); err != nil {
		return err
	}
	opts := backends.ListOptions{Limit: learnPage}
	if opts.After, err = l.openCursor(ctx, sealedCursor); err != nil {
		return err
	}
	for {
		page, err := l.store.List(ctx, l.bucket.StoreName, &opts)
		if err != nil {
			return fmt.Errorf("listing it: %w", err)
		}
		if err := l.tellPage(ctx, page.Entries); err != nil {
			return err
		}
		if !page.Truncated {
			return nil
		}
		opts.Token = page.Token
	}
}

// tellPage looks at objects, several at once, and tells the ledger.
func (l *learner) tellPage(ctx context.Context, entries []backends.Info) error {
	entries = slices.DeleteFunc(slices.Clone(entries), isReserved)
	if len(entries) == 0 {
		return nil
	}
	lines := make([]keys.LedgerLine, len(entries))
	group, working := errgroup.WithContext(ctx)
	group.SetLimit(learnWorkers)
	for i, e := range entries {
		group.Go(func() (err error) {
			lines[i], err = l.lineOf(working, e.Key)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	cursor, err := l.sealCursor(ctx, entries[len(entries)-1].Key)
	if err != nil {
		return err
	}
	lines = slices.DeleteFunc(lines, func(line keys.LedgerLine) bool { return line == keys.LedgerLine{} })
	_, err = l.keys.Learn(ctx, keys.LedgerLesson{Bucket: l.bucket, Runner: l.runner, Lines: lines, Cursor: cursor})
	return err
}

// lineOf looks at one object: the zero line where it is gone, or does not open, so that
// nobody can read it anyway.
func (l *learner) lineOf(ctx context.Context, key string) (keys.LedgerLine, error) {
	bounded, cancel := context.WithTimeout(ctx, workTimeout)
	defer cancel()
	info, err := l.store.Head(bounded, idOf(l.bucket, key, ""), nil)
	if errors.Is(err, backends.ErrNotFound) {
		return keys.LedgerLine{}, nil
	}
	if err != nil {
		return keys.LedgerLine{}, fmt.Errorf("looking at %q: %w", key, err)
	}
	_, _, err = l.openEnvelope(l.bucket, key, info, l.finder(bounded, l.bucket))
	if errors.Is(err, ErrNotSealed) || errors.Is(err, sealed.ErrCorrupt) || errors.Is(err, sealed.ErrUnsupported) {
		l.log.Warn("an object does not open, and is not taken into the ledger", zap.String("bucket", l.bucket.Name), zap.String("key", key), zap.Error(err))
		return keys.LedgerLine{}, nil
	}
	if err != nil {
		return keys.LedgerLine{}, err
	}
	m, err := l.marker(bounded, l.bucket, key)
	if err != nil {
		return keys.LedgerLine{}, err
	}
	name, err := m.object()
	tag, err2 := m.written(headerOf(info))
	return keys.LedgerLine{Name: name, Tag: tag}, errors.Join(err, err2)
}

// Cursors are names of objects, so the KMS has them sealed: AES-256-GCM with a random
// nonce before it.
const cursorLabel = "chatelaine/rollback-guard/v1/cursor"

func (l *learner) cursorCipher(ctx context.Context) (gcm cipher.AEAD, err error) {
	key, err := l.ledgerKey(ctx, l.bucket, cursorLabel)
	if err != nil {
		return nil, err
	}
	err = key.Use(func(secret []byte) error {
		block, err := aes.NewCipher(secret)
		if err == nil {
			gcm, err = cipher.NewGCMWithRandomNonce(block)
		}
		return err
	})
	return gcm, err
}

func (l *learner) sealCursor(ctx context.Context, key string) ([]byte, error) {
	gcm, err := l.cursorCipher(ctx)
	if err != nil {
		return nil, err
	}
	return gcm.Seal(nil, nil, []byte(key), l.bucket.Space[:]), nil //nolint:gosec // its nonce is random, and its own
}

// openCursor begins anew where there is none, or not one of ours.
func (l *learner) openCursor(ctx context.Context, sealedCursor []byte) (string, error) {
	gcm, err := l.cursorCipher(ctx)
	if err != nil || len(sealedCursor) == 0 {
		return "", err
	}
	key, err := gcm.Open(nil, nil, sealedCursor, l.bucket.Space[:])
	if err != nil {
		l.log.Warn("a ledger's cursor does not open; all is looked at again", zap.String("bucket", l.bucket.Name), zap.Error(err))
		return "", nil
	}
	return string(key), nil
}
