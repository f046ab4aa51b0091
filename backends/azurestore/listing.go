package azurestore

import (
	"context"
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
	from, err := cloud.Position{After: opts.After}, error(nil)
	if opts.Token != "" {
		from, err = cloud.ParsePosition(opts.Token)
	}
	if err := firstError(checkContainer(bucket), err); err != nil {
		return nil, fmt.Errorf("azurestore: %s: %w", doing, err)
	}
	l := lister{store: s, bucket: bucket, opts: opts}
	page, err := cloud.Listing{Fetch: l.fetch}.Page(ctx, from, opts.Limit)
	return page, wrap(ctx, doing, err)
}

type lister struct {
	store  *Store
	bucket string
	opts   *backends.ListOptions
}

// fetch reads a page of Azure's as rows in order. Next is zero at the end, and where
// only the driver's own blobs are left.
func (l *lister) fetch(ctx context.Context, at cloud.Position, missing int) (rows []cloud.Row, next cloud.Position, err error) {
	rows, marker, end, err := l.rows(ctx, at, missing)
	if err != nil || end {
		return rows, cloud.Position{}, err
	}
	return rows, cloud.Position{Token: marker}, nil
}

func (l *lister) rows(ctx context.Context, at cloud.Position, missing int) (rows []cloud.Row, marker string, end bool, err error) {
	if l.opts.Delimiter == "/" {
		return l.folder(ctx, at, missing)
	}
	pager := l.store.container(l.bucket).NewListBlobsFlatPager(&container.ListBlobsFlatOptions{
		Include: container.ListBlobsInclude{Metadata: true}, Prefix: l.prefix(), Marker: optional(at.Token),
		StartFrom: l.start(at), MaxResults: l.limit(missing),
	})
	out, err := pager.NextPage(ctx)
	if err != nil {
		return nil, "", false, err
	}
	if out.Segment == nil {
		return nil, "", false, errNoListing
	}
	rows, end = l.objects(out.Segment.BlobItems)
	return rows, deref(out.NextMarker), end, nil
}

func (l *lister) folder(ctx context.Context, at cloud.Position, missing int) (rows []cloud.Row, marker string, end bool, err error) {
	pager := l.store.container(l.bucket).NewListBlobsHierarchyPager("/", &container.ListBlobsHierarchyOptions{
		Include: container.ListBlobsInclude{Metadata: true}, Prefix: l.prefix(), Marker: optional(at.Token), MaxResults: l.limit(missing),
	})
	out, err := pager.NextPage(ctx)
	if err != nil {
		return nil, "", false, err
	}
	if out.Segment == nil {
		return nil, "", false, errNoListing
	}
	rows, end = l.objects(out.Segment.BlobItems)
	for _, p := range out.Segment.BlobPrefixes {
		name := deref(p.Name)
		end = end || strings.HasPrefix(name, reserved)
		if key, err := decodeName(name); err == nil && strings.HasPrefix(key, l.opts.Prefix) {
			rows = append(rows, cloud.Row{Name: key})
		}
	}
	slices.SortFunc(rows, func(a, b cloud.Row) int { return strings.Compare(a.Name, b.Name) })
	return rows, deref(out.NextMarker), end, nil
}

// objects are the rows of blobs that have keys with the prefix. End says that one of the
// driver's own was met, and that no keys follow.
func (l *lister) objects(items []*container.BlobItem) (rows []cloud.Row, end bool) {
	for _, item := range items {
		if strings.HasPrefix(deref(item.Name), reserved) {
			return rows, true
		}
		key, err := decodeName(deref(item.Name))
		if err != nil || item.Properties == nil || !strings.HasPrefix(key, l.opts.Prefix) {
			continue
		}
		if common, ok := backends.RollUp(key, l.opts.Prefix, l.opts.Delimiter); ok {
			if len(rows) == 0 || rows[len(rows)-1].Name != common {
				rows = append(rows, cloud.Row{Name: common})
			}
			continue
		}
		info := infoOf(item)
		info.Key = key
		rows = append(rows, cloud.Row{Name: key, Info: &info})
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
func (l *lister) start(at cloud.Position) *string {
	if l.opts.Prefix != "" || at.Token != "" {
		return nil
	}
	return optional(encodePrefix(at.After))
}

// limit is what is missing, where Azure's rows are those of the page.
func (l *lister) limit(missing int) *int32 {
	n := int32(maxList)
	if l.opts.Delimiter == "" || l.opts.Delimiter == "/" {
		n = int32(missing)
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
