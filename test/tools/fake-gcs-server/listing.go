package main

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"

	"github.com/fsouza/fake-gcs-server/fakestorage"
)

const maxPage = 1000

// listed is a page. Objects and prefixes come in one order, and share a limit.
type listed struct {
	Kind          string                    `json:"kind"`
	Items         []fakestorage.ObjectAttrs `json:"items,omitempty"`
	Prefixes      []string                  `json:"prefixes,omitempty"`
	NextPageToken string                    `json:"nextPageToken,omitempty"`
}

func (f *front) list(w http.ResponseWriter, r *http.Request, bucket string) {
	q := r.URL.Query()
	all, err := f.fake.ListObjectsWithOptionsPaginated(bucket, fakestorage.ListOptions{Prefix: q.Get("prefix")})
	if err != nil {
		fail(w, http.StatusNotFound, "notFound", "The specified bucket does not exist.")
		return
	}
	last, err := base64.URLEncoding.DecodeString(q.Get("pageToken"))
	if err != nil {
		fail(w, http.StatusBadRequest, "invalid", "Invalid page token.")
		return
	}
	limit, err := strconv.Atoi(q.Get("maxResults"))
	if err != nil || limit < 1 || limit > maxPage {
		limit = maxPage
	}
	page := listed{Kind: "storage#objects"}
	row := string(last) // the last so far
	for _, o := range all.Objects {
		if end := q.Get("endOffset"); o.Name < q.Get("startOffset") || end != "" && o.Name >= end {
			continue
		}
		name := rollUp(o.Name, q.Get("prefix"), q.Get("delimiter"))
		if name <= row {
			continue
		}
		if len(page.Items)+len(page.Prefixes) == limit {
			page.NextPageToken = base64.URLEncoding.EncodeToString([]byte(row))
			break
		}
		if row = name; name == o.Name && !rolled(o.Name, q.Get("prefix"), q.Get("delimiter")) {
			page.Items = append(page.Items, o)
		} else {
			page.Prefixes = append(page.Prefixes, name)
		}
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(page)
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
