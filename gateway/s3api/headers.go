package s3api

import (
	"net/http"
	"slices"
	"sort"
	"strings"
	"unicode"
	"unicode/utf8"

	"chatelaine/gateway/objects"
	"chatelaine/gateway/sealed"
)

const (
	metaPrefix = "X-Amz-Meta-"
	// maxHeaders is S3's limit on all headers of a request together, in bytes.
	maxHeaders = 8 << 10
	// maxMetadata is S3's limit on names and values together, in bytes.
	maxMetadata = 2048
)

// checkHeaders refuses every header of S3's and of the gateway's own that the operation does not know, and
// every repeated one: what is not understood must not be taken as done.
func (c *call) checkHeaders() error {
	names := make([]string, 0, len(c.header))
	for name := range c.header {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		if strings.HasPrefix(name, metaPrefix) || !strings.HasPrefix(name, "X-Amz-") && !strings.HasPrefix(strings.ToLower(name), ownPrefix) {
			continue
		}
		low := strings.ToLower(name)
		if !commonHeader(low) && !slices.Contains(c.route.headers, low) && !c.checksumHeader(low) {
			return notImplemented(low)
		}
		if len(c.header[name]) > 1 && low != "x-amz-optional-object-attributes" && low != "x-amz-object-attributes" {
			return invalidRequest("The header '" + low + "' must not be repeated.")
		}
	}
	if c.header.Get("X-Amz-Mfa") != "" {
		return notImplemented("x-amz-mfa")
	}
	if err := checkReason(c.header.Get(reasonHeader)); err != nil {
		return err
	}
	return c.checkWriteHeaders()
}

// Headers of the gateway's own begin with ownPrefix. They must be signed, as x-amz-*
// must. The reason is for access policies and the log of decisions.
const (
	ownPrefix    = "x-chatelaine-"
	reasonName   = "x-chatelaine-reason"
	reasonHeader = "X-Chatelaine-Reason"
	maxReason    = 512 // bytes
)

func checkReason(reason string) error {
	if len(reason) > maxReason || strings.ContainsFunc(reason, func(r rune) bool { return !unicode.IsPrint(r) || r == utf8.RuneError }) {
		return invalidArgument("A reason must be at most 512 bytes of printable UTF-8.", reasonName, "")
	}
	return nil
}

const (
	redirectHeader = "x-amz-website-redirect-location"
	// maxRedirect is S3's limit on its value, in bytes.
	maxRedirect = 2048
)

// checkRedirect judges where a website would send its visitors. The gateway serves no
// websites: it keeps the address and gives it back.
func checkRedirect(h http.Header) error {
	s := h.Get(redirectHeader)
	switch {
	case len(h.Values(redirectHeader)) == 0:
		return nil
	case len(s) > maxRedirect:
		return metadataTooLarge(len(s))
	case strings.HasPrefix(s, "/"), strings.HasPrefix(s, "http://"), strings.HasPrefix(s, "https://"):
		return nil
	}
	return bad("InvalidRedirectLocation", "The website redirect location must have a prefix of 'http://' or 'https://' or '/'.")
}

// headerSize is how long the headers of a request are as they are sent, each with its
// line end. What net/http has taken out of them is put back.
func headerSize(r *http.Request) int {
	size := len("Host: \r\n") + len(r.Host)
	for name, values := range r.Header {
		for _, v := range values {
			size += len(name) + len(": \r\n") + len(v)
		}
	}
	return size
}

// commonHeader is true for headers that say nothing about the operation, or that
// are looked at for all of them.
func commonHeader(low string) bool {
	switch low {
	case reasonName, "x-amz-date", "x-amz-content-sha256", "x-amz-user-agent", "x-amz-expected-bucket-owner",
		"x-amz-request-payer", "x-amz-decoded-content-length", "x-amz-trailer", "x-amz-te":
		return true
	}
	return false
}

// checksumHeader: operations that take a body judge these themselves.
func (c *call) checksumHeader(low string) bool {
	return strings.HasPrefix(low, "x-amz-checksum-") && slices.Contains(c.route.headers, "x-amz-sdk-checksum-algorithm") &&
		low != "x-amz-checksum-algorithm" && low != "x-amz-checksum-type" && low != "x-amz-checksum-mode"
}

// checkWriteHeaders judges the values of what a write may ask for.
func (c *call) checkWriteHeaders() error {
	if err := checkRedirect(c.header); err != nil {
		return err
	}
	if err := checkStorageClass(c.header.Get("X-Amz-Storage-Class")); err != nil {
		return err
	}
	return c.checkEncryption()
}

func checkStorageClass(class string) error {
	switch class {
	case "", "STANDARD":
		return nil
	case "REDUCED_REDUNDANCY", "STANDARD_IA", "ONEZONE_IA", "INTELLIGENT_TIERING", "GLACIER", "DEEP_ARCHIVE",
		"OUTPOSTS", "GLACIER_IR", "SNOW", "EXPRESS_ONEZONE", "FSX_OPENZFS", "FSX_ONTAP":
		return notImplemented("x-amz-storage-class")
	}
	return invalidStorageClass(class)
}

// checkEncryption accepts both kinds that S3 has: everything is sealed anyway. A
// certain key is accepted where it is the bucket's.
func (c *call) checkEncryption() error {
	switch kind := c.header.Get("X-Amz-Server-Side-Encryption"); kind {
	case "", "AES256", "aws:kms":
		return nil
	case "aws:kms:dsse":
		return notImplemented("x-amz-server-side-encryption")
	default:
		return invalidArgument("The encryption method specified is not supported", "x-amz-server-side-encryption", kind)
	}
}

// checkKEK runs once the bucket is known.
func (c *call) checkKEK() error {
	id := c.header.Get("X-Amz-Server-Side-Encryption-Aws-Kms-Key-Id")
	if id != "" && id != c.bucket.KEK {
		return notImplemented("x-amz-server-side-encryption-aws-kms-key-id")
	}
	return nil
}

// attributes reads what a client says of an object beside its bytes.
func (c *call) attributes() (objects.Attributes, error) {
	if err := c.checkKEK(); err != nil {
		return objects.Attributes{}, err
	}
	if err := c.checkObjectACL(); err != nil {
		return objects.Attributes{}, err
	}
	meta, err := metadata(c.header)
	if err != nil {
		return objects.Attributes{}, err
	}
	a := objects.Attributes{
		ContentType:        c.header.Get("Content-Type"),
		ContentEncoding:    contentEncoding(c.header.Values("Content-Encoding")),
		ContentDisposition: c.header.Get("Content-Disposition"),
		ContentLanguage:    c.header.Get("Content-Language"),
		CacheControl:       c.header.Get("Cache-Control"),
		Expires:            c.header.Get("Expires"),
		Redirect:           c.header.Get(redirectHeader),
		Metadata:           meta,
	}
	if a.ContentType == "" {
		a.ContentType = "binary/octet-stream"
	}
	return a, nil
}

// metadata reads user metadata. Values are taken byte by byte as they came.
func metadata(h http.Header) (map[string]string, error) {
	meta := make(map[string]string)
	size := 0
	for name, values := range h {
		rest, ok := strings.CutPrefix(name, metaPrefix)
		if !ok {
			continue
		}
		low := strings.ToLower(rest)
		if low == sealed.MetadataName {
			return nil, invalidArgument("The metadata name is reserved for the gateway", strings.ToLower(name), "")
		}
		meta[low] = strings.Join(values, ",")
		size += len(low) + len(meta[low])
	}
	if size > maxMetadata {
		return nil, metadataTooLarge(size)
	}
	return meta, nil
}

// contentEncoding drops aws-chunked, which is of the request and not of the object.
func contentEncoding(values []string) string {
	var kept []string
	for _, v := range values {
		for _, coding := range strings.Split(v, ",") {
			if coding = strings.TrimSpace(coding); coding != "" && !strings.EqualFold(coding, "aws-chunked") {
				kept = append(kept, coding)
			}
		}
	}
	return strings.Join(kept, ",")
}
