package s3api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"

	"chatelaine/backends"
	"chatelaine/gateway/access"
	"chatelaine/gateway/keys"
	"chatelaine/gateway/objects"
	"chatelaine/gateway/sealed"
)

// cause is a row of the error table: what an error of the layers below means to a
// client. The message may quote what the client itself sent, and nothing else.
type cause struct {
	err   error
	fault func(c *call, err error) *fault
}

// causes is the one error table. The first row whose error is in the chain counts:
// what is wrong with the request comes before what a backend made of it, and the
// closer error before the wider.
func causes() []cause {
	return slices.Concat(bodyCauses(), claimCauses(), credentialCauses(), presignedCauses(), signatureCauses(), formCauses(),
		gateCauses(), objectCauses(), storedCauses(), backendCauses(), endCauses())
}

// fixed is a row that says the same each time.
func fixed(err error, status int, code, message string) cause {
	return cause{err, func(*call, error) *fault { return refused(status, code, message) }}
}

// later is a row for what may work when it is tried again.
func later(err error, code, message string) cause {
	return cause{err, func(*call, error) *fault {
		return &fault{status: http.StatusServiceUnavailable, code: code, message: message, retry: true}
	}}
}

// alarming is a row that a person must look at.
func alarming(err error, message string) cause {
	return cause{err, func(*call, error) *fault {
		return &fault{status: http.StatusInternalServerError, code: "InternalError", message: message, alarm: true}
	}}
}

// full is a row for what works again when a person has made room.
func full(err error, message string) cause {
	return cause{err, func(*call, error) *fault {
		return &fault{status: http.StatusInsufficientStorage, code: "InsufficientStorage", message: message, alarm: true}
	}}
}

const unavailable = "Service is unable to handle request."

// gateCauses: access and the KMS.
func gateCauses() []cause {
	return []cause{
		fixed(access.ErrDenied, http.StatusForbidden, "AccessDenied", "Access Denied."),
		later(access.ErrUnrecorded, "ServiceUnavailable", unavailable),
		later(access.ErrUndecided, "ServiceUnavailable", unavailable),
		fixed(keys.ErrBlocked, http.StatusForbidden, "AccessDenied", "The key of this bucket is blocked, or was destroyed (the bucket was shredded)."),
		later(keys.ErrUnavailable, "ServiceUnavailable", unavailable),
		{keys.ErrBucketNotFound, noSuchBucket},
		{keys.ErrBucketOwned, bucketMine},
		{keys.ErrBucketExists, bucketTaken},
		later(keys.ErrLedgerBusy, "SlowDown", "Please reduce your request rate."),
		later(keys.ErrLedgerChanged, "SlowDown", "Please reduce your request rate."),
		full(keys.ErrLedgerFull, "No space left for what the rollback guard of this bucket keeps of each write."),
		fixed(keys.ErrBucketBusy, http.StatusConflict, "OperationAborted",
			"A conflicting conditional operation is currently in progress against this resource. Please try again."),
		alarming(keys.ErrKeyNotFound, "The key that this object is sealed with is not known."),
	}
}

// objectCauses: what the service refuses.
func objectCauses() []cause {
	const length = "You did not provide the number of bytes specified by the Content-Length HTTP header"
	return []cause{
		fixed(sealed.ErrShortBody, http.StatusBadRequest, "IncompleteBody", length),
		fixed(sealed.ErrLongBody, http.StatusBadRequest, "IncompleteBody", length),
		fixed(objects.ErrReserved, http.StatusForbidden, "AccessDenied", "Keys under "+objects.ReservedPrefix+" are reserved for the gateway."),
		fixed(objects.ErrKeyName, http.StatusBadRequest, "InvalidURI", "The specified URI couldn't be parsed."),
		fixed(objects.ErrMetadataTooLarge, http.StatusBadRequest, "MetadataTooLarge", "Your metadata headers exceed the maximum allowed metadata size"),
		fixed(objects.ErrBodyTooLarge, http.StatusBadRequest, "EntityTooLarge", "Your proposed upload exceeds the maximum allowed object size."),
		{objects.ErrPartNumber, partNumberFault},
		fixed(objects.ErrPartOrder, http.StatusBadRequest, "InvalidPartOrder", "The list of parts was not in ascending order. Parts must be ordered by part number."),
		{objects.ErrChecksumMissing, uploadRuleFault},
		{objects.ErrChecksumAlgorithm, uploadRuleFault},
		{objects.ErrChecksumType, uploadRuleFault},
		{objects.ErrChecksumMismatch, checksumFault},
		{objects.ErrSizeMismatch, sizeFault},
		fixed(objects.ErrRuleScope, http.StatusNotImplemented, "NotImplemented",
			"An expiration must have a tag, or a prefix that "+objects.ReservedPrefix+" does not begin with: it would delete the gateway's own objects too."),
		fixed(objects.ErrGuarded, http.StatusConflict, "InvalidBucketState",
			"The bucket has the rollback guard: it keeps no versions, and no rule may delete its objects."),
		{objects.ErrUnsupported, unsupported},
	}
}

// storedCauses: what is stored is not what was stored.
func storedCauses() []cause {
	return []cause{
		alarming(objects.ErrNotSealed, "The stored object was not sealed by this gateway."),
		alarming(objects.ErrRolledBack, "The backend does not show the newest version of this object, or hides it."),
		alarming(keys.ErrLedgerLost, "The rollback guard of this bucket has lost its ledger."),
		alarming(sealed.ErrCorrupt, "The stored object does not verify."),
		alarming(sealed.ErrUnsupported, "The stored object is of an unknown format."),
	}
}

// backendCauses: what a store says. Uploads come before objects, because an upload
// may be looked for as an object.
func backendCauses() []cause {
	const big, small = "Your proposed upload exceeds the maximum allowed object size.", "Your proposed upload is smaller than the minimum allowed size"
	return []cause{
		{backends.ErrUploadNotFound, noSuchUpload},
		{backends.ErrInvalidPart, invalidPart},
		{backends.ErrVersionNotFound, noSuchVersion},
		{backends.ErrDeleteMarker, isMarker},
		{backends.ErrNotFound, noSuchKey},
		fixed(backends.ErrLocked, http.StatusForbidden, "AccessDenied", "Access Denied because object protected by object lock."),
		{backends.ErrNoLock, noLock},
		{backends.ErrBucketState, bucketState},
		{backends.ErrBucketNotFound, noSuchBucket},
		{backends.ErrBucketExists, bucketTaken},
		{backends.ErrBucketNotEmpty, bucketNotEmpty},
		{backends.ErrPrecondition, preconditionFailed},
		fixed(backends.ErrConflict, http.StatusConflict, "ConditionalRequestConflict",
			"The conditional request cannot succeed due to a conflicting operation against this resource."),
		{backends.ErrNotModified, notModified},
		{backends.ErrRange, rangeFault},
		fixed(backends.ErrInvalidTag, http.StatusBadRequest, "InvalidTag", "The bucket's backend cannot hold such a tag: it has fewer letters, or shorter tags."),
		fixed(backends.ErrTooSmall, http.StatusBadRequest, "EntityTooSmall", small),
		fixed(backends.ErrTooLarge, http.StatusBadRequest, "EntityTooLarge", big),
		fixed(backends.ErrInvalidName, http.StatusBadRequest, "InvalidArgument", "The bucket's backend cannot hold that name."),
		{backends.ErrUnsupported, unsupported},
		full(backends.ErrFull, "No space left on the backend."),
		alarming(backends.ErrDenied, "The backend refused the gateway."),
		later(backends.ErrUnavailable, "SlowDown", "Please reduce your request rate."),
	}
}

// endCauses: a client or a clock ended the request.
func endCauses() []cause {
	return []cause{
		fixed(os.ErrDeadlineExceeded, http.StatusBadRequest, "RequestTimeout",
			"Your socket connection to the server was not read from or written to within the timeout period. Idle connections will be closed."),
		later(context.DeadlineExceeded, "SlowDown", "Please reduce your request rate."),
		fixed(context.Canceled, statusClientGone, "RequestTimeout", "The client closed the connection."),
	}
}

// statusClientGone is what the log shows for a client that nobody can answer.
const statusClientGone = 499

// unsupported says beside S3's text that another backend might do.
func unsupported(*call, error) *fault {
	return notImplemented("").with(field{"additionalMessage", "The bucket's backend does not support this request."})
}

func noSuchBucket(c *call, _ error) *fault { return noBucket(c.bucketName) }

func noBucket(name string) *fault {
	return refused(http.StatusNotFound, "NoSuchBucket", "The specified bucket does not exist.", field{"BucketName", name})
}

func bucketTaken(c *call, _ error) *fault {
	return refused(http.StatusConflict, "BucketAlreadyExists", "The requested bucket name is not available. "+
		"The bucket name can not be an existing collection, and the bucket namespace is shared by all users of the system. "+
		"Please select a different name and try again.", field{"BucketName", c.bucketName})
}

func bucketMine(c *call, _ error) *fault {
	return refused(http.StatusConflict, "BucketAlreadyOwnedByYou",
		"Your previous request to create the named bucket succeeded and you already own it.", field{"BucketName", c.bucketName})
}

func bucketNotEmpty(c *call, _ error) *fault {
	return refused(http.StatusConflict, "BucketNotEmpty", "The bucket you tried to delete is not empty.", field{"BucketName", c.bucketName})
}

// noSuchKey speaks of a copy's source where there is one.
func noSuchKey(c *call, err error) *fault {
	key, version := c.subject()
	if version != "" {
		return noSuchVersion(c, err)
	}
	return noKey(key, err)
}

func noKey(key string, err error) *fault {
	f := refused(http.StatusNotFound, "NoSuchKey", "The specified key does not exist.", field{"Key", key})
	f.header = markerHeaders(err)
	return f
}

func noSuchVersion(c *call, _ error) *fault {
	key, version := c.subject()
	return refused(http.StatusNotFound, "NoSuchVersion", "The specified version does not exist.", field{"Key", key}, field{"VersionId", version})
}

// subject is the object that is read: a copy's source where there is one.
func (c *call) subject() (key, version string) {
	if c.source.key != "" {
		return c.source.key, c.source.version
	}
	return c.key, c.query.Get("versionId")
}

// isMarker is for a version that is a delete marker, which has no contents.
func isMarker(c *call, err error) *fault {
	if c.source.key != "" {
		return invalidRequest("The source of a copy request may not specifically refer to a delete marker by version id.")
	}
	if c.route.name == "GetObjectAttributes" { // whose only error is NoSuchKey
		return noKey(c.key, err)
	}
	f := methodNotAllowed(c.r.Method, "DELETE_MARKER")
	f.header = markerHeaders(err)
	if f.header != nil {
		f.header["Allow"] = http.MethodDelete
	}
	return f
}

// markerHeaders say which delete marker was met.
func markerHeaders(err error) map[string]string {
	var m *backends.MarkerError
	if !errors.As(err, &m) {
		return nil
	}
	h := map[string]string{"X-Amz-Delete-Marker": "true"}
	if m.Version != "" {
		h["X-Amz-Version-Id"] = m.Version
	}
	if m.Asked && !m.Modified.IsZero() {
		h["Last-Modified"] = m.Modified.UTC().Format(http.TimeFormat)
	}
	return h
}

// noLock: S3 words it in two ways.
func noLock(c *call, _ error) *fault {
	if lockOperation(c.route.name) {
		return invalidRequest("Bucket is missing Object Lock Configuration")
	}
	return invalidRequest("Bucket is missing ObjectLockConfiguration")
}

func lockOperation(name string) bool {
	return strings.HasSuffix(name, "Retention") || strings.HasSuffix(name, "LegalHold")
}

func bucketState(c *call, _ error) *fault {
	message := "The request is not valid for the current state of the bucket."
	switch c.route.name {
	case "PutBucketVersioning":
		message = "An Object Lock configuration is present on this bucket, so the versioning state cannot be changed."
	case "PutObjectLockConfiguration":
		message = "Versioning must be 'Enabled' on the bucket to apply a Object Lock configuration"
	}
	return refused(http.StatusConflict, "InvalidBucketState", message)
}

func noSuchUpload(c *call, _ error) *fault {
	return refused(http.StatusNotFound, "NoSuchUpload", "The specified multipart upload does not exist. "+
		"The upload ID may be invalid, or the upload may have been aborted or completed.", field{"UploadId", c.query.Get("uploadId")})
}

func invalidPart(c *call, _ error) *fault {
	return bad("InvalidPart", "One or more of the specified parts could not be found.  The part may not have been uploaded, "+
		"or the specified entity tag may not match the part's entity tag.", field{"UploadId", c.query.Get("uploadId")})
}

func partNumberFault(c *call, _ error) *fault { return invalidPartNumber(c.query.Get("partNumber")) }

func checksumFault(c *call, _ error) *fault {
	if sum, err := c.objectChecksum(); err == nil && sum != nil {
		return badDigest(sum.Algorithm)
	}
	return bad("BadDigest", "The checksum you specified did not match the calculated checksum.")
}

// uploadRuleFault is about a request that breaks a rule of its upload's checksum.
func uploadRuleFault(c *call, err error) *fault {
	broken := &objects.ChecksumError{Err: err}
	errors.As(err, &broken)
	got, part := strings.ToLower(string(broken.Got)), strconv.Itoa(broken.Part)
	switch {
	case errors.Is(err, objects.ErrChecksumMissing):
		return invalidRequest("The upload was created using a " + strings.ToLower(string(broken.Want)) + " checksum. The complete request " +
			"must include the checksum for each part. It was missing for part " + part + " in the request.")
	case errors.Is(err, objects.ErrChecksumType):
		return invalidRequest("The upload was created using the " + checksumType(broken.Composite) + " checksum mode. " +
			"The complete request must use the same checksum mode.")
	case c.route.name == "CompleteMultipartUpload":
		return bad("BadDigest", "The "+got+" you specified for part "+part+" did not match what we received.")
	case broken.Got == "":
		broken.Got = "null"
	}
	return invalidRequest("Checksum Type mismatch occurred, expected checksum Type: " + string(broken.Want) + ", actual checksum Type: " + string(broken.Got))
}

func sizeFault(_ *call, err error) *fault {
	wrong := &objects.SizeError{}
	errors.As(err, &wrong)
	return invalidRequest(fmt.Sprintf("The provided 'x-amz-mp-object-size' header value %d does not match what was computed: %d", wrong.Stated, wrong.Computed))
}

// preconditionFailed names the condition, as far as the request tells.
func preconditionFailed(c *call, _ error) *fault {
	f := refused(http.StatusPreconditionFailed, "PreconditionFailed", "At least one of the pre-conditions you specified did not hold.")
	for _, name := range []string{
		"x-amz-copy-source-If-Match", "x-amz-copy-source-If-Unmodified-Since", "x-amz-copy-source-If-None-Match",
		"x-amz-copy-source-If-Modified-Since", "If-Match", "If-None-Match", "If-Unmodified-Since",
	} {
		if c.header.Get(name) != "" {
			return f.with(field{"Condition", name})
		}
	}
	return f
}

func notModified(_ *call, err error) *fault {
	f := refused(http.StatusNotModified, "NotModified", "Not Modified")
	var n *backends.NotModified
	if errors.As(err, &n) {
		f.header = map[string]string{"Etag": quoted(n.ETag)}
		if !n.Modified.IsZero() {
			f.header["Last-Modified"] = n.Modified.UTC().Format(http.TimeFormat)
		}
	}
	return f
}

func rangeFault(c *call, err error) *fault {
	if number, convErr := strconv.Atoi(c.query.Get("partNumber")); convErr == nil {
		return unsatisfiablePart(number)
	}
	var beyond *objects.RangeError
	if errors.As(err, &beyond) {
		return invalidRange(c.header.Get("Range"), beyond.Size)
	}
	return refused(http.StatusRequestedRangeNotSatisfiable, "InvalidRange", "The requested range is not satisfiable")
}
