package s3api

import (
	"cmp"
	"encoding/xml"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"go.uber.org/zap"

	"chatelaine/gateway/keys"
)

// maxCORSRules is S3's limit.
const maxCORSRules = 100

type corsDocument struct {
	XMLName xml.Name   `xml:"http://s3.amazonaws.com/doc/2006-03-01/ CORSConfiguration"`
	Rules   []corsRule `xml:"CORSRule"`
}

// corsInput is a corsDocument as clients write it, with or without namespace.
type corsInput struct {
	Rules []corsRule `xml:"CORSRule"`
}

type corsRule struct {
	ID             string   `xml:",omitempty"`
	AllowedOrigins []string `xml:"AllowedOrigin"`
	AllowedMethods []string `xml:"AllowedMethod"`
	AllowedHeaders []string `xml:"AllowedHeader"`
	ExposeHeaders  []string `xml:"ExposeHeader"`
	MaxAgeSeconds  *int
}

// corsMethods are those that a rule may allow.
func corsMethods() []string {
	return []string{http.MethodGet, http.MethodPut, http.MethodPost, http.MethodDelete, http.MethodHead}
}

func (c *call) getCORS() error {
	text, err := c.configured(configCORS)
	if err == nil && text == nil {
		err = refused(http.StatusNotFound, "NoSuchCORSConfiguration", "The CORS configuration does not exist", field{"BucketName", c.bucketName})
	}
	if err != nil {
		return err
	}
	return c.writeStored(text)
}

func (c *call) putCORS() error {
	var document corsInput
	if err := c.readConfig("CORSConfiguration", &document); err != nil {
		return err
	}
	if n := len(document.Rules); n == 0 || n > maxCORSRules {
		return malformedXML()
	}
	for _, r := range document.Rules {
		if err := r.check(); err != nil {
			return err
		}
	}
	return c.done(c.storeConfig(configCORS, corsDocument{Rules: document.Rules}))
}

func (c *call) deleteCORS() error {
	return c.gone(c.Service.SetBucketConfig(c.ctx, c.bucket, configCORS, nil))
}

// check judges a rule as S3 does ("Elements of a CORS configuration").
func (r corsRule) check() error {
	if len(r.AllowedOrigins) == 0 || len(r.AllowedMethods) == 0 || len(r.ID) > 255 {
		return malformedXML()
	}
	for _, origin := range r.AllowedOrigins {
		if strings.Count(origin, "*") > 1 {
			return invalidRequest(fmt.Sprintf("AllowedOrigin %q can not have more than one wildcard.", origin))
		}
	}
	for _, method := range r.AllowedMethods {
		if !slices.Contains(corsMethods(), method) {
			return invalidRequest("Found unsupported HTTP method in CORS config. Unsupported method is " + method)
		}
	}
	return r.checkHeaders()
}

func (r corsRule) checkHeaders() error {
	for _, name := range slices.Concat(r.AllowedHeaders, r.ExposeHeaders) {
		if !headerName(name) {
			return invalidRequest(`AllowedHeader "` + name + `" contains invalid character.`)
		}
	}
	for _, name := range r.AllowedHeaders {
		if strings.Count(name, "*") > 1 {
			return invalidRequest(`AllowedHeader "` + name + `" can not have more than one wildcard.`)
		}
	}
	for _, name := range r.ExposeHeaders {
		if strings.Contains(name, "*") {
			return invalidRequest(`ExposeHeader "` + name + `" contains wildcard. We currently do not support wildcard for ExposeHeader.`)
		}
	}
	return nil
}

// headerName is RFC 9110's token; "*" is one of its characters.
func headerName(s string) bool {
	for _, ch := range []byte(s) {
		if !alphanumeric(ch|0x20) && !strings.ContainsRune("!#$%&'*+-.^_`|~", rune(ch)) {
			return false
		}
	}
	return s != ""
}

// matchWildcard matches a pattern with at most one "*".
func matchWildcard(pattern, s string) bool {
	before, after, wild := strings.Cut(pattern, "*")
	if !wild {
		return pattern == s
	}
	return len(s) >= len(before)+len(after) && strings.HasPrefix(s, before) && strings.HasSuffix(s, after)
}

// corsRequest is what a browser asks, or does. Headers are in lower case.
type corsRequest struct {
	origin, method string
	headers        []string
}

// allows says whether the rule lets the request pass, and by which of its origins.
func (r corsRule) allows(q corsRequest) (origin string, ok bool) {
	i := slices.IndexFunc(r.AllowedOrigins, func(pattern string) bool { return matchWildcard(pattern, q.origin) })
	if i < 0 || !slices.Contains(r.AllowedMethods, q.method) {
		return "", false
	}
	for _, name := range q.headers {
		if !slices.ContainsFunc(r.AllowedHeaders, func(p string) bool { return matchWildcard(strings.ToLower(p), name) }) {
			return "", false
		}
	}
	return r.AllowedOrigins[i], true
}

// answer writes what a browser needs to know. Credentials are of no use where any
// origin may come.
func (r corsRule) answer(h http.Header, pattern string, q corsRequest) {
	if pattern == "*" {
		h.Set("Access-Control-Allow-Origin", "*")
	} else {
		h.Set("Access-Control-Allow-Origin", q.origin)
		h.Set("Access-Control-Allow-Credentials", "true")
	}
	h.Set("Access-Control-Allow-Methods", strings.Join(r.AllowedMethods, ", "))
	setIf(h, "Access-Control-Allow-Headers", strings.Join(q.headers, ", "))
	setIf(h, "Access-Control-Expose-Headers", strings.Join(r.ExposeHeaders, ", "))
	if r.MaxAgeSeconds != nil {
		h.Set("Access-Control-Max-Age", strconv.Itoa(*r.MaxAgeSeconds))
	}
}

func vary(h http.Header) {
	h.Set("Vary", "Origin, Access-Control-Request-Headers, Access-Control-Request-Method")
}

// corsRules reads the rules of a bucket; none where it has no configuration.
func (c *call) corsRules(bucket keys.Bucket) ([]corsRule, error) {
	text, err := (&call{Handler: c.Handler, ctx: c.ctx, bucket: bucket}).configured(configCORS)
	if err != nil || text == nil {
		return nil, err
	}
	var document corsInput
	if err := decodeXML(text, "CORSConfiguration", &document); err != nil {
		return nil, fmt.Errorf("s3api: reading the CORS rules of bucket %q: the stored document is damaged", bucket.Name)
	}
	return document.Rules, nil
}

// grantCORS answers by the first rule that allows the request.
func grantCORS(h http.Header, rules []corsRule, q corsRequest) bool {
	for _, r := range rules {
		if pattern, ok := r.allows(q); ok {
			r.answer(h, pattern, q)
			return true
		}
	}
	return false
}

// allowOrigin adds the headers that let a browser's page see the answer, also when
// that will be an error. Rules that cannot be read do not fail the request: the page
// then sees nothing. Where a request carries what only preflights do, S3 judges it by
// that; browsers never send it, and pages cannot.
func (c *call) allowOrigin() error {
	if c.r.Header.Get("Origin") == "" || c.level == levelService || !validBucketName(c.bucketName) {
		return nil
	}
	bucket, err := c.Service.Bucket(c.ctx, c.bucketName)
	if err != nil {
		return nil //nolint:nilerr // the operation finds out itself
	}
	rules, err := c.corsRules(bucket)
	if err != nil {
		c.log.Warn("CORS rules cannot be read", zap.String("bucket", c.bucketName), zap.String("request_id", c.id), zap.Error(err))
		return nil
	}
	if len(rules) == 0 {
		return nil
	}
	q, err := c.corsRequest(c.r.Method)
	if err != nil {
		return err
	}
	vary(c.w.Header())
	grantCORS(c.w.Header(), rules, q)
	return nil
}

// preflight answers what a browser asks before it sends a request. It carries no
// signature, and tells nothing but what the rules allow.
func (c *call) preflight() error {
	q, err := c.corsRequest("")
	if err != nil {
		return err
	}
	if err := c.findBucket(); err != nil {
		return err
	}
	rules, err := c.corsRules(c.bucket)
	if err != nil {
		return err
	}
	h := c.w.Header()
	vary(h)
	if len(rules) == 0 {
		return c.forbidden("CORSResponse: CORS is not enabled for this bucket.")
	}
	if !grantCORS(h, rules, q) {
		return c.forbidden("CORSResponse: This CORS request is not allowed. This is usually because the evalution of Origin, " +
			"request method / Access-Control-Request-Method or Access-Control-Request-Headers are not whitelisted by the resource's CORS spec.")
	}
	return c.done(nil)
}

func (c *call) forbidden(message string) *fault {
	kind := "BUCKET"
	if c.level == levelObject {
		kind = "OBJECT"
	}
	return refused(http.StatusForbidden, "AccessForbidden", message, field{"Method", c.r.Header.Get("Access-Control-Request-Method")}, field{"ResourceType", kind})
}

// corsRequest reads what a browser asks. Method counts where it names none; a
// preflight must.
func (c *call) corsRequest(method string) (q corsRequest, err error) {
	h := c.r.Header
	if q.origin = h.Get("Origin"); q.origin == "" {
		return q, bad("BadRequest", "Insufficient information. Origin request header needed.")
	}
	asked := h.Get("Access-Control-Request-Method")
	q.method = cmp.Or(asked, method)
	if (asked != "" || method == "") && !slices.Contains(corsMethods(), asked) {
		return q, bad("BadRequest", "Invalid Access-Control-Request-Method: "+cmp.Or(asked, "null"))
	}
	for _, name := range strings.Split(h.Get("Access-Control-Request-Headers"), ",") {
		trimmed := strings.TrimSpace(name)
		if trimmed == "" {
			continue
		}
		if !headerName(trimmed) {
			return q, bad("BadRequest", `Access-Control-Request-Headers "`+name+`" contains invalid character.`)
		}
		q.headers = append(q.headers, strings.ToLower(trimmed))
	}
	return q, nil
}
