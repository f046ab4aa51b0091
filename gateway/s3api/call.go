package s3api

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"go.uber.org/zap"

	"chatelaine/gateway/access"
	"chatelaine/gateway/keys"
	"chatelaine/gateway/objects"
	"chatelaine/gateway/sigv4"
)

// call is one request under way. It is for one goroutine.
type call struct {
	*Handler
	ctx context.Context //nolint:containedctx // lives as long as one request
	r   *http.Request
	w   *response
	id  string

	target // what the request is about
	header http.Header
	query  url.Values
	route  route

	signed    *sigv4.Signed
	principal string
	bucket    keys.Bucket
	source    source // of a copy
	body      *progress
	content   io.Reader // what the operation reads in place of body; nil for body itself

	start time.Time
	code  string // S3's error code, or "OK"
	cause error  // what the client is not told
}

func (h *Handler) newCall(w http.ResponseWriter, r *http.Request) *call {
	c := &call{Handler: h, ctx: r.Context(), r: r, id: strings.ToUpper(randomID(8)), start: h.Now(), code: "OK"}
	c.w = newResponse(w, h.Stall)
	c.body = newProgress(w, r.Body, h.Stall)
	c.ctx = objects.WithInterrupt(c.ctx, c.w.interrupt)
	head := w.Header()
	head.Set("Server", "Chatelaine")
	head.Set("X-Amz-Request-Id", c.id)
	head.Set("X-Amz-Id-2", h.hostID)
	return c
}

// serve goes through the steps that every operation shares.
func (c *call) serve() error {
	if headerSize(c.r) > maxHeaders {
		return headersTooLarge()
	}
	var err error
	if c.target, err = parseTarget(c.r, c.Domain); err != nil {
		return err
	}
	if c.header, c.query, err = split(c.r); err != nil {
		return err
	}
	if c.r.Method == http.MethodOptions && c.level != levelService {
		c.route = route{name: "OptionsObject"}
		return c.preflight()
	}
	if err := c.allowOrigin(); err != nil {
		return err
	}
	if c.route, err = c.match(); err != nil {
		return err
	}
	if c.route.open {
		return c.route.run(c)
	}
	if err := c.authenticate(); err != nil {
		return err
	}
	return c.run()
}

// run does the operation for a principal that is known by now.
func (c *call) run() error {
	if err := c.checkHeaders(); err != nil {
		return err
	}
	if err := c.checkVersion(); err != nil {
		return err
	}
	if err := c.findBucket(); err != nil {
		return err
	}
	if err := c.authorizeOperation(); err != nil {
		return err
	}
	return c.route.run(c)
}

func (c *call) authenticate() error {
	signed, err := c.verifier.Verify(c.ctx, c.r)
	if err != nil {
		return err
	}
	key, ok := signed.Key.(keys.SigningKey)
	if !ok {
		return fmt.Errorf("s3api: a signing key of another kind: %T", signed.Key)
	}
	c.signed, c.principal = signed, key.Principal
	return nil
}

// findBucket looks the bucket up, where the operation needs one that is there.
func (c *call) findBucket() error {
	if c.level == levelService || c.route.name == "CreateBucket" {
		return nil
	}
	if !validBucketName(c.bucketName) {
		return invalidBucketName(c.bucketName)
	}
	var err error
	if c.bucket, err = c.Service.Bucket(c.ctx, c.bucketName); err != nil {
		return err
	}
	if owner := c.header.Get("X-Amz-Expected-Bucket-Owner"); owner != "" && !c.owns(c.bucket, owner) {
		return accessDenied()
	}
	return nil
}

// owns says whether a name is that of a bucket's owner. Clients that know no other
// name of themselves than their access key's id may use that.
func (c *call) owns(b keys.Bucket, name string) bool {
	if name == b.Owner {
		return b.Owner != ""
	}
	return c.signed != nil && c.principal == b.Owner && name == c.signed.Scope.AccessKey
}

// checkVersion judges the version that a request names. Some SDKs send an empty one
// for "the newest" with retentions and holds.
func (c *call) checkVersion() error {
	version := c.query.Get("versionId")
	if !c.query.Has("versionId") || validVersion(version) || version == "" && lockOperation(c.route.name) {
		return nil
	}
	return invalidVersion(version)
}

// authorizeOperation asks for what the row says; where that is nothing, the handler
// asks.
func (c *call) authorizeOperation() error {
	action := c.route.action
	if c.route.version != "" && c.query.Has("versionId") {
		action = c.route.version
	}
	if action == "" {
		return nil
	}
	return c.authorize(action, c.key)
}

// authorize has one action on the request's own bucket decided and recorded.
func (c *call) authorize(action, key string) error {
	return c.authorizeIn(c.bucketName, c.bucket.Owner, action, key)
}

func (c *call) authorizeIn(bucket, owner, action, key string) error {
	return c.Authorizer.Authorize(c.ctx, c.question(bucket, owner, action, key))
}

func (c *call) question(bucket, owner, action, key string) access.Request {
	source, _ := netip.ParseAddrPort(c.r.RemoteAddr)
	return access.Request{
		Principal: c.principal, AccessKey: c.signed.Scope.AccessKey, Action: action,
		Bucket: bucket, Owner: owner, Key: key, Prefix: c.query.Get("prefix"),
		Source: source.Addr().Unmap(), TLS: c.r.TLS != nil, Presigned: c.signed.Presigned || c.route.name == "PostObject",
		Reason: c.header.Get(reasonHeader), RequestID: c.id,
	}
}

// finish logs and counts, also when a handler cuts the connection.
func (c *call) finish() {
	if c.r.ContentLength != 0 {
		c.body.abandon()
	}
	took := c.Now().Sub(c.start)
	status := c.w.status
	if status == 0 {
		status = http.StatusOK
	}
	op := c.route.name
	if op == "" {
		op = "Unknown"
	}
	c.metrics.observe(op, c.code, took, c.body.n, c.w.n)
	fields := []zap.Field{
		zap.String("op", op), zap.String("bucket", c.bucketName), zap.String("key", c.key),
		zap.Int("status", status), zap.String("code", c.code),
		zap.Int64("bytes_in", c.body.n), zap.Int64("bytes_out", c.w.n), zap.Duration("duration", took),
		zap.String("request_id", c.id), zap.String("principal", c.principal), zap.String("bucket_key", c.bucket.KEK),
	}
	if c.cause != nil {
		fields = append(fields, zap.Error(c.cause))
	}
	c.logLine(fields)
}

// logLine: a client that went away is no news; what the table marks a person must
// look at.
func (c *call) logLine(fields []zap.Field) {
	switch {
	case errors.Is(c.ctx.Err(), context.Canceled):
		c.log.Debug("client went away", fields...)
	case c.w.alarm:
		c.log.Error("request failed", fields...)
	default:
		c.log.Info("request", fields...)
	}
}

// randomID returns n random bytes in hexadecimal.
func randomID(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
}
