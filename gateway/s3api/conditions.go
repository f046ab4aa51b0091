package s3api

import (
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"chatelaine/backends"
	"chatelaine/gateway/objects"
)

// readConditions are those of GET and HEAD. A date that is none is ignored, as
// RFC 9110 section 13.1.3 wants.
func readConditions(h http.Header) backends.Conditions {
	return backends.Conditions{
		IfMatch:           etags(h.Values("If-Match")),
		IfNoneMatch:       etags(h.Values("If-None-Match")),
		IfModifiedSince:   date(h.Get("If-Modified-Since")),
		IfUnmodifiedSince: date(h.Get("If-Unmodified-Since")),
	}
}

// writeConditions are those of PutObject and CompleteMultipartUpload: what S3
// takes, and no more.
func writeConditions(h http.Header) (ifMatch, ifNoneMatch []string, err error) {
	ifMatch, ifNoneMatch = etags(h.Values("If-Match")), etags(h.Values("If-None-Match"))
	if len(ifMatch) > 0 && len(ifNoneMatch) > 0 {
		return nil, nil, notImplemented("If-Match,If-None-Match",
			field{"additionalMessage", "Multiple conditional request headers present in the request"})
	}
	if len(ifNoneMatch) > 1 || len(ifNoneMatch) == 1 && ifNoneMatch[0] != "*" {
		return nil, nil, notImplemented("If-None-Match",
			field{"additionalMessage", "We don't accept the provided value of If-None-Match header for this API"})
	}
	for _, name := range []string{"If-Modified-Since", "If-Unmodified-Since"} {
		if h.Get(name) != "" {
			return nil, nil, notImplemented(name)
		}
	}
	return ifMatch, ifNoneMatch, nil
}

// Conditions that S3 has for directory buckets alone ("DeleteObject",
// "AbortMultipartUpload").
const (
	ifSizeHeader     = "x-amz-if-match-size"
	ifModifiedHeader = "x-amz-if-match-last-modified-time"
	ifBeganHeader    = "x-amz-if-match-initiated-time"
)

// statedSize reads a condition; nil where there is none. One that cannot be read is
// refused: ignored, it would let happen what it was to prevent.
func statedSize(name, text string) (*int64, error) {
	if text == "" {
		return nil, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 {
		return nil, invalidArgument("The size must be an integer that is not negative.", name, text)
	}
	return &n, nil
}

// statedTime reads a condition as statedSize does, in HTTP's form, also with a
// fraction, or in ISO 8601's: SDKs send both. Zero where there is none.
func statedTime(name, text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	t, err := http.ParseTime(text)
	if err != nil {
		t, err = time.Parse(time.RFC3339, text)
	}
	if err != nil || t.IsZero() {
		return time.Time{}, invalidArgument("The timestamp must be an HTTP date or of ISO 8601.", name, text)
	}
	return t, nil
}

// etags splits lists of entity tags. Quotes may be missing; a weak tag is compared
// like a strong one, because S3 has no others.
func etags(values []string) []string {
	var out []string
	for _, v := range values {
		for v = strings.TrimSpace(v); v != ""; {
			var tag string
			tag, v = nextETag(v)
			if tag != "" {
				out = append(out, tag)
			}
		}
	}
	return out
}

// nextETag takes one tag off the front. Within quotes a comma is part of it.
func nextETag(s string) (tag, rest string) {
	s = strings.TrimPrefix(strings.TrimLeft(s, ", \t"), "W/")
	if quoted, ok := strings.CutPrefix(s, `"`); ok {
		if end := strings.IndexByte(quoted, '"'); end >= 0 {
			return quoted[:end], quoted[end+1:]
		}
		return quoted, ""
	}
	tag, rest, _ = strings.Cut(s, ",")
	return strings.Trim(strings.TrimSpace(tag), `"`), rest
}

func date(s string) time.Time {
	t, err := http.ParseTime(s)
	if err != nil {
		return time.Time{}
	}
	return t
}

// parseRange reads a Range header with one range of bytes. Anything else means the
// whole object, as S3 answers it (RFC 9110 section 14.2 lets it).
func parseRange(s string) *objects.ByteRange {
	spec, ok := strings.CutPrefix(strings.TrimSpace(s), "bytes=")
	if !ok {
		return nil
	}
	first, last, ok := strings.Cut(spec, "-")
	if !ok {
		return nil
	}
	a, okFirst := offset(first)
	b, okLast := offset(last)
	switch {
	case !okFirst || !okLast || a < 0 && b < 0:
		return nil
	case a < 0 && b == 0: // the last 0 bytes: never satisfiable
		return &objects.ByteRange{First: math.MaxInt64, Last: -1}
	case a >= 0 && b >= 0 && b < a:
		return nil
	}
	return &objects.ByteRange{First: a, Last: b}
}

// offset reads digits alone; -1 where there are none. What does not fit is as far
// as one can go.
func offset(s string) (int64, bool) {
	if s == "" {
		return -1, true
	}
	for _, ch := range []byte(s) {
		if ch < '0' || ch > '9' {
			return 0, false
		}
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return math.MaxInt64, true
	}
	return n, true
}
