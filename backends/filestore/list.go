package filestore

import (
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"chatelaine/backends"
)

// List walks the folders in the order of the keys. It reads the names of those
// folders that the page touches, and the headers of the page's own objects.
func (s *Store) List(ctx context.Context, bucket string, opts *backends.ListOptions) (*backends.Page, error) {
	if opts == nil {
		opts = &backends.ListOptions{}
	}
	err := s.HeadBucket(ctx, bucket)
	if err != nil {
		return nil, err
	}
	set, err := s.settings(bucket)
	if err != nil {
		return nil, wrap(err, "listing", bucket, "")
	}
	c := s.cursor(s.objects(bucket), opts.Prefix, opts.Delimiter)
	if set.versioned() {
		c.counts = isLive
	}
	page, err := backends.ListPage(ctx, c, opts)
	return page, wrap(err, "listing", bucket, "")
}

// isLive says that the file of a key is not a marker, which it is where a process
// died before it could move it.
func isLive(path string) (bool, error) {
	rec, err := readRecord(path)
	return err == nil && !rec.Marker, present(err)
}

// cursor is the backends.Keys of one page.
type cursor struct {
	store             *Store
	top               string
	prefix, delimiter string
	folders           map[string][]entry              // sorted by text
	counts            func(path string) (bool, error) // as in anyKey
	buf               []byte                          // for the header at hand
}

func (s *Store) cursor(top, prefix, delimiter string) *cursor {
	return &cursor{store: s, top: top, prefix: prefix, delimiter: delimiter, folders: map[string][]entry{}, buf: make([]byte, firstRead)}
}

// Ceil returns the least key that is at least from.
func (c *cursor) Ceil(from string) (string, bool, error) { return c.ceil(c.top, "", from) }

// ceil looks in dir, whose keys all begin with prefix. The texts of a folder are
// sorted and none but a file's is the beginning of another, so what lies below one
// entry comes whole before what lies below the next.
func (c *cursor) ceil(dir, prefix, from string) (string, bool, error) {
	entries, err := c.load(dir)
	if err != nil {
		return "", false, err
	}
	for _, e := range entries[first(entries, relative(from, prefix)):] {
		key := prefix + e.text
		if key > c.prefix && !strings.HasPrefix(key, c.prefix) {
			break
		}
		if e.kind == file {
			return key, true, nil
		}
		found, ok, err := c.below(dir+"/"+e.name(), key, from)
		if ok || err != nil {
			return found, ok, err
		}
	}
	return "", false, nil
}

// below looks in the folder of an entry. Where all of it rolls up to one row, any
// key will do.
func (c *cursor) below(dir, prefix, from string) (string, bool, error) {
	if _, rolled := backends.RollUp(prefix, c.prefix, c.delimiter); rolled && from <= prefix {
		return anyKey(dir, prefix, c.counts)
	}
	return c.ceil(dir, prefix, from)
}

// relative is what remains of from where all keys begin with prefix and from does
// not lie above them.
func relative(from, prefix string) string {
	if from <= prefix {
		return ""
	}
	return strings.TrimPrefix(from, prefix)
}

// first is the index of the first entry below which a key can be at least from.
func first(entries []entry, from string) int {
	i, _ := slices.BinarySearchFunc(entries, from, func(e entry, from string) int { return strings.Compare(e.text, from) })
	if i > 0 && entries[i-1].kind != file && strings.HasPrefix(from, entries[i-1].text) {
		i--
	}
	return i
}

func (c *cursor) load(dir string) ([]entry, error) {
	if entries, ok := c.folders[dir]; ok {
		return entries, nil
	}
	entries, err := c.store.names.load(dir)
	if err != nil {
		return nil, err
	}
	c.folders[dir] = entries
	return entries, nil
}

// Info reads the header of an object.
func (c *cursor) Info(key string) (backends.Info, error) {
	rec, err := openObjectWith(c.top+"/"+keyPath(key), key, c.buf)
	rec.close()
	if err == nil && rec.Marker {
		err = backends.ErrNotFound
	}
	info := rec.info()
	info.TagCount = 0
	return info, err
}

// readFolder returns the entries of a folder, sorted; none where it is not there.
func readFolder(dir string) ([]entry, error) {
	names, err := readNames(dir)
	if err != nil && !absent(err) {
		return nil, err
	}
	entries := make([]entry, 0, len(names))
	for _, name := range names {
		if e, ok := parseName(name); ok {
			entries = append(entries, e)
		}
	}
	slices.SortFunc(entries, func(a, b entry) int { return strings.Compare(a.text, b.text) })
	return entries, nil
}

// anyKey finds some key in dir, without reading all of it. Counts, where it is not
// nil, says whether what is at the path of a key counts.
func anyKey(dir, prefix string, counts func(path string) (bool, error)) (string, bool, error) {
	f, err := os.Open(dir)
	if err != nil {
		return "", false, present(err)
	}
	defer f.Close()
	for {
		names, err := f.Readdirnames(64)
		for _, name := range names {
			if key, ok, err := anyBelow(dir, prefix, name, counts); ok || err != nil {
				return key, ok, err
			}
		}
		if errors.Is(err, io.EOF) {
			return "", false, nil
		}
		if err != nil {
			return "", false, err
		}
	}
}

func anyBelow(dir, prefix, name string, counts func(path string) (bool, error)) (string, bool, error) {
	e, ok := parseName(name)
	if !ok {
		return "", false, nil
	}
	if e.kind != file {
		return anyKey(dir+"/"+name, prefix+e.text, counts)
	}
	if counts == nil {
		return prefix + e.text, true, nil
	}
	ok, err := counts(dir + "/" + name)
	return prefix + e.text, ok, err
}

// holdsNames says that a folder is not empty.
func holdsNames(dir string) (bool, error) {
	f, err := os.Open(dir)
	if err != nil {
		return false, present(err)
	}
	defer f.Close()
	_, err = f.Readdirnames(1)
	if errors.Is(err, io.EOF) {
		return false, nil
	}
	return err == nil, err
}

// folderCache keeps the sorted entries of large folders between pages, as long as
// the folder's time of change says that they are the same.
type folderCache struct {
	mu      sync.Mutex
	folders map[string]cachedFolder
	entries int // in all of them
}

type cachedFolder struct {
	id      folderID
	changed time.Time
	entries []entry
}

const (
	worthCaching = 512     // entries; below, a folder is read anew
	maxCached    = 1 << 19 // entries, about 50 MB with names of 50 bytes
	// A change may leave the time as it is within one tick of the kernel's clock, so
	// what was read is kept only where the last change was longer ago.
	clockTick = 100 * time.Millisecond
)

func (c *folderCache) load(dir string) ([]entry, error) {
	now := time.Now()
	id, changed, err := lastChange(dir)
	if absent(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if entries, ok := c.get(dir, id, changed); ok {
		return entries, nil
	}
	entries, err := readFolder(dir)
	if err == nil && len(entries) >= worthCaching && id != (folderID{}) && now.Sub(changed) > clockTick {
		c.put(dir, cachedFolder{id, changed, entries})
	}
	return entries, err
}

// lastChange is read before the names are: a change in between makes the time
// differ at the next look.
func lastChange(dir string) (folderID, time.Time, error) {
	info, err := os.Lstat(dir)
	if err != nil {
		return folderID{}, time.Time{}, err
	}
	id, err := identify(dir)
	return id, info.ModTime(), err
}

func (c *folderCache) get(dir string, id folderID, changed time.Time) ([]entry, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f, ok := c.folders[dir]
	return f.entries, ok && f.id == id && f.changed.Equal(changed)
}

func (c *folderCache) put(dir string, f cachedFolder) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.entries += len(f.entries) - len(c.folders[dir].entries)
	if c.folders == nil || c.entries > maxCached {
		c.folders, c.entries = map[string]cachedFolder{}, len(f.entries)
	}
	c.folders[dir] = f
}
