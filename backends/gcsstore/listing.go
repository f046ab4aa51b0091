package gcsstore

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"cloud.google.com/go/storage"

	"chatelaine/backends"
)

// List implements backends.Store. It is one request, and another where the driver's own
// objects lie within the page or the service ends its own page early.
func (s *Store) List(ctx context.Context, bucket string, opts *backends.ListOptions) (*backends.Page, error) {
	ctx, doing := withBudget(ctx), fmt.Sprintf("listing bucket %q", bucket)
	if opts == nil {
		opts = &backends.ListOptions{}
	}
	from, err := parsePosition(opts)
	if !utf8.ValidString(opts.Prefix) || !utf8.ValidString(opts.Delimiter) {
		err = firstError(err, fmt.Errorf("%w: prefix %.80q or delimiter %.80q is not UTF-8", backends.ErrInvalidName, opts.Prefix, opts.Delimiter))
	}
	if err := firstError(backends.CheckBucket(bucket), err); err != nil {
		return nil, wrap(ctx, doing, err)
	}
	l := lister{store: s, bucket: bucket, opts: *opts, at: from, page: &backends.Page{}}
	if l.opts.Limit < 1 || l.opts.Limit > backends.MaxPage {
		l.opts.Limit = backends.MaxPage
	}
	for more := true; more; {
		if more, err = l.step(ctx); err != nil {
			return nil, wrap(ctx, doing, err)
		}
	}
	return l.page, nil
}

// position is where a listing goes on: the service's page of that Token among the names
// from Start on, above the row After.
type position struct {
	Token string `json:"t,omitempty"`
	Start string `json:"s,omitempty"`
	After string `json:"a,omitempty"`
}

func parsePosition(opts *backends.ListOptions) (p position, err error) {
	if opts.Token == "" {
		start, _, _ := strings.Cut(strings.ToValidUTF8(opts.After, "\xff"), "\xff")
		return position{Start: start, After: opts.After}, nil
	}
	raw, err := base64.RawURLEncoding.DecodeString(opts.Token)
	if err == nil {
		err = json.Unmarshal(raw, &p)
	}
	if err != nil {
		return position{}, fmt.Errorf("%w: token %.40q", backends.ErrInvalidName, opts.Token)
	}
	return p, nil
}

func (p position) token() (string, error) {
	raw, err := json.Marshal(p)
	return base64.RawURLEncoding.EncodeToString(raw), err
}

type lister struct {
	store  *Store
	bucket string
	opts   backends.ListOptions
	at     position
	page   *backends.Page
}

// row is a line of a listing: an object, or a common prefix, which has no attributes.
type row struct {
	name  string
	attrs *storage.ObjectAttrs
}

// step adds one of the service's pages and says whether to go on.
func (l *lister) step(ctx context.Context) (more bool, err error) {
	rows, next, err := l.fetch(ctx)
	if err != nil {
		return false, err
	}
	for _, r := range rows {
		if r.name <= l.at.After || strings.HasPrefix(r.name, reserved) {
			continue
		}
		if l.rows() == l.opts.Limit { // r has been read in vain: the next page begins there
			return false, l.truncate(position{Start: l.at.After, After: l.at.After})
		}
		l.add(r)
	}
	l.at.Token = next
	if n := len(rows); n > 0 && next != "" && strings.HasPrefix(rows[n-1].name, reserved) {
		l.at.Token, l.at.Start = "", reservedEnd
		next = reservedEnd
	}
	if next == "" {
		return false, nil
	}
	if l.rows() == l.opts.Limit {
		return false, l.truncate(l.at)
	}
	return true, nil
}

func (l *lister) add(r row) {
	l.at.After = r.name
	if r.attrs == nil {
		l.page.Prefixes = append(l.page.Prefixes, r.name)
		return
	}
	l.page.Entries = append(l.page.Entries, infoOf(r.attrs))
}

func (l *lister) rows() int { return len(l.page.Entries) + len(l.page.Prefixes) }

func (l *lister) truncate(at position) (err error) {
	l.page.Truncated = true
	l.page.Token, err = at.token()
	return err
}

// fetch reads a page of the service's as rows in order. It asks for one row more than is
// missing, which tells whether there is more, and for another where the first is known.
func (l *lister) fetch(ctx context.Context) ([]row, string, error) {
	limit := l.opts.Limit - l.rows() + 1
	if l.at.Token == "" && l.at.Start != "" {
		limit++
	}
	found, next, err := l.store.page(ctx, l.bucket, storage.Query{
		Prefix: l.opts.Prefix, Delimiter: l.opts.Delimiter, StartOffset: l.at.Start,
	}, min(limit, backends.MaxPage), l.at.Token)
	if err != nil {
		return nil, "", err
	}
	rows := make([]row, len(found))
	for i, attrs := range found {
		rows[i] = row{attrs.Name, attrs}
		if attrs.Prefix != "" {
			rows[i] = row{name: attrs.Prefix}
		}
	}
	slices.SortFunc(rows, func(a, b row) int { return strings.Compare(a.name, b.name) })
	return rows, next, nil
}
