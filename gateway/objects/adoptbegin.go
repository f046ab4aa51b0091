package objects

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"chatelaine/backends"
	"chatelaine/gateway/keys"
)

// errRefused is why a bucket cannot be adopted at all.
var errRefused = errors.New("the bucket cannot be adopted")

// begin makes sure that the bucket can be adopted, and lets it be used: from then on
// what is there is read as it is, and what is written is sealed.
func (a *adoption) begin(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, workTimeout)
	defer cancel()
	err := a.mayBegin(ctx)
	var cutOff time.Time
	if err == nil {
		cutOff, err = a.cutOff(ctx)
	}
	if err == nil {
		err = a.keys.BeginAdoption(ctx, a.bucket, a.runner, cutOff)
	}
	if err == nil {
		return nil
	}
	told := keys.AdoptionProgress{Bucket: a.bucket, Runner: a.runner, Trouble: clip(err.Error(), maxProblem)}
	if errors.Is(err, errRefused) {
		told.Trouble, told.Refused = "", told.Trouble
	}
	_, tellErr := a.keys.Adopt(context.WithoutCancel(ctx), told)
	return errors.Join(fmt.Errorf("objects: beginning to adopt bucket %q: %w", a.bucket.Name, err), tellErr)
}

// mayBegin refuses what would end badly.
func (a *adoption) mayBegin(ctx context.Context) error {
	foreign, ok := backends.As[backends.Foreigner](a.store)
	if !ok {
		return fmt.Errorf("%w: backend %q keeps objects under names of its own, and does not see what others have put there; copy them through the gateway", errRefused, a.bucket.Store)
	}
	err := foreign.Foreign(ctx, a.bucket.StoreName)
	switch {
	case errors.Is(err, backends.ErrBucketNotFound):
		return fmt.Errorf("%w: backend %q has no bucket %q", errRefused, a.bucket.Store, a.bucket.StoreName)
	case errors.Is(err, backends.ErrUnsupported), errors.Is(err, backends.ErrDenied):
		return fmt.Errorf("%w: %w", errRefused, err)
	case err != nil:
		return err
	}
	if err := a.onlyOurs(ctx); err != nil {
		return err
	}
	return a.conditional(ctx)
}

// onlyOurs refuses a bucket that another registry has used: what is in it is sealed.
func (a *adoption) onlyOurs(ctx context.Context) error {
	bk, err := a.keys.Current(ctx, a.bucket)
	if err != nil {
		return err
	}
	page, err := a.store.List(ctx, a.bucket.StoreName, &backends.ListOptions{Prefix: ReservedPrefix})
	if err != nil {
		return err
	}
	for _, e := range page.Entries {
		if e.Key != MirrorPrefix+hex.EncodeToString(bk.ID[:]) && e.Key != probeKey {
			return fmt.Errorf("%w: it has objects of a gateway already, as %q: `chatelaine recover` takes sealed buckets", errRefused, e.Key)
		}
	}
	return nil
}

// probeKey is an object that is never there.
const probeKey = ReservedPrefix + "adopt-probe"

// conditional makes sure that the backend keeps If-Match. Without, an object that a
// client replaces while it is being sealed would be lost.
func (a *adoption) conditional(ctx context.Context) error {
	body := backends.Body{Reader: bytes.NewReader(nil)}
	_, err := a.store.Put(ctx, idOf(a.bucket, probeKey, ""), body, &backends.PutOptions{
		Conditions: backends.Conditions{IfMatch: []string{"00000000000000000000000000000000"}},
	})
	switch {
	case err == nil:
		_, err = a.store.Delete(ctx, idOf(a.bucket, probeKey, ""), nil)
		return errors.Join(fmt.Errorf("%w: backend %q ignores If-Match", errRefused, a.bucket.Store), err)
	case errors.Is(err, backends.ErrUnsupported):
		return fmt.Errorf("%w: backend %q has no If-Match for writes: %w", errRefused, a.bucket.Store, err)
	case errors.Is(err, backends.ErrPrecondition), errors.Is(err, backends.ErrNotFound):
		return nil
	}
	return err
}

// cutOff writes the record of the bucket's key, which must be there before anything is
// sealed, and takes its time: that is the backend's clock. All that is sealed is
// written after the end of that second.
func (a *adoption) cutOff(ctx context.Context) (time.Time, error) {
	bk, err := a.keys.Current(ctx, a.bucket)
	if err != nil {
		return time.Time{}, err
	}
	if err := a.mirrorAndConfirm(ctx, a.bucket, a.store, bk.ID, bk.Record); err != nil {
		return time.Time{}, err
	}
	info, err := a.store.Head(ctx, idOf(a.bucket, MirrorPrefix+hex.EncodeToString(bk.ID[:]), ""), nil)
	if err != nil {
		return time.Time{}, err
	}
	select {
	case <-time.After(a.limits.settle):
	case <-ctx.Done():
		return time.Time{}, ctx.Err()
	}
	return info.Modified.Truncate(a.limits.grain).Add(a.limits.grain - time.Nanosecond), nil
}
