package gcsstore

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"time"

	"cloud.google.com/go/storage"

	"chatelaine/backends"
	"chatelaine/backends/cloud"
)

// write is what a write depends on, as the service can check it. One that depends on
// something leaves a mark in the metadata, by which it is recognised where its answer was
// lost.
type write struct {
	match int64 // the generation that must be there, or 0
	fresh bool  // nothing may be there
	any   bool  // match is whatever was there
	mark  string
}

// newWrite turns conditions on ETags into those on generations. Where an object is asked
// for that cannot be, or any, the service is asked what there is.
func (s *Store) newWrite(ctx context.Context, at place, c backends.Conditions) (write, error) {
	if err := cloud.CheckConditions(c); err != nil {
		return write{}, err
	}
	w := write{fresh: len(c.IfNoneMatch) == 1}
	if len(c.IfMatch) == 1 {
		var ok bool
		if w.match, ok = generationOf(c.IfMatch[0]); !ok {
			attrs, err := s.checkWrite(ctx, at, c)
			if err != nil {
				return write{}, err
			}
			w.match, w.any = attrs.Generation, true
		}
	}
	if w.conditional() {
		w.mark = rand.Text()
	}
	return w, nil
}

// checkWrite tells what the service would refuse, from what is there now.
func (s *Store) checkWrite(ctx context.Context, at place, c backends.Conditions) (*storage.ObjectAttrs, error) {
	if c.IsZero() {
		return nil, nil //nolint:nilnil // nothing is asked for
	}
	attrs, err := s.object(at).Attrs(ctx)
	if err != nil {
		if statusOf(err) != http.StatusNotFound {
			return nil, err
		}
		if err = s.probe(ctx, at.bucket); err == nil {
			err = c.CheckWrite("", time.Time{}, false)
		}
		return nil, err
	}
	return attrs, c.CheckWrite(etagOf(attrs.Generation), attrs.Updated, true)
}

func (w write) conditional() bool { return w.fresh || w.match != 0 }

func (w write) guard(o *storage.ObjectHandle) *storage.ObjectHandle {
	switch {
	case w.fresh:
		return o.If(storage.Conditions{DoesNotExist: true})
	case w.match != 0:
		return o.If(storage.Conditions{GenerationMatch: w.match})
	}
	return o
}

// settle runs a write. Where it fails and has a mark, the object is looked at: an attempt
// that was applied before, and whose answer was lost, looks like somebody else's change.
func (w write) settle(ctx context.Context, s *Store, at place, do func() (backends.Written, error)) (backends.Written, error) {
	written, err := do()
	var body *cloud.BodyError
	if err == nil || w.mark == "" || errors.As(err, &body) || errors.Is(err, cloud.ErrDamaged) || ctx.Err() != nil {
		return written, err
	}
	attrs, headErr := s.object(at).Attrs(ctx)
	switch {
	case headErr == nil && attrs.Metadata[markName] == w.mark:
		return writtenOf(attrs), nil
	case statusOf(err) != http.StatusPreconditionFailed:
	case w.any:
		err = fmt.Errorf("%w: %w", backends.ErrConflict, err)
	case w.match != 0 && statusOf(headErr) == http.StatusNotFound:
		err = fmt.Errorf("%w: %w", backends.ErrNotFound, err)
	}
	return backends.Written{}, err
}
