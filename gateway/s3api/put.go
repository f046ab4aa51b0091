package s3api

import (
	"net/http"

	"chatelaine/gateway/objects"
)

// putObject stores the body. A client that states no checksum gets CRC64NVME, as
// on S3.
func (c *call) putObject() error {
	if c.header.Get("X-Amz-Copy-Source") != "" {
		return notImplemented("x-amz-copy-source")
	}
	attributes, err := c.attributes()
	if err != nil {
		return err
	}
	ifMatch, ifNoneMatch, err := writeConditions(c.header)
	if err != nil {
		return err
	}
	body, err := c.openUpload()
	if err != nil {
		return err
	}
	body.hash(objects.CRC64NVME)
	request := objects.PutRequest{
		Bucket: c.bucket, Key: c.key, Body: body, Size: body.size, Attributes: attributes,
		MD5: body.stated.md5, IfMatch: ifMatch, IfNoneMatch: ifNoneMatch,
	}
	if value := body.stated.value; value != nil {
		request.Checksums = []objects.Checksum{{Algorithm: body.stated.algorithm, Value: value}}
	} else {
		request.Late, request.LateValue = body.stated.algorithm, body.value
	}
	result, err := c.Service.Put(c.ctx, request)
	if err != nil {
		return err
	}
	setChecksum(c.w.Header(), objects.Checksum{Algorithm: body.stated.algorithm, Value: body.value()})
	c.answerPut(result.ETag, result.Version, result.KEK)
	return nil
}

// answerPut writes the answer to PutObject and UploadPart.
func (c *call) answerPut(etag, version, kek string) {
	h := c.w.Header()
	h.Set("Etag", quoted(etag))
	if version != "" {
		h.Set("X-Amz-Version-Id", version)
	}
	setEncryption(h, kek)
	h.Set("Content-Length", "0")
	c.w.WriteHeader(http.StatusOK)
}

// setEncryption says that the object is sealed, and under which KEK: an SDK then
// does not take the ETag for an MD5.
func setEncryption(h http.Header, kek string) {
	h.Set("X-Amz-Server-Side-Encryption", "aws:kms")
	if kek != "" {
		h.Set("X-Amz-Server-Side-Encryption-Aws-Kms-Key-Id", kek)
	}
}
