package azurestore

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"

	"chatelaine/backends"
	"chatelaine/backends/cloud"
)

// List implements backends.Store. It is one request where the delimiter is / or none,
// and as many as it takes to fill a page otherwise, as Azure may end its own pages
// anywhere. Blobs whose names are no key's are left out.
func (s *Store) List(ctx context.Context, bucket string, opts *backends.ListOptions) (*backends.Page, error) {
	doing := fmt.Sprintf("listing bucket %q", bucket)
	if opts == nil {
		opts = &backends.ListOptions{}
	}
	from, err := parsePosition(opts)
	if err := firstError(checkContainer(bucket), err); err != nil {
		return nil, fmt.Errorf("azurestore: %s: %w", doing, err)
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

// position is where a listing goes on: the page of Azure's that Marker opens, above the
// row After. Marker is opaque.
type position struct {
	Marker string `json:"m,omitempty"`
	After  string `json:"a,omitempty"`
}

func parsePosition(opts *backends.ListOptions) (p position, err error) {
	if opts.Token == "" {
		return position{After: opts.After}, nil
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

// row is a line of a listing: an object, or a common prefix, which has no Info.
type row struct {
	name string
	info *backends.Info
}

// step adds one of Azure's pages and says whether to go on.
func (l *lister) step(ctx context.Context) (more bool, err error) {
	rows, next, err := l.fetch(ctx)
	if err != nil {
		return false, err
	}
	for _, r := range rows {
		if r.name <= l.at.After {
			continue
		}
		if l.rows() == l.opts.Limit {
			return false, l.truncate()
		}
		if r.info == nil {
			l.page.Prefixes = append(l.page.Prefixes, r.name)
		} else {
			l.page.Entries = append(l.page.Entries, *r.info)
		}
		l.at.After = r.name
	}
	if next == "" {
		return false, nil
	}
	l.at.Marker = next
	if l.rows() == l.opts.Limit {
		return false, l.truncate()
	}
	return true, nil
}

func (l *lister) rows() int { return len(l.page.Entries) + len(l.page.Prefixes) }

func (l *lister) truncate() (err error) {
	l.page.Truncated = true
	l.page.Token, err = l.at.token()
	return err
}

// fetch reads a page of Azure's as rows in order. Next is empty at the end, and where
// only the driver's own blobs are left.
func (l *lister) fetch(ctx context.Context) (rows []row, next string, err error) {
	if l.opts.Delimiter == "/" {
		return l.fetchFolder(ctx)
	}
	pager := l.store.container(l.bucket).NewListBlobsFlatPager(&container.ListBlobsFlatOptions{
		Include: container.ListBlobsInclude{Metadata: true}, Prefix: l.prefix(), Marker: optional(l.at.Marker),
		MaxResults: l.limit(), StartFrom: l.start(),
	})
	out, err := pager.NextPage(ctx)
	if err != nil {
		return nil, "", err
	}
	if out.Segment == nil {
		return nil, "", fmt.Errorf("%w: %w: no listing", backends.ErrUnavailable, cloud.ErrMalformed)
	}
	rows, end := l.objects(out.Segment.BlobItems)
	if end {
		return rows, "", nil
	}
	return rows, deref(out.NextMarker), nil
}

func (l *lister) fetchFolder(ctx context.Context) (rows []row, next string, err error) {
	pager := l.store.container(l.bucket).NewListBlobsHierarchyPager("/", &container.ListBlobsHierarchyOptions{
		Include: container.ListBlobsInclude{Metadata: true}, Prefix: l.prefix(), Marker: optional(l.at.Marker), MaxResults: l.limit(),
	})
	out, err := pager.NextPage(ctx)
	if err != nil {
		return nil, "", err
	}
	if out.Segment == nil {
		return nil, "", fmt.Errorf("%w: %w: no listing", backends.ErrUnavailable, cloud.ErrMalformed)
	}
	rows, end := l.objects(out.Segment.BlobItems)
	for _, p := range out.Segment.BlobPrefixes {
		name := deref(p.Name)
		end = end || strings.HasPrefix(name, reserved)
		if key, err := decodeName(name); err == nil && strings.HasPrefix(key, l.opts.Prefix) {
			rows = append(rows, row{name: key})
		}
	}
	slices.SortFunc(rows, func(a, b row) int { return strings.Compare(a.name, b.name) })
	if end {
		return rows, "", nil
	}
	return rows, deref(out.NextMarker), nil
}

// objects are the rows of blobs that have keys with the prefix. End says that one of the
// driver's own was met, and that no keys follow.
func (l *lister) objects(items []*container.BlobItem) (rows []row, end bool) {
	for _, item := range items {
		if strings.HasPrefix(deref(item.Name), reserved) {
			return rows, true
		}
		key, err := decodeName(deref(item.Name))
		if err != nil || item.Properties == nil || !strings.HasPrefix(key, l.opts.Prefix) {
			continue
		}
		if common, ok := backends.RollUp(key, l.opts.Prefix, l.opts.Delimiter); ok {
			if len(rows) == 0 || rows[len(rows)-1].name != common {
				rows = append(rows, row{name: common})
			}
			continue
		}
		info := infoOf(item)
		info.Key = key
		rows = append(rows, row{name: key, info: &info})
	}
	return rows, false
}

func infoOf(item *container.BlobItem) backends.Info {
	return backends.Info{
		Size: deref(item.Properties.ContentLength), ETag: etagOf(item.Properties.ETag), Modified: deref(item.Properties.LastModified),
		Attributes: backends.Attributes{Metadata: metadataOf(item.Metadata)},
	}
}

func (l *lister) prefix() *string { return optional(encodePrefix(l.opts.Prefix)) }

// start is the name to begin at. What it means beside a prefix, or beside a marker,
// Azure does not say: then all rows are read, and those up to After dropped.
func (l *lister) start() *string {
	if l.opts.Prefix != "" || l.at.Marker != "" {
		return nil
	}
	return optional(encodePrefix(l.at.After))
}

// limit is what is missing, where Azure's rows are those of the page.
func (l *lister) limit() *int32 {
	n := int32(maxList)
	if l.opts.Delimiter == "" || l.opts.Delimiter == "/" {
		n = int32(l.opts.Limit - l.rows())
	}
	return &n
}

// maxList is the most rows of one of Azure's pages.
const maxList = 5000

func optional[T comparable](v T) *T {
	var zero T
	if v == zero {
		return nil
	}
	return &v
}
