package s3api

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strconv"

	"chatelaine/backends"
	"chatelaine/gateway/access"
	"chatelaine/gateway/keys"
	"chatelaine/gateway/objects"
	"chatelaine/gateway/sealed"
	"chatelaine/gateway/sigv4"
)

// cause is a row of the error table: what an error of the layers below means to a
// client. The message may quote what the client itself sent, and nothing else.
type cause struct {
	err   error
	fault func(c *call, err error) *fault
}

// causes is the one error table. The first row whose error is in the chain counts:
// what is wrong with the request comes before what a backend made of it.
func causes() []cause {
	const (
		unavailable = "Service is unable to handle request."
		slowDown    = "Please reduce your request rate."
	)
	var rows []cause
	add := func(err error, f func(*call, error) *fault) { rows = append(rows, cause{err, f}) }
	// always is the same fault each time; it is made anew, for each is written to.
	always := func(err error, status int, code, message string) {
		add(err, func(*call, error) *fault { return refused(status, code, message) })
	}
	again := func(err error, code, message string) {
		add(err, func(*call, error) *fault {
			return &fault{status: http.StatusServiceUnavailable, code: code, message: message, retry: true}
		})
	}
	alarm := func(err error, message string) {
		add(err, func(*call, error) *fault {
			return &fault{status: http.StatusInternalServerError, code: "InternalError", message: message, alarm: true}
		})
	}
	for _, row := range signatureCauses() {
		add(row.err, row.fault)
	}

	always(access.ErrDenied, http.StatusForbidden, "AccessDenied", "Access Denied.")
	again(access.ErrUnrecorded, "ServiceUnavailable", unavailable)

	always(keys.ErrBlocked, http.StatusForbidden, "AccessDenied", "The key of this bucket is blocked.")
	again(keys.ErrUnavailable, "ServiceUnavailable", unavailable)
	add(keys.ErrBucketNotFound, noSuchBucket)
	add(keys.ErrBucketOwned, func(c *call, _ error) *fault {
		return refused(http.StatusConflict, "BucketAlreadyOwnedByYou", "Your previous request to create the named bucket succeeded and you already own it.", field{"BucketName", c.bucketName})
	})
	add(keys.ErrBucketExists, bucketTaken)
	alarm(keys.ErrKeyNotFound, "The key that this object is sealed with is not known.")

	always(sealed.ErrShortBody, http.StatusBadRequest, "IncompleteBody", "You did not provide the number of bytes specified by the Content-Length HTTP header")
	always(sealed.ErrLongBody, http.StatusBadRequest, "IncompleteBody", "You did not provide the number of bytes specified by the Content-Length HTTP header")

	add(objects.ErrReserved, func(*call, error) *fault {
		return refused(http.StatusForbidden, "AccessDenied", "Keys under "+objects.ReservedPrefix+" are reserved for the gateway.")
	})
	always(objects.ErrKeyName, http.StatusBadRequest, "InvalidURI", "The specified URI couldn't be parsed.")
	always(objects.ErrMetadataTooLarge, http.StatusBadRequest, "MetadataTooLarge", "Your metadata headers exceed the maximum allowed metadata size")
	always(objects.ErrBodyTooLarge, http.StatusBadRequest, "EntityTooLarge", "Your proposed upload exceeds the maximum allowed object size.")
	add(objects.ErrPartNumber, func(c *call, _ error) *fault {
		return invalidArgument("Part number must be an integer between 1 and "+strconv.Itoa(objects.MaxPartNumber)+", inclusive.", "partNumber", c.query.Get("partNumber"))
	})
	always(objects.ErrPartOrder, http.StatusBadRequest, "InvalidPartOrder", "The list of parts was not in ascending order. Parts must be ordered by part number.")
	always(objects.ErrChecksumMissing, http.StatusBadRequest, "InvalidRequest", "The upload was created using a checksum type that needs the checksum of every part. The complete request must include it for each part.")
	add(objects.ErrChecksumMismatch, func(c *call, _ error) *fault {
		if stated, err := parseChecksums(c.header, nil); err == nil && stated.algorithm != "" {
			return badDigest(stated.algorithm)
		}
		return bad("BadDigest", "The checksum you specified did not match the calculated checksum.")
	})
	add(objects.ErrSizeMismatch, func(c *call, _ error) *fault {
		return invalidRequest("The provided 'x-amz-mp-object-size' header value " + c.header.Get("X-Amz-Mp-Object-Size") + " does not match what was computed")
	})
	always(objects.ErrUnsupported, http.StatusNotImplemented, "NotImplemented", "The bucket's backend does not support this request.")
	alarm(objects.ErrNotSealed, "The stored object was not sealed by this gateway.")
	alarm(sealed.ErrCorrupt, "The stored object does not verify.")
	alarm(sealed.ErrUnsupported, "The stored object is of an unknown format.")

	add(backends.ErrNotFound, func(c *call, _ error) *fault {
		if v := c.query.Get("versionId"); v != "" {
			return refused(http.StatusNotFound, "NoSuchVersion", "The specified version does not exist.", field{"Key", c.key}, field{"VersionId", v})
		}
		return refused(http.StatusNotFound, "NoSuchKey", "The specified key does not exist.", field{"Key", c.key})
	})
	add(backends.ErrUploadNotFound, func(c *call, _ error) *fault {
		return refused(http.StatusNotFound, "NoSuchUpload", "The specified multipart upload does not exist. The upload ID may be invalid, or the upload may have been aborted or completed.", field{"UploadId", c.query.Get("uploadId")})
	})
	add(backends.ErrBucketNotFound, noSuchBucket)
	add(backends.ErrBucketExists, bucketTaken)
	add(backends.ErrBucketNotEmpty, func(c *call, _ error) *fault {
		return refused(http.StatusConflict, "BucketNotEmpty", "The bucket you tried to delete is not empty.", field{"BucketName", c.bucketName})
	})
	add(backends.ErrPrecondition, preconditionFailed)
	always(backends.ErrConflict, http.StatusConflict, "ConditionalRequestConflict", "The conditional request cannot succeed due to a conflicting operation against this resource.")
	add(backends.ErrNotModified, notModified)
	add(backends.ErrRange, func(c *call, err error) *fault { return rangeFault(c, err) })
	add(backends.ErrInvalidPart, func(c *call, _ error) *fault {
		return bad("InvalidPart", "One or more of the specified parts could not be found. The part may not have been uploaded, or the specified entity tag may not match the part's entity tag.", field{"UploadId", c.query.Get("uploadId")})
	})
	always(backends.ErrTooSmall, http.StatusBadRequest, "EntityTooSmall", "Your proposed upload is smaller than the minimum allowed size")
	always(backends.ErrTooLarge, http.StatusBadRequest, "EntityTooLarge", "Your proposed upload exceeds the maximum allowed object size.")
	always(backends.ErrInvalidName, http.StatusBadRequest, "InvalidArgument", "The bucket's backend cannot hold that name.")
	always(backends.ErrUnsupported, http.StatusNotImplemented, "NotImplemented", "The bucket's backend does not support this request.")
	add(backends.ErrFull, func(*call, error) *fault {
		return &fault{status: http.StatusInsufficientStorage, code: "InsufficientStorage", message: "No space left on the backend.", alarm: true}
	})
	alarm(backends.ErrDenied, "The backend refused the gateway.")
	again(backends.ErrUnavailable, "SlowDown", slowDown)

	always(os.ErrDeadlineExceeded, http.StatusBadRequest, "RequestTimeout", "Your socket connection to the server was not read from or written to within the timeout period. Idle connections will be closed.")
	again(context.DeadlineExceeded, "SlowDown", slowDown)
	always(context.Canceled, statusClientGone, "RequestTimeout", "The client closed the connection.")
	return rows
}

// statusClientGone is what the log shows for a client that nobody can answer.
const statusClientGone = 499

func noSuchBucket(c *call, _ error) *fault {
	return refused(http.StatusNotFound, "NoSuchBucket", "The specified bucket does not exist.", field{"BucketName", c.bucketName})
}

func bucketTaken(c *call, _ error) *fault {
	return refused(http.StatusConflict, "BucketAlreadyExists", "The requested bucket name is not available. The bucket name can not be an existing collection, and the bucket namespace is shared by all users of the system. Please select a different name and try again.", field{"BucketName", c.bucketName})
}

// preconditionFailed names the condition, as far as the request tells.
func preconditionFailed(c *call, _ error) *fault {
	f := refused(http.StatusPreconditionFailed, "PreconditionFailed", "At least one of the pre-conditions you specified did not hold")
	for _, name := range []string{"If-Match", "If-None-Match", "If-Unmodified-Since"} {
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

// faultOf finds out what to tell the client about an error.
func (c *call) faultOf(err error) *fault {
	var f *fault
	if errors.As(err, &f) {
		return f
	}
	for _, row := range c.causes {
		if errors.Is(err, row.err) {
			return row.fault(c, err)
		}
	}
	return &fault{
		status: http.StatusInternalServerError, code: "InternalError", alarm: true,
		message: "We encountered an internal error, please try again.",
	}
}

// errorDocument is S3's Error element.
type errorDocument struct {
	XMLName   xml.Name `xml:"Error"`
	Code      string
	Message   string
	Fields    []field
	Resource  string
	RequestID string `xml:"RequestId"`
	HostID    string `xml:"HostId"`
}

// fail answers with an error. Once the first byte of a body is out, only a cut
// connection tells the client that what it has is not all.
func (c *call) fail(err error) {
	f := c.faultOf(err)
	c.code, c.cause = f.code, err
	c.w.alarm = f.alarm
	if c.w.status != 0 {
		panic(http.ErrAbortHandler)
	}
	h := c.w.Header()
	for name, value := range f.header {
		h.Set(name, value)
	}
	if f.retry {
		h.Set("Retry-After", "1")
	}
	if c.r.Method == http.MethodHead || f.status == http.StatusNotModified {
		c.w.WriteHeader(f.status)
		return
	}
	if err := c.writeXML(f.status, c.document(f)); err != nil {
		c.cause = errors.Join(c.cause, err)
	}
}

func (c *call) document(f *fault) errorDocument {
	return errorDocument{
		Code: f.code, Message: f.message, Fields: f.fields,
		Resource: c.r.URL.Path, RequestID: c.id, HostID: c.hostID,
	}
}

// signatureCauses are the rows of sigv4's errors. Most texts quote what was wrong
// with the request, in the words that S3 has for a header or a query.
func signatureCauses() []cause {
	type text func(e *sigv4.Error) *fault
	row := func(err error, t text) cause {
		return cause{err, func(_ *call, err error) *fault {
			e := &sigv4.Error{Err: err}
			errors.As(err, &e)
			return t(e)
		}}
	}
	// malformed has a text for both places that a signature may be in.
	malformed := func(format string, args func(e *sigv4.Error) []any) text {
		return func(e *sigv4.Error) *fault {
			detail := fmt.Sprintf(format, args(e)...)
			if e.Query {
				return bad("AuthorizationQueryParametersError", "Error parsing the X-Amz-Credential parameter; "+detail)
			}
			return bad("AuthorizationHeaderMalformed", "The authorization header is malformed; "+detail)
		}
	}
	got := func(e *sigv4.Error) []any { return []any{e.Got} }
	none := func(*sigv4.Error) []any { return nil }
	query := func(message string) text {
		return func(*sigv4.Error) *fault { return bad("AuthorizationQueryParametersError", message) }
	}
	fixed := func(status int, code, message string) text {
		return func(*sigv4.Error) *fault { return refused(status, code, message) }
	}
	return append(bodyCauses(),
		row(sigv4.ErrAnonymous, fixed(http.StatusForbidden, "AccessDenied", "Access Denied.")),
		row(sigv4.ErrTwoSignatures, func(*sigv4.Error) *fault {
			return invalidArgument("Only one auth mechanism allowed; only the X-Amz-Algorithm query parameter, Signature query string parameter or the Authorization header should be specified", "Authorization", "")
		}),
		row(sigv4.ErrDuplicate, func(e *sigv4.Error) *fault {
			return invalidRequest("The header or parameter '" + e.Got + "' must not be repeated.")
		}),
		row(sigv4.ErrQuery, func(*sigv4.Error) *fault { return invalidURI() }),
		row(sigv4.ErrVersion2, fixed(http.StatusBadRequest, "InvalidRequest", "The authorization mechanism you have provided is not supported. Please use AWS4-HMAC-SHA256.")),
		row(sigv4.ErrAsymmetric, func(e *sigv4.Error) *fault {
			if e.Query {
				return bad("AuthorizationQueryParametersError", `X-Amz-Algorithm only supports "AWS4-HMAC-SHA256"`)
			}
			return invalidArgument("Only AWS4-HMAC-SHA256 is supported", "X-Amz-Algorithm", e.Got)
		}),
		row(sigv4.ErrToken, fixed(http.StatusBadRequest, "InvalidToken", "The provided token is malformed or otherwise invalid.")),
		row(sigv4.ErrHeaderForm, func(e *sigv4.Error) *fault {
			return invalidArgument("Authorization header is invalid -- one and only one ' ' (space) required.", "Authorization", e.Got)
		}),
		row(sigv4.ErrScheme, func(e *sigv4.Error) *fault {
			if e.Query {
				return bad("AuthorizationQueryParametersError", `X-Amz-Algorithm only supports "AWS4-HMAC-SHA256 and AWS4-ECDSA-P256-SHA256"`)
			}
			return invalidArgument("Unsupported Authorization Type", "Authorization", e.Got)
		}),
		row(sigv4.ErrComponents, func(e *sigv4.Error) *fault {
			if e.Query {
				return bad("AuthorizationQueryParametersError", "Query-string authentication version 4 requires the X-Amz-Algorithm, X-Amz-Credential, X-Amz-Signature, X-Amz-Date, X-Amz-SignedHeaders, and X-Amz-Expires parameters.")
			}
			return bad("AuthorizationHeaderMalformed", "The authorization header is malformed; the authorization header requires three components: Credential, SignedHeaders, and Signature.")
		}),
		row(sigv4.ErrComponent, malformed("the authorization component %q is malformed.", got)),
		row(sigv4.ErrNoCredential, malformed("missing Credential.", none)),
		row(sigv4.ErrNoSignedHeaders, malformed("missing SignedHeaders.", none)),
		row(sigv4.ErrNoSignature, malformed("missing Signature.", none)),
		row(sigv4.ErrCredential, malformed(`the Credential is mal-formed; expecting "<YOUR-AKID>/YYYYMMDD/REGION/SERVICE/aws4_request".`, none)),
		row(sigv4.ErrTerminator, malformed(`incorrect terminal %q. This endpoint uses "aws4_request".`, got)),
		row(sigv4.ErrService, malformed(`incorrect service %q. This endpoint belongs to "s3".`, got)),
		row(sigv4.ErrRegion, func(e *sigv4.Error) *fault {
			f := malformed("the region %q is wrong; expecting %q", func(e *sigv4.Error) []any { return []any{e.Got, e.Want} })(e)
			return f.with(field{"Region", e.Want})
		}),
		row(sigv4.ErrScopeDate, malformed(`incorrect date format %q. This date in the credential must be in the format "yyyyMMdd".`, got)),
		row(sigv4.ErrDateMismatch, func(e *sigv4.Error) *fault {
			if e.Query {
				return bad("AuthorizationQueryParametersError", fmt.Sprintf("Invalid credential date %q. This date is not the same as X-Amz-Date: %q.", e.Got, e.Want))
			}
			return bad("AuthorizationHeaderMalformed", "The authorization header is malformed; The authorization header is malformed; Invalid credential date. Date is not the same as X-Amz-Date.")
		}),
		row(sigv4.ErrNoDate, func(e *sigv4.Error) *fault {
			if e.Query {
				return bad("AuthorizationQueryParametersError", `X-Amz-Date must be in the ISO8601 Long Format "yyyyMMdd'T'HHmmss'Z'"`)
			}
			return refused(http.StatusForbidden, "AccessDenied", "AWS authentication requires a valid Date or x-amz-date header.")
		}),
		row(sigv4.ErrSkew, func(e *sigv4.Error) *fault {
			return refused(http.StatusForbidden, "RequestTimeTooSkewed", "The difference between the request time and the current time is too large.",
				field{"RequestTime", e.Got}, field{"ServerTime", e.Want},
				field{"MaxAllowedSkewMilliseconds", strconv.FormatInt(sigv4.MaxSkew.Milliseconds(), 10)})
		}),
		row(sigv4.ErrExpiresNumber, query("X-Amz-Expires should be a number")),
		row(sigv4.ErrExpiresNegative, query("X-Amz-Expires must be non-negative")),
		row(sigv4.ErrExpiresTooLarge, query("X-Amz-Expires must be less than a week (in seconds); that is, the given X-Amz-Expires must be less than 604800 seconds")),
		cause{sigv4.ErrExpired, expired},
		row(sigv4.ErrNotYet, fixed(http.StatusForbidden, "AccessDenied", "Request is not valid yet.")),
		row(sigv4.ErrUnsignedHeaders, func(e *sigv4.Error) *fault {
			return refused(http.StatusForbidden, "AccessDenied", "There were headers present in the request which were not signed", field{"HeadersNotSigned", e.Got})
		}),
		row(sigv4.ErrNoContentHash, fixed(http.StatusBadRequest, "InvalidRequest", "Missing required header for this request: x-amz-content-sha256")),
		row(sigv4.ErrContentHash, func(e *sigv4.Error) *fault {
			return invalidArgument("x-amz-content-sha256 must be UNSIGNED-PAYLOAD, STREAMING-UNSIGNED-PAYLOAD-TRAILER, STREAMING-AWS4-HMAC-SHA256-PAYLOAD, STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER, STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD, STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD-TRAILER or a valid sha256 value.", "x-amz-content-sha256", e.Got)
		}),
		row(sigv4.ErrUnknownKey, func(e *sigv4.Error) *fault {
			return refused(http.StatusForbidden, "InvalidAccessKeyId", "The AWS Access Key Id you provided does not exist in our records.", field{"AWSAccessKeyId", e.Got})
		}),
		row(sigv4.ErrSignature, func(e *sigv4.Error) *fault {
			return refused(http.StatusForbidden, "SignatureDoesNotMatch", "The request signature we calculated does not match the signature you provided. Check your key and signing method.", field{"AWSAccessKeyId", e.Got})
		}),
	)
}

func expired(c *call, err error) *fault {
	var e *sigv4.Error
	errors.As(err, &e)
	return refused(http.StatusForbidden, "AccessDenied", "Request has expired.",
		field{"X-Amz-Expires", c.r.URL.Query().Get("X-Amz-Expires")}, field{"Expires", e.Got}, field{"ServerTime", e.Want})
}

// bodyCauses are the rows of what sigv4 finds wrong with a body.
func bodyCauses() []cause {
	fixed := func(err error, code, message string) cause {
		return cause{err, func(*call, error) *fault { return bad(code, message) }}
	}
	return []cause{
		fixed(sigv4.ErrIncomplete, "IncompleteBody", "The request body terminated unexpectedly"),
		fixed(sigv4.ErrLength, "IncompleteBody", "You did not provide the number of bytes specified by the Content-Length HTTP header"),
		fixed(sigv4.ErrChunkSize, "InvalidChunkSizeError", "Only the last chunk is allowed to have a size less than 8192 bytes"),
		fixed(sigv4.ErrTrailer, "MalformedTrailerError", "The request contained trailing data that was not well-formed or did not conform to our published schema."),
		{sigv4.ErrBodyHash, func(_ *call, err error) *fault {
			f := bad("XAmzContentSHA256Mismatch", "The provided 'x-amz-content-sha256' header does not match what was computed.")
			var e *sigv4.Error
			if errors.As(err, &e) {
				f.fields = []field{{"ClientComputedContentSHA256", e.Got}, {"S3ComputedContentSHA256", e.Want}}
			}
			return f
		}},
	}
}
