package backends

import (
	"slices"
	"time"
)

// IsZero says that nothing is asked for.
func (c Conditions) IsZero() bool {
	return len(c.IfMatch) == 0 && len(c.IfNoneMatch) == 0 && c.IfModifiedSince.IsZero() && c.IfUnmodifiedSince.IsZero()
}

// CheckRead evaluates c for a Get or Head of an object that exists (RFC 9110
// section 13.2.2): nil, ErrPrecondition, or a *NotModified.
func (c Conditions) CheckRead(etag string, modified time.Time) error {
	if !c.mayProceed(etag, modified) {
		return ErrPrecondition
	}
	if c.unchanged(etag, modified) {
		return &NotModified{ETag: etag, Modified: modified}
	}
	return nil
}

// CheckWrite evaluates c for a Put, Complete or Delete (RFC 9110 section 13.2.2).
// Where exists is false, etag and modified do not count, and If-Match is answered
// with ErrNotFound, as S3 does (API reference, PutObject); what else does not hold
// is ErrPrecondition.
func (c Conditions) CheckWrite(etag string, modified time.Time, exists bool) error {
	switch {
	case !exists && len(c.IfMatch) > 0:
		return ErrNotFound
	case !exists:
		return nil
	case !c.mayProceed(etag, modified), matches(c.IfNoneMatch, etag):
		return ErrPrecondition
	}
	return nil
}

// mayProceed is steps 1 and 2 of the precedence: If-Match, or else
// If-Unmodified-Since.
func (c Conditions) mayProceed(etag string, modified time.Time) bool {
	if len(c.IfMatch) > 0 {
		return matches(c.IfMatch, etag)
	}
	return c.IfUnmodifiedSince.IsZero() || !seconds(modified).After(c.IfUnmodifiedSince)
}

// unchanged is steps 3 and 4: If-None-Match, or else If-Modified-Since.
func (c Conditions) unchanged(etag string, modified time.Time) bool {
	if len(c.IfNoneMatch) > 0 {
		return matches(c.IfNoneMatch, etag)
	}
	return !c.IfModifiedSince.IsZero() && !seconds(modified).After(c.IfModifiedSince)
}

func matches(tags []string, etag string) bool {
	return slices.Contains(tags, "*") || slices.Contains(tags, etag)
}

// seconds cuts a time to what an HTTP date can say, so that a client that sends
// back the Last-Modified it was given gets a match.
func seconds(t time.Time) time.Time { return t.Truncate(time.Second) }
