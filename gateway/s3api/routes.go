package s3api

import (
	"net/http"
	"slices"
	"strings"
)

// route is one operation. A request reaches it when level and method are its own,
// all of need are among its parameters, and the rest of them in may. Everything
// else about it that S3 knows and this table does not is NotImplemented.
type route struct {
	name    string // S3's name of the operation
	action  string // what access decides on; empty where the handler asks itself
	version string // in place of action, where the request names a version
	level   level
	method  string
	need    []string
	may     []string
	given   string   // a header that the request must carry
	headers []string // x-amz-* headers beside those that all operations take
	open    bool     // carries no signature, or one that the handler looks for itself
	run     func(*call) error
}

func words(s string) []string { return strings.Fields(s) }

// match finds the operation, or the error that S3 has for a request that names
// none.
func (c *call) match() (route, error) {
	if err := c.copySourceMisplaced(); err != nil {
		return route{}, err
	}
	if err := c.streamMisplaced(); err != nil {
		return route{}, err
	}
	for _, r := range c.routes {
		if r.level == c.level && r.method == c.r.Method && c.fits(r) {
			return r, nil
		}
	}
	return route{}, c.unmatched()
}

func (c *call) fits(r route) bool {
	if r.given != "" && c.header.Get(r.given) == "" {
		return false
	}
	for _, name := range r.need {
		if !c.query.Has(name) {
			return false
		}
	}
	for name := range c.query {
		if !slices.Contains(r.need, name) && !slices.Contains(r.may, name) {
			return false
		}
	}
	return true
}

func (c *call) copySourceMisplaced() error {
	source := c.header.Get("X-Amz-Copy-Source")
	if source == "" || c.r.Method == http.MethodPut && c.level == levelObject {
		return nil
	}
	return invalidArgument("You can only specify a copy source header for copy requests.", "x-amz-copy-source", source)
}

// streamMisplaced: S3 takes documents about buckets in one piece.
func (c *call) streamMisplaced() error {
	if c.level == levelBucket && c.r.Method == http.MethodPut && strings.HasPrefix(c.header.Get("X-Amz-Content-Sha256"), "STREAMING-") {
		return invalidRequest("The value of x-amz-content-sha256 header is invalid.")
	}
	return nil
}

// unmatched tells requests that make no sense from those that nobody has written
// a handler for.
func (c *call) unmatched() error {
	if c.query.Has("AWSAccessKeyId") && c.query.Has("Signature") { // presigned by version 2
		return invalidRequest("The authorization mechanism you have provided is not supported. Please use AWS4-HMAC-SHA256.")
	}
	object := c.level == levelObject
	plain := len(c.query) == 0
	switch c.r.Method {
	case http.MethodGet:
		if object && c.query.Has("uploads") {
			return invalidRequest("Key is not expected for the GET method ?uploads subresource")
		}
		if object && c.query.Has("versions") {
			return invalidRequest("There is no such thing as the ?versions sub-resource for a key")
		}
	case http.MethodPut:
		if object && c.query.Has("partNumber") && !c.query.Has("uploadId") {
			return invalidArgument("This operation does not accept partNumber without uploadId", "partNumber", "partNumber") // so S3
		}
		if object && len(c.query) == 1 && c.query.Has("uploadId") {
			return methodNotAllowed(c.r.Method, "UPLOAD")
		}
		if c.level == levelService {
			return methodNotAllowed(c.r.Method, "SERVICE")
		}
	case http.MethodPost:
		if plain {
			return methodNotAllowed(c.r.Method, "SERVICE")
		}
	case http.MethodHead, http.MethodDelete, http.MethodOptions:
		if plain && c.level == levelService {
			return methodNotAllowed(c.r.Method, "SERVICE")
		}
	default:
		return methodNotAllowed(c.r.Method, "OBJECT")
	}
	return notImplemented("")
}
