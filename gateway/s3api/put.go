package s3api

import (
	"net/http"

	"chatelaine/backends"
	"chatelaine/gateway/objects"
)

// putObject stores the body.
func (c *call) putObject() error {
	body, err := c.openUpload()
	if err != nil {
		return err
	}
	result, err := c.store(body)
	if err != nil {
		return err
	}
	if result.Checksum != nil {
		setChecksum(c.w.Header(), *result.Checksum)
	}
	c.answerPut(result.ETag, result.Version, result.KEK)
	return nil
}

// store stores a body as an object. A client that states no checksum gets
// CRC64NVME, as on S3.
func (c *call) store(body *upload) (objects.PutResult, error) {
	request := objects.PutRequest{Bucket: c.bucket, Key: c.key, Body: body, Size: body.size, MD5: body.stated.md5}
	var err error
	if request.Attributes, err = c.attributes(); err != nil {
		return objects.PutResult{}, err
	}
	if request.StoreAttributes, err = c.storeAttributes(); err != nil {
		return objects.PutResult{}, err
	}
	if request.Lock != (backends.Lock{}) && body.stated.algorithm == "" && body.stated.md5 == nil {
		return objects.PutResult{}, invalidRequest("Content-MD5 OR x-amz-checksum- HTTP header is required for Put Object requests with Object Lock parameters")
	}
	if request.IfMatch, request.IfNoneMatch, err = writeConditions(c.header); err != nil {
		return objects.PutResult{}, err
	}
	switch {
	case body.stated.value != nil:
		request.Checksums = []objects.Checksum{{Algorithm: body.stated.algorithm, Value: body.stated.value}}
	case body.stated.algorithm != "":
		request.Late, request.LateValue = body.stated.algorithm, body.value
	default:
		request.Late = objects.CRC64NVME
	}
	return c.Service.Put(c.ctx, request)
}

// answerPut writes the answer to PutObject and UploadPart.
func (c *call) answerPut(etag, version, kek string) {
	h := c.w.Header()
	h.Set("Etag", quoted(etag))
	setMade(h, version)
	c.setEncryption(kek)
	h.Set("Content-Length", "0")
	c.w.WriteHeader(http.StatusOK)
}

// setMade names the version that a write has made. S3 is silent about null ones.
func setMade(h http.Header, version string) {
	if version != backends.NullVersion {
		setIf(h, "X-Amz-Version-Id", version)
	}
}

// setEncryption says that the object is sealed, and under which KEK: an SDK then
// does not take the ETag for an MD5. Where it is one, the answer is that of S3 for
// keys of its own, so that clients hold their files against it.
func (c *call) setEncryption(kek string) {
	h := c.w.Header()
	if c.bucket.MD5 {
		h.Set("X-Amz-Server-Side-Encryption", "AES256")
		return
	}
	h.Set("X-Amz-Server-Side-Encryption", "aws:kms")
	if kek != "" {
		h.Set("X-Amz-Server-Side-Encryption-Aws-Kms-Key-Id", kek)
	}
}
