package s3api

import (
	"encoding/xml"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"chatelaine/backends"
)

// S3's limits on tags; lengths are in characters.
const (
	maxObjectTags = 10
	maxBucketTags = 50
	maxTagKey     = 128
	maxTagValue   = 256
)

type taggingDocument struct {
	XMLName xml.Name     `xml:"http://s3.amazonaws.com/doc/2006-03-01/ Tagging"`
	Tags    []tagElement `xml:"TagSet>Tag"`
}

type tagElement struct{ Key, Value string }

// taggingInput is a taggingDocument as clients write it, with or without namespace.
type taggingInput struct {
	TagSet *struct {
		Tags []tagElement `xml:"Tag"`
	}
}

// newTagging writes tags in the order of their keys.
func newTagging(tags backends.Tags) taggingDocument {
	var d taggingDocument
	for key, value := range tags {
		d.Tags = append(d.Tags, tagElement{key, value})
	}
	slices.SortFunc(d.Tags, func(a, b tagElement) int { return strings.Compare(a.Key, b.Key) })
	return d
}

// tags checks a document's tags.
func (d taggingInput) tags(limit int, tooMany string) (backends.Tags, error) {
	if d.TagSet == nil {
		return nil, malformedXML()
	}
	return checkTags(d.TagSet.Tags, limit, tooMany)
}

func checkTags(list []tagElement, limit int, tooMany string) (backends.Tags, error) {
	if len(list) > limit {
		return nil, bad("BadRequest", tooMany)
	}
	tags := make(backends.Tags, len(list))
	for _, t := range list {
		if err := checkTag(t.Key, t.Value); err != nil {
			return nil, err
		}
		if _, again := tags[t.Key]; again {
			return nil, invalidTag("Cannot provide multiple Tags with the same key", t.Key, "")
		}
		tags[t.Key] = t.Value
	}
	return tags, nil
}

func invalidTag(message, key, value string) *fault {
	f := bad("InvalidTag", message)
	if key != "" {
		f.fields = append(f.fields, field{"TagKey", key})
	}
	if value != "" {
		f.fields = append(f.fields, field{"TagValue", value})
	}
	return f
}

// checkTag follows "Tagging objects" of the S3 User Guide.
func checkTag(key, value string) error {
	switch {
	case key == "" || utf8.RuneCountInString(key) > maxTagKey || !tagText(key):
		return invalidTag("The TagKey you have provided is invalid", key, "")
	case strings.HasPrefix(strings.ToLower(key), "aws:"):
		return invalidTag("System tags cannot be added/updated by requester", key, "")
	case utf8.RuneCountInString(value) > maxTagValue || !tagText(value):
		return invalidTag("The TagValue you have provided is invalid", key, value)
	}
	return nil
}

func tagText(s string) bool {
	for _, r := range s {
		if !unicode.IsLetter(r) && !unicode.IsNumber(r) && !unicode.Is(unicode.Zs, r) && !strings.ContainsRune("+-=._:/@", r) {
			return false
		}
	}
	return utf8.ValidString(s)
}

// headerTags reads x-amz-tagging: a query string. nil where there is none.
func headerTags(text string) (backends.Tags, error) {
	if text == "" {
		return nil, nil
	}
	malformed := invalidArgument("The header 'x-amz-tagging' shall be encoded as UTF-8 then URLEncoded URL query parameters "+
		"without tag name duplicates.", "x-amz-tagging", "")
	values, err := url.ParseQuery(text)
	if err != nil {
		return nil, malformed
	}
	if len(values) > maxObjectTags {
		return nil, bad("BadRequest", objectTagsLimited)
	}
	tags := make(backends.Tags, len(values))
	for key, all := range values {
		if key == "" || len(all) > 1 || !utf8.ValidString(key+all[0]) {
			return nil, malformed
		}
		if err := checkTag(key, all[0]); err != nil {
			return nil, err
		}
		tags[key] = all[0]
	}
	return tags, nil
}

const (
	objectTagsLimited = "Object tags cannot be greater than 10"
	bucketTagsLimited = "Bucket tag count cannot be greater than 50"
)

func (c *call) getObjectTagging() error {
	tags, version, err := c.Service.Tags(c.ctx, c.bucket, c.key, c.query.Get("versionId"))
	if err != nil {
		return err
	}
	setIf(c.w.Header(), "X-Amz-Version-Id", version)
	return c.writeXML(http.StatusOK, newTagging(tags))
}

func (c *call) putObjectTagging() error {
	var document taggingInput
	if err := c.readConfig("Tagging", &document); err != nil {
		return err
	}
	tags, err := document.tags(maxObjectTags, objectTagsLimited)
	if err != nil {
		return err
	}
	version, err := c.Service.SetTags(c.ctx, c.bucket, c.key, c.query.Get("versionId"), tags)
	setIf(c.w.Header(), "X-Amz-Version-Id", version)
	return c.done(err)
}

func (c *call) deleteObjectTagging() error {
	version, err := c.Service.SetTags(c.ctx, c.bucket, c.key, c.query.Get("versionId"), nil)
	setIf(c.w.Header(), "X-Amz-Version-Id", version)
	return c.gone(err)
}

// What the gateway keeps of a bucket itself, by name.
const (
	configTagging   = "tagging"
	configCORS      = "cors"
	configOwnership = "ownership"
	configLifecycle = "lifecycle"
)

// getBucketTagging answers with what was stored, which is a document of ours.
func (c *call) getBucketTagging() error {
	text, err := c.configured(configTagging)
	if err == nil && text == nil {
		err = refused(http.StatusNotFound, "NoSuchTagSet", "The TagSet does not exist.", field{"BucketName", c.bucketName})
	}
	if err != nil {
		return err
	}
	return c.writeStored(text)
}

func (c *call) putBucketTagging() error {
	var document taggingInput
	if err := c.readConfig("Tagging", &document); err != nil {
		return err
	}
	tags, err := document.tags(maxBucketTags, bucketTagsLimited)
	if err != nil {
		return err
	}
	return c.gone(c.storeConfig(configTagging, newTagging(tags)))
}

func (c *call) deleteBucketTagging() error {
	return c.gone(c.Service.SetBucketConfig(c.ctx, c.bucket, configTagging, nil))
}

// storeConfig keeps a document about the bucket.
func (c *call) storeConfig(name string, document any) error {
	text, err := marshal(document)
	if err != nil {
		return err
	}
	return c.Service.SetBucketConfig(c.ctx, c.bucket, name, text)
}
