package s3api

import (
	"bytes"
	"encoding/base64"
	"encoding/xml"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"chatelaine/gateway/objects"
)

const (
	namespace = "http://s3.amazonaws.com/doc/2006-03-01/"
	// maxXML is the longest body of XML that is read, in bytes.
	maxXML = 2 << 20
	// maxTags is how many tags it may have, and how many quotes, of which each attribute
	// has two. The longest document, a Complete of 10000 parts with a checksum each, has
	// 80,000 tags and 20,000 quotes. In memory, an element is thirty times as long as the
	// shortest in a document.
	maxTags = 100_000

	isoTime = "2006-01-02T15:04:05.000Z"
)

// writeXML answers with a document.
func (c *call) writeXML(status int, document any) error {
	body, err := marshal(document)
	if err != nil {
		return err
	}
	h := c.w.Header()
	h.Set("Content-Type", "application/xml")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	c.w.WriteHeader(status)
	_, _ = c.w.Write(body) // nobody is left to be told
	return nil
}

func marshal(document any) ([]byte, error) {
	var b bytes.Buffer
	b.WriteString(xml.Header)
	if err := xml.NewEncoder(&b).Encode(document); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// readDocument reads a document with the given root. Nothing may follow it, and
// there are no entities beside those of XML itself.
func readDocument(src io.Reader, root string, into any) error {
	text, err := readAll(src)
	if err != nil {
		return err
	}
	return decodeXML(text, root, into)
}

// readAll reads a body to its end, where its checksums are compared, unless it is
// too long.
func readAll(src io.Reader) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(src, maxXML+1))
	if err != nil {
		return nil, err
	}
	if len(text) > maxXML {
		return nil, messageTooLong()
	}
	return text, nil
}

func decodeXML(text []byte, root string, into any) error {
	if count(text, "<") > maxTags || count(text, `"`)+count(text, "'") > maxTags {
		return malformedXML()
	}
	d := xml.NewDecoder(bytes.NewReader(text))
	for {
		token, err := d.Token()
		if err != nil {
			return malformedXML()
		}
		switch t := token.(type) {
		case xml.Directive:
			return malformedXML()
		case xml.StartElement:
			if t.Name.Local != root || d.DecodeElement(into, &t) != nil {
				return malformedXML()
			}
			return atEnd(d)
		}
	}
}

func count(text []byte, what string) int { return bytes.Count(text, []byte(what)) }

// atEnd lets comments and white space follow the document, and nothing else.
func atEnd(d *xml.Decoder) error {
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return malformedXML()
		}
		switch t := token.(type) {
		case xml.Comment, xml.ProcInst:
		case xml.CharData:
			if len(bytes.TrimSpace(t)) > 0 {
				return malformedXML()
			}
		default:
			return malformedXML()
		}
	}
}

// owner is an Owner or Initiator element.
type owner struct {
	ID          string
	DisplayName string
}

// prefixElement is a CommonPrefixes element.
type prefixElement struct{ Prefix string }

// urlEncoder encodes keys where encoding-type=url asks for it.
type urlEncoder bool

// encodingOf reads encoding-type.
func (c *call) encodingOf() (urlEncoder, error) {
	switch v := c.query.Get("encoding-type"); v {
	case "":
		return false, nil
	case "url":
		return true, nil
	default:
		return false, invalidArgument("Invalid Encoding Method specified in Request", "encoding-type", v)
	}
}

// name is the value of EncodingType.
func (e urlEncoder) name() string {
	if e {
		return "url"
	}
	return ""
}

// encode writes a space as %20, which every client's decoder takes; slashes stay.
func (e urlEncoder) encode(s string) string {
	if !e {
		return s
	}
	const digits = "0123456789ABCDEF"
	var b strings.Builder
	for _, ch := range []byte(s) {
		if alphanumeric(ch) || 'A' <= ch && ch <= 'Z' || strings.IndexByte("-_.*/", ch) >= 0 {
			b.WriteByte(ch)
			continue
		}
		b.Write([]byte{'%', digits[ch>>4], digits[ch&15]})
	}
	return b.String()
}

func (e urlEncoder) prefixes(list []string) []prefixElement {
	out := make([]prefixElement, 0, len(list))
	for _, p := range list {
		out = append(out, prefixElement{e.encode(p)})
	}
	return out
}

func quoted(etag string) string { return `"` + etag + `"` }

func iso(t time.Time) string { return t.UTC().Format(isoTime) }

func classOf(class string) string {
	if class == "" {
		return "STANDARD"
	}
	return class
}

// encodeChecksum is a checksum as S3 writes it.
func encodeChecksum(sum objects.Checksum) string {
	s := base64.StdEncoding.EncodeToString(sum.Value)
	if sum.Composite {
		s += "-" + strconv.Itoa(sum.Parts)
	}
	return s
}

// checksumElements are a checksum's elements in documents that hold one.
type checksumElements struct {
	ChecksumCRC32     string `xml:",omitempty"`
	ChecksumCRC32C    string `xml:",omitempty"`
	ChecksumCRC64NVME string `xml:",omitempty"`
	ChecksumSHA1      string `xml:",omitempty"`
	ChecksumSHA256    string `xml:",omitempty"`
	ChecksumSHA512    string `xml:",omitempty"`
	ChecksumMD5       string `xml:",omitempty"`
	ChecksumXXHASH64  string `xml:",omitempty"`
	ChecksumXXHASH3   string `xml:",omitempty"`
	ChecksumXXHASH128 string `xml:",omitempty"`
	ChecksumType      string `xml:",omitempty"`
}

// field points to the element of an algorithm.
func (e *checksumElements) field(a objects.Algorithm) *string {
	switch a {
	case objects.CRC32:
		return &e.ChecksumCRC32
	case objects.CRC32C:
		return &e.ChecksumCRC32C
	case objects.CRC64NVME:
		return &e.ChecksumCRC64NVME
	case objects.SHA1:
		return &e.ChecksumSHA1
	case objects.SHA256:
		return &e.ChecksumSHA256
	case objects.SHA512:
		return &e.ChecksumSHA512
	case objects.MD5:
		return &e.ChecksumMD5
	case objects.XXHASH64:
		return &e.ChecksumXXHASH64
	case objects.XXHASH3:
		return &e.ChecksumXXHASH3
	case objects.XXHASH128:
		return &e.ChecksumXXHASH128
	}
	return new(string)
}

func checksumElementsOf(sum *objects.Checksum) (e checksumElements) {
	if sum != nil {
		e.set(*sum)
	}
	return e
}

func (e *checksumElements) set(sum objects.Checksum) {
	*e.field(sum.Algorithm) = encodeChecksum(sum)
	e.ChecksumType = checksumType(sum.Composite)
}

// number reads a limit or marker from the query.
func (c *call) number(name string, absent int64) (int64, error) {
	return parseNumber(name, c.query.Get(name), absent)
}

func lastModified(h http.Header, t time.Time) {
	if !t.IsZero() {
		h.Set("Last-Modified", t.UTC().Format(http.TimeFormat))
	}
}
