package s3api

import (
	"encoding/xml"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"chatelaine/gateway/keys"
	"chatelaine/gateway/objects"
	"chatelaine/gateway/sigv4"
)

// postObject stores the file of a browser's form. The form carries the signature, a
// policy that says what it may hold, and what other requests say in headers.
//
// Source: S3 API Reference, "POST Object" and "POST Policy".
func (c *call) postObject() error {
	fields, file, err := c.readForm()
	if err != nil {
		return err
	}
	if err := c.acceptForm(fields, file); err != nil {
		return err
	}
	c.route.headers = words(createHeaders + " " + checkedHeaders)
	if c.header, err = formHeaders(fields, c.r.Header); err != nil {
		return err
	}
	c.route.action, c.route.run = "s3:PutObject", func(c *call) error { return c.storeForm(fields, file) }
	return c.run()
}

func (c *call) readForm() (sigv4.Form, *formFile, error) {
	kind, params, err := mime.ParseMediaType(c.r.Header.Get("Content-Type"))
	boundary := params["boundary"]
	switch {
	case kind != "multipart/form-data":
		return nil, nil, refused(http.StatusPreconditionFailed, "PreconditionFailed", "At least one of the pre-conditions you specified did not hold.",
			field{"Condition", "Bucket POST must be of the enclosure-type multipart/form-data"})
	case err != nil || boundary == "" || len(boundary) > maxBoundary:
		return nil, nil, malformedForm()
	case c.r.ContentLength < 0:
		return nil, nil, missingContentLength()
	}
	c.body.stranger = true
	return newFormReader(c.body, boundary, c.r.ContentLength).read()
}

// acceptForm verifies the form's signature and holds it against its policy.
func (c *call) acceptForm(fields sigv4.Form, file *formFile) error {
	signed, policy, err := c.verifier.VerifyForm(c.ctx, fields)
	if err != nil {
		return err
	}
	key, ok := signed.Key.(keys.SigningKey)
	if !ok {
		return keys.ErrAccessKeyNotFound
	}
	c.signed, c.principal, c.body.stranger = signed, key.Principal, false
	if file == nil {
		return invalidArgument("POST requires exactly one file upload per request.", "file", "0")
	}
	if fields["key"] == "" {
		return fieldMissing("key")
	}
	fields["key"] = strings.ReplaceAll(fields["key"], "${filename}", file.name)
	if name, ok := fields["bucket"]; ok && name != c.bucketName {
		return invalidArgument("The bucket field does not match the bucket of the request.", "bucket", name)
	}
	fields["bucket"] = c.bucketName
	if err := policy.Check(fields, c.Now()); err != nil {
		return err
	}
	if err := file.open(); err != nil {
		return err
	}
	if err := checkLength(policy, file.size); err != nil {
		return err
	}
	return c.aim(fields["key"], file)
}

func fieldMissing(name string) *fault {
	return invalidArgument("Bucket POST must contain a field named '"+name+"'.  If it is specified, please check the order of the fields.", name, "")
}

func checkLength(p *sigv4.Policy, size int64) error {
	proposed := field{"ProposedSize", strconv.FormatInt(size, 10)}
	switch {
	case p.Max >= 0 && size > p.Max:
		return bad("EntityTooLarge", "Your proposed upload exceeds the maximum allowed object size.", proposed,
			field{"MaxSizeAllowed", strconv.FormatInt(p.Max, 10)})
	case size < p.Min:
		return bad("EntityTooSmall", "Your proposed upload is smaller than the minimum allowed size", proposed,
			field{"MinSizeAllowed", strconv.FormatInt(p.Min, 10)})
	}
	return nil
}

// aim makes the call one about the object that the form names.
func (c *call) aim(key string, file *formFile) error {
	if len(key) > objects.MaxKey {
		return keyTooLong(len(key))
	}
	c.level, c.key = levelObject, key
	c.signed.Size, c.content = file.size, file
	return nil
}

// formHeaders are the headers that a PUT would have in place of the fields.
func formHeaders(fields sigv4.Form, sent http.Header) (http.Header, error) {
	h := http.Header{}
	for _, name := range []string{"If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since"} {
		if values, ok := sent[name]; ok { // never dropped
			h[name] = values
		}
	}
	for name, value := range fields {
		switch {
		case formSignature(name):
		case name == "acl":
			h.Set("X-Amz-Acl", value)
		case name == "x-amz-checksum-algorithm":
			h.Set("X-Amz-Sdk-Checksum-Algorithm", value)
		case slices.Contains(attributeFields(), name), strings.HasPrefix(name, "x-amz-"), strings.HasPrefix(name, ownPrefix):
			h.Set(name, value)
		}
	}
	return h, formTags(h, fields["tagging"])
}

func formSignature(name string) bool {
	return slices.Contains([]string{"x-amz-signature", "x-amz-credential", "x-amz-date", "x-amz-algorithm"}, name)
}

func attributeFields() []string {
	return []string{"content-type", "content-encoding", "content-disposition", "content-language", "content-md5", "cache-control", "expires"}
}

// formTags turns the document of the tagging field into a header.
func formTags(h http.Header, text string) error {
	if text == "" {
		return nil
	}
	var document taggingInput
	if err := decodeXML([]byte(text), "Tagging", &document); err != nil {
		return err
	}
	tags, err := document.tags(maxObjectTags, objectTagsLimited)
	if err != nil {
		return err
	}
	values := url.Values{}
	for key, value := range tags {
		values.Set(key, value)
	}
	h["X-Amz-Tagging"] = []string{values.Encode()}
	return nil
}

// storeForm stores the file and answers as the form wants it.
func (c *call) storeForm(fields sigv4.Form, file *formFile) error {
	body, err := c.openUpload()
	if err != nil {
		return err
	}
	result, err := c.store(body)
	if err != nil {
		return err
	}
	_, _ = io.Copy(io.Discard, file)
	h := c.w.Header()
	h.Set("Etag", quoted(result.ETag))
	setMade(h, result.Version)
	c.setEncryption(result.KEK)
	if result.Checksum != nil {
		setChecksum(h, *result.Checksum)
	}
	return c.answerForm(fields, result.ETag)
}

type postResponse struct {
	XMLName  xml.Name `xml:"http://s3.amazonaws.com/doc/2006-03-01/ PostResponse"`
	Location string
	Bucket   string
	Key      string
	ETag     string
}

// answerForm: a redirect that is no address is as if it were not there.
func (c *call) answerForm(fields sigv4.Form, etag string) error {
	target := fields["success_action_redirect"]
	if target == "" {
		target = fields["redirect"]
	}
	if address, err := url.Parse(target); err == nil && address.Host != "" && (address.Scheme == "http" || address.Scheme == "https") {
		query := address.Query()
		query.Set("bucket", c.bucketName)
		query.Set("key", c.key)
		query.Set("etag", quoted(etag))
		address.RawQuery = query.Encode()
		c.w.Header().Set("Location", address.String())
		c.w.Header().Set("Content-Length", "0")
		c.w.WriteHeader(http.StatusSeeOther)
		return nil
	}
	location := c.addressOf(c.key)
	c.w.Header().Set("Location", location)
	switch fields["success_action_status"] {
	case "200":
		return c.done(nil)
	case "201":
		return c.writeXML(http.StatusCreated, postResponse{Location: location, Bucket: c.bucketName, Key: c.key, ETag: quoted(etag)})
	}
	return c.gone(nil)
}

// addressOf is an object's address in the style of the request.
func (c *call) addressOf(key string) string {
	address := url.URL{Scheme: "http", Host: c.r.Host, Path: "/" + key}
	if c.r.TLS != nil {
		address.Scheme = "https"
	}
	if hostedBucket(c.r.Host, c.Domain) == "" {
		address.Path = "/" + c.bucketName + "/" + key
	}
	return address.String()
}
