package gcsstore

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"cloud.google.com/go/storage"

	"chatelaine/backends"
	"chatelaine/backends/cloud"
)

// List implements backends.Store. It is one request, and another where the driver's own
// objects lie within the page or the service ends its own page early. In a bucket with
// versions it reads all generations of what it lists.
func (s *Store) List(ctx context.Context, bucket string, opts *backends.ListOptions) (*backends.Page, error) {
	ctx, doing := withBudget(ctx), fmt.Sprintf("listing bucket %q", bucket)
	if opts == nil {
		opts = &backends.ListOptions{}
	}
	from, err := positionOf(opts)
	if err := firstError(backends.CheckBucket(bucket), err, checkQuery(opts.Prefix, opts.Delimiter)); err != nil {
		return nil, wrap(ctx, doing, err)
	}
	st, err := s.state(ctx, bucket, s.lease)
	if err != nil {
		return nil, wrap(ctx, doing, err)
	}
	if st.on() {
		page, err := s.listNewest(ctx, bucket, st, *opts, from)
		return page, wrap(ctx, doing, err)
	}
	l := lister{store: s, bucket: bucket, opts: opts}
	page, err := cloud.Listing{Fetch: l.fetch, Reopen: reopen}.Page(ctx, from, opts.Limit)
	return page, wrap(ctx, doing, err)
}

// positionOf is where a listing begins.
func positionOf(opts *backends.ListOptions) (cloud.Position, error) {
	if opts.Token != "" {
		return cloud.ParsePosition(opts.Token)
	}
	return cloud.Position{Start: validStart(opts.After), After: opts.After}, nil
}

// reopen begins at a name: the service's own token is that of all its page.
func reopen(at cloud.Position) cloud.Position {
	return cloud.Position{Start: at.After, After: at.After}
}

type lister struct {
	store  *Store
	bucket string
	opts   *backends.ListOptions
}

// fetch reads a page of the service's as rows in order, without the driver's own objects.
// It asks for one row more than is missing, which tells whether there is more, and for
// another where the first is known.
func (l *lister) fetch(ctx context.Context, at cloud.Position, missing int) (rows []cloud.Row, next cloud.Position, err error) {
	limit := missing + 1
	if at.Token == "" && at.Start != "" {
		limit++
	}
	found, token, err := l.store.page(ctx, l.bucket, storage.Query{
		Prefix: l.opts.Prefix, Delimiter: l.opts.Delimiter, StartOffset: at.Start,
	}, min(limit, backends.MaxPage), at.Token)
	if err != nil {
		return nil, cloud.Position{}, err
	}
	slices.SortFunc(found, func(a, b *storage.ObjectAttrs) int { return strings.Compare(nameOf(a), nameOf(b)) })
	for _, attrs := range found { // a marker is among them only where the bucket has lost its labels
		if row := rowOf(attrs); !strings.HasPrefix(row.Name, reserved) && !kindOf(attrs).marker() {
			rows = append(rows, row)
		}
	}
	switch n := len(found); {
	case token == "":
		return rows, cloud.Position{}, nil
	case n > 0 && strings.HasPrefix(nameOf(found[n-1]), reserved):
		return rows, cloud.Position{Start: reservedEnd}, nil
	}
	return rows, cloud.Position{Token: token, Start: at.Start}, nil
}

// nameOf is an object's name, or the common prefix that attrs stand for.
func nameOf(attrs *storage.ObjectAttrs) string { return attrs.Prefix + attrs.Name }

func rowOf(attrs *storage.ObjectAttrs) cloud.Row {
	if attrs.Prefix != "" {
		return cloud.Row{Name: attrs.Prefix}
	}
	info := infoOf(attrs)
	return cloud.Row{Name: attrs.Name, Info: &info}
}
