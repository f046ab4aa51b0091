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
	"chatelaine/backends/cloud"
)

// walk goes through the names of a bucket with versions, in order, and folds the
// generations of each: the service's own listing shows markers, and lacks names whose
// newest version was deleted. It reads 1000 generations in a request, and holds those of
// a page and of one name.
type walk struct {
	ctx    context.Context //nolint:containedctx // lives as long as one call
	store  *Store
	bucket string
	prefix string
	st     state
	marked bool // names whose newest version is a marker, too

	ahead []*storage.ObjectAttrs // read and not yet passed
	begun bool
	token string // of the service's next page
	last  string // the last name that was read

	name  string // that Ceil has returned
	found history
}

var (
	_ backends.Keys        = (*walk)(nil)
	_ backends.VersionKeys = (*walk)(nil)
)

// Ceil implements backends.Keys and backends.VersionKeys.
func (w *walk) Ceil(from string) (string, bool, error) {
	for {
		if strings.HasPrefix(from, reserved) {
			from = reservedEnd
		}
		rows, err := w.next(from)
		if err != nil || len(rows) == 0 {
			return "", false, err
		}
		name := rows[0].Name
		from = name + "\x00"
		if strings.HasPrefix(name, reserved) {
			continue
		}
		w.name, w.found = name, w.st.fold(rows)
		if len(w.found.shown) > 0 && (w.marked || w.found.current() != nil) {
			return name, true, nil
		}
	}
}

// next takes all generations of the first name that is at least from.
func (w *walk) next(from string) ([]*storage.ObjectAttrs, error) {
	for {
		passed := slices.IndexFunc(w.ahead, func(a *storage.ObjectAttrs) bool { return a.Name >= from })
		if passed < 0 {
			passed = len(w.ahead)
		}
		w.ahead = w.ahead[passed:]
		if n := w.first(); n > 0 && (n < len(w.ahead) || w.token == "") {
			rows := w.ahead[:n]
			w.ahead = w.ahead[n:]
			return rows, nil
		}
		if w.begun && w.token == "" {
			return nil, nil
		}
		if err := w.read(from); err != nil {
			return nil, err
		}
	}
}

// first counts the rows that have the first one's name.
func (w *walk) first() (n int) {
	for n < len(w.ahead) && w.ahead[n].Name == w.ahead[0].Name {
		n++
	}
	return n
}

// read fetches the service's next page, or begins anew where names are skipped.
func (w *walk) read(from string) error {
	if len(w.ahead) == 0 && from > w.last+"\x00" {
		w.token = ""
	}
	q := storage.Query{Prefix: w.prefix, Versions: w.st.on()}
	if w.token == "" {
		q.StartOffset = validStart(from)
	}
	rows, next, err := w.store.page(w.ctx, w.bucket, q, backends.MaxPage, w.token)
	if err != nil {
		return err
	}
	w.begun, w.token, w.ahead = true, next, append(w.ahead, rows...)
	if len(rows) > 0 {
		w.last = rows[len(rows)-1].Name
	}
	return nil
}

// validStart is what the service takes as the beginning of names that are at least from.
func validStart(from string) string {
	start, _, _ := strings.Cut(strings.ToValidUTF8(from, "\xff"), "\xff")
	return start
}

// Info implements backends.Keys, for the name that Ceil has just returned.
func (w *walk) Info(key string) (backends.Info, error) {
	attrs := w.found.current()
	if key != w.name || attrs == nil {
		return backends.Info{}, backends.ErrNotFound
	}
	return infoOf(attrs), nil
}

// Versions implements backends.VersionKeys, as Info.
func (w *walk) Versions(key string) (refs []backends.VersionRef, _ error) {
	if key != w.name {
		return nil, nil
	}
	for _, attrs := range w.found.shown {
		refs = append(refs, backends.VersionRef{Version: w.version(attrs), Stamp: backends.Stamp(versionOf(attrs.Generation))})
	}
	return refs, nil
}

func (w *walk) version(attrs *storage.ObjectAttrs) string {
	if kindOf(attrs).null() {
		return backends.NullVersion
	}
	return versionOf(attrs.Generation)
}

// Version implements backends.VersionKeys, as Info.
func (w *walk) Version(key string, ref backends.VersionRef) (backends.VersionInfo, error) {
	i := slices.IndexFunc(w.found.shown, func(a *storage.ObjectAttrs) bool { return versionOf(a.Generation) == string(ref.Stamp) })
	if key != w.name || i < 0 {
		return backends.VersionInfo{}, backends.ErrVersionNotFound
	}
	attrs := w.found.shown[i]
	v := backends.VersionInfo{Info: infoOf(attrs), Marker: kindOf(attrs).marker()}
	v.Version = ref.Version
	if v.Marker {
		v.ETag, v.Size = "", 0
	}
	return v, nil
}

// ListVersions implements backends.Versioner.
func (s *Store) ListVersions(ctx context.Context, bucket string, opts *backends.ListVersionsOptions) (*backends.VersionsPage, error) {
	ctx, doing := withBudget(ctx), fmt.Sprintf("listing the versions of bucket %q", bucket)
	if opts == nil {
		opts = &backends.ListVersionsOptions{}
	}
	if err := firstError(backends.CheckBucket(bucket), checkQuery(opts.Prefix, opts.Delimiter)); err != nil {
		return nil, wrap(ctx, doing, err)
	}
	st, err := s.state(ctx, bucket, s.lease)
	if err == nil && st.denied != nil {
		err = st.denied
	}
	if err != nil {
		return nil, wrap(ctx, doing, err)
	}
	page, err := backends.PageVersions(ctx, &walk{ctx: ctx, store: s, bucket: bucket, prefix: opts.Prefix, st: st, marked: true}, opts)
	return page, wrap(ctx, doing, err)
}

func checkQuery(prefix, delimiter string) error {
	if !utf8.ValidString(prefix) || !utf8.ValidString(delimiter) {
		return fmt.Errorf("%w: prefix %.80q or delimiter %.80q is not UTF-8", backends.ErrInvalidName, prefix, delimiter)
	}
	return nil
}

// listNewest is List in a bucket with versions. Its pages go on from one key to the next
// and know of none of the service's own.
func (s *Store) listNewest(ctx context.Context, bucket string, st state, opts backends.ListOptions, from cloud.Position) (*backends.Page, error) {
	opts.Token, opts.After = "", from.After
	page, err := backends.ListPage(ctx, &walk{ctx: ctx, store: s, bucket: bucket, prefix: opts.Prefix, st: st}, &opts)
	if err != nil || !page.Truncated {
		return page, err
	}
	last, err := base64.RawURLEncoding.DecodeString(page.Token)
	if err != nil {
		return nil, err
	}
	raw, err := json.Marshal(cloud.Position{Start: validStart(string(last)), After: string(last)})
	page.Token = base64.RawURLEncoding.EncodeToString(raw)
	return page, err
}
