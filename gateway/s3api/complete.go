package s3api

import (
	"encoding/base64"
	"encoding/xml"
	"strconv"
	"strings"

	"chatelaine/gateway/objects"
)

type completeDocument struct {
	Parts []completePart `xml:"Part"`
}

type completePart struct {
	PartNumber *int
	ETag       string
	checksumElements
	Refused []anyElement `xml:",any"`
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
	if request.Parts, request.Algorithm, err = c.readParts(); err != nil {
		return request, err
	}
	if request.Algorithm == "" && request.Checksum != nil {
		request.Algorithm = request.Checksum.Algorithm
	}
	return request, nil
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

// objectChecksum reads the checksum of the whole object. "-n" behind it makes it
// the composite one. It says nothing about the request's own body, so it is taken
// out of what that is verified with.
func (c *call) objectChecksum() (*objects.Checksum, error) {
	kind := strings.ToUpper(c.header.Get("X-Amz-Checksum-Type"))
	if kind != "" && kind != "COMPOSITE" && kind != "FULL_OBJECT" {
		return nil, invalidRequest("Value for x-amz-checksum-type header is invalid.")
	}
	var sum *objects.Checksum
	for name, values := range c.header {
		suffix, ok := strings.CutPrefix(strings.ToLower(name), checksumPrefix)
		if !ok || notAChecksum(suffix) {
			continue
		}
		if refusedAlgorithm(suffix) {
			return nil, notImplemented(checksumPrefix + suffix)
		}
		if sum != nil || len(values) > 1 {
			return nil, multipleChecksums()
		}
		var err error
		if sum, err = parseObjectChecksum(suffix, values[0]); err != nil {
			return nil, err
		}
	}
	if sum != nil && kind != "" && sum.Composite != (kind == "COMPOSITE") {
		return nil, invalidRequest("Value for " + checksumHeader(sum.Algorithm) + " header is invalid.")
	}
	return sum, nil
}

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
			return nil, invalidRequest("Value for " + checksumHeader(a) + " header is invalid.")
		}
		sum.Composite, sum.Parts = true, n
	}
	var ok bool
	if sum.Value, ok = decodeChecksum(a, encoded); !ok {
		return nil, invalidRequest("Value for " + checksumHeader(a) + " header is invalid.")
	}
	return sum, nil
}

// readParts reads the list of parts. All checksums in it must be of one algorithm.
func (c *call) readParts() ([]objects.CompletePart, objects.Algorithm, error) {
	v, err := c.openPlain()
	if err != nil {
		return nil, "", err
	}
	var document completeDocument
	if err := readDocument(v, "CompleteMultipartUpload", &document); err != nil {
		return nil, "", err
	}
	if n := len(document.Parts); n == 0 || n > maxParts {
		return nil, "", malformedXML()
	}
	var algorithm objects.Algorithm
	parts := make([]objects.CompletePart, 0, len(document.Parts))
	for _, p := range document.Parts {
		part, a, err := p.parse()
		if err != nil {
			return nil, "", err
		}
		if a != "" && algorithm != "" && a != algorithm {
			return nil, "", invalidPartChecksum()
		}
		if a != "" {
			algorithm = a
		}
		parts = append(parts, part)
	}
	return parts, algorithm, nil
}

func (p *completePart) parse() (objects.CompletePart, objects.Algorithm, error) {
	if p.PartNumber == nil || p.ETag == "" {
		return objects.CompletePart{}, "", malformedXML()
	}
	if *p.PartNumber < 1 {
		return objects.CompletePart{}, "", invalidArgument("PartNumber must be >= 1", "PartNumber", strconv.Itoa(*p.PartNumber))
	}
	for _, e := range p.Refused {
		if name, ok := strings.CutPrefix(e.XMLName.Local, "Checksum"); ok && refusedAlgorithm(name) {
			return objects.CompletePart{}, "", notImplemented("").with(field{"Element", e.XMLName.Local})
		}
	}
	part := objects.CompletePart{Number: *p.PartNumber, ETag: strings.Trim(p.ETag, `"`)}
	var algorithm objects.Algorithm
	for _, a := range algorithms() {
		text := *p.field(a)
		if text == "" {
			continue
		}
		sum, err := base64.StdEncoding.DecodeString(text)
		if err != nil || algorithm != "" || len(sum) != a.NewHash().Size() {
			return objects.CompletePart{}, "", invalidPartChecksum()
		}
		algorithm, part.Checksum = a, sum
	}
	return part, algorithm, nil
}

func invalidPartChecksum() *fault {
	return invalidArgument("Invalid Base64 or multiple checksums present in request", "Checksum", "")
}
