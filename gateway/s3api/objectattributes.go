package s3api

import (
	"encoding/xml"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"chatelaine/gateway/objects"
)

type attributesResult struct {
	XMLName      xml.Name `xml:"http://s3.amazonaws.com/doc/2006-03-01/ GetObjectAttributesResponse"`
	ETag         string   `xml:",omitempty"`
	Checksum     *checksumElements
	ObjectParts  *attributeParts
	StorageClass string `xml:",omitempty"`
	ObjectSize   *int64
}

type attributeParts struct {
	TotalPartsCount      int `xml:"PartsCount"`
	PartNumberMarker     int64
	NextPartNumberMarker int64
	MaxParts             int64
	IsTruncated          bool
	Parts                []attributePart `xml:"Part"`
}

type attributePart struct {
	PartNumber int
	Size       int64
}

// getAttributes answers GetObjectAttributes. S3 lists parts where they have a
// checksum each; the gateway knows their sizes of every object.
func (c *call) getAttributes() error {
	wanted, err := wantedAttributes(c.header.Values("X-Amz-Object-Attributes"))
	if err != nil {
		return err
	}
	limit, after, err := c.partsWindow()
	if err != nil {
		return err
	}
	action := "s3:GetObjectAttributes"
	if c.query.Has("versionId") {
		action = "s3:GetObjectVersionAttributes"
	}
	if err := c.authorize(action, c.key); err != nil {
		return err
	}
	stat, parts, err := c.Service.PartsOf(c.ctx, objects.GetRequest{
		Bucket: c.bucket, Key: c.key, Version: c.query.Get("versionId"), Conditions: readConditions(c.header),
	})
	if err != nil {
		return err
	}
	h := c.w.Header()
	lastModified(h, stat.Modified)
	setIf(h, "X-Amz-Version-Id", stat.Version)
	return c.writeXML(http.StatusOK, attributesOf(wanted, stat, partsPage(parts, after, limit)))
}

// wantedAttributes reads x-amz-object-attributes, a list in one header or several.
func wantedAttributes(values []string) ([]string, error) {
	var wanted []string
	for _, name := range strings.Split(strings.Join(values, ","), ",") {
		if name = strings.TrimSpace(name); name == "" {
			continue
		}
		if !slices.Contains([]string{"ETag", "Checksum", "ObjectParts", "StorageClass", "ObjectSize"}, name) {
			return nil, invalidArgument("Invalid attribute name specified.", "x-amz-object-attributes", name)
		}
		wanted = append(wanted, name)
	}
	if len(wanted) == 0 {
		return nil, invalidRequest("The x-amz-object-attributes header specifying the attributes to be retrieved is either missing or empty")
	}
	return wanted, nil
}

func (c *call) partsWindow() (limit, after int64, err error) {
	if limit, err = parseNumber("x-amz-max-parts", c.header.Get("X-Amz-Max-Parts"), maxPage); err != nil {
		return 0, 0, err
	}
	after, err = parseNumber("x-amz-part-number-marker", c.header.Get("X-Amz-Part-Number-Marker"), 0)
	return min(limit, maxPage), after, err
}

func attributesOf(wanted []string, stat objects.Stat, parts *attributeParts) attributesResult {
	var result attributesResult
	for _, name := range wanted {
		switch name {
		case "ETag":
			result.ETag = stat.ETag
		case "Checksum":
			result.Checksum = attributeChecksum(stat.Checksums)
		case "ObjectParts":
			result.ObjectParts = parts
		case "StorageClass":
			result.StorageClass = classOf(stat.Class)
		case "ObjectSize":
			result.ObjectSize = &stat.Size
		}
	}
	return result
}

// attributeChecksum writes a composite checksum without the number of its parts, as
// S3 does here.
func attributeChecksum(sums []objects.Checksum) *checksumElements {
	if len(sums) == 0 {
		return nil
	}
	e := &checksumElements{}
	for _, sum := range sums {
		e.set(sum)
		*e.field(sum.Algorithm), _, _ = strings.Cut(encodeChecksum(sum), "-")
	}
	return e
}

// partsPage is nil for an object that has no parts.
func partsPage(all []objects.PartInfo, after, limit int64) *attributeParts {
	if len(all) == 0 {
		return nil
	}
	page := &attributeParts{TotalPartsCount: len(all), PartNumberMarker: after, NextPartNumberMarker: after, MaxParts: limit}
	for _, p := range all {
		if int64(p.Number) <= after {
			continue
		}
		if int64(len(page.Parts)) == limit {
			page.IsTruncated = limit > 0
			break
		}
		page.Parts = append(page.Parts, attributePart{p.Number, p.Size})
		page.NextPartNumberMarker = int64(p.Number)
	}
	return page
}

// parseNumber reads a limit or marker of the given name. S3 answers with the two
// texts.
func parseNumber(name, text string, absent int64) (int64, error) {
	if text == "" {
		return absent, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	switch {
	case err != nil || n > 1<<31-1:
		return 0, invalidArgument("Provided "+text+" not an integer or within integer range", name, text)
	case n < 0:
		return 0, invalidArgument("Argument "+text+" must be an integer between 0 and 2147483647", name, text)
	}
	return n, nil
}
