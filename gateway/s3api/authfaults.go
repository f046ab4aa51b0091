package s3api

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"chatelaine/gateway/sigv4"
)

// signed makes a row of the error table for an error of sigv4, whose details its
// fault may quote.
func signed(err error, explain func(e *sigv4.Error) *fault) cause {
	return cause{err, func(_ *call, got error) *fault {
		e := &sigv4.Error{Err: err}
		errors.As(got, &e)
		return explain(e)
	}}
}

// malformed is what S3 says of a credential, in the words for a header or a query.
func malformed(e *sigv4.Error, format string, args ...any) *fault {
	detail := fmt.Sprintf(format, args...)
	if e.Query {
		return badQuery("Error parsing the X-Amz-Credential parameter; " + detail)
	}
	if e.Form {
		return invalidArgument(detail, "x-amz-credential", e.Credential)
	}
	return bad("AuthorizationHeaderMalformed", "The authorization header is malformed; "+detail)
}

func badQuery(message string) *fault { return bad("AuthorizationQueryParametersError", message) }

// claimCauses: what kind of signature a request carries, and where.
func claimCauses() []cause {
	return []cause{
		fixed(sigv4.ErrAnonymous, http.StatusForbidden, "AccessDenied", "Access Denied."),
		fixed(sigv4.ErrVersion2, http.StatusBadRequest, "InvalidRequest", "The authorization mechanism you have provided is not supported. Please use AWS4-HMAC-SHA256."),
		fixed(sigv4.ErrToken, http.StatusBadRequest, "InvalidToken", "The provided token is malformed or otherwise invalid."),
		fixed(sigv4.ErrQuery, http.StatusBadRequest, "InvalidURI", "The specified URI couldn't be parsed."),
		signed(sigv4.ErrTwoSignatures, func(*sigv4.Error) *fault {
			return invalidArgument("Only one auth mechanism allowed; only the X-Amz-Algorithm query parameter, "+
				"Signature query string parameter or the Authorization header should be specified", "Authorization", "")
		}),
		signed(sigv4.ErrDuplicate, func(e *sigv4.Error) *fault {
			return invalidRequest("The header or parameter '" + e.Got + "' must not be repeated.")
		}),
		signed(sigv4.ErrAsymmetric, func(e *sigv4.Error) *fault {
			if e.Query {
				return badQuery(`X-Amz-Algorithm only supports "AWS4-HMAC-SHA256"`)
			}
			return invalidArgument("Only AWS4-HMAC-SHA256 is supported", "X-Amz-Algorithm", e.Got)
		}),
		signed(sigv4.ErrHeaderForm, func(e *sigv4.Error) *fault {
			return invalidArgument("Authorization header is invalid -- one and only one ' ' (space) required.", "Authorization", e.Got)
		}),
		signed(sigv4.ErrScheme, func(e *sigv4.Error) *fault {
			if e.Query {
				return badQuery(`X-Amz-Algorithm only supports "AWS4-HMAC-SHA256 and AWS4-ECDSA-P256-SHA256"`)
			}
			return invalidArgument("Unsupported Authorization Type", "Authorization", e.Got)
		}),
	}
}

// credentialCauses: the parts of a signature, and what it is for.
func credentialCauses() []cause {
	return []cause{
		signed(sigv4.ErrComponents, func(e *sigv4.Error) *fault {
			if e.Query {
				return badQuery("Query-string authentication version 4 requires the X-Amz-Algorithm, X-Amz-Credential, " +
					"X-Amz-Signature, X-Amz-Date, X-Amz-SignedHeaders, and X-Amz-Expires parameters.")
			}
			return malformed(e, "the authorization header requires three components: Credential, SignedHeaders, and Signature.")
		}),
		signed(sigv4.ErrComponent, func(e *sigv4.Error) *fault {
			return malformed(e, "the authorization component %q is malformed.", e.Got)
		}),
		signed(sigv4.ErrNoCredential, func(e *sigv4.Error) *fault { return malformed(e, "missing Credential.") }),
		signed(sigv4.ErrNoSignedHeaders, func(e *sigv4.Error) *fault { return malformed(e, "missing SignedHeaders.") }),
		signed(sigv4.ErrNoSignature, func(e *sigv4.Error) *fault { return malformed(e, "missing Signature.") }),
		signed(sigv4.ErrCredential, func(e *sigv4.Error) *fault {
			return malformed(e, `the Credential is mal-formed; expecting "<YOUR-AKID>/YYYYMMDD/REGION/SERVICE/aws4_request".`)
		}),
		signed(sigv4.ErrTerminator, func(e *sigv4.Error) *fault {
			return malformed(e, `incorrect terminal %q. This endpoint uses "aws4_request".`, e.Got)
		}),
		signed(sigv4.ErrService, func(e *sigv4.Error) *fault {
			return malformed(e, `incorrect service %q. This endpoint belongs to %q.`, e.Got, e.Want)
		}),
		signed(sigv4.ErrRegion, func(e *sigv4.Error) *fault {
			return malformed(e, "the region %q is wrong; expecting %q", e.Got, e.Want).with(field{"Region", e.Want})
		}),
		signed(sigv4.ErrScopeDate, func(e *sigv4.Error) *fault {
			return malformed(e, `incorrect date format %q. This date in the credential must be in the format "yyyyMMdd".`, e.Got)
		}),
		signed(sigv4.ErrDateMismatch, func(e *sigv4.Error) *fault {
			if e.Query {
				return badQuery(fmt.Sprintf("Invalid credential date %q. This date is not the same as X-Amz-Date: %q.", e.Got, e.Want))
			}
			// S3 says it twice.
			return malformed(e, "The authorization header is malformed; Invalid credential date. Date is not the same as X-Amz-Date.")
		}),
	}
}

// presignedCauses: when a request was signed and how long that holds.
func presignedCauses() []cause {
	return []cause{
		signed(sigv4.ErrNoDate, func(e *sigv4.Error) *fault {
			if e.Form {
				return invalidArgument("X-Amz-Date must be formated via ISO8601 Long format", "X-Amz-Date", e.Got)
			}
			if e.Query {
				return badQuery(`X-Amz-Date must be in the ISO8601 Long Format "yyyyMMdd'T'HHmmss'Z'"`)
			}
			return refused(http.StatusForbidden, "AccessDenied", "AWS authentication requires a valid Date or x-amz-date header.")
		}),
		signed(sigv4.ErrSkew, func(e *sigv4.Error) *fault {
			return refused(http.StatusForbidden, "RequestTimeTooSkewed", "The difference between the request time and the current time is too large.",
				field{"RequestTime", e.Got}, field{"ServerTime", e.Want},
				field{"MaxAllowedSkewMilliseconds", strconv.FormatInt(sigv4.MaxSkew.Milliseconds(), 10)})
		}),
		signed(sigv4.ErrExpiresNumber, func(*sigv4.Error) *fault { return badQuery("X-Amz-Expires should be a number") }),
		signed(sigv4.ErrExpiresNegative, func(*sigv4.Error) *fault { return badQuery("X-Amz-Expires must be non-negative") }),
		signed(sigv4.ErrExpiresTooLarge, func(*sigv4.Error) *fault {
			return badQuery("X-Amz-Expires must be less than a week (in seconds); that is, the given X-Amz-Expires must be less than 604800 seconds")
		}),
		{sigv4.ErrExpired, expired},
		fixed(sigv4.ErrNotYet, http.StatusForbidden, "AccessDenied", "Request is not valid yet."),
	}
}

func expired(c *call, err error) *fault {
	e := &sigv4.Error{}
	errors.As(err, &e)
	return refused(http.StatusForbidden, "AccessDenied", "Request has expired.",
		field{"X-Amz-Expires", c.r.URL.Query().Get("X-Amz-Expires")}, field{"Expires", e.Got}, field{"ServerTime", e.Want})
}

// signatureCauses: what is signed, by whom, and whether that is so.
func signatureCauses() []cause {
	return []cause{
		signed(sigv4.ErrUnsignedHeaders, func(e *sigv4.Error) *fault {
			return refused(http.StatusForbidden, "AccessDenied", "There were headers present in the request which were not signed", field{"HeadersNotSigned", e.Got})
		}),
		fixed(sigv4.ErrNoContentHash, http.StatusBadRequest, "InvalidRequest", "Missing required header for this request: x-amz-content-sha256"),
		signed(sigv4.ErrContentHash, func(e *sigv4.Error) *fault {
			return invalidArgument("x-amz-content-sha256 must be UNSIGNED-PAYLOAD, STREAMING-UNSIGNED-PAYLOAD-TRAILER, "+
				"STREAMING-AWS4-HMAC-SHA256-PAYLOAD, STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER, STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD, "+
				"STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD-TRAILER or a valid sha256 value.", "x-amz-content-sha256", e.Got)
		}),
		signed(sigv4.ErrUnknownKey, func(e *sigv4.Error) *fault {
			return refused(http.StatusForbidden, "InvalidAccessKeyId", "The AWS Access Key Id you provided does not exist in our records.", field{"AWSAccessKeyId", e.Got})
		}),
		signed(sigv4.ErrSignature, func(e *sigv4.Error) *fault {
			return refused(http.StatusForbidden, "SignatureDoesNotMatch", "The request signature we calculated does not match the signature you provided. "+
				"Check your key and signing method.", mismatchFields(e)...)
		}),
	}
}

// mismatchFields let a client compare what it has signed with what it should have.
func mismatchFields(e *sigv4.Error) []field {
	var given []field
	for _, f := range []field{
		{"AWSAccessKeyId", e.Got},
		{"StringToSign", e.StringToSign},
		{"SignatureProvided", e.Signature},
		{"StringToSignBytes", hexBytes(e.StringToSign)},
		{"CanonicalRequest", e.CanonicalRequest},
		{"CanonicalRequestBytes", hexBytes(e.CanonicalRequest)},
	} {
		if f.value != "" {
			given = append(given, f)
		}
	}
	return given
}

// hexBytes writes each byte as two digits, with blanks between, as S3 does.
func hexBytes(s string) string { return fmt.Sprintf("% x", s) }

// formCauses: what sigv4 finds wrong with the signature and the policy of a form.
func formCauses() []cause {
	const policy = "Invalid according to Policy: "
	return []cause{
		signed(sigv4.ErrField, func(e *sigv4.Error) *fault { return fieldMissing(e.Got) }),
		signed(sigv4.ErrPolicy, func(e *sigv4.Error) *fault { return bad("InvalidPolicyDocument", "Invalid Policy: "+e.Got) }),
		fixed(sigv4.ErrPolicyExpired, http.StatusForbidden, "AccessDenied", policy+"Policy expired."),
		signed(sigv4.ErrCondition, func(e *sigv4.Error) *fault {
			return refused(http.StatusForbidden, "AccessDenied", policy+"Policy Condition failed: "+e.Got)
		}),
		signed(sigv4.ErrExtraField, func(e *sigv4.Error) *fault {
			return refused(http.StatusForbidden, "AccessDenied", policy+"Extra input fields: "+e.Got)
		}),
	}
}

// bodyCauses: what sigv4 finds wrong with a body.
func bodyCauses() []cause {
	return []cause{
		fixed(sigv4.ErrIncomplete, http.StatusBadRequest, "IncompleteBody", "The request body terminated unexpectedly"),
		fixed(sigv4.ErrLength, http.StatusBadRequest, "IncompleteBody", "You did not provide the number of bytes specified by the Content-Length HTTP header"),
		fixed(sigv4.ErrChunkSize, http.StatusBadRequest, "InvalidChunkSizeError", "Only the last chunk is allowed to have a size less than 8192 bytes"),
		fixed(sigv4.ErrTrailer, http.StatusBadRequest, "MalformedTrailerError", "The request contained trailing data that was not well-formed or did not conform to our published schema."),
		signed(sigv4.ErrBodyHash, func(e *sigv4.Error) *fault {
			return bad("XAmzContentSHA256Mismatch", "The provided 'x-amz-content-sha256' header does not match what was computed.",
				field{"ClientComputedContentSHA256", e.Got}, field{"S3ComputedContentSHA256", e.Want})
		}),
	}
}
