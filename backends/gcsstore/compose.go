package gcsstore

import (
	"context"
	"crypto/rand"
	"fmt"

	"cloud.google.com/go/storage"
	"golang.org/x/sync/errgroup"

	"chatelaine/backends"
)

const (
	// fan is how many objects one request composes (Cloud Storage, "Composite objects").
	fan = 32
	// composing is how many requests are under way for one object.
	composing = 16
)

// piece is an object of a certain generation in the bucket of what is made of it.
type piece struct {
	name       string
	generation int64
}

// assemble makes an object of pieces, in order: fan of them are composed to one as long
// as there are more than that. The service moves no bytes for it. Names on the way are
// chosen by chance, since two may complete the same upload; they go with its parts. The
// last request alone makes anything visible, with all attributes and conditions.
func (s *Store) assemble(ctx context.Context, id backends.UploadID, pieces []piece, props properties, w write) (backends.Written, error) {
	mine := folder(id) + rand.Text() + "-"
	for level := 0; len(pieces) > fan; level++ {
		next, err := s.shrink(ctx, id.Bucket, fmt.Sprintf("%s%d-", mine, level), pieces)
		if err != nil {
			return backends.Written{}, err
		}
		pieces = next
	}
	to := place{id.Bucket, id.Key}
	return w.settle(ctx, s, to, func() (backends.Written, error) {
		attrs, err := s.compose(ctx, to, pieces, props, w)
		if err != nil {
			return backends.Written{}, err
		}
		return writtenOf(attrs), nil
	})
}

// shrink composes each fan of pieces to one.
func (s *Store) shrink(ctx context.Context, bucket, prefix string, pieces []piece) ([]piece, error) {
	next := make([]piece, (len(pieces)+fan-1)/fan)
	group, under := errgroup.WithContext(ctx)
	group.SetLimit(composing)
	for i := range next {
		group.Go(func() error {
			name := fmt.Sprintf("%s%0*d", prefix, partDigits, i)
			attrs, err := s.compose(under, place{bucket, name}, pieces[i*fan:min((i+1)*fan, len(pieces))], properties{contentType: anyType}, write{})
			if err == nil {
				next[i] = piece{name, attrs.Generation}
			}
			return err
		})
	}
	return next, group.Wait()
}

// compose is one request. It is pinned to the generations of its sources.
func (s *Store) compose(ctx context.Context, to place, pieces []piece, props properties, w write) (*storage.ObjectAttrs, error) {
	sources := make([]*storage.ObjectHandle, len(pieces))
	for i, p := range pieces {
		sources[i] = s.object(place{to.bucket, p.name}).Generation(p.generation)
	}
	c := w.guard(s.object(to)).ComposerFrom(sources...)
	c.ContentType, c.Metadata = props.contentType, props.metadata
	return c.Run(ctx)
}
