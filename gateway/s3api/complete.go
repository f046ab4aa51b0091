package s3api

import (
	"encoding/xml"
	"strconv"
	"strings"

	"chatelaine/gateway/objects"
)

type completeDocument struct {
	Parts partList `xml:"Part"`
}

// partList grows no longer than an upload may have parts.
type partList []completePart

// UnmarshalXML implements xml.Unmarshaler: it takes one more.
func (l *partList) UnmarshalXML(d *xml.Decoder, start xml.StartElement) error {
	if len(*l) == maxParts {
		return malformedXML()
	}
	var part completePart
	if err := d.DecodeElement(&part, &start); err != nil {
		return err
	}
	*l = append(*l, part)
	return nil
}

type completePart struct {
	PartNumber *int
	ETag       string
	checksumElements
}

type completeResult struct {
	XMLName  xml.Name `xml:"http://s3.amazonaws.com/doc/2006-03-01/ CompleteMultipartUploadResult"`
	Location string
	Bucket   string
	Key      string
	ETag     string
	checksumElements
}

func (c *call) completeUpload() error {
	request, err := c.completeRequest()
	if err != nil {
		return err
	}
	return c.patiently(func() (outcome, error) {
		result, err := c.Service.Complete(c.ctx, request)
		return outcome{document: c.completed(result), kek: result.KEK, version: result.Version}, err
	})
}

func (c *call) completeRequest() (request objects.CompleteRequest, err error) {
	request = objects.CompleteRequest{UploadRef: c.uploadRef()}
	if request.IfMatch, request.IfNoneMatch, err = writeConditions(c.header); err != nil {
		return request, err
	}
	if request.Size, err = c.objectSize(); err != nil {
		return request, err
	}
	if request.Checksum, err = c.objectChecksum(); err != nil {
		return request, err
	}
	if request.Type, err = c.checksumTypeStated(); err != nil {
		return request, err
	}
	request.Parts, err = c.readParts()
	return request, err
}

func (c *call) completed(result objects.PutResult) completeResult {
	return completeResult{
		Location: c.location(), Bucket: c.bucketName, Key: c.key, ETag: quoted(result.ETag),
		checksumElements: checksumElementsOf(result.Checksum),
	}
}

// location is the object's address as the client used it.
func (c *call) location() string {
	scheme := "http://"
	if c.r.TLS != nil {
		scheme = "https://"
	}
	return scheme + c.r.Host + c.r.URL.EscapedPath()
}

// objectSize reads x-amz-mp-object-size; -1 where there is none.
func (c *call) objectSize() (int64, error) {
	text := c.header.Get("X-Amz-Mp-Object-Size")
	if text == "" {
		return -1, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return 0, invalidRequest("Value for x-amz-mp-object-size header is invalid: '" + text + "'")
	}
	if n < 0 {
		return 0, invalidRequest("Value for x-amz-mp-object-size header is less than zero: '" + text + "'")
	}
	return n, nil
}

// objectChecksum reads the checksum of the whole object. It says nothing about the
// request's own body, so it is taken out of what that is verified with.
func (c *call) objectChecksum() (*objects.Checksum, error) {
	name, value, err := checksumIn(c.header)
	if err != nil || name == "" {
		return nil, err
	}
	return parseObjectChecksum(name, value)
}

// checksumTypeStated reads x-amz-checksum-type.
func (c *call) checksumTypeStated() (objects.ChecksumType, error) {
	switch strings.ToUpper(c.header.Get(checksumTypeHeader)) {
	case "":
		return objects.AnyType, nil
	case "FULL_OBJECT":
		return objects.FullObjectType, nil
	case "COMPOSITE":
		return objects.CompositeType, nil
	}
	return objects.AnyType, invalidChecksum(checksumTypeHeader)
}

// parseObjectChecksum: "-n" behind the value makes it the composite one of n parts.
func parseObjectChecksum(name, text string) (*objects.Checksum, error) {
	a := algorithmOf(name)
	if a == "" {
		return nil, invalidRequest("The algorithm type you specified in x-amz-checksum- header is invalid.")
	}
	sum := &objects.Checksum{Algorithm: a}
	encoded, count, composite := strings.Cut(text, "-")
	if composite {
		n, err := strconv.Atoi(count)
		if err != nil || n < 1 || n > maxParts {
			return nil, invalidChecksum(checksumHeader(a))
		}
		sum.Composite, sum.Parts = true, n
	}
	var ok bool
	if sum.Value, ok = decodeChecksum(a, encoded); !ok {
		return nil, invalidChecksum(checksumHeader(a))
	}
	return sum, nil
}

// readParts reads the list of parts.
func (c *call) readParts() ([]objects.CompletePart, error) {
	v, err := c.openPlain()
	if err != nil {
		return nil, err
	}
	var document completeDocument
	if err := readDocument(v, "CompleteMultipartUpload", &document); err != nil {
		return nil, err
	}
	if n := len(document.Parts); n == 0 || n > maxParts {
		return nil, malformedXML()
	}
	parts := make([]objects.CompletePart, 0, len(document.Parts))
	for _, p := range document.Parts {
		part, err := p.parse()
		if err != nil {
			return nil, err
		}
		parts = append(parts, part)
	}
	return parts, nil
}

func (p *completePart) parse() (objects.CompletePart, error) {
	if p.PartNumber == nil || p.ETag == "" {
		return objects.CompletePart{}, malformedXML()
	}
	if *p.PartNumber < 1 {
		return objects.CompletePart{}, invalidArgument("PartNumber must be >= 1", "PartNumber", strconv.Itoa(*p.PartNumber))
	}
	part := objects.CompletePart{Number: *p.PartNumber, ETag: strings.Trim(p.ETag, `"`)}
	for _, a := range objects.Algorithms() {
		text := *p.field(a)
		if text == "" {
			continue
		}
		sum, ok := decodeChecksum(a, text)
		if !ok {
			return part, invalidPartChecksum(text)
		}
		if part.Algorithm != "" {
			return part, invalidPartChecksum(p.stated())
		}
		part.Algorithm, part.Checksum = a, sum
	}
	return part, nil
}

func invalidPartChecksum(value string) *fault {
	return invalidArgument("Invalid Base64 or multiple checksums present in request", "Checksum", value)
}

// stated names the checksums of a part as they came: NAME:VALUE;NAME:VALUE;
func (p *completePart) stated() string {
	var b strings.Builder
	for _, a := range objects.Algorithms() {
		if text := *p.field(a); text != "" {
			b.WriteString(string(a) + ":" + text + ";")
		}
	}
	return b.String()
}
