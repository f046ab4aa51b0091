package gcsstore

import (
	"context"
	"strings"
	"time"

	"github.com/googleapis/gax-go/v2"
	"golang.org/x/sync/errgroup"

	"chatelaine/backends"
)

// Refuses says which keys Cloud Storage has no names for.
func Refuses(key string) bool { return checkKey(key) != nil }

// SmallChunk is the chunk of a store that Hasten has changed.
const SmallChunk = 2 << 20

// Hasten makes chunks small and pauses short, before the store is used. What goes out,
// how often and in which order does not change.
func (s *Store) Hasten() {
	s.chunk = SmallChunk
	s.retry(gax.Backoff{Initial: time.Millisecond, Max: 20 * time.Millisecond, Multiplier: 2})
}

// AssembleOf makes an object of small ones with these contents, as Complete does of
// parts that must be larger.
func (s *Store) AssembleOf(ctx context.Context, id backends.UploadID, contents []string, cond backends.Conditions) (backends.Written, error) {
	pieces := make([]piece, len(contents))
	group, under := errgroup.WithContext(ctx)
	group.SetLimit(composing)
	for i, c := range contents {
		group.Go(func() error {
			at := partPlace(id, i)
			w, err := s.upload(under, at, backends.Body{Reader: strings.NewReader(c), Size: int64(len(c))}, properties{contentType: anyType}, write{})
			generation, _ := generationOf(w.ETag)
			pieces[i] = piece{at.name, generation}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return backends.Written{}, err
	}
	w, err := s.begin(ctx, place{id.Bucket, id.Key}, cond)
	if err != nil {
		return backends.Written{}, err
	}
	return s.assemble(ctx, id, pieces, properties{contentType: "x/y", metadata: map[string]string{"cho1": "z"}}.of(w), w)
}
