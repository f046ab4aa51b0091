package moving

import (
	"context"
	"strings"

	"chatelaine/backends"
)

// pair is a key at both ends; nil where it is not.
type pair struct {
	key      string
	from, to *backends.Info
}

// walk is a listing, entry by entry.
type walk struct {
	place Place
	opts  backends.ListOptions
	page  []backends.Info
	more  bool
}

func newWalk(p Place) *walk { return &walk{place: p, more: true} }

// peek is the next entry, or nil at the end.
func (w *walk) peek(ctx context.Context) (*backends.Info, error) {
	for len(w.page) == 0 {
		if !w.more {
			return nil, nil
		}
		page, err := w.place.Store.List(ctx, w.place.Bucket, &w.opts)
		if err != nil {
			return nil, err
		}
		w.page, w.more, w.opts.Token = page.Entries, page.Truncated, page.Token
	}
	return &w.page[0], nil
}

func (w *walk) pop() { w.page = w.page[1:] }

// next is the next batch of keys that either end has, in their order.
func next(ctx context.Context, from, to *walk) ([]pair, error) {
	var pairs []pair
	for len(pairs) < batch {
		f, err := from.peek(ctx)
		if err != nil {
			return nil, err
		}
		t, err := to.peek(ctx)
		if err != nil {
			return nil, err
		}
		switch {
		case f == nil && t == nil:
			return pairs, nil
		case t == nil || f != nil && f.Key < t.Key:
			pairs = append(pairs, pair{key: f.Key, from: f})
			from.pop()
		case f == nil || t.Key < f.Key:
			pairs = append(pairs, pair{key: t.Key, to: t})
			to.pop()
		default:
			pairs = append(pairs, pair{key: f.Key, from: f, to: t})
			from.pop()
			to.pop()
		}
	}
	return pairs, nil
}

func within(key, prefix string) bool { return strings.HasPrefix(key, prefix) }
