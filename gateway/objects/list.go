package objects

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"chatelaine/backends"
	"chatelaine/gateway/keys"
)

const maxList = 1000

// List reads a page of a listing: plaintext sizes, visible ETags, none of the
// gateway's own objects. It asks the backend once, and once more where hiding
// those left a hole in the page.
func (s *Service) List(ctx context.Context, r ListRequest) (*ListResult, error) {
	if strings.HasPrefix(r.Prefix, ReservedPrefix) {
		return &ListResult{}, nil
	}
	store, err := s.storeOf(r.Bucket)
	if err != nil {
		return nil, err
	}
	l := lister{ctx: ctx, bucket: r.Bucket, store: store, out: &ListResult{}, rows: s.rows(ctx, r.Bucket), opts: backends.ListOptions{
		Prefix: r.Prefix, Delimiter: r.Delimiter, After: r.After, Token: r.Token, Limit: r.Limit,
	}}
	if l.opts.Limit <= 0 || l.opts.Limit > maxList {
		l.opts.Limit = maxList
	}
	if err := l.fill(); err != nil {
		return nil, fmt.Errorf("objects: listing bucket %q: %w", r.Bucket.Name, err)
	}
	return l.out, nil
}

// lister fills one page.
type lister struct {
	ctx    context.Context //nolint:containedctx // lives as long as one call
	bucket keys.Bucket
	store  backends.Store
	opts   backends.ListOptions
	out    *ListResult
	rows   *rows
}

func (l *lister) fill() error {
	for {
		page, err := l.store.List(l.ctx, l.bucket.StoreName, &l.opts)
		if err != nil {
			return err
		}
		hidden, err := l.add(page)
		if err != nil {
			return err
		}
		l.out.Truncated, l.out.Token = page.Truncated, page.Token
		l.opts.Limit -= len(page.Entries) + len(page.Prefixes) - hidden
		if !page.Truncated || l.opts.Limit <= 0 || hidden == 0 {
			return l.settle()
		}
		l.skip(page)
	}
}

// settle looks whether anything but the gateway's own objects follows a full page
// that ended before them. Few names sort there ("!", "+", "-" and the like begin
// them), so it seldom asks.
func (l *lister) settle() error {
	if !l.out.Truncated || l.out.Last >= ReservedPrefix || !strings.HasPrefix(ReservedPrefix, l.opts.Prefix) {
		return nil
	}
	for _, after := range []string{l.out.Last, afterReserved} {
		opts := backends.ListOptions{Prefix: l.opts.Prefix, Delimiter: l.opts.Delimiter, After: after, Limit: 1}
		page, err := l.store.List(l.ctx, l.bucket.StoreName, &opts)
		if err != nil {
			return err
		}
		if l.shows(page) {
			return nil
		}
	}
	l.out.Truncated, l.out.Token = false, ""
	return nil
}

// shows says whether a page has anything for clients.
func (l *lister) shows(page *backends.Page) bool {
	if slices.ContainsFunc(page.Entries, func(e backends.Info) bool { return !isReserved(e) }) {
		return true
	}
	for _, p := range page.Prefixes {
		if !Reserved(p) {
			return true
		}
	}
	return false
}

// skip makes the next page begin behind the gateway's own objects where this one
// ended among them.
func (l *lister) skip(page *backends.Page) {
	l.opts.Token = page.Token
	if n := len(page.Entries); n > 0 && Reserved(page.Entries[n-1].Key) && l.out.Last < ReservedPrefix {
		l.opts.Token, l.opts.After = "", afterReserved
	}
}

// add takes over what clients may see and counts what they may not.
func (l *lister) add(page *backends.Page) (hidden int, err error) {
	visible := page.Entries
	if slices.ContainsFunc(visible, isReserved) {
		visible = slices.DeleteFunc(slices.Clone(visible), isReserved)
	}
	hidden = len(page.Entries) - len(visible)
	entries := l.rows.entries(visible)
	if err := l.rows.showMD5s(l.ctx, visible, entries); err != nil {
		return hidden, err
	}
	l.out.Entries = append(l.out.Entries, entries...)
	for _, e := range visible {
		l.out.Last = max(l.out.Last, e.Key)
	}
	for _, p := range page.Prefixes {
		visible, err := l.visiblePrefix(p)
		if err != nil {
			return hidden, err
		}
		if !visible {
			hidden++
			continue
		}
		l.out.Prefixes = append(l.out.Prefixes, p)
		l.out.Last = max(l.out.Last, p)
	}
	return hidden, nil
}

func isReserved(i backends.Info) bool { return Reserved(i.Key) }

// visiblePrefix says whether anything of a client lies under a common prefix. It
// has to look only where the prefix is a beginning of the reserved one.
func (l *lister) visiblePrefix(prefix string) (bool, error) {
	if Reserved(prefix) {
		return false, nil
	}
	if !strings.HasPrefix(ReservedPrefix, prefix) {
		return true, nil
	}
	for _, after := range []string{"", afterReserved} {
		page, err := l.store.List(l.ctx, l.bucket.StoreName, &backends.ListOptions{Prefix: prefix, After: after, Limit: 1})
		if err != nil {
			return false, err
		}
		if len(page.Entries) > 0 && !Reserved(page.Entries[0].Key) {
			return true, nil
		}
	}
	return false, nil
}
