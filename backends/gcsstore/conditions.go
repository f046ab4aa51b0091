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
	st    state
	cond  backends.Conditions
}

// newWrite turns conditions on ETags into those on generations. Where an object is asked
// for that cannot be, or any, the service is asked what there is. In a bucket with versions
// it always is: what S3 takes for missing may be a marker, and what it takes for the newest
// may not be live.
func (s *Store) newWrite(ctx context.Context, at place, st state, c backends.Conditions) (write, error) {
	if err := cloud.CheckConditions(c); err != nil {
		return write{}, err
	}
	w := write{st: st, cond: c, fresh: len(c.IfNoneMatch) == 1}
	switch {
	case st.on() && !c.IsZero():
		h, err := s.history(ctx, at, st)
		if err = firstError(err, h.check(c)); err != nil {
			return write{}, err
		}
		w.match, w.fresh, w.any = h.live, h.live == 0, true
	case len(c.IfMatch) == 1:
		var ok bool
		if w.match, ok = generationOf(c.IfMatch[0]); !ok {
			attrs, err := s.checkWrite(ctx, at, st, c)
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

// check tells whether the newest version is as c wants it.
func (h history) check(c backends.Conditions) error {
	now := h.current()
	if now == nil {
		return c.CheckWrite("", time.Time{}, false)
	}
	return c.CheckWrite(etagOf(now.Generation), now.Created, true)
}

// checkWrite tells what the service would refuse, from what is there now.
func (s *Store) checkWrite(ctx context.Context, at place, st state, c backends.Conditions) (*storage.ObjectAttrs, error) {
	if c.IsZero() {
		return nil, nil //nolint:nilnil // nothing is asked for
	}
	if st.on() {
		h, err := s.history(ctx, at, st)
		return h.current(), firstError(err, h.check(c))
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
	return attrs, c.CheckWrite(etagOf(attrs.Generation), attrs.Created, true)
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
	if w.st.on() {
		return w.settleVersion(ctx, s, at, err)
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

// settleVersion is settle in a bucket with versions: the write may be there and no longer
// the newest.
func (w write) settleVersion(ctx context.Context, s *Store, at place, err error) (backends.Written, error) {
	h, lookErr := s.history(ctx, at, w.st)
	if lookErr != nil {
		return backends.Written{}, err
	}
	for _, attrs := range h.shown {
		if attrs.Metadata[markName] == w.mark {
			return writtenOf(attrs), nil
		}
	}
	if statusOf(err) != http.StatusPreconditionFailed {
		return backends.Written{}, err
	}
	if refused := h.check(w.cond); refused != nil {
		return backends.Written{}, refused
	}
	return backends.Written{}, fmt.Errorf("%w: %w", backends.ErrConflict, err)
}
