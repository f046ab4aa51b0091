package s3api

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"go.uber.org/zap"

	"chatelaine/backends"
	"chatelaine/gateway/objects"
)

// getObject streams an object. The status is written with the first verified
// bytes: until then anything that goes wrong is a proper error.
func (c *call) getObject() error {
	request, err := c.getRequest()
	if err != nil {
		return err
	}
	reader, err := c.Service.Get(c.ctx, request)
	if c.rangeIsStale(&request, err) {
		reader, err = c.Service.Get(c.ctx, request)
	}
	if err != nil {
		return err
	}
	defer func() {
		if err := reader.Close(); err != nil {
			c.log.Debug("closing an object", zap.String("request_id", c.id), zap.Error(err))
		}
	}()
	out := &lateHeader{c: c, stat: reader.Stat, span: reader.Span}
	if _, err := reader.WriteTo(out); err != nil {
		return fmt.Errorf("s3api: sending %q: %w", c.key, err)
	}
	out.begin()
	return nil
}

// lateHeader writes the header before the first byte of the body.
type lateHeader struct {
	c     *call
	stat  objects.Stat
	span  objects.Span
	begun bool
}

func (l *lateHeader) begin() {
	if !l.begun {
		l.begun = true
		l.c.answerObject(l.stat, l.span)
	}
}

// Write implements io.Writer.
func (l *lateHeader) Write(p []byte) (int, error) {
	l.begin()
	return l.c.w.Write(p)
}

func (c *call) headObject() error {
	request, err := c.getRequest()
	if err != nil {
		return err
	}
	stat, span, err := c.Service.Head(c.ctx, request)
	if c.rangeIsStale(&request, err) {
		stat, span, err = c.Service.Head(c.ctx, request)
	}
	if err != nil {
		return err
	}
	c.answerObject(stat, span)
	return nil
}

// getRequest reads what GET and HEAD have in common.
func (c *call) getRequest() (objects.GetRequest, error) {
	part, err := c.partToRead()
	if err != nil {
		return objects.GetRequest{}, err
	}
	request := objects.GetRequest{
		Bucket: c.bucket, Key: c.key, Version: c.query.Get("versionId"),
		Range: parseRange(c.header.Get("Range")), Part: part, Conditions: readConditions(c.header),
	}
	if part > 0 && c.header.Get("Range") != "" {
		return request, invalidRequest("Cannot specify both Range header and partNumber query parameter")
	}
	c.ifRange(&request)
	request.Checksums = c.wantsChecksums() && request.Range == nil && part <= 1
	return request, nil
}

// ifRange ties the range to the tag of If-Range (RFC 9110 section 13.1.5), which
// the backend then checks with the read. A date is too weak for that: it makes the
// answer whole.
func (c *call) ifRange(request *objects.GetRequest) {
	value := c.header.Get("If-Range")
	if value == "" || request.Range == nil {
		return
	}
	if !strings.HasPrefix(value, `"`) || len(request.Conditions.IfMatch) > 0 {
		request.Range = nil
		return
	}
	request.Conditions.IfMatch = etags([]string{value})
}

// rangeIsStale says whether the object is not that of If-Range, and makes the
// request one for all of it.
func (c *call) rangeIsStale(request *objects.GetRequest, err error) bool {
	if !errors.Is(err, backends.ErrPrecondition) || c.header.Get("If-Range") == "" || request.Range == nil {
		return false
	}
	request.Range, request.Conditions.IfMatch = nil, nil
	return true
}

func (c *call) partToRead() (int, error) {
	text := c.query.Get("partNumber")
	if !c.query.Has("partNumber") {
		return 0, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > 10000 {
		return 0, invalidPartNumber(text)
	}
	return n, nil
}

func (c *call) wantsChecksums() bool {
	return strings.EqualFold(c.header.Get("X-Amz-Checksum-Mode"), "ENABLED")
}

// answerObject writes status and headers of GET and HEAD.
func (c *call) answerObject(stat objects.Stat, span objects.Span) {
	h := c.w.Header()
	setAttributes(h, stat.Attributes)
	lastModified(h, stat.Modified)
	h.Set("Etag", quoted(stat.ETag))
	h.Set("Accept-Ranges", "bytes")
	h.Set("Content-Length", strconv.FormatInt(span.Length, 10))
	if !stat.Plain {
		c.setEncryption(stat.KEK)
	}
	setIf(h, "X-Amz-Version-Id", stat.Version)
	setLock(h, stat.Lock)
	if stat.TagCount > 0 {
		h.Set("X-Amz-Tagging-Count", strconv.Itoa(stat.TagCount))
	}
	if class := classOf(stat.Class); class != "STANDARD" {
		h.Set("X-Amz-Storage-Class", class)
	}
	if c.query.Has("partNumber") && stat.Parts > 0 {
		h.Set("X-Amz-Mp-Parts-Count", strconv.Itoa(stat.Parts))
	}
	if whole := !span.Partial || c.query.Has("partNumber") && stat.Parts == 0; c.wantsChecksums() && whole {
		for _, sum := range stat.Checksums {
			setChecksum(h, sum)
		}
	}
	c.override(h)
	c.w.WriteHeader(c.rangeStatus(h, stat.Size, span))
}

// rangeStatus is 206 with Content-Range for a part of the object; an empty one
// cannot be written as a range.
func (c *call) rangeStatus(h http.Header, size int64, span objects.Span) int {
	if !span.Partial || span.Length == 0 {
		return http.StatusOK
	}
	h.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", span.Offset, span.Offset+span.Length-1, size))
	return http.StatusPartialContent
}

func setAttributes(h http.Header, a objects.Attributes) {
	for _, f := range []field{
		{"Content-Type", a.ContentType},
		{"Content-Encoding", a.ContentEncoding},
		{"Content-Disposition", a.ContentDisposition},
		{"Content-Language", a.ContentLanguage},
		{"Cache-Control", a.CacheControl},
		{"Expires", a.Expires},
		{"X-Amz-Website-Redirect-Location", a.Redirect},
	} {
		if f.value != "" {
			h.Set(f.name, f.value)
		}
	}
	// In lower case, as S3 does: applications find "note" by that very name.
	for name, value := range a.Metadata {
		h[strings.ToLower(metaPrefix)+name] = []string{value}
	}
}

// override replaces headers by what the request asks for in response-*.
func (c *call) override(h http.Header) {
	for _, name := range []string{
		"Content-Type", "Content-Language", "Expires", "Cache-Control", "Content-Disposition", "Content-Encoding",
	} {
		if value := c.query.Get("response-" + strings.ToLower(name)); value != "" {
			h.Set(name, value)
		}
	}
}
