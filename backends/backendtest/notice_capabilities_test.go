package backendtest_test

import (
	"context"
	"time"

	"chatelaine/backends"
	"chatelaine/backends/memstore"
)

// brokenCapabilities do one thing wrong each with what goes beyond the contract.
func brokenCapabilities() map[string]brokenStore {
	return map[string]brokenStore{
		"deletes under a lock":          {"Locks/OfGovernance", func(m *memstore.Store) backends.Store { return lockless{m} }},
		"shortens any retention":        {"Locks/AreNotShortened", func(m *memstore.Store) backends.Store { return lenient{m} }},
		"lists old versions as objects": {"Versions/HideWhatIsDeleted", func(m *memstore.Store) backends.Store { return chatty{m} }},
		"lists the newest only":         {"Versions/KeepWhatIsReplaced", func(m *memstore.Store) backends.Store { return forgetting{m} }},
		"answers with the newest":       {"Versions/KeepWhatIsReplaced", func(m *memstore.Store) backends.Store { return newest{m} }},
		"hides markers":                 {"Versions/ComeBackWhen", func(m *memstore.Store) backends.Store { return markerless{m} }},
		"adds tags to those before":     {"Tags/AreReplacedAsAWhole", func(m *memstore.Store) backends.Store { return adding{m} }},
		"drops tags":                    {"Tags/AreRefusedWhere", func(m *memstore.Store) backends.Store { return dropping{m} }},
		"copies what has changed":       {"Copies/RefuseASource", func(m *memstore.Store) backends.Store { return hasty{m} }},
		"copies more than it has":       {"Copies/OfPartsRefuse", func(m *memstore.Store) backends.Store { return clipping{m} }},
	}
}

type (
	lockless   struct{ *memstore.Store }
	lenient    struct{ *memstore.Store }
	chatty     struct{ *memstore.Store }
	forgetting struct{ *memstore.Store }
	newest     struct{ *memstore.Store }
	markerless struct{ *memstore.Store }
	adding     struct{ *memstore.Store }
	dropping   struct{ backends.Store } // and nothing beyond
	hasty      struct{ *memstore.Store }
	clipping   struct{ *memstore.Store }
)

func (s lockless) Delete(ctx context.Context, id backends.ObjectID, o *backends.DeleteOptions) (backends.Deleted, error) {
	var opts backends.DeleteOptions
	if o != nil {
		opts = *o
	}
	opts.BypassGovernance = true
	return s.Store.Delete(ctx, id, &opts)
}

func (s lenient) SetRetention(ctx context.Context, id backends.ObjectID, mode backends.LockMode, until time.Time, _ bool) error {
	return s.Store.SetRetention(ctx, id, mode, until, true)
}

func (s chatty) List(ctx context.Context, bucket string, o *backends.ListOptions) (*backends.Page, error) {
	page, err := s.Store.List(ctx, bucket, o)
	if err != nil || len(page.Entries) > 0 || o == nil || o.Token != "" {
		return page, err
	}
	versions, err := s.ListVersions(ctx, bucket, &backends.ListVersionsOptions{Prefix: o.Prefix, Limit: 1})
	if err == nil && len(versions.Versions) > 0 {
		page.Entries = append(page.Entries, versions.Versions[0].Info)
	}
	return page, err
}

func (s forgetting) ListVersions(ctx context.Context, bucket string, o *backends.ListVersionsOptions) (*backends.VersionsPage, error) {
	page, err := s.Store.ListVersions(ctx, bucket, o)
	if err != nil {
		return nil, err
	}
	var latest []backends.VersionInfo
	for _, v := range page.Versions {
		if v.Latest {
			latest = append(latest, v)
		}
	}
	page.Versions = latest
	return page, nil
}

func (s newest) Get(ctx context.Context, id backends.ObjectID, o *backends.GetOptions) (*backends.Object, error) {
	id.Version = ""
	return s.Store.Get(ctx, id, o)
}

func (s markerless) Delete(ctx context.Context, id backends.ObjectID, o *backends.DeleteOptions) (backends.Deleted, error) {
	d, err := s.Store.Delete(ctx, id, o)
	d.Marker = d.Marker && id.Version == ""
	return d, err
}

func (s adding) SetTags(ctx context.Context, id backends.ObjectID, tags backends.Tags) (string, error) {
	all, _, err := s.Tags(ctx, id)
	if err != nil || all == nil {
		return s.Store.SetTags(ctx, id, tags)
	}
	for name, value := range tags {
		all[name] = value
	}
	return s.Store.SetTags(ctx, id, all)
}

func (s dropping) Put(ctx context.Context, id backends.ObjectID, b backends.Body, o *backends.PutOptions) (backends.Written, error) {
	if o == nil {
		return s.Store.Put(ctx, id, b, nil)
	}
	opts := *o
	opts.Attributes.Tags = nil
	return s.Store.Put(ctx, id, b, &opts)
}

func (s hasty) Copy(ctx context.Context, src, dst backends.ObjectID, o *backends.CopyOptions) (backends.Written, error) {
	var opts backends.CopyOptions
	if o != nil {
		opts = *o
	}
	opts.SourceIfMatch = ""
	return s.Store.Copy(ctx, src, dst, &opts)
}

func (s clipping) CopyPart(ctx context.Context, id backends.UploadID, number int, src backends.ObjectID, r *backends.Range, ifMatch string) (backends.Part, error) {
	info, err := s.Head(ctx, src, nil)
	if err == nil && r != nil && r.Offset+r.Length > info.Size && r.Offset < info.Size {
		r = &backends.Range{Offset: r.Offset, Length: info.Size - r.Offset}
	}
	return s.Store.CopyPart(ctx, id, number, src, r, ifMatch)
}
