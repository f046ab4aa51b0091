package s3api

import (
	"encoding/xml"
	"net/http"
	"strconv"
	"strings"

	"chatelaine/gateway/objects"
)

// maxParts is how many parts S3 lets a Complete name, and the highest number of one.
const maxParts = objects.MaxPartNumber

func (c *call) uploadRef() objects.UploadRef {
	return objects.UploadRef{Bucket: c.bucket, Key: c.key, ID: c.query.Get("uploadId")}
}

type createUploadResult struct {
	XMLName  xml.Name `xml:"http://s3.amazonaws.com/doc/2006-03-01/ InitiateMultipartUploadResult"`
	Bucket   string
	Key      string
	UploadID string `xml:"UploadId"`
}

func (c *call) createUpload() error {
	attributes, err := c.attributes()
	if err != nil {
		return err
	}
	store, err := c.storeAttributes()
	if err != nil {
		return err
	}
	algorithm, composite, err := c.uploadChecksum()
	if err != nil {
		return err
	}
	ref, err := c.Service.CreateUpload(c.ctx, objects.CreateUploadRequest{
		Bucket: c.bucket, Key: c.key, Attributes: attributes, StoreAttributes: store, Algorithm: algorithm, Composite: composite,
	})
	if err != nil {
		return err
	}
	h := c.w.Header()
	c.setEncryption(c.bucket.KEK)
	if algorithm != "" {
		h.Set("X-Amz-Checksum-Algorithm", string(algorithm))
		h.Set("X-Amz-Checksum-Type", checksumType(composite))
	}
	return c.writeXML(http.StatusOK, createUploadResult{Bucket: c.bucketName, Key: c.key, UploadID: ref.ID})
}

// uploadChecksum reads the algorithm and type of an upload. The type follows from
// the algorithm where it is not given: CRC64NVME has no composite one, and of all
// others S3 makes that; what does not combine has no other.
func (c *call) uploadChecksum() (a objects.Algorithm, composite bool, err error) {
	kind, err := c.checksumTypeStated()
	if err != nil {
		return "", false, err
	}
	name := c.header.Get("X-Amz-Checksum-Algorithm")
	switch {
	case name == "" && kind == objects.AnyType:
		return "", false, nil
	case name == "":
		return "", false, invalidRequest("The " + checksumTypeHeader + " header can only be used with the x-amz-checksum-algorithm header.")
	}
	if a, err = uploadAlgorithm(name); err != nil {
		return "", false, err
	}
	switch {
	case kind == objects.AnyType:
		return a, a != objects.CRC64NVME, nil
	case kind == objects.CompositeType && a == objects.CRC64NVME, kind == objects.FullObjectType && !a.Combines():
		return "", false, typeMismatch(kind == objects.CompositeType, a)
	}
	return a, kind == objects.CompositeType, nil
}

// uploadAlgorithm reads x-amz-checksum-algorithm.
func uploadAlgorithm(name string) (objects.Algorithm, error) {
	a := algorithmOf(name)
	if a == "" {
		return "", invalidRequest("Checksum algorithm provided is unsupported. Please try again with any of the valid types: " +
			"[CRC32, CRC32C, CRC64NVME, MD5, SHA1, SHA256, SHA512, XXHASH128, XXHASH3, XXHASH64]")
	}
	return a, nil
}

func typeMismatch(composite bool, a objects.Algorithm) *fault {
	return invalidRequest("The " + checksumType(composite) + " checksum type cannot be used with the " + strings.ToLower(string(a)) + " checksum algorithm.")
}

// partNumber reads the number of a part that is to be stored.
func (c *call) partNumber() (int, error) {
	text := c.query.Get("partNumber")
	number, err := strconv.Atoi(text)
	if err != nil || number < 1 || number > maxParts {
		return 0, invalidPartNumber(text)
	}
	return number, nil
}

func (c *call) uploadPart() error {
	number, err := c.partNumber()
	if err != nil {
		return err
	}
	body, err := c.openUpload()
	if err != nil {
		return err
	}
	request := objects.PutPartRequest{UploadRef: c.uploadRef(), Number: number, Body: body, Size: body.size}
	if body.sum != nil {
		request.Algorithm, request.Value = body.stated.algorithm, body.value
	}
	result, err := c.Service.PutPart(c.ctx, request)
	if err != nil {
		return err
	}
	setPartChecksum(c.w.Header(), *result.Checksum) // clients send it back at Complete
	c.answerPut(result.ETag, "", result.KEK)
	return nil
}

// setPartChecksum: a part's checksum has no type.
func setPartChecksum(h http.Header, sum objects.Checksum) {
	h.Set(checksumHeader(sum.Algorithm), encodeChecksum(objects.Checksum{Value: sum.Value}))
}

func (c *call) abortUpload() error {
	began, err := statedTime(ifBeganHeader, c.header.Get(ifBeganHeader))
	if err != nil {
		return err
	}
	if began.IsZero() {
		err = c.Service.Abort(c.ctx, c.uploadRef())
	} else {
		err = c.Service.AbortIf(c.ctx, c.uploadRef(), began)
	}
	if err != nil {
		return err
	}
	c.w.WriteHeader(http.StatusNoContent)
	return nil
}

type partsResult struct {
	XMLName              xml.Name `xml:"http://s3.amazonaws.com/doc/2006-03-01/ ListPartsResult"`
	Bucket               string
	Key                  string
	UploadID             string `xml:"UploadId"`
	Initiator            *owner
	Owner                *owner
	StorageClass         string
	PartNumberMarker     int64
	NextPartNumberMarker int64
	MaxParts             int64
	IsTruncated          bool
	Parts                []partElement `xml:"Part"`
	ChecksumAlgorithm    string        `xml:",omitempty"`
	ChecksumType         string        `xml:",omitempty"`
	EncodingType         string        `xml:",omitempty"`
}

type partElement struct {
	PartNumber   int
	LastModified string
	ETag         string
	Size         int64
	checksumElements
}

func (c *call) listParts() error {
	limit, err := c.number("max-parts", maxPage)
	if err != nil {
		return err
	}
	after, err := c.number("part-number-marker", 0)
	if err != nil {
		return err
	}
	encode, err := c.encodingOf()
	if err != nil {
		return err
	}
	limit = min(limit, maxPage)
	page, err := c.Service.ListParts(c.ctx, objects.PartsRequest{UploadRef: c.uploadRef(), After: int(after), Limit: int(max(limit, 1))})
	if err != nil {
		return err
	}
	if limit == 0 {
		page.Parts, page.Next = nil, 0
	}
	return c.writeXML(http.StatusOK, c.partsResult(page, after, limit, encode))
}

func (c *call) partsResult(page *objects.PartsResult, after, limit int64, encode urlEncoder) partsResult {
	result := partsResult{
		Bucket: c.bucketName, Key: encode.encode(c.key), UploadID: c.query.Get("uploadId"),
		Initiator: c.bucketOwner(), Owner: c.bucketOwner(), StorageClass: classOf(""),
		PartNumberMarker: after, NextPartNumberMarker: int64(page.Next), MaxParts: limit, IsTruncated: page.Next != 0,
		EncodingType: encode.name(),
	}
	result.ChecksumAlgorithm, result.ChecksumType = askedFor(page.UploadChecksum)
	for _, p := range page.Parts {
		result.Parts = append(result.Parts, newPartElement(p))
	}
	if n := len(page.Parts); n > 0 {
		result.NextPartNumberMarker = int64(page.Parts[n-1].Number)
	}
	return result
}

// newPartElement: a part's checksum has no type.
func newPartElement(p objects.PartInfo) partElement {
	e := partElement{PartNumber: p.Number, LastModified: iso(p.Modified), ETag: quoted(p.ETag), Size: p.Size}
	if p.Checksum != nil {
		*e.field(p.Checksum.Algorithm) = encodeChecksum(objects.Checksum{Value: p.Checksum.Value})
	}
	return e
}

// askedFor names the algorithm and type of an upload; nothing where it was asked for
// none.
func askedFor(u objects.UploadChecksum) (algorithm, kind string) {
	if u.Algorithm == "" {
		return "", ""
	}
	return string(u.Algorithm), checksumType(u.Composite)
}

type uploadsResult struct {
	XMLName            xml.Name `xml:"http://s3.amazonaws.com/doc/2006-03-01/ ListMultipartUploadsResult"`
	Bucket             string
	KeyMarker          string
	UploadIDMarker     string `xml:"UploadIdMarker"`
	NextKeyMarker      string `xml:",omitempty"`
	NextUploadIDMarker string `xml:"NextUploadIdMarker,omitempty"`
	Delimiter          string `xml:",omitempty"`
	Prefix             string
	MaxUploads         int64
	IsTruncated        bool
	Uploads            []uploadElement `xml:"Upload"`
	CommonPrefixes     []prefixElement
	EncodingType       string `xml:",omitempty"`
}

type uploadElement struct {
	Key          string
	UploadID     string `xml:"UploadId"`
	Initiator    *owner
	Owner        *owner
	StorageClass string
	Initiated    string
	// What the upload was asked for.
	ChecksumAlgorithm string `xml:",omitempty"`
	ChecksumType      string `xml:",omitempty"`
}

func (c *call) listUploads() error {
	limit, err := c.number("max-uploads", maxPage)
	if err != nil {
		return err
	}
	encode, err := c.encodingOf()
	if err != nil {
		return err
	}
	result := c.newUploadsResult(min(limit, maxPage), encode)
	if limit == 0 {
		return c.writeXML(http.StatusOK, result)
	}
	page, err := c.Service.ListUploads(c.ctx, objects.UploadsRequest{
		Bucket: c.bucket, Prefix: c.query.Get("prefix"), Delimiter: c.query.Get("delimiter"),
		KeyMarker: c.query.Get("key-marker"), IDMarker: c.uploadIDMarker(), Limit: int(result.MaxUploads),
	})
	if err != nil {
		return err
	}
	asked := c.Service.UploadChecksums(c.ctx, c.bucket, page.Uploads)
	for i, u := range page.Uploads {
		element := uploadElement{
			Key: encode.encode(u.Key), UploadID: u.ID, Initiator: c.bucketOwner(), Owner: c.bucketOwner(),
			StorageClass: classOf(""), Initiated: iso(u.Started),
		}
		element.ChecksumAlgorithm, element.ChecksumType = askedFor(asked[i])
		result.Uploads = append(result.Uploads, element)
	}
	result.IsTruncated, result.CommonPrefixes = page.Truncated, encode.prefixes(page.Prefixes)
	result.NextKeyMarker, result.NextUploadIDMarker = encode.encode(page.NextKey), page.NextIDMarker
	return c.writeXML(http.StatusOK, result)
}

// uploadIDMarker counts only together with key-marker.
func (c *call) uploadIDMarker() string {
	if c.query.Get("key-marker") == "" {
		return ""
	}
	return c.query.Get("upload-id-marker")
}

func (c *call) newUploadsResult(limit int64, encode urlEncoder) uploadsResult {
	return uploadsResult{
		Bucket: c.bucketName, KeyMarker: encode.encode(c.query.Get("key-marker")), UploadIDMarker: c.uploadIDMarker(),
		Delimiter: encode.encode(c.query.Get("delimiter")), Prefix: encode.encode(c.query.Get("prefix")),
		MaxUploads: limit, EncodingType: encode.name(),
	}
}
