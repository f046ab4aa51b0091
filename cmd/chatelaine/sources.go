package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"chatelaine/backends"
	gatewayconfig "chatelaine/gateway/config"
	"chatelaine/gateway/objects"
)

// source is a bucket of a cloud with mirrors of keys in it.
type source struct {
	name      string // for S3 clients
	backend   string // in the configuration
	storeName string
	store     backends.Store
	mirrors   []string // keys of the objects
}

// sources finds the buckets that are named, or all that have mirrors.
func (r *recovery) sources(ctx context.Context, c gatewayconfig.Config, stores map[string]backends.Store, args []string) ([]source, error) {
	var found []source
	for _, arg := range args {
		s, err := parseSource(arg, c.BucketPrefix, stores)
		if err != nil {
			return nil, err
		}
		found = append(found, s)
	}
	if len(args) == 0 {
		var err error
		if found, err = allSources(ctx, c.BucketPrefix, stores); err != nil {
			return nil, err
		}
	}
	if r.space != "" && len(found) != 1 {
		return nil, usageError{fmt.Errorf("--space is of one bucket, and there are %d: name it", len(found))}
	}
	for i := range found {
		if err := found[i].list(ctx); err != nil {
			return nil, fmt.Errorf("looking for keys in %s/%s: %w", found[i].backend, found[i].storeName, err)
		}
	}
	if len(args) == 0 {
		found = slices.DeleteFunc(found, func(s source) bool { return len(s.mirrors) == 0 })
	}
	for _, s := range found {
		if _, err := r.ownerOf(s.name); err != nil {
			return nil, err
		}
	}
	return found, nil
}

// parseSource reads [BACKEND/]NAME[=BUCKET].
func parseSource(arg, prefix string, stores map[string]backends.Store) (source, error) {
	place, name, named := strings.Cut(arg, "=")
	backend, storeName, both := strings.Cut(place, "/")
	if !both {
		if len(stores) != 1 {
			return source{}, usageError{fmt.Errorf("%q: in which backend? Say BACKEND/NAME; there are %s", arg, strings.Join(slices.Sorted(maps.Keys(stores)), ", "))}
		}
		backend, storeName = slices.Collect(maps.Keys(stores))[0], place
	}
	if stores[backend] == nil {
		return source{}, usageError{fmt.Errorf("%q: there is no backend %q, but %s", arg, backend, strings.Join(slices.Sorted(maps.Keys(stores)), ", "))}
	}
	if !named {
		var ours bool
		if name, ours = strings.CutPrefix(storeName, prefix); !ours {
			return source{}, usageError{fmt.Errorf("%q does not begin with bucket_prefix %q: say %s=NAME", storeName, prefix, arg)}
		}
	}
	return source{name: name, backend: backend, storeName: storeName, store: stores[backend]}, nil
}

// allSources lists the buckets of all backends that have the prefix.
func allSources(ctx context.Context, prefix string, stores map[string]backends.Store) ([]source, error) {
	var found []source
	for _, backend := range slices.Sorted(maps.Keys(stores)) {
		buckets, err := stores[backend].ListBuckets(ctx)
		if err != nil {
			return nil, advise(fmt.Errorf("listing the buckets of backend %q: %w", backend, err), "name the buckets, if the gateway's account may not list them")
		}
		for _, b := range buckets {
			if name, ours := strings.CutPrefix(b.Name, prefix); ours {
				found = append(found, source{name: name, backend: backend, storeName: b.Name, store: stores[backend]})
			}
		}
	}
	return found, nil
}

// list finds the mirrors.
func (s *source) list(ctx context.Context) error {
	o := backends.ListOptions{Prefix: objects.MirrorPrefix}
	for {
		page, err := s.store.List(ctx, s.storeName, &o)
		if err != nil {
			return err
		}
		for _, entry := range page.Entries {
			s.mirrors = append(s.mirrors, entry.Key)
		}
		if !page.Truncated {
			return nil
		}
		o.Token = page.Token
	}
}
