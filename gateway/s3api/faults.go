package s3api

import (
	"encoding/hex"
	"encoding/xml"
	"net/http"
	"strconv"

	"chatelaine/gateway/objects"
)

// maxUpload is the largest body of PutObject and UploadPart, in bytes.
const maxUpload = 5 << 30

// fault is an S3 error as the client sees it.
type fault struct {
	status  int
	code    string
	message string
	fields  []field // further elements, in order
	// header is set on the answer too.
	header map[string]string
	// alarm says that a person must look at the cause.
	alarm bool
	// retry says that the request may be sent again after a while.
	retry bool
}

func (f *fault) Error() string { return "s3api: answering " + f.code }

// with returns the fault with further elements.
func (f *fault) with(fields ...field) *fault {
	f.fields = append(f.fields, fields...)
	return f
}

// field is an element of an error document beside those that all have.
type field struct{ name, value string }

// MarshalXML writes the element under the field's own name.
func (f field) MarshalXML(e *xml.Encoder, _ xml.StartElement) error {
	return e.EncodeElement(f.value, xml.StartElement{Name: xml.Name{Local: f.name}})
}

func bad(code, message string, fields ...field) *fault {
	return &fault{status: http.StatusBadRequest, code: code, message: message, fields: fields}
}

func refused(status int, code, message string, fields ...field) *fault {
	return &fault{status: status, code: code, message: message, fields: fields}
}

// What handlers find wrong with a request themselves. Codes, statuses and texts
// are S3's (S3 API Reference, "Error responses").

func invalidRequest(message string) *fault { return bad("InvalidRequest", message) }

func invalidArgument(message, name, value string) *fault {
	f := bad("InvalidArgument", message, field{"ArgumentName", name})
	if value != "" {
		f.fields = append(f.fields, field{"ArgumentValue", value})
	}
	return f
}

func invalidVersion(version string) *fault {
	if version == "" {
		return invalidArgument("Version id cannot be the empty string", "versionId", "")
	}
	return invalidArgument("Invalid version id specified", "versionId", version)
}

func invalidURI() *fault {
	return bad("InvalidURI", "The specified URI couldn't be parsed.")
}

func headersTooLarge() *fault {
	return bad("RequestHeaderSectionTooLarge", "Your request header section exceeds the maximum allowed size.",
		field{"MaxSizeAllowed", strconv.Itoa(maxHeaders)})
}

func invalidBucketName(name string) *fault {
	return bad("InvalidBucketName", "The specified bucket is not valid.", field{"BucketName", name})
}

func keyTooLong(size int) *fault {
	return bad("KeyTooLongError", "Your key is too long.",
		field{"Size", strconv.Itoa(size)}, field{"MaxSizeAllowed", strconv.Itoa(objects.MaxKey)})
}

func accessDenied() *fault {
	return refused(http.StatusForbidden, "AccessDenied", "Access Denied.")
}

func methodNotAllowed(method, resource string) *fault {
	return refused(http.StatusMethodNotAllowed, "MethodNotAllowed", "The specified method is not allowed against this resource.",
		field{"Method", method}, field{"ResourceType", resource})
}

func notImplemented(header string, fields ...field) *fault {
	f := refused(http.StatusNotImplemented, "NotImplemented", "A header you provided implies functionality that is not implemented.")
	if header != "" {
		f.fields = append(f.fields, field{"Header", header})
	}
	return f.with(fields...)
}

func aclNotSupported() *fault {
	return bad("AccessControlListNotSupported", "The bucket does not allow ACLs.")
}

func invalidStorageClass(class string) *fault {
	return bad("InvalidStorageClass", "The storage class you specified is not valid", field{"StorageClassRequested", class})
}

func metadataTooLarge(size int) *fault {
	return bad("MetadataTooLarge", "Your metadata headers exceed the maximum allowed metadata size",
		field{"Size", strconv.Itoa(size)}, field{"MaxSizeAllowed", strconv.Itoa(maxMetadata)})
}

func missingContentLength() *fault {
	return refused(http.StatusLengthRequired, "MissingContentLength", "You must provide the Content-Length HTTP header.")
}

func entityTooLarge(size int64) *fault {
	return bad("EntityTooLarge", "Your proposed upload exceeds the maximum allowed object size.",
		field{"ProposedSize", strconv.FormatInt(size, 10)}, field{"MaxSizeAllowed", strconv.Itoa(maxUpload)})
}

func malformedXML() *fault {
	return bad("MalformedXML", "The XML you provided was not well-formed or did not validate against our published schema.")
}

func messageTooLong() *fault {
	return bad("MaxMessageLengthExceeded", "Your request was too big.", field{"MaxMessageLengthBytes", strconv.Itoa(maxXML)})
}

func multipleChecksums() *fault {
	return invalidRequest("Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed.")
}

// invalidChecksum is about a header's value, whatever it is that is wrong with it.
func invalidChecksum(header string) *fault {
	return invalidRequest("Value for " + header + " header is invalid.")
}

func invalidDigest(value string) *fault {
	return bad("InvalidDigest", "The Content-Md5 you specified is not valid.", field{"Content-MD5", value})
}

func invalidPartNumber(text string) *fault {
	return invalidArgument("Part number must be an integer between 1 and 10000, inclusive.", "partNumber", text)
}

func invalidRange(requested string, size int64) *fault {
	f := refused(http.StatusRequestedRangeNotSatisfiable, "InvalidRange", "The requested range is not satisfiable",
		field{"RangeRequested", requested}, field{"ActualObjectSize", strconv.FormatInt(size, 10)})
	f.header = map[string]string{"Content-Range": "bytes */" + strconv.FormatInt(size, 10)}
	return f
}

func unsatisfiablePart(number int) *fault {
	return refused(http.StatusRequestedRangeNotSatisfiable, "InvalidPartNumber", "The requested partnumber is not satisfiable.",
		field{"PartNumberRequested", strconv.Itoa(number)})
}

// What comes out of a body when its checksum differs.

func badDigest(a objects.Algorithm) *fault {
	return bad("BadDigest", "The "+string(a)+" you specified did not match the calculated checksum.")
}

func badMD5(expected, calculated []byte) *fault {
	return bad("BadDigest", "The Content-MD5 you specified did not match what we received.",
		field{"ExpectedDigest", hex.EncodeToString(expected)}, // S3 writes the two in two ways
		field{"CalculatedDigest", encodeChecksum(objects.Checksum{Value: calculated})})
}
