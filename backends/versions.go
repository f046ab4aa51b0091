package backends

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Stamp is where a version stands among those of its key: later ones are greater.
// It is 32 hex digits, of which the first 16 are nanoseconds since 1970, and serves
// as the name of all versions but the null version. Versions that are older than
// all others may have none.
type Stamp string

// NewStamp returns a stamp of now that is above after, whatever the clock says.
func NewStamp(after Stamp) Stamp {
	const digits = 16
	at := uint64(time.Now().UnixNano())
	if len(after) >= digits {
		if last, err := strconv.ParseUint(string(after[:digits]), 16, 64); err == nil {
			at = max(at, last+1)
		}
	}
	b := make([]byte, digits/2)
	rand.Read(b)
	return Stamp(fmt.Sprintf("%016x%s", at, hex.EncodeToString(b)))
}

// IsStamp says that a name has the form of a stamp. Such a name is a safe file name.
func IsStamp(name string) bool {
	return len(name) == 32 && strings.Trim(name, "0123456789abcdef") == ""
}

// VersionRef names a version and says where it stands.
type VersionRef struct {
	Version string // NullVersion, or the stamp
	Stamp   Stamp
}

// VersionKeys are the keys of a bucket that have versions or markers, in byte order,
// as PageVersions wants them.
type VersionKeys interface {
	// Ceil is as in Keys.
	Ceil(from string) (key string, ok bool, err error)
	// Versions returns the versions and markers of a key, the newest first; none
	// where they have gone.
	Versions(key string) ([]VersionRef, error)
	// Version describes one of them. ErrVersionNotFound means that it has gone since,
	// and leaves it out.
	Version(key string, ref VersionRef) (VersionInfo, error)
}

// PageVersions makes one page of ListVersions for stores that hold the versions
// themselves. The markers that it gives out hold their place also when what they
// name has been deleted.
func PageVersions(ctx context.Context, keys VersionKeys, opts *ListVersionsOptions) (*VersionsPage, error) {
	if opts == nil {
		opts = &ListVersionsOptions{}
	}
	l := versionLister{keys: keys, opts: opts, page: &VersionsPage{}}
	from := opts.Prefix
	if opts.KeyMarker >= from && opts.KeyMarker != "" {
		if from = opts.KeyMarker; opts.VersionMarker == "" {
			from += "\x00"
		}
	}
	for more := true; more; {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		var err error
		if from, more, err = l.step(from); err != nil {
			return nil, err
		}
	}
	return l.page, nil
}

type versionLister struct {
	keys VersionKeys
	opts *ListVersionsOptions
	page *VersionsPage
	// The last row so far, as markers of the next page.
	lastKey  string
	lastMark Stamp
}

// step adds the rows of the first key that is at least from, and returns where to
// go on.
func (l *versionLister) step(from string) (next string, more bool, err error) {
	key, ok, err := l.keys.Ceil(from)
	if err != nil || !ok || !strings.HasPrefix(key, l.opts.Prefix) {
		return "", false, err
	}
	common, rolled := RollUp(key, l.opts.Prefix, l.opts.Delimiter)
	if !rolled {
		more, err := l.addKey(key)
		return key + "\x00", more, err
	}
	next, more = above(common)
	if common <= l.opts.KeyMarker {
		return next, more, nil
	}
	if l.full() {
		return "", false, nil
	}
	l.page.Prefixes, l.lastKey, l.lastMark = append(l.page.Prefixes, common), common, ""
	return next, more, nil
}

// full says that the page has no room for one more row, and ends it.
func (l *versionLister) full() bool {
	if len(l.page.Versions)+len(l.page.Prefixes) < pageLimit(l.opts.Limit) {
		return false
	}
	l.page.Truncated, l.page.NextKey, l.page.NextVersionMark = true, l.lastKey, string(l.lastMark)
	return true
}

func (l *versionLister) addKey(key string) (more bool, err error) {
	refs, err := l.keys.Versions(key)
	if err != nil {
		return false, err
	}
	first := 0
	if key == l.opts.KeyMarker {
		first = olderThan(refs, l.opts.VersionMarker)
	}
	for i := first; i < len(refs); i++ {
		if l.full() {
			return false, nil
		}
		v, err := l.keys.Version(key, refs[i])
		if errors.Is(err, ErrVersionNotFound) {
			continue
		}
		if err != nil {
			return false, err
		}
		v.Latest, v.Attributes, v.TagCount = i == 0, Attributes{Metadata: v.Attributes.Metadata}, 0
		l.page.Versions, l.lastKey, l.lastMark = append(l.page.Versions, v), key, refs[i].Stamp
	}
	return true, nil
}

// olderThan is the index of the first version that is older than mark, which is the
// name or the stamp of one that may have gone. None is older than a null version
// that has gone.
func olderThan(refs []VersionRef, mark string) int {
	if i := slices.IndexFunc(refs, func(r VersionRef) bool { return r.Version == mark }); i >= 0 {
		return i + 1
	}
	i := len(refs)
	for i > 0 && refs[i-1].Stamp < Stamp(mark) && mark != NullVersion {
		i--
	}
	return i
}
