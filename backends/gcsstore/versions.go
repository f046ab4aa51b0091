package gcsstore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"

	"cloud.google.com/go/storage"

	"chatelaine/backends"
)

// kind is what a generation is to S3. It is metadata, fixed with the write: without it a
// generation is the null version, or was before another null version came.
type kind string

const (
	kindName = own + "version"

	kindNull       kind = ""
	kindVersion    kind = "object"
	kindMarker     kind = "marker"
	kindNullMarker kind = "null-marker"
)

func kindOf(attrs *storage.ObjectAttrs) kind { return kind(attrs.Metadata[kindName]) }

func (k kind) null() bool   { return k == kindNull || k == kindNullMarker }
func (k kind) marker() bool { return k == kindMarker || k == kindNullMarker }

// versionDigits are those of a generation in hexadecimal, which is the name of a version.
const versionDigits = 16

func versionOf(generation int64) string { return fmt.Sprintf("%0*x", versionDigits, generation) }

func parseVersion(version string) (generation int64, ok bool) {
	g, err := strconv.ParseInt(version, 16, 64)
	return g, err == nil && g > 0 && versionOf(g) == version
}

// name is the version that a generation is in a bucket of this state.
func (st state) name(generation int64, k kind) string {
	switch {
	case !k.null():
		return versionOf(generation)
	case st.on():
		return backends.NullVersion
	}
	return ""
}

// object is the kind of what is put now, and marker that of what a Delete leaves.
func (st state) object() kind {
	if st.versioning == backends.VersioningEnabled {
		return kindVersion
	}
	return kindNull
}

func (st state) marker() kind {
	if st.versioning == backends.VersioningEnabled {
		return kindMarker
	}
	return kindNullMarker
}

// hides says that a generation is no version: it was noncurrent before there were any,
// and nothing of ours put it there as one.
func (st state) hides(attrs *storage.ObjectAttrs) bool {
	return kindOf(attrs).null() && !attrs.Deleted.IsZero() && attrs.Deleted.Before(st.since)
}

// history is what there is of a name, the newest first.
type history struct {
	shown []*storage.ObjectAttrs
	nulls []*storage.ObjectAttrs // of which the first alone is shown
	live  int64                  // the generation that the service shows, or 0
}

// fold makes a history of all generations of a name. The live one is the newest, whatever
// its number: the service says that numbers differ, and lists them as if they grew.
func (st state) fold(rows []*storage.ObjectAttrs) (h history) {
	rows = slices.DeleteFunc(slices.Clone(rows), st.hides)
	slices.SortFunc(rows, func(a, b *storage.ObjectAttrs) int {
		if live := a.Deleted.IsZero(); live != b.Deleted.IsZero() {
			if live {
				return -1
			}
			return 1
		}
		return cmp.Compare(b.Generation, a.Generation)
	})
	for _, attrs := range rows {
		if attrs.Deleted.IsZero() {
			h.live = attrs.Generation
		}
		null := kindOf(attrs).null()
		if null {
			h.nulls = append(h.nulls, attrs)
		}
		if !null || len(h.nulls) == 1 {
			h.shown = append(h.shown, attrs)
		}
	}
	return h
}

// current is the newest version that is no marker, or nil.
func (h history) current() *storage.ObjectAttrs {
	if len(h.shown) == 0 || kindOf(h.shown[0]).marker() {
		return nil
	}
	return h.shown[0]
}

// history reads all generations of a name, 1000 in a request.
func (s *Store) history(ctx context.Context, at place, st state) (history, error) {
	var rows []*storage.ObjectAttrs
	q := storage.Query{StartOffset: at.name, EndOffset: at.name + "\x00", Prefix: at.name, Versions: true}
	err := s.each(ctx, at.bucket, q, func(attrs *storage.ObjectAttrs) error {
		rows = append(rows, attrs)
		return nil
	})
	return st.fold(rows), err
}

// look describes a version; empty means the newest. A marker is a *MarkerError.
func (s *Store) look(ctx context.Context, at place, version string) (*storage.ObjectAttrs, state, error) {
	if version != "" {
		return s.resolve(ctx, at, version)
	}
	attrs, err := s.object(at).Attrs(ctx)
	if statusOf(err) == http.StatusNotFound {
		st, stateErr := s.state(ctx, at.bucket, s.lease)
		if stateErr == nil && st.on() {
			return s.resolve(ctx, at, "")
		}
		return nil, st, firstError(stateErr, err)
	}
	if err != nil {
		return nil, state{}, err
	}
	if k := kindOf(attrs); k.marker() {
		return nil, state{}, markerError(attrs, false)
	} else if !k.null() {
		return attrs, state{}, nil // its name says all
	}
	st, err := s.state(ctx, at.bucket, glance)
	return attrs, st, err
}

func markerError(attrs *storage.ObjectAttrs, asked bool) error {
	version := versionOf(attrs.Generation)
	if kindOf(attrs).null() {
		version = backends.NullVersion
	}
	return &backends.MarkerError{Version: version, Modified: attrs.Created, Asked: asked}
}

// resolve finds a version that need not be the live generation.
func (s *Store) resolve(ctx context.Context, at place, version string) (*storage.ObjectAttrs, state, error) {
	st, err := s.state(ctx, at.bucket, s.lease)
	if err != nil {
		return nil, st, err
	}
	generation, named := parseVersion(version)
	switch {
	case named && st.on():
		attrs, err := s.generation(ctx, at, generation)
		return attrs, st, err
	case version != "" && version != backends.NullVersion:
		return nil, st, backends.ErrVersionNotFound
	case !st.on():
		attrs, err := s.object(at).Attrs(ctx)
		return attrs, st, err
	}
	h, err := s.history(ctx, at, st)
	if err != nil {
		return nil, st, err
	}
	attrs, err := h.find(version)
	return attrs, st, err
}

// find is the newest version, or the null version.
func (h history) find(version string) (*storage.ObjectAttrs, error) {
	among, missing := h.shown, backends.ErrNotFound
	if version == backends.NullVersion {
		among, missing = h.nulls, backends.ErrVersionNotFound
	}
	switch {
	case len(among) == 0:
		return nil, missing
	case kindOf(among[0]).marker():
		return nil, markerError(among[0], version != "")
	}
	return among[0], nil
}

// generation describes a version that was given a name.
func (s *Store) generation(ctx context.Context, at place, generation int64) (*storage.ObjectAttrs, error) {
	attrs, err := s.object(at).Generation(generation).Attrs(ctx)
	switch {
	case statusOf(err) == http.StatusNotFound, err == nil && kindOf(attrs).null():
		return nil, fmt.Errorf("%w: generation %d", backends.ErrVersionNotFound, generation)
	case err == nil && kindOf(attrs).marker():
		return nil, markerError(attrs, true)
	}
	return attrs, err
}

// made says what version a write has made. In a suspended bucket it takes the place of
// the null version, which goes: as it is no longer shown, it may go another time.
func (s *Store) made(ctx context.Context, at place, st state, w backends.Written) backends.Written {
	generation, _ := generationOf(w.ETag)
	w.Version = st.name(generation, st.object())
	if st.versioning == backends.VersioningSuspended {
		_ = s.replaceNull(ctx, at, st, generation)
	}
	return w
}

// replaceNull removes the null versions that one is newer than. It never removes one
// that somebody else has written since.
func (s *Store) replaceNull(ctx context.Context, at place, st state, by int64) error {
	h, err := s.history(ctx, at, st)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(h.nulls, func(attrs *storage.ObjectAttrs) bool { return attrs.Generation == by })
	if i < 0 {
		return nil
	}
	return s.erase(ctx, at, h.nulls[i+1:])
}

// erase removes generations for good, the oldest first: what has been replaced never
// comes back, wherever it ends.
func (s *Store) erase(ctx context.Context, at place, generations []*storage.ObjectAttrs) error {
	for _, attrs := range slices.Backward(generations) {
		if err := s.remove(ctx, at, attrs.Generation); err != nil {
			return err
		}
	}
	return nil
}

// mark leaves a delete marker. One that was sent twice is two.
func (s *Store) mark(ctx context.Context, at place, st state, c backends.Conditions) (backends.Deleted, error) {
	w, err := s.newWrite(ctx, at, st, c)
	if err != nil {
		return backends.Deleted{}, err
	}
	props := properties{anyType, map[string]string{kindName: string(st.marker())}}.with(markName, w.mark)
	written, err := w.settle(ctx, s, at, func() (backends.Written, error) { return s.upload(ctx, at, backends.Body{}, props, w) })
	if err != nil {
		return backends.Deleted{}, s.lost(ctx, at.bucket, err)
	}
	generation, _ := generationOf(written.ETag)
	if st.versioning == backends.VersioningSuspended {
		_ = s.replaceNull(ctx, at, st, generation)
	}
	return backends.Deleted{Version: st.name(generation, st.marker()), Marker: true}, nil
}

// deleteNull removes the null version, and what it has replaced if that is still there.
func (s *Store) deleteNull(ctx context.Context, at place, st state, c backends.Conditions) (backends.Deleted, error) {
	gone := backends.Deleted{Version: st.name(0, kindNull)}
	h, err := s.history(ctx, at, st)
	if err != nil {
		return backends.Deleted{}, err
	}
	if len(h.nulls) == 0 {
		return gone, c.CheckWrite("", time.Time{}, false)
	}
	newest := h.nulls[0]
	if err := c.CheckWrite(etagOf(newest.Generation), newest.Created, true); err != nil {
		return backends.Deleted{}, err
	}
	gone.Marker = kindOf(newest).marker()
	return gone, s.erase(ctx, at, h.nulls)
}

// deleteVersion removes a version that has a name, if there is one.
func (s *Store) deleteVersion(ctx context.Context, at place, version string, c backends.Conditions) (backends.Deleted, error) {
	gone := backends.Deleted{Version: version}
	generation, ok := parseVersion(version)
	if !ok {
		return gone, c.CheckWrite("", time.Time{}, false)
	}
	attrs, err := s.generation(ctx, at, generation)
	var marker *backends.MarkerError
	switch {
	case errors.Is(err, backends.ErrVersionNotFound):
		return gone, c.CheckWrite("", time.Time{}, false)
	case errors.As(err, &marker):
		gone.Marker = true
		err = c.CheckWrite(etagOf(generation), marker.Modified, true)
	case err == nil:
		err = c.CheckWrite(etagOf(generation), attrs.Created, true)
	}
	if err != nil {
		return backends.Deleted{}, err
	}
	return gone, s.remove(ctx, at, generation)
}

// purge removes what was replaced while the bucket was being prepared: it is never shown.
func (s *Store) purge(ctx context.Context, bucket string, st state) error {
	return s.each(ctx, bucket, storage.Query{Versions: true}, func(attrs *storage.ObjectAttrs) error {
		if !st.hides(attrs) || attrs.Deleted.Before(st.prepared) {
			return nil
		}
		return s.remove(ctx, place{bucket, attrs.Name}, attrs.Generation)
	})
}
