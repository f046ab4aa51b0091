package s3api

import (
	"encoding/xml"
	"net/http"

	"chatelaine/gateway/objects"
)

// maxPage is the longest page of a listing; more is clipped to it.
const maxPage = 1000

type listResult struct {
	XMLName        xml.Name `xml:"http://s3.amazonaws.com/doc/2006-03-01/ ListBucketResult"`
	Name           string
	Prefix         string
	Marker         string
	NextMarker     string `xml:",omitempty"`
	MaxKeys        int64
	Delimiter      string `xml:",omitempty"`
	IsTruncated    bool
	Contents       []content
	CommonPrefixes []prefixElement
	EncodingType   string `xml:",omitempty"`
}

type listResultV2 struct {
	XMLName               xml.Name `xml:"http://s3.amazonaws.com/doc/2006-03-01/ ListBucketResult"`
	Name                  string
	Prefix                string
	KeyCount              int
	MaxKeys               int64
	Delimiter             string `xml:",omitempty"`
	IsTruncated           bool
	Contents              []content
	CommonPrefixes        []prefixElement
	EncodingType          string `xml:",omitempty"`
	ContinuationToken     string `xml:",omitempty"`
	NextContinuationToken string `xml:",omitempty"`
	StartAfter            string `xml:",omitempty"`
}

type content struct {
	Key          string
	LastModified string
	ETag         string
	Size         int64
	Owner        *owner
	StorageClass string
	listedChecksum
}

// listedChecksum is what a listing says of an object's checksum, where it is known.
type listedChecksum struct {
	ChecksumAlgorithm string `xml:",omitempty"`
	ChecksumType      string `xml:",omitempty"`
}

func checksumOf(e objects.Entry) listedChecksum {
	if e.Algorithm == "" {
		return listedChecksum{}
	}
	return listedChecksum{string(e.Algorithm), checksumType(e.Composite)}
}

// listing is what both versions have in common.
type listing struct {
	limit  int64
	encode urlEncoder
	page   *objects.ListResult
}

// listPage reads one page. A limit of 0 is answered without asking anybody.
func (c *call) listPage(request objects.ListRequest) (listing, error) {
	limit, err := c.number("max-keys", maxPage)
	if err != nil {
		return listing{}, err
	}
	encode, err := c.encodingOf()
	if err != nil {
		return listing{}, err
	}
	l := listing{limit: min(limit, maxPage), encode: encode, page: &objects.ListResult{}}
	if l.limit == 0 {
		return l, nil
	}
	request.Bucket, request.Limit = c.bucket, int(l.limit)
	request.Prefix, request.Delimiter = c.query.Get("prefix"), c.query.Get("delimiter")
	l.page, err = c.Service.List(c.ctx, request)
	return l, err
}

// contents are the rows; an object that is not the gateway's has no size to show.
func (c *call) contents(l listing, withOwner bool) []content {
	rows := make([]content, 0, len(l.page.Entries))
	for _, e := range l.page.Entries {
		row := content{
			Key: l.encode.encode(e.Key), LastModified: iso(e.Modified), ETag: quoted(e.ETag),
			Size: max(e.Size, 0), StorageClass: classOf(e.Class), listedChecksum: checksumOf(e),
		}
		if withOwner {
			row.Owner = c.bucketOwner()
		}
		rows = append(rows, row)
	}
	return rows
}

func (c *call) bucketOwner() *owner { return &owner{ID: c.bucket.Owner, DisplayName: c.bucket.Owner} }

func (c *call) listObjects() error {
	marker, delimiter := c.query.Get("marker"), c.query.Get("delimiter")
	l, err := c.listPage(objects.ListRequest{After: marker})
	if err != nil {
		return err
	}
	result := listResult{
		Name: c.bucketName, Prefix: l.encode.encode(c.query.Get("prefix")), Marker: l.encode.encode(marker),
		MaxKeys: l.limit, Delimiter: l.encode.encode(delimiter), IsTruncated: l.page.Truncated,
		Contents: c.contents(l, true), CommonPrefixes: l.encode.prefixes(l.page.Prefixes), EncodingType: l.encode.name(),
	}
	if l.page.Truncated {
		result.NextMarker = l.encode.encode(l.page.Last)
	}
	return c.writeXML(http.StatusOK, result)
}

func (c *call) listObjectsV2() error {
	if v := c.query.Get("list-type"); v != "2" {
		return invalidArgument("Invalid List Type specified in Request", "list-type", v)
	}
	token, after := c.query.Get("continuation-token"), c.query.Get("start-after")
	if c.query.Has("continuation-token") && token == "" {
		return invalidArgument("The continuation token provided is incorrect", "continuation-token", "")
	}
	inner, err := decodeToken(token)
	if err != nil {
		return err
	}
	l, err := c.listPage(objects.ListRequest{After: after, Token: inner})
	if err != nil {
		return err
	}
	result := listResultV2{
		Name: c.bucketName, Prefix: l.encode.encode(c.query.Get("prefix")), MaxKeys: l.limit,
		KeyCount: len(l.page.Entries) + len(l.page.Prefixes), Delimiter: l.encode.encode(c.query.Get("delimiter")),
		IsTruncated: l.page.Truncated, Contents: c.contents(l, c.query.Get("fetch-owner") == "true"),
		CommonPrefixes: l.encode.prefixes(l.page.Prefixes), EncodingType: l.encode.name(),
		ContinuationToken: token, StartAfter: l.encode.encode(after),
	}
	if l.page.Truncated {
		result.NextContinuationToken = encodeToken(l.page.Token)
	}
	return c.writeXML(http.StatusOK, result)
}
