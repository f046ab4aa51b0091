package main

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/fsouza/fake-gcs-server/fakestorage"
)

const maxPage = 1000

// listed is a page. Objects and prefixes come in one order, and share a limit.
type listed struct {
	Kind          string   `json:"kind"`
	Items         []item   `json:"items,omitempty"`
	Prefixes      []string `json:"prefixes,omitempty"`
	NextPageToken string   `json:"nextPageToken,omitempty"`
}

// item is an object in a listing, under the names that Cloud Storage has for its fields.
type item struct {
	Name        string            `json:"name"`
	Size        int64             `json:"size,string"`
	ContentType string            `json:"contentType,omitempty"`
	Metadata    map[string]string `json:"metadata,omitempty"`
	Generation  int64             `json:"generation,string"`
	Created     time.Time         `json:"timeCreated"`
	Updated     time.Time         `json:"updated"`
	Deleted     time.Time         `json:"timeDeleted,omitzero"`
}

func itemOf(o fakestorage.ObjectAttrs) item {
	return item{o.Name, o.Size, o.ContentType, o.Metadata, o.Generation, o.Created, o.Updated, o.Deleted}
}

// place is where a row stands: a generation of a name, or a prefix, which has none.
type place struct {
	Name       string
	Generation int64
}

func (p place) compare(q place) int {
	return cmp.Or(strings.Compare(p.Name, q.Name), cmp.Compare(p.Generation, q.Generation))
}

func (p place) token() string {
	raw, _ := json.Marshal(p)
	return base64.URLEncoding.EncodeToString(raw)
}

func parsePlace(token string) (p place, err error) {
	raw, err := base64.URLEncoding.DecodeString(token)
	if err == nil && len(raw) > 0 {
		err = json.Unmarshal(raw, &p)
	}
	return p, err
}

func (f *front) list(w http.ResponseWriter, r *http.Request, bucket string) {
	q := r.URL.Query()
	all, err := f.fake.ListObjectsWithOptionsPaginated(bucket, fakestorage.ListOptions{Prefix: q.Get("prefix"), Versions: q.Get("versions") == "true"})
	if err != nil {
		fail(w, http.StatusNotFound, "notFound", "The specified bucket does not exist.")
		return
	}
	last, err := parsePlace(q.Get("pageToken"))
	if err != nil {
		fail(w, http.StatusBadRequest, "invalid", "Invalid page token.")
		return
	}
	limit, err := strconv.Atoi(q.Get("maxResults"))
	if err != nil || limit < 1 || limit > maxPage {
		limit = maxPage
	}
	slices.SortFunc(all.Objects, func(a, b fakestorage.ObjectAttrs) int {
		return place{a.Name, a.Generation}.compare(place{b.Name, b.Generation})
	})
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(page(all.Objects, q, last, limit))
}

// page takes what is within the offsets and behind last.
func page(objects []fakestorage.ObjectAttrs, q url.Values, last place, limit int) (p listed) {
	p.Kind = "storage#objects"
	for _, o := range objects {
		if end := q.Get("endOffset"); o.Name < q.Get("startOffset") || end != "" && o.Name >= end {
			continue
		}
		row, common := place{o.Name, o.Generation}, rolled(o.Name, q.Get("prefix"), q.Get("delimiter"))
		if common {
			row = place{Name: rollUp(o.Name, q.Get("prefix"), q.Get("delimiter"))}
		}
		if row.compare(last) <= 0 {
			continue
		}
		if len(p.Items)+len(p.Prefixes) == limit {
			p.NextPageToken = last.token()
			break
		}
		if last = row; common {
			p.Prefixes = append(p.Prefixes, row.Name)
		} else {
			p.Items = append(p.Items, itemOf(o))
		}
	}
	return p
}

// rollUp is the row that a name is listed under.
func rollUp(name, prefix, delimiter string) string {
	if !rolled(name, prefix, delimiter) {
		return name
	}
	before, _, _ := strings.Cut(name[len(prefix):], delimiter)
	return prefix + before + delimiter
}

func rolled(name, prefix, delimiter string) bool {
	return delimiter != "" && strings.Contains(name[len(prefix):], delimiter)
}
