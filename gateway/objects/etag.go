package objects

import (
	"errors"
	"strings"

	"chatelaine/backends"
)

// looksLikeMD5 matches the ETags that clients would take for the MD5 of what they
// sent, and what hiding those makes of them, so that hiding can be undone.
func looksLikeMD5(etag string) bool {
	base := etag
	for strings.HasSuffix(base, "-1") {
		base = strings.TrimSuffix(base, "-1")
	}
	return hex32(base)
}

func hex32(s string) bool {
	if len(s) != 32 {
		return false
	}
	for _, c := range []byte(s) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') && (c < 'A' || c > 'F') {
			return false
		}
	}
	return true
}

// visibleETag is the ETag that clients see for a backend's (FORMAT.md section 7).
func visibleETag(etag string) string {
	if looksLikeMD5(etag) {
		return etag + "-1"
	}
	return etag
}

// backendETag undoes visibleETag. A 32-hex ETag that was never visible stays as
// it is and matches nothing of ours but what the backend says.
func backendETag(visible string) string {
	if stripped, ok := strings.CutSuffix(visible, "-1"); ok && looksLikeMD5(stripped) {
		return stripped
	}
	if looksLikeMD5(visible) {
		return "not-visible-" + visible
	}
	return visible
}

func backendETags(visible []string) []string {
	out := make([]string, 0, len(visible))
	for _, v := range visible {
		out = append(out, backendETag(v))
	}
	return out
}

// visibleError is err as clients may see it: the ETag of a backends.NotModified is
// the visible one. Where conditions are checked here, check made it and it is visible already.
func (q *query) visibleError(err error) error {
	var n *backends.NotModified
	if !q.checksConditions() && errors.As(err, &n) {
		return &backends.NotModified{ETag: visibleETag(n.ETag), Modified: n.Modified}
	}
	return err
}
