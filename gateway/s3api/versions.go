package s3api

import (
	"encoding/xml"
	"errors"
	"net/http"
	"strings"

	"chatelaine/backends"
	"chatelaine/gateway/objects"
)

// minVersion is the length of the shortest version that any backend makes, but for
// numbers and the null version.
const minVersion = 24

// validVersion says whether a text can be a version at all: what S3 and the
// backends make up of letters, digits and a few marks.
func validVersion(v string) bool {
	if v != backends.NullVersion && len(v) < minVersion && strings.Trim(v, "0123456789") != "" {
		return false
	}
	for _, ch := range []byte(v) {
		if !alphanumeric(ch|0x20) && ch != '-' && ch != '_' && ch != '.' {
			return false
		}
	}
	return v != "" && len(v) <= 1024
}

type versioningDocument struct {
	XMLName   xml.Name `xml:"http://s3.amazonaws.com/doc/2006-03-01/ VersioningConfiguration"`
	Status    string   `xml:",omitempty"`
	MfaDelete string   `xml:",omitempty"`
}

// getVersioning: a backend without versions has buckets that never had any.
func (c *call) getVersioning() error {
	state, err := c.Service.Versioning(c.ctx, c.bucket)
	if err != nil && !errors.Is(err, objects.ErrUnsupported) {
		return err
	}
	return c.writeXML(http.StatusOK, versioningDocument{Status: string(state)})
}

func (c *call) putVersioning() error {
	var document struct{ Status, MfaDelete string }
	if err := c.readConfig("VersioningConfiguration", &document); err != nil {
		return err
	}
	if document.MfaDelete != "" && document.MfaDelete != "Disabled" {
		return notImplemented("").with(field{"Element", "MfaDelete"})
	}
	state := backends.Versioning(document.Status)
	if state != backends.VersioningEnabled && state != backends.VersioningSuspended {
		return malformedXML()
	}
	return c.done(c.Service.SetVersioning(c.ctx, c.bucket, state))
}

// readConfig reads the document that a write of a configuration has as its body.
func (c *call) readConfig(root string, into any) error {
	text, err := c.readBody()
	if err != nil {
		return err
	}
	if len(text) == 0 {
		return bad("MissingRequestBodyError", "Request Body is empty")
	}
	return decodeXML(text, root, into)
}

// readBody reads a small body, to the end of which its checksums are compared.
func (c *call) readBody() ([]byte, error) {
	v, err := c.openVerified()
	if err != nil {
		return nil, err
	}
	return readAll(v)
}

// done answers a write that has nothing to say.
func (c *call) done(err error) error {
	if err == nil {
		c.w.Header().Set("Content-Length", "0")
		c.w.WriteHeader(http.StatusOK)
	}
	return err
}

// gone answers a removal.
func (c *call) gone(err error) error {
	if err == nil {
		c.w.WriteHeader(http.StatusNoContent)
	}
	return err
}

// versionsResult has its namespace as an attribute: encoding/xml would take elements
// whose names are not known before to be in none, and say so.
type versionsResult struct {
	XMLName             xml.Name `xml:"ListVersionsResult"`
	Namespace           string   `xml:"xmlns,attr"`
	Name                string
	Prefix              string
	KeyMarker           string
	VersionIDMarker     string `xml:"VersionIdMarker"`
	NextKeyMarker       string `xml:",omitempty"`
	NextVersionIDMarker string `xml:"NextVersionIdMarker,omitempty"`
	MaxKeys             int64
	Delimiter           string `xml:",omitempty"`
	IsTruncated         bool
	Versions            []versionElement
	CommonPrefixes      []prefixElement
	EncodingType        string `xml:",omitempty"`
}

// versionElement is a Version or a DeleteMarker, which come in one order.
type versionElement struct {
	XMLName      xml.Name
	Key          string
	VersionID    string `xml:"VersionId"`
	IsLatest     bool
	LastModified string
	ETag         string `xml:",omitempty"`
	Size         *int64
	Owner        *owner
	StorageClass string `xml:",omitempty"`
	listedChecksum
}

func (c *call) listVersions() error {
	if text := c.query.Get("max-keys"); strings.HasPrefix(text, "-") { // S3 words it as nowhere else
		return invalidArgument("max-keys cannot be negative", "maxKeys", text)
	}
	limit, err := c.number("max-keys", maxPage)
	if err != nil {
		return err
	}
	encode, err := c.encodingOf()
	if err != nil {
		return err
	}
	key, version := c.query.Get("key-marker"), c.query.Get("version-id-marker")
	if c.query.Has("version-id-marker") && key == "" {
		return invalidArgument("A version-id marker cannot be specified without a key marker.", "version-id-marker", version)
	}
	if c.query.Has("version-id-marker") && !validVersion(version) {
		return invalidArgument("Invalid version id specified", "version-id-marker", version)
	}
	limit = min(limit, maxPage)
	page := &objects.VersionsResult{}
	if limit > 0 {
		if page, err = c.Service.ListVersions(c.ctx, objects.VersionsRequest{
			Bucket: c.bucket, Prefix: c.query.Get("prefix"), Delimiter: c.query.Get("delimiter"),
			KeyMarker: key, VersionMarker: version, Limit: int(limit),
		}); err != nil {
			return err
		}
	}
	return c.writeXML(http.StatusOK, c.versionsResult(page, limit, encode))
}

func (c *call) versionsResult(page *objects.VersionsResult, limit int64, encode urlEncoder) versionsResult {
	result := versionsResult{
		Namespace: namespace, Name: c.bucketName, Prefix: encode.encode(c.query.Get("prefix")), KeyMarker: encode.encode(c.query.Get("key-marker")),
		VersionIDMarker: c.query.Get("version-id-marker"), MaxKeys: limit, Delimiter: encode.encode(c.query.Get("delimiter")),
		IsTruncated: page.Truncated, CommonPrefixes: encode.prefixes(page.Prefixes), EncodingType: encode.name(),
	}
	if page.Truncated {
		result.NextKeyMarker, result.NextVersionIDMarker = encode.encode(page.NextKey), page.NextVersionMarker
	}
	for _, v := range page.Versions {
		result.Versions = append(result.Versions, c.versionElement(v, encode))
	}
	return result
}

func (c *call) versionElement(v objects.VersionEntry, encode urlEncoder) versionElement {
	e := versionElement{
		XMLName: xml.Name{Local: "Version"}, Key: encode.encode(v.Key), VersionID: v.Version, IsLatest: v.Latest,
		LastModified: iso(v.Modified), Owner: c.bucketOwner(),
	}
	if v.Version == "" {
		e.VersionID = backends.NullVersion
	}
	if v.Marker {
		e.XMLName.Local = "DeleteMarker"
		return e
	}
	size := max(v.Size, 0)
	e.ETag, e.Size, e.StorageClass = quoted(v.ETag), &size, classOf(v.Class)
	e.listedChecksum = checksumOf(v.Entry)
	return e
}
