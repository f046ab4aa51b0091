package backends

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Keys are the keys of a bucket in byte order, as ListPage wants them.
type Keys interface {
	// Ceil returns the least key that is at least from, or false. In place of the
	// least key it may return any other that ListPage rolls up to the same common
	// prefix. From need not be UTF-8.
	Ceil(from string) (key string, ok bool, err error)
	// Info describes a key that Ceil returned. ErrNotFound means that it has gone
	// since, and leaves it out.
	Info(key string) (Info, error)
}

// ListPage makes one page of a listing for stores that hold the keys themselves.
// It calls Ceil once for every row, and at most twice more: to step over the common
// prefix that the page begins above, and to learn whether the page is the last. It
// calls Info once for every object.
func ListPage(ctx context.Context, keys Keys, opts *ListOptions) (*Page, error) {
	if opts == nil {
		opts = &ListOptions{}
	}
	after, err := opts.position()
	if err != nil {
		return nil, err
	}
	l := lister{keys: keys, page: &Page{}, prefix: opts.Prefix, delimiter: opts.Delimiter, after: after, limit: pageLimit(opts.Limit)}
	from := opts.Prefix
	if after >= from && after != "" {
		from = after + "\x00"
	}
	for more := true; more; {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if from, more, err = l.step(from); err != nil {
			return nil, err
		}
	}
	return l.page, nil
}

type lister struct {
	keys              Keys
	page              *Page
	prefix, delimiter string
	after, last       string // exclusive start; the last row so far
	limit             int
}

// step adds the row of the first key that is at least from, and returns where to
// go on.
func (l *lister) step(from string) (next string, more bool, err error) {
	key, ok, err := l.keys.Ceil(from)
	if err != nil || !ok || !strings.HasPrefix(key, l.prefix) {
		return "", false, err
	}
	common, rolled := RollUp(key, l.prefix, l.delimiter)
	next, more = key+"\x00", true
	if rolled {
		next, more = above(common)
	}
	if rolled && common <= l.after {
		return next, more, nil
	}
	if len(l.page.Entries)+len(l.page.Prefixes) == l.limit {
		l.page.Truncated, l.page.Token = true, base64.RawURLEncoding.EncodeToString([]byte(l.last))
		return "", false, nil
	}
	if rolled {
		l.page.Prefixes, l.last = append(l.page.Prefixes, common), common
		return next, more, nil
	}
	return next, more, l.add(key)
}

func (l *lister) add(key string) error {
	info, err := l.keys.Info(key)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	info.Attributes = Attributes{Metadata: info.Attributes.Metadata}
	l.page.Entries, l.last = append(l.page.Entries, info), key
	return nil
}

// RollUp returns the common prefix that stands for key in a listing, and whether
// one does: key up to and with the first delimiter behind prefix. An empty
// delimiter rolls nothing up.
func RollUp(key, prefix, delimiter string) (string, bool) {
	if delimiter == "" || len(key) < len(prefix) {
		return "", false
	}
	i := strings.Index(key[len(prefix):], delimiter)
	if i < 0 {
		return "", false
	}
	return key[:len(prefix)+i+len(delimiter)], true
}

// position is the row that the page begins above.
func (o *ListOptions) position() (string, error) {
	if o.Token == "" {
		return o.After, nil
	}
	last, err := base64.RawURLEncoding.DecodeString(o.Token)
	if err != nil {
		return "", fmt.Errorf("backends: listing: %w: token %.40q", ErrInvalidName, o.Token)
	}
	return string(last), nil
}

// above returns the least string above all that begin with prefix; false where
// there is none.
func above(prefix string) (string, bool) {
	b := []byte(prefix)
	for len(b) > 0 && b[len(b)-1] == 0xff {
		b = b[:len(b)-1]
	}
	if len(b) == 0 {
		return "", false
	}
	b[len(b)-1]++
	return string(b), true
}

func pageLimit(limit int) int {
	if limit < 1 || limit > MaxPage {
		return MaxPage
	}
	return limit
}

// PageUploads makes a page of uploads, which it sorts by key and ID. It is for
// stores that hold the uploads themselves and whose IDs grow with time.
func PageUploads(uploads []Upload, opts *ListUploadsOptions) *UploadsPage {
	if opts == nil {
		opts = &ListUploadsOptions{}
	}
	slices.SortFunc(uploads, func(a, b Upload) int {
		return cmp.Or(strings.Compare(a.Key, b.Key), strings.Compare(a.ID, b.ID))
	})
	page, last := &UploadsPage{}, Upload{}
	for _, u := range uploads {
		common, rolled := RollUp(u.Key, opts.Prefix, opts.Delimiter)
		switch {
		case !opts.above(u, common, rolled), rolled && common == last.Key && last.ID == "":
			continue
		case len(page.Uploads)+len(page.Prefixes) == pageLimit(opts.Limit):
			page.Truncated, page.NextKey, page.NextIDMarker = true, last.Key, last.ID
			return page
		case rolled:
			page.Prefixes, last = append(page.Prefixes, common), Upload{UploadID: UploadID{Key: common}}
		default:
			page.Uploads, last = append(page.Uploads, u), u
		}
	}
	return page
}

// above says that the row of u belongs on a page behind the markers.
func (o *ListUploadsOptions) above(u Upload, common string, rolled bool) bool {
	switch {
	case !strings.HasPrefix(u.Key, o.Prefix):
		return false
	case rolled:
		return common > o.KeyMarker
	case u.Key == o.KeyMarker:
		return o.IDMarker != "" && u.ID > o.IDMarker
	}
	return u.Key > o.KeyMarker
}

// PageParts makes a page of parts that are sorted by number.
func PageParts(parts []Part, after, limit int) *PartsPage {
	i, _ := slices.BinarySearchFunc(parts, after+1, func(p Part, n int) int { return p.Number - n })
	rest := parts[i:]
	if limit = pageLimit(limit); len(rest) <= limit {
		return &PartsPage{Parts: slices.Clone(rest)}
	}
	return &PartsPage{Parts: slices.Clone(rest[:limit]), Next: rest[limit-1].Number}
}
