package s3api

import (
	"encoding/xml"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"chatelaine/backends"
	"chatelaine/gateway/keys"
	"chatelaine/gateway/objects"
)

const copySource = "X-Amz-Copy-Source"

// source is what x-amz-copy-source names.
type source struct {
	bucket, key, version string
}

// parseSource reads "bucket/key?versionId=id", with or without a leading slash,
// bucket and key escaped as in a URL.
func parseSource(value string) (source, error) {
	invalid := func(message, value string) (source, error) {
		return source{}, invalidArgument(message, "x-amz-copy-source", value)
	}
	path, version, versioned := strings.Cut(value, "?versionId=")
	decoded, err := url.PathUnescape(strings.TrimPrefix(path, "/"))
	if err != nil {
		return invalid("Invalid copy source encoding", value)
	}
	bucket, key, _ := strings.Cut(decoded, "/")
	switch {
	case !validBucketName(bucket):
		return invalid("Invalid copy source bucket name", bucket)
	case key == "":
		return invalid("Invalid copy source object key", key)
	case len(key) > objects.MaxKey:
		return source{}, keyTooLong(len(key))
	}
	if version, err = url.PathUnescape(version); err != nil || versioned && !validVersion(version) {
		return source{}, invalidVersion(version)
	}
	return source{bucket: bucket, key: key, version: version}, nil
}

// openSource finds what is to be copied and has the reading of it decided.
func (c *call) openSource() (objects.GetRequest, error) {
	var err error
	if c.source, err = parseSource(c.header.Get(copySource)); err != nil {
		return objects.GetRequest{}, err
	}
	bucket, err := c.sourceBucket()
	if err != nil {
		return objects.GetRequest{}, err
	}
	action := "s3:GetObject"
	if c.source.version != "" {
		action = "s3:GetObjectVersion"
	}
	if err := c.authorizeIn(c.source.bucket, bucket.Owner, action, c.source.key); err != nil {
		return objects.GetRequest{}, err
	}
	return objects.GetRequest{
		Bucket: bucket, Key: c.source.key, Version: c.source.version, Conditions: sourceConditions(c.header),
	}, nil
}

func (c *call) sourceBucket() (keys.Bucket, error) {
	bucket, err := c.Service.Bucket(c.ctx, c.source.bucket)
	if errors.Is(err, keys.ErrBucketNotFound) {
		return bucket, noBucket(c.source.bucket)
	}
	if err != nil {
		return bucket, err
	}
	if owner := c.header.Get("X-Amz-Source-Expected-Bucket-Owner"); owner != "" && !c.owns(bucket, owner) {
		return bucket, accessDenied()
	}
	return bucket, nil
}

func sourceConditions(h http.Header) backends.Conditions {
	return backends.Conditions{
		IfMatch:           etags(h.Values(copySource + "-If-Match")),
		IfNoneMatch:       etags(h.Values(copySource + "-If-None-Match")),
		IfModifiedSince:   date(h.Get(copySource + "-If-Modified-Since")),
		IfUnmodifiedSince: date(h.Get(copySource + "-If-Unmodified-Since")),
	}
}

// copyResult is a CopyObjectResult or CopyPartResult element.
type copyResult struct {
	XMLName      xml.Name
	LastModified string
	ETag         string
	checksumElements
}

func newCopyResult(name, etag string, modified time.Time) copyResult {
	return copyResult{XMLName: xml.Name{Space: namespace, Local: name}, LastModified: iso(modified), ETag: quoted(etag)}
}

func (c *call) copyObject() error {
	request, err := c.copyRequest()
	if err != nil {
		return err
	}
	return c.patiently(func() (outcome, error) {
		result, err := c.Service.Copy(c.ctx, request)
		document := newCopyResult("CopyObjectResult", result.ETag, result.Modified)
		for _, sum := range result.Checksums {
			document.set(sum)
		}
		return outcome{document: document, kek: result.KEK, version: result.Version, source: result.SourceVersion}, err
	})
}

func (c *call) copyRequest() (r objects.CopyRequest, err error) {
	r = objects.CopyRequest{Bucket: c.bucket, Key: c.key}
	if r.Source, err = c.openSource(); err != nil {
		return r, err
	}
	replaceTags, err := c.directive("tagging")
	if err != nil {
		return r, err
	}
	if r.Replace, err = c.directive("metadata"); err != nil {
		return r, err
	}
	if err := c.copyOntoItself(r.Replace); err != nil {
		return r, err
	}
	if r.Attributes, err = c.attributes(); err != nil {
		return r, err
	}
	if r.StoreAttributes, err = c.storeAttributes(); err != nil {
		return r, err
	}
	if r.KeepTags = !replaceTags; r.KeepTags {
		r.Tags = nil // S3 takes no notice of x-amz-tagging then
	}
	if r.Algorithm, err = c.copyAlgorithm(); err != nil {
		return r, err
	}
	r.IfMatch, r.IfNoneMatch, err = writeConditions(c.header)
	return r, err
}

// directive says whether x-amz-KIND-directive is REPLACE.
func (c *call) directive(kind string) (replace bool, err error) {
	name := "x-amz-" + kind + "-directive"
	switch v := c.header.Get(name); v {
	case "", "COPY":
		return false, nil
	case "REPLACE":
		return true, nil
	default:
		return false, invalidArgument("Unknown "+kind+" directive.", name, v)
	}
}

// copyOntoItself refuses a copy that would change nothing.
func (c *call) copyOntoItself(replace bool) error {
	if replace || c.source != (source{bucket: c.bucketName, key: c.key}) {
		return nil
	}
	for _, change := range []string{"X-Amz-Storage-Class", "X-Amz-Server-Side-Encryption", "X-Amz-Checksum-Algorithm", redirectHeader} {
		if c.header.Get(change) != "" {
			return nil
		}
	}
	return invalidRequest("This copy request is illegal because it is trying to copy an object to itself without changing " +
		"the object's metadata, storage class, website redirect location or encryption attributes.")
}

func (c *call) copyAlgorithm() (objects.Algorithm, error) {
	name := c.header.Get("X-Amz-Checksum-Algorithm")
	if name == "" {
		return "", nil
	}
	return uploadAlgorithm(name)
}

// copyPart makes a part of an object or of a range of it.
func (c *call) copyPart() error {
	number, err := c.partNumber()
	if err != nil {
		return err
	}
	request := objects.CopyPartRequest{UploadRef: c.uploadRef(), Number: number}
	if request.Source, err = c.openSource(); err != nil {
		return err
	}
	if request.Source.Range, err = c.sourceRange(request.Source); err != nil {
		return err
	}
	return c.patiently(func() (outcome, error) {
		result, err := c.Service.CopyPart(c.ctx, request)
		document := newCopyResult("CopyPartResult", result.ETag, c.Now())
		if sum := result.Checksum; sum != nil && !result.Unasked {
			*document.field(sum.Algorithm) = encodeChecksum(*sum) // a part's has no type
		}
		return outcome{document: document, kek: result.KEK, source: result.SourceVersion}, err
	})
}

// sourceRange reads x-amz-copy-source-range: bytes=a-b, both within the source.
func (c *call) sourceRange(src objects.GetRequest) (*objects.ByteRange, error) {
	const name = "x-amz-copy-source-range"
	text := c.header.Get(name)
	if text == "" {
		return nil, nil
	}
	r, ok := parseWholeRange(text)
	if !ok {
		return nil, invalidArgument("The x-amz-copy-source-range value must be of the form bytes=first-last where first and last "+
			"are the zero-based offsets of the first and last bytes to copy", name, text)
	}
	stat, _, err := c.Service.Head(c.ctx, src)
	if err != nil {
		return nil, sourceCondition(err)
	}
	if r.Last >= stat.Size {
		return nil, invalidArgument(fmt.Sprintf("Range specified is not valid for source object of size: %d", stat.Size), name,
			strconv.FormatInt(stat.Size, 10))
	}
	return r, nil
}

// sourceCondition makes 304 a 412: a copy has no other answer for it.
func sourceCondition(err error) error {
	if errors.Is(err, backends.ErrNotModified) {
		return backends.ErrPrecondition
	}
	return err
}

// parseWholeRange is parseRange for a range with both ends.
func parseWholeRange(text string) (*objects.ByteRange, bool) {
	if !strings.HasPrefix(text, "bytes=") {
		return nil, false
	}
	r := parseRange(text)
	return r, r != nil && r.First >= 0 && r.Last >= 0
}
